//! Parquet files of column chunks made page by page, as no writer of today makes them.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{SchemaDescriptor, TypePtr};

/// Codes of Parquet's encodings.
pub(crate) const PLAIN: i32 = 0;
pub(crate) const RLE: i32 = 3;
pub(crate) const BIT_PACKED: i32 = 4;
pub(crate) const DELTA_BYTE_ARRAY: i32 = 7;
pub(crate) const RLE_DICTIONARY: i32 = 8;

pub(crate) fn uvarint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn zigzag(value: i32) -> Vec<u8> {
    uvarint(u64::from((value << 1 ^ value >> 31) as u32))
}

/// A thrift struct of i32 fields and, behind them, what is made already.
fn thrift(fields: &[(u8, i32)], then: &[(u8, u8, Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut last) = (Vec::new(), 0);
    for (id, value) in fields {
        out.push((id - last) << 4 | 5);
        out.extend(zigzag(*value));
        last = *id;
    }
    for (id, ty, bytes) in then {
        out.push((id - last) << 4 | ty);
        out.extend(bytes);
        last = *id;
    }
    out.push(0);
    out
}

fn page(kind: i32, inflated: usize, body: &[u8], header: (u8, Vec<u8>)) -> Vec<u8> {
    let fields = [(1, kind), (2, inflated as i32), (3, body.len() as i32)];
    let mut out = thrift(&fields, &[(header.0, 12, header.1)]);
    out.extend(body);
    out
}

/// A dictionary page in plain encoding.
pub(crate) fn dictionary(values: i32, inflated: usize, body: &[u8]) -> Vec<u8> {
    page(2, inflated, body, (7, thrift(&[(1, values), (2, PLAIN)], &[])))
}

/// A data page of version 1.
pub(crate) fn v1(values: i32, encoding: i32, levels: i32, inflated: usize, body: &[u8]) -> Vec<u8> {
    page(0, inflated, body, (5, thrift(&[(1, values), (2, encoding), (3, levels), (4, levels)], &[])))
}

/// A data page of version 2: `counts` are values, nulls and rows, `levels` the bytes of definition and repetition
/// levels.
pub(crate) fn v2(
    counts: [i32; 3],
    encoding: i32,
    levels: [i32; 2],
    compressed: bool,
    inflated: usize,
    body: &[u8],
) -> Vec<u8> {
    let fields = [(1, counts[0]), (2, counts[1]), (3, counts[2]), (4, encoding), (5, levels[0]), (6, levels[1])];
    page(3, inflated, body, (8, thrift(&fields, &[(7, if compressed { 1 } else { 2 }, Vec::new())])))
}

/// One column of a file: its pages, the first of them a dictionary page or not.
pub(crate) struct Column {
    pub(crate) pages: Vec<Vec<u8>>,
    pub(crate) has_dictionary: bool,
    pub(crate) values: i64,
    pub(crate) codec: Compression,
}

impl Column {
    pub(crate) fn plain(values: i64, pages: Vec<Vec<u8>>) -> Self {
        Self { pages, has_dictionary: false, values, codec: Compression::UNCOMPRESSED }
    }

    pub(crate) fn with_dictionary(values: i64, pages: Vec<Vec<u8>>) -> Self {
        Self { has_dictionary: true, ..Self::plain(values, pages) }
    }

    pub(crate) fn compressed(self, codec: Compression) -> Self {
        Self { codec, ..self }
    }

    /// INT64 0, 1, 2, ...
    pub(crate) fn numbers(rows: i64) -> Self {
        let body: Vec<u8> = (0..rows).flat_map(i64::to_le_bytes).collect();
        Self::plain(rows, vec![v1(rows as i32, PLAIN, RLE, body.len(), &body)])
    }
}

/// A file of one row group, without a page index.
pub(crate) fn file(message: &str, rows: i64, columns: Vec<Column>) -> Bytes {
    let schema: TypePtr = Arc::new(parse_message_type(message).unwrap());
    let descr = SchemaDescriptor::new(schema.clone());
    let properties = Arc::new(WriterProperties::builder().set_offset_index_disabled(true).build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for (leaf, column) in columns.into_iter().enumerate() {
        let first = column.pages[0].len() as i64;
        let bytes: Bytes = column.pages.concat().into();
        let metadata = ColumnChunkMetaData::builder(descr.column(leaf))
            .set_compression(column.codec)
            .set_num_values(column.values)
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(bytes.len() as i64)
            .set_data_page_offset(if column.has_dictionary { first } else { 0 })
            .set_dictionary_page_offset(column.has_dictionary.then_some(0))
            .build()
            .unwrap();
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: rows as u64,
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        group.append_column(&bytes, close).unwrap();
    }
    group.close().unwrap();
    writer.into_inner().unwrap().into()
}
