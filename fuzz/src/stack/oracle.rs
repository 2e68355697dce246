//! What clients saw, and whether two servers on one store may have done that.
//!
//! A producer that gets no confirm sends its message again. Each sending is a *copy*: a message of its
//! own to the broker, judged apart. What is promised of a copy:
//!
//! * It was durable and a client saw its confirm: it is in the store of every successor until a client
//!   has accepted or rejected it. So is one that a successor found, whoever had heard of it.
//! * A client accepted or rejected it, the server has read that, and had nothing left afterwards that
//!   waited for the disk: it never comes again. A settlement that was under way when the server ended
//!   may be lost. What one takeover did not find never comes again either.
//! * It came to a client and the server ended, or the connection broke while the client had it: when
//!   it comes again, it is marked as redelivered.
//! * It was refused: it never comes.
//! * First deliveries without a mark come to each consumer in the order of sending, connection by
//!   connection, except what was under way to a consumer that left in order.
//! * A client had it when its server ended, and that was written down: within the time to reconnect it
//!   comes to no other client, unless that client gives it up.
//! * It was not durable: as durable ones, until a server ends without an orderly stop.
//!
//! A message to a topic has a *part* in each place where it may wait, and all this is judged for each part; the
//! log has it once. What a subscription gets at all is in `oracle/existence.rs`; what administrators do to queues, in
//! `oracle/administer.rs`.

mod administer;
mod existence;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::places::{Place, Places};
use existence::{Ending, Existence};

/// Names one sending of one message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct CopyId {
    pub(super) producer: usize,
    pub(super) number: u32,
    pub(super) attempt: u32,
}

impl fmt::Display for CopyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.producer, self.number, self.attempt)
    }
}

/// Names a part of a copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct PartId {
    pub(super) copy: CopyId,
    pub(super) place: Place,
}

impl fmt::Display for PartId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} in place {}", self.copy, self.place)
    }
}

impl CopyId {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let id = Self {
            producer: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
            attempt: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(id)
    }
}

/// The body of a copy.
pub(super) fn body_of(id: CopyId, len: usize) -> String {
    format!("{id} {}", "m".repeat(len))
}

/// A message as a client or a reader of the store got it.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub(super) body: Vec<u8>,
    /// Where it came from.
    pub(super) place: Place,
    pub(super) count: u32,
    /// Its number in the log, where that is known.
    pub(super) lsn: Option<u64>,
    /// It came when the time to reconnect was over.
    pub(super) is_late: bool,
}

/// What is known about the end of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Settled {
    No,
    /// A client has accepted or rejected it.
    Handed,
    /// And it must never come again.
    Promised,
}

/// A copy in one place.
#[derive(Clone, Debug)]
struct Part {
    place: Place,
    /// It must come from there, once it is confirmed.
    is_due: bool,
    settled: Settled,
    /// A takeover did not find it, or it went with a subscription.
    is_gone: bool,
    /// The process that brought it last.
    brought_by: Option<u64>,
    /// The connection that has it.
    holder: Option<u64>,
    /// The connection that had it broke.
    was_dropped: bool,
    /// It is written down that a client has it: the process that did so, and the client.
    kept_for: Option<(u64, usize)>,
    /// Its queue is being deleted: what clients say of it counts for nothing.
    is_doomed: bool,
}

impl Part {
    fn new(place: Place, is_due: bool) -> Self {
        Self {
            place,
            is_due,
            settled: Settled::No,
            is_gone: false,
            brought_by: None,
            holder: None,
            was_dropped: false,
            kept_for: None,
            is_doomed: false,
        }
    }
}

#[derive(Clone, Debug)]
struct Copy {
    is_durable: bool,
    len: usize,
    /// Number among all copies.
    order: u64,
    connection: u64,
    /// The process that it was sent to.
    life: u64,
    sent_at: u64,
    /// By its producer's knowledge, or because a successor found it.
    is_confirmed: bool,
    confirmed_at: u64,
    is_refused: bool,
    /// Not durable, and a server ended badly since.
    is_excused: bool,
    /// Where it may be.
    parts: Vec<Part>,
}

impl Copy {
    fn part(&self, place: Place) -> Option<&Part> {
        self.parts.iter().find(|part| part.place == place)
    }

    fn part_mut(&mut self, place: Place) -> Option<&mut Part> {
        self.parts.iter_mut().find(|part| part.place == place)
    }

    fn must_be_in(&self, part: &Part) -> bool {
        let is_promised = self.is_durable || !self.is_excused;
        self.is_confirmed && is_promised && part.is_due && part.settled == Settled::No
    }
}

/// Figures of a life, to see that it was one.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counts {
    pub(super) published: u64,
    pub(super) confirmed: u64,
    pub(super) delivered: u64,
    pub(super) redelivered: u64,
    pub(super) promised: u64,
    pub(super) takeovers: u64,
    pub(super) refused: u64,
    pub(super) ordered: u64,
    pub(super) kept: u64,
    /// Parts in subscriptions that had to come.
    pub(super) owed: u64,
    /// Subscriptions that a client found again after a takeover.
    pub(super) resumed: u64,
    /// Subscriptions that ended for good.
    pub(super) ended: u64,
    /// Queues that were deleted for good.
    pub(super) deleted: u64,
    /// Messages that were purged for good.
    pub(super) purged: u64,
}

#[derive(Default)]
pub(super) struct Oracle {
    /// Grows with each event that is ordered against others.
    clock: u64,
    places: Places,
    /// The state of clients survives a takeover.
    keeps: bool,
    existences: BTreeMap<Place, Existence>,
    /// By process: subscriptions that it has ended, and that may come back as far as anybody knows.
    ending: BTreeMap<u64, Vec<Ending>>,
    /// By process: queues that it has deleted, and that may come back as far as anybody knows.
    dropping: BTreeMap<u64, Vec<Vec<PartId>>>,
    /// Connections to which messages of a deleted queue may be under way.
    late: BTreeSet<(u64, Place)>,
    /// Processes that do not wait for the clients of their predecessors any more.
    waited: BTreeSet<u64>,
    copies: BTreeMap<CopyId, Copy>,
    published: u64,
    /// Copies in a place up to this order may come out of order.
    disturbed: BTreeMap<Place, u64>,
    /// By connection: the place of a consumer that leaves in order and has no answer yet. Its server may
    /// not know it, and send it more.
    leaving: BTreeMap<u64, Place>,
    /// By place, consumer's connection, producer and producer's connection: the last unmarked first delivery.
    last: BTreeMap<(Place, u64, usize, u64), u64>,
    /// Connections that their server has given up.
    left: BTreeSet<u64>,
    /// By process: settlements that it has read and that may not be durable.
    settling: BTreeMap<u64, Vec<PartId>>,
    newest_life: u64,
    epoch: u64,
    violation: Option<String>,
    pub(super) counts: Counts,
}

impl Oracle {
    /// `keeps`: the state of clients survives a takeover.
    pub(super) fn new(places: Places, keeps: bool) -> Self {
        let all = 0..places.count();
        let subscriptions = all.filter(|place| places.subscription(*place).is_some());
        Self {
            existences: subscriptions.map(|it| (it, Existence::default())).collect(),
            places,
            keeps,
            ..Self::default()
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn part_mut(&mut self, id: PartId) -> Option<&mut Part> {
        self.copies.get_mut(&id.copy)?.part_mut(id.place)
    }

    fn parts_mut(&mut self) -> impl Iterator<Item = &mut Part> {
        self.copies.values_mut().flat_map(|copy| &mut copy.parts)
    }

    /// Notes what must not be; the first one counts.
    pub(super) fn blame(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub(super) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    // ---- producers ----

    /// A copy is sent over a connection to a process. `reaches`: where it may come to wait.
    pub(super) fn published(
        &mut self,
        id: CopyId,
        reaches: &[Place],
        (is_durable, len): (bool, usize),
        (connection, life): (u64, u64),
    ) {
        self.published += 1;
        self.counts.published += 1;
        let is_due = |place: Place| !self.existences.contains_key(&place);
        let parts = reaches.iter().map(|it| Part::new(*it, is_due(*it)));
        let copy = Copy {
            parts: parts.collect(),
            is_durable,
            len,
            order: self.published,
            connection,
            life,
            sent_at: self.tick(),
            is_confirmed: false,
            confirmed_at: 0,
            is_refused: false,
            is_excused: false,
        };
        self.copies.insert(id, copy);
    }

    pub(super) fn confirmed(&mut self, id: CopyId) {
        self.counts.confirmed += 1;
        let (now, newest_life) = (self.tick(), self.newest_life);
        let Some(copy) = self.copies.get_mut(&id) else {
            return self.blame(format!("{id} was confirmed and never sent"));
        };
        if !std::mem::replace(&mut copy.is_confirmed, true) {
            copy.confirmed_at = now;
        }
        self.owe(id);
        let Some(copy) = self.copies.get(&id) else {
            return;
        };
        let is_late = copy.is_durable && copy.life != newest_life;
        let is_lost = |part: &Part| part.is_gone && copy.must_be_in(part);
        let lost = copy.parts.iter().find(|part| is_late && is_lost(part));
        let owed = copy.parts.iter().filter(|part| part.is_due).count();
        self.counts.owed += owed as u64;
        if let Some(part) = lost {
            let place = part.place;
            self.blame(format!(
                "{id} is confirmed by a server whose successor did not find it in place {place}: it is lost"
            ));
        }
    }

    pub(super) fn refused(&mut self, id: CopyId) {
        self.counts.refused += 1;
        if let Some(copy) = self.copies.get_mut(&id) {
            copy.is_refused = true;
        }
    }

    // ---- consumers ----

    /// A client got a message over a connection of a process.
    pub(super) fn delivered(&mut self, got: &Got, connection: u64, life: u64) -> Option<PartId> {
        self.counts.delivered += 1;
        self.counts.redelivered += u64::from(got.count > 0);
        let id = match self.known(got) {
            Ok(id) => id,
            Err(_) if self.is_late(connection, got.place) => return None,
            Err(what) => {
                self.blame(what);
                return None;
            }
        };
        let disturbed = self.disturbed.get(&id.place).copied().unwrap_or(0);
        let copy = self.copies.get_mut(&id.copy)?;
        let (order, producers) = (copy.order, copy.connection);
        let part = copy.part_mut(id.place)?;
        let is_first = part.brought_by.is_none();
        let must_be_marked = part.was_dropped || part.brought_by.is_some_and(|by| by != life);
        let held_by = part.holder.replace(connection);
        let was_brought_by = part.brought_by.replace(life);
        part.was_dropped = false;
        if part.settled == Settled::Handed {
            part.settled = Settled::No;
        }
        if must_be_marked && got.count == 0 {
            self.blame(format!("{id} comes again without a mark"));
        }
        if let Some(held_by) = held_by
            && was_brought_by == Some(life)
            && !self.left.contains(&held_by)
        {
            self.blame(format!("{id} comes while another consumer has it"));
        }
        let is_disturbed = order <= disturbed || self.leaving.values().any(|it| *it == id.place);
        if is_first && got.count == 0 && !is_disturbed {
            self.counts.ordered += 1;
            let key = (id.place, connection, id.copy.producer, producers);
            let last = self.last.insert(key, order);
            if last.is_some_and(|last| last >= order) {
                self.blame(format!("{id} was overtaken"));
            }
        }
        Some(id)
    }

    /// A message comes to a client of a server that waits for others.
    pub(super) fn comes_early(&mut self, got: &Got, client: usize, life: u64) {
        let Ok(id) = self.known(got) else {
            return;
        };
        let kept_for = self.part_mut(id).and_then(|part| part.kept_for);
        if let Some((by, owner)) = kept_for
            && by != life
        {
            self.counts.kept += u64::from(owner == client);
            if owner != client {
                self.blame(format!("{id} comes to client {client}, kept for {owner}"));
            }
        }
    }

    /// Nothing of a server waits for the disk, also not what its clients have. `client_of`: by connection.
    pub(super) fn written_down(&mut self, life: u64, client_of: impl Fn(u64) -> Option<usize>) {
        for copy in self.copies.values_mut() {
            for part in &mut copy.parts {
                if let Some(holder) = part.holder
                    && part.brought_by == Some(life)
                    && !self.left.contains(&holder)
                {
                    part.kept_for = client_of(holder).map(|client| (life, client));
                }
            }
        }
    }

    /// What was kept for a client may go to others.
    pub(super) fn gives_up(&mut self, client: usize) {
        for part in self.parts_mut() {
            if part.kept_for.is_some_and(|(_, owner)| owner == client) {
                part.kept_for = None;
            }
        }
    }

    /// A server does not wait any more for the clients of its predecessors. `is_here`: whether a client has a
    /// connection to it.
    pub(super) fn waits_no_more(&mut self, life: u64, is_here: impl Fn(usize) -> bool) {
        for part in self.parts_mut() {
            if part.kept_for.is_some_and(|(by, _)| by != life) {
                part.kept_for = None;
            }
        }
        self.expires(life, is_here);
    }

    /// The part that a message is, if it may be there at all.
    fn known(&self, got: &Got) -> Result<PartId, String> {
        let text = String::from_utf8_lossy(&got.body);
        let id = text.split(' ').next().and_then(CopyId::parse);
        let id = id.ok_or_else(|| format!("a message was invented: {text:.60}"))?;
        let Some(copy) = self.copies.get(&id) else {
            return Err(format!("{id} comes and was never sent"));
        };
        let place = got.place;
        let Some(part) = copy.part(place) else {
            return Err(format!("{id} comes from place {place}"));
        };
        if body_of(id, copy.len) != text {
            return Err(format!("{id} comes with another body"));
        }
        let id = PartId { copy: id, place };
        if copy.is_refused {
            return Err(format!("{id} was refused and comes"));
        }
        if part.settled == Settled::Promised {
            return Err(format!("{id} was settled for good and comes again"));
        }
        if part.is_gone {
            return Err(format!("{id} was gone and comes again"));
        }
        let may_be = self.may_be_in(copy, place);
        may_be.map_err(|what| format!("{id} {what}"))?;
        Ok(id)
    }

    /// A client hands in an outcome. `is_end`: accepted or rejected.
    pub(super) fn handed_back(&mut self, id: PartId, is_end: bool) {
        if let Some(part) = self.part_mut(id) {
            part.holder = None;
            part.kept_for = None;
            if is_end {
                part.settled = Settled::Handed;
            }
        }
    }

    /// A consumer leaves a link or a connection in order, or has left: what was on its way to it may
    /// come later than what was sent after it.
    pub(super) fn disturbed(&mut self, place: Place) {
        self.disturbed.insert(place, self.published);
    }

    /// A consumer begins to leave in order.
    pub(super) fn leaves(&mut self, connection: u64, place: Place) {
        self.leaving.insert(connection, place);
    }

    /// Its server knows.
    pub(super) fn has_left(&mut self, connection: u64) {
        if let Some(place) = self.leaving.remove(&connection) {
            self.disturbed(place);
        }
    }

    /// A client gives a message up by leaving in order.
    pub(super) fn let_go(&mut self, id: PartId) {
        if let Some(part) = self.part_mut(id) {
            part.holder = None;
            part.kept_for = None;
        }
    }

    /// The connection of a client that had this message broke.
    pub(super) fn dropped(&mut self, id: PartId) {
        if let Some(part) = self.part_mut(id) {
            part.holder = None;
            part.was_dropped = true;
        }
    }

    // ---- servers ----

    /// A server has read an outcome that ends a message.
    pub(super) fn outcome_read(&mut self, id: PartId, life: u64) {
        self.settling.entry(life).or_default().push(id);
    }

    /// Nothing of a server waits for the disk.
    pub(super) fn quiet(&mut self, life: u64) {
        for id in self.settling.remove(&life).unwrap_or_default() {
            if let Some(part) = self.part_mut(id)
                && part.settled == Settled::Handed
                && !part.is_doomed
            {
                part.settled = Settled::Promised;
                self.counts.promised += 1;
            }
        }
        self.ended_for_good(life);
        self.dropped_for_good(life);
    }

    /// A server has given a connection up: what its client had may go to others.
    pub(super) fn left(&mut self, connection: u64) {
        self.left.insert(connection);
        self.asks_no_more(connection);
    }

    /// A process begins to serve with what it found in the store, and these subscriptions.
    pub(super) fn took_over(
        &mut self,
        life: u64,
        epoch: u64,
        found: &[Got],
        subscriptions: &[Place],
    ) {
        self.counts.takeovers += 1;
        self.leaving.clear();
        if epoch <= self.epoch {
            self.blame(format!("epoch {epoch} follows epoch {}", self.epoch));
        }
        (self.epoch, self.newest_life) = (epoch, life);
        let judged = self.judge(found, subscriptions, false);
        let ids = match judged {
            Ok(ids) => ids,
            Err(what) => return self.blame(format!("at the takeover of epoch {epoch}: {what}")),
        };
        let now = self.tick();
        for (copy_id, copy) in &mut self.copies {
            for part in &mut copy.parts {
                let (copy_id, place) = (*copy_id, part.place);
                let id = PartId {
                    copy: copy_id,
                    place,
                };
                match ids.contains_key(&id) {
                    // No settlement of it was durable: it stays.
                    true if copy.is_durable && part.settled == Settled::Handed => {
                        part.settled = Settled::No;
                    }
                    false if copy.life != life => part.is_gone = true,
                    _ => {}
                }
            }
        }
        // It is durable whoever may have heard of it.
        for id in ids.into_keys() {
            if let Some(copy) = self.copies.get_mut(&id.copy)
                && copy.is_durable
            {
                if !std::mem::replace(&mut copy.is_confirmed, true) {
                    copy.confirmed_at = now;
                }
                self.owe(id.copy);
            }
            self.stays(id);
        }
    }

    /// A process has ended.
    pub(super) fn ended(&mut self, life: u64, is_orderly: bool) {
        self.settling.remove(&life);
        self.ending.remove(&life);
        self.dropping.remove(&life);
        if !self.keeps {
            self.nobody_waits();
        }
        if !is_orderly {
            for copy in self.copies.values_mut() {
                copy.is_excused |= !copy.is_durable;
            }
        }
    }

    /// Holds the subscriptions of a new server and all messages of its store, or those that its clients got from
    /// it, against what is known. `marks`: they carry delivery counts, and queues are read by none of the clients.
    pub(super) fn judge(
        &self,
        found: &[Got],
        subscriptions: &[Place],
        marks: bool,
    ) -> Result<BTreeMap<PartId, Option<u64>>, String> {
        self.judge_subscriptions(subscriptions)?;
        let mut ids = BTreeMap::new();
        let mut numbers: BTreeMap<CopyId, u64> = BTreeMap::new();
        let mut last: BTreeMap<(Place, usize, u64, bool), u64> = BTreeMap::new();
        for got in found {
            let id = self.known(got)?;
            if ids.insert(id, got.lsn).is_some() {
                return Err(format!("{id} is there twice"));
            }
            if let Some(lsn) = got.lsn
                && *numbers.entry(id.copy).or_insert(lsn) != lsn
            {
                return Err(format!("{} is stored more than once", id.copy));
            }
            let Some((copy, part)) = self
                .copies
                .get(&id.copy)
                .and_then(|copy| Some((copy, copy.part(id.place)?)))
            else {
                continue;
            };
            if marks && got.count == 0 && part.brought_by.is_some() {
                return Err(format!("{id} comes again without a mark"));
            }
            let is_to_others = marks && !got.is_late && !self.existences.contains_key(&id.place);
            if let Some((_, client)) = part.kept_for.filter(|_| is_to_others) {
                return Err(format!(
                    "{id} comes to a stranger, kept for client {client}"
                ));
            }
            let key = (id.place, id.copy.producer, copy.connection, got.is_late);
            let before = last.insert(key, copy.order);
            if before.is_some_and(|before| before > copy.order) {
                return Err(format!("{id} is out of order"));
            }
        }
        for (&id, copy) in &self.copies {
            for part in copy.parts.iter().filter(|part| copy.must_be_in(part)) {
                let place = part.place;
                let is_kept = self.keeps || !marks || self.places.is_durable(place);
                let is_promised = (copy.is_durable || !marks) && is_kept;
                let id = PartId { copy: id, place };
                if is_promised && !ids.contains_key(&id) {
                    return Err(format!("{id} was confirmed and is lost"));
                }
            }
        }
        Ok(ids)
    }

    /// At the end, with all places empty and all clients done.
    pub(super) fn finish(&mut self) {
        let all = self.copies.iter();
        let mut all =
            all.flat_map(|(id, copy)| copy.parts.iter().map(move |part| (id, copy, part)));
        let lost = all.find(|(_, copy, part)| copy.must_be_in(part));
        if let Some((id, _, part)) = lost {
            let came = if part.brought_by.is_some() {
                "came, was not settled, and is lost"
            } else {
                "was confirmed and never came"
            };
            let place = part.place;
            self.blame(format!("{id} in place {place} {came}"));
        }
    }
}
