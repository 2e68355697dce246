//! Steadfast, a fault-tolerant AMQP 1.0 message broker.
//!
//! | module | what it is | may use |
//! |---|---|---|
//! | [`proto`] | the AMQP 1.0 engine, sans-IO: bytes and time in, events and bytes out | nothing of ours |
//! | [`broker`] | the deterministic core: queues, consumers, settlement | nothing of ours |
//! | [`role`] | the fault-tolerance state machine: peer news, lock results and time in, actions out | nothing of ours |
//! | [`model`] | what the configuration means: names and wildcards, properties of destinations, permissions | nothing of ours |
//! | [`auth`] | who somebody is: stored passwords and the dialogues that prove one | `model` |
//! | [`config`] | parameters, their table and the file grammars | `model` |
//! | [`admin`] | administration as values: the table of commands, their parsing, answers, changes of files | `config`, `model` |
//! | [`node`] | joins protocol, core and store; no sockets, no clock, no threads | `proto`, `broker`, `model`, `auth`, storage |
//! | [`tls`] | certificates, keys and ciphers: configurations of TLS, renewed from their files | nothing of ours |
//! | [`net`] | sockets, clock, threads, signals: the only place with the operating system | `node`, `role`, `admin`, `config`, `model`, `auth`, `proto`, `monitor`, `tls`, storage |
//! | [`monitor`] | health, state and metrics over HTTP | `tls` |
//! | [`cli`] | the commands | everything |

pub mod admin;
pub mod auth;
pub mod broker;
pub mod cli;
pub mod config;
pub mod model;
pub mod monitor;
pub mod net;
pub mod node;
pub mod proto;
pub mod role;
pub mod tls;
