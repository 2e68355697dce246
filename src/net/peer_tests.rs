//! Links over loopback.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::{ConnectFailure, Hello, LINE_BYTES_MAX, Links, MAGIC, PeerEvent};
use crate::config::PeerUrl;
use crate::role::State;

struct Side {
    links: Links,
    local: watch::Sender<Hello>,
    events: mpsc::Receiver<PeerEvent>,
}

fn hello(server: &str, instance: &str, role: &str) -> Hello {
    Hello {
        server: server.to_owned(),
        role: role.to_owned(),
        epoch: 3,
        beat: 0,
        instance: instance.to_owned(),
        listens: vec!["tcp://127.0.0.1:9".to_owned()],
        store: None,
    }
}

fn side(hello: Hello) -> Side {
    let (local, receiver) = watch::channel(hello);
    let (sender, events) = mpsc::channel(16);
    let links = Links {
        local: receiver,
        events: sender,
        heartbeat: Duration::from_secs(10),
        next_link: Arc::new(AtomicU64::new(1)),
        tls: None,
    };
    Side {
        links,
        local,
        events,
    }
}

async fn next(side: &mut Side) -> PeerEvent {
    let event = timeout(Duration::from_secs(20), side.events.recv()).await;
    event
        .expect("an event comes in time")
        .expect("the links live")
}

async fn listener() -> (TcpListener, PeerUrl) {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    (
        listener,
        PeerUrl {
            is_tls: false,
            host: "127.0.0.1".to_owned(),
            port,
        },
    )
}

/// `a` calls `b`.
async fn join(a: &Side, b: &Side) {
    let (listener, url) = listener().await;
    tokio::spawn(a.links.clone().call(0, url));
    let (stream, address) = listener.accept().await.expect("the call arrives");
    tokio::spawn(b.links.clone().answer(Box::new(stream), address));
}

/// A client that sends these bytes to a side and keeps the connection.
async fn send_raw(side: &Side, bytes: &[u8]) -> TcpStream {
    let (listener, url) = listener().await;
    let mut client = TcpStream::connect((url.host.as_str(), url.port))
        .await
        .expect("it connects");
    let (stream, address) = listener.accept().await.expect("the call arrives");
    tokio::spawn(side.links.clone().answer(Box::new(stream), address));
    client.write_all(bytes).await.expect("the bytes leave");
    client
}

async fn read_to_end(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset instead of an end is as good.
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes))
        .await
        .expect("the other side closes");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is_and_hear_each_change() {
    let mut a = side(hello("EMS-SERVER", "a", "starting"));
    let mut b = side(hello("EMS-SERVER", "b", "active"));
    join(&a, &b).await;
    match next(&mut a).await {
        PeerEvent::Connected {
            peer: Some(0),
            news,
            listens,
            ..
        } => {
            assert_eq!(
                (news.instance.as_str(), news.state, news.epoch),
                ("b", State::Active, 3)
            );
            assert_eq!(listens, ["tcp://127.0.0.1:9"]);
        }
        other => panic!("{other:?}"),
    }
    match next(&mut b).await {
        PeerEvent::Connected {
            peer: None, news, ..
        } => {
            assert_eq!(
                (news.instance.as_str(), news.name.as_str()),
                ("a", "tcp://127.0.0.1:9")
            );
        }
        other => panic!("{other:?}"),
    }
    a.local
        .send_modify(|hello| hello.role = "standby".to_owned());
    match next(&mut b).await {
        PeerEvent::Heard { news, .. } => assert_eq!(news.state, State::Standby),
        other => panic!("{other:?}"),
    }
    b.local
        .send_modify(|hello| hello.role = "a word of the future".to_owned());
    match next(&mut a).await {
        PeerEvent::Heard { news, .. } => assert_eq!(news.state, State::Starting),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_link_whose_other_side_ends_is_lost() {
    let mut a = side(hello("EMS-SERVER", "a", "standby"));
    let (listener, url) = listener().await;
    tokio::spawn(a.links.clone().call(0, url));
    let (mut stream, _) = listener.accept().await.expect("the call arrives");
    let line = serde_json::to_string(&hello("EMS-SERVER", "b", "active")).expect("it is JSON");
    stream
        .write_all(format!("{line}\n").as_bytes())
        .await
        .expect("the line leaves");
    let mut magic = [0; 8];
    stream
        .read_exact(&mut magic)
        .await
        .expect("the magic comes first");
    assert_eq!(magic, *MAGIC);
    assert!(matches!(next(&mut a).await, PeerEvent::Connected { .. }));
    drop(stream);
    assert!(matches!(next(&mut a).await, PeerEvent::Lost { .. }));
}

#[tokio::test]
async fn servers_with_different_names_refuse_each_other_and_both_say_why() {
    let mut a = side(hello("EMS-SERVER", "a", "starting"));
    let mut b = side(hello("OTHER", "b", "active"));
    join(&a, &b).await;
    match next(&mut a).await {
        PeerEvent::ConnectFailed {
            failure: ConnectFailure::Refused(reason),
            ..
        } => {
            assert!(
                reason.contains("\"EMS-SERVER\" here, \"OTHER\" there"),
                "{reason}"
            );
        }
        other => panic!("{other:?}"),
    }
    match next(&mut b).await {
        PeerEvent::CallRefused { reason } => {
            assert!(
                reason.contains("\"OTHER\" here, \"EMS-SERVER\" there"),
                "{reason}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_calls_itself_learns_it() {
    let mut a = side(hello("EMS-SERVER", "a", "starting"));
    join(&a, &a).await;
    match next(&mut a).await {
        PeerEvent::ConnectFailed { failure, .. } => assert_eq!(failure, ConnectFailure::Itself),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_peer_that_is_down_is_unreachable() {
    let mut a = side(hello("EMS-SERVER", "a", "starting"));
    let (listener, url) = listener().await;
    drop(listener);
    a.links.clone().call(0, url).await;
    let event = next(&mut a).await;
    let PeerEvent::ConnectFailed {
        failure: ConnectFailure::Unreachable(_),
        ..
    } = event
    else {
        panic!("{event:?}");
    };
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_is_unreachable_after_a_heartbeat() {
    let mut a = side(hello("EMS-SERVER", "a", "starting"));
    a.links.heartbeat = Duration::from_millis(20);
    let (_listener, url) = listener().await;
    tokio::spawn(a.links.clone().call(0, url));
    match next(&mut a).await {
        PeerEvent::ConnectFailed {
            failure: ConnectFailure::Unreachable(reason),
            ..
        } => {
            assert_eq!(reason, "no answer within 20 ms");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_port_of_something_else_is_refused_with_a_reason() {
    let mut a = side(hello("EMS-SERVER", "a", "starting"));
    let (listener, url) = listener().await;
    tokio::spawn(a.links.clone().call(0, url));
    let (mut stream, _) = listener.accept().await.expect("the call arrives");
    stream
        .write_all(b"HTTP/1.1 400 Bad Request\r\n")
        .await
        .expect("the bytes leave");
    match next(&mut a).await {
        PeerEvent::ConnectFailed {
            failure: ConnectFailure::Refused(reason),
            ..
        } => {
            assert!(reason.starts_with("no Steadfast server: "), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn bad_lines_end_their_link_and_no_other() {
    let mut b = side(hello("EMS-SERVER", "b", "active"));
    let a = side(hello("EMS-SERVER", "a", "standby"));
    join(&a, &b).await;
    assert!(matches!(next(&mut b).await, PeerEvent::Connected { .. }));

    let good = serde_json::to_string(&hello("EMS-SERVER", "x", "standby")).expect("it is JSON");
    let mut long = MAGIC.to_vec();
    long.resize(LINE_BYTES_MAX + 100, b'x');
    let mut garbage_later = MAGIC.to_vec();
    garbage_later.extend_from_slice(format!("{good}\n{{\"server\": 1}}\n").as_bytes());
    let garbage_first = [MAGIC.as_slice(), b"\xff\xfe\0\n"].concat();

    assert!(
        !read_to_end(send_raw(&b, &long).await).await.is_empty(),
        "we said who we are"
    );
    assert!(matches!(next(&mut b).await, PeerEvent::CallRefused { .. }));
    read_to_end(send_raw(&b, &garbage_first).await).await;
    assert!(matches!(next(&mut b).await, PeerEvent::CallRefused { .. }));
    read_to_end(send_raw(&b, b"STDFAST\x02").await).await;
    assert!(matches!(next(&mut b).await, PeerEvent::CallRefused { .. }));
    read_to_end(send_raw(&b, &garbage_later).await).await;
    assert!(matches!(next(&mut b).await, PeerEvent::Connected { .. }));
    assert!(matches!(next(&mut b).await, PeerEvent::Lost { .. }));

    a.local
        .send_modify(|hello| hello.role = "starting".to_owned());
    match next(&mut b).await {
        PeerEvent::Heard { news, .. } => assert_eq!(news.instance, "a"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_peer_that_floods_us_is_cut_off() {
    let mut b = side(hello("EMS-SERVER", "b", "active"));
    let line = serde_json::to_string(&hello("EMS-SERVER", "x", "standby")).expect("it is JSON");
    let mut client = send_raw(&b, MAGIC).await;
    let flood = tokio::spawn(async move {
        let lines = format!("{line}\n").repeat(100);
        while client.write_all(lines.as_bytes()).await.is_ok() {}
    });
    loop {
        if let PeerEvent::Lost { reason, .. } = next(&mut b).await {
            assert_eq!(reason, "it sends too many messages");
            break;
        }
    }
    flood.await.expect("the flood ends with the link");
}
