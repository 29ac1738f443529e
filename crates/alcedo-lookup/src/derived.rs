//! Derived objects: what their builders end in.
//!
//! A derived object is made of one file version's bytes and of nothing else: a keymap, lookup-ready rows. It consists
//! of parts, made one after the other in bounded memory, and of a head, which is made last and says where everything
//! is. A builder is a [`crate::machine::Machine`] that makes one part and hands back what makes the next, so that
//! whoever drives it can keep each part, pace the work, and give it up between two parts. Nothing in an object names
//! its file: whoever keeps it does, with the content version in its name.

use bytes::Bytes;

/// Largest part, in bytes: what a builder holds beside its own tables, and what is written at once.
pub const PART_BYTES: usize = 16 << 20;

/// What one run of a builder came to.
#[derive(Debug)]
pub enum Built<B> {
    /// A part, and the builder of what follows.
    Part {
        /// Counts the object's parts from 0, without a gap.
        number: u32,
        /// At most [`PART_BYTES`].
        bytes: Bytes,
        /// Makes the next part or the head.
        rest: B,
    },
    /// The head: all parts are made.
    Head(Bytes),
}
