//! AMQP 1.0 by hand, over a plain socket: for saying what no client library would say.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

/// Protocol headers.
pub(crate) const AMQP: [u8; 8] = *b"AMQP\x00\x01\x00\x00";
pub(crate) const SASL: [u8; 8] = *b"AMQP\x03\x01\x00\x00";

/// Descriptor codes.
pub(crate) const OPEN: u8 = 0x10;
pub(crate) const BEGIN: u8 = 0x11;
pub(crate) const ATTACH: u8 = 0x12;
pub(crate) const FLOW: u8 = 0x13;
pub(crate) const TRANSFER: u8 = 0x14;
pub(crate) const DISPOSITION: u8 = 0x15;
pub(crate) const DETACH: u8 = 0x16;
pub(crate) const END: u8 = 0x17;
pub(crate) const CLOSE: u8 = 0x18;
pub(crate) const ERROR: u8 = 0x1d;
const SASL_INIT: u8 = 0x41;
const SOURCE: u8 = 0x28;
const TARGET: u8 = 0x29;

/// How long a server may take to answer anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// A value, or bytes that pretend to be one.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    True,
    False,
    UByte(u8),
    UInt(u32),
    Text(String),
    Symbol(String),
    Binary(Vec<u8>),
    List(Vec<Self>),
    Described(u8, Box<Self>),
    Raw(Vec<u8>),
}

pub(crate) fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

/// A composite: a described list.
pub(crate) fn composite(code: u8, fields: Vec<Value>) -> Value {
    Value::Described(code, Box::new(Value::List(fields)))
}

impl Value {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode_to(&mut bytes);
        bytes
    }

    fn encode_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.push(0x40),
            Self::True => out.push(0x41),
            Self::False => out.push(0x42),
            Self::UByte(value) => out.extend([0x50, *value]),
            Self::UInt(value) => {
                out.push(0x70);
                out.extend(value.to_be_bytes());
            }
            Self::Text(value) => sized(out, 0xb1, value.as_bytes()),
            Self::Symbol(value) => sized(out, 0xb3, value.as_bytes()),
            Self::Binary(value) => sized(out, 0xb0, value),
            Self::List(values) => {
                let mut body = u32::try_from(values.len())
                    .expect("short")
                    .to_be_bytes()
                    .to_vec();
                values.iter().for_each(|value| value.encode_to(&mut body));
                sized(out, 0xd0, &body);
            }
            Self::Described(code, value) => {
                out.extend([0x00, 0x53, *code]);
                value.encode_to(out);
            }
            Self::Raw(bytes) => out.extend(bytes),
        }
    }
}

fn sized(out: &mut Vec<u8>, code: u8, body: &[u8]) {
    out.push(code);
    out.extend(u32::try_from(body.len()).expect("short").to_be_bytes());
    out.extend(body);
}

/// A frame with a right header.
pub(crate) fn frame(channel: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len() + 8).expect("short");
    let mut bytes = size.to_be_bytes().to_vec();
    bytes.extend([2, kind]);
    bytes.extend(channel.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// An AMQP frame with a performative and what follows it.
pub(crate) fn performative(channel: u16, code: u8, fields: Vec<Value>, payload: &[u8]) -> Vec<u8> {
    let mut body = composite(code, fields).encode();
    body.extend(payload);
    frame(channel, 0, &body)
}

pub(crate) fn open() -> Vec<u8> {
    performative(0, OPEN, vec![text("hostile"), text("localhost")], &[])
}

pub(crate) fn begin(channel: u16) -> Vec<u8> {
    let window = Value::UInt(i32::MAX as u32);
    let fields = vec![Value::Null, Value::UInt(0), window.clone(), window];
    performative(channel, BEGIN, fields, &[])
}

/// Attaches a sender to, or a receiver of, an address, on channel 0.
pub(crate) fn attach(handle: u32, name: &str, is_receiver: bool, address: &str) -> Vec<u8> {
    let terminus = |code, address: Value| composite(code, vec![address]);
    let (mut source, mut target) = (Value::Null, text(address));
    if is_receiver {
        (source, target) = (target, source);
    }
    let fields = vec![
        text(name),
        Value::UInt(handle),
        if is_receiver {
            Value::True
        } else {
            Value::False
        },
        Value::Null,
        Value::Null,
        terminus(SOURCE, source),
        terminus(TARGET, target),
        Value::Null,
        Value::Null,
        Value::UInt(0),
    ];
    performative(0, ATTACH, fields, &[])
}

/// One transfer frame on channel 0.
pub(crate) fn transfer(handle: u32, delivery: u32, more: bool, payload: &[u8]) -> Vec<u8> {
    let fields = vec![
        Value::UInt(handle),
        Value::UInt(delivery),
        Value::Binary(delivery.to_be_bytes().to_vec()),
        Value::UInt(0),
        Value::False,
        if more { Value::True } else { Value::False },
    ];
    performative(0, TRANSFER, fields, payload)
}

/// Gives credit to a receiving link on channel 0.
pub(crate) fn flow(handle: u32, credit: u32, echo: bool) -> Vec<u8> {
    let window = Value::UInt(i32::MAX as u32);
    let fields = vec![
        Value::UInt(0),
        window.clone(),
        Value::UInt(0),
        window,
        Value::UInt(handle),
        Value::UInt(0),
        Value::UInt(credit),
        Value::Null,
        Value::False,
        if echo { Value::True } else { Value::False },
    ];
    performative(0, FLOW, fields, &[])
}

/// A durable message with a body of so many bytes.
pub(crate) fn message(body: usize) -> Vec<u8> {
    let mut bytes = composite(0x70, vec![Value::True]).encode();
    bytes.extend([0x00, 0x53, 0x75]);
    sized(&mut bytes, 0xb0, &vec![b'x'; body]);
    bytes
}

/// How a server ended a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With a close frame: its error condition, or none.
    Close(Option<String>),
    /// The socket was closed.
    Eof,
    /// The socket was reset.
    Reset,
    /// It goes on.
    None,
}

/// A frame that came.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Code of the performative; 0 for an empty frame.
    pub(crate) code: u8,
    pub(crate) body: Vec<u8>,
}

impl Frame {
    /// The condition of the error in it.
    pub(crate) fn condition(&self) -> Option<String> {
        let error = [0x00, 0x53, ERROR];
        let at = self.body.windows(3).position(|window| window == error)?;
        let rest = &self.body[at..];
        // The first symbol in an error is its condition.
        let symbol = rest.iter().position(|&byte| byte == 0xa3)?;
        let length = usize::from(*rest.get(symbol + 1)?);
        let bytes = rest.get(symbol + 2..symbol + 2 + length)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

impl Frame {
    /// The fields of the performative, encoded, and what follows it.
    fn parts(&self) -> (Vec<&[u8]>, &[u8]) {
        // Descriptor, then list0, list8 or list32.
        let list = &self.body[3..];
        let length = length(list);
        let (mut rest, payload) = match list[0] {
            0xc0 => (&list[3..length], &list[length..]),
            0xd0 => (&list[9..length], &list[length..]),
            _ => (&list[length..length], &list[length..]),
        };
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let (field, others) = rest.split_at(self::length(rest));
            fields.push(field);
            rest = others;
        }
        (fields, payload)
    }

    /// Whether a transfer is not the last of its delivery.
    pub(crate) fn has_more(&self) -> bool {
        self.parts()
            .0
            .get(5)
            .is_some_and(|more| matches!(more, [0x41] | [0x56, 1]))
    }

    /// The message bytes of a transfer.
    pub(crate) fn payload(&self) -> &[u8] {
        self.parts().1
    }

    /// The delivery count in the header of the message that a transfer begins.
    pub(crate) fn delivery_count(&self) -> u32 {
        let payload = self.payload();
        if !payload.starts_with(&[0x00, 0x53, 0x70]) {
            return 0;
        }
        let header = Self {
            code: 0x70,
            body: payload.to_vec(),
        };
        match header.parts().0.get(4) {
            Some([0x52, count]) => u32::from(*count),
            Some([0x70, count @ ..]) => count
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
            _ => 0,
        }
    }
}

/// Length of an encoded value that a server sent.
fn length(bytes: &[u8]) -> usize {
    let code = bytes[0];
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    match code >> 4 {
        0x0 => 1 + length(&bytes[1..]) + length(&bytes[1 + length(&bytes[1..])..]),
        0x4 => 1,
        0x5 => 2,
        0x6 => 3,
        0x7 => 5,
        0x8 => 9,
        0x9 => 17,
        0xa | 0xc | 0xe => 2 + number(&bytes[1..2]),
        _ => 5 + number(&bytes[1..5]),
    }
}

/// A socket to a server.
pub(crate) struct Raw {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Raw {
    pub(crate) fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        Self {
            stream,
            input: Vec::new(),
        }
    }

    /// Past SASL and open, with a session on channel 0.
    pub(crate) fn session(port: u16) -> Self {
        let mut raw = Self::connect(port);
        raw.greet();
        raw.send(&open());
        raw.send(&begin(0));
        raw.expect(OPEN);
        raw.expect(BEGIN);
        raw
    }

    /// SASL ANONYMOUS and the AMQP header, in both directions.
    pub(crate) fn greet(&mut self) {
        self.send(&SASL);
        let init = composite(SASL_INIT, vec![Value::Symbol("ANONYMOUS".to_owned())]);
        self.send(&frame(0, 1, &init.encode()));
        self.header(SASL);
        self.expect(0x40);
        self.expect(0x44);
        self.send(&AMQP);
        self.header(AMQP);
    }

    pub(crate) fn header(&mut self, wanted: [u8; 8]) {
        let got = self.take(8).expect("the server sends a header");
        assert_eq!(got, wanted);
    }

    /// Sends, and does not mind if the server has closed.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.try_send(bytes);
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(PATIENCE))?;
        self.stream.write_all(bytes)
    }

    /// Sends what the system takes at once; returns how much that was.
    pub(crate) fn send_some(&mut self, bytes: &[u8]) -> usize {
        self.stream.set_nonblocking(true).expect("a TCP socket");
        let mut sent = 0;
        while let Ok(written @ 1..) = self.stream.write(&bytes[sent..]) {
            sent += written;
        }
        self.stream.set_nonblocking(false).expect("a TCP socket");
        sent
    }

    /// Waits for a frame with this performative; others are dropped.
    pub(crate) fn expect(&mut self, code: u8) -> Frame {
        loop {
            let frame = self.frame().unwrap_or_else(|ending| {
                panic!("{ending:?} instead of a frame with code {code:#x}")
            });
            if frame.code == code {
                return frame;
            }
        }
    }

    /// The next frame that is not empty.
    pub(crate) fn frame(&mut self) -> Result<Frame, Ending> {
        self.frame_until(Instant::now() + PATIENCE)
    }

    fn frame_until(&mut self, deadline: Instant) -> Result<Frame, Ending> {
        loop {
            let head = self.take_until(8, deadline)?;
            let number = |bytes: [u8; 4]| u32::from_be_bytes(bytes) as usize;
            let size = number([head[0], head[1], head[2], head[3]]);
            assert!(
                (8..16 << 20).contains(&size),
                "the server sends frames: {head:02x?}"
            );
            let body = self.take_until(size - 8, deadline)?;
            if let Some(code) = body.get(2) {
                return Ok(Frame { code: *code, body });
            }
        }
    }

    /// Waits until so many deliveries were accepted.
    pub(crate) fn confirmed(&mut self, wanted: u32) {
        let mut confirmed = 0;
        while confirmed < wanted {
            let frame = self.expect(DISPOSITION);
            let (fields, _) = frame.parts();
            let number = |field: Option<&&[u8]>| match field {
                Some([0x43]) => Some(0),
                Some([0x52, small]) => Some(u32::from(*small)),
                Some([0x70, bytes @ ..]) => Some(u32::from_be_bytes((*bytes).try_into().ok()?)),
                _ => None,
            };
            let first = number(fields.get(1)).expect("a disposition has a first delivery");
            let last = number(fields.get(2)).unwrap_or(first);
            let accepted = fields
                .get(4)
                .is_some_and(|state| state.starts_with(&[0x00, 0x53, 0x24]));
            assert!(accepted, "{frame:?}");
            confirmed += last - first + 1;
        }
    }

    /// The first frame that carries an error.
    pub(crate) fn first_error(&mut self) -> Frame {
        loop {
            match self.frame() {
                Ok(frame) if frame.condition().is_some() => return frame,
                Ok(_) => {}
                Err(ending) => panic!("{ending:?} instead of an error"),
            }
        }
    }

    /// Whether the server says a header when it is greeted.
    pub(crate) fn is_greeted(&mut self) -> bool {
        self.send(&SASL);
        self.take(8).is_ok()
    }

    /// Reads until the server ends the connection, or time is up.
    pub(crate) fn ending(&mut self, patience: Duration) -> Ending {
        let deadline = Instant::now() + patience;
        let mut close = None;
        loop {
            match self.frame_until(deadline) {
                Ok(frame) if frame.code == CLOSE => {
                    close = Some(Ending::Close(frame.condition()));
                }
                Ok(_) => {}
                Err(ending) => return close.unwrap_or(ending),
            }
        }
    }

    /// Reads without understanding until the server ends the connection, or time is up.
    pub(crate) fn silence(&mut self, patience: Duration) -> Ending {
        let deadline = Instant::now() + patience;
        loop {
            self.input.clear();
            if let Err(ending) = self.take_until(1, deadline) {
                return ending;
            }
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, Ending> {
        self.take_until(length, Instant::now() + PATIENCE)
    }

    fn take_until(&mut self, length: usize, deadline: Instant) -> Result<Vec<u8>, Ending> {
        let mut buffer = [0; 65536];
        while self.input.len() < length {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Ending::None);
            }
            let _set = self.stream.set_read_timeout(Some(left));
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Ending::Eof),
                Ok(read) => self.input.extend(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Ending::Reset),
            }
        }
        Ok(self.input.drain(..length).collect())
    }

    /// Says that nothing more comes.
    pub(crate) fn end_output(&self) {
        // The server may have closed.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset, as a crashed host's successor would.
    pub(crate) fn reset(self) {
        let socket = TcpSocket::from_std_stream(self.stream);
        socket.set_zero_linger().expect("a TCP socket");
    }
}
