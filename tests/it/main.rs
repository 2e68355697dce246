//! Black-box tests against the real program: processes, sockets, files.
//!
//! One test binary. What belongs where:
//! * `support`: starts processes and reads their log events, talks to their monitors.
//! * `pair`: who is active when, whatever happens to the processes of a pair.
//! * `usage`: exit codes and messages of wrong usage and wrong configuration.

mod pair;
mod support;
mod usage;
