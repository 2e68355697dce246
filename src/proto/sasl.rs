//! The SASL layer (part 5.3): frames of both ends, and the simplest mechanisms of a client.

use bytes::{Bytes, BytesMut};
use fe2o3_amqp_types::sasl as fes;
use serde_amqp::primitives::{Array, Binary, Symbol};

use super::frame::FrameKind;
use super::performative::{self, EncodeError, decode};
use super::wire::{DecodeError, Reader, code};
use super::{ClientSasl, SaslCode};

/// A SASL frame of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SaslFrame {
    Mechanisms(Vec<String>),
    Init {
        mechanism: String,
        response: Option<Bytes>,
        hostname: Option<String>,
    },
    Challenge(Bytes),
    Response(Bytes),
    Outcome(SaslCode, Option<Bytes>),
}

/// Reads a SASL frame's body.
pub(crate) fn parse(body: &[u8]) -> Result<SaslFrame, DecodeError> {
    Ok(match Reader::new(body).descriptor()? {
        code::SASL_MECHANISMS => {
            let frame: fes::SaslMechanisms = decode(body)?;
            let names = frame.sasl_server_mechanisms.into_inner();
            SaslFrame::Mechanisms(names.into_iter().map(Symbol::into_inner).collect())
        }
        code::SASL_INIT => {
            let frame: fes::SaslInit = decode(body)?;
            SaslFrame::Init {
                mechanism: frame.mechanism.into_inner(),
                response: frame.initial_response.map(bytes_in),
                hostname: frame.hostname,
            }
        }
        code::SASL_CHALLENGE => {
            SaslFrame::Challenge(bytes_in(decode::<fes::SaslChallenge>(body)?.challenge))
        }
        code::SASL_RESPONSE => {
            SaslFrame::Response(bytes_in(decode::<fes::SaslResponse>(body)?.response))
        }
        code::SASL_OUTCOME => {
            let frame: fes::SaslOutcome = decode(body)?;
            let code = match frame.code {
                fes::SaslCode::Ok => SaslCode::Ok,
                fes::SaslCode::Auth => SaslCode::Auth,
                fes::SaslCode::Sys => SaslCode::Sys,
                fes::SaslCode::SysPerm => SaslCode::SysPerm,
                fes::SaslCode::SysTemp => SaslCode::SysTemp,
            };
            SaslFrame::Outcome(code, frame.additional_data.map(bytes_in))
        }
        _ => return Err(DecodeError("a SASL frame was expected")),
    })
}

fn bytes_in(binary: Binary) -> Bytes {
    binary.into_vec().into()
}

fn bytes_out(bytes: &[u8]) -> Binary {
    Binary::from(bytes.to_vec())
}

pub(crate) fn put_mechanisms(out: &mut BytesMut, names: &[String]) -> Result<(), EncodeError> {
    let names: Vec<Symbol> = names
        .iter()
        .map(|name| Symbol::from(name.as_str()))
        .collect();
    let frame = fes::SaslMechanisms {
        sasl_server_mechanisms: Array::from(names),
    };
    performative::put(out, FrameKind::Sasl, 0, &frame)
}

pub(crate) fn put_challenge(out: &mut BytesMut, challenge: &[u8]) -> Result<(), EncodeError> {
    let frame = fes::SaslChallenge {
        challenge: bytes_out(challenge),
    };
    performative::put(out, FrameKind::Sasl, 0, &frame)
}

pub(crate) fn put_response(out: &mut BytesMut, response: &[u8]) -> Result<(), EncodeError> {
    let frame = fes::SaslResponse {
        response: bytes_out(response),
    };
    performative::put(out, FrameKind::Sasl, 0, &frame)
}

pub(crate) fn put_outcome(
    out: &mut BytesMut,
    code: SaslCode,
    additional_data: Option<&[u8]>,
) -> Result<(), EncodeError> {
    let code = match code {
        SaslCode::Ok => fes::SaslCode::Ok,
        SaslCode::Auth => fes::SaslCode::Auth,
        SaslCode::Sys => fes::SaslCode::Sys,
        SaslCode::SysPerm => fes::SaslCode::SysPerm,
        SaslCode::SysTemp => fes::SaslCode::SysTemp,
    };
    let frame = fes::SaslOutcome {
        code,
        additional_data: additional_data.map(bytes_out),
    };
    performative::put(out, FrameKind::Sasl, 0, &frame)
}

impl ClientSasl {
    /// Whether there is a SASL layer at all.
    pub(crate) fn has_layer(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// The mechanism and the first response.
    /// What the server refuses when it refuses the client.
    pub(crate) fn presented(&self) -> &'static str {
        match self {
            Self::Dialogue(dialogue) => dialogue.presented(),
            _ => "the credentials",
        }
    }

    pub(crate) fn begin(&mut self, offered: &[String]) -> Result<(&'static str, Vec<u8>), String> {
        let (mechanism, response) = match self {
            Self::None | Self::Anonymous => ("ANONYMOUS", Vec::new()),
            Self::Plain { user, password } => {
                let response = [b"\0", user.as_bytes(), b"\0", password.as_bytes()].concat();
                ("PLAIN", response)
            }
            Self::Dialogue(dialogue) => return dialogue.begin(offered),
        };
        if offered.iter().any(|name| name == mechanism) {
            return Ok((mechanism, response));
        }
        Err(format!(
            "the server offers only the mechanisms {}",
            offered.join(", ")
        ))
    }

    pub(crate) fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Self::Dialogue(dialogue) => dialogue.answer(challenge),
            // Nothing to add.
            Self::None | Self::Anonymous | Self::Plain { .. } => Ok(Vec::new()),
        }
    }

    pub(crate) fn finish(&mut self, last_word: Option<&[u8]>) -> Result<(), String> {
        match self {
            Self::Dialogue(dialogue) => dialogue.finish(last_word),
            Self::None | Self::Anonymous | Self::Plain { .. } => Ok(()),
        }
    }
}

/// Writes a client's choice.
pub(crate) fn put_init(
    out: &mut BytesMut,
    (mechanism, response): (&str, Vec<u8>),
    hostname: Option<&str>,
) -> Result<(), EncodeError> {
    let frame = fes::SaslInit {
        mechanism: Symbol::from(mechanism),
        initial_response: Some(Binary::from(response)),
        hostname: hostname.map(String::from),
    };
    performative::put(out, FrameKind::Sasl, 0, &frame)
}
