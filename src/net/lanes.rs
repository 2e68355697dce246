//! The threads that wait for the disk. Each runs one piece of work after the other and sends the
//! result to the engine thread.

use std::hint::spin_loop;
use std::io;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use steadfast_storage::{Job, JobDone, Lane};
use tokio::sync::mpsc::UnboundedSender;

use crate::node::{ReadTask, ReadTaskDone};

/// Under load the next batch comes some tens of microseconds after the last one was synced, and waking a
/// thread takes as long. Measured with 16 senders that wait for each confirm, in turn in one run: 24,100
/// to 29,700 messages a second without, 28,400 to 31,700 with it.
const LOG_LINGER: Duration = Duration::from_micros(60);

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
            log: start_lane("log", done, LOG_LINGER, run_job)?,
            checkpoint: start_lane("checkpoint", done, Duration::ZERO, run_job)?,
            prepare: start_lane("prepare", done, Duration::ZERO, run_job)?,
            compact: start_lane("compact", done, Duration::ZERO, run_job)?,
            read: start_lane("read", done, Duration::ZERO, |task: ReadTask| {
                LaneDone::Read(task.run())
            })?,
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

/// The next piece of work; `None` when there will be none. Before it sleeps, the thread looks for so long
/// whether there is some.
fn next<W>(receiver: &Receiver<W>, linger: Duration) -> Option<W> {
    let until = Instant::now() + linger;
    while Instant::now() < until {
        match receiver.try_recv() {
            Ok(work) => return Some(work),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => spin_loop(),
        }
    }
    receiver.recv().ok()
}

fn start_lane<W: Send + 'static>(
    name: &str,
    done: &UnboundedSender<LaneDone>,
    linger: Duration,
    run: impl Fn(W) -> LaneDone + Send + 'static,
) -> io::Result<Sender<W>> {
    let (sender, receiver): (Sender<W>, Receiver<W>) = channel();
    let done = done.clone();
    Builder::new().name(name.to_owned()).spawn(move || {
        while let Some(work) = next(&receiver, linger) {
            if done.send(run(work)).is_err() {
                // The engine is gone and nobody waits for the rest.
                return;
            }
        }
    })?;
    Ok(sender)
}
