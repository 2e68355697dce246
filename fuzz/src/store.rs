//! The store's formats, and recovery of a store whose files went bad.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use steadfast_storage::disk::{Disk, OpenMode, SimWorld};
use steadfast_storage::{
    Acquire, Cursor, NewMessage, QueueId, ReadLimit, RecoveryReport, Store, StoreOptions, envelope,
    hostile, try_acquire,
};

use crate::Target;
use crate::damage::{damage, noise};

/// Messages in the sample store.
const MESSAGES: u32 = 60;
/// Those settled in it: every one divisible by this.
const SETTLED_EACH: u32 = 5;

/// The files of a small store whose owner was killed, in two epochs.
static SAMPLE: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(|| {
    let world = SimWorld::new();
    let mut places = Vec::new();
    for epoch in 0..2 {
        let (disk, mut store, _) = open(&world).expect("the sample store opens");
        for number in epoch * MESSAGES / 2..(epoch + 1) * MESSAGES / 2 {
            let body = text(number);
            let routes = [QueueId(1 + number % 2)];
            let body = [body.as_bytes()];
            let message = NewMessage {
                routes: &routes,
                durable: true,
                meta: b"meta",
                body: &body,
            };
            let appended = store
                .append_message(message)
                .expect("the sample store takes messages");
            places.push((routes[0], appended.first));
            work(&disk, &mut store, 1);
            if number % SETTLED_EACH == 0 {
                store
                    .append_settled(routes[0], appended.first)
                    .expect("settlements are taken");
            }
            store
                .put_row(1, &[u8::try_from(number).unwrap_or(0)], b"row")
                .expect("rows are taken");
            work(&disk, &mut store, if number % 7 == 0 { 60 } else { 1 });
        }
        world.kill(&disk);
    }
    let file = |name: String| world.bytes_of(&name).map(|bytes| (name, bytes));
    world.names().into_iter().filter_map(file).collect()
});

fn text(number: u32) -> String {
    format!(
        "message {number} {}",
        "abcdefgh".repeat(number as usize % 50)
    )
}

type Opened = (steadfast_storage::disk::SimDisk, Store, RecoveryReport);

fn open(world: &SimWorld) -> Result<Opened, String> {
    let disk = world.process();
    let acquired =
        try_acquire(Arc::new(disk.clone()), "fuzz").map_err(|error| error.to_string())?;
    let Acquire::Owned(ownership) = acquired else {
        return Err("busy".to_owned());
    };
    let options = StoreOptions {
        checkpoint_bytes: Some(16 << 10),
        new_identity: *b"the sample of the fuzzer",
        ..StoreOptions::default()
    };
    let (store, report) =
        Store::open(ownership, options, &mut |_| ()).map_err(|error| error.to_string())?;
    Ok((disk, store, report))
}

fn work(disk: &steadfast_storage::disk::SimDisk, store: &mut Store, rounds: u32) {
    for _ in 0..rounds {
        while let Some(job) = store.poll_job(disk.boot_ms()) {
            if store.complete(job.run()).is_err() {
                return;
            }
        }
        disk.world().advance_ms(25);
    }
}

/// Input: seed of a damage, 8 bytes. Damages files of the sample store, recovers, and compares.
fn recover(input: &[u8]) {
    let seed = input.try_into().map_or(0, u64::from_le_bytes);
    let mut random = fastrand::Rng::with_seed(seed);
    let world = SimWorld::new();
    let disk = world.process();
    let names: Vec<&String> = SAMPLE.keys().collect();
    let chosen = names[random.usize(..names.len())];
    for (name, bytes) in SAMPLE.iter() {
        let mut bytes = bytes.clone();
        if name == chosen {
            // Segments are mostly zeros: aim at what was written.
            let used = bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1);
            let used = if name.ends_with(".seg") {
                used.min(64 << 10)
            } else {
                used
            };
            let mut head = bytes[..used].to_vec();
            damage(&mut head, &mut random);
            head.truncate(bytes.len());
            if head.len() < used && random.bool() {
                bytes.truncate(head.len());
            }
            let len = head.len().min(bytes.len());
            bytes[..len].copy_from_slice(&head[..len]);
        }
        disk.open(name, OpenMode::CreateEmpty)
            .expect("a new file can be made");
        world.overwrite(name, bytes);
    }
    // A store that says that it is damaged has reported it.
    let Ok((disk, mut store, report)) = open(&world) else {
        return;
    };
    let (found, set_aside) = contents(&store);
    for body in &found {
        let number = body
            .split(' ')
            .nth(1)
            .and_then(|number| number.parse().ok());
        let number = number.expect("a message was invented");
        assert_eq!(*body, text(number), "a message was changed");
        assert!(number < MESSAGES, "a message was invented");
    }
    let reported = !report.damaged.is_empty() || report.torn.is_some() || set_aside > 0;
    let missing = (0..MESSAGES)
        .filter(|number| number % SETTLED_EACH != 0 && !found.contains(&text(*number)))
        .count();
    assert!(
        missing == 0 || reported,
        "{missing} messages are gone and nothing was reported"
    );
    // And the survivor works.
    let message = NewMessage {
        routes: &[QueueId(3)],
        durable: true,
        meta: b"",
        body: &[b"new"],
    };
    let ticket = store
        .append_message(message)
        .expect("the survivor takes messages")
        .ticket;
    work(&disk, &mut store, 60);
    assert!(
        store.durable_ticket() >= ticket,
        "the survivor does not get anything durable"
    );
}

fn contents(store: &Store) -> (BTreeSet<String>, usize) {
    let limit = ReadLimit {
        messages: 16,
        bytes: 1 << 20,
    };
    let (mut found, mut set_aside) = (BTreeSet::new(), 0);
    for queue in [1, 2] {
        let mut from = Cursor::START;
        loop {
            let done = store.read_queue(QueueId(queue), from, limit).run();
            set_aside += done.quarantined.len() + usize::from(done.error.is_some());
            for message in done.messages {
                let body = String::from_utf8(message.body.to_vec()).expect("a message was changed");
                assert!(found.insert(body), "a message came twice");
            }
            if done.end || done.error.is_some() {
                break;
            }
            assert!(done.next > from, "reading does not go on");
            from = done.next;
        }
    }
    (found, set_aside)
}

#[derive(bincode::Encode, bincode::Decode)]
struct Value {
    name: String,
    numbers: Vec<u32>,
}

fn damaged_file(part: &str, random: &mut fastrand::Rng) -> Vec<u8> {
    let files: Vec<_> = SAMPLE
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

fn of_segment(random: &mut fastrand::Rng, from: usize) -> Vec<u8> {
    let bytes = damaged_file(".seg", random);
    let at = (from + 512 * random.usize(..16)).min(bytes.len());
    bytes[at..].iter().take(8192).copied().collect()
}

pub(crate) fn targets() -> Vec<Target> {
    let target = |name, about, sample, feed, brief| Target {
        name,
        about,
        sample,
        feed,
        brief,
    };
    vec![
        target(
            "segment",
            "the header of a segment",
            |r| of_segment(r, 0),
            |b| ignore(hostile::segment_header(b)),
            20_000,
        ),
        target(
            "batch",
            "a batch with its records",
            |r| of_segment(r, 4096),
            |b| ignore(hostile::batch(b)),
            20_000,
        ),
        target(
            "record",
            "a single record",
            |r| of_segment(r, 4096 + 80),
            |b| ignore(hostile::record(b)),
            20_000,
        ),
        target(
            "payload",
            "payloads of all kinds of records",
            noise,
            |b| ignore(hostile::payload(b)),
            50_000,
        ),
        target(
            "footer",
            "the index of a sealed segment",
            noise,
            |b| ignore(hostile::footer(b)),
            50_000,
        ),
        target(
            "snapshot",
            "the rows of a snapshot",
            noise,
            |b| ignore(hostile::snapshot_rows(b)),
            50_000,
        ),
        target(
            "checkpoint",
            "a checkpoint file",
            |r| damaged_file(".redb", r),
            |b| ignore(hostile::checkpoint_file(b)),
            60,
        ),
        target(
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
        target(
            "recover",
            "a store with damaged files: nothing invented, nothing missing in silence, it works on",
            |random| random.u64(..).to_le_bytes().to_vec(),
            recover,
            300,
        ),
    ]
}

/// Whether hostile bytes pass for valid does not matter here, only that nothing breaks.
fn ignore(_valid: bool) {}
