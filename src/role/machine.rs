//! The transitions.

use std::collections::VecDeque;

use super::peers::{Arrival, Peers};
use super::types::{
    Action, EngineMode, Event, Exit, Failure, FailureKind, Input, LinkId, LockResult, PeerNews,
    RecoveryResult, Settings, State,
};

/// How long a refused lock is tried for in quick succession before the server stands by: a process
/// that ends may close its connections some milliseconds before its locks.
const GRACE_MS: u64 = 250;
/// Time between two tries during that period.
const FAST_POLL_MS: u64 = 10;
/// Longest pause before the next attempt to reach a peer.
const RECONNECT_MS: u64 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    Idle,
    /// An answer is outstanding. `again`: something happened that the answer may not know yet.
    Trying {
        again: bool,
    },
    Owned,
}

/// The role of one server. See the [module](super) for the rules.
pub struct Role {
    settings: Settings,
    state: State,
    epoch: u64,
    peers: Peers,
    lock: Lock,
    /// Whether this server stood by at least once; then trouble with the lock no longer ends it.
    stood_by: bool,
    failure_logged: bool,
    /// Why the last attempt to reach a peer failed.
    connect_failure: Option<String>,
    poll_at_ms: Option<u64>,
    grace_until_ms: u64,
    start_until_ms: u64,
    beat_at_ms: u64,
    random: u64,
    actions: VecDeque<Action>,
    ended: bool,
}

impl Role {
    /// A server that starts now. Its first actions are ready at once.
    #[must_use]
    pub fn new(settings: Settings, now_ms: u64) -> Self {
        let mut role = Self {
            state: State::Starting,
            epoch: 0,
            peers: Peers::new(settings.peers, now_ms),
            lock: Lock::Idle,
            stood_by: false,
            failure_logged: false,
            connect_failure: None,
            poll_at_ms: None,
            grace_until_ms: 0,
            start_until_ms: now_ms.saturating_add(settings.heartbeat_ms),
            beat_at_ms: now_ms.saturating_add(settings.heartbeat_ms),
            random: settings.seed,
            actions: VecDeque::new(),
            ended: false,
            settings,
        };
        role.push(Action::Log(Event::Starting));
        role.push(Action::Engine(EngineMode::Hold));
        role.beat();
        role.decide_start(now_ms);
        role.run_timers(now_ms);
        role
    }

    /// The present state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The epoch that this server owns or last owned; 0 if none.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The next thing to do, in order; `None` when all is done.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to pass the next [`Input::Tick`] if nothing else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        if self.ended {
            return None;
        }
        let start = (self.state == State::Starting).then_some(self.start_until_ms);
        let timers = [Some(self.beat_at_ms), self.poll_at_ms, start];
        let own = timers.into_iter().flatten().min();
        own.into_iter()
            .chain(self.peers.next_deadline(self.settings.activation_ms))
            .min()
    }

    /// Takes in what happened at `now_ms`, a monotonic time in milliseconds.
    pub fn handle(&mut self, now_ms: u64, input: Input) {
        if self.ended {
            return;
        }
        match input {
            Input::Tick => {}
            Input::Connected { link, peer, news } => self.connected(now_ms, link, peer, news),
            Input::Heard { link, news } => self.heard(now_ms, link, news),
            Input::LinkLost { link, reason } => self.link_lost(now_ms, link, &reason),
            Input::ConnectFailed { peer, reason } => {
                self.peers.connect_failed(peer, self.reconnect_at(now_ms));
                self.connect_failure = Some(reason);
            }
            Input::Lock(result) => self.lock_answered(now_ms, result),
            Input::Recovery(result) => self.recovered(now_ms, result),
            Input::StoreFailed { reason } => self.store_failed(reason),
            Input::Stop { reason } => self.stop(reason),
            Input::Stopped => self.stopped(),
        }
        self.decide_start(now_ms);
        self.run_timers(now_ms);
    }

    // Peers

    fn connected(&mut self, now_ms: u64, link: LinkId, peer: Option<usize>, news: PeerNews) {
        let arrival = self.peers.connected(now_ms, link, peer, news.clone());
        let (name, state) = (news.name.clone(), news.state);
        match arrival {
            Arrival::Known(before, is_newer) => {
                return self.learned(now_ms, &before, &news, is_newer);
            }
            Arrival::First => self.log(Event::PeerConnected { peer: name, state }),
            Arrival::Back => self.log(Event::PeerBack { peer: name, state }),
        }
        self.weigh(now_ms, &news);
    }

    fn heard(&mut self, now_ms: u64, link: LinkId, news: PeerNews) {
        match self.peers.heard(now_ms, link, news.clone()) {
            Some((before, is_newer)) => self.learned(now_ms, &before, &news, is_newer),
            None => {
                self.push(Action::Drop(link));
                self.link_lost(now_ms, link, "the peer changed its identity");
            }
        }
    }

    fn learned(&mut self, now_ms: u64, before: &PeerNews, news: &PeerNews, is_newer: bool) {
        if !is_newer {
            return;
        }
        if before.state.owns_store() && !news.state.owns_store() && self.state == State::Standby {
            self.activate(now_ms, format!("{} is {}", news.name, news.state));
            // Sealing a store and closing its connections takes longer than dying.
            self.grace_until_ms = now_ms.saturating_add(self.settings.heartbeat_ms.max(GRACE_MS));
        }
        self.weigh(now_ms, news);
    }

    /// What a peer's claim means for us.
    fn weigh(&mut self, now_ms: u64, news: &PeerNews) {
        if !news.state.owns_store() {
            return;
        }
        match self.state {
            // With a try outstanding, its answer decides.
            State::Activating if self.lock == Lock::Idle => self.stand_by_for_owner(now_ms),
            State::Active
                if news.state == State::Active
                    && self.peers.is_new_claim(&news.instance, news.epoch) =>
            {
                self.log(Event::DualActive {
                    peer: news.name.clone(),
                    peer_epoch: news.epoch,
                    epoch: self.epoch,
                });
                // A claim is only a hint: the store decides who owns it.
                self.push(Action::VerifyOwnership);
            }
            _ => {}
        }
    }

    fn link_lost(&mut self, now_ms: u64, link: LinkId, reason: &str) {
        let retry_at_ms = self.reconnect_at(now_ms);
        let Some(departure) = self.peers.link_lost(link, retry_at_ms) else {
            return;
        };
        let peer = departure.news;
        if departure.last {
            self.log(Event::PeerLost {
                peer: peer.name.clone(),
                state: peer.state,
                reason: reason.to_owned(),
            });
        }
        match self.state {
            State::Standby if departure.last && peer.state.owns_store() => {
                self.activate(now_ms, format!("{} was lost: {reason}", peer.name));
            }
            State::Standby => self.try_lock(),
            State::Activating => {
                self.grace_until_ms = self.grace_until_ms.max(now_ms.saturating_add(GRACE_MS));
                self.try_lock();
            }
            _ => {}
        }
    }

    fn decide_start(&mut self, now_ms: u64) {
        if self.state != State::Starting {
            return;
        }
        if self.settings.peers == 0 {
            self.activate(now_ms, "this server stands alone".to_owned());
        } else if self.peers.owner().is_some() {
            self.stand_by_for_owner(now_ms);
        } else if self.peers.all_answered() || now_ms >= self.start_until_ms {
            let why = self.connect_failure.take().map(|why| format!(" ({why})"));
            self.activate(
                now_ms,
                format!("no peer is active{}", why.unwrap_or_default()),
            );
        }
    }

    // The lock

    fn try_lock(&mut self) {
        self.poll_at_ms = None;
        match self.lock {
            Lock::Idle => {
                self.lock = Lock::Trying { again: false };
                self.push(Action::TryLock);
            }
            Lock::Trying { .. } => self.lock = Lock::Trying { again: true },
            Lock::Owned => {}
        }
    }

    fn lock_answered(&mut self, now_ms: u64, result: LockResult) {
        let again = self.lock == Lock::Trying { again: true };
        self.lock = Lock::Idle;
        if !matches!(self.state, State::Activating | State::Standby) {
            return;
        }
        let reason = match result {
            LockResult::Owned => return self.recover(),
            LockResult::Busy { reason } => {
                self.failure_logged = false;
                reason
            }
            LockResult::Failed(failure) => {
                if !self.stood_by || failure.kind != FailureKind::Io {
                    return self.exit(failure.exit(), failure.reason);
                }
                if !std::mem::replace(&mut self.failure_logged, true) {
                    self.log(Event::LockRefused {
                        reason: failure.reason.clone(),
                    });
                }
                failure.reason
            }
        };
        if again {
            self.try_lock();
        } else if self.state == State::Standby {
            self.poll_later(now_ms);
        } else {
            self.refused(now_ms, reason);
        }
    }

    /// The lock was refused while activating.
    fn refused(&mut self, now_ms: u64, reason: String) {
        if self.settings.peers > 0 && self.peers.owner().is_some() {
            self.stand_by_for_owner(now_ms);
        } else if now_ms < self.grace_until_ms {
            self.poll_at_ms = Some(now_ms.saturating_add(self.jitter(FAST_POLL_MS)));
        } else {
            self.give_way(now_ms, reason);
        }
    }

    /// The store belongs to somebody else, and nobody in sight says so.
    fn give_way(&mut self, now_ms: u64, reason: String) {
        if self.settings.peers == 0 {
            return self.exit(Exit::NotOwner, reason);
        }
        if !self.failure_logged {
            self.log(Event::LockRefused {
                reason: reason.clone(),
            });
        }
        self.stand_by(now_ms, reason);
    }

    fn poll_later(&mut self, now_ms: u64) {
        self.poll_at_ms = Some(now_ms.saturating_add(self.jitter(self.settings.lock_poll_ms)));
    }

    // Changes of state

    fn stand_by_for_owner(&mut self, now_ms: u64) {
        let Some(owner) = self.peers.owner() else {
            return;
        };
        let reason = format!("{} is {}", owner.name, owner.state);
        // A standalone server tries on: it has no partner to stand by for.
        if self.settings.peers > 0 {
            self.stand_by(now_ms, reason);
        }
    }

    fn stand_by(&mut self, now_ms: u64, reason: String) {
        self.stood_by = true;
        self.enter(State::Standby, Event::Standby { reason });
        self.push(Action::Engine(EngineMode::Refuse));
        self.poll_later(now_ms);
    }

    fn activate(&mut self, now_ms: u64, reason: String) {
        self.enter(State::Activating, Event::Activating { reason });
        self.push(Action::Engine(EngineMode::Hold));
        self.grace_until_ms = now_ms.saturating_add(GRACE_MS);
        self.try_lock();
    }

    fn recover(&mut self) {
        self.lock = Lock::Owned;
        if self.state == State::Standby {
            let reason = "the store is free".to_owned();
            self.enter(State::Activating, Event::Activating { reason });
            self.push(Action::Engine(EngineMode::Hold));
        }
        // The work first: log lines and heartbeats can wait some microseconds.
        self.push(Action::Recover);
        self.enter(State::Recovering, Event::Recovering);
    }

    fn recovered(&mut self, now_ms: u64, result: RecoveryResult) {
        if self.state != State::Recovering {
            return;
        }
        match result {
            RecoveryResult::Ready { epoch } => {
                self.epoch = epoch;
                self.push(Action::Engine(EngineMode::Serve));
                self.enter(State::Active, Event::Active { epoch });
            }
            RecoveryResult::Busy { reason } => {
                self.lock = Lock::Idle;
                self.give_way(now_ms, reason);
            }
            // A full disk or a hanging mount may be well at the next try.
            RecoveryResult::Failed(failure) if self.stood_by && failure.kind == FailureKind::Io => {
                self.lock = Lock::Idle;
                self.give_way(now_ms, failure.reason);
                let pause_ms = self.settings.heartbeat_ms.max(RECONNECT_MS);
                self.poll_at_ms = Some(now_ms.saturating_add(self.jitter(pause_ms)));
            }
            RecoveryResult::Failed(Failure { kind, reason }) => {
                let failure = Failure { kind, reason };
                self.exit(failure.exit(), failure.reason);
            }
        }
    }

    fn store_failed(&mut self, reason: String) {
        self.enter(
            State::Fenced,
            Event::Fenced {
                reason: reason.clone(),
            },
        );
        self.exit(Exit::Fenced, reason);
    }

    fn stop(&mut self, reason: String) {
        if self.state != State::Stopping {
            self.poll_at_ms = None;
            self.enter(State::Stopping, Event::Stopping { reason });
            self.push(Action::StopEngine);
        }
    }

    fn stopped(&mut self) {
        if self.state == State::Stopping {
            self.exit(Exit::Done, String::new());
        }
    }

    fn exit(&mut self, exit: Exit, reason: String) {
        self.ended = true;
        self.push(Action::Exit { exit, reason });
    }

    fn enter(&mut self, state: State, event: Event) {
        self.state = state;
        self.poll_at_ms = None;
        self.log(event);
        self.beat();
    }

    // Time

    fn run_timers(&mut self, now_ms: u64) {
        let activation_ms = self.settings.activation_ms;
        for link in self.peers.silent(now_ms, activation_ms) {
            self.push(Action::Drop(link));
            self.link_lost(
                now_ms,
                link,
                &format!("no heartbeat for {activation_ms} ms"),
            );
        }
        while let Some(peer) = self.peers.take_due(now_ms) {
            self.push(Action::Connect { peer });
        }
        if self.poll_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.try_lock();
        }
        if self.beat_at_ms <= now_ms {
            self.beat();
            self.beat_at_ms = now_ms.saturating_add(self.settings.heartbeat_ms);
        }
    }

    fn reconnect_at(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add(self.settings.heartbeat_ms.min(RECONNECT_MS))
    }

    fn beat(&mut self) {
        self.push(Action::Beat {
            state: self.state,
            epoch: self.epoch,
        });
    }

    fn log(&mut self, event: Event) {
        self.push(Action::Log(event));
    }

    fn push(&mut self, action: Action) {
        if !self.ended || matches!(action, Action::Exit { .. }) {
            self.actions.push_back(action);
        }
    }

    /// `value_ms` with a quarter more or less (splitmix64), so that standbys do not fall in step.
    fn jitter(&mut self, value_ms: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        value_ms
            .saturating_mul(75 + mixed % 51)
            .div_ceil(100)
            .max(1)
    }
}
