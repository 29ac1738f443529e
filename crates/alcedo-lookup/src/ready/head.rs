//! The head of lookup-ready rows as bytes: what is stored, and where each block is.
//!
//! Layout, version 1; numbers are little-endian: magic `ALREADY1`; rows of the file (8 bytes); fingerprint of the
//! columns (8); ordinal of the key's leaf (4); number of columns (4), then each as its ordinal doubled, plus 1 for a
//! leaf inside structs (4); width of codes, 8 or 16 (1); number of parts (4), then each as its bytes (4), rows (4),
//! blocks (4), length of the keys' common prefix (1) and that prefix, and per block: offset (4), first row in the part
//! (4), flags (1), least and greatest code (8 or 16 each); CRC-32C of all before it (4). Bytes read back are hostile:
//! every count is compared with the bytes that are left before anything is reserved, and every place with its part.

use crate::derived::PART_BYTES;
use crate::error::Error;
use crate::ready::block::{BlockNote, HAS_NULLS, HAS_VALUES, MAX_PREFIX_BYTES, PackedPart};
use crate::schema_tree::Named;

/// Format and version: another layout is another magic.
const MAGIC: &[u8; 8] = b"ALREADY1";
const CHECKSUM_BYTES: usize = 4;
/// Bytes of a part without prefix and blocks, and of a block's offset, first row and flags.
const PART_HEAD_BYTES: usize = 13;
const BLOCK_HEAD_BYTES: usize = 9;

/// A head in the making: parts are added as they are made.
pub(crate) struct HeadWriter {
    code_bytes: usize,
    parts: u32,
    bytes: Vec<u8>,
}

impl HeadWriter {
    pub(crate) fn new(is_word: bool) -> Self {
        Self { code_bytes: if is_word { 8 } else { 16 }, parts: 0, bytes: Vec::new() }
    }

    /// The number of the part that is added next.
    pub(crate) fn parts(&self) -> u32 {
        self.parts
    }

    pub(crate) fn add(&mut self, part: &PackedPart) {
        self.parts += 1;
        for number in [part.bytes.len() as u32, part.rows, part.blocks.len() as u32] {
            self.bytes.extend(number.to_le_bytes());
        }
        self.bytes.push(part.prefix.len() as u8);
        self.bytes.extend(&part.prefix);
        for block in &part.blocks {
            self.bytes.extend(block.offset.to_le_bytes());
            self.bytes.extend(block.first_row.to_le_bytes());
            self.bytes.push(block.flags);
            self.bytes.extend(&block.min.to_le_bytes()[..self.code_bytes]);
            self.bytes.extend(&block.max.to_le_bytes()[..self.code_bytes]);
        }
    }

    pub(crate) fn finish(&self, what: &Stored) -> Vec<u8> {
        let mut head = MAGIC.to_vec();
        head.extend(what.rows.to_le_bytes());
        head.extend(what.fingerprint.to_le_bytes());
        head.extend(what.key.to_le_bytes());
        head.extend((what.columns.len() as u32).to_le_bytes());
        for named in &what.columns {
            let code = match named {
                Named::Root(root) => *root as u32 * 2,
                Named::Leaf(leaf) => *leaf as u32 * 2 + 1,
            };
            head.extend(code.to_le_bytes());
        }
        head.push(self.code_bytes as u8);
        head.extend(self.parts.to_le_bytes());
        head.extend(&self.bytes);
        head.extend(crc32c::crc32c(&head).to_le_bytes());
        head
    }
}

/// What a head says of the whole object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) rows: u64,
    pub(crate) fingerprint: u64,
    /// Ordinal of the key's leaf.
    pub(crate) key: u32,
    pub(crate) columns: Vec<Named>,
}

/// A part as its head has it.
pub(crate) struct PartNote {
    pub(crate) bytes: u32,
    pub(crate) rows: u32,
    pub(crate) prefix: Box<[u8]>,
    pub(crate) blocks: usize,
}

/// Reads a head: first what it stores, then its parts, each followed by its blocks.
pub(crate) struct HeadReader<'a> {
    left: &'a [u8],
    code_bytes: usize,
    parts: u32,
    /// Rows of the parts read so far.
    rows: u64,
}

fn damaged(problem: &str) -> Error {
    Error::Corrupt(format!("the head of lookup-ready rows: {problem}"))
}

impl<'a> HeadReader<'a> {
    /// # Errors
    /// Bytes that are no head of this version, or are damaged.
    pub(crate) fn new(head: &'a [u8]) -> Result<(Self, Stored), Error> {
        let (body, stored) = head.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(|| damaged("it ends early"))?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*stored) {
            return Err(Error::Checksum("the head of lookup-ready rows".to_owned()));
        }
        let mut reader = Self { left: body, code_bytes: 0, parts: 0, rows: 0 };
        if reader.array()? != *MAGIC {
            return Err(damaged("another format or version"));
        }
        let rows = u64::from_le_bytes(reader.array()?);
        let fingerprint = u64::from_le_bytes(reader.array()?);
        let key = reader.number()?;
        let count = reader.count(4)?;
        let column =
            |code: u32| if code & 1 == 1 { Named::Leaf(code as usize / 2) } else { Named::Root(code as usize / 2) };
        let columns = (0..count).map(|_| reader.number().map(column)).collect::<Result<_, _>>()?;
        reader.code_bytes = reader.array::<1>()?[0].into();
        if ![8, 16].contains(&reader.code_bytes) {
            return Err(damaged("codes of another width"));
        }
        reader.parts = reader.count(PART_HEAD_BYTES)? as u32;
        Ok((reader, Stored { rows, fingerprint, key, columns }))
    }

    pub(crate) fn is_word(&self) -> bool {
        self.code_bytes == 8
    }

    pub(crate) fn parts(&self) -> u32 {
        self.parts
    }

    /// Blocks that the bytes left may hold at most.
    pub(crate) fn most_blocks(&self) -> usize {
        self.left.len() / (BLOCK_HEAD_BYTES + 2 * self.code_bytes)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, left) = self.left.split_at_checked(length).ok_or_else(|| damaged("it ends early"))?;
        self.left = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn number(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }

    /// A count of things that take at least so many bytes each.
    fn count(&mut self, least_bytes: usize) -> Result<usize, Error> {
        let count = self.number()? as usize;
        if count <= self.left.len() / least_bytes {
            Ok(count)
        } else {
            Err(damaged("it claims more than there are bytes"))
        }
    }

    /// The next part, and its blocks one after the other.
    ///
    /// # Errors
    /// Blocks that do not lie in their part, one behind the other.
    pub(crate) fn part(&mut self, block: &mut dyn FnMut(BlockNote)) -> Result<PartNote, Error> {
        let (bytes, rows) = (self.number()?, self.number()?);
        let blocks = self.count(BLOCK_HEAD_BYTES + 2 * self.code_bytes)?;
        let prefix = self.array::<1>()?[0].into();
        if prefix > MAX_PREFIX_BYTES || bytes as usize > PART_BYTES || rows == 0 || blocks == 0 {
            return Err(damaged("a part that nobody makes"));
        }
        let prefix = self.take(prefix)?.into();
        let mut last: Option<BlockNote> = None;
        for _ in 0..blocks {
            let next = self.block()?;
            let follows = match &last {
                None => next.offset == 0 && next.first_row == 0,
                Some(last) => next.offset > last.offset && next.first_row > last.first_row,
            };
            if !follows || next.offset >= bytes || next.first_row >= rows || next.min > next.max {
                return Err(damaged("blocks that are not one behind the other"));
            }
            if next.flags & !(HAS_NULLS | HAS_VALUES) != 0 {
                return Err(damaged("flags that are not known"));
            }
            block(next);
            last = Some(next);
        }
        self.rows = self.rows.checked_add(rows.into()).ok_or_else(|| damaged("too many rows"))?;
        Ok(PartNote { bytes, rows, prefix, blocks })
    }

    fn block(&mut self) -> Result<BlockNote, Error> {
        let (offset, first_row) = (self.number()?, self.number()?);
        let [flags] = self.array()?;
        let (min, max) = (self.code()?, self.code()?);
        Ok(BlockNote { offset, first_row, flags, min, max })
    }

    fn code(&mut self) -> Result<u128, Error> {
        Ok(match self.code_bytes {
            8 => u64::from_le_bytes(self.array()?).into(),
            _ => u128::from_le_bytes(self.array()?),
        })
    }

    /// # Errors
    /// There is more, or the parts have not the rows that the head says.
    pub(crate) fn finish(self, what: &Stored) -> Result<(), Error> {
        match self.left.is_empty() && self.rows == what.rows {
            true => Ok(()),
            false => Err(damaged("its parts are not all of it")),
        }
    }
}
