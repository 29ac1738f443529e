//! A question to one file version of which all but the keys is resolved: columns found, the projection made.
//!
//! Who asks the same of a file again and again resolves it once and keeps this. It must not know keys' rows, nor where
//! bytes are.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use parquet::basic::Type as Physical;

use crate::answer::Form;
use crate::bounds_list::BoundsList;
use crate::decoded::DecodedPages;
use crate::error::Error;
use crate::file_index::FileIndex;
use crate::int96::Int96Columns;
use crate::key::Key;
use crate::key_column::{KeyColumn, Probes};
use crate::limits::Limits;
use crate::probe::{Point, Probe, probe, probe_int96};
use crate::projection::Projection;
use crate::schema::RowSchema;
use crate::search::Query;

/// Keys by which [`Prepared::key_pages`] judges.
const SAMPLED_KEYS: usize = 16;

/// A question without keys, resolved against one file version.
pub struct Prepared {
    pub(crate) index: Arc<FileIndex>,
    pub(crate) column: KeyColumn,
    pub(crate) projection: Arc<Projection>,
    pub(crate) form: Form,
    pub(crate) row_limit: Option<u32>,
    pub(crate) limits: Arc<Limits>,
    /// What the footer says of the key column, per row group.
    pub(crate) groups: BoundsList,
    pub(crate) int96: Int96Columns,
    decoded: Option<Arc<DecodedPages>>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.projection.schema.columns.len();
        f.debug_struct("Prepared").field("key", &self.column.name).field("columns", &columns).finish()
    }
}

/// A key as its column's values compare: two keys are equal when they ask for the same rows, however they were written.
/// It hashes fast and is small, so that caches are keyed by it.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyPoint(Asked);

#[derive(Debug, Clone, PartialEq)]
enum Asked {
    Point(Point),
    Null,
}

// A point is never NaN.
impl Eq for KeyPoint {}

impl Hash for KeyPoint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.0 {
            Asked::Point(Point::Int(value)) => {
                // Wide integers are rare, and equality tells them apart.
                state.write_u64(*value as u64);
            }
            Asked::Point(Point::Float(value)) => state.write_u64(value.to_bits()),
            Asked::Point(Point::Bytes(bytes)) => state.write(bytes),
            Asked::Null => state.write_u8(0),
        }
    }
}

impl KeyPoint {
    /// Bytes that it takes beside itself.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Asked::Point(Point::Bytes(bytes)) => bytes.len(),
            _ => 0,
        }
    }

    /// The value; none for null.
    pub(crate) fn point(&self) -> Option<&Point> {
        match &self.0 {
            Asked::Point(point) => Some(point),
            Asked::Null => None,
        }
    }
}

impl Prepared {
    /// Resolves a query's columns; its keys are left alone.
    ///
    /// # Errors
    /// No such column, or one that cannot be a key.
    pub fn new(index: Arc<FileIndex>, query: &Query, limits: Arc<Limits>) -> Result<Self, Error> {
        let column = index.key_column(query.key_column.as_deref())?;
        let projection = Arc::new(Projection::resolve(index.schema(), query.columns.as_deref())?);
        let plain = Self::of_columns(index, column, projection, limits);
        Ok(Self { form: query.form, row_limit: query.row_limit, ..plain })
    }

    /// The same with a cache of decoded data pages, which searches then look into first and add to.
    pub fn with_decoded(mut self, decoded: Arc<DecodedPages>) -> Self {
        self.decoded = Some(decoded);
        self
    }

    /// The cache of decoded data pages.
    pub(crate) fn decoded(&self) -> Option<&DecodedPages> {
        self.decoded.as_deref()
    }

    /// Row groups that may hold any of the keys, by their bounds, ascending.
    pub(crate) fn candidates(&self, probes: &Probes) -> Vec<usize> {
        let mut groups = self.groups.candidates(probes);
        groups.retain(|group| self.index.groups[*group].rows > 0);
        groups
    }

    /// A question for compact rows of columns that were found already.
    pub(crate) fn of_columns(
        index: Arc<FileIndex>,
        column: KeyColumn,
        projection: Arc<Projection>,
        limits: Arc<Limits>,
    ) -> Self {
        let int96 = Int96Columns::new(&projection, index.schema());
        let groups = (0..index.groups.len()).map(|group| index.group_bounds(group, &column));
        let groups = BoundsList::new(groups.collect());
        let (form, row_limit) = (Form::CompactRows, None);
        Self { index, column, projection, form, row_limit, limits, groups, int96, decoded: None }
    }

    /// The file's index.
    pub fn index(&self) -> &Arc<FileIndex> {
        &self.index
    }

    /// The name of the key column.
    pub fn key_name(&self) -> &str {
        &self.column.name
    }

    /// The ordinal of the key column among the file's leaf columns.
    pub fn key_leaf(&self) -> usize {
        self.column.leaf
    }

    /// The answer's columns, as long as no INT96 value asks for another unit; see [`Prepared::is_schema_fixed`].
    pub fn schema(&self) -> &Arc<RowSchema> {
        &self.projection.schema
    }

    /// Whether every answer has exactly [`Prepared::schema`]: INT96 timestamps choose their unit by their values.
    pub fn is_schema_fixed(&self) -> bool {
        self.int96.is_empty()
    }

    /// The answer's form.
    pub fn form(&self) -> Form {
        self.form
    }

    /// At most so many rows per key.
    pub fn row_limit(&self) -> Option<u32> {
        self.row_limit
    }

    /// A key as the key column sees it; none where no row can have it.
    ///
    /// # Errors
    /// A key that cannot be read as the column's type.
    pub fn key_point(&self, key: &Key) -> Result<Option<KeyPoint>, Error> {
        let column = &self.column;
        let probed = match column.descr.physical_type() {
            Physical::INT96 if *key != Key::Null => probe_int96(key, &column.name)?,
            _ => probe(key, &column.ty, &column.name)?,
        };
        Ok(match probed {
            Probe::Point(point) => Some(KeyPoint(Asked::Point(point))),
            Probe::Null => Some(KeyPoint(Asked::Null)),
            Probe::Never => None,
        })
    }

    /// How many data pages of the key column a key may be in on average, by what is known of their bounds by now: 1
    /// where rows are sorted by it, most of them where its values are scattered. None where bounds tell nothing.
    pub fn key_pages(&self) -> Option<f64> {
        let (groups, leaf) = (self.index.groups.len(), self.column.leaf);
        let (mut found, mut keys) = (0, 0);
        for sample in 0..SAMPLED_KEYS {
            let group = sample * groups / SAMPLED_KEYS;
            let table = self.index.table(group, leaf).filter(|table| table.has_ranges());
            // Of a data page in another place each time, as a row of the file would be drawn.
            let lower = table.and_then(|table| table.lower(sample * table.len() / SAMPLED_KEYS));
            let Some(point) = lower else { continue };
            let probes = Probes::of_point(point);
            let pages_in = |group: &usize| self.index.table(*group, leaf).map_or(1, |t| t.candidates(&probes).len());
            found += self.candidates(&probes).iter().map(pages_in).sum::<usize>();
            keys += 1;
        }
        (keys > 0).then(|| found as f64 / f64::from(keys))
    }

    /// Whether any of these keys may be in the file, by the row groups' bounds.
    ///
    /// # Errors
    /// A key that cannot be read as the column's type.
    pub fn may_hold(&self, keys: &[Key]) -> Result<bool, Error> {
        let probes = Probes::new(keys, &self.column)?;
        Ok(!self.candidates(&probes).is_empty())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;

    use crate::machine::drive_bytes;
    use crate::open::Open;
    use crate::search::Search;

    /// Two row groups of ten data pages each: one column is sorted, two are not.
    fn file() -> Bytes {
        let scattered = |id: i64| id * 7_919 % 10_007;
        let columns: [(&str, ArrayRef); 3] = [
            ("sorted", Arc::new(Int64Array::from_iter_values(0..10_000))),
            ("number", Arc::new(Int64Array::from_iter_values((0..10_000).map(scattered)))),
            ("text", Arc::new(StringArray::from_iter_values((0..10_000).map(|id| format!("{:05}", scattered(id)))))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(5_000))
            .set_data_page_row_count_limit(500)
            .set_write_batch_size(500);
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build())).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap().into()
    }

    #[test]
    fn it_is_told_in_how_many_data_pages_a_key_may_be() {
        let (file, limits) = (file(), Arc::new(Limits::default()));
        let index = drive_bytes(Open::new(64 << 10, Arc::clone(&limits)), &file).unwrap();
        for (name, key, at_least, at_most) in [
            ("sorted", Key::Int(4_000), 1.0, 1.0),
            ("number", Key::Int(4_000), 5.0, 20.0),
            ("text", Key::Text("04000".to_owned()), 5.0, 20.0),
        ] {
            let query = Query {
                key_column: Some(name.to_owned()),
                keys: vec![key],
                columns: None,
                form: Form::CompactRows,
                row_limit: None,
            };
            let prepared = Arc::new(Prepared::new(Arc::clone(&index), &query, Arc::clone(&limits)).unwrap());
            assert_eq!(prepared.key_pages(), None, "{name}: nothing was read yet");
            drive_bytes(Search::of(Arc::clone(&prepared), &query.keys).unwrap(), &file).unwrap();
            let pages = prepared.key_pages().unwrap();
            assert!((at_least..=at_most).contains(&pages), "{name}: {pages}");
        }
    }

    #[test]
    fn keys_that_ask_for_the_same_rows_are_one_point() {
        let point = |asked| KeyPoint(asked);
        let int = |value: i128| point(Asked::Point(Point::Int(value)));
        let bytes = |bytes: &[u8]| point(Asked::Point(Point::Bytes(bytes.into())));
        let all: HashSet<KeyPoint> =
            [int(5), int(5), int(5 + (1 << 64)), int(-5), bytes(b"5"), bytes(b"5"), point(Asked::Null)].into();
        assert_eq!(all.len(), 5);
        assert_eq!((int(5).heap_bytes(), bytes(b"abc").heap_bytes()), (0, 3));
    }
}
