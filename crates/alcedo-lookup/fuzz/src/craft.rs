//! A writer of Parquet files that may lie: thrift structs, page headers, footers, each part as it is told.
//!
//! Knows the format, and no rule of it: what a real writer would refuse to write is what this one is for. Field numbers
//! are those of <https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift>.

/// Thrift's compact types.
pub const TRUE: u8 = 1;
/// A boolean field that is false.
pub const FALSE: u8 = 2;
/// A zigzag varint of 32 bits.
pub const I32: u8 = 5;
/// A zigzag varint of 64 bits.
pub const I64: u8 = 6;
/// Bytes with their length in front.
pub const BINARY: u8 = 8;
/// A list.
pub const LIST: u8 = 9;
/// A struct.
pub const STRUCT: u8 = 12;

/// LEB128.
pub fn uvarint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A signed integer as thrift writes it.
pub fn zigzag(value: i64) -> Vec<u8> {
    uvarint((value << 1 ^ value >> 63) as u64)
}

/// Bytes with their length in front.
pub fn binary(bytes: &[u8]) -> Vec<u8> {
    [uvarint(bytes.len() as u64).as_slice(), bytes].concat()
}

/// A list's head that claims `count` elements, and then whatever follows.
pub fn list_claiming(ty: u8, count: u64, elements: &[u8]) -> Vec<u8> {
    let mut bytes = if count < 15 { vec![(count as u8) << 4 | ty] } else { vec![0xf0 | ty] };
    if count >= 15 {
        bytes.extend(uvarint(count));
    }
    bytes.extend_from_slice(elements);
    bytes
}

/// A list of encoded elements.
pub fn list<T: AsRef<[u8]>>(ty: u8, elements: &[T]) -> Vec<u8> {
    let joined: Vec<u8> = elements.iter().flat_map(|element| element.as_ref()).copied().collect();
    list_claiming(ty, elements.len() as u64, &joined)
}

/// A struct in the making.
#[derive(Debug, Clone, Default)]
pub struct Struct {
    bytes: Vec<u8>,
    last: i16,
}

impl Struct {
    /// No field yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A field whose value is encoded already.
    pub fn raw(mut self, id: i16, ty: u8, value: &[u8]) -> Self {
        match id.wrapping_sub(self.last) {
            delta @ 1..=15 => self.bytes.push((delta as u8) << 4 | ty),
            _ => {
                self.bytes.push(ty);
                self.bytes.extend(zigzag(id.into()));
            }
        }
        self.last = id;
        self.bytes.extend_from_slice(value);
        self
    }

    /// An i32; what does not fit is written all the same.
    pub fn i32(self, id: i16, value: i64) -> Self {
        self.raw(id, I32, &zigzag(value))
    }

    /// An i64.
    pub fn i64(self, id: i16, value: i64) -> Self {
        self.raw(id, I64, &zigzag(value))
    }

    /// A boolean.
    pub fn bool(self, id: i16, value: bool) -> Self {
        self.raw(id, if value { TRUE } else { FALSE }, &[])
    }

    /// Bytes or a text.
    pub fn text(self, id: i16, value: impl AsRef<[u8]>) -> Self {
        self.raw(id, BINARY, &binary(value.as_ref()))
    }

    /// A struct.
    pub fn put(self, id: i16, value: Struct) -> Self {
        self.raw(id, STRUCT, &value.end())
    }

    /// A list of structs.
    pub fn structs(self, id: i16, values: impl IntoIterator<Item = Struct>) -> Self {
        let values: Vec<Vec<u8>> = values.into_iter().map(Struct::end).collect();
        self.raw(id, LIST, &list(STRUCT, &values))
    }

    /// The struct's bytes.
    pub fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

/// One element of a schema.
#[derive(Debug, Clone)]
pub struct Element {
    /// A group's children.
    pub children: Option<i64>,
    /// Parquet's `Type`, of a leaf.
    pub physical: Option<i64>,
    /// Bytes of a fixed-length leaf.
    pub type_length: Option<i64>,
    /// 0 required, 1 optional, 2 repeated.
    pub repetition: i64,
    /// Its name.
    pub name: Vec<u8>,
    /// Parquet's `ConvertedType`.
    pub converted: Option<i64>,
    /// Of a decimal: precision and scale.
    pub decimal: Option<(i64, i64)>,
    /// Parquet's `LogicalType`.
    pub logical: Option<Struct>,
}

impl Element {
    /// A required leaf without annotation.
    pub fn leaf(name: &str, physical: i64) -> Self {
        Self {
            children: None,
            physical: Some(physical),
            type_length: None,
            repetition: 0,
            name: name.into(),
            converted: None,
            decimal: None,
            logical: None,
        }
    }

    /// A required group.
    pub fn group(name: &str, children: i64) -> Self {
        Self { children: Some(children), physical: None, ..Self::leaf(name, 0) }
    }

    /// The same with another repetition.
    pub fn repeated_as(self, repetition: i64) -> Self {
        Self { repetition, ..self }
    }

    /// As thrift.
    pub fn thrift(&self) -> Struct {
        let int = |to: Struct, id, value: Option<i64>| match value {
            Some(value) => to.i32(id, value),
            None => to,
        };
        let mut to = int(Struct::new(), 1, self.physical);
        to = int(to, 2, self.type_length).i32(3, self.repetition).text(4, &self.name);
        to = int(int(to, 5, self.children), 6, self.converted);
        if let Some((precision, scale)) = self.decimal {
            to = to.i32(7, scale).i32(8, precision);
        }
        match &self.logical {
            Some(logical) => to.put(10, logical.clone()),
            None => to,
        }
    }
}

/// A page header: what it claims.
#[derive(Debug, Clone, Copy)]
pub struct PageClaims {
    /// 0 data page v1, 2 dictionary page, 3 data page v2.
    pub kind: i64,
    /// Bytes inflated and as stored.
    pub inflated: i64,
    /// Bytes as stored.
    pub stored: i64,
    /// Values, nulls too.
    pub values: i64,
    /// Parquet's `Encoding`.
    pub encoding: i64,
    /// Of a v2 page: nulls, rows, bytes of definition and of repetition levels, whether the values are compressed.
    pub v2: (i64, i64, i64, i64, bool),
    /// The body's CRC.
    pub crc: Option<i64>,
}

impl PageClaims {
    /// A v1 data page of `stored` uncompressed bytes.
    pub fn v1(stored: usize, values: i64, encoding: i64) -> Self {
        let bytes = stored as i64;
        Self { kind: 0, inflated: bytes, stored: bytes, values, encoding, v2: (0, values, 0, 0, false), crc: None }
    }

    /// The header's bytes.
    pub fn thrift(&self) -> Vec<u8> {
        let mut to = Struct::new().i32(1, self.kind).i32(2, self.inflated).i32(3, self.stored);
        if let Some(crc) = self.crc {
            to = to.i32(4, crc);
        }
        let (nulls, rows, def_bytes, rep_bytes, compressed) = self.v2;
        let values = Struct::new().i32(1, self.values);
        match self.kind {
            0 => to.put(5, values.i32(2, self.encoding).i32(3, 3).i32(4, 3)),
            2 => to.put(7, values.i32(2, self.encoding)),
            3 => {
                let body = values.i32(2, nulls).i32(3, rows).i32(4, self.encoding);
                to.put(8, body.i32(5, def_bytes).i32(6, rep_bytes).bool(7, compressed))
            }
            _ => to,
        }
        .end()
    }

    /// Header and body.
    pub fn page(&self, body: &[u8]) -> Vec<u8> {
        [self.thrift().as_slice(), body].concat()
    }
}

/// What a footer claims of a column chunk.
#[derive(Debug, Clone)]
pub struct ChunkClaims {
    /// Parquet's `Type`.
    pub physical: i64,
    /// The path of names to its leaf.
    pub path: Vec<Vec<u8>>,
    /// Parquet's `CompressionCodec`.
    pub codec: i64,
    /// Values, nulls too.
    pub values: i64,
    /// Bytes as stored, and inflated.
    pub compressed: i64,
    /// Bytes inflated.
    pub uncompressed: i64,
    /// Where the first data page is.
    pub data: i64,
    /// Where the dictionary page is.
    pub dictionary: Option<i64>,
    /// Statistics.
    pub stats: Option<Struct>,
    /// Offset and length of the offset index.
    pub offset_index: Option<(i64, i64)>,
    /// Offset and length of the column index.
    pub column_index: Option<(i64, i64)>,
}

impl ChunkClaims {
    /// An uncompressed chunk at `data` of `bytes` bytes.
    pub fn new(name: &str, physical: i64, values: i64, data: i64, bytes: i64) -> Self {
        Self {
            physical,
            path: vec![name.into()],
            codec: 0,
            values,
            compressed: bytes,
            uncompressed: bytes,
            data,
            dictionary: None,
            stats: None,
            offset_index: None,
            column_index: None,
        }
    }

    /// As thrift.
    pub fn thrift(&self) -> Struct {
        let path: Vec<Vec<u8>> = self.path.iter().map(|name| binary(name)).collect();
        let mut meta = Struct::new().i32(1, self.physical).raw(2, LIST, &list(I32, &[zigzag(0), zigzag(3)]));
        meta = meta.raw(3, LIST, &list(BINARY, &path)).i32(4, self.codec).i64(5, self.values);
        meta = meta.i64(6, self.uncompressed).i64(7, self.compressed).i64(9, self.data);
        if let Some(dictionary) = self.dictionary {
            meta = meta.i64(11, dictionary);
        }
        if let Some(stats) = &self.stats {
            meta = meta.put(12, stats.clone());
        }
        let mut to = Struct::new().i64(2, 0).put(3, meta);
        if let Some((offset, length)) = self.offset_index {
            to = to.i64(4, offset).i32(5, length);
        }
        match self.column_index {
            Some((offset, length)) => to.i64(6, offset).i32(7, length),
            None => to,
        }
    }
}

/// A row group of these chunks.
pub fn row_group(chunks: &[ChunkClaims], rows: i64) -> Struct {
    let bytes = chunks.iter().fold(0_i64, |sum, chunk| sum.wrapping_add(chunk.compressed));
    Struct::new().structs(1, chunks.iter().map(ChunkClaims::thrift)).i64(2, bytes).i64(3, rows)
}

/// A footer; all columns have the type's own order.
pub fn footer(schema: &[Element], groups: impl IntoIterator<Item = Struct>, rows: i64) -> Struct {
    let leaves = schema.iter().filter(|element| element.physical.is_some()).count();
    let orders = (0..leaves).map(|_| Struct::new().put(1, Struct::new()));
    let head = Struct::new().i32(1, 2).structs(2, schema.iter().map(Element::thrift)).i64(3, rows);
    head.structs(4, groups).text(6, "crafted").structs(7, orders)
}

/// One entry of an offset index.
pub fn page_location(offset: i64, length: i64, first_row: i64) -> Struct {
    Struct::new().i64(1, offset).i32(2, length).i64(3, first_row)
}

/// A file in the making: bytes are put, then a footer that speaks of them.
#[derive(Debug, Clone)]
pub struct File {
    /// What is there so far.
    pub bytes: Vec<u8>,
}

impl Default for File {
    fn default() -> Self {
        Self { bytes: b"PAR1".to_vec() }
    }
}

impl File {
    /// Puts bytes; returns where they start and how many they are.
    pub fn put(&mut self, bytes: &[u8]) -> (i64, i64) {
        let at = self.bytes.len() as i64;
        self.bytes.extend_from_slice(bytes);
        (at, bytes.len() as i64)
    }

    /// The file with this footer.
    pub fn end(self, footer: &[u8]) -> Vec<u8> {
        let mut bytes = self.bytes;
        bytes.extend_from_slice(footer);
        bytes.extend((footer.len() as u32).to_le_bytes());
        bytes.extend(b"PAR1");
        bytes
    }
}
