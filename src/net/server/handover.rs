//! The end that an administrator orders; after a switchover the server begins again in its process.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{self, Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs, io};

use tokio::time::timeout;

use super::{News, Server};
use crate::net::admin::Order;
use crate::role::{Input, State};

/// How long a server that has handed over waits for its successor.
const SUCCESSOR: Duration = Duration::from_secs(30);

/// The program that runs, also when its file is no more.
const RUNNING: &str = "/proc/self/exe";

/// The file by which this program was started.
pub(super) struct Program(Option<PathBuf>);

impl Program {
    /// To be asked when the process begins, before anybody can have replaced the file.
    pub(super) fn of_this_process() -> Self {
        // By its name, if that is one of a file: it may be a link that leads to another version some day.
        let named = env::args_os().next().map(PathBuf::from);
        let named = named.filter(|name| name.components().count() > 1);
        let named = named.and_then(|name| path::absolute(name).ok());
        let named = named.filter(|name| is_running(name));
        Self(named.or_else(|| env::current_exe().ok()))
    }

    /// Starts the program anew in this process, as it is on the disk now: nothing of the server that has ended is
    /// left, and the configuration is read again. One that cannot be started leaves the version that runs. Returns
    /// only when that fails as well.
    pub(super) fn begin_again(&self) -> String {
        if let Some(path) = &self.0 {
            tracing::info!(
                event = "begins_again",
                program = %path.display(),
                is_replaced = !is_running(path),
                "this server begins again in the same process"
            );
            let error = exec(path);
            tracing::warn!(
                event = "program_unusable",
                program = %path.display(),
                %error,
                "the file of this program cannot be started; this server begins again in the version that has \
                 run so far"
            );
        }
        let error = exec(Path::new(RUNNING));
        format!(
            "the standby has taken over, but this server could not begin again: {error}; start it"
        )
    }
}

/// Whether a file is that of the program that runs.
fn is_running(path: &Path) -> bool {
    let identity = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    let running = identity(Path::new(RUNNING));
    running.is_some() && identity(path) == running
}

fn exec(program: &Path) -> io::Error {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    Command::new(program).arg0(name).args(arguments).exec()
}

impl Server {
    pub(super) fn take_order(&mut self, order: Order) -> Input {
        let reason = match order {
            Order::Shutdown => {
                self.set_handed_over(false);
                "an administrator's shutdown"
            }
            // It ends already, as somebody has asked for.
            Order::Switchover if self.role.state() == State::Stopping => return Input::Tick,
            Order::Switchover => {
                self.set_handed_over(true);
                "an administrator's switchover"
            }
        };
        let reason = reason.to_owned();
        Input::Stop { reason }
    }

    /// Whether the server begins again when it has stopped.
    pub(super) fn set_handed_over(&mut self, is_handed_over: bool) {
        self.is_handed_over = is_handed_over;
        self.service.stay(is_handed_over);
    }

    /// Waits until the standby owns the store: this server must not be faster. When nobody takes it, this one will.
    /// A signal ends the process as ever.
    pub(super) async fn await_successor(&mut self) {
        let is_owned = async {
            // One whose links are gone has died, or nobody would hear of it.
            while self.peers.owner().is_none() && self.peers.has_pair() {
                tokio::select! {
                    news = self.news.recv() => match news {
                        Some(News::Peer(event)) => drop(self.take_peer(event)),
                        Some(_) => {}
                        None => return,
                    },
                    signal = self.signals.next() => if signal != "SIGHUP" {
                        self.set_handed_over(false);
                        return;
                    },
                }
            }
        };
        let is_late = timeout(SUCCESSOR, is_owned).await.is_err();
        let by = self.peers.owner().map_or("nobody", |news| &news.name);
        tracing::info!(
            event = "handed_over",
            by,
            is_late,
            "the store was given up; this server begins again as a standby of whoever owns it"
        );
    }
}
