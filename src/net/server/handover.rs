//! The end that an administrator orders; after a switchover the server begins again in its process.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use tokio::time::timeout;

use super::{News, Server};
use crate::net::admin::Order;
use crate::role::{Input, State};

/// How long a server that has handed over waits for its successor.
const SUCCESSOR: Duration = Duration::from_secs(30);

/// Starts this program anew in this process: nothing of the server that has ended is left, and the configuration is
/// read again. Returns only when that fails.
pub(super) fn begin_again() -> String {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    // The same program, also when its file was replaced meanwhile.
    let error = Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .exec();
    format!("the standby has taken over, but this server could not begin again: {error}; start it")
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
