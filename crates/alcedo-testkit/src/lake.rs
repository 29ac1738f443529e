//! The sample lake: Parquet files as two kinds of writers leave them, and the truth about every row in them.
//!
//! Layer 5. It knows Parquet writing and arithmetic. It must not know readers, stores or Alcedo. A row is a function of
//! its number and the seed: nothing is stored to compare with, so a lake of any size can be checked row by row, and two
//! lakes of the same spec are equal byte by byte.
//!
//! - Files with an even number are written for seeking: several row groups, data pages of 64 KiB, a page index.
//! - Files with an odd number are as pyarrow and DuckDB write by default: statistics of column chunks only, no page
//!   index, data pages of 1 MiB, row groups of a million (1, 5, 9, ...) or of 122,880 rows (3, 7, 11, ...).
//! - Snappy and Zstandard take turns within each kind.
//!
//! Rows are sorted by `id` within a file. Around each boundary between neighbours some rows have changed places, so
//! that key ranges overlap there: a reader that stops at the first file whose range contains a key misses rows.

mod truth;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use arrow_array::RecordBatch;
use arrow_array::builder::{
    BooleanBuilder, Decimal128Builder, Float64Builder, Int32Builder, Int64Builder, ListBuilder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

pub use truth::TruthRow;
use truth::{Truth, USER_MASK};

/// Precision and scale of `amount`.
const AMOUNT_DIGITS: (u8, i8) = (12, 2);
/// Fewest rows of a file: room for rows that change places at both of its ends.
const MIN_FILE_ROWS: u64 = 4;
/// One row of so many, at either end of a file, may have changed places with the neighbour.
const OVERLAP_PART: u64 = 100;
/// Rows that are made at once; few enough that the builders stay in the processor's cache.
const BATCH_ROWS: usize = 4_096;

/// Data pages of a file that is written for seeking.
const SMALL_DATA_PAGE_BYTES: usize = 64 * 1024;
/// The writer looks at a data page's size only between batches: of this many values where it splits what it is given,
/// and not before the end of what it is given where a flat column has no null. So rows are handed over in batches of
/// this size.
const SMALL_BATCH: usize = 256;
/// Row groups of a file that is written for seeking.
const INDEXED_ROW_GROUPS: u64 = 4;
/// The default data page of both pyarrow and this writer.
const DEFAULT_DATA_PAGE_BYTES: usize = 1024 * 1024;
/// The default row group of pyarrow.
const PYARROW_GROUP_ROWS: usize = 1024 * 1024;
/// The default row group of DuckDB.
const DUCKDB_GROUP_ROWS: usize = 122_880;

/// What a lake is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleSpec {
    /// Rows of all files together.
    pub rows: u64,
    /// Number of files.
    pub files: u32,
    /// Other seeds give other values and other user names; ids have the same stride.
    pub seed: u64,
}

impl Default for SampleSpec {
    /// A million rows in 16 files.
    fn default() -> Self {
        Self { rows: 1_000_000, files: 16, seed: 7 }
    }
}

/// A lake that is made file by file, on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleLake {
    spec: SampleSpec,
    truth: Truth,
    /// How many rows at either end of a file may have changed places.
    overlap: u64,
}

impl SampleLake {
    /// # Errors
    /// When there is no file, when a file would have fewer than four rows, or when there are more rows than user names.
    pub fn new(spec: SampleSpec) -> anyhow::Result<Self> {
        ensure!(spec.files > 0, "a lake has at least one file");
        let file_rows = spec.rows / u64::from(spec.files);
        ensure!(file_rows >= MIN_FILE_ROWS, "{} rows are too few for {} files", spec.rows, spec.files);
        ensure!(spec.rows <= USER_MASK, "{} rows are more than there are user names", spec.rows);
        Ok(Self { spec, truth: Truth::new(spec.seed), overlap: (file_rows / OVERLAP_PART).max(1) })
    }

    /// What the lake is made of.
    #[must_use]
    pub fn spec(&self) -> SampleSpec {
        self.spec
    }

    /// The columns in their order; all are nullable, as the usual writers declare them.
    #[must_use]
    pub fn schema() -> SchemaRef {
        let (precision, scale) = AMOUNT_DIGITS;
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("user", DataType::Utf8, true),
            Field::new("name", DataType::Utf8, true),
            Field::new("city", DataType::Utf8, true),
            Field::new("score", DataType::Float64, true),
            Field::new("amount", DataType::Decimal128(precision, scale), true),
            Field::new("created", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
            Field::new("flags", DataType::Int32, true),
            Field::new("active", DataType::Boolean, true),
            Field::new("tags", DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))), true),
        ]))
    }

    /// The row of this number; none when the lake ends before it.
    #[must_use]
    pub fn row(&self, number: u64) -> Option<TruthRow> {
        (number < self.spec.rows).then(|| self.truth.row(number))
    }

    /// The row whose `id` this is; none when the lake has no such key.
    #[must_use]
    pub fn row_of_int_key(&self, id: i64) -> Option<TruthRow> {
        self.row(Truth::number_of_id(id)?).filter(|row| row.id == id)
    }

    /// The row whose `user` this is; none when the lake has no such key.
    #[must_use]
    pub fn row_of_string_key(&self, user: &str) -> Option<TruthRow> {
        self.row(self.truth.number_of_user(user)?).filter(|row| row.user == user)
    }

    /// The number of the file that holds a row; none when the lake ends before it.
    #[must_use]
    pub fn file_of_row(&self, number: u64) -> Option<u32> {
        if number >= self.spec.rows {
            return None;
        }
        // The inverse of `first_row`: the last file that begins at this row or before it.
        let guess = u128::from(number) * u128::from(self.spec.files) / u128::from(self.spec.rows);
        let mut file = u32::try_from(guess).ok()?;
        while self.first_row(file + 1) <= number {
            file += 1;
        }
        let (from_start, from_end) = (number - self.first_row(file), self.first_row(file + 1) - 1 - number);
        if file > 0 && self.changes_places(file, from_start) {
            Some(file - 1)
        } else if file + 1 < self.spec.files && self.changes_places(file + 1, from_end) {
            Some(file + 1)
        } else {
            Some(file)
        }
    }

    /// A file's name, which sorts by its number.
    #[must_use]
    pub fn file_name(file: u32) -> String {
        format!("part-{file:05}.parquet")
    }

    /// All files, each made when the iterator comes to it.
    pub fn files(&self) -> impl Iterator<Item = anyhow::Result<(String, Bytes)>> + '_ {
        (0..self.spec.files).map(|file| Ok((Self::file_name(file), self.file(file)?)))
    }

    /// Writes all files into a directory, which is made if need be, and returns their paths.
    ///
    /// # Errors
    /// When the directory or a file cannot be written.
    pub fn write_to(&self, directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make the directory {}", directory.display()))?;
        self.files()
            .map(|file| {
                let (name, bytes) = file?;
                let path = directory.join(name);
                fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
                Ok(path)
            })
            .collect()
    }

    /// One file's bytes.
    ///
    /// # Errors
    /// When the lake has no such file, or when the Parquet writer fails.
    pub fn file(&self, file: u32) -> anyhow::Result<Bytes> {
        ensure!(file < self.spec.files, "the lake has {} files and no file {file}", self.spec.files);
        let rows = self.rows_of_file(file);
        let mut writer = ArrowWriter::try_new(Vec::new(), Self::schema(), Some(writer_properties(file, rows.len())?))?;
        let handed_over = if is_indexed(file) { SMALL_BATCH } else { BATCH_ROWS };
        for numbers in rows.chunks(BATCH_ROWS) {
            let batch = self.batch(numbers)?;
            for start in (0..batch.num_rows()).step_by(handed_over) {
                writer.write(&batch.slice(start, handed_over.min(batch.num_rows() - start)))?;
            }
        }
        Ok(Bytes::from(writer.into_inner()?))
    }

    /// The numbers of a file's rows, in the file's order.
    #[must_use]
    pub fn rows_of_file(&self, file: u32) -> Vec<u64> {
        let start = self.first_row(file).saturating_sub(self.overlap);
        let end = self.first_row(file.saturating_add(1)).saturating_add(self.overlap);
        (start..end).filter(|number| self.file_of_row(*number) == Some(file)).collect()
    }

    /// The first row of a file before rows change places.
    fn first_row(&self, file: u32) -> u64 {
        let row = u128::from(self.spec.rows) * u128::from(file) / u128::from(self.spec.files);
        u64::try_from(row).unwrap_or(u64::MAX)
    }

    /// Whether the rows at this distance on both sides of a file's beginning have changed places. The farthest pair
    /// always has, so that every pair of neighbours overlaps.
    fn changes_places(&self, file: u32, distance: u64) -> bool {
        distance + 1 == self.overlap
            || (distance < self.overlap && self.truth.changes_places(u64::from(file) << 32 | distance))
    }

    fn batch(&self, numbers: &[u64]) -> anyhow::Result<RecordBatch> {
        let (truth, rows) = (&self.truth, numbers.len());
        let mut ids = Int64Builder::with_capacity(rows);
        let mut users = StringBuilder::with_capacity(rows, rows * 16);
        let mut names = StringBuilder::with_capacity(rows, rows * 32);
        let mut cities = StringBuilder::with_capacity(rows, rows * 12);
        let mut scores = Float64Builder::with_capacity(rows);
        let mut amounts = Decimal128Builder::with_capacity(rows);
        let mut created = TimestampMicrosecondBuilder::with_capacity(rows);
        let mut flags = Int32Builder::with_capacity(rows);
        let mut active = BooleanBuilder::with_capacity(rows);
        let mut tags = ListBuilder::new(StringBuilder::new());
        let mut text = String::new();
        for &number in numbers {
            ids.append_value(truth.id(number));
            truth.write_user(number, &mut text);
            users.append_value(&text);
            let has_name = truth.write_name(number, &mut text);
            names.append_option(has_name.then_some(&text));
            cities.append_value(truth.city(number));
            scores.append_value(truth.score(number));
            amounts.append_value(truth.amount(number));
            created.append_value(truth.created(number));
            flags.append_value(truth.flags(number));
            active.append_value(truth.active(number));
            let elements = truth.tags(number);
            let is_valid = elements.is_some();
            elements.into_iter().flatten().for_each(|tag| tags.values().append_value(tag));
            tags.append(is_valid);
        }
        let (precision, scale) = AMOUNT_DIGITS;
        Ok(RecordBatch::try_new(
            Self::schema(),
            vec![
                Arc::new(ids.finish()),
                Arc::new(users.finish()),
                Arc::new(names.finish()),
                Arc::new(cities.finish()),
                Arc::new(scores.finish()),
                Arc::new(amounts.finish().with_precision_and_scale(precision, scale)?),
                Arc::new(created.finish().with_timezone("UTC")),
                Arc::new(flags.finish()),
                Arc::new(active.finish()),
                Arc::new(tags.finish()),
            ],
        )?)
    }
}

/// Whether a file is written for seeking.
fn is_indexed(file: u32) -> bool {
    file.is_multiple_of(2)
}

/// How a file of this number and so many rows is written.
fn writer_properties(file: u32, rows: usize) -> anyhow::Result<WriterProperties> {
    let is_second_of_its_kind = file / 2 % 2 == 1;
    let compression =
        if is_second_of_its_kind { Compression::ZSTD(ZstdLevel::try_new(1)?) } else { Compression::SNAPPY };
    let properties = WriterProperties::builder().set_compression(compression);
    if !is_indexed(file) {
        let group_rows = if is_second_of_its_kind { DUCKDB_GROUP_ROWS } else { PYARROW_GROUP_ROWS };
        return Ok(properties
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_data_page_size_limit(DEFAULT_DATA_PAGE_BYTES)
            .set_data_page_row_count_limit(usize::MAX)
            .set_max_row_group_row_count(Some(group_rows))
            .build());
    }
    let group_rows = (rows as u64).div_ceil(INDEXED_ROW_GROUPS).max(1);
    // A dictionary of keys would be one huge page before tiny ones; where values repeat it is what a writer chooses.
    let dictionary = |path: &[&str]| ColumnPath::new(path.iter().map(|part| (*part).to_owned()).collect());
    Ok(properties
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_data_page_size_limit(SMALL_DATA_PAGE_BYTES)
        .set_write_batch_size(SMALL_BATCH)
        .set_max_row_group_row_count(Some(usize::try_from(group_rows)?))
        .set_dictionary_enabled(false)
        .set_column_dictionary_enabled(dictionary(&["city"]), true)
        .set_column_dictionary_enabled(dictionary(&["tags", "list", "item"]), true)
        .build())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::collections::BTreeSet;

    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

    use super::truth::{CITIES, ID_STRIDE, MAX_TAGS, TAGS};
    use super::*;

    const SMALL: SampleSpec = SampleSpec { rows: 5_000, files: 4, seed: 3 };

    fn metadata(file: &Bytes) -> ParquetMetaData {
        ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional).parse_and_finish(file).unwrap()
    }

    fn read(file: &Bytes) -> Vec<TruthRow> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file.clone()).unwrap().build().unwrap();
        reader.flat_map(|batch| rows(&batch.unwrap())).collect()
    }

    fn rows(batch: &RecordBatch) -> Vec<TruthRow> {
        let column = |name: &str| batch.column_by_name(name).unwrap();
        let word = |words: &'static [&'static str], text: &str| *words.iter().find(|word| **word == text).unwrap();
        let row = |at: usize| {
            let id = column("id").as_primitive::<Int64Type>().value(at);
            let (names, tags) = (column("name").as_string::<i32>(), column("tags").as_list::<i32>());
            let elements = || {
                let list = tags.value(at);
                list.as_string::<i32>().iter().map(|tag| word(&TAGS, tag.unwrap())).collect()
            };
            TruthRow {
                number: id as u64 / ID_STRIDE,
                id,
                user: column("user").as_string::<i32>().value(at).to_owned(),
                name: names.is_valid(at).then(|| names.value(at).to_owned()),
                city: word(&CITIES, column("city").as_string::<i32>().value(at)),
                score: column("score").as_primitive::<Float64Type>().value(at),
                amount: column("amount").as_primitive::<Decimal128Type>().value(at),
                created_micros: column("created").as_primitive::<TimestampMicrosecondType>().value(at),
                flags: column("flags").as_primitive::<Int32Type>().value(at),
                active: column("active").as_boolean().value(at),
                tags: tags.is_valid(at).then(elements),
            }
        };
        (0..batch.num_rows()).map(row).collect()
    }

    #[test]
    fn what_is_read_back_is_the_truth() {
        let lake = SampleLake::new(SMALL).unwrap();
        let mut seen = BTreeSet::new();
        for (number, file) in lake.files().enumerate() {
            let (name, bytes) = file.unwrap();
            assert_eq!(name, format!("part-0000{number}.parquet"));
            let read = read(&bytes);
            assert!(read.is_sorted_by(|one, next| one.id < next.id), "sorted by id within a file");
            for row in read {
                assert_eq!(lake.row(row.number).as_ref(), Some(&row));
                assert_eq!(lake.row_of_int_key(row.id).as_ref(), Some(&row));
                assert_eq!(lake.row_of_string_key(&row.user).as_ref(), Some(&row));
                assert_eq!(lake.file_of_row(row.number), Some(number as u32));
                assert!(seen.insert(row.number), "row {} is in two files", row.number);
            }
        }
        assert_eq!(seen.len() as u64, SMALL.rows);
        assert_eq!(lake.row(SMALL.rows), None);
    }

    #[test]
    fn absent_keys_have_no_row() {
        let lake = SampleLake::new(SMALL).unwrap();
        let present: BTreeSet<i64> = (0..SMALL.rows).map(|number| lake.row(number).unwrap().id).collect();
        let all = -1..(SMALL.rows * ID_STRIDE) as i64 + 1;
        for id in all {
            assert_eq!(lake.row_of_int_key(id).map(|row| row.id), present.contains(&id).then_some(id));
        }
        for user in ["", "u-", "u-zz", "U-000000000000", "u-1", "u-+00000000001", "u-ffffffffffffffffffff"] {
            assert_eq!(lake.row_of_string_key(user), None, "{user}");
        }
        let mut other = String::new();
        lake.truth.write_user(SMALL.rows, &mut other);
        assert_eq!(lake.row_of_string_key(&other), None, "the name of a row behind the end");
    }

    #[test]
    fn values_have_nulls_and_spread() {
        let lake = SampleLake::new(SMALL).unwrap();
        let rows: Vec<TruthRow> = (0..SMALL.rows).map(|number| lake.row(number).unwrap()).collect();
        let users: BTreeSet<&str> = rows.iter().map(|row| row.user.as_str()).collect();
        assert_eq!(users.len() as u64, SMALL.rows, "user names are unique");
        assert!(!rows.is_sorted_by(|one, next| one.user < next.user));
        assert!(rows.iter().any(|row| row.name.is_none()) && rows.iter().any(|row| row.tags.is_none()));
        assert!(rows.iter().any(|row| row.amount < 0) && rows.iter().any(|row| !row.active));
        for length in 0..=MAX_TAGS as usize {
            assert!(rows.iter().any(|row| row.tags.as_ref().is_some_and(|tags| tags.len() == length)));
        }
        assert_eq!(rows.iter().map(|row| row.city).collect::<BTreeSet<_>>().len(), CITIES.len());
        let reseeded = SampleLake::new(SampleSpec { seed: 4, ..SMALL }).unwrap();
        assert_ne!(reseeded.row(0).unwrap().user, rows[0].user);
    }

    #[test]
    fn only_files_of_even_number_have_a_page_index() {
        let lake = SampleLake::new(SampleSpec { rows: 160_000, files: 4, seed: 1 }).unwrap();
        for (number, file) in lake.files().enumerate() {
            let bytes = file.unwrap().1;
            let metadata = metadata(&bytes);
            let chunks = || metadata.row_groups().iter().flat_map(|group| group.columns());
            let codecs: BTreeSet<String> = chunks().map(|chunk| format!("{:?}", chunk.compression())).collect();
            assert_eq!((codecs.len(), codecs.first().unwrap().starts_with("SNAPPY")), (1, number < 2), "{codecs:?}");
            assert!(chunks().all(|chunk| chunk.statistics().is_some()));
            let rows: i64 = metadata.row_groups().iter().map(|group| group.num_rows()).sum();
            assert_eq!(rows, 40_000);
            if number % 2 == 1 {
                assert_eq!(metadata.num_row_groups(), 1);
                assert!(metadata.offset_index().is_none() && metadata.column_index().is_none());
                assert!(chunks().all(|chunk| chunk.offset_index_offset().is_none()), "not even an empty one");
                assert!(chunks().all(|chunk| chunk.column_index_offset().is_none()));
                continue;
            }
            assert_eq!(metadata.num_row_groups() as u64, INDEXED_ROW_GROUPS);
            assert!(metadata.column_index().is_some());
            for group in metadata.offset_index().unwrap() {
                for (column, index) in group.iter().enumerate() {
                    let largest = index.page_locations().iter().map(|page| page.compressed_page_size).max().unwrap();
                    assert!(largest as usize <= SMALL_DATA_PAGE_BYTES * 5 / 4, "column {column}: {largest} bytes");
                }
                assert!(group[0].page_locations().len() > 1, "a row group of the key has several data pages");
            }
        }
    }

    #[test]
    fn key_ranges_overlap_with_neighbours_only() {
        for spec in [SMALL, SampleSpec { rows: 16, files: 4, seed: 9 }, SampleSpec { rows: 1_003, files: 7, seed: 1 }] {
            let lake = SampleLake::new(spec).unwrap();
            let files: Vec<Vec<u64>> = (0..spec.files).map(|file| lake.rows_of_file(file)).collect();
            assert_eq!(files.iter().map(Vec::len).sum::<usize>() as u64, spec.rows);
            for (at, rows) in files.iter().enumerate() {
                if let Some(next) = files.get(at + 1) {
                    assert!(next.first() < rows.last(), "{spec:?}: file {at} and the next overlap");
                }
                if let Some(second) = files.get(at + 2) {
                    assert!(rows.last() < second.first(), "{spec:?}: file {at} and the one after the next do not");
                }
            }
        }
    }

    #[test]
    fn a_lake_is_reproducible_and_refuses_nonsense() {
        let lake = SampleLake::new(SMALL).unwrap();
        assert_eq!(lake.file(1).unwrap(), lake.file(1).unwrap());
        assert!(lake.file(4).is_err());
        for (rows, files) in [(100, 0), (15, 4), (USER_MASK + 1, 1)] {
            assert!(SampleLake::new(SampleSpec { rows, files, seed: 0 }).is_err());
        }
        let directory = tempfile::tempdir().unwrap();
        let paths = lake.write_to(&directory.path().join("lake")).unwrap();
        assert_eq!(paths.len(), 4);
        assert_eq!(fs::read(&paths[2]).unwrap(), lake.file(2).unwrap());
    }
}
