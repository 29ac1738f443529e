//! The target of keys: any text as a key of any type, and any stored value looked up by its own text.

use alcedo_lookup::answer::{Body, Form};
use alcedo_lookup::error::Error;
use alcedo_lookup::key::Key;
use alcedo_lookup::rows::decode_rows;
use alcedo_lookup::schema::Type;
use alcedo_lookup::value::{Value, uuid_text};
use bytes::Bytes;

use super::ask;
use super::craft::{self, ChunkClaims, Element, File, PageClaims};
use super::guard::run;
use super::page::leaf;
use super::targets::limits;

/// The first byte chooses the column's type. The rest is a text to look up, and the value of the only row.
pub fn key_text(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    run(|| {
        let column = leaf("v", *kind);
        let Some(plain) = plain_value(&column, rest) else { return };
        let file = one_row(&column, &plain);
        let limits = limits();
        let index = ask::open(&file, &limits).expect("the crafted file is sound");
        let find = |column: &str, key: Key| ask::lookup(&index, &file, &limits, column, &[key], Form::CompactRows);
        if let Ok(text) = std::str::from_utf8(rest) {
            for key in [Key::from(text), Key::Bytes(Bytes::copy_from_slice(rest))] {
                let answer = find("v", key);
                assert!(
                    !matches!(&answer, Err(error) if error.is_about_the_file() && !may_not_read(error)),
                    "{answer:?}"
                );
            }
        }
        let Ok(answer) = find("k", Key::Int(1)) else { return };
        let Body::Compact(bytes) = &answer.body else { panic!("another form than was asked for") };
        let rows = decode_rows(&answer.schema, bytes).expect("an answer is whole rows");
        let (value, ty) = (&rows[0][1], &answer.schema.columns[1].ty);
        let Some(key) = own_text(value, ty).filter(|_| fits_nanoseconds(&column, &plain)) else { return };
        let found = find("v", Key::Text(key.clone())).map(|answer| answer.row_number);
        assert_eq!(found, Ok(vec![0]), "{value:?} of type {ty} by its own text `{key}`");
    });
}

/// The file's value may be none of its type, a text that is not UTF-8, say.
fn may_not_read(error: &Error) -> bool {
    matches!(error, Error::Corrupt(_) | Error::Unsupported(_))
}

/// The value that bytes stand for, in plain encoding; small integers are kept within their type.
fn plain_value(column: &Element, bytes: &[u8]) -> Option<Vec<u8>> {
    let number = |width: usize| (0..width).map(|at| bytes.get(at).copied().unwrap_or(0)).collect::<Vec<u8>>();
    let [a, b] = [0, 1].map(|at| bytes.get(at).copied().unwrap_or(0));
    Some(match (column.physical?, column.converted) {
        (0, _) => vec![a & 1],
        (1, Some(11)) => i32::from(a).to_le_bytes().to_vec(),
        (1, Some(12)) => i32::from(u16::from_le_bytes([a, b])).to_le_bytes().to_vec(),
        (1, Some(15)) => i32::from(a as i8).to_le_bytes().to_vec(),
        (1, Some(16)) => i32::from(i16::from_le_bytes([a, b])).to_le_bytes().to_vec(),
        (1 | 4, _) => number(4),
        (2 | 5, _) => number(8),
        (3, _) => number(12),
        (6, _) => [(bytes.len() as u32).to_le_bytes().as_slice(), bytes].concat(),
        _ => number(column.type_length?.try_into().ok()?),
    })
}

/// False for an INT96 that 64 bits of nanoseconds do not hold: it is in the file and has no value to be asked by.
fn fits_nanoseconds(column: &Element, plain: &[u8]) -> bool {
    let (Some(3), Some((nanoseconds, days))) = (column.physical, plain.split_first_chunk::<8>()) else { return true };
    let days = days.try_into().map_or(0, i32::from_le_bytes);
    let nanoseconds = i128::from(i64::from_le_bytes(*nanoseconds));
    i64::try_from((i128::from(days) - 2_440_588) * 86_400_000_000_000 + nanoseconds).is_ok()
}

/// A file of one row: `k` is 1, `v` is this value.
fn one_row(column: &Element, plain: &[u8]) -> Bytes {
    let mut file = File::default();
    let mut chunk = |name: &str, physical: i64, plain: &[u8]| {
        let (at, bytes) = file.put(&PageClaims::v1(plain.len(), 1, 0).page(plain));
        ChunkClaims::new(name, physical, 1, at, bytes)
    };
    let chunks = [chunk("k", 1, &1_i32.to_le_bytes()), chunk("v", column.physical.unwrap_or(0), plain)];
    let schema = [Element::group("root", 2), Element::leaf("k", 1), column.clone()];
    let footer = craft::footer(&schema, [craft::row_group(&chunks, 1)], 1).end();
    file.end(&footer).into()
}

/// The text that a value must be found by; none for values that no key equals.
fn own_text(value: &Value, ty: &Type) -> Option<String> {
    let hex = |bytes: &[u8]| format!("hex:{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    match (value, ty) {
        (Value::Null | Value::List(_) | Value::Struct(_) | Value::Map(_), _) => None,
        (Value::Float32(value), _) => (!value.is_nan()).then(|| value.to_string()),
        (Value::Float64(value), _) => (!value.is_nan()).then(|| value.to_string()),
        // A time of day outside of a day, and a decimal of more digits than its column has: no key is such a value.
        (Value::Int(value), Type::Time(_)) => (*value >= 0).then(|| value.to_string()),
        (Value::Decimal(text), Type::Decimal { precision, .. }) => {
            let digits = text.bytes().filter(u8::is_ascii_digit).skip_while(|digit| *digit == b'0').count();
            (digits <= usize::from(*precision)).then(|| text.to_string())
        }
        (Value::Bool(value), _) => Some(value.to_string()),
        (Value::Int(value), _) => Some(value.to_string()),
        (Value::UInt(value), _) => Some(value.to_string()),
        (Value::Decimal(_), _) => None,
        (Value::String(text), _) => Some(text.clone()),
        (Value::Binary(bytes), _) => Some(hex(bytes)),
        (Value::Uuid(uuid), _) => Some(uuid_text(uuid)),
    }
}
