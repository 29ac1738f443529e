//! Split block bloom filters: whether a key may be in a column chunk, from 32 bytes of the filter.
//!
//! Everything here is arithmetic on bytes that were fed. Filters are advisory: one that is not understood, or a key
//! whose stored form is not certain, gives none, and then the chunk is searched. Source:
//! <https://github.com/apache/parquet-format/blob/master/BloomFilter.md>.

use std::ops::Range;

use parquet::basic::Type as Physical;
use parquet::schema::types::ColumnDescriptor;
use xxhash_rust::xxh64::xxh64;

use crate::limits::Limits;
use crate::probe::Point;
use crate::schema::Type;
use crate::thrift::{I32, Reader, STRUCT};

/// Bytes of a block: eight words of 32 bits, in each of which a key sets one bit.
const BLOCK_BYTES: u64 = 32;
/// Bytes of a filter's bitset at most, as the format says.
const MAX_BITSET_BYTES: u64 = 128 << 20;
/// Bytes within which a filter's header must end. It takes about 16.
pub(crate) const MAX_HEADER_BYTES: u64 = 256;

/// Which bit of each word a key sets, as the format fixes it.
const SALT: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// Where a column chunk's filter is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BloomPlace {
    /// Header and bitset.
    pub(crate) range: Range<u64>,
    /// The file says how long it is; if not, the range goes to the end of what it may be in.
    pub(crate) exact: bool,
}

impl BloomPlace {
    /// The range to read for the header.
    pub(crate) fn header_range(&self) -> Range<u64> {
        self.range.start..self.range.end.min(self.range.start.saturating_add(MAX_HEADER_BYTES))
    }
}

/// A filter whose header was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Where the bitset is in the file.
    pub(crate) bitset: Range<u64>,
}

impl Filter {
    /// Reads the header at the start of `bytes`, which are those of [`BloomPlace::header_range`]; none for a filter of
    /// a kind that is not known, or that is not where it should be.
    pub(crate) fn read(bytes: &[u8], place: &BloomPlace, limits: &Limits) -> Option<Self> {
        let mut reader = Reader::new(bytes, "bloom filter", limits);
        let (mut bitset_bytes, mut known) = (0, [false; 3]);
        let read = reader.fields(|reader, id, ty| {
            match (id, ty) {
                (1, I32) => bitset_bytes = reader.u32()?.into(),
                // Unions whose first members are the block algorithm, xxHash, and no compression.
                (2..=4, STRUCT) => reader.fields(|_, member, _| {
                    known[id as usize - 2] = member == 1;
                    Ok(false)
                })?,
                _ => return Ok(false),
            }
            Ok(true)
        });
        read.ok()?;
        let start = place.range.start + reader.position() as u64;
        let whole = (BLOCK_BYTES..=MAX_BITSET_BYTES).contains(&bitset_bytes) && bitset_bytes % BLOCK_BYTES == 0;
        let bitset = start..start + bitset_bytes;
        (whole && known == [true; 3] && bitset.end <= place.range.end).then_some(Self { bitset })
    }

    /// The range of the file that holds the block of a hash.
    pub(crate) fn block(&self, hash: u64) -> Range<u64> {
        let blocks = (self.bitset.end - self.bitset.start) / BLOCK_BYTES;
        let start = self.bitset.start + (((hash >> 32) * blocks) >> 32) * BLOCK_BYTES;
        start..start + BLOCK_BYTES
    }
}

/// Whether a value of this hash may be among those that set bits in its block.
pub(crate) fn may_contain(block: &[u8], hash: u64) -> bool {
    let (words, _) = block.as_chunks::<4>();
    // A block that is not there says nothing.
    words.iter().zip(SALT).all(|(word, salt)| {
        let bit = (hash as u32).wrapping_mul(salt) >> 27;
        u32::from_le_bytes(*word) >> bit & 1 == 1
    })
}

/// The hashes of all stored forms of a key; none where the form that a writer hashed is not certain. A key is in the
/// chunk only if the filter may contain one of them.
pub(crate) fn hashes(column: &ColumnDescriptor, ty: &Type, point: &Point) -> Option<Vec<u64>> {
    let hash = |bytes: &[u8]| xxh64(bytes, 0);
    let one = |bytes: &[u8]| Some(vec![hash(bytes)]);
    match (column.physical_type(), point) {
        (Physical::INT32, Point::Int(value)) => one(&low_bytes::<4>(*value)?),
        (Physical::INT64, Point::Int(value)) => one(&low_bytes::<8>(*value)?),
        // A point is never -0.0, and a writer hashes the zero that it was given.
        (Physical::FLOAT, Point::Float(value)) => {
            let forms = both_zeros(*value).map(|value| hash(&(value as f32).to_le_bytes()));
            Some(forms.collect())
        }
        (Physical::DOUBLE, Point::Float(value)) => {
            Some(both_zeros(*value).map(|value| hash(&value.to_le_bytes())).collect())
        }
        (Physical::FIXED_LEN_BYTE_ARRAY, Point::Float(value)) if *ty == Type::Float16 => {
            let forms = both_zeros(*value).map(|value| hash(&half::f16::from_f64(value).to_le_bytes()));
            Some(forms.collect())
        }
        (Physical::FIXED_LEN_BYTE_ARRAY, point) if matches!(ty, Type::Decimal { .. }) => {
            one(&fixed_decimal(point, column.type_length())?)
        }
        // A decimal has many forms in bytes of any length.
        (Physical::BYTE_ARRAY, _) if matches!(ty, Type::Decimal { .. }) => None,
        (Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY, Point::Bytes(bytes)) => one(bytes),
        _ => None,
    }
}

fn both_zeros(value: f64) -> impl Iterator<Item = f64> {
    std::iter::once(value).chain((value == 0.0).then_some(-value))
}

/// An integer's bits in N bytes, little-endian, be it signed or unsigned; none where it does not fit.
fn low_bytes<const N: usize>(value: i128) -> Option<[u8; N]> {
    let bits = N as u32 * 8;
    let fits = value >> (bits - 1) == -1 || value >> bits == 0;
    let (low, _) = value.to_le_bytes().split_first_chunk::<N>().map(|(low, rest)| (*low, rest.len()))?;
    fits.then_some(low)
}

/// A decimal's unscaled value as big-endian two's complement of a column's length.
fn fixed_decimal(point: &Point, length: i32) -> Option<Vec<u8>> {
    let wide: Vec<u8> = match point {
        Point::Int(value) => value.to_be_bytes().to_vec(),
        // Points of wide decimals have their sign bit flipped, see `Point::decimal_bytes`.
        Point::Bytes(bytes) => {
            let (first, rest) = bytes.split_first()?;
            std::iter::once(first ^ 0x80).chain(rest.iter().copied()).collect()
        }
        Point::Float(_) => return None,
    };
    let length = usize::try_from(length).ok()?;
    let sign = if wide.first()? & 0x80 == 0 { 0 } else { u8::MAX };
    let (extra, kept) = wide.split_at(wide.len().saturating_sub(length));
    let mut bytes = vec![sign; length - kept.len()];
    bytes.extend_from_slice(kept);
    let fits = extra.iter().all(|byte| *byte == sign) && (bytes.first()? ^ sign) & 0x80 == 0;
    fits.then_some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use arrow_array::{
        ArrayRef, BinaryArray, Date32Array, Decimal128Array, Decimal256Array, FixedSizeBinaryArray, Float16Array,
        Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
        Time32MillisecondArray, TimestampMicrosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
    };
    use arrow_buffer::i256;
    use bytes::Bytes;
    use half::f16;
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;
    use proptest::prelude::*;

    use super::*;
    use crate::file_index::FileIndex;
    use crate::key::Key;
    use crate::machine::drive_bytes;
    use crate::open::Open;
    use crate::probe::{Probe, probe};

    fn decimal(array: Decimal128Array, precision: u8) -> ArrayRef {
        Arc::new(array.with_precision_and_scale(precision, 2).unwrap())
    }

    fn fixed(length: i32, seeds: &[i64]) -> ArrayRef {
        let bytes = seeds.iter().map(|seed| bytes_of(*seed, length as usize));
        Arc::new(FixedSizeBinaryArray::try_from_iter(bytes).unwrap())
    }

    fn bytes_of(seed: i64, length: usize) -> Vec<u8> {
        seed.to_le_bytes().into_iter().cycle().take(length).collect()
    }

    fn hex(bytes: &[u8]) -> String {
        format!("hex:{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    fn hundredths(value: impl std::fmt::Display + PartialOrd + Default) -> String {
        let negative = value < Default::default();
        let digits = format!("{:0>3}", value.to_string().trim_start_matches('-').to_owned());
        let (whole, fraction) = digits.split_at(digits.len() - 2);
        format!("{}{whole}.{fraction}", if negative { "-" } else { "" })
    }

    type Case = (&'static str, fn(&[i64]) -> ArrayRef, fn(i64) -> String);

    /// Every type of key that has a filter: values from seeds, and the text of the key that asks for a seed's value.
    fn cases() -> Vec<Case> {
        [integers(), fractions(), texts_and_moments()].concat()
    }

    fn integers() -> Vec<Case> {
        vec![
            ("i8", |s| Arc::new(Int8Array::from_iter_values(s.iter().map(|s| *s as i8))), |s| (s as i8).to_string()),
            (
                "i16",
                |s| Arc::new(Int16Array::from_iter_values(s.iter().map(|s| *s as i16))),
                |s| (s as i16).to_string(),
            ),
            (
                "i32",
                |s| Arc::new(Int32Array::from_iter_values(s.iter().map(|s| *s as i32))),
                |s| (s as i32).to_string(),
            ),
            ("i64", |s| Arc::new(Int64Array::from_iter_values(s.iter().copied())), |s| s.to_string()),
            ("u8", |s| Arc::new(UInt8Array::from_iter_values(s.iter().map(|s| *s as u8))), |s| (s as u8).to_string()),
            (
                "u16",
                |s| Arc::new(UInt16Array::from_iter_values(s.iter().map(|s| *s as u16))),
                |s| (s as u16).to_string(),
            ),
            (
                "u32",
                |s| Arc::new(UInt32Array::from_iter_values(s.iter().map(|s| *s as u32))),
                |s| (s as u32).to_string(),
            ),
            (
                "u64",
                |s| Arc::new(UInt64Array::from_iter_values(s.iter().map(|s| *s as u64))),
                |s| (s as u64).to_string(),
            ),
        ]
    }

    fn fractions() -> Vec<Case> {
        vec![
            (
                "f16",
                |s| Arc::new(Float16Array::from_iter_values(s.iter().map(|s| f16::from_f32((*s % 1_000) as f32)))),
                |s| f16::from_f32((s % 1_000) as f32).to_string(),
            ),
            (
                "f32",
                |s| Arc::new(Float32Array::from_iter_values(s.iter().map(|s| *s as f32 / 8.0))),
                |s| (s as f32 / 8.0).to_string(),
            ),
            (
                "f64",
                |s| Arc::new(Float64Array::from_iter_values(s.iter().map(|s| *s as f64 / 8.0))),
                |s| (s as f64 / 8.0).to_string(),
            ),
            (
                "decimal in 4 bytes",
                |s| decimal(s.iter().map(|s| i128::from(*s % 1_000_000_000)).collect::<Vec<_>>().into(), 9),
                |s| hundredths(s % 1_000_000_000),
            ),
            (
                "decimal in 8 bytes",
                |s| decimal(s.iter().map(|s| i128::from(*s >> 6)).collect::<Vec<_>>().into(), 18),
                |s| hundredths(s >> 6),
            ),
            (
                "decimal in fixed bytes",
                |s| decimal(s.iter().map(|s| i128::from(*s) * 1_000_000_007).collect::<Vec<_>>().into(), 30),
                |s| hundredths(i128::from(s) * 1_000_000_007),
            ),
            (
                "wide decimal",
                |s| {
                    let values = s.iter().map(|s| i256::from_i128(i128::from(*s)) * i256::from_i128(10_i128.pow(30)));
                    let array: Decimal256Array = values.collect::<Vec<_>>().into();
                    Arc::new(array.with_precision_and_scale(60, 0).unwrap())
                },
                |s| format!("{s}{}", "0".repeat(if s == 0 { 0 } else { 30 })),
            ),
        ]
    }

    fn texts_and_moments() -> Vec<Case> {
        vec![
            (
                "text",
                |s| Arc::new(StringArray::from_iter_values(s.iter().map(|s| format!("å {s}")))),
                |s| format!("å {s}"),
            ),
            (
                "binary",
                |s| Arc::new(BinaryArray::from_iter_values(s.iter().map(|s| bytes_of(*s, (*s as usize) % 9)))),
                |s| hex(&bytes_of(s, (s as usize) % 9)),
            ),
            ("fixed", |s| fixed(5, s), |s| hex(&bytes_of(s, 5))),
            (
                "date",
                |s| Arc::new(Date32Array::from_iter_values(s.iter().map(|s| *s as i32))),
                |s| (s as i32).to_string(),
            ),
            (
                "time",
                |s| Arc::new(Time32MillisecondArray::from_iter_values(s.iter().map(|s| *s as i32 & 0xff_ffff))),
                |s| (s as i32 & 0xff_ffff).to_string(),
            ),
            (
                "timestamp",
                |s| Arc::new(TimestampMicrosecondArray::from_iter_values(s.iter().copied())),
                |s| s.to_string(),
            ),
        ]
    }

    fn write(array: ArrayRef, dictionary: bool) -> Bytes {
        let batch = RecordBatch::try_from_iter([("k", array)]).unwrap();
        let properties = WriterProperties::builder()
            .set_bloom_filter_enabled(true)
            .set_bloom_filter_max_ndv(2_000)
            .set_dictionary_enabled(dictionary)
            .build();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap().into()
    }

    /// Whether the filter of the file's only chunk lets a key pass.
    fn passes(file: &Bytes, index: &FileIndex, key: &str) -> bool {
        let limits = Limits::default();
        let column = index.key_column(Some("k")).unwrap();
        let place = index.chunk(0, 0).bloom_filter(index.data_end).expect("a bloom filter");
        let at = |range: Range<u64>| &file[range.start as usize..range.end as usize];
        let filter = Filter::read(at(place.header_range()), &place, &limits).expect("a filter that is understood");
        assert_eq!((filter.bitset.end, place.exact), (place.range.end, true));
        let Probe::Point(point) = probe(&Key::from(key), &column.ty, "k").unwrap() else { return false };
        let hashes = hashes(&index.schema().column(0), &column.ty, &point).expect("a certain form");
        hashes.into_iter().any(|hash| may_contain(at(filter.block(hash)), hash))
    }

    fn open(file: &Bytes) -> Arc<FileIndex> {
        drive_bytes(Open::new(64 << 10, Arc::new(Limits::default())), file).unwrap()
    }

    #[test]
    fn zeros_of_both_signs_pass() {
        let arrays: [ArrayRef; 3] = [
            Arc::new(Float16Array::from(vec![f16::NEG_ZERO])),
            Arc::new(Float32Array::from(vec![-0.0])),
            Arc::new(Float64Array::from(vec![-0.0])),
        ];
        for array in arrays {
            let file = write(array, false);
            let index = open(&file);
            assert!(passes(&file, &index, "0") && passes(&file, &index, "-0.0"));
            assert!(!passes(&file, &index, "1"));
        }
    }

    #[test]
    fn keys_without_a_certain_form_have_no_hash() {
        use parquet::basic::Repetition;
        use parquet::schema::types::{ColumnPath, Type as Schema};
        let column = |physical| {
            let ty = Schema::primitive_type_builder("k", physical).with_repetition(Repetition::REQUIRED);
            ColumnDescriptor::new(Arc::new(ty.with_length(4).build().unwrap()), 0, 0, ColumnPath::new(Vec::new()))
        };
        let decimal = Type::Decimal { precision: 9, scale: 2 };
        assert_eq!(hashes(&column(Physical::BYTE_ARRAY), &decimal, &Point::Int(1)), None);
        assert_eq!(hashes(&column(Physical::INT96), &Type::Int64, &Point::Int(1)), None);
        assert_eq!(hashes(&column(Physical::BOOLEAN), &Type::Bool, &Point::Int(1)), None);
        // What does not fit the column is not cut to fit.
        assert_eq!(hashes(&column(Physical::INT32), &Type::Int32, &Point::Int(1 << 32)), None);
        assert_eq!(hashes(&column(Physical::FIXED_LEN_BYTE_ARRAY), &decimal, &Point::Int(1 << 31)), None);
        assert!(hashes(&column(Physical::FIXED_LEN_BYTE_ARRAY), &decimal, &Point::Int(-1 << 31)).is_some());
    }

    #[test]
    fn a_header_that_is_not_understood_is_no_filter() {
        // numBytes = 64, then three unions whose first member is set.
        let header = [0x15, 0x80, 0x01, 0x1c, 0x1c, 0, 0, 0x1c, 0x1c, 0, 0, 0x1c, 0x1c, 0, 0, 0];
        let read = |header: &[u8], bytes: u64| {
            let place = BloomPlace { range: 100..100 + bytes, exact: false };
            Filter::read(header, &place, &Limits::default()).map(|filter| filter.bitset)
        };
        assert_eq!(read(&header, 80), Some(116..180));
        assert_eq!(read(&header, 79), None, "it ends beyond its place");
        for at in [4, 8, 12] {
            let mut other = header;
            other[at] = 0x2c;
            assert_eq!(read(&other, 80), None, "another algorithm, hash or compression");
        }
        for bytes in [[0x00, 0x00], [0x82, 0x01], [0x81, 0x01]] {
            let mut other = header;
            other[1..3].copy_from_slice(&bytes);
            assert_eq!(read(&other, 1 << 20), None, "no whole number of blocks");
        }
        for length in 0..header.len() {
            assert_eq!(read(&header[..length], 80), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn every_key_that_was_put_in_passes_and_few_others(seeds in prop::collection::vec(any::<i64>(), 100..300)) {
            for (name, array, key) in cases() {
                for dictionary in [false, true] {
                    let file = write(array(&seeds), dictionary);
                    let index = open(&file);
                    for seed in &seeds {
                        prop_assert!(passes(&file, &index, &key(*seed)), "{name}: {}", key(*seed));
                    }
                    let present: HashSet<String> = seeds.iter().map(|seed| key(*seed)).collect();
                    // Spread over all bits, so that they differ in every type.
                    let scatter = |i: i64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64);
                    let others = (1..200).map(|i: i64| key(seeds[0] ^ scatter(i)));
                    let absent: HashSet<String> = others.filter(|key| !present.contains(key)).collect();
                    let wrong = absent.iter().filter(|key| passes(&file, &index, key)).count();
                    prop_assert!(wrong <= 10 + absent.len() / 10, "{name}: {wrong} of {}", absent.len());
                }
            }
        }
    }
}
