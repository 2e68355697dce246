//! The configuration of the listening side.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;

use super::parameters::{SERVER_NAMES, ServerParameters};
use super::{Fault, client::versions, files, provider};

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerUse {
    /// Clients and peers: their certificates are asked for where somebody is trusted.
    Clients,
    /// Readers of the monitor: nobody is asked for a certificate.
    Monitor,
}

/// Reads the files and makes the configuration of the listening side.
///
/// # Errors
/// The parameter and the file that cannot be used.
pub fn server_config(parameters: &ServerParameters, who: ServerUse) -> Result<ServerConfig, Fault> {
    let names = &SERVER_NAMES;
    let provider = provider(names.ciphers, parameters.files.ciphers.as_deref())?;
    let identity = files::identity(names, &parameters.files, &provider)?.ok_or_else(|| {
        let text = "not set; ssl:// and https:// listeners need the server's certificate";
        Fault::new(names.identity, text)
    })?;
    let verifier = match who {
        ServerUse::Clients => verifier(parameters, &provider)?,
        ServerUse::Monitor => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(&provider))
        .map_err(|error| Fault::new(names.ciphers, error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    // Each connection proves anew who it is: a certificate that was withdrawn must not live on in a
    // session, and after a takeover clients meet a server that knows no session anyway.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn verifier(
    parameters: &ServerParameters,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Fault> {
    let names = &SERVER_NAMES;
    let roots = files::roots(names, &parameters.files)?;
    if roots.is_empty() {
        if parameters.requires_certificate {
            let text = format!(
                "not set, but {} is enabled: name the certificates of those who issue client \
                 certificates",
                names.verify
            );
            return Err(Fault::new(names.trusted, text));
        }
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if parameters.requires_certificate {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    builder
        .build()
        .map_err(|error| Fault::new(names.trusted, error.to_string()))
}
