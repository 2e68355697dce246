//! Between the words of AMQP, of the broker and of the store.

use steadfast_storage::{Lsn, Place, StoredMessage};

use crate::broker::{self, Message, NameFault, Position, QueueId};
use crate::model::DestinationKind;
use crate::proto::{ErrorCondition, Outcome, Source, Symbol, Value, condition};

use super::meta::MessageMeta;

/// Descriptor of a JMS selector.
const SELECTOR_CODE: u64 = 0x0000_468C_0000_0004;
const SELECTOR_NAMES: [&str; 2] = ["jms-selector", "apache.org:selector-filter:string"];
/// Descriptor of the filter by which a JMS subscriber does not get its own messages.
const NO_LOCAL_CODE: u64 = 0x0000_468C_0000_0003;
const NO_LOCAL_NAMES: [&str; 2] = ["no-local", "apache.org:no-local-filter:list"];

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

/// The same of which nothing but its name is known.
pub(crate) fn reference(segment: u64, ordinal: u32) -> Place {
    Place {
        segment,
        ordinal,
        offset: 0,
        bytes: 0,
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

/// The kind of destination that the capabilities of a terminus speak of.
pub(crate) fn kind_of(capabilities: &[Symbol]) -> Option<DestinationKind> {
    capabilities.iter().find_map(|it| match it.as_str() {
        "queue" | "temporary-queue" => Some(DestinationKind::Queue),
        "topic" | "temporary-topic" => Some(DestinationKind::Topic),
        _ => None,
    })
}

/// Says in the capabilities of a terminus what kind of destination it has.
pub(crate) fn tell_kind(capabilities: &mut Vec<Symbol>, kind: DestinationKind) {
    if kind_of(capabilities).is_none() {
        capabilities.push(Symbol::from(kind.word()));
    }
}

/// Refuses capabilities that ask for a shared subscription.
pub(crate) fn check_capabilities(capabilities: &[Symbol]) -> Result<(), ErrorCondition> {
    let asks_for = |name: &str| capabilities.iter().any(|it| it.as_str() == name);
    if asks_for("shared") || asks_for("global") {
        return Err(not_implemented("shared subscriptions"));
    }
    Ok(())
}

/// Refuses a selector: a consumer that asks for a part of the messages must not get all. Other
/// filters are left out of the answer, which tells the client that they are not in effect (part
/// 3.5.3).
pub(crate) fn check_filters(source: &Source) -> Result<(), ErrorCondition> {
    if source
        .filter
        .iter()
        .any(is_filter(SELECTOR_CODE, SELECTOR_NAMES))
    {
        return Err(not_implemented("message selectors"));
    }
    Ok(())
}

/// The filter by which a subscriber does not want what its own container publishes, if it is there.
pub(crate) fn no_local(source: &Source) -> Option<&(Symbol, Value)> {
    let is_no_local = is_filter(NO_LOCAL_CODE, NO_LOCAL_NAMES);
    source.filter.iter().find(|it| is_no_local(it))
}

/// Whether a filter of a source is one that we know, by the code or the name of its descriptor or by
/// its key.
fn is_filter(code: u64, names: [&'static str; 2]) -> impl Fn(&(Symbol, Value)) -> bool {
    move |(key, value)| {
        let described = match value {
            Value::Described(it) => match &it.descriptor {
                serde_amqp::descriptor::Descriptor::Code(said) => *said == code,
                serde_amqp::descriptor::Descriptor::Name(name) => names.contains(&name.as_str()),
            },
            _ => false,
        };
        described || names.contains(&key.as_str())
    }
}

/// What message annotations say of the kind of destination that a relayed message is for
/// (`x-opt-jms-dest`: 0 and 2 queues, 1 and 3 topics).
pub(crate) fn relayed_kind(annotations: &[u8]) -> Option<DestinationKind> {
    const KEY: &[u8] = b"x-opt-jms-dest";
    let at = annotations.windows(KEY.len()).position(|it| it == KEY)?;
    match annotations.get(at + KEY.len()..at + KEY.len() + 2)? {
        [0x51, 0 | 2] => Some(DestinationKind::Queue),
        [0x51, 1 | 3] => Some(DestinationKind::Topic),
        _ => None,
    }
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
    fn the_kind_that_a_relayed_message_is_for_is_recognised() {
        for (value, kind) in [
            (b'\x00', DestinationKind::Queue),
            (b'\x01', DestinationKind::Topic),
            (b'\x02', DestinationKind::Queue),
            (b'\x03', DestinationKind::Topic),
        ] {
            let annotations = [b"\xa3\x0ex-opt-jms-dest\x51", &[value][..]].concat();
            assert_eq!(relayed_kind(&annotations), Some(kind));
        }
        assert_eq!(relayed_kind(b"\xa3\x0ex-opt-jms-dest\x51\x09"), None);
        assert_eq!(relayed_kind(b"x-opt-jms-dest"), None);
        assert_eq!(relayed_kind(b""), None);
    }
}
