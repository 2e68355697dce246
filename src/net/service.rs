//! What systemd is told: ready, alive, stopping, and the role in one line of `systemctl status`.
//!
//! A server is ready as soon as it serves or stands by. It is alive while the engine thread posts
//! snapshots, the measure of `/isLive` too: the messages come from a thread of their own, so that a
//! service manager that does not answer holds up nobody.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, Thread, park_timeout};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::monitor::{Board, Status};

/// How often the thread looks at the snapshot.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A start that is under way asks for so much more time, again and again.
const START_GRANT: Duration = Duration::from_secs(10);

/// The thread that tells the service manager, if there is one.
pub(super) struct Service {
    thread: Option<Thread>,
    /// The server stops in order to begin again in this process.
    stays: Arc<AtomicBool>,
}

impl Service {
    /// Has the thread look at the snapshot now.
    pub(super) fn look(&self) {
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }

    /// Whether the end that comes is not one of the service: the server begins again in this process.
    pub(super) fn stay(&self, stays: bool) {
        self.stays.store(stays, Ordering::Relaxed);
    }
}

/// Begins to tell the service manager, if there is one, until the process ends.
///
/// # Errors
/// When there is no thread to be had.
pub(super) fn spawn(board: Board) -> io::Result<Service> {
    let stays = Arc::new(AtomicBool::new(false));
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        let thread = None;
        return Ok(Service { thread, stays });
    }
    let is_staying = Arc::clone(&stays);
    let watchdog = sd_notify::watchdog_enabled();
    let thread = Builder::new()
        .name("service-manager".to_owned())
        .spawn(move || {
            let mut told = Told::default();
            loop {
                let (age, status) = board.read();
                for message in told.messages(&status, age, watchdog, Instant::now()) {
                    if message == Message::Stopping && is_staying.load(Ordering::Relaxed) {
                        continue;
                    }
                    // It may be restarting itself; the next message comes soon.
                    let _unheard = sd_notify::notify(&message.states());
                }
                park_timeout(LOOK_EVERY);
            }
        })?;
    let thread = Some(thread.thread().clone());
    Ok(Service { thread, stays })
}

#[derive(Debug, PartialEq, Eq)]
enum Message {
    Ready,
    Role(String),
    MoreTime,
    Alive,
    Stopping,
}

impl Message {
    fn states(&self) -> Vec<NotifyState<'_>> {
        vec![match self {
            Self::Ready => NotifyState::Ready,
            Self::Role(text) => NotifyState::Status(text),
            Self::MoreTime => NotifyState::ExtendTimeoutUsec(
                u32::try_from(START_GRANT.as_micros()).unwrap_or(u32::MAX),
            ),
            Self::Alive => NotifyState::Watchdog,
            Self::Stopping => NotifyState::Stopping,
        }]
    }
}

/// What was said before.
#[derive(Default)]
struct Told {
    role: &'static str,
    is_ready: bool,
    alive_at: Option<Instant>,
    grant_at: Option<Instant>,
}

impl Told {
    /// What there is to say about a snapshot of that age. `watchdog`: the service manager ends a
    /// process that it has not heard of for so long.
    fn messages(
        &mut self,
        status: &Status,
        age: Duration,
        watchdog: Option<Duration>,
        now: Instant,
    ) -> Vec<Message> {
        let mut messages = Vec::new();
        if self.role != status.role {
            self.role = status.role;
            let text = match status.epoch {
                0 => status.role.to_owned(),
                epoch => format!("{}, epoch {epoch}", status.role),
            };
            messages.push(Message::Role(text));
            if status.role == "stopping" {
                messages.push(Message::Stopping);
            }
        }
        if !self.is_ready && matches!(status.role, "active" | "standby") {
            self.is_ready = true;
            messages.push(Message::Ready);
        }
        let is_due = |last: Option<Instant>, every: Duration| {
            last.is_none_or(|at| now.saturating_duration_since(at) >= every)
        };
        if let Some(limit) = watchdog
            && age < limit / 2
            && is_due(self.alive_at, limit / 4)
        {
            self.alive_at = Some(now);
            messages.push(Message::Alive);
        }
        let is_going_on = !self.is_ready && age < START_GRANT / 2;
        if is_going_on && is_due(self.grant_at, START_GRANT / 4) {
            self.grant_at = Some(now);
            messages.push(Message::MoreTime);
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Duration = Duration::from_millis(100);

    fn said(told: &mut Told, role: &'static str, age: Duration, now: Instant) -> Vec<Message> {
        let status = Status {
            role,
            ..Status::default()
        };
        told.messages(&status, age, Some(Duration::from_secs(8)), now)
    }

    #[test]
    fn a_server_is_ready_once_when_it_stands_by_or_serves() {
        let (mut told, start) = (Told::default(), Instant::now());
        let role = |word: &str| Message::Role(word.to_owned());
        assert_eq!(
            said(&mut told, "recovering", FRESH, start),
            [role("recovering"), Message::Alive, Message::MoreTime]
        );
        assert_eq!(said(&mut told, "recovering", FRESH, start), []);
        assert_eq!(
            said(&mut told, "standby", FRESH, start),
            [role("standby"), Message::Ready]
        );
        assert_eq!(said(&mut told, "active", FRESH, start), [role("active")]);
        assert_eq!(
            said(&mut told, "stopping", FRESH, start),
            [role("stopping"), Message::Stopping]
        );
    }

    #[test]
    fn a_server_whose_engine_hangs_is_not_called_alive() {
        let (mut told, start) = (Told::default(), Instant::now());
        said(&mut told, "active", FRESH, start);
        let later = start + Duration::from_secs(3);
        assert_eq!(said(&mut told, "active", Duration::from_secs(4), later), []);
        assert_eq!(said(&mut told, "active", FRESH, later), [Message::Alive]);
    }
}
