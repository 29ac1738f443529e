//! Generated queries, and what a plain scan over the rows in memory answers to them.

use std::collections::BTreeSet;

use alcedo_lookup::answer::KeyStatus;
use alcedo_lookup::key::Key;
use arrow_buffer::i256;
use base64::Engine;
use half::f16;

use crate::random::Random;
use crate::schema::{Leaf, Node, Shape, Unit};
use crate::values::{Datum, civil, equal, has_text, moment, neighbour, pool, time_of_day};
use crate::writing::Row;

/// A column as a query names it: the way through structs to its node.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) path: Vec<usize>,
}

/// What a key means.
#[derive(Debug, Clone)]
pub(crate) enum Meaning {
    Equals(Datum),
    Null,
    Nothing,
}

/// One query with what it means.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) column: Column,
    pub(crate) keys: Vec<(Key, Meaning)>,
    pub(crate) columns: Option<Vec<Column>>,
    pub(crate) row_limit: Option<u32>,
}

/// What the scan says.
#[derive(Debug, PartialEq)]
pub(crate) struct Truth {
    /// Row number and key index, ascending.
    pub(crate) rows: Vec<(u64, u32)>,
    pub(crate) statuses: Vec<KeyStatus>,
}

impl Column {
    /// The node and its value in a row; null where a struct around it is.
    pub(crate) fn node<'a>(&self, schema: &'a [Node]) -> &'a Node {
        let mut node = &schema[self.path[0]];
        for field in &self.path[1..] {
            let Shape::Struct(fields) = &node.shape else { panic!("{} is no struct", node.name) };
            node = &fields[*field];
        }
        node
    }

    pub(crate) fn value<'a>(&self, row: &'a Row) -> &'a Datum {
        let mut value = &row[self.path[0]];
        for field in &self.path[1..] {
            match value {
                Datum::Struct(fields) => value = &fields[*field],
                _ => return &Datum::Null,
            }
        }
        value
    }
}

/// Every name that a query may use, with what it stands for: a root column, or else the first leaf in structs that is
/// spelled so.
pub(crate) fn columns(schema: &[Node]) -> Vec<Column> {
    let mut found: Vec<Column> = Vec::new();
    let mut add = |name: String, path: Vec<usize>| {
        if found.iter().all(|column| column.name != name) {
            found.push(Column { name, path });
        }
    };
    for (i, node) in schema.iter().enumerate() {
        add(node.name.clone(), vec![i]);
    }
    for (i, node) in schema.iter().enumerate() {
        struct_leaves(node, &node.name, &[i], &mut add);
    }
    found
}

fn struct_leaves(node: &Node, name: &str, path: &[usize], add: &mut impl FnMut(String, Vec<usize>)) {
    let Shape::Struct(fields) = &node.shape else { return };
    for (i, field) in fields.iter().enumerate() {
        let (name, path) = (format!("{name}.{}", field.name), [path, &[i]].concat());
        if let Shape::Leaf(..) = field.shape {
            add(name, path);
        } else {
            struct_leaves(field, &name, &path, add);
        }
    }
}

/// A query for a column that holds single values; none where the schema has no such column.
pub(crate) fn ask(random: &mut Random, schema: &[Node], rows: &[Row], focus: Option<&Column>) -> Option<Asked> {
    let all = columns(schema);
    let keys: Vec<&Column> = all.iter().filter(|column| matches!(column.node(schema).shape, Shape::Leaf(..))).collect();
    if keys.is_empty() {
        return None;
    }
    let column = match focus {
        Some(focus) if random.percent(60) => focus.clone(),
        _ => (*random.pick(&keys)).clone(),
    };
    let Shape::Leaf(leaf, values) = &column.node(schema).shape else { return None };
    let count = *random.pick(&[1, 1, 1, 2, 3, 12]);
    let mut keys: Vec<(Key, Meaning)> = (0..count).map(|_| key(random, *leaf, values, &column, rows)).collect();
    if count > 1 && random.percent(30) {
        let again = random.pick(&keys).clone();
        keys.push(again);
    }
    let columns = projection(random, &all, &column);
    let row_limit = random.percent(20).then(|| 1 + random.below(6) as u32);
    Some(Asked { column, keys, columns, row_limit })
}

fn projection(random: &mut Random, all: &[Column], key: &Column) -> Option<Vec<Column>> {
    match random.below(4) {
        0 => None,
        1 => Some(vec![key.clone()]),
        _ => {
            let mut names = all.to_vec();
            random.shuffle(&mut names);
            names.truncate(1 + random.below(names.len().min(5)));
            Some(names)
        }
    }
}

fn key(random: &mut Random, leaf: Leaf, values: &[Datum], column: &Column, rows: &[Row]) -> (Key, Meaning) {
    if leaf == Leaf::Null || random.percent(10) {
        return (Key::Null, Meaning::Null);
    }
    let present = if rows.is_empty() { &Datum::Null } else { column.value(random.pick(rows)) };
    let present = if *present == Datum::Null { random.pick(values) } else { present };
    let value = match random.below(10) {
        0..=5 => present.clone(),
        6 | 7 => neighbour(leaf, present, random),
        8 => pool(leaf, random).swap_remove(0),
        _ => return foreign(random, leaf).unwrap_or((Key::Null, Meaning::Null)),
    };
    (spell(random, leaf, &value), Meaning::Equals(value))
}

/// A key that the column's type cannot hold.
fn foreign(random: &mut Random, leaf: Leaf) -> Option<(Key, Meaning)> {
    let key = match leaf {
        Leaf::Int { bits, signed, .. } => match random.below(4) {
            0 => Key::from("123456789012345678901234567890123456789012345678901234567890"),
            1 if bits < 64 => Key::Int(1 << bits),
            1 => Key::from("18446744073709551616"),
            2 if signed => Key::Text((-(1_i128 << (bits - 1)) - 1).to_string()),
            2 => Key::Int(-1),
            _ => Key::Float(0.5),
        },
        Leaf::Float16 => Key::Float(0.1),
        Leaf::Float32 => Key::Float(*random.pick(&[0.1, 1e300, f64::NAN])),
        Leaf::Float64 => Key::Int((1 << 53) + 1),
        Leaf::Fixed(_) | Leaf::Uuid | Leaf::Interval => Key::Bytes(vec![0; 3].into()),
        Leaf::Decimal { precision, .. } => Key::Text("7".repeat(usize::from(precision) + 1)),
        Leaf::Date(_) => Key::Int(1 << 40),
        Leaf::Time(..) => Key::Int(-1),
        Leaf::Timestamp(Unit::Ms, ..) => Key::from("1970-01-01T00:00:00.0001"),
        Leaf::Timestamp(..) | Leaf::Int96 => Key::UInt(u64::MAX),
        _ => return None,
    };
    // A fixed[3] column may hold three zero bytes.
    (leaf.fixed_length() != Some(3)).then_some((key, Meaning::Nothing))
}

/// One of the ways to write a value.
fn spell(random: &mut Random, leaf: Leaf, value: &Datum) -> Key {
    match (leaf, value) {
        (_, Datum::Bool(value)) => match random.below(3) {
            0 => Key::Bool(*value),
            1 => Key::Text(value.to_string()),
            _ => Key::Text(u8::from(*value).to_string()),
        },
        (Leaf::Int { .. }, Datum::Int(value)) => spell_int(random, *value),
        (_, Datum::Int(value)) => match random.below(3) {
            0 => Key::Int(*value as i64),
            1 => Key::Text(value.to_string()),
            _ => spell_moment(random, leaf, *value),
        },
        (_, Datum::Float(value)) => spell_float(random, leaf, *value),
        (Leaf::Decimal { scale, .. }, Datum::Decimal(value)) => spell_decimal(random, scale, *value),
        (leaf, Datum::Bytes(bytes)) => spell_bytes(random, leaf, bytes),
        (leaf, value) => panic!("{value:?} is no {leaf:?}"),
    }
}

fn spell_int(random: &mut Random, value: i128) -> Key {
    match random.below(5) {
        0 if value >= 0 => Key::Text(format!("+{value}")),
        1 if i64::try_from(value).is_ok() => Key::Int(value as i64),
        2 if u64::try_from(value).is_ok() => Key::UInt(value as u64),
        3 if value.abs() <= 1 << 53 => Key::Float(value as f64),
        _ => Key::Text(value.to_string()),
    }
}

fn spell_moment(random: &mut Random, leaf: Leaf, value: i128) -> Key {
    let (unit, utc) = match leaf {
        Leaf::Date(_) if has_text(value * 86_400) => {
            let (year, month, day) = civil(value);
            return Key::Text(format!("{year:04}-{month:02}-{day:02}"));
        }
        Leaf::Time(unit, _) => return Key::Text(time_of_day(value, unit)),
        Leaf::Timestamp(unit, utc, _) => (unit, utc),
        Leaf::Int96 => (Unit::Ns, false),
        _ => return Key::Text(value.to_string()),
    };
    if !has_text(value.div_euclid(unit.per_second())) {
        return Key::Int(value as i64);
    }
    let mut text = moment(value, unit);
    if utc && random.percent(30) && has_text(value.div_euclid(unit.per_second()) + 7_200) {
        return Key::Text(moment(value + 5_400 * unit.per_second(), unit) + "+01:30");
    }
    if random.percent(30) {
        text = text.replace('T', " ");
    }
    let midnight = value.rem_euclid(86_400 * unit.per_second()) == 0;
    if midnight && unit != Unit::Ns {
        text.truncate(10);
    } else if utc && random.percent(50) {
        text.push('Z');
    }
    Key::Text(text)
}

fn spell_float(random: &mut Random, leaf: Leaf, value: f64) -> Key {
    let text = match leaf {
        Leaf::Float16 => f16::from_f64(value).to_string(),
        Leaf::Float32 => (value as f32).to_string(),
        _ => value.to_string(),
    };
    match random.below(3) {
        0 => Key::Text(text),
        1 if value.fract() == 0.0 && value.abs() < 1e15 => Key::Int(value as i64),
        _ => Key::Float(value),
    }
}

fn spell_decimal(random: &mut Random, scale: i8, value: i256) -> Key {
    let (digits, scale) = (value.to_string(), scale as usize);
    let (sign, digits) = digits.strip_prefix('-').map_or(("", &digits[..]), |digits| ("-", digits));
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    if fraction.bytes().all(|digit| digit == b'0') && random.percent(50) {
        let whole = format!("{sign}{whole}");
        return whole.parse().map_or(Key::Text(whole), Key::Int);
    }
    let zeros = "0".repeat(random.below(3));
    Key::Text(match random.below(3) {
        0 if scale > 0 => format!("{sign}{whole}.{}", fraction.trim_end_matches('0')),
        1 if scale > 0 => format!("{sign}{}.{fraction}{zeros}", if whole == "0" { "" } else { whole }),
        _ if scale > 0 => format!("{sign}{zeros}{whole}.{fraction}"),
        _ => format!("{sign}{zeros}{whole}"),
    })
}

fn spell_bytes(random: &mut Random, leaf: Leaf, bytes: &[u8]) -> Key {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if random.percent(30) {
        return Key::Bytes(bytes.to_vec().into());
    }
    if leaf == Leaf::Uuid {
        let hex = hex(bytes);
        let dashed = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
        return Key::Text(match random.below(3) {
            0 => dashed,
            1 => dashed.to_uppercase(),
            _ => hex,
        });
    }
    let text = std::str::from_utf8(bytes).ok();
    let is_text = matches!(leaf, Leaf::String(_) | Leaf::Json);
    match (text, random.below(3)) {
        (Some(text), _) if is_text => Key::Text(text.to_owned()),
        (Some(text), 0) if !text.starts_with("hex:") && !text.starts_with("base64:") => Key::Text(text.to_owned()),
        (_, 1) => Key::Text(format!("base64:{}", base64::engine::general_purpose::STANDARD.encode(bytes))),
        _ => Key::Text(format!("hex:{}", hex(bytes))),
    }
}

impl Asked {
    /// The answer by looking at every row.
    pub(crate) fn scan(&self, rows: &[Row]) -> Truth {
        let limit = self.row_limit.map_or(u64::MAX, u64::from);
        let mut counts = vec![0_u64; self.keys.len()];
        let mut found = BTreeSet::new();
        for (number, row) in rows.iter().enumerate() {
            let value = self.column.value(row);
            for (i, (_, meaning)) in self.keys.iter().enumerate() {
                let matches = match meaning {
                    Meaning::Equals(wanted) => equal(wanted, value),
                    Meaning::Null => *value == Datum::Null,
                    Meaning::Nothing => false,
                };
                counts[i] += u64::from(matches);
                if matches && counts[i] <= limit {
                    found.insert((number as u64, i as u32));
                }
            }
        }
        let status = |count| match count {
            0 => KeyStatus::NotFound,
            count if count > limit => KeyStatus::Truncated,
            _ => KeyStatus::Found,
        };
        Truth { rows: found.into_iter().collect(), statuses: counts.into_iter().map(status).collect() }
    }
}
