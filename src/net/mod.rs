//! Sockets, clock, threads, signals: the only place with the operating system.

mod clock;
pub mod engine;
#[cfg(test)]
mod engine_tests;
mod lanes;
mod pump;
mod watchdog;
