//! What `demo` and `bench` have in common: a runtime that ends tidily, errors, progress, figures.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use super::{complain, say};
use crate::net::client::ClientError;
use crate::role::Exit;

/// Why a tool could not do its work: what happened, where, and what can be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// A client of ours.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file or directory.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Options that do not fit together.
    #[error("{0}")]
    Usage(String),
    /// Anything else, as a sentence.
    #[error("{0}")]
    Other(String),
    /// A signal.
    #[error("stopped by {0}; what was started is stopped, temporary files are removed")]
    Interrupted(&'static str),
}

impl ToolError {
    /// A closure for `map_err`.
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Client(ClientError::Url { .. }) => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

/// Runs a tool on this thread. A signal drops the tool's future where it stands: processes and
/// temporary directories that it owns go with it.
pub(crate) fn run<Work>(work: Work) -> Exit
where
    Work: Future<Output = Result<Exit, ToolError>>,
{
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("no runtime: {error}"));
            return Exit::Failed;
        }
    };
    let result = LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            result = work => result,
            name = interruption() => Err(ToolError::Interrupted(name)),
        }
    });
    // A thread that measures the disk may be in the middle of it.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit,
        Err(error) => {
            complain(&error.to_string());
            error.exit()
        }
    }
}

/// Waits for a signal that asks the tool to end.
async fn interruption() -> &'static str {
    let listen = |kind| signal(kind).ok();
    let (mut interrupt, mut terminate, mut hang_up) = (
        listen(SignalKind::interrupt()),
        listen(SignalKind::terminate()),
        listen(SignalKind::hangup()),
    );
    tokio::select! {
        Some(()) = next(&mut interrupt) => "SIGINT",
        Some(()) = next(&mut terminate) => "SIGTERM",
        Some(()) = next(&mut hang_up) => "SIGHUP",
        else => std::future::pending().await,
    }
}

async fn next(signal: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    signal.as_mut()?.recv().await
}

/// Runs work that blocks on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ToolError> + Send + 'static,
) -> Result<T, ToolError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ToolError::Other(format!("a thread failed: {error}"))),
    }
}

/// A bar on a terminal, nothing in a pipe.
pub(crate) fn progress(what: &'static str, units: u64) -> ProgressBar {
    let bar = ProgressBar::new(units);
    let template = "{msg:<24} {wide_bar} {human_pos} of {human_len}, {per_sec}, {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

/// A sign of life on a terminal while something of unknown length is done, nothing in a pipe.
pub(crate) fn spinner(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Prints a document as JSON.
pub(crate) fn say_json(document: &impl Serialize) -> Result<(), ToolError> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| ToolError::Other(format!("the figures cannot be written: {error}")))?;
    say(&without_controls(&text));
    Ok(())
}

/// JSON allows DEL and the controls above it (C1) in texts, where a terminal would obey them.
fn without_controls(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '\u{7f}'..='\u{9f}' => escaped.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// A temporary directory, in `parent` or where the system has them.
pub(crate) fn temporary_directory(
    prefix: &str,
    parent: Option<&Path>,
) -> Result<tempfile::TempDir, ToolError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
    if !parent.is_dir() {
        // It would be made, with all that leads to it, and stay there.
        return Err(ToolError::Usage(format!(
            "{} is no directory: make it first, or leave out --dir",
            parent.display()
        )));
    }
    builder
        .tempdir_in(&parent)
        .map_err(ToolError::file("a temporary directory in", &parent))
}

/// A number with thousands set apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes for people.
pub(crate) fn bytes_text(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes_text, grouped, without_controls};

    #[test]
    fn a_document_has_no_letter_that_a_terminal_obeys() {
        let name = "a\u{9b}2J\u{7f}\u{a0}\n";
        let text = serde_json::to_string(name).expect("it is text");
        let escaped = without_controls(&text);
        assert_eq!(escaped, "\"a\\u009b2J\\u007f\u{a0}\\n\"");
        let read: String = serde_json::from_str(&escaped).expect("it is JSON");
        assert_eq!(read, name);
    }

    #[test]
    fn figures_are_easy_to_read() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(12_345_678), "12,345,678");
        assert_eq!(bytes_text(100.0), "100 B");
        assert_eq!(bytes_text(1536.0), "1.5 KiB");
        assert_eq!(bytes_text(10.0 * 1024.0 * 1024.0 * 1024.0), "10.0 GiB");
    }
}
