//! Who may do what with a destination. Decided when a link is attached, and again for each link when users or
//! permissions change; for the anonymous relay with each new address.

use std::collections::BTreeSet;

use crate::broker::{Gone, QueueKind, Route};
use crate::model::{ADMIN_USER, Action, DestinationKind, Pattern};
use crate::proto::{Attach, ErrorCondition, LinkId, Source, condition};

use super::peer::Link;
use super::subscribe::is_durable;
use super::subscriptions::Subscription;
use super::{ConnectionId, Node, Now, translate};

/// Addresses that an anonymous relay remembers.
const RELAYED_MAX: usize = 64;

/// What was permitted to a link; kept with it, to be decided anew when permissions change.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Permit(Vec<Need>);

#[derive(Debug)]
struct Need {
    action: Action,
    kind: DestinationKind,
    name: Box<str>,
}

/// Addresses that were permitted to an anonymous relay, queues and topics.
#[derive(Debug, Default)]
pub(crate) struct Relayed([BTreeSet<Box<str>>; 2]);

impl Relayed {
    fn names(&mut self, kind: DestinationKind) -> &mut BTreeSet<Box<str>> {
        let [queues, topics] = &mut self.0;
        match kind {
            DestinationKind::Queue => queues,
            DestinationKind::Topic => topics,
        }
    }
}

impl Node {
    /// Whether the user of a connection may do this to a destination, or to all that a pattern stands for. To be
    /// asked before anything else, also whether there is such a destination: the answer says nothing about that.
    ///
    /// # Errors
    /// `amqp:unauthorized-access`.
    pub(super) fn permits(
        &self,
        id: ConnectionId,
        action: Action,
        kind: DestinationKind,
        name: &str,
    ) -> Result<Permit, ErrorCondition> {
        let user = self.peer(id).and_then(|peer| peer.user.as_deref());
        // Noted without authorization, too: links of clients with certificates are there when it is enabled.
        if !self.directory.authorization || self.is_allowed(user, action, kind, name) {
            let name = name.into();
            return Ok(Permit(vec![Need { action, kind, name }]));
        }
        Err(self.refusal(id, action, name))
    }

    /// The same for sending.
    pub(super) fn permits_sending(
        &self,
        id: ConnectionId,
        kind: DestinationKind,
        name: &str,
    ) -> Result<Permit, ErrorCondition> {
        let action = match kind {
            DestinationKind::Queue => Action::Send,
            DestinationKind::Topic => Action::Publish,
        };
        self.permits(id, action, kind, name)
    }

    /// The same for a link that receives from a topic: a durable subscription may be there already, or have to go
    /// because it is another one.
    pub(super) fn permits_subscribing(
        &self,
        id: ConnectionId,
        attach: &Attach,
        topic: &str,
        source: &Source,
    ) -> Result<Permit, ErrorCondition> {
        let permits = |action, name: &str| self.permits(id, action, DestinationKind::Topic, name);
        if !is_durable(source) {
            return permits(Action::Subscribe, topic);
        }
        let client = self.identity_of(id);
        let found = self.subscriptions.durable(&client, &attach.name);
        match found {
            Some((_, it)) if it.is_to(topic, translate::no_local(source).is_some()) => {
                permits(Action::UseDurable, topic)
            }
            Some((_, it)) if !self.may_delete(id, it) => {
                Err(self.refusal(id, Action::Durable, topic))
            }
            _ => permits(Action::Durable, topic),
        }
    }

    /// Whether the user of a connection may delete a durable subscription.
    pub(super) fn may_delete(&self, id: ConnectionId, subscription: &Subscription) -> bool {
        let topic = subscription.topic.as_str();
        let permit = self.permits(id, Action::Durable, DestinationKind::Topic, topic);
        permit.is_ok()
    }

    fn refusal(&self, id: ConnectionId, action: Action, name: &str) -> ErrorCondition {
        let user = self.peer(id).and_then(|peer| peer.user.as_deref());
        let user = user.unwrap_or("");
        ErrorCondition::new(
            condition::UNAUTHORIZED_ACCESS,
            format!(
                "the user {user:?} has no permission to {} {name:?}",
                verb(action)
            ),
        )
    }

    /// The same for a message through the anonymous relay.
    pub(super) fn permits_message(
        &mut self,
        id: ConnectionId,
        link: LinkId,
        (kind, name): (DestinationKind, &str),
    ) -> Result<(), ErrorCondition> {
        if !self.directory.authorization {
            return Ok(());
        }
        let peer = self.peer_mut(id);
        let publisher = peer.and_then(|peer| peer.publisher_mut(link));
        if publisher.is_some_and(|it| it.relayed.names(kind).contains(name)) {
            return Ok(());
        }
        // Nothing is kept: the addresses are forgotten when permissions change.
        let _permit = self.permits_sending(id, kind, name)?;
        let peer = self.peer_mut(id);
        if let Some(publisher) = peer.and_then(|peer| peer.publisher_mut(link)) {
            let names = publisher.relayed.names(kind);
            if names.len() >= RELAYED_MAX {
                names.clear();
            }
            names.insert(name.into());
        }
        Ok(())
    }

    fn is_allowed(
        &self,
        user: Option<&str>,
        action: Action,
        kind: DestinationKind,
        name: &str,
    ) -> bool {
        let Some(user) = user else {
            return false;
        };
        if self.is_temporary(kind, name) {
            // Its owner alone consumes from it; whoever was told its name may answer.
            return true;
        }
        let access = &self.directory.access;
        let groups = access.groups_of(user);
        match Pattern::parse(name) {
            Ok(name) => access.allowed(user, &groups, action, kind, &name),
            // No line of the files can name it.
            Err(_) => {
                let secure = match kind {
                    DestinationKind::Queue => &access.secure_queues,
                    DestinationKind::Topic => &access.secure_topics,
                };
                user == ADMIN_USER || !secure.iter().any(|secure| secure.matches(name))
            }
        }
    }

    fn is_temporary(&self, kind: DestinationKind, name: &str) -> bool {
        if kind == DestinationKind::Topic {
            return self.temporary_topics.has(name);
        }
        match self.broker.route(name) {
            Route::Queue(queue) => self
                .broker
                .queue(queue)
                .is_some_and(|entry| matches!(entry.kind, QueueKind::Temporary { .. })),
            Route::Unknown | Route::Invalid(_) => false,
        }
    }

    /// Closes what the new users and permissions do not allow any more. `was_open`: there was no authorization.
    pub(super) fn enforce(&mut self, now: Now, was_open: bool) {
        self.proto = self
            .settings
            .proto_settings(Some(self.store.epoch()), self.directory.authorization);
        if !self.directory.authorization {
            return;
        }
        let ids: Vec<ConnectionId> = self
            .peers
            .iter()
            .map(|(index, peer)| super::connection_id(index, peer))
            .collect();
        for id in ids {
            match self.farewell(id, was_open) {
                Some(error) => {
                    if let Some(peer) = self.peer_mut(id) {
                        peer.connection.close_now(Some(error));
                    }
                    self.take_events(now, id);
                }
                None => self.revoke_links(id),
            }
        }
    }

    /// Why a connection has to go, if so. One that has not said who it is yet is asked.
    fn farewell(&self, id: ConnectionId, was_open: bool) -> Option<ErrorCondition> {
        let peer = self.peer(id).filter(|peer| peer.is_open)?;
        if was_open && !peer.is_verified {
            return Some(ErrorCondition::new(
                condition::CONNECTION_FORCED,
                "authorization was enabled: connect again, with user and password",
            ));
        }
        let user = peer.user.as_deref().unwrap_or("");
        (!self.users.has(user)).then(|| {
            ErrorCondition::new(
                condition::UNAUTHORIZED_ACCESS,
                format!("there is no user {user:?} any more"),
            )
        })
    }

    fn revoke_links(&mut self, id: ConnectionId) {
        let Some(peer) = self.peer(id) else {
            return;
        };
        let user = peer.user.as_deref();
        let lost = |permit: &Permit| {
            let mut needs = permit.0.iter();
            let need =
                needs.find(|need| !self.is_allowed(user, need.action, need.kind, &need.name))?;
            Some(ErrorCondition::new(
                condition::UNAUTHORIZED_ACCESS,
                format!(
                    "the user {:?} has no permission any more to {} {:?}",
                    user.unwrap_or(""),
                    verb(need.action),
                    need.name
                ),
            ))
        };
        let revoked: Vec<(LinkId, ErrorCondition)> = peer
            .links
            .iter()
            .filter_map(|(&link, it)| Some((link, lost(it.permit()?)?)))
            .collect();
        if let Some(peer) = self.peer_mut(id) {
            for link in peer.links.values_mut() {
                if let Link::Publisher(publisher) = link {
                    publisher.relayed = Relayed::default();
                }
            }
        }
        for (link, error) in revoked {
            if let Some(peer) = self.peer_mut(id) {
                peer.connection.detach(link, Some(error));
                self.mark_dirty(id);
            }
            self.on_detached(id, link, Gone::InOrder);
        }
    }
}

/// What somebody wants to do, in words before the destination that do not tell what kind it has.
fn verb(action: Action) -> &'static str {
    match action {
        Action::Receive | Action::Subscribe | Action::Durable | Action::UseDurable => {
            "receive from"
        }
        Action::Send | Action::Publish => "send to",
        Action::Browse => "browse",
        Action::View => "view",
        Action::Create => "create",
        Action::Delete => "delete",
        Action::Modify => "modify",
        Action::Purge => "purge",
    }
}
