//! A fence around the parquet crate's decoders: what they do to hostile pages costs one request, never the process.
//!
//! The decoders check most of what they read, but not all: a dictionary index, a length or a count that nobody expected
//! ends in a panic there. Whoever calls them calls them through [`decoding`]. What no fence can hold back, because it
//! aborts the process, is checked before: see `page_check`.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::Error;

/// Runs a decoder over hostile bytes. `what` says of which column, for the message.
///
/// What the decoder borrowed mutably may be half changed after an error: drop it.
///
/// # Errors
/// The decoder's own, or [`Error::DecoderPanicked`].
pub(crate) fn decoding<T>(what: &dyn Display, decode: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err(Error::DecoderPanicked(what.to_string())))
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_about_the_file_and_names_the_column() {
        let index = 7;
        let caught = decoding(&"column `k`", || Ok([1, 2, 3][std::hint::black_box(index)]));
        let error = caught.map_or_else(|error| error, |value: i32| panic!("{value}"));
        assert_eq!(error.to_string(), "corrupt Parquet file: the decoder gave up on column `k`");
        assert!(error.is_about_the_file());
        assert_eq!(decoding(&"column `k`", || Ok(5)), Ok(5));
    }
}
