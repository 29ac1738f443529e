//! A snappy block inflated from its start, as far as it is needed and no further.
//!
//! A lookup reads one value of a data page of thousands, so on average half of a page's inflating is for nothing, and
//! the library inflates whole blocks only. This decoder stops behind the last byte that somebody needs and goes on from
//! there when it turns out that more are. It knows the block format
//! (<https://github.com/google/snappy/blob/main/format_description.txt>) and no framing, and it puts nothing in words:
//! what it cannot read is inflated again by [`codec`](crate::codec), which says what is wrong.
//!
//! Input is hostile: every length and offset is checked against what is there, and what was produced is never more than
//! the declared size. Damage behind the last byte that was asked for is not seen.

/// A literal or a copy of at most so many bytes is moved at once.
const WORD_BYTES: usize = 16;
const HALF_WORD: usize = 8;
/// Bytes that the longest copy may touch: 64 of its own, and what moving words at a time writes behind them.
const COPY_ROOM: usize = 64 + WORD_BYTES;
/// Literals longer than this have their length in the bytes behind the tag.
const SHORT_LITERAL: usize = 60;
/// A declared size has at most so many bytes.
const MAX_SIZE_BYTES: usize = 5;

/// This decoder takes longer than the library, which moves words unchecked, by this part of its time.
const SLOWER: usize = 4;

/// By tag of a copy: its length in the low byte, the high part of its offset in the three bits above that, and how many
/// bytes of offset follow in the bits above these.
const COPIES: [u16; 256] = {
    let mut copies = [0; 256];
    let mut tag = 0;
    while tag < copies.len() {
        let (high, length) = (tag as u16 >> 5, tag as u16 >> 2);
        copies[tag] = match tag & 3 {
            1 => 1 << 11 | high << 8 | ((length & 7) + 4),
            2 => 2 << 11 | (length + 1),
            3 => 4 << 11 | (length + 1),
            _ => 0,
        };
        tag += 1;
    }
    copies
};

/// The bits of so many little-endian bytes.
const BYTES_MASK: [usize; 5] = [0, 0xff, 0xffff, 0xff_ffff, 0xffff_ffff];

/// A block that is being inflated.
pub(crate) struct SnappyPrefix<'i, 'o> {
    input: &'i [u8],
    /// The next byte of the input.
    at: usize,
    /// As long as the block declares to be.
    output: &'o mut [u8],
    /// Bytes of it that are there.
    done: usize,
    /// Bytes of the literal at `at` that were not needed yet.
    literal: usize,
}

impl<'i, 'o> SnappyPrefix<'i, 'o> {
    /// Whether the input starts as a block of so many bytes does.
    pub(crate) fn is_block_of(input: &[u8], bytes: usize) -> bool {
        size(input).is_some_and(|(size, _)| size == bytes as u64)
    }

    /// Inflates a block of as many bytes as the output has, see [`SnappyPrefix::is_block_of`].
    pub(crate) fn new(input: &'i [u8], output: &'o mut [u8]) -> Self {
        let at = size(input).map_or(input.len(), |(_, at)| at);
        Self { input, at, output, done: 0, literal: 0 }
    }

    /// Bytes of the whole block.
    pub(crate) fn len(&self) -> usize {
        self.output.len()
    }

    /// The bytes that were inflated so far.
    pub(crate) fn there(&self) -> &[u8] {
        &self.output[..self.done]
    }

    /// The block's first bytes, at least `need` of them; none where the input is damaged before their end. Nothing may
    /// follow the whole block.
    pub(crate) fn first(&mut self, need: usize) -> Option<&[u8]> {
        if self.done < need {
            if need > self.output.len() {
                return None;
            }
            let left = need - self.done;
            let is_done = if left + left / SLOWER >= self.output.len() { self.all() } else { self.go_on(need) };
            if is_done.is_none() {
                // Behind damage there is no next tag.
                (self.at, self.literal) = (self.input.len(), 0);
                return None;
            }
        }
        let is_followed = self.done == self.output.len() && self.at < self.input.len();
        (!is_followed).then(|| self.there())
    }

    /// Leaves the whole block to the library.
    fn all(&mut self) -> Option<()> {
        snap::raw::Decoder::new().decompress(self.input, self.output).ok()?;
        (self.at, self.done, self.literal) = (self.input.len(), self.output.len(), 0);
        Some(())
    }

    fn go_on(&mut self, need: usize) -> Option<()> {
        self.take_literal(need)?;
        while self.done < need {
            let tag = *self.input.get(self.at)?;
            self.at += 1;
            if tag & 3 == 0 {
                self.literal(tag, need)?;
            } else {
                self.copy(tag)?;
            }
        }
        Some(())
    }

    #[inline(always)]
    fn literal(&mut self, tag: u8, need: usize) -> Option<()> {
        let mut length = usize::from(tag >> 2) + 1;
        if length <= WORD_BYTES
            && let Some(from) = self.input.get(self.at..).and_then(|rest| rest.first_chunk::<WORD_BYTES>())
            && let Some(to) = self.output.get_mut(self.done..).and_then(|rest| rest.first_chunk_mut::<WORD_BYTES>())
        {
            *to = *from;
            self.at += length;
            self.done += length;
            return Some(());
        }
        if length > SHORT_LITERAL {
            length = self.number(length - SHORT_LITERAL)?.checked_add(1)?;
        }
        let is_there = length <= self.input.len() - self.at && length <= self.output.len() - self.done;
        self.literal = is_there.then_some(length)?;
        self.take_literal(need)
    }

    /// Takes of the literal that was begun what is needed.
    fn take_literal(&mut self, need: usize) -> Option<()> {
        let length = self.literal.min(need.saturating_sub(self.done));
        let from = self.input.get(self.at..self.at + length)?;
        self.output.get_mut(self.done..self.done + length)?.copy_from_slice(from);
        self.at += length;
        self.done += length;
        self.literal -= length;
        Some(())
    }

    #[inline(always)]
    fn copy(&mut self, tag: u8) -> Option<()> {
        let entry = usize::from(COPIES[usize::from(tag)]);
        let (length, bytes) = (entry & 0xff, entry >> 11);
        let low = match self.input.get(self.at..).and_then(|rest| rest.first_chunk::<4>()) {
            Some(word) => {
                self.at += bytes;
                u32::from_le_bytes(*word) as usize & BYTES_MASK[bytes]
            }
            None => self.number(bytes)?,
        };
        let offset = entry & 0x700 | low;
        if offset == 0 || offset > self.done {
            return None;
        }
        let from = self.done - offset;
        match self.output.get_mut(from..self.done + COPY_ROOM) {
            Some(window) => copy_within(window, offset, length)?,
            None => {
                let window = self.output.get_mut(from..self.done + length)?;
                (0..length).for_each(|i| window[offset + i] = window[i]);
            }
        }
        self.done += length;
        Some(())
    }

    /// Takes a little-endian number of so many bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        let number = self.input.get(self.at..self.at + bytes)?;
        self.at += bytes;
        Some(number.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }
}

/// The size that a block declares, and where it goes on behind that.
fn size(input: &[u8]) -> Option<(u64, usize)> {
    let mut size = 0_u64;
    for (i, byte) in input.iter().enumerate().take(MAX_SIZE_BYTES) {
        size |= u64::from(byte & 0x7f) << (7 * i);
        if *byte < 0x80 {
            return Some((size, i + 1));
        }
    }
    None
}

/// Repeats the first bytes of a window from `offset` on, so many; they may be among what is repeated. There is room for
/// [`COPY_ROOM`] bytes, and what is behind the copy becomes anything.
#[inline(always)]
fn copy_within(window: &mut [u8], offset: usize, length: usize) -> Option<()> {
    if offset >= HALF_WORD && length <= WORD_BYTES {
        move_word::<HALF_WORD>(window, 0, offset)?;
        return move_word::<HALF_WORD>(window, HALF_WORD, offset + HALF_WORD);
    }
    let end = offset + length;
    if offset >= WORD_BYTES {
        return (offset..end).step_by(WORD_BYTES).try_for_each(|to| move_word::<WORD_BYTES>(window, to - offset, to));
    }
    // What repeats after few bytes repeats after a multiple of them as well, from which on half words do not overlap.
    let distance = offset * HALF_WORD.div_ceil(offset);
    (offset..distance).for_each(|to| window[to] = window[to - offset]);
    let start = distance.max(offset);
    (start..end).step_by(HALF_WORD).try_for_each(|to| move_word::<HALF_WORD>(window, to - distance, to))
}

#[inline(always)]
fn move_word<const N: usize>(window: &mut [u8], from: usize, to: usize) -> Option<()> {
    let word = *window.get(from..)?.first_chunk::<N>()?;
    *window.get_mut(to..)?.first_chunk_mut::<N>()? = word;
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What a block is made of.
    #[derive(Debug, Clone)]
    enum Element {
        /// How many bytes say its length, and its bytes.
        Literal(usize, Vec<u8>),
        /// How many bytes say its offset, which is cut to what is there, and its length.
        Copy(usize, usize, usize),
    }

    fn element() -> impl Strategy<Value = Element> {
        let literal = (0..5_usize, vec(any::<u8>(), 1..100)).prop_map(|(bytes, literal)| {
            let bytes = if literal.len() > SHORT_LITERAL { bytes.max(1) } else { bytes };
            Element::Literal(bytes, literal)
        });
        let offset = prop_oneof![1..20_usize, 1..3_000_usize];
        let copy = (0..3_usize, offset, 1..65_usize).prop_map(|(kind, offset, length)| match kind {
            0 => Element::Copy(1, offset.min(2_047), 4 + length % 8),
            1 => Element::Copy(2, offset, length),
            _ => Element::Copy(4, offset, length),
        });
        prop_oneof![1 => literal, 3 => copy]
    }

    /// A block of these elements; it says that it is `more` bytes longer than it is.
    fn block(elements: &[Element], more: usize) -> Vec<u8> {
        let (mut body, mut size) = (Vec::new(), 0);
        for element in elements {
            match element {
                Element::Literal(bytes, literal) => {
                    let length = literal.len() - 1;
                    body.push(if *bytes == 0 { length << 2 } else { (SHORT_LITERAL - 1 + bytes) << 2 } as u8);
                    body.extend_from_slice(&(length as u32).to_le_bytes()[..*bytes]);
                    body.extend_from_slice(literal);
                    size += literal.len();
                }
                Element::Copy(..) if size == 0 => {}
                Element::Copy(bytes, offset, length) => {
                    let offset = (*offset).min(size);
                    match bytes {
                        1 => body.extend([((offset >> 8) << 5 | (length - 4) << 2 | 1) as u8, offset as u8]),
                        2 => body.push(((length - 1) << 2 | 2) as u8),
                        _ => body.push(((length - 1) << 2 | 3) as u8),
                    }
                    if *bytes > 1 {
                        body.extend_from_slice(&(offset as u32).to_le_bytes()[..*bytes]);
                    }
                    size += length;
                }
            }
        }
        let mut input = Vec::new();
        crate::rows::write_uvarint(&mut input, (size + more) as u64);
        input.extend(body);
        input
    }

    /// The block as far as it can be read byte by byte, and whether that is all of it.
    fn slowly(input: &[u8], size: usize) -> (Vec<u8>, bool) {
        let mut output = Vec::new();
        let read = |output: &mut Vec<u8>| -> Option<()> {
            let mut at = super::size(input)?.1;
            while at < input.len() {
                let tag = usize::from(input[at]);
                let number = |from: usize, bytes: usize| {
                    let bytes = input.get(from..from + bytes)?;
                    Some(bytes.iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte)))
                };
                let (offset, length, next) = match (tag & 3, tag >> 2) {
                    (0, long) if long >= SHORT_LITERAL => {
                        let bytes = long - SHORT_LITERAL + 1;
                        (0, number(at + 1, bytes)? + 1, at + 1 + bytes)
                    }
                    (0, length) => (0, length + 1, at + 1),
                    (1, rest) => (number(at + 1, 1)? | (tag >> 5) << 8, (rest & 7) + 4, at + 2),
                    (2, rest) => (number(at + 1, 2)?, rest + 1, at + 3),
                    (_, rest) => (number(at + 1, 4)?, rest + 1, at + 5),
                };
                if tag & 3 == 0 {
                    let literal = input.get(next..next + length).filter(|_| output.len() + length <= size)?;
                    output.extend_from_slice(literal);
                    at = next + length;
                    continue;
                }
                if offset == 0 || offset > output.len() || output.len() + length > size {
                    return None;
                }
                (0..length).for_each(|_| output.push(output[output.len() - offset]));
                at = next;
            }
            (output.len() == size).then_some(())
        };
        let is_whole = read(&mut output).is_some();
        (output, is_whole)
    }

    /// Every prefix, by itself and one after the other, is what byte by byte and the library say.
    fn check(input: &[u8]) {
        let Some((size, _)) = size(input).filter(|(size, _)| *size <= 1 << 20) else { return };
        let size = size as usize;
        let (expected, is_whole) = slowly(input, size);
        let by_library = snap::raw::Decoder::new().decompress_vec(input);
        assert_eq!(by_library.as_ref().ok(), Some(&expected).filter(|_| is_whole && !input.is_empty()));
        assert!(SnappyPrefix::is_block_of(input, size) && !SnappyPrefix::is_block_of(input, size + 1));
        let has = |block: &mut SnappyPrefix<'_, '_>, need: usize| {
            let is_there = if need == size { is_whole } else { need <= expected.len() };
            let first = block.first(need).map(<[u8]>::len);
            // Damage behind it may have come along.
            assert!(first.is_some() == is_there || (is_there && !is_whole), "{need} of {size}");
            assert!(first.is_none_or(|first| first >= need && first == block.done), "{need} of {size}");
            assert!(expected.starts_with(block.there()), "{need} of {size}");
        };
        let mut room = vec![0xaa; size];
        let mut staged = SnappyPrefix::new(input, &mut room);
        (0..=size + 1).for_each(|need| has(&mut staged, need));
        let mut room = vec![0x55; size];
        for need in 0..=size + 1 {
            has(&mut SnappyPrefix::new(input, &mut room), need);
            let mut twice = SnappyPrefix::new(input, &mut room);
            has(&mut twice, need / 3);
            has(&mut twice, need);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn every_prefix_is_that_of_the_whole_block(elements in vec(element(), 0..40)) {
            check(&block(&elements, 0));
        }

        #[test]
        fn damage_is_found_before_what_it_would_give(
            elements in vec(element(), 1..20),
            more in 0..3_usize,
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
            is_cut in any::<bool>(),
        ) {
            let mut input = block(&elements, more);
            for (at, byte) in changes {
                let at = at.index(input.len());
                input[at] = byte;
            }
            if is_cut {
                input.truncate(cut.index(input.len()));
            }
            check(&input);
        }

        #[test]
        fn what_the_library_packs_is_unpacked(seed in any::<u64>(), kind in 0..4_u8, length in 0..3_000_usize) {
            let mixed = |i: usize| (seed ^ i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let plain: Vec<u8> = (0..length).map(|i| match kind {
                0 => (mixed(i) & 0xff) as u8,
                1 => (((i / 8) as u64 * 3 + seed).to_le_bytes())[i % 8],
                2 => b"amber birch copper delta"[(i + mixed(i / 40) as usize) % 24],
                _ => (mixed(i / 300) & 3) as u8,
            }).collect();
            check(&snap::raw::Encoder::new().compress_vec(&plain).unwrap());
        }
    }

    #[test]
    fn a_literal_is_taken_in_parts_and_a_block_of_nothing_is_whole() {
        let plain: Vec<u8> = (0..200_000_u32).flat_map(|i| (i.wrapping_mul(0x9e37_79b9) >> 7).to_le_bytes()).collect();
        let input = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        let mut room = vec![0; plain.len()];
        let mut block = SnappyPrefix::new(&input, &mut room);
        for need in [0, 1, 1, 2, 60, 1_000, 65_535, 65_536, 65_537, 700_000, 10, plain.len()] {
            let first = block.first(need).unwrap();
            assert!(first.len() >= need && plain.starts_with(first), "{need}");
        }
        assert_eq!((block.done, block.at), (block.len(), input.len()));
        assert_eq!(SnappyPrefix::new(&[0], &mut []).first(0), Some(&[][..]));
        assert_eq!(SnappyPrefix::new(&[0, 0], &mut []).first(0), None);
        assert!(!SnappyPrefix::is_block_of(&[], 0) && !SnappyPrefix::is_block_of(&[0x80; 9], 0));
    }
}
