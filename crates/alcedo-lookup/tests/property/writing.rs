//! Rows into Parquet bytes, with every option that the parquet crate's writers have.
//!
//! The low-level writer takes values with levels made here, so that files can have what Arrow's own writer never makes:
//! INT96, old annotations, empty row groups. Arrow's writer is the other half of the cases; it gets its batches by
//! reading back what the low-level writer wrote.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Type as Physical;
use parquet::basic::{BrotliLevel, Compression, Encoding, GzipLevel, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::{ByteArray, FixedLenByteArray, Int96};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{BloomFilterPosition, EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, SchemaDescriptor, Type, TypePtr};

use crate::random::Random;
use crate::schema::{Leaf, Node, Shape};
use crate::values::{Datum, stored};

pub(crate) type Row = Vec<Datum>;

/// One column chunk's values in plain encoding, with the levels of every value and null.
#[derive(Debug, Default, Clone)]
pub(crate) struct Levels {
    pub(crate) values: Vec<Vec<u8>>,
    pub(crate) definitions: Vec<i16>,
    pub(crate) repetitions: Vec<i16>,
    /// The definition level of a value.
    pub(crate) most_definitions: i16,
    /// How many repeated levels there are.
    pub(crate) most_repetitions: i16,
}

/// Cuts rows into the values and levels of leaf columns, as the Dremel paper and the format say.
pub(crate) fn shred(schema: &[Node], rows: &[Row]) -> Vec<Levels> {
    let mut leaves = Vec::new();
    schema.iter().for_each(|node| depths(node, 0, 0, &mut leaves));
    let mut shredder = Shredder { leaves, pad: 0 };
    for row in rows {
        let mut first = 0;
        for (node, value) in schema.iter().zip(row) {
            shredder.node(node, value, Place { first, definition: 0, repetition: 0, depth: 0 });
            first += node.leaves().len();
        }
    }
    shredder.leaves
}

/// Empty leaves that know how deep they are.
fn depths(node: &Node, definitions: i16, repetitions: i16, out: &mut Vec<Levels>) {
    let definitions = definitions + i16::from(node.nullable);
    match &node.shape {
        Shape::Leaf(..) => {
            out.push(Levels { most_definitions: definitions, most_repetitions: repetitions, ..Levels::default() });
        }
        Shape::Struct(fields) => fields.iter().for_each(|field| depths(field, definitions, repetitions, out)),
        Shape::List(_, item) => depths(item, definitions + 1, repetitions + 1, out),
        Shape::Map(key, value) => {
            depths(key, definitions + 1, repetitions + 1, out);
            depths(value, definitions + 1, repetitions + 1, out);
        }
    }
}

struct Shredder {
    leaves: Vec<Levels>,
    /// How many bytes longer than needed the next decimal of variable length is.
    pad: usize,
}

#[derive(Clone, Copy)]
struct Place {
    /// The first leaf of the node.
    first: usize,
    definition: i16,
    repetition: i16,
    /// Repeated levels above.
    depth: i16,
}

impl Shredder {
    fn node(&mut self, node: &Node, value: &Datum, mut at: Place) {
        if node.nullable {
            if *value == Datum::Null {
                return self.absent(node, at);
            }
            at.definition += 1;
        }
        match (&node.shape, value) {
            (Shape::Leaf(leaf, _), value) => {
                self.pad = (self.pad + 1) % 3;
                let column = &mut self.leaves[at.first];
                column.values.push(stored(*leaf, value, self.pad));
                column.definitions.push(at.definition);
                column.repetitions.push(at.repetition);
            }
            (Shape::Struct(fields), Datum::Struct(values)) => {
                for (field, value) in fields.iter().zip(values) {
                    self.node(field, value, at);
                    at.first += field.leaves().len();
                }
            }
            (Shape::List(_, item), Datum::List(values)) => {
                self.repeat(node, values.len(), at, |this, i, at| this.node(item, &values[i], at));
            }
            (Shape::Map(key, item), Datum::Map(entries)) => {
                let second = key.leaves().len();
                self.repeat(node, entries.len(), at, |this, i, at| {
                    this.node(key, &entries[i].0, at);
                    this.node(item, &entries[i].1, Place { first: at.first + second, ..at });
                });
            }
            (shape, value) => panic!("{value:?} is no {shape:?}"),
        }
    }

    fn repeat(&mut self, node: &Node, count: usize, at: Place, write: impl Fn(&mut Self, usize, Place)) {
        if count == 0 {
            return self.absent(node, at);
        }
        let depth = at.depth + 1;
        for i in 0..count {
            let repetition = if i == 0 { at.repetition } else { depth };
            write(self, i, Place { definition: at.definition + 1, repetition, depth, ..at });
        }
    }

    fn absent(&mut self, node: &Node, at: Place) {
        for column in &mut self.leaves[at.first..at.first + node.leaves().len()] {
            column.definitions.push(at.definition);
            column.repetitions.push(at.repetition);
        }
    }
}

/// How a file is written.
pub(crate) struct Writing {
    properties: WriterProperties,
    /// For the description of a failed case.
    pub(crate) described: String,
}

impl Writing {
    pub(crate) fn generate(random: &mut Random, schema: &[Node], arrow: bool) -> Self {
        let compression = compression(random);
        let v2 = random.percent(50);
        let statistics = *random.pick(&[
            EnabledStatistics::None,
            EnabledStatistics::Chunk,
            EnabledStatistics::Page,
            EnabledStatistics::Page,
            EnabledStatistics::Page,
        ]);
        let page_rows = *random.pick(&[1, 2, 3, 7, 20, 100, 1_000, 20_000]);
        let page_bytes = *random.pick(&[1, 64, 500, 8_192, 1 << 20]);
        let batch = *random.pick(&[1, 2, 10, 64, 1_024]);
        let dictionary_bytes = *random.pick(&[1, 16, 100, 1_000, 1 << 20]);
        let (cut, index_cut) = (truncation(random), truncation(random));
        let (dictionary, bloom, offset_index) = (random.percent(60), random.percent(20), random.percent(85));
        let mut builder = WriterProperties::builder()
            .set_compression(compression)
            .set_writer_version(if v2 { WriterVersion::PARQUET_2_0 } else { WriterVersion::PARQUET_1_0 })
            .set_statistics_enabled(statistics)
            .set_data_page_row_count_limit(page_rows)
            .set_data_page_size_limit(page_bytes)
            .set_write_batch_size(batch)
            .set_dictionary_page_size_limit(dictionary_bytes)
            .set_dictionary_enabled(dictionary)
            .set_statistics_truncate_length(cut)
            .set_column_index_truncate_length(index_cut)
            .set_offset_index_disabled(!offset_index)
            .set_write_page_header_statistics(random.percent(30))
            .set_data_page_v2_compression_ratio_threshold(*random.pick(&[0.5, 1.0, 4.0]))
            .set_write_path_in_schema(random.percent(90))
            .set_bloom_filter_enabled(bloom)
            .set_bloom_filter_position(if random.percent(50) {
                BloomFilterPosition::AfterRowGroup
            } else {
                BloomFilterPosition::End
            })
            .set_sorting_columns(sorting(random, schema))
            .set_created_by((*random.pick(&CREATORS)).to_owned());
        if random.percent(30) {
            let value = random.percent(50).then(|| "value".to_owned());
            builder = builder.set_key_value_metadata(Some(vec![KeyValue { key: "note".into(), value }]));
        }
        let mut encodings = Vec::new();
        for (path, leaf) in paths(schema) {
            // Arrow's writer chooses by itself where a decimal is stored.
            let chosen = !(arrow && matches!(leaf, Leaf::Decimal { .. }));
            let encoding = encoding(random, leaf.physical()).filter(|_| chosen);
            if let Some(encoding) = encoding {
                builder = builder.set_column_encoding(path.clone(), encoding);
            }
            let with_dictionary = if random.percent(25) { !dictionary } else { dictionary };
            builder =
                builder.set_column_dictionary_enabled(path, with_dictionary && leaf.physical() != Physical::BOOLEAN);
            encodings.push(encoding);
        }
        let described = format!(
            "{compression:?}, v2 {v2}, {statistics:?} statistics cut at {cut:?} and {index_cut:?}, pages of \
             {page_rows} rows or {page_bytes} bytes, batches of {batch}, dictionary {dictionary} up to \
             {dictionary_bytes}, \
             bloom {bloom}, offset index {offset_index}, encodings {encodings:?}"
        );
        Self { properties: builder.build(), described }
    }
}

const CREATORS: [&str; 5] = [
    "parquet-rs version 59.0.0",
    "parquet-mr version 1.8.0 (build 0fda28af84b9746396014ad6a415b90592a98b3b)",
    "parquet-cpp version 1.3.0",
    "impala version 2.2.0",
    "",
];

fn truncation(random: &mut Random) -> Option<usize> {
    *random.pick(&[None, Some(64), Some(64), Some(8), Some(1), Some(100)])
}

fn compression(random: &mut Random) -> Compression {
    *random.pick(&[
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
        Compression::LZ4_RAW,
        Compression::LZ4,
        Compression::BROTLI(BrotliLevel::try_new(1).unwrap()),
    ])
}

fn encoding(random: &mut Random, physical: Physical) -> Option<Encoding> {
    let fitting: &[Encoding] = match physical {
        Physical::BOOLEAN => &[Encoding::PLAIN, Encoding::RLE],
        Physical::INT32 | Physical::INT64 => {
            &[Encoding::PLAIN, Encoding::DELTA_BINARY_PACKED, Encoding::BYTE_STREAM_SPLIT]
        }
        Physical::INT96 => &[Encoding::PLAIN],
        Physical::FLOAT | Physical::DOUBLE => &[Encoding::PLAIN, Encoding::BYTE_STREAM_SPLIT],
        Physical::BYTE_ARRAY => &[Encoding::PLAIN, Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY],
        Physical::FIXED_LEN_BYTE_ARRAY => &[Encoding::PLAIN, Encoding::BYTE_STREAM_SPLIT, Encoding::DELTA_BYTE_ARRAY],
    };
    random.percent(60).then(|| *random.pick(fitting))
}

/// A declared sort order, seldom the true one.
fn sorting(random: &mut Random, schema: &[Node]) -> Option<Vec<SortingColumn>> {
    let leaves: usize = schema.iter().map(|node| node.leaves().len()).sum();
    random.percent(30).then(|| {
        let column_idx = random.below(leaves) as i32;
        vec![SortingColumn { column_idx, descending: random.percent(50), nulls_first: random.percent(50) }]
    })
}

/// The leaves whose path is theirs alone: the writers' options go by path.
fn paths(schema: &[Node]) -> Vec<(ColumnPath, Leaf)> {
    let descr = SchemaDescriptor::new(root(schema));
    let leaves = schema.iter().flat_map(Node::leaves);
    let all: Vec<(ColumnPath, Leaf)> =
        leaves.enumerate().map(|(i, leaf)| (descr.column(i).path().clone(), leaf)).collect();
    let alone = |path: &ColumnPath| all.iter().filter(|(other, _)| other == path).count() == 1;
    all.iter().filter(|(path, _)| alone(path)).cloned().collect()
}

fn root(schema: &[Node]) -> TypePtr {
    let fields = schema.iter().map(Node::parquet).collect();
    Arc::new(Type::group_type_builder("schema").with_fields(fields).build().unwrap())
}

/// Rows in these row groups as a Parquet file, by the low-level writer or by Arrow's.
pub(crate) fn write(schema: &[Node], rows: &[Row], groups: &[Range<usize>], writing: &Writing, arrow: bool) -> Bytes {
    if !arrow {
        return write_low(schema, rows, groups, writing.properties.clone());
    }
    let whole = std::iter::once(0..rows.len()).collect::<Vec<_>>();
    let plain = write_low(schema, rows, &whole, WriterProperties::default());
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(plain, options).unwrap();
    let arrow_schema = reader.schema().clone();
    let batch = reader.with_batch_size(rows.len().max(1)).build().unwrap().next();
    let mut writer = ArrowWriter::try_new(Vec::new(), arrow_schema, Some(writing.properties.clone())).unwrap();
    if let Some(batch) = batch {
        let batch = batch.unwrap();
        for group in groups.iter().filter(|group| !group.is_empty()) {
            writer.write(&batch.slice(group.start, group.len())).unwrap();
            writer.flush().unwrap();
        }
    }
    writer.into_inner().unwrap().into()
}

fn write_low(schema: &[Node], rows: &[Row], groups: &[Range<usize>], properties: WriterProperties) -> Bytes {
    let mut writer = SerializedFileWriter::new(Vec::new(), root(schema), Arc::new(properties)).unwrap();
    for group in groups {
        let leaves = shred(schema, &rows[group.clone()]);
        let mut row_group = writer.next_row_group().unwrap();
        for leaf in &leaves {
            let mut column = row_group.next_column().unwrap().unwrap();
            write_leaf(column.untyped(), leaf);
            column.close().unwrap();
        }
        row_group.close().unwrap();
    }
    writer.into_inner().unwrap().into()
}

fn write_leaf(writer: &mut ColumnWriter<'_>, leaf: &Levels) {
    let (definitions, repetitions) = (Some(&leaf.definitions[..]), Some(&leaf.repetitions[..]));
    macro_rules! write {
        ($writer:expr, $convert:expr) => {{
            let values: Vec<_> = leaf.values.iter().map($convert).collect();
            $writer.write_batch(&values, definitions, repetitions)
        }};
    }
    let written = match writer {
        ColumnWriter::BoolColumnWriter(w) => write!(w, |v| v[0] != 0),
        ColumnWriter::Int32ColumnWriter(w) => write!(w, |v| i32::from_le_bytes(v[..].try_into().unwrap())),
        ColumnWriter::Int64ColumnWriter(w) => write!(w, |v| i64::from_le_bytes(v[..].try_into().unwrap())),
        ColumnWriter::FloatColumnWriter(w) => write!(w, |v| f32::from_le_bytes(v[..].try_into().unwrap())),
        ColumnWriter::DoubleColumnWriter(w) => write!(w, |v| f64::from_le_bytes(v[..].try_into().unwrap())),
        ColumnWriter::ByteArrayColumnWriter(w) => write!(w, |v| ByteArray::from(v.clone())),
        ColumnWriter::FixedLenByteArrayColumnWriter(w) => write!(w, |v| FixedLenByteArray::from(v.clone())),
        ColumnWriter::Int96ColumnWriter(w) => write!(w, |v: &Vec<u8>| {
            let part = |at: usize| u32::from_le_bytes(v[at..at + 4].try_into().unwrap());
            let mut value = Int96::new();
            value.set_data(part(0), part(4), part(8));
            value
        }),
    };
    written.unwrap();
}

/// Row groups over so many rows: one, a few, many tiny ones, and empty ones between them.
pub(crate) fn row_groups(random: &mut Random, rows: usize) -> Vec<Range<usize>> {
    let typical = match random.below(4) {
        0 => rows.max(1),
        1 => (rows / 3).max(1),
        2 => 1 + random.below(5),
        _ => 1 + random.below(rows.max(1)),
    };
    let typical = typical.max(rows / 40);
    let empty = if random.percent(20) { 20 } else { 0 };
    let (mut groups, mut start) = (Vec::new(), 0);
    while start < rows {
        if random.percent(empty) {
            groups.push(start..start);
        }
        let end = (start + 1 + random.below(typical * 2)).min(rows);
        let end = if typical >= rows { rows } else { end };
        groups.push(start..end);
        start = end;
    }
    if random.percent(empty.max(u64::from(rows == 0) * 50)) {
        groups.push(rows..rows);
    }
    groups
}
