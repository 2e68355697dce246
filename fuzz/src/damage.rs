//! Ways in which bytes go bad.

/// Damages bytes in one to four places: flips, garbage, zeros, cuts, copies.
pub(crate) fn damage(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..5) {
        if bytes.is_empty() {
            return;
        }
        let at = random.usize(..bytes.len());
        let len = random.usize(1..=64).min(bytes.len() - at);
        match random.u8(0..7) {
            0 | 1 => bytes[at] ^= 1 << random.u8(0..8),
            2 => bytes[at..at + len].fill_with(|| random.u8(..)),
            3 => bytes[at..at + len].fill(0),
            4 => bytes.truncate(at),
            5 => {
                let copy = bytes[at..at + len].to_vec();
                let to = random.usize(..=bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.usize(0..5)],
        }
    }
}

/// Bytes without any structure.
pub(crate) fn noise(random: &mut fastrand::Rng) -> Vec<u8> {
    (0..random.usize(0..600)).map(|_| random.u8(..)).collect()
}
