//! What a running server does with its configuration: reads it again, tells its peers of it, and says
//! what is different there.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::{Instant, timeout};

use super::Server;
use crate::config::companions::Companions;
use crate::config::{Config, Facts, Fault, ListenUrl};
use crate::net::pair_login::Login;
use crate::net::peer::{Hello, Links, PeerEvent};
use crate::net::tls::ServerTls;
use crate::role::{LinkId, State};

/// Reads all configuration files again. Runs on a thread where it may wait.
pub type Reload = Arc<dyn Fn() -> Result<(Config, Companions), String> + Send + Sync>;

/// A takeover waits so long at most for files that are read again: they may be on a disk that hangs.
const REREAD: Duration = Duration::from_secs(1);
/// A difference is told when it lasts for so long: of files that both servers share the other one reads a change a
/// little later.
const LASTS: Duration = Duration::from_secs(2);
/// Peers whose differences are remembered, so that each is told once.
const PEERS_MAX: usize = 32;

/// A configuration that was read again.
pub(super) struct Fresh {
    config: Config,
    companions: Companions,
}

/// The files are being read.
pub(super) type Rereading = oneshot::Receiver<Result<Box<Fresh>, String>>;

/// What links are told of the configuration.
pub(super) struct Published {
    login: Latest<Arc<Login>>,
    facts: Latest<Option<Arc<Facts>>>,
    listens: Vec<ListenUrl>,
}

/// A value that takes long to make, on threads that finish in any order: of several that are being made
/// only the one that was asked for last counts.
struct Latest<T> {
    sender: watch::Sender<T>,
    asked: Rc<Cell<u64>>,
}

impl<T: Send + Sync + 'static> Latest<T> {
    fn new(first: T) -> Self {
        Self {
            sender: watch::Sender::new(first),
            asked: Rc::default(),
        }
    }

    fn make(&self, make: impl FnOnce() -> T + Send + 'static) {
        let turn = self.asked.get() + 1;
        self.asked.set(turn);
        let (sender, asked) = (self.sender.clone(), Rc::clone(&self.asked));
        spawn_local(async move {
            if let Ok(value) = spawn_blocking(make).await
                && asked.get() == turn
            {
                sender.send_replace(value);
            }
        });
    }
}

impl Published {
    pub(super) async fn begin(
        config: &Config,
        companions: &Companions,
        listens: &[ListenUrl],
    ) -> Result<Self, String> {
        let (own_config, own_companions) = (config.clone(), companions.clone());
        let login = spawn_blocking(move || Login::new(&own_config, &own_companions)).await;
        let login = login.map_err(|error| format!("users: {error}"))?;
        let published = Self {
            login: Latest::new(Arc::new(login)),
            facts: Latest::new(None),
            listens: listens.to_vec(),
        };
        published.tell(config, companions);
        Ok(published)
    }

    /// What all links of the server share.
    pub(super) fn links(
        &self,
        config: &Config,
        tls: &ServerTls,
        local: watch::Receiver<Hello>,
        events: mpsc::Sender<PeerEvent>,
    ) -> Links {
        Links {
            local,
            events,
            heartbeat: Duration::from_millis(config.heartbeat_ms),
            next_link: Arc::new(AtomicU64::new(1)),
            tls: tls.link.clone(),
            login: self.login.sender.subscribe(),
            facts: self.facts.sender.subscribe(),
            has_unshared: !config.unshared_peers.is_empty(),
        }
    }

    /// The same for the login, whose keys take long to make from a password.
    fn tell_login(&self, config: &Config, companions: &Companions) {
        let (config, companions) = (config.clone(), companions.clone());
        self.login
            .make(move || Arc::new(Login::new(&config, &companions)));
    }

    /// Gathers what peers compare, where reading certificates holds up nobody.
    fn tell(&self, config: &Config, companions: &Companions) {
        let (config, companions) = (config.clone(), companions.clone());
        let listens = self.listens.clone();
        self.facts.make(move || {
            let facts = Facts::new(&config, &listens, &companions, &|path| fs::read(path));
            Some(Arc::new(facts))
        });
    }
}

/// The differences to each peer as they were told last, by where it listens.
#[derive(Default)]
pub(super) struct Differences {
    told: BTreeMap<String, BTreeSet<String>>,
    /// Those that may pass, by their link, and since when there are any.
    held: BTreeMap<LinkId, (Instant, Vec<String>)>,
}

impl Differences {
    /// Whether there is one that was not told before.
    fn has_news(&self, peer: &str, found: &[String]) -> bool {
        let told = self.told.get(peer);
        found
            .iter()
            .any(|line| told.is_none_or(|told| !told.contains(line)))
    }

    /// Holds back what was found on a link. Says whether that is something else than before.
    fn hold(&mut self, link: LinkId, found: Vec<String>) -> bool {
        let begin = (Instant::now(), Vec::new());
        let (_, held) = self.held.entry(link).or_insert(begin);
        let is_other = *held != found;
        *held = found;
        is_other
    }

    /// Those that have lasted.
    fn lasting(&mut self) -> Vec<(LinkId, Vec<String>)> {
        let lasts = |_: &LinkId, (since, _): &mut (Instant, Vec<String>)| since.elapsed() >= LASTS;
        let lasting = self.held.extract_if(.., lasts);
        lasting.map(|(link, (_, found))| (link, found)).collect()
    }

    /// Those that were not told before. `None`: there were some, and now there is none.
    fn news(&mut self, peer: &str, found: &[String]) -> Option<Vec<String>> {
        let found: BTreeSet<String> = found.iter().cloned().collect();
        if self.told.len() >= PEERS_MAX && !self.told.contains_key(peer) {
            self.told.clear();
        }
        let before = self.told.insert(peer.to_owned(), found.clone());
        let before = before.unwrap_or_default();
        if found.is_empty() && !before.is_empty() {
            return None;
        }
        Some(found.difference(&before).cloned().collect())
    }
}

impl Server {
    /// Begins to read the files again, if there are any. Where that is under way it may have read the old ones: then once more after it.
    pub(super) fn reread(&mut self) {
        if self.config.main_file.is_none() {
            return;
        }
        if self.rereading.is_some() {
            self.rereads_again = true;
            tracing::info!(
                event = "config_reread_again",
                "the configuration is being read; it will be read once more after that"
            );
            return;
        }
        let (sender, receiver) = oneshot::channel();
        let reload = Arc::clone(&self.reload);
        let started = std::thread::Builder::new()
            .name("configuration".to_owned())
            .spawn(move || {
                let fresh =
                    reload().map(|(config, companions)| Box::new(Fresh { config, companions }));
                // Nobody listens only while the process ends.
                let _ = sender.send(fresh);
            });
        match started {
            Ok(_) => self.rereading = Some(receiver),
            Err(error) => unusable(&format!("no thread: {error}")),
        }
    }

    /// Whoever becomes active applies what its files say now, if they can be read in time.
    pub(super) async fn finish_rereading(&mut self) {
        let Some(receiver) = &mut self.rereading else {
            return;
        };
        match timeout(REREAD, receiver).await {
            Ok(fresh) => self.finish(fresh),
            Err(_) => tracing::warn!(
                event = "config_late",
                "the configuration files could not be read in time; this server becomes active with \
                 what it has read before, and takes what they say as soon as it is known"
            ),
        }
    }

    /// The files were read again.
    pub(super) fn finish(
        &mut self,
        fresh: Result<Result<Box<Fresh>, String>, oneshot::error::RecvError>,
    ) {
        self.rereading = None;
        self.adopt(fresh);
        if std::mem::take(&mut self.rereads_again) {
            self.reread();
        }
    }

    /// Applies what an administrator has written.
    pub(super) fn configured(&mut self, (config, companions): (Config, Companions)) {
        self.adopt(Ok(Ok(Box::new(Fresh { config, companions }))));
        if self.rereading.take().is_some() {
            // What is being read may be older, and must not undo this.
            self.rereads_again = false;
            self.reread();
        }
    }

    /// Applies what was read again.
    pub(super) fn adopt(
        &mut self,
        fresh: Result<Result<Box<Fresh>, String>, oneshot::error::RecvError>,
    ) {
        let fresh = match fresh {
            Ok(Ok(fresh)) => *fresh,
            Ok(Err(reason)) => return unusable(&reason),
            // The thread said why.
            Err(_) => return unusable("reading them failed"),
        };
        let changed = fresh.config.changes(&self.config);
        for row in changed.iter().filter(|row| !row.is_taken()) {
            tracing::warn!(
                event = "config_needs_restart",
                parameter = row.name,
                "{}: changed in the configuration; a running server keeps what it has, restart it",
                row.name
            );
        }
        let told = std::mem::replace(&mut self.config.warnings, fresh.config.warnings.clone());
        for warning in crate::config::news(told, &fresh.config.warnings) {
            log_warning(warning);
        }
        self.config.authorization = fresh.config.authorization;
        self.config.password = fresh.config.password.clone();
        let directory = fresh.companions.directory(self.config.authorization);
        self.engine.set_directory(Arc::new(directory));
        self.published.tell_login(&self.config, &fresh.companions);
        self.published.tell(&self.config, &fresh.companions);
        self.administrator
            .configured(fresh.config, fresh.companions);
        tracing::info!(event = "config_reread", "the configuration was read again");
    }

    /// Takes what differs from a peer. A file that both share may have been changed through the other server: a standby
    /// reads its files again before it believes in a difference, and each server waits until one has lasted.
    pub(super) fn compared(&mut self, link: LinkId, found: Vec<String>) {
        let place = self.peers.place(link);
        if place.is_some_and(|place| self.differences.has_news(place, &found)) {
            if self.differences.hold(link, found) && self.role.state() == State::Standby {
                self.reread();
            }
            return;
        }
        self.differences.held.remove(&link);
        self.tell_differences(link, found);
    }

    /// Says what has differed for long enough.
    pub(super) fn tell_lasting(&mut self) {
        for (link, found) in self.differences.lasting() {
            self.tell_differences(link, found);
        }
    }

    /// Says what is new of what differs from a peer.
    fn tell_differences(&mut self, link: LinkId, found: Vec<String>) {
        let Some((peer, place)) = self.peers.compared(link, &found) else {
            return;
        };
        match self.differences.news(&place, &found) {
            Some(news) => {
                for difference in news {
                    tracing::warn!(
                        event = "config_difference",
                        peer,
                        difference,
                        "the two servers are configured differently"
                    );
                }
            }
            None => tracing::info!(
                event = "config_alike",
                peer,
                "the two servers are configured alike now"
            ),
        }
    }
}

/// Writes a warning of the configuration.
pub fn log_warning(warning: &Fault) {
    tracing::warn!(
        event = "config_warning",
        parameter = warning.parameter,
        origin = %warning.origin,
        "{warning}"
    );
}

fn unusable(reason: &str) {
    tracing::error!(
        event = "config_unusable",
        reason,
        "the configuration files cannot be used; this server goes on with what it has read before"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::task::LocalSet;

    use super::{Differences, Latest};

    #[tokio::test]
    async fn of_several_changes_the_last_one_counts_whichever_is_ready_first() {
        let (first_may_end, wait) = mpsc::channel::<()>();
        let (first_ended, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let latest = Latest::new("none");
        let mut seen = latest.sender.subscribe();
        let local = LocalSet::new();
        let test = async {
            latest.make(move || {
                let _sender_is_gone = wait.recv();
                let _receiver_is_gone = first_ended.send(());
                "first"
            });
            latest.make(|| "second");
            seen.changed().await.expect("the sender lives");
            assert_eq!(*seen.borrow_and_update(), "second");
            drop(first_may_end);
            ended.recv().await;
        };
        local.run_until(test).await;
        // Until its task has ended too.
        local.await;
        assert_eq!(*latest.sender.borrow(), "second");
    }

    fn list(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_difference_is_held_back_and_known_when_it_comes_again() {
        let mut differences = Differences::default();
        let (link, found) = (crate::role::LinkId(1), list(&["x"]));
        assert!(differences.has_news("a", &found));
        assert!(differences.hold(link, found.to_vec()), "it is new");
        assert!(!differences.hold(link, found.to_vec()), "it is the same");
        assert!(differences.hold(link, list(&["x", "y"])));
        assert_eq!(differences.lasting(), [], "it has not lasted");
        differences.news("a", &found);
        assert!(!differences.has_news("a", &found));
        assert!(differences.has_news("b", &found));
        assert!(!differences.has_news("b", &[]));
    }

    #[test]
    fn each_difference_is_told_once_and_again_when_it_comes_back() {
        let mut differences = Differences::default();
        let mut news = |peer, found: &[&str]| differences.news(peer, &list(found));
        assert_eq!(news("a", &[]), Some(vec![]));
        assert_eq!(news("a", &["x", "y"]), Some(list(&["x", "y"])));
        // The other link of the pair says the same.
        assert_eq!(news("a", &["x", "y"]), Some(vec![]));
        assert_eq!(news("b", &["x"]), Some(list(&["x"])));
        assert_eq!(news("a", &["x", "z"]), Some(list(&["z"])));
        assert_eq!(news("a", &[]), None);
        assert_eq!(news("a", &["x"]), Some(list(&["x"])));
    }
}
