//! What one side of TLS was given.

use std::fmt;
use std::path::PathBuf;

/// The names under which a person gives the values, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// Own certificate.
    pub identity: &'static str,
    /// Own key.
    pub key: &'static str,
    /// Password of the key.
    pub password: &'static str,
    /// Issuers of the own certificate.
    pub issuer: &'static str,
    /// Trusted certificates.
    pub trusted: &'static str,
    /// Cipher suites.
    pub ciphers: &'static str,
    /// Listening side: whether a certificate is wanted; calling side: whether one is verified.
    pub verify: &'static str,
    /// Calling side: whether the name in the certificate is compared.
    pub verify_hostname: &'static str,
    /// Calling side: the name that it must have.
    pub expected_hostname: &'static str,
}

/// The names for the listening side.
pub const SERVER_NAMES: Names = Names {
    identity: "ssl_server_identity",
    key: "ssl_server_key",
    password: "ssl_password",
    issuer: "ssl_server_issuer",
    trusted: "ssl_server_trusted",
    ciphers: "ssl_server_ciphers",
    verify: "ssl_require_client_cert",
    verify_hostname: "",
    expected_hostname: "",
};

/// The names for the side that opens the link to its peer.
pub const LINK_NAMES: Names = Names {
    identity: "ft_ssl_identity",
    key: "ft_ssl_private_key",
    password: "ft_ssl_password",
    issuer: "ft_ssl_issuer",
    trusted: "ft_ssl_trusted",
    ciphers: "ft_ssl_ciphers",
    verify: "ft_ssl_verify_host",
    verify_hostname: "ft_ssl_verify_hostname",
    expected_hostname: "ft_ssl_expected_hostname",
};

/// The names on the command line of a tool.
pub const TOOL_NAMES: Names = Names {
    identity: "--ssl-identity",
    key: "--ssl-key",
    password: "--ssl-password-file",
    issuer: "--ssl-issuer",
    trusted: "--ssl-trusted",
    ciphers: "--ssl-ciphers",
    verify: "--ssl-noverifyhost",
    verify_hostname: "--ssl-noverifyhostname",
    expected_hostname: "--ssl-hostname",
};

/// Files and ciphers of one side.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FileNames {
    /// Own certificate, and what a chain needs behind it: PEM, DER or PKCS#12.
    pub identity: Option<PathBuf>,
    /// Own key, where it is not in the identity's file.
    pub key: Option<PathBuf>,
    /// Password of the key or of the PKCS#12 file; not shown by `Debug`.
    pub password: Option<String>,
    /// Issuers of the own certificate, sent with it.
    pub issuer: Vec<PathBuf>,
    /// Certificates whose holders, and those that they certify, are trusted.
    pub trusted: Vec<PathBuf>,
    /// The suites that may be used; `None`: all that there are.
    pub ciphers: Option<String>,
}

impl fmt::Debug for FileNames {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("FileNames")
            .field("identity", &self.identity)
            .field("key", &self.key)
            .field("issuer", &self.issuer)
            .field("trusted", &self.trusted)
            .field("ciphers", &self.ciphers)
            .finish_non_exhaustive()
    }
}

/// What the listening side was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerParameters {
    /// Files and ciphers.
    pub files: FileNames,
    /// Whether a client without a certificate is refused.
    pub requires_certificate: bool,
}

/// What the calling side was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientParameters {
    /// Files and ciphers.
    pub files: FileNames,
    /// Under which names.
    pub names: Names,
    /// Whether the server's certificate must come from a trusted issuer.
    pub verify_host: bool,
    /// Whether it must be for the host that was called.
    pub verify_hostname: bool,
    /// The name that it must have; `None`: the host in the URL.
    pub expected_hostname: Option<String>,
}

impl FileNames {
    /// All files that are named.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        let single = self.identity.iter().chain(&self.key);
        single
            .chain(&self.issuer)
            .chain(&self.trusted)
            .cloned()
            .collect()
    }
}
