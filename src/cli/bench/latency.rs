//! `steadfast bench latency`: one durable message in flight, beside the sync of the same disk.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::{connect_by, detached, durable_message, latency_histogram, not_taken};
use super::raw::RawFile;
use super::{Subject, rounded, say_figures};
use crate::cli::args::LatencyArgs;
use crate::cli::tool::{ToolError, grouped, say_json, spinner};
use crate::net::client::{Client, Wake};
use crate::proto::{Event, LinkId, Outcome};
use crate::role::Exit;

/// Messages before the first that counts.
const WARM_UP: u64 = 200;
/// The queue of the benchmark.
const QUEUE: &str = "bench-latency";

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    size: usize,
    durable: bool,
    messages: u64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_sync_p50_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_sync_p99_us: Option<u64>,
    /// Median of the messages by median of the syncs.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

pub(super) async fn run(arguments: &LatencyArgs) -> Result<Exit, ToolError> {
    let subject = Subject::prepare(&arguments.client).await?;
    let raw = subject.raw_directory.as_deref();
    let mut raw = raw.map(RawFile::create).transpose()?;
    let mut client = connect_by(&subject.url, subject.tls.as_ref(), 0).await?;
    let link = client.attach_sender(QUEUE).await?;
    let message = durable_message(arguments.client.size);
    let mut confirms = latency_histogram()?;
    let mut syncs = latency_histogram()?;
    let spinner = spinner("measuring");
    let mut started = Instant::now();
    let mut count = 0;
    loop {
        let took = round_trip(&mut client, link, count, &message).await?;
        if count >= WARM_UP {
            record(&mut confirms, took);
        }
        if let Some(raw) = &mut raw {
            // Blocks this thread, which has nothing else to do: the server is idle meanwhile.
            let took = raw.write_synced(message.len())?;
            if count >= WARM_UP {
                record(&mut syncs, took);
            }
        }
        count += 1;
        if count == WARM_UP {
            started = Instant::now();
        }
        if is_over(arguments, count, started) {
            break;
        }
    }
    spinner.finish_and_clear();
    client.close().await;
    drop(raw);
    subject.end().await?;
    let report = report(arguments.client.size, &confirms, &syncs);
    if arguments.client.json {
        say_json(&report)?;
    } else {
        say_report(&report);
    }
    Ok(Exit::Done)
}

fn is_over(arguments: &LatencyArgs, count: u64, started: Instant) -> bool {
    match arguments.messages {
        Some(messages) => count >= messages.saturating_add(WARM_UP),
        None => count > WARM_UP && started.elapsed() >= Duration::from_secs(arguments.seconds),
    }
}

/// Sends a message and waits for its confirm.
async fn round_trip(
    client: &mut Client,
    link: LinkId,
    token: u64,
    message: &[u8],
) -> Result<Duration, ToolError> {
    while !client.can_send(link) {
        client.next().await?;
    }
    let started = Instant::now();
    client
        .send(link, token, message)
        .map_err(|error| ToolError::Other(format!("a message: {error}")))?;
    loop {
        match client.next().await? {
            Wake::Event(Event::Disposition {
                delivery_id,
                outcome,
                settled,
                ..
            }) => {
                let took = started.elapsed();
                if !settled {
                    client.settle_sent(link, delivery_id);
                }
                return match outcome {
                    Some(Outcome::Accepted) => Ok(took),
                    other => Err(not_taken(other)),
                };
            }
            Wake::Event(Event::Detached { error, .. }) => return Err(detached(error)),
            _ => {}
        }
    }
}

fn record(histogram: &mut Histogram<u64>, took: Duration) {
    histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
}

fn report(size: usize, confirms: &Histogram<u64>, syncs: &Histogram<u64>) -> Report {
    let sync = |quantile| (!syncs.is_empty()).then(|| syncs.value_at_quantile(quantile));
    let p50_us = confirms.value_at_quantile(0.5);
    let raw_sync_p50_us = sync(0.5);
    Report {
        size,
        durable: true,
        messages: confirms.len(),
        p50_us,
        p99_us: confirms.value_at_quantile(0.99),
        p999_us: confirms.value_at_quantile(0.999),
        max_us: confirms.max(),
        raw_sync_p50_us,
        raw_sync_p99_us: sync(0.99),
        ratio: raw_sync_p50_us.map(|raw| rounded(p50_us as f64 / raw.max(1) as f64)),
    }
}

fn say_report(report: &Report) {
    let mut figures = vec![
        ("confirm p50", format!("{} µs", report.p50_us)),
        ("confirm p99", format!("{} µs", report.p99_us)),
        ("confirm p99.9", format!("{} µs", report.p999_us)),
        ("longest confirm", format!("{} µs", report.max_us)),
    ];
    if let (Some(p50), Some(p99), Some(ratio)) =
        (report.raw_sync_p50_us, report.raw_sync_p99_us, report.ratio)
    {
        figures.push(("write + fdatasync alone p50", format!("{p50} µs")));
        figures.push(("write + fdatasync alone p99", format!("{p99} µs")));
        figures.push(("ratio of the medians", format!("{ratio:.2}")));
    }
    let title = format!(
        "{} durable messages of {} bytes, one in flight",
        grouped(report.messages),
        report.size
    );
    say_figures(&title, &figures);
}
