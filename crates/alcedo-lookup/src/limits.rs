//! The bounds within which a file is read: what a hostile file may cost at most.

/// Bounds on one file's metadata and data pages, with the defaults that a worker starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a footer. A footer is held in memory while it is parsed, several times its size.
    pub footer_bytes: u64,
    /// Nesting of a schema. Parquet's own decoder recurses per level and a stack is finite; Arrow C++ stops at 100 too.
    pub schema_depth: usize,
    /// Elements of a schema, and row groups: Arrow C++'s bounds, far above what writers make.
    pub schema_elements: usize,
    /// Bytes that a schema takes as the parquet crate holds it, where every leaf repeats the names of all groups around
    /// it: 50,000 columns of usual names take a third of this, and a hundred nested groups with names of kilobytes
    /// would take terabytes.
    pub schema_bytes: usize,
    /// Row groups of a file.
    pub row_groups: usize,
    /// Column chunks of a file (row groups x leaf columns). One takes some 240 bytes in memory with its statistics, so
    /// these take 120 MB; a footer within its bound holds no more real ones, which take 30 bytes there at least.
    pub column_chunks: usize,
    /// Nesting of thrift structs and containers. Parquet's own metadata nests below ten deep, what later versions add
    /// may nest deeper; Arrow C++ stops at 100.
    pub thrift_depth: usize,
    /// Elements of any thrift list, set or map: Arrow C++'s bound. It is checked before anything is reserved.
    pub list_elements: usize,
    /// Bytes of an offset index or column index of one chunk. Indexes are advisory: a longer one is not used. 250,000
    /// data pages with bounds of 64 bytes take as much.
    pub index_bytes: usize,
    /// Data pages of one column chunk: some 50 bytes of memory each with bounds of integers, up to some 200 with those
    /// of long texts. An index with more is not used.
    pub chunk_pages: usize,
    /// Compressed bytes of one data page: pages are at most a few MiB unless one value is huge.
    pub page_compressed_bytes: usize,
    /// Decompressed bytes of one data page, held while it is decoded.
    pub page_bytes: usize,
    /// Values of one data page, nulls included. Runs of one value take no bytes, so their count is bounded by nothing
    /// else; some writers put all of a row group's nulls into one page. Decoding so many takes about 100 ms.
    pub page_values: usize,
    /// Values of one dictionary page: the parquet crate holds up to 32 bytes for each, 128 MB in all. Writers end a
    /// dictionary at about 1 MiB.
    pub dictionary_values: usize,
    /// Bytes of data pages that one lookup holds at once: those of one round of reading; the others follow.
    pub scan_bytes: u64,
    /// Bytes of the data pages that one row of the answer takes, over all its columns: they are held at once.
    pub row_bytes: u64,
    /// Bytes of inflated data pages that one lookup holds at once while it reads rows: two pages at their bound.
    pub inflate_bytes: usize,
    /// Bytes of a column chunk without an offset index, which is gone through once, window by window, to learn where
    /// its data pages are.
    pub learn_bytes: u64,
    /// Rows of one answer, all keys together.
    pub answer_rows: usize,
    /// Bytes of one answer's rows as they are encoded.
    pub answer_bytes: usize,
    /// Value data pages that may hold a found row are fetched together with the key's data page while they are at most
    /// so many bytes. At 30 ms a trip and 100 MB/s a saved trip is worth 3 MB; 1 MiB is for those who measure neither,
    /// and keeps cold lookups from filling a cache. A source that knows what a trip is worth reads along only that
    /// much.
    pub speculate_bytes: u64,
    /// Two needed ranges of one file with a gap of at most so many bytes between them are asked for as one: a second
    /// request costs more than such a gap. A source that knows what a trip is worth may join less.
    pub coalesce_gap_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            footer_bytes: 16 << 20,
            schema_depth: 100,
            schema_elements: 50_000,
            schema_bytes: 32 << 20,
            row_groups: 50_000,
            column_chunks: 500_000,
            thrift_depth: 100,
            list_elements: 1_000_000,
            index_bytes: 16 << 20,
            chunk_pages: 250_000,
            page_compressed_bytes: 16 << 20,
            page_bytes: 64 << 20,
            page_values: 32 << 20,
            dictionary_values: 4 << 20,
            scan_bytes: 16 << 20,
            row_bytes: 256 << 20,
            inflate_bytes: 128 << 20,
            learn_bytes: 1 << 30,
            answer_rows: 1_000_000,
            answer_bytes: 64 << 20,
            speculate_bytes: 1 << 20,
            coalesce_gap_bytes: 64 << 10,
        }
    }
}
