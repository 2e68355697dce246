//! Users and rights while servers run: what a change of them does to clients and administrators, and what becomes of
//! them at a takeover and at a switchover.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use nix::sys::signal::Signal;
use serde_json::json;
use steadfast::net::client::{Client, ClientError, ClientOptions, Credentials, ServerUrl, Wake};
use steadfast::proto::message::SimpleMessage;
use steadfast::proto::{ErrorCondition, Event, LinkId, Outcome, condition};
use steadfast::tls::{ClientParameters, ClientTls, FileNames, TOOL_NAMES};

use super::certificates::Authority;
use super::chapter_authorization::{hashed, run};
use super::chapter_pair::Place;
use super::support::{PATIENCE, PROGRAM, Server, serve_program};
use super::wire::{AMQP, ATTACH, CLOSE, DETACH, SASL, attach, begin, open, performative};

/// Their passwords are their names and `s-sesame`.
fn password(user: &str) -> String {
    format!("{user}s-sesame")
}

/// A pair whose users are these, each with a file for the tool.
fn place(more: &str, users: &[&str], acl: &str) -> Place {
    let place = Place::new(&format!("password = pair\n{more}"));
    let mut file = format!("EMS-SERVER:{}:\n", hashed("pair"));
    for user in users {
        file.push_str(&format!("{user}:{}:\n", hashed(&password(user))));
        place.write(&format!("{user}.pw"), &password(user));
    }
    place.write("users.conf", &file);
    place.write("queues.conf", ">\norders.> secure\n");
    place.write("topics.conf", ">\n");
    place.write("acl.conf", acl);
    place
}

const ENABLED: &str = "authorization = enabled";

/// What the tool says to a command of a user: what it printed, or how it complained.
fn tool(place: &Place, port: u16, user: &str, line: &str) -> Result<String, String> {
    let file = place.path(&format!("{user}.pw"));
    let output = Command::new(PROGRAM)
        .args(["admin", "--server", &format!("tcp://127.0.0.1:{port}")])
        .args(["--user", user, "--password-file"])
        .arg(file)
        .args(line.split(' '))
        .stdin(Stdio::null())
        .output();
    told(&output.expect("the program starts"))
}

fn told(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

fn url(port: u16, user: &str) -> ServerUrl {
    ServerUrl {
        credentials: Some(Credentials {
            user: user.to_owned(),
            password: password(user),
        }),
        ..ServerUrl::local(port)
    }
}

async fn connect(port: u16, user: &str, container: &str) -> Result<Client, ClientError> {
    Client::connect(&url(port, user), &ClientOptions::named(container)).await
}

/// Sends durable messages and waits until they are confirmed.
async fn send(client: &mut Client, address: &str, texts: &[&str]) {
    let sender = client.attach_sender(address).await.expect("it may send");
    let (mut next, mut confirmed) = (0, 0);
    while confirmed < texts.len() {
        while next < texts.len() && client.can_send(sender) {
            let mut message = SimpleMessage {
                body: texts[next].as_bytes().to_vec(),
                ..SimpleMessage::default()
            };
            message.header.durable = true;
            let sent = client.send(sender, next as u64, &message.encode());
            sent.expect("the link has credit");
            next += 1;
        }
        let wake = client.next().await.expect("it serves");
        if let Wake::Event(Event::Disposition { outcome, .. }) = wake {
            assert_eq!(outcome, Some(Outcome::Accepted));
            confirmed += 1;
        }
    }
    client.detach(sender).await.expect("it answers");
}

/// The next message: its link, its delivery, its text and how often it was delivered before.
async fn receive(client: &mut Client) -> (LinkId, u32, String, u32) {
    loop {
        let wake = client.next().await.expect("it serves");
        if let Wake::Event(Event::Delivery {
            link,
            delivery_id,
            payload,
            ..
        }) = wake
        {
            let message = SimpleMessage::decode(&payload.to_bytes()).expect("one of ours");
            let text = String::from_utf8(message.body).expect("it is text");
            return (link, delivery_id, text, message.header.delivery_count);
        }
    }
}

/// Why a link ends.
async fn end_of(client: &mut Client, wanted: LinkId) -> ErrorCondition {
    loop {
        let wake = client.next().await.expect("the connection stays");
        match wake {
            Wake::Event(Event::Detached { link, error, .. }) if link == wanted => {
                return error.expect("it says why");
            }
            Wake::Event(Event::Delivery { .. }) => panic!("a message after the right was gone"),
            _ => {}
        }
    }
}

#[test]
fn a_receiver_whose_right_is_revoked_is_told_so_and_gets_nothing_more() {
    let place = place(
        ENABLED,
        &["admin", "ann"],
        "QUEUE=orders.mine USER=ann PERM=receive\n",
    );
    let mut server = place.start(0);
    server.wait("active");
    let port = place.ports[0];
    run(async {
        let mut admin = connect(port, "admin", "admin").await.expect("it serves");
        let mut ann = connect(port, "ann", "ann").await.expect("it serves");
        let link = ann
            .attach_receiver("orders.mine", 10)
            .await
            .expect("she may");
        send(&mut admin, "orders.mine", &["1"]).await;
        let (_, delivery_id, text, _) = receive(&mut ann).await;
        assert_eq!(text, "1");
        ann.settle(link, delivery_id, Outcome::Accepted);
        ann.flush().expect("it serves");

        let revoke = "revoke queue orders.mine user=ann receive";
        tool(&place, port, "admin", revoke).expect("admin may");
        let error = end_of(&mut ann, link).await;
        assert_eq!(error.condition, condition::UNAUTHORIZED_ACCESS);
        let said = error.to_string();
        assert!(
            said.contains("no permission any more to receive from \"orders.mine\""),
            "{said}"
        );
        send(&mut admin, "orders.mine", &["2"]).await;
        let error = ann.attach_receiver("orders.mine", 10).await;
        let error = error.expect_err("the right is gone").to_string();
        assert!(error.contains("no permission to receive from"), "{error}");
        // The connection and everything else of hers goes on; the message waits for somebody who may.
        send(&mut ann, "letters", &["x"]).await;
        tool(
            &place,
            port,
            "admin",
            "grant queue orders.mine user=ann receive",
        )
        .expect("admin may");
        ann.attach_receiver("orders.mine", 10)
            .await
            .expect("she may again");
        assert_eq!(receive(&mut ann).await.2, "2");
    });
    let acl = fs::read_to_string(place.path("acl.conf")).expect("it is there");
    assert!(acl.contains("USER=ann"), "{acl}");
}

#[test]
fn somebody_with_some_rights_of_an_administrator_has_no_others() {
    let rights = "ADMIN USER=op PERM=view-destination,view-server,create-destination\n";
    let place = place(ENABLED, &["admin", "op", "ann"], rights);
    let mut server = place.start(0);
    server.wait("active");
    let port = place.ports[0];
    let op = |line: &str| tool(&place, port, "op", line);
    for line in [
        "show queues",
        "show server",
        "create queue new.one",
        "whoami",
    ] {
        op(line).expect(line);
    }
    server.wait("administration");
    let before = fs::read_to_string(place.path("users.conf")).expect("it is there");
    for (line, right) in [
        ("show users", "view-user"),
        ("show connections", "view-connection"),
        ("delete queue new.one", "delete"),
        ("purge queue new.one", "purge"),
        ("create user eve password=x", "change-user"),
        ("set password admin x", "change-user"),
        ("set user admin password=x", "change-user"),
        ("delete user ann", "change-user"),
        ("delete all users", "change-user"),
        ("add member $admin op", "change-group"),
        ("grant admin user=op all", "change-admin-acl"),
        ("grant queue orders.mine user=op receive", "change-acl"),
        ("set server authorization=disabled", "change-server"),
        ("delete connection 1", "change-connection"),
        ("shutdown", "shutdown"),
        ("switchover", "shutdown"),
    ] {
        let complaint = op(line).expect_err(line);
        assert!(complaint.contains(right), "{line}: {complaint}");
        // What would have changed something can be read afterwards; what would not leaves no line.
        if !line.starts_with("show") {
            let denied = server.wait("administration");
            assert!(
                line.starts_with(denied["command"].as_str().unwrap_or("none")),
                "{line}: {denied}"
            );
            assert_eq!(
                (&denied["user"], &denied["status"]),
                (&json!("op"), &json!(403)),
                "{line}"
            );
            let reason = denied["reason"].as_str().unwrap_or_default();
            assert!(reason.contains(right), "{line}: {denied}");
            let arguments = denied["arguments"].as_str().unwrap_or_default();
            assert_eq!(
                arguments.contains("***"),
                line.contains("password"),
                "{denied}"
            );
        }
    }
    assert_eq!(server.state()["role"], "active");
    let after = fs::read_to_string(place.path("users.conf")).expect("it is there");
    assert_eq!(before, after);
    // Nor has he the rights of a client by them.
    run(async {
        let mut op = connect(port, "op", "op").await.expect("he has a password");
        let error = op.attach_receiver("orders.mine", 1).await;
        assert!(error.is_err());
    });
}

#[test]
fn users_change_their_own_password_with_the_old_one_and_administrators_without() {
    let place = place(ENABLED, &["admin", "ann"], "");
    let (mut active, mut standby) = place.settled();
    for port in place.ports {
        let ann = |line: &str| tool(&place, port, "ann", line);
        for (line, complaint) in [
            ("set password ann new-sesame", "your old password is needed"),
            (
                "set password ann new-sesame guess",
                "the old password is wrong",
            ),
            ("set password admin x anns-sesame", "change-user"),
        ] {
            let said = ann(line).expect_err(line);
            assert!(said.contains(complaint), "{line}: {said}");
        }
    }
    let [port, _] = place.ports;
    tool(
        &place,
        port,
        "ann",
        "set password ann new-sesame anns-sesame",
    )
    .expect("it is hers");
    tool(&place, port, "ann", "whoami").expect_err("the old one is not right any more");
    place.write("ann.pw", "new-sesame");
    tool(&place, port, "ann", "whoami").expect("the new one is");
    tool(&place, port, "admin", "set password ann anns-sesame").expect("admin may");
    tool(&place, port, "admin", "set password admin admins-sesame").expect("and its own");
    assert!(active.count("login_refused") + standby.count("login_refused") > 0);
    let log = active.said();
    assert!(log.contains("the old password is wrong"), "{log}");
    assert!(!log.contains("-sesame"), "{log}");
    let users = fs::read_to_string(place.path("users.conf")).expect("it is there");
    assert!(!users.contains("sesame"), "{users}");
}

#[test]
fn two_administrators_at_once_lose_nothing_of_each_other() {
    let place = place(ENABLED, &["admin"], "");
    place.write("groups.conf", "# by hand\nteam:\"ours\"\n");
    let mut server = place.start(0);
    server.wait("active");
    let script = |name: &str| -> String {
        (0..15)
            .map(|number| {
                format!("create user {name}{number} password=x\nadd member team {name}{number}\n")
            })
            .collect()
    };
    let running = ["left", "right"].map(|name| {
        place.write(name, &script(name));
        let child = Command::new(PROGRAM)
            .args([
                "admin",
                "--server",
                &format!("tcp://127.0.0.1:{}", place.ports[0]),
            ])
            .args(["--user", "admin", "--password-file"])
            .arg(place.path("admin.pw"))
            .arg("--script")
            .arg(place.path(name))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        child.expect("the program starts")
    });
    for child in running {
        let output = child.wait_with_output().expect("it ends");
        told(&output).expect("all of it was done");
    }
    let users = fs::read_to_string(place.path("users.conf")).expect("it is there");
    let groups = fs::read_to_string(place.path("groups.conf")).expect("it is there");
    assert!(groups.starts_with("# by hand\n"), "{groups}");
    for name in ["left", "right"] {
        for number in 0..15 {
            assert!(
                users.contains(&format!("\n{name}{number}:$argon2")),
                "{users}"
            );
            assert!(groups.contains(&format!("{name}{number}\n")), "{groups}");
        }
    }
    let shown = tool(&place, place.ports[0], "admin", "show members team").expect("admin may");
    assert!(
        shown.contains("left14") && shown.contains("right14"),
        "{shown}"
    );
}

/// Has a server read its files again, of which one takes as long as the test wants to write it.
fn read_slowly(place: &Place, server: &Server) -> fs::File {
    let (slow, users) = (place.path("slow"), place.path("users.conf"));
    let made = Command::new("mkfifo").arg(&slow).status();
    assert!(made.expect("the program is there").success());
    fs::rename(&slow, &users).expect("the directory is ours");
    server.signal(Signal::SIGHUP);
    // Opens when it is being read.
    let writer = fs::OpenOptions::new().write(true).open(&users);
    writer.expect("somebody reads it")
}

#[test]
fn what_an_administrator_changes_is_not_undone_by_a_reread_that_began_before() {
    let place = place(ENABLED, &["admin", "ann"], "");
    let mut server = place.start(0);
    server.wait("active");
    let users = place.path("users.conf");
    let before = fs::read(&users).expect("it is there");
    let mut writer = read_slowly(&place, &server);
    fs::write(place.path("new"), &before).expect("the directory is ours");
    fs::rename(place.path("new"), &users).expect("the directory is ours");
    let port = place.ports[0];
    tool(&place, port, "admin", "delete user ann").expect("admin may");
    // Once for the change, once for what was asked for before.
    server.wait("config_reread");
    server.wait("config_reread");
    writer.write_all(&before).expect("it is still read");
    drop(writer);
    server.signal(Signal::SIGHUP);
    server.wait("config_reread");
    assert_eq!(server.count("config_reread"), 3, "the old one is dropped");
    let refused = run(connect(port, "ann", "ann"));
    assert!(refused.is_err());
}

#[test]
fn a_reread_that_is_asked_for_during_another_one_is_not_lost() {
    let place = place(ENABLED, &["admin", "ann"], "");
    let mut server = place.start(0);
    server.wait("active");
    let users = place.path("users.conf");
    let before = fs::read(&users).expect("it is there");
    let mut writer = read_slowly(&place, &server);
    let before_text = std::str::from_utf8(&before).expect("it is text");
    let after = format!("{before_text}bob:{}:\n", hashed("bobs-sesame"));
    place.write("new", &after);
    fs::rename(place.path("new"), &users).expect("the directory is ours");
    server.signal(Signal::SIGHUP);
    server.wait("config_reread_again");
    writer.write_all(&before).expect("it is read");
    drop(writer);
    server.wait("config_reread");
    server.wait("config_reread");
    run(async {
        connect(place.ports[0], "bob", "bob")
            .await
            .expect("he is in the file");
        connect(place.ports[0], "ann", "ann")
            .await
            .expect("she still is");
    });
}

/// Each server checks users as its own file says, as the chapter has it: both are to be enabled. That they differ is
/// said when they meet.
#[test]
fn authorization_of_one_server_alone_counts_on_that_one_alone() {
    for is_first_open in [false, true] {
        let place = place("", &["admin", "ann"], "");
        let modes = match is_first_open {
            true => [
                "password = pair",
                "password = pair\nauthorization = enabled",
            ],
            false => [
                "password = pair\nauthorization = enabled",
                "password = pair",
            ],
        };
        for (index, mode) in modes.iter().enumerate() {
            place.write_main(index, mode);
        }
        let (mut active, mut standby) = place.settled();
        let difference = standby.wait("config_difference");
        let said = difference["difference"].as_str().unwrap_or_default();
        assert!(said.contains("authorization"), "{difference}");
        let anonymous = |port| {
            let url = ServerUrl::local(port);
            run(async move {
                Client::connect(&url, &ClientOptions::named("x"))
                    .await
                    .map(drop)
            })
        };
        assert_eq!(anonymous(place.ports[0]).is_ok(), is_first_open);
        run(async {
            let mut ann = connect(place.ports[0], "ann", "app")
                .await
                .expect("she may");
            send(&mut ann, "letters", &["1"]).await;
        });
        active.kill();
        standby.wait("active");
        let let_in = anonymous(place.ports[1]);
        assert_eq!(let_in.is_ok(), !is_first_open, "{let_in:?}");
        // Who has a user is served by either.
        run(async {
            let mut ann = connect(place.ports[1], "ann", "app")
                .await
                .expect("she may");
            ann.attach_receiver("letters", 1).await.expect("she may");
            assert_eq!(receive(&mut ann).await.2, "1");
        });
    }
}

#[test]
fn one_container_under_two_users_is_two_clients_at_a_takeover() {
    let place = place(ENABLED, &["admin", "ann", "bob"], "");
    let (mut active, mut standby) = place.settled();
    let [a, b] = place.ports;
    // Whose connection is kept for the takeover to break it.
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("a runtime");
    let mut ann = runtime.block_on(async {
        let mut ann = connect(a, "ann", "app").await.expect("she may");
        send(&mut ann, "letters", &["1", "2"]).await;
        ann.attach_receiver("letters", 1).await.expect("she may");
        assert_eq!(receive(&mut ann).await.2, "1");
        ann
    });
    active.wait_state("written down that she has it", |state| {
        state["reconnect"]["kept"] == 1
    });
    let is_taken = |state: &serde_json::Value| state["clients"]["messages_in"] == 2;
    active.wait_state("published", is_taken);
    active.kill();
    standby.wait("active");
    runtime.block_on(async { while ann.next().await.is_ok() {} });
    drop(ann);
    runtime.block_on(async {
        let mut bob = connect(b, "bob", "app").await.expect("he may");
        let link = bob.attach_receiver("letters", 10).await.expect("he may");
        let (_, delivery_id, text, _) = receive(&mut bob).await;
        assert_eq!(text, "2", "the other one is kept for ann");
        bob.settle(link, delivery_id, Outcome::Accepted);
        bob.flush().expect("it serves");
        let mut ann = connect(b, "ann", "app").await.expect("she may");
        ann.attach_receiver("letters", 1).await.expect("she may");
        let (_, _, text, count) = receive(&mut ann).await;
        assert_eq!((text.as_str(), count), ("1", 1));
    });
    let returned = standby.wait("client_returned");
    assert_eq!(returned["user"], "ann", "{returned}");
}

/// A pair that speaks TLS only, with authorization. `carol` has a certificate and no password.
struct Secure {
    place: Place,
    authority: Authority,
}

impl Secure {
    fn new() -> Self {
        let place = place(
            "",
            &["admin", "ann"],
            "QUEUE=orders.mine USER=carol PERM=receive\n",
        );
        let users = fs::read_to_string(place.path("users.conf")).expect("it is there");
        place.write("users.conf", &format!("{users}carol::\n"));
        let authority = Authority::new(place.directory.path(), "ca");
        let (server, trusted) = (authority.local("server"), authority.file());
        for (index, name) in ["a.conf", "b.conf"].iter().enumerate() {
            let more = format!(
                "password = pair\nauthorization = enabled\nssl_server_identity = {0}\n\
                 ssl_server_trusted = {1}\nft_ssl_trusted = {1}\nft_ssl_verify_hostname = disabled",
                server.display(),
                trusted.display()
            );
            place.write_main(index, &more);
            let text = fs::read_to_string(place.path(name)).expect("it is there");
            place.write(name, &text.replace("tcp://", "ssl://"));
        }
        Self { place, authority }
    }

    fn options(&self, container: &str, identity: Option<&str>) -> ClientOptions {
        let parameters = ClientParameters {
            files: FileNames {
                identity: identity.map(|name| self.authority.local(name)),
                trusted: vec![self.authority.file()],
                ..FileNames::default()
            },
            names: TOOL_NAMES,
            verify_host: true,
            verify_hostname: false,
            expected_hostname: None,
        };
        ClientOptions {
            tls: Some(ClientTls::new(&parameters).expect("the files are right")),
            ..ClientOptions::named(container)
        }
    }

    async fn connect(&self, port: u16, user: &str) -> Result<Client, ClientError> {
        let url = ServerUrl {
            is_tls: true,
            ..url(port, user)
        };
        Client::connect(&url, &self.options(user, None)).await
    }

    fn tool(&self, port: u16, line: &str) -> Result<String, String> {
        let output = Command::new(PROGRAM)
            .args(["admin", "--server", &format!("ssl://127.0.0.1:{port}")])
            .args([
                "--user",
                "admin",
                "--ssl-noverifyhostname",
                "--password-file",
            ])
            .arg(self.place.path("admin.pw"))
            .arg("--ssl-trusted")
            .arg(self.authority.file())
            .args(line.split(' '))
            .stdin(Stdio::null())
            .output();
        told(&output.expect("the program starts"))
    }

    /// Logs in with a certificate alone and attaches a receiver to the queue of `carol`. `None`: the login is refused;
    /// else whether the link is.
    fn is_attached_by_certificate(&self, port: u16, name: &str) -> Option<bool> {
        let tls = self.options("x", Some(name)).tls.expect("it has some");
        let host = rustls::pki_types::ServerName::try_from("127.0.0.1").expect("a name");
        let connection = rustls::ClientConnection::new(Arc::clone(&tls.config), host);
        let socket = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("the time is right");
        let mut stream =
            rustls::StreamOwned::new(connection.expect("the configuration is right"), socket);
        stream.write_all(&SASL).expect("it listens");
        let init =
            b"\x00\x00\x00\x1a\x02\x01\x00\x00\x00\x53\x41\xc0\x0d\x02\xa3\x08EXTERNAL\xa0\x00";
        stream.write_all(init).expect("it listens");
        read_header(&mut stream, SASL);
        assert_eq!(read_frame(&mut stream).first(), Some(&0x40));
        let outcome = read_frame(&mut stream);
        assert_eq!(outcome.first(), Some(&0x44));
        if !outcome.windows(2).any(|it| it == [0x50, 0]) {
            return None;
        }
        stream.write_all(&AMQP).expect("it listens");
        for frame in [open(), begin(0), attach(0, "r", true, "orders.mine")] {
            stream.write_all(&frame).expect("it listens");
        }
        read_header(&mut stream, AMQP);
        let mut codes = Vec::new();
        for (said, last) in [
            (Vec::new(), ATTACH),
            (performative(0, CLOSE, Vec::new(), &[]), CLOSE),
        ] {
            stream.write_all(&said).expect("it listens");
            while codes.last() != Some(&last) {
                codes.extend(read_frame(&mut stream).first());
            }
        }
        Some(!codes.contains(&DETACH))
    }
}

fn read_header(stream: &mut impl std::io::Read, wanted: [u8; 8]) {
    let mut header = [0; 8];
    stream.read_exact(&mut header).expect("it answers");
    assert_eq!(header, wanted);
}

/// A frame from its performative's code on.
fn read_frame(stream: &mut impl std::io::Read) -> Vec<u8> {
    let mut size = [0; 4];
    stream.read_exact(&mut size).expect("a frame comes");
    let mut rest = vec![0; u32::from_be_bytes(size) as usize - 4];
    stream.read_exact(&mut rest).expect("the frame is whole");
    rest.split_off(rest.len().min(6))
}

#[test]
fn a_switchover_over_tls_with_authorization_loses_nothing_and_lets_nobody_in() {
    let pair = Secure::new();
    let (mut first, mut second) = pair.place.settled();
    let [a, b] = pair.place.ports;
    let is_met = |state: &serde_json::Value| state["peer"]["role"] == "standby";
    first.wait_state("in sight of its peer", is_met);
    run(async {
        let mut ann = pair.connect(a, "ann").await.expect("she has a password");
        send(&mut ann, "letters", &["1", "2", "3"]).await;
    });
    pair.tool(a, "switchover").expect("admin may");
    second.wait("active");
    first.wait("handed_over");
    first.wait("starting");
    first.wait("standby");
    run(async {
        let mut ann = pair.connect(b, "ann").await.expect("she has a password");
        let link = ann.attach_receiver("letters", 10).await.expect("she may");
        for expected in ["1", "2", "3"] {
            let (_, delivery_id, text, _) = receive(&mut ann).await;
            assert_eq!(text, expected);
            ann.settle(link, delivery_id, Outcome::Accepted);
        }
        ann.close().await;
        let wrong = ServerUrl {
            is_tls: true,
            credentials: Some(Credentials {
                user: "ann".to_owned(),
                password: "wrong".to_owned(),
            }),
            ..ServerUrl::local(b)
        };
        let refused = Client::connect(&wrong, &pair.options("x", None)).await;
        assert!(refused.is_err());
    });
    // The link between the two logs in again, in the new roles, and the way back works too.
    second.wait_state("in sight of its peer", is_met);
    pair.tool(b, "switchover").expect("admin may");
    first.wait("active");
    assert_eq!(
        first.count("peer_refused") + second.count("peer_refused"),
        0
    );
}

#[test]
fn a_certificate_is_a_login_before_and_after_a_takeover() {
    let pair = Secure::new();
    let (mut first, mut second) = pair.place.settled();
    let check = |port: u16| {
        let attach = |name| pair.is_attached_by_certificate(port, name);
        assert_eq!(attach("dave"), None, "there is no such user");
        assert_eq!(attach("ann"), Some(false), "it is not hers");
        assert_eq!(attach("carol"), Some(true));
    };
    let [a, b] = pair.place.ports;
    check(a);
    first.kill();
    second.wait("active");
    check(b);
}

/// A switchover of a server whose program is changed while it runs, as an upgrade does it.
fn switch_over(change: impl Fn(&Place, &Path)) -> (Place, Server) {
    let place = place("", &[], "");
    let program = place.path("program");
    std::os::unix::fs::symlink(PROGRAM, &program).expect("the directory is ours");
    let main = place.path("a.conf").display().to_string();
    let mut first = serve_program(&program, &["--config", &main], &[]);
    first.wait("active");
    let mut second = place.start(1);
    second.wait("standby");
    let is_met = |state: &serde_json::Value| state["peer"]["role"] == "standby";
    first.wait_state("in sight of its peer", is_met);
    change(&place, &program);
    let url = format!("tcp://127.0.0.1:{}", place.ports[0]);
    let output = Command::new(PROGRAM)
        .args(["admin", "--server", &url, "switchover"])
        .output();
    told(&output.expect("the program starts")).expect("it can");
    second.wait("active");
    let begun = first.wait("begins_again");
    assert_eq!(begun["is_replaced"], true, "{begun}");
    first.wait("starting");
    first.wait("standby");
    (place, first)
}

#[test]
fn after_a_switchover_the_program_runs_that_is_on_the_disk() {
    let (place, mut server) = switch_over(|place, program| {
        let marker = place.path("marker");
        let script = format!(
            "#!/bin/sh\ntouch '{}'\nexec '{PROGRAM}' \"$@\"\n",
            marker.display()
        );
        place.write("next", &script);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(place.path("next"), mode).expect("the file is ours");
        fs::rename(place.path("next"), program).expect("the directory is ours");
    });
    assert!(place.path("marker").exists(), "the new program was started");
    assert_eq!(server.count("program_unusable"), 0);
}

#[test]
fn after_a_switchover_the_old_program_goes_on_where_there_is_no_other() {
    let (_place, mut server) = switch_over(|_, program| {
        fs::remove_file(program).expect("it is there");
    });
    assert_eq!(server.count("program_unusable"), 1);
}
