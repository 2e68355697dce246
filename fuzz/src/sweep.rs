//! Every byte of a small store changed once, and every file cut off at every length.

use std::io::{IsTerminal, Write, stderr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use steadfast_storage::disk::SimWorld;
use steadfast_storage::inspect::verify;

use crate::store::{Sample, Verdict, judge, mend, one_of_each, world_of};

/// Bytes of a file that recovery never reads are tried at this distance only.
const COARSE_BYTES: u64 = 4096;
/// Each so many of the damages the store is repaired too; a store that is refused always is.
const REPAIR_EACH: u64 = 199;
/// After each so many of the damages without effect the store works on, and its next owner is asked too,
/// as after all others.
const SURVIVAL_EACH: u64 = 5;
/// Progress is told each so many damages.
const PROGRESS_EACH: u64 = 50_000;

/// One damage of the file with a number.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip { file: usize, offset: u64 },
    Cut { file: usize, bytes: u64 },
}

/// What a sweep found.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Damages that changed nothing that is ever read.
    pub unaffected: u64,
    /// Damages that were reported with file and offset, all messages being served.
    pub reported: u64,
    /// Damages that set messages aside, all others being served.
    pub set_aside: u64,
    /// Damages after which the store was not opened, with a message, and not changed; it was repaired then.
    pub refused: u64,
    /// Stores that were repaired.
    pub repaired: u64,
    /// Damages that changed anything in silence, or that `store verify` did not see: what they were.
    pub silent: Vec<String>,
}

impl Counts {
    fn take(&mut self, outcome: Result<(Verdict, bool), String>) {
        match outcome {
            Ok((verdict, is_repaired)) => {
                self.repaired += u64::from(is_repaired);
                *match verdict {
                    Verdict::Unaffected => &mut self.unaffected,
                    Verdict::Reported => &mut self.reported,
                    Verdict::SetAside => &mut self.set_aside,
                    Verdict::Refused => &mut self.refused,
                } += 1;
            }
            Err(silent) => self.silent.push(silent),
        }
    }

    fn add(&mut self, other: Self) {
        self.unaffected += other.unaffected;
        self.reported += other.reported;
        self.set_aside += other.set_aside;
        self.refused += other.refused;
        self.repaired += other.repaired;
        self.silent.extend(other.silent);
    }
}

/// The damages, by number.
struct Damages {
    /// Name, length, and the distance of the places.
    files: Vec<(String, u64, u64)>,
}

impl Damages {
    fn of(sample: &Sample) -> Self {
        let files = sample.files.iter().map(|(name, bytes)| {
            let distance = if name == "RESERVE" { COARSE_BYTES } else { 1 };
            (name.clone(), bytes.len() as u64, distance)
        });
        Self {
            files: files.collect(),
        }
    }

    fn count(&self) -> u64 {
        let places = |(_, bytes, distance): &(String, u64, u64)| bytes.div_ceil(*distance);
        self.files.iter().map(|file| 2 * places(file)).sum()
    }

    fn get(&self, mut number: u64) -> Option<Damage> {
        for (file, (_, bytes, distance)) in self.files.iter().enumerate() {
            let places = bytes.div_ceil(*distance);
            if number < places {
                let offset = number * distance;
                return Some(Damage::Flip { file, offset });
            }
            if number < 2 * places {
                let bytes = (number - places) * distance;
                return Some(Damage::Cut { file, bytes });
            }
            number -= 2 * places;
        }
        None
    }
}

/// Tries each `stride`-th damage from the `first` on, on all cores, and says how far it is.
#[must_use]
pub fn sweep(first: u64, stride: u64) -> Counts {
    let sample = one_of_each();
    let damages = Damages::of(&sample);
    for (name, bytes, _) in &damages.files {
        println!("  {name:<24} {bytes:>8} bytes");
    }
    let tries = damages.count().saturating_sub(first).div_ceil(stride);
    println!("{} damages, {tries} of them are tried", damages.count());
    let world = world_of(&sample);
    let (next, total) = (AtomicU64::new(0), Mutex::new(Counts::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            // Worlds have locks of their own: each thread has one to copy from.
            let world = world.fork();
            let (next, total, damages, sample) = (&next, &total, &damages, &sample);
            scope.spawn(move || {
                let mut counts = Counts::default();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(damage) = damages.get(first + number * stride) else {
                        break;
                    };
                    if number > 0 && number.is_multiple_of(PROGRESS_EACH) {
                        tell(first + number * stride, damages.count());
                    }
                    let attempt = || one(sample, &world, damages, damage, number);
                    let outcome = catch_unwind(AssertUnwindSafe(attempt));
                    counts.take(
                        outcome.map_err(|panic| format!("{damage:?}: {}", crate::text_of(&*panic))),
                    );
                }
                total.lock().expect("no holder panics").add(counts);
            });
        }
    });
    total.into_inner().expect("no holder panics")
}

/// One line that is written over on a terminal.
fn tell(number: u64, count: u64) {
    let end = if stderr().is_terminal() { '\r' } else { '\n' };
    // Nobody looks when it is closed.
    let _ = write!(stderr(), "  at {number} of {count}{end}");
}

fn one(
    sample: &Sample,
    world: &SimWorld,
    damages: &Damages,
    damage: Damage,
    number: u64,
) -> (Verdict, bool) {
    let world = world.fork();
    let name = |file: usize| &damages.files[file].0;
    match damage {
        Damage::Flip { file, offset } => world.flip(name(file), offset, 0xff),
        Damage::Cut { file, bytes } => world.truncate(name(file), bytes),
    }
    let damaged = world.fork();
    let looked = verify(&world.process(), &mut |_, _| ()).expect("a store can be looked at");
    let verdict = judge(sample, &world, number.is_multiple_of(SURVIVAL_EACH));
    assert!(
        verdict == Verdict::Unaffected || !looked.findings.is_empty(),
        "`store verify` does not see what is {verdict:?}"
    );
    let repairs = verdict == Verdict::Refused || number.is_multiple_of(REPAIR_EACH);
    (verdict, repairs && mend(sample, &damaged))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use steadfast_storage::inspect::dump;

    #[test]
    fn the_sample_holds_one_of_each_structure() {
        let sample = one_of_each();
        let names: BTreeSet<&str> = sample
            .files
            .keys()
            .map(|name| name.split_once('.').map_or(name.as_str(), |(_, end)| end))
            .collect();
        for end in ["seg", "idx", "1001.cmp", "LOCK", "RESERVE"] {
            assert!(names.contains(end), "{end} in {names:?}");
        }
        let world = world_of(&sample);
        let report = verify(&world.process(), &mut |_, _| ()).expect("it can be looked at");
        assert_eq!(report.findings, []);
        assert_eq!(report.checkpoints.len(), 1);
        let ends: Vec<&str> = report.segments.iter().map(|it| it.end.as_str()).collect();
        for end in ["footer", "SEAL at", "open", "prepared"] {
            assert!(
                ends.iter().any(|it| it.starts_with(end)),
                "{end} in {ends:?}"
            );
        }
        let mut lines = Vec::new();
        for segment in report.segments {
            // A prepared segment has nothing to show.
            let number = &|queue: u32| queue.to_string();
            let line = &mut |line| lines.push(line);
            let _ = dump(&world.process(), segment.segment, 0, 10_000, number, line);
        }
        for record in [
            "message to",
            "settled ",
            "put, key",
            "deleted, key",
            "SEAL of",
            "adopted from",
            "index of",
            "snapshot of",
            "set aside",
            " 0 records",
        ] {
            assert!(lines.iter().any(|line| line.contains(record)), "{record}");
        }
    }

    #[test]
    fn damages_are_numbered_without_gaps() {
        let damages = Damages {
            files: vec![("a".to_owned(), 3, 1), ("b".to_owned(), 5000, 4096)],
        };
        assert_eq!(damages.count(), 10);
        assert!((0..10).all(|number| damages.get(number).is_some()));
        assert!(damages.get(10).is_none());
    }
}
