//! The stores, as an administrator names them. There is one log on the disk: a store is what belongs to the
//! destinations that name it.

use std::collections::BTreeMap;

use super::Result;
use crate::admin::{Answer, Failure, Request};
use crate::config::companions::Companions;
use crate::model::DestinationKind;
use crate::monitor::Status;
use crate::net::engine::Engine;

/// Of destinations that name none.
const USUAL: &str = "$sys.nonfailsafe";
/// Those that are there without being named.
const ALWAYS: [&str; 3] = ["$sys.meta", USUAL, "$sys.failsafe"];

/// What waits in the destinations of a store.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    destinations: u64,
    messages: u64,
    bytes: u64,
}

/// All stores and their shares.
fn shares(engine: &Engine, files: &Companions) -> BTreeMap<String, Share> {
    let named = files.stores.entries().map(|section| section.name.clone());
    let names = named.chain(ALWAYS.map(str::to_owned));
    let mut shares: BTreeMap<String, Share> = names.map(|name| (name, Share::default())).collect();
    let queues = files.catalogue(DestinationKind::Queue);
    let topics = files.catalogue(DestinationKind::Topic);
    let of_queues = engine.queues().into_iter().map(|it| {
        let own = queues.effective(&it.name).and_then(|own| own.store);
        (own, it.messages, it.bytes)
    });
    let of_topics = engine.subscriptions().into_iter().map(|it| {
        let own = topics.effective(&it.topic).and_then(|own| own.store);
        (own, it.messages, it.bytes)
    });
    for (store, messages, bytes) in of_queues.chain(of_topics) {
        let store = store.unwrap_or_else(|| USUAL.to_owned());
        let share = shares.entry(store).or_default();
        share.destinations += 1;
        share.messages += messages;
        share.bytes += bytes;
    }
    shares
}

fn not_ours() -> Failure {
    Failure::conflict("this server does not own the store now")
}

/// All stores, and the log.
pub(super) fn list(
    engine: &Engine,
    status: &Status,
    files: &Companions,
    request: &Request,
) -> Result<Answer> {
    status.store.as_ref().ok_or_else(not_ours)?;
    let rows = shares(engine, files).into_iter().map(|(name, share)| {
        vec![
            name.into(),
            "log".into(),
            share.destinations.into(),
            share.messages.into(),
            share.bytes.into(),
        ]
    });
    let mut answer = Answer::table(request.command.columns, rows.collect());
    answer.text = "on the disk all are one log; show db has its figures".to_owned();
    Ok(answer)
}

/// One store.
pub(super) fn show(
    engine: &Engine,
    status: &Status,
    files: &Companions,
    name: &str,
) -> Result<Answer> {
    status.store.as_ref().ok_or_else(not_ours)?;
    let share = shares(engine, files).remove(name);
    let share = share.ok_or_else(|| Failure::missing(format!("there is no store `{name}`")))?;
    Ok(Answer::record(vec![
        ("store", name.into()),
        ("type", "log; all stores are one".into()),
        ("access_mode", "synchronous, synced".into()),
        ("destinations", share.destinations.into()),
        ("messages", share.messages.into()),
        ("message_bytes", share.bytes.into()),
    ]))
}

/// Figures of the log.
pub(super) fn database(status: &Status) -> Result<Answer> {
    let store = status.store.as_ref().ok_or_else(not_ours)?;
    Ok(Answer::record(vec![
        ("epoch", store.epoch.into()),
        ("segments", store.segments.into()),
        ("messages", store.messages.into()),
        ("message_bytes", store.bytes.into()),
        ("tail_bytes", store.tail_bytes.into()),
        ("last_number", store.last_lsn.into()),
        ("durable_number", store.durable_lsn.into()),
        ("batches", store.batches.into()),
        ("batch_bytes", store.batch_bytes.into()),
        ("checkpoints", store.checkpoints.into()),
        ("checkpoint_failures", store.checkpoint_failures.into()),
        ("quarantined", store.quarantined.into()),
        ("damaged_copies", store.damaged_copies.into()),
        ("unreadable", store.unreadable.into()),
        ("is_full", store.full.into()),
        ("free_bytes", store.free_bytes.into()),
    ]))
}

/// There is nothing to do: says what there is.
pub(super) fn compact(status: &Status) -> Answer {
    let segments = status.store.as_ref().map_or(0, |store| store.segments);
    let segments = match segments {
        1 => "1 segment".to_owned(),
        segments => format!("{segments} segments"),
    };
    Answer::done(format!(
        "the store compacts itself as it goes; it has {segments} now"
    ))
}
