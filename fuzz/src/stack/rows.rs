//! What a store has, read from its rows and its log without the server's code; and rows that the mutants spoil.

use std::collections::BTreeMap;
use std::sync::Arc;

use steadfast::proto::message::SimpleMessage;
use steadfast_storage::disk::SimWorld;
use steadfast_storage::{
    Acquire, Cursor, QueueId, ReadLimit, Store, StoreOptions, envelope, try_acquire,
};

use super::oracle::Got;
use super::places::{Place, Places, queue_name};
use super::sim::{Mutant, QUEUES};

/// Kinds of rows; see `node/records.rs`.
const KIND_QUEUE: u16 = 1;
/// Up to where a queue may deliver.
const KIND_RESERVATION: u16 = 2;
const KIND_COUNTER: u16 = 4;
const KIND_CLIENT: u16 = 5;
/// What clients have.
const KIND_HELD: u16 = 6;
const KIND_SUBSCRIPTION: u16 = 8;
/// Rows of clients with a lower epoch do not count.
const CLIENTS_FROM: &[u8] = b"clients-from";
const QUEUE_SCHEMA: u16 = 2;
/// Of a queue that is deleted.
const DELETED_QUEUE_SCHEMA: u16 = 3;
const CLIENT_SCHEMA: u16 = 1;
const SUBSCRIPTION_SCHEMA: u16 = 2;
/// Numbers of queues that are looked at.
const ORPHANS_MAX: u32 = 1_000;

#[derive(bincode::Encode, bincode::Decode)]
struct QueueRow {
    name: String,
    is_temporary: bool,
    owner: Option<u64>,
}

#[derive(bincode::Decode)]
struct DeletedQueueRow {
    name: String,
}

#[derive(bincode::Decode)]
struct ClientRow {
    _container: String,
    _user: Option<String>,
    epoch: u64,
}

#[derive(bincode::Encode, bincode::Decode)]
struct SubscriptionRow {
    topic: String,
    name: String,
    container: String,
    user: Option<String>,
    owner: Option<u64>,
    is_static: bool,
    no_local: bool,
    is_deleted: bool,
}

fn number(key: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(key.try_into().ok()?))
}

fn long(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(value.try_into().ok()?))
}

/// The number of the queue in the store by place. Of two subscriptions of one place the newer one is what its client
/// gets.
fn queues(store: &Store, places: &Places) -> BTreeMap<Place, u32> {
    let mut found = BTreeMap::new();
    let from = store.row(KIND_COUNTER, CLIENTS_FROM).and_then(long);
    let lives = |owner: u64| {
        let value = store.row(KIND_CLIENT, &owner.to_le_bytes())?;
        let row: ClientRow = envelope::open(KIND_CLIENT, CLIENT_SCHEMA, value).ok()?;
        Some(row.epoch >= from.unwrap_or(0))
    };
    for (key, value) in store.rows(KIND_QUEUE) {
        let row = envelope::open::<QueueRow>(KIND_QUEUE, QUEUE_SCHEMA, value);
        let row = row.ok();
        let row = row.filter(|it| it.owner.is_none_or(|owner| lives(owner) == Some(true)));
        let place = row.and_then(|row| {
            let mut all = 0..QUEUES;
            let queue = all.find(|queue| queue_name(*queue) == row.name);
            queue.or_else(|| places.find_queue(&row.name))
        });
        found.extend(place.zip(number(key)));
    }
    for (key, value) in store.rows(KIND_SUBSCRIPTION) {
        let row = envelope::open(KIND_SUBSCRIPTION, SUBSCRIPTION_SCHEMA, value);
        let row: Option<SubscriptionRow> = row.ok();
        let row = row.filter(|it| !it.is_deleted);
        let row = row.filter(|it| it.owner.is_none_or(|owner| lives(owner) == Some(true)));
        let place = row.and_then(|it| places.find(&it.container, &it.name, &it.topic));
        found.extend(place.zip(number(key)));
    }
    found
}

/// All messages of a store, place by place in their order.
pub(super) fn read_all(store: &Store, places: &Places) -> Result<Vec<Got>, String> {
    let limit = ReadLimit {
        messages: 64,
        bytes: 1 << 20,
    };
    let mut all = Vec::new();
    for (place, number) in queues(store, places) {
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
                all.push(Got {
                    lsn: Some(message.lsn.0),
                    ..got(&message.body, place)?
                });
            }
            if done.end {
                break;
            }
            from = done.next;
        }
    }
    Ok(all)
}

/// A message from a place.
pub(super) fn got(bytes: &[u8], place: Place) -> Result<Got, String> {
    let message = SimpleMessage::decode(bytes).map_err(|error| error.to_string())?;
    Ok(Got {
        place,
        count: message.header.delivery_count,
        lsn: None,
        is_late: false,
        body: message.body,
    })
}

/// In words: what is in the store for queues that nobody knows.
pub(super) fn orphans(world: &SimWorld, options: &StoreOptions) -> String {
    let copy = world.fork();
    copy.kill_all();
    let acquired = try_acquire(Arc::new(copy.process()), "whoever looks");
    let Ok(Acquire::Owned(ownership)) = acquired else {
        return "the store cannot be had".to_owned();
    };
    let Ok((store, _)) = Store::open(ownership, options.clone(), &mut |_| ()) else {
        return "the store cannot be opened".to_owned();
    };
    summary(&store)
}

/// In words: what is in the queues of a store, and which of them have rows.
pub(super) fn summary(store: &Store) -> String {
    let limit = ReadLimit {
        messages: 64,
        bytes: 1 << 20,
    };
    let start = |bytes: &[u8]| {
        let text = SimpleMessage::decode(bytes)
            .map(|it| it.body)
            .unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.split(' ').next().unwrap_or_default().to_owned()
    };
    let mut text = String::new();
    for queue in (1..ORPHANS_MAX).map(QueueId) {
        let messages = store.queue_stats(queue).messages;
        if messages > 0 {
            let read = store.read_queue(queue, Cursor::START, limit).run();
            let first: Vec<String> = read.messages.iter().map(|it| start(&it.body)).collect();
            let (queue, first) = (queue.0, first.join(" "));
            text += &format!("queue {queue} has {messages} messages ({first}); ");
        }
    }
    let rows = |kind| store.rows(kind).filter_map(|(key, _)| number(key));
    let known: Vec<u32> = rows(KIND_QUEUE).chain(rows(KIND_SUBSCRIPTION)).collect();
    format!("{text}there are rows of {known:?}")
}

/// Spoils the rows that a successor finds, as a mutant says.
pub(super) fn spoil(store: &mut Store, mutant: Mutant) {
    let forgotten = [
        (Mutant::NoMarks, KIND_RESERVATION),
        (Mutant::NoHolds, KIND_HELD),
        (Mutant::LostSubscription, KIND_SUBSCRIPTION),
    ];
    if let Some((_, kind)) = forgotten.iter().find(|(it, _)| *it == mutant) {
        forget(store, *kind);
    } else if mutant == Mutant::RevivedSubscription {
        revive(store);
    } else if mutant == Mutant::RevivedQueue {
        revive_queues(store);
    } else {
        return;
    }
    while let Some(job) = store.poll_job(0) {
        let _lost = store.complete(job.run());
    }
}

fn forget(store: &mut Store, kind: u16) {
    let keys: Vec<Vec<u8>> = store.rows(kind).map(|(key, _)| key.to_vec()).collect();
    for key in keys {
        let _lost = store.delete_row(kind, &key);
    }
}

/// Subscriptions that have ended have not.
fn revive(store: &mut Store) {
    let rows = store.rows(KIND_SUBSCRIPTION).filter_map(|(key, value)| {
        let row = envelope::open(KIND_SUBSCRIPTION, SUBSCRIPTION_SCHEMA, value);
        let row: SubscriptionRow = row.ok()?;
        let row = SubscriptionRow {
            is_deleted: false,
            ..row
        };
        let value = envelope::seal(KIND_SUBSCRIPTION, SUBSCRIPTION_SCHEMA, &row).ok()?;
        Some((key.to_vec(), value))
    });
    let rows: Vec<(Vec<u8>, Vec<u8>)> = rows.collect();
    for (key, value) in rows {
        let _lost = store.put_row(KIND_SUBSCRIPTION, &key, &value);
    }
}

/// Queues that are deleted are not.
fn revive_queues(store: &mut Store) {
    let rows = store.rows(KIND_QUEUE).filter_map(|(key, value)| {
        let row = envelope::open(KIND_QUEUE, DELETED_QUEUE_SCHEMA, value);
        let DeletedQueueRow { name } = row.ok()?;
        let row = QueueRow {
            name,
            is_temporary: false,
            owner: None,
        };
        let value = envelope::seal(KIND_QUEUE, QUEUE_SCHEMA, &row).ok()?;
        Some((key.to_vec(), value))
    });
    let rows: Vec<(Vec<u8>, Vec<u8>)> = rows.collect();
    for (key, value) in rows {
        let _lost = store.put_row(KIND_QUEUE, &key, &value);
    }
}
