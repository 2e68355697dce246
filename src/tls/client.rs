//! The configuration of the calling side.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};

use super::parameters::{ClientParameters, Names};
use super::{Fault, certificate, files, provider};

/// What to give as certificates that are trusted.
pub const TRUSTED_ADVICE: &str = "name the certificate of the authority that issued the server's certificate; the \
                                  server's own will do only if it is self-signed";

/// How to call a server by TLS.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// For `rustls`.
    pub config: Arc<ClientConfig>,
    /// The parameters' names, for messages.
    pub names: Names,
    /// There is a certificate of the caller's own.
    pub has_identity: bool,
    expected: Option<ServerName<'static>>,
}

impl ClientTls {
    /// Reads the files and makes the configuration.
    ///
    /// # Errors
    /// The parameter and the file that cannot be used.
    pub fn new(parameters: &ClientParameters) -> Result<Self, Fault> {
        let names = parameters.names;
        let provider = provider(names.ciphers, parameters.files.ciphers.as_deref())?;
        let identity = files::identity(&names, &parameters.files, &provider)?;
        let roots = files::roots(&names, &parameters.files)?;
        if parameters.verify_host && roots.is_empty() {
            let text = format!("not set; {TRUSTED_ADVICE}");
            return Err(Fault::new(names.trusted, text));
        }
        let expected = parameters.expected_hostname.as_ref().map(|name| {
            ServerName::try_from(name.clone()).map_err(|_| {
                let text = format!("`{name}` is neither a host name nor an address");
                Fault::new(names.expected_hostname, text)
            })
        });
        let verifier = Verifier {
            roots,
            verify_host: parameters.verify_host,
            verify_hostname: parameters.verify_hostname,
            provider: Arc::clone(&provider),
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions(&provider))
            .map_err(|error| Fault::new(names.ciphers, error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let has_identity = identity.is_some();
        let mut config = match identity {
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
            }
            None => builder.with_no_client_auth(),
        };
        // A certificate that was withdrawn must not live on in a session.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            names,
            has_identity,
            expected: expected.transpose()?,
        })
    }

    /// The name that the server at this host has to prove.
    ///
    /// # Errors
    /// The host is no name that a certificate could have.
    pub fn server_name(&self, host: &str) -> Result<ServerName<'static>, String> {
        if let Some(expected) = &self.expected {
            return Ok(expected.clone());
        }
        ServerName::try_from(host.to_owned()).map_err(|_| {
            format!(
                "`{host}` cannot be the name in a certificate; set {}",
                self.names.expected_hostname
            )
        })
    }
}

/// The versions of TLS for which there are suites.
pub(super) fn versions(provider: &CryptoProvider) -> Vec<&'static SupportedProtocolVersion> {
    let has = |version: &&'static SupportedProtocolVersion| {
        let suites = &provider.cipher_suites;
        suites.iter().any(|suite| suite.version() == *version)
    };
    rustls::ALL_VERSIONS.iter().copied().filter(has).collect()
}

/// The library's own verifier, with parts that can be switched off, and with the common name where a
/// certificate has no other.
struct Verifier {
    roots: RootCertStore,
    verify_host: bool,
    verify_hostname: bool,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Verifier")
            .field("verify_host", &self.verify_host)
            .field("verify_hostname", &self.verify_hostname)
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if self.verify_host {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        if self.verify_hostname {
            match verify_server_name(&parsed, server_name) {
                Err(_) if is_common_name(end_entity, server_name) => {}
                result => result?,
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// EMS compares the common name. Here it counts where there is no other name.
fn is_common_name(own: &CertificateDer<'_>, wanted: &ServerName<'_>) -> bool {
    !certificate::has_alternative_names(own)
        && certificate::common_name(own)
            .is_some_and(|name| name.eq_ignore_ascii_case(&wanted.to_str()))
}

/// Whether an error is about the name in a certificate.
pub(super) fn is_wrong_name(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
    )
}
