//! What the node keeps in the store: the index beside each message, and its rows.
//!
//! All numbers are little endian.
//!
//! ```text
//! meta of a message (32 bytes, longer ones are of the future and read the same)
//! | 0 version = 1 | 1 flags | 2 priority | 3 0 | 4..8 message format | 8..12 offset of the bare message |
//! | 12..16 time to live, ms, 0 none | 16..24 arrival, ms since 1970 | 24..32 expiry, ms since 1970, 0 never |
//! flags: 1 durable, 2 has a header, 4 has delivery annotations, 8 first acquirer
//!
//! rows
//! kind 1 queue        key: number u32            value: an envelope with name, life and owner (a cold row)
//! kind 2 reservation  key: number u32            value: message number u64
//! kind 3 count        key: number u32, lsn u64   value: failed deliveries u32
//! kind 4 counter      key: name                  value: u64
//! kind 5 client       key: number u64            value: an envelope with container, user, epoch (a cold row)
//! kind 8 subscription key: number u32            value: an envelope with what it is (a cold row)
//!
//! A client row counts while its epoch is not below the counter `clients-from`; what is owned by a
//! client without a row that counts is removed at the next start. So that counter alone makes the state
//! of all clients void that did not return. A subscription whose row says that it is deleted is removed
//! at the next start too.
//! ```

use std::sync::Arc;

use steadfast_storage::envelope::{self, EnvelopeError};

use crate::broker::{ClientId, QueueKind};
use crate::model::Pattern;
use crate::proto::message::{Header, MessageIndex};

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
/// Key of the counter of queue numbers: the next one.
pub(crate) const COUNTER_NEXT_QUEUE: &[u8] = b"next-queue";

/// Key of the counter of client numbers: the next one.
pub(crate) const COUNTER_NEXT_CLIENT: &[u8] = b"next-client";

/// Key of the counter below whose epoch rows of clients do not count.
pub(crate) const COUNTER_CLIENTS_FROM: &[u8] = b"clients-from";

/// Key of a counter that is written to prove that the log can be written.
pub(crate) const COUNTER_PROOF: &[u8] = b"ownership-proof";

const META_VERSION: u8 = 1;
const META_BYTES: usize = 32;
const QUEUE_SCHEMA_1: u16 = 1;
const QUEUE_SCHEMA_2: u16 = 2;
const CLIENT_SCHEMA: u16 = 1;
const SUBSCRIPTION_SCHEMA: u16 = 1;

const FLAG_DURABLE: u8 = 1;
const FLAG_HEADER: u8 = 2;
const FLAG_ANNOTATIONS: u8 = 4;
const FLAG_FIRST_ACQUIRER: u8 = 8;

/// The index of a message: what is needed to send it without looking into it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageMeta {
    pub(crate) durable: bool,
    pub(crate) has_header: bool,
    pub(crate) has_delivery_annotations: bool,
    pub(crate) first_acquirer: bool,
    pub(crate) priority: u8,
    pub(crate) message_format: u32,
    /// First byte behind header and delivery annotations.
    pub(crate) bare_offset: u32,
    pub(crate) ttl_ms: u32,
    pub(crate) arrived_at_ms: u64,
    /// 0: never.
    pub(crate) expires_at_ms: u64,
}

impl MessageMeta {
    /// The index of an ordinary message that arrived now.
    pub(crate) fn of(index: &MessageIndex, wall_ms: u64) -> Self {
        let ttl_ms = index.ttl_ms.unwrap_or(0);
        // What the sender computed wins over what it left us to compute (part 3.2.4).
        let expires_at_ms = match index.absolute_expiry_ms {
            Some(at) if at > 0 => u64::try_from(at).unwrap_or(0),
            _ if ttl_ms > 0 => wall_ms.saturating_add(u64::from(ttl_ms)),
            _ => 0,
        };
        Self {
            durable: index.durable,
            has_header: index.has_header,
            has_delivery_annotations: index.has_delivery_annotations,
            first_acquirer: index.first_acquirer,
            priority: index.priority,
            message_format: 0,
            bare_offset: u32::try_from(index.bare_offset).unwrap_or(0),
            ttl_ms,
            arrived_at_ms: wall_ms,
            expires_at_ms,
        }
    }

    /// The index of a message in a format that we do not know: kept as durable, sent as it came.
    pub(crate) fn opaque(message_format: u32, wall_ms: u64) -> Self {
        Self {
            durable: true,
            has_header: false,
            has_delivery_annotations: false,
            first_acquirer: false,
            priority: 4,
            message_format,
            bare_offset: 0,
            ttl_ms: 0,
            arrived_at_ms: wall_ms,
            expires_at_ms: 0,
        }
    }

    pub(crate) fn encode(&self) -> [u8; META_BYTES] {
        let mut out = [0; META_BYTES];
        let flags = [
            (self.durable, FLAG_DURABLE),
            (self.has_header, FLAG_HEADER),
            (self.has_delivery_annotations, FLAG_ANNOTATIONS),
            (self.first_acquirer, FLAG_FIRST_ACQUIRER),
        ];
        out[0] = META_VERSION;
        out[1] = flags
            .iter()
            .filter(|(set, _)| *set)
            .map(|(_, bit)| bit)
            .sum();
        out[2] = self.priority;
        out[4..8].copy_from_slice(&self.message_format.to_le_bytes());
        out[8..12].copy_from_slice(&self.bare_offset.to_le_bytes());
        out[12..16].copy_from_slice(&self.ttl_ms.to_le_bytes());
        out[16..24].copy_from_slice(&self.arrived_at_ms.to_le_bytes());
        out[24..32].copy_from_slice(&self.expires_at_ms.to_le_bytes());
        out
    }

    /// Reads an index back; `None` for one that this version cannot read.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; META_BYTES] = bytes.first_chunk()?;
        if bytes[0] != META_VERSION {
            return None;
        }
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let flag = |bit: u8| bytes[1] & bit != 0;
        Some(Self {
            durable: flag(FLAG_DURABLE),
            has_header: flag(FLAG_HEADER),
            has_delivery_annotations: flag(FLAG_ANNOTATIONS),
            first_acquirer: flag(FLAG_FIRST_ACQUIRER),
            priority: bytes[2],
            message_format: word(4),
            bare_offset: word(8),
            ttl_ms: word(12),
            arrived_at_ms: long(16),
            expires_at_ms: long(24),
        })
    }

    /// Whether the stored bytes can be sent as they are.
    pub(crate) fn is_sent_unchanged(&self, delivery_count: u32) -> bool {
        self.message_format != 0 || (delivery_count == 0 && !self.has_delivery_annotations)
    }

    /// The header that replaces the received one.
    pub(crate) fn header(&self, delivery_count: u32, wall_ms: u64) -> Header {
        let waited_ms = wall_ms.saturating_sub(self.arrived_at_ms);
        let left_ms = u64::from(self.ttl_ms).saturating_sub(waited_ms).max(1);
        Header {
            durable: self.durable,
            priority: self.priority,
            ttl_ms: (self.ttl_ms > 0).then_some(u32::try_from(left_ms).unwrap_or(u32::MAX)),
            first_acquirer: self.first_acquirer && delivery_count == 0,
            delivery_count,
        }
    }
}

/// A queue as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueRow {
    pub(crate) name: Arc<str>,
    pub(crate) kind: QueueKind,
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

impl QueueRow {
    /// The value in its envelope.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        let stored = StoredQueue2 {
            name: self.name.to_string(),
            is_temporary: matches!(self.kind, QueueKind::Temporary { .. }),
            owner: self.kind.owner().map(|client| client.0),
        };
        envelope::seal(KIND_QUEUE, QUEUE_SCHEMA_2, &stored)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let stored = match envelope::kind_of(bytes).ok()? {
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
        Some(Self {
            name: Arc::from(stored.name),
            kind,
        })
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

impl SubscriptionRow {
    /// The row of a living subscription.
    pub(crate) fn of(subscription: &Subscription) -> Self {
        Self {
            topic: subscription.topic.clone(),
            name: Arc::clone(&subscription.name),
            container: Arc::clone(&subscription.container),
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
            owner: self.owner,
            is_static: self.is_static,
            no_local: self.no_local,
            reader: None,
        }
    }

    /// The value in its envelope.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        let stored = StoredSubscription {
            topic: self.topic.as_str().to_owned(),
            name: self.name.to_string(),
            container: self.container.to_string(),
            owner: self.owner.map(|client| client.0),
            is_static: self.is_static,
            no_local: self.no_local,
            is_deleted: self.is_deleted,
        };
        envelope::seal(KIND_SUBSCRIPTION, SUBSCRIPTION_SCHEMA, &stored)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let opened = envelope::open(KIND_SUBSCRIPTION, SUBSCRIPTION_SCHEMA, bytes);
        let stored: StoredSubscription = opened.ok()?;
        Some(Self {
            topic: Pattern::parse(&stored.topic).ok()?,
            name: Arc::from(stored.name),
            container: Arc::from(stored.container),
            owner: stored.owner.map(ClientId),
            is_static: stored.is_static,
            no_local: stored.no_local,
            is_deleted: stored.is_deleted,
        })
    }
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
mod tests {
    use super::*;

    fn meta() -> MessageMeta {
        MessageMeta {
            durable: true,
            has_header: true,
            has_delivery_annotations: false,
            first_acquirer: true,
            priority: 7,
            message_format: 0,
            bare_offset: 19,
            ttl_ms: 5_000,
            arrived_at_ms: 1_000_000,
            expires_at_ms: 1_005_000,
        }
    }

    #[test]
    fn a_message_index_survives_the_store() {
        let bytes = meta().encode();
        assert_eq!(MessageMeta::decode(&bytes), Some(meta()));
        assert_eq!(MessageMeta::decode(&bytes[..31]), None);
        let mut unknown = bytes;
        unknown[0] = 2;
        assert_eq!(MessageMeta::decode(&unknown), None);
    }

    #[test]
    fn a_new_header_counts_deliveries_and_the_time_that_is_left() {
        let header = meta().header(2, 1_003_000);
        assert_eq!(header.delivery_count, 2);
        assert_eq!(header.ttl_ms, Some(2_000));
        assert!(header.durable && !header.first_acquirer);
        assert_eq!(meta().header(0, 9_000_000).ttl_ms, Some(1));
    }

    #[test]
    fn rows_survive_the_store() {
        let row = |kind| QueueRow {
            name: Arc::from("orders"),
            kind,
        };
        let owner = Some(ClientId(1 << 40));
        for kind in [QueueKind::Permanent, QueueKind::Temporary { owner }] {
            let row = row(kind);
            assert_eq!(QueueRow::decode(&row.encode().unwrap()), Some(row));
        }
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
            owner: Some(ClientId(3)),
            is_static: false,
            no_local: true,
            is_deleted: true,
        };
        let bytes = row.encode().unwrap();
        assert_eq!(SubscriptionRow::decode(&bytes), Some(row));
        assert_eq!(SubscriptionRow::decode(&bytes[1..]), None);
        assert_eq!(parse_queue_key(&queue_key(7)), Some(7));
        assert_eq!(parse_count_key(&count_key(7, 9)), Some((7, 9)));
        assert_eq!(parse_count_key(&[1, 2]), None);
    }
}
