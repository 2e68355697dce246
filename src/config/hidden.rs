//! A secret that has to be kept so that it can be used, in a form that does not meet the eye: the
//! password with which a server logs in to its peer. Whoever may read the file can undo it.

/// What the form begins with.
const MARK: &str = "$hidden$";

/// Hides a text. `seed` should be another number each time.
#[must_use]
pub fn hide(text: &str, seed: u64) -> String {
    let mut hidden = format!("{MARK}{seed:016x}");
    for byte in mask(text.as_bytes(), seed) {
        hidden.push_str(&format!("{byte:02x}"));
    }
    hidden
}

/// The text that was hidden; any other as it is.
#[must_use]
pub(super) fn reveal(text: &str) -> String {
    hidden_text(text).unwrap_or_else(|| text.to_owned())
}

fn hidden_text(text: &str) -> Option<String> {
    let rest = text.strip_prefix(MARK)?;
    let (seed, digits) = rest.split_at_checked(16)?;
    let seed = u64::from_str_radix(seed, 16).ok()?;
    let is_pairs = digits.len().is_multiple_of(2) && digits.is_ascii();
    let pairs = is_pairs.then(|| (0..digits.len()).step_by(2))?;
    let bytes: Option<Vec<u8>> = pairs
        .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
        .collect();
    String::from_utf8(mask(&bytes?, seed)).ok()
}

/// Each byte with one of a sequence that the seed begins (splitmix64).
fn mask(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed;
    let masked = bytes.iter().map(|byte| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        byte ^ (mixed >> 56) as u8
    });
    masked.collect()
}

#[cfg(test)]
mod tests {
    use super::{hide, reveal};

    #[test]
    fn what_is_hidden_is_found_again() {
        for text in ["", "mySecret", "g\u{e4}nsef\u{fc}\u{df}chen, = #"] {
            let hidden = hide(text, 0x0123_4567_89ab_cdef);
            assert!(text.is_empty() || !hidden.contains(text));
            assert_eq!(reveal(&hidden), text);
        }
        for text in [
            "plain",
            "$hidden$12",
            "$hidden$0123456789abcdefzz",
            "$hidden$0123456789abcdeff",
        ] {
            assert_eq!(reveal(text), text);
        }
    }
}
