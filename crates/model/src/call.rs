//! One call, as it was read from a request and as it is sent on.

use std::{collections::BTreeSet, fmt};

/// What is asked of a model. The names are the providers' own, as in their paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// Vertex AI: Gemini's answer, whole.
    GenerateContent,
    /// Vertex AI: Gemini's answer, in parts.
    StreamGenerateContent,
    /// Vertex AI: how many tokens a prompt has.
    CountTokens,
    /// Vertex AI: embeddings, images, models of one's own.
    Predict,
    /// Vertex AI: a partner's format, passed through.
    RawPredict,
    /// Vertex AI: the same, in parts.
    StreamRawPredict,
    /// Vertex AI: an embedding.
    EmbedContent,
    /// OpenAI: the next message of a chat.
    ChatCompletions,
    /// OpenAI: the same, as items.
    Responses,
    /// OpenAI: how a text goes on.
    Completions,
    /// OpenAI: embeddings.
    Embeddings,
    /// Anthropic: the next message of a chat.
    Messages,
    /// Anthropic: how many tokens messages have.
    CountMessageTokens,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::GenerateContent,
        Self::StreamGenerateContent,
        Self::CountTokens,
        Self::Predict,
        Self::RawPredict,
        Self::StreamRawPredict,
        Self::EmbedContent,
        Self::ChatCompletions,
        Self::Responses,
        Self::Completions,
        Self::Embeddings,
        Self::Messages,
        Self::CountMessageTokens,
    ];

    /// Its name in paths and policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::GenerateContent => "generateContent",
            Self::StreamGenerateContent => "streamGenerateContent",
            Self::CountTokens => "countTokens",
            Self::Predict => "predict",
            Self::RawPredict => "rawPredict",
            Self::StreamRawPredict => "streamRawPredict",
            Self::EmbedContent => "embedContent",
            Self::ChatCompletions => "chat/completions",
            Self::Responses => "responses",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Messages => "messages",
            Self::CountMessageTokens => "messages/count_tokens",
        }
    }

    /// Whether its answer has tokens that were generated.
    pub fn generates(self) -> bool {
        match self {
            Self::GenerateContent
            | Self::StreamGenerateContent
            | Self::RawPredict
            | Self::StreamRawPredict
            | Self::ChatCompletions
            | Self::Responses
            | Self::Completions
            | Self::Messages => true,
            Self::CountTokens
            | Self::Predict
            | Self::EmbedContent
            | Self::Embeddings
            | Self::CountMessageTokens => false,
        }
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a request makes use of beside text and its parameters, and a policy has to permit by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// A prompt that the provider has stored.
    CachedContent,
    /// A file that the provider fetches from elsewhere.
    FileData,
    /// Images, sounds and documents within the request.
    InlineData,
    /// Functions that the model may ask the caller for.
    Tools,
    /// Tools that the provider runs itself: search, pages of the web, code.
    Grounding,
    /// The provider's safety filters, set by the caller.
    SafetySettings,
    /// Model Armor templates, set by the caller.
    ModelArmor,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::CachedContent,
        Self::FileData,
        Self::InlineData,
        Self::Tools,
        Self::Grounding,
        Self::SafetySettings,
        Self::ModelArmor,
    ];

    /// Its name in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::CachedContent => "cachedContent",
            Self::FileData => "fileData",
            Self::InlineData => "inlineData",
            Self::Tools => "tools",
            Self::Grounding => "grounding",
            Self::SafetySettings => "safetySettings",
            Self::ModelArmor => "modelArmor",
        }
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.name() == name)
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One call. What is authorised is what is sent: the request to the provider is built from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The provider, by its name.
    pub provider: String,
    /// Who made the model: `google`, `anthropic`, …
    pub publisher: String,
    /// The model, without its publisher.
    pub model: String,
    /// What is asked of it.
    pub method: Method,
    /// What it makes use of.
    pub uses: BTreeSet<Feature>,
}
