//! Subscriptions of a running server: shown, deleted.

use super::destinations::{counted, deleted};
use super::figures::ROWS_MAX;
use super::safety::Safe;
use crate::admin::{Answer, Failure, Request};
use crate::config::companions::Companions;
use crate::model::Pattern;
use crate::net::engine::Engine;
use crate::node::{Deletion, SubscriptionStatus};

type Result = std::result::Result<Answer, Failure>;

/// Deletes all durable subscriptions that nobody reads. Also what the answer waits for.
pub(super) fn delete_all_durables(engine: &Engine) -> Option<(Answer, Safe)> {
    let all = engine.administer(|node, now| node.delete_all_durables(now));
    let (gone, kept, ticket) = all?;
    let mut answer = deleted(gone, "durable");
    if kept > 0 {
        let text = &mut answer.text;
        text.push_str(&format!("; {kept} stay because clients read them now"));
    }
    let safe = match gone.queues {
        0 => Safe::Now,
        _ => Safe::with(ticket),
    };
    Some((answer, safe))
}

/// A durable subscription, its topic, its client and its user.
pub(super) fn whose(status: &SubscriptionStatus) -> String {
    let (name, topic, client) = (&status.name, &status.topic, &status.client);
    let mut text = format!("durable {name} of topic {topic}");
    if !client.is_empty() {
        text.push_str(&format!(" and client {client}"));
    }
    if let Some(user) = &status.user {
        text.push_str(&format!(" (user {user})"));
    }
    text
}

/// Deletes a durable subscription that clients have made use of; nothing when there is none. Also what the answer
/// waits for.
pub(super) fn delete_durable(
    engine: &Engine,
    request: &Request,
) -> std::result::Result<Option<(Answer, Safe)>, Failure> {
    let (name, client) = (request.arguments.name(0), request.arguments.name(1));
    let user = request.arguments.name(2);
    let deletion = engine.administer(|node, now| node.delete_durable(now, name, client, user));
    match deletion {
        Some(Deletion::Deleted(status, ticket)) => {
            let messages = counted(status.messages, "message");
            let text = format!("{} deleted from the store, with {messages}", whose(&status));
            Ok(Some((Answer::done(text), Safe::with(ticket))))
        }
        Some(Deletion::Read(status)) => Err(Failure::conflict(format!(
            "the {} stays in the store, a client reads it now: close its connection first",
            whose(&status)
        ))),
        _ => Ok(None),
    }
}

/// A durable subscription: of the configuration, of the server, or of both.
struct Durable {
    topic: String,
    name: String,
    client: String,
    status: Option<SubscriptionStatus>,
}

fn all_durables(engine: &Engine, files: &Companions) -> Vec<Durable> {
    let mut known: Vec<Durable> = engine
        .subscriptions()
        .into_iter()
        .filter(|it| it.is_durable)
        .map(|it| Durable {
            topic: it.topic.clone(),
            name: it.name.clone(),
            client: it.client.clone(),
            status: Some(it),
        })
        .collect();
    for it in files.durables.entries() {
        let is_same = |own: &Durable| own.name == it.name && own.client == it.client_id;
        if !known.iter().any(is_same) {
            known.push(Durable {
                topic: it.topic.to_string(),
                name: it.name.clone(),
                client: it.client_id.clone(),
                status: None,
            });
        }
    }
    known.sort_by(|one, other| (&one.topic, &one.name).cmp(&(&other.topic, &other.name)));
    known
}

pub(super) fn durables(engine: &Engine, files: &Companions, request: &Request) -> Answer {
    let pattern = Pattern::parse(request.arguments.name(0)).ok();
    let is_wanted = |it: &Durable| {
        let pattern = pattern.as_ref();
        pattern.is_none_or(|wanted| wanted.as_str() == it.topic || wanted.matches(&it.topic))
    };
    let rows = all_durables(engine, files).into_iter().filter(is_wanted);
    let rows = rows.take(ROWS_MAX).map(|it| {
        let status = it.status.as_ref();
        vec![
            it.topic.as_str().into(),
            it.name.as_str().into(),
            it.client.as_str().into(),
            status
                .and_then(|it| it.user.as_deref())
                .unwrap_or("")
                .into(),
            status.is_some_and(|it| it.is_active).into(),
            status.map_or(0, |it| it.messages).into(),
            status.map_or(0, |it| it.bytes).into(),
        ]
    });
    Answer::table(request.command.columns, rows.collect())
}

pub(super) fn no_durable(name: &str) -> Failure {
    Failure::missing(format!(
        "there is no durable `{name}`, or several clients have one: name the client id, and the user"
    ))
}

pub(super) fn durable(engine: &Engine, files: &Companions, request: &Request) -> Result {
    let [name, client, user] = [0, 1, 2].map(|index| request.arguments.name(index));
    let user_of = |it: &Durable| it.status.as_ref().and_then(|it| it.user.clone());
    let mut all = all_durables(engine, files);
    all.retain(|it| {
        it.name == name
            && (client.is_empty() || it.client == client)
            && (user.is_empty() || user_of(it).as_deref() == Some(user))
    });
    // As for what changes it: without a client the one that belongs to nobody is meant, else the only one.
    let is_nobodys = |it: &Durable| it.client.is_empty() && user_of(it).is_none();
    if client.is_empty() && user.is_empty() && all.iter().any(is_nobodys) {
        all.retain(is_nobodys);
    }
    let [it] = all.as_slice() else {
        return Err(no_durable(name));
    };
    let status = it.status.as_ref();
    Ok(Answer::record(vec![
        ("durable", it.name.as_str().into()),
        ("topic", it.topic.as_str().into()),
        ("client_id", it.client.as_str().into()),
        ("user", user_of(it).unwrap_or_default().into()),
        ("is_active", status.is_some_and(|it| it.is_active).into()),
        ("no_local", status.is_some_and(|it| it.no_local).into()),
        (
            "pending_messages",
            status.map_or(0, |it| it.messages).into(),
        ),
        (
            "pending_message_bytes",
            status.map_or(0, |it| it.bytes).into(),
        ),
        ("held_messages", status.map_or(0, |it| it.held).into()),
    ]))
}

pub(super) fn subscriptions(engine: &Engine, request: &Request) -> Answer {
    let rows = engine.subscriptions().into_iter().take(ROWS_MAX);
    let rows = rows.map(|it| {
        vec![
            it.topic.into(),
            it.name.into(),
            it.client.into(),
            if it.is_durable { "D" } else { "N" }.into(),
            it.is_active.into(),
            it.messages.into(),
            it.bytes.into(),
        ]
    });
    Answer::table(request.command.columns, rows.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use steadfast_storage::disk::SimWorld;
    use steadfast_storage::{Acquire, Store, StoreOptions, try_acquire};
    use tokio::task::LocalSet;

    use super::*;
    use crate::admin::parse_line;
    use crate::model::{Directory, Durable};
    use crate::net::engine::EngineSettings;

    /// A server with a durable subscription of its configuration.
    fn serving() -> Engine {
        let engine = Engine::new(EngineSettings::default());
        let disk = SimWorld::new().process();
        let Ok(Acquire::Owned(ownership)) = try_acquire(Arc::new(disk), "test") else {
            panic!("the store is free");
        };
        let (store, _) =
            Store::open(ownership, StoreOptions::default(), &mut |_| ()).expect("the store opens");
        engine.serve(store);
        let durable = Durable {
            topic: Pattern::parse("news").expect("a topic"),
            name: "d".to_owned(),
            client_id: "c".to_owned(),
            no_local: false,
            is_route: false,
        };
        engine.set_directory(Arc::new(Directory {
            durables: vec![durable],
            ..Directory::default()
        }));
        engine
    }

    #[tokio::test]
    async fn what_the_log_does_not_take_is_never_said_to_be_deleted() {
        let test = async {
            let request = parse_line("delete durable d").expect("a request");
            for is_lost in [false, true] {
                let engine = serving();
                if is_lost {
                    engine.administer(|node, _| node.begin_seal());
                }
                let deleted = delete_durable(&engine, &request).expect("nobody reads it");
                let (_, safe) = deleted.expect("there is one");
                assert_eq!(safe == Safe::Never, is_lost, "{safe:?}");

                let engine = serving();
                if is_lost {
                    engine.administer(|node, _| node.begin_seal());
                }
                let (_, safe) = delete_all_durables(&engine).expect("it serves");
                assert_eq!(safe == Safe::Never, is_lost, "{safe:?}");
                let (_, safe) = delete_all_durables(&engine).expect("it serves");
                assert_eq!(safe, Safe::Now, "there was nothing more to delete");
            }
        };
        LocalSet::new().run_until(test).await;
    }
}
