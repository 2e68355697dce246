//! Failed handshakes in words: what is wrong, and which parameter to mend on which side.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::certificate::OLD_VERSION;
use super::client::is_wrong_name;
use super::parameters::{Names, SERVER_NAMES};

/// Whether an error comes from TLS and not from the network.
#[must_use]
pub fn is_tls(error: &io::Error) -> bool {
    reason(error).is_some()
}

fn reason(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Why the listening side could not agree with a caller.
#[must_use]
pub fn accept_failure(error: &io::Error) -> String {
    let names = &SERVER_NAMES;
    let Some(reason) = reason(error) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => "it hung up during the handshake".to_owned(),
            _ => error.to_string(),
        };
    };
    match reason {
        Error::NoCertificatesPresented => {
            format!("it sent no certificate, and {} is enabled", names.verify)
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!("the issuer of its certificate is not in {}", names.trusted)
        }
        Error::InvalidCertificate(error) => {
            format!("its certificate is refused: {}", certificate(error))
        }
        Error::AlertReceived(alert) if is_about_certificate(*alert) => format!(
            "it refuses our certificate ({}): {}; it must trust the issuer (a peer: in its \
             ft_ssl_trusted), and the host name must be right",
            names.identity,
            alert_words(*alert)
        ),
        Error::AlertReceived(alert) => format!("it gave up: {}", alert_words(*alert)),
        Error::PeerIncompatible(reason) => format!(
            "no version or cipher in common ({reason:?}); {} may be too narrow",
            names.ciphers
        ),
        Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        other => other.to_string(),
    }
}

/// Why the calling side could not agree with a server. `name`: whom it wanted.
#[must_use]
pub fn connect_failure(error: &io::Error, names: &Names, name: &str) -> String {
    let Some(reason) = reason(error) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => "it hung up during the TLS handshake".to_owned(),
            _ => error.to_string(),
        };
    };
    match reason {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => format!(
            "{}: the issuer of the server's certificate is not in it; add that issuer's certificate",
            names.trusted
        ),
        Error::InvalidCertificate(error) if is_wrong_name(error) => format!(
            "{}: the server's certificate is not for {}{}; set it to a name in the certificate",
            names.expected_hostname,
            name,
            presented(error)
        ),
        Error::InvalidCertificate(error) => format!(
            "the server's certificate (its {}) is refused: {}",
            SERVER_NAMES.identity,
            certificate(error)
        ),
        Error::AlertReceived(AlertDescription::CertificateRequired) => format!(
            "{}: not set, and the server wants a certificate (its {})",
            names.identity, SERVER_NAMES.verify
        ),
        Error::AlertReceived(alert) if is_about_certificate(*alert) => format!(
            "{}: the server refuses our certificate: {}; its issuer must be in the server's {}",
            names.identity,
            alert_words(*alert),
            SERVER_NAMES.trusted
        ),
        Error::AlertReceived(
            alert @ (AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion),
        ) => format!(
            "{}: the server agrees to no version or cipher (its {}), or wants a certificate ({}): {}",
            names.ciphers,
            SERVER_NAMES.ciphers,
            names.identity,
            alert_words(*alert)
        ),
        Error::AlertReceived(alert) => format!("the server gave up: {}", alert_words(*alert)),
        Error::PeerIncompatible(reason) => format!(
            "{}: no version or cipher in common with the server ({reason:?})",
            names.ciphers
        ),
        Error::InvalidMessage(InvalidMessage::InvalidContentType | _) => {
            "it does not speak TLS there; write tcp:// or amqp://, or have the server listen on \
             ssl://"
                .to_owned()
        }
        other => other.to_string(),
    }
}

fn is_about_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::NoCertificate
    )
}

fn alert_words(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => "it does not know the issuer".to_owned(),
        AlertDescription::CertificateExpired => "it has expired or is not valid yet".to_owned(),
        AlertDescription::BadCertificate => "it finds the certificate bad".to_owned(),
        AlertDescription::UnsupportedCertificate => {
            "the certificate was not issued for this side of TLS (extended key usage)".to_owned()
        }
        AlertDescription::CertificateUnknown => "the certificate is not acceptable".to_owned(),
        AlertDescription::HandshakeFailure => "no agreement (handshake_failure)".to_owned(),
        other => format!("{other:?}"),
    }
}

fn certificate(error: &CertificateError) -> String {
    use CertificateError as Reason;
    match error {
        Reason::Expired | Reason::ExpiredContext { .. } => {
            "it has expired; have it renewed".to_owned()
        }
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => {
            "it is not valid yet; are the clocks of both machines right?".to_owned()
        }
        Reason::BadSignature => {
            "its signature is not that of the issuer that is trusted here".to_owned()
        }
        Reason::Other(reason) if reason.to_string().contains("UnsupportedCertVersion") => {
            OLD_VERSION.to_owned()
        }
        Reason::Other(reason) if reason.to_string().contains("CaUsedAsEndEntity") => {
            "it is the certificate of an issuer (CA); a server or client needs one of its own"
                .to_owned()
        }
        Reason::InvalidPurpose | Reason::InvalidPurposeContext { .. } => {
            "it was not issued for this side of TLS (extended key usage)".to_owned()
        }
        other => other.to_string(),
    }
}

fn presented(error: &CertificateError) -> String {
    match error {
        CertificateError::NotValidForNameContext { presented, .. } if !presented.is_empty() => {
            format!(" but for {}", presented.join(", "))
        }
        _ => String::new(),
    }
}
