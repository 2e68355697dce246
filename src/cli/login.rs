//! Who a tool is to a server.

use super::args::LoginArgs;
use super::tool::ToolError;
use crate::net::client::{Credentials, ServerUrl};

impl LoginArgs {
    /// Writes user and password into a URL, in place of those that it names.
    ///
    /// # Errors
    /// The file of the password cannot be read.
    pub(super) fn apply(&self, url: &mut ServerUrl) -> Result<(), ToolError> {
        let Some(user) = &self.user else {
            return Ok(());
        };
        let text = self.password_file.as_ref().map(|path| {
            std::fs::read_to_string(path)
                .map_err(ToolError::file("reading the password from", path))
        });
        let text = text.transpose()?.unwrap_or_default();
        url.credentials = Some(Credentials {
            user: user.clone(),
            password: text.lines().next().unwrap_or("").to_owned(),
        });
        Ok(())
    }
}
