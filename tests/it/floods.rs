//! Too much of everything, and clients that are not there any more; see `hostile` for the method.

use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::hostile::{ANSWER, Victim};
use super::support::PATIENCE;
use super::wire::{
    ATTACH, CLOSE, DETACH, DISPOSITION, Ending, FLOW, OPEN, Raw, TRANSFER, Value, attach, begin,
    composite, flow, message, open, performative, transfer,
};

/// Most frames carry so many bytes of a message; the server takes larger ones.
const CHUNK: usize = 60_000;

/// Lets this process have as many sockets as it may.
fn allow_many_sockets() {
    let limit = Resource::RLIMIT_NOFILE;
    let (_, most) = getrlimit(limit).expect("every process has limits");
    setrlimit(limit, most, most).expect("a process may use what it may have");
}

/// Publishes a message of any size, in frames; `false` leaves the last frame out.
fn publish(raw: &mut Raw, delivery: u32, bytes: &[u8], is_whole: bool) {
    let chunks: Vec<&[u8]> = bytes.chunks(CHUNK).collect();
    let last = chunks.len() - 1;
    for (index, chunk) in chunks.into_iter().enumerate() {
        if index < last || is_whole {
            raw.send(&transfer(0, delivery, index < last, chunk));
        }
    }
}

/// Attaches a sender to a queue and waits for credit.
fn sender(port: u16, queue: &str) -> Raw {
    let mut raw = Raw::session(port);
    raw.send(&attach(0, "sender", false, queue));
    raw.expect(FLOW);
    raw
}

/// Takes messages and accepts them. Returns the size and the delivery count of each.
fn take(port: u16, queue: &str, wanted: usize) -> Vec<(usize, u32)> {
    let mut raw = Raw::session(port);
    raw.send(&attach(0, "taker", true, queue));
    raw.send(&flow(0, 1_000_000, false));
    let mut taken = Vec::new();
    let (mut size, mut count) = (0, 0);
    while taken.len() < wanted {
        let frame = raw.expect(TRANSFER);
        if size == 0 {
            count = frame.delivery_count();
        }
        size += frame.payload().len();
        if !frame.has_more() {
            taken.push((size, count));
            size = 0;
        }
    }
    let last = u32::try_from(wanted).expect("few") - 1;
    let accepted = composite(0x24, vec![]);
    let fields = vec![
        Value::True,
        Value::UInt(0),
        Value::UInt(last),
        Value::True,
        accepted,
    ];
    raw.send(&performative(0, DISPOSITION, fields, &[]));
    raw.send(&performative(0, CLOSE, vec![], &[]));
    assert_eq!(raw.ending(ANSWER), Ending::Close(None));
    taken
}

#[test]
fn thousands_of_connections_leave_others_undisturbed() {
    const CONNECTIONS: usize = 2000;
    allow_many_sockets();
    let victim = Victim::new("connections", &[]);
    let before = victim.memory_kb();
    let mut silent = Vec::new();
    for index in 0..CONNECTIONS {
        let mut raw = Raw::connect(victim.port);
        match index % 4 {
            // Nothing at all, half a header, a header and no more, a whole session.
            0 => {}
            1 => raw.send(b"AMQP"),
            2 => raw.send(b"AMQP\x03\x01\x00\x00"),
            _ => raw = Raw::session(victim.port),
        }
        silent.push(raw);
    }
    victim.goes_on("with thousands of connections");
    let each = (victim.memory_kb() - before) / CONNECTIONS as u64;
    assert!(each < 100, "a silent connection costs {each} KiB");
    drop(silent);
    victim.goes_on("after thousands of connections");
    victim.end();
}

#[test]
fn connections_beyond_the_limit_are_closed_and_those_within_go_on() {
    let victim = Victim::new("limit", &["--set", "max_connections=20"]);
    let mut open: Vec<Raw> = (0..18).map(|_| Raw::session(victim.port)).collect();
    for _ in 0..100 {
        let ending = Raw::connect(victim.port).silence(ANSWER);
        assert_ne!(ending, Ending::None);
    }
    victim.goes_on("at the limit");
    // One goes, another may come; the server learns of the end a moment later.
    open.pop();
    let deadline = Instant::now() + PATIENCE;
    while !Raw::connect(victim.port).is_greeted() {
        assert!(Instant::now() < deadline, "no connection is taken any more");
    }
    drop(open);
    victim.end();
}

#[test]
fn a_flood_of_opens_leaves_others_undisturbed() {
    let victim = Victim::new("opens", &[]);
    for index in 0..1000 {
        let mut raw = Raw::connect(victim.port);
        raw.greet();
        raw.send(&open());
        if index % 3 == 0 {
            raw.expect(OPEN);
        }
        if index % 2 == 0 {
            raw.reset();
        }
    }
    victim.goes_on("after a flood of opens");
    victim.end();
}

#[test]
fn floods_of_sessions_and_links_meet_a_limit() {
    let victim = Victim::new("links", &[]);
    let mut raw = Raw::session(victim.port);
    let begins: Vec<u8> = (1..=u16::MAX).flat_map(begin).collect();
    raw.send(&begins);
    assert!(
        matches!(raw.ending(ANSWER), Ending::Close(Some(_))),
        "sessions without limit"
    );
    victim.goes_on("after a flood of sessions");

    let mut raw = Raw::session(victim.port);
    let attaches: Vec<u8> = (0..100_000)
        .flat_map(|handle| attach(handle, &format!("link {handle}"), handle % 2 == 0, "many"))
        .collect();
    raw.send(&attaches);
    assert!(
        matches!(raw.ending(ANSWER), Ending::Close(Some(_))),
        "links without limit"
    );
    victim.goes_on("after a flood of links");

    // Attach and detach again and again: nothing may pile up.
    let before = victim.memory_kb();
    let mut raw = Raw::session(victim.port);
    let detach = performative(0, DETACH, vec![Value::UInt(0), Value::True], &[]);
    let pair = [attach(0, "again", true, "many"), detach].concat();
    for _ in 0..200 {
        raw.send(&pair.repeat(100));
        for _ in 0..100 {
            raw.expect(ATTACH);
            raw.expect(DETACH);
        }
    }
    let grown = victim.memory_kb() - before;
    assert!(
        grown < 50 << 10,
        "{grown} KiB more after attaching and detaching"
    );
    victim.end();
}

#[test]
fn a_client_that_never_reads_answers_takes_no_memory() {
    const SENT_MAX: usize = 64 << 20;
    let victim = Victim::new("echo", &[]);
    let before = victim.memory_kb();
    let mut raw = Raw::session(victim.port);
    raw.send(&attach(0, "echo", true, "echo"));
    let asks = flow(0, 1, true).repeat(10_000);
    let mut sent = 0;
    // Answers to one read are told in one flow, so the server may go on reading for long.
    let mut stalled = 0;
    while stalled < 3 && sent < SENT_MAX {
        let more = raw.send_some(&asks);
        sent += more;
        stalled = if more == 0 { stalled + 1 } else { 0 };
        victim.goes_on("with a client that does not read");
    }
    let grown = victim.memory_kb().saturating_sub(before);
    assert!(grown < 50 << 10, "{grown} KiB more for {sent} bytes");
    drop(raw);
    victim.end();
}

#[test]
fn a_consumer_that_never_reads_takes_nothing_from_others() {
    const MESSAGES: u32 = 64;
    let victim = Victim::new("never-reads", &[]);
    let mut lazy = Raw::session(victim.port);
    lazy.send(&attach(0, "lazy", true, "lazy"));
    lazy.send(&flow(0, u32::MAX >> 1, false));
    lazy.expect(ATTACH);

    let mut publisher = sender(victim.port, "lazy");
    for delivery in 0..MESSAGES {
        publish(&mut publisher, delivery, &message(1 << 20), true);
    }
    publisher.confirmed(MESSAGES);
    victim.goes_on("with a consumer that does not read");
    lazy.reset();
    let taken = take(victim.port, "lazy", MESSAGES as usize);
    assert!(taken.iter().all(|(size, _)| *size > 1 << 20), "{taken:?}");
    assert!(
        taken.iter().any(|(_, count)| *count > 0),
        "what it was sent comes again, marked"
    );
    victim.end();
}

#[test]
fn a_publisher_that_vanishes_within_a_message_leaves_no_trace() {
    const CLIENTS: usize = 40;
    let victim = Victim::new("vanish", &[]);
    let large = message(15 << 20);
    let mut silent = Vec::new();
    for index in 0..CLIENTS {
        let mut raw = sender(victim.port, "vanish");
        publish(&mut raw, 0, &message(100), true);
        raw.confirmed(1);
        publish(&mut raw, 1, &large, false);
        match index % 3 {
            0 => raw.reset(),
            1 => drop(raw),
            _ => silent.push(raw),
        }
        if index % 10 == 0 {
            victim.goes_on("with publishers that vanish");
        }
    }
    victim.goes_on("with publishers that fell silent");
    let taken = take(victim.port, "vanish", CLIENTS);
    assert!(
        taken.iter().all(|(size, _)| *size < 1000),
        "only whole messages come: {taken:?}"
    );
    drop(silent);
    victim.end();
}

#[test]
fn one_client_cannot_fill_the_memory_with_beginnings_of_messages() {
    let victim = Victim::new("beginnings", &[]);
    let mut raw = Raw::session(victim.port);
    let chunk = message(CHUNK);
    for handle in 0..100 {
        raw.send(&attach(
            handle,
            &format!("link {handle}"),
            false,
            "beginnings",
        ));
    }
    for _ in 0..100 {
        raw.expect(FLOW);
    }
    // 100 links, up to 15 MiB on each.
    for round in 0..250 {
        for handle in 0..100 {
            let fields = vec![
                Value::UInt(handle),
                if round == 0 {
                    Value::UInt(handle)
                } else {
                    Value::Null
                },
                if round == 0 {
                    Value::Binary(vec![1])
                } else {
                    Value::Null
                },
                Value::UInt(0),
                Value::False,
                Value::True,
            ];
            if raw
                .try_send(&performative(0, TRANSFER, fields, &chunk))
                .is_err()
            {
                break;
            }
        }
    }
    let ending = raw.ending(Duration::from_secs(2));
    assert!(!matches!(ending, Ending::Eof), "{ending:?}");
    victim.goes_on("with beginnings of messages");
    victim.end();
}

#[test]
fn a_message_that_is_too_large_costs_its_link_only() {
    let victim = Victim::new("too-large", &[]);
    let mut raw = sender(victim.port, "large");
    publish(&mut raw, 0, &message(17 << 20), true);
    let frame = raw.expect(DETACH);
    let condition = frame.condition();
    assert_eq!(
        condition.as_deref(),
        Some("amqp:link:message-size-exceeded")
    );
    let detach = performative(0, DETACH, vec![Value::UInt(0), Value::True], &[]);
    raw.send(&detach);
    raw.send(&attach(0, "second", false, "large"));
    raw.expect(FLOW);
    publish(&mut raw, 1, &message(15 << 20), true);
    raw.confirmed(1);
    assert!(take(victim.port, "large", 1)[0].0 > 15 << 20);
    victim.end();
}

#[test]
fn a_publisher_that_ignores_its_credit_loses_its_link() {
    let victim = Victim::new("credit", &[]);
    let mut raw = Raw::session(victim.port);
    raw.send(&attach(0, "hasty", false, "credit"));
    // Without waiting for credit, and more than anyone gives.
    let transfers: Vec<u8> = (0..100_000)
        .flat_map(|delivery| transfer(0, delivery, false, &message(1)))
        .collect();
    raw.send(&transfers);
    let frame = raw.first_error();
    let condition = frame.condition();
    let allowed = [
        "amqp:link:transfer-limit-exceeded",
        "amqp:session:window-violation",
    ];
    assert!(
        allowed.contains(&condition.as_deref().unwrap_or_default()),
        "{frame:?}"
    );
    victim.goes_on("after a flood of transfers");
    victim.end();
}

#[test]
fn what_a_vanished_consumer_had_comes_again_marked() {
    const MESSAGES: u32 = 100;
    for resets in [true, false] {
        let victim = Victim::new("vanished-consumer", &[]);
        let mut publisher = sender(victim.port, "had");
        for delivery in 0..MESSAGES {
            publish(&mut publisher, delivery, &message(1000), true);
        }
        publisher.confirmed(MESSAGES);
        let mut raw = Raw::session(victim.port);
        raw.send(&attach(0, "vanishing", true, "had"));
        raw.send(&flow(0, 50, false));
        for _ in 0..50 {
            raw.expect(TRANSFER);
        }
        if resets {
            raw.reset();
        } else {
            drop(raw);
        }
        let taken = take(victim.port, "had", MESSAGES as usize);
        let counts: Vec<u32> = taken.iter().map(|(_, count)| *count).collect();
        let wanted: Vec<u32> = (0..MESSAGES).map(|index| u32::from(index < 50)).collect();
        assert_eq!(counts, wanted, "the first half was delivered before");
        victim.end();
    }
}
