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

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

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
    /// Where it came from, as far as that is known.
    pub(super) queue: Option<usize>,
    pub(super) count: u32,
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

#[derive(Clone, Debug)]
struct Copy {
    queue: usize,
    is_durable: bool,
    len: usize,
    /// Number among all copies.
    order: u64,
    connection: u64,
    /// The process that it was sent to.
    life: u64,
    is_confirmed: bool,
    is_refused: bool,
    /// Not durable, and a server ended badly since.
    is_excused: bool,
    settled: Settled,
    /// A takeover did not find it.
    is_gone: bool,
    /// The process that brought it last.
    brought_by: Option<u64>,
    /// The connection that has it.
    holder: Option<u64>,
    /// The connection that had it broke.
    was_dropped: bool,
    /// It is written down that a client has it: the process that did so, and the client.
    kept_for: Option<(u64, usize)>,
}

impl Copy {
    fn must_be_there(&self) -> bool {
        self.is_confirmed && self.settled == Settled::No && (self.is_durable || !self.is_excused)
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
}

#[derive(Default)]
pub(super) struct Oracle {
    copies: BTreeMap<CopyId, Copy>,
    published: u64,
    /// Copies of a queue up to this order may come out of order.
    disturbed: BTreeMap<usize, u64>,
    /// By connection: the queue of a consumer that leaves in order and has no answer yet. Its server may
    /// not know it, and send it more.
    leaving: BTreeMap<u64, usize>,
    /// By consumer's connection, producer and producer's connection: the last unmarked first delivery.
    last: BTreeMap<(u64, usize, u64), u64>,
    /// Connections that their server has given up.
    left: BTreeSet<u64>,
    /// By process: settlements that it has read and that may not be durable.
    settling: BTreeMap<u64, Vec<CopyId>>,
    newest_life: u64,
    epoch: u64,
    violation: Option<String>,
    pub(super) counts: Counts,
}

impl Oracle {
    /// Notes what must not be; the first one counts.
    pub(super) fn blame(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub(super) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    // ---- producers ----

    #[allow(clippy::too_many_arguments, reason = "the facts of one sending")]
    pub(super) fn published(
        &mut self,
        id: CopyId,
        queue: usize,
        is_durable: bool,
        len: usize,
        connection: u64,
        life: u64,
    ) {
        self.published += 1;
        self.counts.published += 1;
        let copy = Copy {
            queue,
            is_durable,
            len,
            order: self.published,
            connection,
            life,
            is_confirmed: false,
            is_refused: false,
            is_excused: false,
            settled: Settled::No,
            is_gone: false,
            brought_by: None,
            holder: None,
            was_dropped: false,
            kept_for: None,
        };
        self.copies.insert(id, copy);
    }

    pub(super) fn confirmed(&mut self, id: CopyId) {
        self.counts.confirmed += 1;
        let newest_life = self.newest_life;
        let Some(copy) = self.copies.get_mut(&id) else {
            return self.blame(format!("{id} was confirmed and never sent"));
        };
        copy.is_confirmed = true;
        let is_late = copy.is_gone && copy.is_durable && copy.life != newest_life;
        if is_late && copy.settled == Settled::No {
            self.blame(format!(
                "{id} is confirmed by a server whose successor did not find it: it is lost"
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
    pub(super) fn delivered(&mut self, got: &Got, connection: u64, life: u64) -> Option<CopyId> {
        self.counts.delivered += 1;
        self.counts.redelivered += u64::from(got.count > 0);
        let id = match self.known(got) {
            Ok(id) => id,
            Err(what) => {
                self.blame(what);
                return None;
            }
        };
        let copy = self.copies.get_mut(&id)?;
        let disturbed = self.disturbed.get(&copy.queue).copied().unwrap_or(0);
        let is_first = copy.brought_by.is_none();
        let must_be_marked = copy.was_dropped || copy.brought_by.is_some_and(|by| by != life);
        let held_by = copy.holder.replace(connection);
        let was = copy.clone();
        copy.brought_by = Some(life);
        copy.was_dropped = false;
        if copy.settled == Settled::Handed {
            copy.settled = Settled::No;
        }
        if must_be_marked && got.count == 0 {
            self.blame(format!("{id} comes again without a mark"));
        }
        if let Some(held_by) = held_by
            && was.brought_by == Some(life)
            && !self.left.contains(&held_by)
        {
            self.blame(format!("{id} comes while another consumer has it"));
        }
        let is_disturbed =
            was.order <= disturbed || self.leaving.values().any(|it| *it == was.queue);
        if is_first && got.count == 0 && !is_disturbed {
            self.counts.ordered += 1;
            let key = (connection, id.producer, was.connection);
            let last = self.last.insert(key, was.order);
            if last.is_some_and(|last| last >= was.order) {
                self.blame(format!("{id} was overtaken"));
            }
        }
        Some(id)
    }

    /// The copy that a message is, if it may be there at all.
    /// A message comes to a client of a server that waits for others.
    pub(super) fn comes_early(&mut self, got: &Got, client: usize, life: u64) {
        let Ok(id) = self.known(got) else {
            return;
        };
        let kept_for = self.copies.get(&id).and_then(|copy| copy.kept_for);
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
            if let Some(holder) = copy.holder
                && copy.brought_by == Some(life)
                && !self.left.contains(&holder)
            {
                copy.kept_for = client_of(holder).map(|client| (life, client));
            }
        }
    }

    /// What was kept for a client may go to others.
    pub(super) fn gives_up(&mut self, client: usize) {
        for copy in self.copies.values_mut() {
            if copy.kept_for.is_some_and(|(_, owner)| owner == client) {
                copy.kept_for = None;
            }
        }
    }

    /// A server does not wait any more for the clients of its predecessors.
    pub(super) fn waits_no_more(&mut self, life: u64) {
        for copy in self.copies.values_mut() {
            if copy.kept_for.is_some_and(|(by, _)| by != life) {
                copy.kept_for = None;
            }
        }
    }

    fn known(&self, got: &Got) -> Result<CopyId, String> {
        let text = String::from_utf8_lossy(&got.body);
        let id = text.split(' ').next().and_then(CopyId::parse);
        let id = id.ok_or_else(|| format!("a message was invented: {text:.60}"))?;
        let Some(copy) = self.copies.get(&id) else {
            return Err(format!("{id} comes and was never sent"));
        };
        if let Some(queue) = got.queue.filter(|queue| *queue != copy.queue) {
            return Err(format!("{id} comes from queue {queue}"));
        }
        if body_of(id, copy.len) != text {
            return Err(format!("{id} comes with another body"));
        }
        if copy.is_refused {
            return Err(format!("{id} was refused and comes"));
        }
        if copy.settled == Settled::Promised {
            return Err(format!("{id} was settled for good and comes again"));
        }
        if copy.is_gone {
            return Err(format!("{id} was gone at a takeover and comes again"));
        }
        Ok(id)
    }

    /// A client hands in an outcome. `is_end`: accepted or rejected.
    pub(super) fn handed_back(&mut self, id: CopyId, is_end: bool) {
        if let Some(copy) = self.copies.get_mut(&id) {
            copy.holder = None;
            copy.kept_for = None;
            if is_end {
                copy.settled = Settled::Handed;
            }
        }
    }

    /// A consumer leaves a link or a connection in order, or has left: what was on its way to it may
    /// come later than what was sent after it.
    pub(super) fn disturbed(&mut self, queue: usize) {
        self.disturbed.insert(queue, self.published);
    }

    /// A consumer begins to leave in order.
    pub(super) fn leaves(&mut self, connection: u64, queue: usize) {
        self.leaving.insert(connection, queue);
    }

    /// Its server knows.
    pub(super) fn has_left(&mut self, connection: u64) {
        if let Some(queue) = self.leaving.remove(&connection) {
            self.disturbed(queue);
        }
    }

    /// A client gives a message up by leaving in order.
    pub(super) fn let_go(&mut self, id: CopyId) {
        if let Some(copy) = self.copies.get_mut(&id) {
            copy.holder = None;
            copy.kept_for = None;
        }
    }

    /// The connection of a client that had this message broke.
    pub(super) fn dropped(&mut self, id: CopyId) {
        if let Some(copy) = self.copies.get_mut(&id) {
            copy.holder = None;
            copy.was_dropped = true;
        }
    }

    // ---- servers ----

    /// A server has read an outcome that ends a message.
    pub(super) fn outcome_read(&mut self, id: CopyId, life: u64) {
        self.settling.entry(life).or_default().push(id);
    }

    /// Nothing of a server waits for the disk.
    pub(super) fn quiet(&mut self, life: u64) {
        for id in self.settling.remove(&life).unwrap_or_default() {
            if let Some(copy) = self.copies.get_mut(&id)
                && copy.settled == Settled::Handed
            {
                copy.settled = Settled::Promised;
                self.counts.promised += 1;
            }
        }
    }

    /// A server has given a connection up: what its client had may go to others.
    pub(super) fn left(&mut self, connection: u64) {
        self.left.insert(connection);
    }

    /// A process begins to serve with what it found in the store.
    pub(super) fn took_over(&mut self, life: u64, epoch: u64, found: &[Got]) {
        self.counts.takeovers += 1;
        self.leaving.clear();
        if epoch <= self.epoch {
            self.blame(format!("epoch {epoch} follows epoch {}", self.epoch));
        }
        (self.epoch, self.newest_life) = (epoch, life);
        let ids = match self.judge(found, false) {
            Ok(ids) => ids,
            Err(what) => return self.blame(format!("at the takeover of epoch {epoch}: {what}")),
        };
        for (id, copy) in &mut self.copies {
            match ids.contains(id) {
                // It is durable whoever may have heard of it, and no settlement of it was: it stays.
                true if copy.is_durable => {
                    copy.is_confirmed = true;
                    if copy.settled == Settled::Handed {
                        copy.settled = Settled::No;
                    }
                }
                false if copy.life != life => copy.is_gone = true,
                _ => {}
            }
        }
    }

    /// A process has ended.
    pub(super) fn ended(&mut self, life: u64, is_orderly: bool) {
        self.settling.remove(&life);
        if !is_orderly {
            for copy in self.copies.values_mut() {
                copy.is_excused |= !copy.is_durable;
            }
        }
    }

    /// Holds all messages of a store, or those that a sole consumer of a new server got from it, against
    /// what is known. `marks`: they carry delivery counts, and the consumer is none of the clients.
    pub(super) fn judge(&self, found: &[Got], marks: bool) -> Result<BTreeSet<CopyId>, String> {
        let mut ids = BTreeSet::new();
        let mut last: BTreeMap<(usize, u64, bool), u64> = BTreeMap::new();
        for got in found {
            let id = self.known(got)?;
            if !ids.insert(id) {
                return Err(format!("{id} is there twice"));
            }
            let Some(copy) = self.copies.get(&id) else {
                continue;
            };
            if marks && got.count == 0 && copy.brought_by.is_some() {
                return Err(format!("{id} comes again without a mark"));
            }
            if let Some((_, client)) = copy.kept_for.filter(|_| marks && !got.is_late) {
                return Err(format!(
                    "{id} comes to a stranger, kept for client {client}"
                ));
            }
            let key = (id.producer, copy.connection, got.is_late);
            let before = last.insert(key, copy.order);
            if before.is_some_and(|before| before > copy.order) {
                return Err(format!("{id} is out of order"));
            }
        }
        for (id, copy) in &self.copies {
            let is_promised = copy.must_be_there() && (copy.is_durable || !marks);
            if is_promised && !ids.contains(id) {
                return Err(format!("{id} was confirmed and is lost"));
            }
        }
        Ok(ids)
    }

    /// At the end, with all queues empty and all clients done.
    pub(super) fn finish(&mut self) {
        let lost = self.copies.iter().find(|(_, copy)| copy.must_be_there());
        if let Some((id, copy)) = lost {
            let came = if copy.brought_by.is_some() {
                "came, was not settled, and is lost"
            } else {
                "was confirmed and never came"
            };
            self.blame(format!("{id} {came}"));
        }
    }
}
