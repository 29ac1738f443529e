//! Lookup-ready rows of a file in memory, held against what a search of the file answers: same rows, same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alcedo_lookup::answer::{Body, FileAnswer, Form};
use alcedo_lookup::derived::{Built, PART_BYTES};
use alcedo_lookup::error::Error;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::key::Key;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::drive_bytes;
use alcedo_lookup::open::Open;
use alcedo_lookup::prepared::Prepared;
use alcedo_lookup::ready::{BlockRef, FoundReady, ReadyBuild, ReadyPlan, ReadyRows};
use alcedo_lookup::rows::decode_rows;
use alcedo_lookup::search::{Query, Search};
use alcedo_lookup::value::Value;
use bytes::Bytes;

/// Keys of one search.
const KEYS_AT_ONCE: usize = 500;
/// Of a file with more keys so many are asked for, spread over all.
const MOST_KEYS: usize = 1_200;

pub(crate) fn open(file: &Bytes) -> Result<Arc<FileIndex>, Error> {
    drive_bytes(Open::new(64 << 10, Arc::new(Limits::default())), file)
}

/// A built object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) parts: Vec<Bytes>,
    pub(crate) head: Bytes,
}

impl Object {
    pub(crate) fn block(&self, block: &BlockRef) -> &[u8] {
        &self.parts[block.part as usize][block.range.start as usize..block.range.end as usize]
    }
}

pub(crate) fn build(
    index: &Arc<FileIndex>,
    file: &Bytes,
    (key, columns): (&str, Option<&[&str]>),
    limits: &Limits,
) -> Result<Object, Error> {
    let columns = owned(columns);
    let mut build = ReadyBuild::new(index.clone(), Some(key), columns.as_deref(), Arc::new(limits.clone()))?;
    let mut parts = Vec::new();
    loop {
        match drive_bytes(build, file)? {
            Built::Part { number, bytes, rest } => {
                assert_eq!(number as usize, parts.len());
                assert!(!bytes.is_empty() && bytes.len() <= PART_BYTES);
                parts.push(bytes);
                build = rest;
            }
            Built::Head(head) => return Ok(Object { parts, head }),
        }
    }
}

fn owned(columns: Option<&[&str]>) -> Option<Vec<String>> {
    columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect())
}

pub(crate) fn prepared(index: &Arc<FileIndex>, key: &str, columns: Option<&[&str]>) -> Arc<Prepared> {
    let query = Query {
        key_column: Some(key.to_owned()),
        keys: Vec::new(),
        columns: owned(columns),
        form: Form::CompactRows,
        row_limit: None,
    };
    Arc::new(Prepared::new(index.clone(), &query, Arc::new(Limits::default())).unwrap())
}

/// Compact rows one by one, up to padding.
pub(crate) fn rows_of(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut rows = Vec::new();
    while let Some(first) = bytes.first().filter(|first| **first != 0) {
        let (mut length, mut at, mut byte) = (0_usize, 0, *first);
        loop {
            length |= usize::from(byte & 0x7f) << (7 * at);
            at += 1;
            if byte < 0x80 {
                break;
            }
            byte = bytes[at];
        }
        rows.push(&bytes[..at + length]);
        bytes = &bytes[at + length..];
    }
    rows
}

/// The key of every row, in file order.
pub(crate) fn keys(object: &Object, rows: &ReadyRows) -> Vec<Value> {
    let mut keys = Vec::new();
    while let Some(block) = rows.block_of_row(keys.len() as u64) {
        for row in rows_of(&object.block(&block)[4..]) {
            let decoded = decode_rows(rows.schema(), &Bytes::copy_from_slice(row)).unwrap();
            keys.push(decoded[0][0].clone());
        }
    }
    keys
}

fn key_of(value: &Value) -> Key {
    match value {
        Value::Null => Key::Null,
        Value::Bool(value) => Key::Bool(*value),
        Value::Int(value) => Key::Int(*value),
        Value::UInt(value) => Key::UInt(*value),
        Value::Float32(value) => Key::Float((*value).into()),
        Value::Float64(value) => Key::Float(*value),
        Value::Decimal(text) => Key::Text(text.to_string()),
        Value::String(text) => Key::Text(text.clone()),
        Value::Binary(bytes) => Key::Bytes(bytes.clone()),
        Value::Uuid(bytes) => Key::Bytes(Bytes::copy_from_slice(bytes)),
        nested => panic!("{nested:?} is no key"),
    }
}

/// Keys near those of the file, most of which no row has.
fn near(key: &Key) -> Vec<Key> {
    match key {
        Key::Int(value) => vec![Key::Int(value.wrapping_add(1)), Key::Int(value / 2)],
        Key::UInt(value) => vec![Key::UInt(value.wrapping_add(1))],
        Key::Float(value) => vec![Key::Float(value + 0.5), Key::Float(-value)],
        Key::Bytes(bytes) => vec![Key::Bytes([&bytes[..], &[0]].concat().into()), Key::Bytes(bytes.slice(..0))],
        _ => vec![],
    }
}

/// Found rows with their numbers, as bytes.
type Rows = Vec<(u64, Vec<u8>)>;

fn found(object: &Object, rows: &ReadyRows, plan: &ReadyPlan, prepared: &Prepared, key: &Key) -> Rows {
    let mut out = FoundReady::default();
    let Some(point) = prepared.key_point(key).unwrap() else { return Vec::new() };
    for block in rows.blocks(&point) {
        rows.find(plan, &block, object.block(&block), &point, &mut out).unwrap();
    }
    let by_key: Rows =
        out.row_numbers.iter().copied().zip(rows_of(&out.rows).into_iter().map(<[u8]>::to_vec)).collect();
    assert_eq!(by_key.len(), out.row_numbers.len());
    // The same rows by their numbers, and no others beside them.
    let numbers: BTreeSet<u64> = out.row_numbers.iter().copied().collect();
    let near = numbers.iter().flat_map(|row| row.saturating_sub(1)..=row + 1).collect::<BTreeSet<u64>>();
    let mut at = FoundReady::default();
    for row in near {
        let Some(block) = rows.block_of_row(row) else {
            assert_eq!(row, rows.rows());
            continue;
        };
        let is_found = rows.find_at(plan, &block, object.block(&block), (row, &point), &mut at).unwrap();
        assert_eq!(is_found, numbers.contains(&row), "row {row} of {key}");
    }
    assert_eq!((at.row_numbers, at.rows), (out.row_numbers, out.rows), "{key}");
    by_key
}

fn searched(answer: &FileAnswer, keys: usize) -> Vec<Rows> {
    let Body::Compact(bytes) = &answer.body else { panic!("not asked for") };
    let rows = rows_of(bytes);
    assert_eq!(rows.len(), answer.row_number.len());
    let mut by_key = vec![Rows::new(); keys];
    for ((key, number), row) in answer.key_index.iter().zip(&answer.row_number).zip(rows) {
        by_key[*key as usize].push((*number, row.to_vec()));
    }
    by_key
}

/// Builds these columns' rows and compares, for every key of the file and keys near them, what is found with what a
/// search answers, for each of these projections. Returns how many rows were compared.
pub(crate) fn check(
    file: &Bytes,
    (key, columns): (&str, Option<&[&str]>),
    projections: &[Option<&[&str]>],
    limits: &Limits,
) -> Result<usize, Error> {
    let index = open(file)?;
    let object = build(&index, file, (key, columns), limits)?;
    let rows = ReadyRows::read(object.head.clone(), &index, limits).unwrap();
    assert_eq!(rows.rows(), index.rows());
    let values = keys(&object, &rows);
    assert_eq!(values.len() as u64, index.rows(), "all rows are stored");
    let mut asked: BTreeMap<String, Key> = BTreeMap::new();
    for key in values.iter().map(key_of) {
        asked.extend(near(&key).into_iter().map(|key| (key.to_string() + &format!("{key:?}"), key)));
        asked.insert(key.to_string() + &format!("{key:?}"), key);
    }
    asked.insert("null".to_owned(), Key::Null);
    let step = asked.len().div_ceil(MOST_KEYS);
    let asked: Vec<Key> = asked.into_values().step_by(step).collect();
    let nan = |value: &&Value| match value {
        Value::Float32(value) => value.is_nan(),
        Value::Float64(value) => value.is_nan(),
        _ => false,
    };
    let findable = values.len() - values.iter().filter(nan).count();
    let mut compared = 0;
    for projection in projections {
        let prepared = prepared(&index, key, *projection);
        let plan = rows.serves(&prepared).expect("it holds these columns");
        let mut seen = BTreeSet::new();
        for keys in asked.chunks(KEYS_AT_ONCE) {
            let answer = drive_bytes(Search::of(prepared.clone(), keys)?, file)?;
            for (key, wanted) in keys.iter().zip(searched(&answer, keys.len())) {
                let got = found(&object, &rows, &plan, &prepared, key);
                assert!(got == wanted, "{key} of {projection:?}:\n{got:?}, searched\n{wanted:?}");
                seen.extend(got.iter().map(|(row, _)| *row));
                compared += got.len();
            }
        }
        assert!(step > 1 || seen.len() == findable, "every row is found by its key");
    }
    Ok(compared)
}
