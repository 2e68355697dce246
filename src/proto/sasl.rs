//! The SASL layer (part 5.3): frames of both ends, and the two mechanisms that our own client speaks.

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
    Outcome(SaslCode),
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
        code::SASL_OUTCOME => SaslFrame::Outcome(match decode::<fes::SaslOutcome>(body)?.code {
            fes::SaslCode::Ok => SaslCode::Ok,
            fes::SaslCode::Auth => SaslCode::Auth,
            fes::SaslCode::Sys => SaslCode::Sys,
            fes::SaslCode::SysPerm => SaslCode::SysPerm,
            fes::SaslCode::SysTemp => SaslCode::SysTemp,
        }),
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
    /// Name of the mechanism; `None` without a SASL layer.
    pub(crate) fn mechanism(&self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Anonymous => Some("ANONYMOUS"),
            Self::Plain { .. } => Some("PLAIN"),
        }
    }

    /// Writes the client's choice.
    pub(crate) fn put_init(
        &self,
        out: &mut BytesMut,
        hostname: Option<&str>,
    ) -> Result<(), EncodeError> {
        let response = match self {
            Self::None | Self::Anonymous => Vec::new(),
            Self::Plain { user, password } => {
                [b"\0", user.as_bytes(), b"\0", password.as_bytes()].concat()
            }
        };
        let frame = fes::SaslInit {
            mechanism: Symbol::from(self.mechanism().unwrap_or("ANONYMOUS")),
            initial_response: Some(Binary::from(response)),
            hostname: hostname.map(String::from),
        };
        performative::put(out, FrameKind::Sasl, 0, &frame)
    }
}
