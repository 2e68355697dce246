//! The thread that checks passwords, and what a wrong one costs.
//!
//! argon2 and PBKDF2 take tens of milliseconds of computing on purpose. They happen on one thread of their own, so
//! that neither the engine thread nor more than one core is ever busy with strangers. The queue is bounded: who
//! comes when it is full is told to try again.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::Builder;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use super::clock;
use crate::auth::{Dialogue, Failures, LoginTask, Verdict};

/// Logins that wait for the thread; with argon2 they are done within some seconds.
const WAITING_MAX: usize = 256;
/// Refusals of one user from one address that wait to be told. Its further logins wait for them: otherwise many
/// connections would make up for the delay of each.
const REFUSALS_MAX: u32 = 4;
/// Refusals are at least so far apart in the log.
const LOG_PAUSE: Duration = Duration::from_secs(1);
/// Longest part of a user's name that is logged, characters.
const NAME_CHARS_MAX: usize = 64;

type Judgement = (Dialogue, Verdict);
type Key = (String, Option<IpAddr>);

struct Order {
    task: LoginTask,
    reply: oneshot::Sender<Judgement>,
}

/// The engine thread's end; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logins(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Started when it is first needed; `None` when the system gives no thread.
    thread: OnceCell<Option<SyncSender<Order>>>,
    failures: RefCell<Failures>,
    /// How many refusals of each wait to be told.
    refusals: RefCell<BTreeMap<Key, u32>>,
    told: Notify,
    logged_at: Cell<Option<Instant>>,
    unlogged: Cell<u64>,
}

impl Logins {
    /// Judges a response. A refusal comes late, the later the more of them there were.
    pub(crate) async fn judge(&self, task: LoginTask) -> Judgement {
        let key = (
            task.claimed().unwrap_or_default().to_owned(),
            task.address(),
        );
        let mechanism = task.mechanism();
        self.wait_in_line(&key).await;
        let begun = Instant::now();
        let judgement = if task.is_slow() {
            self.judge_slowly(task).await
        } else {
            task.run()
        };
        let (user, address) = (&key.0, key.1);
        match judgement.1 {
            Verdict::Refused => {
                let now_ms = clock::now().monotonic_ms;
                let delay_ms = self.0.failures.borrow_mut().failed(now_ms, user, address);
                self.log_refusal(user, address, mechanism);
                self.delay(key, begun + Duration::from_millis(delay_ms))
                    .await;
            }
            Verdict::Welcome { .. } => self.0.failures.borrow_mut().succeeded(user, address),
            Verdict::Challenge(_) | Verdict::Busy => {}
        }
        judgement
    }

    async fn wait_in_line(&self, key: &Key) {
        loop {
            let told = self.0.told.notified();
            let waiting = self.0.refusals.borrow().get(key).copied();
            if waiting.is_none_or(|waiting| waiting < REFUSALS_MAX) {
                return;
            }
            told.await;
        }
    }

    async fn delay(&self, key: Key, until: Instant) {
        *self.0.refusals.borrow_mut().entry(key.clone()).or_insert(0) += 1;
        sleep_until(until).await;
        let mut refusals = self.0.refusals.borrow_mut();
        if let Some(count) = refusals.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                refusals.remove(&key);
            }
        }
        self.0.told.notify_waiters();
    }

    async fn judge_slowly(&self, task: LoginTask) -> Judgement {
        let Some(thread) = self.0.thread.get_or_init(start) else {
            return task.give_up();
        };
        let (reply, answer) = oneshot::channel();
        match thread.try_send(Order { task, reply }) {
            Ok(()) => answer.await.expect("the thread answers every order"),
            Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) => {
                order.task.give_up()
            }
        }
    }

    /// Strangers may try as often as they like: not each try is logged.
    fn log_refusal(&self, user: &str, address: Option<IpAddr>, mechanism: &str) {
        let (logged_at, unlogged) = (&self.0.logged_at, &self.0.unlogged);
        if logged_at.get().is_some_and(|at| at.elapsed() < LOG_PAUSE) {
            unlogged.set(unlogged.get() + 1);
            return;
        }
        logged_at.set(Some(Instant::now()));
        let user: String = user.chars().take(NAME_CHARS_MAX).collect();
        let address = address.map_or_else(|| String::from("unknown"), |it| it.to_string());
        tracing::warn!(
            event = "login_refused",
            user,
            address,
            mechanism,
            not_logged = unlogged.take(),
            "wrong user or password, or the user has none here"
        );
    }
}

fn start() -> Option<SyncSender<Order>> {
    let (sender, receiver) = sync_channel(WAITING_MAX);
    let started = Builder::new()
        .name(String::from("logins"))
        .spawn(move || run(&receiver));
    if let Err(error) = &started {
        tracing::error!(event = "logins_failed", %error, "no thread for checking passwords");
    }
    started.is_ok().then_some(sender)
}

fn run(orders: &Receiver<Order>) {
    while let Ok(Order { task, reply }) = orders.recv() {
        // The server may be about to end.
        let _ = reply.send(task.run());
    }
}
