//! Ends the process when the store may belong to somebody else and nobody can tell.
//!
//! When the last durable write is too old, confirms and deliveries stop and a write through the
//! lock is forced. If that write hangs (a network file system that does not answer), no other
//! thread can notice in time. This one touches no file of the store, so nothing can make it hang.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle, park_timeout};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::clock;

/// Exit code of a server that lost its store (surface.md).
const EXIT_FENCED: i32 = 5;
const LOOK_EVERY: Duration = Duration::from_millis(50);
const UNARMED: u64 = 0;

#[derive(Debug, Default)]
struct Shared {
    /// When to end, in the clock of `boot_ms`; 0: not armed.
    deadline_ms: AtomicU64,
    is_dropped: AtomicBool,
}

/// A thread that waits for a deadline which in ordinary life never comes.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts the thread; at the deadline the process ends with code 5.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn start() -> io::Result<Self> {
        Self::start_with(end_process)
    }

    fn start_with(expire: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = Builder::new()
            .name(String::from("watchdog"))
            .spawn(move || {
                while !theirs.is_dropped.load(Ordering::Acquire) {
                    let deadline_ms = theirs.deadline_ms.load(Ordering::Acquire);
                    if deadline_ms != UNARMED && clock::boot_ms() >= deadline_ms {
                        return expire();
                    }
                    park_timeout(LOOK_EVERY);
                }
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// From now on the process ends at `deadline_ms`, unless it is disarmed before. An earlier
    /// deadline stays.
    pub(crate) fn arm(&self, deadline_ms: u64) {
        // Failing means that it is armed already.
        let _armed = self.shared.deadline_ms.compare_exchange(
            UNARMED,
            deadline_ms.max(1),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
    }

    /// The write succeeded: ownership is certain again.
    pub(crate) fn disarm(&self) {
        self.shared.deadline_ms.store(UNARMED, Ordering::Release);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.is_dropped.store(true, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

fn end_process() {
    // An orderly exit may hang as well, for example on a log that nobody reads.
    let last_resort = Builder::new().name(String::from("last resort")).spawn(|| {
        park_timeout(Duration::from_secs(1));
        let _gone = kill(Pid::this(), Signal::SIGKILL);
    });
    if last_resort.is_err() {
        let _gone = kill(Pid::this(), Signal::SIGKILL);
    }
    tracing::error!(
        event = "fenced",
        "no write of the store has succeeded in time: ownership is in doubt, the process ends"
    );
    std::process::exit(EXIT_FENCED);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use super::*;

    #[test]
    fn it_strikes_at_the_deadline() {
        let (sender, receiver) = channel();
        let dog =
            Watchdog::start_with(move || sender.send(()).expect("the test waits")).expect("thread");
        dog.arm(clock::boot_ms());
        receiver
            .recv_timeout(Duration::from_secs(10))
            .expect("the deadline has passed");
    }

    #[test]
    fn a_disarmed_one_does_nothing() {
        let (sender, receiver) = channel::<()>();
        let dog = Watchdog::start_with(move || drop(sender)).expect("thread");
        dog.arm(clock::boot_ms() + 60_000);
        dog.disarm();
        let wait = receiver.recv_timeout(LOOK_EVERY * 3);
        assert_eq!(wait, Err(RecvTimeoutError::Timeout));
    }
}
