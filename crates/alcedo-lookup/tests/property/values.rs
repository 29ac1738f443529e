//! Generated values, how they are stored, and which of them are equal.
//!
//! Values of one leaf are drawn from a pool, so that they repeat, within data pages and over their borders. Comparison
//! is written here by value and by nothing that the crate under test does.

use std::cmp::Ordering;

use arrow_buffer::i256;
use half::f16;

use crate::random::Random;
use crate::schema::{Leaf, Node, Shape, Store, Unit};

/// The Julian day number of 1970-01-01.
const UNIX_EPOCH_JULIAN_DAY: i128 = 2_440_588;
pub(crate) const DAY_NANOSECONDS: i128 = 86_400_000_000_000;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Datum {
    Null,
    Bool(bool),
    /// Integers, dates, times and timestamps.
    Int(i128),
    /// Of the leaf's width, widened.
    Float(f64),
    /// Unscaled.
    Decimal(i256),
    Bytes(Vec<u8>),
    List(Vec<Datum>),
    Struct(Vec<Datum>),
    Map(Vec<(Datum, Datum)>),
}

/// The values from which a leaf's are drawn.
pub(crate) fn pool(leaf: Leaf, random: &mut Random) -> Vec<Datum> {
    let size = *random.pick(&[1, 2, 5, 20, 20, 100, 400]);
    let texts = Texts::new(random);
    (0..size).map(|_| value(leaf, &texts, random)).collect()
}

/// What the byte strings of one pool have in common.
struct Texts {
    prefix: Vec<char>,
    longest: usize,
}

impl Texts {
    fn new(random: &mut Random) -> Self {
        let length = *random.pick(&[0, 0, 0, 5, 63, 64, 65, 150]);
        let fill = *random.pick(&['p', '\u{10ffff}', '\u{ff}', '\u{0}', '\u{7f}']);
        let longest = if random.percent(4) { 6_000 } else { *random.pick(&[1, 3, 8, 30]) };
        Self { prefix: vec![fill; length], longest }
    }

    fn text(&self, random: &mut Random) -> String {
        let take = if random.percent(90) { self.prefix.len() } else { random.below(self.prefix.len() + 1) };
        let mut text: String = self.prefix[..take].iter().collect();
        let alphabet = ['a', 'b', 'z', '0', '\u{10ffff}', 'é', '\u{0}', '-'];
        let length = random.below(self.longest + 1);
        text.extend((0..length).map(|_| *random.pick(&alphabet)));
        text
    }

    fn bytes(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = vec![if self.prefix.first() == Some(&'p') { 7 } else { 0xff }; self.prefix.len()];
        let length = random.below(self.longest + 1);
        bytes.extend((0..length).map(|_| *random.pick(&[0, 1, 0x7f, 0x80, 0xfe, 0xff, 0xff])));
        bytes
    }
}

fn value(leaf: Leaf, texts: &Texts, random: &mut Random) -> Datum {
    match leaf {
        Leaf::Bool => Datum::Bool(random.percent(50)),
        Leaf::Int { bits, signed: true, .. } => whole(random, -(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        Leaf::Int { bits, signed: false, .. } => whole(random, 0, (1 << bits) - 1),
        Leaf::Float16 => Datum::Float(f16::from_f64(float(random, 60_000.0)).to_f64()),
        Leaf::Float32 => Datum::Float((float(random, 3e38) as f32).into()),
        Leaf::Float64 => Datum::Float(float(random, 1e308)),
        Leaf::String(_) | Leaf::Enum | Leaf::Json => Datum::Bytes(texts.text(random).into_bytes()),
        Leaf::Binary | Leaf::Bson => Datum::Bytes(texts.bytes(random)),
        Leaf::Fixed(_) | Leaf::Uuid | Leaf::Interval => {
            let length = leaf.fixed_length().unwrap_or_default() as usize;
            let mut bytes = vec![*random.pick(&[0, 0xff, 0x7f]); length];
            let free = if random.percent(50) { length } else { length.min(2) };
            bytes.splice(length - free.., random.bytes(free));
            Datum::Bytes(bytes)
        }
        Leaf::Decimal { precision, .. } => {
            let digits = if random.percent(30) { precision.into() } else { 1 + random.below(precision.into()) };
            let digits: String = (0..digits).map(|_| *random.pick(&['0', '1', '9', '9', '5'])).collect();
            let sign = if random.percent(50) { "-" } else { "" };
            Datum::Decimal(i256::from_string(&format!("{sign}{digits}")).unwrap())
        }
        Leaf::Date(_) => whole(random, i32::MIN.into(), i32::MAX.into()),
        Leaf::Time(unit, _) => whole(random, 0, 86_400 * unit.per_second() - 1),
        Leaf::Timestamp(..) | Leaf::Int96 => match random.below(4) {
            0 => whole(random, i64::MIN.into(), i64::MAX.into()),
            _ => Datum::Int((random.within(-5_000, 2_000_000) * 1_000_000 + random.within(0, 3) * 250).into()),
        },
        Leaf::Null => Datum::Null,
    }
}

fn whole(random: &mut Random, min: i128, max: i128) -> Datum {
    let value = match random.below(5) {
        0 => *random.pick(&[min, max, min + 1, max - 1, 0, max / 2]),
        1 => min + i128::from(random.next()) % (max - min + 1),
        _ => random.within(-40, 40).into(),
    };
    Datum::Int(value.clamp(min, max))
}

fn float(random: &mut Random, huge: f64) -> f64 {
    match random.below(8) {
        0 => *random.pick(&[f64::NAN, -0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, huge, -huge]),
        1 => *random.pick(&[-0.0, 0.0]),
        2 => random.within(-1_000_000, 1_000_000) as f64 / 7.0,
        _ => random.within(-30, 30) as f64 / 4.0,
    }
}

impl Node {
    /// One value of this column.
    pub(crate) fn draw(&self, random: &mut Random) -> Datum {
        if self.nullable && random.percent(self.null_share) {
            return Datum::Null;
        }
        match &self.shape {
            Shape::Leaf(_, pool) => random.pick(pool).clone(),
            Shape::Struct(fields) => Datum::Struct(fields.iter().map(|field| field.draw(random)).collect()),
            Shape::List(_, item) => Datum::List((0..length(random)).map(|_| item.draw(random)).collect()),
            Shape::Map(key, value) => {
                Datum::Map((0..length(random)).map(|_| (key.draw(random), value.draw(random))).collect())
            }
        }
    }
}

fn length(random: &mut Random) -> usize {
    if random.percent(2) { 40 } else { *random.pick(&[0, 0, 1, 1, 2, 3, 5]) }
}

/// The value as plain encoding stores it, without a length. `pad`: so many bytes longer than needed, where that is
/// free.
pub(crate) fn stored(leaf: Leaf, value: &Datum, pad: usize) -> Vec<u8> {
    match (leaf, value) {
        (_, Datum::Bool(value)) => vec![(*value).into()],
        (Leaf::Int96, Datum::Int(nanoseconds)) => {
            let day = nanoseconds.div_euclid(DAY_NANOSECONDS) + UNIX_EPOCH_JULIAN_DAY;
            let of_day = nanoseconds.rem_euclid(DAY_NANOSECONDS) as u64;
            [&of_day.to_le_bytes()[..], &(day as u32).to_le_bytes()].concat()
        }
        (_, Datum::Int(value)) if leaf.physical() == parquet::basic::Type::INT32 => {
            (*value as u32).to_le_bytes().to_vec()
        }
        (_, Datum::Int(value)) => (*value as u64).to_le_bytes().to_vec(),
        (Leaf::Float16, Datum::Float(value)) => f16::from_f64(*value).to_le_bytes().to_vec(),
        (Leaf::Float32, Datum::Float(value)) => (*value as f32).to_le_bytes().to_vec(),
        (_, Datum::Float(value)) => value.to_le_bytes().to_vec(),
        (Leaf::Decimal { store, precision, .. }, Datum::Decimal(value)) => {
            let wide = value.to_be_bytes();
            match store {
                Store::Int32 => wide[28..].iter().rev().copied().collect(),
                Store::Int64 => wide[24..].iter().rev().copied().collect(),
                Store::Fixed(length) => wide[32 - length as usize..].to_vec(),
                Store::Bytes => {
                    let sign = if value.is_negative() { 0xff } else { 0 };
                    let kept = |at: &usize| wide[*at] != sign || (wide[*at] ^ sign) & 0x80 != 0;
                    let mut first = (0..31).find(kept).unwrap_or(31);
                    if first > 0 && (wide[first] ^ sign) & 0x80 != 0 {
                        first -= 1;
                    }
                    let widest: usize = if precision <= 38 { 16 } else { 32 };
                    wide[first.saturating_sub(pad).max(32 - widest).min(first)..].to_vec()
                }
            }
        }
        (_, Datum::Bytes(bytes)) => bytes.clone(),
        (leaf, value) => panic!("{value:?} is no {leaf:?}"),
    }
}

/// A key's equality: numbers as numbers, NaN and null equal nothing.
pub(crate) fn equal(a: &Datum, b: &Datum) -> bool {
    match (a, b) {
        (Datum::Null, _) | (_, Datum::Null) => false,
        (Datum::Float(a), Datum::Float(b)) => a == b,
        (a, b) => a == b,
    }
}

/// The order in which a file may be sorted; nulls first, NaN last.
pub(crate) fn order(a: &Datum, b: &Datum) -> Ordering {
    match (a, b) {
        (Datum::Null, Datum::Null) => Ordering::Equal,
        (Datum::Null, _) => Ordering::Less,
        (_, Datum::Null) => Ordering::Greater,
        (Datum::Bool(a), Datum::Bool(b)) => a.cmp(b),
        (Datum::Int(a), Datum::Int(b)) => a.cmp(b),
        (Datum::Float(a), Datum::Float(b)) => a.total_cmp(b),
        (Datum::Decimal(a), Datum::Decimal(b)) => a.cmp(b),
        (Datum::Bytes(a), Datum::Bytes(b)) => a.cmp(b),
        _ => Ordering::Equal,
    }
}

/// A value close to this one, where there is one.
pub(crate) fn neighbour(leaf: Leaf, value: &Datum, random: &mut Random) -> Datum {
    let up = random.percent(50);
    let step = if up { 1 } else { -1 };
    match (leaf, value) {
        (Leaf::Time(unit, _), Datum::Int(value)) => Datum::Int((value + step).clamp(0, 86_400 * unit.per_second() - 1)),
        (Leaf::Int { bits, signed, .. }, Datum::Int(value)) => {
            let min = if signed { -(1_i128 << (bits - 1)) } else { 0 };
            Datum::Int((value + step).clamp(min, min + (1 << bits) - 1))
        }
        (Leaf::Date(_), Datum::Int(value)) => Datum::Int((value + step).clamp(i32::MIN.into(), i32::MAX.into())),
        (_, Datum::Int(value)) => Datum::Int((value + step).clamp(i64::MIN.into(), i64::MAX.into())),
        (Leaf::Float16, Datum::Float(value)) => Datum::Float(f16::from_f64(value + f64::from(step as i8)).to_f64()),
        (Leaf::Float32, Datum::Float(value)) => Datum::Float(((value + f64::from(step as i8)) as f32).into()),
        (Leaf::Float64, Datum::Float(value)) => Datum::Float(if up { value.next_up() } else { value.next_down() }),
        (Leaf::String(_) | Leaf::Enum | Leaf::Json, Datum::Bytes(bytes)) => {
            let mut text = String::from_utf8(bytes.clone()).unwrap();
            if up || text.pop().is_none() {
                text.push(*random.pick(&['\0', 'a', '\u{10ffff}']));
            }
            Datum::Bytes(text.into_bytes())
        }
        (_, Datum::Bytes(bytes)) => {
            let mut bytes = bytes.clone();
            match bytes.last_mut() {
                Some(last) if leaf.fixed_length().is_some() || up => *last = last.wrapping_add(step as u8),
                _ => bytes.push(0),
            }
            Datum::Bytes(bytes)
        }
        (_, value) => value.clone(),
    }
}

/// Whether a moment has a date with a year of four digits, so that it can be written as text.
pub(crate) fn has_text(seconds: i128) -> bool {
    (-62_135_596_800..=253_402_300_799).contains(&seconds)
}

/// Year, month, day of a count of days since 1970-01-01, by counting through the 400-year cycle.
pub(crate) fn civil(days: i128) -> (i128, usize, i128) {
    let leap = |year: i128| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let mut year = 1970 + days.div_euclid(146_097) * 400;
    let mut rest = days.rem_euclid(146_097);
    loop {
        let length = 365 + i128::from(leap(year));
        if rest < length {
            break;
        }
        rest -= length;
        year += 1;
    }
    let february = 28 + i128::from(leap(year));
    for (month, length) in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().enumerate() {
        if rest < length {
            return (year, month + 1, rest + 1);
        }
        rest -= length;
    }
    unreachable!("a year has twelve months")
}

/// A moment's text, without a zone: `2026-01-31T00:00:00.001`.
pub(crate) fn moment(count: i128, unit: Unit) -> String {
    let (days, of_day) = (count.div_euclid(86_400 * unit.per_second()), count.rem_euclid(86_400 * unit.per_second()));
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{}", time_of_day(of_day, unit))
}

/// `00:00:00.001`.
pub(crate) fn time_of_day(count: i128, unit: Unit) -> String {
    let (seconds, fraction) = (count / unit.per_second(), count % unit.per_second());
    let digits = unit.per_second().ilog10() as usize;
    format!("{:02}:{:02}:{:02}.{fraction:0digits$}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}
