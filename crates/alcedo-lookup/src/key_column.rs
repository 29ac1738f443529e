//! A key column: how its stored values become [`Point`]s, and which of its statistics may be believed.

use std::cmp::Ordering;

use parquet::basic::Type as Physical;
use parquet::data_type::Int96;
use parquet::schema::types::ColumnDescPtr;

use crate::error::Error;
use crate::footer::{Bound, MAX_BOUND_BYTES, Stats};
use crate::int96::since_1970;
use crate::key::Key;
use crate::probe::{Point, Probe, probe, probe_int96};
use crate::schema::Type;

/// One leaf column that is searched.
#[derive(Debug, Clone)]
pub(crate) struct KeyColumn {
    pub(crate) leaf: usize,
    pub(crate) name: String,
    pub(crate) ty: Type,
    /// Integers are stored as their bits, which are read as unsigned.
    unsigned: bool,
    pub(crate) descr: ColumnDescPtr,
}

/// A stored value of a key column, as it compares with keys.
pub(crate) enum Stored<'a> {
    Int(i128),
    Float(f64),
    Bytes(&'a [u8]),
    /// A decimal in bytes; none where it is no value of its type.
    Point(Option<Point>),
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

    /// A column of a type, for tests that compare values.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(crate) fn of_type(ty: &str) -> Self {
        let leaf = parquet::schema::types::Type::primitive_type_builder("k", Physical::INT64).build().unwrap();
        let descr = parquet::schema::types::ColumnDescriptor::new(leaf.into(), 0, 0, "k".into());
        Self::new(0, "k".into(), ty.parse().unwrap(), descr.into()).unwrap()
    }

    /// Whether values are byte arrays of any kind.
    pub(crate) fn is_byte_array(&self) -> bool {
        matches!(self.descr.physical_type(), Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY)
    }

    /// Whether statistics in this column's type can order values at all.
    fn has_order(&self) -> bool {
        let unordered = matches!(self.ty, Type::Interval | Type::Null);
        // Of decimals in byte arrays of any length some writers compare the bytes, which is not their order.
        let loose = matches!(self.ty, Type::Decimal { .. }) && self.descr.physical_type() == Physical::BYTE_ARRAY;
        !unordered && !loose && self.descr.physical_type() != Physical::INT96
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
            // A number of another length was cut like a text, and says nothing.
            Physical::FIXED_LEN_BYTE_ARRAY
                if !self.sorts_as_bytes() && usize::try_from(self.descr.type_length()) != Ok(bytes.len()) =>
            {
                return None;
            }
            Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY => self.byte_array(bytes)?,
        })
    }

    pub(crate) fn int32(&self, value: i32) -> i128 {
        if self.unsigned { (value as u32).into() } else { value.into() }
    }

    pub(crate) fn int64(&self, value: i64) -> i128 {
        if self.unsigned { (value as u64).into() } else { value.into() }
    }

    fn byte_array(&self, bytes: &[u8]) -> Option<Point> {
        match self.ty {
            Type::Decimal { precision, .. } => Point::decimal_bytes(bytes, precision),
            Type::Float16 => Point::float(half::f16::from_le_bytes(bytes.try_into().ok()?).into()),
            _ => Some(Point::Bytes(bytes.into())),
        }
    }

    /// A value of a byte array column as it compares.
    pub(crate) fn stored_bytes<'a>(&self, bytes: &'a [u8]) -> Stored<'a> {
        if self.sorts_as_bytes() || self.ty == Type::Interval {
            Stored::Bytes(bytes)
        } else {
            Stored::Point(self.byte_array(bytes))
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
        if self.sorts_as_bytes() { raised(&bound.bytes) } else { None }
    }

    fn sorts_as_bytes(&self) -> bool {
        matches!(self.ty, Type::String | Type::Binary | Type::Fixed(_) | Type::Uuid)
    }

    /// What a chunk's statistics say, as far as they may be believed
    /// (<https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift>, `Statistics`,
    /// `ColumnOrder`).
    pub(crate) fn chunk_bounds(&self, stats: Option<&Stats>, values: i64, type_ordered: bool) -> Bounds {
        let Some(stats) = stats else { return Bounds::default() };
        let ordered = self.is_ordered(type_ordered && !stats.deprecated);
        let range = if ordered {
            stats.min.as_ref().and_then(|min| self.lower(min)).zip(stats.max.as_ref().and_then(|max| self.upper(max)))
        } else {
            None
        };
        let only_nulls = stats.nulls.is_some_and(|nulls| i64::try_from(nulls) == Ok(values) && values > 0);
        Bounds { range: range.filter(|(min, max)| min <= max), only_nulls, no_nulls: stats.nulls == Some(0) }
    }

    /// Whether bounds mean what the type's own order says: signed numbers always do; for all others it takes the
    /// footer's promise, and without it bounds are undefined (`FileMetaData.column_orders`).
    fn is_ordered(&self, promised: bool) -> bool {
        self.has_order() && (promised || self.signed_order())
    }

    /// What a column index says of one data page.
    pub(crate) fn page_bounds(
        &self,
        null_page: bool,
        (min, max): (&Bound, &Bound),
        nulls: Option<u64>,
        type_ordered: bool,
    ) -> Bounds {
        let ordered = self.is_ordered(type_ordered) && !null_page;
        let range = if ordered { self.lower(min).zip(self.upper(max)) } else { None };
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
            let probed = match column.descr.physical_type() {
                Physical::INT96 if *key != Key::Null => probe_int96(key, &column.name)?,
                _ => probe(key, &column.ty, &column.name)?,
            };
            match probed {
                Probe::Point(point) => probes.points.push((point, i as u32)),
                Probe::Null => probes.nulls.push(i as u32),
                Probe::Never => {}
            }
        }
        // Points of one column are of one variant and never NaN, so the order is total.
        probes.points.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal));
        Ok(probes)
    }

    /// One key that is a value.
    pub(crate) fn of_point(point: Point) -> Self {
        Self { points: vec![(point, 0)], nulls: Vec::new() }
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

    /// The keys that ask for null.
    pub(crate) fn null_keys(&self) -> &[u32] {
        &self.nulls
    }

    /// The keys that ask for a value, by value.
    pub(crate) fn points(&self) -> &[(Point, u32)] {
        &self.points
    }

    /// Indexes of all keys that some row could have.
    pub(crate) fn keys(&self) -> impl Iterator<Item = u32> {
        self.points.iter().map(|(_, key)| *key).chain(self.nulls.iter().copied())
    }

    /// The same without the values of which `keep` is false.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&Point) -> bool) -> Self {
        let points = self.points.iter().filter(|(point, _)| keep(point)).cloned().collect();
        Self { points, nulls: self.nulls.clone() }
    }

    /// The keys that equal a stored value.
    pub(crate) fn equal_to(&self, value: &Stored<'_>) -> &[(Point, u32)] {
        match value {
            Stored::Int(value) => self.equal(|point| match point {
                Point::Int(point) => point.cmp(value),
                _ => Ordering::Less,
            }),
            // NaN equals nothing; -0.0 compares equal to 0.0.
            Stored::Float(value) if value.is_nan() => &[],
            Stored::Float(value) => self.equal(|point| match point {
                Point::Float(point) => point.partial_cmp(value).unwrap_or(Ordering::Less),
                _ => Ordering::Less,
            }),
            Stored::Bytes(value) => self.equal(|point| match point {
                Point::Bytes(point) => (**point).cmp(value),
                _ => Ordering::Less,
            }),
            Stored::Point(None) => &[],
            Stored::Point(Some(value)) => self.equal(|point| point.partial_cmp(value).unwrap_or(Ordering::Less)),
        }
    }

    #[inline]
    fn equal(&self, order: impl Fn(&Point) -> Ordering) -> &[(Point, u32)] {
        // One key is by far the most frequent question.
        if let [(point, _)] = &self.points[..] {
            return if order(point).is_eq() { &self.points } else { &[] };
        }
        let first = self.points.partition_point(|(point, _)| order(point).is_lt());
        let length = self.points[first..].partition_point(|(point, _)| order(point).is_eq());
        &self.points[first..first + length]
    }
}

/// The least and the greatest of the values seen so far, and how many were null: bounds that are learned.
#[derive(Default)]
pub(crate) struct Extent {
    range: Option<(Point, Point)>,
    values: u64,
    nulls: u64,
}

impl Extent {
    pub(crate) fn see_null(&mut self) {
        self.nulls += 1;
    }

    pub(crate) fn see(&mut self, value: &Stored<'_>) {
        self.values += 1;
        let Some((min, max)) = &mut self.range else {
            self.range = point_of(value).map(|point| (point.clone(), point));
            return;
        };
        let side = match (compare(min, value), compare(max, value)) {
            (Some(Ordering::Greater), _) => min,
            (_, Some(Ordering::Less)) => max,
            _ => return,
        };
        if let Some(point) = point_of(value) {
            *side = point;
        }
    }

    /// The bounds of a data page whose every value was seen. Long values are cut, the upper one upward.
    pub(crate) fn into_bounds(self) -> Bounds {
        let lower = |point: Point| match point {
            Point::Bytes(bytes) if bytes.len() > MAX_BOUND_BYTES => Point::Bytes(bytes[..MAX_BOUND_BYTES].into()),
            short => short,
        };
        let upper = |point: Point| match point {
            Point::Bytes(bytes) if bytes.len() > MAX_BOUND_BYTES => raised(&bytes[..MAX_BOUND_BYTES]),
            short => Some(short),
        };
        let range = self.range.and_then(|(min, max)| Some((lower(min), upper(max)?)));
        Bounds { range, only_nulls: self.values == 0 && self.nulls > 0, no_nulls: self.nulls == 0 }
    }
}

fn point_of(value: &Stored<'_>) -> Option<Point> {
    match value {
        Stored::Int(value) => Some(Point::Int(*value)),
        Stored::Float(value) => Point::float(*value),
        Stored::Bytes(value) => Some(Point::Bytes((*value).into())),
        Stored::Point(point) => point.clone(),
    }
}

fn compare(point: &Point, value: &Stored<'_>) -> Option<Ordering> {
    match (point, value) {
        (Point::Int(point), Stored::Int(value)) => Some(point.cmp(value)),
        (Point::Float(point), Stored::Float(value)) => point.partial_cmp(value),
        (Point::Bytes(point), Stored::Bytes(value)) => Some((**point).cmp(value)),
        (point, Stored::Point(Some(value))) => point.partial_cmp(value),
        _ => None,
    }
}

/// The least bytes that no value with this prefix reaches; none where there are none.
fn raised(prefix: &[u8]) -> Option<Point> {
    let mut raised = prefix.to_vec();
    while raised.pop_if(|byte| *byte == u8::MAX).is_some() {}
    *raised.last_mut()? += 1;
    Some(Point::Bytes(raised.into()))
}

/// An INT96 timestamp in nanoseconds since 1970.
pub(crate) fn int96_nanoseconds(value: &Int96) -> i128 {
    let [low, high, day] = [value.data()[0], value.data()[1], value.data()[2]];
    since_1970((u64::from(high) << 32 | u64::from(low)) as i64, day as i32)
}
