//! The simulation repeats itself, and its oracle can fail.

use super::*;

/// The first violation that a mutant shows in some lives.
fn caught(mutant: Mutant, is_recorded: bool) -> Option<String> {
    (1..60).find_map(|seed| Sim::new(seed, mutant, is_recorded).run().err())
}

#[test]
fn a_life_repeats_itself() {
    let run = |seed| {
        let mut sim = Sim::new(seed, Mutant::Sound, false);
        sim.run().expect("a sound life");
        (sim.now, sim.digest, format!("{:?}", sim.oracle.counts))
    };
    for seed in 1..4 {
        assert_eq!(run(seed), run(seed));
    }
}

#[test]
fn confirming_before_a_batch_is_durable_is_noticed() {
    let what = caught(Mutant::EarlyCompletion, true).expect("a violation");
    assert!(what.contains("lost") || what.contains("settled"), "{what}");
}

#[test]
fn a_disk_whose_syncs_do_nothing_is_noticed() {
    assert!(caught(Mutant::LyingDisk, false).is_some());
}

#[test]
fn forgotten_marks_are_noticed() {
    let what = caught(Mutant::NoMarks, false).expect("a violation");
    assert!(what.contains("without a mark"), "{what}");
}

#[test]
fn forgotten_holds_are_noticed() {
    let what = caught(Mutant::NoHolds, false).expect("a violation");
    assert!(what.contains("kept for"), "{what}");
}

#[test]
fn lost_subscriptions_are_noticed() {
    let what = caught(Mutant::LostSubscription, false).expect("a violation");
    assert!(what.contains("is lost"), "{what}");
}

#[test]
fn subscriptions_that_come_back_are_noticed() {
    let what = caught(Mutant::RevivedSubscription, true).expect("a violation");
    assert!(what.contains("there again"), "{what}");
}

#[test]
fn clients_come_back_for_what_they_had() {
    let kept = |seed| {
        let mut sim = Sim::new(seed, Mutant::Sound, false);
        sim.run().expect("a sound life");
        sim.oracle.counts.kept
    };
    assert!((1..60).map(kept).sum::<u64>() > 10);
}

#[test]
fn two_owners_are_noticed() {
    let what = caught(Mutant::NoLocks, false).expect("a violation");
    assert!(what.contains("active while"), "{what}");
}
