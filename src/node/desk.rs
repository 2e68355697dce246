//! `$management` on one connection: requests of a client and the links for their replies.

use std::collections::{BTreeMap, VecDeque};

use crate::proto::message::ValueMessage;
use crate::proto::{
    Attach, AttachReply, AttachTarget, Connection, ErrorCondition, Event, LinkId, Outcome, Payload,
    PeerRole, Value, condition,
};

/// Where requests go.
pub(crate) const ADDRESS: &str = "$management";
/// Requests of a connection that may wait for their answer.
const OPEN_MAX: usize = 16;
/// Links of a connection to and from [`ADDRESS`].
const LINKS_MAX: usize = 16;
/// Largest request, bytes.
const REQUEST_BYTES_MAX: usize = 256 << 10;

/// A request and who made it.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Names it on its connection.
    pub(crate) number: u64,
    pub(crate) message: ValueMessage,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq)]
pub struct ManagementReply {
    /// As of HTTP: 200 done, 400 not understood, 403 not permitted, 404 not there and so on.
    pub status: u16,
    /// What happened, in words.
    pub description: String,
    /// What was asked for.
    pub body: Value,
}

/// A reply for somebody without a reply link of ours: an address and an encoded message.
pub(crate) type Elsewhere = (String, Vec<u8>);

/// Where a reply goes.
#[derive(Debug)]
struct Open {
    link: LinkId,
    reply_to: Option<String>,
    correlation_id: Vec<u8>,
}

/// The management links of one connection.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// Links on which requests come.
    requests: Vec<LinkId>,
    /// Links on which replies leave, with the addresses that requests name them by.
    replies: BTreeMap<LinkId, String>,
    open: BTreeMap<u64, Open>,
    next_number: u64,
    /// Replies that wait for credit.
    outbox: VecDeque<(LinkId, Vec<u8>)>,
}

/// Whether a link is one of [`ADDRESS`].
pub(crate) fn is_management(attach: &Attach) -> bool {
    let address = match attach.peer_role {
        PeerRole::Sender => attach.target_node().and_then(|it| it.address.as_deref()),
        PeerRole::Receiver => attach.source.as_ref().and_then(|it| it.address.as_deref()),
    };
    address == Some(ADDRESS)
}

impl Desk {
    /// Answers an attach that [`is_management`], or that wants a place for replies.
    pub(crate) fn attach(&mut self, connection: &mut Connection, attach: &Attach) {
        if self.requests.len() + self.replies.len() >= LINKS_MAX {
            let error = ErrorCondition::new(
                condition::RESOURCE_LIMIT_EXCEEDED,
                format!("a connection may have {LINKS_MAX} links of {ADDRESS}: close some"),
            );
            connection.refuse_attach(attach.link, error);
            return;
        }
        let mut reply = AttachReply {
            source: attach.source.clone(),
            target: attach.target.clone(),
            ..AttachReply::default()
        };
        match attach.peer_role {
            PeerRole::Sender => {
                self.requests.push(attach.link);
                connection.accept_attach(attach.link, reply);
                connection.set_credit(attach.link, OPEN_MAX as u32);
            }
            PeerRole::Receiver => {
                let mut address = match &attach.target {
                    Some(AttachTarget::Node(target)) => target.address.clone(),
                    _ => None,
                };
                if let Some(source) = reply.source.as_mut() {
                    source.filter.clear();
                    if source.dynamic {
                        self.next_number += 1;
                        let made = format!("{ADDRESS}.reply.{}", self.next_number);
                        source.address = Some(made.clone());
                        address = Some(made);
                    }
                }
                let address = address.unwrap_or_else(|| ADDRESS.to_owned());
                self.replies.insert(attach.link, address);
                connection.accept_attach(attach.link, reply);
            }
        }
    }

    /// Takes an event that is about a link of this desk; gives back any other.
    pub(crate) fn take(
        &mut self,
        connection: &mut Connection,
        event: Event,
    ) -> Result<Option<Asked>, Event> {
        match event {
            Event::Delivery {
                link,
                delivery_id,
                settled,
                payload,
                ..
            } if self.requests.contains(&link) => {
                let asked = self.deliver(link, &payload);
                let (asked, outcome) = match asked {
                    Ok(asked) => (Some(asked), Outcome::Accepted),
                    Err(error) => (None, Outcome::Rejected(Some(error))),
                };
                if !settled {
                    connection.settle(link, delivery_id, outcome);
                }
                self.grant(connection, link);
                return Ok(asked);
            }
            Event::Detached { link, .. } if self.has(link) => {
                self.requests.retain(|own| *own != link);
                self.replies.remove(&link);
                self.outbox.retain(|(own, _)| *own != link);
            }
            Event::Flow { link, .. } if self.has(link) => {
                self.flush(connection);
                connection.drained(link);
            }
            Event::Disposition {
                link,
                delivery_id,
                settled,
                ..
            } if self.has(link) => {
                if !settled {
                    connection.settle_sent(link, delivery_id);
                }
            }
            Event::CreditRefill { link } if self.has(link) => self.grant(connection, link),
            other => return Err(other),
        }
        Ok(None)
    }

    fn has(&self, link: LinkId) -> bool {
        self.requests.contains(&link) || self.replies.contains_key(&link)
    }

    fn deliver(&mut self, link: LinkId, payload: &Payload) -> Result<Asked, ErrorCondition> {
        let refused = |condition, text: &str| ErrorCondition::new(condition, text.to_owned());
        if payload.len() > REQUEST_BYTES_MAX {
            let text = "a request has at most 256 KiB";
            return Err(refused(condition::MESSAGE_SIZE_EXCEEDED, text));
        }
        if self.open.len() >= OPEN_MAX {
            let text = "too many requests wait for their answer: wait for some";
            return Err(refused(condition::RESOURCE_LIMIT_EXCEEDED, text));
        }
        let bytes = payload.to_bytes();
        let message = ValueMessage::decode(&bytes)
            .map_err(|error| refused(condition::DECODE_ERROR, &error.to_string()))?;
        self.next_number += 1;
        let number = self.next_number;
        let correlation_id = match message.correlation_id.is_empty() {
            true => message.message_id.clone(),
            false => message.correlation_id.clone(),
        };
        let open = Open {
            link,
            reply_to: message.reply_to.clone(),
            correlation_id,
        };
        self.open.insert(number, open);
        Ok(Asked { number, message })
    }

    /// As much credit as requests may still come.
    fn grant(&self, connection: &mut Connection, link: LinkId) {
        if self.requests.contains(&link) {
            let left = OPEN_MAX.saturating_sub(self.open.len());
            connection.set_credit(link, left as u32);
        }
    }

    /// Answers a request. What cannot leave on a link of this connection is given back; a request
    /// that named no place for its reply gets none.
    pub(crate) fn reply(
        &mut self,
        connection: &mut Connection,
        number: u64,
        reply: ManagementReply,
    ) -> Option<Elsewhere> {
        let open = self.open.remove(&number)?;
        self.grant(connection, open.link);
        let named = open.reply_to.as_deref();
        let own = self
            .replies
            .iter()
            .find(|(_, address)| named.is_none_or(|named| named == *address || named == ADDRESS));
        let own = own.map(|(link, _)| *link);
        let bytes = encode(&open, reply)?;
        match (own, open.reply_to) {
            (Some(link), _) => {
                self.outbox.push_back((link, bytes));
                // Clients that grant no credit have had their chance.
                while self.outbox.len() > 2 * OPEN_MAX {
                    self.outbox.pop_front();
                }
                self.flush(connection);
                None
            }
            (None, Some(address)) => Some((address, bytes)),
            (None, None) => None,
        }
    }

    /// Sends replies for which there is credit.
    pub(crate) fn flush(&mut self, connection: &mut Connection) {
        let mut waiting = VecDeque::new();
        while let Some((link, bytes)) = self.outbox.pop_front() {
            if connection.credit(link) == 0 {
                waiting.push_back((link, bytes));
                continue;
            }
            // A message that its receiver does not take is not worth the connection.
            let _refused = connection.send(link, 0, 0, &[&bytes], false);
        }
        self.outbox = waiting;
    }
}

fn encode(open: &Open, reply: ManagementReply) -> Option<Vec<u8>> {
    let message = |reply: ManagementReply| ValueMessage {
        to: open.reply_to.clone(),
        correlation_id: open.correlation_id.clone(),
        properties: vec![
            ("statusCode".to_owned(), Value::Int(i32::from(reply.status))),
            (
                "statusDescription".to_owned(),
                Value::String(reply.description),
            ),
        ],
        body: reply.body,
        ..ValueMessage::default()
    };
    let failed = |text: String| ManagementReply {
        status: 500,
        description: format!("the reply cannot be written: {text}"),
        body: Value::Null,
    };
    let encoded = message(reply).encode();
    encoded.or_else(|text| message(failed(text)).encode()).ok()
}
