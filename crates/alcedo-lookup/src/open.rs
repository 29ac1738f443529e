//! The machine that opens a file: tail, footer, file index.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;
use crate::file_index::FileIndex;
use crate::footer::{self, MAGIC, MAGIC_ENCRYPTED, TRAILER_BYTES};
use crate::limits::Limits;
use crate::machine::{Fed, Machine, Piece, Step};

/// Opens a file of which nothing is known but its name.
#[derive(Debug)]
pub struct Open {
    tail_bytes: u64,
    limits: Arc<Limits>,
    /// The end of the file, as far as it was read.
    tail: Option<Fed>,
}

impl Open {
    /// `tail_bytes` is how much of the file's end is read first: a footer that fits costs one read, and so does the
    /// page index in front of it.
    pub fn new(tail_bytes: u64, limits: Arc<Limits>) -> Self {
        Self { tail_bytes: tail_bytes.max(TRAILER_BYTES), limits, tail: None }
    }

    /// Where the footer starts, from the trailer at the end of the tail.
    fn footer_start(&self, tail: &Fed) -> Result<u64, Error> {
        let no_parquet = |why: &str| Err(Error::NotParquet(why.to_owned()));
        if tail.file_size < 4 + TRAILER_BYTES {
            return no_parquet(&format!("{} bytes are too few", tail.file_size));
        }
        let Some((_, trailer)) = tail.bytes.split_last_chunk::<8>() else {
            return no_parquet("its end could not be read");
        };
        let [a, b, c, d, magic @ ..] = *trailer;
        if magic == *MAGIC_ENCRYPTED {
            return Err(Error::Encrypted("the footer is encrypted and no key is configured".to_owned()));
        }
        if magic != *MAGIC {
            return no_parquet("it does not end in PAR1");
        }
        let length = u64::from(u32::from_le_bytes([a, b, c, d]));
        if length > self.limits.footer_bytes {
            if length + TRAILER_BYTES + 4 > tail.file_size {
                return Err(Error::Corrupt(format!(
                    "the footer claims {length} bytes, the file has {}",
                    tail.file_size
                )));
            }
            let limit = self.limits.footer_bytes;
            return Err(Error::Limit(format!("a footer of {length} bytes, at most {limit} are read")));
        }
        // The magic at the file's beginning is no part of the footer.
        let start = tail.file_size.checked_sub(length + TRAILER_BYTES).filter(|start| *start >= 4);
        start
            .ok_or_else(|| Error::Corrupt(format!("the footer claims {length} bytes, the file has {}", tail.file_size)))
    }
}

impl Machine for Open {
    type Output = Arc<FileIndex>;

    fn step(&mut self) -> Result<Step<Self::Output>, Error> {
        let Some(tail) = &self.tail else {
            return Ok(Step::Need(Piece::Tail(self.tail_bytes).into()));
        };
        let start = self.footer_start(tail)?;
        if start < tail.start {
            return Ok(Step::Need(Piece::Range(start..tail.file_size).into()));
        }
        let first = (start - tail.start) as usize;
        let footer: Bytes = tail.bytes.slice(first..tail.bytes.len() - TRAILER_BYTES as usize);
        let footer = footer::read(&footer, &self.limits)?;
        Ok(Step::Done(Arc::new(FileIndex::new(footer, tail.file_size, start, &self.limits))))
    }

    fn feed(&mut self, _piece: &Piece, fed: Fed) {
        self.tail = Some(fed);
    }

    fn stage(&self) -> &'static str {
        "open"
    }

    fn work_bytes(&self) -> u64 {
        // Parsing a footer costs several times what inflating as many bytes does.
        self.tail.as_ref().map_or(0, |tail| tail.bytes.len() as u64 * 4)
    }
}
