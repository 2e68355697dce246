//! The log: one line an event, for people or for programs.
//!
//! An event has a name in the field `event` (the surface lists them) and a message. As text:
//!
//! ```text
//! 2026-11-22T09:44:23.120034Z  INFO active: serving clients epoch=7 lock_to_ready_ms=31.5
//! ```
//!
//! With `--log-format json` each line is an object with `timestamp`, `level`, `event`, `message`
//! and the event's own fields.

use std::fmt;
use std::io;

use steadfast_storage::{RecoveryReport, WarmUse};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::logfile;
use crate::role;

pub use super::logfile::LogFileOptions;
pub(crate) use super::logfile::rotate;

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends the log of this process to standard error, or to a file that is appended to.
///
/// # Errors
/// When the file cannot be opened. A log that is set up already stays as it is.
pub fn init(format: LogFormat, logfile: Option<LogFileOptions>) -> io::Result<()> {
    let writer = match logfile {
        Some(options) => {
            logfile::open(options)?;
            BoxMakeWriter::new(|| logfile::Writer)
        }
        None => BoxMakeWriter::new(io::stderr),
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(Level::INFO)
        .with_writer(writer);
    let result = match format {
        LogFormat::Text => builder.event_format(TextLine).try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_target(false)
            .try_init(),
    };
    // Only tests that share a process meet a log that exists.
    result.or(Ok(()))
}

/// Writes a change of role or news of a peer.
pub(crate) fn role_event(event: &role::Event) {
    use role::Event;
    match event {
        // These two carry more than the role knows; the server writes them.
        Event::Starting | Event::Active { .. } => {}
        Event::Standby { reason } => {
            tracing::info!(event = "standby", reason, "standing by");
        }
        Event::Activating { reason } => {
            tracing::info!(event = "activating", reason, "trying for the store");
        }
        Event::Recovering => {
            tracing::info!(
                event = "recovering",
                "the store is locked, recovering its state"
            );
        }
        Event::LockRefused { reason } => {
            tracing::warn!(
                event = "lock_refused",
                reason,
                "the store belongs to another server; this one stands by and goes on trying"
            );
        }
        Event::PeerConnected { peer, state } => {
            tracing::info!(event = "peer_connected", peer, peer_role = %state, "a peer is in sight");
        }
        Event::PeerLost {
            peer,
            state,
            reason,
        } => {
            tracing::warn!(event = "peer_lost", peer, peer_role = %state, reason, "a peer is lost");
        }
        Event::PeerBack { peer, state } => {
            tracing::info!(event = "peer_back", peer, peer_role = %state, "a peer is back");
        }
        Event::DualActive {
            peer,
            peer_epoch,
            epoch,
        } => {
            tracing::warn!(
                event = "dual_active",
                peer,
                peer_epoch,
                epoch,
                "a peer says that it is active too; the store decides"
            );
        }
        Event::Fenced { reason } => {
            tracing::error!(
                event = "fenced",
                reason,
                "this server may no longer write; it ends"
            );
        }
        Event::Stopping { reason } => {
            tracing::info!(event = "stopping", reason, "stopping in an orderly way");
        }
    }
}

/// Writes that a server which shares nothing with this one is in sight, or gone.
pub(crate) fn unshared_peer(peer: &role::PeerNews, is_there: bool, reason: &str) {
    let (name, state) = (&peer.name, peer.state);
    if is_there {
        tracing::info!(
            event = "unshared_peer_connected",
            peer = name,
            peer_role = %state,
            "a server that shares nothing with this one is in sight"
        );
    } else {
        tracing::warn!(
            event = "unshared_peer_lost",
            peer = name,
            reason,
            "a server that shares nothing with this one is lost"
        );
    }
}

/// Writes what a recovery found that an operator should know.
pub(crate) fn recovery_findings(report: &RecoveryReport) {
    if let Some(torn) = &report.torn {
        tracing::warn!(
            event = "torn_tail",
            file = torn.file,
            offset = torn.offset,
            bytes = torn.bytes,
            "a write that was cut short is ignored; nothing in it was confirmed"
        );
    }
    for damage in &report.damaged {
        tracing::error!(
            event = "log_damaged",
            file = damage.file,
            offset = damage.offset,
            bytes = damage.bytes,
            records = damage.records,
            "a part of the log cannot be read; what follows it is served"
        );
    }
    if let WarmUse::Refused(reason) = &report.warm {
        tracing::info!(
            event = "warm_refused",
            reason,
            "what this standby had kept of the log was not used; checkpoint and log were read"
        );
    }
    if let Some(reason) = &report.rebuilt {
        tracing::info!(
            event = "checkpoint_rebuilt",
            reason,
            "the checkpoint could not be used; the state was read from the log"
        );
    }
}

/// `timestamp level event: message name=value ...`
struct TextLine;

impl<S, N> FormatEvent<S, N> for TextLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        write!(writer, " {:>5} ", event.metadata().level())?;
        if !fields.event.is_empty() {
            write!(writer, "{}: ", fields.event)?;
        }
        writeln!(
            writer,
            "{}{}",
            one_line(&fields.message),
            one_line(&fields.rest)
        )
    }
}

/// Values may come from clients and peers: a line break in one must not begin a new line of the log, nor may it command
/// the terminal that shows it.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter.is_control() {
            true => line.extend(letter.escape_default()),
            false => line.push(letter),
        }
    }
    line
}

#[derive(Default)]
struct Fields {
    event: String,
    message: String,
    rest: String,
}

impl Fields {
    fn push(&mut self, field: &Field, value: &str) {
        match field.name() {
            "event" => value.clone_into(&mut self.event),
            "message" => value.clone_into(&mut self.message),
            name => {
                let is_plain = !value.is_empty() && !value.contains([' ', '"', '=']);
                let quoted = if is_plain {
                    value.to_owned()
                } else {
                    format!("{value:?}")
                };
                self.rest.push_str(&format!(" {name}={quoted}"));
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;

    use super::TextLine;
    use crate::role::Event;

    fn written(act: impl FnOnce()) -> String {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let writer = Sink(Arc::clone(&lines));
        let subscriber = tracing_subscriber::fmt()
            .event_format(TextLine)
            .with_writer(move || writer.clone())
            .finish();
        with_default(subscriber, act);
        let bytes = lines.lock().expect("no writer panicked").clone();
        String::from_utf8(bytes).expect("the log is text")
    }

    #[derive(Clone)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0
                .lock()
                .expect("no writer panicked")
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_of_text_with_its_name_first() {
        let reason = "tcp://b:1 is active".to_owned();
        let text = written(|| super::role_event(&Event::Standby { reason }));
        let (_time, line) = text.split_once(' ').expect("a time stamp comes first");
        assert_eq!(
            line,
            " INFO standby: standing by reason=\"tcp://b:1 is active\"\n"
        );
    }

    #[test]
    fn a_value_cannot_begin_a_line_of_its_own() {
        let text = written(|| tracing::info!(event = "x", peer = "a\nb\x1b[1m", "c\nd"));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains('\x1b'));
        assert!(text.contains("a\\nb\\u{1b}[1m"), "{text}");
    }
}
