//! A server from start to end: listeners, role, peers, store, engine, monitor, signals.
//!
//! The calling thread becomes the engine thread. Everything that happens arrives in one channel as
//! `News`, goes into the role, and the role's actions are performed in order; nothing here
//! decides anything.

mod configuration;
mod handover;

use std::collections::BTreeMap;
use std::net::{TcpListener as StdListener, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::admin::{self, Administrator, Order};
use super::engine::{Engine, EngineSettings};
use super::handshakes::Handshakes;
use super::listen::{Guard, Listeners, connections_max};
use super::log;
use super::opener::{Opened, Opener, PeerStore, hexadecimal};
use super::peer::{ConnectFailure, Hello, Links, PeerEvent, Relation};
use super::service::{self, Service};
use super::signals::StopSignals;
use super::snapshot::{Identity, PeerView, PeerViews, RecoveryView, Sources, Trouble, status};
use super::tls::ServerTls;
use crate::config::companions::Companions;
use crate::config::{Config, Given, ListenUrl, PeerUrl};
use crate::monitor::{self, Board};
use crate::node::{NodeSettings, ServerAddress};
use crate::role::{
    Action, EngineMode, Event, Exit, Input, LinkId, LockResult, PeerNews, RecoveryResult, Role,
    Settings, State,
};

use configuration::{Differences, Published, Rereading};
pub use configuration::{Reload, log_warning};

/// How often the monitor gets a new snapshot.
const SNAPSHOT: Duration = Duration::from_millis(100);
/// News that may wait; senders wait when there are more.
const NEWS_MAX: usize = 256;
/// A second signal so soon after the first is the same wish.
const SIGNAL_REPEAT: Duration = Duration::from_secs(1);
/// The same refusal is logged again after so long.
const REFUSAL_REPEAT: Duration = Duration::from_secs(600);
/// Different refusals are at least so far apart in the log.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);

/// Something that happened outside the engine thread's own loop.
pub(crate) enum News {
    /// A link came, spoke or went.
    Peer(PeerEvent),
    /// Answer of the opener.
    Lock(LockResult),
    /// The store is open.
    Opened(Opened),
    /// The store is not open.
    Recovery(RecoveryResult),
    /// The store failed for good.
    StoreFailed(String),
    /// The engine has stopped.
    Stopped,
    /// An administrator wants it.
    Ordered(Order),
    /// An administrator changed the configuration files.
    Configured(Box<(Config, Companions)>),
}

/// Runs a server on this thread until it ends. `given` is what the configuration was made of, `companions` what the
/// files beside the main file say; `reload` reads all of them again. Returns how it ended, and the message for the
/// operator. After a switchover the program begins again in this process and nothing is returned.
#[must_use]
pub fn run(given: Given, config: Config, companions: Companions, reload: Reload) -> (Exit, String) {
    let started = Instant::now();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return (Exit::Failed, format!("no runtime: {error}")),
    };
    let program = handover::Program::of_this_process();
    let local = LocalSet::new();
    let end = local.block_on(&runtime, async {
        match Server::start(given, (config, companions), reload, started).await {
            Ok(mut server) => (server.drive().await, server.is_handed_over),
            Err(end) => (end, false),
        }
    });
    // Tasks that still run, and host names that are still looked up, end with the process.
    runtime.shutdown_background();
    match end {
        ((Exit::Done, _), true) => (Exit::Failed, program.begin_again()),
        (end, _) => end,
    }
}

struct Server {
    config: Config,
    role: Role,
    state_since: Instant,
    engine: Engine,
    opener: Opener,
    opened: Option<Opened>,
    recovery: RecoveryView,
    links: Links,
    local: watch::Sender<Hello>,
    hang_ups: BTreeMap<LinkId, Arc<Notify>>,
    peers: PeerViews,
    /// What was said of the configurations of peers.
    differences: Differences,
    published: Published,
    reload: Reload,
    rereading: Option<Rereading>,
    /// They changed while they were read.
    rereads_again: bool,
    /// Time has passed since the files were read: somebody else was active.
    has_stood_by: bool,
    /// The store that this server serves.
    store_id: Option<[u8; 16]>,
    /// The store that the last active peer owned.
    peer_store: Option<PeerStore>,
    refusal: Option<(Instant, String)>,
    /// Answers administrators.
    administrator: Rc<Administrator>,
    /// It stops in order to come back as a standby.
    is_handed_over: bool,
    news: mpsc::Receiver<News>,
    news_sender: mpsc::Sender<News>,
    signals: StopSignals,
    identity: Identity,
    board: Board,
    monitor_url: Option<String>,
    service: Service,
    /// Keeps certificates fresh.
    tls: ServerTls,
}

impl Server {
    async fn start(
        given: Given,
        (config, companions): (Config, Companions),
        reload: Reload,
        started: Instant,
    ) -> Result<Self, (Exit, String)> {
        let failed = |text: String| (Exit::Failed, text);
        let connections = connections_max(config.max_connections);
        let signals = StopSignals::listen().map_err(|error| failed(format!("signals: {error}")))?;
        let tls = ServerTls::prepare(&config).map_err(|text| (Exit::Usage, text))?;
        let guard = guard(&tls, &config).map_err(failed)?;
        let listeners = Listeners::bind(&config).await.map_err(failed)?;
        let monitor = bind_monitor(&config).map_err(failed)?;
        let monitor_url = monitor.as_ref().map(|(url, _)| url.clone());

        let (news_sender, news) = mpsc::channel(NEWS_MAX);
        let instance = format!("{:032x}", fastrand::u128(..));
        let (local, local_receiver) =
            watch::channel(first_hello(&config, &instance, &listeners.urls));
        let published = Published::begin(&config, &companions, &listeners.places).await;
        let published = published.map_err(failed)?;
        let events = forward_peers(news_sender.clone());
        let links = published.links(&config, &tls, local_receiver, events);
        let opener = Opener::spawn(
            &config,
            holder(&config, &listeners.urls),
            news_sender.clone(),
        );
        let opener = opener.map_err(|error| failed(format!("no thread: {error}")))?;
        let engine = Engine::new(engine_settings(&config, &listeners.places));
        engine.set_directory(Arc::new(companions.directory(config.authorization)));
        let identity = Identity {
            server: config.server.clone(),
            instance,
            listens: listeners.urls.clone(),
            started,
        };
        listeners.accept(&engine, &links, connections, guard);
        let board = Board::new(monitor::Status::default());
        let service = service::spawn(board.clone());
        let service = service.map_err(|error| failed(format!("no thread: {error}")))?;
        let administrator = admin::start(&engine, &board, &news_sender, (given, companions));
        let server = Self {
            role: Role::new(role_settings(&config), elapsed_ms(started)),
            config,
            state_since: Instant::now(),
            engine,
            opener,
            opened: None,
            recovery: RecoveryView::default(),
            links,
            local,
            hang_ups: BTreeMap::new(),
            peers: PeerViews::default(),
            differences: Differences::default(),
            published,
            reload,
            rereading: None,
            rereads_again: false,
            has_stood_by: false,
            store_id: None,
            peer_store: None,
            refusal: None,
            administrator,
            is_handed_over: false,
            news,
            news_sender,
            signals,
            identity,
            board,
            monitor_url,
            service,
            tls,
        };
        server.begin(monitor).map_err(failed)?;
        Ok(server)
    }

    /// Whatever goes on beside the role.
    fn begin(&self, monitor: Option<(String, StdListener)>) -> Result<(), String> {
        self.post();
        self.watch_store();
        for url in &self.config.unshared_peers {
            spawn_local(self.links.clone().keep_calling(url.clone()));
        }
        if let Some((url, listener)) = monitor {
            monitor::spawn(listener, self.board.clone(), self.tls.monitor.clone())
                .map_err(|error| format!("monitor_listen: {url}: {error}"))?;
        }
        Ok(())
    }

    async fn drive(&mut self) -> (Exit, String) {
        let mut snapshots = interval(SNAPSHOT);
        snapshots.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_changed = false;
        loop {
            while let Some(action) = self.role.poll_action() {
                if let Some(end) = self.perform(action) {
                    self.post();
                    if self.is_handed_over && end.0 == Exit::Done {
                        self.await_successor().await;
                    }
                    return end;
                }
            }
            self.post();
            if std::mem::take(&mut is_changed) {
                self.service.look();
            }
            let input = loop {
                let deadline = self.role.poll_timeout().map(|at_ms| self.instant(at_ms));
                tokio::select! {
                    Some(news) = self.news.recv() => {
                        if matches!(news, News::Opened(_)) {
                            self.finish_rereading().await;
                        }
                        match self.take(news) {
                            Ok(input) => break input,
                            Err(end) => return end,
                        }
                    }
                    fresh = wait_for(&mut self.rereading) => {
                        self.finish(fresh);
                    }
                    signal = self.signals.next() => {
                        if signal == "SIGHUP" && self.config.main_file.is_some() {
                            self.reread();
                            break Input::Tick;
                        }
                        // Whoever ends the process does not want it to begin again.
                        self.set_handed_over(false);
                        if self.role.state() == State::Stopping {
                            if self.state_since.elapsed() < SIGNAL_REPEAT {
                                // Some senders signal a process and then its group.
                                break Input::Tick;
                            }
                            let text = format!("{signal} again: stopped at once");
                            return (Exit::Failed, text);
                        }
                        break Input::Stop { reason: signal.to_owned() };
                    }
                    () = wait_until(deadline) => break Input::Tick,
                    _ = snapshots.tick() => {
                        self.tell_lasting();
                        self.post();
                    }
                }
            };
            let state = self.role.state();
            self.engine
                .set_active(self.peers.owner().and_then(server_address));
            self.role.handle(elapsed_ms(self.identity.started), input);
            if self.role.state() != state {
                self.state_since = Instant::now();
                is_changed = true;
            }
        }
    }

    // What happened

    /// The input that news is; `Err` ends the process.
    fn take(&mut self, news: News) -> Result<Input, (Exit, String)> {
        Ok(match news {
            News::Peer(event) => return self.take_peer(event),
            News::Lock(result) => Input::Lock(result),
            News::Recovery(result) => Input::Recovery(result),
            News::Opened(opened) => {
                let epoch = opened.report.epoch;
                self.opened = Some(opened);
                Input::Recovery(RecoveryResult::Ready { epoch })
            }
            News::StoreFailed(reason) => Input::StoreFailed { reason },
            News::Stopped => Input::Stopped,
            News::Ordered(order) => self.take_order(order),
            News::Configured(fresh) => {
                self.configured(*fresh);
                Input::Tick
            }
        })
    }

    fn take_peer(&mut self, event: PeerEvent) -> Result<Input, (Exit, String)> {
        Ok(match event {
            PeerEvent::Connected {
                link,
                peer,
                relation,
                server,
                news,
                listens,
                store,
                hang_up,
            } => {
                self.hang_ups.insert(link, hang_up);
                let view = PeerView::new(server, relation, news.clone(), listens);
                self.peers.add(link, view);
                if relation == Relation::Unshared {
                    log::unshared_peer(&news, true, "");
                    return Ok(Input::Tick);
                }
                self.weigh_store(&news, store)?;
                Input::Connected { link, peer, news }
            }
            PeerEvent::Heard {
                link,
                news,
                listens,
                store,
            } => {
                // A last word of a link that was hung up is no news.
                if !self.hang_ups.contains_key(&link) {
                    return Ok(Input::Tick);
                }
                if self.peers.heard(link, news.clone(), listens) == Some(Relation::Unshared) {
                    return Ok(Input::Tick);
                }
                self.weigh_store(&news, store)?;
                Input::Heard { link, news }
            }
            PeerEvent::Compared { link, differences } => {
                self.compared(link, differences);
                Input::Tick
            }
            PeerEvent::Lost { link, reason } => {
                self.hang_ups.remove(&link);
                match self.peers.remove(link) {
                    Some(view) if view.relation == Relation::Unshared => {
                        log::unshared_peer(&view.news, false, &reason);
                        Input::Tick
                    }
                    _ => Input::LinkLost { link, reason },
                }
            }
            PeerEvent::ConnectFailed { peer, failure } => self.take_failure(peer, failure)?,
            PeerEvent::CallRefused { reason } => {
                // Anybody may have called: what is the matter with the peer is learned by calling it.
                self.log_refusal(reason);
                Input::Tick
            }
        })
    }

    /// Two servers of a pair that are active on two stores are two masters: no lock can tell. The one
    /// with the shorter history ends.
    fn weigh_store(
        &mut self,
        news: &PeerNews,
        store: Option<String>,
    ) -> Result<(), (Exit, String)> {
        let Some(id) = store.filter(|_| news.state.owns_store()) else {
            return Ok(());
        };
        let theirs = PeerStore {
            id,
            peer: news.name.clone(),
        };
        let own = self.local.borrow().store.clone();
        let ends = match own {
            Some(own) if self.role.state() == State::Active && own != theirs.id => {
                (self.role.epoch(), &own) < (news.epoch, &theirs.id)
            }
            _ => false,
        };
        if ends {
            return Err((Exit::NotOwner, theirs.complaint(&self.config.store)));
        }
        self.peer_store = Some(theirs);
        Ok(())
    }

    fn take_failure(
        &mut self,
        peer: usize,
        failure: ConnectFailure,
    ) -> Result<Input, (Exit, String)> {
        let url = self
            .config
            .peers
            .get(peer)
            .map(ToString::to_string)
            .unwrap_or_default();
        let reason = match failure {
            ConnectFailure::Unreachable(reason) => {
                self.peers.trouble(Trouble::NotReached, &url, &reason);
                format!("{url}: {reason}")
            }
            ConnectFailure::Refused(reason) => {
                self.peers.trouble(Trouble::Refused, &url, &reason);
                self.log_refusal(format!("ft_active: {url}: {reason}"));
                format!("{url}: {reason}")
            }
            ConnectFailure::Itself => {
                let text = format!(
                    "ft_active: {url} is this server itself; write the URL of the other server of \
                     the pair"
                );
                if self.role.state() == State::Starting {
                    return Err((Exit::Usage, text));
                }
                self.log_refusal(text.clone());
                text
            }
        };
        Ok(Input::ConnectFailed { peer, reason })
    }

    /// Peers try again every second, and strangers as often as they like: not each try is logged.
    fn log_refusal(&mut self, reason: String) {
        if let Some((at, last)) = &self.refusal {
            let pause = if *last == reason {
                REFUSAL_REPEAT
            } else {
                REFUSAL_PAUSE
            };
            if at.elapsed() < pause {
                return;
            }
        }
        tracing::warn!(event = "peer_refused", reason, "no link to this peer");
        self.refusal = Some((Instant::now(), reason));
    }

    // What to do

    fn perform(&mut self, action: Action) -> Option<(Exit, String)> {
        match action {
            Action::Connect { peer } => {
                if let Some(url) = self.config.peers.get(peer) {
                    spawn_local(self.links.clone().call(peer, url.clone()));
                }
            }
            Action::Drop(link) => {
                self.peers.remove(link);
                if let Some(hang_up) = self.hang_ups.remove(&link) {
                    hang_up.notify_one();
                }
            }
            Action::TryLock => self.opener.try_lock(self.peer_store.clone()),
            Action::Recover => {
                self.opener.recover();
                if self.has_stood_by {
                    self.reread();
                }
            }
            Action::Engine(mode) => self.set_engine(mode),
            Action::Beat { state, epoch } => self.local.send_modify(|hello| {
                state.as_str().clone_into(&mut hello.role);
                hello.epoch = epoch;
                hello.beat += 1;
            }),
            Action::Log(event) => self.log(&event),
            Action::VerifyOwnership => {
                self.engine.verify_ownership();
                if let Some(id) = self.store_id {
                    self.opener.verify(id, self.role.epoch());
                }
            }
            Action::StopEngine => {
                let (engine, news) = (self.engine.clone(), self.news_sender.clone());
                spawn_local(async move {
                    engine.stop().await;
                    // Nobody listens only while the process ends.
                    let _ = news.send(News::Stopped).await;
                });
            }
            Action::Exit { exit, reason } => return Some((exit, self.advise(exit, reason))),
        }
        None
    }

    /// Adds what to do about it where the reason alone does not say so.
    fn advise(&self, exit: Exit, reason: String) -> String {
        if exit == Exit::NotOwner && self.role.state() == State::Activating {
            return format!(
                "{reason}; stop that server, choose another --data, or stand by for it with --set \
                 ft_active=URL"
            );
        }
        reason
    }

    fn set_engine(&mut self, mode: EngineMode) {
        match mode {
            EngineMode::Refuse => {
                self.has_stood_by = true;
                self.engine.refuse();
            }
            EngineMode::Hold => self.engine.hold(),
            EngineMode::Serve => {
                let Some(opened) = self.opened.take() else {
                    return;
                };
                self.store_id = Some(opened.store.id());
                let id = hexadecimal(&opened.store.id());
                self.local.send_modify(|hello| hello.store = Some(id));
                self.engine.serve(*opened.store);
                let lock_to_ready_us = opened.locked_at.elapsed().as_micros();
                self.recovery.lock_to_ready_ms = Some(lock_to_ready_us as f64 / 1_000.0);
                log::recovery_findings(&opened.report);
                self.recovery.report = Some(opened.report);
            }
        }
    }

    fn log(&mut self, event: &Event) {
        match event {
            Event::PeerLost { peer, reason, .. } => {
                self.peers.trouble(Trouble::Lost, peer, reason);
                log::role_event(event);
            }
            Event::Starting => tracing::info!(
                event = "starting",
                server = self.identity.server,
                listens = self.identity.listens.join(","),
                monitor = self.monitor_url.as_deref().unwrap_or("off"),
                store = %self.config.store.display(),
                version = env!("CARGO_PKG_VERSION"),
                process_id = std::process::id(),
                "steadfast starts"
            ),
            Event::Active { epoch } => {
                let report = self.recovery.report.as_ref();
                tracing::info!(
                    event = "active",
                    server = self.identity.server,
                    listens = self.identity.listens.join(","),
                    epoch,
                    lock_to_ready_ms = self.recovery.lock_to_ready_ms.unwrap_or(0.0),
                    messages = report.map_or(0, |report| report.messages),
                    tail_bytes = report.map_or(0, |report| report.tail_bytes),
                    warm = report.map_or("none", |report| report.warm.as_str()),
                    "serving clients"
                );
            }
            other => log::role_event(other),
        }
    }

    /// Tells the role when the store fails.
    fn watch_store(&self) {
        let (engine, news) = (self.engine.clone(), self.news_sender.clone());
        spawn_local(async move {
            let error = engine.failed().await;
            // Nobody listens only while the process ends.
            let _ = news.send(News::StoreFailed(error.to_string())).await;
        });
    }

    fn post(&self) {
        self.board.post(status(&Sources {
            identity: &self.identity,
            state: self.role.state(),
            state_since: self.state_since,
            epoch: self.role.epoch(),
            peers: &self.peers,
            recovery: &self.recovery,
            board: self.opener.board(),
            engine: &self.engine.status(),
        }));
    }

    fn instant(&self, at_ms: u64) -> tokio::time::Instant {
        let at = self
            .identity
            .started
            .checked_add(Duration::from_millis(at_ms));
        at.unwrap_or_else(Instant::now).into()
    }
}

/// What comes of something that may not be under way.
async fn wait_for<T>(pending: &mut Option<T>) -> T::Output
where
    T: Future + Unpin,
{
    match pending {
        Some(pending) => pending.await,
        None => std::future::pending().await,
    }
}

async fn wait_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn first_hello(config: &Config, instance: &str, urls: &[String]) -> Hello {
    Hello {
        server: config.server.clone(),
        role: State::Starting.as_str().to_owned(),
        epoch: 0,
        beat: 0,
        instance: instance.to_owned(),
        listens: urls.to_vec(),
        store: None,
    }
}

/// Peer events join the one channel of news.
fn forward_peers(news: mpsc::Sender<News>) -> mpsc::Sender<PeerEvent> {
    let (sender, mut receiver) = mpsc::channel(NEWS_MAX);
    spawn_local(async move {
        while let Some(event) = receiver.recv().await {
            if news.send(News::Peer(event)).await.is_err() {
                return;
            }
        }
    });
    sender
}

/// The thread of the handshakes, when there is a listener with TLS.
fn guard(tls: &ServerTls, config: &Config) -> Result<Option<Guard>, String> {
    let Some(live) = &tls.clients else {
        return Ok(None);
    };
    let handshakes = Handshakes::start(live.clone());
    let handshakes = handshakes.map_err(|error| format!("no thread for TLS: {error}"))?;
    Ok(Some(Guard::new(handshakes, &config.tls)))
}

fn bind_monitor(config: &Config) -> Result<Option<(String, StdListener)>, String> {
    let Some(url) = &config.monitor_listen else {
        return Ok(None);
    };
    let fault = |error: std::io::Error| {
        format!(
            "monitor_listen: {url}: {error}; stop what uses it, or choose another port: --set \
             monitor_listen=http://127.0.0.1:PORT"
        )
    };
    let host = url.host.as_deref().unwrap_or("0.0.0.0");
    let addresses: Vec<_> = (host, url.port).to_socket_addrs().map_err(fault)?.collect();
    let listener = StdListener::bind(addresses.as_slice()).map_err(fault)?;
    let address = listener.local_addr().map_err(fault)?;
    let scheme = if url.is_tls { "https" } else { "http" };
    Ok(Some((format!("{scheme}://{address}"), listener)))
}

/// What other servers read about the owner of the lock.
fn holder(config: &Config, urls: &[String]) -> String {
    let host = host_name().unwrap_or_else(|| "unknown host".to_owned());
    format!(
        "{} on {host}, process {}, {}",
        config.server,
        std::process::id(),
        urls.join(",")
    )
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

fn role_settings(config: &Config) -> Settings {
    Settings {
        peers: config.peers.len(),
        heartbeat_ms: config.heartbeat_ms,
        activation_ms: config.activation_ms,
        lock_poll_ms: config.store_lock_poll_ms,
        seed: fastrand::u64(..),
    }
}

/// Where the peer that owns the store serves clients.
fn server_address(peer: &PeerNews) -> Option<ServerAddress> {
    let url = PeerUrl::parse(&peer.name).ok()?;
    Some(ServerAddress {
        host: url.host,
        port: url.port,
        tls: url.is_tls,
    })
}

/// Clients of a pair learn the addresses of all its servers; a server alone names none.
fn engine_settings(config: &Config, places: &[ListenUrl]) -> EngineSettings {
    let own = places.iter().filter_map(|place| {
        Some(ServerAddress {
            host: place.host.clone().or_else(host_name)?,
            port: place.port,
            tls: place.is_tls,
        })
    });
    let peers = config.peers.iter().map(|peer| ServerAddress {
        host: peer.host.clone(),
        port: peer.port,
        tls: peer.is_tls,
    });
    let failover = if config.peers.is_empty() {
        Vec::new()
    } else {
        own.chain(peers).collect()
    };
    EngineSettings {
        node: NodeSettings {
            server: config.server.clone(),
            max_message_bytes: config.max_message_bytes,
            auto_create_queues: config.auto_create_queues,
            idle_timeout_ms: config
                .idle_timeout_ms
                .map_or(0, |idle_ms| u32::try_from(idle_ms).unwrap_or(u32::MAX)),
            failover,
            reconnect_timeout_ms: config.reconnect_timeout_ms,
            ..NodeSettings::default()
        },
        ..EngineSettings::default()
    }
}
