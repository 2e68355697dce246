//! Attach, detach, credit, drain.

use serde_amqp::Value;
use serde_amqp::described::Described;
use serde_amqp::descriptor::Descriptor;

use super::pair::{from, settings, to};
use super::raw::{begin, flow, transfer};
use super::*;

fn source() -> Source {
    Source {
        address: Some("queue://orders".into()),
        durable: Durability::UnsettledState,
        expiry_policy: ExpiryPolicy::Never,
        timeout_s: 12,
        dynamic: false,
        dynamic_node_properties: Vec::new(),
        distribution_mode: Some(DistributionMode::Copy),
        filter: vec![(
            Symbol::from("jms-selector"),
            Value::Described(Box::new(Described {
                descriptor: Descriptor::Code(0x0000_468c_0000_0004),
                value: Value::String("a = 'b'".into()),
            })),
        )],
        default_outcome: Some(Outcome::Modified {
            delivery_failed: true,
            undeliverable_here: false,
        }),
        outcomes: vec![
            Symbol::from("amqp:accepted:list"),
            Symbol::from("amqp:released:list"),
        ],
        capabilities: vec![Symbol::from("topic")],
    }
}

#[test]
fn everything_said_of_a_source_arrives_and_is_echoed() {
    let mut pair = Pair::open();
    let session = pair.begin();
    let request = AttachRequest {
        source: Some(source()),
        snd_settle_mode: SenderSettleMode::Settled,
        desired_capabilities: vec![Symbol::from("shared")],
        properties: vec![(Symbol::from("priority"), Value::from(3_i32))],
        ..from("subscription")
    };
    let link = pair.client.attach_receiver(session, request).unwrap();
    pair.run();
    let server = pair.take_server();
    let [Event::Attached(attach)] = server.as_slice() else {
        panic!("{server:?}")
    };
    assert_eq!(attach.source, Some(source()));
    assert_eq!(attach.target_node(), Some(&Target::default()));
    assert_eq!(attach.peer_role, PeerRole::Receiver);
    assert_eq!(attach.snd_settle_mode, SenderSettleMode::Settled);
    assert_eq!(attach.desired_capabilities, [Symbol::from("shared")]);
    assert_eq!(attach.properties.len(), 1);
    let client = pair.take_client();
    let [Event::AttachConfirmed(answer)] = client.as_slice() else {
        panic!("{client:?}")
    };
    assert_eq!((answer.link, &answer.source), (link, &Some(source())));
    assert_eq!(answer.snd_settle_mode, SenderSettleMode::Settled);
}

#[test]
fn a_dynamic_node_gets_its_address_from_the_reply() {
    let mut pair = Pair::open();
    pair.accepts_links = false;
    let session = pair.begin();
    let lifetime = Value::Described(Box::new(Described {
        descriptor: Descriptor::Code(0x2b),
        value: Value::List(vec![]),
    }));
    let target = Target {
        dynamic: true,
        dynamic_node_properties: vec![(Symbol::from("lifetime-policy"), lifetime)],
        capabilities: vec![Symbol::from("temporary-queue")],
        ..Target::default()
    };
    let request = AttachRequest {
        target: Some(target.clone().into()),
        ..to("temp")
    };
    pair.client.attach_sender(session, request).unwrap();
    pair.run();
    let server = pair.take_server();
    let [Event::Attached(attach)] = server.as_slice() else {
        panic!("{server:?}")
    };
    assert_eq!(attach.target_node(), Some(&target));
    let reply = Target {
        address: Some("temp-1".into()),
        ..target
    };
    pair.server.accept_attach(
        attach.link,
        AttachReply {
            target: Some(reply.into()),
            ..AttachReply::default()
        },
    );
    pair.run();
    let client = pair.take_client();
    let [Event::AttachConfirmed(answer)] = client.as_slice() else {
        panic!("{client:?}")
    };
    assert_eq!(
        answer
            .target_node()
            .and_then(|node| node.address.as_deref()),
        Some("temp-1")
    );
    assert_eq!(answer.max_message_bytes, Some(100_000));
}

#[test]
fn a_coordinator_is_understood_and_can_be_refused() {
    let mut pair = Pair::open();
    pair.accepts_links = false;
    let session = pair.begin();
    let capabilities = vec![Symbol::from("amqp:local-transactions")];
    let target = AttachTarget::Coordinator(capabilities.clone());
    let request = AttachRequest {
        target: Some(target.clone()),
        ..to("tx")
    };
    let link = pair.client.attach_sender(session, request).unwrap();
    pair.run();
    let server = pair.take_server();
    let [Event::Attached(attach)] = server.as_slice() else {
        panic!("{server:?}")
    };
    assert!(attach.is_coordinator());
    assert_eq!(attach.target, Some(target));
    let error = ErrorCondition::new(condition::NOT_IMPLEMENTED, "no transactions");
    pair.server.refuse_attach(attach.link, error.clone());
    pair.run();
    let client = pair.take_client();
    let [
        Event::AttachConfirmed(answer),
        Event::Detached {
            link: gone,
            closed: true,
            error: Some(why),
        },
    ] = client.as_slice()
    else {
        panic!("{client:?}")
    };
    assert_eq!((answer.target.as_ref(), *gone, why), (None, link, &error));
    assert!(
        answer.source.is_some(),
        "the client's own terminus is echoed"
    );
    assert_eq!(pair.take_server(), [], "the owner knows that it refused");
    assert!(!pair.server.is_finished());
    assert_eq!(pair.server.shared.link_count, 0);
}

#[test]
fn an_attach_of_an_unknown_kind_costs_only_the_link() {
    let mut raw = Raw::begun();
    let odd = Value::Described(Box::new(Described {
        descriptor: Descriptor::Name("vendor:terminus:list".into()),
        value: Value::List(vec![]),
    }));
    raw.frame(
        0,
        0x12,
        vec![
            Value::String("odd".into()),
            Value::Uint(0),
            Value::Bool(false),
            Value::Null,
            Value::Null,
            Value::Null,
            odd,
        ],
    );
    let frames = raw.frames();
    assert_eq!(
        frames.iter().map(|frame| frame.code).collect::<Vec<_>>(),
        [0x12, 0x16]
    );
    assert_eq!(frames[0].field(6), Value::Null);
    assert_eq!(frames[1].condition(2), condition::NOT_IMPLEMENTED);
    assert_eq!(raw.take_events(), []);
    raw.attach_sender("good", 1, 5);
    assert!(!raw.server.is_finished());
}

#[test]
fn a_sender_and_a_receiver_may_have_one_name() {
    let mut pair = Pair::open();
    let session = pair.begin();
    let (out, server_in) = pair.sender(session, "same");
    let (input, server_out) = pair.receiver(session, "same");
    pair.server.set_credit(server_in, 5);
    pair.client.set_credit(input, 5);
    pair.run();
    pair.client.send(out, 1, 0, &[b"there"], true).unwrap();
    pair.server
        .send(server_out, 2, 0, &[b"back"], true)
        .unwrap();
    pair.run();
    assert_eq!(deliveries(&pair.server_events), [(0, b"there"[..].into())]);
    assert_eq!(deliveries(&pair.client_events), [(0, b"back"[..].into())]);
}

#[test]
fn a_second_attach_of_a_name_steals_the_link() {
    let mut raw = Raw::begun();
    raw.frame(1, 0x11, begin(100));
    let first = raw.attach_sender("name", 0, 10);
    raw.frames();
    raw.take_events();
    let attach = vec![
        Value::String("name".into()),
        Value::Uint(0),
        Value::Bool(false),
    ];
    raw.frame(1, 0x12, attach);
    let events = raw.take_events();
    assert!(
        matches!(&events[..], [Event::Detached { link, closed: true, error: Some(error) }, Event::Attached(_)]
        if *link == first && error.condition == condition::LINK_STOLEN)
    );
    let frames = raw.frames();
    assert_eq!((frames[0].code, frames[0].channel), (0x16, 0));
    // The robbed end has not heard of it yet: what it sends is dropped.
    raw.transfer(transfer(0, 0, false), b"late");
    assert_eq!(raw.take_events(), []);
    raw.frame(0, 0x16, vec![Value::Uint(0), Value::Bool(true)]);
    assert_eq!(raw.take_events(), []);
    assert!(!raw.server.is_finished());
}

#[test]
fn handles_are_used_again_after_detach() {
    let mut raw = Raw::begun();
    for round in 0..3 {
        let link = raw.attach_sender("s", 4, 10);
        raw.transfer(transfer(4, round, false), b"m");
        raw.frame(0, 0x16, vec![Value::Uint(4), Value::Bool(true)]);
        let events = raw.take_events();
        assert!(matches!(
            &events[..],
            [
                Event::Attached(_),
                Event::Delivery { .. },
                Event::Detached { .. }
            ]
        ));
        // The owner's late commands about the link that is gone do nothing.
        raw.server.settle(link, round, Outcome::Accepted);
        raw.server.set_credit(link, 7);
        let codes = raw.codes();
        assert_eq!(codes, [0x12, 0x13, 0x16], "attach, flow, detach");
    }
}

#[test]
fn a_stale_id_does_not_touch_the_link_that_took_its_place() {
    let mut raw = Raw::begun();
    let old = raw.attach_sender("a", 0, 10);
    raw.frame(0, 0x16, vec![Value::Uint(0), Value::Bool(true)]);
    let new = raw.attach_sender("b", 0, 10);
    assert_eq!((old.channel, old.handle), (new.channel, new.handle));
    raw.frames();
    raw.server.detach(old, None);
    raw.server.set_credit(old, 99);
    assert!(raw.codes().is_empty());
}

#[test]
fn detach_is_answered_with_the_same_closed_flag() {
    let mut raw = Raw::begun();
    let link = raw.attach_receiver("durable", 0);
    raw.frames();
    raw.take_events();
    raw.frame(0, 0x16, vec![Value::Uint(0), Value::Bool(false)]);
    assert_eq!(
        raw.take_events(),
        [Event::Detached {
            link,
            closed: false,
            error: None
        }]
    );
    let frames = raw.frames();
    assert_eq!(frames[0].fields[..1], [Value::Uint(0)]);
    assert_ne!(frames[0].field(1), Value::Bool(true));
}

#[test]
fn a_close_may_be_answered_later() {
    let mut raw = Raw::begun();
    let link = raw.attach_receiver("durable", 0);
    raw.server.close_late(link);
    raw.frames();
    raw.take_events();
    raw.frame(0, 0x16, vec![Value::Uint(0), Value::Bool(true)]);
    assert!(matches!(
        raw.take_events().as_slice(),
        [Event::Detached {
            closed: true,
            error: None,
            ..
        }]
    ));
    assert!(raw.codes().is_empty());
    raw.server.set_credit(link, 5);
    assert!(!raw.server.can_send(link));
    raw.server.detach(link, None);
    raw.server.detach(link, None);
    assert_eq!(raw.codes(), [0x16]);
    assert_eq!(raw.server.shared.link_count, 0);
    assert!(raw.take_events().is_empty());
    // One that only detaches is answered at once.
    let link = raw.attach_receiver("durable", 0);
    raw.server.close_late(link);
    raw.frames();
    raw.frame(0, 0x16, vec![Value::Uint(0), Value::Bool(false)]);
    assert_eq!(raw.codes(), [0x16]);
}

#[test]
fn our_detach_is_reported_when_the_peer_answered() {
    let mut pair = Pair::open();
    let session = pair.begin();
    let (sender, link) = pair.sender(session, "q");
    let error = ErrorCondition::new(condition::RESOURCE_DELETED, "queue deleted");
    pair.server.detach(link, Some(error.clone()));
    assert_eq!(pair.server_events, []);
    pair.run();
    assert_eq!(
        pair.take_client(),
        [Event::Detached {
            link: sender,
            closed: true,
            error: Some(error)
        }]
    );
    assert_eq!(
        pair.take_server(),
        [Event::Detached {
            link,
            closed: true,
            error: None
        }]
    );
}

#[test]
fn outcomes_go_out_before_the_detach_that_follows_them() {
    let mut raw = Raw::begun();
    let link = raw.attach_sender("s", 0, 10);
    raw.transfer(transfer(0, 0, false), b"m");
    raw.frames();
    raw.server.settle(link, 0, Outcome::Accepted);
    raw.server.detach(link, None);
    assert_eq!(raw.codes(), [0x15, 0x16]);
}

#[test]
fn a_link_may_be_detached_before_the_owner_answered_its_attach() {
    let mut raw = Raw::begun();
    raw.accepts_links = false;
    raw.attach("hasty", 0, false);
    raw.frame(0, 0x16, vec![Value::Uint(0), Value::Bool(true)]);
    assert_eq!(raw.codes(), [0x12, 0x16]);
    let events = raw.take_events();
    let [Event::Attached(attach), Event::Detached { .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    raw.server
        .accept_attach(attach.link, AttachReply::default());
    assert!(raw.codes().is_empty());
}

#[test]
fn a_client_may_detach_before_its_attach_is_answered() {
    let mut pair = Pair::open();
    let session = pair.begin();
    let link = pair.client.attach_sender(session, to("q")).unwrap();
    pair.client.detach(link, None);
    let again = pair.client.attach_sender(session, to("q")).unwrap();
    pair.run();
    let client = pair.take_client();
    assert!(
        matches!(&client[..], [Event::Detached { link: gone, .. }, Event::AttachConfirmed(attach)]
            if *gone == link && attach.link == again),
        "{client:?}"
    );
    assert_eq!(pair.client.shared.link_count, 1);
    assert_eq!(pair.server.shared.link_count, 1);
}

#[test]
fn credit_is_refilled_once_when_half_is_used() {
    let mut pair = Pair::open();
    let session = pair.begin();
    let (sender, link) = pair.sender(session, "q");
    pair.server.set_credit(link, 10);
    pair.run();
    let is_refill = |event: &Event| *event == Event::CreditRefill { link };
    for token in 0..10 {
        assert_eq!(pair.client.credit(sender), 10 - token as u32);
        pair.client.send(sender, token, 0, &[b"m"], false).unwrap();
        pair.run();
        let refills = pair
            .take_server()
            .iter()
            .filter(|event| is_refill(event))
            .count();
        assert_eq!(refills, usize::from(token == 4), "token {token}");
    }
    assert_eq!(
        pair.client.send(sender, 10, 0, &[b"m"], false),
        Err(SendError::NoCredit)
    );
    assert!(!pair.client.can_send(sender));
    pair.server.set_credit(link, 1);
    pair.run();
    assert!(pair.client.can_send(sender));
}

#[test]
fn credit_taken_back_does_not_punish_what_is_under_way() {
    let mut raw = Raw::begun();
    let link = raw.attach_sender("s", 0, 3);
    raw.server.set_credit(link, 0);
    raw.take_events();
    for id in 0..3 {
        raw.transfer(transfer(0, id, false), b"m");
    }
    assert_eq!(deliveries(&raw.take_events()).len(), 3);
    raw.transfer(transfer(0, 3, false), b"m");
    let frames = raw.frames();
    assert_eq!(
        frames.last().unwrap().condition(2),
        condition::TRANSFER_LIMIT_EXCEEDED
    );
    assert!(!raw.server.is_finished());
}

#[test]
fn drain_with_nothing_to_send_returns_the_credit() {
    let mut pair = Pair::open();
    let session = pair.begin();
    let (receiver, link) = pair.receiver(session, "q");
    pair.client.set_credit(receiver, 1000);
    pair.client.drain(receiver);
    pair.run();
    assert!(matches!(
        &pair.take_server()[..],
        [Event::Flow {
            credit: 1000,
            drain: true,
            ..
        }]
    ));
    pair.server.drained(link);
    pair.run();
    assert_eq!(
        pair.take_client(),
        [
            Event::Drained { link: receiver },
            Event::CreditRefill { link: receiver }
        ]
    );
    assert_eq!(pair.server.credit(link), 0);
    // Credit granted afterwards counts from the advanced delivery count.
    pair.client.set_credit(receiver, 3);
    pair.run();
    assert_eq!(pair.server.credit(link), 3);
}

#[test]
fn drain_with_messages_sends_them_first() {
    let mut raw = Raw::begun();
    let link = raw.attach_receiver("browser", 0);
    raw.frame(0, 0x13, flow(0, 2047, 0, 0, 10));
    raw.server.send(link, 0, 0, &[b"m"], true).unwrap();
    raw.frames();
    let mut drain = flow(0, 2047, 0, 0, 10);
    drain.extend([Value::Null, Value::Bool(true)]);
    raw.take_events();
    raw.frame(0, 0x13, drain);
    assert_eq!(
        raw.take_events(),
        [Event::Flow {
            link,
            credit: 9,
            drain: true
        }]
    );
    raw.server.send(link, 1, 0, &[b"m"], true).unwrap();
    raw.server.drained(link);
    let frames = raw.frames();
    assert_eq!(
        frames.iter().map(|frame| frame.code).collect::<Vec<_>>(),
        [0x14, 0x13]
    );
    assert_eq!(
        (frames[1].field(5), frames[1].field(6), frames[1].field(8)),
        (Value::Uint(10), Value::Uint(0), Value::Bool(true))
    );
}

#[test]
fn a_receiver_that_does_not_drain_keeps_its_credit() {
    let mut pair = Pair::open();
    let session = pair.begin();
    let (receiver, link) = pair.receiver(session, "q");
    pair.client.set_credit(receiver, 10);
    pair.run();
    pair.server.drained(link);
    assert_eq!(pair.server.credit(link), 10);
}

#[test]
fn flows_without_a_delivery_count_count_from_the_start() {
    let mut raw = Raw::begun();
    raw.accepts_links = false;
    raw.attach("early", 0, true);
    let mut early = flow(0, 100, 0, 0, 20);
    early[5] = Value::Null;
    raw.frame(0, 0x13, early);
    let events = raw.take_events();
    let [Event::Attached(attach)] = events.as_slice() else {
        panic!("{events:?}")
    };
    raw.server
        .accept_attach(attach.link, AttachReply::default());
    assert_eq!(
        raw.server.poll_event(),
        Some(Event::Flow {
            link: attach.link,
            credit: 20,
            drain: false
        })
    );
}

#[test]
fn faults_about_handles_end_the_session_or_the_connection() {
    for (handle, code, expected) in [
        (0, 0x17, condition::HANDLE_IN_USE),
        (9_000, 0x18, condition::FRAMING_ERROR),
    ] {
        let mut raw = Raw::begun();
        raw.attach("one", 0, false);
        raw.frames();
        raw.attach("two", handle, false);
        let frames = raw.frames();
        let end = frames.last().unwrap();
        assert_eq!((end.code, end.condition(0)), (code, String::from(expected)));
    }
    let mut raw = Raw::begun();
    raw.transfer(transfer(3, 0, false), b"m");
    let frames = raw.frames();
    assert_eq!(frames[0].condition(0), condition::UNATTACHED_HANDLE);
    raw.frame(0, 0x13, flow(0, 1, 3, 0, 1));
    assert!(
        raw.codes().is_empty(),
        "the session is ended: its frames are dropped"
    );
    raw.frame(0, 0x17, vec![]);
    raw.frame(0, 0x11, begin(5));
    assert_eq!(
        raw.codes(),
        [0x11],
        "and its channel is free after the answer"
    );
}

#[test]
fn a_client_cannot_use_a_name_twice() {
    let mut pair = Pair::open_with(settings(), settings());
    let session = pair.begin();
    assert!(pair.client.attach_sender(session, to("q")).is_some());
    assert!(pair.client.attach_sender(session, to("q")).is_none());
    assert!(pair.client.attach_receiver(session, from("q")).is_some());
}
