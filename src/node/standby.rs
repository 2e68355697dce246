//! What a server that is not active says to clients.

use bytes::BytesMut;

use crate::proto::{Connection, ErrorCondition, Event, SaslCode, Value, condition};

use super::settings::offer_external;
use super::{CertificateUser, NodeSettings, Now, ServerAddress};

/// A connection to a standby: it is welcomed, opened and closed at once with a reason that makes
/// the client try elsewhere. A failing SASL code or an authorization error would make clients give
/// up for good.
#[derive(Debug)]
pub struct Standby {
    connection: Connection,
    active: Option<ServerAddress>,
}

impl Standby {
    /// A client connected to a server that is not active. `active`: where the active is, if known;
    /// `user`: what the client's certificate says.
    pub fn new(
        settings: &NodeSettings,
        active: Option<ServerAddress>,
        user: Option<&CertificateUser>,
        now: Now,
    ) -> Self {
        let mut proto = settings.proto_settings(None);
        proto.allow_without_sasl = true;
        if user.is_some() {
            offer_external(&mut proto);
        }
        Self {
            connection: Connection::server(proto, now.monotonic_ms),
            active,
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
                Event::SaslInit { .. } | Event::SaslResponse(_) => {
                    self.connection.sasl_outcome(SaslCode::Ok, None);
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
        self.connection.is_finished()
    }
}
