//! Scenarios of the whole store on the simulated disk.

mod compact;
mod crash;
mod endings;
mod flow;
mod hosts;
mod life;
mod looking;
mod repair;
mod space;
mod takeover;
mod warm;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::disk::{Disk, SimDisk, SimWorld};
use crate::{
    Acquire, Cursor, Job, NewMessage, OpenError, Place, QueueId, ReadLimit, RecoveryReport, Store,
    StoreOptions, Ticket, try_acquire,
};

/// A server process with its store.
struct Server {
    disk: SimDisk,
    store: Store,
    report: RecoveryReport,
}

fn options() -> StoreOptions {
    StoreOptions {
        segment_bytes: 1 << 20,
        first_segment_bytes: 1 << 20,
        checkpoint_bytes: Some(64 << 10),
        new_identity: *b"a store made for a test!",
        ..StoreOptions::default()
    }
}

fn try_open(world: &SimWorld, options: StoreOptions) -> Result<Server, OpenError> {
    try_open_on(world.process(), options)
}

fn try_open_on(disk: SimDisk, options: StoreOptions) -> Result<Server, OpenError> {
    let ownership = match try_acquire(Arc::new(disk.clone()), "test")? {
        Acquire::Owned(ownership) => ownership,
        Acquire::Busy(holder) => return Err(OpenError::Busy(holder)),
    };
    let (store, report) = Store::open(ownership, options, &mut |_| ())?;
    Ok(Server {
        disk,
        store,
        report,
    })
}

fn open(world: &SimWorld) -> Server {
    try_open(world, options()).expect("the store opens")
}

impl Server {
    fn now(&self) -> u64 {
        self.disk.boot_ms()
    }

    fn step(&mut self) -> Option<Job> {
        let now = self.now();
        self.store.poll_job(now)
    }

    /// Does all work that is there at the present time.
    fn work(&mut self) {
        for _ in 0..100_000 {
            let Some(job) = self.step() else { return };
            let done = job.run();
            if self.store.complete(done).is_err() {
                return;
            }
        }
        panic!("the store never comes to rest");
    }

    /// Lets time pass until nothing is due any more.
    fn rest(&mut self) {
        for _ in 0..400 {
            self.work();
            self.disk.world().advance_ms(25);
        }
    }

    fn publish(&mut self, queue: u32, text: &str) -> (Place, Ticket) {
        let routes = [QueueId(queue)];
        let body = [text.as_bytes()];
        let message = NewMessage {
            routes: &routes,
            durable: true,
            meta: b"m",
            body: &body,
        };
        let appended = self
            .store
            .append_message(message)
            .expect("the message is taken");
        (appended.first, appended.ticket)
    }

    /// Everything waiting in a queue, read in small pieces.
    fn read_all(&self, queue: u32) -> Vec<(Place, String)> {
        let limit = ReadLimit {
            messages: 7,
            bytes: 1 << 20,
        };
        let mut from = Cursor::START;
        let mut all = Vec::new();
        loop {
            let done = self.store.read_queue(QueueId(queue), from, limit).run();
            assert_eq!(done.error, None);
            assert_eq!(done.quarantined, []);
            for message in done.messages {
                let text = String::from_utf8(message.body.to_vec()).expect("test bodies are text");
                all.push((message.place, text));
            }
            if done.end {
                return all;
            }
            assert!(done.next > from, "reading goes on");
            from = done.next;
        }
    }

    fn texts(&self, queue: u32) -> Vec<String> {
        self.read_all(queue)
            .into_iter()
            .map(|(_, text)| text)
            .collect()
    }

    fn settle(&mut self, queue: u32, place: Place) {
        self.store
            .append_settled(QueueId(queue), place)
            .expect("settlements are taken");
    }

    fn count(&self, queue: u32) -> u64 {
        self.store.queue_stats(QueueId(queue)).messages
    }

    fn shut_down(mut self) {
        self.store.begin_shutdown();
        self.rest();
        assert!(self.store.is_shut_down());
    }
}

fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("message {number}")).collect()
}

/// What waits in all queues, by queue.
fn contents(server: &Server, queues: u32) -> BTreeMap<u32, Vec<String>> {
    (1..=queues)
        .map(|queue| (queue, server.texts(queue)))
        .collect()
}
