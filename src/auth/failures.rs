//! What a wrong password costs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// The first failure is answered so late, milliseconds; each further one twice as late.
const DELAY_FIRST_MS: u64 = 250;
/// The latest answer, milliseconds.
const DELAY_MAX_MS: u64 = 8_000;
/// After so long without a failure all are forgotten, milliseconds.
const MEMORY_MS: u64 = 600_000;
/// Users and addresses that are remembered.
const REMEMBERED_MAX: usize = 4096;

/// The addresses that count as one: with IPv6 a host has a whole network of 64 bits to choose from.
#[must_use]
pub fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address => address,
    }
}

/// Failed logins by user and address, and how long each answer has to wait. Whoever logs in rightly waits for nothing.
#[derive(Debug, Default)]
pub struct Failures {
    entries: BTreeMap<(String, Option<IpAddr>), Failure>,
}

#[derive(Debug)]
struct Failure {
    count: u32,
    last_ms: u64,
}

impl Failures {
    /// A login failed. Returns how long its answer has to wait, milliseconds.
    pub fn failed(&mut self, now_ms: u64, user: &str, address: Option<IpAddr>) -> u64 {
        let is_old = |it: &Failure| now_ms.saturating_sub(it.last_ms) >= MEMORY_MS;
        let key = (user.to_owned(), address);
        if self.entries.len() >= REMEMBERED_MAX && !self.entries.contains_key(&key) {
            self.entries.retain(|_, it| !is_old(it));
            let oldest = self.entries.iter().min_by_key(|(_, it)| it.last_ms);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone())
                && self.entries.len() >= REMEMBERED_MAX
            {
                self.entries.remove(&oldest);
            }
        }
        let failure = self.entries.entry(key).or_insert(Failure {
            count: 0,
            last_ms: now_ms,
        });
        if is_old(failure) {
            failure.count = 0;
        }
        let doubled = DELAY_FIRST_MS << failure.count.min(16);
        failure.count = failure.count.saturating_add(1);
        failure.last_ms = now_ms;
        doubled.min(DELAY_MAX_MS)
    }

    /// A login was right.
    pub fn succeeded(&mut self, user: &str, address: Option<IpAddr>) {
        if !self.entries.is_empty() {
            self.entries.remove(&(user.to_owned(), address));
        }
    }
}
