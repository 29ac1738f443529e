//! Typed values as rows: the form that any gRPC client can print, read back by the answer's schema.
//!
//! Knows which branch of the wire's value holds which type (`proto/alcedo/v1/values.proto`, message `Value`). It must
//! not know where the values came from; a value that does not fit its type is refused.

use alcedo_lookup::schema::{RowSchema, Type};
use alcedo_lookup::value::Value;
use alcedo_proto::v1 as pb;
use pb::value::Kind;

/// Bytes of an `interval`: months, days and milliseconds, four each.
const INTERVAL_BYTES: usize = 12;

/// The rows' values, or what is wrong with them.
pub(crate) fn rows(schema: &RowSchema, rows: Vec<pb::TypedRow>) -> Result<Vec<Vec<Value>>, String> {
    rows.into_iter().map(|row| fields(schema.columns.iter().map(|column| &column.ty), row.values)).collect()
}

fn fields<'a>(types: impl ExactSizeIterator<Item = &'a Type>, values: Vec<pb::Value>) -> Result<Vec<Value>, String> {
    if types.len() != values.len() {
        return Err(format!("{} values stand for {} columns or fields", values.len(), types.len()));
    }
    types.zip(values).map(|(ty, value)| typed(ty, value)).collect()
}

fn all(ty: &Type, values: Vec<pb::Value>) -> Result<Vec<Value>, String> {
    values.into_iter().map(|value| typed(ty, value)).collect()
}

fn typed(ty: &Type, value: pb::Value) -> Result<Value, String> {
    Ok(match (ty, value.kind) {
        (_, Some(Kind::Null(true))) => Value::Null,
        (Type::Bool, Some(Kind::Bool(value))) => Value::Bool(value),
        (
            Type::Int8
            | Type::Int16
            | Type::Int32
            | Type::Int64
            | Type::Date32
            | Type::Time(_)
            | Type::Timestamp { .. }
            | Type::Duration(_),
            Some(Kind::Int(value)),
        ) => Value::Int(value),
        (Type::UInt8 | Type::UInt16 | Type::UInt32 | Type::UInt64, Some(Kind::Uint(value))) => Value::UInt(value),
        // Every float16 and float32 is a double, so this gives back the very value.
        (Type::Float16 | Type::Float32, Some(Kind::Float(value))) => Value::Float32(value as f32),
        (Type::Float64, Some(Kind::Float(value))) => Value::Float64(value),
        (Type::String, Some(Kind::String(text))) => Value::String(text),
        (Type::Decimal { .. }, Some(Kind::String(digits))) => Value::Decimal(digits.into()),
        (Type::Uuid, Some(Kind::String(text))) => Value::Uuid(uuid(&text).ok_or("a uuid is not written 8-4-4-4-12")?),
        (Type::Binary, Some(Kind::Bytes(bytes))) => Value::Binary(bytes.into()),
        (Type::Fixed(length), Some(Kind::Bytes(bytes))) if bytes.len() == *length as usize => {
            Value::Binary(bytes.into())
        }
        (Type::Interval, Some(Kind::Bytes(bytes))) if bytes.len() == INTERVAL_BYTES => Value::Binary(bytes.into()),
        (Type::List(item), Some(Kind::List(list))) => Value::List(all(item, list.values)?),
        (Type::Struct(types), Some(Kind::Struct(list))) => {
            Value::Struct(fields(types.iter().map(|(_, ty)| ty), list.values)?)
        }
        (Type::Map(key, value), Some(Kind::Map(map))) if map.keys.len() == map.values.len() => {
            Value::Map(all(key, map.keys)?.into_iter().zip(all(value, map.values)?).collect())
        }
        (ty, _) => return Err(format!("a value is not a {ty}")),
    })
}

/// The inverse of [`alcedo_lookup::value::uuid_text`].
fn uuid(text: &str) -> Option<[u8; 16]> {
    let hyphens = [8, 13, 18, 23];
    let mut digits = Vec::with_capacity(32);
    for (i, byte) in text.bytes().enumerate() {
        match (hyphens.contains(&i), byte) {
            (true, b'-') => {}
            (false, _) => digits.push(char::from(byte).to_digit(16)?),
            (true, _) => return None,
        }
    }
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect();
    if digits.len() == 32 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use alcedo_lookup::value::uuid_text;

    fn wire(kind: Kind) -> pb::Value {
        pb::Value { kind: Some(kind) }
    }

    fn read(ty: &str, kind: Kind) -> Result<Value, String> {
        typed(&ty.parse().unwrap(), wire(kind))
    }

    #[test]
    fn each_type_reads_its_branch() {
        let list = pb::ValueList { values: vec![wire(Kind::Int(-1)), wire(Kind::Null(true))] };
        let map = pb::ValueMap { keys: vec![wire(Kind::String("k".into()))], values: vec![wire(Kind::Uint(7))] };
        let uuid_bytes: [u8; 16] = std::array::from_fn(|i| i as u8 * 17);
        let cases = [
            ("int8", Kind::Int(-7), Value::Int(-7)),
            ("timestamp[us,UTC]", Kind::Int(1), Value::Int(1)),
            ("uint64", Kind::Uint(u64::MAX), Value::UInt(u64::MAX)),
            ("float32", Kind::Float(0.5), Value::Float32(0.5)),
            ("float64", Kind::Float(0.1), Value::Float64(0.1)),
            ("bool", Kind::Bool(false), Value::Bool(false)),
            ("bool", Kind::Null(true), Value::Null),
            ("decimal(9,2)", Kind::String("-0.05".into()), Value::Decimal("-0.05".into())),
            ("uuid", Kind::String(uuid_text(&uuid_bytes)), Value::Uuid(uuid_bytes)),
            ("fixed[2]", Kind::Bytes(vec![1, 2]), Value::Binary(vec![1, 2].into())),
            ("list<int32>", Kind::List(list.clone()), Value::List(vec![Value::Int(-1), Value::Null])),
            ("struct<a:int8,b:int8>", Kind::Struct(list), Value::Struct(vec![Value::Int(-1), Value::Null])),
            ("map<string,uint8>", Kind::Map(map), Value::Map(vec![(Value::String("k".into()), Value::UInt(7))])),
        ];
        for (ty, kind, value) in cases {
            assert_eq!(read(ty, kind).unwrap(), value, "{ty}");
        }
    }

    #[test]
    fn a_value_of_another_branch_is_refused() {
        let lame = pb::ValueMap { keys: vec![wire(Kind::Int(1))], values: Vec::new() };
        let short = pb::ValueList { values: Vec::new() };
        let cases = [
            ("int32", Kind::Uint(1)),
            ("bool", Kind::Null(false)),
            ("fixed[2]", Kind::Bytes(vec![1])),
            ("interval", Kind::Bytes(vec![0; 11])),
            ("uuid", Kind::String("00010203-0405-0607-0809-0a0b0c0d0e0".into())),
            ("uuid", Kind::String("000102030-405-0607-0809-0a0b0c0d0e0f".into())),
            ("uuid", Kind::String("00010203-0405-0607-0809-0a0b0c0d0éf".into())),
            ("map<int8,int8>", Kind::Map(lame)),
            ("struct<a:int8>", Kind::Struct(short)),
            ("null", Kind::Int(1)),
        ];
        for (ty, kind) in cases {
            assert!(read(ty, kind.clone()).is_err(), "{ty} {kind:?}");
        }
        assert!(typed(&Type::Bool, pb::Value { kind: None }).is_err());
    }
}
