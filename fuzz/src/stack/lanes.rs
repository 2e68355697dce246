//! The lanes: work on the disk takes simulated time, happens at one moment of it, and may kill.

use steadfast_storage::Lane;
use steadfast_storage::disk::SimWorld;

use super::disk::Blow;
use super::drain;
use super::server::{LaneDone, LaneWork};
use super::sim::{Happening, MS, Mutant, Sim};

/// In a long life one of so many jobs is followed by a crash in a copy of the world.
const COPIED: u8 = 20;

impl Sim {
    pub(super) fn start_jobs(&mut self, server: usize) {
        let now = self.clock();
        while let Some(work) = self.work(server)
            && let Some(job) = work.node.poll_job(now)
        {
            let lane = match job.lane() {
                Lane::Log => 0,
                Lane::Checkpoint => 1,
                Lane::Prepare => 2,
                Lane::Compact => 3,
            };
            self.start_lane(server, lane, LaneWork::Job(job));
        }
    }

    pub(super) fn start_lane(&mut self, server: usize, lane: usize, one: LaneWork) {
        if let Some(work) = self.work(server) {
            work.lanes[lane].queue.push_back(one);
        }
        self.next_of_lane(server, lane);
    }

    pub(super) fn next_of_lane(&mut self, server: usize, lane: usize) {
        let slow = self.weather.slowness(self.now);
        let delay = self.between(5, 2 * MS) * slow;
        // What the disk does may happen early or late in the time that it takes.
        let delay = if self.random.bool() { delay } else { 5 };
        if let Some(work) = self.work(server) {
            let state = &mut work.lanes[lane];
            if !state.is_running && !state.queue.is_empty() {
                state.is_running = true;
                self.tell(server, delay, Happening::LaneRun(lane));
            }
        }
    }

    pub(super) fn run_lane(&mut self, server: usize, lane: usize) {
        let faults = self.world.faults_left();
        let owes = self.mutant == Mutant::EarlyCompletion && lane == 0;
        let Some(process) = self.servers[server].process.as_mut() else {
            return;
        };
        let Some(work) = process.work.as_mut() else {
            return;
        };
        let Some(one) = work.lanes[lane].queue.pop_front() else {
            return;
        };
        process.disk.set_owing(owes);
        let done = match one {
            LaneWork::Job(job) => LaneDone::Job(job.run()),
            LaneWork::Read(task) => LaneDone::Read(task.run()),
        };
        process.disk.set_owing(false);
        work.lanes[lane].done = Some(done);
        if owes {
            let delay = self.random.u64(..20 * MS);
            self.tell(server, delay, Happening::Pay);
        }
        if self.after_disk(server, faults) {
            let slow = self.weather.slowness(self.now);
            let hang = self.weather.hang_until.saturating_sub(self.now);
            if let Some(process) = self.servers[server].process.as_mut() {
                process.was_late |= hang > 0 || slow > 1;
            }
            let delay = self.between(5, 2 * MS) * slow;
            self.tell(server, delay.max(hang), Happening::LaneDone(lane));
        }
    }

    pub(super) fn lane_done(&mut self, server: usize, lane: usize) {
        let now = self.clock();
        let Some(work) = self.work(server) else {
            return;
        };
        work.lanes[lane].is_running = false;
        let Some(done) = work.lanes[lane].done.take() else {
            return;
        };
        self.next_of_lane(server, lane);
        let Some(work) = self.work(server) else {
            return;
        };
        match done {
            LaneDone::Read(read) => work.node.read_done(now, read),
            LaneDone::Job(job) => {
                if let Err(fatal) = work.node.complete(job) {
                    return self.fail(server, &fatal.to_string());
                }
                // The disk is busy again before anything else is done.
                self.start_jobs(server);
                if let Some(work) = self.work(server) {
                    work.node.advance(now);
                }
            }
        }
        self.turn(server);
    }

    /// Looks what work on the disk has done to the world: crash points, deaths, faults. Whether the
    /// process lives.
    pub(super) fn after_disk(&mut self, server: usize, faults_before: u64) -> bool {
        if self.is_recorded {
            for copy in self.world.recorded() {
                self.crash_point(&copy);
            }
        } else if self.random.u8(..COPIED) == 0 {
            let copy = self.world.fork();
            self.crash_point(&copy);
        }
        let is_hurt = self.world.faults_left() != faults_before;
        let Some(process) = self.servers[server].process.as_mut() else {
            return false;
        };
        process.is_hurt |= is_hurt;
        match process.disk.blown() {
            None => true,
            Some(Blow::Kill) => {
                self.trace(|| format!("server {server} dies between two operations"));
                self.end(server, false);
                false
            }
            Some(Blow::Power(_)) => {
                self.trace(|| "power is lost between two operations".to_owned());
                self.power_lost();
                false
            }
        }
    }

    pub(super) fn crash_point(&mut self, copy: &SimWorld) {
        if self.random.u8(..4) == 0 {
            copy.kill_all();
        } else {
            copy.crash(self.random.u64(..));
        }
        self.check_copy(copy);
    }

    /// A crash now, in a copy of the world.
    pub(super) fn check_copy(&mut self, copy: &SimWorld) {
        copy.heal();
        copy.set_room_bytes(None);
        let (options, settings) = (&self.options, &self.settings);
        let drained = drain::recover_and_drain(copy, options, settings, &self.places, self.mutant);
        let judged = drained.and_then(|it| {
            self.oracle.judge(&it.found, &it.subscriptions, true)?;
            it.rest
        });
        if let Err(what) = judged {
            self.oracle.blame(format!("after a crash here: {what}"));
        }
    }
}
