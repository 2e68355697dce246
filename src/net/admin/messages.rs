//! The messages of a queue or durable subscription, for administrators: listed, shown, deleted.

use std::str::FromStr;

use super::safety::Safe;
use super::{Result, blocking};
use crate::admin::{Answer, Failure, Item, Request, Verb};
use crate::monitor::Status;
use crate::net::clock;
use crate::net::engine::Engine;
use crate::node::{Holder, Look, LookAt, MessageId, Seen, SeenMessage, Undiscarded};
use crate::proto::message::{Entries, MessageIndex, MessageOutline};

/// Rows of a list when nobody says how many.
const ROWS: usize = 100;
/// Most rows of a list.
const ROWS_MAX: usize = 1_000;
/// Ids of messages that cannot be read which a list tells.
const UNREADABLE_SHOWN: usize = 20;
/// A list ends when so many bytes of messages were read for it.
const READ_BYTES_MAX: usize = 64 << 20;
/// The same for a search.
const SEARCHED_BYTES_MAX: usize = 256 << 20;
/// Messages that are read at a time.
const PART_MESSAGES: usize = 256;

/// Which column of a list has the ids that senders gave.
const MESSAGE_ID: usize = 1;

/// Lists or shows messages.
pub(super) async fn show(engine: &Engine, request: &Request) -> Result<Answer> {
    match request.command.verb {
        Verb::List => list(engine, request).await,
        _ => {
            let id = id(request.arguments.name(0))?;
            let seen = find(engine, id).await?;
            Ok(record(engine, &seen))
        }
    }
}

/// Deletes a message that nobody has; answers when that is durable.
pub(super) async fn delete(engine: &Engine, status: &Status, request: &Request) -> Result<Answer> {
    let id = id(request.arguments.name(0))?;
    let seen = find(engine, id).await?;
    let place = engine.administer(|node, _| node.place_of(id));
    let discarded = engine.administer(|node, now| node.discard_message(now, &seen));
    let ticket = match discarded.ok_or_else(not_active)? {
        Ok(ticket) => ticket,
        Err(why) => return Err(undiscarded(id, why, status)),
    };
    let place = place.unwrap_or_default();
    let answer = Answer::done(format!("message {id} deleted from {place}"));
    Safe::With(ticket).when(engine, answer).await
}

fn undiscarded(id: MessageId, why: Undiscarded, status: &Status) -> Failure {
    match why {
        Undiscarded::Gone | Undiscarded::Held(Holder::Nobody) => missing(id),
        Undiscarded::Held(Holder::Consumer {
            number,
            connection,
            container,
        }) => {
            let end = connection.map_or_else(String::new, |connection| {
                format!(
                    ", or close its connection: delete connection {}",
                    connection.serial()
                )
            });
            Failure::conflict(format!(
                "message {id} is delivered to consumer {number} of client `{container}`, which has \
                 not settled it: wait until it does{end}"
            ))
        }
        Undiscarded::Held(Holder::Client { container, .. }) => {
            let left_ms = status.reconnect.deadline_ms;
            let until = match left_ms {
                Some(left_ms) => format!(
                    "when that has settled it, or in {} s when it does not return",
                    left_ms.div_ceil(1_000)
                ),
                None => "when that has settled it or given it back".to_owned(),
            };
            Failure::conflict(format!(
                "client `{container}` had message {id} when the server before this one ended, so it \
                 is kept for that client: delete it {until}"
            ))
        }
        Undiscarded::NotNow => Failure::new(
            503,
            "it is not certain at this moment that the server owns the store: try again",
        ),
    }
}

fn id(text: &str) -> Result<MessageId> {
    MessageId::from_str(text).map_err(Failure::usage)
}

fn missing(id: MessageId) -> Failure {
    Failure::missing(format!(
        "there is no message {id}: it was consumed, has expired, or was deleted"
    ))
}

fn not_active() -> Failure {
    Failure::conflict("this server is not active any more: connect to the active server")
}

/// Runs a part of a look where it may wait.
async fn look_on(engine: &Engine, look: Look) -> Result<Seen> {
    let looked = blocking(move || look.run()).await?;
    let seen = engine.administer(|node, _| node.looked(looked));
    seen.ok_or_else(not_active)?
        .map_err(|error| Failure::new(500, format!("the store cannot be read: {error}")))
}

async fn find(engine: &Engine, id: MessageId) -> Result<SeenMessage> {
    let look = engine.administer(|node, _| node.look_at(id));
    let look = look.ok_or_else(not_active)?.ok_or_else(|| missing(id))?;
    let seen = look_on(engine, look).await?;
    if seen.unreadable.contains(&id) {
        return Err(Failure::new(
            500,
            format!(
                "the disk refuses to read message {id}: it is left out, and the rest of its queue is \
                 served; look after the disk, then restart or switch over to have it read again"
            ),
        ));
    }
    let mut messages = seen.messages.into_iter();
    messages.find(|it| it.id == id).ok_or_else(|| missing(id))
}

/// What a list is asked for beside its queue.
struct Wanted {
    rows: usize,
    after: Option<MessageId>,
    /// Only those whose senders gave them this id.
    message_id: Option<Item>,
}

fn wanted(request: &Request) -> Result<Wanted> {
    let mut wanted = Wanted {
        rows: ROWS,
        after: None,
        message_id: None,
    };
    for (name, value) in &request.arguments.settings {
        let value = value.as_deref().unwrap_or("");
        match name.to_ascii_lowercase().as_str() {
            "limit" => {
                let rows = value.parse().ok();
                let rows = rows.filter(|rows| (1..=ROWS_MAX).contains(rows));
                wanted.rows = rows.ok_or_else(|| {
                    Failure::usage(format!(
                        "limit={value}: write a number from 1 to {ROWS_MAX}"
                    ))
                })?;
            }
            "after" => wanted.after = Some(id(value)?),
            "message_id" => wanted.message_id = Some(value.into()),
            _ => {
                let usage = request.command.usage();
                return Err(Failure::usage(format!(
                    "`{name}` is not known; write {usage}"
                )));
            }
        }
    }
    Ok(wanted)
}

async fn list(engine: &Engine, request: &Request) -> Result<Answer> {
    let [name, client, user] = [0, 1, 2].map(|index| request.arguments.name(index));
    let is_durable = request.command.words.ends_with("durable");
    let at = match is_durable {
        true => LookAt::Durable { name, client, user },
        false => LookAt::Queue(name),
    };
    let wanted = wanted(request)?;
    let from = engine.administer(|node, _| node.look_from(at, wanted.after));
    let from = from.ok_or_else(not_active)?.ok_or_else(|| match is_durable {
        true => Failure::missing(format!(
            "there is no durable `{name}` of this client, or there are several of that name: write \
             show messages durable NAME CLIENTID USER"
        )),
        false => Failure::missing(format!(
            "there is no queue `{name}`; the messages of a durable subscription are shown by show \
             messages durable NAME"
        )),
    })?;
    if let Some(after) = wanted.after
        && engine.administer(|node, _| node.is_of(after, from)) == Some(false)
    {
        let text = format!("after={after}: that is the id of a message of another queue");
        return Err(Failure::usage(text));
    }
    let now_ms = clock::now().wall_ms;
    let (mut rows, mut last, mut read_bytes) = (Vec::new(), None, 0);
    let (mut has_rest, mut unreadable) = (false, Vec::new());
    let (part, bytes_max) = match wanted.message_id {
        Some(_) => (PART_MESSAGES, SEARCHED_BYTES_MAX),
        None => (wanted.rows.min(PART_MESSAGES), READ_BYTES_MAX),
    };
    let mut next = Some(from);
    while let Some(from) = next
        && rows.len() < wanted.rows
        && read_bytes < bytes_max
    {
        let look = engine.administer(|node, _| node.look(from, part));
        let seen = look_on(engine, look.ok_or_else(not_active)?).await?;
        unreadable.extend(seen.unreadable);
        for message in &seen.messages {
            if rows.len() == wanted.rows {
                has_rest = true;
                break;
            }
            read_bytes += message.message.body.len();
            last = Some(message.id);
            let row = row(message, now_ms);
            let own = row.get(MESSAGE_ID);
            if wanted.message_id.is_none() || own == wanted.message_id.as_ref() {
                rows.push(row);
            }
        }
        next = seen.next;
    }
    let mut answer = Answer::table(request.command.columns, rows);
    if let (true, Some(last)) = (next.is_some() || has_rest, last) {
        answer.text = match wanted.message_id {
            Some(_) => format!("there are more to look at: add after={last}"),
            None => format!("there are more: add after={last}"),
        };
    }
    if !unreadable.is_empty() {
        let first = unreadable.iter().take(UNREADABLE_SHOWN);
        let first: Vec<String> = first.map(ToString::to_string).collect();
        let (count, first) = (unreadable.len(), first.join(", "));
        let text = format!("left out, as the disk refuses to read them ({count}): {first}");
        answer.text = match answer.text.as_str() {
            "" => text,
            more => format!("{text}\n{more}"),
        };
    }
    Ok(answer)
}

fn state(seen: &SeenMessage, now_ms: u64) -> &'static str {
    match seen.holder {
        Holder::Consumer { .. } => "delivered",
        Holder::Client { .. } => "kept",
        Holder::Nobody if (1..=now_ms).contains(&seen.expires_at_ms) => "expired",
        Holder::Nobody => "waiting",
    }
}

/// The client that has a message.
fn client(holder: &Holder) -> Option<&str> {
    match holder {
        Holder::Nobody => None,
        Holder::Consumer { container, .. } | Holder::Client { container, .. } => Some(container),
    }
}

/// How long a message has been there; nothing when that is not known.
fn age_ms(seen: &SeenMessage, now_ms: u64) -> Option<u64> {
    (seen.arrived_at_ms > 0).then(|| now_ms.saturating_sub(seen.arrived_at_ms))
}

fn row(seen: &SeenMessage, now_ms: u64) -> Vec<Item> {
    let body = &seen.message.body;
    // What cannot be read is told by `show message`.
    let index = MessageIndex::scan(body).ok().filter(|_| seen.format == 0);
    let message_id = index.and_then(|index| MessageOutline::message_id(body, &index));
    vec![
        seen.id.to_string().into(),
        message_id.into(),
        state(seen, now_ms).into(),
        client(&seen.holder).into(),
        u64::from(seen.priority).into(),
        seen.is_durable.into(),
        u64::from(seen.delivery_count).into(),
        body.len().into(),
        age_ms(seen, now_ms).into(),
    ]
}

fn record(engine: &Engine, seen: &SeenMessage) -> Answer {
    let now_ms = clock::now().wall_ms;
    let body = &seen.message.body;
    let place = engine.administer(|node, _| node.place_of(seen.id));
    let mut fields: Vec<(&str, Item)> = vec![
        ("id", seen.id.to_string().into()),
        ("destination", place.into()),
        ("number", seen.message.position.lsn.into()),
        ("state", state(seen, now_ms).into()),
        ("client_id", client(&seen.holder).into()),
    ];
    if let Holder::Consumer {
        number, connection, ..
    } = &seen.holder
    {
        let connection = connection.map(|it| u64::from(it.serial()));
        fields.extend([
            ("consumer", Item::from(*number)),
            ("connection", connection.into()),
        ]);
    }
    let left_ms = seen.expires_at_ms.saturating_sub(now_ms);
    fields.extend([
        ("is_durable", Item::from(seen.is_durable)),
        ("priority", u64::from(seen.priority).into()),
        ("is_redelivered", (seen.delivery_count > 0).into()),
        ("delivery_count", u64::from(seen.delivery_count).into()),
        ("age_ms", age_ms(seen, now_ms).into()),
        (
            "expires_in_ms",
            (seen.expires_at_ms > 0).then_some(left_ms).into(),
        ),
        ("message_bytes", body.len().into()),
    ]);
    if seen.format != 0 {
        let text = format!("format {}, which only its receivers know", seen.format);
        fields.push(("body", text.into()));
        return Answer::record(fields);
    }
    let outline = MessageOutline::read(body);
    fields.extend([
        ("body", Item::from(outline.body)),
        ("body_bytes", outline.body_bytes.into()),
        ("properties", pairs(outline.properties)),
        (
            "application_properties",
            pairs(outline.application_properties),
        ),
        ("message_annotations", pairs(outline.annotations)),
    ]);
    if !outline.faults.is_empty() {
        let faults = outline.faults.iter().map(ToString::to_string);
        fields.push(("faults", Item::List(faults.collect())));
    }
    Answer::record(fields)
}

fn pairs(entries: Entries) -> Item {
    let pairs = entries
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"));
    Item::List(pairs.collect())
}
