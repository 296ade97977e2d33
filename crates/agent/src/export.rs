//! Flows of the node -> a file, on a thread of its own.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use serde_json::{Value, json};
use signet_flow::{ExportConfig, ExportCounts, ExportEvent, Filters, Mask, Ring, export};

use crate::{config::Export, error::Error};

/// A file that flows are written to.
pub(crate) struct Exporter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    progress: ExportProgress,
}

/// How far it is, for whoever is asked.
#[derive(Clone)]
pub(crate) struct ExportProgress {
    file: PathBuf,
    counts: Arc<ExportCounts>,
}

impl ExportProgress {
    /// What `signet status` shows.
    pub(crate) fn status(&self) -> Value {
        let (written, unwritten) = (self.counts.written(), self.counts.unwritten());
        json!({"file": self.file.to_string_lossy(), "written": written, "unwritten": unwritten})
    }
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
        let progress = ExportProgress { file: config.path.clone(), counts: Arc::default() };
        let counts = Arc::clone(&progress.counts);
        let work = move || {
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
        Ok(Self { stop, thread, progress })
    }

    pub(crate) fn progress(&self) -> &ExportProgress {
        &self.progress
    }

    /// Writes what is left, and ends.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}
