//! Levels and values whose encodings claim more than there is, or that never make a row.

use super::column::Column;
use super::fuzzed::craft::{Element, File, PageClaims, footer, row_group, uvarint, zigzag};
use super::{Expect, Hostile};

const BILLIONS: i64 = i32::MAX as i64;

/// `values` of a run of one value, `bytes` wide.
fn run(values: i64, value: u8, bytes: usize) -> Vec<u8> {
    let mut run = uvarint((values as u64) << 1);
    run.resize(run.len() + bytes, value);
    run
}

/// Levels of a v1 page: their length in front.
fn levels(levels: &[u8]) -> Vec<u8> {
    [(levels.len() as u32).to_le_bytes().as_slice(), levels].concat()
}

fn v1(leaf: Element, body: &[u8], values: i64, encoding: i64) -> Vec<u8> {
    Column::new(leaf, PageClaims::v1(body.len(), values, encoding).page(body), values).file()
}

fn optional(physical: i64) -> Element {
    Element::leaf("v", physical).repeated_as(1)
}

fn with_dictionary(leaf: Element, dictionary: &[u8], entries: i64, indices: &[u8], values: i64) -> Vec<u8> {
    let first = PageClaims { kind: 2, ..PageClaims::v1(dictionary.len(), entries, 0) }.page(dictionary);
    let second = PageClaims::v1(indices.len(), values, 8).page(indices);
    Column { dictionary: first.len(), ..Column::new(leaf, [first, second].concat(), values) }.file()
}

/// A head of DELTA_BINARY_PACKED: block size, miniblocks, values, first value.
fn delta(block: u64, miniblocks: u64, values: u64, first: i64) -> Vec<u8> {
    [uvarint(block), uvarint(miniblocks), uvarint(values), zigzag(first)].concat()
}

pub(crate) fn all() -> Vec<Hostile> {
    let mut files = counts();
    files.extend(deltas());
    files.extend(lengths());
    files.extend(rows());
    files.extend(kinds());
    files
}

fn counts() -> Vec<Hostile> {
    const BAD: Expect = Expect::Fails(&["Corrupt", "Limit", "AnswerTooLarge"]);
    let mut files = vec![
        Hostile::new("2^31 nulls in a run", BAD, || v1(optional(2), &levels(&run(BILLIONS, 0, 1)), BILLIONS, 0)),
        Hostile::new("2^31 nulls in a run, v2", BAD, || {
            let nulls = run(BILLIONS, 0, 1);
            let plain = PageClaims::v1(nulls.len(), BILLIONS, 0);
            let claims = PageClaims { kind: 3, v2: (BILLIONS, BILLIONS, nulls.len() as i64, 0, false), ..plain };
            Column::new(optional(2), claims.page(&nulls), BILLIONS).file()
        }),
        Hostile::new("2^31 equal dictionary indices", BAD, || {
            let indices = [vec![1], run(BILLIONS, 0, 1)].concat();
            with_dictionary(Element::leaf("v", 2), &7_i64.to_le_bytes(), 1, &indices, BILLIONS)
        }),
        Hostile::new("2^31 dictionary indices of width 0", BAD, || {
            let indices = [vec![0], uvarint((BILLIONS as u64) << 1)].concat();
            with_dictionary(Element::leaf("v", 6), &[1, 0, 0, 0, b'a'], 1, &indices, BILLIONS)
        }),
        Hostile::new("2^31 booleans in a run", BAD, || {
            v1(Element::leaf("v", 0), &levels(&run(BILLIONS, 1, 1)), BILLIONS, 3)
        }),
        Hostile::new("2^31 values of a fixed length of 0", BAD, || {
            let leaf = Element { type_length: Some(0), ..Element::leaf("v", 7) };
            v1(leaf, &[], BILLIONS, 0)
        }),
        Hostile::new("a dictionary of 2^31 entries", BAD, || {
            with_dictionary(Element::leaf("v", 2), &7_i64.to_le_bytes(), BILLIONS, &[1, 4, 0], 2)
        }),
        Hostile::new("a dictionary index beyond the dictionary", BAD, || {
            with_dictionary(Element::leaf("v", 2), &7_i64.to_le_bytes(), 1, &[32, 8, 255, 255, 255, 127], 4)
        }),
        Hostile::new("dictionary indices 255 bits wide", BAD, || {
            with_dictionary(Element::leaf("v", 2), &7_i64.to_le_bytes(), 1, &[255, 8, 0], 4)
        }),
        Hostile::new("a dictionary without a data page", BAD, || {
            let page = PageClaims { kind: 2, ..PageClaims::v1(8, 1, 0) }.page(&[7; 8]);
            Column { dictionary: page.len(), ..Column::new(Element::leaf("v", 2), page, 5) }.file()
        }),
        Hostile::new("a million empty data pages", Expect::Ends, || {
            let page = PageClaims::v1(0, 0, 0).page(&[]);
            let one = PageClaims::v1(8, 1, 0).page(&[1, 0, 0, 0, 0, 0, 0, 0]);
            Column::new(Element::leaf("v", 2), [page.repeat(700_000), one].concat(), 1).file()
        }),
    ];
    for physical in 0..7 {
        for kind in [0, 3] {
            files.push(Hostile::new(
                format!("2^31 values of type {physical} in 64 bytes, page {kind}"),
                BAD,
                move || {
                    let claims = PageClaims { kind, v2: (0, BILLIONS, 0, 0, false), ..PageClaims::v1(64, BILLIONS, 0) };
                    Column::new(Element::leaf("v", physical), claims.page(&[0; 64]), BILLIONS).file()
                },
            ));
        }
    }
    files
}

fn deltas() -> Vec<Hostile> {
    const BAD: Expect = Expect::Fails(&["Corrupt", "Limit", "AnswerTooLarge"]);
    let heads: Vec<(&str, Vec<u8>)> = vec![
        ("a block of 2^63 values", delta(1 << 63, 4, 100, 0)),
        ("a block of 2^31 values", [delta(1 << 31, 4, 100, 0), vec![0, 0, 0, 0, 0]].concat()),
        ("2^32 miniblocks", delta(128, 1 << 32, 100, 0)),
        ("no miniblocks", delta(128, 0, 100, 0)),
        ("a block of nothing", delta(0, 0, 100, 0)),
        ("a block that is no multiple", delta(100, 3, 100, 0)),
        ("2^63 values", delta(128, 4, 1 << 63, 0)),
        ("miniblocks 255 bits wide", [delta(128, 4, 100, 0), zigzag(1), vec![255; 4], vec![0; 600]].concat()),
        ("differences that overflow", [delta(128, 4, 100, i64::MAX), zigzag(i64::MAX), vec![0; 600]].concat()),
        ("an integer without end", vec![0xff; 64]),
        ("nothing", Vec::new()),
    ];
    let mut files = Vec::new();
    for (name, head) in heads {
        // Of a huge block only so many values are there as are asked for; sums may wrap around.
        let sound = ["differences that overflow", "a block of 2^31 values"].contains(&name);
        let may = if sound { Expect::Ends } else { BAD };
        for (encoding, physical) in [(5, 1), (5, 2), (6, 6), (7, 6)] {
            let head = head.clone();
            files.push(Hostile::new(format!("delta {encoding}/{physical}: {name}"), may, move || {
                v1(Element::leaf("v", physical), &head, 100, encoding)
            }));
        }
    }
    files
}

/// Four integers, packed: a block of 128 in four miniblocks of no bits.
fn packed(first: i64, step: i64, count: u64) -> Vec<u8> {
    [delta(128, 4, count, first), zigzag(step), vec![0; 4]].concat()
}

fn lengths() -> Vec<Hostile> {
    const BAD: Expect = Expect::Fails(&["Corrupt", "Limit", "Unsupported"]);
    let fixed = |length| Element { type_length: length, ..Element::leaf("v", 7) };
    let mut files = vec![
        Hostile::new("texts longer than the page", BAD, || {
            v1(Element::leaf("v", 6), &[packed(1 << 30, 0, 4), b"abcd".to_vec()].concat(), 4, 6)
        }),
        Hostile::new("texts of negative length", BAD, || {
            v1(Element::leaf("v", 6), &[packed(-1, 0, 4), b"abcd".to_vec()].concat(), 4, 6)
        }),
        Hostile::new("prefixes longer than the text before", BAD, || {
            let body = [packed(1 << 20, 0, 4), packed(1, 0, 4), b"abcd".to_vec()].concat();
            v1(Element::leaf("v", 6), &body, 4, 7)
        }),
        Hostile::new("prefixes of negative length", BAD, || {
            v1(Element::leaf("v", 6), &[packed(-5, 0, 4), packed(1, 0, 4), b"abcd".to_vec()].concat(), 4, 7)
        }),
        Hostile::new("texts that grow with every prefix", Expect::Ends, || {
            // Each text is the one before and a byte more: 2,000 rows of up to 2,000 bytes from a few bytes.
            let body = [packed(0, 1, 2_000), packed(1, 0, 2_000), vec![b'x'; 2_000]].concat();
            v1(Element::leaf("v", 6), &body, 2_000, 7)
        }),
        Hostile::new("plain text of 4 GiB", BAD, || v1(Element::leaf("v", 6), &[255; 16], 4, 0)),
        Hostile::new("text that is not UTF-8", Expect::Ends, || {
            let leaf = Element { converted: Some(0), ..Element::leaf("v", 6) };
            v1(leaf, &[2, 0, 0, 0, 0xff, 0xfe, 1, 0, 0, 0, b'a'], 2, 0)
        }),
        Hostile::new("levels longer than the page", BAD, || v1(optional(2), &[255, 255, 255, 127, 2, 1], 1, 0)),
        Hostile::new("levels that end early", BAD, || v1(optional(2), &levels(&[2, 0]), 1_000, 0)),
        Hostile::new("levels of a negative number of bytes, v2", BAD, || {
            let claims = PageClaims { kind: 3, v2: (0, 1, -1, 0, false), ..PageClaims::v1(8, 1, 0) };
            Column::new(optional(2), claims.page(&[1; 8]), 1).file()
        }),
        Hostile::new("levels of 2^31 bytes, v2", BAD, || {
            let claims = PageClaims { kind: 3, v2: (0, 1, BILLIONS, BILLIONS, false), ..PageClaims::v1(8, 1, 0) };
            Column::new(optional(2), claims.page(&[1; 8]), 1).file()
        }),
    ];
    for (physical, bytes) in [(1, 4), (2, 8), (4, 4), (5, 8), (7, 5)] {
        for extra in [1, bytes - 1] {
            let leaf = if physical == 7 { fixed(Some(5)) } else { Element::leaf("v", physical) };
            files.push(Hostile::new(format!("byte stream of {physical}, {extra} too many"), Expect::Ends, move || {
                v1(leaf.clone(), &vec![1; 10 * bytes as usize + extra as usize], 10, 9)
            }));
        }
    }
    for length in [None, Some(0), Some(-1), Some(i64::from(i32::MAX)), Some(7)] {
        let leaf = fixed(length);
        files.push(Hostile::new(format!("fixed of length {length:?} in 64 bytes"), Expect::Ends, move || {
            v1(leaf.clone(), &[1; 64], 10, 0)
        }));
    }
    files
}

fn rows() -> Vec<Hostile> {
    const BAD: Expect = Expect::Fails(&["Corrupt", "Limit", "AnswerTooLarge", "Unsupported"]);
    let list = |body: Vec<u8>, values: i64, rows: i64| {
        let page = PageClaims::v1(body.len(), values, 0).page(&body);
        Column { rows, keyed: true, ..Column::new(Element::leaf("v", 1).repeated_as(2), page, values) }.file()
    };
    vec![
        Hostile::new("repetition levels that never start a row", BAD, move || {
            list([levels(&run(100, 1, 1)), levels(&run(100, 1, 1)), vec![1; 400]].concat(), 100, 1)
        }),
        Hostile::new("one row of 2^31 values", BAD, move || {
            let levels = [levels(&[2, 0, 254, 255, 255, 255, 15, 1]), levels(&run(BILLIONS, 0, 1))].concat();
            list(levels, BILLIONS, 1)
        }),
        Hostile::new("a list of a hundred values", Expect::Ends, move || {
            list([levels(&[2, 0, 198, 1, 1]), levels(&run(100, 1, 1)), vec![1; 400]].concat(), 100, 1)
        }),
        Hostile::new("a null in 90 lists around each other", Expect::Ends, || {
            let page = [levels(&run(1, 0, 1)), levels(&run(1, 0, 1))].concat();
            let leaf = Column::new(Element::leaf("v", 1), PageClaims::v1(page.len(), 1, 0).page(&page), 1);
            let mut schema = vec![Element::group("g", 1).repeated_as(2); 90];
            schema.push(Element::leaf("v", 1));
            Column { schema, keyed: true, ..leaf }.file()
        }),
        Hostile::new("rows of another page", BAD, move || {
            list([levels(&run(100, 0, 1)), levels(&run(100, 1, 1)), vec![1; 400]].concat(), 100, 3)
        }),
        Hostile::new("a v2 page of more rows than values", BAD, || {
            let claims = PageClaims { kind: 3, v2: (0, 1_000, 0, 0, false), ..PageClaims::v1(8, 1, 0) };
            Column { rows: 1_000, ..Column::new(Element::leaf("v", 2), claims.page(&[1; 8]), 1) }.file()
        }),
        Hostile::new("a row group of 2^62 rows in one empty chunk", BAD, || {
            Column { values: 0, ..Column::new(Element::leaf("v", 2), Vec::new(), 1 << 62) }.file()
        }),
        Hostile::new("two row groups of 2^62 rows", BAD, || {
            let schema = [Element::group("root", 1), Element::leaf("v", 2)];
            let groups = (0..2).map(|_| row_group(&[super::fuzzed::craft::ChunkClaims::new("v", 2, 0, 4, 0)], 1 << 62));
            File::default().end(&footer(&schema, groups, 0).end())
        }),
        Hostile::new("one row fewer than the page has", BAD, || Column { rows: 2, ..Column::int64(&[1, 2, 3]) }.file()),
        Hostile::new("a chunk of 0 values", Expect::Ends, || Column { values: 0, ..Column::int64(&[1, 2, 3]) }.file()),
        Hostile::new("a chunk of -1 values", Expect::Ends, || {
            Column { values: -1, ..Column::int64(&[1, 2, 3]) }.file()
        }),
        Hostile::new("a chunk of 2^63 values", Expect::Ends, || {
            Column { values: i64::MAX, ..Column::int64(&[1, 2, 3]) }.file()
        }),
    ]
}

/// Every encoding on every type, on bytes that are none of it.
fn kinds() -> Vec<Hostile> {
    let mut files = Vec::new();
    for encoding in [0, 2, 3, 4, 5, 6, 7, 8, 9, 42] {
        for physical in 0..8 {
            files.push(Hostile::new(format!("encoding {encoding} of type {physical}"), Expect::Ends, move || {
                let leaf = Element { type_length: Some(4), ..Element::leaf("v", physical) };
                let body: Vec<u8> = (0..200_u8).map(|byte| byte.wrapping_mul(37)).collect();
                v1(leaf, &body, 20, encoding)
            }));
        }
    }
    files
}
