//! The rows that the node keeps in the store.
//!
//! All numbers are little endian.
//!
//! ```text
//! rows
//! kind 1 queue        key: number u32            value: an envelope with name, life and owner (a cold row)
//! kind 2 reservation  key: number u32            value: message number u64
//! kind 3 count        key: number u32, lsn u64   value: failed deliveries u32
//! kind 4 counter      key: name                  value: u64
//! kind 5 client       key: number u64            value: an envelope with container, user, epoch (a cold row)
//! kind 6 held         see `held_rows.rs`
//! kind 8 subscription key: number u32            value: an envelope with what it is (a cold row)
//! kind 9 temp. topic  key: number u32            value: an envelope with name and owner (a cold row)
//!
//! A client row counts while its epoch is not below the counter `clients-from`; what is owned by a
//! client without a row that counts is removed at the next start. So that counter alone makes the state
//! of all clients void that did not return. A queue or subscription whose row says that it is deleted is
//! removed at the next start too.
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use steadfast_storage::envelope::{self, EnvelopeError};
use steadfast_storage::inspect::UserRows;

use crate::broker::{ClientId, QueueKind};
use crate::model::Pattern;

use super::clients::Identity;
use super::subscriptions::Subscription;

/// Row kind: a queue.
pub(crate) const KIND_QUEUE: u16 = 1;
/// Row kind: up to where a queue may deliver.
pub(crate) const KIND_RESERVATION: u16 = 2;
/// Row kind: failed deliveries of a message.
pub(crate) const KIND_COUNT: u16 = 3;
/// Row kind: a number that only grows.
pub(crate) const KIND_COUNTER: u16 = 4;
/// Row kind: a client that owns something.
pub(crate) const KIND_CLIENT: u16 = 5;
/// Row kind: a subscription to a topic; its key is the number of its queue.
pub(crate) const KIND_SUBSCRIPTION: u16 = 8;
/// Row kind: a temporary topic; its key is a number of the sequence of queues.
pub(crate) const KIND_TEMPORARY_TOPIC: u16 = 9;
/// Key of the counter of queue numbers: the next one.
pub(crate) const COUNTER_NEXT_QUEUE: &[u8] = b"next-queue";

/// Key of the counter of client numbers: the next one.
pub(crate) const COUNTER_NEXT_CLIENT: &[u8] = b"next-client";

/// Key of the counter below whose epoch rows of clients do not count.
pub(crate) const COUNTER_CLIENTS_FROM: &[u8] = b"clients-from";

/// Key of a counter that is written to prove that the log can be written.
pub(crate) const COUNTER_PROOF: &[u8] = b"ownership-proof";

const QUEUE_SCHEMA_1: u16 = 1;
const QUEUE_SCHEMA_2: u16 = 2;
const QUEUE_SCHEMA_3: u16 = 3;
const CLIENT_SCHEMA: u16 = 1;
const SUBSCRIPTION_SCHEMA_1: u16 = 1;
const SUBSCRIPTION_SCHEMA_2: u16 = 2;
const TEMPORARY_TOPIC_SCHEMA: u16 = 1;

/// A queue as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueRow {
    pub(crate) name: Arc<str>,
    pub(crate) kind: QueueKind,
    /// It is over; its messages are being removed.
    pub(crate) is_deleted: bool,
}

/// A queue as it is stored: the first schema of its kind. Never edited; a further one gets a type of
/// its own.
#[derive(bincode::Encode, bincode::Decode)]
struct StoredQueue {
    name: String,
    is_temporary: bool,
}

/// The second schema: temporary queues say whose they are.
#[derive(bincode::Encode, bincode::Decode)]
struct StoredQueue2 {
    name: String,
    is_temporary: bool,
    owner: Option<u64>,
}

/// The third schema: a queue that is deleted. Only such queues have it, so an older version of the server reads
/// all others.
#[derive(bincode::Encode, bincode::Decode)]
struct StoredQueue3 {
    name: String,
}

impl QueueRow {
    /// The row of a queue that lives.
    pub(crate) fn of(name: Arc<str>, kind: QueueKind) -> Self {
        Self {
            name,
            kind,
            is_deleted: false,
        }
    }

    /// The value in its envelope. Of a deleted queue only its name is kept.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        let name = self.name.to_string();
        if self.is_deleted {
            return envelope::seal(KIND_QUEUE, QUEUE_SCHEMA_3, &StoredQueue3 { name });
        }
        let stored = StoredQueue2 {
            name,
            is_temporary: matches!(self.kind, QueueKind::Temporary { .. }),
            owner: self.kind.owner().map(|client| client.0),
        };
        envelope::seal(KIND_QUEUE, QUEUE_SCHEMA_2, &stored)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let stored = match envelope::kind_of(bytes).ok()? {
            (KIND_QUEUE, QUEUE_SCHEMA_3) => {
                let third: StoredQueue3 = envelope::open(KIND_QUEUE, QUEUE_SCHEMA_3, bytes).ok()?;
                return Some(Self {
                    name: Arc::from(third.name),
                    kind: QueueKind::Permanent,
                    is_deleted: true,
                });
            }
            (KIND_QUEUE, QUEUE_SCHEMA_1) => {
                let first: StoredQueue = envelope::open(KIND_QUEUE, QUEUE_SCHEMA_1, bytes).ok()?;
                StoredQueue2 {
                    name: first.name,
                    is_temporary: first.is_temporary,
                    owner: None,
                }
            }
            _ => envelope::open(KIND_QUEUE, QUEUE_SCHEMA_2, bytes).ok()?,
        };
        let kind = if stored.is_temporary {
            let owner = stored.owner.map(ClientId);
            QueueKind::Temporary { owner }
        } else {
            QueueKind::Permanent
        };
        Some(Self::of(Arc::from(stored.name), kind))
    }
}

/// A client as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientRow {
    pub(crate) identity: Identity,
    /// The epoch in which it was connected last.
    pub(crate) epoch: u64,
}

/// A client as it is stored: the first schema of its kind. Never edited.
#[derive(bincode::Encode, bincode::Decode)]
struct StoredClient {
    container: String,
    user: Option<String>,
    epoch: u64,
}

impl ClientRow {
    /// The value in its envelope.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        let stored = StoredClient {
            container: self.identity.container.clone(),
            user: self.identity.user.clone(),
            epoch: self.epoch,
        };
        envelope::seal(KIND_CLIENT, CLIENT_SCHEMA, &stored)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let stored: StoredClient = envelope::open(KIND_CLIENT, CLIENT_SCHEMA, bytes).ok()?;
        Some(Self {
            identity: Identity {
                container: stored.container,
                user: stored.user,
            },
            epoch: stored.epoch,
        })
    }
}

/// A subscription as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubscriptionRow {
    pub(crate) topic: Pattern,
    pub(crate) name: Arc<str>,
    pub(crate) container: Arc<str>,
    pub(crate) user: Option<Arc<str>>,
    pub(crate) owner: Option<ClientId>,
    pub(crate) is_static: bool,
    pub(crate) no_local: bool,
    /// It is over; its messages are being removed.
    pub(crate) is_deleted: bool,
}

/// A subscription as it is stored: the first schema of its kind. Never edited; a further one gets a
/// type of its own.
#[derive(bincode::Encode, bincode::Decode)]
struct StoredSubscription {
    topic: String,
    name: String,
    container: String,
    owner: Option<u64>,
    is_static: bool,
    no_local: bool,
    is_deleted: bool,
}

/// The second schema: subscriptions say whose user they are.
#[derive(bincode::Encode, bincode::Decode)]
struct StoredSubscription2 {
    topic: String,
    name: String,
    container: String,
    user: Option<String>,
    owner: Option<u64>,
    is_static: bool,
    no_local: bool,
    is_deleted: bool,
}

impl SubscriptionRow {
    /// The row of a living subscription.
    pub(crate) fn of(subscription: &Subscription) -> Self {
        Self {
            topic: subscription.topic.clone(),
            name: Arc::clone(&subscription.name),
            container: Arc::clone(&subscription.container),
            user: subscription.user.clone(),
            owner: subscription.owner,
            is_static: subscription.is_static,
            no_local: subscription.no_local,
            is_deleted: false,
        }
    }

    /// The subscription, which nobody reads yet.
    pub(crate) fn into_subscription(self) -> Subscription {
        Subscription {
            topic: self.topic,
            name: self.name,
            container: self.container,
            user: self.user,
            owner: self.owner,
            is_static: self.is_static,
            no_local: self.no_local,
            reader: None,
        }
    }

    /// The value in its envelope.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        let stored = StoredSubscription2 {
            topic: self.topic.as_str().to_owned(),
            name: self.name.to_string(),
            container: self.container.to_string(),
            user: self.user.as_deref().map(str::to_owned),
            owner: self.owner.map(|client| client.0),
            is_static: self.is_static,
            no_local: self.no_local,
            is_deleted: self.is_deleted,
        };
        envelope::seal(KIND_SUBSCRIPTION, SUBSCRIPTION_SCHEMA_2, &stored)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let stored = match envelope::kind_of(bytes).ok()? {
            (KIND_SUBSCRIPTION, SUBSCRIPTION_SCHEMA_1) => {
                let opened = envelope::open(KIND_SUBSCRIPTION, SUBSCRIPTION_SCHEMA_1, bytes);
                let first: StoredSubscription = opened.ok()?;
                StoredSubscription2 {
                    topic: first.topic,
                    name: first.name,
                    container: first.container,
                    user: None,
                    owner: first.owner,
                    is_static: first.is_static,
                    no_local: first.no_local,
                    is_deleted: first.is_deleted,
                }
            }
            _ => envelope::open(KIND_SUBSCRIPTION, SUBSCRIPTION_SCHEMA_2, bytes).ok()?,
        };
        Some(Self {
            topic: Pattern::parse(&stored.topic).ok()?,
            name: Arc::from(stored.name),
            container: Arc::from(stored.container),
            user: stored.user.map(Arc::from),
            owner: stored.owner.map(ClientId),
            is_static: stored.is_static,
            no_local: stored.no_local,
            is_deleted: stored.is_deleted,
        })
    }
}

/// A temporary topic as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TemporaryTopicRow {
    pub(crate) name: Arc<str>,
    pub(crate) owner: Option<ClientId>,
}

/// A temporary topic as it is stored: the first schema of its kind. Never edited.
#[derive(bincode::Encode, bincode::Decode)]
struct StoredTemporaryTopic {
    name: String,
    owner: Option<u64>,
}

impl TemporaryTopicRow {
    /// The value in its envelope.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        let stored = StoredTemporaryTopic {
            name: self.name.to_string(),
            owner: self.owner.map(|client| client.0),
        };
        envelope::seal(KIND_TEMPORARY_TOPIC, TEMPORARY_TOPIC_SCHEMA, &stored)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let opened = envelope::open(KIND_TEMPORARY_TOPIC, TEMPORARY_TOPIC_SCHEMA, bytes);
        let stored: StoredTemporaryTopic = opened.ok()?;
        Some(Self {
            name: Arc::from(stored.name),
            owner: stored.owner.map(ClientId),
        })
    }
}

/// What each queue of a store is called, by the store's rows: by name, or as the subscription that it is.
#[must_use]
pub fn queue_names(rows: &UserRows) -> BTreeMap<u32, String> {
    let of_kind = |kind| rows.get(&kind).into_iter().flatten();
    let queues = of_kind(KIND_QUEUE).filter_map(|(key, value)| {
        let row = QueueRow::decode(value)?;
        Some((parse_queue_key(key)?, row.name.to_string()))
    });
    let subscriptions = of_kind(KIND_SUBSCRIPTION).filter_map(|(key, value)| {
        let row = SubscriptionRow::decode(value)?;
        Some((parse_queue_key(key)?, row.into_subscription().describe()))
    });
    queues.chain(subscriptions).collect()
}

/// Key of the rows of a queue.
pub(crate) fn queue_key(queue: u32) -> [u8; 4] {
    queue.to_le_bytes()
}

/// Key of the row of a client.
pub(crate) fn client_key(client: ClientId) -> [u8; 8] {
    client.0.to_le_bytes()
}

/// Key of the delivery count of a message.
pub(crate) fn count_key(queue: u32, lsn: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&queue.to_le_bytes());
    key[4..].copy_from_slice(&lsn.to_le_bytes());
    key
}

/// The number of a queue from its key.
pub(crate) fn parse_queue_key(key: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(key.try_into().ok()?))
}

/// The number of a client from its key.
pub(crate) fn parse_client_key(key: &[u8]) -> Option<ClientId> {
    parse_long(key).map(ClientId)
}

/// Queue and message number from the key of a delivery count.
pub(crate) fn parse_count_key(key: &[u8]) -> Option<(u32, u64)> {
    let (queue, lsn) = key.split_first_chunk::<4>()?;
    Some((
        u32::from_le_bytes(*queue),
        u64::from_le_bytes(lsn.try_into().ok()?),
    ))
}

/// A number of 8 bytes.
pub(crate) fn parse_long(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(value.try_into().ok()?))
}

/// A number of 4 bytes.
pub(crate) fn parse_word(value: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(value.try_into().ok()?))
}

#[cfg(test)]
impl SubscriptionRow {
    /// The value as the first version wrote it.
    pub(crate) fn encode_as_first(&self) -> Vec<u8> {
        let stored = StoredSubscription {
            topic: self.topic.as_str().to_owned(),
            name: self.name.to_string(),
            container: self.container.to_string(),
            owner: self.owner.map(|client| client.0),
            is_static: self.is_static,
            no_local: self.no_local,
            is_deleted: self.is_deleted,
        };
        envelope::seal(KIND_SUBSCRIPTION, SUBSCRIPTION_SCHEMA_1, &stored).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_the_store() {
        let row = |kind| QueueRow::of(Arc::from("orders"), kind);
        let owner = Some(ClientId(1 << 40));
        for kind in [QueueKind::Permanent, QueueKind::Temporary { owner }] {
            let row = row(kind);
            assert_eq!(QueueRow::decode(&row.encode().unwrap()), Some(row));
        }
        let deleted = QueueRow {
            is_deleted: true,
            ..row(QueueKind::Permanent)
        };
        assert_eq!(QueueRow::decode(&deleted.encode().unwrap()), Some(deleted));
        let first = StoredQueue {
            name: String::from("orders"),
            is_temporary: true,
        };
        let bytes = envelope::seal(KIND_QUEUE, QUEUE_SCHEMA_1, &first).unwrap();
        let unowned = row(QueueKind::Temporary { owner: None });
        assert_eq!(QueueRow::decode(&bytes), Some(unowned));
        let client = ClientRow {
            identity: Identity {
                container: String::from("c"),
                user: Some(String::from("ann")),
            },
            epoch: 7,
        };
        assert_eq!(ClientRow::decode(&client.encode().unwrap()), Some(client));
        assert_eq!(QueueRow::decode(&[9, 0, b'x']), None);
        let row = SubscriptionRow {
            topic: Pattern::parse("px.>").unwrap(),
            name: Arc::from("d1"),
            container: Arc::from("c1"),
            user: Some(Arc::from("ann")),
            owner: Some(ClientId(3)),
            is_static: false,
            no_local: true,
            is_deleted: true,
        };
        let bytes = row.encode().unwrap();
        assert_eq!(SubscriptionRow::decode(&bytes), Some(row.clone()));
        assert_eq!(SubscriptionRow::decode(&bytes[1..]), None);
        let bytes = row.encode_as_first();
        let older = SubscriptionRow { user: None, ..row };
        assert_eq!(SubscriptionRow::decode(&bytes), Some(older));
        let row = TemporaryTopicRow {
            name: Arc::from("$TMP$.east.1f.7"),
            owner: Some(ClientId(3)),
        };
        let bytes = row.encode().unwrap();
        assert_eq!(TemporaryTopicRow::decode(&bytes), Some(row));
        assert_eq!(TemporaryTopicRow::decode(&bytes[1..]), None);
        assert_eq!(parse_queue_key(&queue_key(7)), Some(7));
        assert_eq!(parse_count_key(&count_key(7, 9)), Some((7, 9)));
        assert_eq!(parse_count_key(&[1, 2]), None);
    }

    #[test]
    fn queues_are_called_by_what_their_rows_say() {
        let queue = QueueRow::of(Arc::from("orders"), QueueKind::Permanent);
        let subscription = SubscriptionRow {
            topic: Pattern::parse("px.>").unwrap(),
            name: Arc::from("d1"),
            container: Arc::from("c1"),
            user: None,
            owner: None,
            is_static: false,
            no_local: false,
            is_deleted: false,
        };
        let described = subscription.clone().into_subscription().describe();
        let key = |queue| queue_key(queue).to_vec();
        let queues = [(key(7), queue.encode().unwrap()), (key(8), vec![9])];
        let subscriptions = [(key(9), subscription.encode().unwrap())];
        let rows = UserRows::from([
            (KIND_QUEUE, BTreeMap::from(queues)),
            (KIND_SUBSCRIPTION, BTreeMap::from(subscriptions)),
        ]);
        let expected = BTreeMap::from([(7, "orders".to_owned()), (9, described)]);
        assert_eq!(queue_names(&rows), expected);
    }
}
