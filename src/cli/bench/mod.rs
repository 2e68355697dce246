//! `steadfast bench`: measures recovery of our own server, the store alone, and throughput and latency of any
//! AMQP 1.0 broker.

mod append;
mod engine;
mod fill;
mod latency;
mod load;
mod raw;
mod recovery;
mod space;
mod throughput;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::args::{BenchCommand, ClientArgs};
use super::own_server::{OwnServer, OwnServerOptions};
use super::tool::{self, ToolError};
use crate::net::client::ServerUrl;
use crate::role::Exit;
use crate::tls::ClientTls;

/// Runs one benchmark.
pub(super) fn run(command: &BenchCommand) -> Exit {
    match command {
        BenchCommand::Recovery(arguments) => tool::run(recovery::run(arguments)),
        BenchCommand::Throughput(arguments) => tool::run(throughput::run(arguments)),
        BenchCommand::Latency(arguments) => tool::run(latency::run(arguments)),
        BenchCommand::Fill(arguments) => tool::run(fill::run(arguments)),
        BenchCommand::Append(arguments) => tool::run(append::run(arguments)),
        BenchCommand::Space(arguments) => tool::run(space::run(arguments)),
    }
}

/// What a benchmark measures: somebody else's server, or one of our own in a temporary directory.
#[derive(Debug)]
struct Subject {
    /// Where clients connect.
    url: ServerUrl,
    /// How, when the URL wants TLS.
    tls: Option<ClientTls>,
    /// Our own server; it is stopped before its directory is removed.
    server: Option<OwnServer>,
    /// Where the disk alone is measured; `None` when we do not know which disk the server uses.
    raw_directory: Option<PathBuf>,
    _directory: Option<TempDir>,
}

impl Subject {
    async fn prepare(arguments: &ClientArgs) -> Result<Self, ToolError> {
        if let Some(url) = &arguments.server {
            let mut url = ServerUrl::parse(url)?;
            arguments.login.apply(&mut url)?;
            return Ok(Self {
                tls: arguments.tls.client(&url)?,
                url,
                server: None,
                raw_directory: arguments.dir.clone(),
                _directory: None,
            });
        }
        let directory = bench_directory(arguments.dir.as_deref())?;
        let server = OwnServer::start_active(&own_server(directory.path())).await?;
        Ok(Self {
            url: server.url().clone(),
            tls: None,
            server: Some(server),
            raw_directory: Some(directory.path().to_owned()),
            _directory: Some(directory),
        })
    }

    /// Stops our own server in order.
    async fn end(mut self) -> Result<(), ToolError> {
        match &mut self.server {
            Some(server) => server.stop().await,
            None => Ok(()),
        }
    }
}

/// A directory of our own, removed in the end.
fn bench_directory(parent: Option<&Path>) -> Result<TempDir, ToolError> {
    tool::temporary_directory("steadfast-bench-", parent)
}

/// A standalone server with its store in a directory of ours.
fn own_server(directory: &Path) -> OwnServerOptions {
    own_server_at(directory.join("store"))
}

/// A standalone server with this store.
fn own_server_at(data: PathBuf) -> OwnServerOptions {
    OwnServerOptions {
        name: String::from("bench"),
        data,
        port: 0,
        set: vec![String::from("server=bench")],
    }
}

/// One after the other, each in a line of its own, aligned.
fn say_figures(title: &str, figures: &[(&str, String)]) {
    let width = figures
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or(0);
    super::say(title);
    for (name, value) in figures {
        super::say(&format!("  {name:<width$}  {value}"));
    }
}

/// A share of a whole for each second.
fn per_second(count: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { count / seconds } else { 0.0 }
}

/// Rounded to two digits behind the point: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
