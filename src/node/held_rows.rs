//! The rows that say what clients have of queues.
//!
//! ```text
//! kind 6 held   key: queue u32, client u64, part u8   value: messages that the client has not settled
//! ```
//!
//! A value: version = 1, then numbers of 7 bits a byte, the last one below 128: how many messages (all of
//! them in part 0), then for each run the distance of its first number from the last one of the run
//! before, twice its further length, plus 1 if a delivery count follows, which is 0 otherwise.

use crate::broker::{ClientId, HeldRun, Holding, QueueId};

use super::records::{parse_long, parse_word};

/// Row kind: messages of a queue that a client has not settled.
pub(crate) const KIND_HELD: u16 = 6;

const HELD_VERSION: u8 = 1;
/// Bytes of a held row at most; the store takes 3 KiB.
const HELD_BYTES_MAX: usize = 3000;
/// Rows at most for one queue and client.
const HELD_PARTS_MAX: usize = 8;
/// A run takes so many bytes at most.
const RUN_BYTES_MAX: usize = 25;

/// What a client has of a queue, as the values of its rows; whether that is all.
pub(crate) fn encode_held(holding: &Holding) -> (Vec<Vec<u8>>, bool) {
    let begin = |messages: u64| {
        let mut part = vec![HELD_VERSION];
        put_number(&mut part, messages);
        part
    };
    let mut parts = Vec::new();
    let mut part = begin(holding.messages);
    let mut last = 0;
    for run in &holding.runs {
        if part.len() + RUN_BYTES_MAX > HELD_BYTES_MAX {
            parts.push(std::mem::replace(&mut part, begin(0)));
            last = 0;
            if parts.len() == HELD_PARTS_MAX {
                return (parts, false);
            }
        }
        put_number(&mut part, run.first - last);
        put_number(
            &mut part,
            (run.last - run.first) << 1 | u64::from(run.count > 0),
        );
        if run.count > 0 {
            put_number(&mut part, run.count.into());
        }
        last = run.last;
    }
    parts.push(part);
    (parts, true)
}

/// What a client has of a queue from the values of its rows; `None` if this version cannot read one.
pub(crate) fn decode_held(client: ClientId, parts: &[Vec<u8>]) -> Option<Holding> {
    let mut holding = Holding {
        client,
        messages: 0,
        runs: Vec::new(),
    };
    for part in parts {
        let (&version, mut rest) = part.split_first()?;
        if version != HELD_VERSION {
            return None;
        }
        holding.messages = holding.messages.checked_add(take_number(&mut rest)?)?;
        let mut last = 0_u64;
        while !rest.is_empty() {
            let first = last.checked_add(take_number(&mut rest)?)?;
            let length = take_number(&mut rest)?;
            last = first.checked_add(length >> 1)?;
            let count = match length & 1 {
                0 => 0,
                _ => u32::try_from(take_number(&mut rest)?).ok()?,
            };
            holding.runs.push(HeldRun { first, last, count });
        }
    }
    Some(holding)
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Key of a row with messages that a client has.
pub(crate) fn held_key(queue: QueueId, client: ClientId, part: usize) -> [u8; 13] {
    let mut key = [0; 13];
    key[..4].copy_from_slice(&queue.0.to_le_bytes());
    key[4..12].copy_from_slice(&client.0.to_le_bytes());
    key[12] = u8::try_from(part).unwrap_or(u8::MAX);
    key
}

/// Queue, client and part from such a key.
pub(crate) fn parse_held_key(key: &[u8]) -> Option<(QueueId, ClientId, u8)> {
    let key: &[u8; 13] = key.try_into().ok()?;
    let (queue, client) = (parse_word(&key[..4])?, parse_long(&key[4..12])?);
    Some((QueueId(queue), ClientId(client), key[12]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_the_store() {
        let (queue, client) = (QueueId(7), ClientId(1 << 40));
        let key = held_key(queue, client, 3);
        assert_eq!(parse_held_key(&key), Some((queue, client, 3)));
        assert_eq!(parse_held_key(&key[1..]), None);
    }

    fn holding(runs: Vec<HeldRun>) -> Holding {
        Holding {
            client: ClientId(3),
            messages: runs.iter().map(|run| run.last - run.first + 1).sum(),
            runs,
        }
    }

    #[test]
    fn held_messages_survive_the_store() {
        let run = |first, last, count| HeldRun { first, last, count };
        let few = holding(vec![
            run(5, 5, 0),
            run(6, 6, 2),
            run(1 << 50, (1 << 50) + 9, 0),
        ]);
        let (parts, is_whole) = encode_held(&few);
        assert_eq!((parts.len(), parts[0].len(), is_whole), (1, 16, true));
        assert_eq!(decode_held(few.client, &parts), Some(few));
        // In several rows, as far as there may be some.
        let many = |runs: u64| holding((1..=runs).map(|it| run(it * 3, it * 3, 1)).collect());
        let (parts, is_whole) = encode_held(&many(7_000));
        assert!(is_whole && parts.len() > 6, "{}", parts.len());
        assert!(parts.iter().all(|part| part.len() <= HELD_BYTES_MAX));
        assert_eq!(decode_held(ClientId(3), &parts), Some(many(7_000)));
        let (parts, is_whole) = encode_held(&many(20_000));
        assert_eq!((parts.len(), is_whole), (HELD_PARTS_MAX, false));
        let kept = decode_held(ClientId(3), &parts).map(|it| it.runs.len());
        assert!(kept.is_some_and(|kept| kept > 7_000), "{kept:?}");
    }

    #[test]
    fn a_held_row_that_is_no_such_row_is_refused() {
        for bytes in [
            &[][..],
            &[2],
            &[1],
            &[1, 0x80],
            &[1, 1, 5],
            &[1, 1, 5, 1],
            &[1; 2_999],
        ] {
            let parts = [bytes.to_vec()];
            let found = decode_held(ClientId(1), &parts);
            assert_eq!(found.is_none(), bytes != [1; 2_999], "{bytes:?}");
        }
        let endless = [vec![
            1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
        ]];
        assert_eq!(decode_held(ClientId(1), &endless), None);
    }
}
