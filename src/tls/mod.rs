//! TLS configurations from parameters and files: identities, trusted certificates, ciphers, and what
//! goes wrong in words that name the parameter.
//!
//! | part | what it is |
//! |---|---|
//! | `parameters` | what one side was given, and the names under which a person gave it |
//! | `files` | certificates and keys: PEM, DER, PKCS#12 |
//! | `certificate` | name and validity of a certificate |
//! | `suites` | cipher names of OpenSSL and IANA |
//! | `server`, `client` | configurations of `rustls` |
//! | `renew` | files that changed are taken while the server runs |
//! | `words` | failed handshakes in words |
#![allow(
    clippy::disallowed_methods,
    reason = "certificates are files outside the store, their validity is a matter of the wall clock, \
              and a thread of its own looks whether they were renewed"
)]

mod certificate;
mod client;
mod files;
mod parameters;
mod renew;
mod server;
mod suites;
#[cfg(test)]
mod tests;
mod words;

pub use certificate::common_name;
pub use client::{ClientTls, TRUSTED_ADVICE};
pub use parameters::{
    ClientParameters, FileNames, LINK_NAMES, Names, SERVER_NAMES, ServerParameters, TOOL_NAMES,
};
pub use renew::{Live, Renewals, Watch};
pub use server::{ServerUse, server_config};
pub use words::{accept_failure, connect_failure, is_tls};

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// A parameter that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{parameter}: {text}")]
pub struct Fault {
    /// Its name.
    pub parameter: &'static str,
    /// What is wrong, with the file, and what to do.
    pub text: String,
}

impl Fault {
    fn new(parameter: &'static str, text: impl Into<String>) -> Self {
        Self {
            parameter,
            text: text.into(),
        }
    }
}

/// `ring`, with the suites of a list or all that it has.
fn provider(parameter: &'static str, ciphers: Option<&str>) -> Result<Arc<CryptoProvider>, Fault> {
    let mut provider = rustls::crypto::ring::default_provider();
    if let Some(ciphers) = ciphers {
        provider.cipher_suites = suites::parse(ciphers, &provider.cipher_suites)
            .map_err(|text| Fault::new(parameter, text))?;
    }
    Ok(Arc::new(provider))
}
