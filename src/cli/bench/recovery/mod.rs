//! `steadfast bench recovery`: how long a server takes to serve after its predecessor was killed.
//!
//! A store is filled through a real server, a random share is consumed, and the server is killed with SIGKILL
//! when the unchecked tail of the log is nearly as long as it gets. The next server is timed with cold
//! caches, and once more with warm ones; then, if wanted, a standby that takes over. A full scan of the same store shows what a design that has to
//! read its backlog would take.

mod consume;
mod disk;
mod standby;

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::fill::{Filling, fill};
use super::load::{connect, durable_message, queue_names};
use super::{bench_directory, own_server, own_server_at, rounded, say_figures};
use crate::cli::args::RecoveryArgs;
use crate::cli::own_server::{
    Logged, OwnServer, OwnServerOptions, StoreState, directory_bytes, files_of,
};
use crate::cli::tool::{ToolError, blocking, bytes_text, grouped, progress, say_json, spinner};
use crate::net::client::{Client, ServerUrl, Wake};
use crate::proto::{Event, Outcome};
use crate::role::Exit;

/// Connections that fill and consume.
const CONNECTIONS: usize = 8;
/// Messages in flight of each.
const WINDOW: usize = 256;
/// Share of the checkpoint interval that the tail must have at the kill.
const TAIL_SHARE: f64 = 0.9;
/// Share that is aimed at.
const TAIL_AIM: f64 = 0.95;
/// How often that is tried: a checkpoint may come in between.
const TAIL_ATTEMPTS: usize = 50;
/// Messages in flight at the kill.
const IN_FLIGHT_AT_KILL: u64 = 64;

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    messages: u64,
    size: usize,
    queues: usize,
    acked_percent: u8,
    /// Absent when the store was there before.
    #[serde(skip_serializing_if = "Option::is_none")]
    acked: Option<u64>,
    /// Of the cold start.
    tail_bytes: u64,
    checkpoint_bytes: u64,
    store_bytes: u64,
    /// What was done to make the caches cold.
    caches_dropped: &'static str,
    cold: Timing,
    warm: Timing,
    /// Takeover by a standby.
    #[serde(skip_serializing_if = "Option::is_none")]
    standby: Option<standby::Takeover>,
    full_scan_ms: f64,
    raw_read_ms: f64,
    /// How many times as long as the cold recovery a full scan takes.
    full_scan_ratio: f64,
    /// How many times as long as the cold recovery it takes to read the bytes.
    raw_read_ratio: f64,
}

/// One start of a server.
#[derive(Debug, Clone, Copy, Serialize)]
struct Timing {
    lock_to_ready_ms: f64,
    first_message_ms: f64,
    tail_bytes: u64,
    messages: u64,
    /// Locking, checkpoint, tail, sealing.
    phases_ms: [u64; 4],
}

pub(in crate::cli) async fn run(arguments: &RecoveryArgs) -> Result<Exit, ToolError> {
    let filling = Filling {
        messages: arguments.messages,
        size: arguments.size,
        queues: arguments.queues,
        senders: CONNECTIONS,
        window: WINDOW,
        tls: None,
    };
    filling.check()?;
    let directory = match &arguments.store {
        Some(_) => None,
        None => Some(bench_directory(arguments.dir.as_deref())?),
    };
    let options = match (&arguments.store, &directory) {
        (Some(store), _) => own_server_at(store.clone()),
        (None, Some(directory)) => own_server(directory.path()),
        (None, None) => own_server(Path::new(".")),
    };
    let is_filled = options.data.exists() && !files_of(&options.data)?.is_empty();
    let mut server = OwnServer::start_active(&options).await?;
    let acked = if is_filled {
        None
    } else {
        Some(fill_and_consume(&server, &filling, arguments.acked_percent).await?)
    };

    let spinner = spinner("killing, dropping caches, starting");
    let at_kill = kill_with_tail(&mut server, arguments.size).await?;
    let store_bytes = directory_bytes(&options.data)?;
    let caches_dropped = drop_caches(&options.data).await?;
    let (mut server, cold) = timed_start(&options).await?;
    kill_with_tail(&mut server, arguments.size).await?;
    let (mut server, warm) = timed_start(&options).await?;
    let standby = if arguments.warm {
        Some(standby::take_over(&mut server, &options, arguments.size).await?)
    } else {
        server.kill();
        None
    };

    drop_caches(&options.data).await?;
    let full_scan_ms = timed(&options.data, disk::full_scan).await?;
    drop_caches(&options.data).await?;
    let raw_read_ms = timed(&options.data, disk::raw_read).await?;
    spinner.finish_and_clear();

    let report = Report {
        messages: arguments.messages,
        size: arguments.size,
        queues: arguments.queues,
        acked_percent: arguments.acked_percent,
        acked,
        tail_bytes: cold.tail_bytes,
        checkpoint_bytes: at_kill.checkpoint_bytes,
        store_bytes,
        caches_dropped,
        cold,
        warm,
        standby,
        full_scan_ms,
        raw_read_ms,
        full_scan_ratio: rounded(full_scan_ms / cold.lock_to_ready_ms),
        raw_read_ratio: rounded(raw_read_ms / cold.lock_to_ready_ms),
    };
    if arguments.json {
        say_json(&report)?;
    } else {
        say_report(&report);
    }
    Ok(Exit::Done)
}

/// Returns how many messages were settled.
async fn fill_and_consume(
    server: &OwnServer,
    filling: &Filling,
    acked_percent: u8,
) -> Result<u64, ToolError> {
    let bar = progress("filling", filling.messages);
    fill(server.url(), filling, &bar).await?;
    bar.finish_and_clear();
    let bar = progress("consuming", filling.messages);
    let acked = consume::consume(server.url(), filling, acked_percent, &bar).await?;
    bar.finish_and_clear();
    Ok(acked)
}

/// Publishes until the tail is long, and kills the server with messages in flight.
async fn kill_with_tail(server: &mut OwnServer, size: usize) -> Result<StoreState, ToolError> {
    let queue = queue_names(1).remove(0);
    let mut client = connect(server.url(), CONNECTIONS).await?;
    let link = client.attach_sender(&queue).await?;
    let message = durable_message(size);
    let mut per_message = message.len() as f64;
    let mut store = server.fresh_store().await?;
    for _ in 0..TAIL_ATTEMPTS {
        let interval = store.checkpoint_bytes as f64;
        if store.tail_bytes as f64 >= TAIL_SHARE * interval {
            for token in 0..IN_FLIGHT_AT_KILL {
                // Without credit the server has enough in flight as it is.
                let _ = client.send(link, token, &message);
            }
            client.flush()?;
            server.kill();
            return Ok(store);
        }
        let missing = TAIL_AIM * interval - store.tail_bytes as f64;
        let count = (missing / per_message).max(1.0);
        publish(server.url(), &queue, count as u64, size).await?;
        let before = store;
        store = server.fresh_store().await?;
        // What the log makes of a message; the first attempt only guesses it.
        let written = store.batch_bytes.saturating_sub(before.batch_bytes) as f64;
        per_message = (written / count).max(message.len() as f64);
    }
    Err(ToolError::Other(format!(
        "after {TAIL_ATTEMPTS} attempts the tail of the log was never {:.0} % of the checkpoint interval: \
         {} of {} bytes; is the disk slower than a checkpoint a second?",
        TAIL_SHARE * 100.0,
        store.tail_bytes,
        store.checkpoint_bytes
    )))
}

/// Sends messages to one queue and waits for all confirms.
async fn publish(url: &ServerUrl, queue: &str, count: u64, size: usize) -> Result<(), ToolError> {
    use super::load::{Load, Sender, Tasks};
    let load = Load::new()?;
    let client = connect(url, CONNECTIONS + 1).await?;
    let message = durable_message(size);
    let sender = Sender::connect(&load, client, &[(queue, count)], WINDOW, &message).await?;
    let mut tasks = Tasks::default();
    load.open();
    tasks.start(sender.run());
    tasks.all().await
}

/// Starts a server and measures until its first message is with a client that waits for it.
async fn timed_start(options: &OwnServerOptions) -> Result<(OwnServer, Timing), ToolError> {
    let mut server = OwnServer::start(options).await?;
    let url = server.url().clone();
    let (active, (first, client)) = tokio::try_join!(server.wait("active"), first_message(&url))?;
    client.close().await;
    let Logged { at: ready, .. } = active;
    let state = server.state()?;
    let lock_to_ready_ms = active.number("lock_to_ready_ms");
    let lock_to_ready_ms = state.recovery.lock_to_ready_ms.or(lock_to_ready_ms);
    let timing = Timing {
        lock_to_ready_ms: rounded(lock_to_ready_ms.unwrap_or_default()),
        // The log line may be read a little later than the client's message.
        first_message_ms: milliseconds(first.saturating_duration_since(ready)),
        tail_bytes: state.recovery.tail_bytes,
        messages: state.recovery.messages,
        phases_ms: state.recovery.phases_ms,
    };
    Ok((server, timing))
}

/// Attaches at once and waits for a message.
async fn first_message(url: &ServerUrl) -> Result<(Instant, Client), ToolError> {
    let queue = queue_names(1).remove(0);
    let mut client = connect(url, 0).await?;
    client.attach_receiver(&queue, 1).await?;
    loop {
        if let Wake::Event(Event::Delivery {
            link, delivery_id, ..
        }) = client.next().await?
        {
            let at = Instant::now();
            client.settle(link, delivery_id, Outcome::Released);
            return Ok((at, client));
        }
    }
}

async fn drop_caches(directory: &Path) -> Result<&'static str, ToolError> {
    let files = files_of(directory)?;
    blocking(move || disk::drop_caches(&files)).await
}

/// Time of work that reads a whole store.
async fn timed(
    directory: &Path,
    work: fn(&Path) -> Result<u64, ToolError>,
) -> Result<f64, ToolError> {
    let directory = directory.to_owned();
    let took = blocking(move || {
        let started = Instant::now();
        work(&directory)?;
        Ok(started.elapsed())
    });
    Ok(milliseconds(took.await?))
}

fn milliseconds(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1000.0)
}

fn say_report(report: &Report) {
    let start = |timing: &Timing| {
        format!(
            "{:.1} ms from lock to ready, {:.1} ms more to the first message ({} of tail; phases {:?} ms)",
            timing.lock_to_ready_ms,
            timing.first_message_ms,
            bytes_text(timing.tail_bytes as f64),
            timing.phases_ms
        )
    };
    let mut figures = vec![
        ("store", bytes_text(report.store_bytes as f64)),
        ("cold caches", start(&report.cold)),
        ("warm caches", start(&report.warm)),
    ];
    if let Some(standby) = &report.standby {
        let kept = format!(
            "{}; what it had kept was {}",
            start(&standby.timing),
            standby.kept
        );
        figures.push(("a standby takes over", kept));
    }
    figures.extend([
        (
            "full scan, cold",
            format!(
                "{:.1} ms, {:.0} times the recovery",
                report.full_scan_ms, report.full_scan_ratio
            ),
        ),
        (
            "reading the bytes, cold",
            format!(
                "{:.1} ms, {:.0} times the recovery",
                report.raw_read_ms, report.raw_read_ratio
            ),
        ),
        ("caches dropped by", String::from(report.caches_dropped)),
    ]);
    let settled = match report.acked {
        Some(acked) => format!(
            "{} ({} %) of them settled",
            grouped(acked),
            report.acked_percent
        ),
        None => format!("{} waiting", grouped(report.cold.messages)),
    };
    let title = format!(
        "recovery after kill -9: {} messages of {} bytes sent to {} queues, {settled}",
        grouped(report.messages),
        report.size,
        report.queues,
    );
    say_figures(&title, &figures);
}
