//! Headers, SASL, open, close, time.

use bytes::BytesMut;
use serde_amqp::Value;

use super::pair::settings;
use super::raw::{begin, frame, frame_of, parse};
use super::*;

const AMQP: &[u8] = b"AMQP\x00\x01\x00\x00";
const SASL: &[u8] = b"AMQP\x03\x01\x00\x00";

#[test]
fn a_client_opens_with_anonymous_and_learns_what_the_server_says() {
    let server = Settings {
        container_id: String::from("broker"),
        properties: vec![(Symbol::from("product"), Value::from("steadfast"))],
        offered_capabilities: vec![Symbol::from("ANONYMOUS-RELAY")],
        idle_timeout_ms: Some(20_000),
        ..settings()
    };
    let mut pair = Pair::new(settings(), server, ClientSasl::Anonymous);
    pair.run();
    let [Event::Opened(open)] = pair.client_events.as_slice() else {
        panic!("{:?}", pair.client_events)
    };
    assert_eq!(open.container_id, "broker");
    assert_eq!(open.max_frame_size, 1024);
    assert_eq!(
        open.idle_timeout_ms,
        Some(10_000),
        "half of what we wait for"
    );
    assert_eq!(open.offered_capabilities, [Symbol::from("ANONYMOUS-RELAY")]);
    assert_eq!(
        open.properties,
        [(Symbol::from("product"), Value::from("steadfast"))]
    );
}

#[test]
fn a_handshake_in_single_bytes_is_the_same() {
    let mut pair = Pair::new(
        settings(),
        Settings {
            sasl_mechanisms: vec!["PLAIN".into(), "ANONYMOUS".into()],
            ..settings()
        },
        ClientSasl::Plain {
            user: "u".into(),
            password: "p".into(),
        },
    );
    pair.chunk = 1;
    let session = pair.client.begin().unwrap();
    pair.run();
    assert!(matches!(
        &pair.client_events[..],
        [Event::Opened(_), Event::Begun { .. }]
    ));
    let (sender, _) = pair.sender(session, "q");
    assert!(!pair.client.can_send(sender));
}

#[test]
fn the_owner_sees_the_sasl_exchange() {
    let mut raw = Connection::server(
        Settings {
            sasl_mechanisms: vec!["PLAIN".into(), "SCRAM-SHA-256".into()],
            ..settings()
        },
        0,
    );
    let mut input = BytesMut::from(SASL);
    raw.handle_bytes(0, &mut input);
    let frames = parse(&raw.output().split());
    assert_eq!(frames[0].code, 0x40);
    assert!(matches!(frames[0].field(0), Value::Array(names) if names.len() == 2));
    let init = serde_amqp::to_vec(&fe2o3_amqp_types::sasl::SaslInit {
        mechanism: Symbol::from("SCRAM-SHA-256"),
        initial_response: Some(b"first".to_vec().into()),
        hostname: Some("host".into()),
    })
    .unwrap();
    input.extend_from_slice(&frame_of(1, 0, &init));
    raw.handle_bytes(0, &mut input);
    assert_eq!(
        raw.poll_event(),
        Some(Event::SaslInit {
            mechanism: "SCRAM-SHA-256".into(),
            response: Some(b"first"[..].into()),
            hostname: Some("host".into())
        })
    );
    raw.sasl_challenge(b"challenge");
    assert_eq!(parse(&raw.output().split())[0].code, 0x42);
    let response = fe2o3_amqp_types::sasl::SaslResponse {
        response: b"second".to_vec().into(),
    };
    input.extend_from_slice(&frame_of(1, 0, &serde_amqp::to_vec(&response).unwrap()));
    raw.handle_bytes(0, &mut input);
    assert_eq!(
        raw.poll_event(),
        Some(Event::SaslResponse(b"second"[..].into()))
    );
    raw.sasl_outcome(SaslCode::Ok, Some(b"proof"));
    let outcome = &parse(&raw.output().split())[0];
    assert_eq!(outcome.code, 0x44);
    assert_eq!(outcome.field(0), Value::Ubyte(0));
    assert_eq!(outcome.field(1), Value::Binary(b"proof".to_vec().into()));
    input.extend_from_slice(AMQP);
    raw.handle_bytes(0, &mut input);
    assert_eq!(&raw.output()[..], AMQP);
    assert!(!raw.is_finished());
}

#[test]
fn a_refused_client_learns_the_code_and_the_connection_ends() {
    let mut pair = Pair::new(settings(), settings(), ClientSasl::Anonymous);
    pair.accepts_links = false;
    for (code, condition) in [
        (SaslCode::Auth, condition::UNAUTHORIZED_ACCESS),
        (SaslCode::SysTemp, condition::CONNECTION_FORCED),
    ] {
        let mut client = Connection::client(settings(), ClientSasl::Anonymous, 0);
        let mut server = Connection::server(settings(), 0);
        for _ in 0..4 {
            server.handle_bytes(0, &mut client.output().split());
            if let Some(Event::SaslInit { .. }) = server.poll_event() {
                server.sasl_outcome(code, None);
            }
            client.handle_bytes(0, &mut server.output().split());
        }
        assert!(server.is_finished() && client.is_finished());
        let Some(Event::Closed { error: Some(error) }) = client.poll_event() else {
            panic!()
        };
        assert_eq!(error.condition, condition);
    }
}

#[test]
fn a_client_gives_up_when_its_mechanism_is_not_offered() {
    let server = Settings {
        sasl_mechanisms: vec!["EXTERNAL".into()],
        ..settings()
    };
    let mut pair = Pair::new(settings(), server, ClientSasl::Anonymous);
    pair.run();
    assert!(matches!(
        &pair.client_events[..],
        [Event::Closed { error: Some(_) }]
    ));
    assert!(pair.client.is_finished());
}

#[test]
fn the_plain_header_is_served_when_allowed() {
    let mut pair = Pair::new(settings(), settings(), ClientSasl::None);
    pair.run();
    assert!(matches!(&pair.client_events[..], [Event::Opened(_)]));
    let strict = Settings {
        allow_without_sasl: false,
        ..settings()
    };
    let mut pair = Pair::new(settings(), strict, ClientSasl::None);
    pair.run();
    assert!(pair.server.is_finished() && pair.client.is_finished());
    assert_eq!(pair.server_sent, SASL, "our header says what we would take");
}

#[test]
fn a_wrong_header_is_answered_by_ours_and_the_end() {
    for bytes in [
        &b"GET / HT"[..],
        b"AMQP\x02\x01\x00\x00",
        b"AMQP\x00\x00\x09\x01",
        b"\x16\x03\x01",
        b"X",
    ] {
        let mut server = Connection::server(settings(), 0);
        server.handle_bytes(0, &mut BytesMut::from(bytes));
        assert!(server.is_finished(), "{bytes:?}");
        assert_eq!(&server.output()[..], SASL);
        assert!(matches!(
            server.poll_event(),
            Some(Event::Closed { error: Some(_) })
        ));
        assert_eq!(server.poll_event(), None);
    }
}

#[test]
fn input_behind_open_waits_for_the_owners_answer() {
    let mut server = Connection::server(settings(), 0);
    let mut input = BytesMut::new();
    input.extend_from_slice(AMQP);
    input.extend_from_slice(&frame(0, 0x10, vec![Value::String("eager".into())], b""));
    input.extend_from_slice(&frame(3, 0x11, begin(100), b""));
    let attach = vec![
        Value::String("link".into()),
        Value::Uint(5),
        Value::Bool(true),
    ];
    let attach = frame(3, 0x12, attach, b"");
    input.extend_from_slice(&attach[..10]);
    server.handle_bytes(0, &mut input);
    assert!(input.is_empty());
    assert!(
        matches!(server.poll_event(), Some(Event::Opened(open)) if open.container_id == "eager")
    );
    assert_eq!(server.poll_event(), None);
    server.open();
    assert!(matches!(server.poll_event(), Some(Event::Begun { .. })));
    assert_eq!(server.poll_event(), None, "the attach is not complete");
    input.extend_from_slice(&attach[10..]);
    server.handle_bytes(0, &mut input);
    assert!(matches!(server.poll_event(), Some(Event::Attached(attach)) if attach.name == "link"));
    let codes: Vec<u64> = parse(&server.output().split())
        .iter()
        .map(|frame| frame.code)
        .collect();
    assert_eq!(codes, [0x10, 0x11]);
}

#[test]
fn a_client_may_pipeline_begin_and_attach_behind_its_open() {
    let mut pair = Pair::new(settings(), settings(), ClientSasl::Anonymous);
    let session = pair.client.begin().unwrap();
    let link = pair
        .client
        .attach_receiver(session, pair::from("q"))
        .unwrap();
    pair.client.set_credit(link, 10);
    pair.client.flush();
    pair.run();
    assert!(matches!(
        &pair.client_events[..],
        [
            Event::Opened(_),
            Event::Begun { .. },
            Event::AttachConfirmed(_)
        ]
    ));
    assert!(matches!(
        &pair.server_events[..],
        [
            Event::Attached(_),
            Event::Flow {
                credit: 10,
                drain: false,
                ..
            }
        ]
    ));
}

#[test]
fn input_beyond_what_is_held_stays_with_the_caller() {
    let mut server = Connection::server(settings(), 0);
    let mut input = BytesMut::new();
    input.extend_from_slice(AMQP);
    input.extend_from_slice(&frame(0, 0x10, vec![Value::String("eager".into())], b""));
    for channel in 0..4_000 {
        input.extend_from_slice(&frame(channel, 0x11, begin(100), b""));
    }
    let begins = frame(0, 0x11, begin(100), b"").len() * 4_000;
    server.handle_bytes(0, &mut input);
    assert_eq!(begins - input.len(), 64 * 1024);
    server.handle_bytes(0, &mut input);
    assert_eq!(begins - input.len(), 64 * 1024, "no more than that");
    assert!(matches!(server.poll_event(), Some(Event::Opened(_))));
    server.open();
    server.handle_bytes(0, &mut input);
    assert!(input.is_empty());
    assert_eq!(std::iter::from_fn(|| server.poll_event()).count(), 4_000);
}

#[test]
fn a_stream_that_ends_during_the_login_says_so() {
    let mut client = Connection::client(settings(), ClientSasl::Anonymous, 0);
    let mut server = Connection::server(settings(), 0);
    server.handle_bytes(0, &mut client.output().split());
    client.handle_bytes(0, &mut server.output().split());
    client.handle_eof(0);
    let Some(Event::Closed { error: Some(error) }) = client.poll_event() else {
        panic!("it is over")
    };
    assert_eq!(error.condition, condition::CONNECTION_FORCED);
    assert_eq!(error.description.as_deref(), Some(ENDED_IN_LOGIN));
}

#[test]
fn an_open_may_be_refused_with_a_reason() {
    let mut client = Connection::client(settings(), ClientSasl::None, 0);
    let mut server = Connection::server(settings(), 0);
    server.handle_bytes(0, &mut client.output().split());
    server.open_refused(
        ErrorCondition::new(condition::INVALID_FIELD, "name in use")
            .with_info("invalid-field", Symbol::from("container-id")),
    );
    assert!(!server.is_finished(), "the client's close is awaited");
    client.handle_bytes(0, &mut server.output().split());
    let Some(Event::Opened(open)) = client.poll_event() else {
        panic!()
    };
    let failed = Symbol::from("amqp:connection-establishment-failed");
    assert!(open.properties.contains(&(failed, Value::Bool(true))));
    let Some(Event::Closed { error: Some(error) }) = client.poll_event() else {
        panic!()
    };
    assert_eq!(error.condition, condition::INVALID_FIELD);
    assert_eq!(
        error.info,
        [(
            Symbol::from("invalid-field"),
            Symbol::from("container-id").into()
        )]
    );
    assert!(client.is_finished());
    server.handle_bytes(0, &mut client.output().split());
    assert!(server.is_finished());
}

#[test]
fn a_standby_says_open_and_close_and_waits_for_nothing() {
    let mut client = Connection::client(settings(), ClientSasl::Anonymous, 0);
    let mut server = Connection::server(settings(), 0);
    for _ in 0..4 {
        server.handle_bytes(0, &mut client.output().split());
        match server.poll_event() {
            Some(Event::SaslInit { .. }) => server.sasl_outcome(SaslCode::Ok, None),
            Some(Event::Opened(_)) => {
                server.close_now(Some(ErrorCondition::new(
                    condition::CONNECTION_FORCED,
                    "standby",
                )));
                assert!(server.is_finished());
                assert_eq!(server.poll_event(), Some(Event::Closed { error: None }));
            }
            _ => {}
        }
        client.handle_bytes(0, &mut server.output().split());
    }
    assert!(matches!(client.poll_event(), Some(Event::Opened(_))));
    assert!(
        matches!(client.poll_event(), Some(Event::Closed { error: Some(error) })
        if error.condition == condition::CONNECTION_FORCED)
    );
}

#[test]
fn a_client_on_proton_is_sent_away_without_a_word() {
    let product = |name: &str| vec![(Symbol::from("product"), Value::String(name.to_owned()))];
    for (channel_max, properties, is_told) in [
        (32_767, Vec::new(), false),
        (32_767, product("QpidJMS"), true),
        (65_535, Vec::new(), true),
    ] {
        let settings_of_client = Settings {
            channel_max,
            properties,
            ..settings()
        };
        let mut client = Connection::client(settings_of_client, ClientSasl::Anonymous, 0);
        let mut server = Connection::server(settings(), 0);
        for _ in 0..4 {
            server.handle_bytes(0, &mut client.output().split());
            match server.poll_event() {
                Some(Event::SaslInit { .. }) => server.sasl_outcome(SaslCode::Ok, None),
                Some(Event::Opened(_)) => server.close_now(None),
                _ => {}
            }
            client.handle_bytes(0, &mut server.output().split());
        }
        assert!(server.is_finished());
        let is_opened = matches!(client.poll_event(), Some(Event::Opened(_)));
        let is_closed = matches!(client.poll_event(), Some(Event::Closed { .. }));
        assert_eq!((is_opened, is_closed), (is_told, is_told));
    }
}

#[test]
fn close_is_answered_by_close() {
    let mut pair = Pair::open();
    pair.begin();
    pair.client.close(None);
    assert!(!pair.client.is_finished());
    pair.run();
    assert!(pair.client.is_finished() && pair.server.is_finished());
    assert_eq!(pair.client_events, [Event::Closed { error: None }]);
    assert_eq!(pair.server_events, [Event::Closed { error: None }]);
    assert_eq!(pair.client.poll_timeout(), None);
}

#[test]
fn a_server_closes_with_an_error_without_waiting() {
    let mut pair = Pair::open();
    pair.server.close_now(Some(ErrorCondition::new(
        condition::CONNECTION_FORCED,
        "stopping",
    )));
    assert!(pair.server.is_finished());
    pair.run();
    assert!(
        matches!(&pair.client_events[..], [Event::Closed { error: Some(error) }]
        if error.to_string() == "amqp:connection:forced: stopping")
    );
}

#[test]
fn a_close_that_is_not_answered_ends_by_time() {
    let mut pair = Pair::open();
    pair.client.close(None);
    let deadline = pair.client.poll_timeout().unwrap();
    pair.client.handle_timeout(deadline - 1);
    assert!(!pair.client.is_finished());
    pair.client.handle_timeout(deadline);
    assert!(pair.client.is_finished());
}

#[test]
fn the_end_of_the_stream_without_close_is_an_error() {
    let mut pair = Pair::open();
    pair.server.handle_eof(5);
    assert!(matches!(
        pair.server.poll_event(),
        Some(Event::Closed { error: Some(_) })
    ));
    pair.server.handle_eof(6);
    assert_eq!(pair.server.poll_event(), None, "once");
}

#[test]
fn frames_sent_while_closing_are_dropped() {
    let mut raw = Raw::begun();
    raw.server.close(None);
    assert_eq!(raw.codes(), [0x18]);
    raw.frame(1, 0x11, begin(1));
    raw.frame(9, 0x13, vec![]);
    assert!(raw.codes().is_empty());
    raw.frame(0, 0x18, vec![]);
    assert!(raw.server.is_finished());
    assert_eq!(raw.take_events(), [Event::Closed { error: None }]);
}

#[test]
fn empty_frames_keep_a_quiet_connection_alive_for_hours() {
    let quick = Settings {
        idle_timeout_ms: Some(3_000),
        ..settings()
    };
    let mut pair = Pair::open_with(quick.clone(), quick);
    let sent = pair.server_sent.len();
    pair.advance(3_600_000);
    assert!(!pair.client.is_finished() && !pair.server.is_finished());
    let frames = (pair.server_sent.len() - sent) / 8;
    assert!(
        (3_600 / 2..3_600 * 4).contains(&frames),
        "{frames} empty frames in an hour"
    );
}

#[test]
fn the_pause_between_writes_stays_below_the_peers_patience() {
    let quick = Settings {
        idle_timeout_ms: Some(1_000),
        ..settings()
    };
    let mut pair = Pair::open_with(quick.clone(), quick);
    let session = pair.begin();
    // Traffic in one direction at awkward times; the other direction has only empty frames.
    for step in 0..500 {
        pair.client.end(session, None);
        pair.advance(97 + step % 260);
        assert!(
            !pair.client.is_finished() && !pair.server.is_finished(),
            "step {step}"
        );
    }
}

#[test]
fn a_silent_peer_is_given_up() {
    let mut raw = Raw::new(Settings {
        idle_timeout_ms: Some(10_000),
        ..settings()
    });
    raw.write(AMQP);
    raw.frame(0, 0x10, vec![Value::String("raw".into())]);
    raw.now_ms = 4_000;
    raw.write(&frame_of(0, 0, b""));
    assert_eq!(raw.server.poll_timeout(), Some(14_000));
    raw.server.handle_timeout(13_999);
    assert!(!raw.server.is_finished());
    raw.server.handle_timeout(14_000);
    assert_eq!(raw.closed_with(), condition::RESOURCE_LIMIT_EXCEEDED);
}

#[test]
fn a_peer_that_nobody_reads_from_is_not_silent() {
    let mut raw = Raw::new(Settings {
        idle_timeout_ms: Some(10_000),
        ..settings()
    });
    raw.write(AMQP);
    raw.frame(0, 0x10, vec![Value::String("raw".into())]);
    for now_ms in (1_000..100_000).step_by(1_000) {
        raw.server.handle_reading_paused(now_ms);
        raw.server.handle_timeout(now_ms);
    }
    assert!(!raw.server.is_finished());
    raw.server.handle_timeout(109_000);
    assert!(raw.server.is_finished());
}

#[test]
fn a_connection_that_is_never_opened_is_given_up() {
    let mut server = Connection::server(settings(), 1_000);
    server.handle_bytes(1_000, &mut BytesMut::from(SASL));
    let deadline = server.poll_timeout().unwrap();
    assert_eq!(deadline, 31_000);
    server.handle_timeout(deadline);
    assert!(server.is_finished());
    assert!(matches!(
        server.poll_event(),
        Some(Event::Closed { error: Some(_) })
    ));
}

#[test]
fn no_time_limit_runs_while_the_owner_decides() {
    let mut client = Connection::client(settings(), ClientSasl::Anonymous, 0);
    let mut server = Connection::server(settings(), 0);
    while server.poll_timeout().is_some() {
        server.handle_bytes(0, &mut client.output().split());
        client.handle_bytes(0, &mut server.output().split());
    }
    assert!(matches!(server.poll_event(), Some(Event::SaslInit { .. })));
    server.handle_timeout(1_000_000);
    server.sasl_outcome(SaslCode::Ok, None);
    assert_eq!(server.poll_timeout(), Some(1_030_000));
}
