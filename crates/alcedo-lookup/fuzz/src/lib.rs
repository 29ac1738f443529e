//! What the fuzz targets run: each function takes arbitrary bytes and returns, whatever they are.
//!
//! Sits on the public face of `alcedo-lookup` and must not know its rooms, so that the targets hold whatever is rebuilt
//! behind that face. The tests of `alcedo-lookup` take in the same files, to replay what was found.

pub mod ask;
pub mod craft;
pub mod derived;
pub mod guard;
mod key_text;
mod page;
mod targets;

pub use derived::{keymap, ready};
pub use guard::start;
pub use key_text::key_text;
pub use page::{indexed_file, page, page_index};
pub use targets::{answer, file, file_index, footer};
