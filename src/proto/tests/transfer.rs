//! Messages: several frames in both directions, aborts, sizes, tags, the order of ids.

use bytes::Bytes;
use serde_amqp::Value;

use super::pair::settings;
use super::raw::{flow, transfer};
use super::*;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[test]
fn messages_of_all_sizes_pass_in_both_directions() {
    let mut pair = Pair::open();
    let session = pair.begin();
    let (out, server_in) = pair.sender(session, "in");
    let (input, server_out) = pair.receiver(session, "out");
    pair.server.set_credit(server_in, 1000);
    pair.client.set_credit(input, 1000);
    pair.run();
    // Around the multiples of what a frame of 1024 bytes carries.
    let sizes = [0, 1, 967, 968, 969, 976, 977, 1936, 1937, 5_000, 100_000];
    for (token, size) in (0..).zip(sizes) {
        let message = pattern(size);
        let (head, tail) = message.split_at(size / 3);
        pair.client
            .send(out, token, 0, &[head, b"", tail], false)
            .unwrap();
        pair.server
            .send(server_out, token, 7, &[&message], true)
            .unwrap();
        pair.run();
        let (at_server, at_client) = (pair.take_server(), pair.take_client());
        let id = token as u32;
        assert_eq!(
            deliveries(&at_server),
            [(id, Bytes::from(message.clone()))],
            "{size}"
        );
        assert_eq!(
            deliveries(&at_client),
            [(id, Bytes::from(message))],
            "{size}"
        );
        assert!(at_client.iter().any(|event| matches!(
            event,
            Event::Delivery {
                settled: true,
                message_format: 7,
                ..
            }
        )));
    }
}

#[test]
fn no_frame_is_larger_than_the_peer_takes() {
    let small = Settings {
        max_frame_size: 512,
        ..settings()
    };
    let mut pair = Pair::open_with(small, settings());
    let session = pair.begin();
    let (input, link) = pair.receiver(session, "q");
    pair.client.set_credit(input, 10);
    pair.run();
    pair.server_sent.clear();
    pair.server
        .send(link, 0, u32::MAX, &[&pattern(10_000)], false)
        .unwrap();
    pair.run();
    let mut rest = pair.server_sent.as_slice();
    let mut frames = 0;
    while let Some(size) = rest.first_chunk::<4>() {
        let size = u32::from_be_bytes(*size) as usize;
        assert!(size <= 512);
        assert!(size == 512 || size == rest.len(), "frames are filled");
        rest = &rest[size..];
        frames += 1;
    }
    assert_eq!(frames, 21);
    assert_eq!(deliveries(&pair.take_client())[0].1, pattern(10_000));
}

#[test]
fn a_message_larger_than_the_window_goes_on_when_it_opens() {
    let narrow = Settings {
        incoming_window: 4,
        ..settings()
    };
    let mut pair = Pair::open_with(narrow.clone(), narrow);
    let session = pair.begin();
    let (out, server_in) = pair.sender(session, "q");
    let (other, _) = pair.sender(session, "other");
    pair.server.set_credit(server_in, 10);
    pair.run();
    pair.client
        .send(out, 1, 0, &[&pattern(20_000)], false)
        .unwrap();
    assert_eq!(
        pair.client.send(out, 2, 0, &[b"next"], false),
        Err(SendError::WindowClosed),
        "nothing overtakes it"
    );
    assert!(!pair.client.can_send(other));
    pair.take_client();
    pair.run();
    let events = pair.take_client();
    assert!(
        matches!(&events[..], [Event::WindowOpened { .. }]),
        "{events:?}"
    );
    pair.client.send(out, 2, 0, &[b"next"], false).unwrap();
    pair.run();
    let got = deliveries(&pair.take_server());
    assert_eq!(got, [(0, pattern(20_000).into()), (1, b"next"[..].into())]);
}

#[test]
fn a_waiting_message_goes_with_its_link() {
    let narrow = Settings {
        incoming_window: 4,
        ..settings()
    };
    let mut pair = Pair::open_with(settings(), narrow);
    let session = pair.begin();
    let (out, server_in) = pair.sender(session, "q");
    let (other, server_other) = pair.sender(session, "other");
    pair.server.set_credit(server_in, 10);
    pair.server.set_credit(server_other, 10);
    pair.run();
    pair.client
        .send(out, 1, 0, &[&pattern(20_000)], false)
        .unwrap();
    pair.client.detach(out, None);
    pair.run();
    pair.take_server();
    pair.client.send(other, 2, 0, &[b"m"], false).unwrap();
    pair.run();
    assert_eq!(deliveries(&pair.take_server()), [(1, b"m"[..].into())]);
    assert_eq!(pair.server.shared.partial_bytes, 0);
}

#[test]
fn messages_of_several_links_may_interleave() {
    let mut raw = Raw::begun();
    raw.attach_sender("a", 0, 10);
    raw.attach_sender("b", 1, 10);
    raw.take_events();
    let more = |handle| {
        vec![
            Value::Uint(handle),
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Bool(true),
        ]
    };
    raw.transfer(transfer(0, 0, true), b"a1");
    raw.transfer(transfer(1, 1, true), b"b1");
    raw.transfer(more(0), b"a2");
    raw.transfer(vec![Value::Uint(1)], b"b2");
    raw.transfer(vec![Value::Uint(0)], b"a3");
    let got = deliveries(&raw.take_events());
    assert_eq!(got, [(1, b"b1b2"[..].into()), (0, b"a1a2a3"[..].into())]);
}

#[test]
fn continuations_may_repeat_the_delivery_id_but_not_change_it() {
    let mut raw = Raw::begun();
    raw.attach_sender("a", 0, 10);
    raw.take_events();
    raw.transfer(transfer(0, 5, true), b"1");
    raw.transfer(transfer(0, 5, false), b"2");
    assert_eq!(deliveries(&raw.take_events()), [(5, b"12"[..].into())]);
    raw.transfer(transfer(0, 6, true), b"1");
    raw.frames();
    raw.transfer(transfer(0, 7, false), b"2");
    let frames = raw.frames();
    assert_eq!(
        (frames[0].code, frames[0].condition(2)),
        (0x16, condition::NOT_ALLOWED.into())
    );
    let events = raw.take_events();
    assert!(matches!(
        &events[..],
        [Event::Detached {
            closed: true,
            error: Some(_),
            ..
        }]
    ));
    assert_eq!(raw.server.shared.partial_bytes, 0);
}

#[test]
fn settled_in_any_frame_settles_the_delivery() {
    let mut raw = Raw::begun();
    raw.attach_sender("a", 0, 10);
    raw.take_events();
    let settled = |settled, more| {
        vec![
            Value::Uint(0),
            Value::Uint(3),
            Value::Null,
            Value::Null,
            Value::Bool(settled),
            Value::Bool(more),
        ]
    };
    raw.transfer(settled(true, true), b"1");
    raw.transfer(settled(false, false), b"2");
    assert!(matches!(
        &raw.take_events()[..],
        [Event::Delivery { settled: true, .. }]
    ));
}

#[test]
fn an_aborted_message_is_never_seen() {
    let mut raw = Raw::begun();
    raw.attach_sender("a", 0, 2);
    raw.take_events();
    let abort = |id: Value| {
        let mut fields = vec![Value::Uint(0), id];
        fields.resize(9, Value::Null);
        fields.push(Value::Bool(true));
        fields
    };
    raw.transfer(transfer(0, 0, true), &pattern(900));
    assert_eq!(raw.server.shared.partial_bytes, 900);
    raw.transfer(abort(Value::Null), b"");
    assert_eq!(raw.server.shared.partial_bytes, 0);
    raw.transfer(transfer(0, 1, false), b"m");
    let events = raw.take_events();
    assert_eq!(deliveries(&events), [(1, b"m"[..].into())]);
    assert!(!raw.server.is_finished());
}

#[test]
fn a_message_above_the_limit_closes_its_link_only() {
    let mut raw = Raw::begun();
    raw.attach_sender("a", 0, 10);
    raw.attach_sender("b", 1, 10);
    raw.frames();
    raw.take_events();
    raw.transfer(transfer(0, 0, true), &pattern(900));
    for _ in 0..112 {
        let mut fields = transfer(0, 0, true);
        fields[1] = Value::Null;
        raw.transfer(fields, &pattern(900));
    }
    raw.transfer(vec![Value::Uint(0)], b"end");
    let frames = raw.frames();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].condition(2), condition::MESSAGE_SIZE_EXCEEDED);
    let events = raw.take_events();
    assert!(matches!(
        &events[..],
        [Event::Detached {
            closed: true,
            error: Some(_),
            ..
        }]
    ));
    assert_eq!(raw.server.shared.partial_bytes, 0);
    raw.transfer(transfer(1, 1, false), b"fine");
    assert_eq!(deliveries(&raw.take_events()), [(1, b"fine"[..].into())]);
}

#[test]
fn the_largest_legal_message_passes() {
    let mut pair = Pair::open();
    let session = pair.begin();
    let (out, link) = pair.sender(session, "q");
    pair.server.set_credit(link, 10);
    pair.run();
    let error = pair.client.send(out, 0, 0, &[&pattern(100_001)], false);
    assert_eq!(
        error,
        Err(SendError::TooLarge {
            max_message_bytes: 100_000
        })
    );
    pair.client
        .send(out, 0, 0, &[&pattern(100_000)], false)
        .unwrap();
    pair.run();
    assert_eq!(deliveries(&pair.take_server())[0].1.len(), 100_000);
}

#[test]
fn delivery_ids_have_no_gaps_and_tags_are_never_doubled() {
    let mut raw = Raw::begun();
    let one = raw.attach_receiver("one", 0);
    let two = raw.attach_receiver("two", 1);
    raw.frame(0, 0x13, flow(0, 2000, 0, 0, 1000));
    raw.frame(0, 0x13, flow(0, 2000, 1, 0, 1000));
    raw.frames();
    for token in 0..300 {
        let (link, settled) = if token % 3 == 0 {
            (one, true)
        } else {
            (two, false)
        };
        let size = if token % 7 == 0 { 3000 } else { 10 };
        let id = raw
            .server
            .send(link, token, 0, &[&pattern(size)], settled)
            .unwrap();
        assert_eq!(u64::from(id), token);
    }
    let mut ids = Vec::new();
    let mut tags = std::collections::BTreeSet::new();
    for frame in raw.frames() {
        assert_eq!(frame.code, 0x14);
        match frame.field(1) {
            Value::Uint(id) => {
                ids.push(id);
                assert!(tags.insert(frame.field(2)));
            }
            other => assert_eq!(other, Value::Null, "continuations are bare"),
        }
    }
    assert_eq!(ids, (0..300).collect::<Vec<_>>());
}

#[test]
fn a_payload_of_one_frame_is_a_slice_of_the_input() {
    let mut raw = Raw::begun();
    raw.attach_sender("a", 0, 10);
    raw.take_events();
    let message = pattern(700);
    let input = raw::frame(0, 0x14, transfer(0, 0, false), &message);
    let mut input = bytes::BytesMut::from(&input[..]);
    let (start, end) = (
        input.as_ptr() as usize,
        input.as_ptr() as usize + input.len(),
    );
    raw.server.handle_bytes(0, &mut input);
    let Some(Event::Delivery { payload, .. }) = raw.server.poll_event() else {
        panic!()
    };
    let single = payload.as_single().unwrap();
    assert_eq!(single, &message);
    assert!((start..end).contains(&(single.as_ptr() as usize)));
    assert_eq!(payload.len(), 700);
}

#[test]
fn small_parts_are_joined_and_large_parts_are_kept() {
    let mut pair = Pair::open_with(
        settings(),
        Settings {
            max_frame_size: 8192,
            ..settings()
        },
    );
    let session = pair.begin();
    let (out, link) = pair.sender(session, "q");
    pair.server.set_credit(link, 10);
    pair.run();
    pair.client
        .send(out, 0, 0, &[&pattern(50_000)], false)
        .unwrap();
    pair.run();
    let events = pair.take_server();
    let Some(Event::Delivery { payload, .. }) = events.first() else {
        panic!()
    };
    assert_eq!(payload.parts().count(), 7);
    let mut raw = Raw::begun();
    raw.attach_sender("a", 0, 10);
    raw.take_events();
    raw.transfer(transfer(0, 0, true), b"x");
    for _ in 0..1000 {
        let mut fields = transfer(0, 0, true);
        fields[1] = Value::Null;
        raw.transfer(fields, b"y");
    }
    raw.transfer(vec![Value::Uint(0)], b"z");
    let events = raw.take_events();
    let Some(Event::Delivery { payload, .. }) = events.first() else {
        panic!()
    };
    assert_eq!((payload.parts().count(), payload.len()), (1, 1002));
}

#[test]
fn a_transactional_transfer_shows_its_state_and_hurts_nobody() {
    let mut raw = Raw::begun();
    raw.attach_sender("a", 0, 10);
    raw.take_events();
    let state = Value::Described(Box::new(serde_amqp::described::Described {
        descriptor: serde_amqp::descriptor::Descriptor::Code(0x34),
        value: Value::List(vec![Value::Binary(b"txn".to_vec().into())]),
    }));
    let mut fields = transfer(0, 0, false);
    fields.extend([Value::Null, state]);
    raw.transfer(fields, b"m");
    let expected = Outcome::Transactional {
        txn_id: b"txn"[..].into(),
        outcome: None,
    };
    let events = raw.take_events();
    let [Event::Delivery { state, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(state.as_deref(), Some(&expected));
}

#[test]
fn a_full_output_says_so() {
    let mut pair = Pair::open();
    let session = pair.begin();
    let (out, link) = pair.sender(session, "q");
    pair.server.set_credit(link, 1000);
    pair.run();
    let message = pattern(100_000);
    let mut sent = 0;
    while pair.client.can_send(out) {
        pair.client.send(out, sent, 0, &[&message], false).unwrap();
        sent += 1;
    }
    assert_eq!(sent, 11, "the first above 1 MiB was the last");
    assert!(pair.client.is_output_full());
    pair.run();
    assert!(pair.client.can_send(out));
    assert_eq!(deliveries(&pair.take_server()).len(), 11);
}

#[test]
fn unsettled_deliveries_have_a_limit() {
    let wide = Settings {
        incoming_window: 1_000_000,
        ..settings()
    };
    let mut pair = Pair::open_with(wide.clone(), wide);
    let session = pair.begin();
    let (input, link) = pair.receiver(session, "q");
    pair.client.set_credit(input, 1_000_000);
    pair.run();
    pair.take_server();
    let mut sent: u32 = 0;
    loop {
        match pair.server.send(link, u64::from(sent), 0, &[b"m"], false) {
            Ok(_) => sent += 1,
            Err(error) => {
                assert_eq!(error, SendError::WindowClosed);
                break;
            }
        }
    }
    assert_eq!(sent, 131_072);
    pair.run();
    assert_eq!(deliveries(&pair.take_client()).len(), 131_072);
    pair.client.settle(input, 50_000, Outcome::Accepted);
    pair.run();
    assert!(matches!(
        &pair.take_server()[..],
        [
            Event::Disposition { token: 50_000, .. },
            Event::WindowOpened { .. }
        ]
    ));
    // One settled in the middle makes room for one; all the others in any order.
    assert!(pair.server.can_send(link));
    for id in (0..131_072).rev() {
        pair.client.settle(input, id, Outcome::Accepted);
    }
    pair.run();
    let tokens = settled_tokens(&pair.take_server());
    assert_eq!(tokens.len(), 131_071);
    assert!(
        tokens.is_sorted_by_key(|(token, _)| *token),
        "ranges go out in order"
    );
}
