//! What a server that is not active says to clients.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;

use crate::auth::{Dialogue, LoginTask, Users, Verdict};
use crate::proto::message::ValueMessage;
use crate::proto::{
    Connection, ErrorCondition, Event, PeerRole, SaslCode, Symbol, Value, condition,
};

use super::desk::{Asked, Desk, is_management};
use super::sasl::{Answer, Next, Sasl};
use super::settings::offer_external;
use super::{Caller, ManagementReply, NodeSettings, Now, ServerAddress};

/// What an administrator's client asks for when it opens, in order not to be sent away.
pub const MANAGEMENT_CAPABILITY: &str = "steadfast:management";
/// Property of the open of a server that serves no clients: `standby`.
pub const ROLE_PROPERTY: &str = "steadfast:role";
/// Property beside it: the URL of the active server, if that is known.
pub const ACTIVE_PROPERTY: &str = "steadfast:active";

/// A connection to a standby: it is welcomed, opened and closed at once with a reason that makes
/// the client try elsewhere. A failing SASL code or an authorization error would make clients give
/// up for good. An administrator, who says so by [`MANAGEMENT_CAPABILITY`], may stay.
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
    /// The user, if it was proved.
    user: Option<String>,
    /// For administrators.
    desk: Option<Desk>,
    requests: VecDeque<Asked>,
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
        proto
            .offered_capabilities
            .push(Symbol::from(MANAGEMENT_CAPABILITY));
        let mut say = |name: &str, value: String| {
            proto
                .properties
                .push((Symbol::from(name), Value::String(value)));
        };
        say(ROLE_PROPERTY, "standby".to_owned());
        if let Some(active) = &active {
            say(ACTIVE_PROPERTY, active.to_string());
        }
        Self {
            connection: Connection::server(proto, now.monotonic_ms),
            active,
            sasl: Sasl::new(caller),
            users,
            login: None,
            is_refused: false,
            user: None,
            desk: None,
            requests: VecDeque::new(),
        }
    }

    /// Whether the client is an administrator's and may stay.
    pub fn is_manager(&self) -> bool {
        self.desk.is_some()
    }

    /// The user of the connection, if it was proved.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The next request of an administrator and the number for [`Self::reply`].
    pub fn poll_request(&mut self) -> Option<(u64, ValueMessage)> {
        let asked = self.requests.pop_front()?;
        Some((asked.number, asked.message))
    }

    /// Answers a request. Replies leave on links of the connection only: there are no queues here.
    pub fn reply(&mut self, number: u64, reply: ManagementReply) {
        if let Some(desk) = &mut self.desk {
            let _nowhere = desk.reply(&mut self.connection, number, reply);
            self.connection.flush();
        }
    }

    /// Ends the connection of an administrator: the server is about to serve clients.
    pub fn close(&mut self) {
        let text = "the server is no standby any more; connect again";
        let error = ErrorCondition::new(condition::CONNECTION_FORCED, text);
        self.connection.close_now(Some(error));
        self.connection.flush();
    }

    /// When [`Self::handle_timeout`] is due, in monotonic milliseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.connection.poll_timeout()
    }

    /// A login to be judged.
    pub fn poll_login(&mut self) -> Option<LoginTask> {
        self.login.take()
    }

    /// Takes a judgement: what [`LoginTask::run`] returned; `users`: those who may connect now.
    pub fn login_done(&mut self, judgement: (Dialogue, Verdict), users: Option<&Arc<Users>>) {
        let answer = self.sasl.judged(judgement, users);
        self.answer_sasl(answer);
        self.answer();
        self.connection.flush();
    }

    fn answer_sasl(&mut self, answer: Answer) {
        match answer {
            Answer::Challenge(text) => self.connection.sasl_challenge(&text),
            Answer::Welcome {
                user,
                is_verified,
                last_word,
            } => {
                self.user = user.filter(|_| is_verified);
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
            let Some(event) = self.divert(event) else {
                continue;
            };
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
                Event::Opened(remote) if wants_management(&remote.desired_capabilities) => {
                    self.desk = Some(Desk::default());
                    self.connection.open();
                }
                Event::Attached(attach) => {
                    let error = self.reason(false);
                    self.connection.refuse_attach(attach.link, error);
                }
                Event::Opened(remote) => {
                    let is_product = |(key, value): &(_, Value)| {
                        let key: &Symbol = key;
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

    /// Takes what is about `$management`; gives back any other event.
    fn divert(&mut self, event: Event) -> Option<Event> {
        let Some(desk) = &mut self.desk else {
            return Some(event);
        };
        if let Event::Attached(attach) = &event {
            let wants_replies = attach.peer_role == PeerRole::Receiver
                && attach.source.as_ref().is_some_and(|it| it.dynamic);
            if is_management(attach) || wants_replies {
                desk.attach(&mut self.connection, attach);
                return None;
            }
        }
        match desk.take(&mut self.connection, event) {
            Ok(asked) => {
                self.requests.extend(asked);
                None
            }
            Err(event) => Some(event),
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

fn wants_management(capabilities: &[Symbol]) -> bool {
    let mut capabilities = capabilities.iter();
    capabilities.any(|it| it.as_str() == MANAGEMENT_CAPABILITY)
}
