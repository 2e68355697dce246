//! The store's formats, and recovery of a store whose files went bad.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use steadfast_storage::disk::{Disk, OpenMode, SimDisk, SimWorld};
use steadfast_storage::repair::{Dropped, RepairReport, repair};
use steadfast_storage::{
    Acquire, Cursor, NewMessage, QueueId, ReadLimit, RecoveryReport, Store, StoreOptions, envelope,
    hostile, inspect, try_acquire,
};

use crate::Target;
use crate::damage::damage;

/// Those settled in a sample: every one divisible by this.
const SETTLED_EACH: usize = 5;
/// Largest segment of a sample, and of the one that is damaged at each of its bytes.
const SEGMENT_BYTES: u64 = 1 << 20;
const SMALL_SEGMENT_BYTES: u64 = 64 << 10;
/// Queues of a sample, from 1.
const QUEUES: u32 = 2;

/// A store whose owner is gone.
pub(crate) struct Sample {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    messages: u32,
    /// Those that wait no more.
    settled: BTreeSet<u32>,
    /// The length of a message's padding at most.
    padding: u32,
    segment_bytes: u64,
}

/// How a sample is made.
pub(crate) struct Recipe {
    pub(crate) epochs: u32,
    pub(crate) messages: u32,
    pub(crate) padding: u32,
    /// The last owner ends in order.
    pub(crate) ends_well: bool,
}

/// Small stores that differ in what they are made of: tails and adopted batches; segments with
/// footers, side indexes and snapshots; a store that was shut down.
static SAMPLES: LazyLock<Vec<Sample>> = LazyLock::new(|| {
    let recipe = |epochs, messages, padding, ends_well| Recipe {
        epochs,
        messages,
        padding,
        ends_well,
    };
    let recipes = [
        recipe(2, 60, 50, false),
        recipe(3, 150, 3000, false),
        recipe(2, 60, 50, true),
        recipe(1, 20, 50, false),
    ];
    recipes.iter().map(make).collect()
});

pub(crate) fn make(recipe: &Recipe) -> Sample {
    let world = SimWorld::new();
    for epoch in 0..recipe.epochs {
        let (disk, mut store, _) = open(&world, SEGMENT_BYTES).expect("a sample store opens");
        let share = recipe.messages / recipe.epochs;
        for number in epoch * share..(epoch + 1) * share {
            let body = text(number, recipe.padding);
            let queue = QueueId(1 + number % QUEUES);
            let appended = store
                .append_message(NewMessage {
                    routes: &[queue],
                    durable: true,
                    meta: b"meta",
                    body: &[body.as_bytes()],
                })
                .expect("a sample store takes messages");
            work(&disk, &mut store, 1);
            if (number as usize).is_multiple_of(SETTLED_EACH) {
                store
                    .append_settled(queue, appended.first)
                    .expect("settlements are taken");
            }
            store
                .put_row(1, &number.to_be_bytes(), b"row")
                .expect("rows are taken");
            work(&disk, &mut store, if number % 7 == 0 { 60 } else { 1 });
        }
        if recipe.ends_well && epoch + 1 == recipe.epochs {
            store.begin_shutdown();
            work(&disk, &mut store, 100);
            assert!(store.is_shut_down(), "a sample store ends in order");
        }
        world.kill(&disk);
    }
    Sample {
        files: files(&world),
        messages: recipe.messages,
        settled: (0..recipe.messages).step_by(SETTLED_EACH).collect(),
        padding: recipe.padding,
        segment_bytes: SEGMENT_BYTES,
    }
}

/// A store of few bytes in which each structure of the format occurs: a compacted segment, one with a
/// footer, one that was sealed and has an index beside it, a prepared one that is void, the open one;
/// records of all kinds; a checkpoint with rows in all tables.
pub(crate) fn one_of_each() -> Sample {
    const PADDING: u32 = 400;
    let world = SimWorld::new();
    let mut settled = BTreeSet::new();
    let mut number = 0;
    for (owner, end) in [44, 52, 54].into_iter().enumerate() {
        let (disk, mut store, _) = open(&world, SMALL_SEGMENT_BYTES).expect("a sample store opens");
        while number < end {
            let body = text(number, PADDING);
            let queue = QueueId(1 + number % QUEUES);
            let message = NewMessage {
                routes: &[queue],
                durable: true,
                meta: b"meta",
                body: &[body.as_bytes()],
            };
            let place = store
                .append_message(message)
                .expect("a message is taken")
                .first;
            work(&disk, &mut store, 1);
            // Of the first segment hardly anything stays.
            if (number < 26 && number % 8 != 0) || number.is_multiple_of(5) {
                store
                    .append_settled(queue, place)
                    .expect("settlements are taken");
                settled.insert(number);
            } else if number == 42 {
                store.quarantine(queue, place).expect("damage is set aside");
                settled.insert(number);
            }
            store
                .put_row(1, &number.to_be_bytes(), b"row")
                .expect("rows are taken");
            store.put_row(2, b"gone", b"row").expect("rows are taken");
            store.delete_row(2, b"gone").expect("rows are taken");
            number += 1;
            // Each owner but the last one takes checkpoints; the second one dies with a message that
            // nobody can prove durable.
            let rests = [number % 20 == 0 || number == end, number + 1 == end, false];
            work(&disk, &mut store, if rests[owner] { 80 } else { 1 });
        }
        world.kill(&disk);
    }
    Sample {
        files: files(&world),
        messages: number,
        settled,
        padding: PADDING,
        segment_bytes: SMALL_SEGMENT_BYTES,
    }
}

fn files(world: &SimWorld) -> BTreeMap<String, Vec<u8>> {
    let file = |name: String| world.bytes_of(&name).map(|bytes| (name, bytes));
    world.names().into_iter().filter_map(file).collect()
}

fn text(number: u32, padding: u32) -> String {
    let padding = "abcdefgh".repeat((number * 37 % padding) as usize);
    format!("message {number} {padding}")
}

type Opened = (SimDisk, Store, RecoveryReport);

fn options(segment_bytes: u64) -> StoreOptions {
    StoreOptions {
        segment_bytes,
        first_segment_bytes: 64 << 10,
        checkpoint_bytes: Some(16 << 10),
        new_identity: *b"the sample of the fuzzer",
        ..StoreOptions::default()
    }
}

fn open(world: &SimWorld, segment_bytes: u64) -> Result<Opened, String> {
    let disk = world.process();
    let acquired =
        try_acquire(Arc::new(disk.clone()), "fuzz").map_err(|error| error.to_string())?;
    let Acquire::Owned(ownership) = acquired else {
        return Err("busy".to_owned());
    };
    let options = options(segment_bytes);
    let (store, report) =
        Store::open(ownership, options, &mut |_| ()).map_err(|error| error.to_string())?;
    Ok((disk, store, report))
}

fn work(disk: &SimDisk, store: &mut Store, rounds: u32) {
    for _ in 0..rounds {
        while let Some(job) = store.poll_job(disk.boot_ms()) {
            if store.complete(job.run()).is_err() {
                return;
            }
        }
        disk.world().advance_ms(25);
    }
}

/// What became of a damaged store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// All is as it was.
    Unaffected,
    /// It was opened, with a report of damage or of a torn tail.
    Reported,
    /// It was opened, and messages were set aside.
    SetAside,
    /// It was not opened, and nothing was changed.
    Refused,
}

/// Recovers a damaged store and compares; panics when anything happened in silence. `goes_on`: where all
/// is as it was, the store also works on and is opened by its next owner; after damage it always does.
pub(crate) fn judge(sample: &Sample, world: &SimWorld, goes_on: bool) -> Verdict {
    // A copy shares its pages: nothing is compared before there is a reason.
    let before = world.fork();
    let Ok((disk, mut store, report)) = open(world, sample.segment_bytes) else {
        // A store that says that it is damaged has reported it, and must be as it was.
        let (mut before, mut after) = (files(&before), files(world));
        before.remove("LOCK");
        after.remove("LOCK");
        assert!(after == before, "a store that was refused was changed");
        return Verdict::Refused;
    };
    let mut seen = Seen::read(&mut store);
    let is_reported = !report.damaged.is_empty() || report.torn.is_some();
    let lost = |store: &Store| usize::try_from(store.status().lost_references).unwrap_or(0);
    if seen.set_aside + lost(&store) == 0 && !is_reported {
        counts_agree(&store, &seen);
        compare(sample, &seen, &store, false);
        if goes_on {
            survives(sample, world, (disk, store), &seen);
        }
        return Verdict::Unaffected;
    }
    work(&disk, &mut store, 60);
    // What was set aside is gone, and the counts come right.
    let again = Seen::read(&mut store);
    again.is_as(&seen, "after setting aside");
    seen.set_aside += again.set_aside;
    work(&disk, &mut store, 60);
    counts_agree(&store, &seen);
    seen.set_aside += lost(&store);
    compare(sample, &seen, &store, true);
    let verdict = match seen.set_aside {
        0 => Verdict::Reported,
        _ => Verdict::SetAside,
    };
    survives(sample, world, (disk, store), &seen);
    verdict
}

/// Repairs a damaged store: what is left is whole, and all of it is served. Gives whether there was
/// anything to repair.
pub(crate) fn mend(sample: &Sample, world: &SimWorld) -> bool {
    let before = world.fork();
    let disk = world.process();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let report = repair(&shared, &options(sample.segment_bytes), true).expect("it can be repaired");
    world.kill(&disk);
    assert_eq!(report.remaining, [], "a repair leaves damage");
    if !report.is_done {
        let (mut before, mut after) = (files(&before), files(world));
        before.remove("LOCK");
        after.remove("LOCK");
        assert!(before == after, "a store was changed that needed no repair");
    }
    let opened = open(world, sample.segment_bytes);
    let (disk, mut store, opened) = opened.expect("a repaired store opens");
    assert!(
        !report.is_done || opened.damaged.is_empty(),
        "{:?}",
        opened.damaged
    );
    let seen = Seen::read(&mut store);
    if report.is_done {
        assert_eq!(seen.set_aside, 0, "a repaired store is damaged");
        counts_agree(&store, &seen);
        assert_eq!(report.messages, store.status().messages);
    }
    compare(sample, &seen, &store, is_reported(&report, &opened));
    let told = told_of(&report);
    let waited = sample.messages as usize - sample.settled.len();
    let served: usize = seen.bodies.values().map(Vec::len).sum();
    assert!(
        !report.is_done || told.is_none_or(|told| (waited - waited.min(served)) as u64 <= told),
        "{served} of {waited} are served, and the loss of {told:?} was told: {:?}",
        report.findings
    );
    world.kill(&disk);
    report.is_done
}

/// Whether a repair, or opening without one, gave any reason for a difference.
fn is_reported(report: &RepairReport, opened: &RecoveryReport) -> bool {
    let told = !report.dropped.is_empty() || !report.notes.is_empty();
    told || report.findings.iter().any(|it| it.is_damage) || opened.torn.is_some()
}

/// How many messages a repair says to have lost; `None` where it says that it does not know.
fn told_of(report: &RepairReport) -> Option<u64> {
    let is_known = |it: &Dropped| it.messages > 0 && it.bytes == 0;
    // Nobody knows what stood in the part of a file that is not there, or in a tail of garbage.
    let is_cut = |it: &inspect::Finding| {
        let is_counted = report.dropped.iter().any(|dropped| dropped.file == it.file);
        let is_end = ["is cut short", "of a torn batch"].iter();
        (it.is_damage && !is_counted) || is_end.clone().any(|end| it.what.ends_with(end))
    };
    let told = report.dropped.iter().all(is_known)
        && !report.findings.iter().any(is_cut)
        && report.notes.is_empty();
    told.then(|| report.dropped.iter().map(|it| it.messages).sum())
}

/// Input: seed of a damage, 8 bytes. Damages files of a sample store, recovers, and compares.
fn recover(input: &[u8]) {
    let seed = input.try_into().map_or(0, u64::from_le_bytes);
    let mut random = fastrand::Rng::with_seed(seed);
    let sample = &SAMPLES[random.usize(..SAMPLES.len())];
    let world = damaged_world(sample, &mut random);
    judge(sample, &world, true);
}

/// A world with the files of a sample.
pub(crate) fn world_of(sample: &Sample) -> SimWorld {
    let world = SimWorld::new();
    let disk = world.process();
    for (name, bytes) in &sample.files {
        disk.open(name, OpenMode::CreateEmpty)
            .expect("a new file can be made");
        world.overwrite(name, bytes.clone());
    }
    disk.sync_dir().expect("names can be kept");
    world
}

/// As `recover`; the store is repaired instead of opened.
fn repair_target(input: &[u8]) {
    let seed = input.try_into().map_or(0, u64::from_le_bytes);
    let mut random = fastrand::Rng::with_seed(seed);
    let sample = &SAMPLES[random.usize(..SAMPLES.len())];
    mend(sample, &damaged_world(sample, &mut random));
}

fn damaged_world(sample: &Sample, random: &mut fastrand::Rng) -> SimWorld {
    let world = SimWorld::new();
    let disk = world.process();
    let names: Vec<&String> = sample.files.keys().collect();
    let chosen = names[random.usize(..names.len())];
    let also = (random.u8(..4) == 0).then(|| names[random.usize(..names.len())]);
    let lose_checkpoints = random.u8(..4) == 0;
    for (name, bytes) in &sample.files {
        let mut bytes = bytes.clone();
        if name == chosen || Some(name) == also {
            damage_file(&mut bytes, random);
        }
        if lose_checkpoints && name.contains(".redb") {
            continue;
        }
        disk.open(name, OpenMode::CreateEmpty)
            .expect("a new file can be made");
        world.overwrite(name, bytes);
    }
    world
}

/// Files are mostly zeros: aims at what was written, and often at the beginning.
fn damage_file(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    let used = bytes.iter().rposition(|byte| *byte != 0);
    let used = used.map_or(0, |last| last + 1);
    let part = match random.u8(..3) {
        0 => used.min(8 << 10),
        1 => used.min(64 << 10),
        _ => used,
    };
    let mut head = bytes[..part].to_vec();
    damage(&mut head, random);
    head.truncate(bytes.len());
    if head.len() < part && random.bool() {
        bytes.truncate(head.len());
    }
    let len = head.len().min(bytes.len());
    bytes[..len].copy_from_slice(&head[..len]);
}

/// What can be read from a store.
struct Seen {
    /// By queue, in order.
    bodies: BTreeMap<u32, Vec<String>>,
    set_aside: usize,
}

impl Seen {
    /// Reads all queues and sets aside what is damaged.
    fn read(store: &mut Store) -> Self {
        let mut seen = Self {
            bodies: BTreeMap::new(),
            set_aside: 0,
        };
        let limit = ReadLimit {
            messages: 16,
            bytes: 1 << 20,
        };
        for queue in 1..=QUEUES {
            let mut from = Cursor::START;
            loop {
                let done = store.read_queue(QueueId(queue), from, limit).run();
                assert_eq!(done.error, None, "a read failed");
                assert_eq!(done.lost_references > 0, done.lost_text.is_some());
                seen.set_aside += usize::try_from(done.lost_references).unwrap_or(usize::MAX);
                for place in done.quarantined {
                    seen.set_aside += 1;
                    store
                        .quarantine(QueueId(queue), place)
                        .expect("an open store sets damage aside");
                }
                for message in done.messages {
                    let body =
                        String::from_utf8(message.body.to_vec()).expect("a message was changed");
                    seen.bodies.entry(queue).or_default().push(body);
                }
                if done.end {
                    break;
                }
                assert!(done.next > from, "reading does not go on");
                from = done.next;
            }
        }
        seen
    }
}

impl Seen {
    /// Compares, and names messages by their numbers.
    fn is_as(&self, before: &Self, when: &str) {
        let number = |body: &String| body.split(' ').nth(1).map(str::to_owned);
        for queue in 1..=QUEUES {
            let list = |seen: &Self| seen.bodies.get(&queue).cloned().unwrap_or_default();
            let (now, before) = (list(self), list(before));
            let gone: Vec<_> = before.iter().filter(|it| !now.contains(it)).collect();
            let new: Vec<_> = now.iter().filter(|it| !before.contains(it)).collect();
            assert!(
                now == before,
                "queue {queue} is another one {when}: gone {:?}, new {:?}",
                gone.into_iter().map(number).collect::<Vec<_>>(),
                new.into_iter().map(number).collect::<Vec<_>>(),
            );
        }
    }
}

fn counts_agree(store: &Store, seen: &Seen) {
    for queue in 1..=QUEUES {
        let read = seen.bodies.get(&queue).map_or(0, Vec::len) as u64;
        let counted = store.queue_stats(QueueId(queue)).messages;
        assert_eq!(counted, read, "the count of queue {queue} is wrong");
    }
}

/// Nothing is invented, changed, doubled or out of order; nothing is missing in silence.
fn compare(sample: &Sample, seen: &Seen, store: &Store, reported: bool) {
    let mut found = BTreeSet::new();
    for (queue, bodies) in &seen.bodies {
        let mut last = None;
        for body in bodies {
            let number = body.split(' ').nth(1).and_then(|it| it.parse().ok());
            let number: u32 = number.expect("a message was invented");
            assert_eq!(*body, text(number, sample.padding), "a message was changed");
            assert!(number < sample.messages, "a message was invented");
            assert_eq!(1 + number % QUEUES, *queue, "a message changed its queue");
            assert!(last < Some(number), "a message came twice or out of order");
            last = Some(number);
            found.insert(number);
        }
    }
    let is_settled = |number: &u32| sample.settled.contains(number);
    let missing = (0..sample.messages).filter(|it| !is_settled(it) && !found.contains(it));
    let back = found.iter().filter(|it| is_settled(it));
    let rows = store.rows(1).count();
    let changed = [
        (missing.count(), "messages are gone"),
        (back.count(), "settled messages came back"),
        (sample.messages as usize - rows, "rows are gone"),
    ];
    for (count, what) in changed {
        assert!(
            count == 0 || reported,
            "{count} {what} and nothing was reported"
        );
    }
}

/// The store works on, and its next owner finds the same.
fn survives(sample: &Sample, world: &SimWorld, (disk, mut store): (SimDisk, Store), seen: &Seen) {
    let ticket = store
        .append_message(NewMessage {
            routes: &[QueueId(QUEUES + 1)],
            durable: true,
            meta: b"",
            body: &[b"new"],
        })
        .expect("the survivor takes messages")
        .ticket;
    work(&disk, &mut store, 2);
    assert!(
        store.durable_ticket() >= ticket,
        "the survivor does not get anything durable"
    );
    world.kill(&disk);
    drop(store);
    let opened = open(world, sample.segment_bytes);
    let (_, mut store, _) = opened.expect("the next owner opens the store");
    let again = Seen::read(&mut store);
    again.is_as(seen, "for the next owner");
    counts_agree(&store, &again);
    let new = store.queue_stats(QueueId(QUEUES + 1)).messages;
    assert_eq!(new, 1, "what the survivor took is gone");
}

#[derive(bincode::Encode, bincode::Decode)]
struct Value {
    name: String,
    numbers: Vec<u32>,
}

fn damaged_file(part: &str, random: &mut fastrand::Rng) -> Vec<u8> {
    let files: Vec<_> = SAMPLES[0]
        .files
        .iter()
        .filter(|(name, _)| name.contains(part))
        .collect();
    let mut bytes = files[random.usize(..files.len())].1.clone();
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    bytes.truncate(used);
    damage(&mut bytes, random);
    bytes
}

/// Payloads of all kinds and footers as stores hold them: by kind, 0 for a footer.
static PARTS: LazyLock<Vec<(u8, Vec<u8>)>> = LazyLock::new(|| {
    let sample = one_of_each();
    let segments = sample.files.iter();
    let segments = segments.filter(|(name, _)| name.ends_with(".seg") || name.ends_with(".cmp"));
    segments
        .flat_map(|(_, bytes)| hostile::parts(bytes))
        .collect()
});

/// A damaged part of a store: a footer, or the payload of a record, each kind as often as the others.
fn damaged_part(is_footer: bool, random: &mut fastrand::Rng) -> Vec<u8> {
    let kinds: BTreeSet<u8> = PARTS.iter().map(|(kind, _)| *kind).collect();
    let kinds: Vec<u8> = kinds
        .into_iter()
        .filter(|kind| (*kind == 0) == is_footer)
        .collect();
    let kind = kinds[random.usize(..kinds.len())];
    let parts: Vec<_> = PARTS.iter().filter(|(it, _)| *it == kind).collect();
    let mut bytes = parts[random.usize(..parts.len())].1.clone();
    damage(&mut bytes, random);
    bytes
}

/// The damaged rows of a snapshot: what follows 24 bytes in the record.
fn damaged_rows(random: &mut fastrand::Rng) -> Vec<u8> {
    let snapshots: Vec<_> = PARTS.iter().filter(|(kind, _)| *kind == 7).collect();
    let mut bytes = snapshots[random.usize(..snapshots.len())].1[24..].to_vec();
    damage(&mut bytes, random);
    bytes
}

fn of_segment(random: &mut fastrand::Rng, from: usize) -> Vec<u8> {
    let bytes = damaged_file(".seg", random);
    let at = (from + 512 * random.usize(..16)).min(bytes.len());
    bytes[at..].iter().take(8192).copied().collect()
}

pub(crate) fn targets() -> Vec<Target> {
    vec![
        Target::new(
            "segment",
            "the header of a segment",
            |r| of_segment(r, 0),
            |b| ignore(hostile::segment_header(b)),
            20_000,
        ),
        Target::new(
            "batch",
            "a batch with its records",
            |r| of_segment(r, 4096),
            |b| ignore(hostile::batch(b)),
            20_000,
        ),
        Target::new(
            "record",
            "a single record",
            |r| of_segment(r, 4096 + 80),
            |b| ignore(hostile::record(b)),
            20_000,
        ),
        Target::new(
            "payload",
            "payloads of all kinds of records",
            |r| damaged_part(false, r),
            |b| ignore(hostile::payload(b)),
            50_000,
        ),
        Target::new(
            "footer",
            "the index of a sealed segment",
            |r| damaged_part(true, r),
            |b| ignore(hostile::footer(b)),
            50_000,
        ),
        Target::new(
            "snapshot",
            "the rows of a snapshot",
            damaged_rows,
            |b| ignore(hostile::snapshot_rows(b)),
            50_000,
        ),
        Target::new(
            "checkpoint",
            "a checkpoint file",
            |r| damaged_file(".redb", r),
            |b| ignore(hostile::checkpoint_file(b)),
            60,
        ),
        Target::new(
            "envelope",
            "values of catalogue rows",
            |random| {
                let value = Value {
                    name: "queue".to_owned(),
                    numbers: vec![1, 2, 3],
                };
                let mut bytes = envelope::seal(1, 1, &value).unwrap_or_default();
                damage(&mut bytes, random);
                bytes
            },
            |bytes| ignore(envelope::open::<Value>(1, 1, bytes).is_ok()),
            20_000,
        ),
        Target::new(
            "recover",
            "a store with damaged files: nothing invented, nothing missing in silence, it works on",
            |random| random.u64(..).to_le_bytes().to_vec(),
            recover,
            300,
        ),
        Target::new(
            "repair",
            "a store with damaged files is repaired: whole afterwards, nothing invented, all served",
            |random| random.u64(..).to_le_bytes().to_vec(),
            repair_target,
            100,
        ),
    ]
}

/// Whether hostile bytes pass for valid does not matter here, only that nothing breaks.
fn ignore(_valid: bool) {}
