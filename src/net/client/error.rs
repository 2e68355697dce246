//! Why a client could not go on.

use std::io;
use std::time::Duration;

use crate::proto::{ENDED_IN_LOGIN, ErrorCondition, condition};

/// Why a client could not go on: what happened, where, and what can be done.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The text is not the URL of a server.
    #[error("{text}: {reason}; write for example amqp://127.0.0.1:5672")]
    Url {
        /// What was given, without its password.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No TCP connection.
    #[error("{url}: no connection: {source}; is a server running there?")]
    Connect {
        /// The server.
        url: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// No agreement about TLS.
    #[error("{url}: TLS: {reason}")]
    Tls {
        /// The server.
        url: String,
        /// What is wrong and which option to mend.
        reason: String,
    },
    /// An established connection broke.
    #[error("{url}: the connection broke: {source}")]
    Broken {
        /// The server.
        url: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// It broke before the server had said a word, and without TLS.
    #[error(
        "{url}: the connection broke before the server said a word: {source}; perhaps it speaks TLS there: write ssl:// \
         or amqps:// then"
    )]
    Silent {
        /// The server.
        url: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The AMQP connection ended.
    #[error("{url}: the server closed the connection{}{}", colon(.error.as_ref()), advice(.error.as_ref(), *.login))]
    Closed {
        /// The server.
        url: String,
        /// The reason that it gave.
        error: Option<ErrorCondition>,
        /// How the client logged in, for advice.
        login: LoginKind,
    },
    /// A session or link was refused or ended by the server.
    #[error("{url}: {what} was refused{}", colon(.error.as_ref()))]
    Refused {
        /// The server.
        url: String,
        /// What was asked for.
        what: String,
        /// The reason that it gave.
        error: Option<ErrorCondition>,
    },
    /// An answer did not come in time.
    #[error("{url}: no answer to {what} within {} s; the server may be overloaded or stopped", after.as_secs())]
    Late {
        /// The server.
        url: String,
        /// What was asked for.
        what: String,
        /// How long was waited.
        after: Duration,
    },
}

impl ClientError {
    /// Whether it can help to connect again, to the same or to another server: everything but a
    /// refusal that will be the same each time.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Broken { .. }
            | Self::Silent { .. }
            | Self::Late { .. } => true,
            Self::Closed { error, .. } => !is_refusal(error.as_ref()),
            Self::Url { .. } | Self::Tls { .. } | Self::Refused { .. } => false,
        }
    }
}

fn is_refusal(error: Option<&ErrorCondition>) -> bool {
    error.is_some_and(|error| error.condition == condition::UNAUTHORIZED_ACCESS)
}

fn colon(error: Option<&ErrorCondition>) -> String {
    error.map_or_else(String::new, |error| format!(": {error}"))
}

/// What a client shows to the server in order to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginKind {
    /// Nothing.
    Anonymous,
    /// A user and a password.
    Password,
    /// Its certificate.
    Certificate,
}

fn advice(error: Option<&ErrorCondition>, login: LoginKind) -> &'static str {
    let text = error.and_then(|error| error.description.as_deref());
    if !is_refusal(error) && text != Some(ENDED_IN_LOGIN) {
        return "";
    }
    match login {
        LoginKind::Anonymous => {
            "; name a user (--user, --password-file) or a certificate (--ssl-identity)"
        }
        LoginKind::Password => "; check the user and the password (--user, --password-file)",
        LoginKind::Certificate => {
            "; the common name of the certificate (--ssl-identity) must be a user in the server's users.conf"
        }
    }
}
