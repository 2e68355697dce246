//! How two servers come to agree that they are partners.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::line::{
    Answer, Call, Duplex, FIRST_LINE_BYTES_MAX, Hello, LINE_BYTES_MAX, Line, MAGIC, Relation,
    Stream, clip, is_instance, out_of_place, unreachable,
};
use super::{ConnectFailure, Links};
use crate::config::PeerUrl;
use crate::net::pair_login::{Ends, Login, Prover, Refusal, Verifier};
use crate::tls::{LINK_NAMES, Live, connect_failure, is_tls};

/// A login may take so long; with a short heartbeat it takes longer than that.
const LOGIN: Duration = Duration::from_secs(5);
/// A failed login is answered after this time, or half a heartbeat if that is shorter. At most 16 callers wait at
/// a time, so nobody tries many passwords.
const LOGIN_FAILED: Duration = Duration::from_secs(1);

/// Two servers that have agreed to talk.
pub(super) struct Agreed {
    pub(super) stream: Stream,
    pub(super) hello: Hello,
    pub(super) relation: Relation,
    /// Whether the other side has logged in.
    pub(super) has_logged_in: bool,
}

impl Links {
    pub(super) async fn reach(
        &self,
        url: &PeerUrl,
        relation: Relation,
    ) -> Result<Agreed, ConnectFailure> {
        let late = |after: Duration| {
            let after_ms = after.as_millis();
            ConnectFailure::Unreachable(format!("no answer within {after_ms} ms"))
        };
        let login = self.login.borrow().clone();
        let opened = timeout(self.heartbeat, self.open(url, relation, &login)).await;
        let (mut link, answer) = opened.map_err(|_| late(self.heartbeat))??;
        let ends = self.ends(&answer.instance);
        let patience = self.patience(answer.login || login.is_required);
        let hello = timeout(patience, async {
            if answer.login {
                self.log_in(&mut link, &login, ends.clone()).await?;
            }
            if login.is_required {
                self.be_logged_in_to(&mut link, &login, &ends).await?;
            }
            let server = relation.own_name(&login);
            self.greet(&mut link, &answer.instance, server).await
        });
        Ok(Agreed {
            hello: hello.await.map_err(|_| late(patience))??,
            stream: link,
            relation,
            has_logged_in: login.is_required,
        })
    }

    pub(super) async fn accept(&self, stream: Box<dyn Duplex>) -> Result<Agreed, ConnectFailure> {
        let late = |_| ConnectFailure::Unreachable("nothing was said in time".to_owned());
        let login = self.login.borrow().clone();
        let heard = timeout(self.heartbeat, self.hear(stream, &login)).await;
        let (mut link, call) = heard.map_err(late)??;
        let ends = self.ends(&call.instance);
        let hello = timeout(self.patience(call.login || login.is_required), async {
            if login.is_required {
                self.be_logged_in_to(&mut link, &login, &ends).await?;
            }
            if call.login {
                self.log_in(&mut link, &login, ends.clone()).await?;
            }
            let server = call.relation.own_name(&login);
            self.greet(&mut link, &call.instance, server).await
        });
        Ok(Agreed {
            hello: hello.await.map_err(late)??,
            stream: link,
            relation: call.relation,
            has_logged_in: login.is_required,
        })
    }

    /// How long the two may take to agree.
    fn patience(&self, has_login: bool) -> Duration {
        match has_login {
            true => self.heartbeat.max(LOGIN),
            false => self.heartbeat,
        }
    }

    fn ends(&self, other: &str) -> Ends {
        Ends {
            own: self.local.borrow().instance.clone(),
            other: other.to_owned(),
        }
    }

    async fn open(
        &self,
        url: &PeerUrl,
        relation: Relation,
        login: &Login,
    ) -> Result<(Stream, Answer), ConnectFailure> {
        let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
        let stream = stream.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        if !url.is_tls {
            return self.begin(Box::new(stream), relation, login).await;
        }
        // It was prepared for every URL that wants it.
        let Some(tls) = self.tls.as_ref().map(Live::get) else {
            let reason = format!("{}: there is none", LINK_NAMES.trusted);
            return Err(ConnectFailure::Refused(reason));
        };
        let name = tls
            .server_name(&url.host)
            .map_err(ConnectFailure::Refused)?;
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        match connector.connect(name.clone(), stream).await {
            // With TLS 1.3 the other side judges our certificate after our handshake is over.
            Ok(stream) => self.begin(Box::new(stream), relation, login).await,
            Err(error) if is_tls(&error) => {
                let reason = connect_failure(&error, &LINK_NAMES, &name.to_str());
                Err(ConnectFailure::Refused(reason))
            }
            Err(error) => Err(unreachable(error)),
        }
    }

    /// The opener's first words, and the answer.
    async fn begin(
        &self,
        stream: Box<dyn Duplex>,
        relation: Relation,
        login: &Login,
    ) -> Result<(Stream, Answer), ConnectFailure> {
        let mut link = Stream::new(stream);
        link.writer.write_all(MAGIC).await.map_err(unreachable)?;
        let instance = self.local.borrow().instance.clone();
        let call = Call {
            server: login.server.clone(),
            instance: instance.clone(),
            relation,
            login: login.is_required,
        };
        link.write(&Line::Call { call })
            .await
            .map_err(unreachable)?;
        match link.expect(FIRST_LINE_BYTES_MAX).await? {
            Line::Answer { answer } if answer.instance == instance => Err(ConnectFailure::Itself),
            Line::Answer { answer } if is_instance(&answer.instance) => Ok((link, answer)),
            _ => Err(out_of_place()),
        }
    }

    /// The opener's first words, and what the listener makes of them.
    async fn hear(
        &self,
        stream: Box<dyn Duplex>,
        login: &Login,
    ) -> Result<(Stream, Call), ConnectFailure> {
        let mut link = Stream::new(stream);
        let mut magic = [0; MAGIC.len()];
        link.reader
            .read_exact(&mut magic)
            .await
            .map_err(unreachable)?;
        if magic != *MAGIC {
            let reason = "it speaks another version of the peer protocol".to_owned();
            return Err(ConnectFailure::Refused(reason));
        }
        let Line::Call { call } = link.expect(FIRST_LINE_BYTES_MAX).await? else {
            return Err(out_of_place());
        };
        let instance = self.local.borrow().instance.clone();
        if !is_instance(&call.instance) {
            return Err(out_of_place());
        }
        let answer = Answer {
            instance: instance.clone(),
            login: login.is_required,
        };
        if call.instance == instance {
            // It learns that it has called itself.
            let _ = link.write(&Line::Answer { answer }).await;
            return Err(ConnectFailure::Itself);
        }
        if let Some(refusal) = self.unfit(&call, login) {
            return Err(link.turn_down(refusal).await);
        }
        let answered = link.write(&Line::Answer { answer }).await;
        answered.map_err(unreachable)?;
        Ok((link, call))
    }

    /// Why a caller is no partner, whatever password it knows.
    fn unfit(&self, call: &Call, login: &Login) -> Option<Refusal> {
        let theirs = clip(&call.server);
        match call.relation {
            Relation::Pair if call.server != login.server => {
                Some(other_name(&login.server, &call.server, !login.is_required))
            }
            Relation::Unshared if !self.has_unshared => Some(Refusal {
                here: format!(
                    "unshared_peer: {theirs:?} names this server in its unshared_peer, and here none is \
                     set; write the URL of that server"
                ),
                there: "unshared_peer: not set at the other server; write this server's URL there"
                    .to_owned(),
            }),
            _ => None,
        }
    }

    /// Proves to the other side that this server knows the password.
    async fn log_in(
        &self,
        link: &mut Stream,
        login: &Login,
        ends: Ends,
    ) -> Result<(), ConnectFailure> {
        let (prover, first) = match Prover::begin(login, ends) {
            Ok(begun) => begun,
            Err(refusal) => return Err(link.turn_down(refusal).await),
        };
        let answer = link.say(first).await?;
        // Some milliseconds of computing.
        let proved = spawn_blocking(move || prover.prove(&answer)).await;
        let (prover, proof) = proved
            .map_err(|error| ConnectFailure::Unreachable(error.to_string()))?
            .map_err(ConnectFailure::Refused)?;
        let last = link.say(proof).await?;
        prover.conclude(&last).map_err(ConnectFailure::Refused)
    }

    /// Has the other side prove that it knows the password. It is told nothing before.
    async fn be_logged_in_to(
        &self,
        link: &mut Stream,
        login: &Login,
        ends: &Ends,
    ) -> Result<(), ConnectFailure> {
        let result = async {
            let first = link.word().await?;
            let begun = Verifier::begin(login, ends, &first);
            let (verifier, answer) = match begun {
                Ok(begun) => begun,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let proof = link.say(answer).await?;
            Ok(verifier.conclude(login, &proof))
        };
        match result.await? {
            Ok(last) => {
                let said = link.write(&Line::Login { login: last }).await;
                said.map_err(unreachable)
            }
            Err(refusal) => {
                sleep(LOGIN_FAILED.min(self.heartbeat / 2)).await;
                Err(link.turn_down(refusal).await)
            }
        }
    }

    /// Both sides say what they are; `instance` is who the other one said it was, `server` the name that it has
    /// to have.
    async fn greet(
        &self,
        link: &mut Stream,
        instance: &str,
        server: Option<&str>,
    ) -> Result<Hello, ConnectFailure> {
        let local = self.local.borrow().clone();
        let said = link.write(&Line::Hello(local)).await;
        said.map_err(unreachable)?;
        let hello = match link.expect(LINE_BYTES_MAX).await? {
            Line::Hello(hello) if hello.instance == instance => hello,
            _ => return Err(out_of_place()),
        };
        match server.filter(|own| hello.server != **own) {
            // Both have said their names by now.
            Some(own) => Err(link.turn_down(other_name(own, &hello.server, true)).await),
            None => Ok(hello),
        }
    }
}

impl Relation {
    /// The name that the other server must have too, if so.
    fn own_name(self, login: &Login) -> Option<&str> {
        (self == Self::Pair).then_some(login.server.as_str())
    }
}

/// The servers of a pair do not have the same name.
fn other_name(own: &str, theirs: &str, tells_own: bool) -> Refusal {
    let (own, theirs) = (clip(own), clip(theirs));
    let both = "both servers of a pair have the same";
    Refusal {
        here: format!("`server` differs: {own:?} here, {theirs:?} there; {both}"),
        // Strangers are not told our name.
        there: if tells_own {
            format!("`server` differs: {theirs:?} here, {own:?} there; {both}")
        } else {
            format!("`server` differs: {theirs:?} here, another name there; {both}")
        },
    }
}
