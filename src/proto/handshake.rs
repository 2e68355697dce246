//! The connection before open: protocol headers (part 2.2), the SASL dialogue (part 5.3), the peer's open.

use bytes::{Buf, BytesMut};
use fe2o3_amqp_types::performatives as fep;

use super::connection::{Connection, Phase};
use super::error::Fault;
use super::frame::{FrameHeader, FrameKind, MIN_MAX_FRAME_SIZE, ProtocolHeader};
use super::performative::{decode, open_in};
use super::sasl::{self, SaslFrame};
use super::shared::Shared;
use super::wire::{DecodeError, Reader, code};
use super::{ClientSasl, ErrorCondition, Event, SaslCode, condition};

/// How a server that speaks TLS begins to answer what is not TLS: an alert.
const TLS_ALERT: [u8; 2] = [21, 3];

impl Connection {
    /// Reads a protocol header. Anything but the one that fits ends the connection after ours was sent
    /// (part 2.2).
    pub(crate) fn read_header(&mut self, input: &mut BytesMut, is_sasl_done: bool) -> bool {
        let received = input
            .get(..input.len().min(ProtocolHeader::LEN))
            .unwrap_or_default();
        if received.len() < ProtocolHeader::LEN && ProtocolHeader::may_begin_with(received) {
            return false;
        }
        let (header, len) = (ProtocolHeader::parse(received), received.len());
        let is_tls = received.starts_with(&TLS_ALERT);
        input.advance(len);
        if is_tls && self.client.is_some() {
            self.finish(Some(ErrorCondition::new(
                condition::FRAMING_ERROR,
                "the server speaks TLS there: write ssl:// or amqps://",
            )));
        } else if self.client.is_some() {
            self.on_header_as_client(header, is_sasl_done);
        } else {
            self.on_header_as_server(header, is_sasl_done);
        }
        true
    }

    fn on_header_as_server(&mut self, header: Option<ProtocolHeader>, is_sasl_done: bool) {
        let settings = &self.shared.settings;
        match header {
            Some(ProtocolHeader::Sasl) if !is_sasl_done && !settings.sasl_mechanisms.is_empty() => {
                self.put_header(ProtocolHeader::Sasl);
                let Shared {
                    settings, output, ..
                } = &mut self.shared;
                let written = sasl::put_mechanisms(&mut output.ready, &settings.sasl_mechanisms);
                self.phase = Phase::SaslInit;
                self.fail_unless_written(written);
            }
            Some(ProtocolHeader::Amqp) if is_sasl_done || settings.allow_without_sasl => {
                self.put_header(ProtocolHeader::Amqp);
                self.phase = Phase::AwaitOpen;
            }
            _ => {
                let wants_sasl = !is_sasl_done && !settings.sasl_mechanisms.is_empty();
                let ours = if wants_sasl {
                    ProtocolHeader::Sasl
                } else {
                    ProtocolHeader::Amqp
                };
                self.put_header(ours);
                self.finish(Some(wrong_header()));
            }
        }
    }

    fn on_header_as_client(&mut self, header: Option<ProtocolHeader>, is_sasl_done: bool) {
        let is_sasl_due = !is_sasl_done && self.client.as_ref().is_some_and(ClientSasl::has_layer);
        match header {
            Some(ProtocolHeader::Sasl) if is_sasl_due => self.phase = Phase::SaslClient,
            Some(ProtocolHeader::Amqp) if !is_sasl_due => self.phase = Phase::AwaitOpen,
            _ => self.finish(Some(wrong_header())),
        }
    }

    pub(crate) fn on_sasl_frame(&mut self, header: FrameHeader, body: &[u8]) -> Result<(), Fault> {
        if header.kind != FrameKind::Sasl {
            return Err(DecodeError("a SASL frame was expected").into());
        }
        match (self.phase, sasl::parse(body)?) {
            (
                Phase::SaslInit,
                SaslFrame::Init {
                    mechanism,
                    response,
                    hostname,
                },
            ) => {
                self.wait_for_owner(
                    Phase::SaslOwner,
                    Event::SaslInit {
                        mechanism,
                        response,
                        hostname,
                    },
                );
                Ok(())
            }
            (Phase::SaslResponse, SaslFrame::Response(response)) => {
                self.wait_for_owner(Phase::SaslOwner, Event::SaslResponse(response));
                Ok(())
            }
            (Phase::SaslClient, frame) => self.on_sasl_frame_as_client(&frame),
            _ => Err(DecodeError("this SASL frame is not possible now").into()),
        }
    }

    fn on_sasl_frame_as_client(&mut self, frame: &SaslFrame) -> Result<(), Fault> {
        let Some(client) = &mut self.client else {
            return Ok(());
        };
        let out = &mut self.shared.output.ready;
        match frame {
            SaslFrame::Mechanisms(offered) => match client.begin(offered) {
                Ok(choice) => {
                    let hostname = self.shared.settings.hostname.as_deref();
                    Ok(sasl::put_init(out, choice, hostname)?)
                }
                Err(text) => self.give_up_login(text),
            },
            SaslFrame::Challenge(challenge) => match client.answer(challenge) {
                Ok(response) => Ok(sasl::put_response(out, &response)?),
                Err(text) => self.give_up_login(text),
            },
            SaslFrame::Outcome(SaslCode::Ok, last_word) => {
                if let Err(text) = client.finish(last_word.as_deref()) {
                    return self.give_up_login(text);
                }
                self.phase = Phase::Header { is_sasl_done: true };
                self.put_header(ProtocolHeader::Amqp);
                self.put_open();
                Ok(())
            }
            SaslFrame::Outcome(SaslCode::SysTemp, _) => {
                self.finish(Some(ErrorCondition::new(
                    condition::CONNECTION_FORCED,
                    "the server cannot authenticate anybody now: try again",
                )));
                Ok(())
            }
            SaslFrame::Outcome(..) => {
                let text = format!("the server refused {}", client.presented());
                self.give_up_login(text)
            }
            SaslFrame::Init { .. } | SaslFrame::Response(_) => {
                Err(DecodeError("a client's SASL frame came from the server").into())
            }
        }
    }

    fn give_up_login(&mut self, text: String) -> Result<(), Fault> {
        let error = ErrorCondition::new(condition::UNAUTHORIZED_ACCESS, text);
        self.finish(Some(error));
        Ok(())
    }

    fn wait_for_owner(&mut self, phase: Phase, event: Event) {
        self.phase = phase;
        self.timers.pause_handshake();
        self.shared.events.push_back(event);
    }

    pub(crate) fn on_frame_before_open(
        &mut self,
        header: FrameHeader,
        body: &[u8],
    ) -> Result<(), Fault> {
        if header.kind != FrameKind::Amqp {
            return Err(DecodeError("a SASL frame came after the SASL layer").into());
        }
        if body.is_empty() {
            return Ok(());
        }
        match Reader::new(body).descriptor()? {
            code::OPEN => {}
            code::CLOSE if self.client.is_some() => return self.on_close(body),
            _ => {
                return Err(Fault::Connection(ErrorCondition::new(
                    condition::NOT_ALLOWED,
                    "the first frame of a connection is open",
                )));
            }
        }
        let open = open_in(decode::<fep::Open>(body)?);
        self.shared.peer_max_frame_size = open.max_frame_size.max(MIN_MAX_FRAME_SIZE) as usize;
        self.peer_channel_max = open.channel_max;
        self.peer_idle_timeout_ms = open.idle_timeout_ms;
        self.stalls_on_close = open.is_proton();
        let event = Event::Opened(Box::new(open));
        if self.client.is_none() {
            self.wait_for_owner(Phase::OpenOwner, event);
        } else {
            self.phase = Phase::Open;
            self.timers.on_open(
                self.shared.settings.idle_timeout_ms,
                self.peer_idle_timeout_ms,
            );
            self.shared.events.push_back(event);
        }
        Ok(())
    }
}

fn wrong_header() -> ErrorCondition {
    ErrorCondition::new(
        condition::FRAMING_ERROR,
        "the peer began with a protocol header that does not fit: AMQP 1.0 was expected",
    )
}
