//! A key column: how its stored values become [`Point`]s, which of its statistics may be believed, and which rows of a
//! data page hold a key.

use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::column::page::Page;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{DataType, Int96};
use parquet::schema::types::ColumnDescPtr;

use crate::data_page::{PageSequence, Part};
use crate::error::Error;
use crate::footer::{Bound, Stats};
use crate::key::Key;
use crate::probe::{Point, Probe, probe};
use crate::schema::Type;

/// The nanoseconds of a day, for INT96 timestamps.
const DAY_NANOSECONDS: i128 = 86_400_000_000_000;
/// The Julian day number of 1970-01-01.
const UNIX_EPOCH_JULIAN_DAY: i128 = 2_440_588;

/// One leaf column that is searched.
#[derive(Debug, Clone)]
pub(crate) struct KeyColumn {
    pub(crate) leaf: usize,
    pub(crate) name: String,
    pub(crate) ty: Type,
    /// Integers are stored as their bits, which are read as unsigned.
    unsigned: bool,
    descr: ColumnDescPtr,
}

impl KeyColumn {
    pub(crate) fn new(leaf: usize, name: String, ty: Type, descr: ColumnDescPtr) -> Result<Self, Error> {
        if descr.max_rep_level() > 0 {
            return Err(Error::Unsupported(format!(
                "column `{name}` is inside a list or map: it cannot be a key column"
            )));
        }
        let unsigned = matches!(ty, Type::UInt8 | Type::UInt16 | Type::UInt32 | Type::UInt64);
        Ok(Self { leaf, name, ty, unsigned, descr })
    }

    /// Whether statistics in this column's type can order values at all.
    fn has_order(&self) -> bool {
        let interval = matches!(self.ty, Type::Interval | Type::Null);
        !interval && self.descr.physical_type() != Physical::INT96
    }

    /// Signed comparison of the physical value is the type's order, which is what the deprecated statistics used.
    fn signed_order(&self) -> bool {
        let number = matches!(
            self.descr.physical_type(),
            Physical::INT32 | Physical::INT64 | Physical::FLOAT | Physical::DOUBLE
        );
        number && !self.unsigned
    }

    /// A value in plain encoding.
    fn point(&self, bytes: &[u8]) -> Option<Point> {
        Some(match self.descr.physical_type() {
            Physical::BOOLEAN => Point::Int((*bytes.first()? & 1).into()),
            Physical::INT32 => Point::Int(self.int32(i32::from_le_bytes(bytes.try_into().ok()?))),
            Physical::INT64 => Point::Int(self.int64(i64::from_le_bytes(bytes.try_into().ok()?))),
            Physical::FLOAT => Point::float(f32::from_le_bytes(bytes.try_into().ok()?).into())?,
            Physical::DOUBLE => Point::float(f64::from_le_bytes(bytes.try_into().ok()?))?,
            Physical::INT96 => return None,
            Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY => self.byte_array(bytes)?,
        })
    }

    fn int32(&self, value: i32) -> i128 {
        if self.unsigned { (value as u32).into() } else { value.into() }
    }

    fn int64(&self, value: i64) -> i128 {
        if self.unsigned { (value as u64).into() } else { value.into() }
    }

    fn byte_array(&self, bytes: &[u8]) -> Option<Point> {
        match self.ty {
            Type::Decimal { precision, .. } => Point::decimal_bytes(bytes, precision),
            Type::Float16 => Point::float(half::f16::from_le_bytes(bytes.try_into().ok()?).into()),
            _ => Some(Point::Bytes(bytes.into())),
        }
    }

    /// A lower bound of values from a stored minimum; none where it says nothing.
    pub(crate) fn lower(&self, bound: &Bound) -> Option<Point> {
        if bound.cut && !self.sorts_as_bytes() { None } else { self.point(&bound.bytes) }
    }

    /// An upper bound of values from a stored maximum. A cut one is raised to the next prefix.
    pub(crate) fn upper(&self, bound: &Bound) -> Option<Point> {
        if !bound.cut {
            return self.point(&bound.bytes);
        }
        if !self.sorts_as_bytes() {
            return None;
        }
        let mut raised = bound.bytes.to_vec();
        while raised.pop_if(|byte| *byte == u8::MAX).is_some() {}
        *raised.last_mut()? += 1;
        Some(Point::Bytes(raised.into()))
    }

    fn sorts_as_bytes(&self) -> bool {
        matches!(self.ty, Type::String | Type::Binary | Type::Fixed(_) | Type::Uuid)
    }

    /// What a chunk's statistics say, as far as they may be believed
    /// (<https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift>, `Statistics`,
    /// `ColumnOrder`).
    pub(crate) fn chunk_bounds(&self, stats: Option<&Stats>, values: i64, type_ordered: bool) -> Bounds {
        let Some(stats) = stats else { return Bounds::default() };
        let ordered = self.has_order() && (self.signed_order() || (type_ordered && !stats.deprecated));
        let range = if ordered {
            stats.min.as_ref().and_then(|min| self.lower(min)).zip(stats.max.as_ref().and_then(|max| self.upper(max)))
        } else {
            None
        };
        let only_nulls = stats.nulls.is_some_and(|nulls| i64::try_from(nulls) == Ok(values) && values > 0);
        Bounds { range: range.filter(|(min, max)| min <= max), only_nulls, no_nulls: stats.nulls == Some(0) }
    }

    /// What a column index says of one data page.
    pub(crate) fn page_bounds(&self, null_page: bool, min: &Bound, max: &Bound, nulls: Option<u64>) -> Bounds {
        let range = if self.has_order() && !null_page { self.lower(min).zip(self.upper(max)) } else { None };
        Bounds { range: range.filter(|(min, max)| min <= max), only_nulls: null_page, no_nulls: nulls == Some(0) }
    }
}

/// What is known of the values in a row group or data page; the default is: nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Bounds {
    /// All non-null values are within, both ends included.
    pub(crate) range: Option<(Point, Point)>,
    pub(crate) only_nulls: bool,
    pub(crate) no_nulls: bool,
}

/// The keys of a query, ready to be compared with stored values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probes {
    /// Sorted by point; each with the index of its key in the query.
    points: Vec<(Point, u32)>,
    /// Keys that ask for null.
    nulls: Vec<u32>,
}

impl Probes {
    /// # Errors
    /// A key that cannot be read as the column's type.
    pub(crate) fn new(keys: &[Key], column: &KeyColumn) -> Result<Self, Error> {
        let mut probes = Self::default();
        for (i, key) in keys.iter().enumerate() {
            match probe(key, &column.ty, &column.name)? {
                Probe::Point(point) => probes.points.push((point, i as u32)),
                Probe::Null => probes.nulls.push(i as u32),
                Probe::Never => {}
            }
        }
        // Points of one column are of one variant and never NaN, so the order is total.
        probes.points.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(std::cmp::Ordering::Equal));
        Ok(probes)
    }

    /// Whether rows within these bounds may hold any of the keys.
    pub(crate) fn may_be_in(&self, bounds: &Bounds) -> bool {
        let null = !self.nulls.is_empty() && !bounds.no_nulls;
        let point = !bounds.only_nulls
            && match &bounds.range {
                None => !self.points.is_empty(),
                Some((min, max)) => {
                    let first = self.points.partition_point(|(point, _)| point < min);
                    self.points.get(first).is_some_and(|(point, _)| point <= max)
                }
            };
        null || point
    }

    fn matching(&self, order: impl Fn(&Point) -> std::cmp::Ordering) -> impl Iterator<Item = u32> {
        let first = self.points.partition_point(|(point, _)| order(point).is_lt());
        self.points[first..].iter().take_while(move |(point, _)| order(point).is_eq()).map(|(_, key)| *key)
    }

    fn int(&self, value: i128) -> impl Iterator<Item = u32> {
        self.matching(move |point| match point {
            Point::Int(point) => point.cmp(&value),
            _ => std::cmp::Ordering::Less,
        })
    }

    fn any(&self, value: Option<Point>) -> impl Iterator<Item = u32> {
        let found = value
            .map(|value| self.matching(move |point| point.partial_cmp(&value).unwrap_or(std::cmp::Ordering::Less)));
        found.into_iter().flatten()
    }

    fn bytes(&self, value: &[u8]) -> impl Iterator<Item = u32> {
        self.matching(move |point| match point {
            Point::Bytes(point) => (**point).cmp(value),
            _ => std::cmp::Ordering::Less,
        })
    }
}

/// A row that holds a key: the row's number and the key's index in the query.
pub(crate) type Match = (u64, u32);

/// Finds the rows of one data page that hold a key. `first_row` is the number of the page's first row.
///
/// # Errors
/// The page cannot be decoded.
pub(crate) fn matches_in_page(
    column: &KeyColumn,
    probes: &Probes,
    dictionary: Option<Page>,
    (page, first_row): (Page, u64),
    matches: &mut Vec<Match>,
) -> Result<(), Error> {
    let rows = page.num_values() as usize;
    let sequence = PageSequence::new(dictionary, [Part::Data { page, rows }], true);
    let reader = get_column_reader(column.descr.clone(), Box::new(sequence));
    let mut sink = Sink { probes, max_def: column.descr.max_def_level(), first_row, matches };
    match reader {
        ColumnReader::BoolColumnReader(r) => {
            sink.scan(r, rows, |probes, v: &bool, out| out.extend(probes.int((*v).into())))
        }
        ColumnReader::Int32ColumnReader(r) => {
            sink.scan(r, rows, |probes, v: &i32, out| out.extend(probes.int(column.int32(*v))))
        }
        ColumnReader::Int64ColumnReader(r) => {
            sink.scan(r, rows, |probes, v: &i64, out| out.extend(probes.int(column.int64(*v))))
        }
        ColumnReader::Int96ColumnReader(r) => {
            sink.scan(r, rows, |probes, v: &Int96, out| out.extend(probes.int(int96_nanoseconds(v))))
        }
        ColumnReader::FloatColumnReader(r) => {
            sink.scan(r, rows, |probes, v: &f32, out| out.extend(probes.any(Point::float((*v).into()))))
        }
        ColumnReader::DoubleColumnReader(r) => {
            sink.scan(r, rows, |probes, v: &f64, out| out.extend(probes.any(Point::float(*v))))
        }
        ColumnReader::ByteArrayColumnReader(r) => {
            sink.scan(r, rows, |probes, v, out| column.match_bytes(probes, v.data(), out))
        }
        ColumnReader::FixedLenByteArrayColumnReader(r) => {
            sink.scan(r, rows, |probes, v, out| column.match_bytes(probes, v.data(), out))
        }
    }
}

impl KeyColumn {
    fn match_bytes(&self, probes: &Probes, value: &[u8], out: &mut Vec<u32>) {
        if self.sorts_as_bytes() || self.ty == Type::Interval {
            out.extend(probes.bytes(value));
        } else {
            out.extend(probes.any(self.byte_array(value)));
        }
    }
}

fn int96_nanoseconds(value: &Int96) -> i128 {
    let [low, high, day] = [value.data()[0], value.data()[1], value.data()[2]].map(i128::from);
    (day - UNIX_EPOCH_JULIAN_DAY) * DAY_NANOSECONDS + (high << 32 | low)
}

struct Sink<'a> {
    probes: &'a Probes,
    max_def: i16,
    first_row: u64,
    matches: &'a mut Vec<Match>,
}

impl Sink<'_> {
    fn scan<T: DataType>(
        &mut self,
        mut reader: ColumnReaderImpl<T>,
        rows: usize,
        find: impl Fn(&Probes, &T::T, &mut Vec<u32>),
    ) -> Result<(), Error> {
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let optional = self.max_def > 0;
        let (read, _, _) = reader.read_records(rows, optional.then_some(&mut levels), None, &mut values)?;
        if read != rows {
            return Err(Error::corrupt("a data page has fewer values than its header says"));
        }
        let mut keys = Vec::new();
        let mut values = values.iter();
        for row in 0..rows {
            if optional && levels.get(row).is_none_or(|level| *level < self.max_def) {
                keys.extend_from_slice(&self.probes.nulls);
            } else if let Some(value) = values.next() {
                find(self.probes, value, &mut keys);
            }
            for key in keys.drain(..) {
                self.matches.push((self.first_row + row as u64, key));
            }
        }
        Ok(())
    }
}

/// The logical type of a leaf that can be read as single values
/// (<https://github.com/apache/parquet-format/blob/master/LogicalTypes.md>).
pub(crate) fn leaf_type(descr: &ColumnDescPtr, arrow: &Type) -> Type {
    match (descr.logical_type_ref(), descr.converted_type()) {
        (Some(LogicalType::Uuid), _) => Type::Uuid,
        (_, ConvertedType::INTERVAL) => Type::Interval,
        _ => arrow.clone(),
    }
}
