//! What goes wrong, and when.

use steadfast::role::Input;
use steadfast_storage::disk::{Fault as DiskFault, Operation};

use super::disk::Blow;
use super::network::Chunk;
use super::sim::{Event, MS, Micros, QUEUES, SERVERS, Sim};

/// Error numbers, the same on every Linux.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// `kill -9`.
    Kill(usize),
    /// The same before an operation of the disk.
    KillAt(usize, u64),
    /// The host of disk and servers loses its power.
    Power,
    /// The same before an operation of a server.
    PowerAt(usize, u64),
    /// An orderly stop.
    Stop(usize),
    /// The process is stopped and goes on later.
    Pause(usize, Micros),
    /// Nothing passes between the servers.
    CutPeers(Micros),
    /// The links between the servers break.
    ResetPeers,
    /// Nothing passes between a client and a server.
    CutClient(usize, usize, Micros),
    /// A client's connection breaks.
    ResetClient(usize),
    /// Writes or syncs fail.
    Eio(Operation, u64),
    /// The disk is full for a while.
    NoSpace(Micros),
    /// Single writes find no space.
    NoSpaceOnce(u64),
    /// There is space again.
    Space,
    /// Every job takes so many times as long.
    Slow(u64, Micros),
    /// No job ends before that is over.
    Hang(Micros),
    /// An administrator deletes the durable subscription of a client.
    DeleteDurable(usize),
    /// He deletes a queue.
    DeleteQueue(usize),
    /// He drops what waits in the queue that has most.
    PurgeQueue,
}

/// What is wrong at present.
#[derive(Default, Debug)]
pub(super) struct Weather {
    peers_until: Micros,
    clients: Vec<(usize, usize, Micros)>,
    slow: u64,
    slow_until: Micros,
    pub(super) hang_until: Micros,
    /// The disk has been full lately.
    pub(super) is_full: bool,
}

impl Weather {
    /// Until when the servers do not hear each other.
    pub(super) fn peer_cut(&self, now: Micros) -> Option<Micros> {
        (self.peers_until > now).then_some(self.peers_until)
    }

    /// Until when a client and a server do not hear each other.
    pub(super) fn client_cut(&self, client: usize, server: usize, now: Micros) -> Option<Micros> {
        let hits = |it: &&(usize, usize, Micros)| it.0 == client && it.1 == server && it.2 > now;
        self.clients.iter().filter(hits).map(|it| it.2).max()
    }

    /// How many times as long as usual the disk takes.
    pub(super) fn slowness(&self, now: Micros) -> u64 {
        if self.slow_until > now {
            self.slow.max(1)
        } else {
            1
        }
    }
}

impl Sim {
    /// Chooses the faults; gives when they end.
    pub(super) fn plan_faults(&mut self) -> Micros {
        let end = if self.is_recorded {
            self.random.u64(300 * MS..2_000 * MS)
        } else {
            self.random.u64(2_000 * MS..20_000 * MS)
        };
        let count = self.random.u64(..=end / (500 * MS));
        for _ in 0..count {
            let at = self.random.u64(100 * MS..end);
            let fault = self.some_fault();
            self.at(at, Event::Fault(fault));
        }
        end
    }

    fn some_fault(&mut self) -> Fault {
        let server = self.random.usize(..SERVERS);
        let client = self.random.usize(..self.clients.len());
        let while_ms = self.random.u64(10 * MS..4_000 * MS);
        match self.random.u8(..30) {
            0..2 => Fault::Kill(server),
            2..6 => Fault::KillAt(server, self.random.u64(..30)),
            6 => Fault::Power,
            7..9 => Fault::PowerAt(server, self.random.u64(..30)),
            9..11 => Fault::Stop(server),
            11 => Fault::Pause(server, while_ms),
            12 => Fault::CutPeers(while_ms),
            13 => Fault::ResetPeers,
            14 => Fault::CutClient(client, server, while_ms),
            15..17 => Fault::ResetClient(client),
            17 => Fault::Eio(Operation::Write, self.random.u64(..10)),
            18 => Fault::Eio(Operation::Sync, self.random.u64(..10)),
            19 => Fault::NoSpace(while_ms),
            20 => Fault::NoSpaceOnce(self.random.u64(..20)),
            21 => Fault::Slow(self.random.u64(5..200), while_ms),
            22..24 => Fault::Hang(while_ms),
            24..26 => Fault::DeleteQueue(self.random.usize(..QUEUES)),
            26..28 => Fault::PurgeQueue,
            _ => Fault::DeleteDurable(self.clients.len() - 1 - client % 3),
        }
    }

    pub(super) fn strike(&mut self, fault: Fault) {
        if self.is_finale && !matches!(fault, Fault::Space) {
            return;
        }
        self.trace(|| format!("FAULT {fault:?}"));
        let now = self.now;
        match fault {
            Fault::Kill(server) => self.kill(server),
            Fault::KillAt(server, skip) => self.blow_after(server, skip, Blow::Kill),
            Fault::Power => {
                let seed = self.random.u64(..);
                self.world.crash(seed);
                self.power_lost();
            }
            Fault::PowerAt(server, skip) => {
                let seed = self.random.u64(..);
                self.blow_after(server, skip, Blow::Power(seed));
            }
            Fault::Stop(server) => {
                if self.servers[server].process.is_some() && !self.servers[server].is_stopped {
                    let reason = "SIGTERM".to_owned();
                    self.give(server, Input::Stop { reason });
                }
            }
            Fault::Pause(server, pause) => self.pause(server, pause),
            Fault::CutPeers(cut) => self.weather.peers_until = now + cut,
            Fault::ResetPeers => self.reset_links(),
            Fault::CutClient(client, server, cut) => {
                self.weather.clients.push((client, server, now + cut));
            }
            Fault::ResetClient(client) => {
                if let Some(conn) = self.clients[client].conn() {
                    self.client_hears(client, conn, Chunk::Reset);
                }
            }
            Fault::Eio(operation, skip) => self.world.inject(DiskFault {
                operation,
                name_part: String::new(),
                skip,
                count: 1,
                errno: EIO,
            }),
            Fault::NoSpaceOnce(skip) => {
                let count = self.random.u64(1..4);
                self.world.inject(DiskFault {
                    operation: Operation::Write,
                    name_part: String::new(),
                    skip,
                    count,
                    errno: ENOSPC,
                });
                self.weather.is_full = true;
            }
            Fault::NoSpace(pause) => {
                let left = self.random.u64(..2 << 20);
                let room = self.world.used_bytes() + left;
                self.world.set_room_bytes(Some(room));
                self.weather.is_full = true;
                self.after(pause, Event::Fault(Fault::Space));
            }
            Fault::Space => self.world.set_room_bytes(None),
            Fault::Slow(factor, pause) => {
                (self.weather.slow, self.weather.slow_until) = (factor, now + pause);
            }
            Fault::Hang(pause) => self.weather.hang_until = now + pause,
            Fault::DeleteDurable(client) => self.delete_durable(client),
            Fault::DeleteQueue(queue) => self.delete_queue(queue),
            Fault::PurgeQueue => self.purge_queue(),
        }
    }

    fn blow_after(&mut self, server: usize, skip: u64, blow: Blow) {
        if let Some(process) = &self.servers[server].process {
            process.disk.blow_after(skip, blow);
        }
    }

    fn pause(&mut self, server: usize, pause: Micros) {
        let it = &mut self.servers[server];
        if it.process.is_some() && !it.is_stopped {
            it.is_stopped = true;
            self.after(pause, Event::Resume(server));
        }
    }

    /// Ends all that lasts.
    pub(super) fn heal(&mut self) {
        self.world.heal();
        self.world.set_room_bytes(None);
        self.weather = Weather {
            is_full: self.weather.is_full,
            ..Weather::default()
        };
        for server in 0..SERVERS {
            self.resume(server);
        }
    }
}
