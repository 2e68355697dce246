//! The threads that wait for the disk. Each runs one piece of work after the other and sends the
//! result to the engine thread.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;

use steadfast_storage::{Job, JobDone, Lane};
use tokio::sync::mpsc::UnboundedSender;

use crate::node::{ReadTask, ReadTaskDone};

/// What a lane has finished.
#[derive(Debug)]
pub(crate) enum LaneDone {
    /// A job of the store.
    Job(JobDone),
    /// A read of messages.
    Read(ReadTaskDone),
}

/// The senders of work; the threads end when this is dropped and their work is done.
#[derive(Debug)]
pub(crate) struct Lanes {
    log: Sender<Job>,
    checkpoint: Sender<Job>,
    prepare: Sender<Job>,
    compact: Sender<Job>,
    read: Sender<ReadTask>,
}

impl Lanes {
    /// Starts the threads. What they finish goes to `done`; there is at most one job under way for
    /// each lane and one read for each queue and browser, so the channel needs no bound of its own.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn start(done: &UnboundedSender<LaneDone>) -> io::Result<Self> {
        let run_job = |job: Job| LaneDone::Job(job.run());
        Ok(Self {
            log: start_lane("log", done, run_job)?,
            checkpoint: start_lane("checkpoint", done, run_job)?,
            prepare: start_lane("prepare", done, run_job)?,
            compact: start_lane("compact", done, run_job)?,
            read: start_lane("read", done, |task: ReadTask| LaneDone::Read(task.run()))?,
        })
    }

    /// Hands a job to its thread.
    pub(crate) fn start_job(&self, job: Job) {
        let lane = match job.lane() {
            Lane::Log => &self.log,
            Lane::Checkpoint => &self.checkpoint,
            Lane::Prepare => &self.prepare,
            Lane::Compact => &self.compact,
        };
        lane.send(job).expect("lanes live as long as their senders");
    }

    /// Hands a read to its thread.
    pub(crate) fn start_read(&self, task: ReadTask) {
        self.read
            .send(task)
            .expect("lanes live as long as their senders");
    }
}

fn start_lane<W: Send + 'static>(
    name: &str,
    done: &UnboundedSender<LaneDone>,
    run: impl Fn(W) -> LaneDone + Send + 'static,
) -> io::Result<Sender<W>> {
    let (sender, receiver): (Sender<W>, Receiver<W>) = channel();
    let done = done.clone();
    Builder::new().name(name.to_owned()).spawn(move || {
        for work in receiver {
            if done.send(run(work)).is_err() {
                // The engine is gone and nobody waits for the rest.
                return;
            }
        }
    })?;
    Ok(sender)
}
