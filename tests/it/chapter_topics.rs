//! Topics, durable subscriptions and bridges of foreign clients while the active server is killed.

use std::fs;
use std::path::{Path, PathBuf};

use nix::time::{ClockId, clock_gettime};

use super::chapter_pair::Place;
use super::foreign::{Clients, Library, start};
use super::history::{Event, Kind, Report, check};
use super::support::{PATIENCE, Server};

/// A pair under the load of foreign clients.
struct Scene {
    name: &'static str,
    place: Place,
    servers: [Server; 2],
    active: usize,
    /// When the active was killed.
    outages_ns: Vec<u64>,
}

impl Scene {
    fn new(name: &'static str, files: &[(&str, &str)]) -> Self {
        let place = Place::new("");
        for (file, text) in files {
            place.write(file, text);
        }
        let (first, second) = place.settled();
        Self {
            name,
            place,
            servers: [first, second],
            active: 0,
            outages_ns: Vec::new(),
        }
    }

    fn active(&self) -> &Server {
        &self.servers[self.active]
    }

    /// Starts so many clients; the addresses are given to them in turn.
    fn clients(
        &self,
        library: Library,
        mode: &str,
        name: &str,
        (count, addresses): (usize, &str),
        more: &[&str],
    ) -> Clients {
        let [a, b] = self.place.ports;
        let urls = format!("amqp://127.0.0.1:{b},amqp://127.0.0.1:{a}");
        let count = count.to_string();
        let options = [
            mode,
            "--servers",
            &urls,
            "--queues",
            addresses,
            "--count",
            &count,
            "--rate",
            "500",
            // See proton_client.py.
            "--max-frame-size",
            "1000000",
        ];
        let history = folder(self.name).join(format!("{mode}-{name}.jsonl"));
        start(library, name, &[&options[..], more].concat(), &history)
    }

    fn wait_links(&self, links: usize) {
        let has = |state: &serde_json::Value| state["clients"]["links"] == links;
        self.active().wait_state("attached", has);
    }

    fn wait_messages(&self, messages: u64) {
        let has = |state: &serde_json::Value| state["store"]["messages"] == messages;
        self.active().wait_state("settled", has);
    }

    /// Kills the active server, waits for the takeover, and starts it again as the standby.
    fn kill_active(&mut self) {
        let (victim, heir) = (self.active, 1 - self.active);
        self.outages_ns.push(now_ns());
        self.servers[victim].kill();
        self.servers[heir].wait("active");
        self.servers[victim] = self.place.start(victim);
        self.servers[victim].wait("standby");
        self.active = heir;
    }

    /// Judges what one receiver saw of all that was sent.
    fn judge(&self, sent: &[Event], seen: &[Event], receiver: &str) -> Report {
        let own = seen.iter().filter(|event| event.client == receiver);
        let events = sent.iter().chain(own).cloned().collect();
        let report = check(events, &self.outages_ns);
        let folder = folder(self.name);
        assert_eq!(
            report.violations(),
            0,
            "{receiver}: {report}\nhistories: {}",
            folder.display()
        );
        assert!(report.delivered >= report.confirmed, "{receiver}: {report}");
        report
    }
}

/// Lets senders send so much more, come to an end, and tell.
fn finish(mut senders: Clients, more: usize) -> Vec<Event> {
    let wanted = senders.count(Kind::Confirm) + more;
    senders.wait(Kind::Confirm, wanted, PATIENCE);
    senders.ask_to_finish();
    senders.finish(PATIENCE)
}

/// Nanoseconds of the clock that clients write into their histories.
fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has it");
    let number = |part: i64| u64::try_from(part).expect("the clock counts from boot");
    number(time.tv_sec()) * 1_000_000_000 + number(time.tv_nsec())
}

/// Where histories are kept until the next run.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("topics")
        .join(name);
    fs::create_dir_all(&folder).expect("the test directory is writable");
    folder
}

/// Subscriptions that are not durable, and durable ones, while the active is killed twice: each gets
/// every message once, but for what it had not settled.
fn subscriptions_go_on(name: &'static str, subscribers: Library, publishers: Library) {
    let mut scene = Scene::new(name, &[]);
    let topics = "topic://px.ibm,topic://px.*";
    let plain = scene.clients(subscribers, "receive", "n", (2, topics), &[]);
    let durable = ["--durable", "1"];
    let topics = "topic://px.>,topic://>";
    let kept = scene.clients(subscribers, "receive", "d", (2, topics), &durable);
    scene.wait_links(4);
    let senders = scene.clients(publishers, "send", "s", (2, "topic://px.ibm"), &[]);
    for _ in 0..2 {
        let wanted = senders.count(Kind::Confirm) + 500;
        senders.wait(Kind::Confirm, wanted, PATIENCE);
        scene.kill_active();
    }
    let sent = finish(senders, 500);
    scene.wait_messages(0);
    let mut seen = plain.finish(PATIENCE);
    seen.extend(kept.finish(PATIENCE));
    for receiver in ["n0", "n1", "d0", "d1"] {
        let report = scene.judge(&sent, &seen, receiver);
        assert!(report.confirmed >= 1500, "{report}");
    }
    // Those that are not durable went with their connections.
    let messages = finish(
        scene.clients(publishers, "send", "t", (1, "topic://px.ibm"), &[]),
        50,
    );
    let confirmed = messages.iter().filter(|it| it.kind == Kind::Confirm);
    scene.wait_messages(2 * confirmed.count() as u64);
}

#[test]
fn c17_subscriptions_go_on_after_a_takeover() {
    subscriptions_go_on("proton", Library::Proton, Library::Rhea);
    subscriptions_go_on("rhea", Library::Rhea, Library::Proton);
    subscriptions_go_on("jms", Library::Jms, Library::Jms);
}

/// A publisher that does not stop while the active is killed, and a subscriber that has no durable
/// subscription.
#[test]
fn check02_a_subscriber_without_a_durable_subscription_continues_after_kill_9() {
    let mut scene = Scene::new("check02", &[]);
    let receiver = scene.clients(Library::Proton, "receive", "r", (1, "topic://news"), &[]);
    scene.wait_links(1);
    let senders = scene.clients(Library::Proton, "send", "s", (1, "topic://news"), &[]);
    senders.wait(Kind::Confirm, 300, PATIENCE);
    scene.kill_active();
    let sent = finish(senders, 300);
    scene.wait_messages(0);
    let seen = receiver.finish(PATIENCE);
    scene.judge(&sent, &seen, "r0");
}

/// Persistent messages: those to a queue are there after a kill, those to a topic without any
/// subscription are confirmed and stored nowhere.
#[test]
fn check13_a_topic_without_subscription_stores_nothing_and_a_queue_does() {
    let mut scene = Scene::new("check13", &[]);
    let nobody = scene.clients(Library::Proton, "send", "t", (1, "topic://news"), &[]);
    let confirmed = |events: &[Event]| {
        let confirms = events.iter().filter(|it| it.kind == Kind::Confirm);
        confirms.count() as u64
    };
    assert!(confirmed(&finish(nobody, 200)) >= 200);
    assert_eq!(scene.active().state()["store"]["messages"], 0);
    let queue = scene.clients(Library::Proton, "send", "q", (1, "news"), &[]);
    let stored = confirmed(&finish(queue, 200));
    scene.wait_messages(stored);
    scene.kill_active();
    assert_eq!(scene.active().state()["store"]["messages"], stored);
}

/// A durable subscription whose client is away while the active is killed.
#[test]
fn a_durable_subscription_keeps_what_comes_while_its_client_is_away() {
    let durables = [("durables.conf", "news fixed clientid=fixed0\n")];
    let mut scene = Scene::new("away", &durables);
    let durable = ["--durable", "1"];
    for library in [Library::Proton, Library::Rhea, Library::Jms] {
        let subscriber =
            |scene: &Scene| scene.clients(library, "receive", "d", (1, "topic://news"), &durable);
        // A client of the round before ends before the server has noticed: its link is not the one to wait for.
        scene.wait_links(0);
        let first = subscriber(&scene);
        scene.wait_links(1);
        let senders = scene.clients(library, "send", "s", (1, "topic://news"), &[]);
        senders.wait(Kind::Confirm, 200, PATIENCE);
        let mut seen = first.finish(PATIENCE);
        scene.kill_active();
        let sent = finish(senders, 200);
        let second = subscriber(&scene);
        let fixed = sent.iter().filter(|it| it.kind == Kind::Confirm);
        assert!(fixed.count() >= 400);
        let counts = |seen: &[Event]| seen.iter().filter(|it| it.kind == Kind::Deliver).count();
        let wanted = sent.iter().filter(|it| it.kind == Kind::Confirm).count() - counts(&seen);
        second.wait(Kind::Deliver, wanted, PATIENCE);
        seen.extend(second.finish(PATIENCE));
        let lost = check([&sent[..], &seen].concat(), &scene.outages_ns).lost;
        assert_eq!(lost, 0, "{library:?}");
    }
    // The configured one has had no client at all, and has everything.
    let state = scene.active().state();
    let waiting = state["store"]["messages"].as_u64();
    assert!(waiting >= Some(800), "{state:#}");
}

/// Bridges from a topic to two queues: after two kills each queue has all that was confirmed.
#[test]
fn bridges_copy_to_each_target_also_when_the_active_is_killed() {
    let files = [
        ("queues.conf", ">\n"),
        ("topics.conf", ">\n"),
        (
            "bridges.conf",
            "[topic:px.>]\n  queue=copies.a\n  queue=copies.b\n",
        ),
    ];
    let mut scene = Scene::new("bridges", &files);
    let receivers = scene.clients(
        Library::Proton,
        "receive",
        "r",
        (2, "copies.a,copies.b"),
        &[],
    );
    scene.wait_links(2);
    let senders = scene.clients(Library::Rhea, "send", "s", (2, "topic://px.ibm"), &[]);
    for _ in 0..2 {
        let wanted = senders.count(Kind::Confirm) + 400;
        senders.wait(Kind::Confirm, wanted, PATIENCE);
        scene.kill_active();
    }
    let sent = finish(senders, 400);
    scene.wait_messages(0);
    let seen = receivers.finish(PATIENCE);
    for receiver in ["r0", "r1"] {
        scene.judge(&sent, &seen, receiver);
    }
}
