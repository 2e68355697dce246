//! The fast path against the library, on generated frames.

use bytes::BytesMut;
use fe2o3_amqp_types::definitions as fe;
use fe2o3_amqp_types::messaging as fem;
use fe2o3_amqp_types::performatives as fep;
use fe2o3_amqp_types::transaction as fet;
use proptest::prelude::*;
use serde_amqp::from_slice;

use super::*;
use crate::proto::delivery::{SentState, Settlements, Unsettled};
use crate::proto::fast::{self, Disposition, Flow, LinkFlow, Transfer, TransferStart};
use crate::proto::frame;
use crate::proto::wire::{self, Reader, code};

fn error() -> impl Strategy<Value = ErrorCondition> {
    (
        "[a-z:]{1,20}",
        proptest::option::of(".{0,300}"),
        proptest::collection::btree_map("[a-z]{1,5}", any::<i32>(), 0..4),
    )
        .prop_map(|(condition, description, info)| ErrorCondition {
            condition: condition.into(),
            description,
            info: info
                .into_iter()
                .map(|(key, value)| (Symbol::from(key), value.into()))
                .collect(),
        })
}

fn plain_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Accepted),
        Just(Outcome::Released),
        proptest::option::of(error()).prop_map(Outcome::Rejected),
        any::<(bool, bool)>().prop_map(|(delivery_failed, undeliverable_here)| {
            Outcome::Modified {
                delivery_failed,
                undeliverable_here,
            }
        }),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(|txn_id| Outcome::Declared {
            txn_id: txn_id.into()
        }),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let transactional = (
        proptest::collection::vec(any::<u8>(), 0..40),
        proptest::option::of(plain_outcome()),
    )
        .prop_map(|(txn_id, outcome)| Outcome::Transactional {
            txn_id: txn_id.into(),
            outcome: outcome.map(Box::new),
        });
    prop_oneof![3 => plain_outcome(), 1 => transactional]
}

fn fe_error(error: &ErrorCondition) -> fe::Error {
    performative::error_out(error)
}

/// The same outcome in the library's types.
fn fe_outcome(outcome: &Outcome) -> fem::Outcome {
    match outcome {
        Outcome::Accepted => fem::Outcome::Accepted(fem::Accepted {}),
        Outcome::Released => fem::Outcome::Released(fem::Released {}),
        Outcome::Rejected(error) => fem::Outcome::Rejected(fem::Rejected {
            error: error.as_ref().map(fe_error),
        }),
        Outcome::Modified {
            delivery_failed,
            undeliverable_here,
        } => fem::Outcome::Modified(fem::Modified {
            delivery_failed: Some(*delivery_failed),
            undeliverable_here: Some(*undeliverable_here),
            message_annotations: None,
        }),
        Outcome::Declared { txn_id } => fem::Outcome::Declared(fet::Declared {
            txn_id: txn_id.to_vec().into(),
        }),
        Outcome::Transactional { .. } => unreachable!("not an outcome"),
    }
}

fn fe_state(outcome: &Outcome) -> fem::DeliveryState {
    match outcome {
        Outcome::Transactional { txn_id, outcome } => {
            fem::DeliveryState::TransactionalState(fet::TransactionalState {
                txn_id: txn_id.to_vec().into(),
                outcome: outcome.as_deref().map(fe_outcome),
            })
        }
        other => match fe_outcome(other) {
            fem::Outcome::Accepted(state) => fem::DeliveryState::Accepted(state),
            fem::Outcome::Rejected(state) => fem::DeliveryState::Rejected(state),
            fem::Outcome::Released(state) => fem::DeliveryState::Released(state),
            fem::Outcome::Modified(state) => fem::DeliveryState::Modified(state),
            fem::Outcome::Declared(state) => fem::DeliveryState::Declared(state),
        },
    }
}

/// The same error after a way through the library, which knows the defined conditions by type.
fn same_state(ours: &fem::DeliveryState, theirs: &fem::DeliveryState) -> bool {
    serde_amqp::to_vec(ours).unwrap() == serde_amqp::to_vec(theirs).unwrap()
}

fn fields<'a>(body: &'a [u8], expected: u64) -> (wire::Fields<'a>, &'a [u8]) {
    let mut reader = Reader::new(body);
    assert_eq!(reader.descriptor().unwrap(), expected);
    let list = reader.list().unwrap();
    (list, reader.rest())
}

fn body(out: &BytesMut) -> &[u8] {
    let header = frame::parse_header(out, usize::MAX).unwrap().unwrap();
    assert_eq!(header.size, out.len());
    &out[header.body..]
}

proptest! {
    #[test]
    fn transfers_written_by_the_library_are_read(
        handle in any::<u32>(),
        delivery_id in proptest::option::of(any::<u32>()),
        tag in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..33)),
        message_format in proptest::option::of(any::<u32>()),
        settled in proptest::option::of(any::<bool>()),
        more in any::<bool>(),
        second in proptest::option::of(any::<bool>()),
        state in proptest::option::of(outcome()),
        aborted in any::<bool>(),
        payload in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let written = fep::Transfer {
            handle: fe::Handle(handle),
            delivery_id,
            delivery_tag: tag.clone().map(Into::into),
            message_format,
            settled,
            more,
            rcv_settle_mode: second.map(|second| {
                if second { fe::ReceiverSettleMode::Second } else { fe::ReceiverSettleMode::First }
            }),
            state: state.as_ref().map(fe_state),
            resume: false,
            aborted,
            batchable: true,
        };
        let mut bytes = serde_amqp::to_vec(&written).unwrap();
        bytes.extend_from_slice(&payload);
        let (list, rest) = fields(&bytes, code::TRANSFER);
        let read = Transfer::parse(list).unwrap();
        prop_assert_eq!(rest, &payload[..]);
        prop_assert_eq!(read.handle, handle);
        prop_assert_eq!(read.delivery_id, delivery_id);
        prop_assert_eq!(read.delivery_tag, tag.as_deref());
        prop_assert_eq!(read.message_format, message_format);
        prop_assert_eq!(read.settled, settled);
        prop_assert_eq!((read.more, read.aborted), (more, aborted));
        let read_state = read.state.map(|bytes| fast::parse_state(bytes).unwrap().unwrap());
        prop_assert_eq!(read_state, state);
    }

    #[test]
    fn transfers_written_by_us_are_read_by_the_library(
        channel in any::<u16>(),
        handle in any::<u32>(),
        start in proptest::option::of(any::<(u32, u32, bool)>()),
        more in any::<bool>(),
    ) {
        let mut out = BytesMut::new();
        let transfer_start = start.map(|(delivery_id, message_format, settled)| {
            TransferStart { delivery_id, message_format, settled }
        });
        let at = fast::begin_transfer(&mut out, channel, handle, transfer_start, more);
        prop_assert!(out.len() <= fast::TRANSFER_OVERHEAD_MAX);
        frame::finish(&mut out, at);
        prop_assert_eq!(frame::parse_header(&out, 512).unwrap().unwrap().channel, channel);
        let read: fep::Transfer = from_slice(body(&out)).unwrap();
        prop_assert_eq!(read.handle.0, handle);
        prop_assert_eq!(read.more, more);
        prop_assert_eq!(read.delivery_id, start.map(|start| start.0));
        prop_assert_eq!(read.message_format, start.map(|start| start.1));
        prop_assert_eq!(read.settled, start.map(|start| start.2));
        prop_assert_eq!(read.delivery_tag.is_some(), start.is_some());
    }

    #[test]
    fn dispositions_written_by_us_are_read_by_the_library_and_by_us(
        as_receiver in any::<bool>(),
        first in any::<u32>(),
        span in prop_oneof![Just(0_u32), any::<u32>()],
        outcome in proptest::option::of(outcome()),
    ) {
        let last = first.wrapping_add(span);
        let mut out = BytesMut::new();
        fast::put_disposition(&mut out, 9, as_receiver, first, last, outcome.as_ref());
        let read: fep::Disposition = from_slice(body(&out)).unwrap();
        prop_assert_eq!(bool::from(&read.role), as_receiver);
        prop_assert_eq!((read.first, read.last.unwrap_or(first), read.settled), (first, last, true));
        prop_assert_eq!(read.state.is_some(), outcome.is_some());
        if let (Some(theirs), Some(ours)) = (&read.state, &outcome) {
            prop_assert!(same_state(&fe_state(ours), theirs));
        }
        let (list, rest) = fields(body(&out), code::DISPOSITION);
        prop_assert!(rest.is_empty());
        let again = Disposition::parse(list).unwrap();
        let state = again.state.map(|bytes| fast::parse_state(bytes).unwrap().unwrap());
        prop_assert_eq!((again.first, again.last, again.from_receiver), (first, last, as_receiver));
        prop_assert_eq!(state, outcome);
    }

    #[test]
    fn dispositions_written_by_the_library_are_read(
        receiver in any::<bool>(),
        first in any::<u32>(),
        last in proptest::option::of(any::<u32>()),
        settled in any::<bool>(),
        outcome in proptest::option::of(outcome()),
    ) {
        let written = fep::Disposition {
            role: fe::Role::from(receiver),
            first,
            last,
            settled,
            state: outcome.as_ref().map(fe_state),
            batchable: false,
        };
        let bytes = serde_amqp::to_vec(&written).unwrap();
        let read = Disposition::parse(fields(&bytes, code::DISPOSITION).0).unwrap();
        prop_assert_eq!(read.from_receiver, receiver);
        prop_assert_eq!((read.first, read.last, read.settled), (first, last.unwrap_or(first), settled));
        let state = read.state.map(|bytes| fast::parse_state(bytes).unwrap().unwrap());
        prop_assert_eq!(state, outcome);
    }

    #[test]
    fn flows_pass_between_us_and_the_library(
        next_incoming_id in proptest::option::of(any::<u32>()),
        windows in any::<(u32, u32, u32)>(),
        link in proptest::option::of(any::<(u32, Option<u32>, Option<u32>, bool)>()),
        echo in any::<bool>(),
    ) {
        let ours = Flow {
            next_incoming_id,
            incoming_window: windows.0,
            next_outgoing_id: windows.1,
            outgoing_window: windows.2,
            link: link.map(|(handle, delivery_count, link_credit, drain)| {
                LinkFlow { handle, delivery_count, link_credit, drain }
            }),
            echo,
        };
        let mut out = BytesMut::new();
        fast::put_flow(&mut out, 1, &ours);
        let theirs: fep::Flow = from_slice(body(&out)).unwrap();
        prop_assert_eq!(theirs.next_incoming_id, next_incoming_id);
        prop_assert_eq!((theirs.incoming_window, theirs.next_outgoing_id, theirs.outgoing_window), windows);
        prop_assert_eq!(theirs.handle.as_ref().map(|handle| handle.0), link.map(|link| link.0));
        prop_assert_eq!((theirs.drain, theirs.echo), (link.is_some_and(|link| link.3), echo));
        let bytes = serde_amqp::to_vec(&theirs).unwrap();
        prop_assert_eq!(Flow::parse(fields(&bytes, code::FLOW).0).unwrap(), ours);
    }

    #[test]
    fn what_the_library_reads_as_a_transfer_we_read_alike(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..60),
        prefix in any::<bool>(),
    ) {
        if prefix {
            bytes.splice(0..0, [0x00, 0x53, 0x14]);
        }
        let theirs: Result<fep::Transfer, _> = from_slice(&bytes);
        let mut reader = Reader::new(&bytes);
        let ours = match (reader.descriptor(), reader.list()) {
            (Ok(code::TRANSFER), Ok(list)) => Transfer::parse(list).ok(),
            _ => None,
        };
        if let (Ok(theirs), Some(ours)) = (theirs, ours) {
            prop_assert_eq!(theirs.handle.0, ours.handle);
            prop_assert_eq!(theirs.delivery_id, ours.delivery_id);
            prop_assert_eq!(theirs.more, ours.more);
        }
    }

    #[test]
    fn checked_bytes_never_upset_the_library(
        bytes in proptest::collection::vec(
            prop_oneof![
                3 => any::<u8>(),
                3 => proptest::sample::select(&[0x00_u8, 0x53, 0x40, 0x41, 0x43, 0x45, 0xa1, 0xa3, 0xc0, 0xc1, 0xe0, 1, 2, 3][..]),
            ],
            0..80,
        ),
        descriptor in proptest::option::of(0x10_u8..0x46),
    ) {
        let mut body = Vec::new();
        if let Some(descriptor) = descriptor {
            body.extend_from_slice(&[0x00, 0x53, descriptor, 0xc0, bytes.len() as u8 + 1, 9]);
        }
        body.extend_from_slice(&bytes);
        use crate::proto::performative::decode;
        let _ = decode::<Value>(&body);
        let _ = decode::<fep::Open>(&body);
        let _ = decode::<fep::Begin>(&body);
        let _ = decode::<fep::Attach>(&body);
        let _ = decode::<fep::Detach>(&body);
        let _ = decode::<fep::End>(&body);
        let _ = decode::<fep::Close>(&body);
        let _ = sasl::parse(&body);
        let _ = fast::parse_state(&body);
    }

    #[test]
    fn settlements_cover_exactly_what_was_settled(
        ids in proptest::collection::btree_set(0_u32..200, 0..100),
        base in any::<u32>(),
        order in any::<proptest::sample::Index>(),
        released in any::<u32>(),
    ) {
        let mut ids: Vec<u32> = ids.into_iter().map(|id| id.wrapping_add(base)).collect();
        if !ids.is_empty() {
            let at = order.index(ids.len());
            ids.rotate_left(at);
        }
        let outcome_of = |id: u32| {
            if released & (1 << (id % 32)) == 0 { Outcome::Accepted } else { Outcome::Released }
        };
        let mut settlements = Settlements::default();
        for &id in &ids {
            settlements.push(id, Some(outcome_of(id)));
        }
        let mut covered = Vec::new();
        let mut runs = Vec::new();
        settlements.drain(|run| {
            runs.push(run.clone());
            let mut id = run.first;
            loop {
                covered.push((id, run.outcome.clone()));
                if id == run.last { break }
                id = id.wrapping_add(1);
            }
        });
        for pair in runs.windows(2) {
            let joined = pair[0].last.wrapping_add(1) == pair[1].first && pair[0].outcome == pair[1].outcome;
            prop_assert!(!joined, "two runs could be one");
        }
        covered.sort_by_key(|(id, _)| id.wrapping_sub(base));
        let mut expected: Vec<_> = ids.into_iter().map(|id| (id, Some(outcome_of(id)))).collect();
        expected.sort_by_key(|(id, _)| id.wrapping_sub(base));
        prop_assert_eq!(covered, expected);
    }

    #[test]
    fn unsettled_deliveries_are_found_by_any_range(
        base in any::<u32>(),
        count in 1_u32..300,
        ranges in proptest::collection::vec((0_u32..320, 0_u32..40), 0..60),
    ) {
        let mut unsettled = Unsettled::default();
        let mut model = std::collections::BTreeSet::new();
        for id in 0..count {
            unsettled.push(base.wrapping_add(id), id % 3, u64::from(id));
            model.insert(id);
        }
        for (first, span) in ranges {
            let mut seen = Vec::new();
            unsettled.visit(base.wrapping_add(first), base.wrapping_add(first + span), |sent| {
                seen.push(sent.token as u32);
                sent.state = SentState::Gone;
            });
            let expected: Vec<u32> = model.range(first..=first + span).copied().collect();
            prop_assert_eq!(&seen, &expected);
            for id in expected {
                model.remove(&id);
            }
            prop_assert_eq!(unsettled.len(), model.len());
        }
        unsettled.forget_link(1);
        prop_assert_eq!(unsettled.len(), model.iter().filter(|&&id| id % 3 != 1).count());
    }
}

#[test]
fn all_forms_of_descriptors_and_lists_are_read() {
    let forms: [&[u8]; 6] = [
        &[0x00, 0x53, 0x24, 0x45],
        &[0x00, 0x53, 0x24, 0xc0, 0x01, 0x00],
        &[0x00, 0x53, 0x24, 0xd0, 0, 0, 0, 4, 0, 0, 0, 0],
        &[0x00, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x24, 0x45],
        b"\x00\xa3\x12amqp:accepted:list\x45",
        b"\x00\xb3\x00\x00\x00\x12amqp:accepted:list\xc0\x01\x00",
    ];
    for form in forms {
        assert_eq!(
            fast::parse_state(form),
            Ok(Some(Outcome::Accepted)),
            "{form:?}"
        );
    }
    let received = [0x00, 0x53, 0x23, 0xc0, 3, 2, 0x43, 0x44];
    assert_eq!(fast::parse_state(&received), Ok(None));
}

#[test]
fn the_check_bounds_depth_count_and_size() {
    let nested = |depth: usize| {
        let mut value = vec![0x45];
        for _ in 0..depth {
            let mut outer = vec![0xd0];
            outer.extend((value.len() as u32 + 4).to_be_bytes());
            outer.extend(1_u32.to_be_bytes());
            outer.append(&mut value);
            value = outer;
        }
        value
    };
    assert_eq!(wire::check(&nested(wire::NESTING_MAX), 1000), Ok(()));
    assert!(wire::check(&nested(wire::NESTING_MAX + 1), 1000).is_err());
    let described: Vec<u8> = [0x00, 0x44].repeat(40).into_iter().chain([0x40]).collect();
    assert!(wire::check(&described, 1000).is_err());
    // An array of four thousand million nulls in ten bytes.
    let array = [0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40];
    assert!(wire::check(&array, wire::FRAME_VALUES_MAX).is_err());
    assert!(
        wire::check(&[0xc0, 200, 1, 0x40], 10).is_err(),
        "longer than the bytes"
    );
    assert!(
        wire::check(&[0xc0, 3, 1, 0x40, 0x40], 10).is_err(),
        "bytes beyond the count"
    );
    assert!(
        wire::check(&[0xc1, 2, 1, 0x40], 10).is_err(),
        "a key without a value"
    );
    assert!(wire::check(&[0x40, 0x40], 10).is_err(), "two values");
    assert!(wire::check(&[0x01], 10).is_err(), "no such type");
}
