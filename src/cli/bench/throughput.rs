//! `steadfast bench throughput`: messages a second through senders and receivers, in turn with the disk
//! alone.

use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::sleep;

use super::load::{
    Load, Sender, Tasks, attach_receiver, connect_by, durable_message, queue_names, receive,
};
use super::raw::RawFile;
use super::{Subject, per_second, rounded, say_figures};
use crate::cli::args::ThroughputArgs;
use crate::cli::own_server::StoreState;
use crate::cli::tool::{ToolError, blocking, bytes_text, grouped, say_json, spinner};
use crate::role::Exit;

/// Before anything counts: the first segments are made, caches are warm.
const WARM_UP: Duration = Duration::from_millis(500);
/// The load and the disk alone take turns of these lengths.
const LOAD_TURN: Duration = Duration::from_millis(900);
const RAW_TURN: Duration = Duration::from_millis(300);
/// Receivers are idle when nothing came for so long.
const QUIET: Duration = Duration::from_millis(10);
/// How long receivers that lag behind are waited for in each turn.
const QUIET_MAX: Duration = Duration::from_secs(2);

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    senders: usize,
    receivers: usize,
    queues: usize,
    size: usize,
    /// Messages in flight of each sender.
    window: usize,
    durable: bool,
    /// Time under load.
    seconds: f64,
    sent_per_second: f64,
    received_per_second: f64,
    confirm_p50_us: u64,
    confirm_p99_us: u64,
    #[serde(flatten)]
    disk: Option<Disk>,
}

/// The log of our own server, and the disk alone.
#[derive(Debug, Serialize)]
struct Disk {
    bytes_per_batch: u64,
    batches_per_second: f64,
    batch_bytes_per_second: f64,
    raw_bytes_per_second: f64,
    /// What the log writes by what the disk alone can write in such batches.
    ratio: f64,
}

/// What was counted.
#[derive(Debug, Default)]
struct Totals {
    load: Duration,
    quiet: Duration,
    raw: Duration,
    raw_bytes: f64,
}

pub(super) async fn run(arguments: &ThroughputArgs) -> Result<Exit, ToolError> {
    check(arguments)?;
    let subject = Subject::prepare(&arguments.client).await?;
    let load = Load::new()?;
    let mut tasks = Tasks::default();
    start_tasks(arguments, &subject, &load, &mut tasks).await?;
    let spinner = spinner("measuring");
    let report = tasks.beside(measure(arguments, &subject, &load)).await?;
    spinner.finish_and_clear();
    drop(tasks);
    subject.end().await?;
    if arguments.client.json {
        say_json(&report)?;
    } else {
        say_report(&report);
    }
    Ok(Exit::Done)
}

fn check(arguments: &ThroughputArgs) -> Result<(), ToolError> {
    for (name, value) in [
        ("--senders", arguments.senders),
        ("--queues", arguments.queues),
        ("--window", arguments.window),
    ] {
        if value == 0 {
            return Err(ToolError::Usage(format!("{name} must be at least 1")));
        }
    }
    Ok(())
}

/// Connects senders and receivers, spread over the queues.
async fn start_tasks(
    arguments: &ThroughputArgs,
    subject: &Subject,
    load: &Rc<Load>,
    tasks: &mut Tasks,
) -> Result<(), ToolError> {
    let queues = queue_names(arguments.queues);
    let message = durable_message(arguments.client.size);
    for (number, queue) in (0..arguments.receivers).zip(queues.iter().cycle()) {
        let mut client = connect_by(
            &subject.url,
            subject.tls.as_ref(),
            arguments.senders + number,
        )
        .await?;
        let link = attach_receiver(&mut client, queue).await?;
        tasks.start(receive(Rc::clone(load), client, link));
    }
    for (number, queue) in (0..arguments.senders).zip(queues.iter().cycle()) {
        let client = connect_by(&subject.url, subject.tls.as_ref(), number).await?;
        let lanes = [(queue.as_str(), u64::MAX)];
        let sender = Sender::connect(load, client, &lanes, arguments.window, &message).await?;
        tasks.start(sender.run());
    }
    Ok(())
}

async fn measure(
    arguments: &ThroughputArgs,
    subject: &Subject,
    load: &Rc<Load>,
) -> Result<Report, ToolError> {
    let mut raw = subject
        .raw_directory
        .as_deref()
        .map(RawFile::create)
        .transpose()?;
    let before_warm_up = store(subject).await?;
    load.open();
    sleep(WARM_UP).await;
    pause(load).await;
    let before = store(subject).await?;
    let mut batch_bytes = mean_batch(before_warm_up.as_ref(), before.as_ref());

    load.measure();
    let mut totals = Totals::default();
    while !is_over(arguments, load, &totals) {
        let started = Instant::now();
        load.open();
        turn(arguments, load).await;
        load.close();
        load.drained().await;
        totals.load += started.elapsed();
        totals.quiet += quiet(load).await;
        if let (Some(file), Some(bytes)) = (raw.take(), batch_bytes) {
            let (file, records, took) = raw_turn(file, bytes).await?;
            raw = Some(file);
            totals.raw += took;
            totals.raw_bytes += records as f64 * bytes as f64;
            // The next turn writes what the batches have become.
            batch_bytes = mean_batch(before.as_ref(), store(subject).await?.as_ref());
        }
    }
    let after = store(subject).await?;
    Ok(report(
        arguments,
        load,
        &totals,
        before.as_ref(),
        after.as_ref(),
    ))
}

async fn raw_turn(
    mut file: RawFile,
    batch_bytes: usize,
) -> Result<(RawFile, u64, Duration), ToolError> {
    blocking(move || {
        let (records, took) = file.write_for(batch_bytes, RAW_TURN)?;
        Ok((file, records, took))
    })
    .await
}

/// Counters of our own server.
async fn store(subject: &Subject) -> Result<Option<StoreState>, ToolError> {
    match &subject.server {
        Some(server) => server.fresh_store().await.map(Some),
        None => Ok(None),
    }
}

/// Mean size of the batches between two looks; `None` without a server of our own.
fn mean_batch(before: Option<&StoreState>, after: Option<&StoreState>) -> Option<usize> {
    let (before, after) = (before?, after?);
    let batches = after.batches.saturating_sub(before.batches);
    let bytes = after.batch_bytes.saturating_sub(before.batch_bytes);
    usize::try_from(bytes.checked_div(batches)?).ok()
}

/// Lets the load run for one turn, or until enough messages are confirmed.
async fn turn(arguments: &ThroughputArgs, load: &Load) {
    let ends = Instant::now() + LOAD_TURN;
    loop {
        let left = ends.saturating_duration_since(Instant::now());
        if left.is_zero() || has_enough(arguments, load) {
            return;
        }
        sleep(left.min(QUIET)).await;
    }
}

fn has_enough(arguments: &ThroughputArgs, load: &Load) -> bool {
    arguments
        .messages
        .is_some_and(|messages| load.confirmed.get() >= messages)
}

fn is_over(arguments: &ThroughputArgs, load: &Load, totals: &Totals) -> bool {
    match arguments.messages {
        Some(_) => has_enough(arguments, load),
        None => totals.load >= Duration::from_secs(arguments.seconds),
    }
}

/// Stops the load and waits until it is quiet.
async fn pause(load: &Load) {
    load.close();
    load.drained().await;
    quiet(load).await;
}

/// Waits until receivers have what there is. Returns how long that took, the last pause not counted.
async fn quiet(load: &Load) -> Duration {
    let started = Instant::now();
    loop {
        let before = load.received.get();
        let so_far = started.elapsed();
        sleep(QUIET).await;
        if load.received.get() == before || so_far >= QUIET_MAX {
            return so_far;
        }
    }
}

fn report(
    arguments: &ThroughputArgs,
    load: &Load,
    totals: &Totals,
    before: Option<&StoreState>,
    after: Option<&StoreState>,
) -> Report {
    let seconds = totals.load.as_secs_f64();
    let receiving = (totals.load + totals.quiet).as_secs_f64();
    let latency = load.latency_us.borrow();
    let disk = mean_batch(before, after).zip(before.zip(after)).map(
        |(bytes_per_batch, (before, after))| {
            let batches = (after.batches - before.batches) as f64;
            let written = (after.batch_bytes - before.batch_bytes) as f64;
            let raw = per_second(totals.raw_bytes, totals.raw.as_secs_f64());
            let ours = per_second(written, receiving);
            Disk {
                bytes_per_batch: bytes_per_batch as u64,
                batches_per_second: rounded(per_second(batches, receiving)),
                batch_bytes_per_second: rounded(ours),
                raw_bytes_per_second: rounded(raw),
                ratio: rounded(per_second(ours, raw)),
            }
        },
    );
    Report {
        senders: arguments.senders,
        receivers: arguments.receivers,
        queues: arguments.queues,
        size: arguments.client.size,
        window: arguments.window,
        durable: true,
        seconds: rounded(seconds),
        sent_per_second: rounded(per_second(load.confirmed.get() as f64, seconds)),
        received_per_second: rounded(per_second(load.received.get() as f64, receiving)),
        confirm_p50_us: latency.value_at_quantile(0.5),
        confirm_p99_us: latency.value_at_quantile(0.99),
        disk,
    }
}

fn say_report(report: &Report) {
    let rate = |value: f64| format!("{} messages/s", grouped(value as u64));
    let mut figures = vec![
        ("sent and confirmed", rate(report.sent_per_second)),
        ("received and settled", rate(report.received_per_second)),
        (
            "confirm p50 / p99",
            format!("{} / {} µs", report.confirm_p50_us, report.confirm_p99_us),
        ),
    ];
    if let Some(disk) = &report.disk {
        figures.push((
            "batches",
            format!(
                "{}/s of {}",
                grouped(disk.batches_per_second as u64),
                bytes_text(disk.bytes_per_batch as f64)
            ),
        ));
        figures.push((
            "log",
            format!("{}/s", bytes_text(disk.batch_bytes_per_second)),
        ));
        figures.push((
            "the disk alone, such batches",
            format!("{}/s", bytes_text(disk.raw_bytes_per_second)),
        ));
        figures.push(("log by disk alone", format!("{:.2}", disk.ratio)));
    }
    let title = format!(
        "durable messages of {} bytes, {} senders with {} in flight each, {} receivers, {:.1} s",
        report.size, report.senders, report.window, report.receivers, report.seconds
    );
    say_figures(&title, &figures);
}
