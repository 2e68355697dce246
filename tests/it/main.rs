//! Black-box tests against the real program: processes, sockets, files.
//!
//! One test binary. What belongs where:
//! * `support`: starts processes and reads their log events, talks to their monitors.
//! * `pair`: who is active when, whatever happens to the processes of a pair.
//! * `store`: the `store` commands on real stores.
//! * `tidy`: rules of the source that the compiler does not know.
//! * `usage`: exit codes and messages of wrong usage and wrong configuration.
#![allow(
    clippy::disallowed_methods,
    reason = "these tests stand outside the program: they start processes, read files and wait"
)]

mod pair;
mod store;
mod support;
mod tidy;
mod usage;
