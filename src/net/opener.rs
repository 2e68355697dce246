//! The thread that tries for the store's lock and recovers.
//!
//! Both may block for as long as a file system does, so they stay away from the engine thread. The
//! thread is never waited for: a process that ends while it hangs just ends.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::Builder;
use std::time::{Duration, Instant};

use steadfast_storage::disk::{Disk, FileSystem, RealDisk};
use steadfast_storage::{
    Acquire, Canary, OpenError, Ownership, Progress, RecoveryReport, Store, StoreOptions, Warm,
    newer_epoch, store_id, try_acquire,
};
use tokio::sync::mpsc;

use super::recovering::Board;
use super::server::News;
use crate::config::{Config, FenceDeadline};
use crate::role::{Failure, FailureKind, LockResult, RecoveryResult};

/// What the thread is asked for.
enum Order {
    TryLock(Option<PeerStore>),
    Recover,
    Verify { id: [u8; 16], epoch: u64 },
}

/// The store of an active peer. Ours has to be the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerStore {
    /// In hexadecimal.
    pub(crate) id: String,
    /// Who said so.
    pub(crate) peer: String,
}

impl PeerStore {
    /// What to tell whoever has given us another directory.
    pub(crate) fn complaint(&self, directory: &Path) -> String {
        format!(
            "store: {} does not hold the store that {} serves: both servers of a pair must name the \
             same shared directory; is it mounted on this host? (Two servers that share nothing name each other \
             in unshared_peer instead of ft_active)",
            directory.display(),
            self.peer
        )
    }
}

/// Bytes as text.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// An open store.
pub(crate) struct Opened {
    pub(crate) store: Box<Store>,
    pub(crate) report: RecoveryReport,
    /// When the lock was obtained.
    pub(crate) locked_at: Instant,
}

/// The engine thread's end.
pub(crate) struct Opener {
    orders: std_mpsc::Sender<Order>,
    board: Board,
}

impl Opener {
    /// Starts the thread. `holder` is what other servers are told about the lock's owner.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn spawn(
        config: &Config,
        holder: String,
        news: mpsc::Sender<News>,
    ) -> io::Result<Self> {
        let (orders, receiver) = std_mpsc::channel();
        let board = Board::default();
        let mut worker = Worker {
            directory: config.store.clone(),
            options: options(config),
            holder,
            disk: None,
            ownership: None,
            canary: Canary::default(),
            looked_at: None,
            is_warm: config.store_warm_standby,
            warm: None,
            board: board.clone(),
        };
        Builder::new().name("opener".to_owned()).spawn(move || {
            while let Some(order) = worker.next_order(&receiver) {
                let answer = match order {
                    Order::TryLock(peer) => Some(News::Lock(worker.try_lock(peer.as_ref()))),
                    Order::Recover => Some(worker.recover()),
                    Order::Verify { id, epoch } => worker.verify(id, epoch),
                };
                let Some(answer) = answer else {
                    continue;
                };
                if news.blocking_send(answer).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { orders, board })
    }

    /// Tries for the lock; `peer` names the store that it has to be, when that is known.
    pub(crate) fn try_lock(&self, peer: Option<PeerStore>) {
        // The thread ends only with the process.
        let _ = self.orders.send(Order::TryLock(peer));
    }

    pub(crate) fn recover(&self) {
        let _ = self.orders.send(Order::Recover);
    }

    /// Looks whether somebody took the store over from `epoch`; only that is answered.
    pub(crate) fn verify(&self, id: [u8; 16], epoch: u64) {
        let _ = self.orders.send(Order::Verify { id, epoch });
    }

    /// How far a recovery under way, or a standby, has come.
    pub(crate) fn board(&self) -> &Board {
        &self.board
    }
}

fn options(config: &Config) -> StoreOptions {
    let mut identity = [0; 24];
    fastrand::fill(&mut identity);
    StoreOptions {
        segment_bytes: config.store_segment_bytes,
        checkpoint_bytes: config.store_checkpoint_bytes,
        fence_deadline_ms: match config.store_fence_deadline {
            FenceDeadline::Automatic => None,
            FenceDeadline::Off => Some(0),
            FenceDeadline::After(after_ms) => Some(after_ms),
        },
        allow_unverified_locking: config.store_allow_unverified_locking,
        new_identity: identity,
        ..StoreOptions::default()
    }
}

struct Worker {
    directory: PathBuf,
    options: StoreOptions,
    holder: String,
    disk: Option<Arc<dyn Disk>>,
    ownership: Option<(Ownership, Instant)>,
    canary: Canary,
    /// When the canary looked last.
    looked_at: Option<Instant>,
    /// Whether a standby is to follow the log.
    is_warm: bool,
    /// What follows the store while it belongs to somebody else, and when it looks again.
    warm: Option<(Warm, Instant)>,
    board: Board,
}

/// How often a standby looks whether it can see its owner's locks.
const CANARY_PAUSE: Duration = Duration::from_secs(5);

/// A standby that has come to the end of the log looks again after this time.
const FOLLOW_PAUSE: Duration = Duration::from_millis(50);
/// One that has not looks again after this: other work of the host goes on meanwhile.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(2);
/// One that could not read the log looks again after this.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

impl Worker {
    /// Waits for an order, and follows the store meanwhile where it belongs to somebody else. `None` when
    /// the process ends.
    fn next_order(&mut self, orders: &std_mpsc::Receiver<Order>) -> Option<Order> {
        loop {
            let Some((_, at)) = &self.warm else {
                return orders.recv().ok();
            };
            match orders.recv_timeout(at.saturating_duration_since(Instant::now())) {
                Ok(order) => return Some(order),
                Err(std_mpsc::RecvTimeoutError::Timeout) => self.follow(),
                Err(std_mpsc::RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Reads some of what the owner has written since.
    fn follow(&mut self) {
        let (Some((warm, at)), Some(disk)) = (&mut self.warm, &self.disk) else {
            self.warm = None;
            return;
        };
        let pause = match warm.poll(disk.as_ref()) {
            Ok(true) => CATCH_UP_PAUSE,
            Ok(false) => FOLLOW_PAUSE,
            // Trying for the lock meets the same fault, and says so.
            Err(_) => FAILED_PAUSE,
        };
        *at = Instant::now() + pause;
        self.board.stand_by(Some(warm.status()));
    }

    fn stand_by(&mut self) {
        if self.is_warm && self.warm.is_none() {
            self.warm = Some((Warm::default(), Instant::now()));
        }
    }

    fn try_lock(&mut self, peer: Option<&PeerStore>) -> LockResult {
        let disk = match self.disk() {
            Ok(disk) => disk,
            Err(error) => {
                let directory = self.directory.display();
                let reason = format!("store: {directory} cannot be opened or created: {error}");
                return LockResult::Failed(Failure {
                    kind: FailureKind::Io,
                    reason,
                });
            }
        };
        if let Some(failure) = self.unsafe_sharing(disk.as_ref()) {
            return LockResult::Failed(failure);
        }
        let id = |disk: &dyn Disk| store_id(disk).map(|id| id.map(|id| hexadecimal(&id)));
        match try_acquire(Arc::clone(&disk), &self.holder) {
            Ok(Acquire::Owned(_))
                if let Some(peer) = peer
                    && id(disk.as_ref()).is_ok_and(|id| id.as_ref() != Some(&peer.id)) =>
            {
                LockResult::Failed(Failure {
                    kind: FailureKind::OtherStore,
                    reason: peer.complaint(&self.directory),
                })
            }
            Ok(Acquire::Owned(ownership)) => {
                self.ownership = Some((ownership, Instant::now()));
                LockResult::Owned
            }
            Ok(Acquire::Busy(holder)) => match self.broken_locks(disk.as_ref()) {
                Some(failure) => LockResult::Failed(failure),
                None => {
                    self.stand_by();
                    LockResult::Busy {
                        reason: self.belongs_to(&holder),
                    }
                }
            },
            Err(error) => {
                // A mount that went away and came back needs a new look.
                self.disk = None;
                match self.failure(error) {
                    Ok(failure) => LockResult::Failed(failure),
                    Err(reason) => LockResult::Busy { reason },
                }
            }
        }
    }

    fn recover(&mut self) -> News {
        let Some((ownership, locked_at)) = self.ownership.take() else {
            let reason = "the lock is not held".to_owned();
            return News::Recovery(RecoveryResult::Busy { reason });
        };
        let warm = self.warm.take().map(|(warm, _)| warm);
        self.board.stand_by(None);
        let mut step = |step: Progress| self.board.step(step);
        let result = Store::open_warm(ownership, self.options.clone(), warm, &mut step);
        self.board.end_recovery();
        match result {
            Ok((store, report)) => News::Opened(Opened {
                store: Box::new(store),
                report,
                locked_at,
            }),
            Err(error) => News::Recovery(match self.failure(error) {
                Ok(failure) => RecoveryResult::Failed(failure),
                Err(reason) => RecoveryResult::Busy { reason },
            }),
        }
    }

    /// A segment of a later owner proves that the store was taken over, whatever our locks say.
    fn verify(&mut self, id: [u8; 16], epoch: u64) -> Option<News> {
        let disk = self.disk().ok()?;
        // A directory that cannot be read proves nothing; the durable write under way does.
        let newer = newer_epoch(disk.as_ref(), id, epoch).ok().flatten()?;
        Some(News::StoreFailed(format!(
            "store: {} has an owner of epoch {newer}, later than ours ({epoch}): it was taken over \
             although this server held its locks; find out why the locks of that file system do not \
             work between the two servers before this one is started again",
            self.directory.display()
        )))
    }

    fn disk(&mut self) -> io::Result<Arc<dyn Disk>> {
        if let Some(disk) = &self.disk {
            return Ok(Arc::clone(disk));
        }
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(&self.directory, true)?);
        if let FileSystem::Local {
            name,
            volatile: true,
        } = disk.file_system()
        {
            tracing::warn!(
                event = "store_volatile",
                file_system = name,
                store = %self.directory.display(),
                "the store is in memory: nothing in it survives a loss of power"
            );
        }
        self.disk = Some(Arc::clone(&disk));
        Ok(disk)
    }

    /// A standby must learn this when it starts, not when it is needed.
    fn unsafe_sharing(&self, disk: &dyn Disk) -> Option<Failure> {
        let why = match disk.file_system() {
            FileSystem::Local { .. } | FileSystem::Nfs { .. } => return None,
            _ if self.options.allow_unverified_locking => return None,
            FileSystem::Unsafe(why) => why,
            FileSystem::Unknown(name) => format!(
                "it is not known whether the locks of its file system ({name}) work between \
                 hosts; set store_allow_unverified_locking = yes if they do"
            ),
        };
        let reason = format!("store: {}: {why}", self.directory.display());
        Some(Failure {
            kind: FailureKind::UnsafeFileSystem,
            reason,
        })
    }

    /// Where a lock may be given twice, a standby that cannot see the owner's must never take over.
    fn broken_locks(&mut self, disk: &dyn Disk) -> Option<Failure> {
        let is_recent = |at: Instant| at.elapsed() < CANARY_PAUSE;
        let is_local = disk.file_system().is_local();
        if is_local || self.looked_at.is_some_and(is_recent) {
            return None;
        }
        self.looked_at = Some(Instant::now());
        // A file system that does not answer is no proof.
        let why = self.canary.look(disk).ok().flatten()?;
        Some(Failure {
            kind: FailureKind::UnsafeFileSystem,
            reason: format!("store: {why}"),
        })
    }

    fn belongs_to(&self, holder: &str) -> String {
        let directory = self.directory.display();
        format!("store: {directory} belongs to another live server ({holder})")
    }

    /// Why the store cannot be used; `Err` when it is merely somebody else's.
    fn failure(&self, error: OpenError) -> Result<Failure, String> {
        let directory = self.directory.display();
        let kind = match &error {
            OpenError::Busy(holder) => return Err(self.belongs_to(holder)),
            OpenError::Damaged(_) => FailureKind::Damaged,
            OpenError::UnsafeFileSystem(_) => FailureKind::UnsafeFileSystem,
            _ => FailureKind::Io,
        };
        Ok(Failure {
            kind,
            reason: format!("store: {directory}: {error}"),
        })
    }
}
