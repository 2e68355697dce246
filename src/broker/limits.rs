//! The bounds of the core's memory.

/// How much the core may hold. Each bound is an ordinary case, not an error: the rest stays on disk
/// or with the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages in the window of one queue.
    pub window_messages: usize,
    /// Bytes in the window of one queue; one message may be larger.
    pub window_bytes: usize,
    /// Bytes in all windows; above it a window is only filled when it is empty.
    pub all_windows_bytes: usize,
    /// Messages that one read from the store asks for.
    pub read_messages: usize,
    /// Bytes that one read from the store asks for.
    pub read_bytes: usize,
    /// References of a queue that came back and are remembered one by one; more than these are
    /// found again by reading the queue from the first of them.
    pub returned: usize,
    /// Deliveries that one consumer may leave unsettled.
    pub unsettled_per_consumer: usize,
    /// Deliveries that all consumers together may leave unsettled.
    pub unsettled: usize,
    /// Messages that one consumer may refuse for itself alone before it gets no more.
    pub barred_per_consumer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window_messages: 4096,
            window_bytes: 4 << 20,
            all_windows_bytes: 48 << 20,
            read_messages: 1024,
            read_bytes: 1 << 20,
            returned: 4096,
            unsettled_per_consumer: 65_536,
            unsettled: 1 << 20,
            barred_per_consumer: 10_000,
        }
    }
}
