//! Links over loopback.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::line::{Answer, Call, FIRST_LINE_BYTES_MAX, Line, encode};
use super::{ConnectFailure, Hello, Links, MAGIC, PeerEvent, Relation};
use crate::config::companions::{Companions, read_anyway};
use crate::config::{Config, Facts, Given, PeerUrl, load_anyway};
use crate::net::pair_login::Login;
use crate::role::State;

struct Side {
    links: Links,
    local: watch::Sender<Hello>,
    login: watch::Sender<Arc<Login>>,
    facts: watch::Sender<Option<Arc<Facts>>>,
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

/// A server's configuration: values as `--set` takes them, and `users.conf`.
fn configured(values: &[&str], users: &str) -> (Config, Companions) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("users.conf");
    std::fs::write(&path, users).expect("a file");
    let mut set: Vec<String> = values.iter().map(|text| (*text).to_owned()).collect();
    set.push(format!("users={}", path.display()));
    let (config, _not_yet) = load_anyway(&Given {
        set,
        ..Given::default()
    });
    let (companions, report) = read_anyway(&config, &|path| std::fs::read(path));
    assert_eq!(report.faults, []);
    (config, companions)
}

fn login(values: &[&str], users: &str) -> Arc<Login> {
    let (config, companions) = configured(values, users);
    Arc::new(Login::new(&config, &companions))
}

fn side(hello: Hello) -> Side {
    let name = format!("server={}", hello.server);
    let (local, receiver) = watch::channel(hello);
    let login = watch::Sender::new(login(&[&name], ""));
    let facts = watch::Sender::new(None);
    let (sender, events) = mpsc::channel(16);
    let links = Links {
        local: receiver,
        events: sender,
        heartbeat: Duration::from_secs(10),
        next_link: Arc::new(AtomicU64::new(1)),
        tls: None,
        login: login.subscribe(),
        facts: facts.subscribe(),
        has_unshared: false,
    };
    Side {
        links,
        local,
        login,
        facts,
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

fn text(lines: &[Line]) -> Vec<u8> {
    let lines = lines.iter().map(|line| encode(line).expect("it is JSON"));
    lines.flatten().collect()
}

/// The first words of a caller.
fn call(instance: &str, relation: Relation, login: bool) -> Line {
    Line::Call {
        call: Call {
            server: "EMS-SERVER".to_owned(),
            instance: instance.to_owned(),
            relation,
            login,
        },
    }
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
    let answer = Line::Answer {
        answer: Answer {
            instance: "b".to_owned(),
            login: false,
        },
    };
    let lines = text(&[answer, Line::Hello(hello("EMS-SERVER", "b", "active"))]);
    stream.write_all(&lines).await.expect("the lines leave");
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

/// What somebody calls himself first and is then need not be the same.
#[tokio::test]
async fn the_name_that_a_server_says_it_has_counts_too() {
    let mut b = side(hello("EMS-SERVER", "b", "active"));
    let said = text(&[
        call("x", Relation::Pair, false),
        Line::Hello(hello("OTHER", "x", "active")),
    ]);
    let client = send_raw(&b, &[MAGIC.as_slice(), &said].concat()).await;
    let heard = read_to_end(client).await;
    assert!(
        heard.contains(r#"`server` differs: \"OTHER\" here, \"EMS-SERVER\" there"#),
        "{heard}"
    );
    let reason = reason(&next(&mut b).await).to_owned();
    assert!(
        reason.contains("\"EMS-SERVER\" here, \"OTHER\" there"),
        "{reason}"
    );

    // The same in what a listener answers.
    let mut a = side(hello("EMS-SERVER", "a", "standby"));
    let (listener, url) = listener().await;
    tokio::spawn(a.links.clone().call(0, url));
    let (mut stream, _) = listener.accept().await.expect("the call arrives");
    let answer = Answer {
        instance: "x".to_owned(),
        login: false,
    };
    let said = [
        Line::Answer { answer },
        Line::Hello(hello("OTHER", "x", "active")),
    ];
    stream.write_all(&text(&said)).await.expect("it is there");
    let event = next(&mut a).await;
    assert!(
        matches!(&event, PeerEvent::ConnectFailed { failure: ConnectFailure::Refused(reason), .. }
            if reason.contains("\"EMS-SERVER\" here, \"OTHER\" there")),
        "{event:?}"
    );
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

    let good = text(&[
        call("x", Relation::Pair, false),
        Line::Hello(hello("EMS-SERVER", "x", "standby")),
    ]);
    let begun = [MAGIC.as_slice(), &good].concat();
    let mut long = MAGIC.to_vec();
    long.resize(FIRST_LINE_BYTES_MAX + 100, b'x');
    let mut imposter = MAGIC.to_vec();
    imposter.extend(text(&[
        call("x", Relation::Pair, false),
        Line::Hello(hello("EMS-SERVER", "y", "standby")),
    ]));
    let garbage = [MAGIC.as_slice(), b"\xff\xfe\0\n"].concat();
    let odd = [
        MAGIC.as_slice(),
        &text(&[call("x.y", Relation::Pair, false)]),
    ]
    .concat();
    for first in [&long, &garbage, &odd, &b"STDFAST\x09".to_vec(), &imposter] {
        read_to_end(send_raw(&b, first).await).await;
        assert!(matches!(next(&mut b).await, PeerEvent::CallRefused { .. }));
    }
    for later in [
        b"{\"server\": 1}\n".to_vec(),
        text(&[call("x", Relation::Pair, false)]),
    ] {
        let said = [begun.as_slice(), &later].concat();
        read_to_end(send_raw(&b, &said).await).await;
        assert!(matches!(next(&mut b).await, PeerEvent::Connected { .. }));
        assert!(matches!(next(&mut b).await, PeerEvent::Lost { .. }));
    }

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
    let line = Line::Hello(hello("EMS-SERVER", "x", "standby"));
    let begun = [MAGIC.as_slice(), &text(&[call("x", Relation::Pair, false)])].concat();
    let mut client = send_raw(&b, &begun).await;
    let flood = tokio::spawn(async move {
        let lines = text(&[line]).repeat(100);
        while client.write_all(&lines).await.is_ok() {}
    });
    loop {
        if let PeerEvent::Lost { reason, .. } = next(&mut b).await {
            assert_eq!(reason, "it sends too many messages");
            break;
        }
    }
    flood.await.expect("the flood ends with the link");
}

const ON: &str = "authorization=enabled";
const PASSWORD: &str = "password=mySecret";
const USER: &str = "EMS-SERVER:mySecret:\n";

/// What each of two servers with such logins hears first, `a` calling `b`.
async fn meet(a: Arc<Login>, b: Arc<Login>) -> [PeerEvent; 2] {
    let mut one = side(hello("EMS-SERVER", "a", "standby"));
    let mut two = side(hello("EMS-SERVER", "b", "active"));
    one.login.send_replace(a);
    two.login.send_replace(b);
    join(&one, &two).await;
    [next(&mut one).await, next(&mut two).await]
}

fn reason(event: &PeerEvent) -> &str {
    match event {
        PeerEvent::ConnectFailed {
            failure: ConnectFailure::Refused(reason),
            ..
        }
        | PeerEvent::CallRefused { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn servers_that_know_the_password_have_a_link_whoever_has_authorization_enabled() {
    let whole = login(&[ON, PASSWORD], USER);
    let off = login(&[PASSWORD], "");
    for (a, b) in [(&whole, &whole), (&off, &whole), (&whole, &off)] {
        for event in meet(Arc::clone(a), Arc::clone(b)).await {
            assert!(matches!(event, PeerEvent::Connected { .. }), "{event:?}");
        }
    }
}

#[tokio::test]
async fn each_missing_step_of_the_login_is_told_on_both_sides() {
    let whole = || login(&[ON, PASSWORD], USER);
    for (a, b, here, there) in [
        (
            login(&[], ""),
            whole(),
            "password: not set here, and the other server has authorization enabled",
            "password: not set at the other server, which cannot log in here",
        ),
        (
            login(&["password=wrong"], ""),
            whole(),
            "password: it is not that of the user `EMS-SERVER` at the other server",
            "password: the other server's is wrong",
        ),
        (
            whole(),
            login(&[ON, PASSWORD], "bob:x:\n"),
            "users: there is no user `EMS-SERVER` at the other server",
            "users: there is no user `EMS-SERVER` here",
        ),
        (
            login(&[ON, PASSWORD], ""),
            whole(),
            "users: there is no user `EMS-SERVER` here",
            "users: there is no user `EMS-SERVER` at the other server",
        ),
        (
            whole(),
            login(&[ON, "password=wrong"], USER),
            "password: the other server's is wrong",
            "password: it is not that of the user `EMS-SERVER` at the other server",
        ),
    ] {
        let [one, two] = meet(a, b).await;
        assert!(reason(&one).starts_with(here), "`{here}`: {one:?}");
        let said = reason(&two).split_once(": ").map_or("", |(_, said)| said);
        assert!(said.starts_with(there), "`{there}`: {two:?}");
    }
}

#[tokio::test]
async fn nobody_is_told_anything_before_the_login() {
    let mut b = side(hello("EMS-SERVER", "b", "active"));
    b.login.send_replace(login(&[ON, PASSWORD], USER));
    let begun = [MAGIC.as_slice(), &text(&[call("x", Relation::Pair, false)])].concat();
    let guess = Line::Login {
        login: "n,,n=EMS-SERVER,r=x.abc".to_owned(),
    };
    let hello_first = Line::Hello(hello("EMS-SERVER", "x", "active"));
    for (said, is_judged) in [
        (text(&[hello_first]), true),
        (text(&[guess]), false),
        (
            text(&[Line::Login {
                login: "nonsense".to_owned(),
            }]),
            true,
        ),
    ] {
        let client = send_raw(&b, &[begun.as_slice(), &said].concat()).await;
        let mut client = client;
        client.shutdown().await.expect("it has said all");
        let answer = read_to_end(client).await;
        assert!(
            !answer.contains("active")
                && !answer.contains("127.0.0.1")
                && !answer.contains("epoch"),
            "{answer}"
        );
        if is_judged {
            assert!(matches!(next(&mut b).await, PeerEvent::CallRefused { .. }));
        }
    }
    assert!(b.events.try_recv().is_err(), "nobody is connected");
}

#[tokio::test]
async fn a_name_is_not_told_to_strangers_where_a_login_is_needed() {
    let mut b = side(hello("OTHER", "b", "active"));
    b.login
        .send_replace(login(&["server=OTHER", ON, PASSWORD], USER));
    let begun = [MAGIC.as_slice(), &text(&[call("x", Relation::Pair, false)])].concat();
    let answer = read_to_end(send_raw(&b, &begun).await).await;
    assert!(answer.contains("`server` differs"), "{answer}");
    assert!(!answer.contains("OTHER"), "{answer}");
    assert!(reason(&next(&mut b).await).contains("\"OTHER\" here, \"EMS-SERVER\" there"));
}

#[tokio::test]
async fn links_without_a_login_end_when_one_becomes_necessary_and_others_stay() {
    let whole = login(&[ON, PASSWORD], USER);
    let mut a = side(hello("EMS-SERVER", "a", "standby"));
    let mut b = side(hello("EMS-SERVER", "b", "active"));
    a.login.send_replace(login(&[PASSWORD], USER));
    b.login.send_replace(login(&[PASSWORD], USER));
    join(&a, &b).await;
    assert!(matches!(next(&mut a).await, PeerEvent::Connected { .. }));
    assert!(matches!(next(&mut b).await, PeerEvent::Connected { .. }));
    b.login.send_replace(Arc::clone(&whole));
    match next(&mut b).await {
        PeerEvent::Lost { reason, .. } => assert!(reason.contains("authorization"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(next(&mut a).await, PeerEvent::Lost { .. }));

    // The second step of the chapter's sequence ends no link of servers that have logged in.
    join(&b, &a).await;
    assert!(matches!(next(&mut a).await, PeerEvent::Connected { .. }));
    assert!(matches!(next(&mut b).await, PeerEvent::Connected { .. }));
    b.login.send_replace(whole);
    a.local
        .send_modify(|hello| hello.role = "starting".to_owned());
    assert!(matches!(next(&mut b).await, PeerEvent::Heard { .. }));
}

fn facts(values: &[&str], users: &str) -> Option<Arc<Facts>> {
    let (config, companions) = configured(values, users);
    let reader = |path: &std::path::Path| std::fs::read(path);
    let facts = Facts::new(&config, &config.listens, &companions, &reader);
    Some(Arc::new(facts))
}

async fn differences(side: &mut Side) -> Vec<String> {
    loop {
        if let PeerEvent::Compared { differences, .. } = next(side).await {
            return differences;
        }
    }
}

#[tokio::test]
async fn servers_that_share_nothing_compare_themselves_and_follow_each_change() {
    let mut a = side(hello("EAST", "a", "active"));
    let mut b = side(hello("WEST", "b", "active"));
    for side in [&mut a, &mut b] {
        side.links.has_unshared = true;
        side.facts.send_replace(facts(&[], "bob:x:\n"));
    }
    let (listener, url) = listener().await;
    tokio::spawn(a.links.clone().keep_calling(url));
    let (stream, address) = listener.accept().await.expect("the call arrives");
    tokio::spawn(b.links.clone().answer(Box::new(stream), address));
    match next(&mut a).await {
        PeerEvent::Connected {
            relation: Relation::Unshared,
            server,
            ..
        } => assert_eq!(server, "WEST"),
        other => panic!("{other:?}"),
    }
    assert_eq!(differences(&mut a).await, Vec::<String>::new());
    assert_eq!(differences(&mut b).await, Vec::<String>::new());
    b.facts.send_replace(facts(&[], "bob:x:\nann:x:\n"));
    assert_eq!(differences(&mut a).await, ["user ann: missing here"]);
    assert_eq!(differences(&mut b).await, ["user ann: missing at the peer"]);
}

#[tokio::test]
async fn a_server_that_names_none_takes_no_call_of_one_that_shares_nothing() {
    let mut b = side(hello("WEST", "b", "active"));
    let begun = [
        MAGIC.as_slice(),
        &text(&[call("x", Relation::Unshared, false)]),
    ]
    .concat();
    let answer = read_to_end(send_raw(&b, &begun).await).await;
    assert!(
        answer.contains("unshared_peer: not set at the other server"),
        "{answer}"
    );
    assert!(reason(&next(&mut b).await).contains("unshared_peer"));
}
