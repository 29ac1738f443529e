//! A written file taken apart, changed as other writers would have written it, and put together again.
//!
//! Every change leaves a file whose rows a reader is entitled to find: what is wrong afterwards is advisory (page
//! indexes that lie outside of the file, totals that nobody needs) or has no meaning by the format (an undeclared
//! column order, deprecated statistics of unsigned values).

use std::ops::Range;

use bytes::Bytes;

use crate::packing;
use crate::random::Random;
use crate::schema::{Leaf, Node};
use crate::statistics;
use crate::thrift::{Thrift, read};
use crate::writing::{Levels, Row, shred};

const DICTIONARY_PAGE: i64 = 2;
const INDEX_PAGE: i64 = 1;

/// One column chunk.
pub(crate) struct Chunk {
    pub(crate) leaf: Leaf,
    /// The `ColumnChunk`.
    pub(crate) thrift: Thrift,
    /// Headers and bodies, dictionary page first.
    pub(crate) pages: Vec<(Thrift, Vec<u8>)>,
    pub(crate) column_index: Option<Thrift>,
    pub(crate) offset_index: Option<Thrift>,
    bloom: Vec<u8>,
    /// What it holds.
    pub(crate) levels: Levels,
    pub(crate) rows: u64,
}

/// A file in parts.
struct Parts {
    footer: Thrift,
    /// By row group.
    chunks: Vec<Vec<Chunk>>,
}

/// The file, changed by some of the changes or none, and their names.
pub(crate) fn rewrite(
    random: &mut Random,
    file: Bytes,
    schema: &[Node],
    rows: &[Row],
    groups: &[Range<usize>],
    arrow: bool,
) -> (Bytes, Vec<&'static str>) {
    if random.percent(30) {
        return (file, vec!["as written"]);
    }
    // Arrow's writer leaves no empty row groups behind.
    let groups: Vec<Range<usize>> = groups.iter().filter(|group| !arrow || !group.is_empty()).cloned().collect();
    let mut parts = take_apart(&file, schema, rows, &groups);
    let mut changes = vec!["taken apart"];
    // Arrow's writer stores decimals in its own way.
    let known = |leaf: Leaf| !(arrow && matches!(leaf, Leaf::Decimal { .. }));
    if random.percent(25) {
        changes.push(statistics::change(random, &mut parts.footer, parts.chunks.iter_mut().flatten(), known));
    }
    if random.percent(15) {
        for chunk in parts.chunks.iter_mut().flatten().filter(|chunk| known(chunk.leaf)) {
            if random.percent(60) {
                packing::spanning(random, chunk);
            }
        }
        changes.push("rows over the borders of data pages");
    }
    for (share, name, change) in CHANGES {
        if random.percent(*share) {
            change(random, &mut parts);
            changes.push(name);
        }
    }
    let file = put_together(random, parts);
    (file.into(), changes)
}

fn take_apart(file: &[u8], schema: &[Node], rows: &[Row], groups: &[Range<usize>]) -> Parts {
    let trailer = file.len() - 8;
    let length = u32::from_le_bytes(file[trailer..trailer + 4].try_into().unwrap()) as usize;
    let (mut footer, _) = read(&file[trailer - length..trailer]);
    let leaves: Vec<Leaf> = schema.iter().flat_map(Node::leaves).collect();
    let mut chunks = Vec::new();
    let row_groups = footer.list_mut(4);
    assert_eq!(row_groups.len(), groups.len(), "row groups");
    for (row_group, range) in row_groups.iter_mut().zip(groups) {
        let levels = shred(schema, &rows[range.clone()]);
        let columns = row_group.list_mut(1).iter().zip(leaves.iter().zip(levels));
        let of_group =
            columns.map(|(thrift, (leaf, levels))| take_chunk(file, thrift, *leaf, levels, range.len() as u64));
        chunks.push(of_group.collect());
    }
    Parts { footer, chunks }
}

fn take_chunk(file: &[u8], thrift: &Thrift, leaf: Leaf, levels: Levels, rows: u64) -> Chunk {
    let meta = thrift.get(3).unwrap();
    let dictionary = meta.int(11).filter(|offset| *offset > 0);
    let mut at = dictionary.or(meta.int(9)).unwrap() as usize;
    let end = at + meta.int(7).unwrap() as usize;
    let mut pages = Vec::new();
    while at < end {
        let (header, length) = read(&file[at..]);
        let body = at + length..at + length + header.int(3).unwrap() as usize;
        at = body.end;
        pages.push((header, file[body].to_vec()));
    }
    let range = |thrift: &Thrift, offset: i16| {
        let start = thrift.int(offset)? as usize;
        Some(&file[start..start + thrift.int(offset + 1)? as usize])
    };
    Chunk {
        leaf,
        thrift: thrift.clone(),
        pages,
        column_index: range(thrift, 6).map(|bytes| read(bytes).0),
        offset_index: range(thrift, 4).map(|bytes| read(bytes).0),
        bloom: range(meta, 14).unwrap_or_default().to_vec(),
        levels,
        rows,
    }
}

type Change = (u64, &'static str, fn(&mut Random, &mut Parts));

/// Percent, name, change.
const CHANGES: &[Change] = &[
    (60, "odd framing if uncompressed", |random, parts| {
        for chunk in parts.chunks.iter_mut().flatten() {
            if random.percent(60) {
                packing::frame(random, chunk);
            }
        }
    }),
    (30, "page checksums", |_, parts| {
        for (header, body) in parts.pages() {
            header.set(4, Some(Thrift::i32((crc32fast::hash(body) as i32).into())));
        }
    }),
    (30, "unknown fields", |random, parts| {
        add_unknown(random, &mut parts.footer);
        parts.footer.list_mut(4).iter_mut().for_each(|group| add_unknown(random, group));
        for chunk in parts.chunks.iter_mut().flatten() {
            add_unknown(random, &mut chunk.thrift);
            add_unknown(random, chunk.meta());
            let indexes = chunk.column_index.iter_mut().chain(&mut chunk.offset_index);
            indexes.chain(chunk.pages.iter_mut().map(|(header, _)| header)).for_each(|it| add_unknown(random, it));
        }
    }),
    (15, "wrong num_rows", |random, parts| parts.footer.set(3, Some(Thrift::i64(random.within(0, 3))))),
    (10, "no created_by", |_, parts| parts.footer.set(6, None)),
    (15, "no null counts", |random, parts| {
        for chunk in parts.chunks.iter_mut().flatten().filter(|_| random.percent(60)) {
            chunk.column_index.iter_mut().for_each(|index| index.set(5, None));
            chunk.meta().get_mut(12).into_iter().for_each(|stats| stats.set(3, None));
        }
    }),
    (15, "dictionary offset in the data page offset", |_, parts| {
        for chunk in parts.chunks.iter_mut().flatten() {
            chunk.meta().set(11, None);
        }
    }),
    (10, "dictionary offset 0", |_, parts| {
        for chunk in parts.chunks.iter_mut().flatten().filter(|chunk| !chunk.has_dictionary()) {
            chunk.meta().set(11, Some(Thrift::i64(0)));
        }
    }),
    (20, "indexes of some chunks only", |random, parts| {
        for chunk in parts.chunks.iter_mut().flatten() {
            match random.below(4) {
                0 => chunk.column_index = None,
                1 => (chunk.column_index, chunk.offset_index) = (None, None),
                2 => chunk.offset_index = None,
                _ => {}
            }
        }
    }),
    (15, "wrong totals and places", |random, parts| {
        for group in parts.footer.list_mut(4) {
            group.set(2, Some(Thrift::i64(random.within(0, 9))));
            [5, 6, 7].iter().for_each(|id| group.set(*id, None));
        }
        for chunk in parts.chunks.iter_mut().flatten() {
            chunk.thrift.set(2, Some(Thrift::i64(*random.pick(&[0, 4, 1 << 50]))));
            chunk.meta().set(6, Some(Thrift::i64(1)));
            chunk.meta().set(13, None);
        }
    }),
    (10, "a sort order by a column that is not there", |random, parts| {
        for group in parts.footer.list_mut(4) {
            let column = Thrift::i32(*random.pick(&[999, -1]));
            let sorting = Thrift::Struct(vec![(1, column), (2, Thrift::Bool(true)), (3, Thrift::Bool(false))]);
            group.set(4, Some(Thrift::List(12, vec![sorting])));
        }
    }),
    (8, "an index page between the data pages", |random, parts| {
        for chunk in parts.chunks.iter_mut().flatten().filter(|chunk| chunk.pages.len() > 1) {
            let body = random.bytes(9);
            let size = Thrift::i32(body.len() as i64);
            let header = [(1, Thrift::i32(INDEX_PAGE)), (2, size.clone()), (3, size), (6, Thrift::Struct(Vec::new()))];
            let at = 2 + random.below(chunk.pages.len() - 1);
            chunk.pages.insert(at, (Thrift::Struct(header.to_vec()), body));
        }
    }),
];

impl Parts {
    fn pages(&mut self) -> impl Iterator<Item = &mut (Thrift, Vec<u8>)> {
        self.chunks.iter_mut().flatten().flat_map(|chunk| &mut chunk.pages)
    }
}

impl Chunk {
    /// The `ColumnMetaData`.
    pub(crate) fn meta(&mut self) -> &mut Thrift {
        self.thrift.get_mut(3).unwrap()
    }

    fn has_dictionary(&self) -> bool {
        self.pages.first().is_some_and(|(header, _)| header.int(1) == Some(DICTIONARY_PAGE))
    }
}

/// Fields of a later version of the format, of every type that thrift has.
fn add_unknown(random: &mut Random, to: &mut Thrift) {
    let nested = Thrift::Struct(vec![(1, Thrift::Bool(true)), (20, Thrift::List(1, vec![Thrift::Bool(false); 17]))]);
    let unknown = [
        Thrift::Bool(false),
        Thrift::Byte(9),
        Thrift::Int(4, -300),
        Thrift::i64(i64::MIN),
        Thrift::Double([1; 8]),
        Thrift::Binary(vec![0xff; 200]),
        Thrift::List(12, vec![nested.clone(), nested.clone()]),
        nested,
        // A set of two bytes, an empty map, a map of an i32 to binary.
        Thrift::Raw(10, vec![0x23, 1, 2]),
        Thrift::Raw(11, vec![0]),
        Thrift::Raw(11, vec![1, 0x58, 2, 1, 7]),
    ];
    for id in [40, 41, 300] {
        if random.percent(40) {
            to.set(id, Some(random.pick(&unknown).clone()));
        }
    }
}

/// A file of these parts: chunks in any order, gaps between them, indexes behind.
fn put_together(random: &mut Random, mut parts: Parts) -> Vec<u8> {
    let mut out = b"PAR1".to_vec();
    let mut chunks: Vec<&mut Chunk> = parts.chunks.iter_mut().flatten().collect();
    let (shuffled, gaps, broken) = (random.percent(25), random.percent(25), random.percent(20));
    let mut order: Vec<usize> = (0..chunks.len()).collect();
    if shuffled {
        random.shuffle(&mut order);
    }
    for i in order {
        if gaps {
            let gap = random.below(40);
            out.extend(random.bytes(gap));
        }
        place(chunks[i], &mut out);
    }
    for chunk in &mut chunks {
        if !chunk.bloom.is_empty() {
            let offset = out.len() as i64;
            chunk.meta().set(14, Some(Thrift::i64(offset)));
            out.extend(&chunk.bloom);
        }
    }
    for chunk in &mut chunks {
        let index = chunk.column_index.take();
        place_index(random, chunk, &mut out, index, 6, broken);
    }
    for chunk in &mut chunks {
        let index = chunk.offset_index.take();
        place_index(random, chunk, &mut out, index, 4, broken);
    }
    for (group, chunks) in parts.footer.list_mut(4).iter_mut().zip(parts.chunks) {
        group.set(1, Some(Thrift::List(12, chunks.into_iter().map(|chunk| chunk.thrift).collect())));
    }
    let footer = parts.footer.bytes();
    out.extend(&footer);
    out.extend((footer.len() as u32).to_le_bytes());
    out.extend(b"PAR1");
    out
}

/// Appends a chunk's pages, and says in its metadata and offset index where they are.
fn place(chunk: &mut Chunk, out: &mut Vec<u8>) {
    let start = out.len();
    let dictionary = chunk.has_dictionary();
    let mut data_pages = Vec::new();
    for (header, body) in &chunk.pages {
        let offset = out.len();
        out.extend(header.bytes());
        out.extend(body);
        if !matches!(header.int(1), Some(DICTIONARY_PAGE | INDEX_PAGE)) {
            data_pages.push((offset as i64, (out.len() - offset) as i64));
        }
    }
    let told = chunk.thrift.get(3).is_some_and(|meta| meta.int(11).is_some());
    // A chunk without data pages has some offset too.
    let first = data_pages.first().map_or(start as i64, |page| page.0);
    let length = (out.len() - start) as i64;
    let meta = chunk.meta();
    meta.set(9, Some(Thrift::i64(if dictionary && !told { start as i64 } else { first })));
    if dictionary && told {
        meta.set(11, Some(Thrift::i64(start as i64)));
    }
    meta.set(7, Some(Thrift::i64(length)));
    if let Some(index) = &mut chunk.offset_index {
        let locations = index.list_mut(1);
        assert_eq!(locations.len(), data_pages.len(), "page locations");
        for (location, (offset, length)) in locations.iter_mut().zip(data_pages) {
            location.set(1, Some(Thrift::i64(offset)));
            location.set(2, Some(Thrift::i32(length)));
        }
    }
}

/// Appends an index of a chunk, or something else in its place.
fn place_index(
    random: &mut Random,
    chunk: &mut Chunk,
    out: &mut Vec<u8>,
    index: Option<Thrift>,
    field: i16,
    broken: bool,
) {
    let mut at = None;
    if let Some(index) = index {
        let mut bytes = index.bytes();
        let mut offset = out.len() as i64;
        let mut length = bytes.len() as i64;
        if broken && random.percent(50) {
            match random.below(6) {
                0 => offset = *random.pick(&[-1, 0, 1 << 40, i64::MAX]),
                1 => length = *random.pick(&[0, -5, 1 << 30]),
                2 => bytes = random.bytes(bytes.len()),
                3 => length -= 1,
                4 => bytes.fill(0),
                _ => bytes.fill(0x19),
            }
        }
        out.extend(&bytes);
        at = Some((offset, length));
    }
    chunk.thrift.set(field, at.map(|(offset, _)| Thrift::i64(offset)));
    chunk.thrift.set(field + 1, at.map(|(_, length)| Thrift::i32(length)));
}
