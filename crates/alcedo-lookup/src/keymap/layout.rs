//! How a key's hash and a row number share the 64 bits of an entry.
//!
//! The top bits of a hash name a bucket, the bits below them are the entry's fingerprint, and the others are dropped:
//! two keys with one fingerprint in one bucket cost a comparison. It knows numbers alone.

/// Rows of a file at most that a keymap is built for: its head then takes 16 MiB. From 2^24 rows on fingerprints become
/// shorter: at 100 million rows one absent key in 1,400 seems to be there, at a billion one in 16.
pub(crate) const MAX_ROWS: u64 = 1 << 31;
/// Rows of a bucket on average, at most; half as many at least. With 6 or 7 bytes each, a bucket is one small read.
const BUCKET_ROWS: u64 = 512;
/// Bits of a fingerprint: of a full bucket's absent keys, one in 30,000 seems to be there.
const PRINT_BITS: u32 = 24;
/// Buckets of a file of [`MAX_ROWS`], as bits.
const MAX_BUCKET_BITS: u32 = 22;
const MAX_PRINT_BITS: u32 = 32;

/// The bits of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) row_bits: u32,
    pub(crate) bucket_bits: u32,
    pub(crate) print_bits: u32,
}

impl Layout {
    /// The layout for a file of so many rows, [`MAX_ROWS`] at most.
    pub(crate) fn of(rows: u64) -> Self {
        let row_bits = row_bits(rows);
        let bucket_bits = rows.div_ceil(BUCKET_ROWS).max(1).next_power_of_two().trailing_zeros();
        // What is left of the last byte is of use too.
        let print_bits = (row_bits + PRINT_BITS).next_multiple_of(8) - row_bits;
        Self { row_bits, bucket_bits, print_bits: print_bits.min(64 - row_bits - bucket_bits) }
    }

    /// Whether entries of this layout can name all of so many rows, and are 64 bits with their bucket at most.
    pub(crate) fn fits(self, rows: u64) -> bool {
        self.row_bits == row_bits(rows)
            && rows <= MAX_ROWS
            && self.bucket_bits <= MAX_BUCKET_BITS
            && (1..=MAX_PRINT_BITS).contains(&self.print_bits)
            && self.row_bits + self.print_bits + self.bucket_bits <= 64
    }

    pub(crate) fn buckets(self) -> u32 {
        1 << self.bucket_bits
    }

    /// Bytes of an entry in its bucket.
    pub(crate) fn entry_bytes(self) -> usize {
        (self.row_bits + self.print_bits).div_ceil(8) as usize
    }

    #[inline]
    pub(crate) fn bucket(self, hash: u64) -> u32 {
        // In two steps, because there may be but one bucket.
        (hash >> 1 >> (63 - self.bucket_bits)) as u32
    }

    #[inline]
    pub(crate) fn print(self, hash: u64) -> u64 {
        (hash << self.bucket_bits) >> (64 - self.print_bits)
    }

    /// Bucket, fingerprint and row: ascending as buckets and their entries are.
    #[inline]
    pub(crate) fn packed(self, hash: u64, row: u64) -> u64 {
        (hash >> (64 - self.bucket_bits - self.print_bits)) << self.row_bits | row
    }

    #[inline]
    pub(crate) fn bucket_of(self, packed: u64) -> u32 {
        (packed >> (self.row_bits + self.print_bits)) as u32
    }

    /// Fingerprint and row.
    #[inline]
    pub(crate) fn entry_of(self, packed: u64) -> u64 {
        packed & mask(self.row_bits + self.print_bits)
    }

    #[inline]
    pub(crate) fn print_of(self, entry: u64) -> u64 {
        entry >> self.row_bits
    }

    #[inline]
    pub(crate) fn row_of(self, entry: u64) -> u64 {
        entry & mask(self.row_bits)
    }
}

/// The lowest bits, 63 at most.
fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

fn row_bits(rows: u64) -> u32 {
    (64 - rows.saturating_sub(1).leading_zeros()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_gives_back_what_was_packed() {
        for rows in [0, 1, 2, 512, 513, 1 << 20, 100_000_000, MAX_ROWS] {
            let layout = Layout::of(rows);
            assert!(layout.fits(rows) && layout.entry_bytes() <= 8, "{rows}: {layout:?}");
            for (hash, row) in [(0, 0), (u64::MAX, rows.saturating_sub(1)), (0x0123_4567_89ab_cdef, rows / 2)] {
                let packed = layout.packed(hash, row);
                assert_eq!(layout.bucket_of(packed), layout.bucket(hash), "{rows}");
                let entry = layout.entry_of(packed);
                assert_eq!((layout.print_of(entry), layout.row_of(entry)), (layout.print(hash), row), "{rows}");
            }
            let full = rows / u64::from(layout.buckets());
            assert!(full <= BUCKET_ROWS && (rows <= BUCKET_ROWS || full >= BUCKET_ROWS / 2), "{rows}: {full} each");
        }
    }

    #[test]
    fn a_million_rows_take_six_bytes_each_and_a_hundred_million_too() {
        let bytes = |rows: u64| (Layout::of(rows).entry_bytes(), Layout::of(rows).print_bits);
        assert_eq!((bytes(1_000_000), bytes(100_000_000)), ((6, 28), (6, 19)));
    }
}
