//! A connection to a server on a thread of its own: it stays alive while somebody thinks.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::admin::{Answer, Body, Item, Table};
use crate::cli::tool::ToolError;
use crate::net::client::{Client, ClientError, ClientOptions, ServerUrl, Wake};
use crate::node::{ACTIVE_PROPERTY, ROLE_PROPERTY};
use crate::proto::message::ValueMessage;
use crate::proto::{Event, LinkId, Outcome, Value};

/// Where requests go.
const ADDRESS: &str = "$management";
/// Replies that may come before they are taken.
const CREDIT: u32 = 16;
/// How long the thread may take beyond the time-out of the connection.
const GRACE: Duration = Duration::from_secs(5);

/// A command as it was typed.
#[derive(Clone)]
pub(super) enum Words {
    /// In one line.
    Line(String),
    /// Word by word.
    List(Vec<String>),
}

type Reply = Result<Answer, ToolError>;

struct Question {
    words: Words,
    answer: Sender<Reply>,
}

/// What a server says of itself when the connection opens.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// It serves no clients.
    pub(super) is_standby: bool,
    /// Where the active server is, as far as a standby knows.
    active: Option<String>,
}

impl Place {
    /// Words for where the active server is, to be added to others.
    pub(super) fn where_active(&self) -> String {
        let active = self.active.as_ref();
        active.map_or_else(String::new, |url| format!("; the active server is {url}"))
    }
}

/// A connection.
pub(super) struct Session {
    url: String,
    place: Place,
    questions: mpsc::Sender<Question>,
}

impl Session {
    /// Connects, with the links for requests and replies.
    pub(super) fn open(url: ServerUrl, options: ClientOptions) -> Result<Self, ToolError> {
        let (questions, receiver) = mpsc::channel(1);
        let (sender, opened) = channel();
        let name = url.to_string();
        let limit = options.answer_timeout + GRACE;
        let thread = Builder::new().name("admin".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            match runtime {
                Ok(runtime) => {
                    let work = serve(url, options, sender, receiver);
                    LocalSet::new().block_on(&runtime, work);
                    runtime.shutdown_background();
                }
                Err(error) => {
                    let text = format!("no runtime: {error}");
                    drop(sender.send(Err(ToolError::Other(text))));
                }
            }
        });
        thread.map_err(|error| ToolError::Other(format!("no thread: {error}")))?;
        let place = wait(&opened, limit, "the connection")??;
        Ok(Self {
            url: name,
            place,
            questions,
        })
    }

    /// The server.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// What the server said of itself.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether the server or the network has ended it.
    pub(super) fn is_over(&self) -> bool {
        self.questions.is_closed()
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(&self, words: Words, limit: Duration) -> Reply {
        let (answer, answered) = channel();
        let question = Question { words, answer };
        if self.questions.try_send(question).is_err() {
            let text = "the connection is over, or an earlier command is still under way";
            return Err(ToolError::Other(format!("{}: {text}", self.url)));
        }
        wait(&answered, limit, "the command")?
    }
}

fn wait<T>(receiver: &Receiver<T>, limit: Duration, what: &str) -> Result<T, ToolError> {
    receiver.recv_timeout(limit).map_err(|error| {
        ToolError::Other(match error {
            RecvTimeoutError::Timeout => format!(
                "no answer to {what} within {} s; the server may be overloaded or stopped",
                limit.as_secs()
            ),
            RecvTimeoutError::Disconnected => format!("no answer to {what}: the connection ended"),
        })
    })
}

/// The connection from start to end.
async fn serve(
    url: ServerUrl,
    options: ClientOptions,
    opened: Sender<Result<Place, ToolError>>,
    mut questions: mpsc::Receiver<Question>,
) {
    let mut manager = match Manager::connect(&url, &options).await {
        Ok(manager) => manager,
        Err(error) => {
            drop(opened.send(Err(error.into())));
            return;
        }
    };
    let said = |name: &str| manager.client.server_property(name).map(str::to_owned);
    drop(opened.send(Ok(Place {
        is_standby: said(ROLE_PROPERTY).is_some(),
        active: said(ACTIVE_PROPERTY),
    })));
    loop {
        tokio::select! {
            question = questions.recv() => match question {
                Some(Question { words, answer }) => {
                    let reply = manager.ask(words).await;
                    let is_broken = matches!(reply, Err(ToolError::Client(_)));
                    if is_broken {
                        questions.close();
                    }
                    drop(answer.send(reply));
                    if is_broken {
                        return;
                    }
                }
                None => {
                    manager.client.close().await;
                    return;
                }
            },
            // Events between commands are of no interest, the end is.
            wake = manager.client.next() => if wake.is_err() {
                return;
            },
        }
    }
}

struct Manager {
    client: Client,
    requests: LinkId,
    replies: LinkId,
    next_id: u64,
}

impl Manager {
    async fn connect(url: &ServerUrl, options: &ClientOptions) -> Result<Self, ClientError> {
        let mut client = Client::connect(url, options).await?;
        let requests = client.attach_sender(ADDRESS).await?;
        let replies = client.attach_receiver(ADDRESS, CREDIT).await?;
        Ok(Self {
            client,
            requests,
            replies,
            next_id: 1,
        })
    }

    async fn ask(&mut self, words: Words) -> Reply {
        let id = serde_amqp::to_vec(&Value::Ulong(self.next_id)).unwrap_or_default();
        self.next_id += 1;
        let body = match words {
            Words::Line(line) => Value::String(line),
            Words::List(words) => Value::List(words.into_iter().map(Value::String).collect()),
        };
        let message = ValueMessage {
            message_id: id.clone(),
            to: Some(ADDRESS.to_owned()),
            reply_to: Some(ADDRESS.to_owned()),
            properties: vec![("operation".to_owned(), Value::String("COMMAND".to_owned()))],
            body,
            ..ValueMessage::default()
        };
        let bytes = message.encode().map_err(ToolError::Other)?;
        while !self.client.can_send(self.requests) {
            self.client.next().await?;
        }
        let sent = self.client.send(self.requests, 0, &bytes);
        sent.map_err(|error| ToolError::Other(format!("the command cannot be sent: {error}")))?;
        loop {
            let Wake::Event(event) = self.client.next().await? else {
                continue;
            };
            match event {
                Event::Delivery {
                    link,
                    delivery_id,
                    payload,
                    ..
                } if link == self.replies => {
                    self.client.settle(link, delivery_id, Outcome::Accepted);
                    self.client.set_credit(link, CREDIT);
                    let reply = ValueMessage::decode_reply(&payload.to_bytes());
                    let reply = reply.map_err(|error| ToolError::Other(error.to_string()))?;
                    if reply.correlation_id == id {
                        // The settlement leaves with the next command otherwise.
                        self.client.flush()?;
                        return Ok(read(reply));
                    }
                }
                Event::Disposition {
                    outcome: Some(Outcome::Rejected(error)),
                    ..
                } => {
                    let why = error.map(|error| error.to_string()).unwrap_or_default();
                    return Err(ToolError::Other(format!("the command was refused: {why}")));
                }
                Event::Detached { error, .. } => {
                    let why = error.map(|error| error.to_string()).unwrap_or_default();
                    return Err(ToolError::Other(format!(
                        "the server ended the link: {why}"
                    )));
                }
                _ => {}
            }
        }
    }
}

/// The answer that a reply carries.
fn read(reply: ValueMessage) -> Answer {
    let status = match reply.property("statusCode") {
        Some(Value::Int(status)) => u16::try_from(*status).unwrap_or(500),
        _ => 500,
    };
    let text = reply.text("statusDescription").unwrap_or("").to_owned();
    let entries: Vec<(String, Value)> = match reply.body {
        Value::Map(map) => map
            .into_iter()
            .filter_map(|(key, value)| match key {
                Value::String(key) => Some((key, value)),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    let body = match entries.as_slice() {
        [] => Body::Nothing,
        [
            (names, Value::List(attributes)),
            (results, Value::List(rows)),
        ] if names == "attributeNames" && results == "results" => {
            let rows = rows.iter().map(|row| match row {
                Value::List(row) => row.iter().map(item).collect(),
                _ => Vec::new(),
            });
            Body::Table(Table {
                attributes: attributes.iter().map(plain).collect(),
                rows: rows.collect(),
            })
        }
        fields => {
            let fields = fields.iter();
            Body::Record(
                fields
                    .map(|(key, value)| (key.clone(), item(value)))
                    .collect(),
            )
        }
    };
    Answer { status, text, body }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        _ => String::new(),
    }
}

fn item(value: &Value) -> Item {
    match value {
        Value::String(text) => Item::Text(text.clone()),
        Value::Ulong(number) => Item::Number(*number),
        Value::Bool(flag) => Item::Flag(*flag),
        Value::Double(number) => Item::Decimal(number.into_inner()),
        Value::List(items) => Item::List(items.iter().map(plain).collect()),
        _ => Item::Nothing,
    }
}
