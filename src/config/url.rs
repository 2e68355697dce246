//! The URLs of the configuration: where to listen, where peers are, where the monitor answers.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

const PLAIN_PORT: u16 = 5672;
const TLS_PORT: u16 = 5671;

/// A value of `listen`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ListenUrl {
    /// `ssl://` or `amqps://`.
    pub is_tls: bool,
    /// Host name or address; `None` for all interfaces.
    pub host: Option<String>,
    /// The port; 0 lets the system choose.
    pub port: u16,
}

/// A value of `ft_active`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerUrl {
    /// `ssl://` or `amqps://`.
    pub is_tls: bool,
    /// Host name or address.
    pub host: String,
    /// The port, not 0.
    pub port: u16,
}

/// The value of `monitor_listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorUrl {
    /// `https://`.
    pub is_tls: bool,
    /// Host name or address; `None` for all interfaces.
    pub host: Option<String>,
    /// The port; 0 lets the system choose.
    pub port: u16,
}

impl ListenUrl {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let example = "write for example tcp://127.0.0.1:5672";
        let (is_tls, rest) = split_scheme(text, example)?;
        let default_port = if is_tls { TLS_PORT } else { PLAIN_PORT };
        let (host, port) = split_authority(rest, default_port, example)?;
        Ok(Self { is_tls, host, port })
    }

    /// Whether only this machine can connect.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host.as_deref().is_some_and(is_loopback)
    }
}

impl PeerUrl {
    /// Reads `tcp://host:port` and its like.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let example = "write for example tcp://host2:5672";
        let (is_tls, rest) = split_scheme(text, example)?;
        let default_port = if is_tls { TLS_PORT } else { PLAIN_PORT };
        let (host, port) = split_authority(rest, default_port, example)?;
        if port == 0 {
            return Err(format!("port 0 cannot be connected to; {example}"));
        }
        Ok(Self {
            is_tls,
            host: host.unwrap_or_else(|| "localhost".to_owned()),
            port,
        })
    }

    /// Whether this names the same place as one of our own listeners, as far as the text tells.
    pub(super) fn names(&self, listen: &ListenUrl) -> bool {
        let host = listen.host.as_deref();
        let same_host = host == Some(self.host.as_str())
            || (is_loopback(&self.host) && host.is_none_or(is_loopback));
        same_host && listen.port == self.port
    }
}

impl MonitorUrl {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let example = "write for example http://127.0.0.1:8161";
        let (is_tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(format!("it must begin with http:// or https://; {example}")),
        };
        let (host, port) = split_authority(rest, 8161, example)?;
        Ok(Self { is_tls, host, port })
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn split_scheme<'a>(text: &'a str, example: &str) -> Result<(bool, &'a str), String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("a URL needs a scheme; {example}"));
    };
    match scheme {
        "tcp" | "amqp" => Ok((false, rest)),
        "ssl" | "amqps" => Ok((true, rest)),
        _ => Err(format!(
            "{scheme}:// is not known (tcp, amqp, ssl, amqps are); {example}"
        )),
    }
}

/// `host`, `host:port`, `[v6]:port`, `:port`, `*:port` or, as EMS has it, the port alone.
fn split_authority(
    text: &str,
    default_port: u16,
    example: &str,
) -> Result<(Option<String>, u16), String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.contains(['/', '@', '?', ' ']) {
        return Err(format!("only host and port are allowed; {example}"));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok((None, parse_port(text, example)?));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let closed = rest.split_once(']');
            let (host, rest) = closed.ok_or_else(|| format!("`]` is missing; {example}"))?;
            let is_address = host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_ipv6());
            if !is_address {
                return Err(format!("[{host}] is not an IPv6 address; {example}"));
            }
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(format!("`{rest}` after `]` is not a port; {example}")),
            }
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(format!(
                    "an IPv6 address stands in brackets: [{text}]; {example}"
                ));
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Ok(default_port), |port| parse_port(port, example))?;
    match host {
        "" if text.is_empty() => Err(format!("host and port are missing; {example}")),
        "" | "*" | "0.0.0.0" | "::" => Ok((None, port)),
        host => Ok((Some(host.to_owned()), port)),
    }
}

fn parse_port(text: &str, example: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not a port (0 to 65535); {example}"))
}

/// `host:port`, with brackets round an IPv6 address and `*` for all interfaces.
fn authority(host: Option<&str>, port: u16) -> String {
    match host {
        None => format!("*:{port}"),
        Some(host) if host.contains(':') => format!("[{host}]:{port}"),
        Some(host) => format!("{host}:{port}"),
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "ssl" } else { "tcp" };
        write!(
            formatter,
            "{scheme}://{}",
            authority(self.host.as_deref(), self.port)
        )
    }
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "ssl" } else { "tcp" };
        write!(
            formatter,
            "{scheme}://{}",
            authority(Some(&self.host), self.port)
        )
    }
}

impl fmt::Display for MonitorUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(
            formatter,
            "{scheme}://{}",
            authority(self.host.as_deref(), self.port)
        )
    }
}

impl TryFrom<String> for ListenUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<ListenUrl> for String {
    fn from(url: ListenUrl) -> Self {
        url.to_string()
    }
}

impl TryFrom<String> for PeerUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<PeerUrl> for String {
    fn from(url: PeerUrl) -> Self {
        url.to_string()
    }
}
