//! Connections and consumers of a running server: shown, closed.

use super::figures::ROWS_MAX;
use crate::admin::{Answer, Failure, Request};
use crate::net::clock;
use crate::net::engine::Engine;
use crate::node::ConnectionStatus;

type Result = std::result::Result<Answer, Failure>;

pub(super) fn connection_status(engine: &Engine) -> Vec<ConnectionStatus> {
    let rows = engine.administer(|node, _| node.connection_status());
    rows.unwrap_or_default()
}

pub(super) fn connections(engine: &Engine, request: &Request) -> Answer {
    let now_ms = clock::now().monotonic_ms;
    let rows = connection_status(engine)
        .into_iter()
        .take(ROWS_MAX)
        .map(|it| {
            let host = engine.address(it.id).map(|address| address.to_string());
            vec![
                u64::from(it.id.serial()).into(),
                if it.is_manager { "A" } else { "C" }.into(),
                host.into(),
                it.user.into(),
                it.container.into(),
                it.publishers.into(),
                it.consumers.into(),
                now_ms.saturating_sub(it.since_ms).into(),
            ]
        });
    Answer::table(request.command.columns, rows.collect())
}

pub(super) fn delete_connection(engine: &Engine, id: &str) -> Result {
    let serial: u32 = id
        .parse()
        .map_err(|_| Failure::usage(format!("`{id}` is not the number of a connection")))?;
    let mut rows = connection_status(engine).into_iter();
    let row = rows.find(|row| row.id.serial() == serial);
    let whose = row.map_or_else(String::new, |row| {
        let user = row.user.as_deref().unwrap_or("anonymous");
        format!(
            " of {user} ({})",
            row.container.as_deref().unwrap_or("no name")
        )
    });
    match engine.administer(|node, now| node.close_connection(now, serial)) {
        Some(true) => Ok(Answer::done(format!("connection {serial}{whose} closed"))),
        _ => Err(Failure::missing(format!("there is no connection {serial}"))),
    }
}

pub(super) fn consumers(engine: &Engine, request: &Request) -> Answer {
    let arguments = &request.arguments;
    let is_wanted =
        |name: &str, value: &str| arguments.setting(name).is_none_or(|wanted| wanted == value);
    let rows = engine.administer(|node, _| node.consumer_status());
    let rows = rows.unwrap_or_default().into_iter().filter(|it| {
        is_wanted("queue", &it.queue)
            && is_wanted("user", it.user.as_deref().unwrap_or(""))
            && is_wanted("connection", &it.connection.serial().to_string())
    });
    let rows = rows.take(ROWS_MAX).map(|it| {
        vec![
            it.number.into(),
            u64::from(it.connection.serial()).into(),
            it.user.into(),
            if it.is_subscription { "T" } else { "Q" }.into(),
            it.queue.into(),
            it.is_served.into(),
        ]
    });
    Answer::table(request.command.columns, rows.collect())
}

pub(super) fn consumer(engine: &Engine, id: &str) -> Result {
    let rows = engine.administer(|node, _| node.consumer_status());
    let found = rows
        .unwrap_or_default()
        .into_iter()
        .find(|it| it.number.to_string() == id);
    match found {
        Some(it) => Ok(Answer::record(vec![
            ("consumer", it.number.into()),
            ("connection", u64::from(it.connection.serial()).into()),
            ("user", it.user.into()),
            ("destination", it.queue.into()),
            ("is_active", it.is_served.into()),
        ])),
        None => Err(Failure::missing(format!("there is no consumer {id}"))),
    }
}
