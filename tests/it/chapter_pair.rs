//! What the chapter promises of the two servers of a pair, with its numbers. Others of its promises
//! are tested where their subject is: TLS in `tls`, processes that die or freeze in `pair`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::support::{PROGRAM, Server, serve_with, two_ports};
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
