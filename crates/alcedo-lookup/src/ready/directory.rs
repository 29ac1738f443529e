//! Where the blocks are, in memory: which of them may hold a key, and which holds a row.
//!
//! Flat arrays, 25 bytes per block for codes of 64 bits and 41 for wide ones. Within a part whose blocks are sorted, up
//! or down, a key's blocks are found by bisection; else every block's bounds are compared.

use std::ops::Range;

use crate::error::Error;
use crate::ready::block::{BlockNote, HAS_NULLS, HAS_VALUES};
use crate::ready::head::HeadReader;
use crate::ready::key_field::{Code, Sorted, wide_code};

/// Keys by which [`Directory::selectivity`] judges.
const SAMPLED_KEYS: usize = 16;

/// The blocks of an object.
pub(crate) struct Directory {
    parts: Box<[Part]>,
    offsets: Box<[u32]>,
    rows: Box<[u32]>,
    flags: Box<[u8]>,
    bounds: Bounds,
}

struct Part {
    /// The number in the file of its first row.
    first_row: u64,
    rows: u32,
    bytes: u32,
    /// Ordinals of its blocks in the object.
    blocks: Range<usize>,
    /// Of all its blocks together.
    flags: u8,
    /// Bounds of all its blocks together.
    min: u128,
    max: u128,
    order: Order,
    /// What all its keys start with.
    prefix: Box<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Up,
    Down,
    None,
}

/// Least and greatest code of each block.
enum Bounds {
    Word(Box<[u64]>, Box<[u64]>),
    Wide(Box<[u128]>, Box<[u128]>),
}

/// Where one block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRef {
    /// The number of its part.
    pub part: u32,
    /// Its bytes in the part.
    pub range: Range<u64>,
    /// Its ordinal in the object.
    pub(crate) block: usize,
    pub(crate) first_row: u64,
    pub(crate) rows: u32,
}

impl Directory {
    /// # Errors
    /// A damaged head.
    pub(crate) fn read(reader: &mut HeadReader<'_>) -> Result<Self, Error> {
        let most = reader.most_blocks();
        let mut notes: Vec<BlockNote> = Vec::new();
        let (mut offsets, mut rows, mut flags) =
            (Vec::with_capacity(most), Vec::with_capacity(most), Vec::with_capacity(most));
        let is_word = reader.is_word();
        let (mut words, mut wide) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        let (mut parts, mut first_row) = (Vec::new(), 0);
        for _ in 0..reader.parts() {
            notes.clear();
            let part = reader.part(&mut |block| notes.push(block))?;
            let first = offsets.len();
            let order = Order::of(&mut notes);
            offsets.extend(notes.iter().map(|block| block.offset));
            rows.extend(notes.iter().map(|block| block.first_row));
            flags.extend(notes.iter().map(|block| block.flags));
            match is_word {
                true => {
                    words.0.extend(notes.iter().map(|block| block.min as u64));
                    words.1.extend(notes.iter().map(|block| block.max as u64));
                }
                false => {
                    wide.0.extend(notes.iter().map(|block| block.min));
                    wide.1.extend(notes.iter().map(|block| block.max));
                }
            }
            let valued = || notes.iter().filter(|block| block.flags & HAS_VALUES != 0);
            parts.push(Part {
                first_row,
                rows: part.rows,
                bytes: part.bytes,
                blocks: first..first + part.blocks,
                flags: notes.iter().fold(0, |flags, block| flags | block.flags),
                min: valued().map(|block| block.min).min().unwrap_or(0),
                max: valued().map(|block| block.max).max().unwrap_or(0),
                order,
                prefix: part.prefix,
            });
            first_row += u64::from(part.rows);
        }
        let bounds = match is_word {
            true => Bounds::Word(words.0.into(), words.1.into()),
            false => Bounds::Wide(wide.0.into(), wide.1.into()),
        };
        Ok(Self { parts: parts.into(), offsets: offsets.into(), rows: rows.into(), flags: flags.into(), bounds })
    }

    /// Bytes of memory beside itself.
    pub(crate) fn weight(&self) -> usize {
        let code = match self.bounds {
            Bounds::Word(..) => size_of::<u64>(),
            Bounds::Wide(..) => size_of::<u128>(),
        };
        let parts = self.parts.iter().map(|part| size_of::<Part>() + part.prefix.len()).sum::<usize>();
        parts + self.offsets.len() * (2 * size_of::<u32>() + size_of::<u8>() + 2 * code)
    }

    pub(crate) fn blocks(&self) -> usize {
        self.offsets.len()
    }

    pub(crate) fn parts(&self) -> u32 {
        self.parts.len() as u32
    }

    /// Bytes of all parts.
    pub(crate) fn part_bytes(&self) -> u64 {
        self.parts.iter().map(|part| u64::from(part.bytes)).sum()
    }

    /// The block that holds a row of the file.
    pub(crate) fn of_row(&self, row: u64) -> Option<BlockRef> {
        let part = self.parts.partition_point(|part| part.first_row <= row).checked_sub(1)?;
        let within = &self.parts[part];
        let row = u32::try_from(row - within.first_row).ok().filter(|row| *row < within.rows)?;
        let rows = &self.rows[within.blocks.clone()];
        let block = within.blocks.start + rows.partition_point(|first| *first <= row).checked_sub(1)?;
        Some(self.reference(part, block))
    }

    fn reference(&self, part: usize, block: usize) -> BlockRef {
        let within = &self.parts[part];
        let is_last = block + 1 == within.blocks.end;
        let end = if is_last { within.bytes } else { self.offsets[block + 1] };
        let end_row = if is_last { within.rows } else { self.rows[block + 1] };
        BlockRef {
            part: part as u32,
            range: self.offsets[block].into()..end.into(),
            block,
            first_row: within.first_row + u64::from(self.rows[block]),
            rows: end_row - self.rows[block],
        }
    }

    /// The blocks that may hold a value of this code, or null, in file order.
    pub(crate) fn find<'a>(&'a self, sought: Sought<'a>) -> Blocks<'a> {
        Blocks { directory: self, sought, part: 0, blocks: 0..0, code: 0, flag: 0 }
    }

    /// How many blocks a key may be in, on average.
    pub(crate) fn selectivity(&self) -> f64 {
        let step = (self.blocks() / SAMPLED_KEYS).max(1);
        let (mut keys, mut found) = (0_u64, 0_u64);
        for block in (0..self.blocks()).step_by(step).filter(|block| self.flags[*block] & HAS_VALUES != 0) {
            let part = self.parts.partition_point(|part| part.blocks.end <= block);
            // A value in the middle of a block's: at its ends other blocks are met less often.
            found += match &self.bounds {
                Bounds::Word(min, max) => self.find(Sought::Word(min[block].midpoint(max[block]))).count() as u64,
                Bounds::Wide(min, max) => {
                    let middle = min[block].midpoint(max[block]).to_be_bytes();
                    let bytes = [&self.parts[part].prefix[..], &middle].concat();
                    self.find(Sought::Wide(Sorted::Borrowed(&bytes))).count() as u64
                }
            };
            keys += 1;
        }
        if keys == 0 { 0.0 } else { found as f64 / keys as f64 }
    }
}

impl Order {
    /// The order of a part's blocks. Those without values take on their neighbours' bounds, so that they do not disturb
    /// it; their flags tell them apart.
    fn of(blocks: &mut [BlockNote]) -> Self {
        let has_values = |block: &&BlockNote| block.flags & HAS_VALUES != 0;
        let pairs = || blocks.iter().filter(has_values).zip(blocks.iter().filter(has_values).skip(1));
        let order = if pairs().all(|(a, b)| a.min <= b.min && a.max <= b.max) {
            Self::Up
        } else if pairs().all(|(a, b)| a.min >= b.min && a.max >= b.max) {
            Self::Down
        } else {
            Self::None
        };
        let Some(first) = blocks.iter().find(has_values) else { return order };
        let mut bounds = (first.min, first.max);
        for block in blocks {
            if has_values(&&*block) {
                bounds = (block.min, block.max);
            } else {
                (block.min, block.max) = bounds;
            }
        }
        order
    }
}

/// What is looked for.
pub(crate) enum Sought<'a> {
    Null,
    Word(u64),
    /// A value as it sorts.
    Wide(Sorted<'a>),
    Nothing,
}

impl<'a> From<Option<Code<'a>>> for Sought<'a> {
    fn from(code: Option<Code<'a>>) -> Self {
        match code {
            Some(Code::Word(word)) => Self::Word(word),
            Some(Code::Wide(sorted)) => Self::Wide(sorted),
            None => Self::Nothing,
        }
    }
}

/// The blocks that may hold a key.
pub(crate) struct Blocks<'a> {
    directory: &'a Directory,
    sought: Sought<'a>,
    /// The part after the one that `blocks` are of.
    part: usize,
    /// Blocks that are left of the part.
    blocks: Range<usize>,
    /// What is looked for in this part.
    code: u128,
    /// What a block must hold.
    flag: u8,
}

impl Blocks<'_> {
    /// Goes on to the next part that may hold the key.
    fn next_part(&mut self) -> Option<()> {
        loop {
            let part = self.directory.parts.get(self.part)?;
            self.part += 1;
            self.flag = HAS_VALUES;
            self.code = match &self.sought {
                Sought::Nothing => return None,
                Sought::Null => {
                    self.flag = HAS_NULLS;
                    if part.flags & HAS_NULLS != 0 {
                        self.blocks = part.blocks.clone();
                        return Some(());
                    }
                    continue;
                }
                Sought::Word(word) => (*word).into(),
                Sought::Wide(sorted) => match sorted.bytes().strip_prefix(&*part.prefix) {
                    Some(rest) => wide_code(rest),
                    None => continue,
                },
            };
            if part.flags & HAS_VALUES == 0 || self.code < part.min || self.code > part.max {
                continue;
            }
            self.blocks = match &self.directory.bounds {
                Bounds::Word(min, max) => cut(min, max, part, self.code as u64),
                Bounds::Wide(min, max) => cut(min, max, part, self.code),
            };
            return Some(());
        }
    }

    fn may_hold(&self, block: usize) -> bool {
        if self.directory.flags[block] & self.flag == 0 {
            return false;
        }
        self.flag == HAS_NULLS
            || match &self.directory.bounds {
                Bounds::Word(min, max) => (min[block]..=max[block]).contains(&(self.code as u64)),
                Bounds::Wide(min, max) => (min[block]..=max[block]).contains(&self.code),
            }
    }
}

/// The blocks of a part that may hold a code, as far as their order tells.
fn cut<C: Copy + Ord>(min: &[C], max: &[C], part: &Part, code: C) -> Range<usize> {
    let (start, blocks) = (part.blocks.start, part.blocks.clone());
    let (min, max) = (&min[blocks.clone()], &max[blocks.clone()]);
    match part.order {
        Order::Up => {
            let first = max.partition_point(|max| *max < code);
            start + first..start + min.partition_point(|min| *min <= code).max(first)
        }
        Order::Down => {
            let first = min.partition_point(|min| *min > code);
            start + first..start + max.partition_point(|max| *max >= code).max(first)
        }
        Order::None => blocks,
    }
}

impl Iterator for Blocks<'_> {
    type Item = BlockRef;

    fn next(&mut self) -> Option<BlockRef> {
        loop {
            while let Some(block) = self.blocks.next() {
                if self.may_hold(block) {
                    return Some(self.directory.reference(self.part - 1, block));
                }
            }
            self.next_part()?;
        }
    }
}
