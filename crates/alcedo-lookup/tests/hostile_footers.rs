//! Footers made to cost as much as they can: what opening them adds to the process stays within its bound.
//!
//! One test in a program of its own, because what is measured is the process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use alcedo_lookup::answer::Form;
use alcedo_lookup::error::Error;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::drive_bytes;
use alcedo_lookup::open::Open;
use alcedo_lookup::search::Query;
use bytes::Bytes;

/// What a hostile file may add to the process, as resident bytes.
const MAX_GROWTH: u64 = 256 << 20;

/// Resident bytes of the process: now, or its peak since the last reset.
fn resident(of: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(of)).unwrap();
    line.split_whitespace().find_map(|word| word.parse::<u64>().ok()).unwrap() << 10
}

fn uvarint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn list(element: u8, count: usize, of: &[u8]) -> Vec<u8> {
    [vec![0xf0 | element], uvarint(count), of.repeat(count)].concat()
}

/// A field's head and its value.
fn field(head: u8, value: &[u8]) -> Vec<u8> {
    [&[head], value].concat()
}

/// A schema of so many leaves with names of so many bytes.
fn schema(leaves: usize, name_bytes: usize) -> Vec<u8> {
    let root = [vec![0x55], uvarint(leaves << 1), vec![0]].concat();
    let mut bytes = [vec![0xfc], uvarint(leaves + 1), root].concat();
    for leaf in 0..leaves {
        bytes.extend([0x15, 2, 0x25, 2, 0x18]);
        bytes.extend(uvarint(name_bytes));
        let digits = leaf.to_string();
        bytes.extend("n".repeat(name_bytes.saturating_sub(digits.len())).into_bytes());
        bytes.extend(&digits.as_bytes()[..digits.len().min(name_bytes)]);
        bytes.push(0);
    }
    bytes
}

/// Row groups of chunks that say what these bytes say.
fn groups(count: usize, chunks: usize, chunk: &[u8]) -> Vec<u8> {
    let group = [field(0x19, &list(12, chunks, chunk)), vec![0x26, 2, 0]].concat();
    list(12, count, &group)
}

fn file(footer: &[Vec<u8>]) -> Bytes {
    let footer = footer.concat();
    let length = (footer.len() as u32).to_le_bytes();
    [b"PAR1", footer.as_slice(), &length, b"PAR1"].concat().into()
}

/// Opens a file; what that added to the process at its peak, and what came of it.
fn open(name: &str, file: &Bytes) -> Result<Arc<FileIndex>, Error> {
    // 5: reset the peak.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let (before, started) = (resident("VmRSS:"), Instant::now());
    let index = drive_bytes(Open::new(64 << 10, Arc::new(Limits::default())), file);
    let (took, growth) = (started.elapsed(), resident("VmHWM:").saturating_sub(before));
    let outcome = index.as_ref().map(|index| index.weight()).map_err(ToString::to_string);
    println!("{name}: footer {} KiB, growth {} KiB in {took:?}: {outcome:?}", file.len() >> 10, growth >> 10);
    assert!(growth < MAX_GROWTH, "{name}: {growth} bytes");
    index
}

/// A chunk with statistics of two short values, which cost most for their bytes.
fn chunk() -> Vec<u8> {
    let stats = [field(0x58, &[4, 1, 2, 3, 4]), field(0x18, &[4, 1, 2, 3, 4]), vec![0]].concat();
    [vec![0x3c], field(0xcc, &stats), vec![0, 0]].concat()
}

#[test]
fn no_footer_costs_more_than_its_bound() {
    let refused = |name: &str, file: Bytes, why: &str| {
        let error = open(name, &file).unwrap_err().to_string();
        assert!(error.contains(why), "{name}: {error}");
    };
    let rows = |count, leaves| field(0x29, &groups(count, leaves, &chunk()));
    let most = file(&[field(0x29, &schema(10_000, 5)), rows(50, 10_000), vec![0]]);
    let index = open("as many chunks with statistics as are read", &most).unwrap();
    let encoded = index.encode();
    drop(index);
    FileIndex::decode(&encoded, &Limits::default()).unwrap();
    let wide = file(&[field(0x29, &schema(49_999, 90)), rows(10, 49_999), vec![0]]);
    let index = open("a schema as wide as is read, and as many chunks", &wide).unwrap();
    let query = Query {
        key_column: Some("no such column".to_owned()),
        keys: Vec::new(),
        columns: None,
        form: Form::CompactRows,
        row_limit: None,
    };
    let error = index.may_hold(&query).unwrap_err();
    assert!(error.to_string().len() < 300, "{error}");
    drop(index);
    let over = file(&[field(0x29, &schema(10_000, 5)), rows(51, 10_000), vec![0]]);
    refused("more chunks", over, "column chunks");
    let bytes = file(&[field(0x29, &schema(1, 1)), field(0x29, &groups(1, 1_000_000, &[0])), vec![0]]);
    refused("a million chunks of one byte", bytes, "another number of columns");
    let pairs = file(&[field(0x29, &schema(1, 1)), field(0x39, &list(12, 1_000_001, &[0])), vec![0]]);
    refused("a million pairs of metadata", pairs, "a list of 1000001 elements");
    let structs = file(&[field(0x29, &schema(1, 1)), field(0x3c, &vec![0x1c; 15 << 20])]);
    refused("structs in structs", structs, "nest more than");
    let long = file(&[field(0x29, &schema(1, 15 << 20)), field(0x29, &groups(0, 0, &[])), vec![0]]);
    drop(open("a name of 15 MiB", &long).unwrap());
}
