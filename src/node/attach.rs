//! Links that clients ask for.

use steadfast_storage::Ticket;

use crate::broker::{ConsumerId, ConsumerMode, Event, QueueId, QueueKind, Route};
use crate::model::{Action, DestinationKind, Pattern};
use crate::proto::{
    Attach, AttachReply, AttachTarget, DistributionMode, Durability, ErrorCondition, LinkId,
    PeerRole, SenderSettleMode, Source, condition,
};

use super::peer::{Consumer, Link, Publisher};
use super::pending::Item;
use super::permits::{Permit, Relayed};
use super::routing::Destination;
use super::translate;
use super::{ConnectionId, Node, Now};

/// What a consumer reads.
#[derive(Debug)]
pub(super) struct Reading {
    /// Its queue, or that of its subscription.
    pub(super) queue: QueueId,
    /// Which of the two.
    pub(super) kind: DestinationKind,
    /// The queue or temporary topic that lives as long as the link.
    pub(super) owned: Option<QueueId>,
    /// The batch that makes a new subscription durable: the link is answered behind it, so that what
    /// a client was told exists after a takeover too.
    pub(super) ticket: Option<Ticket>,
    pub(super) permit: Permit,
}

impl Reading {
    fn of(queue: QueueId, owned: Option<QueueId>) -> Self {
        Self {
            queue,
            kind: DestinationKind::Queue,
            owned,
            ticket: None,
            permit: Permit::default(),
        }
    }
}

impl Node {
    pub(super) fn on_attached(&mut self, now: Now, id: ConnectionId, attach: &Attach) {
        let result = match attach.peer_role {
            PeerRole::Sender => self.attach_publisher(id, attach),
            PeerRole::Receiver => self.attach_consumer(now, id, attach),
        };
        if let Err(error) = result
            && let Some(peer) = self.peer_mut(id)
        {
            tracing::debug!(connection = id.number(), link = attach.name, %error, "link refused");
            peer.connection.refuse_attach(attach.link, error);
        }
    }

    fn attach_publisher(
        &mut self,
        id: ConnectionId,
        attach: &Attach,
    ) -> Result<(), ErrorCondition> {
        self.check_link_limit(id)?;
        let mut target = match &attach.target {
            Some(AttachTarget::Node(target)) => target.clone(),
            Some(AttachTarget::Coordinator(_)) => {
                return Err(translate::not_implemented("transactions"));
            }
            None => {
                return Err(ErrorCondition::new(
                    condition::INVALID_FIELD,
                    "a sender needs a target; one without address is the anonymous relay",
                ));
            }
        };
        translate::check_capabilities(&target.capabilities)?;
        let mut said = translate::kind_of(&target.capabilities);
        let mut owned_queue = None;
        let mut permit = Permit::default();
        if target.dynamic {
            let kind = said.unwrap_or(DestinationKind::Queue);
            let (number, name) = self.make_temporary(id, &attach.name, kind)?;
            (said, target.address) = (Some(kind), Some(name));
            owned_queue = Some(number);
        }
        let destination = match &target.address {
            None => None,
            Some(address) => {
                let (kind, name) = self.meaning_of(address, said)?;
                permit = self.permits_sending(id, kind, name)?;
                Some(self.open_destination(kind, name)?)
            }
        };
        if let Some(destination) = &destination {
            translate::tell_kind(&mut target.capabilities, destination.kind);
        }
        let credit = self.settings.publisher_credit;
        let takes_messages = self.takes_messages();
        let Some(peer) = self.peer_mut(id) else {
            return Ok(());
        };
        let reply = AttachReply {
            source: attach.source.clone(),
            target: Some(AttachTarget::Node(target)),
            ..AttachReply::default()
        };
        peer.connection.accept_attach(attach.link, reply);
        peer.publishers += 1;
        let publisher = Publisher {
            destination,
            routes: None,
            owned_queue,
            is_starved: !takes_messages,
            permit,
            relayed: Relayed::default(),
        };
        peer.links.insert(attach.link, Link::Publisher(publisher));
        if takes_messages {
            peer.connection.set_credit(attach.link, credit);
        } else {
            self.starved.push((id, attach.link));
        }
        Ok(())
    }

    fn attach_consumer(
        &mut self,
        now: Now,
        id: ConnectionId,
        attach: &Attach,
    ) -> Result<(), ErrorCondition> {
        self.check_link_limit(id)?;
        let Some(mut source) = attach.source.clone() else {
            return self.look_up(id, attach);
        };
        let reading = self.open_source(now, id, attach, &mut source)?;
        let queue = reading.queue;
        let consumer = ConsumerId {
            queue,
            number: self.next_consumer,
        };
        self.next_consumer += 1;
        let is_presettled = attach.snd_settle_mode == SenderSettleMode::Settled;
        // A subscription has its own copy of each message: taking that is what its client wants.
        let wants_copy = source.distribution_mode == Some(DistributionMode::Copy);
        let mode = if wants_copy && reading.kind == DestinationKind::Queue {
            let up_to = self.store.durable_lsn().0;
            ConsumerMode::Browse { up_to }
        } else if is_presettled {
            ConsumerMode::TakeSettled
        } else {
            ConsumerMode::Take
        };
        let is_durable = reading.kind == DestinationKind::Topic && reading.owned.is_none();
        let link = Consumer {
            id: consumer,
            session: attach.session,
            owned_queue: reading.owned,
            is_presettled,
            is_draining: false,
            is_ready: false,
            default_outcome: source.default_outcome.clone(),
            permit: reading.permit,
        };
        self.accept_consumer(id, attach, link, source, reading.ticket);
        if is_durable && let Some(peer) = self.peer_mut(id) {
            peer.connection.close_late(attach.link);
        }
        let client = self.client_of(id);
        self.broker.handle(Event::ConsumerAttached {
            consumer,
            mode,
            client,
        });
        self.offer(id, attach.link);
        self.work(now);
        Ok(())
    }

    /// The queue that a consumer reads: one with an address, or that of its subscription. Corrects
    /// `source`, which is the answer to the client.
    fn open_source(
        &mut self,
        now: Now,
        id: ConnectionId,
        attach: &Attach,
        source: &mut Source,
    ) -> Result<Reading, ErrorCondition> {
        translate::check_capabilities(&source.capabilities)?;
        translate::check_filters(source)?;
        let said = translate::kind_of(&source.capabilities);
        if source.dynamic {
            return self.open_temporary(now, id, attach, source);
        }
        let address = source.address.as_deref().unwrap_or("");
        let destination = Destination::from(self.meaning_of(address, said)?);
        translate::tell_kind(&mut source.capabilities, destination.kind);
        if destination.kind == DestinationKind::Topic {
            let permit = self.permits_subscribing(id, attach, &destination.name, source)?;
            let reading = self.subscribe(now, id, attach, &destination, source)?;
            return Ok(Reading { permit, ..reading });
        }
        let action = if source.distribution_mode == Some(DistributionMode::Copy) {
            Action::Browse
        } else {
            Action::Receive
        };
        let permit = self.permits(id, action, destination.kind, &destination.name)?;
        // Filters that are not in effect are left out (part 3.5.3).
        source.filter.clear();
        let queue = self.resolve_source(id, &destination)?;
        Ok(Reading {
            permit,
            ..Reading::of(queue, None)
        })
    }

    /// The same for a destination that is made for the link.
    fn open_temporary(
        &mut self,
        now: Now,
        id: ConnectionId,
        attach: &Attach,
        source: &mut Source,
    ) -> Result<Reading, ErrorCondition> {
        let kind = translate::kind_of(&source.capabilities).unwrap_or(DestinationKind::Queue);
        let (number, name) = self.make_temporary(id, &attach.name, kind)?;
        source.address = Some(name.clone());
        if kind == DestinationKind::Queue {
            source.filter.clear();
            return Ok(Reading::of(number, Some(number)));
        }
        source.durable = Durability::None;
        let topic = Destination::from((kind, &*name));
        let reading = self.subscribe(now, id, attach, &topic, source);
        if reading.is_err() {
            self.delete_queue(number);
        }
        let owned = Some(number);
        reading.map(|reading| Reading { owned, ..reading })
    }

    /// Makes a temporary destination; its number and its name.
    fn make_temporary(
        &mut self,
        id: ConnectionId,
        link_name: &str,
        kind: DestinationKind,
    ) -> Result<(QueueId, String), ErrorCondition> {
        let number = match kind {
            DestinationKind::Queue => self.create_temporary(id, link_name)?,
            DestinationKind::Topic => self.create_temporary_topic(id, link_name)?,
        };
        let queue = self.broker.queue(number).map(|it| &it.name);
        let topic = self.temporary_topics.get(number).map(|it| &it.name);
        let name = queue.or(topic).map(ToString::to_string);
        Ok((number, name.unwrap_or_default()))
    }

    /// Answers at once, or when the batch `ticket` is durable.
    fn accept_consumer(
        &mut self,
        id: ConnectionId,
        attach: &Attach,
        link: Consumer,
        source: Source,
        ticket: Option<Ticket>,
    ) {
        self.outlets.insert(link.id.number, (id, attach.link));
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        peer.links.insert(attach.link, Link::Consumer(link));
        let reply = AttachReply {
            source: Some(source),
            target: attach.target.clone(),
            ..AttachReply::default()
        };
        match ticket {
            None => peer.connection.accept_attach(attach.link, reply),
            Some(ticket) => {
                let answer = Item::Subscribed {
                    connection: id,
                    link: attach.link,
                    reply: Box::new(reply),
                };
                self.pending.push(ticket, answer);
            }
        }
    }

    fn check_link_limit(&self, id: ConnectionId) -> Result<(), ErrorCondition> {
        let links = self.peer(id).map_or(0, |peer| peer.links.len());
        if links < self.settings.links_per_connection_max {
            return Ok(());
        }
        Err(ErrorCondition::new(
            condition::RESOURCE_LIMIT_EXCEEDED,
            format!("a connection may have {links} links: close some"),
        ))
    }

    /// A destination that messages are to be published to; made when it does not exist and may be
    /// created.
    pub(super) fn open_destination(
        &mut self,
        kind: DestinationKind,
        name: &str,
    ) -> Result<Destination, ErrorCondition> {
        let destination = Destination::from((kind, name));
        match destination.kind {
            DestinationKind::Queue => self.resolve(&destination).map(|_| ())?,
            DestinationKind::Topic => self.check_topic(&destination)?,
        }
        Ok(destination)
    }

    /// The queue of an address; made when it does not exist and may be created.
    fn resolve(&mut self, destination: &Destination) -> Result<QueueId, ErrorCondition> {
        let name = &*destination.name;
        if name == super::desk::ADDRESS {
            let text = "requests to $management need a link of their own";
            return Err(ErrorCondition::new(condition::NOT_ALLOWED, text));
        }
        match self.broker.route(name) {
            Route::Queue(queue) => Ok(queue),
            Route::Invalid(fault) => Err(translate::name_refused(name, fault)),
            Route::Unknown => {
                if Pattern::parse(name).is_ok_and(|it| it.is_wildcard()) {
                    return Err(ErrorCondition::new(
                        condition::INVALID_FIELD,
                        format!(
                            "{name:?} is a pattern and no name of a queue; for the topics that it                              stands for, write topic://{name}"
                        ),
                    ));
                }
                self.may_create(destination)?;
                self.create_queue(name, QueueKind::Permanent)
            }
        }
    }

    /// The same for a consumer: only its owner reads a temporary queue.
    fn resolve_source(
        &mut self,
        id: ConnectionId,
        destination: &Destination,
    ) -> Result<QueueId, ErrorCondition> {
        let queue = self.resolve(destination)?;
        let kind = self.broker.queue(queue).map(|it| it.kind);
        match kind {
            Some(QueueKind::Temporary { owner })
                if owner.is_none() || owner != self.client_of(id) =>
            {
                Err(ErrorCondition::new(
                    condition::NOT_ALLOWED,
                    "only the client that made a temporary queue may consume from it",
                ))
            }
            _ => Ok(queue),
        }
    }

    /// Grants credit again to a publisher that used half of it.
    pub(super) fn refill(&mut self, id: ConnectionId, link: LinkId) {
        let credit = self.settings.publisher_credit;
        let takes_messages = self.takes_messages();
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        if takes_messages {
            peer.connection.set_credit(link, credit);
        } else if let Some(publisher) = peer.publisher_mut(link)
            && !publisher.is_starved
        {
            publisher.is_starved = true;
            self.starved.push((id, link));
        }
    }

    /// Whether publishers get credit: the disk keeps up and has space.
    pub(super) fn takes_messages(&self) -> bool {
        self.store.accepts_messages()
            && self.store.backlog_bytes() <= self.settings.backlog_soft_bytes
            && !self.is_stopping
    }

    /// Grants credit to the publishers that wait for it, when it is time.
    pub(super) fn grant_starved(&mut self) {
        if self.starved.is_empty() || !self.takes_messages() {
            return;
        }
        let credit = self.settings.publisher_credit;
        for (id, link) in std::mem::take(&mut self.starved) {
            let Some(peer) = self.peer_mut(id) else {
                continue;
            };
            if let Some(publisher) = peer.publisher_mut(link) {
                publisher.is_starved = false;
                peer.connection.set_credit(link, credit);
                self.mark_dirty(id);
            }
        }
    }
}
