//! Which subscriptions exist, and what they owe to their clients.
//!
//! What a subscription gets is settled by what its client knows:
//!
//! * Its client was told that it exists, and then a message was sent that was confirmed before the client
//!   began to end it, before its server gave its connection up (unless it is durable), and before the time to
//!   reconnect was over: it gets that message (`due`), whatever servers die in between.
//! * A message that was confirmed before its client asked for it: it never gets that one.
//! * It has ended for good (its client was told so, or the server had nothing left that waits for the disk):
//!   no successor has it, and what it had never comes again.

use std::collections::BTreeSet;

use steadfast::model::DestinationKind;

use super::super::places::Place;
use super::{Copy, Oracle, Settled};

/// What is known of a subscription.
#[derive(Clone, Debug, Default)]
pub(super) struct Existence {
    /// It may exist, since its client asked for it.
    pub(super) may_from: Option<u64>,
    /// It exists, since its client was told so; and nothing was done to end it.
    pub(super) must_from: Option<u64>,
    /// When its client asked last.
    asked_at: u64,
    /// Connections on which it was asked for, without an answer yet.
    asking: BTreeSet<u64>,
    /// The connection on which it was granted last, and its process.
    granted: Option<(u64, u64)>,
}

/// An end that is not durable as far as anybody knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    place: Place,
    begun_at: u64,
}

impl Oracle {
    /// A client asks for its subscription. `life`: the process that it asks runs at present.
    pub(in super::super) fn asks(&mut self, place: Place, connection: u64, life: u64) {
        let now = self.tick();
        let rivals: Vec<Place> = self.places.rivals(place).collect();
        for rival in rivals {
            self.owes_no_more(rival);
        }
        let is_durable = self.places.is_durable(place);
        let Some(it) = self.existences.get_mut(&place) else {
            return;
        };
        it.asked_at = now;
        it.asking.insert(connection);
        it.may_from.get_or_insert(now);
        if !is_durable && it.granted.is_some_and(|(_, by)| by == life) {
            // It gets a new one beside the one that it had.
            self.owes_no_more(place);
        }
    }

    /// A client is told that its subscription exists. `waits`: the server still waits for the clients of its
    /// predecessors.
    pub(in super::super) fn granted(
        &mut self,
        place: Place,
        connection: u64,
        life: u64,
        waits: bool,
    ) {
        let now = self.tick();
        // The row of the subscription that it replaces stands before its own in the log.
        let rivals: Vec<Place> = self.places.rivals(place).collect();
        for rival in rivals {
            self.ends_for_good(rival);
        }
        let is_durable = self.places.is_durable(place);
        let Some(it) = self.existences.get_mut(&place) else {
            return;
        };
        let former = it.granted.replace((connection, life));
        it.asking.remove(&connection);
        if is_durable {
            it.must_from.get_or_insert(now);
            return;
        }
        if !it.asking.is_empty() {
            // The server may still hear of an older connection that asks for it, and make another.
            return self.owes_no_more(place);
        }
        // A temporary destination may be the former one, or another of its name.
        let is_same_life = former.is_some_and(|(_, by)| by == life);
        let is_another = is_same_life && self.places.temporary(place).is_none();
        let is_resumed = it.must_from.is_some() && waits && !is_same_life;
        if is_resumed {
            self.counts.resumed += 1;
            return;
        }
        let asked_at = it.asked_at;
        self.owes_no_more(place);
        if is_another {
            self.forget_former(place, asked_at);
        }
        if let Some(it) = self.existences.get_mut(&place) {
            it.must_from = Some(now);
            if is_another {
                it.may_from = Some(asked_at);
            }
        }
    }

    /// A temporary destination has another name than before: what was sent to the former one is gone.
    pub(in super::super) fn renamed(&mut self, place: Place) {
        self.owes_no_more(place);
        for copy in self.copies.values_mut() {
            if let Some(part) = copy.part_mut(place) {
                part.is_gone = true;
            }
        }
    }

    /// Something was done to end a subscription: it may get messages, and need not.
    pub(in super::super) fn owes_no_more(&mut self, place: Place) {
        if let Some(it) = self.existences.get_mut(&place) {
            it.must_from = None;
            for copy in self.copies.values_mut() {
                if let Some(part) = copy.part_mut(place) {
                    part.is_due = false;
                }
            }
        }
    }

    /// What a subscription has that its client had before it asked at a certain time goes with the former one.
    fn forget_former(&mut self, place: Place, asked_at: u64) {
        for copy in self.copies.values_mut() {
            let was_before = copy.is_confirmed && copy.confirmed_at < asked_at;
            if let Some(part) = copy.part_mut(place) {
                part.is_gone |= was_before || part.brought_by.is_some();
            }
        }
    }

    /// A subscription is over, and no successor has it.
    pub(in super::super) fn ends_for_good(&mut self, place: Place) {
        let now = self.tick();
        self.owes_no_more(place);
        let Some(it) = self.existences.get_mut(&place) else {
            return;
        };
        if it.asking.is_empty() && it.may_from.take().is_some() {
            self.counts.ended += 1;
            self.forget_former(place, now);
        }
    }

    /// A server ends a subscription, which is durable some time later.
    pub(in super::super) fn ends(&mut self, place: Place, life: u64) {
        let begun_at = self.tick();
        self.owes_no_more(place);
        let it = self.existences.get(&place);
        // What is left of a temporary destination may come back, until it is asked for under its name.
        let is_temporary = self.places.temporary(place).is_some();
        if !is_temporary && it.is_some_and(|it| it.asking.is_empty()) {
            let ending = Ending { place, begun_at };
            self.ending.entry(life).or_default().push(ending);
        }
    }

    /// A server has given a connection up, and does not stop: subscriptions that are not durable go with it.
    pub(in super::super) fn gives_up_connection(&mut self, connection: u64, life: u64) {
        let of_it: Vec<Place> = self
            .existences
            .iter()
            .filter(|(place, it)| {
                it.granted == Some((connection, life)) && !self.places.is_durable(**place)
            })
            .map(|(place, _)| *place)
            .collect();
        for place in of_it {
            self.ends(place, life);
        }
    }

    /// A server does not hear a connection any more.
    pub(super) fn asks_no_more(&mut self, connection: u64) {
        for it in self.existences.values_mut() {
            it.asking.remove(&connection);
        }
    }

    /// Nothing of a server waits for the disk: what it has ended has ended for good, unless it was asked for anew.
    pub(super) fn ended_for_good(&mut self, life: u64) {
        for ending in self.ending.remove(&life).unwrap_or_default() {
            let it = self.existences.get(&ending.place);
            if it.is_some_and(|it| it.asked_at < ending.begun_at) {
                self.ends_for_good(ending.place);
            }
        }
    }

    /// A server does not wait any more for the clients of its predecessors: what belongs to those that it does not
    /// serve ends. `is_here`: whether a client has a connection to it.
    pub(super) fn expires(&mut self, life: u64, is_here: impl Fn(usize) -> bool) {
        if !self.waited.insert(life) {
            return;
        }
        let all: Vec<Place> = self.existences.keys().copied().collect();
        for place in all {
            let Some(it) = self.places.subscription(place).filter(|it| !it.is_durable) else {
                continue;
            };
            let is_here = is_here(it.client);
            let granted = self.existences.get(&place).and_then(|it| it.granted);
            if granted.is_some_and(|(_, by)| by == life) {
                continue;
            }
            if is_here {
                // It may have come in time, or too late.
                self.owes_no_more(place);
            } else {
                self.ends(place, life);
            }
        }
    }

    /// Not even a successor waits for clients.
    pub(super) fn nobody_waits(&mut self) {
        let all: Vec<Place> = self.existences.keys().copied().collect();
        for place in all {
            if !self.places.is_durable(place) {
                self.owes_no_more(place);
            }
        }
    }

    /// Holds the subscriptions that a new server has against what is known.
    pub(super) fn judge_subscriptions(&self, found: &[Place]) -> Result<(), String> {
        let found: BTreeSet<Place> = found.iter().copied().collect();
        for (place, it) in &self.existences {
            let is_kept = self.keeps || self.places.is_durable(*place);
            // The link of a temporary queue is answered before that is durable; what is confirmed stands behind it.
            let is_queue = self.places.temporary(*place) == Some(DestinationKind::Queue);
            let is_promised = it.must_from.is_some() && is_kept && !is_queue;
            if is_promised && !found.contains(place) {
                return Err(format!("subscription {place} is lost"));
            }
            if it.may_from.is_none() && found.contains(place) {
                return Err(format!("subscription {place} has ended and is there again"));
            }
        }
        Ok(())
    }

    /// Whether a message that is confirmed, or was found, is owed to a subscription.
    pub(super) fn owe(&mut self, id: super::CopyId) {
        let Some(copy) = self.copies.get_mut(&id) else {
            return;
        };
        let sent_at = copy.sent_at;
        for part in &mut copy.parts {
            let it = self.existences.get(&part.place);
            let must_from = it.and_then(|it| it.must_from);
            part.is_due |=
                must_from.is_some_and(|from| from <= sent_at) && part.settled == Settled::No;
        }
    }

    /// Whether a message may be in a place at all.
    pub(super) fn may_be_in(&self, copy: &Copy, place: Place) -> Result<(), &'static str> {
        let Some(it) = self.existences.get(&place) else {
            return Ok(());
        };
        match it.may_from {
            None => Err("comes from a subscription that has ended"),
            Some(from) if copy.is_confirmed && copy.confirmed_at < from => {
                Err("was confirmed before the subscription that it comes from")
            }
            Some(_) => Ok(()),
        }
    }
}
