//! One login, from the server's end: mechanisms PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512, and the refusal of what comes
//! without a password.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::scram::{ClientFirst, Hash, ServerExchange};
use super::{Users, nonce, prepared};

/// Longest response of PLAIN that is looked at, bytes.
const RESPONSE_BYTES_MAX: usize = 2048;

/// What to answer to a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A challenge.
    Challenge(Vec<u8>),
    /// Authenticated.
    Welcome {
        /// The user's name, as it is configured.
        user: String,
        /// What the client gets with the news.
        last_word: Option<Vec<u8>>,
    },
    /// Wrong.
    Refused,
    /// Not judged: too many log in at once.
    Busy,
}

/// What was said so far.
#[derive(Debug)]
enum Step {
    /// Nothing that counts.
    Begin,
    /// The server's first message of SCRAM.
    Proof {
        user: String,
        exchange: Box<ServerExchange>,
    },
    /// It is over.
    End,
}

#[derive(Clone, Copy, Debug)]
enum Mechanism {
    Plain,
    Scram(Hash),
    /// Somebody without a password who is not welcome, by the mechanism of this name.
    Refused {
        name: &'static str,
        has_certificate: bool,
    },
}

/// A login that is under way.
#[derive(Debug)]
pub struct Dialogue {
    mechanism: Mechanism,
    /// Where the client is.
    address: Option<IpAddr>,
    step: Step,
    /// The user that the client claims to be.
    claimed: Option<String>,
}

impl Dialogue {
    /// A login with this mechanism from an address. `None`: there is no such mechanism here.
    #[must_use]
    pub fn new(mechanism: &str, address: Option<IpAddr>) -> Option<Self> {
        let mechanism = match Hash::of_mechanism(mechanism) {
            Some(hash) => Mechanism::Scram(hash),
            None if mechanism == "PLAIN" => Mechanism::Plain,
            None => return None,
        };
        Some(Self {
            mechanism,
            address,
            step: Step::Begin,
            claimed: None,
        })
    }

    /// The user that the client claims to be, once it has said so.
    #[must_use]
    pub fn claimed(&self) -> Option<&str> {
        self.claimed.as_deref()
    }

    /// Whether the client is on this host.
    fn is_local(&self) -> bool {
        self.address.is_some_and(|address| address.is_loopback())
    }

    fn scram(&mut self, hash: Hash, users: &Users, response: &[u8]) -> Verdict {
        match std::mem::replace(&mut self.step, Step::End) {
            Step::Begin => {
                let Some(first) = ClientFirst::parse(response) else {
                    return Verdict::Refused;
                };
                let user = first.user.clone();
                self.claimed = Some(user.clone());
                let keys = users.scram(hash, &user, self.is_local());
                let (exchange, answer) = ServerExchange::begin(first, keys, &nonce());
                self.step = Step::Proof {
                    user,
                    exchange: Box::new(exchange),
                };
                Verdict::Challenge(answer.into_bytes())
            }
            Step::Proof { user, exchange } => {
                let made = users.scram_made(hash, &user, self.is_local());
                let proof = exchange.finish(response, made);
                match (proof, users.name_of(&user)) {
                    (Some(proof), Some(user)) => Verdict::Welcome {
                        user: user.to_owned(),
                        last_word: Some(proof.into_bytes()),
                    },
                    _ => Verdict::Refused,
                }
            }
            Step::End => Verdict::Refused,
        }
    }

    fn plain(&mut self, users: &Users, response: &[u8]) -> Verdict {
        let Some((user, password)) = plain_parts(response) else {
            return Verdict::Refused;
        };
        self.claimed = Some(prepared(user).into_owned());
        match users.check(user, password, self.is_local()) {
            Some(user) => Verdict::Welcome {
                user,
                last_word: None,
            },
            None => Verdict::Refused,
        }
    }
}

/// `[authzid] NUL authcid NUL password`: the user and the password. Nobody acts for somebody else.
pub(crate) fn plain_parts(response: &[u8]) -> Option<(&str, &str)> {
    if response.len() > RESPONSE_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(response).ok()?;
    let mut parts = text.split('\0');
    let (acts_for, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let is_self = acts_for.is_empty() || acts_for == user;
    (parts.next().is_none() && is_self && !user.is_empty()).then_some((user, password))
}

/// A response to be judged.
pub struct LoginTask {
    dialogue: Dialogue,
    users: Arc<Users>,
    response: Vec<u8>,
}

impl fmt::Debug for LoginTask {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LoginTask")
            .field("dialogue", &self.dialogue)
            .finish_non_exhaustive()
    }
}

impl LoginTask {
    /// A response that came in a dialogue.
    #[must_use]
    pub fn new(dialogue: Dialogue, users: Arc<Users>, response: Vec<u8>) -> Self {
        Self {
            dialogue,
            users,
            response,
        }
    }

    /// What somebody asks for by a mechanism without a password, and does not get: it is refused like a wrong
    /// password, as late and with a line in the log. `certificate`: the name in the certificate that is refused;
    /// `None`: it is the mechanism, whoever asks.
    #[must_use]
    pub fn refused(
        mechanism: &str,
        certificate: Option<&str>,
        address: Option<IpAddr>,
        users: Arc<Users>,
    ) -> Self {
        // A stranger's words are not repeated.
        let mut known = ["ANONYMOUS", "EXTERNAL", "PLAIN"].into_iter();
        let name = match Hash::of_mechanism(mechanism) {
            Some(hash) => hash.mechanism(),
            None => known.find(|it| *it == mechanism).unwrap_or("unknown"),
        };
        let dialogue = Dialogue {
            mechanism: Mechanism::Refused {
                name,
                has_certificate: certificate.is_some(),
            },
            address,
            step: Step::End,
            claimed: certificate.map(|name| prepared(name).into_owned()),
        };
        Self::new(dialogue, users, Vec::new())
    }

    /// The user that the client claims to be, as names are compared: all ways to write it are one.
    #[must_use]
    pub fn claimed(&self) -> Option<Cow<'_, str>> {
        if let Some(said) = self.dialogue.claimed() {
            return Some(Cow::Borrowed(said));
        }
        match self.dialogue.mechanism {
            Mechanism::Plain => plain_parts(&self.response).map(|(user, _)| prepared(user)),
            Mechanism::Scram(_) => {
                ClientFirst::parse(&self.response).map(|first| Cow::Owned(first.user))
            }
            Mechanism::Refused { .. } => None,
        }
    }

    /// Whether [`Self::run`] takes long: tens of milliseconds instead of microseconds.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        let Dialogue {
            mechanism, step, ..
        } = &self.dialogue;
        let is_local = self.dialogue.is_local();
        match (mechanism, step) {
            (Mechanism::Scram(hash), Step::Proof { user, .. }) => {
                self.users.is_scram_slow(*hash, user, is_local)
            }
            (Mechanism::Scram(_) | Mechanism::Refused { .. }, _) => false,
            (Mechanism::Plain, _) => plain_parts(&self.response)
                .is_some_and(|(user, password)| self.users.is_check_slow(user, password)),
        }
    }

    /// Judges the response. Never panics.
    #[must_use]
    pub fn run(self) -> (Dialogue, Verdict) {
        let Self {
            mut dialogue,
            users,
            response,
        } = self;
        let verdict = match dialogue.mechanism {
            Mechanism::Scram(hash) => dialogue.scram(hash, &users, &response),
            Mechanism::Plain => dialogue.plain(&users, &response),
            Mechanism::Refused { .. } => Verdict::Refused,
        };
        (dialogue, verdict)
    }

    /// Gives the response up without judging it.
    #[must_use]
    pub fn give_up(self) -> (Dialogue, Verdict) {
        (self.dialogue, Verdict::Busy)
    }

    /// Where the client is.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.dialogue.address
    }

    /// The mechanism's name in SASL.
    #[must_use]
    pub fn mechanism(&self) -> &'static str {
        match self.dialogue.mechanism {
            Mechanism::Plain => "PLAIN",
            Mechanism::Scram(hash) => hash.mechanism(),
            Mechanism::Refused { name, .. } => name,
        }
    }

    /// What is wrong when it is refused, for the log.
    #[must_use]
    pub fn refusal(&self) -> &'static str {
        match self.dialogue.mechanism {
            Mechanism::Refused {
                has_certificate: false,
                ..
            } => {
                "this mechanism lets nobody in here: connect with a user and a password, or with a certificate that \
                 ssl_server_trusted covers"
            }
            Mechanism::Refused { .. } => {
                "no user has the name of the certificate, or its owner wants to be somebody else: add the name \
                 to users.conf"
            }
            _ => "wrong user or password, or the user has none here",
        }
    }
}
