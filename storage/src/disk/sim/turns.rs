//! Several threads of which exactly one runs: a seed decides which, and when it changes.
//!
//! A thread takes part as a *task* of a process. It gives the turn away at each operation of a disk,
//! when it sleeps and when it has to wait. Time is simulated: it goes on when everybody sleeps, and a
//! little whenever the turn goes round. So threads that block as a real file system lets them block
//! still make one story for each seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Number of a task.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TaskId(u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    Run,
    Sleep {
        until_ms: u64,
    },
    /// Until somebody changes the world.
    Wait,
}

#[derive(Debug)]
struct Task {
    /// It stands still while one of these is frozen: its host, its process.
    groups: Vec<u64>,
    wish: Wish,
    turn: Arc<Condvar>,
}

#[derive(Debug)]
struct Inner {
    random: fastrand::Rng,
    /// The turn stays where it is but for one chance in so many.
    patience: u32,
    now_ms: u64,
    tasks: BTreeMap<TaskId, Task>,
    current: Option<TaskId>,
    next_id: u64,
    frozen: BTreeSet<u64>,
}

/// Who runs, and what time it is.
#[derive(Debug)]
pub struct Turns {
    inner: Mutex<Inner>,
}

impl Turns {
    /// Nobody takes part yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let patience = 1 << random.u32(..6);
        Self {
            inner: Mutex::new(Inner {
                random,
                patience,
                now_ms: 0,
                tasks: BTreeMap::new(),
                current: None,
                next_id: 0,
                frozen: BTreeSet::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a task; to be called by whoever starts its thread. It stands still while one of its groups
    /// (host, process) is frozen.
    #[must_use]
    pub fn add(&self, groups: &[u64]) -> TaskId {
        let mut inner = self.lock();
        inner.next_id += 1;
        let id = TaskId(inner.next_id);
        let task = Task {
            groups: groups.to_vec(),
            wish: Wish::Run,
            turn: Arc::new(Condvar::new()),
        };
        inner.tasks.insert(id, task);
        id
    }

    /// From now on the task whose turn it is belongs to these groups.
    pub fn move_to(&self, groups: &[u64]) {
        let mut inner = self.lock();
        let current = inner.current;
        if let Some(task) = current.and_then(|it| inner.tasks.get_mut(&it)) {
            task.groups = groups.to_vec();
        }
    }

    /// The first thing that a task's thread does: waits for its first turn.
    pub fn begin(&self, task: TaskId) {
        let mut inner = self.lock();
        if inner.current.is_none() {
            inner.choose();
        }
        Self::until_it_is(inner, task);
    }

    /// The last thing that it does.
    pub fn end(&self, task: TaskId) {
        let mut inner = self.lock();
        inner.tasks.remove(&task);
        inner.choose();
    }

    /// Gives others a chance; called by the task whose turn it is.
    pub fn pause(&self) {
        let mut inner = self.lock();
        let patience = inner.patience;
        if inner.random.u32(..patience) == 0 {
            inner.now_ms += u64::from(inner.random.u8(..4) == 0);
            self.give(inner, Wish::Run);
        }
    }

    /// Sleeps; called by the task whose turn it is.
    pub fn sleep_ms(&self, ms: u64) {
        let inner = self.lock();
        let until_ms = inner.now_ms + ms;
        self.give(inner, Wish::Sleep { until_ms });
    }

    /// Waits for [`Self::wake`]; called by the task whose turn it is.
    pub fn wait(&self) {
        self.give(self.lock(), Wish::Wait);
    }

    /// Lets everybody who waits look again.
    pub fn wake(&self) {
        let mut inner = self.lock();
        for task in inner.tasks.values_mut() {
            if task.wish == Wish::Wait {
                task.wish = Wish::Run;
            }
        }
    }

    /// Stops a group of tasks where they are (SIGSTOP of a process, a host that is paused).
    pub fn freeze(&self, group: u64) {
        self.lock().frozen.insert(group);
    }

    /// Lets a group go on.
    pub fn thaw(&self, group: u64) {
        self.lock().frozen.remove(&group);
    }

    /// Lets everybody go on.
    pub fn thaw_all(&self) {
        self.lock().frozen.clear();
    }

    /// The time.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.lock().now_ms
    }

    /// Moves the time.
    pub fn advance_ms(&self, ms: u64) {
        self.lock().now_ms += ms;
    }

    fn give(&self, mut inner: MutexGuard<'_, Inner>, wish: Wish) {
        let Some(task) = inner.current else { return };
        if let Some(task) = inner.tasks.get_mut(&task) {
            task.wish = wish;
        }
        inner.choose();
        Self::until_it_is(inner, task);
    }

    fn until_it_is(mut inner: MutexGuard<'_, Inner>, task: TaskId) {
        let Some(turn) = inner.tasks.get(&task).map(|it| Arc::clone(&it.turn)) else {
            return;
        };
        while inner.current != Some(task) {
            inner = turn.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Inner {
    /// Gives the turn to somebody who can run; lets time pass when nobody can.
    ///
    /// # Panics
    /// When all tasks wait for each other.
    fn choose(&mut self) {
        self.current = None;
        if self.tasks.is_empty() {
            return;
        }
        let frozen = &self.frozen;
        let moving = |task: &&Task| task.groups.iter().all(|group| !frozen.contains(group));
        let wake = |task: &Task| match task.wish {
            Wish::Run => Some(0),
            Wish::Sleep { until_ms } => Some(until_ms),
            Wish::Wait => None,
        };
        let first = self.tasks.values().filter(moving).filter_map(wake).min();
        let Some(first) = first else {
            // Whoever waits for this turn would wait for ever.
            panic!("all tasks wait: {:?}", self.tasks);
        };
        self.now_ms = self.now_ms.max(first);
        let now_ms = self.now_ms;
        let ready = |task: &Task| wake(task).is_some_and(|at_ms| at_ms <= now_ms);
        let able: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|(_, task)| moving(task) && ready(task))
            .map(|(id, _)| *id)
            .collect();
        let Some(chosen) = able.get(self.random.usize(..able.len().max(1))).copied() else {
            return;
        };
        self.current = Some(chosen);
        if let Some(task) = self.tasks.get_mut(&chosen) {
            task.wish = Wish::Run;
            task.turn.notify_one();
        }
    }
}
