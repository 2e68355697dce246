//! What clients saw, and whether a broker may have done that.
//!
//! Clients write one JSON line for each event, with the time of CLOCK_MONOTONIC. Messages carry
//! their sender, a sequence number and the number of the attempt: a message that was sent again
//! because its confirm did not come is a *copy* of its own to the broker, and is judged apart.
//!
//! | event | written |
//! |---|---|
//! | `connect`, `disconnect` | a connection was opened, was lost; `connection` counts them |
//! | `publish` | just before a copy is handed to the client library |
//! | `confirm`, `refuse` | when an accepted outcome, another outcome came |
//! | `deliver` | when a copy came, with its `delivery_count` |
//! | `settle` | just before the accepting disposition is handed to the client library |
//! | `corrupt`, `error` | a body was not what was sent; a link or connection was refused |
//! | `done` | the client has nothing left to do |
//!
//! [`check`] takes time linear in the number of events, but for putting them in order of time.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;

/// A settlement written this long before the end of the active must have reached its store.
pub(crate) const SETTLEMENT_GRACE_MS: u64 = 500;

const MILLISECOND_NS: u64 = 1_000_000;

/// How many violations of a history are told in words.
const EXAMPLES: usize = 20;

/// One event of a client.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    /// CLOCK_MONOTONIC.
    pub(crate) time_ns: u64,
    #[serde(rename = "event")]
    pub(crate) kind: Kind,
    /// Whose event it is: a sender's or a receiver's name.
    pub(crate) client: String,
    #[serde(default)]
    connection: u32,
    #[serde(default)]
    sender: String,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    attempt: u32,
    #[serde(default)]
    delivery_count: u32,
    #[serde(default)]
    text: String,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Connect,
    Disconnect,
    Publish,
    Confirm,
    Refuse,
    Deliver,
    Settle,
    Corrupt,
    Error,
    Done,
}

/// What [`check`] found. Zero is good, except where said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Messages handed to client libraries (not a fault).
    pub(crate) published: u64,
    /// Copies that were confirmed (not a fault).
    pub(crate) confirmed: u64,
    /// Deliveries (not a fault).
    pub(crate) delivered: u64,
    /// Confirmed and never delivered.
    pub(crate) lost: u64,
    /// Delivered and never published.
    pub(crate) phantoms: u64,
    /// Delivered again although the broker must have had the settlement.
    pub(crate) settled_came_again: u64,
    /// Delivered again although neither the active nor the connection of the first delivery ended.
    pub(crate) unexplained: u64,
    /// Delivered again with a delivery count of 0.
    pub(crate) unmarked: u64,
    /// First deliveries that overtook an earlier message of their sender.
    pub(crate) out_of_order: u64,
    /// Bodies that were not what was sent.
    pub(crate) corrupt: u64,
    /// Outcomes other than accepted, refused links and connections.
    pub(crate) refused: u64,
    /// Mistakes of a client program: a confirm without a publish, a confirmed message sent again.
    pub(crate) client_faults: u64,
    /// Copies that came again because they were not settled when the active ended (not a fault).
    pub(crate) duplicates_unsettled: u64,
    /// Copies that came again because their settlement was under way (not a fault).
    pub(crate) duplicates_settling: u64,
    /// Messages whose unconfirmed copy had been stored too (not a fault).
    pub(crate) duplicates_unconfirmed: u64,
    /// For each outage: until the first sender, and until all of them, had a new confirm.
    pub(crate) outages: Vec<Outage>,
    /// The first violations, in words.
    pub(crate) examples: Vec<String>,
}

/// How long clients had to wait after the active ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outage {
    /// From the kill to the first confirm of any sender over a new connection.
    pub(crate) first_confirm_ns: Option<u64>,
    /// From the kill to the first new confirm of the sender that had to wait longest.
    pub(crate) all_confirm_ns: Option<u64>,
}

impl Report {
    /// Everything that must not be, added up.
    pub(crate) fn violations(&self) -> u64 {
        self.lost
            + self.phantoms
            + self.settled_came_again
            + self.unexplained
            + self.unmarked
            + self.out_of_order
            + self.corrupt
            + self.refused
            + self.client_faults
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "published {}, confirmed {}, deliveries {}",
            self.published, self.confirmed, self.delivered
        )?;
        writeln!(
            f,
            "lost {}, settled but came again {}, came again without a reason {}, unmarked {}, out of \
             order {}, phantoms {}, corrupt {}, refused {}, faults of a client {}",
            self.lost,
            self.settled_came_again,
            self.unexplained,
            self.unmarked,
            self.out_of_order,
            self.phantoms,
            self.corrupt,
            self.refused,
            self.client_faults
        )?;
        write!(
            f,
            "duplicates: {} unsettled at the kill, {} with the settlement under way, {} unconfirmed \
             and sent again",
            self.duplicates_unsettled, self.duplicates_settling, self.duplicates_unconfirmed
        )?;
        for example in &self.examples {
            write!(f, "\n  {example}")?;
        }
        Ok(())
    }
}

/// One copy: what the broker knows as one message.
#[derive(Default)]
struct Copy {
    /// Position among all copies of its sender: the order in which they must come.
    position: u64,
    confirmed: bool,
    /// Who had it last: time, client, connection.
    last: Option<(u64, usize, u32)>,
    settled_ns: Option<u64>,
}

#[derive(Default)]
struct Sender {
    name: String,
    /// Messages by sequence number, their copies by attempt - 1.
    messages: Vec<Vec<Copy>>,
    copies: u64,
    /// The receivers that had something of this sender.
    receivers: Vec<usize>,
    /// The highest first delivery so far, to whomever, and how often one was overtaken.
    highest: Option<u64>,
    overtaken: u64,
}

/// The first deliveries of one sender's copies to one receiver.
#[derive(Default)]
struct Stream {
    connection: u32,
    highest_of_connection: Option<u64>,
    highest_unmarked: Option<u64>,
}

#[derive(Default)]
struct Client {
    /// When each of its connections was opened and lost.
    opened: HashMap<u32, u64>,
    lost: HashMap<u32, u64>,
    /// For each outage: its first confirm over a connection opened after it.
    first_confirm: Vec<Option<u64>>,
    publishes: bool,
}

struct Checker<'a> {
    outages: &'a [u64],
    senders: Vec<Sender>,
    sender_index: HashMap<String, usize>,
    clients: Vec<Client>,
    client_index: HashMap<String, usize>,
    streams: HashMap<(usize, usize), Stream>,
    /// When any client lost a connection.
    last_loss_ns: Option<u64>,
    report: Report,
}

/// Checks the events of all clients of a run. `outages`: when the active server was killed or asked to
/// stop, in order (CLOCK_MONOTONIC, nanoseconds). The queues must be empty at the end.
pub(crate) fn check(mut events: Vec<Event>, outages: &[u64]) -> Report {
    // Histories of clients are ordered already; a stable sort merges such runs.
    events.sort_by_key(|event| event.time_ns);
    let mut checker = Checker {
        outages,
        senders: Vec::new(),
        sender_index: HashMap::new(),
        clients: Vec::new(),
        client_index: HashMap::new(),
        streams: HashMap::new(),
        last_loss_ns: None,
        report: Report::default(),
    };
    for event in &events {
        checker.event(event);
    }
    checker.finish()
}

impl Checker<'_> {
    fn event(&mut self, event: &Event) {
        let client = self.client(&event.client);
        match event.kind {
            Kind::Connect => {
                let opened = &mut self.clients[client].opened;
                opened.insert(event.connection, event.time_ns);
            }
            Kind::Disconnect => {
                self.last_loss_ns = Some(event.time_ns);
                let lost = &mut self.clients[client].lost;
                lost.insert(event.connection, event.time_ns);
            }
            Kind::Publish => self.publish(event, client),
            Kind::Confirm => self.confirm(event, client),
            Kind::Deliver => self.deliver(event, client),
            Kind::Settle => {
                if let Some((_, copy)) = self.copy(event) {
                    copy.settled_ns = Some(event.time_ns);
                }
            }
            Kind::Refuse | Kind::Error => {
                self.report.refused += 1;
                self.example(|| format!("{}: {}", name(event), event.text));
            }
            Kind::Corrupt => {
                self.report.corrupt += 1;
                self.example(|| format!("{}: {}", name(event), event.text));
            }
            Kind::Done => {}
        }
    }

    fn publish(&mut self, event: &Event, client: usize) {
        self.clients[client].publishes = true;
        let sender = self.sender(&event.sender);
        let sender = &mut self.senders[sender];
        let position = sender.copies;
        sender.copies += 1;
        let seq = usize::try_from(event.seq).unwrap_or(usize::MAX);
        if sender.messages.len() <= seq {
            // Clients number without gaps; a gap makes a message that nobody published.
            sender.messages.resize_with(seq + 1, Vec::new);
        }
        let copies = &mut sender.messages[seq];
        let is_next = copies.len() + 1 == event.attempt as usize;
        let needless = copies.last().is_some_and(|copy| copy.confirmed);
        if is_next {
            copies.push(Copy {
                position,
                ..Copy::default()
            });
        }
        if event.attempt == 1 {
            self.report.published += 1;
        }
        if needless || !is_next {
            self.report.client_faults += 1;
            self.example(|| format!("{} must not be sent again", name(event)));
        }
    }

    fn confirm(&mut self, event: &Event, client: usize) {
        let Some((_, copy)) = self.copy(event) else {
            self.report.client_faults += 1;
            self.example(|| format!("{} was confirmed and not published", name(event)));
            return;
        };
        copy.confirmed = true;
        self.report.confirmed += 1;
        let client = &mut self.clients[client];
        client.first_confirm.resize(self.outages.len(), None);
        let opened = client.opened.get(&event.connection).copied();
        // The connection was opened after the outages before this index.
        let before = self
            .outages
            .partition_point(|&outage| opened.is_some_and(|opened| outage < opened));
        if let Some(last) = before.checked_sub(1) {
            client.first_confirm[last].get_or_insert(event.time_ns);
        }
    }

    fn deliver(&mut self, event: &Event, client: usize) {
        self.report.delivered += 1;
        let outages = self.outages;
        let Some((sender, copy)) = self.copy(event) else {
            self.report.phantoms += 1;
            self.example(|| format!("{} came and was never published", name(event)));
            return;
        };
        let position = copy.position;
        let previous = copy.last.replace((event.time_ns, client, event.connection));
        let settled_ns = copy.settled_ns.take();
        let Some(previous) = previous else {
            self.first_delivery(event, sender, client, position);
            return;
        };
        // Came again: what explains it is the end of the server that had sent it, the first end after the
        // connection of that delivery was opened.
        let opened = self.clients[previous.1].opened.get(&previous.2);
        let index = outages.partition_point(|outage| Some(outage) <= opened);
        let outage = outages.get(index).filter(|&&outage| outage < event.time_ns);
        let grace = SETTLEMENT_GRACE_MS * MILLISECOND_NS;
        match (settled_ns, outage) {
            (Some(settled), Some(outage)) if outage.saturating_sub(settled) < grace => {
                self.report.duplicates_settling += 1;
            }
            (Some(settled), _) => {
                self.report.settled_came_again += 1;
                let age = (event.time_ns - settled) / MILLISECOND_NS;
                self.example(|| {
                    format!("{} was settled {age} ms before it came again", name(event))
                });
            }
            (None, Some(_)) => self.report.duplicates_unsettled += 1,
            (None, None) if self.was_lost(previous, event.time_ns) => {
                self.report.duplicates_unsettled += 1;
            }
            (None, None) => {
                self.report.unexplained += 1;
                self.example(|| format!("{} came again without a reason", name(event)));
            }
        }
        if event.delivery_count == 0 {
            self.report.unmarked += 1;
            self.example(|| format!("{} came again with delivery count 0", name(event)));
        }
    }

    /// Whether the connection of a delivery was lost by that time.
    fn was_lost(&self, (_, client, connection): (u64, usize, u32), by_ns: u64) -> bool {
        let lost = self.clients[client].lost.get(&connection);
        lost.is_some_and(|&lost| lost < by_ns)
    }

    /// The order of first deliveries. What is not marked as redelivered is in order for each receiver, over
    /// all its connections. What is marked may have gone to another receiver that never read it: it is in
    /// order on its connection, unless a connection was lost meanwhile, whose messages came back. A sole
    /// receiver sees all in order.
    fn first_delivery(&mut self, event: &Event, sender: usize, client: usize, position: u64) {
        let opened = self.clients[client].opened.get(&event.connection);
        let is_undisturbed = self.last_loss_ns.as_ref() < opened;
        let stream = self.streams.entry((client, sender)).or_default();
        if stream.connection != event.connection {
            stream.connection = event.connection;
            stream.highest_of_connection = None;
        }
        let position = Some(position);
        let is_unmarked = event.delivery_count == 0;
        let overtaken = is_unmarked && stream.highest_unmarked > position
            || is_undisturbed && stream.highest_of_connection > position;
        stream.highest_of_connection = stream.highest_of_connection.max(position);
        if is_unmarked {
            stream.highest_unmarked = stream.highest_unmarked.max(position);
        }
        let sender = &mut self.senders[sender];
        if !sender.receivers.contains(&client) {
            sender.receivers.push(client);
        }
        if sender.highest > position && !overtaken {
            sender.overtaken += 1;
        }
        sender.highest = sender.highest.max(position);
        if overtaken {
            self.report.out_of_order += 1;
            self.example(|| format!("{} was overtaken by a later message", name(event)));
        }
    }

    fn finish(mut self) -> Report {
        let mut unheard = Vec::new();
        for sender in &self.senders {
            if sender.receivers.len() == 1 && sender.overtaken > 0 {
                self.report.out_of_order += sender.overtaken;
                unheard.push(format!("{}: overtaken at its sole receiver", sender.name));
            }
            for (seq, copies) in sender.messages.iter().enumerate() {
                let lost = |copy: &&Copy| copy.confirmed && copy.last.is_none();
                let lost = copies.iter().filter(lost).count() as u64;
                if lost > 0 {
                    self.report.lost += lost;
                    unheard.push(format!(
                        "{}-{seq} was confirmed and never came",
                        sender.name
                    ));
                }
                let came = copies.iter().filter(|copy| copy.last.is_some()).count() as u64;
                self.report.duplicates_unconfirmed += came.saturating_sub(1);
            }
        }
        for line in unheard {
            self.example(|| line);
        }
        self.report.outages = (0..self.outages.len())
            .map(|index| self.outage(index))
            .collect();
        self.report
    }

    fn outage(&self, index: usize) -> Outage {
        let start = self.outages[index];
        let publishers = self.clients.iter().filter(|client| client.publishes);
        let confirms = publishers
            .map(|client| client.first_confirm.get(index).copied().flatten())
            .collect::<Vec<_>>();
        let first = confirms.iter().flatten().min();
        let all = confirms.iter().copied().collect::<Option<Vec<_>>>();
        Outage {
            first_confirm_ns: first.map(|time| time - start),
            all_confirm_ns: all
                .and_then(|all| all.into_iter().max())
                .map(|time| time - start),
        }
    }

    /// The published copy that an event is about, and its sender.
    fn copy(&mut self, event: &Event) -> Option<(usize, &mut Copy)> {
        let sender = *self.sender_index.get(&event.sender)?;
        let copies = self.senders[sender]
            .messages
            .get_mut(usize::try_from(event.seq).ok()?)?;
        let copy = copies.get_mut((event.attempt as usize).checked_sub(1)?)?;
        Some((sender, copy))
    }

    fn sender(&mut self, name: &str) -> usize {
        if let Some(&index) = self.sender_index.get(name) {
            return index;
        }
        self.senders.push(Sender {
            name: name.to_owned(),
            ..Sender::default()
        });
        self.sender_index
            .insert(name.to_owned(), self.senders.len() - 1);
        self.senders.len() - 1
    }

    fn client(&mut self, name: &str) -> usize {
        if let Some(&index) = self.client_index.get(name) {
            return index;
        }
        self.clients.push(Client::default());
        self.client_index
            .insert(name.to_owned(), self.clients.len() - 1);
        self.clients.len() - 1
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.report.examples.len() < EXAMPLES {
            self.report.examples.push(text());
        }
    }
}

fn name(event: &Event) -> String {
    let Event {
        client,
        sender,
        seq,
        attempt,
        ..
    } = event;
    format!("{client}: {sender}-{seq} (attempt {attempt})")
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
