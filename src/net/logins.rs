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
use crate::auth::{Dialogue, Failures, LoginTask, Verdict, neighbourhood};

/// Logins that wait for the thread; with argon2 they are done within some seconds.
const WAITING_MAX: usize = 256;
/// Logins of one user from one address that are under way at once, until their refusal was told: otherwise many
/// connections would make up for the delay of each.
const OF_USER_MAX: usize = 4;
/// Logins from one address that are with the thread or wait for it: it has time for others as well.
const OF_ADDRESS_MAX: usize = 32;
/// Logins that wait for either to get below its bound; who comes then is told to try again.
const IN_LINE_MAX: usize = 1024;
/// Refusals are at least so far apart in the log.
const LOG_PAUSE: Duration = Duration::from_secs(1);
/// Longest part of a user's name that is logged, characters.
const NAME_CHARS_MAX: usize = 64;

type Judgement = (Dialogue, Verdict);
/// A user at an address; an empty name stands for all that it has.
type Key = (String, Option<IpAddr>);

/// Those with one key.
#[derive(Debug, Default)]
struct Line {
    under_way: usize,
    waiting: usize,
}

/// A place in a line, given back when it is dropped: also when nobody waits for the answer any more.
struct Place<'a> {
    shared: &'a Shared,
    key: Key,
    is_waiting: bool,
}

impl Place<'_> {
    /// Waits until there are fewer than `places` under way. `None`: there is no room to wait.
    async fn take(shared: &Shared, key: Key, places: usize) -> Option<Place<'_>> {
        {
            let mut lines = shared.lines.borrow_mut();
            let line = lines.entry(key.clone()).or_default();
            if line.waiting >= IN_LINE_MAX {
                return None;
            }
            line.waiting += 1;
        }
        let mut place = Place {
            shared,
            key,
            is_waiting: true,
        };
        loop {
            let changed = shared.changed.notified();
            if let Some(line) = shared.lines.borrow_mut().get_mut(&place.key)
                && line.under_way < places
            {
                line.waiting -= 1;
                line.under_way += 1;
                place.is_waiting = false;
                return Some(place);
            }
            changed.await;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut lines = self.shared.lines.borrow_mut();
        let Some(line) = lines.get_mut(&self.key) else {
            return;
        };
        if self.is_waiting {
            line.waiting -= 1;
        } else {
            line.under_way -= 1;
        }
        let others_wait = line.waiting > 0;
        if line.under_way == 0 && !others_wait {
            lines.remove(&self.key);
        }
        if others_wait {
            self.shared.changed.notify_waiters();
        }
    }
}

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
    lines: RefCell<BTreeMap<Key, Line>>,
    /// Somebody left a line in which others wait.
    changed: Notify,
    logged_at: Cell<Option<Instant>>,
    unlogged: Cell<u64>,
    refused: Cell<u64>,
}

impl Logins {
    /// Judges a response. A refusal comes late, the later the more of them there were.
    pub(crate) async fn judge(&self, task: LoginTask) -> Judgement {
        let user = task.claimed().unwrap_or_default().into_owned();
        let from = task.address();
        let address = task.address().map(neighbourhood);
        let (mechanism, reason) = (task.mechanism(), task.refusal());
        // Who does not even say a name guesses no password, and stands in nobody's way.
        let mut place = None;
        if !user.is_empty() {
            place = Place::take(&self.0, (user.clone(), address), OF_USER_MAX).await;
            if place.is_none() {
                return task.give_up();
            }
        }
        let begun = Instant::now();
        let judgement = if task.is_slow() {
            self.judge_slowly(task).await
        } else {
            task.run()
        };
        match judgement.1 {
            Verdict::Refused => {
                let now_ms = clock::now().monotonic_ms;
                let delay_ms = self.0.failures.borrow_mut().failed(now_ms, &user, address);
                self.0.refused.set(self.0.refused.get() + 1);
                self.log_refusal(&user, from, mechanism, reason);
                sleep_until(begun + Duration::from_millis(delay_ms)).await;
            }
            Verdict::Welcome { .. } => self.0.failures.borrow_mut().succeeded(&user, address),
            Verdict::Challenge(_) | Verdict::Busy => {}
        }
        drop(place);
        judgement
    }

    /// Logins that were refused since the process started.
    pub(crate) fn refused(&self) -> u64 {
        self.0.refused.get()
    }

    async fn judge_slowly(&self, task: LoginTask) -> Judgement {
        let everybody_there = (String::new(), task.address().map(neighbourhood));
        let place = Place::take(&self.0, everybody_there, OF_ADDRESS_MAX).await;
        let (Some(_place), Some(thread)) = (place, self.0.thread.get_or_init(start)) else {
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
    fn log_refusal(&self, user: &str, address: Option<IpAddr>, mechanism: &str, reason: &str) {
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
            "{reason}"
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

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Waker};

    use super::*;
    use crate::auth::Users;
    use crate::model::{Secret, StoredPassword};

    const SALTED: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$\
                          iWh06vD8Fy27wf9npn6FXWiCX4K6pW6Ue1Bnzz07Z8A";

    fn users() -> Arc<Users> {
        let plain = StoredPassword::Plain(Secret::new(String::from("secret")));
        let keys = StoredPassword::Keys(Secret::new(String::from(SALTED)));
        let list = [("ann", plain), ("slow", keys)].map(|(name, it)| (name.to_owned(), it));
        Arc::new(Users::new(&BTreeMap::from(list)))
    }

    fn task(mechanism: &str, response: &str) -> LoginTask {
        let dialogue = Dialogue::new(mechanism, None).expect("the mechanism is known");
        LoginTask::new(dialogue, users(), response.as_bytes().to_vec())
    }

    type Login<'a> = Pin<Box<dyn Future<Output = Judgement> + 'a>>;

    fn begin<'a>(logins: &'a Logins, mechanism: &str, response: &str) -> Login<'a> {
        Box::pin(logins.judge(task(mechanism, response)))
    }

    /// The verdict, if there is one without waiting for anything.
    fn verdict(login: &mut Login<'_>) -> Option<Verdict> {
        let polled = login.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        match polled {
            std::task::Poll::Ready((_, verdict)) => Some(verdict),
            std::task::Poll::Pending => None,
        }
    }

    fn ann(password: &str) -> String {
        format!("\0ann\0{password}")
    }

    #[tokio::test]
    async fn refusals_that_nobody_waits_for_any_more_give_their_place_back() {
        let logins = Logins::default();
        let mut wrong: Vec<_> = (0..10)
            .map(|_| begin(&logins, "PLAIN", &ann("wrong")))
            .collect();
        for login in &mut wrong {
            assert_eq!(verdict(login), None);
        }
        let mut right = begin(&logins, "PLAIN", &ann("secret"));
        assert_eq!(verdict(&mut right), None, "it waits for the refusals");
        drop(wrong);
        assert!(matches!(verdict(&mut right), Some(Verdict::Welcome { .. })));
        drop(right);
        assert!(logins.0.lines.borrow().is_empty());
    }

    #[tokio::test]
    async fn malformed_logins_do_not_stand_in_the_way_of_others() {
        let logins = Logins::default();
        let mut malformed: Vec<_> = ["PLAIN", "SCRAM-SHA-256"]
            .into_iter()
            .flat_map(|mechanism| (0..10).map(move |_| mechanism))
            .map(|mechanism| begin(&logins, mechanism, "x"))
            .collect();
        for login in &mut malformed {
            assert_eq!(verdict(login), None, "the refusal is late");
        }
        let mut first = begin(&logins, "SCRAM-SHA-256", "n,,n=ann,r=abc");
        assert!(matches!(verdict(&mut first), Some(Verdict::Challenge(_))));
    }

    #[tokio::test]
    async fn who_has_no_password_is_refused_and_counted_as_a_wrong_password() {
        let logins = Logins::default();
        let stranger = LoginTask::refused("EXTERNAL", Some("mallory"), None, users());
        assert_eq!(stranger.mechanism(), "EXTERNAL");
        assert_eq!(stranger.claimed().as_deref(), Some("mallory"));
        assert!(stranger.refusal().contains("users.conf"));
        let mut login: Login<'_> = Box::pin(logins.judge(stranger));
        assert_eq!(verdict(&mut login), None, "the refusal is late");
        assert_eq!(logins.refused(), 1);
        for (said, told) in [
            ("ANONYMOUS", "ANONYMOUS"),
            ("SCRAM-SHA-256", "SCRAM-SHA-256"),
            ("x", "unknown"),
        ] {
            let nobody = LoginTask::refused(said, None, None, users());
            assert_eq!(nobody.mechanism(), told);
            assert_eq!(nobody.claimed(), None);
            assert!(nobody.refusal().contains("a user and a password"));
            let refused = logins.refused();
            let mut login: Login<'_> = Box::pin(logins.judge(nobody));
            assert_eq!(verdict(&mut login), None, "the refusal is late");
            assert_eq!(logins.refused(), refused + 1);
        }
    }

    #[tokio::test]
    async fn all_addresses_of_a_network_of_64_bits_are_one() {
        let logins = Logins::default();
        let try_from = |address: &str, password: &str| {
            let address = address.parse().expect("an address");
            let dialogue = Dialogue::new("PLAIN", Some(address)).expect("it is known");
            let task = LoginTask::new(dialogue, users(), ann(password).into_bytes());
            Box::pin(logins.judge(task)) as Login<'_>
        };
        let mut wrong: Vec<_> = (1..=OF_USER_MAX)
            .map(|host| try_from(&format!("2001:db8:1:2:{host}::1"), "wrong"))
            .collect();
        for login in &mut wrong {
            assert_eq!(verdict(login), None);
        }
        let mut neighbour = try_from("2001:db8:1:2:ffff::1", "secret");
        assert_eq!(verdict(&mut neighbour), None, "it waits for the refusals");
        for stranger in ["2001:db8:1:3::1", "192.0.2.1", "::1"] {
            let said = verdict(&mut try_from(stranger, "secret"));
            assert!(
                matches!(said, Some(Verdict::Welcome { .. })),
                "{stranger}: {said:?}"
            );
        }
    }

    #[tokio::test]
    async fn those_in_line_are_bounded_and_one_address_does_not_fill_the_line_of_the_thread() {
        let logins = Logins::default();
        let mut all: Vec<_> = (0..OF_USER_MAX + IN_LINE_MAX + 1)
            .map(|_| begin(&logins, "PLAIN", &ann("wrong")))
            .collect();
        let verdicts: Vec<_> = all.iter_mut().filter_map(verdict).collect();
        assert_eq!(verdicts, [Verdict::Busy]);
        drop(all);
        // Without the thread's answers, as if it were busy for long.
        let (sender, orders) = sync_channel(WAITING_MAX);
        logins
            .0
            .thread
            .set(Some(sender))
            .expect("it was not needed yet");
        let mut all: Vec<_> = (0..200)
            .map(|user| begin(&logins, "PLAIN", &format!("\0user {user}\0x")))
            .collect();
        for login in &mut all {
            assert_eq!(verdict(login), None);
        }
        assert_eq!(orders.try_iter().count(), OF_ADDRESS_MAX);
    }
}
