//! The `Range` header (RFC 9110 section 14.2), as S3 reads it.
//!
//! It knows byte ranges and sizes, nothing else. S3 answers several ranges, and a header that it cannot parse, with the
//! whole object, which the RFC allows: a client that takes what it gets for what it asked is found out.

use std::ops::Range;

/// What a request selects of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// All of it, with status 200.
    Whole,
    /// These bytes, with status 206.
    Part(Range<u64>),
    /// Nothing that exists: status 416.
    Unsatisfiable,
}

/// Resolves a `Range` header against an object of `size` bytes.
pub(super) fn select(header: Option<&str>, size: u64) -> Selection {
    let Some(spec) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else {
        return Selection::Whole;
    };
    let Some((first, last)) = spec.split_once('-') else {
        return Selection::Whole;
    };
    // Digits only: `parse` alone would let a plus sign pass, and a second range has a comma here.
    let number =
        |text: &str| if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse::<u64>().ok() } else { None };
    let range = match (first.is_empty(), last.is_empty()) {
        (true, true) => return Selection::Whole,
        (true, false) => number(last).map(|length| size.saturating_sub(length)..size),
        (false, true) => number(first).map(|start| start..size),
        (false, false) => match (number(first), number(last)) {
            (Some(start), Some(end)) if start <= end => Some(start..end.saturating_add(1).min(size)),
            _ => None,
        },
    };
    match range {
        None => Selection::Whole,
        Some(range) if range.start >= range.end => Selection::Unsatisfiable,
        Some(range) => Selection::Part(range),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_s3_reads_it() {
        let part = |range: Range<u64>| Selection::Part(range);
        for (header, expected) in [
            ("bytes=0-0", part(0..1)),
            ("bytes=2-4", part(2..5)),
            ("bytes=2-99", part(2..10)),
            ("bytes=2-18446744073709551615", part(2..10)),
            ("bytes=9-", part(9..10)),
            ("bytes=-3", part(7..10)),
            ("bytes=-99", part(0..10)),
            ("bytes=10-", Selection::Unsatisfiable),
            ("bytes=10-12", Selection::Unsatisfiable),
            ("bytes=-0", Selection::Unsatisfiable),
            ("bytes=4-2", Selection::Whole),
            ("bytes=0-1,4-5", Selection::Whole),
            ("bytes=-", Selection::Whole),
            ("bytes=+1-2", Selection::Whole),
            ("bytes=a-b", Selection::Whole),
            ("lines=0-1", Selection::Whole),
        ] {
            assert_eq!(select(Some(header), 10), expected, "{header}");
        }
        assert_eq!(select(None, 10), Selection::Whole);
        assert_eq!(select(Some("bytes=0-0"), 0), Selection::Unsatisfiable, "an empty object has no ranges");
    }
}
