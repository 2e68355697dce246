//! How far a recovery or a standby has come: written by the opener's thread, read by the monitor.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use steadfast_storage::{Progress, WarmStatus};

use crate::monitor;

/// Recoveries below this are not worth a line of the log.
const SAID_AFTER: Duration = Duration::from_secs(1);

/// A recovery under way.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    started: Instant,
    phase_started: Instant,
    step: Progress,
    /// When the next line is due.
    said_next: Duration,
}

/// Name of a phase, and how much of it is done of how much.
fn parts(step: Progress) -> (&'static str, u64, u64) {
    match step {
        Progress::Locking => ("locking", 0, 0),
        Progress::Checkpoint => ("checkpoint", 0, 0),
        Progress::Snapshot { bytes, of } => ("snapshot", bytes, of),
        Progress::Tail { bytes, of } => ("tail", bytes, of),
        Progress::Sealing => ("sealing", 0, 0),
    }
}

impl UnderWay {
    fn new(step: Progress, now: Instant) -> Self {
        Self {
            started: now,
            phase_started: now,
            step,
            said_next: SAID_AFTER,
        }
    }

    fn go_on(&mut self, step: Progress, now: Instant) {
        if parts(step).0 != parts(self.step).0 {
            self.phase_started = now;
        }
        self.step = step;
    }

    /// Whether a line is due now; then the next one is due when twice the time has passed.
    fn is_to_be_said(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.started);
        let is_due = elapsed >= self.said_next;
        if is_due {
            self.said_next = elapsed * 2;
        }
        is_due
    }

    fn view(&self, now: Instant) -> monitor::Progress {
        let (phase, done, total) = parts(self.step);
        let ms = |since: Instant| {
            let elapsed = now.saturating_duration_since(since);
            u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
        };
        let left = u128::from(total.saturating_sub(done));
        // As fast as the phase has gone so far; the phases behind it are short.
        let remaining = (u128::from(ms(self.phase_started)) * left).checked_div(u128::from(done));
        let remaining = remaining.filter(|_| total > 0);
        monitor::Progress {
            phase: phase.to_owned(),
            done,
            total,
            elapsed_ms: ms(self.started),
            remaining_ms: remaining.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    recovery: Option<UnderWay>,
    standby: Option<WarmStatus>,
}

/// What the opener's thread shows to others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Mutex<Shared>>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a step of a recovery, and writes a line now and then when it takes long.
    pub(super) fn step(&self, step: Progress) {
        let now = Instant::now();
        let said = {
            let mut shared = self.lock();
            let recovery = shared
                .recovery
                .get_or_insert_with(|| UnderWay::new(step, now));
            recovery.go_on(step, now);
            recovery.is_to_be_said(now).then(|| recovery.view(now))
        };
        if let Some(progress) = said {
            tracing::info!(
                event = "recovering",
                phase = progress.phase,
                done = progress.done,
                total = progress.total,
                elapsed_ms = progress.elapsed_ms,
                remaining_ms = progress.remaining_ms,
                "still recovering"
            );
        }
    }

    pub(super) fn end_recovery(&self) {
        self.lock().recovery = None;
    }

    /// Shows what a warm standby has; `None` when this server follows nobody.
    pub(super) fn stand_by(&self, status: Option<WarmStatus>) {
        self.lock().standby = status;
    }

    /// The recovery under way.
    pub(crate) fn progress(&self) -> Option<monitor::Progress> {
        let now = Instant::now();
        self.lock().recovery.map(|it| it.view(now))
    }

    /// What a warm standby has.
    pub(crate) fn standby(&self) -> Option<monitor::WarmStandby> {
        let status = self.lock().standby.clone()?;
        Some(monitor::WarmStandby {
            following: status.is_following,
            current: status.is_current,
            segment: status.segment,
            offset: status.offset,
            applied_lsn: status.applied_lsn,
            lag_records: status.read_lsn.saturating_sub(status.applied_lsn),
            restarts: status.restarts,
            lost: status.lost,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn the_rest_is_estimated_from_the_phase_so_far() {
        let start = Instant::now();
        let mut recovery = UnderWay::new(Progress::Checkpoint, start);
        assert_eq!(recovery.view(later(start, 500)).remaining_ms, None);
        recovery.go_on(Progress::Tail { bytes: 1, of: 400 }, later(start, 1000));
        recovery.go_on(
            Progress::Tail {
                bytes: 100,
                of: 400,
            },
            later(start, 1400),
        );
        let view = recovery.view(later(start, 3000));
        assert_eq!(
            (view.phase.as_str(), view.done, view.total),
            ("tail", 100, 400)
        );
        assert_eq!(view.elapsed_ms, 3000);
        assert_eq!(view.remaining_ms, Some(6000));
    }

    #[test]
    fn a_short_recovery_is_silent_and_a_long_one_says_little() {
        let start = Instant::now();
        let mut recovery = UnderWay::new(Progress::Locking, start);
        let mut lines = Vec::new();
        for ms in 0..60_000 {
            if recovery.is_to_be_said(later(start, ms)) {
                lines.push(ms);
            }
        }
        assert_eq!(lines, [1000, 2000, 4000, 8000, 16_000, 32_000]);
    }
}
