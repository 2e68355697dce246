//! Carries out what administrators ask for, on the engine thread; files are read and written on
//! threads where nobody waits for them, one change at a time.

mod clients;
mod denials;
mod destinations;
mod figures;
mod files;
mod messages;
mod rights;
mod safety;
mod stores;
mod subscriptions;
mod wire;

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::{spawn_blocking, spawn_local};

use super::clock;
use super::engine::Engine;
use super::log;
use super::server::News;
use crate::admin::{self, Answer, Audit, Failure, Object, OnStandby, Request, Verb};
use crate::auth::{Dialogue, LoginTask, Users, Verdict};
use crate::config::companions::Companions;
use crate::config::{Config, Given, load_anyway};
use crate::model::{Directory, StoredPassword};
use crate::monitor::{Board, Status};
use crate::node::{ManagementReply, RequestId};
use crate::proto::Value;
use crate::proto::message::ValueMessage;

use denials::Denials;
use files::InEffect;
pub(crate) use files::Setup;
use rights::Caller;
use safety::Safe;

/// Requests that are being answered at the same time; further ones are refused.
const CALLS_MAX: usize = 256;

/// Where requests go.
pub(super) type Calls = mpsc::Sender<Call>;

/// A request, who made it, and where its answer goes.
pub(super) struct Call {
    /// The user of the connection.
    pub(super) user: Option<String>,
    /// The user was proved.
    pub(super) is_verified: bool,
    /// Where the client is.
    pub(super) address: Option<IpAddr>,
    pub(super) message: ValueMessage,
    pub(super) reply_to: ReplyTo,
}

/// Where an answer goes.
pub(super) enum ReplyTo {
    /// To a client of the active server.
    Node(Engine, RequestId),
    /// To an administrator of a server that is not active.
    Standby(mpsc::Sender<(u64, ManagementReply)>, u64),
}

impl ReplyTo {
    fn send(self, reply: ManagementReply) {
        match self {
            Self::Node(engine, id) => engine.reply(id, reply),
            // Nobody listens when the client is gone.
            Self::Standby(sender, number) => drop(sender.try_send((number, reply))),
        }
    }
}

impl Call {
    /// There is no room for it.
    pub(super) fn refuse(self) {
        self.reply_to.send(ManagementReply {
            status: 503,
            description: "the server has too many requests to answer: try again".to_owned(),
            body: Value::Null,
        });
    }
}

/// What an administrator wants of the server as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Stop in order.
    Shutdown,
    /// Stop in order, then begin again as a standby.
    Switchover,
}

/// Begins to answer requests. The last argument: what the server was started with, what its files say, and whether
/// users are checked. To be used within the engine's `LocalSet`.
pub(crate) fn start(
    engine: &Engine,
    board: &Board,
    news: &mpsc::Sender<News>,
    (given, companions): (Given, Companions),
) -> Rc<Administrator> {
    let (calls, requests) = mpsc::channel(CALLS_MAX);
    engine.set_calls(calls);
    let (started, _) = load_anyway(&given);
    let taken = started.clone();
    let administrator = Rc::new(Administrator {
        engine: engine.clone(),
        board: board.clone(),
        news: news.clone(),
        setup: Arc::new(Setup::new(given)),
        companions: RefCell::new(Arc::new(companions)),
        in_effect: RefCell::new(InEffect { started, taken }),
        changes: Mutex::new(()),
        looks: Mutex::new(()),
        purges: Mutex::new(()),
        denials: RefCell::default(),
    });
    let answering = Rc::clone(&administrator);
    spawn_local(answer_all(requests, move |call| {
        let administrator = Rc::clone(&answering);
        async move {
            let reply = administrator.reply(&call).await;
            call.reply_to.send(reply);
        }
    }));
    administrator
}

/// Answers requests as they come, each for itself, so many at the same time as there may be.
async fn answer_all<A: Future<Output = ()> + 'static>(
    mut requests: mpsc::Receiver<Call>,
    answer: impl Fn(Call) -> A,
) {
    let places = Arc::new(Semaphore::new(CALLS_MAX));
    while let Some(call) = requests.recv().await {
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            call.refuse();
            continue;
        };
        let answered = answer(call);
        spawn_local(async move {
            answered.await;
            drop(place);
        });
    }
}

/// Answers administrators.
pub(crate) struct Administrator {
    engine: Engine,
    board: Board,
    news: mpsc::Sender<News>,
    setup: Arc<Setup>,
    /// What the files said when they were last read.
    companions: RefCell<Arc<Companions>>,
    in_effect: RefCell<InEffect>,
    /// Changes of files come one after the other.
    changes: Mutex<()>,
    /// So do looks at messages: what they read is in memory for a moment.
    looks: Mutex<()>,
    /// And purges: each tells what it has dropped itself.
    purges: Mutex<()>,
    denials: RefCell<Denials>,
}

type Result<T> = std::result::Result<T, Failure>;

impl Administrator {
    async fn reply(self: &Rc<Self>, call: &Call) -> ManagementReply {
        let answer = match wire::request(&call.message) {
            Ok(wire::Asked::Command(request)) => self.answer(call, &request).await,
            Ok(wire::Asked::Description(value)) => {
                return ManagementReply {
                    status: 200,
                    description: "OK".to_owned(),
                    body: value,
                };
            }
            Err(failure) => Err(failure),
        };
        wire::reply(answer.unwrap_or_else(Answer::from))
    }

    async fn answer(self: &Rc<Self>, call: &Call, request: &Request) -> Result<Answer> {
        let status = self.board.read().1;
        self.check_place(request, &status)?;
        let caller = Caller {
            user: call.user.as_deref(),
            is_verified: call.is_verified,
            address: call.address,
        };
        let directory = self.engine.directory();
        let mut allowed = rights::check(&directory, &status.server, &caller, request);
        if allowed.is_ok() && rights::needs_old_password(&directory, &caller, request) {
            allowed = self.check_old_password(&directory, call, request).await;
        }
        let is_change = request.command.is_change();
        if let Err(denial) = allowed {
            let now_ms = clock::now().monotonic_ms;
            if is_change && let Some(not_logged) = self.denials.borrow_mut().log(now_ms) {
                log_change(call, request, Err(&denial), not_logged);
            }
            return Err(denial);
        }
        let answer = self.carry_out(call, request, &status).await;
        if is_change {
            log_change(call, request, answer.as_ref(), 0);
        }
        answer
    }

    /// Whether a user who changes his password knows the old one. A wrong one costs what it costs at a login.
    async fn check_old_password(
        &self,
        directory: &Directory,
        call: &Call,
        request: &Request,
    ) -> Result<()> {
        let user = call.user.as_deref().unwrap_or_default();
        let old = request.arguments.name(2);
        let stored = directory.users.get(user);
        if old.is_empty() && stored == Some(&StoredPassword::Empty) {
            // He has a certificate, and no password yet.
            return Ok(());
        }
        let write = "write set password USER NEW OLD";
        if old.is_empty() {
            let text = format!("your old password is needed, too: {write}");
            return Err(Failure::new(403, text));
        }
        let own = stored.map(|stored| (user.to_owned(), stored.clone()));
        let users = Arc::new(Users::new(&own.into_iter().collect()));
        let Some(dialogue) = Dialogue::new("PLAIN", call.address) else {
            return Err(Failure::new(500, "passwords cannot be checked here"));
        };
        let response = format!("\0{user}\0{old}").into_bytes();
        let task = LoginTask::new(dialogue, users, response);
        match self.engine.judge_password(task).await {
            Verdict::Welcome { .. } => Ok(()),
            Verdict::Busy => Err(Failure::new(503, "too many logins at once: try again")),
            Verdict::Refused | Verdict::Challenge(_) => {
                let text = format!("the old password is wrong: {write}");
                Err(Failure::new(403, text))
            }
        }
    }

    /// Whether the server can do it in its present state.
    fn check_place(&self, request: &Request, status: &Status) -> Result<()> {
        let command = request.command;
        if status.is_active() {
            return Ok(());
        }
        match command.standby {
            OnStandby::Always => Ok(()),
            OnStandby::WithFiles if !self.setup.is_json() => Ok(()),
            OnStandby::WithFiles => Err(Failure::conflict(format!(
                "this server is {} and shares a JSON configuration with its peer: here only show \
                 state, show connections, shutdown and rotatelog can be used; connect to {}",
                state_words(status.role),
                active_words(status)
            ))),
            OnStandby::No => Err(Failure::conflict(format!(
                "this server is {}: `{}` is for the active server; connect to {}",
                state_words(status.role),
                command.words,
                active_words(status)
            ))),
        }
    }

    async fn carry_out(
        self: &Rc<Self>,
        call: &Call,
        request: &Request,
        status: &Status,
    ) -> Result<Answer> {
        let (verb, object) = (request.command.verb, request.command.object);
        match (verb, object) {
            (Verb::WhoAmI, _) => Ok(Answer::record(vec![
                ("user", call.user.as_deref().unwrap_or("anonymous").into()),
                ("server", status.server.as_str().into()),
            ])),
            (Verb::Shutdown, _) => self.order(Order::Shutdown, "the server stops").await,
            (Verb::Switchover, _) => {
                figures::check_switchover(status)?;
                let text = "the server hands over to its standby and comes back as a standby";
                self.order(Order::Switchover, text).await
            }
            (Verb::RotateLog, _) => rotate_log().await,
            (Verb::List, Object::Config) => self.read_config().await,
            (Verb::Set, Object::Server) => self.set_server(request).await,
            (Verb::List | Verb::Show, Object::Message) => {
                let _one_at_a_time = self.looks.lock().await;
                messages::show(&self.engine, request).await
            }
            (Verb::Delete, Object::Message) => {
                let _one_at_a_time = self.looks.lock().await;
                messages::delete(&self.engine, status, request).await
            }
            (Verb::List | Verb::Show, _) => {
                let files = Arc::clone(&self.companions.borrow());
                let from_files = match verb {
                    Verb::List => admin::list_files(request, &files),
                    _ => admin::show_files(request, &files),
                };
                match from_files {
                    Some(answer) => answer,
                    None => figures::show(&self.engine, status, &files, request),
                }
            }
            (Verb::Delete, Object::Connection) => {
                clients::delete_connection(&self.engine, request.arguments.name(0))
            }
            (Verb::Purge, _) => {
                let _one_at_a_time = self.purges.lock().await;
                destinations::purge(&self.engine, request).await
            }
            (Verb::Compact, _) => Ok(stores::compact(status)),
            _ => {
                self.change_files(call.user.as_deref(), request, status)
                    .await
            }
        }
    }

    async fn order(&self, order: Order, text: &str) -> Result<Answer> {
        let (news, engine) = (self.news.clone(), self.engine.clone());
        spawn_local(async move {
            // The answer leaves first.
            engine.settle_output().await;
            // Nobody listens only while the process ends anyway.
            let _ = news.send(News::Ordered(order)).await;
        });
        Ok(Answer::done(text))
    }

    async fn read_config(&self) -> Result<Answer> {
        let setup = Arc::clone(&self.setup);
        let in_effect = self.in_effect.borrow().clone();
        blocking(move || setup.show_config(&in_effect)).await?
    }

    async fn set_server(self: &Rc<Self>, request: &Request) -> Result<Answer> {
        let _one_at_a_time = self.changes.lock().await;
        let (setup, settings) = (Arc::clone(&self.setup), request.arguments.settings.clone());
        let seed = fastrand::u64(..);
        let changed = blocking(move || setup.set_parameters(&settings, seed)).await??;
        self.take(changed.config, changed.companions);
        Ok(Answer::done(changed.text))
    }

    async fn change_files(
        self: &Rc<Self>,
        user: Option<&str>,
        request: &Request,
        status: &Status,
    ) -> Result<Answer> {
        let one_at_a_time = self.changes.lock().await;
        let (setup, owned) = (Arc::clone(&self.setup), request.clone());
        let user = user.map(str::to_owned);
        let changed = blocking(move || setup.change(&owned, user.as_deref())).await?;
        let is_queue = request.command.object == Object::Queue && status.is_active();
        let is_durable = request.command.object == Object::Durable && status.is_active();
        // What the files refuse is refused as a whole: no message may go for it.
        let is_refused = |failure: &Failure| !matches!(failure.status, 404 | files::NO_FILE);
        let mut safe = Safe::Now;
        let mut note = |(answer, safe_when)| {
            safe = safe_when;
            answer
        };
        let live = match request.command.verb {
            _ if changed.as_ref().is_err_and(is_refused) => None,
            Verb::Create if is_queue => {
                destinations::create_queue(&self.engine, request).map(&mut note)
            }
            Verb::Delete if is_queue => {
                destinations::delete_queue(&self.engine, request).map(&mut note)
            }
            Verb::Delete if is_durable => {
                match subscriptions::delete_durable(&self.engine, request) {
                    // The line is gone all the same.
                    Err(failure) if changed.is_ok() => Some(Answer::done(failure.text)),
                    live => live?.map(&mut note),
                }
            }
            Verb::DeleteAll if is_queue => {
                destinations::delete_all_queues(&self.engine).map(&mut note)
            }
            Verb::DeleteAll if is_durable => {
                subscriptions::delete_all_durables(&self.engine).map(&mut note)
            }
            _ => None,
        };
        let answer = match (changed, live) {
            (Ok(changed), live) => {
                self.take(changed.config, changed.companions);
                let live = live.filter(|_| request.command.is_destructive());
                let more = live.map_or_else(String::new, |live| format!("; {}", live.text));
                Ok(Answer::done(changed.text + &more))
            }
            // A queue that only the store knows, or no file to write to.
            (Err(_), Some(answer)) => Ok(answer),
            (Err(failure), None)
                if is_queue
                    && failure.status == files::NO_FILE
                    && request.command.verb == Verb::Delete =>
            {
                let name = request.arguments.name(0);
                Err(Failure::missing(format!("there is no queue `{name}`")))
            }
            (Err(failure), _) => Err(failure),
        };
        drop(one_at_a_time);
        safe.when(&self.engine, answer?).await
    }

    /// The files say something else now.
    fn take(self: &Rc<Self>, config: Config, companions: Companions) {
        let administrator = Rc::clone(self);
        let directory = companions.directory(config.authorization);
        let is_about_logins = directory.authorization != self.engine.directory().authorization;
        self.configured(config.clone(), companions.clone());
        if !is_about_logins {
            self.engine.set_directory(Arc::new(directory));
        }
        spawn_local(async move {
            if is_about_logins {
                // The connection of the administrator may be among those that have to log in: the answer leaves first.
                administrator.engine.settle_output().await;
            }
            let fresh = Box::new((config, companions));
            // Nobody listens only while the process ends.
            let _ = administrator.news.send(News::Configured(fresh)).await;
        });
    }

    /// What the files say, as it was read last.
    pub(crate) fn configured(&self, config: Config, companions: Companions) {
        self.in_effect.borrow_mut().taken = config;
        self.companions.replace(Arc::new(companions));
    }
}

/// `not_logged`: commands that were denied before and left no line.
fn log_change(
    call: &Call,
    request: &Request,
    answer: std::result::Result<&Answer, &Failure>,
    not_logged: u64,
) {
    let audit = Audit::new(request);
    let (status, reason) = match answer {
        Ok(answer) => (answer.status, None),
        Err(failure) => (failure.status, Some(failure)),
    };
    tracing::info!(
        event = "administration",
        user = call.user.as_deref().unwrap_or("anonymous"),
        command = request.command.words,
        about = audit.about,
        arguments = audit.arguments,
        status,
        reason = reason.map(|failure| audit.reason(&failure.text)),
        not_logged = (not_logged > 0).then_some(not_logged),
        "an administrator's command"
    );
}

/// Runs what blocks on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    spawn_blocking(work)
        .await
        .map_err(|error| Failure::new(500, format!("a thread failed: {error}")))
}

async fn rotate_log() -> Result<Answer> {
    let rotated = blocking(log::rotate).await?;
    match rotated {
        Ok(Some(kept)) => Ok(Answer::done(format!(
            "the log so far is {}",
            kept.display()
        ))),
        Ok(None) => Err(Failure::conflict(
            "the log goes to standard error, not to a file: set the parameter `logfile`",
        )),
        Err(error) => Err(Failure::new(
            500,
            format!("the log cannot be rotated: {error}"),
        )),
    }
}

/// Where the active server is.
fn active_words(status: &Status) -> String {
    let active = status.peers.iter().find(|peer| peer.role == "active");
    match active.map(|peer| peer.listens.join(" or ")) {
        Some(urls) if !urls.is_empty() => format!("that: {urls}"),
        _ => "that one, which is not in sight of this one now".to_owned(),
    }
}

fn state_words(role: &str) -> &str {
    match role {
        "standby" => "standing by",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::{LocalSet, yield_now};

    use super::*;

    fn call(number: u64, replies: &mpsc::Sender<(u64, ManagementReply)>) -> Call {
        Call {
            user: None,
            is_verified: false,
            address: None,
            message: ValueMessage::default(),
            reply_to: ReplyTo::Standby(replies.clone(), number),
        }
    }

    #[tokio::test]
    async fn requests_that_are_not_answered_leave_room_for_so_many_others_only() {
        let (calls, requests) = mpsc::channel(1);
        let (replies, mut replied) = mpsc::channel(8);
        let (free, waits) = tokio::sync::watch::channel(());
        let answers = move |call: Call| {
            let mut waits = waits.clone();
            async move {
                // The first ends when it is told to, the others never do.
                if matches!(&call.reply_to, ReplyTo::Standby(_, 0)) {
                    let _changed = waits.changed().await;
                } else {
                    pending::<()>().await;
                }
            }
        };
        let test = async {
            spawn_local(answer_all(requests, answers));
            for number in 0..CALLS_MAX as u64 {
                assert!(calls.send(call(number, &replies)).await.is_ok());
            }
            assert!(calls.send(call(1000, &replies)).await.is_ok());
            let (number, reply) = replied.recv().await.expect("an answer");
            assert_eq!((number, reply.status), (1000, 503));
            free.send_replace(());
            while replies.strong_count() > CALLS_MAX {
                yield_now().await;
            }
            assert!(calls.send(call(1001, &replies)).await.is_ok());
            assert!(calls.send(call(1002, &replies)).await.is_ok());
            let (number, reply) = replied.recv().await.expect("an answer");
            assert_eq!((number, reply.status), (1002, 503));
        };
        LocalSet::new().run_until(test).await;
    }
}
