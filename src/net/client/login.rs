//! How a client of ours proves who it is.

use std::fmt;

use super::Credentials;
use crate::auth::{ClientExchange, Hash, nonce};
use crate::proto::ClientDialogue;

/// The best mechanism for a password that the server offers: SCRAM-SHA-512, SCRAM-SHA-256, PLAIN.
pub(super) struct Login {
    credentials: Credentials,
    /// Whether the password itself may be sent: nobody else can read it on its way.
    is_private: bool,
    exchange: Option<ClientExchange>,
    /// The server has proved that it knows the password, or the mechanism does not ask for it.
    is_proved: bool,
}

impl Login {
    pub(super) fn new(credentials: Credentials, is_private: bool) -> Self {
        Self {
            credentials,
            is_private,
            exchange: None,
            is_proved: false,
        }
    }
}

impl ClientDialogue for Login {
    fn begin(&mut self, offered: &[String]) -> Result<(&'static str, Vec<u8>), String> {
        let Credentials { user, password } = &self.credentials;
        let is_offered = |name: &str| offered.iter().any(|other| other == name);
        if let Some(hash) = Hash::ALL
            .into_iter()
            .find(|hash| is_offered(hash.mechanism()))
        {
            let exchange = ClientExchange::new(hash, user, password, &nonce());
            let first = exchange.first().into_bytes();
            self.exchange = Some(exchange);
            return Ok((hash.mechanism(), first));
        }
        if !is_offered("PLAIN") {
            return Err(format!(
                "the server offers only the mechanisms {}",
                offered.join(", ")
            ));
        }
        if !self.is_private {
            return Err(String::from(
                "the server wants the password itself, which everybody on the network could read; use amqps://",
            ));
        }
        self.is_proved = true;
        Ok(("PLAIN", format!("\0{user}\0{password}").into_bytes()))
    }

    fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, String> {
        let Some(exchange) = &mut self.exchange else {
            return Ok(Vec::new());
        };
        let response = exchange.answer(challenge)?;
        // After the proof there is nothing to say.
        self.is_proved = response.is_empty();
        Ok(response.into_bytes())
    }

    fn finish(&mut self, last_word: Option<&[u8]>) -> Result<(), String> {
        if let Some(last_word) = last_word.filter(|_| !self.is_proved) {
            self.answer(last_word)?;
        }
        match self.is_proved {
            true => Ok(()),
            false => Err(String::from(
                "the server did not prove that it knows the password: it may be an impostor",
            )),
        }
    }
}

/// The certificate says who the client is: EXTERNAL. A server that trusts nobody for clients'
/// certificates does not offer that; then the client is nobody, ANONYMOUS.
#[derive(Debug)]
pub(super) struct CertificateLogin;

impl ClientDialogue for CertificateLogin {
    fn begin(&mut self, offered: &[String]) -> Result<(&'static str, Vec<u8>), String> {
        for mechanism in ["EXTERNAL", "ANONYMOUS"] {
            if offered.iter().any(|name| name == mechanism) {
                return Ok((mechanism, Vec::new()));
            }
        }
        Err(format!(
            "the server takes no certificate as a login (its ssl_server_trusted may be missing, or \
             does not name the issuer): it offers only the mechanisms {}",
            offered.join(", ")
        ))
    }

    fn answer(&mut self, _: &[u8]) -> Result<Vec<u8>, String> {
        // The name in the certificate is all there is to say.
        Ok(Vec::new())
    }

    fn finish(&mut self, _: Option<&[u8]>) -> Result<(), String> {
        Ok(())
    }

    fn presented(&self) -> &'static str {
        "the certificate as a login"
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Login")
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(is_private: bool) -> Login {
        let credentials = Credentials {
            user: String::from("ann"),
            password: String::from("sesame"),
        };
        Login::new(credentials, is_private)
    }

    fn begin(login: &mut Login, offered: &[&str]) -> Result<&'static str, String> {
        let offered: Vec<String> = offered.iter().map(|&name| name.to_owned()).collect();
        login.begin(&offered).map(|(mechanism, _)| mechanism)
    }

    #[test]
    fn the_best_mechanism_is_chosen_and_a_password_is_never_sent_in_the_clear() {
        let all = ["ANONYMOUS", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
        assert_eq!(begin(&mut login(false), &all), Ok("SCRAM-SHA-512"));
        assert_eq!(begin(&mut login(false), &all[..3]), Ok("SCRAM-SHA-256"));
        assert_eq!(begin(&mut login(true), &all[..2]), Ok("PLAIN"));
        let error = begin(&mut login(false), &all[..2]).expect_err("it would be in the clear");
        assert!(error.contains("amqps://"), "{error}");
        let error = begin(&mut login(true), &all[..1]).expect_err("there is none");
        assert!(error.contains("only the mechanisms ANONYMOUS"), "{error}");
    }

    #[test]
    fn a_certificate_is_a_login_where_the_server_takes_it() {
        let begin = |offered: &[&str]| {
            let offered: Vec<String> = offered.iter().map(|&name| name.to_owned()).collect();
            CertificateLogin.begin(&offered)
        };
        let external = begin(&["ANONYMOUS", "PLAIN", "EXTERNAL"]);
        assert_eq!(external, Ok(("EXTERNAL", Vec::new())));
        let anonymous = begin(&["ANONYMOUS", "PLAIN"]);
        assert_eq!(anonymous, Ok(("ANONYMOUS", Vec::new())));
        let error = begin(&["PLAIN"]).expect_err("there is no way");
        assert!(error.contains("ssl_server_trusted"), "{error}");
    }

    #[test]
    fn a_server_that_proves_nothing_is_left() {
        let mut login = login(true);
        assert_eq!(begin(&mut login, &["SCRAM-SHA-256"]), Ok("SCRAM-SHA-256"));
        let error = login.finish(None).expect_err("nothing was proved");
        assert!(error.contains("impostor"), "{error}");
        assert!(login.finish(Some(b"v=AAAA")).is_err());
        assert!(!format!("{login:?}").contains("sesame"));
    }
}
