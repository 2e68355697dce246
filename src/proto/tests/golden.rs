//! Frames of a real client, replayed.

use super::pair::settings;
use super::raw::frame_of;
use super::*;

/// One frame of the recording.
struct Recorded {
    channel: u16,
    is_sasl: bool,
    body: Vec<u8>,
}

fn recording() -> Vec<Recorded> {
    include_str!("qpid_jms.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [name, channel, hex] = words[..] else {
                panic!("{line}")
            };
            let body = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect();
            Recorded {
                channel: channel.parse().unwrap(),
                is_sasl: name.starts_with("sasl"),
                body,
            }
        })
        .collect()
}

/// Everything that a server's owner sees of the recorded client; links get credit, nothing is refused.
fn replay() -> Vec<Event> {
    let mut raw = Raw::new(Settings {
        max_frame_size: 65_536,
        ..settings()
    });
    raw.write(b"AMQP\x03\x01\x00\x00");
    for frame in recording() {
        raw.write(&frame_of(
            u8::from(frame.is_sasl),
            frame.channel,
            &frame.body,
        ));
        if frame.is_sasl {
            raw.write(b"AMQP\x00\x01\x00\x00");
        }
        let attached = raw.events.last().and_then(|event| match event {
            Event::Attached(attach) => Some(attach.link),
            _ => None,
        });
        if let Some(link) = attached {
            raw.server.set_credit(link, 100);
        }
        raw.collect();
    }
    raw.take_events()
}

fn attaches(events: &[Event]) -> Vec<&Attach> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Attached(attach) => Some(&**attach),
            _ => None,
        })
        .collect()
}

#[test]
fn a_session_of_qpid_jms_is_understood_to_its_orderly_end() {
    let events = replay();
    assert!(matches!(&events[0], Event::SaslInit { mechanism, .. } if mechanism == "ANONYMOUS"));
    let Event::Opened(open) = &events[1] else {
        panic!("{:?}", events[1])
    };
    assert_eq!(open.container_id, "cid");
    assert_eq!(open.desired_capabilities.len(), 4);
    assert_eq!((open.max_frame_size, open.channel_max), (1 << 20, 32_767));
    assert_eq!(open.idle_timeout_ms, Some(30_000));
    assert_eq!(
        open.properties[0],
        (Symbol::from("product"), "QpidJMS".into())
    );
    assert_eq!(events.last(), Some(&Event::Closed { error: None }));
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::Detached { error: Some(_), .. }))
    );
}

#[test]
fn what_qpid_jms_says_of_its_links_is_read() {
    let events = replay();
    let links = attaches(&events);
    let find = |part: &str| {
        *links
            .iter()
            .find(|attach| attach.name.contains(part))
            .unwrap_or_else(|| panic!("no link {part}"))
    };
    let filter_of = |attach: &Attach| match attach.source.as_ref().unwrap().filter.as_slice() {
        [(key, Value::Described(filter))] => (key.as_str().to_owned(), filter.value.clone()),
        other => panic!("{other:?}"),
    };
    let selector = find("receiver:ID:fea0178b-3cd8-4fba-8862-842309c8b665:1:1:1:");
    assert_eq!(
        filter_of(selector),
        ("jms-selector".into(), "region = 'eu'".into())
    );
    let source = selector.source.as_ref().unwrap();
    assert_eq!(source.expiry_policy, ExpiryPolicy::LinkDetach);
    let failed = Outcome::Modified {
        delivery_failed: true,
        undeliverable_here: false,
    };
    assert_eq!(source.default_outcome, Some(failed));
    assert_eq!(source.outcomes.len(), 4);
    let browser = find("receiver:ID:fea0178b-3cd8-4fba-8862-842309c8b665:1:1:2:");
    assert_eq!(browser.snd_settle_mode, SenderSettleMode::Settled);
    let copies = browser.source.as_ref().unwrap().distribution_mode;
    assert_eq!(copies, Some(DistributionMode::Copy));
    let no_local = find("receiver:ID:fea0178b-3cd8-4fba-8862-842309c8b665:1:1:3:");
    assert_eq!(filter_of(no_local).0, "no-local");
    let durable = find("dsub").source.as_ref().unwrap();
    assert_eq!(durable.durable, Durability::UnsettledState);
    assert_eq!(durable.expiry_policy, ExpiryPolicy::Never);
    let shared = &find("shv|volatile1").source.as_ref().unwrap().capabilities;
    assert_eq!(*shared, [Symbol::from("topic"), Symbol::from("shared")]);
    let unsubscribe = links.iter().rfind(|attach| attach.name == "dsub").unwrap();
    assert_eq!(
        (unsubscribe.session.channel, &unsubscribe.source),
        (0, &None)
    );
    let temporary = find("temp-queue-creator").target_node().unwrap();
    assert!(temporary.dynamic && temporary.address.is_none());
    assert_eq!(
        temporary.dynamic_node_properties[0].0,
        Symbol::from("lifetime-policy")
    );
    let relay = find(":1:1:2:null");
    assert_eq!(
        relay.target_node().map(|target| &target.address),
        Some(&None)
    );
    assert!(find("qpid-jms:coordinator:").is_coordinator());
}

#[test]
fn messages_and_transactional_states_of_qpid_jms_are_read() {
    let mut messages = 0;
    let mut transactional = 0;
    for event in replay() {
        let Event::Delivery {
            payload,
            state,
            settled: false,
            message_format: 0,
            ..
        } = event
        else {
            continue;
        };
        let index = message::MessageIndex::scan_payload(&payload).unwrap();
        messages += usize::from(index.to.is_some());
        transactional += usize::from(matches!(
            state.as_deref(),
            Some(Outcome::Transactional { outcome: None, .. })
        ));
    }
    assert_eq!(
        (messages, transactional),
        (10, 2),
        "ten of them carry an address"
    );
}
