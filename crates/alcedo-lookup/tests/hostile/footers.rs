//! Footers: deep and wide schemas, counts that lie, names, and files that are cut anywhere.

use super::column::Column;
use super::fuzzed::craft::{
    BINARY, ChunkClaims, Element, File, I32, LIST, PageClaims, STRUCT, Struct, footer, list_claiming, row_group,
};
use super::{Expect, Hostile};

const BAD: Expect = Expect::Fails(&["Corrupt", "Limit"]);
const I32_MAX: u64 = i32::MAX as u64;
/// The largest footer that is read, less what surrounds the part that fills it.
const FOOTER_BYTES: usize = (16 << 20) - 4096;

/// A file that is only this footer.
fn only(footer: Struct) -> Vec<u8> {
    File::default().end(&footer.end())
}

/// A footer with this schema and nothing else.
fn of_schema(schema: &[Element]) -> Vec<u8> {
    only(footer(schema, [], 0))
}

fn deep(levels: usize, repetition: i64) -> Vec<u8> {
    let mut schema = vec![Element::group("g", 1).repeated_as(repetition); levels];
    schema.push(Element::leaf("v", 2));
    of_schema(&schema)
}

pub(crate) fn all() -> Vec<Hostile> {
    let mut files = schemas();
    files.extend(counts());
    files.extend(many());
    files.extend(names());
    files.extend(cuts());
    files
}

fn schemas() -> Vec<Hostile> {
    let mut files = Vec::new();
    for (levels, repetition) in [(3_000, 0), (20_000, 0), (3_000, 2), (90, 2), (90, 1)] {
        let expect = if levels > 100 { BAD } else { Expect::Ends };
        let name = format!("a schema {levels} levels deep, repetition {repetition}");
        files.push(Hostile::new(name, expect, move || deep(levels, repetition)));
    }
    for children in [i64::from(i32::MAX), -1, i64::from(i32::MIN), 2, 0] {
        files.push(Hostile::new(format!("a root of {children} children"), Expect::Ends, move || {
            of_schema(&[Element::group("root", children), Element::leaf("v", 2)])
        }));
        files.push(Hostile::new(format!("a group of {children} children"), Expect::Ends, move || {
            of_schema(&[Element::group("root", 1), Element::group("g", children), Element::leaf("v", 2)])
        }));
    }
    for (name, leaf) in [
        ("a type that there is not", Element::leaf("v", 99)),
        ("a repetition that there is not", Element::leaf("v", 2).repeated_as(7)),
        ("a converted type that there is not", Element { converted: Some(99), ..Element::leaf("v", 2) }),
        (
            "a decimal of precision 2^31",
            Element { decimal: Some((I32_MAX as i64, 3)), converted: Some(5), ..Element::leaf("v", 6) },
        ),
        (
            "a decimal of negative scale",
            Element { decimal: Some((9, -3)), converted: Some(5), ..Element::leaf("v", 2) },
        ),
        ("a decimal of scale beyond", Element { decimal: Some((9, 300)), converted: Some(5), ..Element::leaf("v", 2) }),
        ("text stored as integers", Element { converted: Some(0), ..Element::leaf("v", 2) }),
        ("a map that is a leaf", Element { converted: Some(1), ..Element::leaf("v", 2) }),
        ("a list that is a leaf", Element { converted: Some(3), ..Element::leaf("v", 6) }),
    ] {
        files.push(Hostile::new(name, Expect::Ends, move || {
            let leaf = leaf.clone();
            Column::new(leaf, PageClaims::v1(16, 2, 0).page(&[0; 16]), 2).file()
        }));
    }
    for converted in [1, 2, 3] {
        files.push(Hostile::new(format!("a group as {converted} of the wrong form"), Expect::Ends, move || {
            let group = Element { converted: Some(converted), ..Element::group("g", 2) };
            let leaves = [Element::leaf("a", 2).repeated_as(2), Element::leaf("b", 2)];
            of_schema(&[&[Element::group("root", 1), group], leaves.as_slice()].concat())
        }));
    }
    files
}

/// A list of 2^31 - 1 elements wherever a footer has a list.
fn counts() -> Vec<Hostile> {
    let lie = |ty| list_claiming(ty, I32_MAX, &[0; 64]);
    let schema = || [Element::group("root", 1).thrift(), Element::leaf("v", 2).thrift()];
    let head = move || Struct::new().i32(1, 2).structs(2, schema()).i64(3, 1);
    let chunk_meta = |id: i16, ty| Struct::new().i32(1, 2).raw(id, LIST, &list_claiming(ty, I32_MAX, &[0; 64]));
    let in_chunk = move |meta: Struct| {
        let chunk = Struct::new().i64(2, 0).put(3, meta);
        only(head().structs(4, [Struct::new().structs(1, [chunk]).i64(2, 0).i64(3, 1)]))
    };
    vec![
        Hostile::new("2^31 schema elements", BAD, move || only(Struct::new().i32(1, 2).raw(2, LIST, &lie(STRUCT)))),
        Hostile::new("2^31 row groups", BAD, move || only(head().raw(4, LIST, &lie(STRUCT)))),
        Hostile::new("2^31 key-value pairs", BAD, move || only(head().structs(4, []).raw(5, LIST, &lie(STRUCT)))),
        Hostile::new("2^31 column orders", BAD, move || only(head().structs(4, []).raw(7, LIST, &lie(STRUCT)))),
        Hostile::new("2^31 column chunks", BAD, move || {
            only(head().structs(4, [Struct::new().raw(1, LIST, &lie(STRUCT)).i64(3, 1)]))
        }),
        Hostile::new("2^31 sorting columns", BAD, move || {
            only(head().structs(4, [Struct::new().i64(3, 1).raw(4, LIST, &lie(STRUCT))]))
        }),
        Hostile::new("2^31 encodings", BAD, move || in_chunk(chunk_meta(2, I32))),
        Hostile::new("2^31 names in a path", BAD, move || in_chunk(chunk_meta(3, BINARY))),
        Hostile::new("2^31 encoding statistics", BAD, move || in_chunk(chunk_meta(13, STRUCT))),
        Hostile::new("a list of an unknown type", BAD, move || only(head().raw(4, LIST, &[0x1f, 0, 0, 0]))),
        Hostile::new("a list of booleans 15 million long", Expect::Ends, move || {
            only(head().raw(99, LIST, &list_claiming(1, 15_000_000, &vec![1; 15_000_000])).structs(100, []))
        }),
        Hostile::new("structs in structs", BAD, || File::default().end(&[0x1c; 1 << 20])),
        Hostile::new("lists in lists", BAD, || File::default().end(&[0x19; 1 << 20])),
        Hostile::new("a footer of zeros", BAD, || File::default().end(&[0; 1 << 20])),
        Hostile::new("a footer of ones", BAD, || File::default().end(&[0xff; 1 << 20])),
    ]
}

/// As many of something as a footer holds.
fn many() -> Vec<Hostile> {
    let empty_chunks = |groups: usize| {
        let chunks = list_claiming(STRUCT, (FOOTER_BYTES / groups) as u64, &vec![0; FOOTER_BYTES / groups]);
        let schema = [Element::group("root", 1), Element::leaf("v", 2)];
        let group = Struct::new().raw(1, LIST, &chunks).i64(3, 1);
        only(footer(&schema, vec![group; groups], 1))
    };
    let wide = |leaves: usize, repetition: i64| {
        let page = PageClaims::v1(8, 1, 0).page(&[0; 8]);
        let mut file = File::default();
        let (at, bytes) = file.put(&page);
        let mut schema = vec![Element::group("root", leaves as i64)];
        schema.extend((0..leaves).map(|leaf| Element::leaf(&format!("c{leaf}"), 2).repeated_as(repetition)));
        let chunks: Vec<ChunkClaims> =
            (0..leaves).map(|leaf| ChunkClaims::new(&format!("c{leaf}"), 2, 1, at, bytes)).collect();
        file.end(&footer(&schema, [row_group(&chunks, 1)], 1).end())
    };
    let groups = |count: usize, rows: i64| {
        let body: Vec<u8> = (0..rows).flat_map(|row| row.to_le_bytes()).collect();
        let mut file = File::default();
        let (at, bytes) = file.put(&PageClaims::v1(body.len(), rows, 0).page(&body));
        let group = row_group(&[ChunkClaims::new("v", 2, rows, at, bytes)], rows);
        let schema = [Element::group("root", 1), Element::leaf("v", 2)];
        file.end(&footer(&schema, vec![group; count], rows * count as i64).end())
    };
    vec![
        Hostile::new("16 million empty column chunks", BAD, move || empty_chunks(1)),
        Hostile::new("16 million empty column chunks in 100 row groups", BAD, move || empty_chunks(100)),
        Hostile::new("16 million empty schema elements", BAD, || {
            only(Struct::new().raw(2, LIST, &list_claiming(STRUCT, FOOTER_BYTES as u64, &vec![0; FOOTER_BYTES])))
        }),
        Hostile::new("3 million row groups of no columns", BAD, || {
            let group = Struct::new().structs(1, []).i64(3, 0).end();
            let groups = list_claiming(STRUCT, 2_500_000, &group.repeat(2_500_000));
            only(Struct::new().i32(1, 2).structs(2, [Element::group("root", 0).thrift()]).raw(4, LIST, &groups))
        }),
        Hostile::new("50,000 row groups of no columns", Expect::Ends, || {
            let group = Struct::new().structs(1, []).i64(3, 1);
            only(footer(&[Element::group("root", 0)], vec![group; 50_000], 50_000))
        }),
        Hostile::new("8 million column orders", Expect::Ends, || {
            let orders = list_claiming(STRUCT, 8_000_000, &vec![0; 8_000_000]);
            let schema = [Element::group("root", 1).thrift(), Element::leaf("v", 2).thrift()];
            only(Struct::new().i32(1, 2).structs(2, schema).i64(3, 0).structs(4, []).raw(7, LIST, &orders))
        }),
        Hostile::new("2,000 columns", Expect::Ends, move || wide(2_000, 0)),
        Hostile::new("49,000 columns", Expect::Ends, move || wide(49_000, 0)),
        Hostile::new("49,000 repeated columns", Expect::Ends, move || wide(49_000, 2)),
        Hostile::new("5,000 row groups", Expect::Answers, move || groups(5_000, 4)),
        Hostile::new("50,000 row groups", Expect::Ends, move || groups(50_000, 4)),
        Hostile::new("60,000 row groups", BAD, move || groups(60_000, 4)),
    ]
}

fn names() -> Vec<Hostile> {
    let named = |name: Vec<u8>| {
        let leaf = Element { name, ..Element::leaf("v", 2) };
        Column::new(leaf, PageClaims::v1(16, 2, 0).page(&[0; 16]), 2).file()
    };
    let text = |id: i16, bytes: Vec<u8>| {
        let schema = [Element::group("root", 0)].map(|element| element.thrift());
        only(Struct::new().i32(1, 2).structs(2, schema).i64(3, 0).structs(4, []).text(id, bytes))
    };
    let pair = Struct::new().text(1, [0xff, 0xfe]).text(2, [0xff; 64]);
    vec![
        Hostile::new("a name that is not UTF-8", Expect::Ends, move || named(vec![0xff, 0xfe, b'a'])),
        Hostile::new("no name", Expect::Ends, move || named(Vec::new())),
        Hostile::new("a name of 7 MiB", Expect::Ends, move || named(vec![b'n'; 7 << 20])),
        Hostile::new("a name of 15 MiB", Expect::Ends, move || {
            let leaf = Element { name: vec![b'n'; 15 << 20], ..Element::leaf("v", 2) };
            of_schema(&[Element::group("root", 1), leaf])
        }),
        Hostile::new("a name with dots, commas and quotes", Expect::Ends, move || {
            named(b"a.b, \"c\".'d'\n\0".to_vec())
        }),
        Hostile::new("created_by that is not UTF-8", Expect::Ends, move || text(6, vec![0xff; 64])),
        Hostile::new("created_by of 15 MiB", Expect::Ends, move || text(6, vec![b'x'; 15 << 20])),
        Hostile::new("key-value metadata that is not UTF-8", Expect::Ends, move || {
            let schema = [Element::group("root", 0).thrift()];
            only(Struct::new().i32(1, 2).structs(2, schema).i64(3, 0).structs(4, []).structs(5, [pair.clone()]))
        }),
        Hostile::new("10,000 columns of one name", Expect::Ends, || {
            let mut schema = vec![Element::group("root", 10_000)];
            schema.extend(vec![Element::leaf("same", 2); 10_000]);
            let chunks = vec![ChunkClaims::new("same", 2, 0, 4, 0); 10_000];
            File::default().end(&footer(&schema, [row_group(&chunks, 0)], 0).end())
        }),
    ]
}

/// A sound file, cut where one of its parts ends, and trailers that lie.
fn cuts() -> Vec<Hostile> {
    let none = Expect::Fails(&["NotParquet", "Corrupt", "Limit"]);
    let sound = || Column::int64(&[1, 2, 3]).file();
    let mut files = vec![
        Hostile::new("nothing", none, Vec::new),
        Hostile::new("PAR1", none, || b"PAR1".to_vec()),
        Hostile::new("PAR1PAR1", none, || b"PAR1PAR1".to_vec()),
        Hostile::new("an empty footer", none, || File::default().end(&[])),
        Hostile::new("only a footer, without the first magic", Expect::Ends, move || sound()[4..].to_vec()),
        Hostile::new("an encrypted footer of nothing", Expect::Fails(&["Encrypted"]), || b"PARE\0\0\0\0PARE".to_vec()),
    ];
    for length in [0_u32, 1, 7, 1 << 20, 1 << 24, 1 << 30, u32::MAX] {
        files.push(Hostile::new(format!("a footer that says it has {length} bytes"), none, move || {
            let mut file = sound();
            let at = file.len() - 8;
            file[at..at + 4].copy_from_slice(&length.to_le_bytes());
            file
        }));
    }
    let length = sound().len();
    for cut in [1, 4, 5, 8, 9, 20, length / 2, length - 28, length - 5, length - 4] {
        files.push(Hostile::new(format!("cut by {cut} of {length} bytes"), none, move || {
            let mut file = sound();
            file.truncate(length - cut);
            file
        }));
        files.push(Hostile::new(format!("the first {cut} of {length} bytes are missing"), Expect::Ends, move || {
            sound()[cut..].to_vec()
        }));
    }
    files
}
