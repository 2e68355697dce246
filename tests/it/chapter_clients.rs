//! What the chapter promises of clients that reconnect, with its numbers.

use std::collections::BTreeSet;
use std::future::Future;

use serde_json::{Value, json};
use steadfast::net::client::{Client, ClientOptions, ServerUrl, Wake};
use steadfast::proto::message::{Header, SimpleMessage};
use steadfast::proto::{Event, LinkId, Outcome};

use super::chapter_pair::Place;
use super::support::{PATIENCE, Server};

/// A message as a client got it.
struct Got {
    text: String,
    count: u32,
    link: LinkId,
    delivery_id: u32,
}

fn run<T>(scene: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().expect("a runtime");
    runtime.block_on(scene)
}

async fn client(port: u16, container: &str) -> Client {
    let options = ClientOptions::named(container);
    let client = Client::connect(&ServerUrl::local(port), &options).await;
    client.expect("the active server takes clients")
}

async fn next(client: &mut Client) -> Event {
    loop {
        let wake = tokio::time::timeout(PATIENCE, client.next()).await;
        if let Wake::Event(event) = wake.expect("in time").expect("the connection lives") {
            return event;
        }
    }
}

/// Publishes durable messages and waits for all confirms.
async fn publish(port: u16, queue: &str, texts: &[&str]) {
    let mut client = client(port, "publisher").await;
    let link = client.attach_sender(queue).await.expect("a link");
    while !client.can_send(link) {
        next(&mut client).await;
    }
    for text in texts {
        let message = SimpleMessage {
            header: Header {
                durable: true,
                ..Header::default()
            },
            body: text.as_bytes().to_vec(),
            ..SimpleMessage::default()
        };
        client
            .send(link, 1, &message.encode())
            .expect("it has credit");
    }
    let mut confirmed = 0;
    while confirmed < texts.len() {
        if let Event::Disposition { outcome, .. } = next(&mut client).await {
            assert_eq!(outcome, Some(Outcome::Accepted));
            confirmed += 1;
        }
    }
    client.close().await;
}

/// The next so many messages of a client.
async fn take(client: &mut Client, messages: usize) -> Vec<Got> {
    let mut got = Vec::new();
    while got.len() < messages {
        if let Event::Delivery {
            link,
            delivery_id,
            payload,
            ..
        } = next(client).await
        {
            let message = SimpleMessage::decode(&payload.to_bytes()).expect("a message of ours");
            got.push(Got {
                text: String::from_utf8(message.body).expect("text"),
                count: message.header.delivery_count,
                link,
                delivery_id,
            });
        }
    }
    got
}

/// As `text*count`.
fn show(got: &[Got]) -> Vec<String> {
    let show = |it: &Got| format!("{}*{}", it.text, it.count);
    got.iter().map(show).collect()
}

/// Waits until a takeover would find the state of so many clients, and of so many messages.
fn wait_kept(server: &Server, clients: u64, messages: u64) {
    server.wait_state("written down", |state| {
        let store = &state["store"];
        state["reconnect"]["kept"] == clients
            && store["messages"] == messages
            && store["last_lsn"] == store["durable_lsn"]
    });
}

/// Server 0 active, server 1 standing by.
fn pair(more: &str) -> (Place, Server, Server) {
    let place = Place::new(more);
    let mut first = place.start(0);
    first.wait("active");
    let mut second = place.start(1);
    second.wait("standby");
    (place, first, second)
}

/// When an event was logged, milliseconds of its day.
fn logged_at_ms(event: &Value) -> u64 {
    let text = event["timestamp"].as_str().expect("a timestamp");
    let (_, time) = text.split_once('T').expect("a day and a time");
    let mut parts = time.trim_end_matches('Z').split([':', '.']);
    let mut number = || {
        parts
            .next()
            .expect("a part")
            .get(..2)
            .and_then(|it| it.parse().ok())
    };
    let (hours, minutes, seconds) = (number(), number(), number());
    let part = |it: Option<u64>| it.expect("a number");
    let millis = time
        .split_once('.')
        .and_then(|(_, rest)| rest.get(..3)?.parse().ok());
    let seconds = part(hours) * 3600 + part(minutes) * 60 + part(seconds);
    seconds * 1000 + part(millis)
}

#[test]
fn c17_clients_go_on_with_the_messages_that_they_had() {
    let (place, mut first, mut second) = pair("ft_reconnect_timeout = 600");
    let [a, b] = place.ports;
    run(async {
        publish(a, "orders", &["1", "2", "3", "4", "5"]).await;
        let mut worker = client(a, "worker").await;
        worker.attach_receiver("orders", 3).await.expect("a link");
        let got = take(&mut worker, 3).await;
        assert_eq!(show(&got), ["1*0", "2*0", "3*0"]);
        worker.settle(got[0].link, got[0].delivery_id, Outcome::Accepted);
        worker.flush().expect("the connection lives");
        wait_kept(&first, 1, 4);
        first.kill();
        second.wait("active");

        let mut other = client(b, "other").await;
        other.attach_receiver("orders", 10).await.expect("a link");
        let got = take(&mut other, 2).await;
        let texts: Vec<&str> = got.iter().map(|it| it.text.as_str()).collect();
        assert_eq!(texts, ["4", "5"], "what the worker has stays its own");
        let mut worker = client(b, "worker").await;
        worker.attach_receiver("orders", 10).await.expect("a link");
        assert_eq!(show(&take(&mut worker, 2).await), ["2*1", "3*1"]);
        let back = second.wait("client_returned");
        assert_eq!(back["container"], "worker");
    });
}

#[test]
fn c18_clients_are_accepted_when_the_state_is_read_and_not_before() {
    let (place, mut first, mut second) = pair("ft_reconnect_timeout = 600");
    let [a, b] = place.ports;
    run(async {
        publish(a, "orders", &["1", "2"]).await;
        let mut worker = client(a, "worker").await;
        worker.attach_receiver("orders", 1).await.expect("a link");
        take(&mut worker, 1).await;
        wait_kept(&first, 1, 2);
        first.kill();
        // It tries from the first moment on.
        let options = ClientOptions::named("worker");
        let mut worker = loop {
            match Client::connect(&ServerUrl::local(b), &options).await {
                Ok(client) => break client,
                Err(error) => assert!(error.is_passing(), "{error}"),
            }
        };
        worker.attach_receiver("orders", 10).await.expect("a link");
        assert_eq!(take(&mut worker, 2).await[0].text, "1");
        let back = second.wait("client_returned");
        let active = second.log.iter().find(|it| it["event"] == "active");
        let state = second.state();
        assert_eq!(state["recovery"]["messages"], 2);
        assert_eq!(state["reconnect"]["expected"], 1);
        let recovering = second.log.iter().find(|it| it["event"] == "recovering");
        let recovering = recovering.expect("it recovered before the client was back");
        assert!(
            logged_at_ms(recovering) <= logged_at_ms(&back),
            "{active:?}"
        );
    });
}

#[test]
fn c19_check07_the_state_of_clients_that_do_not_return_is_removed_for_good() {
    let (place, mut first, mut second) = pair("ft_reconnect_timeout = 5");
    let [a, b] = place.ports;
    run(async {
        publish(a, "orders", &["1", "2"]).await;
        let mut gone = client(a, "gone").await;
        gone.attach_receiver("orders", 2).await.expect("a link");
        assert_eq!(show(&take(&mut gone, 2).await), ["1*0", "2*0"]);
        wait_kept(&first, 1, 2);
        first.kill();
        second.wait("active");
        let mut other = client(b, "other").await;
        other.attach_receiver("orders", 10).await.expect("a link");
        publish(b, "orders", &["3"]).await;
        let got = take(&mut other, 3).await;
        assert_eq!(show(&got), ["3*0", "1*1", "2*1"]);
        let expired = second.wait("client_state_expired");
        assert_eq!(expired["container"], "gone");
        assert_eq!(expired["messages"], 2);
        let told = json!({"expected": 1, "returned": 0, "expired": 1});
        second.wait_state("told", |state| {
            let it = &state["reconnect"];
            json!({"expected": it["expected"], "returned": it["returned"], "expired": it["expired"]})
                == told
        });
        wait_kept(&second, 1, 3);

        // Another failover does not bring it back.
        let mut first = place.start(0);
        first.wait("standby");
        second.kill();
        first.wait("active");
        let state = first.wait_state("active", |state| state["role"] == "active");
        assert_eq!(state["reconnect"]["expected"], 1, "the other one alone");
        client(a, "gone").await.close().await;
        let expired = first.wait("client_state_expired");
        assert_eq!(expired["container"], "other");
        assert_eq!(expired["messages"], 3);
        assert_eq!(first.count("client_returned"), 0);
    });
}

#[test]
fn c20_the_time_starts_when_the_state_is_recovered() {
    let (place, mut first, mut second) = pair("ft_reconnect_timeout = 1");
    let [a, _] = place.ports;
    run(async {
        publish(a, "orders", &["1"]).await;
        let mut gone = client(a, "gone").await;
        gone.attach_receiver("orders", 1).await.expect("a link");
        take(&mut gone, 1).await;
        wait_kept(&first, 1, 1);
        first.kill();
        let recovering = second.wait("recovering");
        let active = second.wait("active");
        let expired = second.wait("client_state_expired");
        let day_ms = 24 * 3600 * 1000;
        let recovering_ms = logged_at_ms(&recovering);
        let since = |event: &Value| (logged_at_ms(event) + day_ms - recovering_ms) % day_ms;
        let recovered_ms = active["lock_to_ready_ms"].as_f64().expect("a figure");
        // The clock of the log is not that of the time-out.
        let passed_ms = since(&expired) as f64 + 20.0;
        assert!(passed_ms >= 1000.0 + recovered_ms, "{expired} {active}");
    });
}

#[test]
fn check08_unsettled_messages_of_a_queue_that_releases_go_to_others_at_once() {
    let place = Place::new("ft_reconnect_timeout = 600\nqueues = queues.conf");
    place.write("queues.conf", "orders release_unsettled\n");
    let [a, b] = place.ports;
    let mut first = place.start(0);
    first.wait("active");
    let mut second = place.start(1);
    second.wait("standby");
    run(async {
        publish(a, "orders", &["1"]).await;
        let mut worker = client(a, "worker").await;
        worker.attach_receiver("orders", 1).await.expect("a link");
        assert_eq!(show(&take(&mut worker, 1).await), ["1*0"]);
        first.kill();
        second.wait("active");
        let mut other = client(b, "other").await;
        other.attach_receiver("orders", 10).await.expect("a link");
        assert_eq!(show(&take(&mut other, 1).await), ["1*1"]);
        assert_eq!(second.state()["reconnect"]["expected"], 0);
    });
}

#[test]
fn of_100_clients_63_find_their_state_and_37_are_removed_once() {
    const CLIENTS: usize = 100;
    const RETURN: usize = 63;
    const EACH: usize = 5;
    let (place, mut first, mut second) = pair("ft_reconnect_timeout = 8");
    let [a, b] = place.ports;
    let name = |number: usize| format!("client-{number}");
    let queue = |number: usize| format!("queue-{number}");
    let texts = ["1", "2", "3", "4", "5"];
    let again = ["1*1", "2*1", "3*1", "4*1", "5*1"];
    run(async {
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            publish(a, &queue(number), &texts).await;
            let mut client = client(a, &name(number)).await;
            let link = client.attach_receiver(&queue(number), 10).await;
            link.expect("a link");
            take(&mut client, EACH).await;
            clients.push(client);
        }
        wait_kept(&first, CLIENTS as u64, (CLIENTS * EACH) as u64);
        first.kill();
        drop(clients);
        second.wait("active");
        let mut back = Vec::new();
        for number in 0..RETURN {
            let mut client = client(b, &name(number)).await;
            let link = client.attach_receiver(&queue(number), 10).await;
            link.expect("a link");
            back.push(client);
        }
        for client in &mut back {
            assert_eq!(show(&take(client, EACH).await), again);
        }
        let mut expired = BTreeSet::new();
        for _ in RETURN..CLIENTS {
            let event = second.wait("client_state_expired");
            assert_eq!(event["messages"], EACH, "{event}");
            let container = event["container"].as_str().expect("a name").to_owned();
            assert!(expired.insert(container), "{event} twice");
        }
        assert_eq!(expired, (RETURN..CLIENTS).map(name).collect());
        wait_kept(&second, RETURN as u64, (CLIENTS * EACH) as u64);
        let reconnect = second.state()["reconnect"].clone();
        assert_eq!(reconnect["expected"], CLIENTS);
        assert_eq!(reconnect["returned"], RETURN);
        assert_eq!(reconnect["expired"], CLIENTS - RETURN);
        assert_eq!(reconnect["deadline_ms"], Value::Null);

        let mut first = place.start(0);
        first.wait("standby");
        second.kill();
        first.wait("active");
        let state = first.wait_state("active", |state| state["role"] == "active");
        assert_eq!(state["reconnect"]["expected"], RETURN);
        // What the removed ones had is anybody's, and nobody hears of them again.
        let mut other = client(a, "other").await;
        let link = other.attach_receiver(&queue(RETURN), 10).await;
        link.expect("a link");
        assert_eq!(show(&take(&mut other, EACH).await), again);
        assert_eq!(second.count("client_state_expired"), CLIENTS - RETURN);
        first.count("client_state_expired");
        let is_of_them = |event: &&Value| {
            let container = event["container"].as_str();
            container.is_some_and(|container| expired.contains(container))
        };
        let told = first.log.iter().find(is_of_them);
        assert!(told.is_none(), "{told:?}");
    });
}
