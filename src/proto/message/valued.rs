//! Messages of requests and replies: properties that name each other, and one value as body.

use bytes::{BufMut, BytesMut};

use super::{Header, MalformedMessage, MessageIndex, text_at, text_range};
use crate::proto::fast::{begin_list32, finish_list32, put_variable};
use crate::proto::wire::{DecodeError, Reader, check, code};
use crate::proto::{Symbol, Value};

/// Most values of a request, those in lists and maps included.
const VALUES_MAX: usize = 4096;
/// Most values of what a client of ours takes as a reply.
const REPLY_VALUES_MAX: usize = 1 << 22;

/// A message whose body is one value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ValueMessage {
    /// Properties: the message-id, encoded; empty for none. Its type belongs to the sender.
    pub message_id: Vec<u8>,
    /// Properties: to.
    pub to: Option<String>,
    /// Properties: reply-to.
    pub reply_to: Option<String>,
    /// Properties: the correlation-id, encoded; empty for none.
    pub correlation_id: Vec<u8>,
    /// Application properties in their order.
    pub properties: Vec<(String, Value)>,
    /// The body; null when there is none, or one of another kind.
    pub body: Value,
}

impl ValueMessage {
    /// The encoded message: not durable, of ordinary priority.
    ///
    /// # Errors
    /// A value that cannot be written, such as a map with a key twice.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        let mut out = BytesMut::with_capacity(256);
        let header = Header {
            durable: false,
            priority: super::DEFAULT_PRIORITY,
            ttl_ms: None,
            first_acquirer: false,
            delivery_count: 0,
        };
        out.put_slice(&header.encode());
        let list = begin_list32(&mut out, code::PROPERTIES as u8);
        put_id(&mut out, &self.message_id);
        out.put_u8(0x40); // user-id
        put_text(&mut out, self.to.as_deref());
        out.put_u8(0x40); // subject
        put_text(&mut out, self.reply_to.as_deref());
        put_id(&mut out, &self.correlation_id);
        finish_list32(&mut out, list, 6);
        if !self.properties.is_empty() {
            let map = begin_list32(&mut out, code::APPLICATION_PROPERTIES as u8);
            if let Some(constructor) = out.get_mut(map - 1) {
                // A map32 is laid out as a list32; only its constructor differs.
                *constructor = 0xd1;
            }
            for (key, value) in &self.properties {
                put_variable(&mut out, 0xa1, key.as_bytes());
                put_value(&mut out, value)?;
            }
            finish_list32(&mut out, map, 2 * self.properties.len() as u32);
        }
        out.put_slice(&[0x00, 0x53, code::AMQP_VALUE as u8]);
        put_value(&mut out, &self.body)?;
        Ok(out.into())
    }

    /// Reads a request of somebody unknown: few values, nested no deeper than a frame's.
    ///
    /// # Errors
    /// Bytes that are no message, or more than is read of a request.
    pub fn decode(message: &[u8]) -> Result<Self, MalformedMessage> {
        Self::decode_within(message, VALUES_MAX)
    }

    /// Reads the reply of a server that we asked.
    ///
    /// # Errors
    /// Bytes that are no message.
    pub fn decode_reply(message: &[u8]) -> Result<Self, MalformedMessage> {
        Self::decode_within(message, REPLY_VALUES_MAX)
    }

    fn decode_within(message: &[u8], values_max: usize) -> Result<Self, MalformedMessage> {
        let index = MessageIndex::scan(message)?;
        let at = |offset| {
            move |error: DecodeError| MalformedMessage {
                offset,
                reason: error.0,
            }
        };
        let mut read = Self::default();
        read.read_properties(message, &index).map_err(at(0))?;
        if let Some(range) = index.application_properties {
            let start = range.start;
            let bytes = message.get(range).unwrap_or_default();
            if let Value::Map(map) = value(bytes, values_max).map_err(at(start))? {
                let texts = map.into_iter().filter_map(|(key, value)| match key {
                    Value::String(key) => Some((key, value)),
                    Value::Symbol(key) => Some((key.0, value)),
                    _ => None,
                });
                read.properties = texts.collect();
            }
        }
        let start = index.body_offset;
        let mut reader = Reader::new(message.get(start..).unwrap_or_default());
        if !reader.is_empty() && reader.descriptor().map_err(at(start))? == code::AMQP_VALUE {
            let bytes = reader.value().map_err(at(start))?;
            read.body = value(bytes, values_max).map_err(at(start))?;
        }
        Ok(read)
    }

    /// The fields that the index passes over.
    fn read_properties(&mut self, message: &[u8], index: &MessageIndex) -> Result<(), DecodeError> {
        let mut reader = Reader::new(message);
        while !reader.is_empty() && message.len() - reader.rest().len() < index.body_offset {
            if reader.descriptor()? != code::PROPERTIES {
                reader.value()?;
                continue;
            }
            let mut fields = reader.list()?;
            let text = |value: Option<&[u8]>| {
                let value = value?;
                text_at(message, text_range(message, value).as_ref()).map(String::from)
            };
            self.message_id = fields.value()?.unwrap_or_default().to_vec();
            fields.value()?; // user-id
            self.to = text(fields.value()?);
            fields.value()?; // subject
            self.reply_to = text(fields.value()?);
            self.correlation_id = fields.value()?.unwrap_or_default().to_vec();
        }
        for id in [&self.message_id, &self.correlation_id] {
            if !id.is_empty() {
                check(id, 1)?;
            }
        }
        Ok(())
    }

    /// An application property.
    pub fn property(&self, name: &str) -> Option<&Value> {
        let mut properties = self.properties.iter();
        properties
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }

    /// The text of an application property.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.property(name)? {
            Value::String(text) => Some(text),
            Value::Symbol(Symbol(text)) => Some(text),
            _ => None,
        }
    }
}

/// Decodes bytes that are exactly one value.
pub(super) fn value(bytes: &[u8], values_max: usize) -> Result<Value, DecodeError> {
    check(bytes, values_max)?;
    serde_amqp::from_slice(bytes).map_err(|_| DecodeError("a value cannot be read"))
}

fn put_value(out: &mut BytesMut, value: &Value) -> Result<(), String> {
    let bytes = serde_amqp::to_vec(value).map_err(|error| error.to_string())?;
    out.put_slice(&bytes);
    Ok(())
}

fn put_id(out: &mut BytesMut, id: &[u8]) {
    if id.is_empty() {
        out.put_u8(0x40);
    } else {
        out.put_slice(id);
    }
}

fn put_text(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_variable(out, 0xa1, text.as_bytes()),
        None => out.put_u8(0x40),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let message = ValueMessage {
            message_id: vec![0xa1, 1, b'7'],
            to: Some(String::from("$management")),
            reply_to: Some(String::from("here")),
            correlation_id: vec![0x53, 9],
            properties: vec![(String::from("operation"), Value::from("READ"))],
            body: Value::List(vec![Value::from("show"), Value::Int(3)]),
        };
        let bytes = message.encode().expect("it can be written");
        assert_eq!(ValueMessage::decode(&bytes).expect("a message"), message);
        assert_eq!(message.text("operation"), Some("READ"));
    }

    #[test]
    fn hostile_values_are_refused() {
        let body = |bytes: &[u8]| {
            let mut message = vec![0x00, 0x53, code::AMQP_VALUE as u8];
            message.extend_from_slice(bytes);
            message
        };
        let mut nested = vec![0x45];
        for _ in 0..40 {
            let mut outer = vec![0xd0];
            outer.extend_from_slice(&(nested.len() as u32 + 4).to_be_bytes());
            outer.extend_from_slice(&1_u32.to_be_bytes());
            outer.extend_from_slice(&nested);
            nested = outer;
        }
        // An array of many values that need no byte.
        let zeros = [0xf0, 0, 0, 0, 5, 0x7f, 0xff, 0xff, 0xff, 0x40];
        for bytes in [
            &nested[..],
            &zeros,
            &[0xd1, 0, 0, 0, 4, 0, 0, 0, 9],
            &[0xa1, 5, b'x'],
        ] {
            assert!(ValueMessage::decode(&body(bytes)).is_err(), "{bytes:?}");
        }
        assert_eq!(
            ValueMessage::decode(&body(&[0x40])).expect("a null").body,
            Value::Null
        );
    }
}
