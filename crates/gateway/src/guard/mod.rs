//! The guard stages: what is looked at of a request and of its answer, whatever the format, as texts with the place that each has.
//!
//! A [`Guard`] sees every text of a request, and the texts of an answer as they come, each channel for itself: it may change them, hold
//! back what could go on to something that it looks for, or block. It knows nothing of formats; formats know nothing of it.
//!
//! INVARIANT: no text of an answer passes a guard by (`every_text_of_an_answer_is_in_a_channel`), and what cannot be read is not passed on
//! (`what_cannot_be_read_is_not_passed_on`).

mod request;
mod response;

pub(crate) use request::texts as request_texts;
#[cfg(test)]
pub(crate) use response::find;
pub(crate) use response::{Event, Texts};

/// Who says a text of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Whoever wrote the application.
    System,
    /// Who uses it.
    User,
    /// The model, before.
    Model,
    /// A tool, or a document.
    Tool,
    /// Nobody: what functions are called, and what they are for; settings.
    Declaration,
}

/// What a text of an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// What is said.
    Text,
    /// What was thought.
    Reasoning,
    /// Why nothing is said.
    Refusal,
    /// What a function is to be called with, as JSON: the text of this call.
    Arguments,
    /// One value within what a function is to be called with.
    Argument,
    /// Everything else that is text: code and what came out of it, sources, what was heard.
    Other,
}

/// Texts of an answer that go on from part to part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel {
    /// Which of several answers.
    pub candidate: u64,
    /// Which part of it, where parts are numbered.
    pub item: u64,
    /// What it is.
    pub kind: Kind,
}

/// Why a guard lets something not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// For people; it quotes nothing.
    pub detail: String,
}

/// Looks at requests and answers.
pub trait Guard: Send + Sync + 'static {
    /// Looks at a text of a request, and changes it where it has to be changed.
    ///
    /// # Errors
    /// [`Blocked`], if the request is not to be made.
    fn request(&self, role: Role, text: &mut String) -> Result<(), Blocked>;

    /// What looks at one answer.
    fn answer(&self) -> Box<dyn AnswerGuard>;
}

/// Looks at one answer.
pub trait AnswerGuard: Send + Sync {
    /// A text goes on: what is passed on now, of it and of what was held back before.
    ///
    /// # Errors
    /// [`Blocked`], if the answer is not to go on.
    fn part(&mut self, channel: Channel, text: &str) -> Result<String, Blocked>;

    /// A text is over: what was held back.
    ///
    /// # Errors
    /// [`Blocked`], if the answer is not to go on.
    fn end(&mut self, channel: Channel) -> Result<String, Blocked>;
}
