//! What the lives of `crashes` and `hosts` do to a store, and how they read it.

use steadfast_storage::{
    AppendError, Cursor, NewMessage, Place, QueueId, ReadLimit, Store, StoreOptions, Ticket,
};

/// Queues of a life, from 1.
pub(crate) const QUEUES: u32 = 3;
/// Kind of all rows.
const KIND: u16 = 7;

/// Small segments, checkpoints and batches, so that much happens to them.
pub(crate) fn options(random: &mut fastrand::Rng) -> StoreOptions {
    StoreOptions {
        segment_bytes: 64 << random.u32(10..13),
        first_segment_bytes: 64 << 10,
        checkpoint_bytes: Some(1 << random.u32(12..17)),
        batch_bytes: 1 << random.u32(10..16),
        new_identity: *b"the sample of the fuzzer",
        ..StoreOptions::default()
    }
}

fn body(number: u32, len: usize) -> String {
    format!("{number} {}", "m".repeat(len))
}

/// A message that was appended: where it is, queue by queue.
pub(crate) struct Published {
    pub(crate) ticket: Ticket,
    pub(crate) places: Vec<(u32, Place)>,
}

/// Appends a message to one or two queues; a few are as long as `len_max`.
pub(crate) fn publish(
    store: &mut Store,
    random: &mut fastrand::Rng,
    number: u32,
    len_max: usize,
) -> Result<Published, AppendError> {
    let len = match random.u8(..20) {
        0 => random.usize(..len_max),
        1..5 => random.usize(..5_000),
        _ => random.usize(..300),
    };
    let mut routes: Vec<QueueId> = (1..=QUEUES).map(QueueId).collect();
    random.shuffle(&mut routes);
    routes.truncate(random.usize(1..=2));
    let text = body(number, len);
    let appended = store.append_message(NewMessage {
        routes: &routes,
        durable: true,
        meta: b"meta",
        body: &[text.as_bytes()],
    })?;
    let place = |(index, queue): (u32, &QueueId)| {
        let ordinal = appended.first.ordinal + index;
        let first = appended.first;
        (queue.0, Place { ordinal, ..first })
    };
    Ok(Published {
        ticket: appended.ticket,
        places: (0..).zip(&routes).map(place).collect(),
    })
}

/// A reference that a life knows: its queue, the number of its message, where it is.
pub(crate) type Live = (u32, u32, Place);

/// Takes one of the references that are durable out of `live` and settles it; `None`: there was none by chance.
pub(crate) fn settle(
    store: &mut Store,
    random: &mut fastrand::Rng,
    live: &mut Vec<Live>,
) -> Option<(u32, u32, Result<Ticket, AppendError>)> {
    if live.is_empty() {
        return None;
    }
    let at = random.usize(..live.len());
    let (queue, number, place) = live[at];
    if !store.is_live(place) {
        // Not durable yet.
        return None;
    }
    live.swap_remove(at);
    Some((queue, number, store.append_settled(QueueId(queue), place)))
}

/// Writes a row, or deletes it.
pub(crate) fn change_row(
    store: &mut Store,
    key: u32,
    value: Option<u32>,
) -> Result<Ticket, AppendError> {
    let key = key.to_le_bytes();
    match value {
        Some(value) => store.put_row(KIND, &key, &value.to_le_bytes()),
        None => store.delete_row(KIND, &key),
    }
}

/// One reference as it was read.
pub(crate) struct Found {
    pub(crate) number: u32,
    pub(crate) place: Place,
}

/// All references of a queue in order.
pub(crate) fn read(store: &Store, queue: u32) -> Result<Vec<Found>, String> {
    let limit = ReadLimit {
        messages: 64,
        bytes: 1 << 20,
    };
    let mut from = Cursor::START;
    let mut found = Vec::new();
    loop {
        let done = store.read_queue(QueueId(queue), from, limit).run();
        if let Some(error) = done.error {
            return Err(error);
        }
        if !done.quarantined.is_empty() || done.lost_references > 0 {
            return Err(format!("queue {queue} has damaged messages"));
        }
        for message in done.messages {
            let text = std::str::from_utf8(&message.body);
            let number = text
                .ok()
                .and_then(|text| text.split(' ').next()?.parse().ok());
            found.push(Found {
                number: number.ok_or("a message was invented")?,
                place: message.place,
            });
        }
        if done.end {
            return Ok(found);
        }
        if done.next <= from {
            return Err("reading does not go on".to_owned());
        }
        from = done.next;
    }
}

pub(crate) fn row(store: &Store, key: u32) -> Result<Option<u32>, String> {
    let Some(value) = store.row(KIND, &key.to_le_bytes()) else {
        return Ok(None);
    };
    let value = value.try_into().map_err(|_| "a row was invented")?;
    Ok(Some(u32::from_le_bytes(value)))
}
