//! Health, state and metrics over HTTP.
//!
//! The monitor has a thread and a runtime of its own and reads only a [`Board`], so that it answers
//! within milliseconds whatever the engine thread does.
//!
//! | path | answer |
//! |---|---|
//! | `/isLive` | 200 while the process works; 503 when the engine thread was not heard of for long |
//! | `/isReady` | 200 when active, 400 otherwise (as EMS) |
//! | `/state` | [`Status`] as JSON |
//! | `/metrics` | Prometheus text |
#![allow(
    clippy::disallowed_methods,
    reason = "the monitor has a thread of its own and measures how old the snapshot is"
)]

mod connection;
mod metrics;
mod status;

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use rustls::ServerConfig;

use crate::tls::Live;

pub use status::{
    Clients, Peer, PeerTrouble, Progress, Rates, Reconnect, Recovery, Status, Store, WarmStandby,
};

/// The engine thread posts a snapshot several times a second; after so long without one it hangs.
const STALE: Duration = Duration::from_secs(15);
/// Rates are measured over at least so long.
const RATES_OVER: Duration = Duration::from_secs(1);

/// Where the engine thread posts the latest snapshot, and the monitor reads it.
#[derive(Clone, Debug)]
pub struct Board {
    inner: Arc<Mutex<Posted>>,
}

#[derive(Debug)]
struct Posted {
    at: Instant,
    status: Status,
    /// Where the present measuring of rates began.
    since: (Instant, Counts),
}

/// Counts whose growth the rates are.
#[derive(Clone, Copy, Debug)]
struct Counts([u64; 3]);

impl Counts {
    fn of(status: &Status) -> Self {
        let written_bytes = status.store.as_ref().map_or(0, |store| store.batch_bytes);
        let clients = &status.clients;
        Self([clients.messages_in, clients.messages_out, written_bytes])
    }

    fn rates(self, now: Self, over: Duration) -> Rates {
        let mut pairs = self.0.into_iter().zip(now.0);
        let mut next = || {
            let grown = pairs
                .next()
                .map_or(0, |(then, now)| now.saturating_sub(then));
            grown as f64 / over.as_secs_f64()
        };
        Rates {
            messages_in: next(),
            messages_out: next(),
            written_bytes: next(),
        }
    }
}

impl Board {
    /// A board with a first snapshot.
    #[must_use]
    pub fn new(status: Status) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Posted {
                at: Instant::now(),
                since: (Instant::now(), Counts::of(&status)),
                status,
            })),
        }
    }

    /// Replaces the snapshot.
    pub fn post(&self, status: Status) {
        let now = Instant::now();
        let mut posted = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, counts) = posted.since;
        let over = now.saturating_duration_since(since);
        let mut rates = posted.status.rates;
        if over >= RATES_OVER {
            rates = counts.rates(Counts::of(&status), over);
            posted.since = (now, Counts::of(&status));
        }
        posted.at = now;
        posted.status = Status { rates, ..status };
    }

    /// The latest snapshot and its age.
    #[must_use]
    pub fn read(&self) -> (Duration, Status) {
        let guard = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (guard.at.elapsed(), guard.status.clone())
    }
}

/// Serves on a thread of its own until the process ends; with TLS when there is a configuration.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn spawn(
    listener: TcpListener,
    board: Board,
    tls: Option<Live<ServerConfig>>,
) -> io::Result<JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Builder::new().name("monitor".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let result = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    axum::serve(connection::Bounded::start(listener, tls), router(board)).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                tracing::error!(event = "monitor_failed", %error, "the monitor stopped");
            }
        });
    })
}

fn router(board: Board) -> Router {
    Router::new()
        .route("/isLive", get(is_live))
        .route("/isReady", get(is_ready))
        .route("/state", get(state))
        .route("/metrics", get(metrics_text))
        .fallback(not_found)
        .with_state(board)
}

async fn is_live(State(board): State<Board>) -> Response {
    let (age, _) = board.read();
    if age < STALE {
        return (StatusCode::OK, "live\n").into_response();
    }
    let text = format!(
        "the engine thread was last heard of {} s ago\n",
        age.as_secs()
    );
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn is_ready(State(board): State<Board>) -> Response {
    let (_, status) = board.read();
    let code = if status.is_active() {
        StatusCode::OK
    } else {
        StatusCode::BAD_REQUEST
    };
    (code, format!("{}\n", status.role)).into_response()
}

async fn state(State(board): State<Board>) -> Response {
    let (_, status) = board.read();
    Json(status).into_response()
}

async fn metrics_text(State(board): State<Board>) -> Response {
    let (_, status) = board.read();
    match metrics::render(&status) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            let text = format!("the metrics cannot be written: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

async fn not_found() -> Response {
    let text = "there is /isLive, /isReady, /state and /metrics\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

#[cfg(test)]
mod tests;
