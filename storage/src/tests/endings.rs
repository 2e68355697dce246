//! An end that was written down and never became durable, and takeovers that do not get through: their successors
//! may see what they wrote until the host loses its power.

use super::*;
use crate::disk::{Fault, FileSystem, Operation};

/// A disk error.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    operation: Operation,
    /// So many operations of this kind succeed before it.
    skip: u64,
}

impl Trouble {
    fn strike(self, world: &SimWorld) {
        let name_part = match self.operation {
            // The directory has no name.
            Operation::Name => "",
            _ => ".seg",
        };
        world.inject(Fault {
            operation: self.operation,
            name_part: name_part.to_owned(),
            skip: self.skip,
            count: 1,
            errno: nix::libc::EIO,
        });
    }
}

/// How the owner that has served went.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Orderly,
    /// The sync with this number on its way out fails.
    SyncFails(u64),
    /// It dies with this number of jobs of its orderly end done, and one that nobody heard of.
    DiesAfter(u32),
}

fn end(server: Server, ending: Ending) {
    let world = server.disk.world().clone();
    let mut server = server;
    match ending {
        Ending::Orderly => server.shut_down(),
        Ending::SyncFails(skip) => {
            let trouble = Trouble {
                operation: Operation::Sync,
                skip,
            };
            trouble.strike(&world);
            server.store.begin_shutdown();
            server.rest();
        }
        Ending::DiesAfter(jobs) => {
            server.store.begin_shutdown();
            for _ in 0..jobs {
                if let Some(job) = server.step() {
                    server.store.complete(job.run()).unwrap();
                }
            }
            // The sync at the end of a job is cut short.
            let trouble = Trouble {
                operation: Operation::Sync,
                skip: u64::from(jobs % 2),
            };
            trouble.strike(&world);
            drop(server.step().map(Job::run));
        }
    }
    world.kill_all();
    world.heal();
}

/// A life whose end may not be durable, a takeover that fails, and one that serves and is stopped before each
/// operation of its disk.
fn explore(ending: Ending, troubles: &[Trouble], is_local: bool, seed: u64) {
    let context = format!("{ending:?}, {troubles:?}, local: {is_local}, seed {seed}");
    let world = SimWorld::new();
    if !is_local {
        world.set_file_system(FileSystem::Nfs { lease_s: Some(20) });
    }
    let small = StoreOptions {
        first_segment_bytes: 64 << 10,
        ..options()
    };
    let mut kept = Vec::new();
    for life in 0..2 {
        let mut server = try_open(&world, small.clone()).unwrap();
        for text in numbered(life * 10..life * 10 + 5) {
            server.publish(1, &text);
            server.work();
            kept.push(text);
        }
        // A checkpoint of the first life is the base of the next ones.
        if life == 0 {
            server.shut_down();
        } else {
            end(server, ending);
        }
    }
    for trouble in troubles {
        trouble.strike(&world);
        drop(try_open(&world, small.clone()));
        world.kill_all();
        world.heal();
    }
    world.record();
    let mut server =
        try_open(&world, small.clone()).unwrap_or_else(|error| panic!("{error}, {context}"));
    assert_eq!(server.report.damaged, [], "{context}");
    assert_eq!(server.texts(1), kept, "{context}");
    server.publish(1, "more");
    server.work();
    for (step, copy) in world.recorded().into_iter().enumerate() {
        let seed = seed.wrapping_mul(1_000).wrapping_add(step as u64);
        copy.crash(seed);
        let context = format!("{context}, stopped before {step}");
        for again in 0..2 {
            let server = try_open(&copy, small.clone())
                .unwrap_or_else(|error| panic!("{error}, {context}, {again}"));
            assert_eq!(server.report.damaged, [], "{context}, {again}");
            let found = server.texts(1);
            assert_eq!(
                found.get(..kept.len()),
                Some(&kept[..]),
                "{context}, {again}"
            );
            assert_eq!(found.len() as u64, server.count(1), "{context}, {again}");
            copy.crash(seed);
        }
    }
}

#[test]
fn an_end_that_was_not_durable_and_a_takeover_that_fails_are_no_damage() {
    let trouble = |operation, skip| Trouble { operation, skip };
    let mut troubles = vec![vec![]];
    for skip in 0..2 {
        troubles.push(vec![trouble(Operation::Sync, skip)]);
        troubles.push(vec![
            trouble(Operation::Sync, 0),
            trouble(Operation::Sync, skip),
        ]);
    }
    troubles.extend((0..4).map(|skip| vec![trouble(Operation::Write, skip)]));
    troubles.extend((1..6).map(|skip| vec![trouble(Operation::Name, skip)]));
    let mut endings = vec![Ending::Orderly];
    endings.extend((0..3).map(Ending::SyncFails));
    endings.extend((0..4).map(Ending::DiesAfter));
    for ending in endings {
        for troubles in &troubles {
            for seed in 0..2 {
                explore(ending, troubles, seed % 2 == 0, seed);
            }
        }
    }
}

/// The last batch of a segment repeats only what is known, so no checkpoint is taken for it; the one that is taken in
/// the next segment is to know it all the same, as long as that is all that says where this one ends.
#[test]
fn a_segment_that_ends_with_an_index_record_ends_there() {
    let small = StoreOptions {
        first_segment_bytes: 64 << 10,
        ..options()
    };
    let world = SimWorld::new();
    let mut server = try_open(&world, small.clone()).unwrap();
    let mut kept = numbered(0..5);
    for text in &kept {
        server.publish(1, text);
    }
    // With a checkpoint and the index record in front of it.
    server.rest();
    world.record();
    for letter in ["a", "b", "c"] {
        kept.push(letter.repeat(60_000));
        server.publish(1, kept.last().unwrap());
        server.work();
    }
    for (step, copy) in world.recorded().into_iter().enumerate() {
        for seed in 0..8 {
            let context = format!("stopped before {step}, seed {seed}");
            let copy = copy.fork();
            copy.kill_all();
            for _ in 0..2 {
                let server = try_open(&copy, small.clone()).unwrap();
                assert_eq!(server.report.damaged, [], "{context}");
                assert!(kept.starts_with(&server.texts(1)), "{context}");
                copy.crash(seed);
            }
        }
    }
}
