//! The type system of AMQP 1.0 (part 1.6) as far as the fast path needs it: reading values out of a
//! byte slice without building anything, and checking foreign bytes before the library sees them.
//!
//! ```text
//! described   00 descriptor value
//! fixed       4x (0 bytes)  5x (1)  6x (2)  7x (4)  8x (8)  9x (16)
//! variable    ax size8 data            bx size32 data
//! compound    cx size8 count8 items    dx size32 count32 items
//! array       ex size8 count8 constructor data…    fx size32 count32 constructor data…
//! ```

/// Deepest nesting of values in a frame or message section that we look into.
pub(crate) const NESTING_MAX: usize = 16;
/// Most values in one control frame, array elements included: properties, filters, unsettled maps.
pub(crate) const FRAME_VALUES_MAX: usize = 16_384;

/// Why bytes are not AMQP values. Becomes `amqp:decode-error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DecodeError(pub(crate) &'static str);

/// Reads values from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// What is not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(TRUNCATED)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>().ok_or(TRUNCATED)?;
        self.bytes = rest;
        Ok(*taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.bytes.split_first().ok_or(TRUNCATED)?;
        self.bytes = rest;
        Ok(*first)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn size(&mut self) -> Result<usize, DecodeError> {
        Ok(self.u32()? as usize)
    }

    /// A descriptor, the byte `00` included, as its numeric code; symbols are translated.
    pub(crate) fn descriptor(&mut self) -> Result<u64, DecodeError> {
        if self.byte()? != 0x00 {
            return Err(DecodeError("a described value was expected"));
        }
        match self.byte()? {
            0x53 => Ok(u64::from(self.byte()?)),
            0x44 => Ok(0),
            0x80 => Ok(u64::from_be_bytes(self.array()?)),
            0xa3 => {
                let len = usize::from(self.byte()?);
                Ok(code_of_symbol(self.take(len)?))
            }
            0xb3 => {
                let len = self.size()?;
                Ok(code_of_symbol(self.take(len)?))
            }
            _ => Err(DecodeError("a descriptor is neither ulong nor symbol")),
        }
    }

    /// A list; the reader stands behind it afterwards.
    pub(crate) fn list(&mut self) -> Result<Fields<'a>, DecodeError> {
        let (count, items) = match self.byte()? {
            0x45 => (0, &[] as &[u8]),
            0xc0 => {
                let size = usize::from(self.byte()?);
                let mut items = Self::new(self.take(size)?);
                (usize::from(items.byte()?), items.rest())
            }
            0xd0 => {
                let size = self.size()?;
                let mut items = Self::new(self.take(size)?);
                (items.size()?, items.rest())
            }
            _ => return Err(DecodeError("a list was expected")),
        };
        Ok(Fields {
            reader: Self::new(items),
            left: count,
        })
    }

    /// The entries of a map as alternating keys and values; the reader stands behind it afterwards.
    pub(crate) fn map(&mut self) -> Result<Fields<'a>, DecodeError> {
        let (count, items) = match self.byte()? {
            0xc1 => {
                let size = usize::from(self.byte()?);
                let mut items = Self::new(self.take(size)?);
                (usize::from(items.byte()?), items.rest())
            }
            0xd1 => {
                let size = self.size()?;
                let mut items = Self::new(self.take(size)?);
                (items.size()?, items.rest())
            }
            _ => return Err(DecodeError("a map was expected")),
        };
        Ok(Fields {
            reader: Self::new(items),
            left: count,
        })
    }

    /// A binary.
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = match self.byte()? {
            0xa0 => usize::from(self.byte()?),
            0xb0 => self.size()?,
            _ => return Err(DecodeError("a binary was expected")),
        };
        self.take(len)
    }

    /// Skips one value whatever it is and returns its bytes. Does not look inside compound values.
    pub(crate) fn value(&mut self) -> Result<&'a [u8], DecodeError> {
        let start = self.bytes;
        let mut described = 0;
        while self.bytes.first() == Some(&0x00) {
            described += 1;
            if described > NESTING_MAX {
                return Err(TOO_DEEP);
            }
            self.bytes = self.bytes.get(1..).unwrap_or_default();
            // A descriptor is a plain value: ulong or symbol; others are skipped as well.
            let constructor = self.byte()?;
            self.skip_primitive(constructor)?;
        }
        let constructor = self.byte()?;
        self.skip_primitive(constructor)?;
        Ok(start
            .get(..start.len() - self.bytes.len())
            .unwrap_or_default())
    }

    fn skip_primitive(&mut self, constructor: u8) -> Result<(), DecodeError> {
        let len = match width(constructor)? {
            Width::Fixed(len) => len,
            Width::Size8 => usize::from(self.byte()?),
            Width::Size32 => self.size()?,
        };
        self.take(len)?;
        Ok(())
    }
}

/// How many bytes follow a constructor.
enum Width {
    Fixed(usize),
    Size8,
    Size32,
}

fn width(constructor: u8) -> Result<Width, DecodeError> {
    Ok(match constructor {
        0x40..=0x45 => Width::Fixed(0),
        0x50..=0x56 => Width::Fixed(1),
        0x60 | 0x61 => Width::Fixed(2),
        0x70..=0x74 => Width::Fixed(4),
        0x80..=0x84 => Width::Fixed(8),
        0x94 | 0x98 => Width::Fixed(16),
        0xa0 | 0xa1 | 0xa3 | 0xc0 | 0xc1 | 0xe0 => Width::Size8,
        0xb0 | 0xb1 | 0xb3 | 0xd0 | 0xd1 | 0xf0 => Width::Size32,
        _ => return Err(DecodeError("unknown type constructor")),
    })
}

pub(crate) const TRUNCATED: DecodeError = DecodeError("a value is longer than what surrounds it");
const TOO_DEEP: DecodeError = DecodeError("values are nested too deeply");
const TOO_MANY: DecodeError = DecodeError("too many values");

/// The fields of a list (or the keys and values of a map), read in order. Fields beyond the end are null.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Fields<'a> {
    /// The constructor of the next field; `None` for null and behind the end.
    fn constructor(&mut self) -> Result<Option<u8>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        match self.reader.byte()? {
            0x40 => Ok(None),
            constructor => Ok(Some(constructor)),
        }
    }

    /// Whether all fields were read.
    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0
    }

    pub(crate) fn uint(&mut self) -> Result<Option<u32>, DecodeError> {
        Ok(Some(match self.constructor()? {
            None => return Ok(None),
            Some(0x43) => 0,
            Some(0x52) => u32::from(self.reader.byte()?),
            Some(0x70) => self.reader.u32()?,
            Some(_) => return Err(DecodeError("a uint was expected")),
        }))
    }

    pub(crate) fn boolean(&mut self) -> Result<Option<bool>, DecodeError> {
        Ok(Some(match self.constructor()? {
            None => return Ok(None),
            Some(0x41) => true,
            Some(0x42) => false,
            Some(0x56) => match self.reader.byte()? {
                0 => false,
                1 => true,
                _ => return Err(DecodeError("a boolean is neither 0 nor 1")),
            },
            Some(_) => return Err(DecodeError("a boolean was expected")),
        }))
    }

    pub(crate) fn ubyte(&mut self) -> Result<Option<u8>, DecodeError> {
        match self.constructor()? {
            None => Ok(None),
            Some(0x50) => self.reader.byte().map(Some),
            Some(_) => Err(DecodeError("a ubyte was expected")),
        }
    }

    pub(crate) fn timestamp(&mut self) -> Result<Option<i64>, DecodeError> {
        match self.constructor()? {
            None => Ok(None),
            Some(0x83) => Ok(Some(i64::from_be_bytes(self.reader.array()?))),
            Some(_) => Err(DecodeError("a timestamp was expected")),
        }
    }

    pub(crate) fn long(&mut self) -> Result<Option<i64>, DecodeError> {
        match self.constructor()? {
            None => Ok(None),
            Some(0x55) => Ok(Some(i64::from(i8::from_be_bytes(self.reader.array()?)))),
            Some(0x81) => Ok(Some(i64::from_be_bytes(self.reader.array()?))),
            Some(_) => Err(DecodeError("a long was expected")),
        }
    }

    pub(crate) fn binary(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        self.variable(0xa0, "a binary was expected")
    }

    /// A string; UTF-8 is checked.
    pub(crate) fn string(&mut self) -> Result<Option<&'a str>, DecodeError> {
        text(self.variable(0xa1, "a string was expected")?)
    }

    /// A symbol, as text.
    pub(crate) fn symbol(&mut self) -> Result<Option<&'a str>, DecodeError> {
        text(self.variable(0xa3, "a symbol was expected")?)
    }

    fn variable(
        &mut self,
        short: u8,
        expected: &'static str,
    ) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.constructor()? {
            None => Ok(None),
            Some(found) if found == short => {
                let len = usize::from(self.reader.byte()?);
                self.reader.take(len).map(Some)
            }
            // The long form of a variable type is 0x10 above its short form.
            Some(found) if found == short + 0x10 => {
                let len = self.reader.size()?;
                self.reader.take(len).map(Some)
            }
            Some(_) => Err(DecodeError(expected)),
        }
    }

    /// The bytes of the next field whatever it is; `None` for null and behind the end.
    pub(crate) fn value(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let value = self.reader.value()?;
        Ok((value != [0x40]).then_some(value))
    }
}

fn text(bytes: Option<&[u8]>) -> Result<Option<&str>, DecodeError> {
    match bytes {
        None => Ok(None),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(DecodeError("a text is not UTF-8")),
        },
    }
}

/// Checks that bytes are exactly one well-formed value, not nested deeper than [`NESTING_MAX`] and with at
/// most `values_max` values in all. The library behind this check then sees only sound structure.
pub(crate) fn check(bytes: &[u8], values_max: usize) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut left = values_max;
    check_value(&mut reader, &mut left, NESTING_MAX)?;
    if reader.is_empty() {
        Ok(())
    } else {
        Err(DecodeError("bytes after the end of a value"))
    }
}

fn check_value(reader: &mut Reader<'_>, left: &mut usize, depth: usize) -> Result<(), DecodeError> {
    let constructor = check_descriptors(reader, left, depth)?;
    check_body(reader, constructor, left, depth)
}

/// Reads descriptors, if any, and the constructor behind them. Each descriptor uses up a level of nesting.
fn check_descriptors(
    reader: &mut Reader<'_>,
    left: &mut usize,
    mut depth: usize,
) -> Result<u8, DecodeError> {
    loop {
        let constructor = reader.byte()?;
        if constructor != 0x00 {
            return Ok(constructor);
        }
        depth = depth.checked_sub(1).ok_or(TOO_DEEP)?;
        *left = left.checked_sub(1).ok_or(TOO_MANY)?;
        match reader.byte()? {
            descriptor @ (0x44 | 0x53 | 0x80 | 0xa3 | 0xb3) => reader.skip_primitive(descriptor)?,
            _ => return Err(DecodeError("a descriptor is neither ulong nor symbol")),
        }
    }
}

fn check_body(
    reader: &mut Reader<'_>,
    constructor: u8,
    left: &mut usize,
    depth: usize,
) -> Result<(), DecodeError> {
    *left = left.checked_sub(1).ok_or(TOO_MANY)?;
    let (size, wide) = match width(constructor)? {
        Width::Fixed(len) => return reader.take(len).map(|_| ()),
        Width::Size8 => (usize::from(reader.byte()?), false),
        Width::Size32 => (reader.size()?, true),
    };
    let mut inner = Reader::new(reader.take(size)?);
    if constructor < 0xc0 {
        return Ok(());
    }
    let depth = depth.checked_sub(1).ok_or(TOO_DEEP)?;
    let count = if wide {
        inner.size()?
    } else {
        usize::from(inner.byte()?)
    };
    if count > *left {
        return Err(TOO_MANY);
    }
    if matches!(constructor, 0xe0 | 0xf0) {
        if count > 0 || !inner.is_empty() {
            let element = check_descriptors(&mut inner, left, depth)?;
            for _ in 0..count {
                check_body(&mut inner, element, left, depth)?;
            }
        }
    } else {
        if matches!(constructor, 0xc1 | 0xd1) && count % 2 == 1 {
            return Err(DecodeError("a map has a key without a value"));
        }
        for _ in 0..count {
            check_value(&mut inner, left, depth)?;
        }
    }
    if inner.is_empty() {
        Ok(())
    } else {
        Err(DecodeError("a size and a count do not fit"))
    }
}

/// Codes of descriptors that this engine reads; the rest maps to [`UNKNOWN_DESCRIPTOR`].
pub(crate) mod code {
    pub(crate) const OPEN: u64 = 0x10;
    pub(crate) const BEGIN: u64 = 0x11;
    pub(crate) const ATTACH: u64 = 0x12;
    pub(crate) const FLOW: u64 = 0x13;
    pub(crate) const TRANSFER: u64 = 0x14;
    pub(crate) const DISPOSITION: u64 = 0x15;
    pub(crate) const DETACH: u64 = 0x16;
    pub(crate) const END: u64 = 0x17;
    pub(crate) const CLOSE: u64 = 0x18;
    pub(crate) const ERROR: u64 = 0x1d;
    pub(crate) const RECEIVED: u64 = 0x23;
    pub(crate) const ACCEPTED: u64 = 0x24;
    pub(crate) const REJECTED: u64 = 0x25;
    pub(crate) const RELEASED: u64 = 0x26;
    pub(crate) const MODIFIED: u64 = 0x27;
    pub(crate) const DECLARED: u64 = 0x33;
    pub(crate) const TRANSACTIONAL: u64 = 0x34;
    pub(crate) const SASL_MECHANISMS: u64 = 0x40;
    pub(crate) const SASL_INIT: u64 = 0x41;
    pub(crate) const SASL_CHALLENGE: u64 = 0x42;
    pub(crate) const SASL_RESPONSE: u64 = 0x43;
    pub(crate) const SASL_OUTCOME: u64 = 0x44;
    pub(crate) const HEADER: u64 = 0x70;
    pub(crate) const DELIVERY_ANNOTATIONS: u64 = 0x71;
    pub(crate) const MESSAGE_ANNOTATIONS: u64 = 0x72;
    pub(crate) const PROPERTIES: u64 = 0x73;
    pub(crate) const APPLICATION_PROPERTIES: u64 = 0x74;
    pub(crate) const DATA: u64 = 0x75;
    pub(crate) const AMQP_SEQUENCE: u64 = 0x76;
    pub(crate) const AMQP_VALUE: u64 = 0x77;
    pub(crate) const FOOTER: u64 = 0x78;
}

/// What a symbol that we do not know is mapped to.
pub(crate) const UNKNOWN_DESCRIPTOR: u64 = u64::MAX;

fn code_of_symbol(symbol: &[u8]) -> u64 {
    match symbol {
        b"amqp:open:list" => code::OPEN,
        b"amqp:begin:list" => code::BEGIN,
        b"amqp:attach:list" => code::ATTACH,
        b"amqp:flow:list" => code::FLOW,
        b"amqp:transfer:list" => code::TRANSFER,
        b"amqp:disposition:list" => code::DISPOSITION,
        b"amqp:detach:list" => code::DETACH,
        b"amqp:end:list" => code::END,
        b"amqp:close:list" => code::CLOSE,
        b"amqp:error:list" => code::ERROR,
        b"amqp:received:list" => code::RECEIVED,
        b"amqp:accepted:list" => code::ACCEPTED,
        b"amqp:rejected:list" => code::REJECTED,
        b"amqp:released:list" => code::RELEASED,
        b"amqp:modified:list" => code::MODIFIED,
        b"amqp:declared:list" => code::DECLARED,
        b"amqp:transactional-state:list" => code::TRANSACTIONAL,
        b"amqp:sasl-mechanisms:list" => code::SASL_MECHANISMS,
        b"amqp:sasl-init:list" => code::SASL_INIT,
        b"amqp:sasl-challenge:list" => code::SASL_CHALLENGE,
        b"amqp:sasl-response:list" => code::SASL_RESPONSE,
        b"amqp:sasl-outcome:list" => code::SASL_OUTCOME,
        b"amqp:header:list" => code::HEADER,
        b"amqp:delivery-annotations:map" => code::DELIVERY_ANNOTATIONS,
        b"amqp:message-annotations:map" => code::MESSAGE_ANNOTATIONS,
        b"amqp:properties:list" => code::PROPERTIES,
        b"amqp:application-properties:map" => code::APPLICATION_PROPERTIES,
        b"amqp:data:binary" => code::DATA,
        b"amqp:amqp-sequence:list" => code::AMQP_SEQUENCE,
        b"amqp:amqp-value:*" => code::AMQP_VALUE,
        b"amqp:footer:map" => code::FOOTER,
        _ => UNKNOWN_DESCRIPTOR,
    }
}
