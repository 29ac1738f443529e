//! Every offset, length and count of a column chunk, set to where nothing is.

use super::column::Column;
use super::fuzzed::craft::{ChunkClaims, Element, File, PageClaims, Struct, footer, page_location, row_group};
use super::{Expect, Hostile};

type Change = (&'static str, fn(&mut ChunkClaims, i64));

/// What is set to each of the values.
const FIELDS: &[Change] = &[
    ("data page offset", |chunk, value| chunk.data = value),
    ("dictionary page offset", |chunk, value| chunk.dictionary = Some(value)),
    ("compressed size", |chunk, value| chunk.compressed = value),
    ("uncompressed size", |chunk, value| chunk.uncompressed = value),
    ("values", |chunk, value| chunk.values = value),
    ("offset index's offset", |chunk, value| chunk.offset_index = Some((value, 16))),
    ("offset index's length", |chunk, value| chunk.offset_index = Some((4, value))),
    ("column index's offset", |chunk, value| chunk.column_index = Some((value, 16))),
    ("column index's length", |chunk, value| chunk.column_index = Some((4, value))),
    ("codec", |chunk, value| chunk.codec = value),
    ("type", |chunk, value| chunk.physical = value),
];

/// The file below has between 150 and 250 bytes.
const VALUES: &[i64] =
    &[i64::MIN, -1, 0, 1, 3, 4, 5, 40, 120, 250, i32::MAX as i64, 1 << 32, 1 << 40, i64::MAX - 1, i64::MAX];

pub(crate) fn all() -> Vec<Hostile> {
    let mut files = Vec::new();
    for (name, change) in FIELDS {
        for value in VALUES {
            files.push(Hostile::new(format!("{name} {value}"), Expect::Ends, move || {
                Column::int64(&[1, 2, 3]).file_with(|chunk, _| change(chunk, *value))
            }));
        }
    }
    files.push(Hostile::new("the dictionary is the data page", Expect::Ends, || {
        Column::int64(&[1, 2, 3]).file_with(|chunk, _| chunk.dictionary = Some(chunk.data))
    }));
    files.push(Hostile::new("the dictionary comes after the data page", Expect::Ends, || {
        Column::int64(&[1, 2, 3]).file_with(|chunk, _| chunk.dictionary = Some(chunk.data + 10))
    }));
    files.push(Hostile::new("a page that is its own dictionary", Expect::Ends, dictionary_of_itself));
    files.push(Hostile::new("a chunk of 60 MiB of zeros", Expect::Ends, || zeros(60 << 20)));
    files.push(Hostile::new("a hundred chunks that overlap", Expect::Ends, overlapping));
    files.push(Hostile::new("a chunk that is the whole file", Expect::Ends, || {
        Column::int64(&[1, 2, 3]).file_with(|chunk, _| (chunk.data, chunk.compressed) = (4, 180))
    }));
    for (field, value) in (1..=3).flat_map(|field| [i64::from(i32::MAX), -1, i64::from(i32::MIN)].map(|v| (field, v))) {
        files.push(Hostile::new(format!("page header field {field} is {value}"), Expect::Ends, move || {
            header(field, value)
        }));
    }
    files.push(Hostile::new("a page header without end", Expect::Fails(&["Corrupt", "Limit"]), || {
        Column::new(Element::leaf("v", 2), vec![0x1c; 4 << 20], 3).file()
    }));
    files.push(Hostile::new("a page header of a million unknown fields", Expect::Ends, || {
        let mut header = Struct::new().i32(1, 0).i32(2, 8).i32(3, 8).put(5, Struct::new().i32(1, 1).i32(2, 0));
        for id in 0..100_000_i32 {
            header = header.bool(100 + (id % 2) as i16, true);
        }
        Column::new(Element::leaf("v", 2), [header.end(), vec![0; 8]].concat(), 1).file()
    }));
    files
}

fn header(field: i64, value: i64) -> Vec<u8> {
    let mut claims = PageClaims::v1(8, 1, 0);
    match field {
        1 => claims.kind = value,
        2 => claims.inflated = value,
        _ => claims.stored = value,
    }
    Column::new(Element::leaf("v", 2), claims.page(&[0; 8]), 1).file()
}

fn dictionary_of_itself() -> Vec<u8> {
    let page = PageClaims { kind: 2, ..PageClaims::v1(8, 1, 8) }.page(&[1, 2, 0, 0, 0, 0, 0, 0]);
    Column { dictionary: 0, ..Column::new(Element::leaf("v", 2), page, 1) }.file_with(|chunk, file| {
        chunk.dictionary = Some(chunk.data);
        let index = Struct::new().structs(1, [page_location(chunk.data, chunk.compressed, 0)]).end();
        chunk.offset_index = Some(file.put(&index));
    })
}

fn zeros(bytes: usize) -> Vec<u8> {
    Column::new(Element::leaf("v", 2), vec![0; bytes], 3).file()
}

fn overlapping() -> Vec<u8> {
    let mut file = File::default();
    let body: Vec<u8> = (0..1_000_i64).flat_map(i64::to_le_bytes).collect();
    let (at, bytes) = file.put(&PageClaims::v1(body.len(), 1_000, 0).page(&body));
    let mut schema = vec![Element::group("root", 100)];
    schema.extend((0..100).map(|leaf| Element::leaf(&format!("c{leaf}"), 2)));
    let chunks: Vec<ChunkClaims> =
        (0..100).map(|leaf| ChunkClaims::new(&format!("c{leaf}"), 2, 1_000, at + leaf % 3, bytes)).collect();
    file.end(&footer(&schema, [row_group(&chunks, 1_000)], 1_000).end())
}
