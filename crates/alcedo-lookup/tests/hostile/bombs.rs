//! Pages that inflate to much more than they are, and page headers that say something else.

use std::io::Write;

use super::column::Column;
use super::fuzzed::craft::{ChunkClaims, Element, File, PageClaims, footer, row_group, uvarint};
use super::{Expect, Hostile};

/// Parquet's codecs by number; 50 is LZ4's own frame where Hadoop's is due.
const CODECS: &[(&str, i64)] =
    &[("snappy", 1), ("gzip", 2), ("brotli", 4), ("lz4_hadoop", 5), ("lz4_frame", 50), ("zstd", 6), ("lz4_raw", 7)];

const MIB: usize = 1 << 20;
/// The largest page that is read.
const PAGE_BYTES: usize = 64 * MIB;

fn compressed(codec: i64, data: &[u8]) -> Vec<u8> {
    match codec {
        1 => snap::raw::Encoder::new().compress_vec(data).unwrap(),
        2 => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        4 => {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 1, 22);
            encoder.write_all(data).unwrap();
            encoder.into_inner()
        }
        5 => {
            let block = lz4_flex::block::compress(data);
            let sizes = [(data.len() as u32).to_be_bytes(), (block.len() as u32).to_be_bytes()].concat();
            [sizes, block].concat()
        }
        50 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        6 => zstd::bulk::compress(data, 1).unwrap(),
        _ => lz4_flex::block::compress(data),
    }
}

/// A column of int64 zeros: `actual` bytes in the page, `declared` in its header.
fn zeros(codec: i64, actual: usize, declared: i64, v2: bool) -> Vec<u8> {
    let body = compressed(codec, &vec![0; actual]);
    let rows = (declared / 8).max(1);
    let plain = PageClaims::v1(body.len(), rows, 0);
    let claims = PageClaims { inflated: declared, v2: (0, rows, 0, 0, true), kind: if v2 { 3 } else { 0 }, ..plain };
    let codec = if codec == 50 { 5 } else { codec };
    Column { codec, ..Column::new(Element::leaf("v", 2), claims.page(&body), rows) }.file()
}

pub(crate) fn all() -> Vec<Hostile> {
    let mut files = Vec::new();
    for (name, codec) in CODECS {
        let codec = *codec;
        let mut add = |what: &str, expect, actual: usize, declared: usize, v2| {
            let bytes = move || zeros(codec, actual, declared as i64, v2);
            files.push(Hostile::new(format!("bomb {name} {what}"), expect, bytes));
        };
        // Millions of rows match: that is an error about the answer, or the file where its pages are bounded.
        let size = if codec == 2 { PAGE_BYTES } else { 12 * MIB };
        add("honest", Expect::Fails(&["AnswerTooLarge", "Limit"]), size, size, false);
        add("honest v2", Expect::Fails(&["AnswerTooLarge", "Limit"]), 12 * MIB, 12 * MIB, true);
        add("says less", Expect::Fails(&["Corrupt"]), 96 * MIB, 800, false);
        add("says less v2", Expect::Fails(&["Corrupt"]), 96 * MIB, 800, true);
        add("says more", Expect::Fails(&["Corrupt", "Limit"]), 800, PAGE_BYTES, false);
        add("beyond the bound", Expect::Fails(&["Limit", "Corrupt"]), 128 * MIB, 128 * MIB, false);
        add("says 2 GiB", Expect::Fails(&["Limit", "Corrupt"]), 800, i32::MAX as usize, false);
    }
    files.push(Hostile::new("gzip of a million empty members", Expect::Fails(&["Corrupt"]), empty_members));
    files.push(Hostile::new("zstd frame with a 2 GiB window", Expect::Ends, wide_window));
    files.push(Hostile::new("lz4 hadoop blocks of nothing", Expect::Fails(&["Corrupt"]), empty_blocks));
    files.push(Hostile::new("snappy that declares 4 GiB", Expect::Fails(&["Corrupt"]), || snappy_claiming(u32::MAX)));
    files.push(Hostile::new("ten pages of 32 MiB", Expect::Ends, ten_bombs));
    files.push(Hostile::new("a 16 MiB string in every row", Expect::Ends, long_string_everywhere));
    files.push(Hostile::new("a bomb as dictionary", Expect::Ends, dictionary_bomb));
    files
}

fn page_of(codec: i64, body: &[u8], declared: i64) -> Vec<u8> {
    let claims = PageClaims { inflated: declared, ..PageClaims::v1(body.len(), 100, 0) };
    Column { codec, ..Column::new(Element::leaf("v", 2), claims.page(body), 100) }.file()
}

fn empty_members() -> Vec<u8> {
    page_of(2, &compressed(2, b"").repeat(500_000), 800)
}

fn wide_window() -> Vec<u8> {
    // Magic, a frame header without content size but with the widest window descriptor, one raw block, the last.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8];
    frame.extend((800_u32 << 3 | 1).to_le_bytes()[..3].iter());
    frame.extend([0; 800]);
    page_of(6, &frame, 800)
}

fn empty_blocks() -> Vec<u8> {
    page_of(5, &vec![0; 8 * MIB], 800)
}

fn snappy_claiming(size: u32) -> Vec<u8> {
    page_of(1, &[uvarint(size.into()), vec![0; 64]].concat(), 800)
}

fn ten_bombs() -> Vec<u8> {
    let body = compressed(6, &vec![1; 32 * MIB]);
    let rows = 32 * MIB as i64 / 8;
    let page = PageClaims { inflated: 32 * MIB as i64, ..PageClaims::v1(body.len(), rows, 0) }.page(&body);
    Column { codec: 6, ..Column::new(Element::leaf("v", 2), page.repeat(10), rows * 10) }.file()
}

fn long_string_everywhere() -> Vec<u8> {
    const ROWS: i64 = 5_000;
    let mut file = File::default();
    let keys = [1_u8, 0, 0, 0].repeat(ROWS as usize);
    let (at, bytes) = file.put(&PageClaims::v1(keys.len(), ROWS, 0).page(&keys));
    let key = ChunkClaims::new("k", 1, ROWS, at, bytes);
    let text = [(15 * MIB as u32).to_le_bytes().to_vec(), vec![b'x'; 15 * MIB]].concat();
    let dictionary = PageClaims { kind: 2, ..PageClaims::v1(text.len(), 1, 0) }.page(&text);
    // One bit wide, one run of index 0.
    let indices = [vec![1], uvarint((ROWS as u64) << 1), vec![0]].concat();
    let (at, length) = file.put(&dictionary);
    let (data, bytes) = file.put(&PageClaims::v1(indices.len(), ROWS, 8).page(&indices));
    let mut texts = ChunkClaims::new("t", 6, ROWS, data, length + bytes);
    texts.dictionary = Some(at);
    let schema = [Element::group("root", 2), Element::leaf("k", 1), Element::leaf("t", 6)];
    file.end(&footer(&schema, [row_group(&[key, texts], ROWS)], ROWS).end())
}

fn dictionary_bomb() -> Vec<u8> {
    let body = compressed(6, &vec![0; PAGE_BYTES]);
    let rows = 1_000;
    let claims = PageClaims::v1(body.len(), PAGE_BYTES as i64 / 4, 0);
    let dictionary = PageClaims { kind: 2, inflated: PAGE_BYTES as i64, ..claims }.page(&body);
    let indices = compressed(6, &[vec![1], uvarint(rows << 1), vec![0]].concat());
    let data = PageClaims { inflated: 4, ..PageClaims::v1(indices.len(), rows as i64, 8) }.page(&indices);
    let pages = [dictionary.as_slice(), &data].concat();
    let empty_strings = Column::new(Element::leaf("v", 6), pages, rows as i64);
    Column { codec: 6, dictionary: dictionary.len(), ..empty_strings }.file()
}
