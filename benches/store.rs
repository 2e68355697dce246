//! What the store costs: appending in memory, group commit on a real disk, reading back, recovery.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use steadfast_storage::disk::{Disk, RealDisk, SimWorld};
use steadfast_storage::{
    Acquire, Cursor, NewMessage, QueueId, ReadLimit, Store, StoreOptions, try_acquire,
};

const BODY_BYTES: usize = 1024;
/// Messages of one batch.
const MESSAGES: u64 = 64;
/// Messages of the store that is recovered.
const BACKLOG: u64 = 20_000;
const QUEUE: QueueId = QueueId(1);

fn open(disk: Arc<dyn Disk>) -> Store {
    let owned = match try_acquire(disk, "bench").expect("the lock can be tried") {
        Acquire::Owned(owned) => owned,
        Acquire::Busy(holder) => panic!("the store belongs to {holder}"),
    };
    let options = StoreOptions {
        segment_bytes: 16 << 20,
        ..StoreOptions::default()
    };
    let (store, _) = Store::open(owned, options, &mut |_| {}).expect("the store opens");
    store
}

fn open_directory(directory: &Path) -> Store {
    open(Arc::new(
        RealDisk::open(directory, true).expect("a directory"),
    ))
}

fn append(store: &mut Store, count: u64, body: &[u8]) {
    for _ in 0..count {
        let message = NewMessage {
            routes: &[QUEUE],
            durable: true,
            meta: &[1; 24],
            body: &[body],
        };
        store.append_message(message).expect("there is room");
    }
}

/// Runs all jobs that are due on this thread.
fn work(store: &mut Store) {
    while let Some(job) = store.poll_job(0) {
        store.complete(job.run()).expect("the log lives");
    }
}

/// Encoding of records and the CRC of the batch, on a disk that costs nothing.
fn append_in_memory(criterion: &mut Criterion) {
    let mut store = open(Arc::new(SimWorld::new().process()));
    work(&mut store);
    let body = [7; BODY_BYTES];
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(MESSAGES));
    group.bench_function("append 64 messages of 1 KiB to the open batch", |it| {
        it.iter_batched(
            || (),
            |()| append(&mut store, MESSAGES, &body),
            BatchSize::NumIterations(64),
        );
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
        it.iter_with_large_drop(|| open_directory(directory.path()));
    });
    group.finish();
}

criterion_group!(benches, append_in_memory, group_commit, read_back, recovery);
criterion_main!(benches);
