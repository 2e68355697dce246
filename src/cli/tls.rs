//! TLS of the tools: from options to how a server is called.

use super::args::TlsArgs;
use super::tool::ToolError;
use crate::net::client::ServerUrl;
use crate::tls::{ClientParameters, ClientTls, FileNames, TOOL_NAMES};

impl TlsArgs {
    /// How to call the server at a URL; `None` when that speaks no TLS.
    ///
    /// # Errors
    /// The option and the file that cannot be used.
    pub(super) fn client(&self, url: &ServerUrl) -> Result<Option<ClientTls>, ToolError> {
        if !url.is_tls {
            return Ok(None);
        }
        let password = self.ssl_password_file.as_ref().map(|path| {
            let text = std::fs::read_to_string(path)
                .map_err(ToolError::file("reading the password from", path))?;
            Ok::<_, ToolError>(text.lines().next().unwrap_or("").to_owned())
        });
        let parameters = ClientParameters {
            files: FileNames {
                identity: self.ssl_identity.clone(),
                key: self.ssl_key.clone(),
                password: password.transpose()?,
                issuer: self.ssl_issuer.clone(),
                trusted: self.ssl_trusted.clone(),
                ciphers: self.ssl_ciphers.clone(),
            },
            names: TOOL_NAMES,
            verify_host: !self.ssl_noverifyhost,
            verify_hostname: !self.ssl_noverifyhostname && !self.ssl_noverifyhost,
            expected_hostname: self.ssl_hostname.clone(),
        };
        let tls = ClientTls::new(&parameters);
        tls.map(Some)
            .map_err(|fault| ToolError::Usage(fault.to_string()))
    }
}
