//! Keymaps of files made here, asked key by key: duplicates, nulls, collisions, passes, damage.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::builder::{Builder, build_bytes, worth};
use super::layout::Layout;
use super::{Keymap, Next};
use crate::answer::{FileAnswer, Form, KeyStatus};
use crate::derived::PART_BYTES;
use crate::error::Error;
use crate::key::Key;
use crate::limits::Limits;
use crate::machine::drive_bytes;
use crate::open::Open;
use crate::prepared::Prepared;
use crate::search::{Query, Search};

/// Room for all entries of these files at once.
const AMPLE: usize = 64 << 20;

/// A file of these keys in row groups of 20,000 rows, and what is asked of it.
struct Subject {
    file: Bytes,
    keys: Vec<Option<i64>>,
    prepared: Arc<Prepared>,
}

impl Subject {
    fn new(keys: Vec<Option<i64>>) -> Self {
        let numbers: ArrayRef = Arc::new(Int64Array::from(keys.clone()));
        let texts: ArrayRef = Arc::new(StringArray::from_iter(keys.iter().map(|key| key.map(|key| format!("k{key}")))));
        let batch = RecordBatch::try_from_iter_with_nullable([("k", numbers, true), ("t", texts, true)]).unwrap();
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(20_000))
            .set_data_page_row_count_limit(2_000)
            .set_write_batch_size(2_000)
            .build();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        let file: Bytes = writer.into_inner().unwrap().into();
        let prepared = prepared(&file, "k");
        Self { file, keys, prepared }
    }

    /// Distinct keys in no order.
    fn distinct(rows: i64) -> Self {
        Self::new((0..rows).map(|row| Some(scattered(row))).collect())
    }

    fn build(&self, budget: usize) -> Built {
        self.built(Builder::new(self.prepared.clone(), budget).unwrap())
    }

    /// A keymap of so few bits that everything collides.
    fn weak(&self, bucket_bits: u32, print_bits: u32) -> Built {
        let layout = Layout { bucket_bits, print_bits, ..Layout::of(self.keys.len() as u64) };
        self.built(Builder::with_layout(self.prepared.clone(), AMPLE, layout))
    }

    fn built(&self, builder: Builder) -> Built {
        let (parts, head) = build_bytes(builder, &self.file).unwrap();
        let keymap = Keymap::read(&head, self.prepared.index()).unwrap();
        assert_eq!(keymap.parts() as usize, parts.len());
        assert!(
            parts.iter().all(|part| (1..=PART_BYTES).contains(&part.len())),
            "parts are neither empty nor too long"
        );
        Built { parts, head, keymap }
    }

    fn rows_of(&self, key: Option<i64>) -> Vec<u64> {
        (0..).zip(&self.keys).filter(|(_, held)| **held == key).map(|(row, _)| row).collect()
    }

    /// The answer of a search at the keymap's candidates.
    fn ask(&self, built: &Built, keys: &[Key]) -> FileAnswer {
        let mut rows = Vec::new();
        for key in keys {
            rows.extend(built.candidates(&self.prepared, key).unwrap().expect("listed"));
        }
        drive_bytes(Search::at_rows(self.prepared.clone(), keys, rows).unwrap(), &self.file).unwrap()
    }
}

fn prepared(file: &Bytes, column: &str) -> Arc<Prepared> {
    let limits = Arc::new(Limits::default());
    let index = drive_bytes(Open::new(64 << 10, limits.clone()), file).unwrap();
    let (key_column, form) = (Some(column.to_owned()), Form::CompactRows);
    let query = Query { key_column, keys: Vec::new(), columns: None, form, row_limit: None };
    Arc::new(Prepared::new(index, &query, limits).unwrap())
}

/// A different number for every number, in no order.
fn scattered(number: i64) -> i64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64) >> 8
}

fn key(value: Option<i64>) -> Key {
    value.map_or(Key::Null, Key::Int)
}

struct Built {
    parts: Vec<Bytes>,
    head: Bytes,
    keymap: Keymap,
}

impl Built {
    /// The candidates of a key; none where it is to be searched for.
    fn candidates(&self, prepared: &Prepared, key: &Key) -> Result<Option<Vec<u64>>, Error> {
        candidates(&self.keymap, &self.parts, prepared, key)
    }

    fn bytes(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum::<usize>() + self.head.len()
    }
}

fn candidates(keymap: &Keymap, parts: &[Bytes], prepared: &Prepared, key: &Key) -> Result<Option<Vec<u64>>, Error> {
    let mut rows = Vec::new();
    let point = prepared.key_point(key).unwrap().expect("a key that some row could have");
    let mut next = keymap.place(&point);
    while let Next::Read(read) = &next {
        let bytes = &parts[read.part as usize][read.range.start as usize..read.range.end as usize];
        next = keymap.rows(read, bytes, &mut rows)?;
    }
    Ok((next == Next::Done).then_some(rows))
}

#[test]
fn every_key_is_found_at_its_row_and_absent_ones_without_a_candidate() {
    let subject = Subject::distinct(50_000);
    let built = subject.build(AMPLE);
    let mut false_ones = 0;
    for (row, held) in subject.keys.iter().enumerate() {
        let rows = built.candidates(&subject.prepared, &key(*held)).unwrap().unwrap();
        assert!(rows.contains(&(row as u64)), "row {row} is not among {rows:?}");
        false_ones += rows.len() - 1;
    }
    assert!(false_ones <= 10, "{false_ones} false candidates of 50,000 keys");
    let absent = (50_000..100_000).map(|number| key(Some(scattered(number))));
    let found = absent.filter(|key| built.candidates(&subject.prepared, key) != Ok(Some(Vec::new()))).count();
    assert!(found <= 3, "{found} of 50,000 absent keys have candidates");
    assert!(built.bytes() <= 8 * subject.keys.len(), "{} bytes", built.bytes());
    let worth = worth(subject.prepared.index(), 0, AMPLE).unwrap();
    assert!(worth.object_bytes.abs_diff(built.bytes() as u64) < worth.object_bytes / 10, "{worth:?} {}", built.bytes());
    assert_eq!(worth.passes, 1);
    assert!(built.keymap.weight() < built.head.len() as u64 + 1_000);
}

#[test]
fn all_rows_of_a_key_are_found_however_many_there_are() {
    let mut keys: Vec<Option<i64>> = (0..20_000).map(|row| Some(scattered(row))).collect();
    for (many, value) in [(2, -2), (32, -32), (33, -33), (1_000, -1_000), (100_000, -100_000)] {
        // In the midst of the others, and apart from each other.
        for i in 0..many {
            let at = (scattered(i) as usize) % keys.len();
            let old = keys[at].replace(value);
            keys.push(old);
        }
    }
    let subject = Subject::new(keys);
    let built = subject.build(AMPLE);
    for value in [-2, -32, -33, -1_000, -100_000] {
        let rows = subject.rows_of(Some(value));
        assert_eq!(built.candidates(&subject.prepared, &Key::Int(value)), Ok(Some(rows.clone())), "{value}");
        let answer = subject.ask(&built, &[Key::Int(value)]);
        assert_eq!((answer.row_number, &answer.statuses[..]), (rows, &[KeyStatus::Found][..]), "{value}");
    }
    let one = *subject.keys.iter().find(|key| **key > Some(0)).unwrap();
    assert_eq!(subject.ask(&built, &[key(one)]).row_number, subject.rows_of(one));
    assert!(built.bytes() <= 8 * subject.keys.len(), "{} bytes", built.bytes());
}

#[test]
fn null_keys_are_rows_of_their_own() {
    let keys = |rows: i64, every: i64| (0..rows).map(move |row| (row % every != 0).then(|| scattered(row))).collect();
    let subject = Subject::new(keys(30_000, 7));
    let built = subject.build(AMPLE);
    let answer = subject.ask(&built, &[Key::Null, key(subject.keys[1])]);
    let mut rows: Vec<u64> = subject.rows_of(None);
    assert_eq!(built.candidates(&subject.prepared, &Key::Null), Ok(Some(rows.clone())));
    rows.insert(1, 1);
    assert_eq!(answer.row_number, rows);
    let none = Subject::distinct(100);
    assert_eq!(none.build(AMPLE).candidates(&none.prepared, &Key::Null), Ok(Some(Vec::new())));
    let all = Subject::new(keys(30_000, 1));
    let built = all.build(AMPLE);
    assert_eq!(built.candidates(&all.prepared, &Key::Null).unwrap().unwrap().len(), 30_000);
    assert_eq!(built.candidates(&all.prepared, &Key::Int(5)), Ok(Some(Vec::new())));
    let too_many = Subject::new(vec![None; (1 << 18) + 1]);
    assert_eq!(too_many.build(AMPLE).candidates(&too_many.prepared, &Key::Null), Ok(None), "they are searched for");
}

#[test]
fn a_file_without_rows_has_a_keymap_without_parts() {
    let subject = Subject::new(Vec::new());
    let built = subject.build(AMPLE);
    assert!(built.parts.is_empty());
    for asked in [Key::Null, Key::Int(0)] {
        assert_eq!(built.candidates(&subject.prepared, &asked), Ok(Some(Vec::new())));
    }
}

#[test]
fn keys_that_collide_cost_comparisons_and_nothing_else() {
    let subject = Subject::new((0..5_000).map(|row| (row % 9 != 0).then(|| scattered(row / 3))).collect());
    for (bucket_bits, print_bits) in [(0, 1), (1, 2), (2, 4), (5, 3)] {
        let built = subject.weak(bucket_bits, print_bits);
        for number in (0..2_000).step_by(37) {
            let asked = [key(Some(scattered(number))), Key::Null, Key::Int(-1)];
            let candidates = built.candidates(&subject.prepared, &asked[0]).unwrap().unwrap();
            assert!(candidates.len() > 3, "{} candidates: nothing collides", candidates.len());
            let answer = subject.ask(&built, &asked[..1]);
            let rows = subject.rows_of(Some(scattered(number)));
            let status = if rows.is_empty() { KeyStatus::NotFound } else { KeyStatus::Found };
            assert_eq!((answer.row_number, answer.statuses[0]), (rows, status), "key {number}");
            assert_eq!(subject.ask(&built, &asked[2..]).statuses, [KeyStatus::NotFound]);
        }
        assert_eq!(subject.ask(&built, &[Key::Null]).row_number, subject.rows_of(None));
    }
}

#[test]
fn passes_within_a_tiny_budget_make_the_same_bytes_as_one_pass() {
    let keys = (0..200_000).map(|row| (row % 100 != 3).then(|| scattered(row / 2 % 15_000))).collect();
    let subject = Subject::new(keys);
    let whole = subject.build(AMPLE);
    for budget in [0, 300_000, 1_000_000] {
        let built = subject.build(budget);
        assert!(built.head == whole.head && built.parts == whole.parts, "budget {budget}");
    }
    assert!(worth(subject.prepared.index(), 0, 0).unwrap().passes > 10);
    let long = Subject::new(vec![None; (64 << 14) + 1]);
    let refused = Builder::new(long.prepared.clone(), 0).unwrap_err().to_string();
    assert!(refused.contains("reads the column 65 times"), "{refused}");
    assert!(Builder::new(long.prepared.clone(), AMPLE).is_ok());
}

#[test]
fn a_key_of_too_many_rows_is_searched_for_and_takes_no_memory() {
    // Of the least budget, 16,384 entries, a bucket may have a quarter.
    let keys = (0..30_000).map(|row| Some(if row % 3 == 0 { scattered(row) } else { i64::from(row % 2 == 0) }));
    let subject = Subject::new(keys.collect());
    let built = subject.build(0);
    assert_eq!(built.candidates(&subject.prepared, &Key::Int(0)), Ok(None));
    assert_eq!(built.candidates(&subject.prepared, &Key::Int(1)), Ok(None));
    let (mut found, mut searched) = (0, 0);
    for row in (0..30_000).step_by(3) {
        match built.candidates(&subject.prepared, &key(subject.keys[row])).unwrap() {
            Some(rows) if rows == [row as u64] => found += 1,
            Some(rows) => panic!("row {row} is not among {rows:?}"),
            None => searched += 1,
        }
    }
    assert!(found > 8_000, "{found} found, {searched} searched for");
}

#[test]
fn a_search_at_rows_drops_rows_that_hold_another_key() {
    let subject = Subject::distinct(30_000);
    let asked = [key(subject.keys[25_000]), Key::Int(-7)];
    let rows = vec![29_999, 25_000, 25_000, 0, 24_999, 40_000];
    let answer = drive_bytes(Search::at_rows(subject.prepared.clone(), &asked, rows).unwrap(), &subject.file).unwrap();
    assert_eq!(answer.row_number, [25_000]);
    assert_eq!(answer.statuses, [KeyStatus::Found, KeyStatus::NotFound]);
}

/// A head with a checksum that is right again.
fn sealed(mut head: Vec<u8>) -> Bytes {
    let body = head.len() - 4;
    let crc = crc32c::crc32c(&head[..body]);
    head[body..].copy_from_slice(&crc.to_le_bytes());
    head.into()
}

#[test]
fn a_damaged_head_is_refused_and_a_forged_one_harms_nobody() {
    let subject = Subject::new((0..3_000).map(|row| (row % 5 != 0).then(|| scattered(row % 70))).collect());
    let built = subject.build(AMPLE);
    let index = subject.prepared.index();
    let asked: BTreeSet<Option<i64>> = subject.keys.iter().copied().chain([Some(-1)]).collect();
    for at in 0..built.head.len() {
        for flip in [1, 0x80] {
            let mut damaged = built.head.to_vec();
            damaged[at] ^= flip;
            assert!(Keymap::read(&damaged.clone().into(), index).is_err(), "byte {at}");
            if let Ok(forged) = Keymap::read(&sealed(damaged), index) {
                for value in &asked {
                    let point = subject.prepared.key_point(&key(*value)).unwrap().unwrap();
                    if let Next::Read(read) = forged.place(&point) {
                        let part = built.parts.get(read.part as usize).map(|part| &part[..]).unwrap_or_default();
                        let bytes = part.get(read.range.start as usize..read.range.end as usize).unwrap_or_default();
                        let _ = forged.rows(&read, bytes, &mut Vec::new());
                    }
                }
            }
        }
        assert!(Keymap::read(&built.head.slice(..at), index).is_err(), "{at} bytes");
        assert!(Keymap::read(&sealed(built.head[..at.max(4)].to_vec()), index).is_err(), "{at} bytes, sealed");
    }
    let other = Subject::distinct(3_000);
    assert!(Keymap::read(&built.head, other.prepared.index()).is_err(), "of another file");
}

#[test]
fn a_damaged_part_is_an_error_for_whom_it_matters_to() {
    let subject = Subject::new((0..600).map(|row| (row % 5 != 0).then(|| scattered((row % 90).min(60)))).collect());
    let built = subject.build(AMPLE);
    let asked: BTreeSet<Option<i64>> = subject.keys.iter().copied().chain([Some(-1)]).collect();
    let whole = built.parts[0].clone();
    let mut errors = 0;
    for at in 0..whole.len() {
        let mut damaged = whole.to_vec();
        damaged[at] ^= 4;
        let parts = [Bytes::from(damaged)];
        for value in &asked {
            match candidates(&built.keymap, &parts, &subject.prepared, &key(*value)) {
                Ok(rows) => assert_eq!(rows, Some(subject.rows_of(*value)), "byte {at}, key {value:?}"),
                Err(_) => errors += 1,
            }
        }
    }
    assert!(errors >= whole.len(), "every byte belongs to some key");
}
