//! A browser: looks at the messages of a queue in order and leaves them there.

use std::collections::VecDeque;

use super::queue::Context;
use super::{ConsumerId, Delivery, Effect, Loaded, Message, ReadFrom, ReadRequest, Reader};

/// Bytes that a browser holds at most, unless one message is larger.
const WINDOW_BYTES: usize = 256 << 10;
/// Messages that a browser holds at most.
const WINDOW_MESSAGES: usize = 256;

#[derive(Debug)]
pub(super) struct Browser {
    id: ConsumerId,
    /// Last message that is shown: what was there when the browser came.
    up_to: u64,
    from: ReadFrom,
    reading: bool,
    end: bool,
    ready: bool,
    draining: bool,
    window: VecDeque<Message>,
}

impl Browser {
    pub(super) fn new(id: ConsumerId, up_to: u64) -> Self {
        Self {
            id,
            up_to,
            from: ReadFrom::Start,
            reading: false,
            end: false,
            ready: false,
            draining: false,
            window: VecDeque::new(),
        }
    }

    pub(super) fn set_ready(&mut self, ready: bool) {
        self.ready = ready;
    }

    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    pub(super) fn loaded(&mut self, loaded: Loaded) {
        self.reading = false;
        self.from = ReadFrom::Next;
        self.end = loaded.end;
        for message in loaded.messages {
            if message.position.lsn > self.up_to {
                self.end = true;
                break;
            }
            self.window.push_back(message);
        }
    }

    pub(super) fn next_delivery(&mut self, context: &mut Context) -> Option<Delivery> {
        if self.ready
            && let Some(message) = self.window.pop_front()
        {
            let delivery_count = u32::from(message.maybe_delivered);
            return Some(Delivery {
                consumer: self.id,
                message,
                delivery_count,
                settled: false,
            });
        }
        if self.ready && !self.end && !self.reading {
            self.reading = true;
            context.effects.push_back(Effect::Read(ReadRequest {
                reader: Reader::Browser(self.id),
                from: self.from.clone(),
                messages: WINDOW_MESSAGES,
                bytes: WINDOW_BYTES,
            }));
        }
        if self.draining && self.end && self.window.is_empty() {
            self.draining = false;
            context
                .effects
                .push_back(Effect::Drained { consumer: self.id });
        }
        None
    }
}
