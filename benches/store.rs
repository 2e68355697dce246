//! What the parts of the store cost: building batches, group commit, reading back, a checkpoint, compaction,
//! recovery. They only measure; `steadfast bench` measures the whole.
#![allow(
    clippy::disallowed_methods,
    reason = "some parts are timed by hand, beside what prepares them"
)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use steadfast_storage::disk::{Disk, RealDisk, SimWorld};
use steadfast_storage::{
    Acquire, Cursor, Job, Lane, NewMessage, Place, QueueId, ReadLimit, Store, StoreOptions,
    try_acquire,
};

const BODY_BYTES: usize = 1024;
/// Messages of one batch.
const MESSAGES: u64 = 64;
/// Messages of the store that is recovered.
const BACKLOG: u64 = 20_000;
const QUEUE: QueueId = QueueId(1);

fn open_with(disk: Arc<dyn Disk>, options: StoreOptions) -> Store {
    let owned = match try_acquire(disk, "bench").expect("the lock can be tried") {
        Acquire::Owned(owned) => owned,
        Acquire::Busy(holder) => panic!("the store belongs to {holder}"),
    };
    let (store, _) = Store::open(owned, options, &mut |_| {}).expect("the store opens");
    store
}

fn options() -> StoreOptions {
    StoreOptions {
        segment_bytes: 16 << 20,
        ..StoreOptions::default()
    }
}

fn real_disk(directory: &Path) -> Arc<dyn Disk> {
    Arc::new(RealDisk::open(directory, true).expect("a directory"))
}

fn open_directory(directory: &Path) -> Store {
    open_with(real_disk(directory), options())
}

fn append(store: &mut Store, count: u64, body: &[u8]) -> Vec<Place> {
    let append_one = |_| {
        let message = NewMessage {
            routes: &[QUEUE],
            durable: true,
            meta: &[1; 24],
            body: &[body],
        };
        let appended = store.append_message(message).expect("there is room");
        appended.first
    };
    (0..count).map(append_one).collect()
}

fn settle<'p>(store: &mut Store, places: impl IntoIterator<Item = &'p Place>) {
    for place in places {
        store.append_settled(QUEUE, *place).expect("the log lives");
    }
}

/// Runs all jobs that are due on this thread.
fn work(store: &mut Store) {
    work_with(store, Job::run);
}

/// Has all jobs run that are due.
fn work_with(store: &mut Store, mut run: impl FnMut(Job) -> steadfast_storage::JobDone) {
    while let Some(job) = store.poll_job(0) {
        store.complete(run(job)).expect("the log lives");
    }
}

/// Runs all jobs that are due. Gives how many of a lane there were and how long those took.
fn work_timed(store: &mut Store, lane: Lane) -> (u64, Duration) {
    let (mut count, mut took) = (0, Duration::ZERO);
    work_with(store, |job| {
        if job.lane() != lane {
            return job.run();
        }
        let started = Instant::now();
        let done = job.run();
        took += started.elapsed();
        count += 1;
        done
    });
    (count, took)
}

/// Encoding of records and the copy into the batch. The disk costs nothing, and its time does not count.
fn append_in_memory(criterion: &mut Criterion) {
    let mut store = open_with(Arc::new(SimWorld::new().process()), options());
    work(&mut store);
    let body = [7; BODY_BYTES];
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(MESSAGES));
    group.bench_function("append 64 messages of 1 KiB to the open batch", |it| {
        it.iter_custom(|iterations| {
            let mut took = Duration::ZERO;
            for _ in 0..iterations {
                let started = Instant::now();
                let places = append(&mut store, MESSAGES, &body);
                took += started.elapsed();
                work(&mut store);
                // Else the memory fills.
                settle(&mut store, &places);
            }
            took
        });
    });
    group.finish();
}

/// A batch from append to durable on a real file.
fn group_commit(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = open_directory(directory.path());
    work(&mut store);
    let body = [7; BODY_BYTES];
    let mut group = criterion.benchmark_group("store");
    group.sample_size(20);
    for messages in [1, 16, 128] {
        group.throughput(Throughput::Elements(messages));
        group.bench_function(format!("commit {messages} messages of 1 KiB"), |it| {
            it.iter(|| {
                append(&mut store, messages, &body);
                work(&mut store);
            });
        });
    }
    group.finish();
}

fn read_back(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = open_directory(directory.path());
    for _ in 0..16 {
        append(&mut store, MESSAGES, &[7; BODY_BYTES]);
        work(&mut store);
    }
    let limit = ReadLimit {
        messages: 1000,
        bytes: 8 << 20,
    };
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("read 1000 messages of 1 KiB, warm", |it| {
        it.iter(|| {
            let done = store.read_queue(QUEUE, Cursor::START, limit).run();
            assert_eq!(black_box(&done).messages.len(), 1000);
        });
    });
    group.finish();
}

/// One checkpoint of what 64 messages and 64 settlements changed, beside a backlog.
fn checkpoint(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let each_batch = StoreOptions {
        checkpoint_bytes: Some(1),
        ..options()
    };
    let mut store = open_with(real_disk(directory.path()), each_batch);
    let mut places = append(&mut store, BACKLOG, &[7; BODY_BYTES]);
    work(&mut store);
    let mut random = fastrand::Rng::with_seed(1);
    random.shuffle(&mut places);
    let mut group = criterion.benchmark_group("store");
    group.sample_size(20);
    group.bench_function(
        "checkpoint of a batch of 64 messages and 64 settlements",
        |it| {
            it.iter_custom(|wanted| {
                let (mut count, mut took) = (0, Duration::ZERO);
                while count < wanted {
                    let settled = places.split_off(places.len() - MESSAGES as usize);
                    settle(&mut store, &settled);
                    places.extend(append(&mut store, MESSAGES, &[7; BODY_BYTES]));
                    let last = places.len() - 1;
                    // What is settled next is not what was appended last.
                    let other = random.usize(..last);
                    places.rotate_left(other);
                    let (more, time) = work_timed(&mut store, Lane::Checkpoint);
                    count += more;
                    took += time;
                }
                took * u32::try_from(wanted).expect("few") / u32::try_from(count).expect("few")
            });
        },
    );
    group.finish();
}

/// Making a segment small of which one message in a hundred is live.
fn compaction(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let small = StoreOptions {
        segment_bytes: 1 << 20,
        ..StoreOptions::default()
    };
    let mut store = open_with(real_disk(directory.path()), small);
    let mut number = 0_u64;
    let mut group = criterion.benchmark_group("store");
    group.sample_size(10);
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(
        "compact a segment of 1 MiB, one message of 1 KiB in 100 live",
        |it| {
            it.iter_custom(|wanted| {
                let (mut count, mut took) = (0, Duration::ZERO);
                while count < wanted {
                    let places = append(&mut store, MESSAGES, &[7; BODY_BYTES]);
                    let (first, time) = work_timed(&mut store, Lane::Compact);
                    settle(
                        &mut store,
                        places.iter().filter(|_| {
                            number += 1;
                            !number.is_multiple_of(100)
                        }),
                    );
                    let (second, more_time) = work_timed(&mut store, Lane::Compact);
                    count += first + second;
                    took += time + more_time;
                }
                took * u32::try_from(wanted).expect("few") / u32::try_from(count).expect("few")
            });
        },
    );
    group.finish();
}

/// Opening a store whose owner was killed.
fn recovery(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = open_directory(directory.path());
    for _ in 0..BACKLOG / MESSAGES {
        append(&mut store, MESSAGES, &[7; BODY_BYTES]);
        work(&mut store);
    }
    drop(store);
    let mut group = criterion.benchmark_group("store");
    group.sample_size(10);
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function("open a killed store of 20,000 messages, warm", |it| {
        it.iter_custom(|iterations| {
            let mut took = Duration::ZERO;
            for _ in 0..iterations {
                let started = Instant::now();
                let store = open_directory(directory.path());
                took += started.elapsed();
                // The next owner finds it killed.
                drop(store);
            }
            took
        });
    });
    group.finish();
}

criterion_group!(
    benches,
    append_in_memory,
    group_commit,
    read_back,
    checkpoint,
    compaction,
    recovery
);
criterion_main!(benches);
