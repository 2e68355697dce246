//! What a running server shows of itself.

use super::{clients, destinations, stores, subscriptions};
use crate::admin::{Answer, Failure, Item, Object, Request, Verb};
use crate::config::companions::Companions;
use crate::monitor::Status;
use crate::net::engine::Engine;

type Result = std::result::Result<Answer, Failure>;

/// Most rows of a table.
pub(super) const ROWS_MAX: usize = 10_000;

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
        (Verb::List, Object::Queue) => destinations::queues(engine, files, request),
        (_, Object::Queue) => destinations::queue(engine, files, name),
        (Verb::List, Object::Topic) => destinations::topics(engine, files, request),
        (_, Object::Topic) => destinations::topic(engine, files, name),
        (Verb::List, Object::Durable) => Ok(subscriptions::durables(engine, files, request)),
        (_, Object::Durable) => subscriptions::durable(engine, files, request),
        (_, Object::Subscription) => Ok(subscriptions::subscriptions(engine, request)),
        (_, Object::Connection) => Ok(clients::connections(engine, request)),
        (Verb::List, Object::Consumer) => Ok(clients::consumers(engine, request)),
        (_, Object::Consumer) => clients::consumer(engine, name),
        _ => Err(Failure::new(
            501,
            format!("`{}` is not in this version", request.command.words),
        )),
    }
}

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
    let connections = clients::connection_status(engine);
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
