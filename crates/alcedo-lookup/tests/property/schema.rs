//! Generated schemas: a tree of columns, its Parquet form and the types that an answer must name.
//!
//! Knows the format's annotations, also the old ones, and the grammar of types. It is written apart from the crate
//! under test, which must come to the same types by itself.

use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::schema::types::{Type, TypePtr};

use crate::random::Random;
use crate::values::{Datum, pool};

/// One column, or one level of a nested one.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) nullable: bool,
    /// How many of a hundred are null, where it is nullable.
    pub(crate) null_share: u64,
    pub(crate) shape: Shape,
}

#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// The values are drawn from the pool.
    Leaf(Leaf, Vec<Datum>),
    Struct(Vec<Node>),
    List(ListForm, Box<Node>),
    Map(Box<Node>, Box<Node>),
}

/// The ways in which writers have spelled lists
/// (<https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#lists>).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ListForm {
    ThreeLevels,
    TwoLevels,
    /// A repeated field without annotation.
    Bare,
}

/// How a type is annotated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Note {
    Logical,
    Converted,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Unit {
    Ms,
    Us,
    Ns,
}

impl Unit {
    pub(crate) fn per_second(self) -> i128 {
        match self {
            Self::Ms => 1_000,
            Self::Us => 1_000_000,
            Self::Ns => 1_000_000_000,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ms => "ms",
            Self::Us => "us",
            Self::Ns => "ns",
        }
    }

    fn logical(self) -> parquet::basic::TimeUnit {
        match self {
            Self::Ms => parquet::basic::TimeUnit::MILLIS,
            Self::Us => parquet::basic::TimeUnit::MICROS,
            Self::Ns => parquet::basic::TimeUnit::NANOS,
        }
    }
}

/// Where a decimal's digits are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Store {
    Int32,
    Int64,
    Fixed(i32),
    Bytes,
}

/// The type of single values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Leaf {
    Bool,
    Int { bits: u8, signed: bool, note: Note },
    Float16,
    Float32,
    Float64,
    String(Note),
    Enum,
    Json,
    Bson,
    Binary,
    Fixed(i32),
    Uuid,
    Interval,
    Decimal { precision: u8, scale: i8, store: Store, note: Note },
    Date(Note),
    Time(Unit, Note),
    Timestamp(Unit, bool, Note),
    Int96,
    Null,
}

impl Leaf {
    pub(crate) fn physical(self) -> Physical {
        match self {
            Self::Bool => Physical::BOOLEAN,
            Self::Int { bits: 64, .. } | Self::Timestamp(..) | Self::Time(Unit::Us | Unit::Ns, _) => Physical::INT64,
            Self::Int { .. } | Self::Date(_) | Self::Time(Unit::Ms, _) | Self::Null => Physical::INT32,
            Self::Float32 => Physical::FLOAT,
            Self::Float64 => Physical::DOUBLE,
            Self::String(_) | Self::Enum | Self::Json | Self::Bson | Self::Binary => Physical::BYTE_ARRAY,
            Self::Float16 | Self::Fixed(_) | Self::Uuid | Self::Interval => Physical::FIXED_LEN_BYTE_ARRAY,
            Self::Int96 => Physical::INT96,
            Self::Decimal { store, .. } => match store {
                Store::Int32 => Physical::INT32,
                Store::Int64 => Physical::INT64,
                Store::Fixed(_) => Physical::FIXED_LEN_BYTE_ARRAY,
                Store::Bytes => Physical::BYTE_ARRAY,
            },
        }
    }

    /// Bytes of a fixed-length value.
    pub(crate) fn fixed_length(self) -> Option<i32> {
        match self {
            Self::Float16 => Some(2),
            Self::Fixed(length) | Self::Decimal { store: Store::Fixed(length), .. } => Some(length),
            Self::Uuid => Some(16),
            Self::Interval => Some(12),
            _ => None,
        }
    }

    fn logical(self) -> Option<LogicalType> {
        let (note, logical) = match self {
            Self::Int { bits, signed, note } => (note, LogicalType::integer(bits as i8, signed)),
            Self::Float16 => (Note::Logical, LogicalType::Float16),
            Self::String(note) => (note, LogicalType::String),
            Self::Enum => (Note::Logical, LogicalType::Enum),
            Self::Json => (Note::Logical, LogicalType::Json),
            Self::Bson => (Note::Logical, LogicalType::Bson),
            Self::Uuid => (Note::Logical, LogicalType::Uuid),
            Self::Decimal { precision, scale, note, .. } => {
                (note, LogicalType::decimal(scale.into(), precision.into()))
            }
            Self::Date(note) => (note, LogicalType::Date),
            Self::Time(unit, note) => (note, LogicalType::time(true, unit.logical())),
            Self::Timestamp(unit, utc, note) => (note, LogicalType::timestamp(utc, unit.logical())),
            Self::Null => (Note::Logical, LogicalType::Unknown),
            Self::Bool
            | Self::Float32
            | Self::Float64
            | Self::Binary
            | Self::Fixed(_)
            | Self::Interval
            | Self::Int96 => {
                return None;
            }
        };
        (note == Note::Logical).then_some(logical)
    }

    /// The annotation of old writers.
    fn converted(self) -> ConvertedType {
        match self {
            Self::Interval => ConvertedType::INTERVAL,
            Self::Int { bits, signed, note: Note::Converted } => match (bits, signed) {
                (8, true) => ConvertedType::INT_8,
                (16, true) => ConvertedType::INT_16,
                (8, false) => ConvertedType::UINT_8,
                (16, false) => ConvertedType::UINT_16,
                (32, false) => ConvertedType::UINT_32,
                (64, false) => ConvertedType::UINT_64,
                // Signed integers of their physical type's own width need no annotation.
                _ => ConvertedType::NONE,
            },
            Self::String(Note::Converted) => ConvertedType::UTF8,
            Self::Decimal { note: Note::Converted, .. } => ConvertedType::DECIMAL,
            Self::Date(Note::Converted) => ConvertedType::DATE,
            Self::Time(Unit::Ms, Note::Converted) => ConvertedType::TIME_MILLIS,
            Self::Time(_, Note::Converted) => ConvertedType::TIME_MICROS,
            Self::Timestamp(Unit::Ms, _, Note::Converted) => ConvertedType::TIMESTAMP_MILLIS,
            Self::Timestamp(_, _, Note::Converted) => ConvertedType::TIMESTAMP_MICROS,
            _ => ConvertedType::NONE,
        }
    }

    /// Its name in the grammar of answers.
    fn type_text(self) -> String {
        match self {
            Self::Bool => "bool".into(),
            Self::Int { bits, signed, .. } => format!("{}int{bits}", if signed { "" } else { "u" }),
            Self::Float16 => "float16".into(),
            Self::Float32 => "float32".into(),
            Self::Float64 => "float64".into(),
            Self::String(_) | Self::Json => "string".into(),
            // Arrow and its peers take an enum as bytes.
            Self::Enum | Self::Bson | Self::Binary => "binary".into(),
            Self::Fixed(length) => format!("fixed[{length}]"),
            Self::Uuid => "uuid".into(),
            Self::Interval => "interval".into(),
            Self::Decimal { precision, scale, .. } => format!("decimal({precision},{scale})"),
            Self::Date(_) => "date32".into(),
            Self::Time(unit, _) => format!("time[{}]", unit.name()),
            Self::Timestamp(unit, true, _) => format!("timestamp[{},UTC]", unit.name()),
            Self::Timestamp(unit, false, _) => format!("timestamp[{}]", unit.name()),
            Self::Int96 => "timestamp[ns]".into(),
            Self::Null => "null".into(),
        }
    }
}

impl Node {
    /// The Parquet form.
    pub(crate) fn parquet(&self) -> TypePtr {
        let repetition = match (&self.shape, self.nullable) {
            (Shape::List(ListForm::Bare, _), _) => Repetition::REPEATED,
            (_, true) => Repetition::OPTIONAL,
            (_, false) => Repetition::REQUIRED,
        };
        self.parquet_as(&self.name, repetition)
    }

    fn parquet_as(&self, name: &str, repetition: Repetition) -> TypePtr {
        let group = |note: Option<LogicalType>, fields: Vec<TypePtr>| {
            let builder = Type::group_type_builder(name).with_repetition(repetition);
            Arc::new(builder.with_logical_type(note).with_fields(fields).build().unwrap())
        };
        match &self.shape {
            Shape::Leaf(leaf, _) => leaf_type(*leaf, name, repetition),
            Shape::Struct(fields) => group(None, fields.iter().map(Self::parquet).collect()),
            Shape::List(ListForm::Bare, item) => item.parquet_as(name, repetition),
            Shape::List(ListForm::TwoLevels, item) => {
                group(Some(LogicalType::List), vec![item.parquet_as("array", Repetition::REPEATED)])
            }
            Shape::List(ListForm::ThreeLevels, item) => {
                group(Some(LogicalType::List), vec![repeated("list", vec![item.parquet()])])
            }
            Shape::Map(key, value) => {
                group(Some(LogicalType::Map), vec![repeated("key_value", vec![key.parquet(), value.parquet()])])
            }
        }
    }

    /// Its type in the grammar of answers.
    pub(crate) fn type_text(&self) -> String {
        match &self.shape {
            Shape::Leaf(leaf, _) => leaf.type_text(),
            Shape::Struct(fields) => {
                let field = |field: &Self| format!("{}:{}", quoted(&field.name), field.type_text());
                format!("struct<{}>", fields.iter().map(field).collect::<Vec<_>>().join(","))
            }
            Shape::List(_, item) => format!("list<{}>", item.type_text()),
            Shape::Map(key, value) => format!("map<{},{}>", key.type_text(), value.type_text()),
        }
    }

    /// The leaves below it, in file order, each with the names that lead to it in a Parquet schema.
    pub(crate) fn leaves(&self) -> Vec<Leaf> {
        match &self.shape {
            Shape::Leaf(leaf, _) => vec![*leaf],
            Shape::Struct(fields) => fields.iter().flat_map(Self::leaves).collect(),
            Shape::List(_, item) => item.leaves(),
            Shape::Map(key, value) => [key.leaves(), value.leaves()].concat(),
        }
    }
}

fn repeated(name: &str, fields: Vec<TypePtr>) -> TypePtr {
    let builder = Type::group_type_builder(name).with_repetition(Repetition::REPEATED);
    Arc::new(builder.with_fields(fields).build().unwrap())
}

fn leaf_type(leaf: Leaf, name: &str, repetition: Repetition) -> TypePtr {
    let mut builder = Type::primitive_type_builder(name, leaf.physical()).with_repetition(repetition);
    builder = builder.with_logical_type(leaf.logical()).with_converted_type(leaf.converted());
    if let Some(length) = leaf.fixed_length() {
        builder = builder.with_length(length);
    }
    if let Leaf::Decimal { precision, scale, .. } = leaf {
        builder = builder.with_precision(precision.into()).with_scale(scale.into());
    }
    Arc::new(builder.build().unwrap())
}

fn quoted(name: &str) -> String {
    if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The root columns of a file. `arrow`: only what Arrow's own writer can express too.
pub(crate) fn generate(random: &mut Random, arrow: bool) -> Vec<Node> {
    let count = if random.percent(10) { 1 } else { 1 + random.below(12) };
    (0..count).map(|_| node(random, arrow, 0)).collect()
}

fn node(random: &mut Random, arrow: bool, depth: usize) -> Node {
    let nullable = random.percent(65);
    let nested = if depth == 0 { 25 } else { 35 };
    let shape = if depth < 4 && random.percent(nested) {
        nested_shape(random, arrow, depth)
    } else {
        leaf_shape(random, arrow)
    };
    let bare = matches!(shape, Shape::List(ListForm::Bare, _));
    let null = matches!(shape, Shape::Leaf(Leaf::Null, _));
    let nullable = (nullable || null) && !bare;
    let null_share = if null { 100 } else { *random.pick(&[0, 3, 20, 50, 90, 100]) };
    Node { name: name(random), nullable, null_share, shape }
}

fn nested_shape(random: &mut Random, arrow: bool, depth: usize) -> Shape {
    let fixed = |node: Node| Node { nullable: false, ..node };
    match random.below(5) {
        0..=2 => Shape::Struct((0..1 + random.below(4)).map(|_| node(random, arrow, depth + 1)).collect()),
        3 => {
            let form = if arrow { ListForm::ThreeLevels } else { *random.pick(&LIST_FORMS) };
            let item = unrepeated(random, arrow, depth + 1);
            match (form, &item.shape) {
                (ListForm::ThreeLevels, _) => Shape::List(form, Box::new(item)),
                (_, Shape::Leaf(leaf, _)) if *leaf != Leaf::Null => Shape::List(form, Box::new(fixed(item))),
                (ListForm::TwoLevels, Shape::Struct(_)) => Shape::List(form, Box::new(fixed(item))),
                _ => Shape::List(ListForm::ThreeLevels, Box::new(item)),
            }
        }
        _ => {
            let mut key = leaf_node(random, arrow);
            key.nullable = false;
            let value = unrepeated(random, arrow, depth + 1);
            Shape::Map(Box::new(Node { name: "key".into(), ..key }), Box::new(Node { name: "value".into(), ..value }))
        }
    }
}

/// A node that is no repeated field: inside of lists and maps the format allows none.
fn unrepeated(random: &mut Random, arrow: bool, depth: usize) -> Node {
    let mut node = node(random, arrow, depth);
    if let Shape::List(form @ ListForm::Bare, _) = &mut node.shape {
        *form = ListForm::ThreeLevels;
    }
    node
}

const LIST_FORMS: [ListForm; 4] = [ListForm::ThreeLevels, ListForm::ThreeLevels, ListForm::TwoLevels, ListForm::Bare];

fn leaf_node(random: &mut Random, arrow: bool) -> Node {
    loop {
        let shape = leaf_shape(random, arrow);
        if !matches!(shape, Shape::Leaf(Leaf::Null, _)) {
            return Node { name: name(random), nullable: true, null_share: *random.pick(&[0, 20, 50]), shape };
        }
    }
}

fn leaf_shape(random: &mut Random, arrow: bool) -> Shape {
    loop {
        let leaf = leaf(random);
        let foreign = matches!(leaf, Leaf::Uuid | Leaf::Interval | Leaf::Int96 | Leaf::Enum | Leaf::Json | Leaf::Bson);
        if !(arrow && foreign) {
            let pool = pool(leaf, random);
            return Shape::Leaf(leaf, pool);
        }
    }
}

fn leaf(random: &mut Random) -> Leaf {
    let note = if random.percent(70) { Note::Logical } else { Note::Converted };
    let unit = *random.pick(&[Unit::Ms, Unit::Us, Unit::Ns]);
    // Nanoseconds and local times have no converted type.
    let timed = if unit == Unit::Ns { Note::Logical } else { note };
    match random.below(24) {
        0 => Leaf::Bool,
        1..=4 => Leaf::Int { bits: *random.pick(&[8, 16, 32, 64]), signed: random.percent(50), note },
        5 => Leaf::Float16,
        6 => Leaf::Float32,
        7 => Leaf::Float64,
        8..=10 => Leaf::String(note),
        11 => *random.pick(&[Leaf::Enum, Leaf::Json, Leaf::Bson]),
        12 | 13 => Leaf::Binary,
        14 => Leaf::Fixed(*random.pick(&[1, 4, 7, 16, 32, 80])),
        15 => Leaf::Uuid,
        16..=18 => decimal(random, note),
        19 => Leaf::Date(note),
        20 => Leaf::Time(unit, timed),
        21 => Leaf::Timestamp(unit, timed == Note::Converted || random.percent(50), timed),
        22 => *random.pick(&[Leaf::Interval, Leaf::Null]),
        _ => Leaf::Int96,
    }
}

fn decimal(random: &mut Random, note: Note) -> Leaf {
    let precision = match random.below(4) {
        0 => 1 + random.below(9),
        1 => 1 + random.below(18),
        2 => 1 + random.below(38),
        _ => *random.pick(&[38, 39, 57, 76]),
    };
    let fixed = (1..).find(|bytes| precision as f64 <= f64::from(8 * bytes - 1) * 2_f64.log10()).unwrap_or(32);
    let widest = if precision <= 38 { 16 } else { 32 };
    let fixed = random.within(fixed.into(), widest.max(fixed).into()) as i32;
    let mut stores = vec![Store::Fixed(fixed), Store::Bytes];
    if precision <= 9 {
        stores.push(Store::Int32);
    }
    if precision <= 18 {
        stores.push(Store::Int64);
    }
    let scale = random.below(precision + 1) as i8;
    Leaf::Decimal { precision: precision as u8, scale, store: *random.pick(&stores), note }
}

/// Names that have to be quoted, escaped, or told apart from paths; few of them, so that some stand twice in a file.
fn name(random: &mut Random) -> String {
    const NAMES: [&str; 16] =
        ["id", "a", "b", "a.b", "ID", "x y", "", "名", "q\"\\", "list", "key", "s", "value", "a.a", "element", "."];
    match random.below(3) {
        0 => (*random.pick(&NAMES)).to_owned(),
        _ => format!("c{}", random.below(60)),
    }
}
