//! What a message says of itself, in words, for people who look at messages. Nothing of it is trusted: a
//! part that cannot be read ends that part, and what is long is only named.

use super::valued::value;
use super::{MalformedMessage, MessageIndex};
use crate::proto::Value;
use crate::proto::wire::{DecodeError, Fields, Reader, code};

/// Most entries of a map that are shown.
const ENTRIES_MAX: usize = 100;
/// Longest value that is shown, bytes as encoded.
const VALUE_BYTES_MAX: usize = 1024;
/// Most bytes of a binary that are shown.
const BINARY_BYTES_MAX: usize = 32;
/// Most values in one that is shown.
const VALUES_MAX: usize = 64;

/// Fields of the properties section (part 3.2.4), in their order.
const PROPERTIES: [&str; 13] = [
    "message-id",
    "user-id",
    "to",
    "subject",
    "reply-to",
    "correlation-id",
    "content-type",
    "content-encoding",
    "absolute-expiry-time",
    "creation-time",
    "group-id",
    "group-sequence",
    "reply-to-group-id",
];

/// Names and values, in the order of the message.
pub type Entries = Vec<(String, String)>;

/// The sections of a message, in words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageOutline {
    /// The properties that are set.
    pub properties: Entries,
    /// Message annotations.
    pub annotations: Entries,
    /// Application properties.
    pub application_properties: Entries,
    /// What kind of body there is: `none`, `data`, `sequence`, or `value` and its type.
    pub body: String,
    /// Bytes of the body without its sections' heads; of other values than texts and binaries, as encoded.
    pub body_bytes: u64,
    /// What cannot be read.
    pub faults: Vec<MalformedMessage>,
}

impl MessageOutline {
    /// Reads what can be read of a message.
    pub fn read(message: &[u8]) -> Self {
        let mut outline = Self::default();
        let index = match MessageIndex::scan(message) {
            Ok(index) => index,
            Err(fault) => {
                outline.body = "not known".to_owned();
                outline.faults.push(fault);
                return outline;
            }
        };
        outline.properties = outline.part(0, properties(message, &index));
        if let Some(range) = index.message_annotations {
            let at = range.start;
            outline.annotations = outline.part(at, map(message.get(range)));
        }
        if let Some(range) = index.application_properties {
            let at = range.start;
            outline.application_properties = outline.part(at, map(message.get(range)));
        }
        outline.read_body(message, index.body_offset);
        outline
    }

    /// The message-id alone.
    pub fn message_id(message: &[u8], index: &MessageIndex) -> Option<String> {
        message.get(index.message_id.clone()?).map(words)
    }

    /// A part as far as it could be read, and its fault.
    fn part(
        &mut self,
        offset: usize,
        (entries, end): (Entries, Result<(), DecodeError>),
    ) -> Entries {
        if let Err(DecodeError(reason)) = end {
            self.faults.push(MalformedMessage { offset, reason });
        }
        entries
    }

    fn read_body(&mut self, message: &[u8], offset: usize) {
        let mut reader = Reader::new(message.get(offset..).unwrap_or_default());
        self.body = "none".to_owned();
        while !reader.is_empty() {
            let offset = message.len() - reader.rest().len();
            if let Err(DecodeError(reason)) = self.body_section(&mut reader) {
                self.faults.push(MalformedMessage { offset, reason });
                return;
            }
        }
    }

    fn body_section(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let section = reader.descriptor()?;
        let (kind, bytes) = match section {
            code::DATA => ("data".to_owned(), reader.binary()?.len()),
            code::AMQP_SEQUENCE => ("sequence".to_owned(), reader.value()?.len()),
            code::AMQP_VALUE => {
                let value = reader.value()?;
                (format!("value: {}", kind_of(value)), content_bytes(value))
            }
            code::FOOTER => return reader.value().map(drop),
            _ => return Err(DecodeError("unknown section behind the body")),
        };
        self.body = kind;
        self.body_bytes += bytes as u64;
        Ok(())
    }
}

/// Entries as far as they could be read, and why no further.
fn gathered(
    mut read: impl FnMut(&mut Entries) -> Result<(), DecodeError>,
) -> (Entries, Result<(), DecodeError>) {
    let mut entries = Entries::new();
    let end = read(&mut entries);
    (entries, end)
}

fn properties(message: &[u8], index: &MessageIndex) -> (Entries, Result<(), DecodeError>) {
    gathered(|entries| {
        let mut reader = Reader::new(message.get(..index.body_offset).unwrap_or_default());
        while !reader.is_empty() {
            if reader.descriptor()? != code::PROPERTIES {
                reader.value()?;
                continue;
            }
            let mut fields = reader.list()?;
            for name in PROPERTIES {
                if let Some(value) = fields.value()? {
                    entries.push((name.to_owned(), words(value)));
                }
            }
        }
        Ok(())
    })
}

fn map(bytes: Option<&[u8]>) -> (Entries, Result<(), DecodeError>) {
    gathered(|entries| {
        let mut reader = Reader::new(bytes.unwrap_or_default());
        if reader.rest() == [0x40] {
            return Ok(());
        }
        let mut fields: Fields<'_> = reader.map()?;
        while !fields.is_empty() {
            if entries.len() >= ENTRIES_MAX {
                entries.push(("...".to_owned(), "there are more".to_owned()));
                return Ok(());
            }
            let name = fields.value()?.map_or_else(|| "null".to_owned(), words);
            let value = fields.value()?.map_or_else(|| "null".to_owned(), words);
            entries.push((name, value));
        }
        Ok(())
    })
}

/// The name of a value's type.
fn kind_of(value: &[u8]) -> &'static str {
    match value.first() {
        None => "nothing",
        Some(0x00) => "described",
        Some(0x40) => "null",
        Some(0x41 | 0x42 | 0x56) => "boolean",
        Some(0x50) => "ubyte",
        Some(0x51) => "byte",
        Some(0x60) => "ushort",
        Some(0x61) => "short",
        Some(0x43 | 0x52 | 0x70) => "uint",
        Some(0x54 | 0x71) => "int",
        Some(0x44 | 0x53 | 0x80) => "ulong",
        Some(0x55 | 0x81) => "long",
        Some(0x72) => "float",
        Some(0x82) => "double",
        Some(0x73) => "char",
        Some(0x83) => "timestamp",
        Some(0x98) => "uuid",
        Some(0x74 | 0x84 | 0x94) => "decimal",
        Some(0xa0 | 0xb0) => "binary",
        Some(0xa1 | 0xb1) => "string",
        Some(0xa3 | 0xb3) => "symbol",
        Some(0x45 | 0xc0 | 0xd0) => "list",
        Some(0xc1 | 0xd1) => "map",
        Some(0xe0 | 0xf0) => "array",
        Some(_) => "unknown",
    }
}

/// Bytes of a text or binary itself, or of another value as encoded.
fn content_bytes(value: &[u8]) -> usize {
    let head = match value.first() {
        Some(0xa0..=0xa3) => 2,
        Some(0xb0..=0xb3) => 5,
        _ => 0,
    };
    value.len().saturating_sub(head)
}

/// A value in words.
fn words(bytes: &[u8]) -> String {
    let named = || format!("({}, {} bytes)", kind_of(bytes), content_bytes(bytes));
    if bytes.len() > VALUE_BYTES_MAX {
        return named();
    }
    match value(bytes, VALUES_MAX) {
        Ok(value) => simple(&value).unwrap_or_else(named),
        Err(DecodeError(reason)) => format!("({reason})"),
    }
}

/// A value that is not made of others.
fn simple(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => "null".to_owned(),
        Value::Bool(it) => it.to_string(),
        Value::Ubyte(it) => it.to_string(),
        Value::Ushort(it) => it.to_string(),
        Value::Uint(it) => it.to_string(),
        Value::Ulong(it) => it.to_string(),
        Value::Byte(it) => it.to_string(),
        Value::Short(it) => it.to_string(),
        Value::Int(it) => it.to_string(),
        Value::Long(it) => it.to_string(),
        Value::Float(it) => it.to_string(),
        Value::Double(it) => it.to_string(),
        Value::Char(it) => it.to_string(),
        Value::Timestamp(it) => format!("{} ms since 1970", it.milliseconds()),
        Value::Uuid(it) => hexadecimal(it.as_inner()),
        Value::Binary(it) if it.len() <= BINARY_BYTES_MAX => hexadecimal(it),
        Value::String(it) => it.clone(),
        Value::Symbol(it) => it.0.clone(),
        _ => return None,
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::from("0x");
    for byte in bytes {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::QPID;
    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Entries {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_message_of_qpid_jms_is_told_in_words() {
        let outline = MessageOutline::read(QPID);
        let id = "ID:fea0178b-3cd8-4fba-8862-842309c8b665:1:1:1-1";
        assert_eq!(
            outline.properties[0],
            ("message-id".to_owned(), id.to_owned())
        );
        assert_eq!(
            outline.properties[1..4],
            entries(&[
                ("to", "q1"),
                ("correlation-id", "corr"),
                ("content-type", "application/octet-stream")
            ])
        );
        assert_eq!(
            outline.annotations,
            entries(&[("x-opt-jms-dest", "0"), ("x-opt-jms-msg-type", "3")])
        );
        assert_eq!(
            outline.application_properties,
            entries(&[("region", "eu"), ("_AMQ_DUPL_ID", "d1")])
        );
        assert_eq!((outline.body.as_str(), outline.body_bytes), ("data", 5));
        assert_eq!(outline.faults, []);
        let index = MessageIndex::scan(QPID).unwrap();
        assert_eq!(
            MessageOutline::message_id(QPID, &index).as_deref(),
            Some(id)
        );
    }

    #[test]
    fn bodies_of_all_kinds_are_measured() {
        for (bytes, body, body_bytes) in [
            (
                &[0, 0x53, 0x77, 0xa1, 2, b'h', b'i'][..],
                "value: string",
                2,
            ),
            (&[0, 0x53, 0x77, 0x40], "value: null", 1),
            (&[0, 0x53, 0x77, 0xc1, 1, 0], "value: map", 3),
            (&[0, 0x53, 0x76, 0x45], "sequence", 1),
            (
                &[
                    0, 0x53, 0x75, 0xa0, 1, 9, 0, 0x53, 0x75, 0xa0, 2, 9, 9, 0, 0x53, 0x78, 0x40,
                ],
                "data",
                3,
            ),
            (&[0, 0x53, 0x70, 0x45], "none", 0),
        ] {
            let outline = MessageOutline::read(bytes);
            assert_eq!(
                (outline.body.as_str(), outline.body_bytes),
                (body, body_bytes)
            );
            assert_eq!(outline.faults, [], "{bytes:?}");
        }
    }

    #[test]
    fn what_is_long_nested_or_not_text_is_named_and_not_shown() {
        let mut long = vec![0xb1, 0, 0, 8, 0];
        long.extend_from_slice(&[b'x'; 2048]);
        assert_eq!(words(&long), "(string, 2048 bytes)");
        assert_eq!(words(&[0xa0, 2, 0xab, 1]), "0xab01");
        assert_eq!(words(&[0xc0, 3, 1, 0x52, 7]), "(list, 5 bytes)");
        assert_eq!(words(&[0x83, 0, 0, 0, 0, 0, 0, 0, 9]), "9 ms since 1970");
        // Not UTF-8, and values without end.
        assert!(words(&[0xa1, 1, 0xff]).starts_with('('));
        assert!(words(&[0xf0, 0, 0, 0, 5, 0x7f, 0xff, 0xff, 0xff, 0x40]).starts_with('('));
        let mut many = vec![0xd1, 0, 0, 0x01, 0x94, 0, 0, 0, 200];
        many.extend([0x40; 400]);
        let (shown, end) = map(Some(&many));
        assert_eq!((shown.len(), end), (ENTRIES_MAX, Ok(())));
    }

    #[test]
    fn a_part_that_cannot_be_read_hides_no_other() {
        // Application properties that say they have ten entries and have one.
        let broken = [0, 0x53, 0x74, 0xc1, 7, 20, 0xa1, 1, b'a', 0xa1, 1, b'b'];
        let message = [&broken[..], &[0, 0x53, 0x75, 0xa0, 1, 9]].concat();
        let outline = MessageOutline::read(&message);
        assert_eq!(outline.application_properties, entries(&[("a", "b")]));
        assert_eq!((outline.body.as_str(), outline.body_bytes), ("data", 1));
        assert_eq!(outline.faults.len(), 1, "{outline:?}");
        let list = MessageOutline::read(&[0, 0x53, 0x74, 0x45, 0, 0x53, 0x75, 0xa0, 0]);
        assert_eq!((list.body.as_str(), list.faults.len()), ("data", 1));
        let cut = MessageOutline::read(&[0, 0x53, 0x75, 0xa0, 9, 1]);
        assert_eq!((cut.body.as_str(), cut.faults.len()), ("none", 1));
        let none = MessageOutline::read(b"hello");
        assert_eq!((none.body.as_str(), none.faults.len()), ("not known", 1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_told_in_words(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let outline = MessageOutline::read(&bytes);
            prop_assert!(outline.body_bytes <= bytes.len() as u64);
        }

        #[test]
        fn a_damaged_message_is_told_in_words(at in 0..QPID.len(), byte in any::<u8>(), end in 0..QPID.len()) {
            let mut message = QPID.to_vec();
            message[at] = byte;
            message.truncate(end);
            let outline = MessageOutline::read(&message);
            prop_assert!(outline.body_bytes <= message.len() as u64);
            prop_assert!(outline.application_properties.len() <= ENTRIES_MAX + 1);
        }
    }
}
