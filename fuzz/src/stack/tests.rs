//! The simulation repeats itself, and its oracle can fail.

use super::*;

/// Whether a mutant shows a violation with these words in some lives.
fn shows(mutant: Mutant, is_recorded: bool, words: &[&str]) -> bool {
    (1..60).any(|seed| {
        let outcome = Sim::new(seed, mutant, is_recorded).run();
        outcome.is_err_and(|what| words.iter().any(|it| what.contains(it)))
    })
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
    assert!(shows(Mutant::EarlyCompletion, true, &["lost", "settled"]));
}

#[test]
fn a_disk_whose_syncs_do_nothing_is_noticed() {
    assert!(shows(Mutant::LyingDisk, false, &[""]));
}

#[test]
fn forgotten_marks_are_noticed() {
    assert!(shows(Mutant::NoMarks, false, &["without a mark"]));
}

#[test]
fn forgotten_holds_are_noticed() {
    assert!(shows(Mutant::NoHolds, false, &["kept for"]));
}

#[test]
fn lost_subscriptions_are_noticed() {
    assert!(shows(Mutant::LostSubscription, false, &["is lost"]));
}

#[test]
fn subscriptions_that_come_back_are_noticed() {
    assert!(shows(Mutant::RevivedSubscription, true, &["there again"]));
}

#[test]
fn queues_that_come_back_are_noticed() {
    assert!(shows(Mutant::RevivedQueue, true, &["comes again"]));
}

#[test]
fn a_purge_that_does_nothing_is_noticed() {
    assert!(shows(Mutant::NoPurge, false, &["comes again"]));
}

#[test]
fn an_administrator_deletes_and_purges() {
    let dropped = |seed| {
        let mut sim = Sim::new(seed, Mutant::Sound, false);
        sim.run().expect("a sound life");
        (sim.oracle.counts.deleted, sim.oracle.counts.purged)
    };
    let all: Vec<(u64, u64)> = (1..60).map(dropped).collect();
    assert!(all.iter().map(|it| it.0).sum::<u64>() > 10);
    // Rarely: a queue has to hold something that nobody has, and not be deleted.
    assert!(all.iter().map(|it| it.1).sum::<u64>() > 0);
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
    assert!(shows(Mutant::NoLocks, false, &["active while"]));
}
