//! `steadfast bench append`: durable appends through the store alone, in turn with the disk alone.
//!
//! Each turn of the store is followed by a turn of the disk in which one thread writes batches of the very
//! same sizes, in the same order, each with a `pwrite` and an `fdatasync`, to a file of zeros beside the
//! store. Everything that the store does beside its log (zeros ahead, footers, checkpoints) happens in its
//! own turns: when a turn ends, its work is stopped where it is. So the ratio is the time that the disk needs
//! for the batches by the time that the store needs for them, and tells nothing of a broker's sockets.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use steadfast_storage::StoreOptions;

use super::engine::{Engine, EngineOptions, Roll, Writing, Written};
use super::load::latency_histogram;
use super::raw::RawFile;
use super::{bench_directory, per_second, rounded, say_figures};
use crate::cli::args::AppendArgs;
use crate::cli::tool::{ToolError, blocking, bytes_text, grouped, say_json, spinner};
use crate::role::Exit;

/// Before anything counts the small segments of the beginning are used up, but for no longer than this.
const WARM_UP_MAX: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Length of a turn of the store.
const TURN: Duration = Duration::from_millis(1000);

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    size: usize,
    writers: usize,
    threads: usize,
    window: usize,
    zeros_ahead: bool,
    /// Time of the store.
    seconds: f64,
    messages: u64,
    messages_per_second: f64,
    batches: u64,
    bytes_per_batch: u64,
    store_bytes_per_second: f64,
    raw_bytes_per_second: f64,
    /// The store's rate by the disk's for the same batches.
    ratio: f64,
    store_sync_p50_us: u64,
    store_sync_p99_us: u64,
    raw_sync_p50_us: u64,
    raw_sync_p99_us: u64,
    /// From the end of a sync to the next batch.
    gap_p50_us: u64,
    gap_p99_us: u64,
    /// Share of the store's time in which a batch was being written and synced.
    log_busy_share: f64,
    /// Mean time of a write and sync of the log by that of the disk alone.
    sync_slowdown: f64,
    written: Written,
    amplification: Amplification,
    /// The same between the first and the last beginning of a segment of full size.
    #[serde(skip_serializing_if = "Option::is_none")]
    whole_segments: Option<Amplification>,
}

/// Bytes written for each byte of a message's body.
#[derive(Debug, Clone, Copy, Serialize)]
struct Amplification {
    body_bytes: u64,
    without_zeros: f64,
    zeros: f64,
    total: f64,
    /// As the kernel counts pages that this process made dirty; where it tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<f64>,
}

/// Both sides of all turns.
#[derive(Debug)]
struct Totals {
    store: Duration,
    store_busy: Duration,
    raw: Duration,
    messages: u64,
    batches: u64,
    bytes: u64,
    body: u64,
    written: Written,
    process_bytes: Option<u64>,
    store_us: Histogram<u64>,
    gap_us: Histogram<u64>,
    raw_us: Histogram<u64>,
}

pub(super) async fn run(arguments: &AppendArgs) -> Result<Exit, ToolError> {
    for (name, value) in [
        ("--writers", arguments.writers),
        ("--threads", arguments.threads),
        ("--window", arguments.window),
    ] {
        if value == 0 {
            return Err(ToolError::Usage(format!("{name} must be at least 1")));
        }
    }
    let directory = bench_directory(arguments.dir.as_deref())?;
    let spinner = spinner("measuring");
    let (path, own) = (directory.path().to_owned(), arguments.clone());
    let report = blocking(move || measure(&path, &own)).await?;
    spinner.finish_and_clear();
    if arguments.json {
        say_json(&report)?;
    } else {
        say_report(&report);
    }
    Ok(Exit::Done)
}

fn measure(directory: &std::path::Path, arguments: &AppendArgs) -> Result<Report, ToolError> {
    let mut raw = RawFile::create(directory)?;
    let options = EngineOptions {
        store: StoreOptions {
            segment_bytes: arguments.segment_bytes,
            ..StoreOptions::default()
        },
        is_network: arguments.no_zeros,
        budget_bytes: None,
    };
    let writing = Writing {
        writers: arguments.writers,
        threads: arguments.threads,
        size: arguments.size,
        window: arguments.window,
        keep_one_in: None,
    };
    let store = directory.join("store");
    let engine = Engine::start(&store, options, writing)?;
    warm_up(&engine, arguments.segment_bytes)?;
    let warm: Vec<u32> = engine
        .counts
        .log()
        .sizes
        .iter()
        .copied()
        .take(1000)
        .collect();
    replay(&mut raw, &warm, &mut latency_histogram()?)?;

    let mut totals = Totals {
        store: Duration::ZERO,
        store_busy: Duration::ZERO,
        raw: Duration::ZERO,
        messages: 0,
        batches: 0,
        bytes: 0,
        body: 0,
        written: Written::default(),
        process_bytes: process_bytes().map(|_| 0),
        store_us: latency_histogram()?,
        gap_us: latency_histogram()?,
        raw_us: latency_histogram()?,
    };
    let rolls = engine.counts.rolls().len().saturating_sub(1);
    while totals.store < Duration::from_secs(arguments.seconds) {
        let sizes = store_turn(&engine, &mut totals)?;
        totals.raw += replay(&mut raw, &sizes, &mut totals.raw_us)?;
    }
    let rolls = engine.counts.rolls().split_off(rolls);
    drop(engine);
    Ok(report(arguments, &totals, &rolls))
}

/// Segments grow from 1 MiB: until they are full-grown, more zeros are written ahead than log.
fn warm_up(engine: &Engine, segment_bytes: u64) -> Result<(), ToolError> {
    let started = Instant::now();
    let is_grown = |roll: &Roll| roll.capacity == segment_bytes;
    engine.open_gate();
    while !engine.counts.rolls().iter().any(is_grown) && started.elapsed() < WARM_UP_MAX {
        std::thread::sleep(LOOK);
        engine.status()?;
    }
    engine.close_gate()
}

/// Lets the store work for a turn; gives the sizes of its batches.
fn store_turn(engine: &Engine, totals: &mut Totals) -> Result<Vec<u32>, ToolError> {
    engine.counts.log().reset();
    let body = engine.counts.body.load(Ordering::Relaxed);
    let (messages, _) = engine.appended();
    let written = engine.counts.written();
    let process = process_bytes();
    let started = Instant::now();
    engine.open_gate();
    std::thread::sleep(TURN);
    engine.close_gate()?;
    totals.store += started.elapsed();
    if let (Some(all), Some(before), Some(after)) =
        (&mut totals.process_bytes, process, process_bytes())
    {
        *all += after - before;
    }
    totals.written = totals
        .written
        .plus(&engine.counts.written().since(&written));
    totals.body += engine.counts.body.load(Ordering::Relaxed) - body;
    totals.messages += engine.appended().0 - messages;
    let mut log = engine.counts.log();
    totals.store_busy += log.busy;
    let fault = |error| ToolError::Other(format!("no histogram: {error}"));
    totals.store_us.add(&log.took_us).map_err(fault)?;
    totals.gap_us.add(&log.gap_us).map_err(fault)?;
    let sizes = std::mem::take(&mut log.sizes);
    totals.batches += sizes.len() as u64;
    totals.bytes += sizes.iter().map(|size| u64::from(*size)).sum::<u64>();
    Ok(sizes)
}

/// The disk alone writes batches of these sizes. Gives the time of all of them.
fn replay(
    raw: &mut RawFile,
    sizes: &[u32],
    took_us: &mut Histogram<u64>,
) -> Result<Duration, ToolError> {
    let started = Instant::now();
    for size in sizes {
        let took = raw.write_synced(*size as usize)?;
        took_us.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
    Ok(started.elapsed())
}

/// Bytes that this process made the kernel write so far; `None` where it does not tell.
fn process_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/io").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes:"))?;
    line.trim().parse().ok()
}

impl Amplification {
    fn of(written: &Written, body_bytes: u64, process_bytes: Option<u64>) -> Self {
        let share = |bytes: u64| thousandths(bytes as f64 / body_bytes.max(1) as f64);
        Self {
            body_bytes,
            without_zeros: share(written.without_zeros()),
            zeros: share(written.zeros),
            total: share(written.total()),
            process: process_bytes.map(share),
        }
    }

    /// What a long run tends to: segments are counted as a whole.
    fn of_whole_segments(rolls: &[Roll], segment_bytes: u64) -> Option<Self> {
        let mut full = rolls.iter().filter(|roll| roll.capacity == segment_bytes);
        let (first, last) = (full.next()?, full.next_back()?);
        let written = last.written.since(&first.written);
        Some(Self::of(&written, last.body - first.body, None))
    }
}

/// Rounded to three digits behind the point.
fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn report(arguments: &AppendArgs, totals: &Totals, rolls: &[Roll]) -> Report {
    let seconds = totals.store.as_secs_f64();
    let ours = per_second(totals.bytes as f64, seconds);
    let raw = per_second(totals.bytes as f64, totals.raw.as_secs_f64());
    Report {
        size: arguments.size,
        writers: arguments.writers,
        threads: arguments.threads,
        window: arguments.window,
        zeros_ahead: !arguments.no_zeros,
        seconds: rounded(seconds),
        messages: totals.messages,
        messages_per_second: rounded(per_second(totals.messages as f64, seconds)),
        batches: totals.batches,
        bytes_per_batch: totals.bytes.checked_div(totals.batches).unwrap_or(0),
        store_bytes_per_second: rounded(ours),
        raw_bytes_per_second: rounded(raw),
        ratio: thousandths(per_second(ours, raw)),
        store_sync_p50_us: totals.store_us.value_at_quantile(0.5),
        store_sync_p99_us: totals.store_us.value_at_quantile(0.99),
        raw_sync_p50_us: totals.raw_us.value_at_quantile(0.5),
        raw_sync_p99_us: totals.raw_us.value_at_quantile(0.99),
        gap_p50_us: totals.gap_us.value_at_quantile(0.5),
        gap_p99_us: totals.gap_us.value_at_quantile(0.99),
        log_busy_share: thousandths(per_second(totals.store_busy.as_secs_f64(), seconds)),
        sync_slowdown: thousandths(per_second(
            totals.store_busy.as_secs_f64(),
            totals.raw.as_secs_f64(),
        )),
        written: totals.written,
        amplification: Amplification::of(&totals.written, totals.body, totals.process_bytes),
        whole_segments: Amplification::of_whole_segments(rolls, arguments.segment_bytes),
    }
}

fn say_report(report: &Report) {
    let rate = |bytes: f64| format!("{}/s", bytes_text(bytes));
    let sync = |p50: u64, p99: u64| format!("{p50} / {p99} µs");
    let mut figures = vec![
        (
            "durable",
            format!("{} messages/s", grouped(report.messages_per_second as u64)),
        ),
        (
            "batches",
            format!(
                "{} of {}",
                grouped(report.batches),
                bytes_text(report.bytes_per_batch as f64)
            ),
        ),
        ("log", rate(report.store_bytes_per_second)),
        (
            "the disk alone, the same batches",
            rate(report.raw_bytes_per_second),
        ),
        ("log by disk alone", format!("{:.3}", report.ratio)),
        (
            "write + fdatasync of the log p50 / p99",
            sync(report.store_sync_p50_us, report.store_sync_p99_us),
        ),
        (
            "of the disk alone p50 / p99",
            sync(report.raw_sync_p50_us, report.raw_sync_p99_us),
        ),
        (
            "from a sync to the next batch p50 / p99",
            sync(report.gap_p50_us, report.gap_p99_us),
        ),
        (
            "mean of the log by that of the disk alone",
            format!("{:.3}", report.sync_slowdown),
        ),
        (
            "share of time with a batch on its way",
            format!("{:.3}", report.log_busy_share),
        ),
    ];
    figures.extend(parts(&report.written));
    let amplification =
        |figure: &Amplification| format!("{:.3}, of them zeros {:.3}", figure.total, figure.zeros);
    figures.push((
        "written for a byte of body",
        amplification(&report.amplification),
    ));
    if let Some(process) = report.amplification.process {
        figures.push(("  in pages, as the kernel counts", format!("{process:.3}")));
    }
    if let Some(whole) = &report.whole_segments {
        figures.push(("  over whole segments", amplification(whole)));
    }
    let title = format!(
        "durable appends of {} bytes by {} writers on {} threads, {} at a time each, zeros ahead: {}, {:.1} s",
        report.size,
        report.writers,
        report.threads,
        report.window,
        if report.zeros_ahead { "yes" } else { "no" },
        report.seconds
    );
    say_figures(&title, &figures);
}

/// What was written, by purpose.
pub(super) fn parts(written: &Written) -> Vec<(&'static str, String)> {
    [
        ("written: log", written.log),
        ("written: zeros", written.zeros),
        ("written: headers, footers, indexes", written.footers),
        ("written: checkpoints", written.checkpoint),
        ("written: compaction", written.compaction),
        ("written: reserve", written.reserve),
        ("written: other", written.other),
    ]
    .into_iter()
    .filter(|(_, bytes)| *bytes > 0)
    .map(|(name, bytes)| (name, bytes_text(bytes as f64)))
    .collect()
}
