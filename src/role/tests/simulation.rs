//! Several roles, one lock, an unreliable network and unreliable processes, all in virtual time.
//!
//! Faults come from proptest. Checked throughout: a server that says it owns the store holds the
//! lock, so there are never two; a free lock is taken within a second by a server that can. Checked
//! at the end, when all is healed: one active server, the others standing by.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{news, settings};
use crate::role::{Action, Exit, Input, LinkId, LockResult, PeerNews, RecoveryResult, Role, State};

const SERVERS: usize = 3;

#[derive(Clone, Debug)]
enum Fault {
    Kill(usize),
    Start(usize),
    Stop(usize),
    /// The process is frozen, its lock and connections stay.
    Pause(usize, u64),
    /// Nothing passes between two servers; connections stay and fall silent.
    Cut(usize, usize, u64),
    /// All connections between two servers are reset.
    Reset(usize, usize),
}

#[derive(Debug)]
enum Event {
    Input(Input),
    Fault(Fault),
    /// A connection attempt arrives.
    Arrive {
        from: usize,
        from_life: u64,
        peer: usize,
    },
    /// A heartbeat arrives.
    Beat {
        link: LinkId,
        told: Told,
    },
}

/// What a server said last.
#[derive(Clone, Copy, Debug)]
struct Told {
    state: State,
    epoch: u64,
    beat: u64,
}

impl Told {
    fn news(self, instance: &str) -> PeerNews {
        PeerNews {
            beat: self.beat,
            ..news(instance, self.state, self.epoch)
        }
    }
}

struct Server {
    role: Option<Role>,
    /// Counts processes: what was meant for an earlier one is dropped.
    life: u64,
    started_ms: u64,
    paused_until_ms: u64,
    told: Told,
}

struct Link {
    ends: [(usize, u64); 2],
}

struct World {
    now_ms: u64,
    sequence: u64,
    random: u64,
    events: BTreeMap<(u64, u64), (usize, u64, Event)>,
    servers: Vec<Server>,
    links: BTreeMap<LinkId, Link>,
    cuts: Vec<(usize, usize, u64)>,
    lock: Option<usize>,
    epoch: u64,
    free_since_ms: Option<u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let server = |_| Server {
            role: None,
            life: 0,
            started_ms: 0,
            paused_until_ms: 0,
            told: Told {
                state: State::Starting,
                epoch: 0,
                beat: 0,
            },
        };
        Self {
            now_ms: 0,
            sequence: 0,
            random: seed | 1,
            events: BTreeMap::new(),
            servers: (0..SERVERS).map(server).collect(),
            links: BTreeMap::new(),
            cuts: Vec::new(),
            lock: None,
            epoch: 0,
            free_since_ms: None,
        }
    }

    fn dice(&mut self, sides: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % sides
    }

    fn at(&mut self, at_ms: u64, server: usize, event: Event) {
        self.sequence += 1;
        let life = self.servers[server].life;
        self.events
            .insert((at_ms, self.sequence), (server, life, event));
    }

    fn soon(&mut self, server: usize, event: Event) {
        let at_ms = self.now_ms + 1 + self.dice(20);
        self.at(at_ms, server, event);
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        let joins = |x: usize, y: usize| (x, y) == (a, b) || (y, x) == (a, b);
        self.cuts
            .iter()
            .any(|(x, y, until)| joins(*x, *y) && *until > self.now_ms)
    }

    /// `ft_active` of each server: all the others.
    fn target(server: usize, peer: usize) -> usize {
        (0..SERVERS)
            .filter(|other| *other != server)
            .nth(peer)
            .expect("a peer of the world")
    }

    fn start(&mut self, server: usize) {
        if self.servers[server].role.is_some() {
            return;
        }
        let mut settings = settings(SERVERS - 1);
        settings.seed = self.dice(u64::MAX);
        let slot = &mut self.servers[server];
        slot.life += 1;
        slot.started_ms = self.now_ms;
        slot.paused_until_ms = 0;
        slot.role = Some(Role::new(settings, self.now_ms));
        self.perform(server);
    }

    fn end(&mut self, server: usize) {
        self.servers[server].role = None;
        if self.lock == Some(server) {
            self.lock = None;
        }
        let life = self.servers[server].life;
        let links: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.ends.contains(&(server, life)))
            .map(|(id, _)| *id)
            .collect();
        for link in links {
            self.close(link, Some(server));
        }
    }

    /// Closes a link; every end but `by` hears of it, unless the network is cut.
    fn close(&mut self, id: LinkId, by: Option<usize>) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        if self.is_cut(link.ends[0].0, link.ends[1].0) {
            return;
        }
        for (server, life) in link.ends {
            if Some(server) != by && self.servers[server].life == life {
                let reason = "reset".to_owned();
                self.soon(server, Event::Input(Input::LinkLost { link: id, reason }));
            }
        }
    }

    fn perform(&mut self, server: usize) {
        while let Some(action) = self.servers[server]
            .role
            .as_mut()
            .and_then(Role::poll_action)
        {
            match action {
                Action::Connect { peer } => self.connect(server, peer),
                Action::Drop(link) => self.close(link, Some(server)),
                Action::TryLock => {
                    let result = match self.lock {
                        None => {
                            self.lock = Some(server);
                            LockResult::Owned
                        }
                        Some(owner) => LockResult::Busy {
                            reason: format!("held by {owner}"),
                        },
                    };
                    self.soon(server, Event::Input(Input::Lock(result)));
                }
                Action::Recover => {
                    assert_eq!(self.lock, Some(server), "recovery without the lock");
                    self.epoch += 1;
                    let result = RecoveryResult::Ready { epoch: self.epoch };
                    let at_ms = self.now_ms + 5 + self.dice(300);
                    self.at(at_ms, server, Event::Input(Input::Recovery(result)));
                }
                Action::Beat { state, epoch } => self.beat(server, state, epoch),
                Action::StopEngine => {
                    let at_ms = self.now_ms + self.dice(500);
                    self.at(at_ms, server, Event::Input(Input::Stopped));
                }
                Action::Exit { exit, reason } => {
                    assert_eq!(exit, Exit::Done, "{reason}");
                    self.end(server);
                }
                Action::Engine(_) | Action::Log(_) | Action::VerifyOwnership => {}
            }
        }
    }

    fn connect(&mut self, from: usize, peer: usize) {
        let to = Self::target(from, peer);
        let from_life = self.servers[from].life;
        let failed = |reason: &str| Input::ConnectFailed {
            peer,
            reason: reason.to_owned(),
        };
        if self.is_cut(from, to) || self.servers[to].paused_until_ms > self.now_ms {
            self.at(self.now_ms + 3_000, from, Event::Input(failed("timed out")));
        } else if self.servers[to].role.is_none() {
            self.soon(from, Event::Input(failed("refused")));
        } else {
            self.soon(
                to,
                Event::Arrive {
                    from,
                    from_life,
                    peer,
                },
            );
        }
    }

    fn arrive(&mut self, from: usize, from_life: u64, to: usize, peer: usize) {
        if self.servers[from].life != from_life || self.servers[from].role.is_none() {
            return;
        }
        self.sequence += 1;
        let link = LinkId(self.sequence);
        let ends = [(from, from_life), (to, self.servers[to].life)];
        self.links.insert(link, Link { ends });
        for (me, other, outgoing) in [(from, to, Some(peer)), (to, from, None)] {
            let name = format!("{other}/{}", self.servers[other].life);
            let news = self.servers[other].told.news(&name);
            let input = Input::Connected {
                link,
                peer: outgoing,
                news,
            };
            self.at(self.now_ms, me, Event::Input(input));
        }
    }

    fn beat(&mut self, server: usize, state: State, epoch: u64) {
        let beat = self.servers[server].told.beat + 1;
        let told = Told { state, epoch, beat };
        self.servers[server].told = told;
        let life = self.servers[server].life;
        let mine: Vec<(LinkId, usize)> = self
            .links
            .iter()
            .filter(|(_, link)| link.ends.contains(&(server, life)))
            .map(|(id, link)| (*id, link.ends[usize::from(link.ends[0].0 == server)].0))
            .collect();
        for (link, to) in mine {
            if !self.is_cut(server, to) {
                self.soon(to, Event::Beat { link, told });
            }
        }
    }

    fn inflict(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(server) => {
                if self.servers[server].role.is_some() {
                    self.end(server);
                }
            }
            Fault::Start(server) => self.start(server),
            Fault::Stop(server) => {
                let reason = "asked".to_owned();
                self.at(self.now_ms, server, Event::Input(Input::Stop { reason }));
            }
            Fault::Pause(server, for_ms) => {
                let paused_until_ms = &mut self.servers[server].paused_until_ms;
                *paused_until_ms = (*paused_until_ms).max(self.now_ms + for_ms);
            }
            Fault::Cut(a, b, for_ms) => self.cuts.push((a, b, self.now_ms + for_ms)),
            Fault::Reset(a, b) => {
                let joins = |link: &Link| link.ends.iter().all(|(end, _)| *end == a || *end == b);
                let links: Vec<LinkId> = self
                    .links
                    .iter()
                    .filter(|(_, link)| joins(link))
                    .map(|(id, _)| *id)
                    .collect();
                for link in links {
                    self.close(link, None);
                }
            }
        }
    }

    fn deliver(&mut self, server: usize, life: u64, event: Event) {
        if let Event::Fault(fault) = event {
            return self.inflict(fault);
        }
        if self.servers[server].life != life || self.servers[server].role.is_none() {
            return;
        }
        if self.servers[server].paused_until_ms > self.now_ms {
            let at_ms = self.servers[server].paused_until_ms;
            return self.at(at_ms, server, event);
        }
        let input = match event {
            Event::Fault(_) => return,
            Event::Arrive {
                from,
                from_life,
                peer,
            } => {
                return self.arrive(from, from_life, server, peer);
            }
            Event::Beat { link, told } => {
                let Some(ends) = self.links.get(&link).map(|link| link.ends) else {
                    return;
                };
                let (other, other_life) = ends[usize::from(ends[0].0 == server)];
                let news = told.news(&format!("{other}/{other_life}"));
                Input::Heard { link, news }
            }
            Event::Input(input) => input,
        };
        let now_ms = self.now_ms;
        if let Some(role) = self.servers[server].role.as_mut() {
            role.handle(now_ms, input);
        }
        self.perform(server);
    }

    /// The earliest timer of a server that runs.
    fn timer(&self) -> Option<(u64, usize)> {
        let timers = self
            .servers
            .iter()
            .enumerate()
            .filter_map(|(index, server)| {
                let at_ms = server.role.as_ref()?.poll_timeout()?;
                Some((at_ms.max(server.paused_until_ms).max(self.now_ms), index))
            });
        timers.min()
    }

    fn run_until(&mut self, end_ms: u64) {
        loop {
            let timer = self.timer();
            let event = self
                .events
                .first_key_value()
                .map(|(key, _)| key.0.max(self.now_ms));
            let next_ms = event.into_iter().chain(timer.map(|timer| timer.0)).min();
            let Some(next_ms) = next_ms.filter(|next_ms| *next_ms <= end_ms) else {
                break;
            };
            self.now_ms = next_ms;
            if event == Some(next_ms) {
                let (_, (server, life, event)) = self.events.pop_first().expect("it was seen");
                self.deliver(server, life, event);
            } else if let Some((_, server)) = timer {
                self.deliver(server, self.servers[server].life, Event::Input(Input::Tick));
            }
            self.check();
        }
        self.now_ms = end_ms;
    }

    fn check(&mut self) {
        for (index, server) in self.servers.iter().enumerate() {
            let owns = server
                .role
                .as_ref()
                .is_some_and(|role| role.state().owns_store());
            assert!(
                !owns || self.lock == Some(index),
                "{index} says it owns what it does not"
            );
        }
        // A server is able while it runs, and is past the time that looking for peers may take.
        let able = |server: &Server| {
            let settled = self.now_ms >= server.started_ms + 3_100;
            let runs = server
                .role
                .as_ref()
                .is_some_and(|role| role.state() != State::Stopping);
            runs && settled && server.paused_until_ms + 100 <= self.now_ms
        };
        if self.lock.is_some() || !self.servers.iter().any(able) {
            self.free_since_ms = None;
            return;
        }
        let since_ms = *self.free_since_ms.get_or_insert(self.now_ms);
        assert!(
            self.now_ms - since_ms < 1_000,
            "the lock is free since {since_ms} ms"
        );
    }

    fn states(&self) -> Vec<Option<State>> {
        let state = |server: &Server| server.role.as_ref().map(Role::state);
        self.servers.iter().map(state).collect()
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    let server = || 0..SERVERS;
    prop_oneof![
        3 => server().prop_map(Fault::Kill),
        5 => server().prop_map(Fault::Start),
        1 => server().prop_map(Fault::Stop),
        2 => (server(), 1..20_000u64).prop_map(|(server, ms)| Fault::Pause(server, ms)),
        3 => (server(), server(), 1..30_000u64).prop_map(|(a, b, ms)| Fault::Cut(a, b, ms)),
        2 => (server(), server()).prop_map(|(a, b)| Fault::Reset(a, b)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn there_are_never_two_owners_and_a_free_lock_is_taken_within_a_second(
        seed in any::<u64>(),
        faults in prop::collection::vec((0..60_000u64, fault()), 0..40),
    ) {
        let mut world = World::new(seed);
        for server in 0..SERVERS {
            world.at(0, server, Event::Fault(Fault::Start(server)));
        }
        for (at_ms, fault) in faults {
            world.at(at_ms, 0, Event::Fault(fault));
        }
        world.run_until(60_000);
        for server in 0..SERVERS {
            world.at(95_000, server, Event::Fault(Fault::Start(server)));
        }
        world.run_until(120_000);
        let states = world.states();
        let count = |wanted| states.iter().filter(|state| **state == Some(wanted)).count();
        prop_assert_eq!(count(State::Active), 1, "{:?}", states);
        prop_assert_eq!(count(State::Standby), SERVERS - 1, "{:?}", states);
    }

    #[test]
    fn servers_started_at_once_have_exactly_one_active_within_a_second(seed in any::<u64>()) {
        let mut world = World::new(seed);
        for server in 0..SERVERS {
            let at_ms = world.dice(10);
            world.at(at_ms, server, Event::Fault(Fault::Start(server)));
        }
        world.run_until(1_000);
        let states = world.states();
        let active = states.iter().filter(|state| **state == Some(State::Active)).count();
        prop_assert_eq!(active, 1, "{:?}", states);
    }

    #[test]
    fn a_killed_active_is_followed_within_a_second_and_stands_by_when_it_returns(
        seed in any::<u64>(),
    ) {
        let mut world = World::new(seed);
        for server in 0..SERVERS {
            world.start(server);
        }
        world.run_until(5_000);
        let first = world.lock.expect("a server is active");
        world.inflict(Fault::Kill(first));
        world.run_until(6_000);
        let second = world.lock.expect("another server is active");
        prop_assert_eq!(world.states()[second], Some(State::Active));
        world.start(first);
        world.run_until(10_000);
        prop_assert_eq!(world.states()[first], Some(State::Standby));
        prop_assert_eq!(world.lock, Some(second), "nothing fails back");
    }
}
