//! What an administrator does to the queues of the active server.

use steadfast::model::Pattern;
use steadfast::node::{PurgeState, QueueStatus};

use super::places::{Place, queue_name};
use super::server::Mode;
use super::sim::{Mutant, QUEUES, SERVERS, Sim};

impl Sim {
    /// The server that an administrator reaches.
    pub(super) fn serving(&self) -> Option<usize> {
        let serves =
            |server: &usize| self.mode(*server) == Mode::Serve && !self.servers[*server].is_stopped;
        (0..SERVERS).find(serves)
    }

    /// He deletes a queue; clients that send to it or read it make another of its name.
    pub(super) fn delete_queue(&mut self, queue: Place) {
        let now = self.clock();
        let readers = self.clients.iter().filter(|it| it.place() == Some(queue));
        let readers: Vec<u64> = readers.filter_map(|it| it.conn()).collect();
        let Some(server) = self.serving() else {
            return;
        };
        let life = self.servers[server].life;
        let Some(work) = self.work(server) else {
            return;
        };
        let meant = Pattern::parse(&queue_name(queue)).expect("a name");
        let (dropped, ticket) = work.node.delete_queues(now, &meant);
        self.trace(|| format!("queue {queue} is deleted: {dropped:?}, {ticket:?}"));
        // Without a ticket nothing has changed.
        if ticket.is_some() {
            self.oracle.deletes(queue, life, readers);
        }
        self.turn(server);
        self.settle_down(server);
    }

    /// He drops what waits in the queue that has most.
    pub(super) fn purge_queue(&mut self) {
        let now = self.clock();
        let mutant = self.mutant;
        let Some(server) = self.serving() else {
            return;
        };
        let life = self.servers[server].life;
        let Some(work) = self.work(server) else {
            return;
        };
        let place = |name: &str| (0..QUEUES).find(|queue| queue_name(*queue) == name);
        let all = work.node.queue_status().into_iter();
        let all = all.filter_map(|it| Some((place(&it.name)?, it)));
        let waiting = |it: &QueueStatus| it.messages.saturating_sub(it.in_flight as u64);
        let Some((queue, status)) = all.max_by_key(|(_, it)| waiting(it)) else {
            return;
        };
        let meant = Pattern::parse(&status.name).expect("a name");
        let purge = if mutant == Mutant::NoPurge {
            None
        } else {
            work.node.purge_queues(now, &meant)
        };
        self.trace(|| format!("queue {queue} is purged: {status:?}, {purge:?}"));
        let in_flight = (status.held == 0).then_some(status.in_flight);
        let parts = self.oracle.purges(queue, life, in_flight);
        let Some(purge) = purge else {
            return self.oracle.purged(&parts);
        };
        if let Some(work) = self.work(server) {
            work.purges.push((purge, parts));
        }
        self.turn(server);
        self.settle_down(server);
    }

    /// Looks how far the purges of a server are.
    pub(super) fn look_at_purges(&mut self, server: usize) {
        let now = self.clock();
        let Some(work) = self.work(server) else {
            return;
        };
        let mut done = Vec::new();
        let node = &mut work.node;
        work.purges
            .retain(|(purge, parts)| match node.purge_state(now, *purge) {
                PurgeState::Running(_) => true,
                PurgeState::Over => false,
                PurgeState::Done(dropped) => {
                    node.forget_purge(*purge);
                    done.push((dropped, parts.clone()));
                    false
                }
            });
        for (dropped, parts) in done {
            self.trace(|| format!("a purge is done: {dropped:?}"));
            self.oracle.purged(&parts);
        }
    }
}
