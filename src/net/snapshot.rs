//! What the monitor shows, gathered from the role, the peers, the engine and the last recovery.

use std::collections::BTreeMap;
use std::time::Instant;

use steadfast_storage::{RecoveryReport, WarmUse};

use super::clock;
use super::engine::EngineStatus;
use super::peer::Relation;
use super::recovering::Board;
use crate::monitor::{self, Clients, Peer, PeerTrouble, Recovery, Status, Store};
use crate::role::{LinkId, PeerNews, State};

/// What does not change while the process runs.
pub(crate) struct Identity {
    pub(crate) server: String,
    pub(crate) instance: String,
    pub(crate) listens: Vec<String>,
    pub(crate) started: Instant,
}

/// What is known of a peer by one link.
pub(crate) struct PeerView {
    /// Its `server` parameter.
    server: String,
    pub(crate) relation: Relation,
    pub(crate) news: PeerNews,
    listens: Vec<String>,
    /// `None` before the configurations were compared.
    differences: Option<Vec<String>>,
}

impl PeerView {
    pub(crate) fn new(
        server: String,
        relation: Relation,
        news: PeerNews,
        listens: Vec<String>,
    ) -> Self {
        Self {
            server,
            relation,
            news,
            listens,
            differences: None,
        }
    }
}

/// What keeps the other server of the pair out of sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// There was a link.
    Lost,
    /// One of the two servers refuses the other.
    Refused,
    /// It does not answer.
    NotReached,
}

impl Trouble {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Refused => "refused",
            Self::NotReached => "not reached",
        }
    }
}

/// Trouble with a peer.
struct Troubled {
    what: Trouble,
    peer: String,
    reason: String,
    /// Since when it is this kind of trouble.
    since: Instant,
}

/// Peers by link, as last heard.
#[derive(Default)]
pub(crate) struct PeerViews {
    links: BTreeMap<LinkId, PeerView>,
    /// Counts while no link leads to the other server of the pair.
    trouble: Option<Troubled>,
}

impl PeerViews {
    pub(crate) fn add(&mut self, link: LinkId, view: PeerView) {
        if view.relation == Relation::Pair {
            self.trouble = None;
        }
        self.links.insert(link, view);
    }

    /// Notes why the other server of the pair is not in sight. That a lost one cannot be reached says less than how it
    /// was lost.
    pub(crate) fn trouble(&mut self, what: Trouble, peer: &str, reason: &str) {
        let known = self.trouble.as_ref();
        if known.is_some_and(|it| it.what == Trouble::Lost && what == Trouble::NotReached) {
            return;
        }
        let same = known.filter(|known| known.what == what);
        let since = same.map_or_else(Instant::now, |known| known.since);
        // Links of one that is lost go a moment later.
        if what == Trouble::Lost || !self.has_pair() {
            self.trouble = Some(Troubled {
                what,
                peer: peer.to_owned(),
                reason: reason.to_owned(),
                since,
            });
        }
    }

    fn peer_trouble(&self) -> Option<PeerTrouble> {
        let trouble = self.trouble.as_ref().filter(|_| !self.has_pair())?;
        Some(PeerTrouble {
            peer: trouble.peer.clone(),
            what: trouble.what.as_str(),
            reason: trouble.reason.clone(),
            for_ms: elapsed_ms(trouble.since),
        })
    }

    /// What the peer is to this server; `None` for a link that is gone.
    pub(crate) fn heard(
        &mut self,
        link: LinkId,
        news: PeerNews,
        listens: Vec<String>,
    ) -> Option<Relation> {
        let view = self.links.get_mut(&link)?;
        (view.news, view.listens) = (news, listens);
        Some(view.relation)
    }

    /// Notes what differs; returns the peer's name and where it listens.
    pub(crate) fn compared(&mut self, link: LinkId, found: &[String]) -> Option<(String, String)> {
        let view = self.links.get_mut(&link)?;
        view.differences = Some(found.to_vec());
        let name = view.news.name.clone();
        let place = view.listens.first().unwrap_or(&name).clone();
        Some((name, place))
    }

    /// Where the peer of a link listens, or its name.
    pub(crate) fn place(&self, link: LinkId) -> Option<&str> {
        let view = self.links.get(&link)?;
        Some(view.listens.first().unwrap_or(&view.news.name))
    }

    pub(crate) fn remove(&mut self, link: LinkId) -> Option<PeerView> {
        self.links.remove(&link)
    }

    /// A peer that says it owns the store.
    pub(crate) fn owner(&self) -> Option<&PeerNews> {
        let mut views = self.links.values();
        let owner =
            views.find(|view| view.relation == Relation::Pair && view.news.state.owns_store());
        owner.map(|view| &view.news)
    }

    /// Whether there is a link to the other server of a pair.
    pub(crate) fn has_pair(&self) -> bool {
        let mut views = self.links.values();
        views.any(|view| view.relation == Relation::Pair)
    }

    /// One entry a peer of this kind, the one that owns the store first.
    fn list(&self, relation: Relation) -> Vec<Peer> {
        let mut peers: BTreeMap<&str, Peer> = BTreeMap::new();
        for view in self.links.values() {
            if view.relation != relation {
                continue;
            }
            let news = &view.news;
            let known = peers.remove(news.instance.as_str());
            let differences = known.and_then(|known| known.differences);
            let peer = Peer {
                name: news.name.clone(),
                server: view.server.clone(),
                role: news.state.as_str(),
                epoch: news.epoch,
                instance: news.instance.clone(),
                listens: view.listens.clone(),
                // Both links lead to the same, as soon as both have compared.
                differences: view.differences.clone().or(differences),
            };
            peers.insert(&news.instance, peer);
        }
        let mut list: Vec<Peer> = peers.into_values().collect();
        let owns = |peer: &Peer| State::from_word(peer.role).is_some_and(State::owns_store);
        list.sort_by_key(|peer| !owns(peer));
        list
    }
}

/// What happened to the store in this process.
#[derive(Default)]
pub(crate) struct RecoveryView {
    pub(crate) report: Option<RecoveryReport>,
    pub(crate) lock_to_ready_ms: Option<f64>,
}

/// Everything that [`status`] puts together.
pub(crate) struct Sources<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) state: State,
    pub(crate) state_since: Instant,
    pub(crate) epoch: u64,
    pub(crate) peers: &'a PeerViews,
    pub(crate) recovery: &'a RecoveryView,
    pub(crate) board: &'a Board,
    pub(crate) engine: &'a EngineStatus,
}

/// The document of `/state`.
pub(crate) fn status(sources: &Sources<'_>) -> Status {
    let identity = sources.identity;
    let peers = sources.peers.list(Relation::Pair);
    Status {
        server: identity.server.clone(),
        version: env!("CARGO_PKG_VERSION"),
        process_id: std::process::id(),
        instance: identity.instance.clone(),
        role: sources.state.as_str(),
        epoch: sources.epoch,
        uptime_ms: elapsed_ms(identity.started),
        role_ms: elapsed_ms(sources.state_since),
        listens: identity.listens.clone(),
        peer: peers.first().cloned(),
        peer_trouble: sources.peers.peer_trouble(),
        peers,
        unshared_peers: sources.peers.list(Relation::Unshared),
        recovery: recovery(sources.recovery, sources.board),
        warm_standby: sources.board.standby(),
        reconnect: reconnect(sources.engine),
        store: store(sources.engine),
        clients: clients(sources.engine),
        rates: monitor::Rates::default(),
    }
}

fn recovery(view: &RecoveryView, board: &Board) -> Recovery {
    let mut recovery = Recovery {
        lock_to_ready_ms: view.lock_to_ready_ms,
        progress: board.progress(),
        ..Recovery::default()
    };
    if let Some(report) = &view.report {
        recovery.tail_bytes = report.tail_bytes;
        recovery.messages = report.messages;
        recovery.bytes = report.bytes;
        recovery.rebuilt = report.rebuilt.is_some();
        recovery.warm = report.warm.as_str();
        let phases = report.phases_us;
        recovery.phases_ms = [
            phases.locking_ms,
            phases.checkpoint_ms,
            phases.tail_ms,
            phases.sealing_ms,
        ];
        if let WarmUse::Refused(why) = &report.warm {
            recovery.warm_refused = Some(why.clone());
        }
    }
    recovery
}

fn store(engine: &EngineStatus) -> Option<Store> {
    let store = engine.store.as_ref()?;
    Some(Store {
        epoch: store.epoch,
        segments: store.segments,
        messages: store.messages,
        bytes: store.bytes,
        tail_bytes: store.tail_bytes,
        checkpoint_bytes: store.checkpoint_bytes,
        last_lsn: store.last_lsn,
        durable_lsn: store.durable_lsn,
        batches: store.batches,
        batch_bytes: store.batch_bytes,
        message_bytes: store.message_bytes,
        checkpoints: store.checkpoints,
        checkpoint_failures: store.checkpoint_failures,
        quarantined: store.quarantined,
        damaged_copies: store.damaged_copies,
        unreadable: engine.node.as_ref().map_or(0, |node| node.unreadable),
        full: store.full,
        free_bytes: Some(store.free_bytes).filter(|bytes| *bytes != u64::MAX),
    })
}

fn reconnect(engine: &EngineStatus) -> monitor::Reconnect {
    let Some(node) = &engine.node else {
        return monitor::Reconnect::default();
    };
    let now_ms = clock::now().monotonic_ms;
    let left_ms = |at_ms: u64| at_ms.saturating_sub(now_ms);
    monitor::Reconnect {
        expected: node.reconnect.expected,
        returned: node.reconnect.returned,
        expired: node.reconnect.expired,
        kept: node.reconnect.kept,
        deadline_ms: node.reconnect.deadline_at_ms.map(left_ms),
    }
}

fn clients(engine: &EngineStatus) -> Clients {
    Clients {
        connections: engine.connections,
        links: engine.links,
        queues: engine.queues,
        subscriptions: engine.subscriptions,
        skipped: engine.skipped,
        discarded: engine.discarded,
        messages_in: engine.messages_in,
        messages_out: engine.messages_out,
        redelivered: engine.redelivered,
        refused_logins: engine.refused_logins,
    }
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(peers: &PeerViews) -> Option<(&'static str, String)> {
        let trouble = peers.peer_trouble();
        trouble.map(|it| (it.what, it.reason))
    }

    #[test]
    fn the_trouble_that_says_most_is_told_until_the_peer_is_in_sight() {
        let mut peers = PeerViews::default();
        assert_eq!(told(&peers), None);
        peers.trouble(Trouble::NotReached, "url", "refused by the system");
        assert_eq!(told(&peers).map(|it| it.0), Some("not reached"));
        peers.trouble(Trouble::Refused, "url", "no such user");
        assert_eq!(told(&peers), Some(("refused", "no such user".to_owned())));
        let since = peers.trouble.as_ref().map(|it| it.since);
        peers.trouble(Trouble::Refused, "url", "wrong password");
        assert_eq!(told(&peers), Some(("refused", "wrong password".to_owned())));
        assert_eq!(peers.trouble.as_ref().map(|it| it.since), since);
        let news = PeerNews {
            name: "b".to_owned(),
            instance: "1".to_owned(),
            state: State::Standby,
            epoch: 0,
            beat: 1,
        };
        let view = |relation| PeerView::new("b".to_owned(), relation, news.clone(), Vec::new());
        peers.add(LinkId(1), view(Relation::Unshared));
        assert_eq!(told(&peers).map(|it| it.0), Some("refused"));
        peers.add(LinkId(2), view(Relation::Pair));
        assert_eq!(told(&peers), None);
        // The link in the other direction.
        peers.trouble(Trouble::Refused, "url", "no such user");
        assert_eq!(told(&peers), None);
        peers.remove(LinkId(2));
        peers.trouble(Trouble::Lost, "b", "it was silent");
        peers.trouble(Trouble::NotReached, "url", "refused by the system");
        assert_eq!(told(&peers), Some(("lost", "it was silent".to_owned())));
    }
}
