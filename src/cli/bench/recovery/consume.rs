//! Consuming a random share of every queue.

use std::cell::Cell;
use std::rc::Rc;

use indicatif::ProgressBar;

use super::CONNECTIONS;
use crate::cli::bench::fill::Filling;
use crate::cli::bench::load::{Tasks, connect, detached, queue_names};
use crate::cli::tool::ToolError;
use crate::net::client::{Client, ServerUrl, Wake};
use crate::proto::{Event, Outcome};

/// Messages that one link takes of a queue: servers bound what a consumer may leave unsettled.
const MESSAGES_PER_LINK: u64 = 32_768;
/// The bar moves by so many messages.
const BAR_STEP: u64 = 1024;
/// Credit of a link.
const CREDIT: u32 = 2000;

/// Takes all messages of every queue, settles a random share as accepted and gives the rest back. Returns
/// how many were settled.
pub(super) async fn consume(
    url: &ServerUrl,
    filling: &Filling,
    percent: u8,
    bar: &ProgressBar,
) -> Result<u64, ToolError> {
    if percent == 0 {
        return Ok(0);
    }
    let acked = Rc::new(Cell::new(0));
    let mut tasks = Tasks::default();
    for number in 0..CONNECTIONS {
        let queues: Vec<(String, u64)> = queue_names(filling.queues)
            .into_iter()
            .enumerate()
            .skip(number)
            .step_by(CONNECTIONS)
            .map(|(index, name)| (name, filling.share(index)))
            .collect();
        let client = connect(url, number).await?;
        let (acked, bar) = (Rc::clone(&acked), bar.clone());
        tasks.start(async move {
            let mut client = client;
            for (queue, messages) in queues {
                let settled = take(&mut client, &queue, messages, percent, &bar).await?;
                acked.set(acked.get() + settled);
            }
            client.close().await;
            Ok(())
        });
    }
    tasks.all().await?;
    Ok(acked.get())
}

async fn take(
    client: &mut Client,
    queue: &str,
    messages: u64,
    percent: u8,
    bar: &ProgressBar,
) -> Result<u64, ToolError> {
    let mut links = Vec::new();
    for _ in 0..messages.div_ceil(MESSAGES_PER_LINK) {
        links.push(client.attach_receiver(queue, CREDIT).await?);
    }
    let (mut taken, mut settled) = (0, 0);
    while taken < messages {
        match client.next().await? {
            Wake::Event(Event::Delivery {
                link, delivery_id, ..
            }) => {
                taken += 1;
                if taken % BAR_STEP == 0 {
                    bar.inc(BAR_STEP);
                }
                if fastrand::u8(0..100) < percent {
                    settled += 1;
                    client.settle(link, delivery_id, Outcome::Accepted);
                }
            }
            Wake::Event(Event::CreditRefill { link }) => client.set_credit(link, CREDIT),
            Wake::Event(Event::Detached { error, .. }) => return Err(detached(error)),
            _ => {}
        }
    }
    for link in links {
        client.detach(link).await?;
    }
    Ok(settled)
}
