//! Any target of `steadfast-fuzz` under libFuzzer; `STEADFAST_FUZZ_TARGET` names it.
//!
//! Without instrumentation (any toolchain): `STEADFAST_FUZZ_TARGET=batch cargo run --release`.
//! With coverage and the address sanitizer, in this folder:
//! `STEADFAST_FUZZ_TARGET=batch cargo +nightly fuzz run --fuzz-dir . target ../corpus/batch`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use steadfast_fuzz::{Target, targets};

static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("STEADFAST_FUZZ_TARGET").unwrap_or_default();
    let all = targets();
    let names: Vec<&str> = all.iter().map(|target| target.name).collect();
    let chosen = all.iter().find(|target| target.name == name);
    *chosen.unwrap_or_else(|| panic!("STEADFAST_FUZZ_TARGET is none of {names:?}"))
});

fuzz_target!(|input: &[u8]| (CHOSEN.feed)(input));
