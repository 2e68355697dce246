//! Cipher suites by the names that OpenSSL and IANA gave them.

use rustls::{CipherSuite, SupportedCipherSuite};

/// OpenSSL's names where they differ.
const OPENSSL: &[(&str, CipherSuite)] = &[
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
];

/// The suites of a list, in its order. A list without a suite of TLS 1.3 switches TLS 1.3 off, one
/// without a suite of TLS 1.2 that.
///
/// # Errors
/// A name that is not known, with those that are.
pub(super) fn parse(
    list: &str,
    known: &[SupportedCipherSuite],
) -> Result<Vec<SupportedCipherSuite>, String> {
    let is_end = |letter: char| matches!(letter, ':' | ',' | ';') || letter.is_whitespace();
    let mut suites: Vec<SupportedCipherSuite> = Vec::new();
    for name in list.split(is_end).filter(|name| !name.is_empty()) {
        let Some(suite) = known.iter().find(|suite| is_called(**suite, name)) else {
            return Err(format!(
                "`{name}` is not known here; there are {}",
                names(known)
            ));
        };
        if !suites.contains(suite) {
            suites.push(*suite);
        }
    }
    if suites.is_empty() {
        return Err(format!("no suite is named; there are {}", names(known)));
    }
    Ok(suites)
}

fn is_called(suite: SupportedCipherSuite, name: &str) -> bool {
    let id = suite.suite();
    let is_iana = id
        .as_str()
        .is_some_and(|iana| iana.eq_ignore_ascii_case(name));
    let is_openssl =
        |(openssl, other): &(&str, CipherSuite)| *other == id && openssl.eq_ignore_ascii_case(name);
    is_iana || OPENSSL.iter().any(is_openssl)
}

fn names(known: &[SupportedCipherSuite]) -> String {
    let name = |suite: &SupportedCipherSuite| {
        let found = OPENSSL.iter().find(|(_, id)| *id == suite.suite());
        found.map_or_else(
            || format!("{:?}", suite.suite()),
            |(name, _)| (*name).to_owned(),
        )
    };
    known.iter().map(name).collect::<Vec<_>>().join(", ")
}
