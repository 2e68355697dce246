//! The join of the protocol engine, the broker core and the store: everything that an active server
//! does between a socket and a disk, without either. No clock, no threads; all time is an argument.
//!
//! The promise of the whole product is kept here: a durable message is confirmed, and any message
//! delivered, only when its batch is durable *and* the store is ours ([`Node::advance`]).
//!
//! The owner feeds bytes ([`Node::handle_bytes`]), runs the store's jobs ([`Node::poll_job`],
//! [`Node::complete`]) and reads ([`Node::poll_read`], [`Node::read_done`]) on its threads, and
//! writes the output of the connections that [`Node::poll_dirty`] names.

mod administer;
mod attach;
mod clients;
mod consume;
mod desk;
mod destinations;
mod events;
mod held_rows;
mod holds;
mod impatience;
mod look;
mod management;
mod meta;
mod overflow;
mod peer;
mod pending;
mod permits;
mod publish;
mod purges;
mod queues;
mod reads;
mod records;
mod recover;
mod routing;
mod sasl;
mod settings;
mod standby;
mod status;
mod subscribe;
mod subscriptions;
mod temporary_topics;
#[cfg(test)]
mod tests;
mod translate;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use slab::Slab;
use steadfast_storage::{
    Cursor, DurableBatch, FatalError, Fence, Job, JobDone, LeftOut, Store, Ticket,
};

use crate::auth::{Dialogue, LoginTask, Users, Verdict};
use crate::broker::{self, Broker, Effect, Event, ReadRequest, Reader};
use crate::model::Directory;
use crate::proto::{self, Connection, ErrorCondition, LinkId, Outcome, condition};

use clients::Clients;
use holds::Holds;
use overflow::Gauges;
use peer::Peer;
use pending::{Arrival, Item, Pending};
use purges::Purges;
use routing::Routing;
use sasl::Sasl;
use subscriptions::Subscriptions;
use temporary_topics::TemporaryTopics;
use translate::store_queue;

pub use administer::{ConnectionStatus, ConsumerStatus, Deletion, Dropped};
pub use clients::ReconnectStatus;
pub use desk::ManagementReply;
pub use look::{Holder, Look, LookAt, LookFrom, Looked, MessageId, Seen, SeenMessage, Undiscarded};
pub use management::{ManagementRequest, RequestId};
pub use peer::ConnectionId;
pub use purges::{PurgeId, PurgeState};
pub use reads::{ReadTask, ReadTaskDone};
pub use records::queue_names;
pub use settings::{Caller, CertificateUser, NodeSettings, Now, ServerAddress};
pub use standby::{ACTIVE_PROPERTY, MANAGEMENT_CAPABILITY, ROLE_PROPERTY, Standby};
pub use status::{NodeStatus, QueueStatus, SubscriptionStatus};

/// Whether the store is ours, as far as this process can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ownership {
    /// Confirms and deliveries may leave.
    Held,
    /// In doubt: nothing leaves until a write has succeeded.
    Lapsed,
    /// Gone for good.
    Lost(FatalError),
}

/// An active server without sockets, clock and threads.
#[derive(Debug)]
pub struct Node {
    settings: NodeSettings,
    proto: proto::Settings,
    store: Store,
    broker: Broker,
    /// Destinations and permissions.
    directory: Arc<Directory>,
    /// Those of the directory, ready to be checked.
    users: Arc<Users>,
    /// Logins that are to be judged.
    logins: VecDeque<(ConnectionId, LoginTask)>,
    subscriptions: Subscriptions,
    temporary_topics: TemporaryTopics,
    routing: Routing,
    /// What waits in queues that have limits.
    gauges: Gauges,
    peers: Slab<Peer>,
    next_serial: u32,
    /// Where the messages of a consumer go. Never iterated.
    outlets: HashMap<u64, (ConnectionId, LinkId)>,
    next_consumer: u64,
    next_queue: u32,
    /// What waits for a batch.
    pending: Pending,
    /// Batches that are durable and whose items did not leave yet.
    durable: VecDeque<DurableBatch>,
    /// Answers that wait for nothing but ownership.
    owed: Vec<Item>,
    reads: VecDeque<ReadTask>,
    /// Reads that the operating system refused; tried again at the next tick.
    failed_reads: Vec<reads::FailedRead>,
    /// Reads that empty queues and wait for the log.
    late_reads: VecDeque<ReadRequest>,
    /// Messages that the disk refuses to read: they are left out as long as this process lives.
    unreadable: LeftOut,
    /// Where each reader goes on.
    cursors: BTreeMap<Reader, Cursor>,
    dirty: VecDeque<ConnectionId>,
    /// Connections whose clients hear too seldom from ticks.
    impatient: Vec<ConnectionId>,
    /// Requests to `$management` that nobody has taken yet.
    requests: VecDeque<ManagementRequest>,
    /// Publishers that wait for credit.
    starved: Vec<(ConnectionId, LinkId)>,
    ownership: Ownership,
    is_stopping: bool,
    clients: Clients,
    holds: Holds,
    /// The batch of the last settlement.
    settled_ticket: Option<Ticket>,
    /// The log did not take a settlement: it is lost or sealed.
    is_log_over: bool,
    purges: Purges,
    counters: status::Counters,
}

impl Node {
    /// Takes over an open store: rebuilds the queues from its rows.
    pub fn new(settings: NodeSettings, store: Store, now: Now) -> Self {
        let proto = settings.proto_settings(Some(store.epoch()), false);
        let mut node = Self {
            broker: Broker::new(settings.limits),
            directory: Arc::default(),
            users: Arc::new(Users::new(&BTreeMap::new())),
            logins: VecDeque::new(),
            subscriptions: Subscriptions::default(),
            temporary_topics: TemporaryTopics::default(),
            routing: Routing::default(),
            gauges: Gauges::default(),
            proto,
            settings,
            store,
            peers: Slab::new(),
            next_serial: 0,
            outlets: HashMap::new(),
            next_consumer: 1,
            next_queue: 1,
            pending: Pending::default(),
            durable: VecDeque::new(),
            owed: Vec::new(),
            reads: VecDeque::new(),
            failed_reads: Vec::new(),
            late_reads: VecDeque::new(),
            unreadable: LeftOut::default(),
            cursors: BTreeMap::new(),
            dirty: VecDeque::new(),
            impatient: Vec::new(),
            requests: VecDeque::new(),
            starved: Vec::new(),
            ownership: Ownership::Held,
            is_stopping: false,
            clients: Clients::default(),
            holds: Holds::default(),
            settled_ticket: None,
            is_log_over: false,
            purges: Purges::default(),
            counters: status::Counters::default(),
        };
        node.recover(now);
        node
    }

    // ---- connections ----

    /// A client connected.
    pub fn connect(&mut self, now: Now) -> ConnectionId {
        self.connect_as(now, Caller::default())
    }

    /// A client connected, of whom something is known.
    pub fn connect_as(&mut self, now: Now, caller: Caller) -> ConnectionId {
        let serial = self.next_serial;
        self.next_serial = self.next_serial.wrapping_add(1);
        let mut proto = self.proto.clone();
        if caller.certificate.is_some() {
            settings::offer_external(&mut proto);
        }
        let connection = Connection::server(proto, now.monotonic_ms);
        let mut peer = Peer::new(serial, connection, now.monotonic_ms);
        let forced = caller.certificate.as_ref().filter(|user| user.is_forced);
        peer.user = forced.map(|user| user.name.clone());
        peer.is_verified = forced.is_some();
        peer.sasl = Sasl::new(caller);
        let index = u32::try_from(self.peers.insert(peer)).unwrap_or(u32::MAX);
        let id = ConnectionId { index, serial };
        self.mark_dirty(id);
        id
    }

    /// A client sent bytes: consumes what is complete and leaves the rest.
    pub fn handle_bytes(&mut self, now: Now, id: ConnectionId, input: &mut BytesMut) {
        self.check_fence(now);
        loop {
            let before = input.len();
            let Some(peer) = self.peer_mut(id) else {
                input.clear();
                return;
            };
            peer.last_heard_ms = now.monotonic_ms;
            peer.connection.handle_bytes(now.monotonic_ms, input);
            self.take_events(now, id);
            // Input is held back while SASL or open wait for our answer, which was given now.
            if input.is_empty() || input.len() == before {
                break;
            }
        }
        self.work(now);
    }

    /// The client's side of the socket ended or failed.
    pub fn handle_eof(&mut self, now: Now, id: ConnectionId) {
        if let Some(peer) = self.peer_mut(id) {
            peer.connection.handle_eof(now.monotonic_ms);
            self.take_events(now, id);
            self.work(now);
        }
    }

    /// Some output of a connection was written.
    pub fn handle_written(&mut self, now: Now, id: ConnectionId) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        if peer.waits_for_output && !peer.connection.is_output_full() {
            peer.waits_for_output = false;
            self.offer_all(id, None);
            self.work(now);
        }
    }

    /// The socket is gone; forgets the connection. What it had not settled goes back.
    pub fn disconnect(&mut self, now: Now, id: ConnectionId) {
        if self.peer_mut(id).is_none() {
            return;
        }
        self.handle_eof(now, id);
        // An engine that was already closed reports nothing more.
        self.connection_over(id, broker::Gone::Lost);
        self.peers.remove(id.index as usize);
        self.work(now);
    }

    /// Output of a connection, to be written and advanced. `None` when it is gone.
    pub fn output(&mut self, id: ConnectionId) -> Option<&mut BytesMut> {
        self.peer_mut(id).map(|peer| peer.connection.output())
    }

    /// Whether the socket is to be closed once the output is written.
    pub fn is_finished(&self, id: ConnectionId) -> bool {
        self.peer(id)
            .is_none_or(|peer| peer.connection.is_finished())
    }

    /// Whether input of a connection may be read now. No: its client does not read what we write,
    /// or the disk does not keep up with its messages.
    pub fn wants_input(&self, id: ConnectionId) -> bool {
        let backlog_bytes = self.store.backlog_bytes();
        let bytes_max = self.settings.backlog_hard_bytes;
        self.peer(id)
            .is_none_or(|peer| peer.wants_input(backlog_bytes, bytes_max))
    }

    /// The next connection that may have output, each at most once.
    pub fn poll_dirty(&mut self) -> Option<ConnectionId> {
        loop {
            let id = self.dirty.pop_front()?;
            if let Some(peer) = self.peer_mut(id) {
                peer.is_dirty = false;
                peer.connection.flush();
                return Some(id);
            }
        }
    }

    // ---- logins ----

    /// The next login to be judged, for a thread that may take its time. Call until `None`. Each connection
    /// has at most one.
    pub fn poll_login(&mut self) -> Option<(ConnectionId, LoginTask)> {
        self.logins.pop_front()
    }

    /// Takes a judgement: what [`LoginTask::run`] returned.
    pub fn login_done(&mut self, now: Now, id: ConnectionId, judgement: (Dialogue, Verdict)) {
        self.check_fence(now);
        let users = self.users_asked();
        if let Some(peer) = self.peer_mut(id) {
            let answer = peer.sasl.judged(judgement, users.as_ref());
            self.answer_sasl(id, answer);
            self.take_events(now, id);
        }
        self.work(now);
    }

    // ---- the store ----

    /// The next job of the store for its lane. Call until `None`.
    pub fn poll_job(&mut self, now: Now) -> Option<Job> {
        self.write_due_holds(now);
        self.store.poll_job(now.boot_ms)
    }

    /// When [`Self::poll_job`] wants to be called although nothing happens, in the clock of
    /// `boot_ms`.
    pub fn next_job_deadline_ms(&self) -> Option<u64> {
        let deadlines = [self.store.next_deadline_ms(), self.holds_due_ms()];
        deadlines.into_iter().flatten().min()
    }

    /// Takes a finished job. Call [`Self::poll_job`], so that the disk is busy again, then
    /// [`Self::advance`].
    ///
    /// # Errors
    /// The log failed: nothing may leave any more; close the sockets and end.
    pub fn complete(&mut self, done: JobDone) -> Result<(), FatalError> {
        let damaged_copies = self.store.damaged_copies();
        match self.store.complete(done) {
            Ok(batches) => {
                self.durable.extend(batches);
                if self.store.damaged_copies() > damaged_copies {
                    tracing::error!(
                        event = "store_copy_damaged",
                        "a compacted file of the store is damaged; the segment that it stands for was still \
                         there and is used where it gives more: look after the disk, `steadfast store verify` \
                         tells whether other files are damaged"
                    );
                }
                Ok(())
            }
            Err(fatal) => {
                self.ownership = Ownership::Lost(fatal.clone());
                Err(fatal)
            }
        }
    }

    /// Lets out what became durable: confirms, messages for consumers, replies to settlements.
    pub fn advance(&mut self, now: Now) {
        self.check_fence(now);
        self.start_late_reads();
        self.work(now);
        self.grant_starved();
    }

    /// Looks whether the store is still ours, and goes on where that was in doubt.
    pub fn refresh(&mut self, now: Now) {
        self.check_fence(now);
        self.work(now);
    }

    /// Regular work, a few times in a second: time-outs of the protocol, second attempts, the end of the
    /// time in which clients may return.
    pub fn tick(&mut self, now: Now) {
        self.check_fence(now);
        let backlog_bytes = self.store.backlog_bytes();
        for (_, peer) in &mut self.peers {
            if !peer.wants_input(backlog_bytes, self.settings.backlog_hard_bytes) {
                // It may well have spoken; nobody has listened.
                peer.connection.handle_reading_paused(now.monotonic_ms);
            }
        }
        let peers = self.peers.iter();
        let all: Vec<ConnectionId> = peers
            .map(|(index, peer)| connection_id(index, peer))
            .filter(|id| {
                self.timeout_of(*id)
                    .is_some_and(|at| at <= now.monotonic_ms)
            })
            .collect();
        self.handle_timeouts(now, &all);
        for (_, peer) in &mut self.peers {
            peer.release_memory();
        }
        for failed in std::mem::take(&mut self.failed_reads) {
            self.read_again(failed);
        }
        self.expire_clients(now);
        self.read_gauges();
        self.work(now);
        self.grant_starved();
    }

    /// Why nothing leaves any more, if so.
    pub fn fatal(&self) -> Option<&FatalError> {
        match &self.ownership {
            Ownership::Lost(fatal) => Some(fatal),
            _ => None,
        }
    }

    /// Whether the store takes messages: it has space.
    pub fn accepts_messages(&self) -> bool {
        self.store.accepts_messages()
    }

    /// Writes of the log that found no space so far; each is tried again.
    pub fn refused_writes(&self) -> u64 {
        self.store.refused_writes()
    }

    /// Whether ownership of the store is in doubt: nothing leaves until a write succeeds.
    pub fn is_lapsed(&self) -> bool {
        self.ownership == Ownership::Lapsed
    }

    /// Forces a durable write through the lock, for when somebody claims that the store is not ours
    /// any more: it fails if that is so, which ends this process.
    pub fn prove_ownership(&mut self, now: Now) {
        let proof = now.boot_ms.to_le_bytes();
        // An error means that the log is lost or sealed already.
        let _lost_or_sealed =
            self.store
                .put_row(records::KIND_COUNTER, records::COUNTER_PROOF, &proof);
    }

    /// Whether clients have other messages than a successor would learn from the log as far as it is
    /// appended.
    pub fn owes_holds(&self) -> bool {
        self.holds_due_ms().is_some() || self.broker.has_changed_holdings()
    }

    /// Figures of the clients that a predecessor knew.
    pub fn reconnect(&self) -> ReconnectStatus {
        self.clients.reconnect()
    }

    /// Whether the server ends in order.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Whether appends wait to be handed to the log lane.
    pub fn has_open_batch(&self) -> bool {
        self.store.open_batch_bytes() > 0
    }

    // ---- the end ----

    /// Begins an orderly end: no message is delivered or taken any more. What is under way to the
    /// disk is still confirmed by [`Self::advance`] until [`Self::close_connections`].
    pub fn begin_stop(&mut self, now: Now) {
        // From now on clients lose what they have because the server ends: it stays theirs.
        self.write_holds(now);
        self.is_stopping = true;
    }

    /// Whether confirms or settle replies still wait for the disk.
    pub fn owes_answers(&self) -> bool {
        !self.pending.is_empty() || !self.durable.is_empty() || !self.owed.is_empty()
    }

    /// Closes all connections so that their clients try elsewhere.
    pub fn close_connections(&mut self) {
        let ids: Vec<ConnectionId> = self
            .peers
            .iter()
            .map(|(index, peer)| connection_id(index, peer))
            .collect();
        for id in ids {
            if let Some(peer) = self.peer_mut(id) {
                let error = ErrorCondition::new(
                    condition::CONNECTION_FORCED,
                    "the server stops; connect to the other server of the pair",
                );
                peer.connection.close_now(Some(error));
                self.mark_dirty(id);
            }
        }
    }

    /// Begins to seal the store: [`Self::poll_job`] yields the last jobs.
    pub fn begin_seal(&mut self) {
        self.store.begin_shutdown();
    }

    /// The store is sealed and its locks are released.
    pub fn is_sealed(&self) -> bool {
        self.store.is_shut_down()
    }

    // ---- inside ----

    fn peer(&self, id: ConnectionId) -> Option<&Peer> {
        let peer = self.peers.get(id.index as usize)?;
        (peer.serial == id.serial).then_some(peer)
    }

    fn peer_mut(&mut self, id: ConnectionId) -> Option<&mut Peer> {
        let peer = self.peers.get_mut(id.index as usize)?;
        (peer.serial == id.serial).then_some(peer)
    }

    fn mark_dirty(&mut self, id: ConnectionId) {
        if let Some(peer) = self.peer_mut(id)
            && !peer.is_dirty
        {
            peer.is_dirty = true;
            self.dirty.push_back(id);
        }
    }

    fn take_events(&mut self, now: Now, id: ConnectionId) {
        while let Some(event) = self.peer_mut(id).and_then(|it| it.connection.poll_event()) {
            if let Some(event) = self.divert(now, id, event) {
                self.on_event(now, id, event);
            }
        }
        self.mark_dirty(id);
    }

    fn holds_store(&self) -> bool {
        self.ownership == Ownership::Held
    }

    /// Asks whether the store is still ours, and lets out what is durable if so.
    fn check_fence(&mut self, now: Now) {
        if let Ownership::Lost(_) = self.ownership {
            return;
        }
        self.ownership = match self.store.fence(now.boot_ms) {
            Fence::Held => Ownership::Held,
            Fence::Lapsed => Ownership::Lapsed,
            Fence::Lost(fatal) => Ownership::Lost(fatal),
        };
        if self.holds_store() {
            self.release(now);
        }
    }

    /// Lets out the items of durable batches.
    fn release(&mut self, now: Now) {
        for item in std::mem::take(&mut self.owed) {
            self.release_item(now, item, None);
        }
        while let Some(batch) = self.durable.pop_front() {
            while let Some((ticket, mut items)) = self.pending.pop_durable(batch.ticket) {
                let own = (ticket == batch.ticket).then_some(&batch);
                for item in items.drain(..) {
                    self.release_item(now, item, own);
                }
                self.pending.recycle(items);
            }
            self.broker.release_batch();
        }
    }

    fn release_item(&mut self, now: Now, item: Item, batch: Option<&DurableBatch>) {
        match item {
            Item::Confirm {
                connection,
                link,
                delivery_id,
            } => self.settle(connection, link, delivery_id, Outcome::Accepted),
            Item::SettleReply {
                connection,
                link,
                delivery_id,
            } => {
                if let Some(peer) = self.peer_mut(connection) {
                    peer.connection.settle_sent(link, delivery_id);
                    self.mark_dirty(connection);
                }
            }
            Item::Reserved { queue, up_to } => self.broker.handle(Event::Reserved { queue, up_to }),
            Item::Expired(expiry) => {
                self.expired(now, expiry);
                self.work(now);
            }
            Item::Arrived(arrival) => {
                self.arrived(&arrival, batch);
                self.work(now);
            }
            Item::Copies(copies) => {
                self.copies_arrived(&copies.0, &copies.1, batch);
                self.work(now);
            }
            Item::Subscribed {
                connection,
                link,
                reply,
            } => self.answer_subscriber(now, connection, link, *reply),
            Item::Unsubscribed { connection, link } => self.answer_close(connection, link),
            Item::Closed { queue } => self.broker.handle(Event::QueueDeleted { queue }),
        }
    }

    fn arrived(&mut self, arrival: &Arrival, batch: Option<&DurableBatch>) {
        self.broker.handle(Event::Arrived {
            queue: arrival.queue,
            message: arrival.message(batch),
        });
    }

    fn copies_arrived(
        &mut self,
        arrival: &Arrival,
        queues: &[broker::QueueId],
        batch: Option<&DurableBatch>,
    ) {
        let first = arrival.message(batch);
        for (&queue, route) in queues.iter().zip(0..) {
            let mut message = first.clone();
            message.position.ordinal += route;
            self.broker.handle(Event::Arrived { queue, message });
        }
    }

    /// Does what the broker wants, and delivers while the store is ours.
    fn work(&mut self, now: Now) {
        self.work_on(now);
        self.note_holds(now);
    }

    fn work_on(&mut self, now: Now) {
        loop {
            while let Some(effect) = self.broker.poll_effect() {
                self.run_effect(effect);
            }
            if !self.holds_store() || self.is_stopping {
                return;
            }
            match self.broker.poll_delivery(now.wall_ms) {
                Some(delivery) => self.deliver(now, delivery),
                None if self.broker.has_effects() => {}
                None => return,
            }
        }
    }

    fn run_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Settle { queue, position } => {
                let place = translate::place(position);
                if !self.gauges.is_empty() {
                    self.gauges.settled(queue, position.bytes);
                }
                // A store that takes no more records is lost: nothing leaves, a successor has the
                // message.
                match self.store.append_settled(store_queue(queue), place) {
                    Ok(ticket) => self.settled_ticket = Some(ticket),
                    Err(_) => self.is_log_over = true,
                }
            }
            Effect::Read(request) => self.start_read(request),
            Effect::Reserve { queue, up_to } => self.reserve(queue, up_to),
            Effect::Count { queue, lsn, count } => self.record_count(queue, lsn, count),
            Effect::Drained { consumer } => self.drained(consumer),
            Effect::Discarded { queue, messages } => self.discarded(queue, messages),
            Effect::QueueEmptied { queue } => self.remove_queue(queue),
        }
    }

    /// Settles a delivery of a client with an outcome.
    fn settle(&mut self, id: ConnectionId, link: LinkId, delivery_id: u32, outcome: Outcome) {
        if let Some(peer) = self.peer_mut(id) {
            peer.connection.settle(link, delivery_id, outcome);
            self.mark_dirty(id);
        }
    }
}

fn connection_id(index: usize, peer: &Peer) -> ConnectionId {
    ConnectionId {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        serial: peer.serial,
    }
}
