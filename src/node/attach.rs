//! Links that clients ask for.

use crate::broker::{ConsumerId, ConsumerMode, Event, QueueId, QueueKind, Route};
use crate::proto::{
    Attach, AttachReply, AttachTarget, DistributionMode, ErrorCondition, LinkId, PeerRole,
    SenderSettleMode, Source, condition,
};

use super::peer::{Consumer, Link, Publisher};
use super::translate;
use super::{ConnectionId, Node, Now};

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
        let (queue, owned_queue) = if target.dynamic {
            let queue = self.create_temporary(id, &attach.name)?;
            target.address = self.broker.queue(queue).map(|it| it.name.to_string());
            (Some(queue), Some(queue))
        } else {
            match &target.address {
                None => (None, None),
                Some(address) => (Some(self.resolve(address)?), None),
            }
        };
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
            queue,
            owned_queue,
            is_starved: !takes_messages,
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
            return Err(ErrorCondition::new(
                condition::NOT_FOUND,
                format!("there is no subscription {:?}", attach.name),
            ));
        };
        translate::check_capabilities(&source.capabilities)?;
        translate::check_filters(&source)?;
        let (queue, owned_queue) = if source.dynamic {
            let queue = self.create_temporary(id, &attach.name)?;
            source.address = self.broker.queue(queue).map(|it| it.name.to_string());
            (queue, Some(queue))
        } else {
            (self.resolve_source(id, &source)?, None)
        };
        // Filters that are not in effect are left out (part 3.5.3).
        source.filter.clear();
        let consumer = ConsumerId {
            queue,
            number: self.next_consumer,
        };
        self.next_consumer += 1;
        let is_presettled = attach.snd_settle_mode == SenderSettleMode::Settled;
        let mode = if source.distribution_mode == Some(DistributionMode::Copy) {
            let up_to = self.store.durable_lsn().0;
            ConsumerMode::Browse { up_to }
        } else if is_presettled {
            ConsumerMode::TakeSettled
        } else {
            ConsumerMode::Take
        };
        let link = Consumer {
            id: consumer,
            session: attach.session,
            owned_queue,
            is_presettled,
            is_draining: false,
            is_ready: false,
            default_outcome: source.default_outcome.clone(),
        };
        self.accept_consumer(id, attach, link, source);
        self.broker
            .handle(Event::ConsumerAttached { consumer, mode });
        self.offer(id, attach.link);
        self.work(now);
        Ok(())
    }

    fn accept_consumer(
        &mut self,
        id: ConnectionId,
        attach: &Attach,
        link: Consumer,
        source: Source,
    ) {
        self.outlets.insert(link.id.number, (id, attach.link));
        if let Some(peer) = self.peer_mut(id) {
            let reply = AttachReply {
                source: Some(source),
                target: attach.target.clone(),
                ..AttachReply::default()
            };
            peer.connection.accept_attach(attach.link, reply);
            peer.links.insert(attach.link, Link::Consumer(link));
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

    /// The queue of an address; made when it does not exist and may be created.
    pub(super) fn resolve(&mut self, address: &str) -> Result<QueueId, ErrorCondition> {
        match self.broker.route(address) {
            Route::Queue(queue) => Ok(queue),
            Route::Invalid(fault) => Err(translate::name_refused(address, fault)),
            Route::Unknown if self.settings.auto_create_queues => {
                self.create_queue(address, QueueKind::Permanent)
            }
            Route::Unknown => Err(ErrorCondition::new(
                condition::NOT_FOUND,
                format!("there is no queue {address:?}, and queues are not created on use"),
            )),
        }
    }

    /// The same for a consumer: only its owner reads a temporary queue.
    fn resolve_source(
        &mut self,
        id: ConnectionId,
        source: &Source,
    ) -> Result<QueueId, ErrorCondition> {
        let queue = self.resolve(source.address.as_deref().unwrap_or(""))?;
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
