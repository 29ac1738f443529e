//! A page's bytes, inflated as far as somebody asks for them.
//!
//! Of snappy, which most files have, no more is inflated than that; of every other codec all at once. It knows nothing
//! of what the bytes mean. Bytes that nobody asked for are not looked at: whoever keeps a page asks for all of it.

use crate::codec::{Codec, is_framed};
use crate::error::Error;
use crate::snappy_prefix::SnappyPrefix;

/// The bytes of a page's body, or of its values.
pub(crate) enum Inflating<'a> {
    /// All of them are there.
    Whole(&'a [u8]),
    Snappy(SnappyPrefix<'a, 'a>),
}

impl<'a> Inflating<'a> {
    /// Begins to inflate `stored` into `output`, which it is to fill.
    ///
    /// # Errors
    /// The page is damaged.
    pub(crate) fn new(codec: Codec, stored: &'a [u8], output: &'a mut [u8]) -> Result<Self, Error> {
        if codec == Codec::Snappy && SnappyPrefix::is_block_of(stored, output.len()) && !is_framed(stored) {
            return Ok(Self::Snappy(SnappyPrefix::new(stored, output)));
        }
        codec.decompress_into(stored, output)?;
        Ok(Self::Whole(output))
    }

    /// How many bytes there are to be had.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Snappy(block) => block.len(),
        }
    }

    /// The first bytes, at least so many; none where the page is damaged before their end, or shorter.
    pub(crate) fn first(&mut self, bytes: usize) -> Option<&[u8]> {
        match self {
            Self::Whole(whole) => (bytes <= whole.len()).then_some(whole),
            Self::Snappy(block) => block.first(bytes),
        }
    }

    /// All bytes; none where the page is damaged.
    pub(crate) fn whole(&mut self) -> Option<&[u8]> {
        self.first(self.len())
    }

    /// The bytes that were asked for so far.
    pub(crate) fn there(&self) -> &[u8] {
        match self {
            Self::Whole(whole) => whole,
            Self::Snappy(block) => block.there(),
        }
    }
}
