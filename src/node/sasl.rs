//! Who the client is: SASL ANONYMOUS (RFC 4505) and PLAIN (RFC 4616).
//!
//! Both are one message long. The library `rsasl` refuses the empty password that a user without one
//! sends; that is for authorization to decide, not for parsing.

use crate::proto::SaslCode;

use super::PasswordCheck;

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
) -> Answer {
    match (mechanism, response) {
        ("ANONYMOUS", _) if check.is_none() => Answer::Welcome(None),
        ("PLAIN", None) => Answer::Challenge,
        ("PLAIN", Some(response)) => plain(response, check),
        _ => Answer::Refused(SaslCode::Auth),
    }
}

/// `[authzid] NUL authcid NUL password`.
fn plain(response: &[u8], check: Option<&PasswordCheck>) -> Answer {
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
        assert_eq!(answer("ANONYMOUS", None, None), Answer::Welcome(None));
        assert_eq!(answer("PLAIN", Some(b"\0bob\0x"), None), bob);
        assert_eq!(answer("PLAIN", Some(b"\0bob\0"), None), bob);
        assert_eq!(answer("PLAIN", Some(b"bob\0bob\0x"), None), bob);
    }

    #[test]
    fn a_check_decides_and_anonymous_is_refused() {
        let check = secret();
        let refused = Answer::Refused(SaslCode::Auth);
        let ann = Answer::Welcome(Some(String::from("ann")));
        assert_eq!(answer("PLAIN", Some(b"\0ann\0secret"), Some(&check)), ann);
        assert_eq!(
            answer("PLAIN", Some(b"\0ann\0wrong"), Some(&check)),
            refused
        );
        assert_eq!(answer("ANONYMOUS", None, Some(&check)), refused);
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
            assert_eq!(answer("PLAIN", Some(response), None), refused);
        }
        assert_eq!(answer("PLAIN", Some(&[b'x'; 4096]), None), refused);
        assert_eq!(answer("EXTERNAL", None, None), refused);
    }

    #[test]
    fn plain_without_a_first_response_is_asked_for_one() {
        assert_eq!(answer("PLAIN", None, None), Answer::Challenge);
    }
}
