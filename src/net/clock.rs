//! The operating system's clocks.

use nix::time::{ClockId, clock_gettime};

use crate::node::Now;

/// The present. Costs three reads of memory that the kernel shares, no system call.
pub(crate) fn now() -> Now {
    Now {
        monotonic_ms: read_ms(ClockId::CLOCK_MONOTONIC),
        boot_ms: read_ms(ClockId::CLOCK_BOOTTIME),
        wall_ms: read_ms(ClockId::CLOCK_REALTIME),
    }
}

/// Time since the machine started, sleep included. Milliseconds.
pub(crate) fn boot_ms() -> u64 {
    read_ms(ClockId::CLOCK_BOOTTIME)
}

fn read_ms(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("these clocks exist on every supported kernel");
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
    seconds * 1000 + nanoseconds / 1_000_000
}

#[cfg(test)]
mod tests {
    #[test]
    fn clocks_go_forward() {
        let first = super::now();
        let second = super::now();
        assert!(second.monotonic_ms >= first.monotonic_ms && second.boot_ms >= first.boot_ms);
        assert!(first.boot_ms > 0 && first.wall_ms > first.boot_ms);
    }
}
