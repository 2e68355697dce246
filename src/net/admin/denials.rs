//! How many denied commands are logged: whoever may connect can send as many as he likes, and is not to fill the disk.

/// Lines for denied commands in one second.
const LINES_MAX: u32 = 20;
/// Length of that second, milliseconds.
const PERIOD_MS: u64 = 1_000;

/// The lines of the current second.
#[derive(Debug, Default)]
pub(super) struct Denials {
    begun_ms: u64,
    lines: u32,
    not_logged: u64,
}

impl Denials {
    /// A command was denied. `None`: it is not to be logged; else how many were not since the last line.
    pub(super) fn log(&mut self, now_ms: u64) -> Option<u64> {
        if now_ms.saturating_sub(self.begun_ms) >= PERIOD_MS {
            (self.begun_ms, self.lines) = (now_ms, 0);
        }
        if self.lines >= LINES_MAX {
            self.not_logged += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.not_logged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_denied_commands_leaves_some_lines_a_second_and_their_number() {
        let mut denials = Denials::default();
        let logged = (0..100).filter_map(|_| denials.log(500)).count();
        assert_eq!(logged, LINES_MAX as usize);
        assert_eq!(denials.log(999), None);
        assert_eq!(denials.log(1_000), Some(81));
        assert_eq!(denials.log(1_001), Some(0));
    }
}
