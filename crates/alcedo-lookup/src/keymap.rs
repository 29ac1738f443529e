//! Keymaps: a derived object that says which rows may hold a key, for any key column of one file version.
//!
//! A keymap is ordered by the hash of the key: a lookup reads one bucket of some 3 KiB, finds the key's fingerprint
//! there or not, and has the candidate rows. It is advisory: a candidate is always compared with the key
//! ([`crate::search::Search::at_rows`]), and where a keymap cannot tell, it says so and the column is searched. A row
//! takes 6 to 8 bytes, beside the lists of rows of frequent keys. `layout` is the bits of an entry, `bucket`,
//! `row_list` and `head` are the bytes; `key_hash` hashes; `walk`, `key_hashes` and `gather` go through a column for
//! [`builder`]. Nothing here knows where objects are kept, nor when one is worth its room.

mod bucket;
pub mod builder;
mod gather;
mod head;
mod key_hash;
mod key_hashes;
mod layout;
mod row_list;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
mod walk;

use std::ops::Range;

use bytes::Bytes;

use crate::error::Error;
use crate::file_index::FileIndex;
use crate::keymap::bucket::Bucket;
use crate::keymap::head::{BucketPlace, Head, Nulls};
use crate::prepared::KeyPoint;

/// A keymap's head, ready to be asked.
#[derive(Debug)]
pub struct Keymap(Head);

/// How a question to a keymap goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// All candidates are there: where there are none, no row holds the key.
    Done,
    /// These bytes tell: give them to [`Keymap::rows`].
    Read(Read),
    /// The keymap does not list the key's rows, because they are too many: search the column.
    Search,
}

/// Bytes of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The part's number.
    pub part: u32,
    /// Where in the part.
    pub range: Range<u64>,
    of: Of,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Of {
    Bucket { number: u32, print: u64 },
    List { rows: u32 },
}

impl Keymap {
    /// Reads a head. Cheap beside what made it: it is checked, not decoded, and keeps `head` as it is.
    ///
    /// # Errors
    /// The head is damaged, of another version of the format, or of another file: drop the whole object.
    pub fn read(head: &Bytes, index: &FileIndex) -> Result<Self, Error> {
        let head = Head::read(head, (index.file_size(), index.rows()))?;
        if head.subject.leaf as usize >= index.columns() {
            return Err(Error::corrupt("a keymap of a column that the file has not"));
        }
        Ok(Self(head))
    }

    /// The ordinal among the file's leaf columns of the key column.
    pub fn leaf(&self) -> usize {
        self.0.subject.leaf as usize
    }

    /// How many parts the object has.
    pub fn parts(&self) -> u32 {
        self.0.parts.len() as u32
    }

    /// Bytes of memory that it takes.
    pub fn weight(&self) -> u64 {
        self.0.weight()
    }

    /// Begins a question: what to read for the rows that may hold the key. The key must be of this keymap's column.
    pub fn place(&self, key: &KeyPoint) -> Next {
        let Some(point) = key.point() else { return self.place_of_nulls() };
        let (hash, layout) = (key_hash::of_point(point), self.0.layout);
        let number = layout.bucket(hash);
        match self.0.place(number) {
            BucketPlace::Empty => Next::Done,
            BucketPlace::Overfull => Next::Search,
            BucketPlace::At { part, range } => {
                Next::Read(Read { part, range, of: Of::Bucket { number, print: layout.print(hash) } })
            }
        }
    }

    fn place_of_nulls(&self) -> Next {
        match self.0.nulls {
            Nulls::None => Next::Done,
            Nulls::TooMany => Next::Search,
            Nulls::Listed(part, list) => {
                let start = u64::from(list.offset);
                let range = start..start + u64::from(list.bytes);
                Next::Read(Read { part, range, of: Of::List { rows: list.rows } })
            }
        }
    }

    /// Goes on with the bytes of a [`Read`]: appends candidate rows, by their numbers in the file and ascending, or
    /// says what to read for them.
    ///
    /// # Errors
    /// The bytes are damaged: drop the whole object.
    pub fn rows(&self, read: &Read, bytes: &[u8], out: &mut Vec<u64>) -> Result<Next, Error> {
        let rows = self.0.subject.rows;
        match read.of {
            Of::List { rows: count } => row_list::read(bytes, count, rows, out).map(|()| Next::Done),
            Of::Bucket { number, print } => {
                let bucket = Bucket::read((self.0.layout, number), bytes)?;
                let Some(list) = bucket.find(print, rows, out)? else { return Ok(Next::Done) };
                let range = self.0.list(read.part, list)?;
                Ok(Next::Read(Read { part: read.part, range, of: Of::List { rows: list.rows } }))
            }
        }
    }
}
