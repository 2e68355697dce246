//! Messages as an administrator sees them, and the deletion of one: real servers, the tool, real clients.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use steadfast::net::client::{Client, ClientOptions, ServerUrl, Wake};
use steadfast::proto::Event;

use super::chapter_admin::{admin, command, configured, fill, run, settled, start, url_of};
use super::support::Server;

/// Rows of a list of messages.
fn listed(url: &str, line: &str) -> Vec<Value> {
    let options: Vec<&str> = ["--json"].into_iter().chain(line.split(' ')).collect();
    let rows = admin(url, &options).json();
    rows.as_array().cloned().unwrap_or_else(|| panic!("{rows}"))
}

/// One attribute of all rows, in order.
fn column(rows: &[Value], name: &str) -> Vec<String> {
    let values = rows.iter().map(|row| match &row[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    values.collect()
}

/// A client with this name that has got so many messages of the queue and settled none.
async fn holder(url: &str, name: &str, count: u32) -> (Client, Vec<u32>) {
    holder_of(url, "orders", name, count).await
}

async fn holder_of(url: &str, queue: &str, name: &str, count: u32) -> (Client, Vec<u32>) {
    let mut client = waiting_for(url, queue, name, count).await;
    let mut got = Vec::new();
    while got.len() < count as usize {
        let wake = client.next().await.expect("it goes on");
        if let Wake::Event(Event::Delivery { delivery_id, .. }) = wake {
            got.push(delivery_id);
        }
    }
    (client, got)
}

/// A client with this name that may get so many messages of the queue.
async fn waiting(url: &str, name: &str, credit: u32) -> Client {
    waiting_for(url, "orders", name, credit).await
}

async fn waiting_for(url: &str, queue: &str, name: &str, credit: u32) -> Client {
    let url = ServerUrl::parse(url).expect("a URL");
    let options = ClientOptions::named(name);
    let mut client = Client::connect(&url, &options).await.expect("a connection");
    client.attach_receiver(queue, credit).await.expect("a link");
    client
}

/// An active server without a peer, and its address.
fn alone(directory: &Path) -> (Server, String) {
    let main = "server = A\nlisten = tcp://127.0.0.1:0\n";
    let config = configured(directory, "a", main);
    let mut server = start(&directory.join("store"), &config);
    server.wait("active");
    let url = url_of(&server);
    (server, url)
}

#[test]
fn waiting_delivered_and_kept_messages_are_told_apart_also_after_a_takeover() {
    let mut pair = settled();
    let [first, second] = pair.urls.clone();
    run(fill(&first, "orders", 5));
    let ids = run(async {
        let (client, _) = holder(&first, "worker", 2).await;
        let rows = listed(&first, "show messages orders");
        assert_eq!(column(&rows, "message_id"), ["m0", "m1", "m2", "m3", "m4"]);
        let states = column(&rows, "state");
        assert_eq!(
            states,
            ["delivered", "delivered", "waiting", "waiting", "waiting"]
        );
        assert_eq!(column(&rows, "client_id")[..2], ["worker", "worker"]);
        let ids = column(&rows, "id");

        let shown = admin(&first, &["--json", "show", "message", &ids[0]]).json();
        for (name, value) in [
            ("destination", json!("queue orders")),
            ("state", json!("delivered")),
            ("client_id", json!("worker")),
            ("priority", json!(7)),
            ("is_durable", json!(true)),
            ("is_redelivered", json!(false)),
            ("body", json!("data")),
            ("body_bytes", json!(7)),
            ("properties", json!(["message-id=m0"])),
            ("application_properties", json!(["colour=red"])),
        ] {
            assert_eq!(shown[name], value, "{name}: {shown}");
        }
        let complaint = command(&first, &format!("delete message {}", ids[0])).refused();
        assert!(
            complaint.contains("`worker`") && complaint.contains("not settled"),
            "{complaint}"
        );

        // What it has is written down behind a moment; what is confirmed later is durable later.
        pair.servers[0].wait_state("a client is kept", |state| state["reconnect"]["kept"] == 1);
        fill(&first, "orders", 1).await;
        pair.servers[0].kill();
        drop(client);
        ids
    });
    pair.servers[1].wait("active");
    let rows = listed(&second, "show messages orders");
    assert_eq!(column(&rows, "id")[..5], ids, "a takeover changes no id");
    let states = column(&rows, "state");
    assert_eq!(
        states,
        ["kept", "kept", "waiting", "waiting", "waiting", "waiting"]
    );
    assert_eq!(column(&rows, "client_id")[..2], ["worker", "worker"]);
    let queue = admin(&second, &["--json", "show", "queue", "orders"]).json();
    assert_eq!(queue["pending_messages"], 6, "{queue}");
    assert_eq!(queue["held_messages"], 2, "{queue}");
    let state = admin(&second, &["--json", "show", "state"]).json();
    assert_eq!(state["held_messages"], 2, "{state}");
    assert_eq!(state["awaited_clients"], 1, "{state}");
    let complaint = command(&second, &format!("delete message {}", ids[1])).refused();
    assert!(complaint.contains("kept for that client"), "{complaint}");
    assert!(
        complaint.contains(" s when it does not return"),
        "{complaint}"
    );

    // It returns and takes one; the other one is still kept for it.
    run(async {
        let (_client, _) = holder(&second, "worker", 1).await;
        let rows = listed(&second, "show messages orders");
        assert_eq!(
            column(&rows, "state")[..3],
            ["delivered", "kept", "waiting"]
        );
        assert_eq!(rows[0]["delivery_count"], 1, "{rows:?}");
        command(&second, &format!("delete message {}", ids[1])).refused();
        let told = command(&second, "purge queue orders").done();
        assert!(
            told.contains("4 messages dropped") && told.contains("before a takeover: 1 message"),
            "{told}"
        );
    });
}

#[test]
fn a_deleted_message_stays_deleted_whatever_happens_then() {
    let mut pair = settled();
    let [first, second] = pair.urls.clone();
    run(fill(&first, "orders", 5));
    let ids = column(&listed(&first, "show messages orders"), "id");
    let told = command(&first, &format!("delete message {}", ids[2])).done();
    assert!(told.contains("from queue orders"), "{told}");
    pair.servers[0].kill();
    pair.servers[1].wait("active");
    let left = column(&listed(&second, "show messages orders"), "message_id");
    assert_eq!(left, ["m0", "m1", "m3", "m4"]);
    for line in ["show message", "delete message"] {
        let complaint = command(&second, &format!("{line} {}", ids[2])).refused();
        assert!(complaint.contains("no message"), "{complaint}");
        let complaint = command(&second, &format!("{line} ID:m1")).refused();
        assert!(complaint.contains("show messages QUEUE"), "{complaint}");
    }
    // Its consumer gets all others.
    run(async {
        let (client, got) = holder(&second, "worker", 4).await;
        assert_eq!(got.len(), 4);
        client.close().await;
    });
}

/// Queues of the store with the numbers of their messages.
fn queues(url: &str) -> Vec<(String, u64)> {
    let rows = listed(url, "show queues");
    let names = column(&rows, "name");
    let counts = rows.iter().map(|row| row["messages"].as_u64());
    let rows = names.into_iter().zip(counts.map(Option::unwrap_or_default));
    rows.filter(|(name, _)| !name.contains('>')).collect()
}

#[test]
fn what_an_administrator_was_told_to_be_gone_is_gone_when_the_server_dies_behind_the_answer() {
    const COUNT: u64 = 400;
    let mut pair = settled();
    let [first, second] = pair.urls.clone();
    run(async {
        for queue in ["orders", "invoices", "letters"] {
            fill(&first, queue, COUNT).await;
        }
    });
    for line in [
        "create topic news",
        "create durable news d",
        "create queue made",
    ] {
        command(&first, line).done();
    }
    run(fill(&first, "topic://news", 100));
    command(&first, "delete queue letters").done();
    let told = command(&first, "purge durable d").done();
    assert!(told.contains("100 messages dropped"), "{told}");
    let told = command(&first, "purge queue orders").done();
    assert!(told.contains("400 messages dropped"), "{told}");
    pair.servers[0].kill();
    pair.servers[1].wait("active");
    let left = queues(&second);
    let count_of = |wanted: &str| {
        let mut all = left.iter();
        let found = all.find(|(name, _)| name.trim_start_matches('*') == wanted);
        found.map(|(_, count)| *count)
    };
    assert_eq!(count_of("orders"), Some(0), "{left:?}");
    assert_eq!(count_of("invoices"), Some(COUNT), "{left:?}");
    assert_eq!(count_of("letters"), None, "{left:?}");
    assert_eq!(count_of("made"), Some(0), "{left:?}");
    let durable = admin(&second, &["--json", "show", "durable", "d"]).json();
    assert_eq!(durable["pending_messages"], 0, "{durable}");

    // The same in the other direction, with all at once and somebody who reads.
    let store = pair.directory.path().join("store");
    pair.servers[0] = start(&store, &pair.files[0]);
    pair.servers[0].wait("standby");
    run(async {
        let (reader, _) = holder_of(&second, "invoices", "worker", 10).await;
        let told = command(&second, "delete all queues").done();
        assert!(told.contains("400 messages"), "{told}");
        pair.servers[1].kill();
        drop(reader);
    });
    pair.servers[0].wait("active");
    let left = queues(&first);
    assert!(left.iter().all(|(_, count)| *count == 0), "{left:?}");
    assert!(
        !left.iter().any(|(name, _)| name.contains("invoices")),
        "{left:?}"
    );
    run(async {
        // Its client returns to a queue of that name that is new.
        command(&first, "create queue invoices").done();
        let mut worker = waiting_for(&first, "invoices", "worker", 10).await;
        fill(&first, "invoices", 1).await;
        loop {
            let wake = worker.next().await.expect("it goes on");
            if let Wake::Event(Event::Delivery { payload, .. }) = wake {
                let text = String::from_utf8_lossy(&payload.to_bytes()).into_owned();
                assert!(text.contains("m0"), "{text:?}");
                break;
            }
        }
    });
    assert_eq!(count_in(&first, "invoices"), 1);
}

fn count_in(url: &str, queue: &str) -> u64 {
    let queue = admin(url, &["--json", "show", "queue", queue]).json();
    queue["pending_messages"].as_u64().expect("a number")
}

#[test]
fn a_long_list_is_told_in_pieces_and_a_wrong_one_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_server, url) = alone(directory.path());
    run(fill(&url, "orders", 250));
    run(fill(&url, "other", 1));
    assert_eq!(listed(&url, "show messages orders").len(), 100);
    let mut seen = listed(&url, "show messages orders limit=120");
    let last = seen[119]["id"].as_str().expect("an id").to_owned();
    seen.extend(listed(
        &url,
        &format!("show messages orders limit=1000 after={last}"),
    ));
    let expected: Vec<String> = (0..250).map(|number| format!("m{number}")).collect();
    assert_eq!(column(&seen, "message_id"), expected);
    let found = listed(&url, "show messages orders message_id=m230");
    assert_eq!(
        column(&found, "id"),
        [seen[230]["id"].as_str().unwrap_or("")]
    );
    let none = listed(&url, "show messages orders message_id=m999");
    assert_eq!(none, Vec::<Value>::new());
    let behind = format!("show messages orders message_id=m1 after={last}");
    assert_eq!(listed(&url, &behind).len(), 0);
    let table = command(&url, "show messages orders limit=2").done();
    let more = format!(
        "2 shown; there are more: add after={}",
        seen[1]["id"].as_str().unwrap_or("")
    );
    assert!(
        table.contains("Message-ID") && table.contains(&more),
        "{table}"
    );
    let table = command(&url, "show messages other").done();
    assert!(table.contains("1 in all"), "{table}");
    let other = listed(&url, "show messages other")[0]["id"].clone();
    let other = other.as_str().expect("an id");
    for (line, part) in [
        ("show messages nowhere", "no queue `nowhere`"),
        ("show messages orders limit=0", "from 1 to 1000"),
        ("show messages orders limit=1001", "from 1 to 1000"),
        ("show messages orders after=x", "show messages QUEUE"),
        (
            &*format!("show messages orders after={other}"),
            "another queue",
        ),
        ("show messages orders colour=red", "[limit=N]"),
        ("show messages durable nowhere", "no durable `nowhere`"),
    ] {
        let complaint = command(&url, line).refused();
        assert!(complaint.contains(part), "{line}: {complaint}");
    }
}

#[test]
fn the_messages_of_a_durable_subscription_are_listed_and_deleted_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_server, url) = alone(directory.path());
    for line in [
        "create topic news",
        "create durable news d clientid=c1",
        "create durable news d clientid=c2",
    ] {
        command(&url, line).done();
    }
    run(fill(&url, "topic://news", 2));
    let complaint = command(&url, "show messages durable d").refused();
    assert!(complaint.contains("several"), "{complaint}");
    for verb in ["show", "purge"] {
        let complaint = command(&url, &format!("{verb} durable d")).refused();
        assert!(complaint.contains("several"), "{complaint}");
    }
    let shown = admin(&url, &["--json", "show", "durable", "d", "c2"]).json();
    assert_eq!(shown["client_id"], "c2", "{shown}");
    let rows = listed(&url, "show messages durable d c1");
    assert_eq!(column(&rows, "message_id"), ["m0", "m1"]);
    let id = rows[0]["id"].as_str().expect("an id");
    let told = command(&url, &format!("delete message {id}")).done();
    assert!(
        told.contains("durable subscription") && told.contains("c1"),
        "{told}"
    );
    assert_eq!(listed(&url, "show messages durable d c1").len(), 1);
    assert_eq!(listed(&url, "show messages durable d c2").len(), 2);
}

#[test]
fn who_has_not_the_right_sees_no_message_no_count_and_no_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let main = "server = A\nlisten = tcp://127.0.0.1:0\nauthorization = enabled\n";
    let config = configured(directory.path(), "a", main);
    let write = |name: &str, text: &str| {
        fs::write(config.with_file_name(name), text).expect("the directory is ours");
    };
    write(
        "users.conf",
        "admin:sesame:\nann:sesame:\nbob:sesame:\ncat:sesame:\n",
    );
    // Ann may do with the queue what a client can; bob sees messages and changes none.
    write(
        "acl.conf",
        "QUEUE=orders USER=ann PERM=send,receive,browse,view\nADMIN USER=ann PERM=view-server\n\
         ADMIN USER=bob PERM=view-message\nADMIN USER=cat PERM=change-message\n",
    );
    write("queues.conf", "orders secure\n");
    let mut server = start(&directory.path().join("store"), &config);
    server.wait("active");
    let url = url_of(&server);
    let password = directory.path().join("password");
    fs::write(&password, "sesame\n").expect("it is ours");
    let password = password.display().to_string();
    let by = |user: &str, line: &str| {
        let mut options = vec!["--json", "--user", user, "--password-file", &password];
        options.extend(line.split(' '));
        admin(&url, &options)
    };
    run(fill(&url.replace("//", "//ann:sesame@"), "orders", 3));
    let rows = by("bob", "show messages orders").json();
    let id = rows[1]["id"].as_str().expect("bob sees them").to_owned();
    for line in [
        "show messages orders",
        "show messages nowhere",
        "show messages durable d",
        &format!("show message {id}"),
        &format!("delete message {id}"),
        "show message 999.1.1",
    ] {
        let refused = by("ann", line).json();
        assert_eq!(refused["status"], 403, "{line}: {refused}");
        let text = refused.to_string();
        assert!(text.contains("-message"), "{line}: {text}");
        let tells = ["m1", "orders", "3", "hello", "no queue"];
        let told = tells
            .iter()
            .find(|word| text.replace("403", "").contains(**word));
        assert_eq!(told, None, "{line}: {text}");
    }
    assert_eq!(
        by("bob", &format!("show message {id}")).json()["body_bytes"],
        7
    );
    let refused = by("bob", &format!("delete message {id}")).json();
    assert_eq!(refused["status"], 403, "{refused}");
    // Who may change them may see them.
    assert_eq!(
        by("cat", "show messages orders").json()[0]["message_id"],
        "m0"
    );
    assert_eq!(
        by("cat", &format!("delete message {id}")).json()["status"],
        200
    );
    assert_eq!(
        by("admin", &format!("show message {id}")).json()["status"],
        404
    );
}

#[test]
fn a_message_that_its_consumer_gives_back_can_be_deleted() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_server, url) = alone(directory.path());
    run(fill(&url, "orders", 1));
    let id = run(async {
        let (mut client, got) = holder(&url, "worker", 1).await;
        let rows = listed(&url, "show messages orders");
        assert_eq!(rows[0]["state"], "delivered", "{rows:?}");
        let id = rows[0]["id"].as_str().expect("an id").to_owned();
        let complaint = command(&url, &format!("delete message {id}")).refused();
        let connection = complaint
            .rsplit("delete connection ")
            .next()
            .expect("a number");
        command(&url, &format!("delete connection {}", connection.trim())).done();
        assert_eq!(got.len(), 1);
        // Up to the end of its connection.
        while client.next().await.is_ok() {}
        id
    });
    let shown = admin(&url, &["--json", "show", "message", &id]).json();
    assert_eq!(shown["state"], "waiting", "{shown}");
    command(&url, &format!("delete message {id}")).done();
    assert_eq!(listed(&url, "show messages orders").len(), 0);
}

#[test]
fn what_a_client_calls_itself_changes_no_terminal() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = configured(directory.path(), "a", "listen = tcp://127.0.0.1:0\n");
    let mut server = start(&directory.path().join("store"), &config);
    server.wait("active");
    let url = url_of(&server);
    run(fill(&url, "orders", 1));
    let is_shown_as = |text: &str, wanted: &str| {
        assert!(text.contains(wanted), "{text:?}");
        assert!(!text.contains(['\u{1b}', '\u{9b}']), "{text:?}");
    };
    run(async {
        let name = "cleaner\u{1b}[2J\u{9b}2J";
        let wanted = "cleaner\\u{1b}[2J\\u{9b}2J";
        let (_client, _got) = holder(&url, name, 1).await;
        let rows = listed(&url, "show messages orders");
        let id = rows[0]["id"].as_str().expect("an id");
        let complaint = command(&url, &format!("delete message {id}")).refused();
        is_shown_as(&complaint, &format!("client `{wanted}`"));
        let end = complaint.rsplit(' ').next().expect("a number");
        let told = command(&url, &format!("delete connection {}", end.trim())).done();
        is_shown_as(&told, &format!("({wanted}) closed"));
    });
}

#[test]
fn a_peer_that_is_lost_or_refused_is_shown_as_such_with_the_reason() {
    let mut pair = settled();
    let first = pair.urls[0].clone();
    let state = || admin(&first, &["--json", "show", "state"]).json();
    assert_eq!(state()["peer_state"], "standby");
    pair.servers[1].kill();
    pair.servers[0].wait("peer_lost");
    let lost = state();
    assert_eq!(lost["peer_state"], "lost", "{lost}");
    assert!(
        lost["peer"].is_string() && lost["peer_reason"].is_string(),
        "{lost}"
    );
    let text = command(&first, "show state").done();
    assert!(
        text.contains("lost") && text.contains("Peer Reason:"),
        "{text}"
    );

    // It comes back under another name, so both refuse.
    let file = fs::read_to_string(&pair.files[1]).expect("it is there");
    let file = file.replace("server = EMS-SERVER", "server = OTHER");
    fs::write(&pair.files[1], file).expect("it is ours");
    let store = pair.directory.path().join("store");
    pair.servers[1] = start(&store, &pair.files[1]);
    pair.servers[0].wait("peer_refused");
    pair.servers[0].wait_state("refused", |state| {
        state["peer_trouble"]["what"] == "refused"
    });
    let refused = state();
    assert_eq!(refused["peer_state"], "refused", "{refused}");
    let reason = refused["peer_reason"].as_str().unwrap_or_default();
    assert!(reason.contains("OTHER"), "{refused}");
}

#[test]
fn stores_show_what_belongs_to_them_and_parameters_what_counts() {
    let directory = tempfile::tempdir().expect("a directory");
    let main = "server = A\nlisten = tcp://127.0.0.1:0\nmax_connections = 40\n";
    let config = configured(directory.path(), "a", main);
    let mut server = start(&directory.path().join("store"), &config);
    server.wait("active");
    let url = url_of(&server);
    command(&url, "create queue safe store=$sys.failsafe").done();
    command(&url, "create queue orders").done();
    run(fill(&url, "safe", 3));
    run(fill(&url, "orders", 2));
    let rows = listed(&url, "show stores");
    let names = ["$sys.failsafe", "$sys.meta", "$sys.nonfailsafe"];
    assert_eq!(column(&rows, "name"), names);
    assert_eq!(column(&rows, "messages"), ["3", "0", "2"]);
    let shown = admin(&url, &["--json", "show", "store", "$sys.failsafe"]).json();
    assert_eq!(shown["messages"], 3, "{shown}");

    let rows = listed(&url, "show config");
    let row = |rows: &[Value]| {
        let mut rows = rows.iter();
        rows.find(|row| row["parameter"] == "max_connections")
            .cloned()
    };
    assert_eq!(row(&rows).expect("it was given")["in_effect"], Value::Null);
    command(&url, "set server max_connections=50").done();
    let rows = listed(&url, "show config");
    let row = row(&rows).expect("it was given");
    assert_eq!(
        (&row["value"], &row["in_effect"]),
        (&json!("50"), &json!("40")),
        "{row}"
    );
}

#[test]
fn an_exclusive_queue_serves_one_client_and_after_a_takeover_the_same() {
    let mut pair = settled();
    let [first, second] = pair.urls.clone();
    for url in &pair.urls {
        command(url, "create queue orders").done();
    }
    let consumers = |url: &str| {
        let rows = listed(url, "show consumers queue=orders");
        column(&rows, "is_active")
    };
    let owners = |url: &str| column(&listed(url, "show messages orders"), "client_id");
    run(async {
        // It becomes exclusive while both are there.
        let one = waiting(&first, "one", 0).await;
        let other = waiting(&first, "other", 0).await;
        assert_eq!(consumers(&first), ["true", "true"]);
        for url in &pair.urls {
            command(url, "addprop queue orders exclusive").done();
        }
        assert_eq!(consumers(&first), ["true", "false"]);
        let shown = admin(&first, &["--json", "show", "queue", "orders"]).json();
        assert_eq!(shown["flags"], "----X----", "{shown}");
        drop((one, other));
    });
    run(async {
        fill(&first, "orders", 4).await;
        let (one, _) = holder(&first, "one", 2).await;
        let other = waiting(&first, "other", 10).await;
        assert_eq!(owners(&first), ["one", "one", "null", "null"]);
        pair.servers[0].wait_state("a client is kept", |state| state["reconnect"]["kept"] == 1);
        fill(&first, "orders", 1).await;
        pair.servers[0].kill();
        drop((one, other));
    });
    pair.servers[1].wait("active");
    run(async {
        let mut other = waiting(&second, "other", 10).await;
        assert_eq!(consumers(&second), ["false"]);
        let (one, _) = holder(&second, "one", 5).await;
        assert_eq!(owners(&second), ["one"; 5]);
        assert_eq!(consumers(&second), ["false", "true"]);
        one.close().await;
        // The next one gets all that was not settled.
        let mut count = 0;
        while count < 5 {
            let wake = other.next().await.expect("it goes on");
            count += usize::from(matches!(wake, Wake::Event(Event::Delivery { .. })));
        }
        assert_eq!(owners(&second), ["other"; 5]);
    });
}
