//! What is said on a link: one JSON object a line, each with a limit.

use std::io;

use bytes::{Buf, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::ConnectFailure;
use crate::net::comparison::Part;
use crate::net::pair_login::Refusal;
use crate::tls::{LINK_NAMES, connect_failure, is_tls};

/// What the opener of a link sends first.
pub(crate) const MAGIC: &[u8; 8] = b"STDFAST\x02";
/// Longest line that is read.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;
/// The same before the other side has said and proved who it is.
pub(super) const FIRST_LINE_BYTES_MAX: usize = 4 * 1024;
/// Longest identity of a process, in bytes.
const INSTANCE_BYTES_MAX: usize = 64;

/// A connection of either kind.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub(super) type Reader = ReadHalf<Box<dyn Duplex>>;
pub(super) type Writer = WriteHalf<Box<dyn Duplex>>;

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The `server` parameter.
    pub(crate) server: String,
    /// Its state, as `/state` names it.
    pub(crate) role: String,
    /// The epoch that it owns or last owned.
    pub(crate) epoch: u64,
    /// Counts what this process says; peers use it to ignore what is out of date.
    #[serde(default)]
    pub(crate) beat: u64,
    /// Identity of the process.
    pub(crate) instance: String,
    /// Its listeners, as URLs.
    pub(crate) listens: Vec<String>,
    /// Identity of the store that it owns, in hexadecimal.
    #[serde(default)]
    pub(crate) store: Option<String>,
}

/// What two servers are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Relation {
    /// They share a store.
    Pair,
    /// They share nothing.
    Unshared,
}

/// What the opener says first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) server: String,
    pub(super) instance: String,
    pub(super) relation: Relation,
    /// Whether the listener has to log in.
    pub(super) login: bool,
}

/// What the listener says first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) instance: String,
    /// Whether the opener has to log in.
    pub(super) login: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    Refused { refused: String },
    Call { call: Call },
    Answer { answer: Answer },
    Login { login: String },
    Facts { facts: Part },
    Hello(Hello),
}

pub(super) struct Stream {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) buffer: BytesMut,
}

impl Stream {
    pub(super) fn new(stream: Box<dyn Duplex>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader,
            writer,
            buffer: BytesMut::new(),
        }
    }

    /// A line, while the two agree.
    pub(super) async fn expect(&mut self, bytes_max: usize) -> Result<Line, ConnectFailure> {
        match read_line(&mut self.reader, &mut self.buffer, bytes_max).await {
            Ok(Line::Refused { refused }) => Err(ConnectFailure::Refused(clip(&refused))),
            Ok(line) => Ok(line),
            Err(error) if error.kind() == io::ErrorKind::InvalidData && !is_tls(&error) => Err(
                ConnectFailure::Refused(format!("no Steadfast server: {error}")),
            ),
            Err(error) => Err(unreachable(error)),
        }
    }

    /// The other side's next word of a login.
    pub(super) async fn word(&mut self) -> Result<String, ConnectFailure> {
        match self.expect(FIRST_LINE_BYTES_MAX).await? {
            Line::Login { login } => Ok(login),
            _ => Err(out_of_place()),
        }
    }

    /// Our next word of a login, and the answer.
    pub(super) async fn say(&mut self, login: String) -> Result<String, ConnectFailure> {
        self.write(&Line::Login { login })
            .await
            .map_err(unreachable)?;
        self.word().await
    }

    /// Tells the other side why there is no link. Best effort: the reason stands in our own log as well.
    pub(super) async fn turn_down(&mut self, refusal: Refusal) -> ConnectFailure {
        let refused = refusal.there;
        let _ = self.write(&Line::Refused { refused }).await;
        ConnectFailure::Refused(refusal.here)
    }

    pub(super) async fn write(&mut self, line: &Line) -> io::Result<()> {
        self.writer.write_all(&encode(line)?).await
    }
}

pub(super) fn encode(line: &Line) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

pub(super) async fn read_line(
    reader: &mut Reader,
    buffer: &mut BytesMut,
    bytes_max: usize,
) -> io::Result<Line> {
    let mut searched = 0;
    loop {
        let rest = buffer.get(searched..).unwrap_or_default();
        if let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let line = buffer.split_to(searched + at);
            buffer.advance(1);
            return serde_json::from_slice(&line).map_err(|error| invalid(&error.to_string()));
        }
        searched = buffer.len();
        if searched >= bytes_max {
            return Err(invalid(&format!(
                "a message is longer than {bytes_max} bytes"
            )));
        }
        buffer.reserve(1024);
        if reader.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Whether this can be the identity of a process.
pub(super) fn is_instance(text: &str) -> bool {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    !text.is_empty() && text.len() <= INSTANCE_BYTES_MAX && is_plain
}

pub(super) fn out_of_place() -> ConnectFailure {
    ConnectFailure::Refused("it says something out of place".to_owned())
}

/// What a peer sent, short enough for a log line.
pub(super) fn clip(text: &str) -> String {
    text.chars().take(255).collect()
}

pub(super) fn unreachable(error: io::Error) -> ConnectFailure {
    if is_tls(&error) {
        return ConnectFailure::Refused(connect_failure(&error, &LINK_NAMES, ""));
    }
    ConnectFailure::Unreachable(error.to_string())
}

pub(super) fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}
