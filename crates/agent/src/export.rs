//! Flows of the node -> a file, on a thread of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use signet_flow::{ExportConfig, ExportCounts, ExportEvent, Filters, Mask, Ring, export};

use crate::{config::Export, error::Error};

/// A file that flows are written to.
pub(crate) struct Exporter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Exporter {
    /// Starts to write what comes from now on.
    ///
    /// # Errors
    /// If a filter or a field is not understood, or no thread can be had. A file that cannot be written is no error: it is
    /// tried again.
    pub(crate) fn start(settings: &Export, ring: &Arc<Ring>) -> Result<Self, Error> {
        let config = ExportConfig {
            path: settings.path.clone(),
            max_bytes: settings.max_size_mb.saturating_mul(1_000_000),
            max_backups: settings.max_backups,
            compress: settings.compress,
            filters: Filters::new(&settings.allow, &settings.deny)
                .map_err(|e| Error::Export(e.to_string()))?,
            mask: Mask::new(&settings.fields).map_err(|e| Error::Export(e.to_string()))?,
        };
        let (stop, reader) = (Arc::new(AtomicBool::new(false)), ring.follow());
        let stopped = Arc::clone(&stop);
        let work = move || {
            let counts = ExportCounts::default();
            let path = config.path.display();
            export(&config, reader, &counts, &stopped, |event| match event {
                ExportEvent::Failing(error) => {
                    tracing::error!(%path, %error, "flows cannot be written; it is tried every second");
                }
                ExportEvent::Resumed(missing) => tracing::warn!(%path, missing, "flows are written again"),
            });
        };
        let host = |source| Error::Host { what: "starting a thread", source };
        let thread = std::thread::Builder::new().name("export".to_owned()).spawn(work).map_err(host)?;
        Ok(Self { stop, thread })
    }

    /// Writes what is left, and ends.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}
