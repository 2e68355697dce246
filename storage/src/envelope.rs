//! Values of catalogue rows: a typed value in an envelope that tells kind and schema, bounded in
//! size and with a checksum.
//!
//! One Rust type for each schema; a type that was shipped is never edited. Inside the envelope is
//! bincode with fixed-width little-endian integers; nothing else of the store uses it.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use thiserror::Error;

use crate::format::{get_u16, get_u32, put_u16, put_u32};

const MAGIC: u16 = 0x4553; // "SE"
const HEADER_BYTES: usize = 16;
/// Longest encoded value.
const VALUE_BYTES_MAX: usize = 1 << 20;

const CONFIG: Configuration<LittleEndian, Fixint, Limit<VALUE_BYTES_MAX>> =
    bincode::config::standard()
        .with_little_endian()
        .with_fixed_int_encoding()
        .with_limit::<VALUE_BYTES_MAX>();

/// Why a value cannot be read or written.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Not an envelope, or cut short.
    #[error("not a catalogue value")]
    Malformed,
    /// The checksum differs.
    #[error("the checksum of a catalogue value differs")]
    Checksum,
    /// An envelope of another kind or schema.
    #[error(
        "a catalogue value of kind {kind} and schema {schema} stands where another is expected"
    )]
    Unexpected {
        /// Its kind.
        kind: u16,
        /// Its schema.
        schema: u16,
    },
    /// The value inside does not fit its type.
    #[error("a catalogue value does not fit its type: {0}")]
    Value(String),
}

/// Puts a value into an envelope.
///
/// # Errors
/// [`EnvelopeError::Value`] when it is larger than 1 MiB.
pub fn seal<T: bincode::Encode>(
    kind: u16,
    schema: u16,
    value: &T,
) -> Result<Vec<u8>, EnvelopeError> {
    let body = bincode::encode_to_vec(value, CONFIG)
        .map_err(|error| EnvelopeError::Value(error.to_string()))?;
    let mut out = vec![0; HEADER_BYTES];
    put_u16(&mut out, 0, MAGIC);
    put_u16(&mut out, 2, kind);
    put_u16(&mut out, 4, schema);
    put_u32(&mut out, 8, u32::try_from(body.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(&body);
    let crc = checksum(&out);
    put_u32(&mut out, 12, crc);
    Ok(out)
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes.get(..12).unwrap_or_default());
    hasher.update(bytes.get(HEADER_BYTES..).unwrap_or_default());
    hasher.finalize()
}

/// The kind and schema of an envelope whose checksum holds.
///
/// # Errors
/// [`EnvelopeError::Malformed`] or [`EnvelopeError::Checksum`].
pub fn kind_of(bytes: &[u8]) -> Result<(u16, u16), EnvelopeError> {
    if bytes.len() < HEADER_BYTES || get_u16(bytes, 0) != MAGIC {
        return Err(EnvelopeError::Malformed);
    }
    if get_u32(bytes, 8) as usize != bytes.len() - HEADER_BYTES {
        return Err(EnvelopeError::Malformed);
    }
    if get_u32(bytes, 12) != checksum(bytes) {
        return Err(EnvelopeError::Checksum);
    }
    Ok((get_u16(bytes, 2), get_u16(bytes, 4)))
}

/// Takes a value of the expected kind and schema out of its envelope.
///
/// # Errors
/// See [`EnvelopeError`]; a value that leaves bytes over is refused too.
pub fn open<T: bincode::Decode<()>>(
    kind: u16,
    schema: u16,
    bytes: &[u8],
) -> Result<T, EnvelopeError> {
    let found = kind_of(bytes)?;
    if found != (kind, schema) {
        return Err(EnvelopeError::Unexpected {
            kind: found.0,
            schema: found.1,
        });
    }
    let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let (value, used) = bincode::decode_from_slice(body, CONFIG)
        .map_err(|error| EnvelopeError::Value(error.to_string()))?;
    if used != body.len() {
        return Err(EnvelopeError::Value("bytes are left over".to_owned()));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(bincode::Encode, bincode::Decode, PartialEq, Debug)]
    struct Sample {
        name: String,
        number: u32,
    }

    #[test]
    fn a_value_comes_back_and_every_flipped_byte_is_noticed() {
        let value = Sample {
            name: "orders".to_owned(),
            number: 7,
        };
        let bytes = seal(3, 1, &value).unwrap();
        assert_eq!(open::<Sample>(3, 1, &bytes), Ok(value));
        assert_eq!(
            open::<Sample>(3, 2, &bytes),
            Err(EnvelopeError::Unexpected { kind: 3, schema: 1 })
        );
        for at in (0..6).chain(8..bytes.len()) {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(open::<Sample>(3, 1, &bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_bytes_of_a_schema_never_change() {
        let value = Sample {
            name: "q".to_owned(),
            number: 0x0102,
        };
        let header = [0x53, 0x45, 3, 0, 1, 0, 0, 0, 13, 0, 0, 0];
        let body = [1, 0, 0, 0, 0, 0, 0, 0, b'q', 2, 1, 0, 0];
        let bytes = seal(3, 1, &value).unwrap();
        assert_eq!(bytes[..12], header);
        assert_eq!(bytes[16..], body);
    }

    #[test]
    fn a_hostile_length_is_an_error_and_takes_no_memory() {
        let mut bytes = seal(
            3,
            1,
            &Sample {
                name: "q".to_owned(),
                number: 1,
            },
        )
        .unwrap();
        bytes[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        let crc = checksum(&bytes);
        put_u32(&mut bytes, 12, crc);
        assert!(matches!(
            open::<Sample>(3, 1, &bytes),
            Err(EnvelopeError::Value(_))
        ));
    }
}
