//! The opener: tries for the store's lock and recovers, as `net/opener.rs` does.

use std::sync::Arc;

use steadfast::role::{Failure, FailureKind, Input, LockResult, RecoveryResult};
use steadfast_storage::disk::Disk;
use steadfast_storage::{Acquire, OpenError, Store, StoreOptions, store_id, try_acquire};

use super::server::{Answer, Order, Process};
use super::sim::{Happening, MS, Micros, Sim};

/// See `net/opener.rs`.
const CANARY_PAUSE: Micros = 5_000 * MS;

impl Sim {
    pub(super) fn run_opener(&mut self, server: usize, order: Order) {
        let now = self.now;
        let options = self.options.clone();
        let faults = self.world.faults_left();
        let Some(process) = self.servers[server].process.as_mut() else {
            return;
        };
        let answer = match order {
            Order::TryLock => Answer::Lock(process.try_lock(now)),
            Order::Recover => process.recover(options),
        };
        process.answers.push_back(answer);
        if self.after_disk(server, faults) {
            let slow = self.weather.slowness(self.now);
            let delay = self.between(100, 30 * MS) * slow.min(10);
            let hang = self.weather.hang_until.saturating_sub(self.now);
            self.tell(server, delay.max(hang), Happening::OpenerDone);
        }
    }

    pub(super) fn opener_done(&mut self, server: usize) {
        let Some(process) = self.servers[server].process.as_mut() else {
            return;
        };
        let input = match process.answers.pop_front() {
            None => return,
            Some(Answer::Lock(result)) => Input::Lock(result),
            Some(Answer::Recovery(result)) => Input::Recovery(result),
            Some(Answer::Opened(store, report)) => {
                process.opened = Some(*store);
                if !report.damaged.is_empty() {
                    let what = format!("a whole store is called damaged: {:?}", report.damaged);
                    self.oracle.blame(what);
                }
                let epoch = report.epoch;
                Input::Recovery(RecoveryResult::Ready { epoch })
            }
        };
        self.give(server, input);
    }
}

impl Process {
    pub(super) fn try_lock(&mut self, now: Micros) -> LockResult {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        match try_acquire(Arc::clone(&disk), "a simulated server") {
            Ok(Acquire::Owned(_))
                if let Some(theirs) = self.peer_store
                    && store_id(disk.as_ref()).is_ok_and(|own| own != Some(theirs)) =>
            {
                LockResult::Failed(Failure {
                    kind: FailureKind::OtherStore,
                    reason: "another store".to_owned(),
                })
            }
            Ok(Acquire::Owned(ownership)) => {
                self.ownership = Some(ownership);
                LockResult::Owned
            }
            Ok(Acquire::Busy(reason)) => match self.broken_locks(disk.as_ref(), now) {
                Some(failure) => LockResult::Failed(failure),
                None => LockResult::Busy { reason },
            },
            Err(error) => match failure(error) {
                Ok(failure) => LockResult::Failed(failure),
                Err(reason) => LockResult::Busy { reason },
            },
        }
    }

    pub(super) fn broken_locks(&mut self, disk: &dyn Disk, now: Micros) -> Option<Failure> {
        let is_recent = self.looked_at.is_some_and(|at| now - at < CANARY_PAUSE);
        if disk.file_system().is_local() || is_recent {
            return None;
        }
        self.looked_at = Some(now);
        let reason = self.canary.look(disk).ok().flatten()?;
        Some(Failure {
            kind: FailureKind::UnsafeFileSystem,
            reason,
        })
    }

    pub(super) fn recover(&mut self, options: StoreOptions) -> Answer {
        let Some(ownership) = self.ownership.take() else {
            let reason = "the lock is not held".to_owned();
            return Answer::Recovery(RecoveryResult::Busy { reason });
        };
        match Store::open(ownership, options, &mut |_| ()) {
            Ok((store, report)) => Answer::Opened(Box::new(store), Box::new(report)),
            Err(error) => Answer::Recovery(match failure(error) {
                Ok(failure) => RecoveryResult::Failed(failure),
                Err(reason) => RecoveryResult::Busy { reason },
            }),
        }
    }
}

/// Why the store cannot be used; `Err` when it is merely somebody else's.
fn failure(error: OpenError) -> Result<Failure, String> {
    let kind = match &error {
        OpenError::Busy(holder) => return Err(holder.clone()),
        OpenError::Damaged(_) => FailureKind::Damaged,
        OpenError::UnsafeFileSystem(_) => FailureKind::UnsafeFileSystem,
        _ => FailureKind::Io,
    };
    let reason = error.to_string();
    Ok(Failure { kind, reason })
}
