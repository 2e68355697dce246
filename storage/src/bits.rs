//! Which references of a segment have left their queues: one bit each, in chunks.

use std::sync::Arc;

/// References in one chunk. Two of them, with their keys, fill a page of the checkpoint file; of chunks of 2 KiB only
/// one fits.
pub(crate) const CHUNK_REFERENCES: u32 = 16_128;
const WORDS: usize = CHUNK_REFERENCES as usize / 64;
/// Bytes of an encoded chunk.
pub(crate) const CHUNK_BYTES: usize = WORDS * 8;

/// The bits of a chunk.
pub(crate) type ChunkWords = Arc<[u64; WORDS]>;

#[derive(Clone, Debug, Default)]
struct Chunk {
    set: u32,
    /// Present while some but not all bits are set. Shared with readers, copied on write.
    words: Option<ChunkWords>,
}

/// The settled references of one segment. Cloning shares the chunks.
#[derive(Clone, Debug, Default)]
pub(crate) struct SettledBits {
    chunks: Vec<Chunk>,
}

impl SettledBits {
    pub(crate) fn is_set(&self, ordinal: u32) -> bool {
        let (chunk, bit) = (ordinal / CHUNK_REFERENCES, ordinal % CHUNK_REFERENCES);
        let Some(chunk) = self.chunks.get(chunk as usize) else {
            return false;
        };
        match &chunk.words {
            Some(words) => words
                .get(bit as usize / 64)
                .is_some_and(|word| word & (1 << (bit % 64)) != 0),
            None => chunk.set == CHUNK_REFERENCES,
        }
    }

    /// Sets one bit; `false` when it was set already.
    pub(crate) fn set(&mut self, ordinal: u32) -> bool {
        let (at, bit) = (
            (ordinal / CHUNK_REFERENCES) as usize,
            ordinal % CHUNK_REFERENCES,
        );
        if self.chunks.len() <= at {
            self.chunks.resize_with(at + 1, Chunk::default);
        }
        let Some(chunk) = self.chunks.get_mut(at) else {
            return false;
        };
        if chunk.set == CHUNK_REFERENCES {
            return false;
        }
        let words = chunk.words.get_or_insert_with(|| Arc::new([0; WORDS]));
        let Some(word) = Arc::make_mut(words).get_mut(bit as usize / 64) else {
            return false;
        };
        let mask = 1 << (bit % 64);
        if *word & mask != 0 {
            return false;
        }
        *word |= mask;
        chunk.set += 1;
        if chunk.set == CHUNK_REFERENCES {
            chunk.words = None;
        }
        true
    }

    /// Set bits of each chunk, which tells what chunks an encoded form must have.
    pub(crate) fn counts(&self) -> Vec<u32> {
        self.chunks.iter().map(|chunk| chunk.set).collect()
    }

    /// The bytes of a chunk that is neither empty nor full.
    pub(crate) fn encode_chunk(&self, at: u32) -> Option<Vec<u8>> {
        let words = self.chunks.get(at as usize)?.words.as_ref()?;
        Some(words.iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    /// Rebuilds from counts and a source of chunks; `None` when they do not agree.
    pub(crate) fn decode(
        counts: &[u32],
        mut words_of: impl FnMut(u32) -> Option<ChunkWords>,
    ) -> Option<Self> {
        let mut chunks = Vec::with_capacity(counts.len());
        for (at, set) in (0..).zip(counts.iter().copied()) {
            let words = match set {
                0 | CHUNK_REFERENCES => None,
                1..CHUNK_REFERENCES => Some(words_of(at).filter(|words| count(words) == set)?),
                _ => return None,
            };
            chunks.push(Chunk { set, words });
        }
        Some(Self { chunks })
    }
}

/// Reads the bytes of a chunk.
pub(crate) fn decode_words(bytes: &[u8]) -> Option<ChunkWords> {
    if bytes.len() != CHUNK_BYTES {
        return None;
    }
    let mut words = [0; WORDS];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().ok()?);
    }
    Some(Arc::new(words))
}

fn count(words: &ChunkWords) -> u32 {
    words.iter().map(|word| word.count_ones()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_survive_encoding_and_full_chunks_need_no_bytes() {
        let mut bits = SettledBits::default();
        for ordinal in (0..CHUNK_REFERENCES).chain([CHUNK_REFERENCES + 5, 3 * CHUNK_REFERENCES]) {
            assert!(bits.set(ordinal));
            assert!(!bits.set(ordinal), "set twice");
        }
        let counts = bits.counts();
        assert_eq!(counts, [CHUNK_REFERENCES, 1, 0, 1]);
        let copy =
            SettledBits::decode(&counts, |at| decode_words(&bits.encode_chunk(at)?)).unwrap();
        for ordinal in [
            0,
            5,
            CHUNK_REFERENCES,
            CHUNK_REFERENCES + 5,
            3 * CHUNK_REFERENCES,
            1 << 20,
        ] {
            assert_eq!(copy.is_set(ordinal), bits.is_set(ordinal), "{ordinal}");
        }
        let flipped = SettledBits::decode(&counts, |at| {
            let mut bytes = bits.encode_chunk(at)?;
            bytes[7] ^= 1;
            decode_words(&bytes)
        });
        assert!(flipped.is_none(), "a count that does not agree is refused");
    }

    #[test]
    fn a_reader_keeps_what_it_saw() {
        let mut bits = SettledBits::default();
        bits.set(1);
        let seen = bits.clone();
        bits.set(2);
        assert!(seen.is_set(1) && !seen.is_set(2) && bits.is_set(2));
    }
}
