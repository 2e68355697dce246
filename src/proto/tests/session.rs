//! Sessions: windows, channels, dispositions.

use serde_amqp::Value;

use super::pair::settings;
use super::raw::{begin, flow, transfer};
use super::*;

#[test]
fn the_peers_incoming_window_stops_sending_until_a_flow() {
    let client = Settings {
        incoming_window: 2047,
        ..settings()
    };
    let mut pair = Pair::open_with(client, settings());
    let session = pair.begin();
    let (receiver, link) = pair.receiver(session, "q");
    pair.client.set_credit(receiver, 10_000);
    pair.run();
    let mut sent = 0;
    while pair.server.can_send(link) {
        pair.server.send(link, sent, 0, &[b"m"], false).unwrap();
        sent += 1;
    }
    assert_eq!(sent, 2047);
    assert_eq!(pair.server.credit(link), 10_000 - 2047);
    assert_eq!(
        pair.server.send(link, sent, 0, &[b"m"], false),
        Err(SendError::WindowClosed)
    );
    pair.take_server();
    pair.run();
    // The client renews its window by itself when half of it is used.
    assert!(
        pair.take_server()
            .iter()
            .any(|event| matches!(event, Event::WindowOpened { .. }))
    );
    assert!(pair.server.can_send(link));
    let events = pair.take_client();
    assert_eq!(deliveries(&events).len(), 2047);
    assert_eq!(deliveries(&events)[2046].0, 2046);
}

#[test]
fn a_flow_that_crosses_transfers_counts_them_as_unseen() {
    let mut raw = Raw::begun();
    let link = raw.attach_receiver("r", 0);
    raw.frame(0, 0x13, flow(0, 10, 0, 0, 100));
    for token in 0..4 {
        raw.server.send(link, token, 0, &[b"m"], true).unwrap();
    }
    // The peer had seen one transfer when it wrote this.
    raw.frame(0, 0x13, flow(1, 10, 0, 1, 50));
    assert_eq!(raw.server.credit(link), 47);
    let mut sent = 0;
    while raw.server.can_send(link) {
        raw.server.send(link, 0, 0, &[b"m"], true).unwrap();
        sent += 1;
    }
    assert_eq!(sent, 7, "ten less the three that are under way");
}

#[test]
fn our_window_is_renewed_at_half() {
    let mut raw = Raw::new(Settings {
        incoming_window: 10,
        ..settings()
    });
    raw.write(b"AMQP\x00\x01\x00\x00");
    raw.frame(0, 0x10, vec![Value::String("raw".into())]);
    raw.frame(0, 0x11, begin(100));
    raw.attach_sender("s", 0, 100);
    raw.frames();
    for id in 0..4 {
        raw.transfer(transfer(0, id, false), b"m");
    }
    assert!(raw.codes().is_empty());
    raw.transfer(transfer(0, 4, false), b"m");
    let frames = raw.frames();
    assert_eq!(frames[0].code, 0x13);
    assert_eq!(frames[0].fields[..2], [Value::Uint(5), Value::Uint(10)]);
    assert_eq!(frames[0].field(4), Value::Null, "about the session only");
}

#[test]
fn a_peer_that_ignores_our_window_loses_the_session() {
    let mut raw = Raw::new(Settings {
        incoming_window: 3,
        ..settings()
    });
    raw.write(b"AMQP\x00\x01\x00\x00");
    raw.frame(0, 0x10, vec![Value::String("raw".into())]);
    raw.frame(0, 0x11, begin(100));
    raw.attach_sender("s", 0, 100);
    raw.frames();
    raw.take_events();
    let burst: Vec<u8> = (0..4)
        .flat_map(|id| raw::frame(0, 0x14, transfer(0, id, false), b"m"))
        .collect();
    raw.write(&burst);
    let frames = raw.frames();
    assert_eq!(frames.last().unwrap().code, 0x17);
    assert_eq!(
        frames.last().unwrap().condition(0),
        condition::WINDOW_VIOLATION
    );
    let events = raw.take_events();
    assert!(matches!(
        &events[events.len() - 2..],
        [Event::Detached { .. }, Event::Ended { .. }]
    ));
    assert!(!raw.server.is_finished(), "only the session");
}

#[test]
fn an_echo_is_answered() {
    let mut raw = Raw::begun();
    let echo = |mut fields: Vec<Value>| {
        fields.resize(9, Value::Null);
        fields.push(Value::Bool(true));
        fields
    };
    raw.frame(0, 0x13, echo(flow(0, 10, 0, 0, 0)[..4].to_vec()));
    assert_eq!(raw.codes(), [0x13]);
    raw.attach_receiver("r", 7);
    raw.frames();
    raw.frame(0, 0x13, echo(flow(0, 10, 7, 0, 5)));
    let frames = raw.frames();
    assert_eq!(frames.len(), 1);
    assert_eq!(
        (frames[0].field(4), frames[0].field(6)),
        (Value::Uint(0), Value::Uint(5))
    );
}

#[test]
fn channels_are_used_again_after_end() {
    let mut pair = Pair::open();
    for round in 0..3 {
        let session = pair.begin();
        let (receiver, link) = pair.receiver(session, "q");
        pair.client.set_credit(receiver, 1);
        pair.run();
        pair.server.send(link, round, 0, &[b"m"], false).unwrap();
        pair.run();
        assert_eq!(
            deliveries(&pair.take_client()),
            [(0, b"m"[..].into())],
            "ids begin anew"
        );
        pair.client.end(session, None);
        pair.run();
        let expected = [
            Event::Detached {
                link: receiver,
                closed: false,
                error: None,
            },
            Event::Ended {
                session,
                error: None,
            },
        ];
        assert_eq!(pair.take_client(), expected);
        assert!(matches!(
            &pair.take_server()[..],
            [
                ..,
                Event::Detached { closed: false, .. },
                Event::Ended { .. }
            ]
        ));
        assert_eq!(pair.client.begin().map(|next| next.channel), Some(0));
        pair.run();
        let again = pair.take_client();
        assert_eq!(again.len(), 1);
        if let Event::Begun { session } = again[0] {
            pair.client.end(session, None);
        }
        pair.run();
        pair.take_client();
    }
}

#[test]
fn an_error_of_the_owner_ends_a_session() {
    let mut pair = Pair::open();
    let session = pair.begin();
    let (sender, link) = pair.sender(session, "q");
    let error = ErrorCondition::new(condition::RESOURCE_LIMIT_EXCEEDED, "too much");
    let server_session = link_session(&pair, link);
    pair.server.end(server_session, Some(error.clone()));
    pair.run();
    assert_eq!(
        pair.take_client(),
        [
            Event::Detached {
                link: sender,
                closed: false,
                error: Some(error.clone())
            },
            Event::Ended {
                session,
                error: Some(error)
            }
        ]
    );
    assert!(matches!(
        &pair.take_server()[..],
        [Event::Detached { .. }, Event::Ended { .. }]
    ));
}

fn link_session(pair: &Pair, link: LinkId) -> SessionId {
    pair.server.sessions[usize::from(link.channel)].id
}

#[test]
fn dispositions_of_one_batch_are_one_frame_over_all_links() {
    let mut raw = Raw::begun();
    let one = raw.attach_sender("one", 0, 100);
    let two = raw.attach_sender("two", 1, 100);
    for id in 0..10 {
        raw.transfer(transfer(id % 2, id, false), b"m");
    }
    raw.frames();
    // In any order: what counts is what is consecutive at the flush.
    for id in [3, 1, 0, 2, 4, 5, 8, 7, 9] {
        raw.server
            .settle(if id % 2 == 0 { one } else { two }, id, Outcome::Accepted);
    }
    raw.server.settle(one, 6, Outcome::Released);
    let frames = raw.frames();
    let ranges: Vec<(Value, Value)> = frames
        .iter()
        .map(|frame| (frame.field(1), frame.field(2)))
        .collect();
    assert_eq!(
        ranges,
        [
            (Value::Uint(0), Value::Uint(5)),
            (Value::Uint(6), Value::Null),
            (Value::Uint(7), Value::Uint(9))
        ]
    );
    assert!(
        frames
            .iter()
            .all(|frame| frame.code == 0x15 && frame.field(0) == Value::Bool(true))
    );
    assert!(
        frames
            .iter()
            .all(|frame| frame.field(3) == Value::Bool(true))
    );
}

#[test]
fn a_disposition_may_cover_several_links_and_unknown_ids() {
    let mut pair = Pair::open();
    let session = pair.begin();
    let (client_a, server_a) = pair.receiver(session, "a");
    let (client_b, server_b) = pair.receiver(session, "b");
    pair.client.set_credit(client_a, 100);
    pair.client.set_credit(client_b, 100);
    pair.run();
    for token in 0..6 {
        let link = if token % 2 == 0 { server_a } else { server_b };
        pair.server
            .send(link, 100 + token, 0, &[b"m"], token == 3)
            .unwrap();
    }
    pair.run();
    pair.take_server();
    for id in 0..6 {
        pair.client.settle(client_a, id, Outcome::Accepted);
    }
    pair.client.settle(client_a, 77, Outcome::Accepted);
    pair.run();
    let events = pair.take_server();
    let tokens: Vec<u64> = settled_tokens(&events)
        .iter()
        .map(|(token, _)| *token)
        .collect();
    assert_eq!(
        tokens,
        [100, 101, 102, 104, 105],
        "103 was settled when it was sent"
    );
    assert!(events.iter().any(
        |event| matches!(event, Event::Disposition { link, token: 101, .. } if *link == server_b)
    ));
    pair.client.settle(client_a, 2, Outcome::Released);
    pair.run();
    assert_eq!(pair.take_server(), [], "nobody waits for 2 any more");
}

#[test]
fn every_outcome_arrives_as_it_was_given() {
    let mut pair = Pair::open();
    let session = pair.begin();
    let (receiver, link) = pair.receiver(session, "q");
    pair.client.set_credit(receiver, 100);
    pair.run();
    let outcomes = [
        Outcome::Accepted,
        Outcome::Released,
        Outcome::Rejected(None),
        Outcome::Rejected(Some(
            ErrorCondition::new("app:bad", "x".repeat(400)).with_info("n", 1_i32),
        )),
        Outcome::Modified {
            delivery_failed: true,
            undeliverable_here: false,
        },
        Outcome::Modified {
            delivery_failed: false,
            undeliverable_here: true,
        },
        Outcome::Declared {
            txn_id: b"t1"[..].into(),
        },
        Outcome::Transactional {
            txn_id: b"t1"[..].into(),
            outcome: Some(Box::new(Outcome::Accepted)),
        },
        Outcome::Transactional {
            txn_id: b"t1"[..].into(),
            outcome: None,
        },
    ];
    for (token, outcome) in (0..).zip(&outcomes) {
        let id = pair.server.send(link, token, 0, &[b"m"], false).unwrap();
        pair.run();
        pair.client.settle(receiver, id, outcome.clone());
        pair.run();
        let settled = settled_tokens(&pair.take_server());
        assert_eq!(settled, [(token, Some(outcome.clone()))]);
    }
}

#[test]
fn an_unsettled_answer_is_settled_by_us_and_reported_once() {
    let mut raw = Raw::begun();
    let link = raw.attach_receiver("r", 0);
    raw.frame(0, 0x13, flow(0, 100, 0, 0, 100));
    for token in 0..3 {
        raw.server.send(link, token, 0, &[b"m"], false).unwrap();
    }
    raw.frames();
    raw.take_events();
    let accepted = Value::Described(Box::new(serde_amqp::described::Described {
        descriptor: serde_amqp::descriptor::Descriptor::Name("amqp:accepted:list".into()),
        value: Value::List(vec![]),
    }));
    let answer = vec![
        Value::Bool(true),
        Value::Uint(0),
        Value::Uint(2),
        Value::Bool(false),
        accepted,
    ];
    raw.frame(0, 0x15, answer.clone());
    raw.frame(0, 0x15, answer);
    let events = raw.take_events();
    assert_eq!(events.len(), 3);
    for event in events {
        let Event::Disposition {
            link,
            delivery_id,
            outcome,
            settled: false,
            ..
        } = event
        else {
            panic!("{event:?}");
        };
        assert_eq!(outcome, Some(Outcome::Accepted));
        raw.server.settle_sent(link, delivery_id);
    }
    let frames = raw.frames();
    assert_eq!(frames.len(), 1);
    assert_eq!(
        frames[0].fields[..4],
        [
            Value::Bool(false),
            Value::Uint(0),
            Value::Uint(2),
            Value::Bool(true)
        ]
    );
}

#[test]
fn settling_without_an_outcome_is_reported_as_none() {
    let mut raw = Raw::begun();
    let link = raw.attach_receiver("r", 0);
    raw.frame(0, 0x13, flow(0, 100, 0, 0, 100));
    raw.server.send(link, 9, 0, &[b"m"], false).unwrap();
    raw.take_events();
    raw.frame(
        0,
        0x15,
        vec![
            Value::Bool(true),
            Value::Uint(0),
            Value::Null,
            Value::Bool(true),
        ],
    );
    assert_eq!(
        raw.take_events(),
        [Event::Disposition {
            link,
            token: 9,
            delivery_id: 0,
            outcome: None,
            settled: true
        }]
    );
}
