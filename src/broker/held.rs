//! Messages that are kept for the clients that had them when the predecessor of this process ended.
//!
//! What a client had is written down as runs of message numbers. A run may reach over numbers that
//! are no message of the queue, or are settled; it never reaches over a message of the queue that
//! somebody else may have.

use std::collections::{BTreeMap, BTreeSet};

use super::{ClientId, Position};

/// In the place of a client: the messages are anybody's, and the run is remembered for its count.
pub const ANYBODY: ClientId = ClientId(u64::MAX);

/// So many messages that were set aside come back to the window at once.
const RECALLED: usize = 16;

/// Messages of a queue, by number, that a client had at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldRun {
    /// Number of the first.
    pub first: u64,
    /// Number of the last.
    pub last: u64,
    /// The delivery count that they were sent with.
    pub count: u32,
}

/// What a client has of a queue and has not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The client.
    pub client: ClientId,
    /// How many messages.
    pub messages: u64,
    /// Which; in order, none overlaps another.
    pub runs: Vec<HeldRun>,
}

impl Holding {
    pub(super) fn of(client: ClientId) -> Self {
        Self {
            client,
            messages: 0,
            runs: Vec::new(),
        }
    }

    /// Adds a message behind all others. `bridges`: nothing of the queue between it and the one before
    /// is there for others.
    pub(super) fn add(&mut self, lsn: u64, count: u32, bridges: bool) {
        self.messages += 1;
        match self.runs.last_mut() {
            Some(run) if run.count == count && (bridges || run.last + 1 == lsn) => run.last = lsn,
            _ => self.runs.push(HeldRun {
                first: lsn,
                last: lsn,
                count,
            }),
        }
    }

    /// Adds what was found in the store. Numbers of a run that was found may have been settled since,
    /// and be bridged by another.
    pub(super) fn join(&mut self, other: Self) {
        self.messages += other.messages;
        self.runs.extend(other.runs);
        self.runs.sort_by_key(|run| run.first);
        let mut free = 0;
        self.runs.retain_mut(|run| {
            run.first = run.first.max(free);
            free = free.max(run.last.saturating_add(1));
            run.first <= run.last
        });
    }
}

/// A run that was found in the store.
#[derive(Debug, Clone, Copy)]
struct Kept {
    last: u64,
    /// Whose; `None`: anybody's, and remembered for its count.
    client: Option<ClientId>,
    count: u32,
}

/// What one client may still come for.
#[derive(Debug, Default)]
struct Share {
    messages: u64,
    /// Those that the cursor has passed.
    aside: BTreeSet<u64>,
    /// The client's consumers of the queue.
    attached: Vec<u64>,
}

/// What is kept of one queue.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// By first number.
    runs: BTreeMap<u64, Kept>,
    shares: BTreeMap<ClientId, Share>,
    /// All that the cursor has passed, by number.
    aside: BTreeMap<u64, Position>,
}

impl Held {
    pub(super) fn new(holdings: Vec<Holding>) -> Self {
        let mut held = Self::default();
        let mut all = Vec::new();
        for holding in holdings {
            if holding.client != ANYBODY {
                let share = held.shares.entry(holding.client).or_default();
                share.messages += holding.messages;
            }
            all.extend(holding.runs.into_iter().map(|run| (run, holding.client)));
        }
        all.sort_by_key(|(run, client)| (run.first, *client));
        let mut free = 0;
        for (run, client) in all {
            // Rows are written lazily, and two may name the same message.
            let first = run.first.max(free);
            if first <= run.last {
                let kept = Kept {
                    last: run.last,
                    client: Some(client).filter(|client| *client != ANYBODY),
                    count: run.count,
                };
                held.runs.insert(first, kept);
                free = run.last.saturating_add(1);
            }
        }
        held
    }

    fn run_of(&self, lsn: u64) -> Option<(u64, &Kept)> {
        let (&first, kept) = self.runs.range(..=lsn).next_back()?;
        (kept.last >= lsn).then_some((first, kept))
    }

    /// The client for which a message is kept.
    pub(super) fn owner(&self, lsn: u64) -> Option<ClientId> {
        let client = self.run_of(lsn)?.1.client;
        client.filter(|client| self.shares.contains_key(client))
    }

    /// How often a message was delivered before, if it was with a client.
    pub(super) fn delivered(&self, lsn: u64) -> u32 {
        self.run_of(lsn)
            .map_or(0, |(_, kept)| kept.count.saturating_add(1))
    }

    /// Whether a client has a consumer for what is kept for it.
    pub(super) fn is_attached(&self, client: ClientId) -> bool {
        let share = self.shares.get(&client);
        share.is_some_and(|share| !share.attached.is_empty())
    }

    pub(super) fn attach(&mut self, client: ClientId, number: u64) {
        if let Some(share) = self.shares.get_mut(&client) {
            share.attached.push(number);
        }
    }

    /// A consumer is gone. Whether it was the last one of a client for which something is kept.
    pub(super) fn detach(&mut self, client: ClientId, number: u64) -> bool {
        let Some(share) = self.shares.get_mut(&client) else {
            return false;
        };
        share.attached.retain(|it| *it != number);
        share.attached.is_empty()
    }

    /// The cursor passes a message whose client does not take it now.
    pub(super) fn set_aside(&mut self, client: ClientId, position: Position) {
        if let Some(share) = self.shares.get_mut(&client) {
            share.aside.insert(position.lsn);
            self.aside.insert(position.lsn, position);
        }
    }

    pub(super) fn is_aside(&self, lsn: u64) -> bool {
        self.aside.contains_key(&lsn)
    }

    /// The lowest number that was set aside.
    pub(super) fn first_aside(&self) -> Option<u64> {
        self.aside.first_key_value().map(|(&lsn, _)| lsn)
    }

    /// Takes back what was set aside, comes before `next`, and is for a consumer that takes messages:
    /// a few for each.
    pub(super) fn recall(
        &mut self,
        next: Option<u64>,
        takes: impl Fn(u64) -> bool,
    ) -> Vec<Position> {
        let mut back = Vec::new();
        for share in self.shares.values_mut() {
            let first = share.aside.first();
            let is_first = first.is_some_and(|&lsn| next.is_none_or(|next| lsn < next));
            if !is_first || !share.attached.iter().any(|number| takes(*number)) {
                continue;
            }
            for _ in 0..RECALLED {
                let lsn = share.aside.pop_first();
                back.extend(lsn.and_then(|lsn| self.aside.remove(&lsn)));
            }
        }
        back
    }

    /// A message goes out. What its run has before it is gone, unless it was set aside: a client gets
    /// its messages in order.
    pub(super) fn take(&mut self, lsn: u64) {
        let Some((first, kept)) = self.run_of(lsn) else {
            return;
        };
        let mut is_left = false;
        if let Some(share) = kept.client.and_then(|client| self.shares.get_mut(&client)) {
            share.messages = share.messages.saturating_sub(1);
            is_left = share.aside.range(first..lsn).next().is_some();
        }
        let Some(kept) = self.runs.remove(&first) else {
            return;
        };
        if is_left {
            let last = lsn - 1;
            self.runs.insert(first, Kept { last, ..kept });
        }
        if lsn < kept.last {
            self.runs.insert(lsn + 1, kept);
        }
    }

    /// Gives what is kept for one client to anybody; its counts stay known. What was set aside has to go back to the
    /// window. Costs what was set aside, not what is kept: its runs are forgotten as their messages go out.
    pub(super) fn release_client(&mut self, client: ClientId) -> Vec<Position> {
        let share = self.shares.remove(&client);
        let lsns = share.map(|share| share.aside).unwrap_or_default();
        let back = lsns.iter().filter_map(|lsn| self.aside.remove(lsn));
        back.collect()
    }

    /// Gives what is kept for some clients to anybody; their counts stay known. Those that were set
    /// aside have to go back to the window.
    pub(super) fn release(&mut self, whose: impl Fn(ClientId, bool) -> bool) -> Vec<Position> {
        let mut back = Vec::new();
        self.shares.retain(|&client, share| {
            let goes = whose(client, !share.attached.is_empty());
            if goes {
                let lsns = std::mem::take(&mut share.aside);
                back.extend(lsns.iter().filter_map(|lsn| self.aside.remove(lsn)));
            }
            !goes
        });
        // Also those of clients that were released one by one.
        let shares = &self.shares;
        self.runs.retain(|_, kept| {
            let goes = kept.client.is_some_and(|it| !shares.contains_key(&it));
            if goes {
                kept.client = None;
            }
            // A count of 1 follows from the reservation.
            !goes || kept.count > 0
        });
        back
    }

    /// Whether something is kept for a client.
    pub(super) fn keeps_for(&self, client: ClientId) -> bool {
        let share = self.shares.get(&client);
        share.is_some_and(|share| share.messages > 0)
    }

    /// For whom something is kept, how much, and whether the client has a consumer for it.
    pub(super) fn shares(&self) -> impl Iterator<Item = (ClientId, u64, bool)> {
        let share = |(&client, share): (&ClientId, &Share)| {
            (client, share.messages, !share.attached.is_empty())
        };
        self.shares.iter().map(share)
    }

    /// What is kept, by client.
    pub(super) fn holdings(&self) -> impl Iterator<Item = Holding> {
        let mut kept: BTreeMap<ClientId, Holding> = BTreeMap::new();
        for (&first, run) in &self.runs {
            let share = run.client.and_then(|it| Some((it, self.shares.get(&it)?)));
            let (client, messages) = match share {
                Some((client, share)) => (client, share.messages),
                // A count of 1 follows from the reservation.
                None if run.count == 0 => continue,
                None => (ANYBODY, 0),
            };
            let holding = kept.entry(client).or_insert_with(|| Holding {
                messages,
                ..Holding::of(client)
            });
            holding.runs.push(HeldRun {
                first,
                last: run.last,
                count: run.count,
            });
        }
        kept.into_values()
    }

    /// Forgets the counts of what is anybody's where no message below this number waits any more.
    pub(super) fn forget_below(&mut self, floor: u64) {
        let shares = &self.shares;
        self.runs.retain(|_, run| {
            run.last >= floor || run.client.is_some_and(|it| shares.contains_key(&it))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ClientId = ClientId(1);
    const B: ClientId = ClientId(2);

    fn holding(client: ClientId, messages: u64, runs: &[(u64, u64, u32)]) -> Holding {
        let run = |&(first, last, count): &(u64, u64, u32)| HeldRun { first, last, count };
        let runs = runs.iter().map(run).collect();
        Holding {
            client,
            messages,
            runs,
        }
    }

    fn at(lsn: u64) -> Position {
        Position {
            lsn,
            segment: 1,
            ordinal: 0,
            offset: 0,
            bytes: 1,
        }
    }

    fn lsns(positions: &[Position]) -> Vec<u64> {
        positions.iter().map(|it| it.lsn).collect()
    }

    #[test]
    fn runs_grow_over_what_is_gone_and_not_over_counts() {
        let mut it = Holding::of(A);
        it.add(5, 0, false);
        it.add(6, 0, false);
        it.add(9, 0, true);
        it.add(12, 0, false);
        it.add(13, 1, true);
        assert_eq!(it, holding(A, 5, &[(5, 9, 0), (12, 12, 0), (13, 13, 1)]));
        it.join(holding(A, 2, &[(7, 14, 3), (20, 21, 0)]));
        let joined = [(5, 9, 0), (10, 14, 3), (20, 21, 0)];
        assert_eq!(it.messages, 7);
        assert_eq!(it.runs, holding(A, 0, &joined).runs);
    }

    #[test]
    fn a_message_that_two_rows_name_is_kept_for_one_client() {
        let held = Held::new(vec![
            holding(B, 3, &[(5, 9, 0)]),
            holding(A, 3, &[(7, 12, 1)]),
        ]);
        assert_eq!(held.owner(4), None);
        assert_eq!((held.owner(7), held.owner(9)), (Some(B), Some(B)));
        assert_eq!((held.owner(10), held.owner(12)), (Some(A), Some(A)));
        assert_eq!((held.delivered(9), held.delivered(10)), (1, 2));
        assert_eq!(held.delivered(13), 0);
    }

    #[test]
    fn what_was_set_aside_comes_back_first_and_a_few_at_once() {
        let mut held = Held::new(vec![holding(A, 30, &[(1, 30, 0)])]);
        for lsn in 1..=30 {
            held.set_aside(A, at(lsn));
        }
        assert!(held.recall(None, |_| true).is_empty(), "nobody is there");
        held.attach(A, 7);
        assert!(
            held.recall(Some(1), |_| true).is_empty(),
            "it waits already"
        );
        assert!(held.recall(None, |_| false).is_empty(), "it takes nothing");
        let back = held.recall(Some(40), |number| number == 7);
        assert_eq!(lsns(&back), (1..=16).collect::<Vec<_>>());
        assert!(held.is_aside(17) && !held.is_aside(16));
        // One of those goes out, out of order: what is aside stays kept.
        held.take(20);
        assert_eq!((held.owner(19), held.owner(20)), (Some(A), None));
        held.take(21);
        assert_eq!(held.owner(19), Some(A));
        assert_eq!(held.first_aside(), Some(17));
    }

    #[test]
    fn what_is_released_is_anybodys_and_keeps_its_count() {
        let rows = vec![
            holding(A, 2, &[(1, 2, 0)]),
            holding(B, 2, &[(3, 3, 4), (4, 4, 0)]),
        ];
        let mut held = Held::new(rows);
        held.set_aside(B, at(4));
        held.attach(A, 1);
        assert_eq!(held.shares().count(), 2);
        let back = held.release(|_, is_attached| !is_attached);
        assert_eq!(lsns(&back), [4]);
        assert_eq!((held.owner(1), held.owner(3)), (Some(A), None));
        assert_eq!((held.delivered(3), held.delivered(4)), (5, 0));
        assert!(held.detach(A, 1) && !held.detach(B, 9));
        held.take(3);
        assert_eq!(held.delivered(3), 0);
    }

    #[test]
    fn what_one_client_had_is_anybodys_when_it_is_gone() {
        let rows = vec![
            holding(A, 2, &[(1, 2, 0)]),
            holding(B, 2, &[(3, 3, 4), (4, 4, 0)]),
        ];
        let mut held = Held::new(rows.clone());
        held.set_aside(B, at(4));
        assert_eq!(lsns(&held.release_client(B)), [4]);
        assert!(held.release_client(B).is_empty() && !held.is_aside(4));
        assert_eq!((held.owner(1), held.owner(3)), (Some(A), None));
        assert_eq!(held.delivered(3), 5);
        let left: Vec<Holding> = held.holdings().collect();
        assert_eq!(left, [rows[0].clone(), holding(ANYBODY, 0, &[(3, 3, 4)])]);
        // A successor knows the count, too, and nobody's name.
        let mut next = Held::new(left);
        assert_eq!((next.owner(1), next.owner(3)), (Some(A), None));
        assert_eq!((next.delivered(3), next.shares().count()), (5, 1));
        next.forget_below(3);
        assert_eq!((next.delivered(3), next.owner(1)), (5, Some(A)));
        next.forget_below(4);
        assert_eq!((next.delivered(3), next.owner(1)), (0, Some(A)));
        assert!(!held.detach(B, 9));
        held.take(3);
        assert_eq!(held.delivered(3), 0);
    }
}
