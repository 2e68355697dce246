//! Black-box tests against the real program: processes, sockets, files.
//!
//! One test binary. What belongs where:
//! * `support`: starts processes and reads their log events, talks to their monitors.
//! * `pair`: who is active when, whatever happens to the processes of a pair.
//! * `chapter_pair`: what the chapter promises of a pair, by number.
//! * `chapter_authorization`: who comes in, and who gets what.
//! * `chapter_rights`: users and rights while servers run, at takeovers and switchovers.
//! * `chapter_clients`: what becomes of the state of clients at a takeover, by number.
//! * `store`: the `store` commands on real stores.
//! * `foreign`: starts client programs on AMQP libraries that are not ours (`tests/interop`).
//! * `history`: judges what such clients saw.
//! * `exchange`: messages between such clients, without disturbance.
//! * `drill`: the active server is killed under the load of such clients.
//! * `wire`: AMQP by hand, for what no client library would say.
//! * `hostile`: bad input, while well-behaved clients go on.
//! * `floods`: too much of everything, and clients that vanish.
//! * `chapter_admin`: administration, as the chapter promises it, with the tool and over AMQP.
//! * `chapter_json`: what an administrator changes in a pair with one JSON file.
//! * `chapter_messages`: messages as an administrator sees them, and the deletion of one.
//! * `chapter_admin_tool`: the administration tool at a terminal, in scripts, and before a pair.
//! * `certificates`, `tls`: certificates made on the fly, and everything that is said through TLS.
//! * `configuration`: whole sets of configuration files, and those of the documentation.
//! * `chapter_topics`: subscriptions and bridges of such clients, over takeovers.
//! * `jms`: what Qpid JMS may do.
//! * `layers`: which part of the source may use which, and how long files and functions are.
//! * `usage`: exit codes and messages of wrong usage and wrong configuration.
#![allow(
    clippy::disallowed_methods,
    reason = "these tests stand outside the program: they start processes, read files and wait"
)]

mod certificates;
mod chapter_admin;
mod chapter_admin_tool;
mod chapter_authorization;
mod chapter_clients;
mod chapter_json;
mod chapter_messages;
mod chapter_pair;
mod chapter_rights;
mod chapter_topics;
mod configuration;
mod drill;
mod exchange;
mod floods;
mod foreign;
mod history;
mod hostile;
mod jms;
mod layers;
mod pair;
mod store;
mod support;
mod tls;
mod usage;
mod wire;
