//! The failover drill: foreign clients on a pair whose active server is killed again and again.
//!
//! `STEADFAST_DRILL_ROUNDS` is the number of kills for each client library (2 when not set),
//! `STEADFAST_SEED` repeats the choice of moments of an earlier run.

use std::env;
use std::fs;
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};

use super::certificates::Authority;
use super::chapter_authorization::write_users;
use super::foreign::{Clients, Library, has_scram, start};
use super::history::{Kind, Outage, Report, check};
use super::support::{PATIENCE, Server, serve, two_ports};

/// Senders, and as many receivers.
const CLIENTS: usize = 4;
/// Long enough for the slowest client to send what is left.
const END_PATIENCE: Duration = Duration::from_secs(120);

/// Who clients are that log in.
const USER: &str = "driller";
const PASSWORD: &str = "drills-sesame";

/// One kind of drill.
struct Drill {
    name: &'static str,
    senders: Library,
    receivers: Library,
    /// One queue that all share, or one for each sender and receiver.
    queues: &'static str,
    /// Everything goes through TLS: clients, and the link between the servers.
    is_tls: bool,
    /// Clients log in, and need permissions.
    has_logins: bool,
}

#[test]
fn proton_clients_lose_nothing_when_the_active_is_killed() {
    run(&Drill {
        name: "proton",
        senders: Library::Proton,
        receivers: Library::Proton,
        queues: "drill.shared",
        is_tls: false,
        has_logins: false,
    });
}

#[test]
fn rhea_clients_lose_nothing_when_the_active_is_killed() {
    run(&Drill {
        name: "rhea",
        senders: Library::Rhea,
        receivers: Library::Rhea,
        queues: "drill.0,drill.1,drill.2,drill.3",
        is_tls: false,
        has_logins: false,
    });
}

#[test]
fn proton_and_rhea_clients_together_lose_nothing_when_the_active_is_killed() {
    run(&Drill {
        name: "mixed",
        senders: Library::Rhea,
        receivers: Library::Proton,
        queues: "drill.even,drill.odd",
        is_tls: false,
        has_logins: false,
    });
}

#[test]
fn jms_clients_lose_nothing_when_the_active_is_killed() {
    run(&Drill {
        name: "jms",
        senders: Library::Jms,
        receivers: Library::Jms,
        queues: "drill.jms.0,drill.jms.1",
        is_tls: false,
        has_logins: false,
    });
}

#[test]
fn jms_and_rhea_clients_that_log_in_lose_nothing_through_tls_when_the_active_is_killed() {
    run(&Drill {
        name: "jms-scram",
        senders: Library::Jms,
        receivers: Library::Rhea,
        queues: "drill.secure",
        is_tls: true,
        has_logins: true,
    });
}

#[test]
fn c13_proton_and_rhea_clients_lose_nothing_through_tls_when_the_active_is_killed() {
    run(&Drill {
        name: "tls",
        senders: Library::Proton,
        receivers: Library::Rhea,
        queues: "drill.secret",
        is_tls: true,
        has_logins: false,
    });
}

#[test]
fn clients_that_log_in_lose_nothing_through_tls_when_the_active_is_killed() {
    run(&Drill {
        name: "logins",
        senders: Library::Proton,
        receivers: Library::Rhea,
        queues: "drill.secure",
        is_tls: true,
        has_logins: true,
    });
}

#[test]
fn proton_clients_that_log_in_lose_nothing_through_tls_when_the_active_is_killed() {
    run(&Drill {
        name: "scram",
        senders: Library::Proton,
        receivers: Library::Proton,
        queues: "drill.secure",
        is_tls: true,
        has_logins: true,
    });
}

#[test]
fn idle_clients_find_the_active_server_after_a_stop_and_after_a_kill() {
    for library in [Library::Proton, Library::Rhea, Library::Jms] {
        let mut pair = Pair::start(false, false);
        let drill = Drill {
            name: "idle",
            senders: library,
            receivers: library,
            queues: "drill.idle",
            is_tls: false,
            has_logins: false,
        };
        let receivers = drill.clients(library, "receive", "r", &pair);
        pair.wait_links(CLIENTS);
        pair.stop_active();
        pair.wait_links(CLIENTS);
        pair.kill_active();
        pair.wait_links(CLIENTS);
        let events = receivers.finish(END_PATIENCE);
        assert_eq!(check(events, &pair.outages_ns).violations(), 0);
        pair.stop();
    }
}

/// Nanoseconds of the clock that clients write into their histories.
fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has it");
    let number = |part: i64| u64::try_from(part).expect("the clock counts from boot");
    number(time.tv_sec()) * 1_000_000_000 + number(time.tv_nsec())
}

fn rounds() -> usize {
    match env::var("STEADFAST_DRILL_ROUNDS") {
        Ok(text) => text.parse().expect("STEADFAST_DRILL_ROUNDS is a number"),
        Err(_) => 2,
    }
}

fn seed() -> u64 {
    match env::var("STEADFAST_SEED") {
        Ok(text) => text.parse().expect("STEADFAST_SEED is a number"),
        Err(_) => fastrand::Rng::new().u64(..),
    }
}

/// Two servers on one store; `active` is the index of the one that serves.
struct Pair {
    data: tempfile::TempDir,
    ports: [u16; 2],
    secrets: Option<Secrets>,
    has_logins: bool,
    servers: [Server; 2],
    active: usize,
    /// When the active was killed or asked to stop.
    outages_ns: Vec<u64>,
}

/// Certificates of servers and clients.
struct Secrets {
    trusted: PathBuf,
    server: PathBuf,
    client: PathBuf,
}

impl Secrets {
    fn new(directory: &Path) -> Self {
        let authority = Authority::new(directory, "ca");
        Self {
            trusted: authority.file(),
            server: authority.local("server"),
            client: authority.local("client"),
        }
    }

    /// Parameters of a server that wants certificates of everybody.
    fn parameters(&self) -> Vec<String> {
        let (trusted, server) = (self.trusted.display(), self.server.display());
        let values = [
            format!("ssl_server_identity={server}"),
            format!("ssl_server_trusted={trusted}"),
            "ssl_require_client_cert=yes".to_owned(),
            format!("ft_ssl_identity={server}"),
            format!("ft_ssl_trusted={trusted}"),
        ];
        let options = values
            .into_iter()
            .flat_map(|value| ["--set".to_owned(), value]);
        options.collect()
    }
}

impl Pair {
    fn start(is_tls: bool, has_logins: bool) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let ports = two_ports().into();
        let secrets = is_tls.then(|| Secrets::new(data.path()));
        if has_logins {
            write_users(data.path(), USER, PASSWORD);
        }
        let mut first = Self::server(data.path(), ports, secrets.as_ref(), 0);
        first.wait("active");
        let mut second = Self::server(data.path(), ports, secrets.as_ref(), 1);
        second.wait("standby");
        Self {
            data,
            ports,
            secrets,
            has_logins,
            servers: [first, second],
            active: 0,
            outages_ns: Vec::new(),
        }
    }

    /// A server with the parameters that a user has who sets none.
    fn server(data: &Path, ports: [u16; 2], secrets: Option<&Secrets>, index: usize) -> Server {
        let scheme = if secrets.is_some() { "ssl" } else { "tcp" };
        let listen = format!("{scheme}://127.0.0.1:{}", ports[index]);
        let peer = format!("ft_active={scheme}://127.0.0.1:{}", ports[1 - index]);
        let parameters = secrets.map(Secrets::parameters).unwrap_or_default();
        let mut options = vec!["--listen", &listen, "--set", &peer];
        options.extend(parameters.iter().map(String::as_str));
        let file = data.join("server.conf");
        let file = file.exists().then(|| file.display().to_string());
        if let Some(file) = &file {
            options.extend(["--config", file]);
        }
        serve(&data.join("store"), &options)
    }

    /// The URLs for clients, the active server's last: they must find it themselves.
    fn urls(&self) -> String {
        let [a, b] = self.ports;
        let scheme = if self.secrets.is_some() {
            "amqps"
        } else {
            "amqp"
        };
        format!("{scheme}://127.0.0.1:{b},{scheme}://127.0.0.1:{a}")
    }

    /// Kills the active server, waits for the takeover, and starts it again as the standby.
    fn kill_active(&mut self) {
        let (victim, heir) = (self.active, 1 - self.active);
        self.outages_ns.push(now_ns());
        self.servers[victim].kill();
        self.servers[heir].wait("active");
        self.restart(victim);
        self.active = heir;
    }

    /// Stops the active server in an orderly way, and goes on as after a kill.
    fn stop_active(&mut self) {
        let (leaver, heir) = (self.active, 1 - self.active);
        self.outages_ns.push(now_ns());
        self.servers[leaver].signal(Signal::SIGTERM);
        assert_eq!(self.servers[leaver].exit_code(), 0);
        self.servers[heir].wait("active");
        self.restart(leaver);
        self.active = heir;
    }

    fn restart(&mut self, index: usize) {
        self.servers[index] =
            Self::server(self.data.path(), self.ports, self.secrets.as_ref(), index);
        self.servers[index].wait("standby");
    }

    /// Waits until so many links are attached to the active server.
    fn wait_links(&self, links: usize) {
        let server = &self.servers[self.active];
        server.wait_state("attached", |state| state["clients"]["links"] == links);
    }

    /// Waits until every message left the store.
    fn wait_empty(&self) {
        self.servers[self.active].wait_state("empty", |state| state["store"]["messages"] == 0);
    }

    /// Stops both in an orderly way.
    fn stop(mut self) {
        for index in [1 - self.active, self.active] {
            let server = &mut self.servers[index];
            server.signal(Signal::SIGTERM);
            assert_eq!(server.exit_code(), 0, "{:#?}", server.log);
        }
    }
}

fn run(drill: &Drill) {
    // One at a time: they measure, and this machine may be small.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (rounds, seed) = (rounds(), seed());
    say(&format!(
        "drill {}: {rounds} kills, STEADFAST_SEED={seed}",
        drill.name
    ));
    let report = drill.run(rounds, seed);
    let (kills, stops) = report.outages.split_at(rounds);
    for (what, outages) in [("kill", kills), ("SIGTERM", stops)] {
        let text = waiting(outages);
        say(&format!(
            "drill {}: {what} to first new confirm: {text}",
            drill.name
        ));
    }
    say(&report.to_string());
    assert_eq!(
        report.violations(),
        0,
        "{report}\nhistories: {}",
        folder(drill.name).display()
    );
    let ended = |outage: &Outage| outage.all_confirm_ns.is_some();
    assert!(
        report.outages.iter().all(ended),
        "every sender goes on after each kill"
    );
}

impl Drill {
    fn run(&self, rounds: usize, seed: u64) -> Report {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pair = Pair::start(self.is_tls, self.has_logins);
        let receivers = self.clients(self.receivers, "receive", "r", &pair);
        let mut senders = self.clients(self.senders, "send", "s", &pair);
        senders.wait(Kind::Connect, CLIENTS, PATIENCE);
        for _ in 0..rounds {
            // A random number of confirms and a little more: a moment that no batch decides.
            let wanted = senders.count(Kind::Confirm) + random.usize(500..3000);
            senders.wait(Kind::Confirm, wanted, PATIENCE);
            std::thread::park_timeout(Duration::from_micros(random.u64(0..20_000)));
            pair.kill_active();
        }
        let go_on = |senders: &Clients| {
            let wanted = senders.count(Kind::Confirm) + 500;
            senders.wait(Kind::Confirm, wanted, PATIENCE);
        };
        go_on(&senders);
        pair.stop_active();
        go_on(&senders);

        senders.ask_to_finish();
        senders.wait(Kind::Done, CLIENTS, END_PATIENCE);
        let mut events = senders.finish(END_PATIENCE);
        pair.wait_empty();
        events.extend(receivers.finish(END_PATIENCE));
        let drain = self.clients(self.receivers, "drain", "d", &pair);
        drain.wait(Kind::Done, CLIENTS, END_PATIENCE);
        let drained = drain.finish(END_PATIENCE);
        assert!(
            !drained.iter().any(|event| event.kind == Kind::Deliver),
            "{drained:#?}"
        );
        let outages_ns = pair.outages_ns.clone();
        pair.stop();
        check(events, &outages_ns)
    }

    fn clients(&self, library: Library, mode: &str, name: &str, pair: &Pair) -> Clients {
        let history = folder(self.name).join(format!("{mode}.jsonl"));
        let urls = pair.urls();
        let count = CLIENTS.to_string();
        let mut options = vec![
            mode,
            "--servers",
            &urls,
            "--queues",
            self.queues,
            "--count",
            &count,
            "--rate",
            "500",
            "--large-every",
            "100",
            "--max-frame-size",
            "1000000",
        ];
        let files = pair.secrets.as_ref().map(|secrets| {
            [&secrets.trusted, &secrets.client].map(|path| path.display().to_string())
        });
        if let Some([trusted, identity]) = &files {
            options.extend(["--trusted", trusted, "--identity", identity]);
        }
        let password = pair.data.path().join("password.txt").display().to_string();
        if pair.has_logins {
            options.extend(["--user", USER, "--password-file", &password]);
            if library == Library::Jms || library == Library::Proton && has_scram() {
                options.extend(["--mechanism", "SCRAM-SHA-256"]);
            }
        }
        start(library, name, &options, &history)
    }
}

/// Where the histories of a drill are kept until its next run.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("drill")
        .join(name);
    fs::create_dir_all(&folder).expect("the test directory is writable");
    folder
}

/// The time without service in words.
fn waiting(outages: &[Outage]) -> String {
    let spread = |times: Vec<Option<u64>>| {
        let mut times: Vec<u64> = times.into_iter().flatten().collect();
        times.sort_unstable();
        let milliseconds = |index: usize| times.get(index).map_or(0, |time| time / 1_000_000);
        let last = times.len().saturating_sub(1);
        let median = milliseconds(last / 2).midpoint(milliseconds(times.len() / 2));
        let worst = milliseconds(last);
        format!("median {median} ms, worst {worst} ms")
    };
    format!(
        "{}; of the slowest sender: {}",
        spread(
            outages
                .iter()
                .map(|outage| outage.first_confirm_ns)
                .collect()
        ),
        spread(outages.iter().map(|outage| outage.all_confirm_ns).collect())
    )
}

/// Writes past the test harness, which keeps the output of tests that pass to itself.
fn say(text: &str) {
    // Nobody may be reading.
    let _ = writeln!(stderr(), "{text}");
}
