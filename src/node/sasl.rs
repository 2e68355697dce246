//! Who the client is: SASL ANONYMOUS (RFC 4505), EXTERNAL (RFC 4422, appendix A) for clients whose certificate
//! was verified, and the mechanisms with passwords of [`crate::auth`].
//!
//! Without authorization everybody is welcome under the name that they give.

use std::sync::Arc;

use crate::auth::{Dialogue, LoginTask, Users, Verdict, plain_parts};
use crate::proto::SaslCode;

use super::Caller;

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The client has to say more.
    Challenge(Vec<u8>),
    /// Welcome.
    Welcome {
        /// The user's name unless anonymous.
        user: Option<String>,
        /// It was proved.
        is_verified: bool,
        /// What the client gets with the news.
        last_word: Option<Vec<u8>>,
    },
    /// Refused.
    Refused(SaslCode),
}

/// What to do with what the client said.
#[derive(Debug)]
pub(crate) enum Next {
    /// Answer it.
    Answer(Answer),
    /// Have it judged; the answer follows with [`Sasl::judged`].
    Judge(LoginTask),
}

/// The SASL layer of one connection.
#[derive(Debug, Default)]
pub(crate) struct Sasl {
    pub(crate) caller: Caller,
    mechanism: String,
    dialogue: Option<Dialogue>,
    /// Those whose passwords count in the dialogue.
    users: Option<Arc<Users>>,
}

impl Sasl {
    pub(crate) fn new(caller: Caller) -> Self {
        Self {
            caller,
            ..Self::default()
        }
    }

    /// The client chose a mechanism. `users`: those who may connect; everybody without it.
    pub(crate) fn begin(
        &mut self,
        mechanism: String,
        response: Option<&[u8]>,
        users: Option<&Arc<Users>>,
    ) -> Next {
        self.dialogue = Dialogue::new(&mechanism, self.caller.address);
        self.mechanism = mechanism;
        self.users = users.cloned();
        self.go_on(response, users)
    }

    /// The client said something, or nothing.
    pub(crate) fn go_on(&mut self, response: Option<&[u8]>, users: Option<&Arc<Users>>) -> Next {
        if let Some(answer) = self.by_certificate(response, users) {
            let certificate = self.caller.certificate.as_ref();
            return match (&answer, users) {
                (Answer::Refused(_), Some(users)) => {
                    self.refuse(certificate.map(|it| it.name.as_str()), users)
                }
                _ => Next::Answer(answer),
            };
        }
        let Some(users) = users else {
            return Next::Answer(open_to_all(&self.mechanism, response));
        };
        let (Some(dialogue), Some(response)) = (self.dialogue.take(), response) else {
            // What is not offered here, or the client waits for our word first.
            self.dialogue = Dialogue::new(&self.mechanism, self.caller.address);
            return match (&self.dialogue, response) {
                (Some(_), None) => Next::Answer(Answer::Challenge(Vec::new())),
                _ => self.refuse(None, users),
            };
        };
        Next::Judge(LoginTask::new(
            dialogue,
            Arc::clone(users),
            response.to_vec(),
        ))
    }

    /// Refuses as a wrong password: with a delay and a line in the log. `certificate`: the name in the one that is
    /// refused.
    fn refuse(&self, certificate: Option<&str>, users: &Arc<Users>) -> Next {
        let (address, users) = (self.caller.address, Arc::clone(users));
        Next::Judge(LoginTask::refused(
            &self.mechanism,
            certificate,
            address,
            users,
        ))
    }

    /// A response was judged, by passwords as they were when the dialogue began. `users`: as they are now.
    pub(crate) fn judged(
        &mut self,
        (dialogue, verdict): (Dialogue, Verdict),
        users: Option<&Arc<Users>>,
    ) -> Answer {
        self.dialogue = Some(dialogue);
        match verdict {
            Verdict::Welcome { user, .. } if !self.is_current(&user, users) => {
                Answer::Refused(SaslCode::SysTemp)
            }
            Verdict::Challenge(text) => Answer::Challenge(text),
            Verdict::Welcome { user, last_word } => {
                let certificate = self.caller.certificate.as_ref();
                let forced = certificate.filter(|certificate| certificate.is_forced);
                Answer::Welcome {
                    user: Some(forced.map_or(user, |certificate| certificate.name.clone())),
                    is_verified: true,
                    last_word,
                }
            }
            Verdict::Refused => refused(),
            Verdict::Busy => Answer::Refused(SaslCode::SysTemp),
        }
    }

    /// Whether the password of a user is what it was when the dialogue began.
    fn is_current(&self, user: &str, users: Option<&Arc<Users>>) -> bool {
        let Some(now) = users else {
            // Nobody is asked any more.
            return true;
        };
        let begun = self.users.as_ref();
        begun.is_some_and(|begun| Arc::ptr_eq(begun, now) || now.has_password_of(begun, user))
    }

    /// What the certificate of the client decides, if anything.
    fn by_certificate(
        &self,
        response: Option<&[u8]>,
        users: Option<&Arc<Users>>,
    ) -> Option<Answer> {
        let is_external = self.mechanism == "EXTERNAL";
        let Some(certificate) = &self.caller.certificate else {
            return is_external.then(refused);
        };
        let name = &certificate.name;
        let is_known = users.is_none_or(|users| users.has(name));
        let is_asked = match self.mechanism.as_str() {
            "EXTERNAL" => match response {
                None => return Some(Answer::Challenge(Vec::new())),
                // Nothing, or the name that the certificate says anyway.
                Some(acts_for) if acts_for.is_empty() || acts_for == name.as_bytes() => true,
                Some(_) => return Some(refused()),
            },
            "ANONYMOUS" => certificate.is_forced,
            "PLAIN" => response.is_some_and(|response| {
                let said = plain_parts(response).map(|(user, _)| user);
                certificate.is_forced || (said.is_some() && said == certificate.request.as_deref())
            }),
            // The right password of somebody else would not help.
            _ => certificate.is_forced && !is_known,
        };
        is_asked.then(|| match is_known {
            true => Answer::Welcome {
                user: Some(name.clone()),
                is_verified: true,
                last_word: None,
            },
            false => refused(),
        })
    }
}

fn refused() -> Answer {
    Answer::Refused(SaslCode::Auth)
}

/// Without authorization.
fn open_to_all(mechanism: &str, response: Option<&[u8]>) -> Answer {
    let user = match (mechanism, response) {
        ("ANONYMOUS", _) => None,
        ("PLAIN", None) => return Answer::Challenge(Vec::new()),
        ("PLAIN", Some(response)) => match plain_parts(response) {
            Some((user, _)) => Some(user.to_owned()),
            None => return refused(),
        },
        _ => return refused(),
    };
    Answer::Welcome {
        user,
        is_verified: false,
        last_word: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{Secret, StoredPassword};
    use crate::node::CertificateUser;

    fn users() -> Arc<Users> {
        let secret = StoredPassword::Plain(Secret::new(String::from("secret")));
        let list = ["ann", "carol"].map(|name| (name.to_owned(), secret.clone()));
        Arc::new(Users::new(&BTreeMap::from(list)))
    }

    /// The answer to one response.
    fn answer(
        mechanism: &str,
        response: Option<&[u8]>,
        users: Option<&Arc<Users>>,
        certificate: Option<&CertificateUser>,
    ) -> Answer {
        let mut sasl = Sasl::new(Caller {
            address: None,
            certificate: certificate.cloned(),
        });
        match sasl.begin(mechanism.to_owned(), response, users) {
            Next::Answer(answer) => {
                let is_silent = users.is_some() && answer == refused();
                assert!(!is_silent, "{mechanism}: nobody hears of the refusal");
                answer
            }
            Next::Judge(task) => sasl.judged(task.run(), users),
        }
    }

    #[test]
    fn a_password_that_was_changed_meanwhile_lets_nobody_in() {
        let list = |carols: &str| {
            let secret = |text: &str| StoredPassword::Plain(Secret::new(text.to_owned()));
            let list = [("ann", "secret"), ("carol", carols)];
            let list = list.map(|(name, text)| (name.to_owned(), secret(text)));
            Arc::new(Users::new(&BTreeMap::from(list)))
        };
        let (before, after) = (list("secret"), list("new"));
        let says = |response: &[u8], now| {
            let mut sasl = Sasl::new(Caller::default());
            match sasl.begin("PLAIN".to_owned(), Some(response), Some(&before)) {
                Next::Judge(task) => sasl.judged(task.run(), now),
                other => panic!("{other:?}"),
            }
        };
        let carol = b"\0carol\0secret";
        assert_eq!(says(carol, Some(&before)), welcome(Some("carol"), true));
        assert_eq!(
            says(carol, Some(&after)),
            Answer::Refused(SaslCode::SysTemp)
        );
        assert_eq!(says(b"\0carol\0x", Some(&after)), refused());
        let gone = Arc::new(Users::new(&BTreeMap::new()));
        assert_eq!(says(carol, Some(&gone)), Answer::Refused(SaslCode::SysTemp));
        assert_eq!(says(carol, None), welcome(Some("carol"), true));
        // That of somebody else is nothing to her.
        assert_eq!(
            says(b"\0ann\0secret", Some(&after)),
            welcome(Some("ann"), true)
        );
    }

    fn welcome(user: Option<&str>, is_verified: bool) -> Answer {
        Answer::Welcome {
            user: user.map(str::to_owned),
            is_verified,
            last_word: None,
        }
    }

    #[test]
    fn everybody_is_welcome_without_authorization() {
        let say = |mechanism, response| answer(mechanism, response, None, None);
        let bob = welcome(Some("bob"), false);
        assert_eq!(say("ANONYMOUS", None), welcome(None, false));
        assert_eq!(say("PLAIN", Some(b"\0bob\0x")), bob);
        assert_eq!(say("PLAIN", Some(b"\0bob\0")), bob);
        assert_eq!(say("PLAIN", Some(b"bob\0bob\0x")), bob);
        assert_eq!(say("SCRAM-SHA-256", Some(b"n,,n=bob,r=x")), refused());
    }

    #[test]
    fn passwords_decide_and_anonymous_is_refused_with_authorization() {
        let users = users();
        let say = |mechanism, response| answer(mechanism, response, Some(&users), None);
        assert_eq!(
            say("PLAIN", Some(b"\0ann\0secret")),
            welcome(Some("ann"), true)
        );
        assert_eq!(say("PLAIN", Some(b"\0ann\0wrong")), refused());
        assert_eq!(say("PLAIN", Some(b"\0bob\0secret")), refused());
        assert_eq!(say("ANONYMOUS", None), refused());
        assert_eq!(say("ANONYMOUS", Some(b"ann")), refused());
        assert_eq!(say("GSSAPI", Some(b"ann")), refused());
        let challenge = say("SCRAM-SHA-512", Some(b"n,,n=ann,r=x"));
        assert!(matches!(challenge, Answer::Challenge(text) if text.starts_with(b"r=x")));
        assert_eq!(say("SCRAM-SHA-512", Some(b"garbage")), refused());
    }

    #[test]
    fn malformed_responses_are_refused() {
        for users in [None, Some(users())] {
            let say = |mechanism, response| answer(mechanism, response, users.as_ref(), None);
            for response in [
                &b""[..],
                b"x",
                b"\0\0",
                b"\0a\0b\0c",
                b"x\0a\0b",
                b"\0\xff\0b",
                &[b'x'; 4096],
            ] {
                assert_eq!(say("PLAIN", Some(response)), refused());
            }
            assert_eq!(say("EXTERNAL", None), refused());
        }
    }

    #[test]
    fn a_verified_certificate_says_who_the_user_is() {
        let user = |is_forced| CertificateUser {
            name: String::from("carol"),
            is_forced,
            request: Some(String::from("CERTIFICATE_USER")),
        };
        let (asked, forced, users) = (user(false), user(true), users());
        let say = |mechanism, response: Option<&[u8]>, user| {
            answer(mechanism, response, Some(&users), Some(user))
        };
        let carol = welcome(Some("carol"), true);
        let ann = welcome(Some("ann"), true);
        assert_eq!(say("EXTERNAL", None, &asked), Answer::Challenge(Vec::new()));
        assert_eq!(say("EXTERNAL", Some(b""), &asked), carol);
        assert_eq!(say("EXTERNAL", Some(b"carol"), &asked), carol);
        assert_eq!(say("EXTERNAL", Some(b"ann"), &asked), refused());
        assert_eq!(say("PLAIN", Some(b"\0CERTIFICATE_USER\0"), &asked), carol);
        assert_eq!(say("PLAIN", Some(b"\0ann\0secret"), &asked), ann);
        assert_eq!(say("PLAIN", Some(b"\0ann\0wrong"), &asked), refused());
        assert_eq!(say("PLAIN", Some(b"\0ann\0secret"), &forced), carol);
        assert_eq!(say("ANONYMOUS", None, &forced), carol);
        assert_eq!(say("ANONYMOUS", None, &asked), refused());
        let unknown = CertificateUser {
            name: String::from("dave"),
            ..user(true)
        };
        for mechanism in ["EXTERNAL", "ANONYMOUS"] {
            assert_eq!(say(mechanism, Some(b""), &unknown), refused());
            let anyway = answer(mechanism, Some(b""), None, Some(&unknown));
            assert_eq!(anyway, welcome(Some("dave"), true));
        }
        let first = Some(&b"n,,n=ann,r=x"[..]);
        assert_eq!(say("SCRAM-SHA-256", first, &unknown), refused());
        let challenge = say("SCRAM-SHA-256", first, &forced);
        assert!(matches!(challenge, Answer::Challenge(text) if text.starts_with(b"r=x")));
    }

    #[test]
    fn a_mechanism_without_a_first_response_is_asked_for_one() {
        let users = users();
        for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
            let mut sasl = Sasl::new(Caller::default());
            let next = sasl.begin(mechanism.to_owned(), None, Some(&users));
            assert!(matches!(next, Next::Answer(Answer::Challenge(text)) if text.is_empty()));
            let response: &[u8] = match mechanism {
                "PLAIN" => b"\0ann\0secret",
                _ => b"n,,n=ann,r=x",
            };
            let next = sasl.go_on(Some(response), Some(&users));
            assert!(matches!(next, Next::Judge(_)), "{mechanism}: {next:?}");
        }
        assert_eq!(
            answer("PLAIN", None, None, None),
            Answer::Challenge(Vec::new())
        );
    }
}
