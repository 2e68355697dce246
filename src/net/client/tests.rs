//! The client against a server's end of the same protocol engine, over a real socket.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use super::{Client, ClientError, ClientOptions, Credentials, Failover, ServerUrl, Wake};
use crate::proto::{
    AttachReply, Connection, ErrorCondition, Event, LinkId, Outcome, PeerRole, SaslCode, Settings,
    condition,
};

/// How a server of the tests behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Accepts every message, and sends three to each receiver.
    Serves,
    /// Answers a standby's way.
    SendsAway,
    /// Refuses all links.
    RefusesLinks,
    /// Knows only the password `right`.
    AsksForPassword,
    /// Ends the TCP connection when the first message comes.
    Vanishes,
}

fn in_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let limit = Duration::from_secs(30);
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(limit, test)
            .await
            .expect("the test ends");
    });
}

async fn start(kind: Kind) -> ServerUrl {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    let port = listener.local_addr().expect("an address").port();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(serve(stream, kind));
        }
    });
    ServerUrl::local(port)
}

async fn serve(mut stream: TcpStream, kind: Kind) {
    let settings = Settings {
        sasl_mechanisms: vec![String::from("PLAIN"), String::from("ANONYMOUS")],
        ..Settings::default()
    };
    let mut connection = Connection::server(settings, 0);
    let mut input = BytesMut::new();
    loop {
        match stream.read_buf(&mut input).await {
            Ok(1..) => connection.handle_bytes(0, &mut input),
            Ok(0) | Err(_) => return,
        }
        while let Some(event) = connection.poll_event() {
            if kind == Kind::Vanishes && matches!(event, Event::Delivery { .. }) {
                return;
            }
            answer(&mut connection, kind, event);
            if !input.is_empty() {
                connection.handle_bytes(0, &mut input);
            }
        }
        connection.flush();
        let output = connection.output();
        while !output.is_empty() {
            match stream.write(output).await {
                Ok(written) => output.advance(written),
                Err(_) => return,
            }
        }
        if connection.is_finished() {
            return;
        }
    }
}

fn answer(connection: &mut Connection, kind: Kind, event: Event) {
    match event {
        Event::SaslInit { response, .. } => {
            let is_right = response.as_deref() == Some(b"\0user\0right");
            let code = if kind != Kind::AsksForPassword || is_right {
                SaslCode::Ok
            } else {
                SaslCode::Auth
            };
            connection.sasl_outcome(code, None);
        }
        Event::Opened(_) if kind == Kind::SendsAway => {
            let error = ErrorCondition::new(condition::CONNECTION_FORCED, "a standby");
            connection.close_now(Some(error));
        }
        Event::Opened(_) => connection.open(),
        Event::Attached(attach) if kind == Kind::RefusesLinks => {
            let error = ErrorCondition::new(condition::NOT_FOUND, "no such queue");
            connection.refuse_attach(attach.link, error);
        }
        Event::Attached(attach) => {
            connection.accept_attach(attach.link, AttachReply::default());
            if attach.peer_role == PeerRole::Sender {
                connection.set_credit(attach.link, 2);
            }
        }
        Event::CreditRefill { link } => connection.set_credit(link, 2),
        Event::Delivery {
            link, delivery_id, ..
        } => connection.settle(link, delivery_id, Outcome::Accepted),
        Event::Flow { link, credit, .. } => {
            for number in 0..credit.min(3) {
                let body = [number as u8; 10_000];
                connection
                    .send(link, u64::from(number), 0, &[&body], false)
                    .expect("there is credit");
            }
        }
        _ => {}
    }
}

async fn connect(url: &ServerUrl) -> Result<Client, ClientError> {
    Client::connect(url, &ClientOptions::named("test")).await
}

/// Sends so many messages, with as many in flight as the server allows, and waits for all confirms.
async fn send_all(client: &mut Client, link: LinkId, count: u64) -> Result<(), ClientError> {
    let (mut next, mut confirmed) = (0, 0);
    while confirmed < count {
        while next < count && client.can_send(link) {
            client
                .send(link, next, b"message")
                .expect("there is credit");
            next += 1;
        }
        if let Wake::Event(Event::Disposition { token, outcome, .. }) = client.next().await? {
            assert_eq!((token, outcome), (confirmed, Some(Outcome::Accepted)));
            confirmed += 1;
        }
    }
    Ok(())
}

#[test]
fn messages_are_sent_and_confirmed_with_little_credit() {
    in_runtime(async {
        let url = start(Kind::Serves).await;
        let mut client = connect(&url).await.expect("a connection");
        let one = client.attach_sender("a").await.expect("a link");
        let two = client.attach_sender("a").await.expect("another link");
        send_all(&mut client, one, 20).await.expect("confirms");
        send_all(&mut client, two, 20).await.expect("confirms");
        client.detach(one).await.expect("a detach");
        client.close().await;
    });
}

#[test]
fn received_messages_are_whole() {
    in_runtime(async {
        let url = start(Kind::Serves).await;
        let mut client = connect(&url).await.expect("a connection");
        let link = client.attach_receiver("a", 3).await.expect("a link");
        let mut received = 0;
        while received < 3 {
            if let Wake::Event(Event::Delivery { payload, .. }) =
                client.next().await.expect("messages")
            {
                assert_eq!(payload.to_bytes(), vec![received; 10_000]);
                received += 1;
            }
        }
        client.detach(link).await.expect("a detach");
    });
}

#[test]
fn a_refused_link_says_why_and_trying_again_would_not_help() {
    in_runtime(async {
        let url = start(Kind::RefusesLinks).await;
        let mut client = connect(&url).await.expect("a connection");
        for error in [
            client.attach_sender("a").await.expect_err("refused"),
            client.attach_receiver("a", 1).await.expect_err("refused"),
        ] {
            assert!(error.to_string().contains("no such queue"), "{error}");
            assert!(!error.is_passing());
        }
    });
}

#[test]
fn a_wrong_password_is_told_apart_from_a_server_that_is_away() {
    in_runtime(async {
        let mut url = start(Kind::AsksForPassword).await;
        for (password, is_right) in [("right", true), ("wrong", false)] {
            url.credentials = Some(Credentials {
                user: String::from("user"),
                password: String::from(password),
            });
            match connect(&url).await {
                Ok(_) => assert!(is_right),
                Err(error) => {
                    assert!(!is_right && !error.is_passing(), "{error}");
                    assert!(
                        error
                            .to_string()
                            .contains("check the user and the password")
                    );
                }
            }
        }
        let error = connect(&ServerUrl::local(1)).await.expect_err("nobody");
        assert!(error.is_passing() && error.to_string().contains("is a server running"));
    });
}

#[test]
fn a_client_of_a_pair_goes_on_with_the_server_that_serves() {
    in_runtime(async {
        let servers = vec![
            ServerUrl::local(1),
            start(Kind::SendsAway).await,
            start(Kind::Serves).await,
        ];
        let mut failover = Failover::new(servers.clone(), Duration::from_secs(20));
        let options = ClientOptions::named("test");
        let attach = async |client: &mut Client| client.attach_sender("a").await;
        let (mut client, link) = failover.connect(&options, attach).await.expect("it serves");
        assert_eq!(Some(client.url()), servers.last());
        send_all(&mut client, link, 5).await.expect("confirms");
    });
}

#[test]
fn a_client_of_a_pair_gives_up_in_the_end() {
    in_runtime(async {
        let servers = vec![start(Kind::SendsAway).await];
        let mut failover = Failover::new(servers, Duration::from_millis(50));
        let options = ClientOptions::named("test");
        let attach = async |client: &mut Client| client.attach_sender("a").await;
        let error = failover
            .connect(&options, attach)
            .await
            .expect_err("nobody serves");
        assert!(error.is_passing(), "{error}");
        let mut nobody = Failover::new(Vec::new(), Duration::from_millis(50));
        nobody.connect(&options, attach).await.expect_err("no list");
    });
}

#[test]
fn a_server_that_vanishes_is_noticed() {
    in_runtime(async {
        let url = start(Kind::Vanishes).await;
        let mut client = connect(&url).await.expect("a connection");
        let link = client.attach_sender("a").await.expect("a link");
        let error = send_all(&mut client, link, 1)
            .await
            .expect_err("it is gone");
        assert!(error.is_passing(), "{error}");
    });
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    in_runtime(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let url = ServerUrl::local(listener.local_addr().expect("an address").port());
        let options = ClientOptions {
            answer_timeout: Duration::from_millis(20),
            ..ClientOptions::named("test")
        };
        let error = Client::connect(&url, &options).await.expect_err("silence");
        assert!(matches!(error, ClientError::Late { .. }), "{error}");
    });
}
