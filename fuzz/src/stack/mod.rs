//! Two servers' whole stack (role, node with broker and protocol, store) under simulated time, network
//! and disk, with clients that speak AMQP, faults of all kinds, and an oracle of what clients saw.
//!
//! | file | what it is |
//! |---|---|
//! | `sim` | the clock, the queue of events, the plan of a life, its end |
//! | `server`, `engine`, `timers`, `pump` | a server's glue: what `net` does around the sans-IO parts, in the same order |
//! | `network` | connections of clients, links of servers |
//! | `places` | queues, topics, a bridge, and the subscriptions that clients may make |
//! | `administrator` | deletes and purges queues |
//! | `client`, `habits` | producers, consumers and subscribers; what they do by themselves |
//! | `disk` | a process's disk: dies between two operations, lies for the mutants |
//! | `faults` | what goes wrong, and when |
//! | `rows` | what a store has, read without the server's code |
//! | `drain` | a fresh server on a copy of the world, drained over AMQP |
//! | `oracle` | what was promised, and whether it was kept; `oracle/existence` for subscriptions, `oracle/administer` for queues that are deleted or purged |

mod administrator;
mod client;
mod disk;
mod drain;
mod engine;
mod faults;
mod habits;
mod lanes;
mod links;
mod network;
mod opener;
mod oracle;
mod places;
mod pump;
mod rows;
mod server;
mod sim;
#[cfg(test)]
mod tests;
mod timers;

use crate::Target;
use sim::{Mutant, Sim};

pub(crate) use sim::trace_on;

/// Every third life is short and stopped before each operation of its disk.
const RECORDED: u64 = 3;

/// Input: the seed of a life, 8 bytes.
fn live(input: &[u8]) {
    let seed = input.try_into().map_or(0, u64::from_le_bytes);
    let mut sim = Sim::new(seed, Mutant::Sound, seed % RECORDED == 0);
    if let Err(what) = sim.run() {
        panic!("{what} (life {seed})");
    }
}

pub(crate) fn targets() -> Vec<Target> {
    vec![Target {
        name: "stack",
        about: "two servers, clients and faults in simulated time: nothing confirmed is lost, all ends well",
        sample: |random| random.u64(..).to_le_bytes().to_vec(),
        feed: live,
        brief: 34,
    }]
}
