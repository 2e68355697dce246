//! Scenarios: two peers in memory and virtual time, a raw peer that may break every rule, frames of real
//! clients, and generated input. [`Pair`] moves bytes between a client's and a server's [`Connection`].

mod codec;
mod connection;
mod golden;
mod hostile;
mod link;
mod pair;
mod raw;
mod session;
mod transfer;

use super::*;
use pair::{Pair, deliveries, settled_tokens};
use raw::Raw;
