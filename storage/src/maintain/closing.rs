//! The orderly end: seal the open segment, take a last checkpoint, give the locks back.

use std::sync::Arc;

use super::{CheckpointStep, Closing, Next};
use crate::format::segment::segment_name;
use crate::job::{Job, Work, temporary_name};
use crate::store::Store;

impl Store {
    pub(super) fn poll_closing(&mut self) -> Option<Job> {
        let drained = !self.writer.is_in_flight()
            && !self.writer.has_closed()
            && self.writer.open_is_empty()
            && !self.writer.watermark_pending();
        let checkpoint_idle = matches!(self.maintenance.checkpoint, CheckpointStep::Idle);
        match self.maintenance.closing {
            Closing::Sealing => {
                // A closed batch may wait for the next segment.
                if !drained {
                    return self.poll_next_segment();
                }
                if let Some(job) = self.poll_footer() {
                    return Some(job);
                }
                let current = self.maintenance.current_segment;
                if !self.maintenance.to_seal.is_empty() || !checkpoint_idle {
                    return None;
                }
                if let std::collections::btree_map::Entry::Vacant(entry) = self.held.entry(current)
                    && self.indexes.contains_key(&current)
                    && let Some(file) = &self.maintenance.current_file
                {
                    entry.insert(Arc::clone(file));
                    self.maintenance.to_seal.push_back(current);
                    return self.poll_footer();
                }
                self.maintenance.closing = Closing::Checkpoint;
                None
            }
            Closing::Removing => {
                let mut names = self.take_removable();
                match &self.maintenance.next {
                    Next::Ready { segment, .. } => names.push(segment_name(*segment)),
                    // A number that this owner has not linked may be a successor's.
                    Next::Publishing { segment, .. } | Next::Zeroing { segment, .. } => {
                        names.push(temporary_name(*segment));
                    }
                    Next::Missing => {}
                }
                self.maintenance.next = Next::Missing;
                Some(Job {
                    work: Work::Remove {
                        disk: Arc::clone(&self.disk),
                        names,
                    },
                })
            }
            Closing::Checkpoint | Closing::No | Closing::Done => None,
        }
    }

    /// Gives the locks back, the segments' before the one that queues the servers.
    pub(super) fn release(&mut self) {
        self.maintenance.closing = Closing::Done;
        self.held.clear();
        self.maintenance.next = Next::Missing;
        self.maintenance.current_file = None;
        self.lock = None;
    }
}
