//! Real server processes.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_steadfast");

/// Long enough for a busy machine; no test waits for it when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A server process; killed when dropped.
pub(crate) struct Server {
    child: Child,
    events: Receiver<Value>,
    /// Everything that it logged and that was looked at.
    pub(crate) log: Vec<Value>,
}

/// Starts `steadfast serve` with a free monitor port and JSON events.
pub(crate) fn serve(data: &Path, options: &[&str]) -> Server {
    let data = data.display().to_string();
    let usual = [
        "--data",
        &data,
        "--set",
        "monitor_listen=http://127.0.0.1:0",
    ];
    serve_with(&[&usual, options].concat(), &[])
}

/// Starts `steadfast serve` with JSON events, these options and this environment, and nothing else.
pub(crate) fn serve_with(options: &[&str], environment: &[(&str, &str)]) -> Server {
    serve_program(Path::new(PROGRAM), options, environment)
}

/// The same with another file of the program.
pub(crate) fn serve_program(
    program: &Path,
    options: &[&str],
    environment: &[(&str, &str)],
) -> Server {
    let mut child = Command::new(program)
        .args(["serve", "--log-format", "json"])
        .args(options)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let stderr = child.stderr.take().expect("standard error is a pipe");
    let (sender, events) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    Server {
        child,
        events,
        log: Vec::new(),
    }
}

/// A standalone server's options: any free port.
pub(crate) const ANY_PORT: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

impl Server {
    /// Waits for an event of this name, from now on.
    pub(crate) fn wait(&mut self, name: &str) -> Value {
        let found = self.wait_within(name, PATIENCE);
        found.unwrap_or_else(|| panic!("no event `{name}` in {:#?}", self.log))
    }

    /// The next event of this name; `None` when it does not come in time or the server ends.
    pub(crate) fn wait_within(&mut self, name: &str, time: Duration) -> Option<Value> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => {
                    self.log.push(event.clone());
                    if event["event"] == name {
                        return Some(event);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// How often an event of this name was logged so far.
    pub(crate) fn count(&mut self, name: &str) -> usize {
        self.log.extend(self.events.try_iter());
        self.log
            .iter()
            .filter(|event| event["event"] == name)
            .count()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let process = i32::try_from(self.child.id()).expect("process ids are small");
        kill(Pid::from_raw(process), signal).expect("the process is there");
    }

    /// All that it logged and that was looked at, as text.
    pub(crate) fn said(&self) -> String {
        self.log.iter().map(|event| format!("{event}\n")).collect()
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        let status = self.child.try_wait().expect("the process is ours");
        status.is_some()
    }

    /// Waits for the end of the process and returns its exit code.
    pub(crate) fn exit_code(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the process is ours") {
                self.log.extend(self.events.iter());
                return status.code().unwrap_or(-1);
            }
            assert!(
                Instant::now() < deadline,
                "the process does not end: {:#?}",
                self.log
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the process with SIGKILL and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().expect("the process is ours");
    }

    /// The document of `/state`. `starting` must have been seen.
    pub(crate) fn state(&self) -> Value {
        let monitor = self.log.iter().find_map(|event| event["monitor"].as_str());
        let url = format!("{}/state", monitor.expect("the monitor's URL was logged"));
        let mut response = ureq::get(&url).call().expect("the monitor answers");
        response.body_mut().read_json().expect("the state is JSON")
    }

    /// Waits until `/state` has a quality; returns it.
    pub(crate) fn wait_state(&self, what: &str, has: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.state();
            if has(&state) {
                return state;
            }
            assert!(Instant::now() < deadline, "not {what}: {state:#}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two ports that nobody uses and that no other test gets: each server of a pair must know the other's
/// beforehand. They lie below those that the system gives to connections and to listeners without a choice.
pub(crate) fn two_ports() -> (u16, u16) {
    (port(), port())
}

/// Ports for tests that need to know them beforehand.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

fn port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    // Another run of the tests at the same time most likely begins elsewhere.
    let next = NEXT.get_or_init(|| AtomicU16::new(fastrand::u16(..)));
    let count = PORTS.end - PORTS.start;
    (0..count)
        .map(|_| PORTS.start + next.fetch_add(1, Ordering::Relaxed) % count)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port is free")
}
