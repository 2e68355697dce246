//! Segments of which more than one file is there: their server died between making a compacted file and
//! removing what that one stands for.
//!
//! The newest file is read through before anything is read from it, by the first reader or by the
//! compaction that decides about the others, whichever comes first. A damaged one stands for nothing: the
//! oldest file is read instead, as long as it is there and gives no less, and what waits is compacted again.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use crate::disk::OpenMode;
use crate::format::segment::data_name;
use crate::inspect::{VerifyReport, verify_compacted};
use crate::read::{ReadCache, SegmentPlan, Source, is_refused};
use crate::repair::unreadable;
use crate::state::State;
use crate::survey::Survey;

/// The files of a segment of which there are more than one.
#[derive(Debug)]
pub(crate) struct Pair {
    newest: u64,
    /// Generations of the others, ascending.
    pub(crate) others: Vec<u64>,
    verdict: Mutex<Option<Verdict>>,
}

/// What the newest file of a pair was found to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Whole,
    /// And the oldest one gives less.
    Damaged,
    /// And the oldest one is read.
    Replaced,
}

/// The segments of a state that have more than one file.
pub(crate) fn pairs(survey: &Survey, state: &State) -> BTreeMap<u64, Pair> {
    let pair = |(number, generations): (&u64, &Vec<u64>)| {
        let segment = survey.segments.binary_search(number).is_ok().then_some(0);
        let mut others: Vec<u64> = segment.into_iter().chain(generations.clone()).collect();
        let newest = others.pop().filter(|_| !others.is_empty())?;
        let verdict = Mutex::default();
        let pair = (
            *number,
            Pair {
                newest,
                others,
                verdict,
            },
        );
        state.segments.contains_key(number).then_some(pair)
    };
    survey.compacts.iter().filter_map(pair).collect()
}

impl ReadCache {
    /// The plan with the file that is to be read, and what was found out where there is a choice.
    pub(crate) fn chosen<'p>(
        &self,
        plan: &'p SegmentPlan,
    ) -> io::Result<(Cow<'p, SegmentPlan>, Option<Verdict>)> {
        let segment = plan.facts.segment;
        let pair = self.pairs.get(&segment);
        let Some(pair) = pair.filter(|pair| pair.newest == plan.generation) else {
            return Ok((Cow::Borrowed(plan), None));
        };
        let oldest = SegmentPlan {
            generation: pair.others.first().copied().unwrap_or(0),
            // Where it has none, it is read.
            source: Source::Footer,
            ..plan.clone()
        };
        let mut verdict = pair.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        if verdict.is_none() {
            *verdict = Some(self.judge(plan, &oldest)?);
        }
        if *verdict == Some(Verdict::Replaced) {
            let name = data_name(segment, oldest.generation);
            match self.disk.open(&name, OpenMode::Read) {
                // By an owner that has lost the store.
                Err(error) if is_unreadable(&error) => {
                    self.forget(segment);
                    *verdict = Some(Verdict::Damaged);
                }
                there => return there.map(|_| (Cow::Owned(oldest), *verdict)),
            }
        }
        Ok((Cow::Borrowed(plan), *verdict))
    }

    fn judge(&self, newest: &SegmentPlan, oldest: &SegmentPlan) -> io::Result<Verdict> {
        let segment = newest.facts.segment;
        let name = data_name(segment, newest.generation);
        let mut report = VerifyReport::default();
        let is_sound = match verify_compacted(self.disk.as_ref(), segment, &name, &mut report) {
            Err(error) if is_unreadable(&error) => false,
            other => other.map(|()| !report.is_damaged())?,
        };
        let lacks = self.lacks(newest)?;
        Ok(match is_sound && lacks == 0 {
            true => Verdict::Whole,
            false if self.lacks(oldest)? <= lacks => Verdict::Replaced,
            false => Verdict::Damaged,
        })
    }

    /// How many of the messages that wait a file does not give.
    fn lacks(&self, plan: &SegmentPlan) -> io::Result<usize> {
        let is_live = |ordinal: u32| !plan.settled.is_set(ordinal);
        let count = || {
            let mut lists = self.whole(plan)?;
            for entries in lists.index.values_mut() {
                entries.retain(|entry| is_live(entry.ordinal));
            }
            let lost = lists.lost.iter().filter(|it| is_live(**it)).count();
            Ok(lost + unreadable(self, plan, &lists.index)?.len())
        };
        match count() {
            Err(error) if is_unreadable(&error) => Ok(usize::MAX),
            other => other,
        }
    }
}

/// Not there, or on bad sectors. A disk that is away answers otherwise.
fn is_unreadable(error: &io::Error) -> bool {
    is_refused(error) || error.kind() == io::ErrorKind::NotFound
}
