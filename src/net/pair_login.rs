//! How one server of a pair proves to the other that it is one: SCRAM-SHA-256 (RFC 5802, RFC 7677)
//! over the lines of their link.
//!
//! A server with `authorization` enabled asks whoever is at the other end for the password of the user
//! named after itself. The other one has it in its parameter `password`. Where it is enabled on both
//! there are two such dialogues, one in each direction, so each proves to the other what it knows.
//! The password never crosses the wire, and a server keeps no more of it than keys.
//!
//! Both nonces of a dialogue begin with the identity of the process that made them, and both are
//! covered by the proofs: what one server has said to prove itself proves nothing anywhere else, least of
//! all to itself.

use std::fmt;

use crate::auth::{ClientExchange, ClientFirst, Hash, ScramKeys, ServerExchange, nonce};
use crate::config::Config;
use crate::config::companions::Companions;
use crate::model::{Secret, StoredPassword};

const HASH: Hash = Hash::Sha256;

/// What a server needs to log in and to be logged in to.
#[derive(Clone)]
pub(crate) struct Login {
    /// The `server` parameter, and the name of the user.
    pub(crate) server: String,
    /// `authorization`.
    pub(crate) is_required: bool,
    password: Option<Secret>,
    user: User,
}

/// The user that others log in as.
#[derive(Clone)]
enum User {
    /// There is none.
    Missing,
    /// There is one, and no password that could be proved.
    WithoutPassword,
    Known {
        keys: ScramKeys,
        /// Whether our own `password` is the same one; `None` without one.
        is_ours: Option<bool>,
    },
}

impl fmt::Debug for Login {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Login")
            .field("server", &self.server)
            .field("is_required", &self.is_required)
            .finish_non_exhaustive()
    }
}

/// Why a login failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// For our own log.
    pub(crate) here: String,
    /// For the other server; says nothing that it does not know or cannot find out by trying.
    pub(crate) there: String,
}

impl Login {
    /// What the configuration says. Slow when authorization is enabled.
    pub(crate) fn new(config: &Config, companions: &Companions) -> Self {
        let password = config.password.clone();
        let mut users = companions.users.entries();
        let user = match users.find(|user| user.name == config.server) {
            // Nobody is asked.
            _ if !config.authorization => User::Missing,
            None => User::Missing,
            Some(user) => match keys(&user.password) {
                None => User::WithoutPassword,
                Some(keys) => User::Known {
                    is_ours: password.as_ref().map(|own| keys.is_password(own.expose())),
                    keys,
                },
            },
        };
        Self {
            server: config.server.clone(),
            is_required: config.authorization,
            password,
            user,
        }
    }

    /// Why nobody can log in, where that is so.
    fn impossible(&self) -> Option<Refusal> {
        let name = &self.server;
        let (what, advice) = match &self.user {
            User::Missing => ("there is no user", "create it"),
            User::WithoutPassword => ("there is no usable password of the user", "set it"),
            User::Known { .. } => return None,
        };
        Some(Refusal {
            here: format!(
                "users: {what} `{name}` here, as which the other server logs in; {advice}, with the \
                 `password` of the other server's main file"
            ),
            there: format!(
                "users: {what} `{name}` at the other server, as which this one logs in; {advice} \
                 there, with the `password` of this server's main file"
            ),
        })
    }

    /// The proof is wrong. Of the four places where the password stands two are ours.
    fn mismatch(&self) -> Refusal {
        let name = &self.server;
        let here = match &self.user {
            User::Known {
                is_ours: Some(true),
                ..
            } => format!(
                "password: the other server's is wrong: it is not that of the user `{name}` here, which \
                 is also the `password` of this server; set the same `password` there"
            ),
            User::Known {
                is_ours: Some(false),
                ..
            } => format!(
                "users: the user `{name}` here has another password than both servers' `password`, or \
                 these differ too; give the user the `password` of the main files"
            ),
            _ => format!(
                "password: the other server's is not that of the user `{name}` here, and none is set \
                 here; set the same `password` on both servers, and for that user"
            ),
        };
        Refusal {
            here,
            there: format!(
                "password: it is not that of the user `{name}` at the other server, or that user's is \
                 wrong; the log there says which"
            ),
        }
    }
}

fn keys(password: &StoredPassword) -> Option<ScramKeys> {
    match password {
        StoredPassword::Plain(secret) => {
            Some(ScramKeys::derive(HASH, secret.expose(), nonce().as_bytes()))
        }
        StoredPassword::Keys(secret) => {
            let mut keys = secret.expose().split('|').filter_map(ScramKeys::parse);
            keys.find(|keys| keys.hash() == HASH)
        }
        StoredPassword::Empty | StoredPassword::Foreign(_) => None,
    }
}

/// The two processes of a dialogue.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub(crate) own: String,
    pub(crate) other: String,
}

impl Ends {
    /// A nonce of ours.
    fn nonce(&self) -> String {
        format!("{}.{}", self.own, nonce())
    }

    fn is_theirs(&self, nonce: &str) -> bool {
        let rest = nonce.strip_prefix(self.other.as_str());
        self.own != self.other && rest.is_some_and(|rest| rest.starts_with('.'))
    }
}

/// The side that logs in.
pub(crate) struct Prover {
    exchange: ClientExchange,
    nonce: String,
    ends: Ends,
}

impl Prover {
    /// The dialogue and its first message.
    ///
    /// # Errors
    /// There is no password to log in with.
    pub(crate) fn begin(login: &Login, ends: Ends) -> Result<(Self, String), Refusal> {
        let name = &login.server;
        let Some(password) = &login.password else {
            return Err(Refusal {
                here:
                    "password: not set here, and the other server has authorization enabled: set \
                       the same `password` on both servers"
                        .to_owned(),
                there: format!(
                    "password: not set at the other server, which cannot log in here as `{name}`; set \
                     the same `password` on both servers"
                ),
            });
        };
        let nonce = ends.nonce();
        let exchange = ClientExchange::new(HASH, name, password.expose(), &nonce);
        let first = exchange.first();
        let prover = Self {
            exchange,
            nonce,
            ends,
        };
        Ok((prover, first))
    }

    /// The proof. Slow.
    ///
    /// # Errors
    /// The other side answers to somebody else.
    pub(crate) fn prove(mut self, message: &str) -> Result<(Self, String), String> {
        let answered = message.strip_prefix("r=");
        let theirs = answered.and_then(|text| text.strip_prefix(self.nonce.as_str()));
        if !theirs.is_some_and(|nonce| self.ends.is_theirs(nonce)) {
            return Err("the other server answers to another login".to_owned());
        }
        let proof = self.exchange.answer(message.as_bytes())?;
        Ok((self, proof))
    }

    /// Looks whether the other side knows the password too.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn conclude(mut self, message: &str) -> Result<(), String> {
        self.exchange.answer(message.as_bytes())?;
        Ok(())
    }
}

/// The side that is logged in to.
pub(crate) struct Verifier {
    exchange: ServerExchange,
}

impl Verifier {
    /// Answers the first message.
    ///
    /// # Errors
    /// The message is malformed, or nobody can log in here.
    pub(crate) fn begin(
        login: &Login,
        ends: &Ends,
        message: &str,
    ) -> Result<(Self, String), Refusal> {
        if let Some(refusal) = login.impossible() {
            return Err(refusal);
        }
        let first = ClientFirst::parse(message.as_bytes());
        let first = first.filter(|first| ends.is_theirs(first.nonce()));
        let (Some(first), User::Known { keys, .. }) = (first, &login.user) else {
            return Err(Refusal::malformed());
        };
        let (exchange, answer) = ServerExchange::begin(first, keys.clone(), &ends.nonce());
        Ok((Self { exchange }, answer))
    }

    /// Judges the proof and returns our own.
    ///
    /// # Errors
    /// It is wrong.
    pub(crate) fn conclude(self, login: &Login, message: &str) -> Result<String, Refusal> {
        let proof = self.exchange.finish(message.as_bytes(), None);
        proof.ok_or_else(|| login.mismatch())
    }
}

impl Refusal {
    fn malformed() -> Self {
        Self {
            here: "the other server's login is malformed".to_owned(),
            there: "the login is malformed".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(password: Option<&str>, user: Option<&str>) -> Login {
        let password = password.map(|text| Secret::new(text.to_owned()));
        let user = match user {
            None => User::Missing,
            Some(text) => {
                let keys = ScramKeys::derive(HASH, text, b"salt");
                let is_ours = password.as_ref().map(|own| keys.is_password(own.expose()));
                User::Known { keys, is_ours }
            }
        };
        Login {
            server: "EMS-SERVER".to_owned(),
            is_required: true,
            password,
            user,
        }
    }

    fn ends(own: &str, other: &str) -> Ends {
        Ends {
            own: own.to_owned(),
            other: other.to_owned(),
        }
    }

    /// `a` logs in to `b`; the refusal and the side that refuses.
    fn log_in(a: &Login, b: &Login) -> Result<(), (&'static str, Refusal)> {
        let begun = Prover::begin(a, ends("a", "b")).map_err(|refusal| ("a", refusal));
        let (prover, first) = begun?;
        let (verifier, answer) =
            Verifier::begin(b, &ends("b", "a"), &first).map_err(|refusal| ("b", refusal))?;
        let (prover, proof) = prover.prove(&answer).expect("the right dialogue");
        assert!(!proof.contains("secret") && !first.contains("secret"));
        let concluded = verifier.conclude(b, &proof);
        let last = concluded.map_err(|refusal| ("b", refusal))?;
        prover.conclude(&last).expect("it knows the password");
        Ok(())
    }

    #[test]
    fn the_same_password_in_the_main_file_and_of_the_user_logs_in() {
        let both = login(Some("secret"), Some("secret"));
        assert_eq!(log_in(&both, &both), Ok(()));
        // The chapter's sequence: one server has everything, the other its own password.
        assert_eq!(log_in(&login(Some("secret"), None), &both), Ok(()));
    }

    #[test]
    fn each_missing_step_is_named_on_both_sides() {
        let whole = login(Some("secret"), Some("secret"));
        for (a, b, side, here, there) in [
            (
                login(None, Some("secret")),
                whole.clone(),
                "a",
                "password: not set here",
                "password: not set at the other server",
            ),
            (
                whole.clone(),
                login(Some("secret"), None),
                "b",
                "users: there is no user `EMS-SERVER` here",
                "users: there is no user `EMS-SERVER` at the other server",
            ),
            (
                login(Some("wrong"), Some("wrong")),
                whole.clone(),
                "b",
                "password: the other server's is wrong",
                "password: it is not that of the user `EMS-SERVER` at the other server",
            ),
            (
                whole,
                login(Some("secret"), Some("wrong")),
                "b",
                "users: the user `EMS-SERVER` here has another password",
                "password: it is not that of the user `EMS-SERVER` at the other server",
            ),
        ] {
            let (who, refusal) = log_in(&a, &b).expect_err("a step is missing");
            assert_eq!(who, side);
            assert!(refusal.here.starts_with(here), "{refusal:?}");
            assert!(refusal.there.starts_with(there), "{refusal:?}");
        }
    }

    /// Somebody without the password has a server prove itself, and says the same back to it.
    #[test]
    fn what_a_server_says_to_prove_itself_proves_nothing_to_itself() {
        let victim = login(Some("secret"), Some("secret"));
        for (claimed, expected) in [("m", false), ("v", false)] {
            // The victim logs in to the stranger, who calls itself `m`.
            let (prover, first) = Prover::begin(&victim, ends("v", "m")).expect("it has one");
            // The stranger logs in to the victim with these words.
            let begun = Verifier::begin(&victim, &ends("v", claimed), &first);
            assert_eq!(begun.is_ok(), expected, "{claimed}");
            // Nor does the victim take an answer that it made itself.
            let keys = ScramKeys::derive(HASH, "secret", b"salt");
            let parsed = ClientFirst::parse(first.as_bytes()).expect("it is whole");
            let (_, answer) = ServerExchange::begin(parsed, keys, &ends("v", "m").nonce());
            assert!(prover.prove(&answer).is_err());
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let login = login(Some("secret"), Some("secret"));
        let shown = format!("{login:?}");
        assert!(!shown.contains("secret"), "{shown}");
    }
}
