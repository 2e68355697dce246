//! Who is in sight: outgoing connections, links, and the peers behind them.
//!
//! A pair has two links, one opened by each side; a peer is in sight while it has any.

use std::collections::{BTreeMap, BTreeSet};

use super::types::{LinkId, PeerNews};

/// State of the connection to one `ft_active` peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outgoing {
    Due { at_ms: u64 },
    Connecting,
    Up(LinkId),
}

struct Peer {
    news: PeerNews,
    links: BTreeSet<LinkId>,
    heard_ms: u64,
    /// The epoch of its last claim to be active that was reported.
    reported_claim: Option<u64>,
}

impl Peer {
    /// Takes news unless a newer message came by another link; tells whether it was taken.
    fn update(&mut self, news: PeerNews) -> bool {
        let is_newer = news.beat >= self.news.beat;
        if is_newer {
            self.news = news;
        }
        is_newer
    }
}

/// How a peer came into sight.
pub(super) enum Arrival {
    /// It has another link already; what it said before, and whether this is newer.
    Known(PeerNews, bool),
    /// No peer was lost before.
    First,
    /// A peer had been lost.
    Back,
}

/// A link is gone.
pub(super) struct Departure {
    /// The peer as it was last known.
    pub(super) news: PeerNews,
    /// Whether the peer has no link any more.
    pub(super) last: bool,
}

pub(super) struct Peers {
    outgoing: Vec<Outgoing>,
    answered: Vec<bool>,
    links: BTreeMap<LinkId, String>,
    peers: BTreeMap<String, Peer>,
    lost: usize,
}

impl Peers {
    pub(super) fn new(count: usize, now_ms: u64) -> Self {
        Self {
            outgoing: vec![Outgoing::Due { at_ms: now_ms }; count],
            answered: vec![false; count],
            links: BTreeMap::new(),
            peers: BTreeMap::new(),
            lost: 0,
        }
    }

    /// Whether each `ft_active` peer answered, or could not be reached, at least once.
    pub(super) fn all_answered(&self) -> bool {
        self.answered.iter().all(|answered| *answered)
    }

    /// A peer that says it owns the store.
    pub(super) fn owner(&self) -> Option<&PeerNews> {
        let owner = self
            .peers
            .values()
            .find(|peer| peer.news.state.owns_store());
        owner.map(|peer| &peer.news)
    }

    pub(super) fn connected(
        &mut self,
        now_ms: u64,
        link: LinkId,
        outgoing: Option<usize>,
        news: PeerNews,
    ) -> Arrival {
        if let Some(index) = outgoing {
            self.set_outgoing(index, Outgoing::Up(link));
            self.set_answered(index);
        }
        self.links.insert(link, news.instance.clone());
        if let Some(peer) = self.peers.get_mut(&news.instance) {
            peer.links.insert(link);
            peer.heard_ms = now_ms;
            let before = peer.news.clone();
            let is_newer = peer.update(news);
            return Arrival::Known(before, is_newer);
        }
        let peer = Peer {
            links: BTreeSet::from([link]),
            heard_ms: now_ms,
            reported_claim: None,
            news,
        };
        self.peers.insert(peer.news.instance.clone(), peer);
        if self.lost == 0 {
            return Arrival::First;
        }
        self.lost -= 1;
        Arrival::Back
    }

    /// Notes a message; returns what the peer said before and whether this is newer. `None` for an
    /// unknown link or an identity that changed (the caller drops such a link).
    pub(super) fn heard(
        &mut self,
        now_ms: u64,
        link: LinkId,
        news: PeerNews,
    ) -> Option<(PeerNews, bool)> {
        let instance = self.links.get(&link)?;
        if *instance != news.instance {
            return None;
        }
        let peer = self.peers.get_mut(instance)?;
        peer.heard_ms = now_ms;
        let before = peer.news.clone();
        Some((before, peer.update(news)))
    }

    /// Whether this claim to be active was not reported yet; it counts as reported afterwards.
    pub(super) fn is_new_claim(&mut self, instance: &str, epoch: u64) -> bool {
        let Some(peer) = self.peers.get_mut(instance) else {
            return false;
        };
        peer.reported_claim.replace(epoch) != Some(epoch)
    }

    pub(super) fn link_lost(&mut self, link: LinkId, retry_at_ms: u64) -> Option<Departure> {
        for outgoing in &mut self.outgoing {
            if *outgoing == Outgoing::Up(link) {
                *outgoing = Outgoing::Due { at_ms: retry_at_ms };
            }
        }
        let instance = self.links.remove(&link)?;
        let peer = self.peers.get_mut(&instance)?;
        peer.links.remove(&link);
        let departure = Departure {
            news: peer.news.clone(),
            last: peer.links.is_empty(),
        };
        if departure.last {
            self.peers.remove(&instance);
            self.lost += 1;
        }
        Some(departure)
    }

    pub(super) fn connect_failed(&mut self, index: usize, retry_at_ms: u64) {
        self.set_answered(index);
        if self.outgoing.get(index) == Some(&Outgoing::Connecting) {
            self.set_outgoing(index, Outgoing::Due { at_ms: retry_at_ms });
        }
    }

    /// Links of peers that were silent for `activation_ms`.
    pub(super) fn silent(&self, now_ms: u64, activation_ms: u64) -> Vec<LinkId> {
        let silent = |peer: &&Peer| now_ms.saturating_sub(peer.heard_ms) >= activation_ms;
        self.peers
            .values()
            .filter(silent)
            .flat_map(|peer| peer.links.iter().copied())
            .collect()
    }

    /// The next peer to connect to, which counts as being connected to from now on.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Option<usize> {
        let is_due =
            |outgoing: &Outgoing| matches!(outgoing, Outgoing::Due { at_ms } if *at_ms <= now_ms);
        let index = self.outgoing.iter().position(is_due)?;
        self.set_outgoing(index, Outgoing::Connecting);
        Some(index)
    }

    /// When something here is due next.
    pub(super) fn next_deadline(&self, activation_ms: u64) -> Option<u64> {
        let connects = self.outgoing.iter().filter_map(|outgoing| match outgoing {
            Outgoing::Due { at_ms } => Some(*at_ms),
            Outgoing::Connecting | Outgoing::Up(_) => None,
        });
        let silences = self
            .peers
            .values()
            .map(|peer| peer.heard_ms.saturating_add(activation_ms));
        connects.chain(silences).min()
    }

    fn set_outgoing(&mut self, index: usize, value: Outgoing) {
        if let Some(outgoing) = self.outgoing.get_mut(index) {
            *outgoing = value;
        }
    }

    fn set_answered(&mut self, index: usize) {
        if let Some(answered) = self.answered.get_mut(index) {
            *answered = true;
        }
    }
}
