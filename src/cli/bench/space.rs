//! `steadfast bench space`: whether old messages that stay keep the space of those that go.
//!
//! Messages flow through the store alone; as soon as one is durable it is settled, but for one in a thousand,
//! which stays for ever. The directory is measured all the time. The bound is strict: only what is kept counts
//! as live, and everything in the directory counts as the store.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use steadfast_storage::StoreOptions;

use super::append::parts;
use super::engine::{Engine, EngineOptions, Writing, Written};
use super::{bench_directory, rounded, say_figures};
use crate::cli::args::SpaceArgs;
use crate::cli::own_server::files_of;
use crate::cli::tool::{ToolError, blocking, bytes_text, grouped, progress, say_json};
use crate::role::Exit;

/// Threads that write.
const WRITERS: usize = 4;
/// Messages that each appends before it waits.
const WINDOW: usize = 64;
/// Between two looks at the directory.
const LOOK: Duration = Duration::from_millis(5);
/// What the store may do at the end, when nobody writes.
const REST: Duration = Duration::from_millis(2500);
/// A segment is one part in so many of the budget.
const SEGMENTS: u64 = 16;
/// The store may be so many times as large as what is kept, and so many segments more.
const LIVE_TIMES: u64 = 4;
const SEGMENTS_MORE: u64 = 4;
/// What is written beside the log may be so much of the log.
const EXTRA_MAX: f64 = 1.0 / 3.0;

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    budget_bytes: u64,
    segment_bytes: u64,
    size: u64,
    seconds: f64,
    messages: u64,
    body_bytes: u64,
    kept_messages: u64,
    kept_bytes: u64,
    looks: u64,
    /// The look at which the store was largest by its bound.
    worst: Look,
    /// After some time without writers.
    end: Look,
    written: Written,
    /// Compaction by log.
    compaction_share: f64,
    /// All that is neither log nor zeros, by log.
    extra_share: f64,
    compactions: u64,
    within_bounds: bool,
}

/// One look at the directory.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Look {
    flowed_bytes: u64,
    kept_bytes: u64,
    store_bytes: u64,
    bound_bytes: u64,
    /// Store by bound.
    share: f64,
    /// Segments, those in preparation too.
    segments: u64,
    /// The files of compacted segments.
    compacted_bytes: u64,
    checkpoint_bytes: u64,
}

impl Look {
    fn take(
        directory: &Path,
        engine: &Engine,
        size: u64,
        segment_bytes: u64,
    ) -> Result<Self, ToolError> {
        let (messages, kept) = engine.appended();
        let kept_bytes = kept * size;
        let bound_bytes = LIVE_TIMES * kept_bytes + SEGMENTS_MORE * segment_bytes;
        let mut look = Self {
            flowed_bytes: messages * size,
            kept_bytes,
            bound_bytes,
            ..Self::default()
        };
        for path in files_of(directory)? {
            // What the store has just removed counts nothing.
            let bytes = std::fs::metadata(&path).map_or(0, |data| data.len());
            look.store_bytes += bytes;
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if name.contains(".seg") {
                look.segments += u64::from(bytes > 0);
            } else if name.contains(".cmp") {
                look.compacted_bytes += bytes;
            } else if name.contains(".redb") {
                look.checkpoint_bytes += bytes;
            }
        }
        look.share = rounded(look.store_bytes as f64 / bound_bytes as f64);
        Ok(look)
    }
}

pub(super) async fn run(arguments: &SpaceArgs) -> Result<Exit, ToolError> {
    let directory = bench_directory(arguments.dir.as_deref())?;
    let (path, own) = (directory.path().join("store"), arguments.clone());
    let report = blocking(move || measure(&path, &own)).await?;
    if arguments.json {
        say_json(&report)?;
    } else {
        say_report(&report);
    }
    Ok(match report.within_bounds {
        true => Exit::Done,
        false => Exit::Failed,
    })
}

fn measure(directory: &Path, arguments: &SpaceArgs) -> Result<Report, ToolError> {
    let budget_bytes = arguments.budget_mib << 20;
    let segment_bytes = budget_bytes / SEGMENTS;
    let options = EngineOptions {
        store: StoreOptions {
            segment_bytes,
            free_bytes_min: budget_bytes / 8,
            ..StoreOptions::default()
        },
        is_network: arguments.no_zeros,
        budget_bytes: Some(budget_bytes),
    };
    let writing = Writing {
        writers: WRITERS,
        threads: 1,
        size: usize::try_from(arguments.size).unwrap_or(usize::MAX),
        window: WINDOW,
        keep_one_in: Some(arguments.keep_one_in),
    };
    let engine = Engine::start(directory, options, writing)?;
    let look = || Look::take(directory, &engine, arguments.size, segment_bytes);
    let flow_bytes = arguments.times * budget_bytes;
    let bar = progress("flowing", flow_bytes);
    let started = Instant::now();
    let (mut worst, mut looks) = (Look::default(), 0);
    engine.open_gate();
    loop {
        let now = look()?;
        looks += 1;
        if now.store_bytes * worst.bound_bytes.max(1) >= worst.store_bytes * now.bound_bytes {
            worst = now;
        }
        bar.set_position(now.flowed_bytes);
        if now.flowed_bytes >= flow_bytes {
            break;
        }
        engine.status()?;
        std::thread::sleep(LOOK);
    }
    engine.close_gate()?;
    let seconds = started.elapsed().as_secs_f64();
    engine.rest(REST)?;
    bar.finish_and_clear();
    let (messages, kept_messages) = engine.appended();
    let written = engine.counts.written();
    let share = |bytes: u64| bytes as f64 / written.log.max(1) as f64;
    Ok(Report {
        budget_bytes,
        segment_bytes,
        size: arguments.size,
        seconds: rounded(seconds),
        messages,
        body_bytes: messages * arguments.size,
        kept_messages,
        kept_bytes: kept_messages * arguments.size,
        looks,
        worst,
        end: look()?,
        written,
        compaction_share: (share(written.compaction) * 1000.0).round() / 1000.0,
        extra_share: (share(written.beside_log()) * 1000.0).round() / 1000.0,
        compactions: engine.status()?.compactions,
        within_bounds: worst.store_bytes <= worst.bound_bytes
            && share(written.beside_log()) <= EXTRA_MAX,
    })
}

fn say_report(report: &Report) {
    let look = |look: &Look| {
        format!(
            "{} for {} kept, {:.2} of the bound {}: {} segments, {} compacted, {} of checkpoint",
            bytes_text(look.store_bytes as f64),
            bytes_text(look.kept_bytes as f64),
            look.share,
            bytes_text(look.bound_bytes as f64),
            look.segments,
            bytes_text(look.compacted_bytes as f64),
            bytes_text(look.checkpoint_bytes as f64)
        )
    };
    let mut figures = vec![
        ("time", format!("{:.1} s", report.seconds)),
        (
            "flowed through",
            format!(
                "{} messages, {} of bodies",
                grouped(report.messages),
                bytes_text(report.body_bytes as f64)
            ),
        ),
        (
            "kept",
            format!(
                "{} messages, {}",
                grouped(report.kept_messages),
                bytes_text(report.kept_bytes as f64)
            ),
        ),
        (
            "largest by its bound",
            format!("{} ({} looks)", look(&report.worst), grouped(report.looks)),
        ),
        ("at the end", look(&report.end)),
        ("compactions", grouped(report.compactions)),
    ];
    figures.extend(parts(&report.written));
    figures.push((
        "compaction by log",
        format!("{:.3}", report.compaction_share),
    ));
    figures.push((
        "all but log and zeros, by log",
        format!("{:.3}", report.extra_share),
    ));
    figures.push((
        "within bounds",
        String::from(if report.within_bounds { "yes" } else { "NO" }),
    ));
    let title = format!(
        "space: {} of disk, segments of {}, messages of {} bytes; bound: {LIVE_TIMES} times what is kept and \
         {SEGMENTS_MORE} segments",
        bytes_text(report.budget_bytes as f64),
        bytes_text(report.segment_bytes as f64),
        report.size
    );
    say_figures(&title, &figures);
}
