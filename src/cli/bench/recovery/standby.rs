//! The takeover by a standby that has followed the log.

use serde::Serialize;
use tokio::time::{Duration, sleep};

use super::{Timing, drop_caches, first_message, kill_with_tail, milliseconds};
use crate::cli::bench::rounded;
use crate::cli::own_server::{OwnServer, OwnServerOptions};
use crate::cli::tool::ToolError;

/// How often a standby is asked whether it has caught up.
const CURRENT_PAUSE: Duration = Duration::from_millis(20);

/// One takeover.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Takeover {
    #[serde(flatten)]
    pub(super) timing: Timing,
    /// From the kill of the active server until the standby serves.
    kill_to_ready_ms: f64,
    /// What became of what it had kept: `used`, `refused`, `none`.
    pub(super) kept: String,
}

/// Starts a standby beside a server, lets it catch up, kills the server and times the standby.
pub(super) async fn take_over(
    active: &mut OwnServer,
    options: &OwnServerOptions,
    size: usize,
) -> Result<Takeover, ToolError> {
    let mut options = options.clone();
    options.name = String::from("standby");
    options.set.push(format!("ft_active={}", active.url()));
    // What it has read since is in memory when it takes over, as on a host of its own; nothing else is.
    drop_caches(&options.data).await?;
    let mut standby = OwnServer::start(&options).await?;
    standby.wait("standby").await?;
    while !standby.state()?.warm_standby.is_some_and(|it| it.current) {
        sleep(CURRENT_PAUSE).await;
    }
    kill_with_tail(active, size).await?;
    let killed = std::time::Instant::now();
    let ready = standby.wait("active").await?;
    let (first, client) = first_message(standby.url()).await?;
    client.close().await;
    let state = standby.state()?;
    let lock_to_ready_ms = state.recovery.lock_to_ready_ms;
    let lock_to_ready_ms = lock_to_ready_ms.or(ready.number("lock_to_ready_ms"));
    let takeover = Takeover {
        timing: Timing {
            lock_to_ready_ms: rounded(lock_to_ready_ms.unwrap_or_default()),
            first_message_ms: milliseconds(first.saturating_duration_since(ready.at)),
            tail_bytes: state.recovery.tail_bytes,
            messages: state.recovery.messages,
            phases_ms: state.recovery.phases_ms,
        },
        kill_to_ready_ms: milliseconds(ready.at.saturating_duration_since(killed)),
        kept: state.recovery.warm,
    };
    standby.kill();
    Ok(takeover)
}
