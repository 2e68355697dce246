//! Who somebody is: stored passwords, and the dialogues of SASL that prove one (PLAIN of RFC 4616, SCRAM of
//! RFC 5802 and RFC 7677, both ends). Bytes in, bytes out; random numbers come from the system's generator.
//!
//! What takes long (argon2, PBKDF2) is marked so; the caller runs it where nobody waits.

mod dialogue;
mod failures;
mod keys;
mod scram;
mod users;

pub(crate) use dialogue::plain_parts;
pub use dialogue::{Dialogue, LoginTask, Verdict};
pub use failures::{Failures, neighbourhood};
pub use keys::{hash_password, is_password};
pub use scram::{ClientExchange, ClientFirst, Hash, ScramKeys, ServerExchange};
pub use users::Users;

use std::borrow::Cow;

use base64ct::{Base64, Encoding};
use ring::rand::{SecureRandom, SystemRandom};

/// A name or password as it is compared: SASLprep (RFC 4013), so that two ways to write a letter are one.
/// What SASLprep forbids is taken as it is.
fn prepared(text: &str) -> Cow<'_, str> {
    stringprep::saslprep(text).unwrap_or(Cow::Borrowed(text))
}

/// Bytes that nobody can guess.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system has random numbers from its start on");
    bytes
}

/// A text for one exchange: printable, without a comma, never used again.
#[must_use]
pub fn nonce() -> String {
    Base64::encode_string(&random::<18>())
}

#[cfg(test)]
mod tests;
