//! A fresh server on a copy of the world, and what clients get from it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::BytesMut;
use steadfast::broker;
use steadfast::node::{ConnectionId, Node, NodeSettings, Now};
use steadfast::proto::{
    AttachRequest, ClientSasl, Connection, Event, LinkId, Outcome, Settings, Target,
};
use steadfast_storage::disk::{Disk, SimDisk, SimWorld};
use steadfast_storage::{Acquire, Store, StoreOptions, try_acquire};

use super::oracle::Got;
use super::places::{Place, Places, container_of, queue_name};
use super::rows;
use super::sim::{self, Mutant, QUEUES};

/// Rounds in which nothing comes before there is nothing more.
const QUIET_ROUNDS: u32 = 3;
/// Rounds at most.
const ROUNDS_MAX: u32 = 10_000;
/// How often time passes because messages are kept for somebody.
const WAITS_MAX: u32 = 3;
/// See `node/clients.rs`; and a bit.
const LINKS_MS: u64 = 5_500;

pub(super) fn node_settings(random: &mut fastrand::Rng) -> NodeSettings {
    let limits = if random.bool() {
        broker::Limits {
            window_messages: 6,
            read_messages: 4,
            returned: 5,
            ..broker::Limits::default()
        }
    } else {
        broker::Limits::default()
    };
    NodeSettings {
        publisher_credit: random.u32(4..60),
        idle_timeout_ms: random.u32(1_500..6_000),
        reconnect_timeout_ms: [0, 1_500, 5_000, 60_000][random.usize(..4)],
        limits,
        ..NodeSettings::default()
    }
}

/// A client of the fresh server.
struct Guest {
    id: ConnectionId,
    proto: Connection,
    links: Vec<(LinkId, Place)>,
    /// Those to temporary destinations, which may go before the guest gets there.
    temporary: Vec<LinkId>,
    input: BytesMut,
    answer: BytesMut,
}

struct Fresh {
    disk: SimDisk,
    node: Node,
    guests: Vec<Guest>,
    found: Vec<Got>,
    /// The time to reconnect is over.
    is_late: bool,
}

/// What a fresh server had.
pub(super) struct Drained {
    pub(super) subscriptions: Vec<Place>,
    pub(super) found: Vec<Got>,
    /// Nothing was left in the store; what else.
    pub(super) rest: Result<(), String>,
}

/// Recovers as a new server does, and takes all messages as clients do: those of subscriptions as the clients that
/// have them, those of queues as a stranger. Then nothing is left in the store.
pub(super) fn recover_and_drain(
    world: &SimWorld,
    options: &StoreOptions,
    settings: &NodeSettings,
    places: &Places,
    mutant: Mutant,
) -> Result<Drained, String> {
    crate::crash::count_point();
    let disk = world.process();
    let acquired = try_acquire(Arc::new(disk.clone()), "a new server");
    let Acquire::Owned(ownership) = acquired.map_err(|error| error.to_string())? else {
        return Err("somebody else has the lock".to_owned());
    };
    let opened = Store::open(ownership, options.clone(), &mut |_| ());
    let (mut store, report) = opened.map_err(|error| error.to_string())?;
    if !report.damaged.is_empty() {
        return Err(format!(
            "a whole store is called damaged: {:?}",
            report.damaged
        ));
    }
    sim::trace_line(|| format!("a new server finds: {}", rows::summary(&store)));
    if mutant != Mutant::NoHolds {
        rows::spoil(&mut store, mutant);
    }
    let now = now_of(&disk);
    let settings = NodeSettings {
        // They sleep while the server waits for other clients.
        idle_timeout_ms: 0,
        ..settings.clone()
    };
    let mut node = Node::new(settings, store, now);
    node.set_directory(now, places.directory());
    let subscriptions = places.of_server(&node)?;
    let mut fresh = Fresh {
        node,
        disk,
        guests: Vec::new(),
        found: Vec::new(),
        is_late: false,
    };
    let queues: Vec<Place> = (0..QUEUES).collect();
    fresh.invite("a stranger", &queues, places)?;
    let clients: BTreeSet<usize> = subscriptions
        .iter()
        .filter_map(|place| Some(places.subscription(*place)?.client))
        .collect();
    for client in clients {
        let is_its =
            |place: &Place| places.subscription(*place).map(|it| it.client) == Some(client);
        let own: BTreeSet<Place> = subscriptions.iter().copied().filter(is_its).collect();
        let own: Vec<Place> = own.into_iter().collect();
        fresh.invite(&container_of(client), &own, places)?;
    }
    let rest = fresh.drain(options);
    Ok(Drained {
        subscriptions,
        found: fresh.found,
        rest,
    })
}

fn now_of(disk: &SimDisk) -> Now {
    let boot_ms = disk.boot_ms();
    Now {
        monotonic_ms: boot_ms,
        boot_ms,
        wall_ms: 1_700_000_000_000 + boot_ms,
    }
}

impl Fresh {
    /// Lets a client come and consume.
    fn invite(&mut self, container: &str, from: &[Place], places: &Places) -> Result<(), String> {
        let now = now_of(&self.disk);
        let settings = Settings {
            container_id: container.to_owned(),
            ..Settings::default()
        };
        let mut proto = Connection::client(settings, ClientSasl::Anonymous, now.monotonic_ms);
        let session = proto.begin().ok_or("no session")?;
        let (mut links, mut temporary) = (Vec::new(), Vec::new());
        for &place in from {
            let name = places.subscription(place).map(|it| it.name.clone());
            let request = AttachRequest {
                name: name.unwrap_or_else(|| queue_name(place)),
                source: Some(places.source(place)),
                target: Some(Target::default().into()),
                ..AttachRequest::default()
            };
            let link = proto.attach_receiver(session, request);
            let link = link.ok_or("no link")?;
            proto.set_credit(link, 1_000);
            links.push((link, place));
            temporary.extend(places.temporary(place).map(|_| link));
        }
        self.guests.push(Guest {
            id: self.node.connect(now),
            proto,
            links,
            temporary,
            input: BytesMut::new(),
            answer: BytesMut::new(),
        });
        Ok(())
    }

    fn drain(&mut self, options: &StoreOptions) -> Result<(), String> {
        let mut quiet = 0;
        let mut waits = 0;
        for _ in 0..ROUNDS_MAX {
            let is_quiet = !self.round()?;
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if quiet > QUIET_ROUNDS {
                let left = self.node.status().store.messages;
                if left == 0 {
                    return Ok(());
                }
                // They are kept for clients, for a while; and then some time for those that came without links.
                let deadline_at_ms = self.node.reconnect().deadline_at_ms;
                if waits > WAITS_MAX {
                    return Err(self.left(left, options));
                }
                waits += 1;
                self.is_late = true;
                let now_ms = now_of(&self.disk).monotonic_ms;
                let until_ms = deadline_at_ms.unwrap_or(now_ms + LINKS_MS);
                self.disk
                    .world()
                    .advance_ms(until_ms.saturating_sub(now_ms));
                quiet = 0;
            }
            self.disk.world().advance_ms(5);
        }
        Err("a new server never comes to rest".to_owned())
    }

    fn left(&self, left: u64, options: &StoreOptions) -> String {
        let queues = self.node.queue_status();
        let queues: Vec<_> = queues.into_iter().filter(|it| it.messages > 0).collect();
        let subscriptions = self.node.subscription_status();
        let subscriptions = subscriptions.into_iter().filter(|it| it.messages > 0);
        let subscriptions: Vec<_> = subscriptions.collect();
        let of_whom = if queues.is_empty() && subscriptions.is_empty() {
            rows::orphans(self.disk.world(), options)
        } else {
            format!("{queues:?} {subscriptions:?}")
        };
        format!("{left} messages of a new server do not come: {of_whom}")
    }

    /// Everything speaks and hears once; whether anything happened.
    fn round(&mut self) -> Result<bool, String> {
        let now = now_of(&self.disk);
        let before = self.found.len();
        let mut any = false;
        for guest in &mut self.guests {
            guest.proto.flush();
            guest.input.unsplit(guest.proto.output().split());
            any |= !guest.input.is_empty();
            self.node.handle_bytes(now, guest.id, &mut guest.input);
        }
        any |= self.work(now)?;
        while let Some(dirty) = self.node.poll_dirty() {
            let guest = self.guests.iter_mut().find(|it| it.id == dirty);
            if let Some((output, guest)) = self.node.output(dirty).zip(guest) {
                guest.answer.unsplit(output.split());
                self.node.handle_written(now, dirty);
            }
        }
        for guest in &mut self.guests {
            any |= !guest.answer.is_empty();
            guest
                .proto
                .handle_bytes(now.monotonic_ms, &mut guest.answer);
            guest.hear(self.is_late, &mut self.found)?;
        }
        Ok(any || before != self.found.len())
    }

    /// Does the store's jobs and reads; whether there were any but those of time alone.
    fn work(&mut self, now: Now) -> Result<bool, String> {
        let mut any = false;
        while let Some(task) = self.node.poll_read() {
            self.node.read_done(now, task.run());
            any = true;
        }
        any |= self.node.has_open_batch();
        while let Some(job) = self.node.poll_job(now) {
            let done = job.run();
            self.node
                .complete(done)
                .map_err(|fatal| fatal.to_string())?;
            self.node.advance(now);
        }
        self.node.tick(now);
        Ok(any)
    }
}

impl Guest {
    fn hear(&mut self, is_late: bool, found: &mut Vec<Got>) -> Result<(), String> {
        while let Some(event) = self.proto.poll_event() {
            match event {
                Event::Delivery {
                    link,
                    delivery_id,
                    payload,
                    ..
                } => {
                    let place = self.links.iter().find(|(it, _)| *it == link);
                    let place = place.map(|(_, place)| *place).ok_or("an unknown link")?;
                    found.push(Got {
                        is_late,
                        ..rows::got(&payload.to_bytes(), place)?
                    });
                    self.proto.settle(link, delivery_id, Outcome::Accepted);
                }
                Event::CreditRefill { link } => self.proto.set_credit(link, 1_000),
                Event::Closed { error } => return Err(format!("a new server closes: {error:?}")),
                Event::Detached { link, error, .. } if !self.temporary.contains(&link) => {
                    return Err(format!("a new server detaches: {error:?}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
