//! What a certificate says of its holder.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_cert::der::{Decode, SliceReader};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::{Certificate, Version};

/// What is wrong with a certificate of X.509 version 1, and how to get another.
pub(super) const OLD_VERSION: &str = "it is a certificate of X.509 version 1, and TLS needs version 3; have \
     it issued with extensions (openssl x509 -req ... -extfile FILE, see docs/CONFIGURATION.md)";

/// The common name of the holder: the user's name, for client certificates.
#[must_use]
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = read(certificate).ok()?;
    let name = certificate.tbs_certificate().subject().common_name();
    let name = name.ok()??.value().trim().to_owned();
    let is_name = !name.is_empty() && !name.chars().any(char::is_control);
    is_name.then_some(name)
}

/// Whether the certificate names hosts otherwise than by its common name.
pub(super) fn has_alternative_names(certificate: &CertificateDer<'_>) -> bool {
    read(certificate).is_ok_and(|certificate| {
        let found = certificate
            .tbs_certificate()
            .get_extension::<SubjectAltName>();
        !matches!(found, Ok(None))
    })
}

/// Why a certificate cannot be used now: it has expired or is not valid yet.
pub(super) fn out_of_date(certificate: &CertificateDer<'_>) -> Result<(), String> {
    let certificate = read(certificate)?;
    let validity = certificate.tbs_certificate().validity();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    if now > validity.not_after.to_unix_duration() {
        let when = validity.not_after.to_date_time();
        return Err(format!(
            "the certificate expired on {when}; have it renewed"
        ));
    }
    if now < validity.not_before.to_unix_duration() {
        let when = validity.not_before.to_date_time();
        return Err(format!(
            "the certificate is not valid before {when}; is the clock of this machine right?"
        ));
    }
    Ok(())
}

/// Why nobody would accept a certificate: it has the form of X.509 before version 3, without extensions.
pub(super) fn out_of_fashion(certificate: &CertificateDer<'_>) -> Result<(), String> {
    match read(certificate)?.tbs_certificate().version() {
        Version::V3 => Ok(()),
        _ => Err(OLD_VERSION.to_owned()),
    }
}

/// Whether somebody certified himself.
pub(super) fn is_self_issued(certificate: &CertificateDer<'_>) -> bool {
    read(certificate).is_ok_and(|certificate| {
        let certificate = certificate.tbs_certificate();
        certificate.subject() == certificate.issuer()
    })
}

fn read(certificate: &CertificateDer<'_>) -> Result<Certificate, String> {
    let read = SliceReader::new(certificate.as_ref())
        .and_then(|mut reader| Certificate::decode(&mut reader));
    read.map_err(|error| format!("the certificate cannot be read: {error}"))
}
