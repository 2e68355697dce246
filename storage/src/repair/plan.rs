//! What a repair would do. Reads only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::base::{Losses, Waiting};
use super::salt::header_from_batches;
use super::view::View;
use super::{Dropped, Note};
use crate::checkpoint::load;
use crate::disk::{Disk, OpenMode, read_range};
use crate::error::OpenError;
use crate::format::Identity;
use crate::format::segment::{
    HEADER_BYTES, HeaderFault, SegmentHeader, checkpoint_of, compact_of, segment_name, segment_of,
    side_index_of,
};
use crate::inspect::{Finding, UserRows, verify};
use crate::open::{Opening, new_identity};
use crate::options::{RecoveryReport, StoreOptions};
use crate::survey::{store_id, survey};

/// A file that does not belong where it is.
#[derive(Clone, Debug)]
pub(super) struct Stranger {
    pub(super) file: String,
    pub(super) why: String,
    /// The name that it should have, where no file has that.
    pub(super) belongs_to: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) view: Arc<View>,
    /// Why no server opens the store as it is.
    pub(super) refusal: Option<String>,
    pub(super) findings: Vec<Finding>,
    pub(super) strangers: Vec<Stranger>,
    pub(super) dropped: Vec<Dropped>,
    pub(super) notes: Vec<Note>,
    pub(super) waiting: Waiting,
    /// Segments of which a part is damaged.
    pub(super) damaged: BTreeSet<u64>,
    /// No segment is begun below this number: there may have been one.
    pub(super) number_min: u64,
    pub(super) messages: u64,
    pub(super) checkpoints: Vec<String>,
    pub(super) rows: UserRows,
}

impl Plan {
    pub(super) fn is_needed(&self) -> bool {
        self.refusal.is_some()
            || !self.dropped.is_empty()
            || self.findings.iter().any(|finding| finding.is_damage)
    }
}

pub(super) fn plan(disk: &Arc<dyn Disk>, options: &StoreOptions) -> Result<Plan, OpenError> {
    let names = disk
        .list()
        .map_err(|error| OpenError::io("listing failed", "the store", error))?;
    let names: BTreeSet<String> = names.into_iter().map(|entry| entry.name).collect();
    let refusal = match opened_as_it_is(disk, options) {
        Ok(()) => None,
        Err(busy @ (OpenError::Busy(_) | OpenError::UnsafeFileSystem(_))) => return Err(busy),
        Err(OpenError::Damaged(why)) => Some(why),
        Err(error) => Some(error.to_string()),
    };
    let view = Arc::new(View::new(Arc::clone(disk)));
    let (strangers, identity) = strangers(view.as_ref(), &names)?;
    let mut view = view.with(hidden(&strangers), renamed(&strangers));
    let mut looked = verify(&view, &mut |_, _| ()).map_err(listing_failed)?;
    let covered = covered(&looked.findings, &names);
    let strangers: Vec<Stranger> = strangers.into_iter().chain(covered).collect();
    view = view.with(hidden(&strangers), renamed(&strangers));
    if !matches!(store_id(&view), Ok(Some(_))) {
        give_a_header(&mut view, &names, identity, options)?;
    }
    let view = Arc::new(view);
    let disk: Arc<dyn Disk> = Arc::<View>::clone(&view);
    let survey = survey(disk.as_ref())?;
    let mut opening = Opening::new(Arc::clone(&disk), &survey, options);
    opening.losses = Some(Losses::default());
    let recovered = opening.recover(&survey, None, &mut |_| ())?;
    let waiting = opening.waiting(&survey, &recovered.state, true)?;
    let unreadable = view.unreadable();
    let is_known = |finding: &Finding| looked.findings.iter().any(|it| it.file == finding.file);
    let unread = unreadable.into_iter().map(|(file, offset)| Finding {
        file,
        offset,
        queue: None,
        what: "the disk cannot read it".to_owned(),
        is_damage: true,
    });
    let unread: Vec<Finding> = unread.filter(|finding| !is_known(finding)).collect();
    looked.findings.extend(unread);
    let losses = opening.losses.take().unwrap_or_default();
    // A torn tail, too: whether the checkpoint proves that it was more is known only now.
    let files = looked.findings.iter().map(|finding| &finding.file);
    let ranges = opening.report.damaged.iter().map(|range| &range.file);
    let mut damaged: BTreeSet<u64> = files
        .chain(ranges)
        .filter_map(|file| number_of(file))
        .collect();
    damaged.extend(waiting.lost.keys());
    damaged.extend(waiting.unreadable.iter().map(|one| one.segment));
    let (messages, _) = recovered.state.totals();
    let gone = waiting.unreadable.len() as u64;
    Ok(Plan {
        refusal,
        dropped: dropped(&opening.report, &losses, &waiting, &strangers),
        notes: notes(&losses),
        damaged,
        number_min: number_min(&names, recovered.state.position.segment, &losses),
        messages: messages.saturating_sub(gone),
        checkpoints: names
            .iter()
            .filter(|name| checkpoint_of(name).is_some())
            .cloned()
            .collect(),
        findings: looked.findings,
        strangers,
        waiting,
        view,
        rows: recovered.state.rows,
    })
}

/// Where nothing tells whose store it is, the batches do: the newest segment that has some seems to have
/// its header.
fn give_a_header(
    view: &mut View,
    names: &BTreeSet<String>,
    identity: Option<Identity>,
    options: &StoreOptions,
) -> Result<(), OpenError> {
    for name in names.iter().rev() {
        let Some(segment) = segment_of(name) else {
            continue;
        };
        let Ok(file) = view.open(name, OpenMode::Read) else {
            continue;
        };
        let new = new_identity(options);
        let header = header_from_batches(file.as_ref(), segment, identity, new)
            .map_err(|error| OpenError::io("reading failed", name, error))?;
        if let Some(header) = header {
            view.patch(name.clone(), header.encode().to_vec());
            return Ok(());
        }
    }
    Ok(())
}

fn listing_failed(error: std::io::Error) -> OpenError {
    OpenError::io("listing failed", "the store", error)
}

fn hidden(strangers: &[Stranger]) -> BTreeSet<String> {
    let stay_away = strangers.iter().filter(|it| it.belongs_to.is_none());
    stay_away.map(|it| it.file.clone()).collect()
}

fn renamed(strangers: &[Stranger]) -> BTreeMap<String, String> {
    let named = strangers.iter();
    named
        .filter_map(|it| Some((it.belongs_to.clone()?, it.file.clone())))
        .collect()
}

/// The segment that a file is a part of.
fn number_of(file: &str) -> Option<u64> {
    segment_of(file).or_else(|| Some(compact_of(file)?.0))
}

/// What a server would do, up to the point where it would write.
fn opened_as_it_is(disk: &Arc<dyn Disk>, options: &StoreOptions) -> Result<(), OpenError> {
    let survey = survey(disk.as_ref())?;
    let mut opening = Opening::new(Arc::clone(disk), &survey, options);
    opening.recover(&survey, None, &mut |_| ()).map(|_| ())
}

/// The files whose header says that they are something else, and whose store this is: the one that most
/// files belong to, the newest of them in doubt.
fn strangers(
    disk: &dyn Disk,
    names: &BTreeSet<String>,
) -> Result<(Vec<Stranger>, Option<Identity>), OpenError> {
    let mut found = Vec::new();
    let mut headers: Vec<(&String, u64, SegmentHeader)> = Vec::new();
    // How many files, and the newest of them.
    let mut votes: BTreeMap<([u8; 16], u64), (u64, u64)> = BTreeMap::new();
    let mut vote = |identity: Identity, number: u64| {
        let (files, newest) = votes.entry((identity.uuid, identity.salt)).or_default();
        *files += 1;
        *newest = number.max(*newest);
    };
    for name in names {
        if let Some(epoch) = checkpoint_of(name) {
            if let Ok((_, meta)) = load(disk, name) {
                vote(meta.identity, epoch);
            }
            continue;
        }
        let Some(number) = number_of(name) else {
            continue;
        };
        let read = disk.open(name, OpenMode::Write);
        let start = match read.and_then(|file| read_range(file.as_ref(), 0, HEADER_BYTES)) {
            Ok(start) => start,
            Err(error) => {
                found.push(Stranger {
                    file: name.clone(),
                    why: format!("it cannot be opened: {error}"),
                    belongs_to: None,
                });
                continue;
            }
        };
        match SegmentHeader::decode(&start) {
            Ok(header) => {
                vote(header.identity, number);
                headers.push((name, number, header));
            }
            Err(fault @ HeaderFault::Version(_)) => {
                return Err(OpenError::Damaged(format!(
                    "{name}: {fault}; only a program that knows that version may repair it"
                )));
            }
            Err(_) => {}
        }
    }
    let most = votes.iter().max_by_key(|(_, known)| **known);
    let Some(((uuid, salt), _)) = most else {
        return Ok((found, None));
    };
    let identity = Identity {
        uuid: *uuid,
        salt: *salt,
    };
    for (name, number, header) in headers {
        let right = segment_name(header.segment);
        if header.identity != identity {
            found.push(Stranger {
                file: name.clone(),
                why: "it belongs to another store".to_owned(),
                belongs_to: None,
            });
        } else if header.segment != number {
            let is_free = segment_of(name).is_some() && !names.contains(&right);
            found.push(Stranger {
                file: name.clone(),
                why: format!("its header says that it is segment {}", header.segment),
                belongs_to: is_free.then_some(right),
            });
        }
    }
    Ok((found, Some(identity)))
}

/// Damaged files for which another one stands: of a segment and its compacted files each that is whole holds
/// all that waits. And side indexes, which are made again.
fn covered(findings: &[Finding], names: &BTreeSet<String>) -> Vec<Stranger> {
    let is_damaged = |name: &String| findings.iter().any(|it| it.is_damage && it.file == *name);
    let stands_for = |file: &String| {
        let others = names
            .iter()
            .filter(|name| number_of(name) == number_of(file));
        others.rev().find(|name| !is_damaged(name))
    };
    let mut found = Vec::new();
    for file in names.iter().filter(|name| is_damaged(name)) {
        let why = if side_index_of(file).is_some() {
            "the index is damaged, and made again from the log".to_owned()
        } else if let Some(other) = stands_for(file) {
            format!("{other} holds all of it that waits")
        } else {
            continue;
        };
        found.push(Stranger {
            file: file.clone(),
            why,
            belongs_to: None,
        });
    }
    found
}

fn number_min(names: &BTreeSet<String>, position: u64, losses: &Losses) -> u64 {
    let named = names.iter().filter_map(|name| {
        number_of(name)
            .or_else(|| checkpoint_of(name))
            .or_else(|| side_index_of(name))
    });
    let missing = losses.missing.keys().copied();
    named.chain(missing).chain([position]).max().unwrap_or(0) + 1
}

fn notes(losses: &Losses) -> Vec<Note> {
    let made_up = losses.made_up.iter().map(|why| Note {
        queue: None,
        what: format!(
            "{why}: the state is made from what is left, so messages that were settled long ago may come \
             back, and rows that were not written since may be missing"
        ),
    });
    let fewer = losses.fewer.iter().map(|(queue, messages)| Note {
        queue: Some(*queue),
        what: format!("has {messages} messages less than its count said"),
    });
    made_up.chain(fewer).collect()
}

fn dropped(
    report: &RecoveryReport,
    losses: &Losses,
    waiting: &Waiting,
    strangers: &[Stranger],
) -> Vec<Dropped> {
    let mut dropped = Vec::new();
    for stranger in strangers {
        let what = match &stranger.belongs_to {
            Some(name) => format!("{}; it becomes {name}", stranger.why),
            None => stranger.why.clone(),
        };
        dropped.push(Dropped::of(&stranger.file, 0, what));
    }
    for (segment, live) in &losses.missing {
        dropped.push(Dropped {
            messages: u64::from(*live),
            ..Dropped::of(&segment_name(*segment), 0, "the file is missing".to_owned())
        });
    }
    for range in report
        .damaged
        .iter()
        .filter(|range| range.bytes + range.records > 0)
    {
        let what = format!("{} records cannot be read", range.records);
        dropped.push(Dropped {
            bytes: range.bytes,
            ..Dropped::of(&range.file, range.offset, what)
        });
    }
    let lost = waiting.lost.iter();
    dropped.extend(lost.map(|(segment, lost)| Dropped::references(*segment, lost)));
    dropped.extend(waiting.unreadable.iter().map(Dropped::message));
    dropped
}
