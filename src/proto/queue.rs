//! Events that wait for the owner. A disposition over many deliveries waits as one entry and becomes an event
//! for each delivery when it is taken: a peer's one frame may settle a hundred thousand.

use std::collections::VecDeque;

use super::{Event, LinkId, Outcome};

/// One delivery of ours that a disposition covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Covered {
    pub(crate) link: LinkId,
    pub(crate) token: u64,
    pub(crate) delivery_id: u32,
}

/// What a disposition says of all deliveries that it covers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) outcome: Option<Outcome>,
    pub(crate) settled: bool,
}

impl Verdict {
    /// The event for one of the deliveries.
    pub(crate) fn on(&self, covered: Covered) -> Event {
        Event::Disposition {
            link: covered.link,
            token: covered.token,
            delivery_id: covered.delivery_id,
            outcome: self.outcome.clone(),
            settled: self.settled,
        }
    }
}

#[derive(Debug)]
enum Waiting {
    One(Event),
    Many {
        verdict: Verdict,
        covered: std::vec::IntoIter<Covered>,
    },
}

/// Events in the order in which they happened.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    waiting: VecDeque<Waiting>,
}

impl EventQueue {
    pub(crate) fn push_back(&mut self, event: Event) {
        self.waiting.push_back(Waiting::One(event));
    }

    /// Queues the events of a disposition.
    pub(crate) fn push_dispositions(&mut self, verdict: Verdict, covered: Vec<Covered>) {
        self.waiting.push_back(Waiting::Many {
            verdict,
            covered: covered.into_iter(),
        });
    }

    pub(crate) fn pop_front(&mut self) -> Option<Event> {
        while let Some(Waiting::Many { verdict, covered }) = self.waiting.front_mut() {
            if let Some(covered) = covered.next() {
                return Some(verdict.on(covered));
            }
            self.waiting.pop_front();
        }
        match self.waiting.pop_front() {
            Some(Waiting::One(event)) => Some(event),
            _ => None,
        }
    }

    /// Gives back what a burst left behind.
    pub(crate) fn shrink(&mut self) {
        self.waiting.shrink_to_fit();
    }
}
