//! Signals: the first asks for an orderly stop, the second ends the process at once. SIGHUP asks a server with a
//! main file to read its files again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that a server answers.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl StopSignals {
    /// From now on these signals no longer end the process by themselves.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The name of the next one.
    pub(crate) async fn next(&mut self) -> &'static str {
        let (name, stream_ended) = tokio::select! {
            signal = self.terminate.recv() => ("SIGTERM", signal.is_none()),
            signal = self.interrupt.recv() => ("SIGINT", signal.is_none()),
            signal = self.hang_up.recv() => ("SIGHUP", signal.is_none()),
        };
        if stream_ended {
            std::future::pending::<()>().await;
        }
        name
    }
}
