//! What the chapter promises of the two servers of a pair, with its numbers. Others of its promises
//! are tested where their subject is: TLS in `tls`, processes that die or freeze in `pair`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::certificates::Authority;
use super::support::{ANY_PORT, PROGRAM, Server, serve, serve_with, two_ports};
use super::wire::{CLOSE, OPEN, Raw, begin, open};

/// A directory with the configuration of a pair: `a.conf` and `b.conf`.
pub(crate) struct Place {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) ports: [u16; 2],
}

const NAMES: [&str; 2] = ["a.conf", "b.conf"];

impl Place {
    /// `more` stands in both files.
    pub(crate) fn new(more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (a, b) = two_ports();
        let place = Self {
            directory,
            ports: [a, b],
        };
        for index in 0..2 {
            place.write_main(index, more);
        }
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("the directory can be written");
    }

    /// The main file of one of the two.
    pub(crate) fn write_main(&self, index: usize, more: &str) {
        let (own, other) = (self.ports[index], self.ports[1 - index]);
        let text = format!(
            "server = EMS-SERVER\nlisten = tcp://127.0.0.1:{own}\nft_active = tcp://127.0.0.1:{other}\n\
             store = store\nft_heartbeat = 0.2\nft_activation = 0.6\nmonitor_listen = \
             http://127.0.0.1:0\n{more}\n"
        );
        self.write(NAMES[index], &text);
    }

    pub(crate) fn start(&self, index: usize) -> Server {
        self.start_with(index, &[])
    }

    pub(crate) fn start_with(&self, index: usize, options: &[&str]) -> Server {
        let file = self.path(NAMES[index]).display().to_string();
        serve_with(&[&["--config", file.as_str()], options].concat(), &[])
    }

    /// The first active, the second standing by.
    pub(crate) fn settled(&self) -> (Server, Server) {
        let mut first = self.start(0);
        first.wait("active");
        let mut second = self.start(1);
        second.wait("standby");
        (first, second)
    }

    fn url(&self, index: usize) -> String {
        format!("tcp://127.0.0.1:{}", self.ports[index])
    }
}

/// Exit code and complaints of the program.
fn run(arguments: &[&str]) -> (i32, String) {
    let Output { status, stderr, .. } = Command::new(PROGRAM)
        .args(arguments)
        .output()
        .expect("the program starts");
    let text = String::from_utf8_lossy(&stderr).into_owned();
    (status.code().unwrap_or(-1), text)
}

/// A server that must not start: what it said, after nothing was half started.
fn refused(place: &Place, file: &str) -> String {
    let path = place.path(file).display().to_string();
    let (code, text) = run(&["serve", "--config", &path]);
    assert_eq!(code, 2, "{text}");
    assert!(!place.path("store").exists(), "nothing was half started");
    text
}

/// What a standby says to a client; `None` when it serves it.
fn turned_away(port: u16) -> Option<String> {
    let mut client = Raw::connect(port);
    client.greet();
    client.send(&open());
    client.expect(OPEN);
    client.send(&begin(0));
    let answer = client.frame().expect("the server answers");
    (answer.code == CLOSE).then(|| answer.condition().expect("it says why"))
}

fn name_of_peer(state: &Value) -> &str {
    state["peer"]["name"].as_str().unwrap_or_default()
}

#[test]
fn c01_a_server_becomes_the_secondary_by_its_main_file_or_by_its_command_line() {
    let place = Place::new("");
    let (_first, mut second) = place.settled();
    second.kill();
    // A file that says nothing of a pair, and a command line that does.
    let own = format!(
        "server = EMS-SERVER\nlisten = tcp://127.0.0.1:{}\nstore = store\n",
        place.ports[1]
    );
    place.write("b.conf", &own);
    let peer = format!("ft_active={}", place.url(0));
    let monitor = "monitor_listen=http://127.0.0.1:0";
    let mut second = place.start_with(1, &["--set", &peer, "--set", monitor]);
    second.wait("standby");
    assert_eq!(second.count("active"), 0);
}

#[test]
fn c03_each_server_names_the_other_and_both_are_in_sight_of_each_other() {
    let place = Place::new("");
    let (first, second) = place.settled();
    let seen = first.wait_state("a peer", |state| state["peer"]["role"] == "standby");
    assert_eq!(name_of_peer(&seen), place.url(1));
    let seen = second.wait_state("a peer", |state| state["peer"]["role"] == "active");
    assert_eq!(name_of_peer(&seen), place.url(0));
}

#[test]
fn c04_c05_c06_check01_who_is_first_serves_and_the_other_sends_clients_to_it() {
    let place = Place::new("");
    let mut first = place.start(0);
    let activating = first.wait("activating");
    let reason = activating["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("no peer is active"), "{reason}");
    first.wait("active");

    let mut second = place.start(1);
    let standby = second.wait("standby");
    let reason = standby["reason"].as_str().unwrap_or_default();
    assert_eq!(reason, format!("{} is active", place.url(0)));
    assert_eq!(
        turned_away(place.ports[1]).as_deref(),
        Some("amqp:connection:forced")
    );
    assert_eq!(turned_away(place.ports[0]), None, "the next URL serves");
}

#[test]
fn check04_an_activation_below_two_heartbeats_is_refused_with_its_line() {
    let place = Place::new("");
    place.write_main(0, "ft_heartbeat = 3\nft_activation = 5");
    let said = refused(&place, "a.conf");
    assert!(
        said.contains("a.conf:9: ft_activation: ft_activation (5 s) must be at least twice"),
        "{said}"
    );
}

#[test]
fn a_listener_that_is_named_twice_is_refused_with_its_line() {
    let place = Place::new("");
    place.write_main(0, "listen = tcp://localhost:1\nlisten = tcp://localhost:1");
    let said = refused(&place, "a.conf");
    assert!(said.contains("a.conf:9: listen: "), "{said}");
    assert!(said.contains("are the same place; remove one"), "{said}");
}

#[test]
fn a_file_that_cannot_be_read_is_refused_with_its_parameter() {
    let place = Place::new("acl_list = rights.conf");
    let said = refused(&place, "a.conf");
    assert!(said.contains("a.conf:8: acl_list: "), "{said}");
    assert!(said.contains("rights.conf cannot be read"), "{said}");
}

/// The unit file starts what this program understands, and the program says what systemd waits for.
#[test]
fn the_unit_file_starts_the_program_and_hears_when_it_is_ready() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/steadfast.service");
    let unit = fs::read_to_string(unit).expect("it is there");
    let value = |name: &str| {
        let mut lines = unit.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    let command = value("ExecStart").expect("it starts something");
    let (program, arguments) = command.split_once(' ').expect("it has arguments");
    assert_eq!(program, "/usr/bin/steadfast");
    assert_eq!(value("Type"), Some("notify"));
    for word in value("RestartPreventExitStatus")
        .unwrap_or_default()
        .split(' ')
    {
        let code: u8 = word.parse().expect("exit codes are numbers");
        assert!((2..=3).contains(&code), "{code} may heal by a restart");
    }

    let place = Place::new("");
    let config = place.path("a.conf").display().to_string();
    let arguments: Vec<&str> = arguments
        .split_whitespace()
        .skip(1)
        .map(|word| match word {
            "/etc/steadfast/tibemsd.conf" => config.as_str(),
            other => other,
        })
        .collect();
    let path = place.path("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    socket
        .set_read_timeout(Some(super::support::PATIENCE))
        .expect("the time is right");
    let path = path.display().to_string();
    let environment = [
        ("NOTIFY_SOCKET", path.as_str()),
        ("WATCHDOG_USEC", "2000000"),
    ];
    let mut server = serve_with(&arguments, &environment);
    let hear = |wanted: &str| {
        let mut buffer = [0; 256];
        let mut heard = String::new();
        while !heard.contains(wanted) {
            let length = socket.recv(&mut buffer).unwrap_or_else(|error| {
                panic!("`{wanted}` is not said ({error}): {heard}");
            });
            heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        heard
    };
    let before = hear("READY=1\n");
    server.wait("active");
    assert!(before.contains("STATUS=active, epoch "), "{before}");
    hear("WATCHDOG=1\n");
}

/// Somebody who speaks as a peer, on a link that nobody has to log in to.
struct Stranger {
    stream: TcpStream,
    instance: String,
    beat: u64,
}

impl Stranger {
    fn call(port: u16) -> Self {
        Self::call_as("EMS-SERVER", port)
    }

    fn call_as(server: &str, port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        let mut stranger = Self {
            stream,
            instance: "0123456789abcdef".to_owned(),
            beat: 0,
        };
        let call = json!({"server": server, "instance": stranger.instance, "relation": "pair",
                          "login": false});
        let magic = b"STDFAST\x02";
        stranger.stream.write_all(magic).expect("it is taken");
        stranger.say(&json!({ "call": call }));
        stranger
    }

    fn say(&mut self, line: &Value) {
        let line = format!("{line}\n");
        self.stream.write_all(line.as_bytes()).expect("it is taken");
    }

    fn claim(&mut self, role: &str, epoch: u64, store: Option<&str>) {
        self.beat += 1;
        let hello = json!({"server": "EMS-SERVER", "role": role, "epoch": epoch, "beat": self.beat,
                           "instance": self.instance, "listens": ["tcp://127.0.0.1:9"],
                           "store": store});
        self.say(&hello);
    }
}

#[test]
fn a_claim_of_a_higher_epoch_is_only_a_hint() {
    let place = Place::new("");
    // Who claims something says it once, and is not to be out of sight before the next one.
    let mut first = place.start_with(0, &["--set", "ft_activation=60"]);
    let epoch = first.wait("active")["epoch"].as_u64().expect("a number");
    let before = first.state()["store"]["durable_lsn"].as_u64();
    let mut stranger = Stranger::call(place.ports[0]);
    stranger.claim("active", epoch + 10, None);
    let dual = first.wait("dual_active");
    assert_eq!(dual["peer_epoch"], epoch + 10, "{dual}");
    let state = first.wait_state("proved by a write", |state| {
        state["store"]["durable_lsn"].as_u64() > before
    });
    assert_eq!(state["role"], "active");
    assert_eq!(turned_away(place.ports[0]), None, "it goes on");
    assert_eq!(first.count("fenced"), 0);
    // Of two servers with two stores one has to end, but not for the word of who may be anybody: neither at
    // its first word nor at a later one.
    for is_first_word in [false, true] {
        if is_first_word {
            stranger = Stranger::call(place.ports[0]);
        }
        let before = first.state()["store"]["durable_lsn"].as_u64();
        let other = "f".repeat(32);
        stranger.claim("active", epoch + 20 + stranger.beat, Some(&other));
        first.wait("dual_active");
        first.wait_state("proved by a write", |state| {
            state["store"]["durable_lsn"].as_u64() > before
        });
    }
    assert_eq!(turned_away(place.ports[0]), None, "it goes on");
}

/// Why the peer is out of sight is what this server met when it called it.
#[test]
fn nobody_else_changes_what_is_said_of_a_peer_that_is_out_of_sight() {
    let place = Place::new("");
    let mut first = place.start(0);
    first.wait("active");
    let reached = |state: &Value| state["peer_trouble"]["what"] == "not reached";
    let mut seen = first.wait_state("not reached", reached);
    for name in ["OTHER", "ANOTHER", "OTHER"] {
        let mut stranger = Stranger::call_as(name, place.ports[0]);
        let mut heard = String::new();
        // A reset is as good an end.
        let _ = stranger.stream.read_to_string(&mut heard);
        let for_ms = |state: &Value| state["peer_trouble"]["for_ms"].as_u64();
        let before = for_ms(&seen);
        seen = first.wait_state("told anew", |state| for_ms(state) != before);
        let text = seen["peer_trouble"].to_string();
        assert!(reached(&seen) && !text.contains(name), "{seen}");
        assert!(for_ms(&seen) > before, "it began before: {seen}");
    }
    first.wait("peer_refused");
}

/// What a file system without working locks leads to: somebody took the store over from a living owner.
#[test]
fn an_active_server_that_hears_of_a_later_owner_and_finds_it_in_the_store_ends_with_code_5() {
    let place = Place::new("");
    let mut first = place.start(0);
    first.wait("active");
    let (store, copy) = (place.path("store"), place.path("copy"));
    fs::create_dir(&copy).expect("a directory");
    let files = |directory: &Path| -> Vec<std::ffi::OsString> {
        let entries = fs::read_dir(directory).expect("it can be read");
        entries
            .map(|entry| entry.expect("a file").file_name())
            .collect()
    };
    let before = files(&store);
    for name in &before {
        // A file may be removed meanwhile.
        let _gone = fs::copy(store.join(name), copy.join(name));
    }
    let mut other = serve(&copy, &ANY_PORT);
    let later = other.wait("active")["epoch"].as_u64().expect("a number");
    other.kill();
    for name in files(&copy).iter().filter(|name| !before.contains(name)) {
        fs::copy(copy.join(name), store.join(name)).expect("it can be copied");
    }
    let mut stranger = Stranger::call(place.ports[0]);
    stranger.claim("active", later, None);
    first.wait("dual_active");
    assert_eq!(first.exit_code(), 5, "{}", first.said());
    let said = first.said();
    assert!(
        said.contains(&format!("an owner of epoch {later}")),
        "{said}"
    );
}

/// The differences that one server sees at the other, in `/state`.
fn differences(state: &Value, list: &str) -> Option<Vec<String>> {
    let lines = state[list][0]["differences"].as_array()?;
    let text = |line: &Value| line.as_str().unwrap_or_default().to_owned();
    Some(lines.iter().map(text).collect())
}

#[test]
fn servers_that_meet_name_each_difference_once_and_say_when_there_is_none_any_more() {
    let place = Place::new("");
    place.write("own-queues.conf", ">\norders.> maxbytes=1MB\n");
    place.write("queues.conf", ">\n");
    place.write_main(0, "max_message_bytes = 1MB\nqueues = own-queues.conf");
    let (mut first, mut second) = place.settled();
    for server in [&mut first, &mut second] {
        let named = [
            server.wait("config_difference"),
            server.wait("config_difference"),
        ];
        let text = format!("{named:?}");
        assert!(text.contains("max_message_bytes: "), "{text}");
        assert!(text.contains("queue orders.>: missing "), "{text}");
        let state = server.wait_state("compared", |state| {
            differences(state, "peers").is_some_and(|lines| lines.len() == 2)
        });
        assert_eq!(state["peer"]["server"], "EMS-SERVER");
    }
    // The other one gets the queue too, and reads its files again.
    place.write("queues.conf", ">\norders.> maxbytes=1MB\n");
    second.signal(Signal::SIGHUP);
    second.wait("config_reread");
    for server in [&mut first, &mut second] {
        server.wait_state("one left", |state| {
            differences(state, "peers").is_some_and(|lines| lines.len() == 1)
        });
        assert_eq!(server.count("config_difference"), 2, "{}", server.said());
    }
    place.write_main(1, "max_message_bytes = 1MB");
    second.signal(Signal::SIGHUP);
    let restart = second.wait("config_needs_restart");
    assert_eq!(restart["parameter"], "max_message_bytes");
    second.kill();
    let mut second = place.start(1);
    second.wait("standby");
    first.wait("config_alike");
}

#[test]
fn a_standby_that_takes_over_applies_what_its_files_say_now() {
    let place = Place::new("");
    let (mut first, mut second) = place.settled();
    place.write_main(1, "ft_reconnect_timeout = 7");
    first.kill();
    let restart = second.wait("config_needs_restart");
    assert_eq!(restart["parameter"], "ft_reconnect_timeout");
    second.wait("config_reread");
    second.wait("active");
}

#[test]
fn a_standby_whose_files_are_broken_takes_over_with_the_last_good_ones() {
    let place = Place::new("");
    let (mut first, mut second) = place.settled();
    place.write("b.conf", "servr = X\n");
    first.kill();
    let unusable = second.wait("config_unusable");
    let reason = unusable["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("b.conf:1: servr: unknown parameter"),
        "{reason}"
    );
    second.wait("active");
    assert_eq!(turned_away(place.ports[1]), None, "it serves");
}

/// Two servers that share nothing, each with files of its own.
struct Unshared {
    place: Place,
}

impl Unshared {
    /// `main` and `files` of either server; a text of another one stands in for `PEER`.
    fn new(main: [&str; 2], files: &[(&str, [&str; 2])]) -> Self {
        let place = Place::new("");
        for (index, name) in ["EAST", "WEST"].into_iter().enumerate() {
            let (own, other) = (place.ports[index], place.ports[1 - index]);
            let scheme = if main[index].contains("ssl_") {
                "ssl"
            } else {
                "tcp"
            };
            let folder = place.path(name);
            fs::create_dir(&folder).expect("a directory");
            let text = format!(
                "server = {name}\nlisten = {scheme}://127.0.0.1:{own}\nunshared_peer = \
                 {scheme}://127.0.0.1:{other}\nstore = store\nft_heartbeat = 0.2\nft_activation = 0.6\n\
                 monitor_listen = http://127.0.0.1:0\n{}\n",
                main[index]
            );
            fs::write(folder.join("main.conf"), text).expect("a file");
            for (file, texts) in files {
                fs::write(folder.join(file), texts[index]).expect("a file");
            }
        }
        Self { place }
    }

    fn start(&self, name: &str) -> Server {
        let main = self
            .place
            .path(name)
            .join("main.conf")
            .display()
            .to_string();
        serve_with(&["--config", &main], &[])
    }

    /// Both serve; what the first finds at the second.
    fn meet(&self) -> Vec<String> {
        let (mut east, mut west) = (self.start("EAST"), self.start("WEST"));
        east.wait("active");
        west.wait("active");
        let state = east.wait_state("compared", |state| {
            let peer = &state["unshared_peers"][0];
            peer["role"] == "active" && differences(state, "unshared_peers").is_some()
        });
        assert_eq!(state["unshared_peers"][0]["server"], "WEST");
        let found = differences(&state, "unshared_peers").expect("they have compared");
        let told = west.wait_state("compared", |state| {
            differences(state, "unshared_peers").is_some()
        });
        assert_eq!(
            differences(&told, "unshared_peers").map(|lines| lines.len()),
            Some(found.len())
        );
        while east.count("config_difference") < found.len() {
            east.wait("config_difference");
        }
        found
    }
}

#[test]
fn c21_servers_that_share_nothing_name_each_destination_that_is_not_the_same() {
    let alike = ("queues.conf", [">\norders.> secure\n"; 2]);
    assert_eq!(
        Unshared::new([""; 2], &[alike]).meet(),
        Vec::<String>::new()
    );
    let queues = [">\norders.> secure\nold\n", ">\norders.>\n"];
    let topics = ["px.*\n", ""];
    let found = Unshared::new([""; 2], &[("queues.conf", queues), ("topics.conf", topics)]).meet();
    assert_eq!(found.len(), 3, "{found:#?}");
    assert_eq!(found[0], "queue old: missing at the peer");
    assert!(found[1].starts_with("queue orders.>: not the same on both servers"));
    assert_eq!(found[2], "topic px.*: missing at the peer");
}

#[test]
fn c22_servers_that_share_nothing_name_each_route_that_is_not_the_same() {
    let route = |port: u16| format!("[NORTH]\n  url = tcp://north:{port}\n  zone_type = 1hop\n");
    let found = Unshared::new([""; 2], &[("routes.conf", [&route(7222), &route(7223)])]).meet();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("route NORTH: not the same on both servers"));
}

#[test]
fn c23_servers_that_share_nothing_name_each_user_group_and_permission_that_is_not_the_same() {
    let users = ["bob:secret:\nann:secret:\n", "bob:another:\n"];
    let groups = ["eng:\"\"\n  bob\n", "eng:\"\"\n"];
    let acl = [
        "QUEUE=a USER=bob PERM=send\n",
        "QUEUE=a USER=bob PERM=send,browse\n",
    ];
    let files = [
        ("users.conf", users),
        ("groups.conf", groups),
        ("acl.conf", acl),
    ];
    let found = Unshared::new([""; 2], &files).meet();
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("group eng: not the same on both servers"));
    assert!(found[1].starts_with("permission QUEUE=a USER=bob: not the same on both servers"));
    assert_eq!(found[2], "user ann: missing at the peer");
    assert!(!found.concat().contains("secret"));
}

#[test]
fn c24_servers_that_share_nothing_name_each_certificate_that_is_not_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(directory.path(), "ca");
    let main = |identity: &Path| {
        let trusted = authority.file().display().to_string();
        let identity = identity.display();
        format!(
            "ssl_server_identity = {identity}\nft_ssl_trusted = {trusted}\nft_ssl_identity = {identity}"
        )
    };
    let (one, other) = (authority.local("one"), authority.local("other"));
    let found = Unshared::new([&main(&one), &main(&one)], &[]).meet();
    assert_eq!(found, Vec::<String>::new());
    let found = Unshared::new([&main(&one), &main(&other)], &[]).meet();
    assert_eq!(
        found,
        ["ssl_server_identity: its files have not the same content on both servers"]
    );
}

#[test]
fn of_servers_that_share_nothing_neither_waits_for_the_other() {
    let servers = Unshared::new([""; 2], &[]);
    let mut east = servers.start("EAST");
    let activating = east.wait("activating");
    assert_eq!(activating["reason"], "this server stands alone");
    east.wait("active");
    let mut west = servers.start("WEST");
    west.wait("active");
    east.wait("unshared_peer_connected");
    west.kill();
    east.wait("unshared_peer_lost");
    assert_eq!(east.state()["role"], "active");
    assert_eq!(east.count("activating"), 1);
}

/// A pair with authorization, whose servers have files of their own beside the main file.
fn authorized(passwords: [&str; 2], users: [&str; 2]) -> Place {
    let place = Place::new("");
    for (index, name) in ["a", "b"].into_iter().enumerate() {
        let password = passwords[index];
        place.write_main(
            index,
            &format!("authorization = enabled\npassword = {password}\nusers = {name}-users.conf"),
        );
        place.write(&format!("{name}-users.conf"), users[index]);
    }
    place
}

const PAIR_USER: &str = "EMS-SERVER:mySecret:\n";

/// What both servers of a pair say that have no link; the second stands by and takes over all the same.
fn refused_link(place: &Place) -> [String; 2] {
    let mut first = place.start(0);
    first.wait("active");
    let mut second = place.start(1);
    let said = [&mut first, &mut second].map(|server| {
        let refused = server.wait("peer_refused");
        refused["reason"].as_str().unwrap_or_default().to_owned()
    });
    second.wait("standby");
    let state = second.state();
    assert_eq!(
        state["peer"],
        Value::Null,
        "nothing is told before the login"
    );
    assert_eq!(first.state()["role"], "active");
    for server in [&first, &second] {
        assert!(!server.said().contains("mySecret"), "{}", server.said());
    }
    first.kill();
    second.wait("active");
    said
}

#[test]
fn c09_c10_the_password_and_the_user_of_that_name_join_the_pair() {
    let place = authorized(["mySecret"; 2], [PAIR_USER; 2]);
    let (mut first, mut second) = place.settled();
    for server in [&mut first, &mut second] {
        server.wait_state("joined", |state| {
            differences(state, "peers").is_some_and(|lines| lines.is_empty())
        });
        assert_eq!(server.count("peer_refused"), 0);
    }
    first.kill();
    second.wait("active");
    let mut first = place.start(0);
    first.wait("standby");
    let state = first.wait_state("joined", |state| state["peer"]["role"] == "active");
    assert_eq!(name_of_peer(&state), place.url(1));
}

#[test]
fn c09_check05_another_password_is_refused_and_both_servers_say_so() {
    let users = [PAIR_USER, "EMS-SERVER:otherSecret:\n"];
    let place = authorized(["mySecret", "otherSecret"], users);
    for said in refused_link(&place) {
        // Each of the two calls the other, and is called.
        let as_verifier =
            "password: the other server's is wrong: it is not that of the user `EMS-SERVER`";
        let as_caller = "password: it is not that of the user `EMS-SERVER` at the other server";
        let is_told = said.contains(as_verifier) || said.contains(as_caller);
        assert!(is_told, "{said}");
    }
}

#[test]
fn c10_c11_a_server_whose_user_for_the_pair_is_missing_or_has_another_password_does_not_start() {
    for (users, wanted) in [
        (
            "bob:x:\n",
            "users: there is no user `EMS-SERVER`, as which the other server logs in",
        ),
        ("EMS-SERVER:otherSecret:\n", "password"),
    ] {
        let place = authorized(["mySecret"; 2], [users, PAIR_USER]);
        let said = refused(&place, "a.conf");
        assert!(
            said.contains("a-users.conf") && said.contains(wanted),
            "{said}"
        );
    }
}

/// What cannot be seen at the start, such as a user who was deleted since, shows when the servers meet.
#[test]
fn c11_check05_a_user_that_nobody_can_log_in_as_is_refused_and_both_servers_say_where() {
    let keys = "EMS-SERVER:$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo:\n";
    let place = authorized(["mySecret"; 2], [keys, PAIR_USER]);
    let said = refused_link(&place);
    assert!(
        said[0].contains("users: there is no usable password of the user `EMS-SERVER` here"),
        "{said:?}"
    );
    assert!(
        said[1]
            .contains("users: there is no usable password of the user `EMS-SERVER` at the other"),
        "{said:?}"
    );
}

#[test]
fn c02_check05_servers_of_different_names_have_no_link_whatever_they_know() {
    let place = authorized(
        ["mySecret"; 2],
        ["EMS-SERVER:mySecret:\nOTHER:mySecret:\n"; 2],
    );
    let main = fs::read_to_string(place.path("b.conf")).expect("it is there");
    place.write(
        "b.conf",
        &main.replace("server = EMS-SERVER", "server = OTHER"),
    );
    for said in refused_link(&place) {
        assert!(said.contains("`server` differs"), "{said}");
    }
}

/// The chapter's sequence with files instead of the tool: everything is there, then authorization is enabled
/// on the active, then on the standby.
#[test]
fn c12_authorization_is_enabled_on_the_active_and_then_on_the_standby_of_a_running_pair() {
    let place = authorized(["mySecret"; 2], [PAIR_USER; 2]);
    let enabled = NAMES.map(|name| fs::read_to_string(place.path(name)).expect("it is there"));
    for (name, text) in NAMES.into_iter().zip(&enabled) {
        place.write(name, &text.replace("= enabled", "= disabled"));
    }
    let (mut first, mut second) = place.settled();
    second.wait_state("joined", |state| state["peer"]["role"] == "active");
    for (index, name) in NAMES.into_iter().enumerate() {
        place.write(name, &enabled[index]);
        let changed = [&mut first, &mut second];
        changed[index].signal(Signal::SIGHUP);
        changed[index].wait("config_reread");
        let joined = |state: &Value| {
            let lines = differences(state, "peers");
            lines.is_some_and(|lines| lines.len() == 1 - index)
        };
        first.wait_state("joined", joined);
        let state = second.wait_state("joined", joined);
        assert_eq!(state["peer"]["role"], "active");
        assert_eq!(state["role"], "standby");
    }
    assert_eq!((first.count("active"), second.count("active")), (1, 0));
    assert_eq!(
        first.count("peer_refused") + second.count("peer_refused"),
        0
    );
    assert!(
        first
            .said()
            .contains("authorization: enabled here, disabled at the peer")
    );
}

#[test]
fn nobody_without_the_password_speaks_as_a_peer() {
    let place = authorized(["mySecret"; 2], [PAIR_USER; 2]);
    let mut first = place.start(0);
    first.wait("active");
    let mut stranger = Stranger::call(place.ports[0]);
    stranger.claim("active", 1_000_000, None);
    let refused = first.wait("peer_refused");
    let reason = refused["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("it says something out of place"),
        "{reason}"
    );
    let mut heard = String::new();
    // A reset is as good an end.
    let _ = stranger.stream.read_to_string(&mut heard);
    for told in ["active", "epoch", "store", "EMS-SERVER"] {
        assert!(!heard.contains(told), "{heard}");
    }
    assert_eq!(first.state()["peer"], Value::Null);
    assert_eq!(first.count("dual_active"), 0);
}
