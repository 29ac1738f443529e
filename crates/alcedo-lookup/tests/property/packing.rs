//! Data pages packed anew: rows that go over the border of a page, pages without values, and the codecs' odd framings.
//!
//! The parquet crate's writers begin every page with a row and frame a codec's data in one way; others do not. All of
//! it is allowed, or was written by well-known writers before the format was made clear
//! (<https://github.com/apache/parquet-format/blob/master/Compression.md>).

use std::io::Write;

use flate2::write::GzEncoder;
use parquet::basic::Type as Physical;

use crate::random::Random;
use crate::rewriting::Chunk;
use crate::thrift::Thrift;
use crate::writing::Levels;

const CODEC: i16 = 4;
const GZIP: i64 = 2;
const LZ4: i64 = 5;
/// Fields of a page header: the sizes, and the headers of data pages of version 1 and 2.
const UNCOMPRESSED_SIZE: i16 = 2;
const COMPRESSED_SIZE: i16 = 3;
const DATA_V2: i16 = 8;

/// Writes a chunk again in plain data pages of version 1 that end anywhere, some of them empty. Such pages can have no
/// index.
pub(crate) fn spanning(random: &mut Random, chunk: &mut Chunk) {
    let levels = chunk.levels.clone();
    let count = levels.definitions.len();
    let (mut at, mut value, mut pages) = (0, 0, Vec::new());
    while at < count || random.percent(10) {
        let end = if random.percent(10) { at } else { (at + 1 + random.below(20)).min(count) };
        let present = levels.definitions[at..end].iter().filter(|level| **level == levels.most_definitions).count();
        pages.push(plain_page(chunk.leaf.physical(), &levels, at..end, value..value + present));
        (at, value) = (end, value + present);
    }
    chunk.pages = pages;
    (chunk.column_index, chunk.offset_index) = (None, None);
    chunk.meta().set(11, None);
    chunk.meta().set(CODEC, Some(Thrift::i32(0)));
}

fn plain_page(
    physical: Physical,
    levels: &Levels,
    at: std::ops::Range<usize>,
    values: std::ops::Range<usize>,
) -> (Thrift, Vec<u8>) {
    let mut body = Vec::new();
    if levels.most_repetitions > 0 {
        runs(&levels.repetitions[at.clone()], &mut body);
    }
    if levels.most_definitions > 0 {
        runs(&levels.definitions[at.clone()], &mut body);
    }
    let values = &levels.values[values];
    match physical {
        Physical::BOOLEAN => {
            let bits = |bits: &[Vec<u8>]| bits.iter().enumerate().fold(0, |byte, (i, bit)| byte | bit[0] << i);
            body.extend(values.chunks(8).map(bits));
        }
        Physical::BYTE_ARRAY => {
            for value in values {
                body.extend((value.len() as u32).to_le_bytes());
                body.extend(value);
            }
        }
        _ => body.extend(values.concat()),
    }
    let rle = Thrift::i32(3);
    let data = [(1, Thrift::i32(at.len() as i64)), (2, Thrift::i32(0)), (3, rle.clone()), (4, rle)];
    let size = Thrift::i32(body.len() as i64);
    let header = [(1, Thrift::i32(0)), (2, size.clone()), (3, size), (5, Thrift::Struct(data.to_vec()))];
    (Thrift::Struct(header.to_vec()), body)
}

/// Levels as runs of equal ones, with the length in front.
fn runs(levels: &[i16], out: &mut Vec<u8>) {
    let mut encoded = Vec::new();
    for run in levels.chunk_by(|a, b| a == b) {
        let mut head = run.len() << 1;
        while head >= 0x80 {
            encoded.push(head as u8 | 0x80);
            head >>= 7;
        }
        encoded.extend([head as u8, run[0] as u8]);
    }
    out.extend((encoded.len() as u32).to_le_bytes());
    out.extend(encoded);
}

/// Compresses the pages of an uncompressed chunk in one of the odd framings.
pub(crate) fn frame(random: &mut Random, chunk: &mut Chunk) {
    if chunk.meta().int(CODEC) != Some(0) {
        return;
    }
    let codec = *random.pick(&[GZIP, LZ4, LZ4]);
    let style = random.below(3);
    for (header, body) in &mut chunk.pages {
        // The levels of version 2 stay as they are, and each page says whether its values are compressed.
        let v2 = header.get_mut(DATA_V2);
        let plain = v2.as_ref().map_or(0, |v2| (v2.int(5).unwrap() + v2.int(6).unwrap()) as usize);
        let skip = v2.is_some() && (body.len() == plain || random.percent(20));
        if let Some(v2) = v2 {
            v2.set(7, Some(Thrift::Bool(!skip)));
        }
        if !skip {
            let packed = pack(random, codec, style, &body[plain..]);
            header.set(UNCOMPRESSED_SIZE, Some(Thrift::i32(body.len() as i64)));
            body.truncate(plain);
            body.extend(packed);
            header.set(COMPRESSED_SIZE, Some(Thrift::i32(body.len() as i64)));
        }
    }
    chunk.meta().set(CODEC, Some(Thrift::i32(codec)));
}

fn pack(random: &mut Random, codec: i64, style: usize, data: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = match data.len() {
        0 => vec![data],
        length => data.chunks(1 + random.below(length)).take(50).collect(),
    };
    let packed: usize = parts.iter().map(|part| part.len()).sum();
    let parts = [&parts[..], &[&data[packed..]]].concat();
    let parts: Vec<&[u8]> = parts.into_iter().filter(|part| !part.is_empty() || data.is_empty()).take(51).collect();
    match (codec, style) {
        // Several members, as pigz and some JVM writers make them.
        (GZIP, _) => parts.iter().flat_map(|part| gzip(part)).collect(),
        // Hadoop's blocks: each with its size, its parts with theirs.
        (_, 0) => parts.iter().flat_map(|part| hadoop(&[part])).collect(),
        (_, 1) => hadoop(&parts),
        // What was written before the format said which framing is meant.
        _ => lz4_flex::block::compress(data),
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn hadoop(parts: &[&[u8]]) -> Vec<u8> {
    let whole: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = (whole as u32).to_be_bytes().to_vec();
    for part in parts {
        let packed = lz4_flex::block::compress(part);
        out.extend((packed.len() as u32).to_be_bytes());
        out.extend(packed);
    }
    out
}
