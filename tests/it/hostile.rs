//! Bad input over raw sockets, while well-behaved clients go on.
//!
//! Each test has a server of its own and clients of a foreign library that publish and consume all the
//! time. Whatever the bad client does, their messages go on, none is lost, comes twice or out of order,
//! the server's memory stays bounded, and the bad client gets an AMQP error or a closed connection.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value as Json;
use tempfile::TempDir;

use super::foreign::{Clients, Library, start};
use super::history::{Kind, check};
use super::support::{ANY_PORT, PATIENCE, Server, serve};
use super::wire::{
    AMQP, ATTACH, BEGIN, CLOSE, DETACH, DISPOSITION, END, Ending, FLOW, OPEN, Raw, SASL, TRANSFER,
    Value, attach, begin, composite, flow, frame, message, open, performative, transfer,
};

/// A bad client must be answered within this time.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);
/// Resident memory that a server under attack may have: well below what the attacks would like.
const MEMORY_MAX_KB: u64 = 400 << 10;

/// A server with well-behaved clients.
pub(crate) struct Victim {
    server: Server,
    pub(crate) port: u16,
    process: u64,
    senders: Clients,
    receivers: Clients,
    _data: TempDir,
}

impl Victim {
    pub(crate) fn new(name: &str, options: &[&str]) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let mut server = serve(data.path(), &[&ANY_PORT, options].concat());
        let active = server.wait("active");
        let url = active["listens"]
            .as_str()
            .expect("it says where it listens");
        let port = url.rsplit(':').next().expect("a URL has a port");
        let port = port.parse().expect("a port is a number");
        let process = server.state()["process_id"]
            .as_u64()
            .expect("it has a number");
        let client = |mode: &str, prefix| {
            let history = format!("{}/{name}-{mode}.jsonl", env!("CARGO_TARGET_TMPDIR"));
            let server = format!("amqp://127.0.0.1:{port}");
            let options = ["--servers", &server, "--queues", "good", "--count", "1"];
            let options = [
                &[mode],
                &options[..],
                &["--rate", "200", "--large-every", "50"],
            ]
            .concat();
            start(Library::Rhea, prefix, &options, history.as_ref())
        };
        let victim = Self {
            receivers: client("receive", "r"),
            senders: client("send", "s"),
            server,
            port,
            process,
            _data: data,
        };
        victim.goes_on("at the beginning");
        victim
    }

    /// Waits until messages that are sent from now on are confirmed and delivered.
    pub(crate) fn goes_on(&self, what: &str) {
        let confirmed = self.senders.count(Kind::Confirm) + 20;
        self.senders.wait(Kind::Confirm, confirmed, PATIENCE);
        self.receivers.wait(Kind::Settle, confirmed, PATIENCE);
        let memory = self.memory_kb();
        assert!(memory < MEMORY_MAX_KB, "{what}: {memory} KiB are resident");
    }

    pub(crate) fn memory_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process));
        let status = status.expect("the server lives");
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number
            .and_then(|number| number.parse().ok())
            .expect("the kernel tells it")
    }

    /// Stops the clients and the server; nothing of the clients' messages may be wrong.
    pub(crate) fn end(mut self) {
        self.goes_on("at the end");
        self.senders.ask_to_finish();
        self.senders.wait(Kind::Done, 1, PATIENCE);
        let mut events = self.senders.finish(PATIENCE);
        let confirmed = events
            .iter()
            .filter(|event| event.kind == Kind::Confirm)
            .count();
        self.receivers.wait(Kind::Settle, confirmed, PATIENCE);
        events.extend(self.receivers.finish(PATIENCE));
        let report = check(events, &[]);
        assert_eq!(report.violations(), 0, "{report}");
        assert_eq!(report.delivered, report.confirmed, "{report}");
        self.server.signal(Signal::SIGTERM);
        assert_eq!(self.server.exit_code(), 0, "{:#?}", self.server.log);
        let fatal = |event: &Json| event["level"] == "ERROR" || event.is_string();
        assert!(!self.server.log.iter().any(fatal), "{:#?}", self.server.log);
    }

    /// Says something before anything else.
    fn first_words(&self, what: &str, bytes: &[u8]) {
        let mut raw = Raw::connect(self.port);
        raw.send(bytes);
        raw.end_output();
        let ending = raw.silence(ANSWER);
        assert_ne!(ending, Ending::None, "{what}: the connection stays open");
    }

    /// Says something in a session; the server must end the connection with one of these conditions.
    fn in_session(&self, what: &str, bytes: &[u8], conditions: &[&str]) {
        let mut raw = Raw::session(self.port);
        raw.send(bytes);
        let ending = raw.ending(ANSWER);
        let Ending::Close(Some(condition)) = &ending else {
            panic!("{what}: {ending:?}");
        };
        assert!(
            conditions.contains(&condition.as_str()),
            "{what}: {condition}"
        );
    }

    /// Says something in a session; the server must answer with this performative and condition.
    fn refused(&self, what: &str, bytes: &[u8], code: u8, condition: &str) {
        let mut raw = Raw::session(self.port);
        raw.send(bytes);
        let frame = raw.expect(code);
        assert_eq!(
            frame.condition().as_deref(),
            Some(condition),
            "{what}: {frame:?}"
        );
    }
}

const FRAMING: &[&str] = &["amqp:connection:framing-error"];
const DECODE: &[&str] = &[
    "amqp:decode-error",
    "amqp:not-allowed",
    "amqp:connection:framing-error",
    "amqp:invalid-field",
];

/// Bytes without sense, but the same in every run.
fn garbage(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..length).map(|_| random.u8(..)).collect()
}

#[test]
fn first_words_that_are_not_amqp_end_the_connection() {
    let victim = Victim::new("first-words", &[]);
    victim.first_words("nothing", &[]);
    victim.first_words("one byte", b"A");
    victim.first_words("half a header", b"AMQP");
    victim.first_words("garbage", &garbage(100_000));
    victim.first_words("zeros", &[0; 100_000]);
    victim.first_words("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    victim.first_words("TLS", b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03");
    victim.first_words("AMQP 0-9-1", b"AMQP\x00\x00\x09\x01");
    victim.first_words("AMQP 2.0", b"AMQP\x00\x02\x00\x00");
    victim.first_words("the TLS layer", b"AMQP\x02\x01\x00\x00");
    victim.first_words("almost a peer", b"STDFAST\x09");
    victim.first_words("half a peer", b"STDFAST\x02{\"server\":");
    victim.first_words(
        "a peer that says garbage",
        &[b"STDFAST\x02", &garbage(100_000)[..]].concat(),
    );
    victim.first_words(
        "a peer with an endless line",
        &[b"STDFAST\x02", &[b'['; 1 << 20][..]].concat(),
    );
    victim.first_words("SASL twice", &[SASL, SASL].concat());
    victim.first_words("SASL garbage", &[&SASL[..], &garbage(10_000)].concat());
    victim.first_words("AMQP garbage", &[&AMQP[..], &garbage(10_000)].concat());
    victim.goes_on("after first words");
    victim.end();
}

#[test]
fn sasl_that_makes_no_sense_ends_the_connection() {
    let victim = Victim::new("sasl", &[]);
    let init = |fields| [&SASL[..], &frame(0, 1, &composite(0x41, fields).encode())].concat();
    let symbol = |name: &str| Value::Symbol(name.to_owned());
    let plain = |response: &[u8]| init(vec![symbol("PLAIN"), Value::Binary(response.to_vec())]);
    let cases = [
        ("no mechanism", init(vec![])),
        ("a null mechanism", init(vec![Value::Null])),
        ("an empty mechanism", init(vec![symbol("")])),
        ("an unknown mechanism", init(vec![symbol("X-UNKNOWN")])),
        (
            "a mechanism of 4000 bytes",
            init(vec![symbol(&"X".repeat(4000))]),
        ),
        ("a mechanism that is a number", init(vec![Value::UInt(1)])),
        ("PLAIN with nothing", plain(b"")),
        ("PLAIN without separators", plain(b"user")),
        ("PLAIN with too many separators", plain(b"\0\0\0\0\0")),
        ("PLAIN that is not UTF-8", plain(b"\0\xff\xfe\0\xff")),
        (
            "a SASL frame larger than 512 bytes",
            plain(&[b'x'; 100_000]),
        ),
        (
            "an outcome",
            [
                &SASL[..],
                &frame(0, 1, &composite(0x44, vec![Value::UByte(0)]).encode()),
            ]
            .concat(),
        ),
        ("an AMQP frame", [&SASL[..], &open()].concat()),
        (
            "a frame without end",
            [&SASL[..], &[0xff, 0xff, 0xff, 0xff, 2, 1, 0, 0]].concat(),
        ),
    ];
    for (what, bytes) in cases {
        victim.first_words(what, &bytes);
    }
    victim.goes_on("after SASL");
    victim.end();
}

#[test]
fn a_client_may_speak_one_byte_at_a_time() {
    let victim = Victim::new("bytes", &[]);
    let mut raw = Raw::connect(victim.port);
    let mut words = SASL.to_vec();
    words.extend(frame(
        0,
        1,
        &composite(0x41, vec![Value::Symbol("ANONYMOUS".to_owned())]).encode(),
    ));
    words.extend(AMQP);
    words.extend(open());
    words.extend(begin(0));
    words.extend(attach(0, "slow", false, "slow"));
    for byte in words {
        raw.send(&[byte]);
    }
    raw.header(SASL);
    raw.expect(0x40);
    raw.expect(0x44);
    raw.header(AMQP);
    raw.expect(FLOW);
    for byte in transfer(0, 0, false, &message(100)) {
        raw.send(&[byte]);
    }
    let frame = raw.expect(DISPOSITION);
    assert_eq!(frame.condition(), None, "{frame:?}");
    victim.end();
}

#[test]
fn frames_that_lie_about_themselves_close_the_connection() {
    let victim = Victim::new("frames", &[]);
    let head = |size: u32, offset: u8, kind: u8| {
        let mut bytes = size.to_be_bytes().to_vec();
        bytes.extend([offset, kind, 0, 0]);
        bytes
    };
    for size in [0, 1, 7] {
        victim.in_session(
            "a frame shorter than its header",
            &head(size, 2, 0),
            FRAMING,
        );
    }
    for size in [u32::MAX, 1 << 31, (128 << 10) + 1] {
        victim.in_session("a frame larger than agreed", &head(size, 2, 0), FRAMING);
    }
    victim.in_session("a data offset of 0", &head(8, 0, 0), FRAMING);
    victim.in_session("a data offset of 1", &head(8, 1, 0), FRAMING);
    victim.in_session("a data offset behind the end", &head(8, 255, 0), FRAMING);
    victim.in_session("an unknown frame type", &frame(0, 9, &[]), FRAMING);
    victim.in_session(
        "a SASL frame after SASL",
        &frame(0, 1, &composite(0x41, vec![]).encode()),
        DECODE,
    );
    victim.in_session("garbage", &garbage(100_000), FRAMING);
    // A frame that is cut off, by the end of the client and by silence.
    let whole = attach(0, "cut", false, "cut");
    for length in [1, 7, 8, 9, whole.len() - 1] {
        let mut raw = Raw::session(victim.port);
        raw.send(&whole[..length]);
        raw.end_output();
        assert_ne!(raw.ending(ANSWER), Ending::None, "cut after {length} bytes");
    }
    let silent: Vec<Raw> = (0..50)
        .map(|_| {
            let mut raw = Raw::session(victim.port);
            raw.send(&whole[..20]);
            raw
        })
        .collect();
    victim.goes_on("with silent clients");
    drop(silent);
    victim.goes_on("after frames");
    victim.end();
}

/// Performatives that cannot be decoded.
fn undecodable() -> Vec<(&'static str, Vec<u8>)> {
    let raw = |bytes: &[u8]| frame(0, 0, bytes);
    let described = |code: u8, bytes: &[u8]| raw(&[&[0x00, 0x53, code], bytes].concat());
    let inside = |value: Value| performative(0, ATTACH, vec![value], &[]);
    let nested = |depth: usize| {
        // list8 with one element, and so on: each level is a list32 around the next one.
        let mut bytes = vec![0x45];
        for _ in 0..depth {
            let size = u32::try_from(bytes.len() + 4).expect("short").to_be_bytes();
            bytes = [&[0xd0], &size[..], &[0, 0, 0, 1], &bytes].concat();
        }
        bytes
    };
    vec![
        ("an empty list of nothing", raw(&[0x45])),
        ("a number", raw(&[0x52, 1])),
        ("a descriptor alone", raw(&[0x00, 0x53, OPEN])),
        ("an unknown descriptor", described(0x7f, &[0x45])),
        ("a descriptor that is a list", raw(&[0x00, 0x45, 0x45])),
        ("descriptors of descriptors", raw(&[0x00; 100_000])),
        ("a list that is a map", described(BEGIN, &[0xc1, 1, 0])),
        (
            "a list longer than the frame",
            described(BEGIN, &[0xd0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1]),
        ),
        (
            "a list of four billion",
            described(BEGIN, &[0xd0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]),
        ),
        (
            "a list shorter than its count",
            described(BEGIN, &[0xd0, 0, 0, 0, 4, 0, 0, 0, 9]),
        ),
        ("an unknown constructor", inside(Value::Raw(vec![0x3f]))),
        (
            "a string that is not UTF-8",
            inside(Value::Raw(vec![0xa1, 2, 0xff, 0xfe])),
        ),
        (
            "a string of four billion bytes",
            inside(Value::Raw(vec![0xb1, 0xff, 0xff, 0xff, 0xff])),
        ),
        (
            "an array of four billion nothings",
            inside(Value::Raw(vec![
                0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40,
            ])),
        ),
        ("lists, 10 000 deep", inside(Value::Raw(nested(10_000)))),
        ("lists, 64 deep", inside(Value::Raw(nested(64)))),
        (
            "arrays in arrays",
            inside(Value::Raw([0xe0, 0xff, 1].repeat(30_000))),
        ),
    ]
}

#[test]
fn performatives_that_cannot_be_decoded_close_the_connection() {
    let victim = Victim::new("decode", &[]);
    for (what, bytes) in undecodable() {
        victim.in_session(what, &bytes, DECODE);
        // The same before open.
        let mut raw = Raw::connect(victim.port);
        raw.greet();
        raw.send(&bytes);
        assert_ne!(raw.ending(ANSWER), Ending::None, "{what} before open");
    }
    victim.goes_on("after undecodable performatives");
    victim.end();
}

#[test]
fn frames_out_of_place_are_answered_with_an_error() {
    let victim = Victim::new("place", &[]);
    let any = &[
        "amqp:not-allowed",
        "amqp:illegal-state",
        "amqp:invalid-field",
        "amqp:session:unattached-handle",
        "amqp:connection:framing-error",
        "amqp:not-found",
    ];
    victim.in_session("open twice", &open(), any);
    victim.in_session("begin twice", &begin(0), any);
    victim.in_session("begin on a channel beyond the limit", &begin(u16::MAX), any);
    victim.in_session("end of nothing", &performative(7, END, vec![], &[]), any);
    victim.in_session(
        "a transfer on no session",
        &performative(7, TRANSFER, vec![Value::UInt(0)], &[]),
        any,
    );

    let unattached = "amqp:session:unattached-handle";
    victim.refused(
        "a transfer on no link",
        &transfer(3, 0, false, &message(1)),
        END,
        unattached,
    );
    victim.refused("a flow on no link", &flow(3, 1, false), END, unattached);
    victim.refused(
        "a detach of no link",
        &performative(0, DETACH, vec![Value::UInt(3)], &[]),
        END,
        unattached,
    );
    let twice = [attach(0, "a", false, "x"), attach(0, "b", false, "x")].concat();
    victim.refused(
        "a handle that is in use",
        &twice,
        END,
        "amqp:session:handle-in-use",
    );
    let beyond = attach(u32::MAX, "beyond", false, "x");
    victim.in_session("a handle beyond the limit", &beyond, FRAMING);
    victim.goes_on("after frames out of place");

    // Outcomes of deliveries that never were, the whole range of numbers: ignored, and soon.
    let mut raw = Raw::session(victim.port);
    let everything = vec![
        Value::True,
        Value::UInt(0),
        Value::UInt(u32::MAX),
        Value::True,
        composite(0x24, vec![]),
    ];
    for _ in 0..100 {
        raw.send(&performative(0, DISPOSITION, everything.clone(), &[]));
    }
    raw.send(&performative(0, CLOSE, vec![], &[]));
    assert_eq!(raw.ending(ANSWER), Ending::Close(None));
    victim.goes_on("after outcomes of nothing");
    victim.end();
}

#[test]
fn nothing_where_something_is_due_is_answered_with_an_error() {
    let victim = Victim::new("nothing", &[]);
    let before = |bytes: &[u8]| {
        let mut raw = Raw::connect(victim.port);
        raw.greet();
        raw.send(bytes);
        raw.ending(ANSWER)
    };
    let opens = [
        ("an open of nothing", vec![]),
        ("a null container", vec![Value::Null]),
    ];
    for (what, fields) in opens {
        let ending = before(&performative(0, OPEN, fields, &[]));
        assert!(
            matches!(ending, Ending::Close(Some(_))),
            "{what}: {ending:?}"
        );
    }
    victim.in_session(
        "a begin of nothing",
        &performative(1, BEGIN, vec![], &[]),
        DECODE,
    );
    victim.in_session(
        "an attach of nothing",
        &performative(0, ATTACH, vec![], &[]),
        DECODE,
    );
    victim.in_session(
        "a transfer of nothing",
        &performative(0, TRANSFER, vec![], &[]),
        DECODE,
    );
    victim.in_session(
        "a flow of nothing",
        &performative(0, FLOW, vec![], &[]),
        DECODE,
    );
    victim.in_session(
        "a disposition of nothing",
        &performative(0, DISPOSITION, vec![], &[]),
        DECODE,
    );
    victim.in_session(
        "a detach of nothing",
        &performative(0, DETACH, vec![], &[]),
        DECODE,
    );

    // Empty frames are heartbeats; a message of no bytes and one of garbage are refused or kept, not fatal.
    let mut raw = Raw::session(victim.port);
    for _ in 0..10_000 {
        raw.send(&frame(0, 0, &[]));
    }
    raw.send(&attach(0, "empty", false, "empty"));
    raw.expect(FLOW);
    raw.send(&transfer(0, 0, false, &[]));
    raw.expect(DISPOSITION);
    raw.send(&transfer(0, 1, false, &garbage(1000)));
    raw.expect(DISPOSITION);
    raw.send(&transfer(0, 2, false, &message(0)));
    raw.expect(DISPOSITION);
    // No address at all.
    raw.send(&attach(1, "no address", false, ""));
    raw.expect(ATTACH);
    victim.goes_on("after nothing");
    victim.end();
}
