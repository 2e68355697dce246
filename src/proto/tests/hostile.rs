//! Peers that break rules, by mistake or on purpose: the answer is an AMQP error or a closed connection, never a
//! panic and never unbounded memory.

use bytes::BytesMut;
use proptest::prelude::*;
use serde_amqp::Value;

use super::pair::settings;
use super::raw::{begin, flow, frame, frame_of, transfer};
use super::*;

#[test]
fn a_frame_larger_than_agreed_closes_the_connection_at_its_header() {
    let mut raw = Raw::begun();
    raw.write(&[0, 0, 4, 1, 2, 0, 0, 0]);
    assert_eq!(raw.closed_with(), condition::FRAMING_ERROR);
    let mut raw = Raw::new(settings());
    raw.write(b"AMQP\x00\x01\x00\x00");
    raw.write(&[0, 1, 0, 0, 2, 0, 0, 0]);
    assert_eq!(raw.closed_with(), condition::FRAMING_ERROR);
}

#[test]
fn broken_frames_close_the_connection() {
    let good_flow = frame(0, 0x13, flow(0, 1, 0, 0, 1), b"");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("size below the header", vec![0, 0, 0, 7, 2, 0, 0, 0]),
        ("data offset of one", vec![0, 0, 0, 8, 1, 0, 0, 0]),
        ("data offset behind the end", vec![0, 0, 0, 8, 3, 0, 0, 0]),
        ("frame type", vec![0, 0, 0, 8, 2, 9, 0, 0]),
        ("sasl after open", frame_of(1, 0, &[0, 0x53, 0x41, 0x45])),
        ("not described", frame_of(0, 0, &[0x45])),
        (
            "unknown performative",
            frame_of(0, 0, &[0, 0x53, 0x77, 0x45]),
        ),
        ("half a flow", frame_of(0, 0, &good_flow[8..20])),
        ("empty transfer", frame_of(0, 0, &[0, 0x53, 0x14, 0x45])),
        ("empty disposition", frame_of(0, 0, &[0, 0x53, 0x15, 0x45])),
        ("empty attach", frame_of(0, 0, &[0, 0x53, 0x12, 0x45])),
        (
            "channel without session",
            frame(7, 0x13, flow(0, 1, 0, 0, 1), b""),
        ),
        ("channel above the limit", frame(5_000, 0x11, begin(1), b"")),
        ("channel in use", frame(0, 0x11, begin(1), b"")),
        ("begin that answers nothing", {
            let mut fields = begin(1);
            fields[0] = Value::Ushort(0);
            frame(1, 0x11, fields, b"")
        }),
        (
            "second open",
            frame(0, 0x10, vec![Value::String("x".into())], b""),
        ),
        (
            "deep nesting",
            frame_of(
                0,
                0,
                &[&[0, 0x53, 0x12][..], &[0xc0, 3, 1].repeat(30)].concat(),
            ),
        ),
    ];
    for (what, bytes) in cases {
        let mut raw = Raw::begun();
        raw.write(&bytes);
        assert!(raw.server.is_finished(), "{what}");
        let events = raw.take_events();
        assert!(
            matches!(&events[..], [Event::Closed { error: Some(_) }]),
            "{what}: {events:?}"
        );
        assert_eq!(
            raw.frames().last().map(|frame| frame.code),
            Some(0x18),
            "{what}"
        );
        raw.write(b"more of it");
        assert_eq!(raw.take_events(), [], "{what}");
    }
}

#[test]
fn an_extended_header_is_skipped() {
    let mut raw = Raw::begun();
    let flow = frame(0, 0x13, flow(0, 5, 0, 0, 1)[..4].to_vec(), b"");
    let mut extended = vec![0, 0, 0, flow.len() as u8 + 4, 3, 0, 0, 0, 1, 2, 3, 4];
    extended.extend_from_slice(&flow[8..]);
    raw.write(&extended);
    assert!(!raw.server.is_finished());
}

#[test]
fn anything_before_open_is_refused() {
    let mut raw = Raw::new(settings());
    raw.write(b"AMQP\x00\x01\x00\x00");
    raw.frame(0, 0x11, begin(1));
    assert_eq!(raw.closed_with(), condition::NOT_ALLOWED);
}

#[test]
fn transfers_on_the_wrong_kind_of_link_close_it() {
    let mut raw = Raw::begun();
    raw.attach_receiver("r", 0);
    raw.frames();
    raw.transfer(transfer(0, 0, false), b"m");
    assert_eq!(raw.frames()[0].condition(2), condition::NOT_ALLOWED);
    let mut raw = Raw::begun();
    raw.accepts_links = false;
    raw.attach("s", 0, false);
    raw.transfer(transfer(0, 0, false), b"m");
    assert_eq!(
        raw.codes(),
        [0x12, 0x16],
        "refused before the owner answered"
    );
    assert!(matches!(
        &raw.take_events()[..],
        [Event::Attached(_), Event::Detached { .. }]
    ));
}

#[test]
fn a_delivery_without_id_or_credit_closes_its_link() {
    for (fields, credit, expected) in [
        (vec![Value::Uint(0)], 5, condition::INVALID_FIELD),
        (transfer(0, 0, false), 0, condition::TRANSFER_LIMIT_EXCEEDED),
    ] {
        let mut raw = Raw::begun();
        raw.attach_sender("s", 0, credit);
        raw.frames();
        raw.transfer(fields, b"m");
        assert_eq!(raw.frames()[0].condition(2), expected);
        assert!(!raw.server.is_finished());
    }
}

#[test]
fn incomplete_messages_have_a_budget_over_all_links() {
    let mut raw = Raw::begun();
    let mut refused = 0;
    for handle in 0..4 {
        raw.attach_sender(&format!("s{handle}"), handle, 5);
        raw.frames();
        raw.take_events();
        raw.transfer(transfer(handle, handle, true), &[7; 900]);
        for _ in 0..100 {
            let mut fields = transfer(handle, 0, true);
            fields[1] = Value::Null;
            raw.transfer(fields, &[7; 900]);
        }
        refused += raw
            .frames()
            .iter()
            .filter(|frame| frame.code == 0x16)
            .count();
        assert!(raw.server.shared.partial_bytes <= 200_000);
    }
    assert_eq!(refused, 2, "two times the largest message fits");
    assert!(!raw.server.is_finished());
}

#[test]
fn sessions_and_links_have_limits() {
    let mut raw = Raw::new(Settings {
        channel_max: 2,
        ..settings()
    });
    raw.write(b"AMQP\x00\x01\x00\x00");
    raw.frame(0, 0x10, vec![Value::String("raw".into())]);
    for channel in 0..3 {
        raw.frame(channel, 0x11, begin(1));
    }
    assert!(!raw.server.is_finished());
    raw.frame(3, 0x11, begin(1));
    assert_eq!(raw.closed_with(), condition::FRAMING_ERROR);
    let mut raw = Raw::begun();
    raw.server.shared.link_count = shared::LINKS_MAX;
    raw.attach("one too many", 0, false);
    assert_eq!(
        raw.frames()[0].condition(0),
        condition::RESOURCE_LIMIT_EXCEEDED
    );
    let wide = Settings {
        max_frame_size: 65_536,
        ..settings()
    };
    let mut raw = Raw::new(wide);
    raw.write(b"AMQP\x00\x01\x00\x00");
    raw.frame(0, 0x10, vec![Value::String("raw".into())]);
    raw.frame(0, 0x11, begin(1));
    raw.attach(&"n".repeat(5_000), 0, false);
    assert_eq!(
        raw.frames().last().unwrap().condition(0),
        condition::RESOURCE_LIMIT_EXCEEDED
    );
}

#[test]
fn a_disposition_over_all_numbers_costs_no_more_than_what_is_unsettled() {
    let mut raw = Raw::begun();
    let link = raw.attach_receiver("r", 0);
    raw.frame(0, 0x13, flow(0, 100, 0, 0, 100));
    for token in 0..10 {
        raw.server.send(link, token, 0, &[b"m"], false).unwrap();
    }
    raw.take_events();
    let range = |first, last| {
        vec![
            Value::Bool(true),
            Value::Uint(first),
            Value::Uint(last),
            Value::Bool(true),
        ]
    };
    raw.frame(0, 0x15, range(5, 2));
    raw.frame(0, 0x15, range(1 << 31, u32::MAX));
    raw.frame(0, 0x15, range(0, u32::MAX));
    assert_eq!(raw.take_events(), []);
    raw.frame(0, 0x15, range(u32::MAX - 5, (1 << 31) - 1));
    assert_eq!(settled_tokens(&raw.take_events()).len(), 10);
}

#[test]
fn one_huge_error_for_many_deliveries_is_cut_to_size() {
    let wide = Settings {
        max_frame_size: 1 << 20,
        ..settings()
    };
    let mut raw = Raw::new(wide);
    raw.write(b"AMQP\x00\x01\x00\x00");
    raw.frame(0, 0x10, vec![Value::String("raw".into())]);
    raw.frame(0, 0x11, begin(100_000));
    let link = raw.attach_receiver("r", 0);
    raw.frame(0, 0x13, flow(0, 100_000, 0, 0, 100_000));
    for token in 0..1000 {
        raw.server.send(link, token, 0, &[b"m"], false).unwrap();
    }
    raw.take_events();
    let error = ErrorCondition::new("app:bad", "\u{e9}".repeat(200_000))
        .with_info("padding", "p".repeat(200_000));
    let mut out = BytesMut::new();
    fast::put_disposition(
        &mut out,
        0,
        true,
        0,
        999,
        Some(&Outcome::Rejected(Some(error))),
    );
    raw.write(&out);
    let events = raw.take_events();
    assert_eq!(events.len(), 1000);
    for event in events {
        let Event::Disposition {
            outcome: Some(Outcome::Rejected(Some(error))),
            ..
        } = event
        else {
            panic!("{event:?}");
        };
        assert_eq!(
            (error.description.map(|text| text.len()), error.info.len()),
            (Some(4096), 0)
        );
    }
}

#[test]
fn absurd_flows_do_not_upset_the_arithmetic() {
    for next in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        for window in [0, 1, i32::MAX as u32, u32::MAX] {
            let mut raw = Raw::begun();
            let link = raw.attach_receiver("r", 0);
            raw.frame(0, 0x13, flow(next, window, 0, next, window));
            assert!(!raw.server.is_finished());
            if raw.server.can_send(link) {
                raw.server.send(link, 0, 0, &[b"m"], false).unwrap();
            }
            raw.attach_sender("s", 1, 5);
            raw.frame(0, 0x13, flow(next, window, 1, next, window));
            assert!(!raw.server.is_finished());
        }
    }
}

#[test]
fn a_small_limit_of_the_peer_is_raised_to_the_legal_minimum() {
    let mut raw = Raw::new(settings());
    raw.write(b"AMQP\x00\x01\x00\x00");
    let open = vec![
        Value::String("tiny".into()),
        Value::Null,
        Value::Uint(1),
        Value::Ushort(0),
        Value::Uint(1),
    ];
    raw.frame(0, 0x10, open);
    raw.frame(0, 0x11, begin(100));
    let link = raw.attach_receiver("r", 0);
    raw.frame(0, 0x13, flow(0, 100, 0, 0, 10));
    raw.frames();
    raw.server.send(link, 0, 0, &[&[1; 2000]], false).unwrap();
    assert_eq!(raw.codes(), [0x14; 5]);
    assert_eq!(
        raw.server.poll_timeout(),
        Some(10),
        "and its patience to ten milliseconds"
    );
}

/// A stream of mostly sensible frames, with wrong numbers here and there.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let small = || prop_oneof![4 => 0_u32..4, 1 => any::<u32>()];
    let one = prop_oneof![
        (0_u16..3).prop_map(|channel| frame(channel, 0x11, begin(50), b"")),
        (0_u16..3, small(), any::<bool>(), 0..3).prop_map(|(channel, handle, role, name)| {
            let name = Value::String(format!("n{name}"));
            frame(
                channel,
                0x12,
                vec![name, Value::Uint(handle), Value::Bool(role)],
                b"",
            )
        }),
        (
            0_u16..3,
            small(),
            small(),
            small(),
            small(),
            small(),
            any::<bool>()
        )
            .prop_map(|(channel, next, window, handle, count, credit, drain)| {
                let mut fields = flow(next, window, handle, count, credit);
                fields.extend([Value::Null, Value::Bool(drain), Value::Bool(window == 1)]);
                frame(channel, 0x13, fields, b"")
            }),
        (0_u16..3, small(), small(), any::<bool>(), 0..300_usize).prop_map(
            |(channel, handle, id, more, len)| {
                frame(channel, 0x14, transfer(handle, id, more), &vec![5; len])
            }
        ),
        (0_u16..3, any::<bool>(), small(), small(), any::<bool>()).prop_map(
            |(channel, role, first, last, settled)| {
                let fields = vec![
                    Value::Bool(role),
                    Value::Uint(first),
                    Value::Uint(last),
                    Value::Bool(settled),
                ];
                frame(channel, 0x15, fields, b"")
            }
        ),
        (0_u16..3, small(), any::<bool>()).prop_map(|(channel, handle, closed)| {
            frame(
                channel,
                0x16,
                vec![Value::Uint(handle), Value::Bool(closed)],
                b"",
            )
        }),
        (0_u16..3).prop_map(|channel| frame(channel, 0x17, vec![], b"")),
        Just(frame(0, 0x18, vec![], b"")),
    ];
    proptest::collection::vec(one, 0..60).prop_map(|frames| frames.concat())
}

/// Drives a server with any bytes after a legal beginning; its owner does what owners do.
fn survive(bytes: &[u8], chunk: usize) {
    let mut server = Connection::server(settings(), 0);
    let mut input = BytesMut::from(&b"AMQP\x00\x01\x00\x00"[..]);
    input.extend_from_slice(&frame(0, 0x10, vec![Value::String("raw".into())], b""));
    input.extend_from_slice(&frame(0, 0x11, begin(50), b""));
    let (mut links, mut closed, mut token) = (Vec::new(), 0, 0);
    for piece in std::iter::once(&b""[..]).chain(bytes.chunks(chunk.max(1))) {
        input.extend_from_slice(piece);
        server.handle_bytes(0, &mut input);
        while let Some(event) = server.poll_event() {
            match event {
                Event::Opened(_) => server.open(),
                Event::Attached(attach) => {
                    if attach.name == "n2" {
                        let error = ErrorCondition::new(condition::NOT_FOUND, "no");
                        server.refuse_attach(attach.link, error);
                    } else {
                        server.accept_attach(attach.link, AttachReply::default());
                        server.set_credit(attach.link, 3);
                        links.push(attach.link);
                    }
                }
                Event::Delivery {
                    link, delivery_id, ..
                } => {
                    server.settle(link, delivery_id, Outcome::Accepted);
                }
                Event::Disposition {
                    link,
                    delivery_id,
                    settled: false,
                    ..
                } => {
                    server.settle_sent(link, delivery_id);
                }
                Event::Flow { link, drain, .. } => {
                    while server.can_send(link) && token % 50 != 49 {
                        token += 1;
                        server
                            .send(link, token, 0, &[&[1; 1500]], token % 3 == 0)
                            .unwrap();
                    }
                    token += 1;
                    if drain {
                        server.drained(link);
                    }
                }
                Event::Closed { .. } => closed += 1,
                _ => {}
            }
        }
        server.flush();
        let written = server.output().split();
        assert!(written.len() < 8 * 1024 * 1024);
    }
    if let Some(link) = links.first() {
        server.detach(*link, None);
    }
    server.close_now(None);
    while let Some(event) = server.poll_event() {
        closed += usize::from(matches!(event, Event::Closed { .. }));
    }
    assert_eq!(closed, 1);
    raw::parse(server.output());
}

proptest! {
    #[test]
    fn any_order_of_frames_is_survived(bytes in frames(), chunk in 1_usize..5000) {
        survive(&bytes, chunk);
    }

    #[test]
    fn damaged_frames_are_survived(
        bytes in frames(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = bytes;
        for (at, byte) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        survive(&bytes, 700);
    }

    #[test]
    fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400), chunk in 1_usize..400) {
        survive(&bytes, chunk);
        for with_sasl in [true, false] {
            let mut server = Connection::server(settings(), 0);
            let mut input = BytesMut::new();
            if with_sasl {
                input.extend_from_slice(b"AMQP\x03\x01\x00\x00");
            }
            input.extend_from_slice(&bytes);
            server.handle_bytes(0, &mut input);
            let mut client = Connection::client(settings(), ClientSasl::Anonymous, 0);
            let mut input = BytesMut::from(&b"AMQP\x03\x01\x00\x00"[..]);
            input.extend_from_slice(&bytes);
            client.handle_bytes(0, &mut input);
        }
    }

    #[test]
    fn a_client_survives_any_frames(bytes in frames()) {
        let mut client = Connection::client(settings(), ClientSasl::None, 0);
        let session = client.begin().unwrap();
        client.attach_sender(session, pair::to("n0"));
        client.attach_receiver(session, pair::from("n1"));
        let mut input = BytesMut::from(&b"AMQP\x00\x01\x00\x00"[..]);
        input.extend_from_slice(&frame(0, 0x10, vec![Value::String("raw".into())], b""));
        let mut answer = begin(50);
        answer[0] = Value::Ushort(0);
        input.extend_from_slice(&frame(0, 0x11, answer, b""));
        input.extend_from_slice(&bytes);
        client.handle_bytes(0, &mut input);
        while client.poll_event().is_some() {}
        client.flush();
        raw::parse(client.output());
    }
}
