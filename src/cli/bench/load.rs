//! Senders and receivers, each a task with a connection of its own, all on one thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use hdrhistogram::Histogram;
use slab::Slab;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::cli::tool::ToolError;
use crate::net::client::{Client, ClientError, ClientOptions, ServerUrl, Wake};
use crate::proto::message::{Header, SimpleMessage};
use crate::proto::{Event, LinkId, Outcome, SendError};
use crate::tls::ClientTls;

/// Credit of a receiver: enough that it never waits for a round trip.
const CREDIT: u32 = 1000;
/// Longest time to a confirm that the histogram tells apart, microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// What all tasks of a load share.
#[derive(Debug)]
pub(super) struct Load {
    is_open: Cell<bool>,
    is_measured: Cell<bool>,
    opened: Notify,
    drained: Notify,
    /// Messages that were sent and not confirmed.
    in_flight: Cell<u64>,
    /// Messages that were confirmed.
    pub(super) confirmed: Cell<u64>,
    /// Messages that were received and accepted.
    pub(super) received: Cell<u64>,
    /// Time from sending to the confirm, microseconds.
    pub(super) latency_us: RefCell<Histogram<u64>>,
}

impl Load {
    /// A load that sends when it is opened.
    pub(super) fn new() -> Result<Rc<Self>, ToolError> {
        Ok(Rc::new(Self {
            is_open: Cell::new(false),
            is_measured: Cell::new(false),
            opened: Notify::new(),
            drained: Notify::new(),
            in_flight: Cell::new(0),
            confirmed: Cell::new(0),
            received: Cell::new(0),
            latency_us: RefCell::new(latency_histogram()?),
        }))
    }

    /// Lets the senders send.
    pub(super) fn open(&self) {
        self.is_open.set(true);
        self.opened.notify_waiters();
    }

    /// Lets the senders send nothing more for now.
    pub(super) fn close(&self) {
        self.is_open.set(false);
    }

    /// Begins to count, with what comes from now on.
    pub(super) fn measure(&self) {
        self.is_measured.set(true);
        self.confirmed.set(0);
        self.received.set(0);
    }

    /// Waits until nothing is in flight.
    pub(super) async fn drained(&self) {
        while self.in_flight.get() > 0 {
            self.drained.notified().await;
        }
    }

    fn sent(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    fn confirm(&self, sent_at: Instant) {
        self.in_flight.set(self.in_flight.get() - 1);
        self.confirmed.set(self.confirmed.get() + 1);
        if self.is_measured.get() {
            let microseconds = u64::try_from(sent_at.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.latency_us.borrow_mut().saturating_record(microseconds);
        }
        if self.in_flight.get() == 0 {
            self.drained.notify_waiters();
        }
    }
}

/// An empty histogram of microseconds with three significant digits.
pub(super) fn latency_histogram() -> Result<Histogram<u64>, ToolError> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
        .map_err(|error| ToolError::Other(format!("no histogram: {error}")))
}

/// A durable message with a body of this size, as every sender sends it.
pub(super) fn durable_message(body_bytes: usize) -> Rc<[u8]> {
    let message = SimpleMessage {
        header: Header {
            durable: true,
            ..Header::default()
        },
        body: std::iter::repeat_with(|| fastrand::u8(..))
            .take(body_bytes)
            .collect(),
        ..SimpleMessage::default()
    };
    message.encode().into()
}

/// Names of the queues that a benchmark uses.
pub(super) fn queue_names(count: usize) -> Vec<String> {
    (1..=count)
        .map(|number| format!("bench-{number:04}"))
        .collect()
}

/// Connects a client of a benchmark.
pub(super) async fn connect(url: &ServerUrl, number: usize) -> Result<Client, ClientError> {
    connect_by(url, None, number).await
}

/// Connects a client of a benchmark, by TLS where the URL wants it.
pub(super) async fn connect_by(
    url: &ServerUrl,
    tls: Option<&ClientTls>,
    number: usize,
) -> Result<Client, ClientError> {
    let name = format!("steadfast-bench-{}-{number}", std::process::id());
    let options = ClientOptions {
        tls: tls.cloned(),
        ..ClientOptions::named(name)
    };
    Client::connect(url, &options).await
}

/// One queue that a sender sends to.
#[derive(Debug)]
struct Lane {
    link: LinkId,
    left: u64,
}

/// A connection that sends, in turn to each of its queues.
#[derive(Debug)]
pub(super) struct Sender {
    load: Rc<Load>,
    client: Client,
    lanes: Vec<Lane>,
    /// Lane of the next message.
    turn: usize,
    window: usize,
    message: Rc<[u8]>,
    /// When each message in flight was sent; its key is the token.
    in_flight: Slab<Instant>,
}

impl Sender {
    /// Connects a sender that keeps `window` messages in flight and sends to each queue the number beside it.
    pub(super) async fn connect(
        load: &Rc<Load>,
        mut client: Client,
        queues: &[(&str, u64)],
        window: usize,
        message: &Rc<[u8]>,
    ) -> Result<Self, ToolError> {
        let mut lanes = Vec::with_capacity(queues.len());
        for &(queue, left) in queues {
            let link = client.attach_sender(queue).await?;
            lanes.push(Lane { link, left });
        }
        Ok(Self {
            load: Rc::clone(load),
            client,
            lanes,
            turn: 0,
            window,
            message: Rc::clone(message),
            in_flight: Slab::with_capacity(window),
        })
    }

    /// Sends until each queue has its number, then closes the connection.
    pub(super) async fn run(mut self) -> Result<(), ToolError> {
        loop {
            self.send_what_fits()?;
            if self.lanes.is_empty() && self.in_flight.is_empty() {
                self.client.close().await;
                return Ok(());
            }
            let load = Rc::clone(&self.load);
            tokio::select! {
                biased;
                wake = self.client.next() => self.on_wake(wake?)?,
                () = load.opened.notified(), if !load.is_open.get() => {}
            }
        }
    }

    fn send_what_fits(&mut self) -> Result<(), ToolError> {
        if !self.load.is_open.get() {
            return Ok(());
        }
        let mut blocked = 0;
        while self.in_flight.len() < self.window && blocked < self.lanes.len() {
            self.turn = (self.turn + 1) % self.lanes.len();
            let Some(lane) = self.lanes.get_mut(self.turn) else {
                break;
            };
            if !self.client.can_send(lane.link) {
                blocked += 1;
                continue;
            }
            let entry = self.in_flight.vacant_entry();
            let token = entry.key() as u64;
            match self.client.send(lane.link, token, &self.message) {
                Ok(()) => {}
                Err(SendError::NoCredit | SendError::WindowClosed) => {
                    blocked += 1;
                    continue;
                }
                Err(error) => return Err(ToolError::Other(format!("a message: {error}"))),
            }
            entry.insert(Instant::now());
            self.load.sent();
            blocked = 0;
            lane.left -= 1;
            if lane.left == 0 {
                self.lanes.swap_remove(self.turn);
            }
        }
        Ok(())
    }

    fn on_wake(&mut self, wake: Wake) -> Result<(), ToolError> {
        match wake {
            Wake::Event(Event::Disposition {
                link,
                token,
                delivery_id,
                outcome,
                settled,
            }) => {
                if !matches!(outcome, Some(Outcome::Accepted)) {
                    return Err(not_taken(outcome));
                }
                if !settled {
                    self.client.settle_sent(link, delivery_id);
                }
                let key = usize::try_from(token).unwrap_or(usize::MAX);
                if let Some(sent_at) = self.in_flight.try_remove(key) {
                    self.load.confirm(sent_at);
                }
                Ok(())
            }
            Wake::Event(Event::Detached { error, .. }) => Err(detached(error)),
            _ => Ok(()),
        }
    }
}

pub(super) fn not_taken(outcome: Option<Outcome>) -> ToolError {
    let reason = match outcome {
        Some(Outcome::Rejected(Some(error))) => error.to_string(),
        other => format!("{other:?}"),
    };
    ToolError::Other(format!("the server did not take a message: {reason}"))
}

pub(super) fn detached(error: Option<crate::proto::ErrorCondition>) -> ToolError {
    let reason = error.map_or_else(|| String::from("no reason given"), |it| it.to_string());
    ToolError::Other(format!("the server ended a link: {reason}"))
}

/// Receives and accepts everything from a queue.
pub(super) async fn receive(
    load: Rc<Load>,
    mut client: Client,
    link: LinkId,
) -> Result<(), ToolError> {
    loop {
        match client.next().await? {
            Wake::Event(Event::Delivery {
                link,
                delivery_id,
                settled,
                ..
            }) => {
                if !settled {
                    client.settle(link, delivery_id, Outcome::Accepted);
                }
                load.received.set(load.received.get() + 1);
            }
            Wake::Event(Event::CreditRefill { .. }) => client.set_credit(link, CREDIT),
            Wake::Event(Event::Detached { error, .. }) => return Err(detached(error)),
            _ => {}
        }
    }
}

/// Attaches a receiver with the credit that [`receive`] keeps up.
pub(super) async fn attach_receiver(client: &mut Client, queue: &str) -> Result<LinkId, ToolError> {
    Ok(client.attach_receiver(queue, CREDIT).await?)
}

/// The tasks of a load.
#[derive(Debug, Default)]
pub(super) struct Tasks(JoinSet<Result<(), ToolError>>);

impl Tasks {
    /// Starts one.
    pub(super) fn start(&mut self, task: impl Future<Output = Result<(), ToolError>> + 'static) {
        self.0.spawn_local(task);
    }

    /// Waits until all have ended.
    ///
    /// # Errors
    /// The first that fails.
    pub(super) async fn all(&mut self) -> Result<(), ToolError> {
        while let Some(ended) = self.0.join_next().await {
            match ended {
                Ok(result) => result?,
                Err(error) => return Err(ToolError::Other(format!("a task failed: {error}"))),
            }
        }
        Ok(())
    }

    /// Does work while the tasks run.
    ///
    /// # Errors
    /// That of the work, or of the first task that fails before.
    pub(super) async fn beside<T>(
        &mut self,
        work: impl Future<Output = Result<T, ToolError>>,
    ) -> Result<T, ToolError> {
        tokio::select! {
            result = work => result,
            Err(error) = self.all() => Err(error),
        }
    }
}
