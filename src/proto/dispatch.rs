//! The way from bytes to sessions: frames are cut out of the input, decoded and handed on; faults end what
//! they belong to.

use bytes::{Bytes, BytesMut};
use fe2o3_amqp_types::performatives as fep;
use slab::Slab;

use super::connection::{Connection, Phase};
use super::error::Fault;
use super::fast::{Disposition, Flow, Transfer};
use super::frame::{self, FRAME_BEFORE_OPEN_MAX, FrameHeader, FrameKind};
use super::performative::{attach_identity, attach_in, decode, error_in};
use super::session::{Session, SessionState};
use super::shared::SessionId;
use super::wire::{DecodeError, FRAME_VALUES_MAX, Reader, check, code};
use super::{ErrorCondition, PeerRole, condition};

impl Connection {
    /// The owner answered: goes on with what was held back.
    pub(crate) fn resume(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        self.process(&mut held);
        self.held = held;
    }

    pub(crate) fn process(&mut self, input: &mut BytesMut) {
        loop {
            let has_progressed = match self.phase {
                Phase::Header { is_sasl_done } => self.read_header(input, is_sasl_done),
                Phase::SaslInit
                | Phase::SaslResponse
                | Phase::SaslClient
                | Phase::AwaitOpen
                | Phase::Closing => self.read_frame(input),
                Phase::Open => self.read_frames(input),
                Phase::SaslOwner | Phase::OpenOwner => false,
                Phase::Finished => {
                    input.clear();
                    false
                }
            };
            if !has_progressed {
                return;
            }
        }
    }

    /// Largest frame that is legal in the present phase.
    fn frame_size_max(&self) -> usize {
        match self.phase {
            Phase::Open | Phase::Closing => self.shared.settings.max_frame_size as usize,
            _ => FRAME_BEFORE_OPEN_MAX,
        }
    }

    /// Reads one frame: for the phases in which each may change what is legal next.
    fn read_frame(&mut self, input: &mut BytesMut) -> bool {
        let header = match frame::parse_header(input, self.frame_size_max()) {
            Ok(Some(header)) if header.size <= input.len() => header,
            Ok(_) => return false,
            Err(error) => {
                self.fail(framing(error));
                return true;
            }
        };
        let frame = input.split_to(header.size).freeze();
        let body = frame.get(header.body..).unwrap_or_default();
        let outcome = match self.phase {
            Phase::Closing => {
                self.on_frame_while_closing(header, body);
                Ok(())
            }
            Phase::AwaitOpen => self.on_frame_before_open(header, body),
            _ => self.on_sasl_frame(header, body),
        };
        if let Err(fault) = outcome {
            self.on_fault(fault, header.channel);
        }
        true
    }

    /// Reads all complete frames. Payloads become slices of one shared buffer.
    fn read_frames(&mut self, input: &mut BytesMut) -> bool {
        let size_max = self.frame_size_max();
        let mut complete = 0;
        let mut broken = None;
        while let Some(rest) = input.get(complete..) {
            match frame::parse_header(rest, size_max) {
                Ok(Some(header)) if header.size <= rest.len() => complete += header.size,
                Ok(_) => break,
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        let frames = input.split_to(complete).freeze();
        let mut at = 0;
        while self.phase == Phase::Open && at < frames.len() {
            let rest = frames.get(at..).unwrap_or_default();
            let Ok(Some(header)) = frame::parse_header(rest, size_max) else {
                break;
            };
            if let Err(fault) = self.on_frame(&frames, at, header) {
                self.on_fault(fault, header.channel);
            }
            at += header.size;
        }
        match broken {
            Some(error) if self.phase == Phase::Open => self.fail(framing(error)),
            _ => return complete > 0 && self.phase != Phase::Open,
        }
        true
    }

    fn on_frame_while_closing(&mut self, header: FrameHeader, body: &[u8]) {
        let is_close =
            header.kind == FrameKind::Amqp && Reader::new(body).descriptor() == Ok(code::CLOSE);
        if is_close {
            let error = decode::<fep::Close>(body)
                .ok()
                .and_then(|close| close.error);
            self.finish(error.map(error_in));
        }
    }

    /// One frame of an open connection; it begins at `at` of `frames`.
    fn on_frame(&mut self, frames: &Bytes, at: usize, header: FrameHeader) -> Result<(), Fault> {
        if header.kind != FrameKind::Amqp {
            return Err(DecodeError("a SASL frame came after the SASL layer").into());
        }
        let end = at + header.size;
        let body = frames.get(at + header.body..end).unwrap_or_default();
        if body.is_empty() {
            return Ok(());
        }
        let mut reader = Reader::new(body);
        let descriptor = reader.descriptor()?;
        match descriptor {
            code::OPEN => {
                return Err(Fault::Connection(ErrorCondition::new(
                    condition::NOT_ALLOWED,
                    "the connection is open already",
                )));
            }
            code::CLOSE => return self.on_close(body),
            code::BEGIN => return self.on_begin(header.channel, &decode(body)?),
            code::END => return self.on_end(header.channel, decode(body)?),
            _ => {}
        }
        let session = session_of(&mut self.sessions, &self.channels, header.channel)?;
        if session.state == SessionState::EndSent {
            return Ok(());
        }
        match descriptor {
            code::TRANSFER => {
                let transfer = Transfer::parse(reader.list()?)?;
                let payload = frames.slice(end - reader.rest().len()..end);
                session.on_transfer(&mut self.shared, &transfer, payload)
            }
            code::DISPOSITION => {
                session.on_disposition(&mut self.shared, &Disposition::parse(reader.list()?)?)
            }
            code::FLOW => session.on_flow(&mut self.shared, &Flow::parse(reader.list()?)?),
            code::ATTACH => self.on_attach(header.channel, body),
            code::DETACH => {
                let detach: fep::Detach = decode(body)?;
                let error = detach.error.map(error_in);
                session.on_detach(&mut self.shared, detach.handle.0, detach.closed, error)
            }
            _ => Err(DecodeError("unknown performative").into()),
        }
    }

    fn on_begin(&mut self, channel: u16, begin: &fep::Begin) -> Result<(), Fault> {
        let fault =
            |condition, text: &str| Err(Fault::Connection(ErrorCondition::new(condition, text)));
        if channel > self.shared.settings.channel_max {
            return fault(
                condition::FRAMING_ERROR,
                "a channel above the channel-max of our open",
            );
        }
        let index = usize::from(channel);
        if self.channels.get(index).is_some_and(Option::is_some) {
            return fault(condition::NOT_ALLOWED, "the channel has a session already");
        }
        let local = match begin.remote_channel {
            Some(local) => {
                let session = self.sessions.get_mut(usize::from(local));
                match session {
                    Some(session) if !session.is_mapped => {
                        session.on_begin(&mut self.shared, begin);
                    }
                    _ => return fault(condition::NOT_ALLOWED, "a begin answers none of ours"),
                }
                local
            }
            None => {
                let Some(id) = self.new_session() else {
                    return fault(condition::RESOURCE_LIMIT_EXCEEDED, "too many sessions");
                };
                if let Some(session) = self.sessions.get_mut(usize::from(id.channel)) {
                    session.put_begin(&mut self.shared, Some(channel))?;
                    session.on_begin(&mut self.shared, begin);
                }
                id.channel
            }
        };
        if self.channels.len() <= index {
            self.channels.resize(index + 1, None);
        }
        if let Some(slot) = self.channels.get_mut(index) {
            *slot = Some(local);
        }
        Ok(())
    }

    /// Puts a new session into the table; `None` when no channel is left.
    pub(crate) fn new_session(&mut self) -> Option<SessionId> {
        let channel = u16::try_from(self.sessions.vacant_key()).ok()?;
        if channel > self.channel_max() {
            return None;
        }
        let id = SessionId {
            channel,
            generation: self.shared.next_generation(),
        };
        self.sessions.insert(Session::new(id, &self.shared));
        Some(id)
    }

    fn on_end(&mut self, channel: u16, end: fep::End) -> Result<(), Fault> {
        let session = session_of(&mut self.sessions, &self.channels, channel)?;
        let local = usize::from(session.id.channel);
        let answered = session.on_end(&mut self.shared, end.error.map(error_in));
        self.sessions.try_remove(local);
        if let Some(slot) = self.channels.get_mut(usize::from(channel)) {
            *slot = None;
        }
        Ok(answered?)
    }

    fn on_attach(&mut self, channel: u16, body: &[u8]) -> Result<(), Fault> {
        let attach = match decode::<fep::Attach>(body) {
            Ok(attach) => attach_in(attach),
            Err(error) => {
                // Well-formed but of a kind that we do not know: refuse the link, keep the connection.
                check(body, FRAME_VALUES_MAX)?;
                let (name, handle, role) = attach_identity(body).map_err(|_| error)?;
                self.steal(role, &name)?;
                let session = session_of(&mut self.sessions, &self.channels, channel)?;
                return session.refuse_unreadable_attach(&mut self.shared, name, handle, role);
            }
        };
        let session = session_of(&mut self.sessions, &self.channels, channel)?;
        if let Some(id) = session.unanswered_link(attach.peer_role, &attach.name) {
            return session.on_attach_answer(&mut self.shared, id, attach);
        }
        self.steal(attach.peer_role, &attach.name)?;
        let session = session_of(&mut self.sessions, &self.channels, channel)?;
        session.on_new_attach(&mut self.shared, attach)
    }

    /// A new attach takes over the name of a link of this connection (part 2.6.1).
    fn steal(&mut self, role: PeerRole, name: &str) -> Result<(), Fault> {
        let Some(&id) = self.shared.names.get(&(role, String::from(name))) else {
            return Ok(());
        };
        let Some(session) = self.sessions.get_mut(usize::from(id.channel)) else {
            return Ok(());
        };
        let error = ErrorCondition::new(
            condition::LINK_STOLEN,
            "another link with the same name and direction was attached on this connection",
        );
        Ok(session.fail_link(&mut self.shared, id, error)?)
    }

    pub(crate) fn on_close(&mut self, body: &[u8]) -> Result<(), Fault> {
        let close: fep::Close = decode(body)?;
        self.flush();
        self.put_close(None);
        self.finish(close.error.map(error_in));
        Ok(())
    }

    fn on_fault(&mut self, fault: Fault, channel: u16) {
        let written = match fault {
            Fault::Connection(error) => {
                self.fail(error);
                return;
            }
            Fault::Session(error) => {
                match session_of(&mut self.sessions, &self.channels, channel) {
                    Ok(session) => {
                        let written = session.end(&mut self.shared, Some(&error));
                        session.report_end(&mut self.shared, Some(error));
                        written
                    }
                    Err(_) => Ok(()),
                }
            }
            Fault::Link(handle, error) => {
                match session_of(&mut self.sessions, &self.channels, channel) {
                    Ok(session) => match session.links.get(handle as usize).map(|link| link.id) {
                        Some(id) => session.fail_link(&mut self.shared, id, error),
                        None => Ok(()),
                    },
                    Err(_) => Ok(()),
                }
            }
        };
        self.fail_unless_written(written);
    }
}

/// The session of the peer's channel.
fn session_of<'a>(
    sessions: &'a mut Slab<Session>,
    channels: &[Option<u16>],
    channel: u16,
) -> Result<&'a mut Session, Fault> {
    channels
        .get(usize::from(channel))
        .and_then(|local| sessions.get_mut(usize::from((*local)?)))
        .ok_or_else(|| {
            Fault::Connection(ErrorCondition::new(
                condition::FRAMING_ERROR,
                format!("no session was begun on channel {channel}"),
            ))
        })
}

fn framing(error: DecodeError) -> ErrorCondition {
    ErrorCondition::new(condition::FRAMING_ERROR, error.0)
}
