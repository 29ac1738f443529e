//! The step machine and its driver: the one straight line of the product.
//!
//! A [`Machine`] says which pieces of a file it needs and is fed them until it is done. [`drive`] is the only loop over
//! one: opening a file, looking up keys, warm or cold, in a worker, in a client and in tests. A miss in a cache is the
//! [`Source`]'s business and never the machine's, so there is no separate cold path.

use std::future::Future;
use std::ops::Range;

use bytes::Bytes;

use crate::error::Error;

/// A part of the origin's file that a machine needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The last so many bytes of a file whose size is not known yet, or all of it if it is shorter.
    Tail(u64),
    /// These bytes of the file.
    Range(Range<u64>),
}

/// The bytes of one [`Piece`].
#[derive(Debug, Clone)]
pub struct Fed {
    /// Where `bytes` start in the file.
    pub start: u64,
    /// The size of the whole file in bytes.
    pub file_size: u64,
    /// Exactly the piece; or nothing, of a column chunk whose page table the source had made elsewhere: it is in the
    /// file index by now (`learn`).
    pub bytes: Bytes,
}

/// The pieces that a machine asks for in one round.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Need {
    /// What it cannot go on without.
    pub pieces: Vec<Piece>,
    /// What will probably be needed next: worth reading along if `pieces` cost a trip to the origin, and to be left
    /// alone if they do not.
    pub along: Vec<Piece>,
}

impl From<Piece> for Need {
    fn from(piece: Piece) -> Self {
        Self { pieces: vec![piece], along: Vec::new() }
    }
}

/// What a machine's step came to.
#[derive(Debug)]
pub enum Step<T> {
    /// Feed it these, all at once, then step again.
    Need(Need),
    /// It is done.
    Done(T),
}

/// A computation over a file's bytes that does no I/O.
pub trait Machine: Send + 'static {
    /// What it computes.
    type Output: Send + 'static;

    /// Goes on as far as the fed pieces allow.
    ///
    /// # Errors
    /// The bytes are not what they should be, or the question does not fit the file.
    fn step(&mut self) -> Result<Step<Self::Output>, Error>;

    /// Takes one piece that the last step needed.
    fn feed(&mut self, piece: &Piece, fed: Fed);

    /// What the next step works on, for traces: `open`, `index`, `key pages`, `value pages`.
    fn stage(&self) -> &'static str;

    /// About how many bytes the next step decompresses or decodes: a driver moves large steps off a thread that others
    /// share.
    fn work_bytes(&self) -> u64;
}

/// Where pieces of one file come from.
pub trait Source: Sync {
    /// A failed read, or a machine's error.
    type Error: From<Error> + Send;

    /// Reads pieces, all at once; the answer has one [`Fed`] per piece of [`Need::pieces`], in order, then either none
    /// or one per piece of [`Need::along`], all of one content version.
    fn read(&self, stage: &'static str, need: &Need) -> impl Future<Output = Result<Vec<Fed>, Self::Error>> + Send;

    /// Runs one step of a machine. The default runs it where it is called; a source which shares its thread with others
    /// may run large steps elsewhere.
    fn step<M: Machine>(
        &self,
        mut machine: M,
    ) -> impl Future<Output = Result<(M, Step<M::Output>), Self::Error>> + Send {
        async move {
            let step = machine.step()?;
            Ok((machine, step))
        }
    }
}

/// Drives a machine to its end.
///
/// # Errors
/// The source's, when a read fails; the machine's, when the bytes are wrong.
pub async fn drive<M: Machine, S: Source>(mut machine: M, source: &S) -> Result<M::Output, S::Error> {
    loop {
        let (next, step) = source.step(machine).await?;
        machine = next;
        match step {
            Step::Done(value) => return Ok(value),
            Step::Need(need) => {
                let fed = source.read(machine.stage(), &need).await?;
                for (piece, fed) in need.pieces.iter().chain(&need.along).zip(fed) {
                    machine.feed(piece, fed);
                }
            }
        }
    }
}

/// Drives a machine over a whole file in memory.
///
/// # Errors
/// The machine's, or [`Error::Corrupt`] when it asks for bytes beyond the file's end.
pub fn drive_bytes<M: Machine>(mut machine: M, file: &Bytes) -> Result<M::Output, Error> {
    loop {
        match machine.step()? {
            Step::Done(value) => return Ok(value),
            Step::Need(need) => {
                for piece in need.pieces.iter().chain(&need.along) {
                    let fed = slice(file, piece)?;
                    machine.feed(piece, fed);
                }
            }
        }
    }
}

fn slice(file: &Bytes, piece: &Piece) -> Result<Fed, Error> {
    let file_size = file.len() as u64;
    let range = match piece {
        Piece::Tail(length) => file_size.saturating_sub(*length)..file_size,
        Piece::Range(range) => range.clone(),
    };
    if range.start > range.end || range.end > file_size {
        return Err(Error::corrupt(format!("bytes {}..{} are outside the file's {file_size}", range.start, range.end)));
    }
    Ok(Fed { start: range.start, file_size, bytes: file.slice(range.start as usize..range.end as usize) })
}
