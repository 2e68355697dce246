//! The subscriptions to topics. Each has a queue of its own inside the broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use steadfast_storage::Ticket;

use crate::broker::{ClientId, QueueId};
use crate::model::Pattern;
use crate::proto::LinkId;

use super::ConnectionId;
use super::clients::Identity;

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// A topic or a pattern.
    pub(crate) topic: Pattern,
    /// The name of its link; that of the subscription when it is durable.
    pub(crate) name: Arc<str>,
    /// The container of its client; empty for a configured one that has none.
    pub(crate) container: Arc<str>,
    /// The user of its client. `None`: no user is known (its client is anonymous, the configuration or an older
    /// version made it), and it is for whoever uses the container.
    pub(crate) user: Option<Arc<str>>,
    /// The client with which it goes; `None`: it is durable, and stays when its link goes.
    pub(crate) owner: Option<ClientId>,
    /// The configuration names it.
    pub(crate) is_static: bool,
    /// Without what its own container publishes.
    pub(crate) no_local: bool,
    /// The link that gets its messages.
    pub(crate) reader: Option<(ConnectionId, LinkId)>,
}

impl Subscription {
    pub(crate) fn is_durable(&self) -> bool {
        self.owner.is_none()
    }

    /// Whether it is what a link asks for, as far as messages go.
    pub(crate) fn is_to(&self, topic: &str, no_local: bool) -> bool {
        self.topic.as_str() == topic && self.no_local == no_local
    }

    /// Whether it is a client's own.
    pub(crate) fn is_of(&self, client: &Identity) -> bool {
        *self.container == *client.container && self.user.as_deref() == client.user.as_deref()
    }

    /// What it is, for people.
    pub(crate) fn describe(&self) -> String {
        let kind = if self.is_durable() {
            "durable subscription"
        } else {
            "subscription"
        };
        let user = self.user.as_deref();
        let user = user.map_or_else(String::new, |user| format!(" and user {user:?}"));
        format!(
            "{kind} {:?} of client {:?}{user} to {}",
            self.name, self.container, self.topic
        )
    }
}

/// All subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    by_queue: BTreeMap<QueueId, Subscription>,
    /// By container and name.
    by_client: BTreeMap<(Arc<str>, Arc<str>), Vec<QueueId>>,
    /// The batches that make new ones durable.
    made: BTreeMap<QueueId, Ticket>,
}

impl Subscriptions {
    pub(crate) fn add(&mut self, queue: QueueId, subscription: Subscription) {
        let client = (
            Arc::clone(&subscription.container),
            Arc::clone(&subscription.name),
        );
        self.by_client.entry(client).or_default().push(queue);
        self.by_queue.insert(queue, subscription);
    }

    pub(crate) fn remove(&mut self, queue: QueueId) -> Option<Subscription> {
        let subscription = self.by_queue.remove(&queue)?;
        self.made.remove(&queue);
        let client = (
            Arc::clone(&subscription.container),
            Arc::clone(&subscription.name),
        );
        if let Some(queues) = self.by_client.get_mut(&client) {
            queues.retain(|it| *it != queue);
            if queues.is_empty() {
                self.by_client.remove(&client);
            }
        }
        Some(subscription)
    }

    /// A subscription is new, and durable with this batch.
    pub(crate) fn made(&mut self, queue: QueueId, ticket: Ticket) {
        self.made.insert(queue, ticket);
    }

    /// The batch that makes a subscription durable, unless that is among the `durable` ones.
    pub(crate) fn not_durable_yet(&mut self, queue: QueueId, durable: Ticket) -> Option<Ticket> {
        self.made.retain(|_, ticket| *ticket > durable);
        self.made.get(&queue).copied()
    }

    pub(crate) fn get(&self, queue: QueueId) -> Option<&Subscription> {
        self.by_queue.get(&queue)
    }

    pub(crate) fn get_mut(&mut self, queue: QueueId) -> Option<&mut Subscription> {
        self.by_queue.get_mut(&queue)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (QueueId, &Subscription)> {
        self.by_queue.iter().map(|(queue, it)| (*queue, it))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_queue.len()
    }

    /// The subscriptions of a client by their name.
    pub(crate) fn of(
        &self,
        container: &str,
        name: &str,
    ) -> impl Iterator<Item = (QueueId, &Subscription)> {
        let client = (Arc::from(container), Arc::from(name));
        let queues = self.by_client.get(&client).into_iter().flatten();
        queues.filter_map(|queue| Some((*queue, self.by_queue.get(queue)?)))
    }

    /// The durable subscription of a container for which no user is known.
    pub(crate) fn userless(&self, container: &str, name: &str) -> Option<(QueueId, &Subscription)> {
        let mut all = self.of(container, name);
        all.find(|(_, it)| it.is_durable() && it.user.is_none())
    }

    /// The durable subscription that an administrator means: that of this container and this user (both may be
    /// empty: not said). The only one of its name, or the one that belongs to nobody.
    pub(crate) fn meant(
        &self,
        container: &str,
        user: &str,
        name: &str,
    ) -> Option<(QueueId, &Subscription)> {
        if container.is_empty()
            && user.is_empty()
            && let Some(found) = self.userless("", name)
        {
            return Some(found);
        }
        let mut named = self.iter().filter(|(_, it)| {
            it.is_durable()
                && *it.name == *name
                && (container.is_empty() || *it.container == *container)
                && (user.is_empty() || it.user.as_deref() == Some(user))
        });
        let found = named.next();
        found.filter(|_| named.next().is_none())
    }

    /// A client's durable subscription; else that of its container whose user is not known; else the configured
    /// one of that name that belongs to no client.
    pub(crate) fn durable(
        &self,
        client: &Identity,
        name: &str,
    ) -> Option<(QueueId, &Subscription)> {
        let container = client.container.as_str();
        let own = {
            let mut all = self.of(container, name);
            all.find(|(_, it)| it.is_durable() && it.is_of(client))
        };
        own.or_else(|| self.userless(container, name))
            .or_else(|| self.userless("", name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(container: &str, user: &str, name: &str, is_durable: bool) -> Subscription {
        Subscription {
            topic: Pattern::parse("px.>").unwrap(),
            name: Arc::from(name),
            container: Arc::from(container),
            user: (!user.is_empty()).then(|| Arc::from(user)),
            owner: (!is_durable).then_some(ClientId(1)),
            is_static: false,
            no_local: false,
            reader: None,
        }
    }

    fn client(container: &str, user: &str) -> Identity {
        Identity {
            container: container.to_owned(),
            user: (!user.is_empty()).then(|| user.to_owned()),
        }
    }

    #[test]
    fn an_administrator_need_not_name_the_client_of_the_only_one_of_a_name() {
        let mut all = Subscriptions::default();
        all.add(QueueId(1), subscription("c1", "", "d", true));
        all.add(QueueId(2), subscription("c2", "", "d", false));
        let queue = |all: &Subscriptions, container, user| {
            let found = all.meant(container, user, "d");
            found.map(|(queue, _)| queue)
        };
        assert_eq!(queue(&all, "", ""), Some(QueueId(1)));
        assert_eq!(queue(&all, "c1", ""), Some(QueueId(1)));
        assert_eq!(queue(&all, "c3", ""), None);
        all.add(QueueId(3), subscription("c3", "ann", "d", true));
        assert_eq!(queue(&all, "", ""), None);
        all.add(QueueId(5), subscription("c3", "bob", "d", true));
        assert_eq!(queue(&all, "c3", ""), None);
        assert_eq!(queue(&all, "c3", "bob"), Some(QueueId(5)));
        all.add(QueueId(4), subscription("", "", "d", true));
        assert_eq!(queue(&all, "", ""), Some(QueueId(4)));
    }

    #[test]
    fn a_durable_subscription_is_found_by_client_and_name_before_one_of_nobody() {
        let mut all = Subscriptions::default();
        all.add(QueueId(1), subscription("", "", "d", true));
        all.add(QueueId(2), subscription("c", "", "d", false));
        let found = |all: &Subscriptions, container, user, name| {
            let found = all.durable(&client(container, user), name);
            found.map(|(queue, _)| queue.0)
        };
        assert_eq!(found(&all, "c", "", "d"), Some(1));
        all.add(QueueId(3), subscription("c", "", "d", true));
        assert_eq!(found(&all, "c", "", "d"), Some(3));
        assert_eq!(found(&all, "c", "ann", "d"), Some(3));
        assert_eq!(found(&all, "other", "", "d"), Some(1));
        assert_eq!(found(&all, "c", "", "e"), None);
        all.add(QueueId(4), subscription("c", "ann", "d", true));
        assert_eq!(found(&all, "c", "ann", "d"), Some(4));
        assert_eq!(found(&all, "c", "bob", "d"), Some(3));
        assert!(all.remove(QueueId(3)).is_some() && all.remove(QueueId(3)).is_none());
        assert_eq!(found(&all, "c", "bob", "d"), Some(1));
        assert_eq!(all.of("c", "d").count(), 2);
    }
}
