//! A peer that writes whatever bytes a scenario wants and looks at the frames that come back.

use bytes::{BufMut, BytesMut};
use serde_amqp::Value;
use serde_amqp::described::Described;
use serde_amqp::descriptor::Descriptor;

use super::*;

/// A server connection and the bytes that it wrote.
pub(super) struct Raw {
    pub(super) server: Connection,
    pub(super) now_ms: u64,
    input: BytesMut,
    written: BytesMut,
    pub(super) events: Vec<Event>,
    pub(super) accepts_links: bool,
}

/// One frame as the server wrote it: channel, descriptor, fields, payload.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Frame {
    pub(super) channel: u16,
    pub(super) code: u64,
    pub(super) fields: Vec<Value>,
}

impl Frame {
    /// A field, null when it is not there.
    pub(super) fn field(&self, index: usize) -> Value {
        self.fields.get(index).cloned().unwrap_or(Value::Null)
    }

    /// Condition of the error in a field.
    pub(super) fn condition(&self, index: usize) -> String {
        let Value::Described(error) = self.field(index) else {
            panic!("no error in {self:?}");
        };
        let Value::List(fields) = error.value else {
            panic!("no list in {self:?}")
        };
        let Some(Value::Symbol(symbol)) = fields.first() else {
            panic!("no symbol in {self:?}")
        };
        String::from(symbol.as_str())
    }
}

impl Raw {
    /// A server that waits for a header.
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            server: Connection::server(settings, 0),
            now_ms: 0,
            input: BytesMut::new(),
            written: BytesMut::new(),
            events: Vec::new(),
            accepts_links: true,
        }
    }

    /// A server with an open connection without SASL, a session on channel 0 and nothing written yet.
    pub(super) fn begun() -> Self {
        let mut raw = Self::new(pair::settings());
        raw.write(b"AMQP\x00\x01\x00\x00");
        raw.frame(0, 0x10, vec![Value::String("raw".into())]);
        raw.frame(0, 0x11, begin(2048));
        raw.written.clear();
        raw.events.clear();
        raw
    }

    /// Feeds bytes to the server and answers what its owner answers by itself.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.server.handle_bytes(self.now_ms, &mut self.input);
        while let Some(event) = self.server.poll_event() {
            match &event {
                Event::SaslInit { .. } => self.server.sasl_outcome(SaslCode::Ok, None),
                Event::Opened(_) => self.server.open(),
                Event::Attached(attach) if self.accepts_links => {
                    self.server
                        .accept_attach(attach.link, AttachReply::default());
                }
                _ => {}
            }
            self.events.push(event);
        }
        self.collect();
    }

    /// Flushes the server and takes its output.
    pub(super) fn collect(&mut self) {
        self.server.flush();
        self.written.unsplit(self.server.output().split());
    }

    /// Writes a frame with a performative and returns nothing; see [`Self::frames`] for answers.
    pub(super) fn frame(&mut self, channel: u16, code: u64, fields: Vec<Value>) {
        self.write(&frame(channel, code, fields, b""));
    }

    pub(super) fn transfer(&mut self, fields: Vec<Value>, payload: &[u8]) {
        self.write(&frame(0, 0x14, fields, payload));
    }

    /// Attaches a link on which the raw peer sends, with credit.
    pub(super) fn attach_sender(&mut self, name: &str, handle: u32, credit: u32) -> LinkId {
        self.attach(name, handle, false);
        let link = self.attached();
        self.server.set_credit(link, credit);
        self.collect();
        link
    }

    /// Attaches a link on which the raw peer receives.
    pub(super) fn attach_receiver(&mut self, name: &str, handle: u32) -> LinkId {
        self.attach(name, handle, true);
        self.attached()
    }

    pub(super) fn attach(&mut self, name: &str, handle: u32, is_receiver: bool) {
        let terminus = |code| {
            Value::Described(Box::new(Described {
                descriptor: Descriptor::Code(code),
                value: Value::List(vec![Value::String("q".into())]),
            }))
        };
        let mut fields = vec![
            Value::String(name.into()),
            Value::Uint(handle),
            Value::Bool(is_receiver),
            Value::Null,
            Value::Null,
            terminus(0x28),
            terminus(0x29),
        ];
        if !is_receiver {
            fields.extend([Value::Null, Value::Null, Value::Uint(0)]);
        }
        self.frame(0, 0x12, fields);
    }

    fn attached(&self) -> LinkId {
        self.events
            .iter()
            .rev()
            .find_map(|event| match event {
                Event::Attached(attach) => Some(attach.link),
                _ => None,
            })
            .unwrap()
    }

    /// The frames that the server wrote since the last call; protocol headers are left out.
    pub(super) fn frames(&mut self) -> Vec<Frame> {
        self.collect();
        parse(&self.written.split())
    }

    pub(super) fn codes(&mut self) -> Vec<u64> {
        self.frames().iter().map(|frame| frame.code).collect()
    }

    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The error of the close that ended the connection.
    pub(super) fn closed_with(&mut self) -> String {
        assert!(self.server.is_finished());
        let frames = self.frames();
        let close = frames.last().unwrap();
        assert_eq!(close.code, 0x18);
        close.condition(0)
    }
}

/// Fields of a begin.
pub(super) fn begin(incoming_window: u32) -> Vec<Value> {
    vec![
        Value::Null,
        Value::Uint(0),
        Value::Uint(incoming_window),
        Value::Uint(2048),
    ]
}

/// Fields of a flow about a link.
pub(super) fn flow(
    next_incoming_id: u32,
    window: u32,
    handle: u32,
    delivery_count: u32,
    credit: u32,
) -> Vec<Value> {
    [
        next_incoming_id,
        window,
        0,
        2048,
        handle,
        delivery_count,
        credit,
    ]
    .into_iter()
    .map(Value::Uint)
    .collect()
}

/// Fields of the first transfer of a delivery.
pub(super) fn transfer(handle: u32, delivery_id: u32, more: bool) -> Vec<Value> {
    vec![
        Value::Uint(handle),
        Value::Uint(delivery_id),
        Value::Binary(vec![1].into()),
        Value::Uint(0),
        Value::Bool(false),
        Value::Bool(more),
    ]
}

/// A frame with a performative by the library.
pub(super) fn frame(channel: u16, code: u64, fields: Vec<Value>, payload: &[u8]) -> Vec<u8> {
    let performative = Value::Described(Box::new(Described {
        descriptor: Descriptor::Code(code),
        value: Value::List(fields),
    }));
    frame_of(
        0,
        channel,
        &[&serde_amqp::to_vec(&performative).unwrap()[..], payload].concat(),
    )
}

/// A frame around any bytes.
pub(super) fn frame_of(kind: u8, channel: u16, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_u32(body.len() as u32 + 8);
    out.put_slice(&[2, kind]);
    out.put_u16(channel);
    out.put_slice(body);
    out.to_vec()
}

/// Splits written bytes into frames; empty frames have code 0.
pub(super) fn parse(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        if bytes.starts_with(b"AMQP") {
            bytes = &bytes[8..];
            continue;
        }
        let header = frame::parse_header(bytes, usize::MAX).unwrap().unwrap();
        let body = &bytes[header.body..header.size];
        bytes = &bytes[header.size..];
        let mut frame = Frame {
            channel: header.channel,
            code: 0,
            fields: Vec::new(),
        };
        if !body.is_empty() {
            let mut reader = wire::Reader::new(body);
            let performative = reader.value().unwrap();
            let Value::Described(described) = serde_amqp::from_slice(performative).unwrap() else {
                panic!("a frame without a performative");
            };
            let Descriptor::Code(code) = described.descriptor else {
                panic!("a symbol")
            };
            let Value::List(fields) = described.value else {
                panic!("no list")
            };
            (frame.code, frame.fields) = (code, fields);
            if !reader.is_empty() {
                frame
                    .fields
                    .push(Value::Binary(reader.rest().to_vec().into()));
            }
        }
        frames.push(frame);
    }
    frames
}
