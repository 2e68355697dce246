//! Files that change while the server runs.
//!
//! Certificates are renewed in their files. Once a second the files are looked at; when they have
//! changed and stayed the same for a look, they are read again. New handshakes use what was read;
//! connections that exist go on as they are. Files that cannot be used change nothing, and that is
//! said once.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use super::Fault;
use super::parameters::FileNames;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What could not be used is tried again after so many looks: it may only become valid later.
const RETRY_LOOKS: u32 = 60;

/// A value that may be replaced while it is used; clones are the same value.
pub struct Live<T>(Arc<Mutex<Arc<T>>>);

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Live<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Live")
    }
}

impl<T> Live<T> {
    /// A value.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(value))))
    }

    /// The present value.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces it for everybody who asks from now on.
    pub fn set(&self, value: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}

/// What a file looked like; `None` when it is not there.
type Stamp = Option<(u64, u64, u64, [i64; 4])>;

/// Files whose values are renewed.
#[derive(Default)]
pub struct Renewals {
    items: Vec<Item>,
}

impl fmt::Debug for Renewals {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Renewals")
            .field("items", &self.items.len())
            .finish()
    }
}

struct Item {
    files: Vec<PathBuf>,
    /// What they looked like when they were read.
    taken: Vec<Stamp>,
    /// What they looked like at the last look.
    seen: Vec<Stamp>,
    /// What could not be used, and how many looks ago that was.
    refused: Option<(Vec<Stamp>, u32)>,
    read: Box<dyn Fn() -> Result<(), Fault> + Send>,
}

impl Renewals {
    /// Makes a value from files and keeps it fresh.
    ///
    /// # Errors
    /// That of `make`, the first time.
    pub fn add<T: Send + Sync + 'static>(
        &mut self,
        files: &FileNames,
        make: impl Fn() -> Result<T, Fault> + Send + 'static,
    ) -> Result<Live<T>, Fault> {
        let files = files.all();
        let taken = stamps(&files);
        let live = Live::new(make()?);
        let target = live.clone();
        self.items.push(Item {
            seen: taken.clone(),
            taken,
            files,
            refused: None,
            read: Box::new(move || {
                target.set(make()?);
                Ok(())
            }),
        });
        Ok(live)
    }

    /// Looks at all files. Returns what was renewed and what could not be used, for tests.
    pub(super) fn look(&mut self) -> (usize, Vec<Fault>) {
        let mut renewed = 0;
        let mut faults = Vec::new();
        for item in &mut self.items {
            match item.look() {
                Ok(true) => renewed += 1,
                Ok(false) => {}
                Err(fault) => faults.push(fault),
            }
        }
        (renewed, faults)
    }

    /// Looks from time to time, on a thread of its own, until the returned value is dropped.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn watch(mut self) -> io::Result<Watch> {
        let (end, ended) = channel();
        if !self.items.is_empty() {
            Builder::new()
                .name("tls-files".to_owned())
                .spawn(move || self.run(&ended))?;
        }
        Ok(Watch { _end: end })
    }

    fn run(&mut self, ended: &Receiver<()>) {
        while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            let (renewed, mut faults) = self.look();
            // Two listeners may use the same files.
            faults.dedup();
            if renewed > 0 {
                tracing::info!(
                    event = "tls_renewed",
                    "certificates or keys have changed; new connections use the new ones"
                );
            }
            for fault in faults {
                tracing::warn!(
                    event = "tls_renewal_failed",
                    parameter = fault.parameter,
                    "{fault}; what was read before stays in use"
                );
            }
        }
    }
}

/// Ends the watching when it is dropped.
#[derive(Debug)]
pub struct Watch {
    _end: Sender<()>,
}

impl Item {
    /// Whether new files were taken.
    fn look(&mut self) -> Result<bool, Fault> {
        let now = stamps(&self.files);
        let is_stable = now == self.seen;
        self.seen.clone_from(&now);
        // A renewal may touch several files: it is over when nothing has changed for a look.
        if now == self.taken || !is_stable {
            return Ok(false);
        }
        let mut is_known = false;
        if let Some((refused, looks)) = &mut self.refused
            && *refused == now
        {
            *looks += 1;
            if *looks < RETRY_LOOKS {
                return Ok(false);
            }
            is_known = true;
        }
        match (self.read)() {
            Ok(()) => {
                self.taken = now;
                self.refused = None;
                Ok(true)
            }
            Err(fault) => {
                self.refused = Some((now, 0));
                if is_known { Ok(false) } else { Err(fault) }
            }
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let data = std::fs::metadata(path).ok()?;
        let times = [
            data.mtime(),
            data.mtime_nsec(),
            data.ctime(),
            data.ctime_nsec(),
        ];
        Some((data.dev(), data.ino(), data.len(), times))
    };
    files.iter().map(stamp).collect()
}
