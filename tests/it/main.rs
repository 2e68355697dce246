//! Black-box tests against the real program: processes, sockets, files.
//!
//! One test binary. What belongs where:
//! * `support`: starts processes and reads their log events, talks to their monitors.
//! * `pair`: who is active when, whatever happens to the processes of a pair.
//! * `store`: the `store` commands on real stores.
//! * `foreign`: starts client programs on AMQP libraries that are not ours (`tests/interop`).
//! * `history`: judges what such clients saw.
//! * `drill`: the active server is killed under the load of such clients.
//! * `layers`: which part of the source may use which, and how long files and functions are.
