//! Which bytes of a file are its footer, its indexes, its bloom filters and its columns.
//!
//! For whoever keeps parts of a file: what a lookup reads of such a part lies within these ranges. It must not know who
//! keeps them, nor where. Ranges may touch each other or overlap.

use std::ops::Range;

use crate::error::Error;
use crate::file_index::FileIndex;
use crate::projection::leaves_of;

impl FileIndex {
    /// The footer, to the end of the file.
    pub fn footer_range(&self) -> Range<u64> {
        self.data_end..self.file_size
    }

    /// The column and offset indexes of all columns; none where the file has no page index.
    pub fn page_index_ranges(&self) -> Vec<Range<u64>> {
        let chunks = self.chunks().iter();
        chunks
            .flat_map(|chunk| [chunk.column_index(self.data_end), chunk.offset_index(self.data_end)])
            .flatten()
            .collect()
    }

    /// The bloom filters of all columns; none where the file has none. A filter of which the file does not say how long
    /// it is reaches to whatever is known to begin behind it.
    pub fn bloom_filter_ranges(&self) -> Vec<Range<u64>> {
        let places = || self.chunks().iter().filter_map(|chunk| chunk.bloom_filter(self.data_end));
        if places().all(|place| place.exact) {
            return places().map(|place| place.range).collect();
        }
        let data = self.chunks().iter().filter_map(|chunk| chunk.range(self.data_end).ok());
        let mut starts: Vec<u64> = data.chain(self.page_index_ranges()).map(|range| range.start).collect();
        starts.extend(places().map(|place| place.range.start));
        starts.sort_unstable();
        let end = |start: u64| starts.get(starts.partition_point(|other| *other <= start)).copied();
        let bounded = |range: Range<u64>| range.start..end(range.start).unwrap_or(range.end).min(range.end);
        places().map(|place| if place.exact { place.range } else { bounded(place.range) }).collect()
    }

    /// A column's chunks in all row groups: its dictionary pages and data pages. The column may be a leaf, or a group
    /// of which all leaves are meant.
    ///
    /// # Errors
    /// [`Error::NoSuchColumn`], or a chunk that is not where the footer says.
    pub fn column_ranges(&self, name: &str) -> Result<Vec<Range<u64>>, Error> {
        let leaves = leaves_of(self.schema(), self.schema().find(name)?);
        let groups = 0..self.row_groups();
        groups.flat_map(|group| leaves.clone().map(move |leaf| self.chunk_range(group, leaf))).collect()
    }

    /// The name of the column by which lookups that name none find rows.
    ///
    /// # Errors
    /// [`Error::NoKeyColumn`].
    pub fn default_key(&self) -> Result<String, Error> {
        self.key_column(None).map(|column| column.name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, StructArray};
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::{EnabledStatistics, WriterProperties};

    use super::*;
    use crate::limits::Limits;
    use crate::machine::drive_bytes;
    use crate::open::Open;

    fn file(has_indexes: bool) -> Bytes {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..3_000));
        let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..3_000).map(|i| format!("n{i}"))));
        let field = |name: &str, array: &ArrayRef| {
            (Arc::new(arrow_schema::Field::new(name, array.data_type().clone(), false)), Arc::clone(array))
        };
        let pair: ArrayRef = Arc::new(StructArray::from(vec![field("a", &ids), field("b", &names)]));
        let batch = RecordBatch::try_from_iter([("id", ids), ("pair", pair)]).unwrap();
        let statistics = if has_indexes { EnabledStatistics::Page } else { EnabledStatistics::None };
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(1_000))
            .set_bloom_filter_enabled(has_indexes)
            .set_statistics_enabled(statistics)
            .set_offset_index_disabled(!has_indexes);
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build())).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap().into()
    }

    fn opened(file: &Bytes) -> Arc<FileIndex> {
        drive_bytes(Open::new(64 << 10, Arc::new(Limits::default())), file).unwrap()
    }

    /// All parts of a file, in order, must be all of it but the magic in front.
    fn assert_complete(file: &Bytes, index: &FileIndex, columns: &[&str]) {
        let mut parts = vec![index.footer_range()];
        parts.extend(index.page_index_ranges());
        parts.extend(index.bloom_filter_ranges());
        parts.extend(columns.iter().flat_map(|name| index.column_ranges(name).unwrap()));
        parts.sort_unstable_by_key(|range| range.start);
        assert_eq!(parts.first().map(|range| range.start), Some(4));
        assert_eq!(parts.last().map(|range| range.end), Some(file.len() as u64));
        assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start), "{parts:?}");
    }

    #[test]
    fn the_parts_of_a_file_are_all_of_it_and_do_not_overlap() {
        let file = file(true);
        let index = opened(&file);
        assert_complete(&file, &index, &["id", "pair"]);
        assert_complete(&file, &index, &["id", "pair.a", "pair.b"]);
        // Per row group and leaf: two indexes and a filter.
        assert_eq!((index.page_index_ranges().len(), index.bloom_filter_ranges().len()), (3 * 3 * 2, 3 * 3));
        assert_eq!((index.column_ranges("id").unwrap().len(), index.column_ranges("pair").unwrap().len()), (3, 6));
        let unknown = index.column_ranges("pear").unwrap_err().to_string();
        assert!(unknown.contains("pear") && unknown.contains("pair"), "{unknown}");
        assert!(matches!(index.default_key(), Err(Error::NoKeyColumn { .. })));
    }

    #[test]
    fn what_a_file_has_not_is_no_part_of_it() {
        let file = file(false);
        let index = opened(&file);
        assert_eq!((index.page_index_ranges(), index.bloom_filter_ranges()), (vec![], vec![]));
        assert_complete(&file, &index, &["id", "pair"]);
    }
}
