//! What an administrator does to queues, and what must be so afterwards.
//!
//! * A queue was deleted, and that is durable: nothing that was confirmed or had come to a client before ever comes
//!   again. Where the server ends before that, all of the queue is still there or nothing.
//! * A queue was purged, and that is done: what waited never comes again. What clients had then stays with them.
//!
//! What was on its way to the queue may have gone with it or not. What was sent later is not concerned.

use super::super::places::Place;
use super::{Oracle, Part, PartId, Settled};

impl Oracle {
    /// An administrator deletes a queue. `readers`: connections to which some of it may be under way.
    pub(in super::super) fn deletes(&mut self, place: Place, life: u64, readers: Vec<u64>) {
        let parts = self.drop_from(place, false, |_| false);
        let count_for_nothing = |part: &mut Part| part.is_doomed |= part.place == place;
        self.parts_mut().for_each(count_for_nothing);
        self.late.extend(readers.into_iter().map(|it| (it, place)));
        self.dropping.entry(life).or_default().push(parts);
    }

    /// An administrator begins to purge a queue. `in_flight`: so many messages the server knows with clients or
    /// under way to them; `None`: and others are kept for clients. Gives what must go, where that is clear.
    pub(in super::super) fn purges(
        &mut self,
        place: Place,
        life: u64,
        in_flight: Option<usize>,
    ) -> Vec<PartId> {
        let left = self.left.clone();
        let has = |part: &Part| {
            let is_its = part.brought_by == Some(life) && !part.is_doomed;
            let holder = part.holder.filter(|_| is_its);
            holder.is_some_and(|holder| !left.contains(&holder))
        };
        let of_it = self.parts_mut().filter(|part| part.place == place);
        let held = of_it.filter(|part| has(part)).count();
        // A message that is not durable is confirmed before it waits in the queue.
        let mut parts = self.drop_from(place, true, has);
        // What waited in a queue of this name whose deletion is not durable yet is not in this one.
        parts.retain(|id| self.part_mut(*id).is_some_and(|part| !part.is_doomed));
        if in_flight == Some(held) {
            parts
        } else {
            Vec::new()
        }
    }

    /// A purge is done, for good.
    pub(in super::super) fn purged(&mut self, parts: &[PartId]) {
        for id in parts {
            if let Some(part) = self.part_mut(*id)
                && part.settled == Settled::No
            {
                part.is_gone = true;
                self.counts.purged += 1;
            }
        }
    }

    /// Nothing need come any more from a place but what clients have. Gives what was there for sure. `durable`: of
    /// what nobody had, only what is durable.
    fn drop_from(
        &mut self,
        place: Place,
        durable: bool,
        has: impl Fn(&Part) -> bool,
    ) -> Vec<PartId> {
        let mut dropped = Vec::new();
        for (&copy_id, copy) in &mut self.copies {
            let was_there = copy.is_confirmed && (copy.is_durable || !durable);
            let Some(part) = copy.part_mut(place).filter(|part| !has(part)) else {
                continue;
            };
            part.is_due = false;
            if (was_there || part.brought_by.is_some()) && part.settled == Settled::No {
                let copy = copy_id;
                dropped.push(PartId { copy, place });
            }
        }
        dropped
    }

    /// Nothing of a server waits for the disk: what it has deleted has gone for good.
    pub(super) fn dropped_for_good(&mut self, life: u64) {
        for parts in self.dropping.remove(&life).unwrap_or_default() {
            self.counts.deleted += 1;
            for id in parts {
                if let Some(part) = self.part_mut(id) {
                    part.is_gone = true;
                }
            }
        }
    }

    /// A successor has found this in a queue: it stays from now on, whatever was done to the queue.
    pub(super) fn stays(&mut self, id: PartId) {
        let is_queue = !self.existences.contains_key(&id.place);
        if let Some(part) = self.part_mut(id).filter(|_| is_queue) {
            part.is_due = true;
            part.is_doomed = false;
        }
    }

    /// Whether this may have been under way to a client when its queue was deleted.
    pub(super) fn is_late(&self, connection: u64, place: Place) -> bool {
        self.late.contains(&(connection, place))
    }

    /// A client knows that it does not read a place any more.
    pub(in super::super) fn has_stopped_reading(&mut self, connection: u64, place: Place) {
        self.late.remove(&(connection, place));
    }
}
