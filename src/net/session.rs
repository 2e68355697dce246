//! TLS of a connection whose handshake is over, beside its socket: no task, no copy of its own
//! between the socket and who uses it. One system call reads or writes many records.

use std::io::{self, BufRead, IoSlice, Write};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use rustls::Connection;
use tokio::net::TcpStream;

/// Encrypted bytes that are read at once.
pub(super) const CIPHER_BYTES: usize = 256 << 10;

/// The state of TLS.
pub(super) struct TlsSession {
    connection: Connection,
    /// The other side will send nothing more.
    is_ended: bool,
}

impl std::fmt::Debug for TlsSession {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("TlsSession").finish_non_exhaustive()
    }
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// The system took something.
    pub(super) is_progress: bool,
    /// The system's buffer is full and something is left.
    pub(super) is_full: bool,
}

impl TlsSession {
    pub(super) fn new(connection: impl Into<Connection>) -> Self {
        Self {
            connection: connection.into(),
            is_ended: false,
        }
    }

    /// Whether encrypted bytes wait for the system.
    pub(super) fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    /// Encrypts output and writes as much as the system takes now. What is encrypted is gone from
    /// `output`, written or not.
    pub(super) fn write(
        &mut self,
        stream: &TcpStream,
        output: &mut BytesMut,
    ) -> io::Result<Written> {
        let mut is_progress = false;
        loop {
            while self.connection.wants_write() {
                match self.connection.write_tls(&mut Direct(stream)) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(_) => is_progress = true,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Ok(Written {
                            is_progress,
                            is_full: true,
                        });
                    }
                    Err(error) => return Err(error),
                }
            }
            if output.is_empty() {
                return Ok(Written {
                    is_progress,
                    is_full: false,
                });
            }
            // The library bounds how much it encrypts ahead.
            let taken = self.connection.writer().write(output)?;
            output.advance(taken);
        }
    }

    /// Says that nothing more follows, if the system takes it at once.
    pub(super) fn end(&mut self, stream: &TcpStream) {
        self.connection.send_close_notify();
        // The other side sees the end of the connection in any case.
        let _ = self.write(stream, &mut BytesMut::new());
    }

    /// Reads behind what is in `plain`, through `cipher`. Returns the number of bytes that came, 0
    /// at the end.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        stream: &TcpStream,
        cipher: &mut Vec<u8>,
        plain: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let before = plain.len();
        // What came together with the end of the handshake.
        self.take_plain(plain)?;
        if plain.len() > before {
            return Poll::Ready(Ok(plain.len() - before));
        }
        cipher.resize(CIPHER_BYTES, 0);
        loop {
            if self.is_ended {
                return Poll::Ready(Ok(0));
            }
            ready!(stream.poll_read_ready(context))?;
            match stream.try_read(cipher) {
                Ok(0) => self.is_ended = true,
                Ok(count) => {
                    let bytes = cipher.get(..count).unwrap_or_default();
                    self.decrypt(bytes, plain)?;
                    if plain.len() > before {
                        return Poll::Ready(Ok(count));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn decrypt(&mut self, mut cipher: &[u8], plain: &mut BytesMut) -> io::Result<()> {
        while !cipher.is_empty() && !self.is_ended {
            if self.connection.read_tls(&mut cipher)? == 0 {
                break;
            }
            let state = self
                .connection
                .process_new_packets()
                .map_err(io::Error::other)?;
            self.is_ended = state.peer_has_closed();
            if state.plaintext_bytes_to_read() > 0 {
                self.take_plain(plain)?;
            }
        }
        Ok(())
    }

    fn take_plain(&mut self, plain: &mut BytesMut) -> io::Result<()> {
        let mut reader = self.connection.reader();
        loop {
            let count = match reader.fill_buf() {
                Ok(bytes) => {
                    plain.extend_from_slice(bytes);
                    bytes.len()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if count == 0 {
                self.is_ended = true;
                return Ok(());
            }
            reader.consume(count);
        }
    }
}

/// Writes to a socket without waiting.
struct Direct<'a>(&'a TcpStream);

impl Write for Direct<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
