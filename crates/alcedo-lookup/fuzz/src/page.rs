//! The targets that put arbitrary bytes into a file where its footer is sound: as a column chunk, and as a page index.
//!
//! The footer is crafted around the bytes, so that what decodes them is reached by every input.

use bytes::Bytes;

use super::ask;
use super::craft::{self, ChunkClaims, Element, File, PageClaims, Struct};
use super::guard::run;
use super::targets::limits;

/// Every kind of leaf: physical type, bytes of a fixed one, `ConvertedType`, precision and scale, field of
/// `LogicalType`.
type Kind = (i64, Option<i64>, Option<i64>, Option<(i64, i64)>, Option<i16>);

const KINDS: &[Kind] = &[
    (0, None, None, None, None),
    (1, None, None, None, None),
    (2, None, None, None, None),
    (3, None, None, None, None),
    (4, None, None, None, None),
    (5, None, None, None, None),
    (6, None, None, None, None),
    (7, Some(5), None, None, None),
    (6, None, Some(0), None, None),
    (1, None, Some(15), None, None),
    (1, None, Some(16), None, None),
    (1, None, Some(11), None, None),
    (1, None, Some(12), None, None),
    (1, None, Some(13), None, None),
    (2, None, Some(14), None, None),
    (1, None, Some(5), Some((9, 2)), None),
    (2, None, Some(5), Some((18, 4)), None),
    (6, None, Some(5), Some((38, 10)), None),
    (7, Some(9), Some(5), Some((20, 3)), None),
    (7, Some(32), Some(5), Some((76, 5)), None),
    (1, None, Some(6), None, None),
    (1, None, Some(7), None, None),
    (2, None, Some(8), None, None),
    (2, None, Some(9), None, None),
    (2, None, Some(10), None, None),
    (7, Some(12), Some(21), None, None),
    (7, Some(16), None, None, Some(14)),
    (7, Some(2), None, None, Some(15)),
    (6, None, Some(19), None, None),
];

/// A leaf of the kind with this number, whatever the number.
pub(crate) fn leaf(name: &str, number: u8) -> Element {
    let (physical, type_length, converted, decimal, logical) = KINDS[usize::from(number) % KINDS.len()];
    let logical = logical.map(|field| Struct::new().put(field, Struct::new()));
    Element { type_length, converted, decimal, logical, ..Element::leaf(name, physical) }
}

const ENCODINGS: [i64; 9] = [0, 2, 3, 4, 5, 6, 7, 8, 9];

/// Schemas around a leaf `v`, and the path to it.
fn around(leaf: Element, shape: u8) -> (Vec<Element>, Vec<Vec<u8>>) {
    let path = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect();
    match shape % 5 {
        0 => (vec![Element::group("root", 1), leaf], path(&["v"])),
        1 => (vec![Element::group("root", 1), leaf.repeated_as(1)], path(&["v"])),
        2 => (vec![Element::group("root", 1), leaf.repeated_as(2)], path(&["v"])),
        3 => {
            let list = Element { converted: Some(3), ..Element::group("l", 1).repeated_as(1) };
            let elements = Element::group("list", 1).repeated_as(2);
            (vec![Element::group("root", 1), list, elements, leaf.repeated_as(1)], path(&["l", "list", "v"]))
        }
        _ => {
            let group = Element::group("s", 1).repeated_as(1);
            (vec![Element::group("root", 1), group, leaf.repeated_as(1)], path(&["s", "v"]))
        }
    }
}

/// A column chunk. Eight bytes choose the leaf, its nesting, the codec, rows and values; the rest is the chunk, either
/// with its page headers or as bodies behind headers that are crafted.
pub fn page(data: &[u8]) {
    let Some((choice, rest)) = data.split_first_chunk::<8>() else { return };
    run(|| {
        let [kind, shape, codec, rows, values, form, encoding, dictionary] = *choice;
        let (schema, path) = around(leaf("v", kind), shape);
        let physical = schema.iter().find_map(|element| element.physical).unwrap_or(0);
        let codec = if form & 1 == 0 { i64::from(codec % 8) } else { 0 };
        let (rows, values) = (i64::from(rows), i64::from(values));
        let mut pages = Vec::new();
        let mut dictionary_bytes = 0;
        if form & 1 == 0 {
            pages.extend_from_slice(rest);
        } else {
            let (first, body) = rest.split_at(usize::from(dictionary).min(rest.len()));
            if form & 2 != 0 {
                let claims = PageClaims { kind: 2, ..PageClaims::v1(first.len(), i64::from(dictionary / 4), 0) };
                pages.extend(claims.page(first));
                dictionary_bytes = pages.len() as i64;
            }
            let encoding = ENCODINGS[usize::from(encoding) % ENCODINGS.len()];
            let levels = i64::from(encoding_levels(form));
            let kind = if form & 4 == 0 { 0 } else { 3 };
            let v2 = (i64::from(form >> 6), rows, levels, if shape % 5 > 1 { levels } else { 0 }, false);
            pages.extend(PageClaims { kind, v2, ..PageClaims::v1(body.len(), values, encoding) }.page(body));
        }
        let mut file = File::default();
        let (at, bytes) = file.put(&pages);
        let mut chunk = ChunkClaims { path, codec, ..ChunkClaims::new("v", physical, values, at, bytes) };
        if dictionary_bytes > 0 {
            (chunk.data, chunk.dictionary) = (at + dictionary_bytes, Some(at));
        }
        if form & 32 != 0 {
            let location = craft::page_location(at + dictionary_bytes, bytes - dictionary_bytes, 0);
            chunk.offset_index = Some(file.put(&Struct::new().structs(1, [location]).end()));
        }
        // A column of ones, because what is in a list is found by another column's key.
        let (mut schema, keys) = (schema, 1_i32.to_le_bytes().repeat(rows as usize));
        schema[0].children = Some(2);
        schema.push(Element::leaf("k", 1));
        let (at, bytes) = file.put(&PageClaims::v1(keys.len(), rows, 0).page(&keys));
        let chunks = [chunk, ChunkClaims::new("k", 1, rows, at, bytes)];
        let footer = craft::footer(&schema, [craft::row_group(&chunks, rows)], rows).end();
        ask::everything(&Bytes::from(file.end(&footer)), &limits(), &mut |_| {});
    });
}

/// Bytes of levels that a v2 header claims.
fn encoding_levels(form: u8) -> u8 {
    form >> 3 & 3
}

/// A column index and an offset index: two bytes of length, so many bytes of offset index, then the column index.
pub fn page_index(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let (offset_index, column_index) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    run(|| {
        ask::everything(&Bytes::from(indexed_file(offset_index, column_index)), &limits(), &mut |_| {});
    });
}

/// Rows and data pages of the file below.
const ROWS_OF_A_PAGE: i64 = 4;
const PAGES: i64 = 4;

/// A file of two columns with four data pages each, and these bytes as indexes of the first; the second's offset index
/// is the same bytes.
pub fn indexed_file(offset_index: &[u8], column_index: &[u8]) -> Vec<u8> {
    let mut file = File::default();
    let chunk = |name: &str, file: &mut File, body: &dyn Fn(i64) -> Vec<u8>| {
        let pages: Vec<u8> = (0..PAGES)
            .flat_map(|page| {
                let bodies: Vec<u8> = (0..ROWS_OF_A_PAGE).flat_map(|row| body(page * ROWS_OF_A_PAGE + row)).collect();
                PageClaims::v1(bodies.len(), ROWS_OF_A_PAGE, 0).page(&bodies)
            })
            .collect();
        let (at, bytes) = file.put(&pages);
        ChunkClaims::new(name, if name == "k" { 2 } else { 6 }, PAGES * ROWS_OF_A_PAGE, at, bytes)
    };
    let mut keys = chunk("k", &mut file, &|row| row.to_le_bytes().to_vec());
    let mut texts = chunk("t", &mut file, &|row| [1_u32.to_le_bytes().as_slice(), &[b'a' + row as u8]].concat());
    keys.offset_index = Some(file.put(offset_index));
    keys.column_index = Some(file.put(column_index));
    texts.offset_index = keys.offset_index;
    let schema = [Element::group("root", 2), Element::leaf("k", 2), Element::leaf("t", 6)];
    let rows = PAGES * ROWS_OF_A_PAGE;
    file.end(&craft::footer(&schema, [craft::row_group(&[keys, texts], rows)], rows).end())
}
