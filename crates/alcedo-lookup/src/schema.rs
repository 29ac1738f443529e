//! Row schemas: the columns of an answer and the grammar of their logical types.
//!
//! The grammar is part of the wire contract (`proto/alcedo/v1/values.proto`, message `Column`) and of the command
//! line's JSON. It knows neither Parquet nor Arrow, so that a client without either can read rows.

use std::fmt;
use std::str::FromStr;

/// Nesting that [`Type::from_str`] accepts: a schema comes from the wire, and parsing recurses.
pub const MAX_TYPE_DEPTH: usize = 100;

/// The columns of an answer's rows, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowSchema {
    /// Name and type of each column.
    pub columns: Vec<Column>,
}

/// One column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// As the file spells it; dotted for a leaf inside a struct.
    pub name: String,
    /// The logical type of its values.
    pub ty: Type,
}

/// The unit of a time, timestamp or duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Second,
    /// Milliseconds.
    Millisecond,
    /// Microseconds.
    Microsecond,
    /// Nanoseconds.
    Nanosecond,
}

impl Unit {
    /// The unit's name in the grammar: `s`, `ms`, `us`, `ns`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Millisecond => "ms",
            Self::Microsecond => "us",
            Self::Nanosecond => "ns",
        }
    }

    /// How many of this unit make a second.
    pub fn per_second(self) -> i64 {
        match self {
            Self::Second => 1,
            Self::Millisecond => 1_000,
            Self::Microsecond => 1_000_000,
            Self::Nanosecond => 1_000_000_000,
        }
    }
}

/// A logical type, after Parquet's logical types
/// (<https://github.com/apache/parquet-format/blob/master/LogicalTypes.md>).
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // The variants are the grammar's words.
pub enum Type {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float16,
    Float32,
    Float64,
    String,
    Binary,
    /// Byte arrays of one length, in bytes.
    Fixed(u32),
    Uuid,
    /// `unscaled * 10^-scale` with at most `precision` digits.
    Decimal {
        precision: u8,
        scale: i8,
    },
    /// Days since 1970-01-01.
    Date32,
    /// Since midnight.
    Time(Unit),
    /// Since 1970-01-01T00:00:00; with `utc` an instant, without it a local date and time of day.
    Timestamp {
        unit: Unit,
        utc: bool,
    },
    Duration(Unit),
    /// Months, days and milliseconds, 12 bytes.
    Interval,
    /// A column that holds nothing but nulls.
    Null,
    List(Box<Type>),
    Struct(Vec<(String, Type)>),
    Map(Box<Type>, Box<Type>),
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int8 => f.write_str("int8"),
            Self::Int16 => f.write_str("int16"),
            Self::Int32 => f.write_str("int32"),
            Self::Int64 => f.write_str("int64"),
            Self::UInt8 => f.write_str("uint8"),
            Self::UInt16 => f.write_str("uint16"),
            Self::UInt32 => f.write_str("uint32"),
            Self::UInt64 => f.write_str("uint64"),
            Self::Float16 => f.write_str("float16"),
            Self::Float32 => f.write_str("float32"),
            Self::Float64 => f.write_str("float64"),
            Self::String => f.write_str("string"),
            Self::Binary => f.write_str("binary"),
            Self::Fixed(n) => write!(f, "fixed[{n}]"),
            Self::Uuid => f.write_str("uuid"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Date32 => f.write_str("date32"),
            Self::Time(unit) => write!(f, "time[{}]", unit.name()),
            Self::Timestamp { unit, utc: false } => write!(f, "timestamp[{}]", unit.name()),
            Self::Timestamp { unit, utc: true } => write!(f, "timestamp[{},UTC]", unit.name()),
            Self::Duration(unit) => write!(f, "duration[{}]", unit.name()),
            Self::Interval => f.write_str("interval"),
            Self::Null => f.write_str("null"),
            Self::List(item) => write!(f, "list<{item}>"),
            Self::Struct(fields) => {
                f.write_str("struct<")?;
                for (i, (name, ty)) in fields.iter().enumerate() {
                    if i > 0 {
                        f.write_str(",")?;
                    }
                    write_field_name(f, name)?;
                    write!(f, ":{ty}")?;
                }
                f.write_str(">")
            }
            Self::Map(key, value) => write!(f, "map<{key},{value}>"),
        }
    }
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn write_field_name(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    if is_plain_name(name) {
        return f.write_str(name);
    }
    write!(f, "\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A type that does not follow the grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a type at byte {at}: {wanted}")]
pub struct TypeError {
    text: String,
    at: usize,
    wanted: &'static str,
}

impl FromStr for Type {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<Self, TypeError> {
        let mut parser = Parser { text, at: 0 };
        let ty = parser.parse(0)?;
        if parser.at != text.len() {
            return Err(parser.error("nothing may follow the type"));
        }
        Ok(ty)
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn error(&self, wanted: &'static str) -> TypeError {
        TypeError { text: self.text.to_owned(), at: self.at, wanted }
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn need(&mut self, token: &str, wanted: &'static str) -> Result<(), TypeError> {
        if self.eat(token) { Ok(()) } else { Err(self.error(wanted)) }
    }

    fn word(&mut self) -> String {
        let word: String = self.rest().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        self.at += word.len();
        word
    }

    fn number<N: FromStr>(&mut self, wanted: &'static str) -> Result<N, TypeError> {
        let digits: String = self.rest().chars().take_while(|c| c.is_ascii_digit() || *c == '-').collect();
        let number = digits.parse().map_err(|_| self.error(wanted))?;
        self.at += digits.len();
        Ok(number)
    }

    fn unit(&mut self) -> Result<Unit, TypeError> {
        match self.word().as_str() {
            "s" => Ok(Unit::Second),
            "ms" => Ok(Unit::Millisecond),
            "us" => Ok(Unit::Microsecond),
            "ns" => Ok(Unit::Nanosecond),
            _ => Err(self.error("a unit: s, ms, us or ns")),
        }
    }

    fn bracketed_unit(&mut self) -> Result<Unit, TypeError> {
        self.need("[", "`[`")?;
        let unit = self.unit()?;
        self.need("]", "`]`")?;
        Ok(unit)
    }

    fn parse(&mut self, depth: usize) -> Result<Type, TypeError> {
        if depth > MAX_TYPE_DEPTH {
            return Err(self.error("types nest at most 100 deep"));
        }
        let start = self.at;
        let word = self.word();
        if let Some(plain) = plain_type(&word) {
            return Ok(plain);
        }
        match word.as_str() {
            "fixed" => {
                self.need("[", "`[`")?;
                let length = self.number("a length in bytes")?;
                self.need("]", "`]`")?;
                Ok(Type::Fixed(length))
            }
            "decimal" => {
                self.need("(", "`(`")?;
                let precision = self.number("a precision")?;
                self.need(",", "`,`")?;
                let scale = self.number("a scale")?;
                self.need(")", "`)`")?;
                Ok(Type::Decimal { precision, scale })
            }
            "time" => self.bracketed_unit().map(Type::Time),
            "duration" => self.bracketed_unit().map(Type::Duration),
            "timestamp" => {
                self.need("[", "`[`")?;
                let unit = self.unit()?;
                let utc = self.eat(",UTC");
                self.need("]", "`]`")?;
                Ok(Type::Timestamp { unit, utc })
            }
            "list" | "map" | "struct" => self.nested(&word, depth),
            _ => {
                self.at = start;
                Err(self.error("a type's name"))
            }
        }
    }

    fn nested(&mut self, word: &str, depth: usize) -> Result<Type, TypeError> {
        self.need("<", "`<`")?;
        let ty = match word {
            "list" => Type::List(Box::new(self.parse(depth + 1)?)),
            "map" => {
                let key = self.parse(depth + 1)?;
                self.need(",", "`,`")?;
                Type::Map(Box::new(key), Box::new(self.parse(depth + 1)?))
            }
            _ => Type::Struct(self.fields(depth)?),
        };
        self.need(">", "`>`")?;
        Ok(ty)
    }

    fn fields(&mut self, depth: usize) -> Result<Vec<(String, Type)>, TypeError> {
        let mut fields = Vec::new();
        if self.rest().starts_with('>') {
            return Ok(fields);
        }
        loop {
            let name = self.field_name()?;
            self.need(":", "`:`")?;
            fields.push((name, self.parse(depth + 1)?));
            if !self.eat(",") {
                return Ok(fields);
            }
        }
    }

    fn field_name(&mut self) -> Result<String, TypeError> {
        if !self.eat("\"") {
            let word = self.word();
            return if word.is_empty() { Err(self.error("a field's name")) } else { Ok(word) };
        }
        let mut name = String::new();
        let rest = self.rest().to_owned();
        let mut chars = rest.char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += i + 1;
                    return Ok(name);
                }
                '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
                other => name.push(other),
            }
        }
        Err(self.error("a closing `\"`"))
    }
}

fn plain_type(word: &str) -> Option<Type> {
    Some(match word {
        "bool" => Type::Bool,
        "int8" => Type::Int8,
        "int16" => Type::Int16,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "uint8" => Type::UInt8,
        "uint16" => Type::UInt16,
        "uint32" => Type::UInt32,
        "uint64" => Type::UInt64,
        "float16" => Type::Float16,
        "float32" => Type::Float32,
        "float64" => Type::Float64,
        "string" => Type::String,
        "binary" => Type::Binary,
        "uuid" => Type::Uuid,
        "date32" => Type::Date32,
        "interval" => Type::Interval,
        "null" => Type::Null,
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn every_type_prints_and_parses_back() {
        let texts = [
            "bool",
            "int8",
            "uint64",
            "float16",
            "fixed[12]",
            "decimal(38,-2)",
            "time[us]",
            "timestamp[ns]",
            "timestamp[ms,UTC]",
            "duration[s]",
            "list<struct<a:int32,\"b c\":list<string>>>",
            "map<string,list<decimal(9,2)>>",
            "struct<>",
            "struct<\"q\\\"\\\\\":bool>",
        ];
        for text in texts {
            assert_eq!(text.parse::<Type>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_type_is_refused_with_its_place() {
        for text in ["", "int", "list<int32", "list<>", "timestamp[UTC]", "struct<a>", "map<int32>", "bool "] {
            assert!(text.parse::<Type>().is_err(), "{text}");
        }
        let deep = "list<".repeat(5_000) + "bool" + &">".repeat(5_000);
        assert!(deep.parse::<Type>().unwrap_err().to_string().contains("at most 100 deep"));
    }
}
