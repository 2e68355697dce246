//! Messages of our own tools, and a way to read them back.

use bytes::{BufMut, BytesMut};

use super::{Header, MalformedMessage, MessageIndex};
use crate::proto::fast::{begin_list32, finish_list32, put_variable};
use crate::proto::wire::{DecodeError, Reader, code};

/// A value of an application property that our own tools use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PropertyValue {
    /// Text.
    Text(String),
    /// A signed 64-bit number.
    Long(i64),
}

/// A message as our own tools send it: header, message-id, to, application properties, one data section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SimpleMessage {
    /// Header: durable, priority, time to live, delivery count.
    pub header: Header,
    /// Properties: the message-id, as text.
    pub message_id: Option<String>,
    /// Properties: to.
    pub to: Option<String>,
    /// Application properties in their order.
    pub properties: Vec<(String, PropertyValue)>,
    /// Content of the data section.
    pub body: Vec<u8>,
}

impl SimpleMessage {
    /// The encoded message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = BytesMut::with_capacity(128 + self.body.len());
        out.put_slice(&self.header.encode());
        if self.message_id.is_some() || self.to.is_some() {
            let list = begin_list32(&mut out, code::PROPERTIES as u8);
            put_optional_text(&mut out, self.message_id.as_deref());
            out.put_u8(0x40); // user-id
            put_optional_text(&mut out, self.to.as_deref());
            finish_list32(&mut out, list, 3);
        }
        if !self.properties.is_empty() {
            // A map32 is laid out as a list32; only its constructor differs.
            let map = begin_list32(&mut out, code::APPLICATION_PROPERTIES as u8);
            if let Some(constructor) = out.get_mut(map - 1) {
                *constructor = 0xd1;
            }
            for (key, value) in &self.properties {
                put_variable(&mut out, 0xa1, key.as_bytes());
                match value {
                    PropertyValue::Text(text) => put_variable(&mut out, 0xa1, text.as_bytes()),
                    PropertyValue::Long(number) => {
                        out.put_u8(0x81);
                        out.put_i64(*number);
                    }
                }
            }
            finish_list32(&mut out, map, 2 * self.properties.len() as u32);
        }
        out.put_slice(&[0x00, 0x53, code::DATA as u8]);
        put_variable(&mut out, 0xa0, &self.body);
        out.into()
    }

    /// Reads a message: what this type does not hold (other sections, properties of other types) is passed over; a body
    /// of other sections than data becomes an empty one.
    pub fn decode(message: &[u8]) -> Result<Self, MalformedMessage> {
        let index = MessageIndex::scan(message)?;
        let malformed = |offset| {
            move |error: DecodeError| MalformedMessage {
                offset,
                reason: error.0,
            }
        };
        let properties = match index.application_properties.clone() {
            Some(range) => {
                let offset = range.start;
                read_properties(message.get(range).unwrap_or_default())
                    .map_err(malformed(offset))?
            }
            None => Vec::new(),
        };
        let body = message.get(index.body_offset..).unwrap_or_default();
        Ok(Self {
            header: index.header(),
            message_id: index.message_id_text(message).map(String::from),
            to: index.to_text(message).map(String::from),
            properties,
            body: read_data(body).map_err(malformed(index.body_offset))?,
        })
    }

    /// The number of an application property.
    pub fn long(&self, key: &str) -> Option<i64> {
        self.properties
            .iter()
            .find(|(name, _)| name == key)
            .and_then(|(_, value)| match value {
                PropertyValue::Long(number) => Some(*number),
                PropertyValue::Text(_) => None,
            })
    }

    /// The text of an application property.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.properties
            .iter()
            .find(|(name, _)| name == key)
            .and_then(|(_, value)| match value {
                PropertyValue::Text(text) => Some(text.as_str()),
                PropertyValue::Long(_) => None,
            })
    }
}

fn put_optional_text(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_variable(out, 0xa1, text.as_bytes()),
        None => out.put_u8(0x40),
    }
}

fn read_properties(map: &[u8]) -> Result<Vec<(String, PropertyValue)>, DecodeError> {
    let mut entries = Reader::new(map).map()?;
    let mut properties = Vec::new();
    while !entries.is_empty() {
        let Some(key) = entries.string()? else {
            entries.value()?;
            continue;
        };
        // A second look at the same bytes: the type decides which of them understands the value.
        let (mut as_text, mut as_long) = (entries, entries);
        entries.value()?;
        if let Ok(Some(text)) = as_text.string() {
            properties.push((String::from(key), PropertyValue::Text(String::from(text))));
        } else if let Ok(Some(number)) = as_long.long() {
            properties.push((String::from(key), PropertyValue::Long(number)));
        }
    }
    Ok(properties)
}

/// The bytes of all data sections at the front.
fn read_data(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut data = Vec::new();
    let mut reader = Reader::new(body);
    while !reader.is_empty() && reader.descriptor()? == code::DATA {
        data.extend_from_slice(reader.binary()?);
    }
    Ok(data)
}
