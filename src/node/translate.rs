//! Between the words of AMQP, of the broker and of the store.

use steadfast_storage::{Lsn, Place, StoredMessage};

use crate::broker::{self, Message, NameFault, Position, QueueId};
use crate::proto::{ErrorCondition, Outcome, Source, Symbol, Value, condition};

use super::records::MessageMeta;

/// Descriptor of a JMS selector.
const SELECTOR_CODE: u64 = 0x0000_468C_0000_0004;
const SELECTOR_NAMES: [&str; 2] = ["jms-selector", "apache.org:selector-filter:string"];

/// The store's number of a queue.
pub(crate) fn store_queue(queue: QueueId) -> steadfast_storage::QueueId {
    steadfast_storage::QueueId(queue.0)
}

/// The broker's name of a message.
pub(crate) fn position(lsn: Lsn, place: Place) -> Position {
    Position {
        lsn: lsn.0,
        segment: place.segment,
        ordinal: place.ordinal,
        offset: place.offset,
        bytes: place.bytes,
    }
}

/// The store's place of a message.
pub(crate) fn place(position: Position) -> Place {
    Place {
        segment: position.segment,
        ordinal: position.ordinal,
        offset: position.offset,
        bytes: position.bytes,
    }
}

/// A message that was read back.
pub(crate) fn message(stored: StoredMessage) -> Message {
    let expires_at_ms = MessageMeta::decode(&stored.meta).map_or(0, |meta| meta.expires_at_ms);
    Message {
        position: position(stored.lsn, stored.place),
        maybe_delivered: stored.flags.maybe_delivered,
        expires_at_ms,
        meta: stored.meta,
        body: stored.body,
    }
}

/// What a client did with a message; `None` for what only makes sense in a transaction. A
/// settlement without an outcome means the source's default outcome (part 3.5.3), else that the
/// client did not take it.
pub(crate) fn outcome(said: Option<Outcome>, default: Option<&Outcome>) -> Option<broker::Outcome> {
    let released = Outcome::Released;
    Some(match said.as_ref().or(default).unwrap_or(&released) {
        Outcome::Accepted => broker::Outcome::Accepted,
        Outcome::Rejected(_) => broker::Outcome::Rejected,
        Outcome::Released => broker::Outcome::Released,
        Outcome::Modified {
            delivery_failed,
            undeliverable_here,
        } => broker::Outcome::Modified {
            failed: *delivery_failed,
            not_here: *undeliverable_here,
        },
        Outcome::Declared { .. } | Outcome::Transactional { .. } => return None,
    })
}

/// An address that no queue can have, in AMQP's words.
pub(crate) fn name_refused(address: &str, fault: NameFault) -> ErrorCondition {
    let condition = match fault {
        NameFault::Reserved => condition::NOT_FOUND,
        _ => condition::INVALID_FIELD,
    };
    let shown: String = address.chars().take(80).collect();
    ErrorCondition::new(condition, format!("address {shown:?}: {fault}"))
}

/// A part of messaging that comes later.
pub(crate) fn not_implemented(what: &str) -> ErrorCondition {
    ErrorCondition::new(
        condition::NOT_IMPLEMENTED,
        format!("{what} are not supported by this version of Steadfast"),
    )
}

/// Refuses capabilities that ask for a topic or a shared subscription.
pub(crate) fn check_capabilities(capabilities: &[Symbol]) -> Result<(), ErrorCondition> {
    let asks_for = |name: &str| capabilities.iter().any(|it| it.as_str() == name);
    if asks_for("topic") || asks_for("temporary-topic") {
        return Err(not_implemented("topics"));
    }
    if asks_for("shared") || asks_for("global") {
        return Err(not_implemented("shared subscriptions"));
    }
    Ok(())
}

/// Refuses a selector: a consumer that asks for a part of the messages must not get all. Other
/// filters are left out of the answer, which tells the client that they are not in effect (part
/// 3.5.3).
pub(crate) fn check_filters(source: &Source) -> Result<(), ErrorCondition> {
    let is_selector = |(key, value): &(Symbol, Value)| {
        let described = match value {
            Value::Described(it) => match &it.descriptor {
                serde_amqp::descriptor::Descriptor::Code(code) => *code == SELECTOR_CODE,
                serde_amqp::descriptor::Descriptor::Name(name) => {
                    SELECTOR_NAMES.contains(&name.as_str())
                }
            },
            _ => false,
        };
        described || SELECTOR_NAMES.contains(&key.as_str())
    };
    if source.filter.iter().any(is_selector) {
        return Err(not_implemented("message selectors"));
    }
    Ok(())
}

/// Whether message annotations say that a relayed message is for a topic (`x-opt-jms-dest` 1 or 3).
pub(crate) fn is_for_topic(annotations: &[u8]) -> bool {
    const KEY: &[u8] = b"x-opt-jms-dest";
    let at = annotations.windows(KEY.len()).position(|it| it == KEY);
    let value = at.and_then(|at| annotations.get(at + KEY.len()..at + KEY.len() + 2));
    matches!(value, Some([0x51, 1 | 3]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settlement_without_outcome_means_the_default_of_the_source() {
        let failed = Outcome::Modified {
            delivery_failed: true,
            undeliverable_here: false,
        };
        assert_eq!(outcome(None, None), Some(broker::Outcome::Released));
        assert_eq!(
            outcome(None, Some(&failed)),
            Some(broker::Outcome::Modified {
                failed: true,
                not_here: false
            })
        );
        assert_eq!(
            outcome(Some(Outcome::Accepted), Some(&failed)),
            Some(broker::Outcome::Accepted)
        );
    }

    #[test]
    fn selectors_are_refused_and_other_filters_are_not() {
        let filter = |key: &str| Source {
            filter: vec![(Symbol::from(key), Value::String(String::from("x")))],
            ..Source::at("q")
        };
        assert!(check_filters(&filter("jms-selector")).is_err());
        assert!(check_filters(&filter("no-local")).is_ok());
    }

    #[test]
    fn a_relayed_message_for_a_topic_is_recognised() {
        assert!(is_for_topic(b"\xa3\x0ex-opt-jms-dest\x51\x01"));
        assert!(!is_for_topic(b"\xa3\x0ex-opt-jms-dest\x51\x00"));
        assert!(!is_for_topic(b"x-opt-jms-dest"));
        assert!(!is_for_topic(b""));
    }
}
