//! The next segment and the space for it.

use std::io;
use std::sync::Arc;

use super::{
    COMMIT_RETRY_MS, LOW_BYTES, Maintenance, Next, RESERVE_BYTES, RETRY_MS, SLICE_BYTES,
    SLICE_PAUSE_MS, URGENT_SEGMENTS,
};
use crate::error::{FatalError, is_no_space};
use crate::format::segment::segment_name;
use crate::job::{Commit, Job, Work};
use crate::store::Store;

impl Maintenance {
    /// Keeps a batch that found no space. It is the only one on its way and nothing of it is
    /// confirmed, so the same bytes can be written again, even after a failed sync.
    pub(crate) fn commit_refused(&mut self, commit: Commit, now_ms: u64) {
        self.refused_writes += 1;
        self.no_space_found(now_ms);
        self.refused = Some((commit, now_ms + COMMIT_RETRY_MS));
    }

    /// The batch that found no space, when it is time to try again.
    pub(crate) fn refused_commit(&mut self, now_ms: u64) -> Option<Job> {
        let (mut commit, _) = self.refused.take_if(|(_, at_ms)| *at_ms <= now_ms)?;
        commit.started_ms = now_ms;
        Some(Job {
            work: Work::Commit(commit),
        })
    }

    pub(super) fn no_space_found(&mut self, now_ms: u64) {
        self.no_space = true;
        self.space_check_ms = now_ms + RETRY_MS;
    }

    pub(super) fn space_found(&mut self, free_bytes: u64) {
        self.free_bytes = free_bytes;
        // The next segment may have been made small; the one behind it is to have its full size.
        let next = self.plan.capacity(self.current_segment + 2);
        if self.refused.is_none() && free_bytes >= self.free_bytes_min.saturating_add(next) {
            self.no_space = false;
        }
    }
}

impl Store {
    pub(super) fn poll_space(&mut self) -> Option<Job> {
        if self.now_ms < self.maintenance.space_check_ms {
            return None;
        }
        let pause = if self.maintenance.is_full() {
            RETRY_MS
        } else {
            5 * RETRY_MS
        };
        self.maintenance.space_check_ms = self.now_ms + pause;
        Some(Job {
            work: Work::Space {
                disk: Arc::clone(&self.disk),
            },
        })
    }

    pub(super) fn poll_next_segment(&mut self) -> Option<Job> {
        let maintenance = &mut self.maintenance;
        if self.now_ms < maintenance.prepare_retry_ms {
            return None;
        }
        let wanted = maintenance.current_segment + 1;
        let is_full = maintenance.is_full();
        match &maintenance.next {
            Next::Missing => {
                maintenance
                    .plan
                    .small
                    .retain(|segment| *segment + 1 >= wanted);
                let mut free_bytes_min = maintenance.free_bytes_min;
                if is_full {
                    let place = self.writer.open.place();
                    if place.segment < wanted
                        && !self.writer.is_at_limit(&maintenance.plan, LOW_BYTES)
                    {
                        return None;
                    }
                    // Settlements go on: what is below the limit of free space is for them.
                    maintenance.plan.small.insert(wanted);
                    free_bytes_min = 0;
                } else if maintenance.zeroed {
                    free_bytes_min += maintenance.plan.capacity(wanted);
                }
                Some(Job {
                    work: Work::Create {
                        disk: Arc::clone(&self.disk),
                        segment: wanted,
                        free_bytes_min,
                    },
                })
            }
            Next::Zeroing {
                segment,
                file,
                done,
            } => {
                let capacity = maintenance.plan.capacity(*segment);
                let used = self.writer.open.place();
                let hurry = used.segment >= wanted
                    || maintenance.current_segment < maintenance.plan.epoch + URGENT_SEGMENTS
                    || used.offset > maintenance.plan.capacity(used.segment) / 4;
                if self.now_ms < maintenance.next_slice_ms && !hurry {
                    return None;
                }
                maintenance.next_slice_ms = self.now_ms + SLICE_PAUSE_MS;
                let (from, to) = (*done, (*done + SLICE_BYTES).min(capacity));
                Some(Job {
                    work: Work::Zero {
                        disk: Arc::clone(&self.disk),
                        segment: *segment,
                        file: Arc::clone(file),
                        from,
                        to,
                        is_urgent: maintenance.plan.small.contains(segment),
                    },
                })
            }
            Next::Publishing { segment, file } => Some(Job {
                work: Work::Publish {
                    disk: Arc::clone(&self.disk),
                    segment: *segment,
                    file: Arc::clone(file),
                },
            }),
            Next::Ready { .. } => None,
        }
    }

    /// The next segment comes before everything else: in the first segments of an epoch, which are small,
    /// and when the present one is nearly full.
    pub(super) fn next_is_urgent(&self) -> bool {
        let maintenance = &self.maintenance;
        let place = self.writer.open.place();
        let is_late = place.segment > maintenance.current_segment
            || place.offset > maintenance.plan.capacity(place.segment) / 4 * 3;
        !matches!(maintenance.next, Next::Ready { .. })
            && !maintenance.is_full()
            && (is_late || maintenance.current_segment < maintenance.plan.epoch + URGENT_SEGMENTS)
            && self.now_ms >= maintenance.prepare_retry_ms
    }

    pub(super) fn poll_reserve(&mut self) -> Option<Job> {
        let from = self.maintenance.reserve_done;
        if from >= RESERVE_BYTES || self.maintenance.is_full() {
            return None;
        }
        let ready = matches!(self.maintenance.next, Next::Ready { .. });
        if !ready || self.now_ms < self.maintenance.next_slice_ms {
            return None;
        }
        self.maintenance.next_slice_ms = self.now_ms + SLICE_PAUSE_MS;
        let to = (from + SLICE_BYTES).min(RESERVE_BYTES);
        Some(Job {
            work: Work::Reserve {
                disk: Arc::clone(&self.disk),
                from,
                to,
            },
        })
    }

    pub(super) fn preparation_failed(&mut self, error: &io::Error) {
        let maintenance = &mut self.maintenance;
        // Whatever it is, the log itself is not touched: try again, and let a stuck roll show.
        maintenance.prepare_retry_ms = self.now_ms + RETRY_MS;
        if is_no_space(error) {
            maintenance.refused_writes += 1;
            maintenance.no_space_found(self.now_ms);
        }
    }

    pub(super) fn zeroed(&mut self, to: u64, took_reserve: bool, result: io::Result<()>) {
        if took_reserve {
            // It is made again when there is space.
            self.maintenance.reserve_done = 0;
        }
        let next = std::mem::replace(&mut self.maintenance.next, Next::Missing);
        let Next::Zeroing { segment, file, .. } = next else {
            return;
        };
        match result {
            Ok(()) if to >= self.maintenance.plan.capacity(segment) => {
                self.maintenance.next = Next::Publishing { segment, file };
            }
            Ok(()) => {
                self.maintenance.next = Next::Zeroing {
                    segment,
                    file,
                    done: to,
                }
            }
            Err(error) => self.preparation_failed(&error),
        }
    }

    /// Somebody else having made our next segment means that we are not the owner any more.
    pub(super) fn published(
        &mut self,
        segment: u64,
        result: io::Result<()>,
    ) -> Result<(), FatalError> {
        let next = std::mem::replace(&mut self.maintenance.next, Next::Missing);
        let Next::Publishing { file, .. } = next else {
            return Ok(());
        };
        match result {
            Ok(()) => {
                self.maintenance.next = Next::Ready { segment, file };
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(self.fail(FatalError {
                    what: "another server has taken over the store".to_owned(),
                    file: segment_name(segment),
                    reason: "a segment that only its owner may make exists already".to_owned(),
                }))
            }
            Err(error) if is_no_space(&error) => {
                // It may have its name already, and that may not be durable yet: done again.
                self.maintenance.next = Next::Publishing { segment, file };
                self.preparation_failed(&error);
                Ok(())
            }
            Err(error) => {
                let what = "making a new segment visible failed";
                Err(self.fail(FatalError::io(what, &segment_name(segment), &error)))
            }
        }
    }
}
