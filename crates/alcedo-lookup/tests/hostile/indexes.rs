//! Page indexes that contradict themselves, their chunk, or nothing at all.

use super::fuzzed::craft::{
    BINARY, FALSE, I64, LIST, STRUCT, Struct, TRUE, binary, list, list_claiming, page_location, zigzag,
};
use super::fuzzed::indexed_file;
use super::{Expect, Hostile};

/// Of the file that the indexes are of: bytes of a data page with its header, and rows of one.
const PAGE_BYTES: i64 = 49;
const PAGE_ROWS: i64 = 4;
const I32_MAX: u64 = i32::MAX as u64;

type Location = (i64, i64, i64);
type Change = fn(&mut Vec<Location>);

fn sound_locations() -> Vec<Location> {
    (0..4).map(|page| (4 + page * PAGE_BYTES, PAGE_BYTES, page * PAGE_ROWS)).collect()
}

fn offset_index(locations: &[Location]) -> Vec<u8> {
    Struct::new().structs(1, locations.iter().map(|(at, length, row)| page_location(*at, *length, *row))).end()
}

/// A column index of pages with these bounds.
fn column_index(nulls: &[u8], min: &[&[u8]], max: &[&[u8]], counts: &[i64]) -> Vec<u8> {
    let texts = |texts: &[&[u8]]| list(BINARY, &texts.iter().map(|text| binary(text)).collect::<Vec<_>>());
    let counts: Vec<Vec<u8>> = counts.iter().map(|count| zigzag(*count)).collect();
    let head = Struct::new().raw(1, LIST, &list_claiming(TRUE, nulls.len() as u64, nulls));
    head.raw(2, LIST, &texts(min)).raw(3, LIST, &texts(max)).i32(4, 1).raw(5, LIST, &list(I64, &counts)).end()
}

fn sound_bounds() -> Vec<u8> {
    let bounds: Vec<[u8; 8]> = (0..8_i64).map(|i| (i / 2 * 4 + i % 2 * 3).to_le_bytes()).collect();
    let every = |first: usize| bounds.iter().skip(first).step_by(2).map(|bound| bound.as_slice()).collect::<Vec<_>>();
    column_index(&[FALSE; 4], &every(0), &every(1), &[0; 4])
}

pub(crate) fn all() -> Vec<Hostile> {
    let mut files = vec![Hostile::new("sound indexes", Expect::Answers, || {
        indexed_file(&offset_index(&sound_locations()), &sound_bounds())
    })];
    files.extend(locations());
    files.extend(bounds());
    files.extend(raw());
    files
}

fn locations() -> Vec<Hostile> {
    let changed = |change: fn(&mut Vec<Location>)| {
        let mut locations = sound_locations();
        change(&mut locations);
        offset_index(&locations)
    };
    let changes: &[(&str, Change)] = &[
        ("out of order", |pages| pages.reverse()),
        ("two that are one", |pages| pages[1] = pages[0]),
        ("overlapping", |pages| pages[1].0 -= 10),
        ("a length of 0", |pages| pages[1].1 = 0),
        ("lengths of 0", |pages| pages.iter_mut().for_each(|page| page.1 = 0)),
        ("a negative length", |pages| pages[1].1 = -1),
        ("a length of 2^31", |pages| pages[3].1 = i32::MAX.into()),
        ("a negative offset", |pages| pages[0].0 = -1),
        ("an offset of 2^63", |pages| pages[3].0 = i64::MAX),
        ("an offset in the magic", |pages| pages[0].0 = 0),
        ("rows beyond the row group", |pages| pages[3].2 = 1 << 40),
        ("rows of 2^63", |pages| pages[3].2 = i64::MAX),
        ("negative rows", |pages| pages[1].2 = -4),
        ("rows that do not ascend", |pages| pages[2].2 = 4),
        ("rows that start late", |pages| pages.iter_mut().for_each(|page| page.2 += 1)),
        ("rows of another page", |pages| pages[1].2 = 3),
        ("no page", Vec::clear),
        ("one page too few", |pages| pages.truncate(3)),
        ("the first page last", |pages| pages.rotate_left(1)),
        ("a page inside another", |pages| pages[1] = (60, 20, 4)),
        ("pages of another column", |pages| pages.iter_mut().for_each(|page| page.0 += 4 * PAGE_BYTES)),
        ("a page of the footer", |pages| pages[3].0 = 500),
    ];
    let file = move |(name, change): &(&str, Change)| {
        let change = *change;
        // The other column's index is the same one, so lookups go on with what the chunk itself says.
        Hostile::new(format!("offset index: {name}"), Expect::Ends, move || {
            indexed_file(&changed(change), &sound_bounds())
        })
    };
    changes.iter().map(file).collect()
}

fn bounds() -> Vec<Hostile> {
    let low: &'static [u8] = &[0; 8];
    let high: &'static [u8] = &[255, 255, 255, 255, 255, 255, 255, 127];
    let four = |bound: &'static [u8]| vec![bound; 4];
    let indexes: Vec<(&str, Vec<u8>)> = vec![
        ("lists of different lengths", column_index(&[FALSE; 4], &four(low)[..2], &four(high), &[0; 4])),
        ("one page too few", column_index(&[FALSE; 3], &four(low)[..3], &four(high)[..3], &[0; 3])),
        ("more counts than pages", column_index(&[FALSE; 4], &four(low), &four(high), &[0; 9])),
        ("negative counts", column_index(&[FALSE; 4], &four(low), &four(high), &[-1; 4])),
        ("only nulls where there are none", column_index(&[TRUE; 4], &four(b""), &four(b""), &[4; 4])),
        ("smallest above largest", column_index(&[FALSE; 4], &four(high), &four(low), &[0; 4])),
        ("bounds of 3 bytes", column_index(&[FALSE; 4], &four(b"abc"), &four(b"abc"), &[0; 4])),
        ("empty bounds", column_index(&[FALSE; 4], &four(b""), &four(b""), &[0; 4])),
        ("null pages that are neither", column_index(&[7; 4], &four(low), &four(high), &[0; 4])),
        ("no pages", column_index(&[], &[], &[], &[])),
    ];
    let mut files: Vec<Hostile> = indexes
        .into_iter()
        .map(|(name, index)| {
            Hostile::new(format!("column index: {name}"), Expect::Ends, move || {
                indexed_file(&offset_index(&sound_locations()), &index)
            })
        })
        .collect();
    files.push(Hostile::new("column index: bounds of 10 MiB", Expect::Ends, || {
        let long = vec![1; 10 << 20];
        let bounds = [long.as_slice(), &long, &long, &long];
        indexed_file(&offset_index(&sound_locations()), &column_index(&[FALSE; 4], &bounds, &bounds, &[0; 4]))
    }));
    files
}

fn raw() -> Vec<Hostile> {
    let lie = |id: i16, ty: u8| Struct::new().raw(id, LIST, &list_claiming(ty, I32_MAX, &[0; 64])).end();
    let mut files = vec![
        Hostile::new("offset index: 2^31 pages", Expect::Ends, move || indexed_file(&lie(1, STRUCT), &sound_bounds())),
        Hostile::new("offset index: 16 million empty pages", Expect::Ends, || {
            let pages = list_claiming(STRUCT, 16 << 20, &vec![0; 16 << 20]);
            indexed_file(&Struct::new().raw(1, LIST, &pages).end(), &sound_bounds())
        }),
        Hostile::new("offset index: 40 MiB of pages", Expect::Ends, || {
            let page = page_location(4, 49, 0).end();
            let pages = list_claiming(STRUCT, 5 << 20, &page.repeat(5 << 20));
            indexed_file(&Struct::new().raw(1, LIST, &pages).end(), &sound_bounds())
        }),
        Hostile::new("column index: 16 million empty bounds", Expect::Ends, || {
            let bounds = list_claiming(BINARY, 16 << 20, &vec![0; 16 << 20]);
            let index = Struct::new().raw(1, LIST, &list_claiming(TRUE, 16 << 20, &vec![2; 16 << 20]));
            let index = index.raw(2, LIST, &bounds).raw(3, LIST, &bounds).end();
            indexed_file(&offset_index(&sound_locations()), &index)
        }),
    ];
    for (id, ty) in [(1, TRUE), (2, BINARY), (3, BINARY), (5, I64), (6, I64), (7, I64)] {
        files.push(Hostile::new(format!("column index: 2^31 elements in list {id}"), Expect::Ends, move || {
            indexed_file(&offset_index(&sound_locations()), &lie(id, ty))
        }));
    }
    for (name, bytes) in [("zeros", vec![0; 4096]), ("ones", vec![255; 4096]), ("structs", vec![0x1c; 4096])] {
        files.push(Hostile::new(format!("both indexes: {name}"), Expect::Ends, move || indexed_file(&bytes, &bytes)));
    }
    files
}
