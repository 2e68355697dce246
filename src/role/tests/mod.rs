//! Histories of one role with virtual time, and of several over a shared lock.

mod scenarios;
mod simulation;

use super::{Action, EngineMode, Event, PeerNews, Role, Settings, State};

fn settings(peers: usize) -> Settings {
    Settings {
        peers,
        heartbeat_ms: 3_000,
        activation_ms: 10_000,
        lock_poll_ms: 100,
        seed: 7,
    }
}

fn news(instance: &str, state: State, epoch: u64) -> PeerNews {
    PeerNews {
        instance: instance.to_owned(),
        name: format!("tcp://{instance}"),
        state,
        epoch,
        beat: 0,
    }
}

/// One word or two for an action; heartbeats are left out.
fn word(action: &Action) -> Option<String> {
    Some(match action {
        Action::Connect { peer } => format!("connect {peer}"),
        Action::Drop(link) => format!("drop {}", link.0),
        Action::TryLock => "try".to_owned(),
        Action::Recover => "recover".to_owned(),
        Action::Engine(EngineMode::Refuse) => "refuse".to_owned(),
        Action::Engine(EngineMode::Hold) => "hold".to_owned(),
        Action::Engine(EngineMode::Serve) => "serve".to_owned(),
        Action::Beat { .. } => return None,
        Action::Log(event) => format!("*{}", event_word(event)),
        Action::VerifyOwnership => "verify".to_owned(),
        Action::StopEngine => "stop engine".to_owned(),
        Action::Exit { exit, .. } => format!("exit {}", exit.code()),
    })
}

fn event_word(event: &Event) -> &'static str {
    match event {
        Event::Starting => "starting",
        Event::Standby { .. } => "standby",
        Event::Activating { .. } => "activating",
        Event::Recovering => "recovering",
        Event::Active { .. } => "active",
        Event::LockRefused { .. } => "lock_refused",
        Event::PeerConnected { .. } => "peer_connected",
        Event::PeerLost { .. } => "peer_lost",
        Event::PeerBack { .. } => "peer_back",
        Event::DualActive { .. } => "dual_active",
        Event::Fenced { .. } => "fenced",
        Event::Stopping { .. } => "stopping",
    }
}

/// All pending actions in words, `, ` between them.
fn words(role: &mut Role) -> String {
    let mut list = Vec::new();
    while let Some(action) = role.poll_action() {
        list.extend(word(&action));
    }
    list.join(", ")
}
