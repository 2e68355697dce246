//! The URL of a server as a client writes it.

use std::fmt;

use super::ClientError;

const PORT: u16 = 5672;
const TLS_PORT: u16 = 5671;

/// Where a server is and who connects: `amqp://[user[:password]@]host[:port]`, or `amqps` for TLS,
/// with `tcp` and `ssl` as other words for them.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// `amqps://` or `ssl://`.
    pub is_tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port; 5672 when the URL names none, 5671 with TLS.
    pub port: u16,
    /// User and password; `None` for ANONYMOUS.
    pub credentials: Option<Credentials>,
}

/// A user and its password, as they were before percent-encoding.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Name.
    pub user: String,
    /// Secret; shown by neither `Debug` nor `Display`.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

/// Without the credentials: what messages show.
impl fmt::Display for ServerUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "amqps" } else { "amqp" };
        if self.host.contains(':') {
            write!(out, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(out, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl ServerUrl {
    /// A server on this machine.
    pub fn local(port: u16) -> Self {
        Self {
            is_tls: false,
            host: String::from("127.0.0.1"),
            port,
            credentials: None,
        }
    }

    /// Reads a URL.
    ///
    /// # Errors
    /// [`ClientError::Url`] says what is wrong and shows an example.
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        Self::read(text).map_err(|reason| ClientError::Url {
            text: hide_credentials(text),
            reason,
        })
    }

    fn read(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(String::from("it has no scheme"));
        };
        let is_tls = match scheme {
            "amqp" | "tcp" => false,
            "amqps" | "ssl" => true,
            other => return Err(format!("{other}:// is not known; use amqp:// or amqps://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, authority) = match rest.rsplit_once('@') {
            Some((credentials, authority)) => (Some(read_credentials(credentials)?), authority),
            None => (None, rest),
        };
        let default_port = if is_tls { TLS_PORT } else { PORT };
        let (host, port) = read_authority(authority, default_port)?;
        Ok(Self {
            is_tls,
            host,
            port,
            credentials,
        })
    }
}

fn read_credentials(text: &str) -> Result<Credentials, String> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    if user.is_empty() {
        return Err(String::from("the user before @ is empty"));
    }
    Ok(Credentials {
        user: percent_decode(user)?,
        password: percent_decode(password)?,
    })
}

fn read_authority(text: &str, default_port: u16) -> Result<(String, u16), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest
                .split_once(']')
                .ok_or_else(|| String::from("`]` is missing after the IPv6 address"))?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(port),
                None if rest.is_empty() => None,
                None => return Err(format!("`{rest}` after `]` is not a port")),
            };
            (host, port)
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(String::from("an IPv6 address stands in brackets"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err(String::from("it names no host"));
    }
    if let Some(other) = host.find(['/', '?', '#', ' ']) {
        return Err(format!("`{}` is not part of a host name", &host[other..]));
    }
    let port = match port {
        None => default_port,
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => return Err(format!("`{port}` is not a port (1 to 65535)")),
            Ok(port) => port,
        },
    };
    Ok((String::from(host), port))
}

fn percent_decode(text: &str) -> Result<String, String> {
    let fault = || String::from("a % before @ is not followed by two hexadecimal digits of UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = behind;
            continue;
        }
        let digits = behind.get(..2).ok_or_else(fault)?;
        let digits = std::str::from_utf8(digits).map_err(|_| fault())?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| fault())?);
        rest = &behind[2..];
    }
    String::from_utf8(bytes).map_err(|_| fault())
}

/// Messages are no place for passwords.
fn hide_credentials(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://...@{rest}"),
        _ => String::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::ServerUrl;

    fn parse(text: &str) -> ServerUrl {
        ServerUrl::parse(text).expect("the URL is right")
    }

    #[test]
    fn a_url_names_host_port_and_user() {
        assert_eq!(parse("amqp://h"), parse("tcp://h:5672/"));
        assert_eq!(parse("amqps://h"), parse("ssl://h:5671"));
        assert_eq!(parse("ssl://[::1]").to_string(), "amqps://[::1]:5671");
        let url = parse("amqp://us%65r:p%40%3a@[::1]:99");
        assert_eq!((url.host.as_str(), url.port), ("::1", 99));
        let credentials = url.credentials.as_ref().expect("there is a user");
        assert_eq!(
            (credentials.user.as_str(), credentials.password.as_str()),
            ("user", "p@:")
        );
        assert_eq!(url.to_string(), "amqp://[::1]:99");
        assert_eq!(
            parse("amqp://u@h").credentials.map(|it| it.password),
            Some(String::new())
        );
    }

    #[test]
    fn a_wrong_url_is_refused_with_the_reason_and_without_its_password() {
        for (text, reason) in [
            ("h:5672", "it has no scheme"),
            ("http://h", "http:// is not known"),
            ("amqp://", "it names no host"),
            ("amqp://h:0", "`0` is not a port"),
            ("amqp://h:x", "`x` is not a port"),
            ("amqp://::1", "stands in brackets"),
            ("amqp://[::1", "`]` is missing"),
            ("amqp://h/q", "`/q` is not part"),
            ("amqp://:secret@h", "user before @ is empty"),
            ("amqp://u:secret%4@h", "two hexadecimal digits"),
            ("amqp://u:secret%ff@h", "of UTF-8"),
        ] {
            let error = ServerUrl::parse(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
