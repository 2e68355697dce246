//! Power loss and process death at every step: what was reported durable is there, what was
//! settled durably is gone, nothing is invented.

use std::collections::BTreeSet;

use super::*;
use crate::disk::{Fault, Operation};

/// What the world was told.
#[derive(Default)]
struct Oracle {
    appended: BTreeSet<String>,
    durable: BTreeSet<String>,
    settled_appended: BTreeSet<String>,
    settled_durable: BTreeSet<String>,
}

struct Pending {
    ticket: Ticket,
    text: String,
    settles: bool,
}

/// Runs a workload until `crash_at` jobs are done, then crashes and checks the survivor.
fn run(seed: u64, crash_at: u32, power_loss: bool) {
    let world = SimWorld::new();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut server = open(&world);
    let mut oracle = Oracle::default();
    let mut pending: Vec<Pending> = Vec::new();
    let mut live: Vec<(Place, String)> = Vec::new();
    let mut number = 0;
    let mut jobs = 0;
    'work: loop {
        for _ in 0..random.u32(0..6) {
            number += 1;
            let text = format!("{number} {}", "z".repeat(random.usize(0..3000)));
            let (place, ticket) = server.publish(1, &text);
            oracle.appended.insert(text.clone());
            live.push((place, text.clone()));
            pending.push(Pending {
                ticket,
                text,
                settles: false,
            });
        }
        for _ in 0..random.u32(0..4) {
            if live.is_empty() {
                break;
            }
            let (place, text) = live.swap_remove(random.usize(..live.len()));
            if server.store.is_live(place) {
                let ticket = server.store.append_settled(QueueId(1), place).unwrap();
                oracle.settled_appended.insert(text.clone());
                pending.push(Pending {
                    ticket,
                    text,
                    settles: true,
                });
            } else {
                live.push((place, text));
            }
        }
        while let Some(job) = server.step() {
            jobs += 1;
            if jobs > crash_at {
                if random.bool() {
                    // The job had been done but nobody had heard of it.
                    let _ = job.run();
                }
                break 'work;
            }
            server.store.complete(job.run()).unwrap();
            let durable = server.store.durable_ticket();
            pending.retain(|one| {
                if one.ticket <= durable {
                    let set = if one.settles {
                        &mut oracle.settled_durable
                    } else {
                        &mut oracle.durable
                    };
                    set.insert(one.text.clone());
                }
                one.ticket > durable
            });
        }
        world.advance_ms(random.u64(0..40));
    }
    if power_loss {
        world.crash(seed ^ u64::from(crash_at));
    } else {
        world.kill(&server.disk);
    }
    let survivor = open(&world);
    check(
        &oracle,
        &survivor,
        &format!("seed {seed}, crash at {crash_at}, power {power_loss}"),
    );
    // A second death right after the takeover changes nothing.
    world.crash(seed.wrapping_add(1));
    check(
        &oracle,
        &open(&world),
        &format!("seed {seed}, second crash at {crash_at}"),
    );
}

fn check(oracle: &Oracle, survivor: &Server, context: &str) {
    assert_eq!(survivor.report.damaged, [], "{context}");
    let found: Vec<String> = survivor.texts(1);
    let set: BTreeSet<String> = found.iter().cloned().collect();
    assert_eq!(found.len(), set.len(), "{context}: a message came twice");
    assert_eq!(
        found.len() as u64,
        survivor.count(1),
        "{context}: the count is wrong"
    );
    for text in &oracle.durable {
        let number = text.split(' ').next();
        let expected = !oracle.settled_appended.contains(text);
        assert!(
            !expected || set.contains(text),
            "{context}: lost {number:?}"
        );
    }
    for text in &oracle.settled_durable {
        assert!(
            !set.contains(text),
            "{context}: a settled message came back"
        );
    }
    for text in &set {
        assert!(
            oracle.appended.contains(text),
            "{context}: invented {text:.20}"
        );
    }
    let numbers: Vec<u32> = found
        .iter()
        .filter_map(|text| text.split(' ').next()?.parse().ok())
        .collect();
    assert!(numbers.is_sorted(), "{context}: out of order");
}

#[test]
fn nothing_durable_is_lost_at_any_of_the_first_jobs() {
    for crash_at in 0..80 {
        run(1, crash_at, true);
        run(2, crash_at, false);
    }
}

#[test]
fn nothing_durable_is_lost_after_long_runs() {
    for seed in 10..40 {
        run(seed, 150 + u32::try_from(seed).unwrap() * 7, seed % 3 != 0);
    }
}

#[test]
fn a_watermark_that_nobody_synced_is_not_missed() {
    for seed in 0..20 {
        let world = SimWorld::new();
        let mut server = open(&world);
        server.rest();
        server.publish(1, "kept");
        server.work();
        world.advance_ms(20);
        // The watermark is written; its sync never ends.
        world.inject(Fault {
            operation: Operation::Sync,
            name_part: ".seg".to_owned(),
            skip: 0,
            count: 1,
            errno: nix::libc::EIO,
        });
        while let Some(job) = server.step() {
            let is_log = job.lane() == crate::Lane::Log;
            let _ = job.run();
            if is_log {
                break;
            }
        }
        assert_eq!(world.faults_left(), 0, "the sync was not reached");
        world.kill(&server.disk);
        drop(server);
        let second = open(&world);
        assert_eq!(second.texts(1), ["kept"]);
        world.crash(seed);
        drop(second);
        let third = open(&world);
        assert_eq!(third.texts(1), ["kept"]);
        assert_eq!(third.report.damaged, [], "seed {seed}");
    }
}
