//! `steadfast demo`: a pair of real servers on one store, and what happens when the active one is killed.

mod ledger;
mod traffic;

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::args::DemoArgs;
use super::own_server::{Logged, OwnServer, OwnServerOptions, free_ports};
use super::tool::{self, ToolError, bytes_text, grouped, progress, say_json};
use crate::net::client::ServerUrl;
use crate::role::Exit;
use ledger::Ledger;
use traffic::{BODY_BYTES, Participant, receive, send};

/// Senders, receivers and queues.
const CLIENTS: usize = 4;
/// A confirmed message that does not come for so long is lost.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// How long is waited for repeated deliveries in the end.
const LATE: Duration = Duration::from_millis(200);
/// How often a pair is tried to be started: its ports may be taken by somebody in between.
const START_ATTEMPTS: usize = 3;

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    messages: u64,
    confirmed: u64,
    lost: u64,
    /// Deliveries of messages that were received before.
    duplicated: u64,
    kill_to_first_confirm_ms: f64,
    lock_to_ready_ms: f64,
    /// Log that the successor had to read.
    tail_bytes: u64,
    in_flight_at_kill: u64,
    /// Messages in doubt that the senders sent once more.
    sent_again: u64,
    /// Deliveries that were marked as possibly repeated.
    marked_redelivered: u64,
    seconds: f64,
}

/// Two servers on one store; A is active.
struct Pair {
    a: OwnServer,
    b: OwnServer,
}

/// The kill and what followed.
struct Takeover {
    killed_at: Instant,
    in_flight: u64,
    active: Logged,
}

/// Runs the demo.
pub(super) fn run(arguments: &DemoArgs) -> Exit {
    tool::run(demo(arguments))
}

async fn demo(arguments: &DemoArgs) -> Result<Exit, ToolError> {
    let story = Story {
        is_told: !arguments.json,
        started: Instant::now(),
    };
    let directory = tool::temporary_directory("steadfast-demo-", None)?;
    let mut pair = start_pair(directory.path()).await?;
    story.pair(directory.path(), &pair);

    let each = arguments.messages.div_ceil(CLIENTS as u64);
    let messages = each * CLIENTS as u64;
    story.plain(&format!(
        "{CLIENTS} senders and {CLIENTS} receivers, {} durable messages of {BODY_BYTES} bytes, each confirmed when \
         it is on disk",
        grouped(messages)
    ));
    let each = usize::try_from(each).map_err(|_| usage("--messages is too large"))?;
    let ledger = Rc::new(Ledger::new(CLIENTS, each));
    let mut clients = Clients::start(&pair, &ledger, each);
    let bar = if arguments.json {
        ProgressBar::hidden()
    } else {
        progress("confirmed", messages)
    };
    let drama = async {
        until(&ledger, &bar, |ledger| ledger.confirmed() >= messages / 2).await;
        let takeover = kill_active(&mut pair, &ledger, &story, &bar).await?;
        let wait = until(&ledger, &bar, |ledger| {
            ledger.first_confirm_after_kill().is_some()
        });
        wait.await;
        story.first_confirm(&takeover, &ledger, &bar);
        until(&ledger, &bar, |ledger| ledger.confirmed() >= messages).await;
        Ok(takeover)
    };
    let takeover = clients.beside(drama).await?;
    clients.beside(all_received(&ledger, &bar)).await?;
    bar.finish_and_clear();
    story.all_received(&ledger);
    drop(clients);
    pair.b.stop().await?;

    let report = report(messages, &ledger, &takeover, story.started);
    if arguments.json {
        say_json(&report)?;
    } else {
        story.end(&report);
    }
    Ok(if report.lost == 0 {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn usage(text: &str) -> ToolError {
    ToolError::Usage(String::from(text))
}

async fn start_pair(directory: &Path) -> Result<Pair, ToolError> {
    let mut attempt = 1;
    loop {
        match try_start_pair(directory).await {
            Err(_) if attempt < START_ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

async fn try_start_pair(directory: &Path) -> Result<Pair, ToolError> {
    let ports: [u16; 2] = free_ports()?;
    let options = |name: &str, port: u16, peer: u16| OwnServerOptions {
        name: String::from(name),
        data: directory.join("store"),
        port,
        set: vec![
            String::from("server=demo"),
            format!("ft_active=tcp://127.0.0.1:{peer}"),
        ],
    };
    let [port_a, port_b] = ports;
    let a = OwnServer::start_active(&options("A", port_a, port_b)).await?;
    let mut b = OwnServer::start(&options("B", port_b, port_a)).await?;
    b.wait("standby").await?;
    Ok(Pair { a, b })
}

/// Senders and receivers.
struct Clients {
    senders: JoinSet<Result<(), ToolError>>,
    receivers: JoinSet<Result<(), ToolError>>,
}

impl Clients {
    fn start(pair: &Pair, ledger: &Rc<Ledger>, messages: usize) -> Self {
        let servers: Vec<ServerUrl> = vec![pair.a.url().clone(), pair.b.url().clone()];
        let mut clients = Self {
            senders: JoinSet::new(),
            receivers: JoinSet::new(),
        };
        for number in 0..CLIENTS {
            let participant = Participant {
                number,
                servers: servers.clone(),
                ledger: Rc::clone(ledger),
            };
            clients.receivers.spawn_local(receive(participant.clone()));
            clients.senders.spawn_local(send(participant, messages));
        }
        clients
    }

    /// Does something while the clients work.
    ///
    /// # Errors
    /// That of the work, or of the first client that fails.
    async fn beside<T>(
        &mut self,
        work: impl Future<Output = Result<T, ToolError>>,
    ) -> Result<T, ToolError> {
        tokio::select! {
            result = work => result,
            Err(error) = all(&mut self.senders) => Err(error),
            Err(error) = all(&mut self.receivers) => Err(error),
        }
    }
}

/// Waits until all tasks have ended, or one fails.
async fn all(tasks: &mut JoinSet<Result<(), ToolError>>) -> Result<(), ToolError> {
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| ToolError::Other(format!("a client failed: {error}")))??;
    }
    Ok(())
}

/// Waits until the ledger has a quality.
async fn until(ledger: &Ledger, bar: &ProgressBar, has: impl Fn(&Ledger) -> bool) {
    while !has(ledger) {
        ledger.changed.notified().await;
        bar.set_position(ledger.confirmed());
    }
}

async fn kill_active(
    pair: &mut Pair,
    ledger: &Ledger,
    story: &Story,
    bar: &ProgressBar,
) -> Result<Takeover, ToolError> {
    let in_flight = ledger.in_flight();
    let killed_at = pair.a.kill();
    bar.suspend(|| {
        story.at(&format!(
            "{} confirmed; kill -9 of server A with {in_flight} messages in flight",
            grouped(ledger.confirmed())
        ));
    });
    let active = pair.b.wait("active").await?;
    bar.suspend(|| {
        story.after(
            active.at.saturating_duration_since(killed_at),
            &format!(
                "server B serves: {:.1} ms from the lock on the store, {} of log read",
                active.number("lock_to_ready_ms").unwrap_or_default(),
                bytes_text(active.number("tail_bytes").unwrap_or_default())
            ),
        );
    });
    Ok(Takeover {
        killed_at,
        in_flight,
        active,
    })
}

/// Waits until every confirmed message was received, or nothing has come for so long that it will not.
async fn all_received(ledger: &Ledger, bar: &ProgressBar) -> Result<(), ToolError> {
    bar.set_message("received");
    let mut received = ledger.received();
    while ledger.missing() > 0 {
        let _ = timeout(LOST_AFTER, ledger.changed.notified()).await;
        if ledger.received() == received {
            return Ok(());
        }
        received = ledger.received();
    }
    sleep(LATE).await;
    Ok(())
}

fn report(messages: u64, ledger: &Ledger, takeover: &Takeover, started: Instant) -> Report {
    let first_confirm = ledger.first_confirm_after_kill();
    let first_confirm = first_confirm.map(|at| at.saturating_duration_since(takeover.killed_at));
    Report {
        messages,
        confirmed: ledger.confirmed(),
        lost: ledger.missing(),
        duplicated: ledger.duplicated(),
        kill_to_first_confirm_ms: milliseconds(first_confirm.unwrap_or_default()),
        lock_to_ready_ms: rounded(
            takeover
                .active
                .number("lock_to_ready_ms")
                .unwrap_or_default(),
        ),
        tail_bytes: takeover.active.number("tail_bytes").unwrap_or_default() as u64,
        in_flight_at_kill: takeover.in_flight,
        sent_again: ledger.sent_again(),
        marked_redelivered: ledger.marked(),
        seconds: rounded(started.elapsed().as_secs_f64()),
    }
}

fn milliseconds(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1000.0)
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// What is told while the demo runs.
struct Story {
    is_told: bool,
    started: Instant,
}

impl Story {
    fn plain(&self, text: &str) {
        if self.is_told {
            super::say(text);
        }
    }

    /// A line with the time since the start.
    fn at(&self, text: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.plain(&format!("{seconds:>7.2} s   {text}"));
    }

    /// A line with the time since the kill.
    fn after(&self, time: Duration, text: &str) {
        self.plain(&format!("{:>+7.1} ms  {text}", time.as_secs_f64() * 1000.0));
    }

    fn pair(&self, directory: &Path, pair: &Pair) {
        self.plain(&format!(
            "A fault-tolerant pair on one store, {}\n  \
             server A  active   {}\n  \
             server B  standby  {}\n",
            directory.join("store").display(),
            pair.a.url(),
            pair.b.url()
        ));
    }

    fn first_confirm(&self, takeover: &Takeover, ledger: &Ledger, bar: &ProgressBar) {
        let Some(at) = ledger.first_confirm_after_kill() else {
            return;
        };
        let time = at.saturating_duration_since(takeover.killed_at);
        bar.suspend(|| self.after(time, "server B confirms its first message"));
    }

    fn all_received(&self, ledger: &Ledger) {
        let confirmed = grouped(ledger.confirmed());
        self.at(&match ledger.missing() {
            0 => format!("{confirmed} confirmed, every one of them received"),
            missing => format!("{confirmed} confirmed, {} not received", grouped(missing)),
        });
    }

    fn end(&self, report: &Report) {
        self.plain(&format!("\n  confirmed   {}", grouped(report.confirmed)));
        self.plain(&format!("  lost        {}", grouped(report.lost)));
        self.plain(&format!(
            "  duplicated  {}: {} messages in doubt were sent again, {} deliveries came marked as repeated",
            grouped(report.duplicated),
            grouped(report.sent_again),
            grouped(report.marked_redelivered)
        ));
        self.plain(&format!(
            "  takeover    {:.1} ms from the kill to the first new confirm\n",
            report.kill_to_first_confirm_ms
        ));
        if report.lost == 0 {
            self.plain("Nothing that was confirmed was lost.");
        } else {
            self.plain(
                "Messages that were confirmed were LOST. That must not happen: please report it with the output \
                 of this command.",
            );
        }
    }
}
