//! Links that subscribe to topics, and what becomes of their subscriptions.

use std::sync::Arc;

use steadfast_storage::Ticket;

use crate::broker::{Event, QueueId, QueueKind, QueueOrigin};
use crate::model::{DestinationKind, Durable};
use crate::proto::{
    Attach, AttachReply, Durability, ErrorCondition, ExpiryPolicy, LinkId, Source, condition,
};

use super::attach::Reading;
use super::peer::Link;
use super::pending::Item;
use super::permits::Permit;
use super::records::{KIND_SUBSCRIPTION, SubscriptionRow, queue_key};
use super::routing::{Destination, Interest};
use super::subscriptions::Subscription;
use super::{ConnectionId, Node, Now, translate};

impl Node {
    /// The subscription for a link that wants to receive from a topic. Corrects `source`, which is
    /// the answer to the client.
    pub(super) fn subscribe(
        &mut self,
        now: Now,
        id: ConnectionId,
        attach: &Attach,
        destination: &Destination,
        source: &mut Source,
    ) -> Result<Reading, ErrorCondition> {
        let topic = self.topic_to_read(id, destination)?;
        let filter = translate::no_local(source).cloned();
        let client = self.client_of(id).ok_or_else(|| {
            ErrorCondition::new(condition::NOT_ALLOWED, "the connection is not open")
        })?;
        let owner = (!is_durable(source)).then_some(client);
        let identity = self.identity_of(id);
        let wanted = Subscription {
            topic,
            name: Arc::from(&*attach.name),
            container: Arc::from(identity.container),
            user: identity.user.map(Arc::from),
            owner,
            is_static: false,
            no_local: filter.is_some(),
            reader: Some((id, attach.link)),
        };
        if wanted.is_durable() {
            let subscribed = self.subscribe_durably(now, id, wanted)?;
            source.filter = filter.into_iter().collect();
            return Ok(subscribed);
        }
        source.filter = filter.into_iter().collect();
        source.durable = Durability::None;
        if source.expiry_policy == ExpiryPolicy::Never {
            source.expiry_policy = ExpiryPolicy::LinkDetach;
        }
        let former = {
            let mut all = self.subscriptions.of(&wanted.container, &wanted.name);
            all.find(|(_, it)| it.reader.is_none() && it.is_same(&wanted))
                .map(|(queue, _)| queue)
        };
        if let Some(queue) = former {
            let ticket = self.take_up(queue, &wanted);
            return Ok(reading(queue, Some(queue), ticket));
        }
        let (queue, ticket) = self.create_subscription(wanted)?;
        Ok(reading(queue, Some(queue), Some(ticket)))
    }

    fn subscribe_durably(
        &mut self,
        now: Now,
        id: ConnectionId,
        wanted: Subscription,
    ) -> Result<Reading, ErrorCondition> {
        let identity = self.identity_of(id);
        let found = self.subscriptions.durable(&identity, &wanted.name);
        let found = found.map(|(queue, it)| (queue, it.clone()));
        if let Some((queue, it)) = found {
            let is_same = it.is_to(wanted.topic.as_str(), wanted.no_local);
            if it.is_static && !is_same {
                return Err(ErrorCondition::new(
                    condition::NOT_ALLOWED,
                    format!(
                        "durables.conf has the {}: subscribe to that topic, or change the file",
                        it.describe()
                    ),
                ));
            }
            if let Some((reader, _)) = it.reader {
                self.displace_reader(now, (reader, id), &it)?;
            }
            if is_same {
                let ticket = self.take_up(queue, &wanted);
                return Ok(reading(queue, None, ticket));
            }
            if !wanted.container.is_empty() {
                // Another topic makes another subscription (Jakarta Messaging 6.3.3).
                self.delete_queue(queue);
            }
        }
        if wanted.container.is_empty() {
            // Everybody could take it for his own.
            return Err(ErrorCondition::new(
                condition::NOT_ALLOWED,
                "a durable subscription belongs to a client: connect with a container id",
            ));
        }
        let (queue, ticket) = self.create_subscription(wanted)?;
        Ok(reading(queue, None, Some(ticket)))
    }

    /// Makes room on a durable subscription, which has one consumer at a time: only one of the same client, and
    /// only when it is silent, gives way to another.
    fn displace_reader(
        &mut self,
        now: Now,
        (reader, other): (ConnectionId, ConnectionId),
        subscription: &Subscription,
    ) -> Result<(), ErrorCondition> {
        let is_same_client = self.client_of(reader) == self.client_of(other);
        if !is_same_client || !self.is_silent(now, reader) {
            return Err(ErrorCondition::new(
                condition::RESOURCE_LOCKED,
                format!(
                    "the {} has an active consumer, and may have only one",
                    subscription.describe()
                ),
            ));
        }
        self.displace(
            now,
            reader,
            "another connection took its durable subscription over",
        );
        Ok(())
    }

    /// Gives a subscription its reader, and its user if none is known; returns the batch that makes it durable if
    /// it is that new.
    fn take_up(&mut self, queue: QueueId, wanted: &Subscription) -> Option<Ticket> {
        self.clients.unclaimed.remove(&queue);
        if let Some(it) = self.subscriptions.get_mut(queue) {
            it.reader = wanted.reader;
            if !it.is_static && it.user.is_none() && wanted.user.is_some() {
                it.user.clone_from(&wanted.user);
                let claimed = it.clone();
                if let Some(ticket) = self.put_subscription(queue, &claimed) {
                    self.subscriptions.made(queue, ticket);
                }
            }
        }
        let durable = self.store.durable_ticket();
        self.subscriptions.not_durable_yet(queue, durable)
    }

    /// Makes a subscription; returns the batch that makes it durable.
    pub(super) fn create_subscription(
        &mut self,
        subscription: Subscription,
    ) -> Result<(QueueId, Ticket), ErrorCondition> {
        let queue = self.next_queue_id()?;
        if let Some(owner) = subscription.owner {
            self.keep_client(owner);
        }
        let row = SubscriptionRow::of(&subscription);
        let failed = |text: String| ErrorCondition::new(condition::INTERNAL_ERROR, text);
        let value = row.encode().map_err(|error| failed(error.to_string()))?;
        let ticket = self
            .store
            .put_row(KIND_SUBSCRIPTION, &queue_key(queue.0), &value)
            .map_err(|error| failed(error.to_string()))?;
        self.add_subscription(queue, subscription, QueueOrigin::Created);
        self.subscriptions.made(queue, ticket);
        Ok((queue, ticket))
    }

    /// A subscription exists from now on.
    pub(super) fn add_subscription(
        &mut self,
        queue: QueueId,
        subscription: Subscription,
        origin: QueueOrigin,
    ) {
        self.broker.handle(Event::QueueAdded {
            queue,
            name: Arc::from(subscription.describe()),
            kind: QueueKind::Subscription {
                owner: subscription.owner,
            },
            origin,
        });
        let interest = Interest {
            queue,
            no_local: subscription.no_local,
        };
        self.routing.subscribe(&subscription.topic, interest);
        self.subscriptions.add(queue, subscription);
    }

    /// A subscription that a predecessor left. Returned if it was to go, alone or with its client.
    pub(super) fn recover_subscription(
        &mut self,
        queue: QueueId,
        row: SubscriptionRow,
        origin: QueueOrigin,
    ) -> Option<QueueId> {
        let is_void = row.owner.is_some_and(|it| !self.clients.contains(it));
        let is_over = row.is_deleted || is_void;
        if row.owner.is_some() {
            self.clients.unclaimed.insert(queue);
        }
        self.add_subscription(queue, row.into_subscription(), origin);
        is_over.then_some(queue)
    }

    /// A subscription gets no messages any more; what it has goes when that is durable, so that no
    /// successor finds half of it. Returns the batch that makes it durable; `None` where the log is lost or
    /// sealed: a successor has the subscription.
    pub(super) fn close_subscription(&mut self, queue: QueueId) -> Option<Ticket> {
        let subscription = self.subscriptions.remove(queue)?;
        self.routing.unsubscribe(&subscription.topic, queue);
        let row = SubscriptionRow {
            is_deleted: true,
            ..SubscriptionRow::of(&subscription)
        };
        let key = queue_key(queue.0);
        let value = row.encode().ok()?;
        let ticket = self.store.put_row(KIND_SUBSCRIPTION, &key, &value).ok()?;
        self.pending.push(ticket, Item::Closed { queue });
        Some(ticket)
    }

    /// A link without source names a durable subscription that it wants to see, in order to close it
    /// (which is how Jakarta Messaging clients unsubscribe).
    pub(super) fn look_up(
        &mut self,
        id: ConnectionId,
        attach: &Attach,
    ) -> Result<(), ErrorCondition> {
        let client = self.identity_of(id);
        let found = self.subscriptions.durable(&client, &attach.name);
        // To whom it is not permitted, there is none.
        let found = found.filter(|(_, it)| self.may_delete(id, it));
        let Some((queue, it)) = found else {
            return Err(ErrorCondition::new(
                condition::NOT_FOUND,
                format!(
                    "there is no durable subscription {:?} of client {:?}",
                    attach.name, client.container
                ),
            ));
        };
        if it.reader.is_some() {
            return Err(ErrorCondition::new(
                condition::RESOURCE_LOCKED,
                format!(
                    "the {} has an active consumer: close it first",
                    it.describe()
                ),
            ));
        }
        if it.is_static {
            return Err(ErrorCondition::new(
                condition::NOT_ALLOWED,
                format!("the {} is configured in durables.conf", it.describe()),
            ));
        }
        let mut source = Source {
            durable: Durability::UnsettledState,
            expiry_policy: ExpiryPolicy::Never,
            ..Source::at(it.topic.as_str())
        };
        translate::tell_kind(&mut source.capabilities, DestinationKind::Topic);
        let reply = AttachReply {
            source: Some(source),
            target: attach.target.clone(),
            ..AttachReply::default()
        };
        if let Some(peer) = self.peer_mut(id) {
            peer.connection.accept_attach(attach.link, reply);
            peer.connection.close_late(attach.link);
            peer.links.insert(attach.link, Link::Lookup(queue));
        }
        Ok(())
    }

    /// The durable subscription that goes when a client closes this link.
    pub(super) fn closed_with(&self, id: ConnectionId, link: LinkId) -> Option<QueueId> {
        let queue = match self.peer(id)?.links.get(&link)? {
            Link::Consumer(consumer) => consumer.id.queue,
            Link::Lookup(queue) => *queue,
            Link::Publisher(_) => return None,
        };
        let subscription = self.subscriptions.get(queue)?;
        let may_go = subscription.is_durable()
            && !subscription.is_static
            && self.may_delete(id, subscription);
        may_go.then_some(queue)
    }

    /// A client closed (not only detached) a link; where it was that of a durable subscription, it unsubscribes,
    /// and is told so when that is durable.
    pub(super) fn closed(&mut self, connection: ConnectionId, link: LinkId, of: Option<QueueId>) {
        let mut ticket = None;
        if let Some(queue) = of
            && let Some(subscription) = self.subscriptions.get(queue)
            && subscription.reader.is_none()
        {
            ticket = self.delete_queue(queue);
            if ticket.is_none() {
                // The log is lost or sealed: whoever is told so by a successor learns that it is still there.
                return;
            }
        }
        let answer = Item::Unsubscribed { connection, link };
        match ticket {
            Some(ticket) => self.pending.push(ticket, answer),
            None => self.answer_close(connection, link),
        }
    }

    /// A client may know that the link is closed, if it was not told at once.
    pub(super) fn answer_close(&mut self, id: ConnectionId, link: LinkId) {
        if let Some(peer) = self.peer_mut(id) {
            peer.connection.detach(link, None);
            self.mark_dirty(id);
        }
    }

    /// The link that got the messages of a queue is gone.
    pub(super) fn reader_gone(&mut self, queue: QueueId) {
        if let Some(subscription) = self.subscriptions.get_mut(queue) {
            subscription.reader = None;
        }
    }

    /// A new subscription is durable: its link exists.
    pub(super) fn answer_subscriber(
        &mut self,
        now: Now,
        id: ConnectionId,
        link: LinkId,
        reply: AttachReply,
    ) {
        if let Some(peer) = self.peer_mut(id)
            && peer.links.contains_key(&link)
        {
            peer.connection.accept_attach(link, reply);
            self.take_events(now, id);
        }
    }

    /// The durable subscriptions that the configuration names: these exist, and only these are
    /// static.
    pub(super) fn apply_durables(&mut self, durables: &[Durable]) {
        let mut named = Vec::new();
        for durable in durables.iter().filter(|it| !it.is_route) {
            named.extend(self.configured_durable(durable));
        }
        let marked: Vec<(QueueId, Subscription)> = self
            .subscriptions
            .iter()
            .filter(|(queue, it)| it.is_static != named.contains(queue))
            .map(|(queue, it)| (queue, it.clone()))
            .collect();
        for (queue, mut subscription) in marked {
            subscription.is_static = !subscription.is_static;
            self.change_subscription(queue, subscription);
        }
    }

    fn configured_durable(&mut self, durable: &Durable) -> Option<QueueId> {
        let wanted = Subscription {
            topic: durable.topic.clone(),
            name: Arc::from(&*durable.name),
            container: Arc::from(&*durable.client_id),
            user: None,
            owner: None,
            is_static: true,
            no_local: durable.no_local,
            reader: None,
        };
        let all = self.subscriptions.of(&wanted.container, &wanted.name);
        let all: Vec<(QueueId, Subscription)> = all
            .filter(|(_, it)| it.is_durable())
            .map(|(queue, it)| (queue, it.clone()))
            .collect();
        // The file had it before.
        let former = all
            .iter()
            .find(|(_, it)| it.is_static && it.is_same(&wanted));
        if let Some((queue, _)) = former {
            return Some(*queue);
        }
        let (userless, of_users): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, it)| it.user.is_none());
        match (&userless[..], &of_users[..]) {
            ([(queue, it)], _) | ([], [(queue, it)]) if it.is_same(&wanted) => return Some(*queue),
            _ => {}
        }
        for (queue, it) in userless {
            // Another topic makes another subscription.
            tracing::warn!(
                event = "durable_replaced",
                "the {} goes, with what waits in it: durables.conf has it to {} now",
                it.describe(),
                wanted.topic
            );
            self.delete_queue(queue);
        }
        for (_, own) in &of_users {
            tracing::warn!(
                event = "durables_of_one_name",
                "durables.conf has the {}, and there is the {} too: that user goes on with the latter, \
                 and for any other user of the client there is the former; if only one of them shall be, \
                 unsubscribe or delete the user's, or change the line",
                wanted.describe(),
                own.describe()
            );
        }
        let what = wanted.describe();
        match self.create_subscription(wanted) {
            Ok((queue, _)) => Some(queue),
            Err(error) => {
                tracing::error!(%error, "a configured {what} cannot be made");
                None
            }
        }
    }

    /// Writes what a subscription is now. `None`: the log is lost or sealed, and a successor has it as it was.
    fn put_subscription(&mut self, queue: QueueId, subscription: &Subscription) -> Option<Ticket> {
        let value = SubscriptionRow::of(subscription).encode().ok()?;
        let key = queue_key(queue.0);
        self.store.put_row(KIND_SUBSCRIPTION, &key, &value).ok()
    }

    fn change_subscription(&mut self, queue: QueueId, subscription: Subscription) {
        self.put_subscription(queue, &subscription);
        if let Some(it) = self.subscriptions.get_mut(queue) {
            *it = subscription;
        }
    }
}

fn reading(queue: QueueId, owned: Option<QueueId>, ticket: Option<Ticket>) -> Reading {
    Reading {
        queue,
        kind: DestinationKind::Topic,
        owned,
        ticket,
        permit: Permit::default(),
    }
}

/// Whether a source asks for a subscription that outlives its link.
pub(super) fn is_durable(source: &Source) -> bool {
    source.durable != Durability::None && source.expiry_policy == ExpiryPolicy::Never
}

impl Subscription {
    /// Whether a link that wants this one may have that one.
    fn is_same(&self, wanted: &Self) -> bool {
        self.is_to(wanted.topic.as_str(), wanted.no_local) && self.owner == wanted.owner
    }
}
