//! `steadfast store inspect|verify|stats`: reads only, safe beside a running server. And `repair`, for a store
//! that no server owns.

use std::collections::BTreeMap;
use std::io;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use steadfast_storage::disk::Disk;
use steadfast_storage::inspect::{
    CheckpointReport, Finding, SegmentReport, VerifyReport, dump, open_directory, rows, segments,
    stats, verify,
};
use steadfast_storage::repair::{RepairReport, repair};
use steadfast_storage::{OpenError, StoreOptions};

use super::args::{InspectArgs, RepairArgs, StoreArgs, StoreCommand};
use super::{complain, say};
use crate::node::queue_names;
use crate::role::Exit;

/// What the queues of a store are called. The store knows only numbers; the server's rows in it have the
/// names, as far as they can be read.
#[derive(Default)]
struct Names(BTreeMap<u32, String>);

impl Names {
    /// Those of a store that may have an owner or be damaged: what cannot be read has no name.
    fn of(disk: &dyn Disk) -> Self {
        Self(rows(disk).map_or_else(|_| BTreeMap::new(), |rows| queue_names(&rows)))
    }

    fn get(&self, queue: Option<u32>) -> Option<&String> {
        self.0.get(&queue?)
    }

    /// Name and number, else the number.
    fn call(&self, queue: u32) -> String {
        match self.0.get(&queue) {
            Some(name) => format!("{name} ({queue})"),
            None => queue.to_string(),
        }
    }
}

pub(super) fn run(command: &StoreCommand) -> Exit {
    let result = match command {
        StoreCommand::Inspect(arguments) => inspect_store(arguments),
        StoreCommand::Verify(arguments) => verify_store(arguments),
        StoreCommand::Stats(arguments) => show_stats(arguments),
        StoreCommand::Repair(arguments) => repair_store(arguments),
    };
    result.unwrap_or_else(|text| {
        complain(&text);
        Exit::Failed
    })
}

fn inspect_store(arguments: &InspectArgs) -> Result<Exit, String> {
    let (disk, numbers) = open(&arguments.store)?;
    let numbers = match arguments.segment {
        Some(wanted) if !numbers.contains(&wanted) => {
            let listed: Vec<String> = numbers.iter().map(u64::to_string).collect();
            return Err(format!(
                "there is no segment {wanted}, only {}",
                listed.join(", ")
            ));
        }
        Some(wanted) => vec![wanted],
        None => numbers,
    };
    let names = Names::of(disk.as_ref());
    let mut document = Vec::new();
    for number in numbers {
        let mut lines = Vec::new();
        let is_json = arguments.store.json;
        let mut line = |text: String| {
            if is_json {
                lines.push(text)
            } else {
                say(&text)
            }
        };
        let result = dump(
            disk.as_ref(),
            number,
            arguments.from,
            arguments.batches,
            &|queue| names.call(queue),
            &mut line,
        );
        // A segment that is only prepared has nothing to show, one that was just reclaimed is
        // gone; whether something is damaged is what `verify` says.
        if let Err(error) = result {
            line(format!("segment {number}: {error}"));
        }
        document.push(json!({ "segment": number, "lines": lines }));
    }
    if arguments.store.json {
        say(&json!({ "segments": document }).to_string());
    }
    Ok(Exit::Done)
}

fn verify_store(arguments: &StoreArgs) -> Result<Exit, String> {
    let (disk, numbers) = open(arguments)?;
    // Hidden unless standard error is a terminal.
    let bar = ProgressBar::new(numbers.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} segment {msg} ({pos}/{len})") {
        bar.set_style(style);
    }
    let report = verify(disk.as_ref(), &mut |number, count| {
        bar.set_length(count as u64);
        bar.set_message(number.to_string());
        bar.inc(1);
    });
    bar.finish_and_clear();
    let report = report.map_err(|error| cannot_read(arguments, &error))?;
    let names = Names::of(disk.as_ref());
    if arguments.json {
        say(&document(&report, &names, true).to_string());
    } else {
        say(&segment_table(&report.segments, true).to_string());
        for finding in &report.findings {
            say(&describe(finding, &names));
        }
        let aside = report.checkpoints.iter().map(|it| it.quarantined).max();
        if let Some(aside) = aside.filter(|aside| *aside > 0) {
            say(&format!(
                "note: {aside} damaged messages were set aside so far; their bytes are in {}",
                arguments.dir.join("quarantine").display()
            ));
        }
        say(if report.is_damaged() {
            "the store is damaged"
        } else {
            "the store is whole"
        });
    }
    Ok(if report.is_damaged() {
        Exit::Damaged
    } else {
        Exit::Done
    })
}

fn show_stats(arguments: &StoreArgs) -> Result<Exit, String> {
    let (disk, _) = open(arguments)?;
    let report = stats(disk.as_ref()).map_err(|error| cannot_read(arguments, &error))?;
    // Only the queues of a checkpoint are to be named here; without one, the whole log would be read for it.
    let names = match arguments.json && !report.checkpoints.is_empty() {
        true => Names::of(disk.as_ref()),
        false => Names::default(),
    };
    if arguments.json {
        say(&document(&report, &names, false).to_string());
        return Ok(Exit::Done);
    }
    let bytes: u64 = report
        .segments
        .iter()
        .map(|segment| segment.file_bytes)
        .sum();
    say(&segment_table(&report.segments, false).to_string());
    say(&format!(
        "{} segments, {bytes} bytes",
        report.segments.len()
    ));
    for checkpoint in &report.checkpoints {
        let waiting: u64 = checkpoint
            .queues
            .iter()
            .map(|(_, messages, _)| messages)
            .sum();
        let waiting_bytes: u64 = checkpoint.queues.iter().map(|(_, _, bytes)| bytes).sum();
        say(&format!(
            "{}: up to segment {} at {}, record {}; {waiting} messages of {waiting_bytes} bytes \
             waiting in {} queues; {} rows; {} set aside as damaged",
            checkpoint.file,
            checkpoint.segment,
            checkpoint.offset,
            checkpoint.last_lsn,
            checkpoint.queues.len(),
            checkpoint.rows,
            checkpoint.quarantined
        ));
    }
    for finding in &report.findings {
        say(&describe(finding, &names));
    }
    Ok(Exit::Done)
}

fn repair_store(arguments: &RepairArgs) -> Result<Exit, String> {
    let (disk, _) = open(&arguments.store)?;
    let mut identity = [0; 24];
    fastrand::fill(&mut identity);
    let options = StoreOptions {
        allow_unverified_locking: arguments.allow_unverified_locking,
        new_identity: identity,
        ..StoreOptions::default()
    };
    let report = match repair(&disk, &options, arguments.accept_data_loss) {
        Ok(report) => report,
        Err(error) => {
            complain(&error.to_string());
            return Ok(match error {
                OpenError::Busy(_) | OpenError::UnsafeFileSystem(_) => Exit::NotOwner,
                OpenError::Damaged(_) => Exit::Damaged,
                _ => Exit::Failed,
            });
        }
    };
    let names = Names(queue_names(&report.rows));
    if arguments.store.json {
        say(&repair_document(&report, &names).to_string());
    } else {
        tell(arguments, &report, &names);
    }
    Ok(match (report.is_needed, report.is_done) {
        (true, false) => Exit::Damaged,
        _ if !report.remaining.is_empty() => Exit::Failed,
        _ => Exit::Done,
    })
}

fn tell(arguments: &RepairArgs, report: &RepairReport, names: &Names) {
    let call = |queue| names.call(queue);
    if !report.is_needed {
        say("the store is whole: nothing was changed");
        return;
    }
    for finding in &report.findings {
        say(&describe(finding, names));
    }
    if let Some(refusal) = &report.refusal {
        say(&format!("a server refuses it: {refusal}"));
    }
    let verb = if report.is_done {
        "dropped"
    } else {
        "would drop"
    };
    for dropped in &report.dropped {
        say(&format!("{verb}: {}", dropped.describe(&call)));
    }
    if report.dropped.is_empty() {
        say("nothing that waits is lost by it");
    }
    for note in &report.notes {
        say(&format!("note: {}", note.describe(&call)));
    }
    for finding in &report.remaining {
        say(&format!("REMAINS {}", describe(finding, names)));
    }
    match &report.folder {
        Some(folder) => say(&format!(
            "the store is repaired: {} messages wait; copies of {} files and the list of what was dropped are \
             in {}; delete that folder when nothing of it is needed any more",
            report.messages,
            report.kept.len(),
            arguments.store.dir.join(folder).display()
        )),
        None => say(&format!(
            "nothing was changed; {} messages would wait: --accept-data-loss repairs the store and keeps \
             copies of the damaged files",
            report.messages
        )),
    }
}

fn repair_document(report: &RepairReport, names: &Names) -> Value {
    let finding = |it: &Finding| finding_document(it, names);
    let call = |queue| names.call(queue);
    json!({
        "needed": report.is_needed,
        "done": report.is_done,
        "refusal": report.refusal,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "dropped": report.dropped.iter().map(|dropped| json!({
            "file": dropped.file,
            "offset": dropped.offset,
            "bytes": dropped.bytes,
            "queue": dropped.queue,
            "queue_name": names.get(dropped.queue),
            "messages": dropped.messages,
            "what": dropped.what,
        })).collect::<Vec<_>>(),
        "notes": report.notes.iter().map(|note| note.describe(&call)).collect::<Vec<_>>(),
        "folder": report.folder,
        "kept": report.kept,
        "messages": report.messages,
        "remaining": report.remaining.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn finding_document(finding: &Finding, names: &Names) -> Value {
    json!({
        "file": finding.file,
        "offset": finding.offset,
        "queue": finding.queue,
        "queue_name": names.get(finding.queue),
        "what": finding.what,
        "damage": finding.is_damage,
    })
}

/// The directory and its segments; a directory without any is no store.
fn open(arguments: &StoreArgs) -> Result<(std::sync::Arc<dyn Disk>, Vec<u64>), String> {
    let disk = open_directory(&arguments.dir).map_err(|error| cannot_read(arguments, &error))?;
    let numbers = segments(disk.as_ref()).map_err(|error| cannot_read(arguments, &error))?;
    if numbers.is_empty() {
        return Err(format!(
            "{} holds no store: there is no segment in it",
            arguments.dir.display()
        ));
    }
    Ok((disk, numbers))
}

fn cannot_read(arguments: &StoreArgs, error: &io::Error) -> String {
    format!("{} cannot be read: {error}", arguments.dir.display())
}

fn describe(finding: &Finding, names: &Names) -> String {
    let kind = if finding.is_damage { "DAMAGE" } else { "note" };
    let queue = finding.queue.map(|queue| names.call(queue));
    let queue = queue.map_or_else(String::new, |queue| format!(", queue {queue}"));
    let (file, offset) = (&finding.file, finding.offset);
    format!("{kind}: {file} at {offset}{queue}: {}", finding.what)
}

/// `is_counted`: the messages were read, not only what is known without that.
fn segment_table(reports: &[SegmentReport], is_counted: bool) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let head = "segment epoch first-record file-bytes valid-bytes records messages references end";
    table.set_header(head.split(' ').map(|name| name.replace('-', " ")));
    for report in reports {
        let is_known = is_counted || report.valid_bytes > 0;
        let numbers = [
            (report.segment, true),
            (report.epoch, true),
            (report.base_lsn, true),
            (report.file_bytes, true),
            (report.valid_bytes, is_known),
            (report.records, is_known),
            (report.messages, is_counted),
            (report.references, is_known),
        ];
        let cells = numbers
            .iter()
            .map(|(number, is_known)| {
                if *is_known {
                    number.to_string()
                } else {
                    "-".to_owned()
                }
            })
            .chain([report.end.clone()]);
        table.add_row(cells);
    }
    for column in table.column_iter_mut().take(8) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn document(report: &VerifyReport, names: &Names, is_counted: bool) -> Value {
    let checkpoint = |it: &CheckpointReport| checkpoint_document(it, names);
    let finding = |it: &Finding| finding_document(it, names);
    let segment = |it: &SegmentReport| segment_document(it, is_counted);
    json!({
        "damaged": report.is_damaged(),
        "segments": report.segments.iter().map(segment).collect::<Vec<_>>(),
        "checkpoints": report.checkpoints.iter().map(checkpoint).collect::<Vec<_>>(),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn segment_document(report: &SegmentReport, is_counted: bool) -> Value {
    let is_known = is_counted || report.valid_bytes > 0;
    json!({
        "segment": report.segment,
        "epoch": report.epoch,
        "base_lsn": report.base_lsn,
        "file_bytes": report.file_bytes,
        "valid_bytes": is_known.then_some(report.valid_bytes),
        "batches": is_counted.then_some(report.batches),
        "records": is_known.then_some(report.records),
        "messages": is_counted.then_some(report.messages),
        "references": is_known.then_some(report.references),
        "message_bytes": is_counted.then_some(report.message_bytes),
        "end": report.end,
    })
}

fn checkpoint_document(report: &CheckpointReport, names: &Names) -> Value {
    let queue = |(queue, messages, bytes): &(u32, u64, u64)| {
        json!({
            "queue": queue,
            "queue_name": names.get(Some(*queue)),
            "messages": messages,
            "bytes": bytes,
        })
    };
    json!({
        "file": report.file,
        "segment": report.segment,
        "offset": report.offset,
        "last_lsn": report.last_lsn,
        "queues": report.queues.iter().map(queue).collect::<Vec<_>>(),
        "rows": report.rows,
        "quarantined": report.quarantined,
    })
}
