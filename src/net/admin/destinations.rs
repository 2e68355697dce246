//! Queues and topics of a running server: shown, made, deleted, purged.

use std::collections::BTreeMap;
use std::time::Duration;

use super::figures::ROWS_MAX;
use super::safety::{Safe, unsure};
use super::subscriptions::{no_durable, whose};
use crate::admin::{Answer, Failure, Item, Object, Request};
use crate::config::companions::{Companions, Destination};
use crate::model::{Catalogue, DestinationKind, Pattern, Prefetch, Properties, Trace};
use crate::net::engine::{Engine, Purged};
use crate::node::{Dropped, PurgeId, QueueStatus, SubscriptionStatus};

type Result = std::result::Result<Answer, Failure>;

/// An answer to a purge waits for its end for so long at most: less than our own tool waits for an answer.
const PURGE_LIMIT: Duration = Duration::from_secs(20);

/// Letters for what is set, in the places of the title.
fn flags(kind: DestinationKind, own: &Properties, is_bridged: bool) -> String {
    let mark = |is_set: bool, letter: char| if is_set { letter } else { '-' };
    let is_named = own.sender_name || own.sender_name_enforced;
    let is_failsafe = own.store.as_deref() == Some("$sys.failsafe");
    let mut flags: String = [
        mark(own.secure, 'S'),
        mark(is_named, 'N'),
        mark(is_failsafe, 'F'),
        mark(own.global, 'G'),
        match kind {
            DestinationKind::Queue => mark(own.exclusive, 'X'),
            DestinationKind::Topic => mark(!own.export.is_empty(), 'E'),
        },
        mark(!own.import.is_empty(), 'I'),
        mark(is_bridged, 'B'),
        mark(own.flow_control_bytes > 0, 'C'),
        mark(matches!(own.trace, Some(Trace::Passage | Trace::Body)), 'T'),
    ]
    .into_iter()
    .collect();
    if kind == DestinationKind::Topic {
        flags.push(mark(own.channel.is_some(), 'M'));
    }
    flags
}

fn prefetch(own: &Properties) -> String {
    match own.prefetch {
        Some(Prefetch::OnDemand) => "none".to_owned(),
        Some(Prefetch::Messages(number)) => number.to_string(),
        None => "5*".to_owned(),
    }
}

fn is_bridged(files: &Companions, kind: DestinationKind, name: &str) -> bool {
    let mut bridges = files.bridges.entries();
    bridges.any(|bridge| bridge.source.0 == kind && bridge.source.1.matches(name))
}

/// The pattern that a command names, or all.
fn wanted(request: &Request) -> std::result::Result<Pattern, Failure> {
    let text = match request.arguments.name(0) {
        "" => ">",
        text => text,
    };
    Pattern::parse(text).map_err(Failure::usage)
}

/// Names of a catalogue and of the server, with what the server knows of each.
fn all_queues(
    engine: &Engine,
    catalogue: &Catalogue,
) -> BTreeMap<String, (bool, Option<QueueStatus>)> {
    let mut queues = BTreeMap::new();
    for (name, _) in catalogue.entries() {
        queues.insert(name.to_string(), (true, None));
    }
    for status in engine.queues() {
        let is_static = queues.contains_key(&status.name);
        queues.insert(status.name.clone(), (is_static, Some(status)));
    }
    queues
}

pub(super) fn queues(engine: &Engine, files: &Companions, request: &Request) -> Result {
    let wanted = wanted(request)?;
    let kind = DestinationKind::Queue;
    let catalogue = files.catalogue(kind);
    let mut rows = Vec::new();
    for (name, (is_static, status)) in all_queues(engine, &catalogue) {
        let is_wanted = wanted.as_str() == name || wanted.matches(&name);
        if !is_wanted || rows.len() >= ROWS_MAX {
            continue;
        }
        let own = catalogue.effective(&name).unwrap_or_default();
        let mark = if is_static { "" } else { "*" };
        let status = status.as_ref();
        rows.push(vec![
            format!("{mark}{name}").into(),
            flags(kind, &own, is_bridged(files, kind, &name)).into(),
            prefetch(&own).into(),
            status.map_or(0, |it| it.consumers).into(),
            status.map_or(0, |it| it.messages).into(),
            status.map_or(0, |it| it.bytes).into(),
            status.map_or(0, |it| it.held).into(),
        ]);
    }
    Ok(Answer::table(request.command.columns, rows))
}

fn properties(files: &Companions, kind: DestinationKind, name: &str) -> Item {
    let entry = files.destinations(kind).get(name);
    Item::List(entry.map(|entry| entry.words()).unwrap_or_default())
}

/// What applies to a destination beyond what its own line says.
fn inherited(files: &Companions, kind: DestinationKind, name: &str, applied: &Properties) -> Item {
    let own = files.destinations(kind).get(name);
    let own = own.map(|entry| entry.words()).unwrap_or_default();
    let mut words = written(kind, name, applied);
    words.retain(|word| !own.contains(word));
    Item::List(words)
}

/// Properties as a line of a file has them.
fn written(kind: DestinationKind, name: &str, properties: &Properties) -> Vec<String> {
    let name = Pattern::parse(name);
    let line = name.map(|name| Destination {
        kind,
        name,
        properties: properties.clone(),
    });
    line.map(|line| line.words()).unwrap_or_default()
}

pub(super) fn queue(engine: &Engine, files: &Companions, name: &str) -> Result {
    let kind = DestinationKind::Queue;
    let catalogue = files.catalogue(kind);
    let Some((is_static, status)) = all_queues(engine, &catalogue).remove(name) else {
        return Err(Failure::missing(format!("there is no queue `{name}`")));
    };
    let own = catalogue.effective(name).unwrap_or_default();
    let status = status.as_ref();
    Ok(Answer::record(vec![
        ("queue", name.into()),
        ("is_static", is_static.into()),
        (
            "is_temporary",
            status.is_some_and(|it| it.is_temporary).into(),
        ),
        ("properties", properties(files, kind, name)),
        ("inherited_properties", inherited(files, kind, name, &own)),
        (
            "flags",
            flags(kind, &own, is_bridged(files, kind, name)).into(),
        ),
        ("receivers", status.map_or(0, |it| it.consumers).into()),
        (
            "pending_messages",
            status.map_or(0, |it| it.messages).into(),
        ),
        (
            "pending_message_bytes",
            status.map_or(0, |it| it.bytes).into(),
        ),
        (
            "in_flight_messages",
            status.map_or(0, |it| it.in_flight).into(),
        ),
        ("held_messages", status.map_or(0, |it| it.held).into()),
    ]))
}

/// Makes a queue that needs no file; nothing for one with properties, or for a pattern.
/// Also what the answer waits for.
pub(super) fn create_queue(engine: &Engine, request: &Request) -> Option<(Answer, Safe)> {
    let name = request.arguments.name(0);
    let is_plain = Pattern::parse(name).is_ok_and(|name| !name.is_wildcard());
    if !is_plain || !request.arguments.settings.is_empty() {
        return None;
    }
    let made = engine.administer(|node, _| node.add_queue(name))?;
    let answer = Answer::done(format!("queue {name} created in the store"));
    made.ok().map(|ticket| (answer, Safe::With(ticket)))
}

/// Deletes queues of the running server; nothing when there was none. Also what the answer waits for.
pub(super) fn delete_queue(engine: &Engine, request: &Request) -> Option<(Answer, Safe)> {
    let pattern = Pattern::parse(request.arguments.name(0)).ok()?;
    let (gone, ticket) = engine.administer(|node, now| node.delete_queues(now, &pattern))?;
    (gone.queues > 0).then(|| (deleted(gone, "queue"), Safe::with(ticket)))
}

/// Deletes all queues of the running server except its own. Also what the answer waits for.
pub(super) fn delete_all_queues(engine: &Engine) -> Option<(Answer, Safe)> {
    let (gone, ticket) = engine.administer(|node, now| node.delete_all_queues(now))?;
    let safe = match gone.queues {
        0 => Safe::Now,
        _ => Safe::with(ticket),
    };
    Some((deleted(gone, "queue"), safe))
}

pub(super) fn deleted(gone: Dropped, what: &str) -> Answer {
    let (count, messages) = (
        counted(gone.queues as u64, what),
        counted(gone.messages, "message"),
    );
    Answer::done(format!("{count} deleted from the store, with {messages}"))
}

/// `1 queue`, `2 queues`.
pub(super) fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// What a purge dropped, and what it left.
fn dropped(gone: Dropped) -> String {
    let mut text = format!("{} dropped", counted(gone.messages, "message"));
    if gone.kept > 0 {
        let kept = counted(gone.kept, "message");
        text.push_str(&format!(
            "; kept for clients that had them before a takeover: {kept}"
        ));
    }
    text
}

/// Drops messages; answers when all that it means are gone for good.
pub(super) async fn purge(engine: &Engine, request: &Request) -> Result {
    let name = request.arguments.name(0);
    if request.command.object == Object::Durable {
        let (client, user) = (request.arguments.name(1), request.arguments.name(2));
        let purged = engine.administer(|node, now| node.purge_durable(now, name, client, user));
        let (status, purge) = purged.flatten().ok_or_else(|| no_durable(name))?;
        return await_purge(engine, purge, |_| whose(&status)).await;
    }
    let pattern = Pattern::parse(name).map_err(Failure::usage)?;
    let is_queue = request.command.object == Object::Queue;
    let purge = engine.administer(|node, now| match is_queue {
        true => node.purge_queues(now, &pattern),
        false => node.purge_topics(now, &pattern),
    });
    let what = if is_queue { "queue" } else { "subscription" };
    let purge = purge
        .flatten()
        .ok_or_else(|| Failure::missing(format!("there are no {what}s of `{name}`")))?;
    await_purge(engine, purge, |gone| counted(gone.queues as u64, what)).await
}

async fn await_purge(
    engine: &Engine,
    purge: PurgeId,
    what: impl FnOnce(Dropped) -> String,
) -> Result {
    let why = match engine.purged(purge, PURGE_LIMIT).await {
        Purged::Done(gone) => {
            let text = format!("{} purged: {}", what(gone), dropped(gone));
            return Ok(Answer::done(text));
        }
        Purged::GoesOn => {
            "it goes on: give the command again to wait for the rest, and to hear the number"
        }
        Purged::Unsure(durability) => unsure(durability).unwrap_or_default(),
    };
    let text = format!("the oldest messages are dropped, and the purge is not over; {why}");
    Err(Failure::new(503, text))
}

/// Topics that the configuration names or somebody has subscribed to, and temporary ones, with their
/// subscriptions.
fn all_topics(
    engine: &Engine,
    catalogue: &Catalogue,
) -> BTreeMap<String, (bool, Vec<SubscriptionStatus>)> {
    let mut topics: BTreeMap<String, (bool, Vec<SubscriptionStatus>)> = BTreeMap::new();
    for (name, _) in catalogue.entries() {
        topics.entry(name.to_string()).or_default().0 = true;
    }
    for name in engine.temporary_topics() {
        topics.entry(name).or_default();
    }
    for status in engine.subscriptions() {
        let topic = topics.entry(status.topic.clone()).or_default();
        topic.1.push(status);
    }
    topics
}

pub(super) fn topics(engine: &Engine, files: &Companions, request: &Request) -> Result {
    let wanted = wanted(request)?;
    let kind = DestinationKind::Topic;
    let catalogue = files.catalogue(kind);
    let mut rows = Vec::new();
    for (name, (is_static, subscriptions)) in all_topics(engine, &catalogue) {
        let is_wanted = wanted.as_str() == name || wanted.matches(&name);
        if !is_wanted || rows.len() >= ROWS_MAX {
            continue;
        }
        let own = catalogue.effective(&name).unwrap_or_default();
        let mark = if is_static { "" } else { "*" };
        let durables = subscriptions.iter().filter(|it| it.is_durable).count();
        rows.push(vec![
            format!("{mark}{name}").into(),
            flags(kind, &own, is_bridged(files, kind, &name)).into(),
            subscriptions.len().into(),
            durables.into(),
            sum(&subscriptions, |it| it.messages).into(),
            sum(&subscriptions, |it| it.bytes).into(),
        ]);
    }
    Ok(Answer::table(request.command.columns, rows))
}

fn sum(subscriptions: &[SubscriptionStatus], of: fn(&SubscriptionStatus) -> u64) -> u64 {
    subscriptions.iter().map(of).sum()
}

pub(super) fn topic(engine: &Engine, files: &Companions, name: &str) -> Result {
    let kind = DestinationKind::Topic;
    let catalogue = files.catalogue(kind);
    let Some((is_static, subscriptions)) = all_topics(engine, &catalogue).remove(name) else {
        return Err(Failure::missing(format!("there is no topic `{name}`")));
    };
    let own = catalogue.effective(name).unwrap_or_default();
    Ok(Answer::record(vec![
        ("topic", name.into()),
        ("is_static", is_static.into()),
        ("properties", properties(files, kind, name)),
        ("inherited_properties", inherited(files, kind, name, &own)),
        (
            "flags",
            flags(kind, &own, is_bridged(files, kind, name)).into(),
        ),
        ("subscriptions", subscriptions.len().into()),
        (
            "pending_messages",
            sum(&subscriptions, |it| it.messages).into(),
        ),
        (
            "pending_message_bytes",
            sum(&subscriptions, |it| it.bytes).into(),
        ),
    ]))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::companions::{Companion, File, Report};

    #[test]
    fn what_a_destination_inherits_is_told_apart_from_its_own() {
        let text =
            "orders.> maxmsgs=9,expiration=2day,secure\norders.sub maxmsgs=5\nalone global\n";
        let mut report = Report::default();
        let files = Companions {
            queues: File::parse(Companion::Queues, Path::new("q"), text, &mut report),
            ..Companions::of_sections(Path::new("pair.json"))
        };
        assert_eq!(report.faults, []);
        let kind = DestinationKind::Queue;
        let words = |name: &str| {
            let applied = files.catalogue(kind).effective(name).unwrap_or_default();
            match inherited(&files, kind, name, &applied) {
                Item::List(words) => words.join(","),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(words("orders.sub"), "secure,expiration=2day");
        assert_eq!(words("orders.new"), "secure,maxmsgs=9,expiration=2day");
        assert_eq!(words("alone"), "");
        assert_eq!(words("nowhere"), "");
    }
}
