//! What a store of several hosts must hold, by what clients were told.

use std::collections::{BTreeMap, BTreeSet};

use steadfast_storage::{QueueId, Store};

use super::ROWS;
use crate::workload::{Found, QUEUES, read, row};

/// What is known of one reference: a message in a queue.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Known {
    pub(super) is_confirmed: bool,
    pub(super) is_settling: bool,
    pub(super) is_settled: bool,
    /// A new owner did not find it, and it was not confirmed.
    pub(super) is_gone: bool,
}

/// What the world was told, by whomever.
#[derive(Default, Debug)]
pub(super) struct Oracle {
    pub(super) references: BTreeMap<(u32, u32), Known>,
    /// By key: values that were written, and the last that was confirmed or found.
    pub(super) rows: BTreeMap<u32, (BTreeSet<u32>, u32)>,
    pub(super) next_number: u32,
    /// The newest epoch that has begun to serve, and what it found.
    pub(super) epoch: u64,
    pub(super) seen: BTreeSet<(u32, u32)>,
    pub(super) seen_rows: BTreeMap<u32, u32>,
}

/// What an opened store holds.
pub(super) struct Contents {
    pub(super) found: BTreeMap<u32, Vec<Found>>,
    pub(super) rows: BTreeMap<u32, u32>,
}

impl Contents {
    pub(super) fn of(store: &Store) -> Result<Self, String> {
        let mut found = BTreeMap::new();
        for queue in 1..=QUEUES {
            let messages = read(store, queue)?;
            let counted = store.queue_stats(QueueId(queue)).messages;
            if counted != messages.len() as u64 {
                return Err(format!(
                    "queue {queue} counts {counted} of {}",
                    messages.len()
                ));
            }
            found.insert(queue, messages);
        }
        let mut rows = BTreeMap::new();
        for key in 0..ROWS {
            rows.insert(key, row(store, key)?.unwrap_or(0));
        }
        Ok(Self { found, rows })
    }

    pub(super) fn keys(&self) -> BTreeSet<(u32, u32)> {
        let all = self.found.iter();
        all.flat_map(|(queue, found)| found.iter().map(|it| (*queue, it.number)))
            .collect()
    }
}

impl Oracle {
    /// Holds what was recovered against what was confirmed.
    pub(super) fn check(&self, contents: &Contents) -> Result<(), String> {
        for (queue, found) in &contents.found {
            if !found.is_sorted_by(|a, b| a.number < b.number) {
                return Err(format!("queue {queue} is doubled or out of order"));
            }
        }
        let found = contents.keys();
        for ((queue, number), known) in &self.references {
            let is_there = found.contains(&(*queue, *number));
            let what = match known {
                _ if known.is_settled && is_there => "is back although it was settled",
                _ if known.is_gone && is_there => "is back although it had been lost unconfirmed",
                _ if known.is_confirmed && !known.is_settling && !is_there => "is lost",
                _ => continue,
            };
            return Err(format!("message {number} of queue {queue} {what}"));
        }
        if let Some((queue, number)) = found.iter().find(|it| !self.references.contains_key(it)) {
            return Err(format!("message {number} of queue {queue} is invented"));
        }
        for (key, value) in &contents.rows {
            let none = (BTreeSet::new(), 0);
            let (written, confirmed) = self.rows.get(key).unwrap_or(&none);
            if value < confirmed || (*value != 0 && !written.contains(value)) {
                return Err(format!("row {key} is {value}, {confirmed} was confirmed"));
            }
        }
        Ok(())
    }

    /// A new owner serves: what it found is durable, what it did not find must never come back.
    pub(super) fn begin(&mut self, epoch: u64, contents: &Contents) {
        let found = contents.keys();
        for (key, known) in &mut self.references {
            if found.contains(key) {
                known.is_confirmed = true;
                known.is_settling = false;
            } else if !known.is_confirmed {
                known.is_gone = true;
            } else {
                // Its settlement was durable, whoever may have heard of it.
                known.is_settled = true;
            }
        }
        for (key, value) in &contents.rows {
            self.rows.entry(*key).or_default().1 = *value;
        }
        self.epoch = epoch;
        self.seen = found;
        self.seen_rows.clone_from(&contents.rows);
    }

    /// A server tells somebody that something is durable. A successor that serves already must have
    /// found it.
    pub(super) fn confirm(&mut self, epoch: u64, pending: &Pending) -> Result<(), String> {
        let is_late = epoch < self.epoch;
        match *pending {
            Pending::Message(queue, number) => {
                let key = (queue, number);
                let known = self.references.entry(key).or_default();
                if is_late && !self.seen.contains(&key) && !known.is_settled {
                    return Err(format!(
                        "message {number} of queue {queue} is confirmed by epoch {epoch}, and epoch {} \
                         has not found it",
                        self.epoch
                    ));
                }
                known.is_confirmed = true;
            }
            Pending::Settled(queue, number) => {
                let key = (queue, number);
                if is_late && self.seen.contains(&key) {
                    return Err(format!(
                        "message {number} of queue {queue} is settled by epoch {epoch}, and epoch {} \
                         serves it",
                        self.epoch
                    ));
                }
                self.references.entry(key).or_default().is_settled = true;
            }
            Pending::Row(key, value) => {
                let seen = self.seen_rows.get(&key).copied().unwrap_or(0);
                if is_late && value > seen {
                    return Err(format!(
                        "row {key} is confirmed as {value} by epoch {epoch}, epoch {} found {seen}",
                        self.epoch
                    ));
                }
                let confirmed = &mut self.rows.entry(key).or_default().1;
                *confirmed = value.max(*confirmed);
            }
        }
        Ok(())
    }

    pub(super) fn number(&mut self) -> u32 {
        self.next_number += 1;
        self.next_number
    }
}

/// Something appended and not confirmed.
pub(super) enum Pending {
    Message(u32, u32),
    Settled(u32, u32),
    Row(u32, u32),
}
