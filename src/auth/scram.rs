//! SCRAM: both sides prove that they know a password without sending it. RFC 5802 with the hashes of
//! RFC 7677, without channel binding.
//!
//! The library `rsasl` draws its nonces itself, which no simulation can repeat, and brings an older generation
//! of the same hashes; the dialogue is four messages.

use std::fmt;
use std::num::NonZeroU32;

use base64ct::{Base64, Base64Unpadded, Encoding};
use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq;

use super::prepared;

/// Rounds of PBKDF2 of new keys. A client counts them at each login, a thief of the file at each guess.
const ITERATIONS: u32 = 16_384;
/// Fewer a client of ours does not accept: RFC 7677 demands them.
const ITERATIONS_MIN: u32 = 4096;
/// More would only be asked for to keep a client busy.
const ITERATIONS_MAX: u32 = 1 << 20;
/// Salt of new keys, bytes.
pub(super) const SALT_BYTES: usize = 16;
/// Longest message that is looked at, bytes.
const MESSAGE_BYTES_MAX: usize = 2048;

/// The hash of a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hash {
    /// SCRAM-SHA-256
    Sha256,
    /// SCRAM-SHA-512
    Sha512,
}

impl Hash {
    /// All of them, the best first.
    pub const ALL: [Self; 2] = [Self::Sha512, Self::Sha256];

    /// The mechanism's name in SASL.
    #[must_use]
    pub const fn mechanism(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// The hash of a mechanism.
    #[must_use]
    pub fn of_mechanism(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.mechanism() == name)
    }

    /// How stored keys begin.
    const fn mark(self) -> &'static str {
        match self {
            Self::Sha256 => "$scram-sha-256$i=",
            Self::Sha512 => "$scram-sha-512$i=",
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Sha256 => digest::SHA256_OUTPUT_LEN,
            Self::Sha512 => digest::SHA512_OUTPUT_LEN,
        }
    }

    fn digest(self, data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, data).as_ref().to_vec()
    }

    pub(super) fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        let key = hmac::Key::new(algorithm, key);
        hmac::sign(&key, data).as_ref().to_vec()
    }

    /// `SaltedPassword`. Slow: that is its purpose.
    fn salted(self, password: &str, salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let mut salted = vec![0; self.bytes()];
        let password = prepared(password);
        pbkdf2::derive(
            algorithm,
            iterations,
            salt,
            password.as_bytes(),
            &mut salted,
        );
        salted
    }
}

/// What a server keeps of a password: enough to check it, not enough to log in with it.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    hash: Hash,
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored: Vec<u8>,
    server: Vec<u8>,
}

impl ScramKeys {
    /// Makes the keys of a password. Slow.
    #[must_use]
    pub fn derive(hash: Hash, password: &str, salt: &[u8]) -> Self {
        let iterations = NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN);
        Self::derive_with(hash, password, salt, iterations)
    }

    pub(super) fn derive_with(
        hash: Hash,
        password: &str,
        salt: &[u8],
        iterations: NonZeroU32,
    ) -> Self {
        let salted = hash.salted(password, salt, iterations);
        Self {
            hash,
            iterations,
            salt: salt.to_vec(),
            stored: hash.digest(&hash.hmac(&salted, b"Client Key")),
            server: hash.hmac(&salted, b"Server Key"),
        }
    }

    /// Keys that no password fits; they look like others from outside.
    pub(super) fn decoy(hash: Hash, salt: &[u8]) -> Self {
        Self {
            hash,
            iterations: NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN),
            salt: salt.to_vec(),
            // No digest has no bytes.
            stored: Vec::new(),
            server: Vec::new(),
        }
    }

    /// Reads `$scram-sha-256$i=<iterations>$<salt>$<stored key>$<server key>` (or `-512`).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hash = Hash::ALL
            .into_iter()
            .find(|hash| text.starts_with(hash.mark()))?;
        let mut parts = text.strip_prefix(hash.mark())?.split('$');
        let iterations: NonZeroU32 = parts.next()?.parse().ok()?;
        let mut bytes = || Base64Unpadded::decode_vec(parts.next()?).ok();
        let (salt, stored, server) = (bytes()?, bytes()?, bytes()?);
        let is_whole = parts.next().is_none()
            && !salt.is_empty()
            && [&stored, &server]
                .iter()
                .all(|key| key.len() == hash.bytes());
        is_whole.then_some(Self {
            hash,
            iterations,
            salt,
            stored,
            server,
        })
    }

    /// As [`Self::parse`] reads it; a secret.
    #[must_use]
    pub fn to_text(&self) -> String {
        let [salt, stored, server] =
            [&self.salt, &self.stored, &self.server].map(|it| Base64Unpadded::encode_string(it));
        format!(
            "{}{}${salt}${stored}${server}",
            self.hash.mark(),
            self.iterations
        )
    }

    /// Which hash they are for.
    #[must_use]
    pub const fn hash(&self) -> Hash {
        self.hash
    }

    /// Whether this is their password. Slow.
    #[must_use]
    pub fn is_password(&self, password: &str) -> bool {
        let other = Self::derive_with(self.hash, password, &self.salt, self.iterations);
        other.stored.ct_eq(&self.stored).into()
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ScramKeys")
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// The first message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFirst {
    /// The user's name, as it is compared.
    pub user: String,
    /// The part about channel binding, which the client repeats.
    header: String,
    bare: String,
    nonce: String,
}

impl ClientFirst {
    /// Reads `n,[a=name],n=name,r=nonce`. `None`: malformed, or it asks for what is not offered.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let text = text_of(message)?;
        let (binding, rest) = text.split_once(',')?;
        let (acts_for, bare) = rest.split_once(',')?;
        if !matches!(binding, "n" | "y") {
            return None;
        }
        let (name, rest) = bare.strip_prefix("n=")?.split_once(',')?;
        let user = unescaped(name)?;
        let acts_for = match acts_for {
            "" => None,
            text => Some(unescaped(text.strip_prefix("a=")?)?),
        };
        // Nobody acts for somebody else.
        if user.is_empty() || acts_for.is_some_and(|other| other != user) {
            return None;
        }
        let nonce = rest.strip_prefix("r=")?;
        let nonce = nonce.split_once(',').map_or(nonce, |(nonce, _)| nonce);
        let is_printable = |byte: u8| byte.is_ascii_graphic();
        if nonce.is_empty() || !nonce.bytes().all(is_printable) {
            return None;
        }
        Some(Self {
            user: prepared(&user).into_owned(),
            header: text.get(..text.len() - bare.len())?.to_owned(),
            nonce: nonce.to_owned(),
            bare: bare.to_owned(),
        })
    }
}

impl ClientFirst {
    /// The client's part of the nonce.
    #[must_use]
    pub fn nonce(&self) -> &str {
        &self.nonce
    }
}

/// The server's end after its first answer.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerExchange {
    keys: ScramKeys,
    nonce: String,
    header: String,
    /// What both sides have said so far.
    said: String,
}

impl ServerExchange {
    /// Answers a client; `nonce` is a text that was never used before. Returns the message for the client.
    #[must_use]
    pub fn begin(first: ClientFirst, keys: ScramKeys, nonce: &str) -> (Self, String) {
        let nonce = format!("{}{nonce}", first.nonce);
        let salt = Base64::encode_string(&keys.salt);
        let answer = format!("r={nonce},s={salt},i={}", keys.iterations);
        let exchange = Self {
            said: format!("{},{answer}", first.bare),
            header: Base64::encode_string(first.header.as_bytes()),
            nonce,
            keys,
        };
        (exchange, answer)
    }

    /// Judges the client's proof, against other keys if those of the beginning only had the salt. Returns the
    /// message that proves to the client that this server knows the password; `None`: refused.
    #[must_use]
    pub fn finish(&self, message: &[u8], keys: Option<&ScramKeys>) -> Option<String> {
        let keys = keys.unwrap_or(&self.keys);
        let text = text_of(message)?;
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let proof = Base64::decode_vec(proof).ok()?;
        let mut parts = without_proof.split(',');
        let header = parts.next()?.strip_prefix("c=")?;
        let nonce = parts.next()?.strip_prefix("r=")?;
        let hash = keys.hash;
        if header != self.header || nonce != self.nonce || proof.len() != hash.bytes() {
            return None;
        }
        let said = format!("{},{without_proof}", self.said);
        let signature = hash.hmac(&keys.stored, said.as_bytes());
        let client_key = exclusive_or(&proof, &signature);
        let is_right: bool = hash.digest(&client_key).ct_eq(&keys.stored).into();
        is_right.then(|| {
            let signature = hash.hmac(&keys.server, said.as_bytes());
            format!("v={}", Base64::encode_string(&signature))
        })
    }
}

impl fmt::Debug for ServerExchange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ServerExchange")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// The client's end.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientExchange {
    hash: Hash,
    password: String,
    nonce: String,
    bare: String,
    /// What the server must say at the end; `None` before its first message.
    expected: Option<String>,
}

impl ClientExchange {
    /// A login; `nonce` is a text that was never used before.
    #[must_use]
    pub fn new(hash: Hash, user: &str, password: &str, nonce: &str) -> Self {
        let user = prepared(user).replace('=', "=3D").replace(',', "=2C");
        Self {
            hash,
            password: password.to_owned(),
            nonce: nonce.to_owned(),
            bare: format!("n={user},r={nonce}"),
            expected: None,
        }
    }

    /// The first message.
    #[must_use]
    pub fn first(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// Answers a message of the server: with the proof to its first one, with nothing when it has proved itself.
    /// Slow.
    ///
    /// # Errors
    /// What is wrong with the server, in words.
    pub fn answer(&mut self, message: &[u8]) -> Result<String, &'static str> {
        let malformed = "the server's SCRAM message is malformed";
        let text = text_of(message).ok_or(malformed)?;
        if let Some(expected) = &self.expected {
            let is_right: bool = expected.as_bytes().ct_eq(text.as_bytes()).into();
            return match is_right {
                true => Ok(String::new()),
                false => Err("the server does not know the password: it may be an impostor"),
            };
        }
        let mut parts = text.split(',');
        let mut next = |mark: &str| parts.next()?.strip_prefix(mark);
        let (nonce, salt, iterations) =
            (|| Some((next("r=")?, next("s=")?, next("i=")?)))().ok_or(malformed)?;
        let salt = Base64::decode_vec(salt).map_err(|_| malformed)?;
        let iterations: NonZeroU32 = iterations.parse().map_err(|_| malformed)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the server answers to another SCRAM dialogue");
        }
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations.get()) {
            return Err("the server wants a number of SCRAM iterations that is not sensible");
        }
        let hash = self.hash;
        let salted = hash.salted(&self.password, &salt, iterations);
        let without_proof = format!("c=biws,r={nonce}");
        let said = format!("{},{text},{without_proof}", self.bare);
        let client_key = hash.hmac(&salted, b"Client Key");
        let signature = hash.hmac(&hash.digest(&client_key), said.as_bytes());
        let proof = Base64::encode_string(&exclusive_or(&client_key, &signature));
        let signature = hash.hmac(&hash.hmac(&salted, b"Server Key"), said.as_bytes());
        self.expected = Some(format!("v={}", Base64::encode_string(&signature)));
        Ok(format!("{without_proof},p={proof}"))
    }
}

impl fmt::Debug for ClientExchange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ClientExchange")
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

fn text_of(message: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(message).ok()?;
    (text.len() <= MESSAGE_BYTES_MAX && !text.contains('\0')).then_some(text)
}

/// `=2C` stands for a comma and `=3D` for `=`.
fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let (letter, rest) = match part.split_at_checked(2)? {
            ("2C", rest) => (',', rest),
            ("3D", rest) => ('=', rest),
            _ => return None,
        };
        text.push(letter);
        text.push_str(rest);
    }
    Some(text)
}

fn exclusive_or(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(a, b)| a ^ b).collect()
}
