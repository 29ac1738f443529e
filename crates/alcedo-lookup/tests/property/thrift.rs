//! Thrift's compact protocol as a tree that can be changed and written again.
//!
//! Reads what this test wrote by itself, so it trusts its input. Source:
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>.

const BYTE: u8 = 3;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;
pub(crate) const I32: u8 = 5;
pub(crate) const I64: u8 = 6;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Thrift {
    Bool(bool),
    Byte(u8),
    /// Of the type 4, 5 or 6: i16, i32, i64.
    Int(u8, i64),
    Double([u8; 8]),
    Binary(Vec<u8>),
    /// The type of the items, which an empty list has too.
    List(u8, Vec<Thrift>),
    Struct(Vec<(i16, Thrift)>),
    /// A field of this type that is only written.
    Raw(u8, Vec<u8>),
}

/// The struct at the start of the bytes, and its length.
pub(crate) fn read(bytes: &[u8]) -> (Thrift, usize) {
    let mut reader = Reader { bytes, at: 0 };
    let value = reader.value(STRUCT);
    (value, reader.at)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> u8 {
        self.at += 1;
        self.bytes[self.at - 1]
    }

    fn varint(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    }

    fn int(&mut self) -> i64 {
        let value = self.varint();
        (value >> 1) as i64 ^ -((value & 1) as i64)
    }

    fn value(&mut self, ty: u8) -> Thrift {
        match ty {
            1 | 2 => Thrift::Bool(ty == 1),
            BYTE => Thrift::Byte(self.byte()),
            4..=6 => Thrift::Int(ty, self.int()),
            DOUBLE => Thrift::Double(std::array::from_fn(|_| self.byte())),
            BINARY => {
                let length = self.varint() as usize;
                self.at += length;
                Thrift::Binary(self.bytes[self.at - length..self.at].to_vec())
            }
            LIST => {
                let head = self.byte();
                let count = if head >> 4 == 15 { self.varint() } else { u64::from(head >> 4) };
                let item = head & 15;
                let items =
                    (0..count).map(|_| if item <= 2 { Thrift::Bool(self.byte() == 1) } else { self.value(item) });
                Thrift::List(item, items.collect())
            }
            STRUCT => {
                let (mut fields, mut id) = (Vec::new(), 0);
                loop {
                    let head = self.byte();
                    if head == 0 {
                        return Thrift::Struct(fields);
                    }
                    id = if head >> 4 == 0 { self.int() as i16 } else { id + i16::from(head >> 4) };
                    fields.push((id, self.value(head & 15)));
                }
            }
            ty => panic!("type {ty} does not occur in Parquet"),
        }
    }
}

impl Thrift {
    pub(crate) fn i64(value: i64) -> Self {
        Self::Int(I64, value)
    }

    pub(crate) fn i32(value: i64) -> Self {
        Self::Int(I32, value)
    }

    fn ty(&self) -> u8 {
        match self {
            Self::Bool(value) => 2 - u8::from(*value),
            Self::Byte(_) => BYTE,
            Self::Int(ty, _) | Self::Raw(ty, _) => *ty,
            Self::Double(_) => DOUBLE,
            Self::Binary(_) => BINARY,
            Self::List(..) => LIST,
            Self::Struct(_) => STRUCT,
        }
    }

    /// A struct's field.
    pub(crate) fn get(&self, id: i16) -> Option<&Self> {
        let Self::Struct(fields) = self else { panic!("{self:?} is no struct") };
        fields.iter().find(|(field, _)| *field == id).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, id: i16) -> Option<&mut Self> {
        let Self::Struct(fields) = self else { panic!("{self:?} is no struct") };
        fields.iter_mut().find(|(field, _)| *field == id).map(|(_, value)| value)
    }

    /// Sets or removes a struct's field.
    pub(crate) fn set(&mut self, id: i16, value: Option<Self>) {
        let Self::Struct(fields) = self else { panic!("{self:?} is no struct") };
        fields.retain(|(field, _)| *field != id);
        if let Some(value) = value {
            let at = fields.iter().take_while(|(field, _)| *field < id).count();
            fields.insert(at, (id, value));
        }
    }

    /// An integer field, if it is there.
    pub(crate) fn int(&self, id: i16) -> Option<i64> {
        match self.get(id) {
            Some(Self::Int(_, value)) => Some(*value),
            _ => None,
        }
    }

    /// The items of a list field; none where it is not there.
    pub(crate) fn list_mut(&mut self, id: i16) -> &mut [Self] {
        match self.get_mut(id) {
            Some(Self::List(_, items)) => items,
            _ => &mut [],
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            // As a list's item; a field's value is in its type.
            Self::Bool(value) => out.push(2 - u8::from(*value)),
            Self::Byte(byte) => out.push(*byte),
            Self::Int(_, value) => write_int(out, *value),
            Self::Double(bytes) => out.extend(bytes),
            Self::Binary(bytes) => {
                write_varint(out, bytes.len() as u64);
                out.extend(bytes);
            }
            Self::List(ty, items) => {
                if items.len() < 15 {
                    out.push((items.len() as u8) << 4 | ty);
                } else {
                    out.push(0xf0 | ty);
                    write_varint(out, items.len() as u64);
                }
                items.iter().for_each(|item| item.write(out));
            }
            Self::Struct(fields) => {
                let mut last = 0;
                for (id, value) in fields {
                    match id - last {
                        delta @ 1..=15 => out.push((delta as u8) << 4 | value.ty()),
                        _ => {
                            out.push(value.ty());
                            write_int(out, (*id).into());
                        }
                    }
                    last = *id;
                    if !matches!(value, Self::Bool(_)) {
                        value.write(out);
                    }
                }
                out.push(0);
            }
            Self::Raw(_, bytes) => out.extend(bytes),
        }
    }
}

fn write_int(out: &mut Vec<u8>, value: i64) {
    write_varint(out, (value << 1 ^ value >> 63) as u64);
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
