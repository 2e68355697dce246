//! Administration: what the chapter promises of it (C7, C8, C12), the tool, and `$management`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use steadfast::net::client::{Client, ClientOptions, Failover, ServerUrl, Wake};
use steadfast::proto::message::{SimpleMessage, ValueMessage};
use steadfast::proto::{self, Event, Outcome};

use super::foreign;
use super::support::{PATIENCE, PROGRAM, Server, serve, two_ports};

/// What the tool answered: exit code, answers, complaints.
pub(crate) struct Told {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Told {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// The answer of a command that was carried out.
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// The complaint about one that was not.
    pub(crate) fn refused(self) -> String {
        assert_eq!(self.code, 1, "{}{}", self.out, self.err);
        self.err
    }

    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{}{}", self.out, self.err))
    }
}

pub(crate) fn admin(url: &str, options: &[&str]) -> Told {
    let output = Command::new(PROGRAM)
        .args(["admin", "--server", url])
        .args(options)
        .stdin(Stdio::null())
        .output();
    Told::of(&output.expect("the program starts"))
}

pub(crate) fn command(url: &str, line: &str) -> Told {
    admin(url, &line.split(' ').collect::<Vec<_>>())
}

/// The URL of a server that was seen to start.
pub(crate) fn url_of(server: &Server) -> String {
    let state = server.state();
    state["listens"][0].as_str().expect("it listens").to_owned()
}

/// A configuration file in a directory of its own.
pub(crate) fn configured(directory: &Path, name: &str, text: &str) -> PathBuf {
    let folder = directory.join(name);
    fs::create_dir_all(&folder).expect("the directory is ours");
    let path = folder.join("tibemsd.conf");
    fs::write(&path, text).expect("the directory is ours");
    path
}

pub(crate) fn start(store: &Path, config: &Path) -> Server {
    serve(store, &["--config", &config.display().to_string()])
}

/// A pair whose servers have files of their own, server 0 active.
pub(crate) struct Pair {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) files: [PathBuf; 2],
    pub(crate) urls: [String; 2],
    pub(crate) servers: [Server; 2],
}

pub(crate) fn settled() -> Pair {
    let directory = tempfile::tempdir().expect("a directory");
    let (a, b) = two_ports();
    let text = |own: u16, other: u16| {
        format!(
            "# by hand\nserver = EMS-SERVER\nlisten = tcp://127.0.0.1:{own}\n\
             ft_active = tcp://127.0.0.1:{other}\nft_heartbeat = 0.2\nft_activation = 0.6\n"
        )
    };
    let files = [
        configured(directory.path(), "a", &text(a, b)),
        configured(directory.path(), "b", &text(b, a)),
    ];
    let store = directory.path().join("store");
    let mut first = start(&store, &files[0]);
    first.wait("active");
    let mut second = start(&store, &files[1]);
    second.wait("standby");
    first.wait_state("seen by its peer", |state| {
        state["peer"]["role"] == "standby"
    });
    Pair {
        directory,
        files,
        urls: [a, b].map(|port| format!("tcp://127.0.0.1:{port}")),
        servers: [first, second],
    }
}

#[test]
fn c07_check11_an_administrator_is_served_by_a_standby_until_that_becomes_active() {
    let mut pair = settled();
    let standby = &pair.urls[1];
    let state = admin(standby, &["--json", "show", "state"]).json();
    assert_eq!(state["state"], "standby", "{state}");
    assert_eq!(state["peer_state"], "active", "{state}");
    command(standby, "create user ann password=sesame").done();
    command(standby, "create queue orders maxmsgs=5").done();
    let complaint = command(standby, "show queues").refused();
    let place = format!("connect to that: {}", pair.urls[0]);
    assert!(complaint.contains(&place), "{complaint}");
    let complaint = command(standby, "switchover").refused();
    assert!(complaint.contains("standing by"), "{complaint}");

    // A shell that stays connected is told when the server becomes active.
    let mut shell = Command::new(PROGRAM)
        .args(["admin", "--server", standby])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut input = shell.stdin.take().expect("it is a pipe");
    let mut output = BufReader::new(shell.stdout.take().expect("it is a pipe"));
    writeln!(input, "whoami").expect("it listens");
    let mut first = String::new();
    while !first.contains("anonymous") {
        let read = output.read_line(&mut first).expect("it is text");
        assert!(read > 0, "it ended after: {first}");
    }
    pair.servers[0].kill();
    pair.servers[1].wait("active");
    // The connection to the standby is gone; the tool makes another to the active server.
    writeln!(input, "show state").expect("it listens");
    drop(input);
    let mut told = String::new();
    output.read_to_string(&mut told).expect("it is text");
    assert!(shell.wait().expect("it ends").success(), "{first}{told}");
    assert!(told.contains("active"), "{told}");
}

#[test]
fn c08_a_standby_with_a_json_file_shows_its_state_and_no_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let (a, b) = two_ports();
    let path = directory.path().join("pair.json");
    let document = json!({
        "tibemsd": {
            "server": "EMS-SERVER",
            "ft_heartbeat": "0.2",
            "ft_activation": "0.6",
            "primary_listens": [{"url": format!("tcp://127.0.0.1:{a}"), "ft_active": true}],
            "secondary_listens": [{"url": format!("tcp://127.0.0.1:{b}"), "ft_active": true}],
        }
    });
    fs::write(&path, document.to_string()).expect("the directory is ours");
    let store = directory.path().join("store");
    let config = path.display().to_string();
    let mut first = serve(&store, &["--config", &config]);
    first.wait("active");
    let mut second = serve(&store, &["--config", &config, "--secondary"]);
    second.wait("standby");
    let (active, standby) = (url_of(&first), url_of(&second));

    for line in ["show state", "show connections"] {
        command(&standby, line).done();
    }
    for line in [
        "show server",
        "show users",
        "create queue q",
        "set server password=x",
        "whoami",
    ] {
        let complaint = command(&standby, line).refused();
        assert!(complaint.contains("JSON"), "{line}: {complaint}");
    }
    // To standard error, which cannot be rotated.
    let complaint = command(&standby, "rotatelog").refused();
    assert!(complaint.contains("logfile"), "{complaint}");
    command(&active, "show server").done();
    command(&active, "create user ann password=x").done();
    command(&standby, "shutdown").done();
    assert_eq!(second.exit_code(), 0);
    assert_eq!(first.state()["role"], "active");
}

#[test]
fn c12_the_chapters_commands_hold_on_both_servers_as_they_are_written() {
    let pair = settled();
    for url in &pair.urls {
        command(url, "set server password=mySecret").done();
        command(url, "create user EMS-SERVER password=mySecret").done();
    }
    for file in &pair.files {
        let text = fs::read_to_string(file).expect("it is there");
        assert!(
            text.starts_with("# by hand\nserver = EMS-SERVER\n"),
            "{text}"
        );
        assert!(text.contains("\npassword = $hidden$"), "{text}");
        let users = file.with_file_name("users.conf");
        let users = fs::read_to_string(users).expect("it was made");
        assert!(users.starts_with("EMS-SERVER:$argon2"), "{users}");
        assert!(!text.contains("mySecret") && !users.contains("mySecret"));
    }
    for url in &pair.urls {
        command(url, "set server authorization=enabled").done();
    }
    let password = pair.directory.path().join("password");
    fs::write(&password, "mySecret\n").expect("it is ours");
    let wrong = pair.directory.path().join("wrong");
    fs::write(&wrong, "hisSecret\n").expect("it is ours");
    let as_peer = |file: &Path, url: &str, line: &str| {
        let file = file.display().to_string();
        let mut options = vec!["--user", "EMS-SERVER", "--password-file", &file];
        options.extend(line.split(' '));
        admin(url, &options)
    };
    for (url, file) in pair.urls.iter().zip(&pair.files) {
        let main = fs::read_to_string(file).expect("it is there");
        assert!(main.contains("\nauthorization = enabled\n"), "{main}");
        let told = as_peer(&password, url, "whoami").done();
        assert!(told.contains("EMS-SERVER"), "{told}");
        // It may log in, not administer; others may not even that.
        let complaint = as_peer(&password, url, "show users").refused();
        assert!(complaint.contains("view-user"), "{complaint}");
        as_peer(&wrong, url, "whoami").refused();
        command(url, "whoami").refused();
    }
}

#[test]
fn what_an_administrator_changes_survives_a_restart_with_its_comments() {
    let directory = tempfile::tempdir().expect("a directory");
    let main = "server = A # mine\nlisten = tcp://127.0.0.1:0\nqueues = q.conf\n";
    let config = configured(directory.path(), "a", main);
    let queues = config.with_file_name("q.conf");
    fs::write(
        &queues,
        "# the first\norders secure # comes from the shop\n",
    )
    .expect("it is ours");
    let store = directory.path().join("store");
    let mut server = start(&store, &config);
    server.wait("active");
    let url = url_of(&server);
    command(&url, "create queue invoices exclusive").done();
    command(&url, "addprop queue orders maxmsgs=7").done();
    command(&url, "create group eng").done();
    command(&url, "create user ann password=sesame").done();
    command(&url, "add member eng ann").done();
    command(&url, "grant queue orders group=eng send,receive").done();
    command(&url, "set server max_connections=50").done();
    let complaint = command(&url, "create queue orders").refused();
    assert!(complaint.contains("already"), "{complaint}");
    command(&url, "shutdown").done();
    assert_eq!(server.exit_code(), 0);
    let log = server.said();
    assert!(
        log.contains("administration") && !log.contains("sesame"),
        "{log}"
    );
    for part in [
        "password=***",
        "max_connections=50",
        "group=eng send receive",
        "already",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }

    let text = fs::read_to_string(&queues).expect("it is there");
    assert_eq!(
        text,
        "# the first\norders secure,maxmsgs=7 # comes from the shop\ninvoices exclusive\n"
    );
    let text = fs::read_to_string(&config).expect("it is there");
    assert_eq!(text, format!("{main}max_connections = 50\n"));
    let mut server = start(&store, &config);
    server.wait("active");
    let url = url_of(&server);
    let shown = admin(&url, &["--json", "show", "queue", "orders"]).json();
    assert_eq!(shown["properties"], json!(["secure", "maxmsgs=7"]));
    let shown = admin(&url, &["--json", "showacl"]).json();
    assert_eq!(
        shown,
        json!([{"destination": "queue:orders", "principal": "group:eng", "permissions": ["receive", "send"]}])
    );
}

#[test]
fn the_tool_runs_scripts_and_answers_programs() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = serve(directory.path(), &["--listen", "tcp://127.0.0.1:0"]);
    server.wait("active");
    let url = url_of(&server);
    let script = directory.path().join("script");
    let lines = "# makes queues\ncreate queue a\ndelete queue nowhere\ncreate queue b\nexit\ncreate queue c\n";
    fs::write(&script, lines).expect("it is ours");
    let script = script.display().to_string();
    let names = || -> BTreeSet<String> {
        let rows = admin(&url, &["--json", "show", "queues"]).json();
        let rows = rows.as_array().expect("a list").clone();
        rows.iter()
            .map(|row| row["name"].as_str().unwrap_or("").to_owned())
            .collect()
    };
    let stopped = admin(&url, &["--script", &script]);
    assert_eq!(stopped.code, 1);
    assert!(stopped.err.contains(":3: stopped here"), "{}", stopped.err);
    assert_eq!(names(), BTreeSet::from(["*a".to_owned()]));
    let ignored = admin(&url, &["--script", &script, "--ignore"]);
    assert_eq!(ignored.code, 1, "one command failed: {}", ignored.err);
    let line = format!("{script}:3: there is no queue `nowhere`");
    assert!(ignored.err.contains(&line), "{}", ignored.err);
    assert!(
        ignored.err.contains("1 command has failed"),
        "{}",
        ignored.err
    );
    assert_eq!(names(), BTreeSet::from(["*a".to_owned(), "*b".to_owned()]));

    let table = command(&url, "show queues").done();
    assert!(
        table.contains("Queue Name") && table.contains("SNFGXIBCT"),
        "{table}"
    );
    assert_eq!(
        admin(&url, &["--json", "show", "server"]).json()["state"],
        "active"
    );
    let failed = admin(&url, &["--json", "show", "queue", "nowhere"]);
    assert_eq!(failed.code, 1);
    assert_eq!(failed.json()["status"], 404);
    assert_eq!(command(&url, "make tea").code, 2);
    let mistyped = command(&url, "shwo queues");
    assert_eq!(mistyped.code, 2);
    assert!(
        mistyped.err.contains("did you mean `show queues`"),
        "{}",
        mistyped.err
    );
    assert_eq!(command("tcp://127.0.0.1:1", "show state").code, 1);
    assert_eq!(command("http://nowhere", "show state").code, 1);
    let complaint = command(&url, "create user ann password=x").refused();
    assert!(complaint.contains("--config"), "{complaint}");
    let complaint = command(&url, "switchover").refused();
    assert!(complaint.contains("no standby"), "{complaint}");
}

#[test]
fn the_log_is_rotated_when_an_administrator_wants_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let main = "listen = tcp://127.0.0.1:0\nlogfile = log\nmonitor_listen = http://127.0.0.1:0\n";
    let config = configured(directory.path(), "a", main);
    let log = config.with_file_name("log");
    let mut server = start(&directory.path().join("store"), &config);
    let events = |path: &Path| -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.collect()
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    let url = loop {
        let active = events(&log).into_iter().find(|it| it["event"] == "active");
        if let Some(active) = active {
            break active["listens"].as_str().expect("it listens").to_owned();
        }
        assert!(
            std::time::Instant::now() < deadline,
            "it does not become active"
        );
        thread::sleep(Duration::from_millis(10));
    };
    let told = command(&url, "rotatelog").done();
    assert!(told.contains("log.1"), "{told}");
    let kept = events(&config.with_file_name("log.1"));
    assert!(kept.iter().any(|it| it["event"] == "active"), "{kept:?}");
    command(&url, "shutdown").done();
    assert_eq!(server.exit_code(), 0);
    let fresh = events(&log);
    assert!(fresh.iter().any(|it| it["event"] == "stopped"), "{fresh:?}");
    assert!(fresh.iter().all(|it| it["event"] != "active"), "{fresh:?}");
}

#[test]
fn a_foreign_client_asks_for_the_same_over_amqp() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = configured(directory.path(), "a", "listen = tcp://127.0.0.1:0\n");
    let mut server = start(&directory.path().join("store"), &config);
    server.wait("active");
    let url = url_of(&server).replace("tcp://", "amqp://");
    let mut client = foreign::python("proton_manage.py")
        .arg(&url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut input = client.stdin.take().expect("it is a pipe");
    let asked = [
        json!({"properties": {"operation": "CREATE", "type": "queue", "name": "orders"}, "body": {"secure": true, "maxmsgs": 9}}),
        json!({"properties": {"operation": "READ", "type": "queue", "name": "orders"}}),
        json!({"properties": {"operation": "QUERY", "entityType": "queue"}}),
        json!({"properties": {"operation": "DELETE", "type": "queue", "name": "nowhere"}}),
        json!({"properties": {"operation": "COMMAND"}, "body": "show state"}),
        json!({"properties": {"operation": "GET-OPERATIONS", "type": "queue"}}),
    ];
    for request in &asked {
        writeln!(input, "{request}").expect("it listens");
    }
    drop(input);
    let told = Told::of(&client.wait_with_output().expect("it ends")).done();
    let replies: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let statuses: Vec<u64> = replies
        .iter()
        .filter_map(|it| it["status"].as_u64())
        .collect();
    assert_eq!(statuses, [200, 200, 200, 404, 200, 200], "{told}");
    assert_eq!(
        replies[1]["body"]["properties"],
        json!(["secure", "maxmsgs=9"])
    );
    let table = &replies[2]["body"];
    assert_eq!(table["attributeNames"][0], "name", "{table}");
    let rows = table["results"].as_array().expect("rows");
    assert!(rows.iter().any(|row| row[0] == "orders"), "{table}");
    assert_eq!(replies[4]["body"]["state"], "active");
    let queues = fs::read_to_string(config.with_file_name("queues.conf")).expect("it was made");
    assert_eq!(queues, "orders secure,maxmsgs=9\n");
}

pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// Waits for the outcome of the message that was just sent.
async fn outcome(client: &mut Client) -> Option<Outcome> {
    loop {
        if let Wake::Event(Event::Disposition { outcome, .. }) =
            client.next().await.expect("the connection holds")
        {
            return outcome;
        }
    }
}

/// Sends, once there is credit.
async fn send(client: &mut Client, link: proto::LinkId, bytes: &[u8]) {
    while !client.can_send(link) {
        client.next().await.expect("the connection holds");
    }
    client.send(link, 0, bytes).expect("there is credit");
}

#[test]
fn hostile_requests_are_refused_and_the_next_one_is_answered() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = serve(directory.path(), &["--listen", "tcp://127.0.0.1:0"]);
    server.wait("active");
    let url = ServerUrl::parse(&url_of(&server)).expect("a URL");
    let request = |reply_to: Option<&str>, operation: proto::Value, body: proto::Value| {
        let message = ValueMessage {
            reply_to: reply_to.map(str::to_owned),
            properties: vec![("operation".to_owned(), operation)],
            body,
            ..ValueMessage::default()
        };
        message.encode().expect("it can be written")
    };
    let text = |text: &str| proto::Value::String(text.to_owned());
    run(async {
        let options = ClientOptions::named("hostile");
        let mut client = Client::connect(&url, &options).await.expect("a connection");
        let link = client.attach_sender("$management").await.expect("a link");
        let mut nested = proto::Value::List(Vec::new());
        for _ in 0..100 {
            nested = proto::Value::List(vec![nested]);
        }
        let many = proto::Value::List(vec![proto::Value::Null; 100_000]);
        let huge = text(&"x".repeat(1 << 20));
        let mut malformed = request(None, text("COMMAND"), text("show state"));
        malformed.truncate(malformed.len() - 3);
        for bytes in [
            request(None, text("COMMAND"), nested),
            request(None, text("COMMAND"), many),
            request(None, text("COMMAND"), huge),
            malformed,
            b"no message at all".to_vec(),
        ] {
            send(&mut client, link, &bytes).await;
            let outcome = outcome(&mut client).await;
            assert!(
                matches!(outcome, Some(Outcome::Rejected(Some(_)))),
                "{outcome:?}"
            );
        }
        // Understood as messages, and answered to nobody: more than may wait at a time.
        for reply_to in [
            None,
            Some("nowhere"),
            Some("$TMP$.x.1.1"),
            Some("\u{0}"),
            Some("$management"),
        ] {
            for operation in [text("READ"), proto::Value::Int(7), text(&"x".repeat(1000))] {
                for body in [
                    proto::Value::Null,
                    proto::Value::Double(1.0.into()),
                    text("show state"),
                ] {
                    send(
                        &mut client,
                        link,
                        &request(reply_to, operation.clone(), body),
                    )
                    .await;
                    assert_eq!(outcome(&mut client).await, Some(Outcome::Accepted));
                }
            }
        }
        client.close().await;
    });
    let state = admin(&url_of(&server), &["--json", "show", "state"]).json();
    assert_eq!(state["state"], "active");
    let queues = admin(&url_of(&server), &["--json", "show", "queues"]).json();
    assert_eq!(queues, json!([]), "no reply has made a queue");
}

/// Sends numbered messages until told to stop; returns those that were confirmed.
async fn publish(servers: Vec<ServerUrl>, stop: &std::sync::atomic::AtomicBool) -> BTreeSet<u64> {
    use std::sync::atomic::Ordering::Relaxed;
    let mut failover = Failover::new(servers, PATIENCE);
    let (mut confirmed, mut number) = (BTreeSet::new(), 0);
    'connections: loop {
        let options = ClientOptions::named("publisher");
        let connected = failover
            .connect(&options, async |client| {
                client.attach_sender("orders").await
            })
            .await;
        let (mut client, link) = connected.expect("a server serves");
        let mut waiting = 0;
        loop {
            if stop.load(Relaxed) {
                return confirmed;
            }
            while client.can_send(link) && waiting < 64 {
                number += 1;
                waiting += 1;
                let message = SimpleMessage {
                    header: proto::message::Header {
                        durable: true,
                        priority: 4,
                        ttl_ms: None,
                        first_acquirer: false,
                        delivery_count: 0,
                    },
                    message_id: Some(number.to_string()),
                    body: vec![7; 200],
                    ..SimpleMessage::default()
                };
                if client.send(link, number, &message.encode()).is_err() {
                    break;
                }
            }
            match client.next().await {
                Ok(Wake::Event(Event::Disposition {
                    token,
                    outcome: Some(Outcome::Accepted),
                    ..
                })) => {
                    waiting -= 1;
                    confirmed.insert(token);
                }
                Ok(_) => {}
                Err(_) => continue 'connections,
            }
        }
    }
}

/// Publishes durable texts and waits until all are confirmed.
pub(crate) async fn fill(url: &str, queue: &str, count: u64) {
    let url = ServerUrl::parse(url).expect("a URL");
    let options = ClientOptions::named("publisher");
    let mut client = Client::connect(&url, &options).await.expect("a connection");
    let link = client.attach_sender(queue).await.expect("a link");
    for number in 0..count {
        let message = SimpleMessage {
            header: proto::message::Header {
                durable: true,
                priority: 7,
                ttl_ms: None,
                first_acquirer: false,
                delivery_count: 0,
            },
            message_id: Some(format!("m{number}")),
            properties: vec![(
                "colour".to_owned(),
                proto::message::PropertyValue::Text("red".to_owned()),
            )],
            body: format!("hello {number}").into_bytes(),
            ..SimpleMessage::default()
        };
        while !client.can_send(link) {
            client.next().await.expect("it goes on");
        }
        client
            .send(link, number, &message.encode())
            .expect("there is credit");
    }
    let mut confirmed = 0;
    while confirmed < count {
        let wake = client.next().await.expect("it goes on");
        if let Wake::Event(Event::Disposition {
            outcome: Some(Outcome::Accepted),
            ..
        }) = wake
        {
            confirmed += 1;
        }
    }
    client.close().await;
}

/// Takes messages from the queue until all of these have come.
async fn drain(url: &ServerUrl, mut missing: BTreeSet<u64>) {
    let options = ClientOptions::named("consumer");
    let mut client = Client::connect(url, &options).await.expect("a connection");
    let link = client.attach_receiver("orders", 500).await.expect("a link");
    while !missing.is_empty() {
        let next = tokio::time::timeout(PATIENCE, client.next()).await;
        let next = next.unwrap_or_else(|_| panic!("{} confirmed messages are lost", missing.len()));
        let Ok(Wake::Event(Event::Delivery {
            delivery_id,
            payload,
            ..
        })) = next
        else {
            continue;
        };
        let message = SimpleMessage::decode(&payload.to_bytes()).expect("it is ours");
        let id = message.message_id.and_then(|id| id.parse().ok());
        missing.remove(&id.expect("it has a number"));
        client.settle(link, delivery_id, Outcome::Accepted);
        client.set_credit(link, 500);
    }
    client.close().await;
}

#[test]
fn a_switchover_under_traffic_loses_nothing_and_both_servers_go_on() {
    let mut pair = settled();
    let urls: Vec<ServerUrl> = pair
        .urls
        .iter()
        .map(|url| ServerUrl::parse(url).expect("a URL"))
        .collect();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let publisher = {
        let (urls, stop) = (urls.clone(), stop.clone());
        thread::spawn(move || run(publish(urls, &stop)))
    };
    pair.servers[0].wait_state("under load", |state| {
        state["clients"]["messages_in"].as_u64() > Some(200)
    });
    let told = command(&pair.urls[0], "switchover").done();
    assert!(told.contains("standby"), "{told}");
    pair.servers[1].wait("active");
    pair.servers[0].wait("handed_over");
    // The same process begins again.
    pair.servers[0].wait("starting");
    pair.servers[0].wait("standby");
    pair.servers[1].wait_state("under load", |state| {
        state["clients"]["messages_in"].as_u64() > Some(200) && state["peer"]["role"] == "standby"
    });
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let confirmed = publisher.join().expect("it publishes");
    assert!(confirmed.len() > 200, "{}", confirmed.len());
    run(drain(&urls[1], confirmed));
    // And back.
    command(&pair.urls[1], "switchover").done();
    pair.servers[0].wait("active");
    pair.servers[1].wait("handed_over");
}

#[test]
fn all_of_a_kind_go_at_once_and_a_refusal_costs_no_message() {
    let directory = tempfile::tempdir().expect("a directory");
    let main = "server = A\nlisten = tcp://127.0.0.1:0\n";
    let config = configured(directory.path(), "a", main);
    let mut server = start(&directory.path().join("store"), &config);
    server.wait("active");
    let url = url_of(&server);
    for line in [
        "create queue a",
        "create queue b",
        "create topic t",
        "create bridge source=topic:t target=queue:a",
        "create user ann password=",
        "create durable t d clientid=c",
    ] {
        command(&url, line).done();
    }
    run(fill(&url, "a", 3));
    // The bridge needs its target: nothing goes, neither its line nor its messages.
    let complaint = command(&url, "delete queue a").refused();
    assert!(
        complaint.contains("delete bridge source=topic:t target=queue:a"),
        "{complaint}"
    );
    let queue = admin(&url, &["--json", "show", "queue", "a"]).json();
    assert_eq!(queue["pending_messages"], 3, "{queue}");

    command(&url, "delete bridge source=topic:t").done();
    for what in ["queues", "durables", "topics", "users", "groups"] {
        command(&url, &format!("delete all {what}")).done();
    }
    for what in ["queues", "durables", "topics", "users"] {
        let rows = admin(&url, &["--json", "show", what]).json();
        assert_eq!(rows, json!([]), "{what}");
    }
}

#[test]
fn a_server_that_hands_over_to_a_standby_that_hangs_can_be_stopped() {
    let mut pair = settled();
    pair.servers[1].signal(Signal::SIGSTOP);
    command(&pair.urls[0], "switchover").done();
    pair.servers[0].wait("stopping");
    pair.servers[0].signal(Signal::SIGTERM);
    assert_eq!(pair.servers[0].exit_code(), 0);
    assert_eq!(
        pair.servers[0].count("starting"),
        1,
        "it has not begun again"
    );
}

#[test]
fn a_server_whose_standby_dies_while_it_hands_over_serves_again() {
    let mut pair = settled();
    pair.servers[1].signal(Signal::SIGSTOP);
    command(&pair.urls[0], "switchover").done();
    pair.servers[0].wait("stopping");
    pair.servers[1].kill();
    let handed_over = pair.servers[0].wait("handed_over");
    assert_eq!(handed_over["is_late"], false, "{handed_over}");
    pair.servers[0].wait("active");
}

#[test]
fn the_page_of_commands_is_what_the_table_gives() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/ADMIN.md")).expect("it is there");
    let output = Command::new(PROGRAM)
        .args(["admin", "--reference"])
        .output();
    let told = Told::of(&output.expect("the program starts")).done();
    assert!(
        page == told,
        "run `steadfast admin --reference > docs/ADMIN.md`"
    );
}
