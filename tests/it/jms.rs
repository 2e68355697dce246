//! What Qpid JMS may do, and what it is refused in words: `tests/interop/jms/Features.java`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::chapter_authorization::write_users;
use super::chapter_pair::Place;
use super::foreign::jakarta;
use super::support::{ANY_PORT, PROGRAM, Server, serve};

/// A run of the program; its checks are judged line by line.
struct Run {
    child: Child,
    output: BufReader<ChildStdout>,
    errors: std::path::PathBuf,
}

impl Run {
    fn start(mode: &str, servers: &str, more: &[&str]) -> Self {
        let errors = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("jms-{mode}.err"));
        let file = File::create(&errors).expect("the test directory is writable");
        let mut child = jakarta("Features")
            .args([mode, "--servers", servers])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .expect("java starts");
        let output = child.stdout.take().expect("standard output is a pipe");
        Self {
            child,
            output: BufReader::new(output),
            errors,
        }
    }

    /// The names of the checks up to a line `ready` or the end; one that failed fails the test.
    fn checks(&mut self) -> Vec<String> {
        let mut checks = Vec::new();
        for line in (&mut self.output).lines() {
            let line = line.expect("the program writes text");
            if line == "ready" {
                break;
            }
            let Some(name) = line.strip_prefix("ok ") else {
                let errors = fs::read_to_string(&self.errors).unwrap_or_default();
                panic!("{line}\n{errors}");
            };
            checks.push(name.to_owned());
        }
        checks
    }

    fn go_on(&mut self) {
        let input = self.child.stdin.as_mut().expect("standard input is a pipe");
        input.write_all(b"go on\n").expect("the program reads");
    }

    fn finish(mut self) {
        let status = self.child.wait().expect("the process is ours");
        assert!(status.success(), "{status}: {}", self.errors.display());
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many temporary topics an administrator sees.
fn temporary_topics(port: u16) -> usize {
    let server = format!("tcp://127.0.0.1:{port}");
    let output = Command::new(PROGRAM)
        .args(["admin", "--server", &server, "show", "topics"])
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    text.lines().filter(|it| it.contains("*$TMP$.")).count()
}

/// Where a server is active, for clients.
fn url_of(server: &mut Server) -> String {
    let active = server.wait("active");
    let listens = active["listens"].as_str();
    let listens = listens.expect("it says where it listens");
    listens.replace("tcp://", "amqp://")
}

#[test]
fn jakarta_messaging_works_or_is_refused_in_words() {
    let data = tempfile::tempdir().expect("a directory");
    let mut server = serve(data.path(), &ANY_PORT);
    let url = url_of(&mut server);
    let mut run = Run::start("features", &url, &[]);
    assert_eq!(run.checks().len(), 21);
    run.finish();
}

#[test]
fn c17_jms_clients_keep_temporary_destinations_and_subscriptions_over_takeovers() {
    const ROUNDS: usize = 3;
    let place = Place::new("");
    let (mut active, mut standby) = place.settled();
    let [a, b] = place.ports;
    let url = format!("amqp://127.0.0.1:{b},amqp://127.0.0.1:{a}");
    let mut run = Run::start("takeover", &url, &["--count", &ROUNDS.to_string()]);
    for round in 0..ROUNDS {
        assert_eq!(run.checks().len(), 4, "round {round}");
        let port = place.ports[round % 2];
        assert_eq!(temporary_topics(port), 2, "round {round}");
        if round + 1 < ROUNDS {
            active.kill();
            standby.wait("active");
            active = std::mem::replace(&mut standby, place.start(round % 2));
            standby.wait("standby");
        }
        run.go_on();
    }
    assert_eq!(run.checks().len(), 0);
    run.finish();
    let owns_nothing = |state: &serde_json::Value| state["reconnect"]["kept"] == 0;
    active.wait_state("left by all clients", owns_nothing);
}

#[test]
fn jms_clients_log_in_and_get_what_they_are_permitted() {
    let data = tempfile::tempdir().expect("a directory");
    write_users(data.path(), "driller", "drills-sesame");
    let write = |file: &str, text: &str| {
        fs::write(data.path().join(file), text).expect("the directory can be written");
    };
    write("queues.conf", ">\ndrill.> secure\nsecret secure\n");
    write("topics.conf", ">\nsecret secure\n");
    let file = |name: &str| data.path().join(name).display().to_string();
    let main = file("server.conf");
    let options = [&["--config", &main], &ANY_PORT[..]].concat();
    let mut server = serve(&data.path().join("store"), &options);
    let url = url_of(&mut server);
    let password = file("password.txt");
    let more = ["--user", "driller", "--password-file", &password];
    let mut run = Run::start("logins", &url, &more);
    assert_eq!(run.checks().len(), 6);
    run.finish();
}
