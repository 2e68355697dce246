//! Real server processes of our own, for `demo` and `bench`: this same program, started as `serve`.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

use super::tool::ToolError;
use crate::net::client::ServerUrl;

/// How long a server may take to start, to become active, or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long `/state` may take.
const STATE_TIMEOUT: Duration = Duration::from_secs(5);
/// Log lines that are kept for an error message.
const LOG_LINES: usize = 20;

/// A server process. It is killed when this is dropped, and by the kernel when this process dies.
#[derive(Debug)]
pub(crate) struct OwnServer {
    name: String,
    child: Child,
    events: UnboundedReceiver<Logged>,
    log: VecDeque<String>,
    url: ServerUrl,
    monitor: Option<String>,
    exit: Option<ExitStatus>,
}

/// A line of a server's log and when it came.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    /// When the line was read.
    pub(crate) at: Instant,
    /// The event; a string when it was no JSON.
    pub(crate) event: Value,
}

impl Logged {
    /// The event's name.
    pub(crate) fn name(&self) -> &str {
        self.event
            .get("event")
            .and_then(Value::as_str)
            .unwrap_or("")
    }

    /// A number of the event.
    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        self.event.get(key).and_then(Value::as_f64)
    }
}

/// How a server is to be started.
#[derive(Debug, Clone)]
pub(crate) struct OwnServerOptions {
    /// Its name in messages and in the cluster.
    pub(crate) name: String,
    /// The store.
    pub(crate) data: PathBuf,
    /// The port to listen on; 0 lets the system choose.
    pub(crate) port: u16,
    /// Further `--set` values.
    pub(crate) set: Vec<String>,
}

/// What `/state` says, as far as our tools use it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ServerState {
    /// Milliseconds since the process started: tells snapshots apart.
    pub(crate) uptime_ms: u64,
    /// The recovery that made it active.
    pub(crate) recovery: RecoveryState,
    /// The store.
    pub(crate) store: Option<StoreState>,
    /// What a standby keeps.
    pub(crate) warm_standby: Option<WarmState>,
}

/// The log that a standby follows, in `/state`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WarmState {
    /// It has read the log to its end.
    pub(crate) current: bool,
}

/// The recovery in `/state`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RecoveryState {
    /// From the lock to the first client that is served.
    pub(crate) lock_to_ready_ms: Option<f64>,
    /// Log bytes that were read.
    pub(crate) tail_bytes: u64,
    /// Messages that were found.
    pub(crate) messages: u64,
    /// What became of what a standby had kept.
    pub(crate) warm: String,
    /// Locking, checkpoint, tail, sealing.
    pub(crate) phases_ms: [u64; 4],
}

/// The store in `/state`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StoreState {
    /// Messages that are not settled.
    pub(crate) messages: u64,
    /// Log bytes that a recovery would have to read now.
    pub(crate) tail_bytes: u64,
    /// A checkpoint is taken after so many log bytes.
    pub(crate) checkpoint_bytes: u64,
    /// Batches written.
    pub(crate) batches: u64,
    /// Bytes of those.
    pub(crate) batch_bytes: u64,
}

impl OwnServer {
    /// Starts `serve` with its monitor on a free port and waits until it listens.
    pub(crate) async fn start(options: &OwnServerOptions) -> Result<Self, ToolError> {
        let mut server = Self::spawn(options)?;
        let starting = server.wait("starting").await?;
        let text = |key: &str| starting.event.get(key).and_then(Value::as_str);
        let listens = text("listens").and_then(|list| list.split(',').next());
        match listens {
            Some(url) => server.url = ServerUrl::parse(url)?,
            None => return Err(server.failure("did not say where it listens")),
        }
        server.monitor = text("monitor")
            .filter(|url| url.starts_with("http"))
            .map(String::from);
        Ok(server)
    }

    /// Starts `serve` and waits until it serves clients.
    pub(crate) async fn start_active(options: &OwnServerOptions) -> Result<Self, ToolError> {
        let mut server = Self::start(options).await?;
        server.wait("active").await?;
        Ok(server)
    }

    fn spawn(options: &OwnServerOptions) -> Result<Self, ToolError> {
        let program = std::env::current_exe()
            .map_err(|error| ToolError::Other(format!("where is this program? {error}")))?;
        let mut command = Command::new(&program);
        command
            .arg("serve")
            .arg("--data")
            .arg(&options.data)
            .args(["--listen", &format!("tcp://127.0.0.1:{}", options.port)])
            .args(["--log-format", "json"])
            .args(["--set", "monitor_listen=http://127.0.0.1:0"])
            .arg("--exit-with-parent");
        for value in &options.set {
            command.args(["--set", value]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(ToolError::file("starting", &program))?;
        let (sender, events) = unbounded_channel();
        if let Some(stderr) = child.stderr.take() {
            follow(stderr, sender)?;
        }
        Ok(Self {
            name: options.name.clone(),
            child,
            events,
            log: VecDeque::new(),
            url: ServerUrl::local(options.port),
            monitor: None,
            exit: None,
        })
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// Waits for an event of the log, from now on.
    pub(crate) async fn wait(&mut self, name: &str) -> Result<Logged, ToolError> {
        let found = timeout(PATIENCE, async {
            while let Some(logged) = self.events.recv().await {
                self.note(&logged);
                if logged.name() == name {
                    return Some(logged);
                }
            }
            None
        });
        match found.await {
            Ok(Some(logged)) => Ok(logged),
            Ok(None) => {
                // The end of its log is the end of the process.
                let status = self.reap();
                Err(self.failure(&format!("ended ({status}) before it was `{name}`")))
            }
            Err(_) => {
                let seconds = PATIENCE.as_secs();
                Err(self.failure(&format!("was not `{name}` within {seconds} s")))
            }
        }
    }

    fn note(&mut self, logged: &Logged) {
        if self.log.len() == LOG_LINES {
            self.log.pop_front();
        }
        let line = match &logged.event {
            Value::String(line) => line.clone(),
            event => event.to_string(),
        };
        self.log.push_back(line);
    }

    /// An error with the last lines of the server's log.
    fn failure(&mut self, what: &str) -> ToolError {
        while let Ok(logged) = self.events.try_recv() {
            self.note(&logged);
        }
        let mut text = format!("server {} {what}; the end of its log:", self.name);
        for line in &self.log {
            text.push_str("\n  ");
            text.push_str(line);
        }
        ToolError::Other(text)
    }

    /// The document of `/state`. It is as old as the server's last snapshot, up to 100 ms.
    pub(crate) fn state(&self) -> Result<ServerState, ToolError> {
        let fault = |reason: String| {
            ToolError::Other(format!(
                "server {}: /state cannot be read: {reason}",
                self.name
            ))
        };
        let Some(monitor) = &self.monitor else {
            return Err(fault(String::from("it has no monitor")));
        };
        let mut response = ureq::get(format!("{monitor}/state"))
            .config()
            .timeout_global(Some(STATE_TIMEOUT))
            .build()
            .call()
            .map_err(|error| fault(error.to_string()))?;
        response
            .body_mut()
            .read_json()
            .map_err(|error| fault(error.to_string()))
    }

    /// The figures of the store, from a snapshot that was taken after this call.
    pub(crate) async fn fresh_store(&self) -> Result<StoreState, ToolError> {
        let before = self.state()?.uptime_ms;
        let deadline = Instant::now() + STATE_TIMEOUT;
        loop {
            sleep(Duration::from_millis(10)).await;
            let state = self.state()?;
            if state.uptime_ms > before || Instant::now() > deadline {
                return state.store.ok_or_else(|| {
                    ToolError::Other(format!("server {} has no store in its /state", self.name))
                });
            }
        }
    }

    /// Kills the process with SIGKILL. Returns the moment of the kill; the process is gone then.
    pub(crate) fn kill(&mut self) -> Instant {
        let at = Instant::now();
        // It may have ended by itself, which is the same to the caller.
        let _ = self.child.kill();
        self.reap();
        at
    }

    fn reap(&mut self) -> String {
        if self.exit.is_none() {
            self.exit = self.child.wait().ok();
        }
        self.exit
            .map_or_else(|| String::from("unknown"), |status| status.to_string())
    }

    /// Asks the process to end in order, and waits for it.
    pub(crate) async fn stop(&mut self) -> Result<(), ToolError> {
        let process = i32::try_from(self.child.id()).unwrap_or_default();
        if self.exit.is_none() && process > 0 {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(process), Signal::SIGTERM);
        }
        let ended = timeout(PATIENCE, async {
            while let Some(logged) = self.events.recv().await {
                self.note(&logged);
            }
        });
        if ended.await.is_err() {
            return Err(self.failure("did not stop"));
        }
        let status = self.reap();
        match self.exit {
            Some(exit) if exit.success() => Ok(()),
            _ => Err(self.failure(&format!("ended with {status}"))),
        }
    }

    /// Memory of the process that is in RAM now, in bytes; `None` when it is gone.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).ok()?;
        let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if self.exit.is_none() {
            self.kill();
        }
    }
}

/// Reads a server's log on a thread of its own, so that the time of each line is right.
fn follow(stderr: ChildStderr, events: UnboundedSender<Logged>) -> Result<(), ToolError> {
    let read = move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let at = Instant::now();
            let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
            if events.send(Logged { at, event }).is_err() {
                // Nobody is interested any more, but a full pipe would stop the server.
                continue;
            }
        }
    };
    thread::Builder::new()
        .name(String::from("server-log"))
        .spawn(read)
        .map(drop)
        .map_err(|error| ToolError::Other(format!("no thread: {error}")))
}

/// Ports that were free a moment ago: each server of a pair must know the other's beforehand.
pub(crate) fn free_ports<const COUNT: usize>() -> Result<[u16; COUNT], ToolError> {
    let fault = |error: std::io::Error| ToolError::Other(format!("no free port: {error}"));
    let mut ports = [0; COUNT];
    // All are bound at the same time, so that they differ.
    let mut listeners = Vec::with_capacity(COUNT);
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(fault)?;
        *port = listener.local_addr().map_err(fault)?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

/// Bytes of all files in a directory and below it.
pub(crate) fn directory_bytes(directory: &Path) -> Result<u64, ToolError> {
    let mut bytes = 0;
    for path in files_of(directory)? {
        // A file that the server has just deleted counts nothing.
        bytes += std::fs::metadata(&path).map_or(0, |data| data.len());
    }
    Ok(bytes)
}

/// All files in a directory and below it, in the order of their names.
pub(crate) fn files_of(directory: &Path) -> Result<Vec<PathBuf>, ToolError> {
    let fault = || ToolError::file("listing", directory);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(fault())? {
        let entry = entry.map_err(fault())?;
        let kind = entry.file_type().map_err(fault())?;
        if kind.is_dir() {
            files.extend(files_of(&entry.path())?);
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}
