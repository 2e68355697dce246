//! The clients of the demo: they send and receive through real connections and go on with the other server
//! when one is lost.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::ledger::Ledger;
use crate::cli::tool::ToolError;
use crate::net::client::{Client, ClientError, ClientOptions, Failover, ServerUrl, Wake};
use crate::proto::message::{Header, PropertyValue, SimpleMessage};
use crate::proto::{ErrorCondition, Event, LinkId, Outcome, SendError};

/// Messages that a sender has in flight.
const WINDOW: usize = 32;
/// Credit of a receiver.
const CREDIT: u32 = 200;
/// How long a client goes on trying to find a server.
const PATIENCE: Duration = Duration::from_secs(30);
/// Size of a body.
pub(super) const BODY_BYTES: usize = 256;

/// What a client of the demo knows.
#[derive(Debug, Clone)]
pub(super) struct Participant {
    /// Its number; also that of its queue.
    pub(super) number: usize,
    /// The servers of the pair, the active one first.
    pub(super) servers: Vec<ServerUrl>,
    /// Where everything is counted.
    pub(super) ledger: Rc<Ledger>,
}

impl Participant {
    fn queue(&self) -> String {
        format!("demo-{}", self.number + 1)
    }

    fn failover(&self) -> Failover {
        Failover::new(self.servers.clone(), PATIENCE)
    }

    fn options(&self, what: &str) -> ClientOptions {
        ClientOptions::named(format!("steadfast-demo-{what}-{}", self.number + 1))
    }
}

/// Sends messages with the numbers from 0 until each is confirmed. Those whose confirm did not come before
/// the connection broke are sent again: they may be stored twice, but none is forgotten.
pub(super) async fn send(participant: Participant, messages: usize) -> Result<(), ToolError> {
    let mut sender = Sender {
        queue: participant.queue(),
        messages,
        next: 0,
        again: VecDeque::new(),
        in_flight: BTreeSet::new(),
        participant,
    };
    let mut failover = sender.participant.failover();
    let options = sender.participant.options("sender");
    loop {
        let queue = sender.queue.clone();
        let (client, link) = failover
            .connect(&options, async |client| client.attach_sender(&queue).await)
            .await?;
        match sender.deliver(client, link).await {
            Ok(()) => return Ok(()),
            Err(ToolError::Client(error)) if error.is_passing() => sender.reconsider(),
            Err(error) => return Err(error),
        }
    }
}

#[derive(Debug)]
struct Sender {
    participant: Participant,
    queue: String,
    messages: usize,
    /// Number of the next message that was never sent.
    next: usize,
    /// Messages to be sent again, before new ones.
    again: VecDeque<usize>,
    in_flight: BTreeSet<usize>,
}

impl Sender {
    async fn deliver(&mut self, mut client: Client, link: LinkId) -> Result<(), ToolError> {
        let is_successor = self.participant.servers.first() != Some(client.url());
        loop {
            self.send_what_fits(&mut client, link)?;
            if self.in_flight.is_empty() && self.next == self.messages {
                client.close().await;
                return Ok(());
            }
            match client.next().await? {
                Wake::Event(Event::Disposition {
                    token,
                    delivery_id,
                    outcome,
                    settled,
                    ..
                }) => {
                    if !settled {
                        client.settle_sent(link, delivery_id);
                    }
                    let number = usize::try_from(token).unwrap_or(usize::MAX);
                    if !matches!(outcome, Some(Outcome::Accepted)) {
                        let text = format!("message {number} was not taken: {outcome:?}");
                        return Err(ToolError::Other(text));
                    }
                    self.in_flight.remove(&number);
                    let ledger = &self.participant.ledger;
                    ledger.confirm(self.participant.number, number, is_successor);
                }
                Wake::Event(Event::Detached { error, .. }) => return Err(gone(&client, error)),
                _ => {}
            }
        }
    }

    fn send_what_fits(&mut self, client: &mut Client, link: LinkId) -> Result<(), ToolError> {
        while self.in_flight.len() < WINDOW && client.can_send(link) {
            let (number, is_again) = match self.again.front() {
                Some(&number) => (number, true),
                None if self.next < self.messages => (self.next, false),
                None => return Ok(()),
            };
            let message = encode(self.participant.number, number);
            match client.send(link, number as u64, &message) {
                Ok(()) => {}
                Err(SendError::NoCredit | SendError::WindowClosed) => return Ok(()),
                Err(error) => return Err(ToolError::Other(format!("a message: {error}"))),
            }
            if is_again {
                self.again.pop_front();
            } else {
                self.next += 1;
            }
            self.in_flight.insert(number);
            self.participant.ledger.sent(is_again);
        }
        Ok(())
    }

    /// The connection broke: what was in flight is in doubt and goes first on the next one, in order.
    fn reconsider(&mut self) {
        self.participant.ledger.broke(self.in_flight.len() as u64);
        let in_doubt = std::mem::take(&mut self.in_flight);
        for number in in_doubt.into_iter().rev() {
            self.again.push_front(number);
        }
    }
}

/// Receives and accepts everything, for ever.
pub(super) async fn receive(participant: Participant) -> Result<(), ToolError> {
    let mut failover = participant.failover();
    let options = participant.options("receiver");
    let queue = participant.queue();
    loop {
        let (client, link) = failover
            .connect(&options, async |client| {
                client.attach_receiver(&queue, CREDIT).await
            })
            .await?;
        match take(&participant.ledger, client, link).await {
            Err(ToolError::Client(error)) if error.is_passing() => {}
            Err(error) => return Err(error),
            Ok(()) => {}
        }
    }
}

async fn take(ledger: &Ledger, mut client: Client, link: LinkId) -> Result<(), ToolError> {
    loop {
        match client.next().await? {
            Wake::Event(Event::Delivery {
                delivery_id,
                payload,
                ..
            }) => {
                let message = SimpleMessage::decode(&payload.to_bytes())
                    .map_err(|error| ToolError::Other(format!("a received message: {error}")))?;
                let number = |key| message.long(key).and_then(|it| usize::try_from(it).ok());
                if let (Some(sender), Some(number)) = (number("sender"), number("number")) {
                    ledger.receive(sender, number, message.header.delivery_count > 0);
                }
                client.settle(link, delivery_id, Outcome::Accepted);
            }
            Wake::Event(Event::CreditRefill { .. }) => client.set_credit(link, CREDIT),
            Wake::Event(Event::Detached { error, .. }) => return Err(gone(&client, error)),
            _ => {}
        }
    }
}

/// A link that the server ends belongs to a connection that it is about to end.
fn gone(client: &Client, error: Option<ErrorCondition>) -> ToolError {
    ToolError::Client(ClientError::Closed {
        url: client.url().to_string(),
        error,
        login: client.login(),
    })
}

fn encode(sender: usize, number: usize) -> Vec<u8> {
    let long = |value: usize| PropertyValue::Long(i64::try_from(value).unwrap_or(i64::MAX));
    SimpleMessage {
        header: Header {
            durable: true,
            ..Header::default()
        },
        message_id: Some(format!("{sender}-{number}")),
        properties: vec![
            (String::from("sender"), long(sender)),
            (String::from("number"), long(number)),
        ],
        body: vec![b'.'; BODY_BYTES],
        ..SimpleMessage::default()
    }
    .encode()
}
