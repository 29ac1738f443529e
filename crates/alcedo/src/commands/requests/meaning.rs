//! What a key of the machine form means to its column, and the lookup of it.
//!
//! Knows how neutral values are spelled and which spellings a worker reads. It must not know lines or answers' forms.
//!
//! A worker reads a text by the key column's type, and nearly every neutral value is such a text. Two kinds are not:
//! bytes, which are Base64 here and plain text there, and counts in a unit that need not be the column's. What the line
//! says of the type decides; where it says nothing, or nothing that fits, the column does. This side does not know the
//! column's type, but a worker refuses a key that its column cannot have, before it reads any data: asking is enough.

use alcedo_client::{Answer, Client, Error, Key, Lookup, Reason};
use alcedo_lookup::schema::Type;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::reply::{BAD_KEY, Refusal};
use super::request::{Request, Wanted};
use crate::output::calendar;

/// A text that only a string column reads: it has half a byte in hexadecimal for columns of bytes, and it is no number,
/// date or UUID.
const ONLY_STRINGS: &str = "hex:0";
/// A text that columns of bytes and strings read, and no other: no bytes in hexadecimal.
const BYTES_OR_STRINGS: &str = "hex:";
/// How a worker knows texts that stand for bytes (`proto/alcedo/v1/values.proto`, `Key`).
const BYTES_PREFIXES: [&str; 2] = ["hex:", "base64:"];

/// Looks up what a line asks for. The rows of the answer that belong to key 0 are meant.
///
/// # Errors
/// The lookup fails, or the key is no value of its column.
pub(super) async fn look_up(client: &Client, request: Request) -> Result<Answer, Refusal> {
    let Request { path, column, ty, wanted, select } = request;
    let lookup = client.lookup(path).key_column(column).select(select);
    let text = match wanted {
        Wanted::Null => return Ok(lookup.key(Key::Null).await?),
        Wanted::Bool(value) => return Ok(lookup.key(value).await?),
        Wanted::Text(text) => text,
    };
    Ok(match readings(&text, ty.as_ref()) {
        Readings::One(key) => lookup.key(key).await?,
        Readings::Else(key, otherwise) => match lookup.clone().key(key).await {
            Err(error) if is_bad_key(&error) => lookup.key(otherwise).await?,
            result => result?,
        },
        Readings::Also(key, other) => {
            let answer = lookup.clone().key(key).await?;
            if answer.is_empty() { lookup.key(other).await? } else { answer }
        }
        Readings::Columns => by_column(&lookup, &text).await?,
    })
}

/// The keys that a text may stand for.
#[derive(Debug, PartialEq)]
enum Readings {
    One(Key),
    /// The first, or the second if the column cannot have the first.
    Else(Key, Key),
    /// The first, or the second if no row has the first.
    Also(Key, Key),
    /// Only the column knows.
    Columns,
}

fn readings(text: &str, ty: Option<&Type>) -> Readings {
    let literal = || literal(text);
    match ty {
        None | Some(Type::Null | Type::List(_) | Type::Struct(_) | Type::Map(..)) => Readings::Columns,
        Some(Type::Binary | Type::Fixed(_) | Type::Interval) => match STANDARD.decode(text) {
            Ok(bytes) => Readings::Else(Key::Bytes(bytes.into()), literal()),
            Err(_) => Readings::Columns,
        },
        // A UUID column reads the text; a column of plain bytes has its 16 bytes, and takes any text for bytes.
        Some(Type::Uuid) => match uuid_bytes(text) {
            Some(bytes) => Readings::Also(literal(), Key::Bytes(bytes.into())),
            None => Readings::One(literal()),
        },
        // Without a zone: a column of instants and one of local times read it alike. A count that no calendar holds is
        // left to the column's unit.
        Some(Type::Timestamp { unit, .. }) => spelled(text, |count| calendar::timestamp(count, *unit, false)),
        Some(Type::Time(unit)) => spelled(text, |count| calendar::time(count, *unit)),
        Some(_) => Readings::One(literal()),
    }
}

/// A count as the date or time that it stands for, which a column of any unit reads exactly; then as it is.
fn spelled(text: &str, calendar: impl Fn(i64) -> Option<String>) -> Readings {
    match text.parse().ok().and_then(calendar) {
        Some(date_or_time) => Readings::Else(Key::Text(date_or_time), literal(text)),
        None => Readings::One(literal(text)),
    }
}

/// The key that is this text and nothing else.
fn literal(text: &str) -> Key {
    if BYTES_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
        return Key::Bytes(text.as_bytes().to_vec().into());
    }
    Key::Text(text.to_owned())
}

fn uuid_bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.replace('-', "");
    if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    (0..32).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}

/// The rows of a text that its column has to read.
async fn by_column(lookup: &Lookup, text: &str) -> Result<Answer, Refusal> {
    let string = lookup.clone().key(literal(text)).key(ONLY_STRINGS).await;
    if !string.as_ref().is_err_and(is_bad_key) {
        return Ok(string?);
    }
    if STANDARD.decode(text).is_ok() {
        // Not as a key of bytes: a UUID column would take that.
        let prefixed = lookup.clone().key(format!("base64:{text}")).await;
        if !prefixed.as_ref().is_err_and(is_bad_key) {
            return Ok(prefixed?);
        }
    } else {
        match lookup.clone().key(BYTES_OR_STRINGS).row_limit(1).await {
            Ok(_) => return Err(Refusal::new(BAD_KEY, format!("key `{text}` is not Base64, as bytes are written"))),
            Err(error) if is_bad_key(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(lookup.clone().key(literal(text)).await?)
}

fn is_bad_key(error: &Error) -> bool {
    error.reason == Some(Reason::BadKey)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(text: &str, ty: &str) -> Readings {
        readings(text, Some(&ty.parse().unwrap()))
    }

    fn text(text: &str) -> Key {
        Key::Text(text.to_owned())
    }

    fn bytes(bytes: &[u8]) -> Key {
        Key::Bytes(bytes.to_vec().into())
    }

    #[test]
    fn most_values_are_their_text() {
        for (value, ty) in [
            ("-7", "int8"),
            ("NaN", "float64"),
            ("12.50", "decimal(9,2)"),
            ("20484", "date32"),
            ("5", "duration[s]"),
            ("true", "bool"),
            ("AP8=", "string"),
        ] {
            assert_eq!(of(value, ty), Readings::One(text(value)), "{ty}");
        }
    }

    #[test]
    fn a_text_is_no_spelling_of_bytes() {
        assert_eq!(of("hex:00", "string"), Readings::One(bytes(b"hex:00")));
        assert_eq!(of("base64:", "string"), Readings::One(bytes(b"base64:")));
        assert_eq!(of("hexagon", "string"), Readings::One(text("hexagon")));
    }

    #[test]
    fn bytes_are_base64() {
        for ty in ["binary", "fixed[2]", "interval"] {
            assert_eq!(of("AP8=", ty), Readings::Else(bytes(&[0, 255]), text("AP8=")), "{ty}");
            assert_eq!(of("AP8", ty), Readings::Columns, "{ty}");
        }
        assert_eq!(of("", "binary"), Readings::Else(bytes(b""), text("")));
    }

    #[test]
    fn a_type_that_no_single_value_has_says_nothing() {
        assert_eq!(readings("1", None), Readings::Columns);
        for ty in ["null", "list<int8>", "struct<a:int8>", "map<int8,int8>"] {
            assert_eq!(of("1", ty), Readings::Columns, "{ty}");
        }
    }

    #[test]
    fn counts_keep_their_unit() {
        let both = |date: &str, count: &str| Readings::Else(text(date), text(count));
        assert_eq!(of("1", "timestamp[ms]"), both("1970-01-01T00:00:00.001", "1"));
        assert_eq!(of("-1", "timestamp[us,UTC]"), both("1969-12-31T23:59:59.999999", "-1"));
        assert_eq!(of("61000000000", "time[ns]"), both("00:01:01.000000000", "61000000000"));
        for (value, ty) in [
            ("9223372036854775807", "timestamp[s]"),
            ("99999999999999999999", "timestamp[ns]"),
            ("-1", "time[us]"),
            ("2026-01-31", "timestamp[us]"),
        ] {
            assert_eq!(of(value, ty), Readings::One(text(value)), "{value} {ty}");
        }
    }

    #[test]
    fn a_uuid_may_be_its_text_or_its_bytes() {
        let uuid = "00010203-0405-0607-0809-0a0b0c0d0e0F";
        let sixteen: Vec<u8> = (0..16).collect();
        assert_eq!(of(uuid, "uuid"), Readings::Also(text(uuid), bytes(&sixteen)));
        for no in ["", "zz010203-0405-0607-0809-0a0b0c0d0e0f", "ü0010203-0405-0607-0809-0a0b0c0d0e0f", "00"] {
            assert_eq!(of(no, "uuid"), Readings::One(text(no)), "{no}");
        }
    }
}
