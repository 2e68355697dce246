//! Which server the tool talks to, and as whom.

use std::fs;
use std::time::Duration;

use super::session::Session;
use super::{ask, complain};
use crate::cli::args::AdminArgs;
use crate::cli::tool::ToolError;
use crate::net::client::{ClientOptions, Credentials, ServerUrl};

/// Where to connect when nobody says it.
const SERVER: &str = "tcp://127.0.0.1:5672";

/// Servers that may be connected to, and who connects.
pub(super) struct Servers {
    urls: Vec<ServerUrl>,
    user: Option<String>,
    /// `None`: not known yet.
    password: Option<String>,
    /// The password was typed: after a refusal it is asked for again.
    is_typed: bool,
}

impl Servers {
    /// Those of the options.
    pub(super) fn of_options(arguments: &AdminArgs) -> Result<Self, ToolError> {
        let password = arguments.password_file.as_ref().map(|path| {
            let text = fs::read_to_string(path)
                .map_err(ToolError::file("reading the password from", path))?;
            Ok::<_, ToolError>(text.lines().next().unwrap_or("").to_owned())
        });
        if password.is_some() && arguments.user.is_none() {
            let text = "--password-file needs --user";
            return Err(ToolError::Usage(text.to_owned()));
        }
        let list = arguments.server.as_deref().unwrap_or(SERVER);
        Self::read(list, arguments.user.clone(), password.transpose()?)
    }

    /// A list of URLs with commas between them, and who connects.
    pub(super) fn read(
        list: &str,
        user: Option<String>,
        password: Option<String>,
    ) -> Result<Self, ToolError> {
        let urls = list.split(',').map(|text| ServerUrl::parse(text.trim()));
        Ok(Self {
            urls: urls.collect::<Result<_, _>>()?,
            user,
            password,
            is_typed: false,
        })
    }

    /// Who connects, if it was said apart from the URL.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Connects to the first server that serves clients; to a standby only when none of the others
    /// does, and then says so.
    pub(super) fn connect(
        &mut self,
        arguments: &AdminArgs,
        timeout: Duration,
    ) -> Result<Session, ToolError> {
        self.know_password()?;
        let mut failures: Vec<ToolError> = Vec::new();
        let mut standby: Option<Session> = None;
        for url in &self.urls {
            let mut url = url.clone();
            if let (Some(user), Some(password)) = (&self.user, &self.password) {
                url.credentials = Some(Credentials {
                    user: user.clone(),
                    password: password.clone(),
                });
            }
            let options = ClientOptions {
                answer_timeout: timeout,
                tls: arguments.tls.client(&url)?,
                desired_capabilities: vec![crate::node::MANAGEMENT_CAPABILITY.to_owned()],
                ..ClientOptions::named("steadfast-admin")
            };
            match Session::open(url, options) {
                Ok(session) if session.place().is_standby => {
                    standby.get_or_insert(session);
                }
                Ok(session) => return Ok(session),
                Err(error) => failures.push(error),
            }
        }
        let texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
        match (standby, failures.pop()) {
            (Some(session), None) if self.urls.len() == 1 => Ok(session),
            (Some(session), _) => {
                let place = session.place();
                complain(&format!(
                    "{} is a standby; no active server of the list answered{}{}{}",
                    session.url(),
                    if texts.is_empty() { "" } else { ": " },
                    texts.join("; "),
                    place.where_active()
                ));
                Ok(session)
            }
            (None, Some(error)) if texts.len() == 1 => Err(error),
            (None, Some(_)) => Err(ToolError::Other(texts.join("; "))),
            (None, None) => Err(ToolError::Usage("no server was named".to_owned())),
        }
    }

    /// A user without a password is asked for it, once.
    fn know_password(&mut self) -> Result<(), ToolError> {
        let Some(user) = self.user.as_ref().filter(|_| self.password.is_none()) else {
            return Ok(());
        };
        if !ask::is_possible() {
            return Err(ToolError::Usage(format!(
                "the password of {user} is missing, and there is no terminal to ask for it; write \
                 --password-file FILE, a file whose first line is the password (/dev/null for the \
                 empty one); with a certificate (--ssl-identity) leave the user out"
            )));
        }
        self.password = Some(ask::password(&format!("Password of {user}: "))?);
        self.is_typed = true;
        Ok(())
    }

    /// A password that was typed may have been the wrong one.
    pub(super) fn forget_password(&mut self) {
        if self.is_typed {
            self.password = None;
        }
    }
}
