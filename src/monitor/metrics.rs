//! The Prometheus text. Names begin with `steadfast_` and end with their unit. Beside them stand the
//! names of EMS for what means the same here, so that its dashboards find it. There is nothing of a
//! single destination: whoever reads metrics proves no right to know of it.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::status::{Status, Store};

const ROLES: [&str; 7] = [
    "starting",
    "standby",
    "activating",
    "recovering",
    "active",
    "fenced",
    "stopping",
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabel {
    role: &'static str,
}

/// Writes all metrics of a snapshot.
pub(super) fn render(status: &Status) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("steadfast");
    register_server(&mut registry, status);
    register_clients(&mut registry, status);
    register_store(&mut registry, status);
    let mut text = String::new();
    encode_registry(&mut text, &registry)?;
    encode_registry(&mut text, &ems(status))?;
    encode_eof(&mut text)?;
    Ok(text)
}

/// What EMS's monitor calls by these names.
fn ems(status: &Status) -> Registry {
    let mut registry = Registry::with_prefix("tibco_ems_server");
    let uptime_s = status.uptime_ms / 1_000;
    gauge(&mut registry, "uptime", "Seconds since the start", uptime_s);
    let connections = status.clients.connections;
    for name in ["connections", "client_connections"] {
        gauge(&mut registry, name, "Client connections", connections);
    }
    if let Some(store) = &status.store {
        let help = "Message references not settled";
        gauge(&mut registry, "pending_messages", help, store.messages);
        let help = "Size of those in bytes";
        gauge(&mut registry, "pending_message_bytes", help, store.bytes);
    }
    let rates = status.rates;
    for (name, help, rate) in [
        (
            "inbound_message_rate",
            "Messages accepted, each second",
            rates.messages_in,
        ),
        (
            "outbound_message_rate",
            "Deliveries, each second",
            rates.messages_out,
        ),
        (
            "storage_write_byte_rate",
            "Bytes written to the log, each second",
            rates.written_bytes,
        ),
    ] {
        registry.register(name, help, ConstGauge::new(rate));
    }
    registry
}

fn register_server(registry: &mut Registry, status: &Status) {
    let info = vec![
        ("server", status.server.clone()),
        ("version", status.version.to_owned()),
    ];
    registry.register("server", "Name and version of the server", Info::new(info));
    let roles = Family::<RoleLabel, Gauge>::default();
    for role in ROLES {
        roles
            .get_or_create(&RoleLabel { role })
            .set(i64::from(status.role == role));
    }
    registry.register("role", "1 for the role that the server has", roles);
    gauge(
        registry,
        "epoch",
        "Epoch of the store that the server owns or last owned",
        status.epoch,
    );
    gauge(
        registry,
        "peers",
        "Peers in sight",
        count(status.peers.len()),
    );
    seconds(
        registry,
        "uptime",
        "Time since the process started",
        status.uptime_ms as f64,
    );
    if let Some(lock_to_ready_ms) = status.recovery.lock_to_ready_ms {
        let help = "From lock to ready in the last recovery";
        seconds(registry, "recovery", help, lock_to_ready_ms);
    }
    register_takeover(registry, status);
    let reconnect = &status.reconnect;
    gauge(
        registry,
        "reconnect_expected",
        "Clients expected after takeover",
        reconnect.expected,
    );
    gauge(
        registry,
        "reconnect_returned",
        "Expected clients that returned",
        reconnect.returned,
    );
    gauge(
        registry,
        "reconnect_expired",
        "Expected clients that did not",
        reconnect.expired,
    );
    let help = "Clients whose state the next takeover would find";
    gauge(registry, "reconnect_kept", help, reconnect.kept);
    if let Some(deadline_ms) = reconnect.deadline_ms {
        let help = "Time until the state of expected clients that did not return is removed";
        seconds(registry, "reconnect_left", help, deadline_ms as f64);
    }
}

fn register_takeover(registry: &mut Registry, status: &Status) {
    if let Some(progress) = &status.recovery.progress {
        let help = "Bytes that the present phase of recovery has read";
        gauge(registry, "recovery_done_bytes", help, progress.done);
        let help = "Bytes that the present phase of recovery has to read; 0 if not known";
        gauge(registry, "recovery_total_bytes", help, progress.total);
        if let Some(remaining_ms) = progress.remaining_ms {
            let help = "Estimate of what the present phase of recovery still takes";
            seconds(registry, "recovery_remaining", help, remaining_ms as f64);
        }
    }
    if let Some(warm) = &status.warm_standby {
        let help = "1 when a standby had read the log of the active server to its end";
        gauge(registry, "warm_standby_current", help, warm.current.into());
        let help = "Last record of the active server that a standby has applied";
        gauge(registry, "warm_standby_applied_lsn", help, warm.applied_lsn);
        let help = "Records that a standby has read and that are not proven durable yet";
        gauge(registry, "warm_standby_lag_records", help, warm.lag_records);
        let help = "How often a standby had to begin to follow the log again";
        gauge(registry, "warm_standby_restarts", help, warm.restarts);
    }
}

fn register_clients(registry: &mut Registry, status: &Status) {
    let clients = &status.clients;
    gauge(
        registry,
        "connections",
        "Client connections that are open",
        clients.connections,
    );
    gauge(registry, "links", "Links that are attached", clients.links);
    gauge(registry, "queues", "Queues that exist", clients.queues);
    let help = "Subscriptions to topics";
    gauge(registry, "subscriptions", help, clients.subscriptions);
    let help = "Copies that subscriptions did not get because they were full";
    counter(registry, "skipped_messages", help, clients.skipped);
    let help = "Messages dropped because newer ones needed their room";
    counter(registry, "discarded_messages", help, clients.discarded);
    counter(
        registry,
        "inbound_messages",
        "Messages accepted from clients",
        clients.messages_in,
    );
    counter(
        registry,
        "outbound_messages",
        "Deliveries to clients",
        clients.messages_out,
    );
    let help = "Deliveries marked as possibly seen before";
    counter(registry, "redelivered_messages", help, clients.redelivered);
    let help = "Logins refused: wrong passwords, mechanisms that let nobody in, certificates of nobody here";
    counter(registry, "refused_logins", help, clients.refused_logins);
}

fn register_store(registry: &mut Registry, status: &Status) {
    let Some(store) = &status.store else {
        return;
    };
    gauge(
        registry,
        "pending_messages",
        "Message references not settled",
        store.messages,
    );
    bytes(
        registry,
        "pending_message_size",
        "Size of those",
        store.bytes,
    );
    gauge(
        registry,
        "store_segments",
        "Files of the log",
        store.segments,
    );
    bytes(
        registry,
        "store_tail",
        "Log that a recovery would read now",
        store.tail_bytes,
    );
    if let Some(free_bytes) = store.free_bytes {
        bytes(
            registry,
            "store_free",
            "Free space of the store's disk",
            free_bytes,
        );
    }
    counter(
        registry,
        "store_records",
        "Durable records of the log",
        store.durable_lsn,
    );
    counter(
        registry,
        "store_syncs",
        "Batches written and synced",
        store.batches,
    );
    let written = ConstCounter::new(store.batch_bytes);
    registry.register_with_unit("store_written", "Written in batches", Unit::Bytes, written);
    counter(
        registry,
        "store_checkpoints",
        "Checkpoints taken",
        store.checkpoints,
    );
    let failures = store.checkpoint_failures;
    counter(
        registry,
        "store_checkpoint_failures",
        "Checkpoints that failed",
        failures,
    );
    register_damage(registry, store);
    let help = "1 while publishes are refused because the disk is nearly full";
    gauge(registry, "store_full", help, u64::from(store.full));
}

/// What the disk did not keep.
fn register_damage(registry: &mut Registry, store: &Store) {
    gauge(
        registry,
        "quarantined_messages",
        "Damaged messages set aside",
        store.quarantined,
    );
    counter(
        registry,
        "store_damaged_copies",
        "Compacted files found damaged while their segment was still there",
        store.damaged_copies,
    );
    gauge(
        registry,
        "unreadable_messages",
        "Messages that the disk refuses to read, left out until the next start",
        store.unreadable as u64,
    );
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstGauge::new(value));
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstCounter::new(value));
}

fn bytes(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register_with_unit(name, help, Unit::Bytes, ConstGauge::new(value));
}

fn seconds(registry: &mut Registry, name: &str, help: &str, value_ms: f64) {
    let value = ConstGauge::new(value_ms / 1_000.0);
    registry.register_with_unit(name, help, Unit::Seconds, value);
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
