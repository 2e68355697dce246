//! Who comes in, and who gets what: passwords and permissions against real servers, before and after a takeover.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;
use steadfast::net::client::{Client, ClientError, ClientOptions, Credentials, ServerUrl, Wake};
use steadfast::proto::message::SimpleMessage;
use steadfast::proto::{Event, Outcome, condition};

use super::chapter_pair::Place;
use super::foreign::{Library, has_scram, start};
use super::history::Kind;
use super::support::{PATIENCE, PROGRAM, Server};
use super::wire::SASL;

/// Of the users; each is a word that stands nowhere else.
const PASSWORDS: [&str; 4] = [
    "anns-sesame",
    "bobs-sesame",
    "admins-sesame",
    "pairs-sesame",
];

/// The stored form of a password, made by the program.
pub(crate) fn hashed(password: &str) -> String {
    let mut child = Command::new(PROGRAM)
        .arg("hash-password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut input = child.stdin.take().expect("standard input is a pipe");
    writeln!(input, "{password}").expect("the program reads");
    drop(input);
    let output = child.wait_with_output().expect("the program ends");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("it is text");
    text.trim_end().to_owned()
}

/// A pair with authorization. `ann` may use `orders.mine`, `bob` nothing that is secure.
fn place() -> Place {
    let [ann, bob, admin, pair] = PASSWORDS;
    let place = Place::new(&format!("authorization = enabled\npassword = {pair}"));
    let users = format!(
        "ann:{}:\nbob:{bob}:\nadmin:{}:\nEMS-SERVER:{}:\n",
        hashed(ann),
        hashed(admin),
        hashed(pair)
    );
    place.write("users.conf", &users);
    place.write("queues.conf", ">\norders.> secure\n");
    place.write("topics.conf", ">\n");
    place.write("acl.conf", "QUEUE=orders.mine USER=ann PERM=send,receive\n");
    place
}

/// Runs a dialogue of our own client.
pub(crate) fn run<T>(dialogue: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime
        .block_on(async { tokio::time::timeout(4 * PATIENCE, dialogue).await })
        .expect("it ends")
}

async fn connect(port: u16, user: &str, password: &str) -> Result<Client, ClientError> {
    let credentials = (!user.is_empty()).then(|| Credentials {
        user: user.to_owned(),
        password: password.to_owned(),
    });
    let url = ServerUrl {
        credentials,
        ..ServerUrl::local(port)
    };
    Client::connect(&url, &ClientOptions::named("test")).await
}

fn is_unauthorized(error: &ClientError) -> bool {
    let (ClientError::Closed { error, .. } | ClientError::Refused { error, .. }) = error else {
        return false;
    };
    let error = error.as_ref();
    error.is_some_and(|error| error.condition == condition::UNAUTHORIZED_ACCESS)
}

/// Nobody without a right password is let in by this server.
fn expect_refusals(port: u16, is_active: bool) {
    for (user, password) in [
        ("", ""),
        ("ann", "wrong"),
        ("ann", ""),
        ("bob", "wrong"),
        ("nobody", "anns-sesame"),
        ("EMS-SERVER", "anns-sesame"),
    ] {
        let result = run(connect(port, user, password));
        let error = result.expect_err("it has no right password");
        let is_silent = matches!(
            error,
            ClientError::Closed { .. } | ClientError::Broken { .. } | ClientError::Silent { .. }
        );
        // A standby's files may be old: it says nothing that would make a client give up for good.
        let is_right = if is_active || user.is_empty() {
            is_unauthorized(&error)
        } else {
            is_silent && !is_unauthorized(&error)
        };
        assert!(is_right, "{user:?} {password:?}: {error}");
        let text = error.to_string();
        if let ("ann", "wrong") = (user, password) {
            assert!(text.contains("check the user and the password"), "{text}");
        }
    }
    // Without SASL nothing is opened.
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    socket.write_all(b"AMQP\0\x01\0\0").expect("it reads");
    let mut answer = Vec::new();
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket has a time-out");
    socket.read_to_end(&mut answer).expect("it closes");
    assert_eq!(answer, b"AMQP\x03\x01\0\0");
}

/// Who does not say who he is is refused, and that can be seen afterwards.
fn expect_nobody_unnoticed(server: &mut Server, port: u16) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket has a time-out");
    socket.write_all(&SASL).expect("it reads");
    let init = b"\x00\x00\x00\x19\x02\x01\x00\x00\x00\x53\x41\xc0\x0c\x01\xa3\x09ANONYMOUS";
    socket.write_all(init).expect("it reads");
    let refused = server.wait("login_refused");
    assert_eq!(refused["mechanism"], "ANONYMOUS", "{refused}");
    assert_eq!(refused["user"], "", "{refused}");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("it closes");
    let outcome = b"\x00\x53\x44\xc0\x03\x01\x50\x01";
    assert!(answer.ends_with(outcome), "{answer:x?}");
    server.wait_state("a refused login", |state| {
        state["clients"]["refused_logins"] == 1
    });
}

/// Sends and takes one message.
async fn exchange(client: &mut Client, queue: &str) -> Result<(), ClientError> {
    let sender = client.attach_sender(queue).await?;
    let receiver = client.attach_receiver(queue, 10).await?;
    let mut is_sent = false;
    loop {
        if !is_sent && client.can_send(sender) {
            let message = SimpleMessage {
                body: b"text".to_vec(),
                ..SimpleMessage::default()
            };
            is_sent = client.send(sender, 1, &message.encode()).is_ok();
        }
        if let Wake::Event(Event::Delivery { delivery_id, .. }) = client.next().await? {
            client.settle(receiver, delivery_id, Outcome::Accepted);
            client.flush()?;
            return Ok(());
        }
    }
}

fn expect_service(port: u16) {
    run(async {
        let mut ann = connect(port, "ann", "anns-sesame")
            .await
            .expect("ann has a password");
        exchange(&mut ann, "orders.mine")
            .await
            .expect("ann has the permission");
        exchange(&mut ann, "letters")
            .await
            .expect("everybody has the permission");
        // Nobody else takes what bob sends.
        ann.close().await;
        let mut bob = connect(port, "bob", "bobs-sesame")
            .await
            .expect("bob has a password");
        exchange(&mut bob, "letters")
            .await
            .expect("everybody has the permission");
    });
}

/// `bob` learns nothing of a secure destination, whether it exists or not.
fn expect_silence(port: u16) {
    run(async {
        let mut bob = connect(port, "bob", "bobs-sesame")
            .await
            .expect("bob has a password");
        let mut answers = Vec::new();
        for queue in ["orders.mine", "orders.none"] {
            for error in [
                bob.attach_receiver(queue, 10)
                    .await
                    .expect_err("it is secure"),
                bob.attach_sender(queue).await.expect_err("it is secure"),
            ] {
                assert!(is_unauthorized(&error), "{error}");
                answers.push(error.to_string().replace(queue, ""));
            }
        }
        assert_eq!(answers[..2], answers[2..], "the answers are the same");
    });
}

/// Sends a message and leaves it.
async fn leave(port: u16, queue: &str) {
    let mut admin = connect(port, "admin", "admins-sesame")
        .await
        .expect("admin has a password");
    let sender = admin
        .attach_sender(queue)
        .await
        .expect("admin may everything");
    let message = SimpleMessage {
        body: b"left".to_vec(),
        ..SimpleMessage::default()
    };
    let mut is_sent = false;
    loop {
        if !is_sent && admin.can_send(sender) {
            is_sent = admin.send(sender, 1, &message.encode()).is_ok();
        }
        if let Wake::Event(Event::Disposition { .. }) = admin.next().await.expect("it serves") {
            return;
        }
    }
}

/// The monitor shows no name of a destination.
fn expect_discreet_monitor(server: &Server) {
    let state = server.state().to_string();
    assert!(!state.contains("orders."), "{state}");
}

#[test]
fn nobody_without_password_or_permission_gets_in_before_and_after_a_takeover() {
    let place = place();
    let mut active = place.start(0);
    active.wait("active");
    let mut standby = place.start(1);
    standby.wait("standby");
    run(leave(place.ports[0], "orders.mine"));
    expect_nobody_unnoticed(&mut active, place.ports[0]);
    expect_refusals(place.ports[0], true);
    expect_silence(place.ports[0]);
    expect_discreet_monitor(&active);
    expect_service(place.ports[0]);
    expect_refusals(place.ports[1], false);
    // Right passwords are welcome at the standby, which proves itself and sends them on.
    for (user, password) in [("ann", "anns-sesame"), ("bob", "bobs-sesame")] {
        let result = run(async {
            let mut client = connect(place.ports[1], user, password).await?;
            client.attach_sender("letters").await
        });
        let error = result.expect_err("it stands by").to_string();
        assert!(error.contains("stands by"), "{error}");
    }
    active.kill();
    standby.wait("active");
    run(leave(place.ports[1], "orders.mine"));
    expect_refusals(place.ports[1], true);
    expect_silence(place.ports[1]);
    expect_discreet_monitor(&standby);
    expect_service(place.ports[1]);
    assert!(standby.count("login_refused") > 0);
    for server in [&active, &standby] {
        expect_no_password(&server.said());
    }
}

#[track_caller]
fn expect_no_password(text: &str) {
    for password in PASSWORDS {
        assert!(!text.contains(password), "{password} is said: {text}");
    }
}

/// All files below a directory that do not end in `.conf`.
fn written(directory: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(directory).expect("the directory is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            written(&path, found);
        } else if path.extension().is_none_or(|end| end != "conf") {
            let bytes = fs::read(&path).expect("the file can be read");
            found.push((path.display().to_string(), bytes));
        }
    }
}

#[test]
fn no_password_stands_in_a_file_that_a_server_writes() {
    let place = place();
    let log = format!("logfile={}", place.path("server.log").display());
    let mut first = place.start(0);
    first.wait("active");
    drop(first);
    // A second life, with a log file.
    let mut server = place.start_with(0, &["--set", &log]);
    let deadline = Instant::now() + PATIENCE;
    while run(connect(place.ports[0], "ann", "anns-sesame")).is_err() {
        assert!(Instant::now() < deadline, "it does not serve");
    }
    expect_service(place.ports[0]);
    let refused = run(connect(place.ports[0], "ann", "bobs-sesame"));
    assert!(refused.is_err());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
    let mut files = Vec::new();
    written(place.directory.path(), &mut files);
    assert!(files.iter().any(|(name, _)| name.ends_with("server.log")));
    assert!(files.len() > 3, "there is a store: {}", files.len());
    for (name, bytes) in &files {
        for password in PASSWORDS {
            let is_there = bytes
                .windows(password.len())
                .any(|part| part == password.as_bytes());
            assert!(!is_there, "{name} has the password {password}");
        }
    }
}

#[test]
fn proton_and_rhea_log_in_and_wrong_passwords_are_told_so() {
    let place = place();
    let mut server = place.start(0);
    server.wait("active");
    let url = format!("amqp://127.0.0.1:{}", place.ports[0]);
    place.write("right.txt", "anns-sesame\n");
    place.write("wrong.txt", "wrong\n");
    let mut logins = vec![(Library::Proton, "PLAIN"), (Library::Rhea, "PLAIN")];
    if has_scram() {
        logins.extend([
            (Library::Proton, "SCRAM-SHA-256"),
            (Library::Proton, "SCRAM-SHA-512"),
        ]);
    }
    for (library, mechanism) in logins {
        let client = |mode: &str, password: &str| {
            let file = place.path(password).display().to_string();
            let history = place.path(&format!("{library:?}-{mechanism}-{mode}-{password}.jsonl"));
            let mut options = vec![mode, "--servers", &url, "--queues", "orders.mine"];
            options.extend(["--count", "1", "--user", "ann", "--password-file", &file]);
            if library == Library::Proton {
                options.extend(["--mechanism", mechanism]);
            }
            start(library, "c", &options, &history)
        };
        let receiver = client("receive", "right.txt");
        let mut sender = client("send", "right.txt");
        sender.wait(Kind::Confirm, 10, PATIENCE);
        receiver.wait(Kind::Deliver, 10, PATIENCE);
        sender.ask_to_finish();
        sender.finish(PATIENCE);
        receiver.finish(PATIENCE);
        let refused = client("send", "wrong.txt");
        if library == Library::Proton {
            refused.wait(Kind::Error, 1, PATIENCE);
        } else {
            // rhea tries for ever.
            server.wait("login_refused");
        }
        assert_eq!(refused.count(Kind::Connect), 0);
    }
}

#[test]
fn a_flood_of_wrong_passwords_keeps_nobody_out() {
    let place = place();
    let mut server = place.start(0);
    server.wait("active");
    let port = place.ports[0];
    run(async {
        let flood = (0..40).map(|number| async move {
            let user = format!("stranger {}", number % 8);
            connect(port, &user, "guess").await.is_err()
        });
        let flood: Vec<_> = flood.collect();
        let guests = async {
            for _ in 0..5 {
                let mut ann = connect(port, "ann", "anns-sesame").await.expect("ann may");
                exchange(&mut ann, "orders.mine").await.expect("ann may");
            }
        };
        let flood = async {
            let local = tokio::task::LocalSet::new();
            let tasks: Vec<_> = flood
                .into_iter()
                .map(|one| local.spawn_local(one))
                .collect();
            local.await;
            let mut refused = 0;
            for task in tasks {
                refused += usize::from(task.await.expect("no task panics"));
            }
            refused
        };
        let ((), refused) = tokio::join!(guests, flood);
        assert_eq!(refused, 40);
    });
}

#[test]
fn the_keys_of_a_password_are_made_from_standard_input() {
    let one = hashed("sesame");
    let parts: Vec<&str> = one.split('|').collect();
    assert_eq!(parts.len(), 3, "{one}");
    for (part, begin) in parts
        .iter()
        .zip(["$argon2id$", "$scram-sha-512$i=", "$scram-sha-256$i="])
    {
        assert!(part.starts_with(begin), "{part}");
    }
    assert!(!one.contains(':') && !one.contains("sesame"));
    assert_ne!(one, hashed("sesame"), "each has a salt of its own");
    let output = Command::new(PROGRAM)
        .arg("hash-password")
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(complaint.contains("write a password"), "{complaint}");
}

/// For the drill: main file, users and permissions of a pair.
pub(crate) fn write_users(directory: &Path, user: &str, password: &str) {
    let write = |name: &str, text: &str| {
        fs::write(directory.join(name), text).expect("the directory can be written");
    };
    write(
        "server.conf",
        "server = EMS-SERVER\npassword = pairs-sesame\nauthorization = enabled\n",
    );
    let users = format!(
        "{user}:{}:\nadmin:{}:\nEMS-SERVER:{}:\n",
        hashed(password),
        hashed("admins-sesame"),
        hashed("pairs-sesame")
    );
    write("users.conf", &users);
    write("queues.conf", ">\ndrill.> secure\n");
    write(
        "acl.conf",
        &format!("QUEUE=drill.> USER={user} PERM=send,receive\n"),
    );
    write("password.txt", &format!("{password}\n"));
}
