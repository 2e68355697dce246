//! Sockets, clock, threads, signals: the only place with the operating system.

mod clock;
pub mod engine;
mod lanes;
mod pump;
mod watchdog;
