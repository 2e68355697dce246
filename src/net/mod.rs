//! Sockets, clock, threads and signals: the only place that talks to the operating system, beside
//! the store's real disk.
#![allow(
    clippy::disallowed_methods,
    reason = "this is the layer that has the clock, the threads and the random numbers"
)]

mod admin;
pub mod client;
mod clock;
mod comparison;
pub mod engine;
#[cfg(test)]
mod engine_tests;
mod handshakes;
mod lanes;
mod listen;
pub mod log;
mod logfile;
mod logins;
mod opener;
mod pair_login;
mod peer;
mod pump;
mod reception;
mod recovering;
pub mod server;
mod service;
mod session;
mod signals;
mod snapshot;
pub mod tls;
mod watchdog;
