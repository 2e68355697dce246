//! Answers that wait until what they say is certain to stay.

use steadfast_storage::Ticket;

use crate::admin::{Answer, Failure};
use crate::net::engine::{Durability, Engine};

/// When it is certain that what was done stays so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Safe {
    Now,
    /// When this batch is durable.
    With(Ticket),
    /// The log took nothing, or not all: a successor has it as it was.
    Never,
}

impl Safe {
    /// With the batch of what was done; `None`: the log did not take it.
    pub(super) fn with(ticket: Option<Ticket>) -> Self {
        ticket.map_or(Self::Never, Self::With)
    }

    /// Gives an answer back when it is certain; else a failure that says what is not.
    pub(super) async fn when(self, engine: &Engine, answer: Answer) -> Result<Answer, Failure> {
        let durability = match self {
            Self::Now => Durability::Durable,
            Self::With(ticket) => engine.durability(ticket).await,
            Self::Never => Durability::Ends,
        };
        match unsure(durability) {
            None => Ok(answer),
            Some(why) => Err(Failure::new(503, format!("{}; but {why}", answer.text))),
        }
    }
}

/// Why it is not certain that something stays, and what to do.
pub(super) fn unsure(durability: Durability) -> Option<&'static str> {
    match durability {
        Durability::Durable => None,
        Durability::Full => Some(
            "the disk of the store is full, so a server that took over now would know nothing of it: free \
             space on that disk, and it goes on by itself",
        ),
        Durability::Ends => Some(
            "the server ends, and it is not certain that this stays so: look at the server that is active \
             next",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use steadfast_storage::disk::{Fault, Operation, SimWorld};
    use steadfast_storage::{Acquire, Store, StoreOptions, try_acquire};
    use tokio::task::LocalSet;

    use super::*;
    use crate::admin::parse_line;
    use crate::net::admin::destinations;
    use crate::net::engine::EngineSettings;

    /// A server with the queue `orders`.
    async fn serving() -> (Engine, SimWorld) {
        let engine = Engine::new(EngineSettings::default());
        let world = SimWorld::new();
        let Ok(Acquire::Owned(ownership)) = try_acquire(Arc::new(world.process()), "test") else {
            panic!("the store is free");
        };
        let (store, _) =
            Store::open(ownership, StoreOptions::default(), &mut |_| ()).expect("the store opens");
        engine.serve(store);
        let made = carry_out(&engine, "create queue orders").await;
        assert!(made.is_ok(), "{made:?}");
        (engine, world)
    }

    async fn carry_out(engine: &Engine, line: &str) -> Result<Answer, Failure> {
        let request = parse_line(line).expect("a request");
        let (answer, safe) = match request.command.words {
            "create queue" => destinations::create_queue(engine, &request),
            "delete queue" => destinations::delete_queue(engine, &request),
            "delete all queues" => destinations::delete_all_queues(engine),
            _ => return destinations::purge(engine, &request).await,
        }
        .expect("there is something to do");
        safe.when(engine, answer).await
    }

    const LINES: [&str; 4] = [
        "purge queue >",
        "delete queue orders",
        "create queue more",
        "delete all queues",
    ];

    #[tokio::test]
    async fn a_full_disk_is_told_to_whoever_deletes_and_leaves_nothing_undone() {
        let test = async {
            let (engine, world) = serving().await;
            let done = carry_out(&engine, "purge queue orders").await;
            assert!(done.is_ok(), "{done:?}");
            world.inject(Fault {
                operation: Operation::Write,
                name_part: ".seg".to_owned(),
                skip: 0,
                count: u64::MAX,
                errno: nix::libc::ENOSPC,
            });
            for line in &LINES[1..] {
                let refused = carry_out(&engine, line).await.expect_err(line);
                assert_eq!(refused.status, 503, "{line}");
                assert!(
                    refused.text.contains("the disk of the store is full"),
                    "{line}: {}",
                    refused.text
                );
            }
            world.heal();
            let done = carry_out(&engine, "create queue again").await;
            assert!(done.is_ok(), "{done:?}");
            let left = engine.queues().into_iter().map(|it| it.name);
            assert_eq!(left.collect::<Vec<_>>(), ["again"]);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn what_a_log_that_ends_does_not_take_is_never_said_to_be_done() {
        let test = async {
            for line in [LINES[0], LINES[1], LINES[3]] {
                let (engine, _world) = serving().await;
                engine.administer(|node, now| {
                    node.begin_stop(now);
                    node.begin_seal();
                });
                let refused = carry_out(&engine, line).await.expect_err(line);
                assert_eq!(refused.status, 503, "{line}");
                assert!(
                    refused.text.contains("active next"),
                    "{line}: {}",
                    refused.text
                );
            }
        };
        LocalSet::new().run_until(test).await;
    }
}
