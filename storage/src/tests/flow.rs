//! A few messages stay for ever while all others flow through: the store stays small and writes little more
//! than its log.

use super::*;

const SEGMENT_BYTES: u64 = 1 << 20;
/// The disk's budget; ten times as much flows through.
const BUDGET_BYTES: u64 = 16 << 20;
const BODY_BYTES: usize = 1000;
const KEEP_ONE_IN: u32 = 1000;
/// What is there whatever flows: the reserve and the checkpoint file.
const FIXED_BYTES: u64 = 6 << 20;

fn text(number: u32) -> String {
    format!("{number:<BODY_BYTES$}")
}

#[test]
fn a_few_old_messages_pin_little_and_cost_little() {
    let world = SimWorld::new();
    let options = StoreOptions {
        segment_bytes: SEGMENT_BYTES,
        checkpoint_bytes: None,
        ..options()
    };
    let mut server = try_open(&world, options).expect("the store opens");
    let mut kept = Vec::new();
    let mut largest = 0.0_f64;
    let messages = (10 * BUDGET_BYTES / BODY_BYTES as u64).next_multiple_of(16);
    let mut unsettled = Vec::new();
    for number in 0..u32::try_from(messages).expect("few") {
        let (place, _) = server.publish(1, &text(number));
        if number % KEEP_ONE_IN == 0 {
            kept.push(number);
        } else {
            unsettled.push(place);
        }
        if number % 16 < 15 {
            continue;
        }
        server.work();
        for place in unsettled.drain(..) {
            server.settle(1, place);
        }
        world.advance_ms(1);
        let bound = 4 * kept.len() as u64 * BODY_BYTES as u64 + 4 * SEGMENT_BYTES + FIXED_BYTES;
        largest = largest.max(world.used_bytes() as f64 / bound as f64);
    }
    server.rest();
    assert!(largest <= 1.0, "the store was {largest:.2} of its bound");
    let status = server.store.status();
    assert!(status.batch_bytes > 10 * BUDGET_BYTES, "{status:?}");
    assert!(status.compactions > 100, "{status:?}");
    assert!(
        status.compacted_bytes * 3 < status.batch_bytes,
        "{status:?}"
    );
    let expected: Vec<String> = kept.into_iter().map(text).collect();
    assert!(server.texts(1) == expected, "what stays differs");
}
