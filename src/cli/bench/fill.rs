//! `steadfast bench fill`: messages that stay in their queues.

use std::rc::Rc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;
use tokio::time::sleep;

use super::load::{Load, Sender, Tasks, connect_by, durable_message, queue_names};
use super::{Subject, per_second, rounded, say_figures};
use crate::cli::args::FillArgs;
use crate::cli::tool::{ToolError, bytes_text, grouped, progress, say_json};
use crate::net::client::ServerUrl;
use crate::role::Exit;
use crate::tls::ClientTls;

/// How often the bar moves.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    messages: u64,
    size: usize,
    queues: usize,
    senders: usize,
    window: usize,
    durable: bool,
    seconds: f64,
    sent_per_second: f64,
    /// Memory of our own server at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    resident_bytes: Option<u64>,
}

/// What to fill.
#[derive(Debug, Clone)]
pub(super) struct Filling {
    /// Messages in all.
    pub(super) messages: u64,
    /// Size of a body.
    pub(super) size: usize,
    /// Queues that they are spread over.
    pub(super) queues: usize,
    /// Connections.
    pub(super) senders: usize,
    /// Messages in flight of each connection.
    pub(super) window: usize,
    /// How to call the server, when its URL wants TLS.
    pub(super) tls: Option<ClientTls>,
}

pub(super) async fn run(arguments: &FillArgs) -> Result<Exit, ToolError> {
    let mut filling = Filling {
        messages: arguments.messages,
        size: arguments.client.size,
        queues: arguments.queues,
        senders: arguments.senders,
        window: arguments.window,
        tls: None,
    };
    filling.check()?;
    let subject = Subject::prepare(&arguments.client).await?;
    filling.tls.clone_from(&subject.tls);
    let bar = progress("filling", filling.messages);
    let started = Instant::now();
    fill(&subject.url, &filling, &bar).await?;
    let seconds = started.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let server = subject.server.as_ref();
    let report = Report {
        messages: filling.messages,
        size: filling.size,
        queues: filling.queues,
        senders: filling.senders,
        window: filling.window,
        durable: true,
        seconds: rounded(seconds),
        sent_per_second: rounded(per_second(filling.messages as f64, seconds)),
        resident_bytes: server.and_then(|server| server.resident_bytes()),
    };
    subject.end().await?;
    if arguments.client.json {
        say_json(&report)?;
    } else {
        say_report(&report);
    }
    Ok(Exit::Done)
}

fn say_report(report: &Report) {
    let mut figures = vec![
        ("time", format!("{:.2} s", report.seconds)),
        (
            "sent",
            format!("{} messages/s", grouped(report.sent_per_second as u64)),
        ),
    ];
    if let Some(bytes) = report.resident_bytes {
        figures.push(("memory of the server", bytes_text(bytes as f64)));
    }
    let title = format!(
        "{} durable messages of {} bytes in {} queues, {} connections with {} in flight each",
        grouped(report.messages),
        report.size,
        report.queues,
        report.senders,
        report.window
    );
    say_figures(&title, &figures);
}

impl Filling {
    pub(super) fn check(&self) -> Result<(), ToolError> {
        if self.messages == 0 {
            let text =
                "--messages must be at least 1: without messages there is nothing to measure";
            return Err(ToolError::Usage(text.to_owned()));
        }
        for (name, value) in [
            ("--queues", self.queues),
            ("--senders", self.senders),
            ("--window", self.window),
        ] {
            if value == 0 {
                return Err(ToolError::Usage(format!("{name} must be at least 1")));
            }
        }
        Ok(())
    }

    /// How many messages a queue gets: the first ones get the rest of the division.
    pub(super) fn share(&self, queue: usize) -> u64 {
        let queues = self.queues as u64;
        self.messages / queues + u64::from((queue as u64) < self.messages % queues)
    }
}

/// Sends the messages and waits until all are confirmed.
pub(super) async fn fill(
    url: &ServerUrl,
    filling: &Filling,
    bar: &ProgressBar,
) -> Result<(), ToolError> {
    let load = Load::new()?;
    let message = durable_message(filling.size);
    let names = queue_names(filling.queues);
    let shares: Vec<(&str, u64)> = names
        .iter()
        .enumerate()
        .map(|(index, name)| (name.as_str(), filling.share(index)))
        .filter(|(_, share)| *share > 0)
        .collect();
    let mut tasks = Tasks::default();
    for number in 0..filling.senders.min(shares.len()) {
        // Each connection has queues of its own.
        let own: Vec<_> = shares
            .iter()
            .copied()
            .skip(number)
            .step_by(filling.senders)
            .collect();
        let client = connect_by(url, filling.tls.as_ref(), number).await?;
        let sender = Sender::connect(&load, client, &own, filling.window, &message).await?;
        tasks.start(sender.run());
    }
    load.open();
    let show = {
        let load = Rc::clone(&load);
        let bar = bar.clone();
        async move {
            loop {
                bar.set_position(load.confirmed.get());
                sleep(PROGRESS_PAUSE).await;
            }
        }
    };
    tokio::select! {
        result = tasks.all() => result,
        () = show => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::Filling;

    #[test]
    fn shares_add_up() {
        let filling = Filling {
            messages: 10,
            size: 1,
            queues: 4,
            senders: 1,
            window: 1,
            tls: None,
        };
        let shares: Vec<u64> = (0..4).map(|queue| filling.share(queue)).collect();
        assert_eq!(shares, [3, 3, 2, 2]);
    }
}
