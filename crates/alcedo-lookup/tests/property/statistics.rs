//! Statistics as old or careless writers have left them.
//!
//! Each change keeps to what the format says of such statistics
//! (<https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift>): deprecated bounds and
//! bounds without a column order were made by signed comparison, NaN says nothing, a zero stands for both zeros.

use std::cmp::Ordering;

use parquet::basic::Type as Physical;

use crate::random::Random;
use crate::rewriting::Chunk;
use crate::schema::Leaf;
use crate::thrift::Thrift;

const COLUMN_ORDERS: i16 = 7;
const STATISTICS: i16 = 12;

/// Changes the statistics of a whole file in one of the ways; returns its name. `known`: the stored values are those of
/// the chunk's levels.
pub(crate) fn change<'a>(
    random: &mut Random,
    footer: &mut Thrift,
    chunks: impl Iterator<Item = &'a mut Chunk>,
    known: impl Fn(Leaf) -> bool,
) -> &'static str {
    match random.below(4) {
        0 => {
            footer.set(COLUMN_ORDERS, None);
            chunks.for_each(|chunk| deprecated(chunk, &known));
            "deprecated statistics"
        }
        1 => {
            footer.set(COLUMN_ORDERS, None);
            for chunk in chunks.filter(|chunk| !sorts_signed(chunk.leaf)) {
                undeclared(chunk, &known);
            }
            "no column orders"
        }
        2 => {
            let nan = random.percent(50);
            for chunk in chunks.filter(|chunk| matches!(chunk.leaf, Leaf::Float16 | Leaf::Float32 | Leaf::Float64)) {
                careless(chunk, nan);
            }
            if nan { "NaN as bounds" } else { "zeros with the wrong sign as bounds" }
        }
        _ => {
            for chunk in chunks {
                inexact(random, chunk);
            }
            "bounds that do not say whether they are exact"
        }
    }
}

/// Signed comparison of the stored value is the order of the type.
fn sorts_signed(leaf: Leaf) -> bool {
    let number = matches!(
        leaf.physical(),
        Physical::BOOLEAN | Physical::INT32 | Physical::INT64 | Physical::FLOAT | Physical::DOUBLE
    );
    number && !matches!(leaf, Leaf::Int { signed: false, .. })
}

/// Minimum and maximum as a writer had them that compares everything signed, and floats by `<` alone, so that a NaN in
/// front stays.
fn signed_bounds(leaf: Leaf, values: &[Vec<u8>]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut min, mut max) = (values.first()?.clone(), values.first()?.clone());
    for value in values {
        if signed(leaf, value, &min) == Some(Ordering::Less) {
            min.clone_from(value);
        }
        if signed(leaf, value, &max) == Some(Ordering::Greater) {
            max.clone_from(value);
        }
    }
    Some((min, max))
}

fn signed(leaf: Leaf, a: &[u8], b: &[u8]) -> Option<Ordering> {
    let by = |order: fn(&[u8]) -> f64| order(a).partial_cmp(&order(b));
    match leaf.physical() {
        Physical::INT32 => Some(i32::from_le_bytes(a.try_into().ok()?).cmp(&i32::from_le_bytes(b.try_into().ok()?))),
        Physical::INT64 => Some(i64::from_le_bytes(a.try_into().ok()?).cmp(&i64::from_le_bytes(b.try_into().ok()?))),
        Physical::FLOAT => by(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()).into()),
        Physical::DOUBLE => by(|bytes| f64::from_le_bytes(bytes.try_into().unwrap())),
        _ => Some(a.iter().map(|byte| *byte as i8).cmp(b.iter().map(|byte| *byte as i8))),
    }
}

/// As writers had them before 2017: fields 1 and 2, no page index.
fn deprecated(chunk: &mut Chunk, known: &impl Fn(Leaf) -> bool) {
    (chunk.column_index, chunk.offset_index) = (None, None);
    let bounds = signed_bounds(chunk.leaf, &chunk.levels.values).filter(|_| known(chunk.leaf));
    let Some(statistics) = chunk.meta().get_mut(STATISTICS) else { return };
    [5, 6, 7, 8].iter().for_each(|id| statistics.set(*id, None));
    let (min, max) = bounds.unzip();
    statistics.set(1, max.map(Thrift::Binary));
    statistics.set(2, min.map(Thrift::Binary));
}

/// As a writer might have them that knows fields 5 and 6 but declares no order.
fn undeclared(chunk: &mut Chunk, known: &impl Fn(Leaf) -> bool) {
    let bounds = signed_bounds(chunk.leaf, &chunk.levels.values).filter(|_| known(chunk.leaf));
    if let (Some(statistics), Some((min, max))) = (chunk.meta().get_mut(STATISTICS), bounds) {
        statistics.set(5, Some(Thrift::Binary(max)));
        statistics.set(6, Some(Thrift::Binary(min)));
    }
    // A value stands for each row only outside of lists.
    if !known(chunk.leaf) || chunk.levels.repetitions.iter().any(|level| *level > 0) {
        return;
    }
    let Some(offsets) = &mut chunk.offset_index else { return };
    let mut starts: Vec<u64> = offsets.list_mut(1).iter().map(|location| location.int(3).unwrap() as u64).collect();
    starts.push(chunk.rows);
    let present = |range: std::ops::Range<u64>| {
        let levels = &chunk.levels.definitions[range.start as usize..range.end as usize];
        levels.iter().filter(|level| **level == chunk.levels.most_definitions).count()
    };
    let (mut at, mut bounds) = (0, Vec::new());
    for page in starts.windows(2) {
        let count = present(page[0]..page[1]);
        bounds.push(signed_bounds(chunk.leaf, &chunk.levels.values[at..at + count]));
        at += count;
    }
    let Some(index) = &mut chunk.column_index else { return };
    for (page, bound) in bounds.into_iter().enumerate() {
        let Some((min, max)) = bound else { continue };
        index.list_mut(2)[page] = Thrift::Binary(min);
        index.list_mut(3)[page] = Thrift::Binary(max);
    }
}

/// NaN in place of the minimum, or zeros with the sign that excludes the other zero.
fn careless(chunk: &mut Chunk, nan: bool) {
    let leaf = chunk.leaf;
    let zero =
        |bytes: &[u8]| bytes.iter().enumerate().all(|(i, byte)| *byte == 0 || i + 1 == bytes.len() && *byte == 0x80);
    let change = |value: &mut Thrift, minimum: bool| {
        let Thrift::Binary(bytes) = value else { return };
        if nan && minimum && !bytes.is_empty() {
            *bytes = match leaf {
                Leaf::Float16 => half::f16::NAN.to_le_bytes().to_vec(),
                Leaf::Float32 => f32::NAN.to_le_bytes().to_vec(),
                _ => f64::NAN.to_le_bytes().to_vec(),
            };
        } else if !nan
            && zero(bytes)
            && let Some(last) = bytes.last_mut()
        {
            *last = if minimum { 0 } else { 0x80 };
        }
    };
    if let Some(statistics) = chunk.meta().get_mut(STATISTICS) {
        [(5, false), (6, true)].iter().for_each(|(id, minimum)| {
            statistics.get_mut(*id).into_iter().for_each(|value| change(value, *minimum));
        });
    }
    if let Some(index) = &mut chunk.column_index {
        index.list_mut(2).iter_mut().for_each(|value| change(value, true));
        index.list_mut(3).iter_mut().for_each(|value| change(value, false));
    }
}

/// Without the newer fields, and with counts that writers may leave out.
fn inexact(random: &mut Random, chunk: &mut Chunk) {
    let alone = random.percent(20);
    let Some(statistics) = chunk.meta().get_mut(STATISTICS) else { return };
    [7, 8].iter().for_each(|id| statistics.set(*id, None));
    if alone {
        // A minimum without a maximum, or the other way round.
        statistics.set(*random.pick(&[5, 6]), None);
    }
}
