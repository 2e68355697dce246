//! Every byte of a small store changed once, and every file cut off at every length.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use steadfast_storage::disk::SimWorld;
use steadfast_storage::inspect::verify;

use crate::store::{Recipe, Sample, Verdict, judge, make, world_of};

/// Bytes of a file that recovery never reads are tried at this distance only.
const COARSE_BYTES: usize = 4096;

/// One damage.
#[derive(Clone, Debug)]
enum Damage {
    Flip { file: String, offset: u64 },
    Cut { file: String, bytes: u64 },
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
    /// Damages after which the store was not opened, with a message, and not changed.
    pub refused: u64,
    /// Damages that changed anything in silence, or that `store verify` did not see: what they were.
    pub silent: Vec<String>,
}

/// Tries each `stride`-th damage on all cores.
#[must_use]
pub fn sweep(stride: usize) -> Counts {
    let sample = make(&Recipe {
        epochs: 2,
        messages: 30,
        padding: 30,
        ends_well: false,
    });
    let world = world_of(&sample);
    let all = damages(&sample);
    println!("{} damages, each {stride}. of them is tried", all.len());
    let damages: Vec<Damage> = all.into_iter().step_by(stride).collect();
    let (next, counts) = (AtomicUsize::new(0), Mutex::new(Counts::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            // Worlds have locks of their own: each thread has one to copy from.
            let world = world.fork();
            let (next, counts, damages, sample) = (&next, &counts, &damages, &sample);
            scope.spawn(move || {
                while let Some(damage) = damages.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = catch_unwind(AssertUnwindSafe(|| one(sample, &world, damage)));
                    let mut counts = counts.lock().expect("no holder panics");
                    match outcome {
                        Ok(Verdict::Unaffected) => counts.unaffected += 1,
                        Ok(Verdict::Reported) => counts.reported += 1,
                        Ok(Verdict::SetAside) => counts.set_aside += 1,
                        Ok(Verdict::Refused) => counts.refused += 1,
                        Err(panic) => {
                            let text = panic.downcast_ref::<String>().cloned();
                            let text = text.unwrap_or_else(|| "it panicked".to_owned());
                            counts.silent.push(format!("{damage:?}: {text}"));
                        }
                    }
                }
            });
        }
    });
    counts.into_inner().expect("no holder panics")
}

fn damages(sample: &Sample) -> Vec<Damage> {
    let mut damages = Vec::new();
    for (file, bytes) in &sample.files {
        let distance = match file.as_str() {
            "RESERVE" => COARSE_BYTES,
            _ => 1,
        };
        for offset in (0..bytes.len() as u64).step_by(distance) {
            let file = file.clone();
            damages.push(Damage::Flip { file, offset });
        }
        for bytes in (0..bytes.len() as u64).step_by(distance) {
            let file = file.clone();
            damages.push(Damage::Cut { file, bytes });
        }
    }
    damages
}

fn one(sample: &Sample, world: &SimWorld, damage: &Damage) -> Verdict {
    let world = world.fork();
    match damage {
        Damage::Flip { file, offset } => world.flip(file, *offset, 0xff),
        Damage::Cut { file, bytes } => world.truncate(file, *bytes),
    }
    let looked = verify(&world.process(), &mut |_, _| ()).expect("a store can be looked at");
    let verdict = judge(sample, &world);
    assert!(
        verdict == Verdict::Unaffected || !looked.findings.is_empty(),
        "`store verify` does not see what is {verdict:?}"
    );
    verdict
}
