//! A fresh server on a copy of the world, and what a client gets from it.

use std::sync::Arc;

use bytes::BytesMut;
use steadfast::broker;
use steadfast::node::{Node, NodeSettings, Now};
use steadfast::proto::message::SimpleMessage;
use steadfast::proto::{
    AttachRequest, ClientSasl, Connection, Event, LinkId, Outcome, Settings, Source, Target,
};
use steadfast_storage::disk::{Disk, SimDisk, SimWorld};
use steadfast_storage::{Acquire, Cursor, QueueId, ReadLimit, Store, StoreOptions, try_acquire};

use super::client::queue_name;
use super::oracle::Got;
use super::sim::{Mutant, QUEUES};

/// Rounds in which nothing comes before there is nothing more.
const QUIET_ROUNDS: u32 = 3;
/// Rounds at most.
const ROUNDS_MAX: u32 = 10_000;
/// Kind of the rows that say up to where a queue may deliver; see `node/records.rs`.
const KIND_RESERVATION: u16 = 2;
/// Kind of the rows that say what clients have.
const KIND_HELD: u16 = 6;

pub(super) fn node_settings(random: &mut fastrand::Rng) -> NodeSettings {
    let limits = if random.bool() {
        broker::Limits {
            window_messages: 6,
            read_messages: 4,
            returned: 5,
            ..broker::Limits::default()
        }
    } else {
        broker::Limits::default()
    };
    NodeSettings {
        publisher_credit: random.u32(4..60),
        idle_timeout_ms: random.u32(1_500..6_000),
        reconnect_timeout_ms: [0, 1_500, 5_000, 60_000][random.usize(..4)],
        limits,
        ..NodeSettings::default()
    }
}

/// All messages of a store, queue by queue in their order.
pub(super) fn read_all(store: &Store) -> Result<Vec<Got>, String> {
    let limit = ReadLimit {
        messages: 64,
        bytes: 1 << 20,
    };
    let mut all = Vec::new();
    // Queues are numbered as they are first named.
    for number in 1..=QUEUES as u32 {
        let mut from = Cursor::START;
        loop {
            let done = store.read_queue(QueueId(number), from, limit).run();
            if let Some(error) = done.error {
                return Err(error);
            }
            if !done.quarantined.is_empty() || done.lost_references > 0 {
                return Err("a whole store has damaged messages".to_owned());
            }
            for message in done.messages {
                all.push(got(&message.body, None)?);
            }
            if done.end {
                break;
            }
            from = done.next;
        }
    }
    Ok(all)
}

/// A message; `queue`: where it came from, as far as known.
fn got(bytes: &[u8], queue: Option<usize>) -> Result<Got, String> {
    let message = SimpleMessage::decode(bytes).map_err(|error| error.to_string())?;
    Ok(Got {
        queue,
        count: message.header.delivery_count,
        is_late: false,
        body: message.body,
    })
}

/// Deletes what tells a successor up to where messages may have been delivered.
pub(super) fn forget_reservations(store: &mut Store) {
    forget(store, KIND_RESERVATION);
}

/// Deletes what tells a successor what clients had.
pub(super) fn forget_holds(store: &mut Store) {
    forget(store, KIND_HELD);
}

fn forget(store: &mut Store, kind: u16) {
    let keys: Vec<Vec<u8>> = store.rows(kind).map(|(key, _)| key.to_vec()).collect();
    for key in keys {
        let _lost = store.delete_row(kind, &key);
    }
    while let Some(job) = store.poll_job(0) {
        let _lost = store.complete(job.run());
    }
}

struct Fresh {
    disk: SimDisk,
    node: Node,
    client: Connection,
    links: Vec<(LinkId, usize)>,
    found: Vec<Got>,
    /// The time to reconnect is over.
    is_late: bool,
}

/// Recovers as a new server does, and takes all messages as a client does.
pub(super) fn recover_and_drain(
    world: &SimWorld,
    options: &StoreOptions,
    settings: &NodeSettings,
    mutant: Mutant,
) -> Result<Vec<Got>, String> {
    crate::crash::count_point();
    let disk = world.process();
    let acquired = try_acquire(Arc::new(disk.clone()), "a new server");
    let Acquire::Owned(ownership) = acquired.map_err(|error| error.to_string())? else {
        return Err("somebody else has the lock".to_owned());
    };
    let opened = Store::open(ownership, options.clone(), &mut |_| ());
    let (mut store, report) = opened.map_err(|error| error.to_string())?;
    if !report.damaged.is_empty() {
        return Err(format!(
            "a whole store is called damaged: {:?}",
            report.damaged
        ));
    }
    if mutant == Mutant::NoMarks {
        forget_reservations(&mut store);
    }
    let now = now_of(&disk);
    let client = Connection::client(Settings::default(), ClientSasl::Anonymous, now.monotonic_ms);
    let settings = NodeSettings {
        // It sleeps while the server waits for other clients.
        idle_timeout_ms: 0,
        ..settings.clone()
    };
    let mut fresh = Fresh {
        node: Node::new(settings, store, now),
        client,
        disk,
        links: Vec::new(),
        found: Vec::new(),
        is_late: false,
    };
    fresh.drain()?;
    Ok(fresh.found)
}

fn now_of(disk: &SimDisk) -> Now {
    let boot_ms = disk.boot_ms();
    Now {
        monotonic_ms: boot_ms,
        boot_ms,
        wall_ms: 1_700_000_000_000 + boot_ms,
    }
}

impl Fresh {
    fn drain(&mut self) -> Result<(), String> {
        let id = self.node.connect(now_of(&self.disk));
        let session = self.client.begin().ok_or("no session")?;
        for queue in 0..QUEUES {
            let request = AttachRequest {
                name: queue_name(queue),
                source: Some(Source::at(queue_name(queue))),
                target: Some(Target::default().into()),
                ..AttachRequest::default()
            };
            let link = self
                .client
                .attach_receiver(session, request)
                .ok_or("no link")?;
            self.client.set_credit(link, 1_000);
            self.links.push((link, queue));
        }
        let (mut quiet, mut input, mut answer) = (0, BytesMut::new(), BytesMut::new());
        for _ in 0..ROUNDS_MAX {
            let now = now_of(&self.disk);
            let before = self.found.len();
            self.client.flush();
            input.unsplit(self.client.output().split());
            let mut is_quiet = input.is_empty();
            self.node.handle_bytes(now, id, &mut input);
            is_quiet &= !self.work(now)?;
            while let Some(dirty) = self.node.poll_dirty() {
                if let Some(output) = self.node.output(dirty) {
                    answer.unsplit(output.split());
                    self.node.handle_written(now, dirty);
                }
            }
            is_quiet &= answer.is_empty();
            self.client.handle_bytes(now.monotonic_ms, &mut answer);
            self.hear()?;
            is_quiet &= before == self.found.len();
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if quiet > QUIET_ROUNDS {
                let left: u64 = self.node.queue_status().iter().map(|it| it.messages).sum();
                if left == 0 {
                    return Ok(());
                }
                // They are kept for clients, for a while.
                let Some(until_ms) = self.node.reconnect().deadline_at_ms else {
                    return Err(format!("{left} messages of a new server do not come"));
                };
                self.is_late = true;
                let left_ms = until_ms.saturating_sub(now.monotonic_ms);
                self.disk.world().advance_ms(left_ms);
                quiet = 0;
            }
            self.disk.world().advance_ms(5);
        }
        Err("a new server never comes to rest".to_owned())
    }

    /// Does the store's jobs and reads; whether there were any but those of time alone.
    fn work(&mut self, now: Now) -> Result<bool, String> {
        let mut any = false;
        while let Some(task) = self.node.poll_read() {
            self.node.read_done(now, task.run());
            any = true;
        }
        any |= self.node.has_open_batch();
        while let Some(job) = self.node.poll_job(now) {
            let done = job.run();
            self.node
                .complete(done)
                .map_err(|fatal| fatal.to_string())?;
            self.node.advance(now);
        }
        self.node.tick(now);
        Ok(any)
    }

    fn hear(&mut self) -> Result<(), String> {
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Delivery {
                    link,
                    delivery_id,
                    payload,
                    ..
                } => {
                    let queue = self.links.iter().find(|(it, _)| *it == link);
                    let queue = queue.map(|(_, queue)| *queue).ok_or("an unknown link")?;
                    self.found.push(Got {
                        is_late: self.is_late,
                        ..got(&payload.to_bytes(), Some(queue))?
                    });
                    self.client.settle(link, delivery_id, Outcome::Accepted);
                }
                Event::CreditRefill { link } => self.client.set_credit(link, 1_000),
                Event::Closed { error } => return Err(format!("a new server closes: {error:?}")),
                Event::Detached { error, .. } => {
                    return Err(format!("a new server detaches: {error:?}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
