//! Work that many wait for, and that is done once: it goes on whoever waits for it.

use tokio::sync::watch;

/// What is to come of such work.
#[derive(Clone)]
pub(crate) struct Flight<T>(watch::Receiver<Option<T>>);

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// Begins it, on its own: who asked first may go away, and others wait for the same answer.
    pub(crate) fn begin(work: impl Future<Output = T> + Send + 'static) -> Self {
        let (tell, told) = watch::channel(None);
        tokio::spawn(async move { tell.send_replace(Some(work.await)) });
        Self(told)
    }

    /// Whether it goes on. One that ended without a word does not.
    pub(crate) fn is_under_way(&self) -> bool {
        self.0.has_changed().is_ok()
    }

    /// What comes of it; nothing, where it ends without a word.
    pub(crate) async fn outcome(mut self) -> Option<T> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}
