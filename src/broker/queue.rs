//! One queue: who gets which message, and what becomes of it.

mod discard;
mod exclusive;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use discard::Discarding;
use exclusive::Reign;

use super::consumer::Consumer;
use super::held::Held;
use super::reservation::Reservation;
use super::window::Window;
use super::{
    ClientId, ConsumerId, ConsumerMode, Counters, Delivery, Effect, Gone, Holding, Limits, Loaded,
    Message, Outcome, Position, QueueId, QueueOrigin, ReadFrom, ReadRequest, Reader,
};

/// What all queues share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) limits: Limits,
    pub(super) effects: VecDeque<Effect>,
    pub(super) counters: Counters,
    /// Bytes in all windows.
    pub(super) window_bytes: usize,
    /// Queues whose windows hold bytes of the present batch.
    pub(super) fresh: Vec<QueueId>,
    /// Deliveries of all queues that are not settled.
    pub(super) in_flight: usize,
    /// Queues that could not deliver because these are too many.
    pub(super) saturated: BTreeSet<QueueId>,
    /// Queues of which clients have other messages than was last asked for; each once.
    pub(super) changed_holdings: Vec<QueueId>,
}

impl Context {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            effects: VecDeque::new(),
            counters: Counters::default(),
            window_bytes: 0,
            fresh: Vec::new(),
            in_flight: 0,
            saturated: BTreeSet::new(),
            changed_holdings: Vec::new(),
        }
    }

    pub(super) fn count_delivery(&mut self, delivery: &Delivery) {
        self.counters.delivered += 1;
        self.counters.redelivered += u64::from(delivery.delivery_count > 0);
    }

    fn has_room(&self) -> bool {
        self.window_bytes < self.limits.all_windows_bytes
    }
}

/// A message on its way to a consumer.
#[derive(Debug)]
struct InFlight {
    consumer: u64,
    /// Delivery count that it was sent with.
    count: u32,
    position: Position,
}

#[derive(Debug)]
pub(super) struct Queue {
    id: QueueId,
    window: Window,
    /// By message number.
    in_flight: BTreeMap<u64, InFlight>,
    /// Failed deliveries of messages that came back at least once.
    counts: BTreeMap<u64, u32>,
    /// Messages that some consumers do not want again.
    barred: BTreeMap<u64, Vec<u64>>,
    /// Messages that no attached consumer wants.
    parked: BTreeMap<u64, Position>,
    consumers: BTreeMap<u64, Consumer>,
    /// Consumers that take messages, the next one first.
    turn: VecDeque<u64>,
    /// How many consumers drain.
    draining: usize,
    /// Whether one consumer gets all.
    reign: Reign,
    /// What is kept for clients of a predecessor.
    held: Held,
    /// It stands in the list of queues with changed holdings.
    is_held_otherwise: bool,
    reservation: Reservation,
    /// Messages up to this number may have been delivered by a predecessor.
    maybe_delivered_up_to: u64,
    /// Messages and bytes above the queue's limits: its oldest messages go.
    excess: (u64, u64),
    /// What an administrator wants to go, whatever the limits.
    discarding: Option<Discarding>,
    /// The queue is deleted: all that is read is settled.
    purging: bool,
    /// It stands in the list of queues whose windows hold bytes of the present batch.
    is_fresh: bool,
    /// It stands in the broker's list of busy queues.
    pub(super) busy: bool,
}

impl Queue {
    pub(super) fn new(id: QueueId, origin: QueueOrigin) -> Self {
        let is_recovered = matches!(origin, QueueOrigin::Recovered { .. });
        let (maybe_delivered_up_to, reserved, counts, held) = match origin {
            QueueOrigin::Created => (0, 0, Vec::new(), Vec::new()),
            QueueOrigin::Recovered {
                maybe_delivered_up_to,
                reserved_up_to,
                counts,
                held,
            } => (maybe_delivered_up_to, reserved_up_to, counts, held),
        };
        Self {
            id,
            window: Window::new(is_recovered),
            in_flight: BTreeMap::new(),
            counts: counts.into_iter().collect(),
            barred: BTreeMap::new(),
            parked: BTreeMap::new(),
            consumers: BTreeMap::new(),
            turn: VecDeque::new(),
            draining: 0,
            reign: Reign::default(),
            held: Held::new(held),
            is_held_otherwise: false,
            reservation: Reservation::new(reserved),
            maybe_delivered_up_to,
            excess: (0, 0),
            discarding: None,
            purging: false,
            is_fresh: false,
            busy: false,
        }
    }

    pub(super) fn consumer_count(&self) -> usize {
        self.consumers.len()
    }

    pub(super) fn consumer_numbers(&self) -> impl Iterator<Item = u64> {
        self.consumers.keys().copied()
    }

    pub(super) fn in_flight_count(&self) -> usize {
        self.in_flight.len()
    }

    // ---- consumers ----

    pub(super) fn attach(
        &mut self,
        context: &mut Context,
        id: ConsumerId,
        mode: ConsumerMode,
        client: Option<ClientId>,
    ) {
        self.consumers
            .insert(id.number, Consumer::new(mode, client));
        if let Some(client) = client {
            self.held.attach(client, id.number);
        }
        self.crown(context);
        self.unpark(context);
    }

    pub(super) fn ready(&mut self, id: ConsumerId) {
        if let Some(consumer) = self.consumers.get_mut(&id.number) {
            consumer.ready = true;
        }
        self.enter_turn(id.number);
    }

    pub(super) fn blocked(&mut self, id: ConsumerId) {
        // It leaves the order of turns when its turn comes.
        if let Some(consumer) = self.consumers.get_mut(&id.number) {
            consumer.ready = false;
        }
    }

    pub(super) fn drain(&mut self, id: ConsumerId) {
        if let Some(consumer) = self.consumers.get_mut(&id.number)
            && !consumer.draining
        {
            consumer.draining = true;
            self.draining += 1;
        }
    }

    pub(super) fn detach(&mut self, context: &mut Context, id: ConsumerId, how: Gone) {
        let Some(consumer) = self.consumers.remove(&id.number) else {
            return;
        };
        self.draining -= usize::from(consumer.draining);
        self.turn.retain(|&number| number != id.number);
        self.barred.retain(|_, numbers| {
            numbers.retain(|&number| number != id.number);
            !numbers.is_empty()
        });
        let theirs: Vec<u64> = self
            .in_flight
            .iter()
            .filter(|(_, it)| it.consumer == id.number)
            .map(|(&lsn, _)| lsn)
            .collect();
        for lsn in theirs {
            if let Some(it) = self.take_in_flight(context, lsn) {
                self.come_back(context, lsn, &it, how == Gone::Lost);
            }
        }
        if let Some(client) = consumer.client
            && self.held.detach(client, id.number)
        {
            // As what it had from this server.
            self.release_held_for(context, client);
        }
        self.dethrone(id.number);
        self.crown(context);
        self.hold_otherwise(context);
        self.unpark(context);
        if self.consumers.is_empty() {
            self.change_window(context, |window, _| window.rewind());
        }
    }

    // ---- what clients have ----

    /// Notes that clients have other messages than before.
    pub(super) fn hold_otherwise(&mut self, context: &mut Context) {
        if !self.is_held_otherwise {
            self.is_held_otherwise = true;
            context.changed_holdings.push(self.id);
        }
    }

    /// What the clients have now, and what is kept for them.
    pub(super) fn take_holdings(&mut self) -> Vec<Holding> {
        self.is_held_otherwise = false;
        let mut holdings: Vec<Holding> = Vec::new();
        let mut by_client: BTreeMap<ClientId, usize> = BTreeMap::new();
        // Where the messages of a consumer go, by its number.
        let mut places: Vec<(u64, usize)> = Vec::with_capacity(self.consumers.len());
        for (&number, consumer) in &self.consumers {
            if let Some(client) = consumer.client.filter(|_| !consumer.settles_at_send()) {
                let place = *by_client.entry(client).or_insert(holdings.len());
                if place == holdings.len() {
                    holdings.push(Holding::of(client));
                }
                places.push((number, place));
            }
        }
        let parked = self.parked.first_key_value().map(|(&lsn, _)| lsn);
        let others = parked.into_iter().chain(self.held.first_aside()).min();
        // Below it all that nobody has is settled.
        let floor = self.window.floor().min(others.unwrap_or(u64::MAX));
        self.held.forget_below(floor);
        let mut before = None;
        for (&lsn, it) in &self.in_flight {
            let found = places.binary_search_by_key(&it.consumer, |(number, _)| *number);
            let place = found.ok().map(|index| places[index].1);
            if let Some(place) = place {
                let bridges = before == Some(place) && lsn < floor;
                holdings[place].add(lsn, it.count, bridges);
            }
            before = place;
        }
        for kept in self.held.holdings() {
            match by_client.get(&kept.client) {
                Some(&place) => holdings[place].join(kept),
                None => holdings.push(kept),
            }
        }
        holdings.retain(|holding| !holding.runs.is_empty());
        holdings
    }

    /// What is kept for clients that have no consumer for it.
    pub(super) fn waiting_shares(&self) -> impl Iterator<Item = (ClientId, u64)> {
        let shares = self.held.shares();
        let waiting = shares.filter(|(_, _, is_attached)| !is_attached);
        waiting.map(|(client, messages, _)| (client, messages))
    }

    /// What is kept for some clients goes to anybody.
    pub(super) fn release_held(
        &mut self,
        context: &mut Context,
        whose: impl Fn(ClientId, bool) -> bool,
    ) {
        for position in self.held.release(whose) {
            self.change_window(context, |window, limits| {
                window.give_back(position, limits.returned);
            });
        }
        self.crown(context);
        self.hold_otherwise(context);
    }

    /// What is kept for a client goes to anybody.
    pub(super) fn release_held_for(&mut self, context: &mut Context, client: ClientId) {
        for position in self.held.release_client(client) {
            self.change_window(context, |window, limits| {
                window.give_back(position, limits.returned);
            });
        }
        self.crown(context);
        self.hold_otherwise(context);
    }

    /// What was set aside for a client comes back when a consumer of that client takes it.
    fn recall_held(&mut self, context: &mut Context) {
        if self.held.first_aside().is_none() {
            return;
        }
        let (consumers, limits) = (&self.consumers, &context.limits);
        let takes = |number| consumers.get(&number).is_some_and(|it| it.takes(limits));
        for position in self.held.recall(self.window.next_lsn(), takes) {
            self.change_window(context, |window, limits| {
                window.give_back(position, limits.returned);
            });
        }
    }

    // ---- messages ----

    pub(super) fn arrived(&mut self, context: &mut Context, message: Message) {
        if self.purging {
            self.window.missed();
            return;
        }
        let room = !self.consumers.is_empty() && self.window_has_room(context);
        let mut kept = false;
        self.change_window(context, |window, _| kept = window.arrived(message, room));
        if kept && !std::mem::replace(&mut self.is_fresh, true) {
            context.fresh.push(self.id);
        }
    }

    fn window_has_room(&self, context: &Context) -> bool {
        let used = self.window.bytes();
        used == 0
            || (context.has_room()
                && used < context.limits.window_bytes
                && self.window.deliverable() < context.limits.window_messages)
    }

    pub(super) fn own_fresh_messages(&mut self) {
        self.is_fresh = false;
        self.window.own_fresh_messages();
    }

    pub(super) fn loaded(&mut self, context: &mut Context, loaded: Loaded) {
        if self.purging {
            return self.purge_loaded(context, loaded);
        }
        let (in_flight, parked, held) = (&self.in_flight, &self.parked, &self.held);
        let before = self.window.bytes();
        self.window.loaded(loaded, |lsn| {
            in_flight.contains_key(&lsn) || parked.contains_key(&lsn) || held.is_aside(lsn)
        });
        context.window_bytes = context.window_bytes + self.window.bytes() - before;
        self.discard_excess(context);
        if self.consumers.is_empty() {
            self.change_window(context, |window, _| window.rewind());
        }
    }

    pub(super) fn settled(
        &mut self,
        context: &mut Context,
        id: ConsumerId,
        lsn: u64,
        outcome: Outcome,
    ) {
        if self
            .in_flight
            .get(&lsn)
            .is_none_or(|it| it.consumer != id.number)
        {
            return;
        }
        let Some(it) = self.take_in_flight(context, lsn) else {
            return;
        };
        if let Some(consumer) = self.consumers.get_mut(&id.number) {
            consumer.unsettled -= 1;
            if !consumer.settles_at_send() {
                self.hold_otherwise(context);
            }
        }
        self.enter_turn(id.number);
        match outcome {
            Outcome::Accepted => {
                context.counters.accepted += 1;
                self.settle(context, it.position);
            }
            Outcome::Rejected => {
                context.counters.rejected += 1;
                self.settle(context, it.position);
            }
            Outcome::Released => self.come_back(context, lsn, &it, false),
            Outcome::Modified { failed, not_here } => {
                if not_here && let Some(consumer) = self.consumers.get_mut(&id.number) {
                    consumer.barred += 1;
                    self.barred.entry(lsn).or_default().push(id.number);
                }
                self.come_back(context, lsn, &it, failed);
            }
        }
    }

    fn take_in_flight(&mut self, context: &mut Context, lsn: u64) -> Option<InFlight> {
        let it = self.in_flight.remove(&lsn)?;
        context.in_flight -= 1;
        Some(it)
    }

    /// Lets a consumer have its turns again, if it takes messages.
    fn enter_turn(&mut self, number: u64) {
        if !self.may_take(number) {
            return;
        }
        if let Some(consumer) = self.consumers.get_mut(&number)
            && consumer.ready
            && !consumer.in_turn
        {
            consumer.in_turn = true;
            self.turn.push_back(number);
        }
    }

    /// A message leaves the queue for good.
    fn settle(&mut self, context: &mut Context, position: Position) {
        let (messages, bytes) = self.excess;
        self.excess = (
            messages.saturating_sub(1),
            bytes.saturating_sub(u64::from(position.bytes)),
        );
        for number in self.barred.remove(&position.lsn).unwrap_or_default() {
            if let Some(consumer) = self.consumers.get_mut(&number) {
                consumer.barred -= 1;
            }
            self.enter_turn(number);
        }
        if self.counts.remove(&position.lsn).is_some_and(|it| it > 1) {
            // Before the settlement: a record without its message would never be found again.
            context.effects.push_back(Effect::Count {
                queue: self.id,
                lsn: position.lsn,
                count: 0,
            });
        }
        context.effects.push_back(Effect::Settle {
            queue: self.id,
            position,
        });
    }

    fn come_back(&mut self, context: &mut Context, lsn: u64, it: &InFlight, failed: bool) {
        context.counters.returned += 1;
        let count = it.count.saturating_add(u32::from(failed));
        let recorded = match count {
            0 => None,
            count => self.counts.insert(lsn, count),
        };
        // A count of 1 follows from the reservation. One that came with what a client had stands nowhere else any
        // more, whatever the client says now.
        if count > 1 && recorded != Some(count) {
            context.effects.push_back(Effect::Count {
                queue: self.id,
                lsn,
                count,
            });
        }
        let position = it.position;
        self.change_window(context, |window, limits| {
            window.give_back(position, limits.returned);
        });
    }

    fn unpark(&mut self, context: &mut Context) {
        for position in std::mem::take(&mut self.parked).into_values() {
            self.change_window(context, |window, limits| {
                window.give_back(position, limits.returned);
            });
        }
    }

    /// Keeps the sum over all windows right.
    fn change_window(&mut self, context: &mut Context, change: impl FnOnce(&mut Window, &Limits)) {
        let before = self.window.bytes();
        change(&mut self.window, &context.limits);
        context.window_bytes = context.window_bytes + self.window.bytes() - before;
    }

    // ---- reservation ----

    pub(super) fn reservation_due(&mut self, next_lsn: u64) -> Option<u64> {
        if self.consumers.is_empty() {
            return None;
        }
        self.reservation.due(next_lsn, 1)
    }

    pub(super) fn reserved(&mut self, up_to: u64) {
        self.reservation.recorded(up_to);
    }

    // ---- delivering ----

    /// The next message and its consumer; when there is none, asks for what is missing.
    pub(super) fn next_delivery(
        &mut self,
        context: &mut Context,
        wall_ms: u64,
    ) -> Option<Delivery> {
        self.discard_excess(context);
        let delivery = self.next_match(context, wall_ms);
        self.ask_for_more(context);
        if delivery.is_none() && self.draining > 0 {
            self.answer_drains(context);
        }
        delivery
    }

    fn next_match(&mut self, context: &mut Context, wall_ms: u64) -> Option<Delivery> {
        if context.in_flight >= context.limits.unsettled {
            context.saturated.insert(self.id);
            return None;
        }
        self.recall_held(context);
        let mut index = 0;
        while index < self.window.deliverable() {
            let message = self.window.get(index)?;
            let position = message.position;
            if message.expires_at_ms != 0 && message.expires_at_ms <= wall_ms {
                self.change_window(context, |window, _| {
                    window.remove(index);
                });
                context.counters.expired += 1;
                self.settle(context, position);
                continue;
            }
            let owner = self.held.owner(position.lsn);
            let is_awaited = owner.is_some_and(|client| !self.held.is_attached(client));
            let number = if is_awaited {
                None
            } else {
                self.take_turn(position.lsn, owner, &context.limits)
            };
            let Some(number) = number else {
                if self.turn.is_empty() {
                    return None;
                }
                if let Some(client) = owner {
                    self.change_window(context, |window, _| {
                        window.remove(index);
                    });
                    self.held.set_aside(client, position);
                    continue;
                }
                if self.is_wanted(position.lsn) {
                    index += 1;
                } else {
                    self.park(context, index);
                }
                continue;
            };
            if !self.reservation.covers(position.lsn) {
                self.turn.push_front(number);
                self.reserve(context, position.lsn);
                return None;
            }
            return self.deliver(context, index, number);
        }
        None
    }

    /// Takes the consumer out of the order of turns that gets the message, which is kept for the client
    /// `owner` if there is one. Those that take none lose their turn.
    fn take_turn(&mut self, lsn: u64, owner: Option<ClientId>, limits: &Limits) -> Option<u64> {
        let barred = self.barred.get(&lsn);
        let reign = self.reign;
        let mut index = 0;
        while let Some(number) = self.turn.get(index) {
            let mut is_for_it = true;
            let takes = self.consumers.get_mut(number).is_some_and(|it| {
                it.in_turn = it.takes(limits);
                is_for_it = match owner {
                    None => reign.admits(*number),
                    Some(_) => it.client == owner,
                };
                it.in_turn
            });
            if !takes {
                self.turn.remove(index);
            } else if !is_for_it || barred.is_some_and(|it| it.contains(number)) {
                index += 1;
            } else {
                return self.turn.remove(index);
            }
        }
        None
    }

    /// Whether some attached consumer would take the message.
    fn is_wanted(&self, lsn: u64) -> bool {
        self.barred.get(&lsn).is_none_or(|barred| {
            let mut numbers = self.consumers.keys();
            numbers.any(|number| self.reign.admits(*number) && !barred.contains(number))
        })
    }

    fn park(&mut self, context: &mut Context, index: usize) {
        let mut removed = None;
        self.change_window(context, |window, _| removed = window.remove(index));
        if let Some(message) = removed {
            self.parked.insert(message.position.lsn, message.position);
        }
    }

    fn reserve(&mut self, context: &mut Context, lsn: u64) {
        let last = self.window.last_lsn().unwrap_or(lsn).max(lsn);
        let per_message = self.window.numbers_per_message();
        if let Some(up_to) = self.reservation.due(last, per_message) {
            context.effects.push_back(Effect::Reserve {
                queue: self.id,
                up_to,
            });
        }
    }

    fn deliver(&mut self, context: &mut Context, index: usize, number: u64) -> Option<Delivery> {
        let mut removed = None;
        self.change_window(context, |window, _| removed = window.remove(index));
        let message = removed?;
        let lsn = message.position.lsn;
        let delivery_count = self.delivery_count(&message);
        let consumer = self.consumers.get_mut(&number)?;
        let settled = consumer.settles_at_send();
        consumer.unsettled += 1;
        self.held.take(lsn);
        if !settled {
            self.hold_otherwise(context);
        }
        self.turn.push_back(number);
        context.in_flight += 1;
        self.in_flight.insert(
            lsn,
            InFlight {
                consumer: number,
                count: delivery_count,
                position: message.position,
            },
        );
        Some(Delivery {
            consumer: ConsumerId {
                queue: self.id,
                number,
            },
            message,
            delivery_count,
            settled,
        })
    }

    fn delivery_count(&self, message: &Message) -> u32 {
        let lsn = message.position.lsn;
        let marked = message.maybe_delivered || lsn <= self.maybe_delivered_up_to;
        let counted = self.counts.get(&lsn).copied().unwrap_or(0);
        counted.max(u32::from(marked)).max(self.held.delivered(lsn))
    }

    fn ask_for_more(&mut self, context: &mut Context) {
        let is_discarding = self.excess != (0, 0) || self.is_discarding();
        if self.purging || (self.turn.is_empty() && !is_discarding) {
            return;
        }
        let room = context.has_room();
        if let Some(from) = self.window.next_read(&context.limits, room) {
            self.request(context, from);
        }
    }

    fn request(&self, context: &mut Context, from: ReadFrom) {
        context.effects.push_back(Effect::Read(ReadRequest {
            reader: Reader::Queue(self.id),
            messages: match &from {
                ReadFrom::Places(places) => places.len(),
                _ => self.window.read_messages(&context.limits),
            },
            from,
            bytes: context.limits.read_bytes,
        }));
    }

    /// Tells draining consumers that they have got all there is for them now: a consumer at a limit gets
    /// nothing before it settles, whatever waits.
    fn answer_drains(&mut self, context: &mut Context) {
        let is_complete = self.window.is_complete();
        let is_saturated = context.in_flight >= context.limits.unsettled;
        for (&number, consumer) in &mut self.consumers {
            if !consumer.draining {
                continue;
            }
            let (barred, held, reign) = (&self.barred, &self.held, self.reign);
            let client = consumer.client;
            let is_served = reign.admits(number) || client.is_some_and(|it| held.keeps_for(it));
            let may_get_more = is_served
                && !is_saturated
                && !consumer.is_at_limit(&context.limits)
                && (!is_complete
                    || self.window.waiting().any(|message| {
                        let lsn = message.position.lsn;
                        let is_free = match held.owner(lsn) {
                            None => reign.admits(number),
                            owner => client == owner,
                        };
                        let barred = barred.get(&lsn);
                        is_free && barred.is_none_or(|numbers| !numbers.contains(&number))
                    }));
            if may_get_more {
                continue;
            }
            consumer.draining = false;
            self.draining -= 1;
            context.effects.push_back(Effect::Drained {
                consumer: ConsumerId {
                    queue: self.id,
                    number,
                },
            });
        }
    }

    // ---- deletion ----

    /// Starts to settle all messages.
    pub(super) fn purge(&mut self, context: &mut Context) {
        self.purging = true;
        self.end_discarding(context);
        context.in_flight -= self.in_flight.len();
        self.in_flight.clear();
        self.parked.clear();
        self.held = Held::default();
        self.hold_otherwise(context);
        for (lsn, count) in std::mem::take(&mut self.counts) {
            if count > 1 {
                context.effects.push_back(Effect::Count {
                    queue: self.id,
                    lsn,
                    count: 0,
                });
            }
        }
        self.change_window(context, |window, _| window.restart());
        self.purge_on(context);
    }

    pub(super) fn is_purging(&self) -> bool {
        self.purging
    }

    fn purge_on(&mut self, context: &mut Context) {
        if let Some(from) = self.window.next_read(&context.limits, true) {
            self.request(context, from);
        }
    }

    fn purge_loaded(&mut self, context: &mut Context, loaded: Loaded) {
        let (messages, is_last) = self.window.take_all(loaded);
        for message in messages {
            self.settle(context, message.position);
        }
        if is_last {
            context
                .effects
                .push_back(Effect::QueueEmptied { queue: self.id });
        } else {
            self.purge_on(context);
        }
    }
}
