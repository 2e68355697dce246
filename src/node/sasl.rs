//! Who the client is: SASL ANONYMOUS (RFC 4505), PLAIN (RFC 4616), and EXTERNAL (RFC 4422, appendix A)
//! for clients whose certificate was verified.
//!
//! All are one message long. The library `rsasl` refuses the empty password that a user without one
//! sends; that is for authorization to decide, not for parsing.

use crate::proto::SaslCode;

use super::{CertificateUser, PasswordCheck};

/// Longest response that is looked at, bytes.
const RESPONSE_BYTES_MAX: usize = 2048;

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The mechanism needs a response first: send an empty challenge.
    Challenge,
    /// Authenticated; the user's name unless anonymous.
    Welcome(Option<String>),
    /// Refused.
    Refused(SaslCode),
}

/// Judges a response of a mechanism.
pub(crate) fn answer(
    mechanism: &str,
    response: Option<&[u8]>,
    check: Option<&PasswordCheck>,
    certificate: Option<&CertificateUser>,
) -> Answer {
    let is_plain = mechanism == "PLAIN" && response.is_some();
    if let Some(user) = certificate.filter(|user| user.is_forced)
        && (is_plain || mechanism == "ANONYMOUS")
    {
        return Answer::Welcome(Some(user.name.clone()));
    }
    match (mechanism, response) {
        ("EXTERNAL", None) if certificate.is_some() => Answer::Challenge,
        ("EXTERNAL", Some(acts_for)) => external(acts_for, certificate),
        ("ANONYMOUS", _) if check.is_none() => Answer::Welcome(None),
        ("PLAIN", None) => Answer::Challenge,
        ("PLAIN", Some(response)) => plain(response, check, certificate),
        _ => Answer::Refused(SaslCode::Auth),
    }
}

/// Nothing, or the name that the certificate says anyway.
fn external(acts_for: &[u8], certificate: Option<&CertificateUser>) -> Answer {
    match certificate {
        Some(user) if acts_for.is_empty() || acts_for == user.name.as_bytes() => {
            Answer::Welcome(Some(user.name.clone()))
        }
        _ => Answer::Refused(SaslCode::Auth),
    }
}

/// `[authzid] NUL authcid NUL password`.
fn plain(
    response: &[u8],
    check: Option<&PasswordCheck>,
    certificate: Option<&CertificateUser>,
) -> Answer {
    let refused = Answer::Refused(SaslCode::Auth);
    if response.len() > RESPONSE_BYTES_MAX {
        return refused;
    }
    let parts: Vec<&[u8]> = response.split(|byte| *byte == 0).collect();
    let [acts_for, user, password] = parts[..] else {
        return refused;
    };
    let Ok(user) = std::str::from_utf8(user) else {
        return refused;
    };
    let is_self = acts_for.is_empty() || acts_for == user.as_bytes();
    if let Some(certificate) = certificate
        && certificate.request.as_deref() == Some(user)
        && is_self
    {
        return Answer::Welcome(Some(certificate.name.clone()));
    }
    let is_right = check.is_none_or(|check| check(user, password));
    if user.is_empty() || !is_self || !is_right {
        return refused;
    }
    Answer::Welcome(Some(user.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn secret() -> PasswordCheck {
        Arc::new(|user, password| user == "ann" && password == b"secret")
    }

    #[test]
    fn everybody_is_welcome_without_a_check() {
        let bob = Answer::Welcome(Some(String::from("bob")));
        assert_eq!(answer("ANONYMOUS", None, None, None), Answer::Welcome(None));
        assert_eq!(answer("PLAIN", Some(b"\0bob\0x"), None, None), bob);
        assert_eq!(answer("PLAIN", Some(b"\0bob\0"), None, None), bob);
        assert_eq!(answer("PLAIN", Some(b"bob\0bob\0x"), None, None), bob);
    }

    #[test]
    fn a_check_decides_and_anonymous_is_refused() {
        let check = secret();
        let refused = Answer::Refused(SaslCode::Auth);
        let ann = Answer::Welcome(Some(String::from("ann")));
        assert_eq!(
            answer("PLAIN", Some(b"\0ann\0secret"), Some(&check), None),
            ann
        );
        assert_eq!(
            answer("PLAIN", Some(b"\0ann\0wrong"), Some(&check), None),
            refused
        );
        assert_eq!(answer("ANONYMOUS", None, Some(&check), None), refused);
    }

    #[test]
    fn malformed_responses_are_refused() {
        let refused = Answer::Refused(SaslCode::Auth);
        for response in [
            &b""[..],
            b"x",
            b"\0\0",
            b"\0a\0b\0c",
            b"x\0a\0b",
            b"\0\xff\0b",
        ] {
            assert_eq!(answer("PLAIN", Some(response), None, None), refused);
        }
        assert_eq!(answer("PLAIN", Some(&[b'x'; 4096]), None, None), refused);
        assert_eq!(answer("EXTERNAL", None, None, None), refused);
    }

    #[test]
    fn a_verified_certificate_says_who_the_user_is() {
        let user = |is_forced| CertificateUser {
            name: String::from("carol"),
            is_forced,
            request: Some(String::from("CERTIFICATE_USER")),
        };
        let (asked, forced, check) = (user(false), user(true), secret());
        let say = |mechanism, response: Option<&[u8]>, user| {
            answer(mechanism, response, Some(&check), Some(user))
        };
        let carol = Answer::Welcome(Some(String::from("carol")));
        let ann = Answer::Welcome(Some(String::from("ann")));
        let refused = Answer::Refused(SaslCode::Auth);
        assert_eq!(say("EXTERNAL", None, &asked), Answer::Challenge);
        assert_eq!(say("EXTERNAL", Some(b""), &asked), carol);
        assert_eq!(say("EXTERNAL", Some(b"carol"), &asked), carol);
        assert_eq!(say("EXTERNAL", Some(b"ann"), &asked), refused);
        assert_eq!(say("PLAIN", Some(b"\0CERTIFICATE_USER\0"), &asked), carol);
        assert_eq!(say("PLAIN", Some(b"\0ann\0secret"), &asked), ann);
        assert_eq!(say("PLAIN", Some(b"\0ann\0wrong"), &asked), refused);
        assert_eq!(say("PLAIN", Some(b"\0ann\0secret"), &forced), carol);
        assert_eq!(say("ANONYMOUS", None, &forced), carol);
        assert_eq!(say("ANONYMOUS", None, &asked), refused);
    }

    #[test]
    fn plain_without_a_first_response_is_asked_for_one() {
        assert_eq!(answer("PLAIN", None, None, None), Answer::Challenge);
    }
}
