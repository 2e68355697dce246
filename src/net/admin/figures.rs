//! What a running server shows of itself, and what is done to it.

use std::collections::BTreeMap;

use steadfast_storage::Ticket;

use super::stores;
use crate::admin::{Answer, Failure, Item, Object, Request, Verb};
use crate::config::companions::Companions;
use crate::model::{Catalogue, DestinationKind, Pattern, Prefetch, Properties, Trace};
use crate::monitor::Status;
use crate::net::clock;
use crate::net::engine::Engine;
use crate::node::{ConnectionStatus, Deletion, Dropped, QueueStatus, SubscriptionStatus};

type Result = std::result::Result<Answer, Failure>;

/// Most rows of a table.
const ROWS_MAX: usize = 10_000;

/// Lists or shows what only a running server knows.
pub(super) fn show(
    engine: &Engine,
    status: &Status,
    files: &Companions,
    request: &Request,
) -> Result {
    let name = request.arguments.name(0);
    match (request.command.verb, request.command.object) {
        (_, Object::Server) => Ok(server(engine, status, files)),
        (_, Object::State) => Ok(state(engine, status)),
        (_, Object::Database) => stores::database(status),
        (_, Object::Statistics) => Ok(statistics(status, request)),
        (Verb::List, Object::Store) => stores::list(engine, status, files, request),
        (_, Object::Store) => stores::show(engine, status, files, name),
        (Verb::List, Object::Queue) => queues(engine, files, request),
        (_, Object::Queue) => queue(engine, files, name),
        (Verb::List, Object::Topic) => topics(engine, files, request),
        (_, Object::Topic) => topic(engine, files, name),
        (Verb::List, Object::Durable) => Ok(durables(engine, files, request)),
        (_, Object::Durable) => durable(engine, files, request),
        (_, Object::Subscription) => Ok(subscriptions(engine, request)),
        (_, Object::Connection) => Ok(connections(engine, request)),
        (Verb::List, Object::Consumer) => Ok(consumers(engine, request)),
        (_, Object::Consumer) => consumer(engine, name),
        _ => Err(Failure::new(
            501,
            format!("`{}` is not in this version", request.command.words),
        )),
    }
}

// The server

fn server(engine: &Engine, status: &Status, files: &Companions) -> Answer {
    let mut fields: Vec<(&str, Item)> = vec![
        ("server", status.server.as_str().into()),
        ("version", status.version.into()),
        ("process_id", u64::from(status.process_id).into()),
        ("state", status.role.into()),
        ("epoch", status.epoch.into()),
        ("listens", Item::List(status.listens.clone())),
        ("uptime_ms", status.uptime_ms.into()),
        ("authorization", engine.directory().authorization.into()),
    ];
    fields.extend(peer(status));
    let connections = connection_status(engine);
    let managers = connections.iter().filter(|it| it.is_manager).count();
    let engine_status = engine.status();
    fields.extend([
        ("queues", engine_status.queues.into()),
        ("topics", files.topics.items().len().into()),
        ("client_connections", (connections.len() - managers).into()),
        ("admin_connections", managers.into()),
    ]);
    if let Some(node) = &engine_status.node {
        fields.extend([
            ("producers", Item::from(node.publishers)),
            ("consumers", node.consumers.into()),
            ("messages_refused", node.messages_refused.into()),
            ("message_memory_bytes", node.window_bytes.into()),
            ("waiting_for_disk_bytes", node.backlog_bytes.into()),
        ]);
    }
    fields.extend([
        ("durables", Item::from(files.durables.items().len())),
        ("inbound_messages", engine_status.messages_in.into()),
        ("outbound_messages", engine_status.messages_out.into()),
    ]);
    if let Some(store) = &status.store {
        fields.extend([
            ("pending_messages", Item::from(store.messages)),
            ("pending_message_bytes", store.bytes.into()),
            (
                "held_messages",
                engine.administer(|node, _| node.held_messages()).into(),
            ),
            (
                "storage",
                "every confirmed durable message is synced".into(),
            ),
        ]);
    }
    Answer::record(fields)
}

/// The other server of the pair; when it is not in sight, why.
fn peer(status: &Status) -> Vec<(&'static str, Item)> {
    if let Some(peer) = &status.peer {
        return vec![
            ("peer", peer.name.as_str().into()),
            ("peer_state", peer.role.into()),
            ("peer_epoch", peer.epoch.into()),
        ];
    }
    let Some(trouble) = &status.peer_trouble else {
        return vec![("peer", Item::Nothing)];
    };
    vec![
        ("peer", trouble.peer.as_str().into()),
        ("peer_state", trouble.what.into()),
        ("peer_state_for_ms", trouble.for_ms.into()),
        ("peer_reason", trouble.reason.as_str().into()),
    ]
}

fn state(engine: &Engine, status: &Status) -> Answer {
    let mut fields: Vec<(&str, Item)> = vec![
        ("server", status.server.as_str().into()),
        ("process_id", u64::from(status.process_id).into()),
        ("state", status.role.into()),
        ("state_for_ms", status.role_ms.into()),
        ("epoch", status.epoch.into()),
        ("uptime_ms", status.uptime_ms.into()),
    ];
    fields.extend(peer(status));
    if let Some(warm) = &status.warm_standby {
        fields.push(("follows_the_active", warm.current.into()));
    }
    if status.is_active() {
        let clients = &status.reconnect;
        let settled = clients.returned + clients.expired;
        fields.extend([
            (
                "awaited_clients",
                Item::from(clients.expected.saturating_sub(settled)),
            ),
            ("awaited_for_ms", clients.deadline_ms.into()),
            (
                "held_messages",
                engine.administer(|node, _| node.held_messages()).into(),
            ),
        ]);
    }
    Answer::record(fields)
}

fn statistics(status: &Status, request: &Request) -> Answer {
    let clients = &status.clients;
    let rows = [
        ("inbound messages", clients.messages_in),
        ("outbound messages", clients.messages_out),
        ("redelivered messages", clients.redelivered),
    ];
    let rows = rows.map(|(name, count)| vec![name.into(), count.into()]);
    Answer::table(request.command.columns, rows.into())
}

/// Refuses a switchover that would leave nobody to serve.
pub(super) fn check_switchover(status: &Status) -> std::result::Result<(), Failure> {
    match status.peers.iter().find(|peer| peer.role == "standby") {
        Some(_) => Ok(()),
        None => Err(Failure::conflict(
            "no standby is connected, so nobody could take over: start one (ft_active on both \
             servers), or use shutdown",
        )),
    }
}

// Destinations

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

fn queues(engine: &Engine, files: &Companions, request: &Request) -> Result {
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

fn queue(engine: &Engine, files: &Companions, name: &str) -> Result {
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
pub(super) fn create_queue(engine: &Engine, request: &Request) -> Option<Answer> {
    let name = request.arguments.name(0);
    let is_plain = Pattern::parse(name).is_ok_and(|name| !name.is_wildcard());
    if !is_plain || !request.arguments.settings.is_empty() {
        return None;
    }
    let made = engine.administer(|node, _| node.add_queue(name))?;
    made.is_ok()
        .then(|| Answer::done(format!("queue {name} created in the store")))
}

/// Deletes queues of the running server; nothing when there was none.
pub(super) fn delete_queue(engine: &Engine, request: &Request) -> Option<Answer> {
    let pattern = Pattern::parse(request.arguments.name(0)).ok()?;
    let gone = engine.administer(|node, now| node.delete_queues(now, &pattern))?;
    (gone.queues > 0).then(|| deleted(gone, "queue"))
}

/// Deletes all queues of the running server except its own.
pub(super) fn delete_all_queues(engine: &Engine) -> Option<Answer> {
    let gone = engine.administer(|node, now| node.delete_all_queues(now))?;
    Some(deleted(gone, "queue"))
}

fn deleted(gone: Dropped, what: &str) -> Answer {
    let (count, messages) = (
        counted(gone.queues as u64, what),
        counted(gone.messages, "message"),
    );
    Answer::done(format!("{count} deleted from the store, with {messages}"))
}

/// `1 queue`, `2 queues`.
fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// Deletes all durable subscriptions that nobody reads. Also the batch that the answer waits for.
pub(super) fn delete_all_durables(engine: &Engine) -> Option<(Answer, Option<Ticket>)> {
    let all = engine.administer(|node, now| node.delete_all_durables(now));
    let (gone, kept, ticket) = all?;
    let mut answer = deleted(gone, "durable");
    if kept > 0 {
        let text = &mut answer.text;
        text.push_str(&format!("; {kept} stay because clients read them now"));
    }
    Some((answer, ticket))
}

/// Drops messages.
pub(super) fn purge(engine: &Engine, request: &Request) -> Result {
    let name = request.arguments.name(0);
    let client = request.arguments.name(1);
    if request.command.object == Object::Durable {
        let user = request.arguments.name(2);
        let purged = engine.administer(|node, now| node.purge_durable(now, name, client, user));
        let (status, gone) = purged.flatten().ok_or_else(|| no_durable(name))?;
        let (whose, messages) = (whose(&status), counted(gone.messages, "message"));
        return Ok(Answer::done(format!("{whose} purged: {messages} dropped")));
    }
    let pattern = Pattern::parse(name).map_err(Failure::usage)?;
    let is_queue = request.command.object == Object::Queue;
    let purged = engine.administer(|node, now| match is_queue {
        true => node.purge_queues(now, &pattern),
        false => node.purge_topics(now, &pattern),
    });
    let what = if is_queue { "queue" } else { "subscription" };
    match purged.filter(|gone| gone.queues > 0) {
        Some(gone) => Ok(Answer::done(format!(
            "{} purged: {} dropped",
            counted(gone.queues as u64, what),
            counted(gone.messages, "message")
        ))),
        None => Err(Failure::missing(format!(
            "there are no {what}s of `{name}`"
        ))),
    }
}

/// A durable subscription, its topic, its client and its user.
fn whose(status: &SubscriptionStatus) -> String {
    let (name, topic, client) = (&status.name, &status.topic, &status.client);
    let mut text = format!("durable {name} of topic {topic}");
    if !client.is_empty() {
        text.push_str(&format!(" and client {client}"));
    }
    if let Some(user) = &status.user {
        text.push_str(&format!(" (user {user})"));
    }
    text
}

/// Deletes a durable subscription that clients have made use of; nothing when there is none. Also the batch that the
/// answer waits for.
pub(super) fn delete_durable(
    engine: &Engine,
    request: &Request,
) -> std::result::Result<Option<(Answer, Option<Ticket>)>, Failure> {
    let (name, client) = (request.arguments.name(0), request.arguments.name(1));
    let user = request.arguments.name(2);
    let deletion = engine.administer(|node, now| node.delete_durable(now, name, client, user));
    match deletion {
        Some(Deletion::Deleted(status, ticket)) => {
            let messages = counted(status.messages, "message");
            let text = format!("{} deleted from the store, with {messages}", whose(&status));
            Ok(Some((Answer::done(text), ticket)))
        }
        Some(Deletion::Read(status)) => Err(Failure::conflict(format!(
            "the {} stays in the store, a client reads it now: close its connection first",
            whose(&status)
        ))),
        _ => Ok(None),
    }
}

/// Topics that the configuration names or somebody has subscribed to, with their subscriptions.
fn all_topics(
    engine: &Engine,
    catalogue: &Catalogue,
) -> BTreeMap<String, (bool, Vec<SubscriptionStatus>)> {
    let mut topics: BTreeMap<String, (bool, Vec<SubscriptionStatus>)> = BTreeMap::new();
    for (name, _) in catalogue.entries() {
        topics.entry(name.to_string()).or_default().0 = true;
    }
    for status in engine.subscriptions() {
        let topic = topics.entry(status.topic.clone()).or_default();
        topic.1.push(status);
    }
    topics
}

fn topics(engine: &Engine, files: &Companions, request: &Request) -> Result {
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

fn topic(engine: &Engine, files: &Companions, name: &str) -> Result {
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

/// A durable subscription: of the configuration, of the server, or of both.
struct Durable {
    topic: String,
    name: String,
    client: String,
    status: Option<SubscriptionStatus>,
}

fn all_durables(engine: &Engine, files: &Companions) -> Vec<Durable> {
    let mut known: Vec<Durable> = engine
        .subscriptions()
        .into_iter()
        .filter(|it| it.is_durable)
        .map(|it| Durable {
            topic: it.topic.clone(),
            name: it.name.clone(),
            client: it.client.clone(),
            status: Some(it),
        })
        .collect();
    for it in files.durables.entries() {
        let is_same = |own: &Durable| own.name == it.name && own.client == it.client_id;
        if !known.iter().any(is_same) {
            known.push(Durable {
                topic: it.topic.to_string(),
                name: it.name.clone(),
                client: it.client_id.clone(),
                status: None,
            });
        }
    }
    known.sort_by(|one, other| (&one.topic, &one.name).cmp(&(&other.topic, &other.name)));
    known
}

fn durables(engine: &Engine, files: &Companions, request: &Request) -> Answer {
    let pattern = Pattern::parse(request.arguments.name(0)).ok();
    let is_wanted = |it: &Durable| {
        let pattern = pattern.as_ref();
        pattern.is_none_or(|wanted| wanted.as_str() == it.topic || wanted.matches(&it.topic))
    };
    let rows = all_durables(engine, files).into_iter().filter(is_wanted);
    let rows = rows.take(ROWS_MAX).map(|it| {
        let status = it.status.as_ref();
        vec![
            it.topic.as_str().into(),
            it.name.as_str().into(),
            it.client.as_str().into(),
            status
                .and_then(|it| it.user.as_deref())
                .unwrap_or("")
                .into(),
            status.is_some_and(|it| it.is_active).into(),
            status.map_or(0, |it| it.messages).into(),
            status.map_or(0, |it| it.bytes).into(),
        ]
    });
    Answer::table(request.command.columns, rows.collect())
}

fn no_durable(name: &str) -> Failure {
    Failure::missing(format!(
        "there is no durable `{name}`, or several clients have one: name the client id, and the user"
    ))
}

fn durable(engine: &Engine, files: &Companions, request: &Request) -> Result {
    let [name, client, user] = [0, 1, 2].map(|index| request.arguments.name(index));
    let user_of = |it: &Durable| it.status.as_ref().and_then(|it| it.user.clone());
    let mut all = all_durables(engine, files).into_iter().filter(|it| {
        it.name == name
            && (client.is_empty() || it.client == client)
            && (user.is_empty() || user_of(it).as_deref() == Some(user))
    });
    let Some(it) = all.next() else {
        return Err(no_durable(name));
    };
    let status = it.status.as_ref();
    Ok(Answer::record(vec![
        ("durable", it.name.as_str().into()),
        ("topic", it.topic.as_str().into()),
        ("client_id", it.client.as_str().into()),
        ("user", user_of(&it).unwrap_or_default().into()),
        ("is_active", status.is_some_and(|it| it.is_active).into()),
        ("no_local", status.is_some_and(|it| it.no_local).into()),
        (
            "pending_messages",
            status.map_or(0, |it| it.messages).into(),
        ),
        (
            "pending_message_bytes",
            status.map_or(0, |it| it.bytes).into(),
        ),
        ("held_messages", status.map_or(0, |it| it.held).into()),
    ]))
}

fn subscriptions(engine: &Engine, request: &Request) -> Answer {
    let rows = engine.subscriptions().into_iter().take(ROWS_MAX);
    let rows = rows.map(|it| {
        vec![
            it.topic.into(),
            it.name.into(),
            it.client.into(),
            if it.is_durable { "D" } else { "N" }.into(),
            it.is_active.into(),
            it.messages.into(),
            it.bytes.into(),
        ]
    });
    Answer::table(request.command.columns, rows.collect())
}

// Clients

fn connection_status(engine: &Engine) -> Vec<ConnectionStatus> {
    let rows = engine.administer(|node, _| node.connection_status());
    rows.unwrap_or_default()
}

fn connections(engine: &Engine, request: &Request) -> Answer {
    let now_ms = clock::now().monotonic_ms;
    let rows = connection_status(engine)
        .into_iter()
        .take(ROWS_MAX)
        .map(|it| {
            let host = engine.address(it.id).map(|address| address.to_string());
            vec![
                u64::from(it.id.serial()).into(),
                if it.is_manager { "A" } else { "C" }.into(),
                host.into(),
                it.user.into(),
                it.container.into(),
                it.publishers.into(),
                it.consumers.into(),
                now_ms.saturating_sub(it.since_ms).into(),
            ]
        });
    Answer::table(request.command.columns, rows.collect())
}

pub(super) fn delete_connection(engine: &Engine, id: &str) -> Result {
    let serial: u32 = id
        .parse()
        .map_err(|_| Failure::usage(format!("`{id}` is not the number of a connection")))?;
    let mut rows = connection_status(engine).into_iter();
    let row = rows.find(|row| row.id.serial() == serial);
    let whose = row.map_or_else(String::new, |row| {
        let user = row.user.as_deref().unwrap_or("anonymous");
        format!(
            " of {user} ({})",
            row.container.as_deref().unwrap_or("no name")
        )
    });
    match engine.administer(|node, now| node.close_connection(now, serial)) {
        Some(true) => Ok(Answer::done(format!("connection {serial}{whose} closed"))),
        _ => Err(Failure::missing(format!("there is no connection {serial}"))),
    }
}

fn consumers(engine: &Engine, request: &Request) -> Answer {
    let arguments = &request.arguments;
    let is_wanted =
        |name: &str, value: &str| arguments.setting(name).is_none_or(|wanted| wanted == value);
    let rows = engine.administer(|node, _| node.consumer_status());
    let rows = rows.unwrap_or_default().into_iter().filter(|it| {
        is_wanted("queue", &it.queue)
            && is_wanted("user", it.user.as_deref().unwrap_or(""))
            && is_wanted("connection", &it.connection.serial().to_string())
    });
    let rows = rows.take(ROWS_MAX).map(|it| {
        vec![
            it.number.into(),
            u64::from(it.connection.serial()).into(),
            it.user.into(),
            if it.is_subscription { "T" } else { "Q" }.into(),
            it.queue.into(),
            it.is_served.into(),
        ]
    });
    Answer::table(request.command.columns, rows.collect())
}

fn consumer(engine: &Engine, id: &str) -> Result {
    let rows = engine.administer(|node, _| node.consumer_status());
    let found = rows
        .unwrap_or_default()
        .into_iter()
        .find(|it| it.number.to_string() == id);
    match found {
        Some(it) => Ok(Answer::record(vec![
            ("consumer", it.number.into()),
            ("connection", u64::from(it.connection.serial()).into()),
            ("user", it.user.into()),
            ("destination", it.queue.into()),
            ("is_active", it.is_served.into()),
        ])),
        None => Err(Failure::missing(format!("there is no consumer {id}"))),
    }
}
