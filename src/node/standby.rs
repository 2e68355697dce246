//! What a server that is not active says to clients.

use std::sync::Arc;

use bytes::BytesMut;

use crate::auth::{Dialogue, LoginTask, Users, Verdict};
use crate::proto::{Connection, ErrorCondition, Event, SaslCode, Value, condition};

use super::sasl::{Answer, Next, Sasl};
use super::settings::offer_external;
use super::{Caller, NodeSettings, Now, ServerAddress};

/// A connection to a standby: it is welcomed, opened and closed at once with a reason that makes
/// the client try elsewhere. A failing SASL code or an authorization error would make clients give
/// up for good.
///
/// With authorization clients log in here as well: SCRAM proves to them that the server is the right one.
/// Whoever fails hears nothing more. The files that this server has read may be older than those of the active
/// one, which is the one to judge.
#[derive(Debug)]
pub struct Standby {
    connection: Connection,
    active: Option<ServerAddress>,
    sasl: Sasl,
    /// `None`: everybody is welcomed.
    users: Option<Arc<Users>>,
    login: Option<LoginTask>,
    is_refused: bool,
}

impl Standby {
    /// A client connected to a server that is not active. `active`: where the active is, if known;
    /// `users`: those who may connect, with authorization.
    pub fn new(
        settings: &NodeSettings,
        active: Option<ServerAddress>,
        (caller, users): (Caller, Option<Arc<Users>>),
        now: Now,
    ) -> Self {
        let mut proto = settings.proto_settings(None, users.is_some());
        if caller.certificate.is_some() {
            offer_external(&mut proto);
        }
        Self {
            connection: Connection::server(proto, now.monotonic_ms),
            active,
            sasl: Sasl::new(caller),
            users,
            login: None,
            is_refused: false,
        }
    }

    /// A login to be judged.
    pub fn poll_login(&mut self) -> Option<LoginTask> {
        self.login.take()
    }

    /// Takes a judgement: what [`LoginTask::run`] returned.
    pub fn login_done(&mut self, judgement: (Dialogue, Verdict)) {
        let answer = self.sasl.judged(judgement);
        self.answer_sasl(answer);
        self.answer();
        self.connection.flush();
    }

    fn answer_sasl(&mut self, answer: Answer) {
        match answer {
            Answer::Challenge(text) => self.connection.sasl_challenge(&text),
            Answer::Welcome { last_word, .. } => {
                let last_word = last_word.as_deref();
                self.connection.sasl_outcome(SaslCode::Ok, last_word);
            }
            Answer::Refused(_) => self.is_refused = true,
        }
    }

    fn take_step(&mut self, next: Next) {
        match next {
            Next::Answer(answer) => self.answer_sasl(answer),
            Next::Judge(task) => self.login = Some(task),
        }
    }

    /// The client sent bytes.
    pub fn handle_bytes(&mut self, now: Now, input: &mut BytesMut) {
        loop {
            let before = input.len();
            self.connection.handle_bytes(now.monotonic_ms, input);
            self.answer();
            if input.is_empty() || input.len() == before {
                break;
            }
        }
        self.connection.flush();
    }

    fn answer(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::SaslInit {
                    mechanism,
                    response,
                    ..
                } => {
                    let users = self.users.as_ref();
                    let next = self.sasl.begin(mechanism, response.as_deref(), users);
                    self.take_step(next);
                }
                Event::SaslResponse(response) => {
                    let next = self.sasl.go_on(Some(&response), self.users.as_ref());
                    self.take_step(next);
                }
                Event::Opened(remote) => {
                    let is_product = |(key, value): &(_, Value)| {
                        let key: &crate::proto::Symbol = key;
                        key.as_str() == "product"
                            && matches!(value, Value::String(name) if name == "QpidJMS")
                    };
                    let follows_redirects = remote.properties.iter().any(is_product);
                    let error = self.reason(follows_redirects);
                    self.connection.close_now(Some(error));
                }
                _ => {}
            }
        }
    }

    /// Only Qpid JMS goes where a redirect points; others stop reconnecting.
    fn reason(&self, follows_redirects: bool) -> ErrorCondition {
        match &self.active {
            Some(active) if follows_redirects => ErrorCondition::new(
                condition::CONNECTION_REDIRECT,
                "this server stands by; the active server is elsewhere",
            )
            .with_info("network-host", Value::String(active.host.clone()))
            .with_info("port", Value::Int(i32::from(active.port)))
            .with_info("scheme", Value::String(active.scheme().to_owned())),
            _ => ErrorCondition::new(
                condition::CONNECTION_FORCED,
                "this server stands by; connect to the other server of the pair",
            ),
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.connection.handle_timeout(now.monotonic_ms);
        self.answer();
        self.connection.flush();
    }

    /// Output to be written and advanced.
    pub fn output(&mut self) -> &mut BytesMut {
        self.connection.output()
    }

    /// Whether the socket is to be closed once the output is written.
    pub fn is_finished(&self) -> bool {
        self.is_refused || self.connection.is_finished()
    }
}
