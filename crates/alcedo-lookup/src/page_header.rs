//! Page headers: thrift-compact, in front of every data page and dictionary page.

use crate::error::Error;
use crate::limits::Limits;
use crate::thrift::{FALSE, I32, Reader, STRUCT, TRUE};

/// Bytes within which a page header must end. Headers may carry statistics of two values, which writers cut to KiBs.
pub(crate) const MAX_HEADER_BYTES: usize = 1 << 20;

/// What a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageKind {
    Dictionary,
    DataV1 {
        def_encoding: i32,
        rep_encoding: i32,
    },
    DataV2 {
        nulls: u32,
        rows: u32,
        def_bytes: u32,
        rep_bytes: u32,
        compressed: bool,
    },
    /// An index page, or a kind that later versions define: passed over.
    Other,
}

/// One page's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageHeader {
    pub(crate) kind: PageKind,
    /// Bytes of the header itself.
    pub(crate) header_bytes: usize,
    /// Bytes of the body as stored, and as it inflates (levels of v2 data pages included).
    pub(crate) body_bytes: usize,
    pub(crate) inflated_bytes: usize,
    /// CRC-32 of the body as stored.
    pub(crate) crc: Option<u32>,
    /// Values including nulls.
    pub(crate) values: u32,
    /// Parquet's `Encoding`.
    pub(crate) encoding: i32,
}

impl PageHeader {
    /// Header and body.
    pub(crate) fn total_bytes(&self) -> usize {
        self.header_bytes + self.body_bytes
    }

    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// It is damaged, or the page passes a bound.
    pub(crate) fn read(bytes: &[u8], limits: &Limits) -> Result<Self, Error> {
        let bytes = &bytes[..bytes.len().min(MAX_HEADER_BYTES)];
        let mut reader = Reader::new(bytes, "page header", limits);
        let (mut page_type, mut inflated, mut stored, mut crc) = (None, None, None, None);
        let mut body = None;
        reader.fields(|reader, id, ty| {
            match (id, ty) {
                (1, I32) => page_type = Some(reader.i32()?),
                (2, I32) => inflated = Some(reader.u32()? as usize),
                (3, I32) => stored = Some(reader.u32()? as usize),
                // A CRC is unsigned, thrift's i32 is not.
                (4, I32) => crc = Some(reader.i32()? as u32),
                (5, STRUCT) => body = Some(data_v1(reader)?),
                (7, STRUCT) => body = Some(dictionary(reader)?),
                (8, STRUCT) => body = Some(data_v2(reader)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let (Some(page_type), Some(inflated_bytes), Some(body_bytes)) = (page_type, inflated, stored) else {
            return Err(reader.error("it has no type or sizes"));
        };
        let (kind, values, encoding) = match (page_type, body) {
            (0 | 2 | 3, None) => return Err(reader.error("it does not describe its page")),
            (0 | 2 | 3, Some(body)) => body,
            _ => (PageKind::Other, 0, 0),
        };
        if body_bytes > limits.page_compressed_bytes {
            return Err(over("compressed", body_bytes, limits.page_compressed_bytes));
        }
        if inflated_bytes > limits.page_bytes {
            return Err(over("inflated", inflated_bytes, limits.page_bytes));
        }
        check_values(&reader, kind, values as usize, inflated_bytes, limits)?;
        let header_bytes = reader.position();
        Ok(Self { kind, header_bytes, body_bytes, inflated_bytes, crc, values, encoding })
    }
}

/// How many values a page claims: whoever decodes it reserves for as many.
fn check_values(
    reader: &Reader<'_>,
    kind: PageKind,
    values: usize,
    inflated_bytes: usize,
    limits: &Limits,
) -> Result<(), Error> {
    let (what, bound) = match kind {
        // No value of a dictionary takes less than a byte.
        PageKind::Dictionary if values > inflated_bytes => {
            return Err(reader.error("a dictionary page claims more values than it has bytes"));
        }
        PageKind::Dictionary => ("dictionary", limits.dictionary_values),
        _ => ("data", limits.page_values),
    };
    if values > bound {
        return Err(Error::Limit(format!("a {what} page of {values} values, at most {bound} are read")));
    }
    Ok(())
}

fn over(what: &str, bytes: usize, limit: usize) -> Error {
    Error::Limit(format!("a page of {bytes} {what} bytes, at most {limit} are read"))
}

type Body = (PageKind, u32, i32);

fn data_v1(reader: &mut Reader<'_>) -> Result<Body, Error> {
    let (mut values, mut encoding, mut def_encoding, mut rep_encoding) = (0, 0, 3, 3);
    reader.fields(|reader, id, ty| {
        match (id, ty) {
            (1, I32) => values = reader.u32()?,
            (2, I32) => encoding = reader.i32()?,
            (3, I32) => def_encoding = reader.i32()?,
            (4, I32) => rep_encoding = reader.i32()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok((PageKind::DataV1 { def_encoding, rep_encoding }, values, encoding))
}

fn dictionary(reader: &mut Reader<'_>) -> Result<Body, Error> {
    let (mut values, mut encoding) = (0, 0);
    reader.fields(|reader, id, ty| {
        match (id, ty) {
            (1, I32) => values = reader.u32()?,
            (2, I32) => encoding = reader.i32()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok((PageKind::Dictionary, values, encoding))
}

fn data_v2(reader: &mut Reader<'_>) -> Result<Body, Error> {
    let (mut values, mut encoding) = (0, 0);
    let (mut nulls, mut rows, mut def_bytes, mut rep_bytes, mut compressed) = (0, 0, 0, 0, true);
    reader.fields(|reader, id, ty| {
        match (id, ty) {
            (1, I32) => values = reader.u32()?,
            (2, I32) => nulls = reader.u32()?,
            (3, I32) => rows = reader.u32()?,
            (4, I32) => encoding = reader.i32()?,
            (5, I32) => def_bytes = reader.u32()?,
            (6, I32) => rep_bytes = reader.u32()?,
            // A boolean field's value is its type.
            (7, TRUE) => compressed = true,
            (7, FALSE) => compressed = false,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if rows > values || nulls > values {
        return Err(reader.error("more rows or nulls than values"));
    }
    Ok((PageKind::DataV2 { nulls, rows, def_bytes, rep_bytes, compressed }, values, encoding))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    /// A header of a page of this type with a body description of these i32 fields, which follow each other.
    fn header(page_type: u64, inflated: u64, stored: u64, body: (u8, &[u64])) -> Vec<u8> {
        let mut bytes = Vec::new();
        for value in [page_type, inflated, stored] {
            bytes.push(0x15);
            bytes.extend(varint(value << 1));
        }
        bytes.push((body.0 - 3) << 4 | STRUCT);
        for value in body.1 {
            bytes.push(0x15);
            bytes.extend(varint(value << 1));
        }
        bytes.extend([0, 0]);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<PageHeader, String> {
        PageHeader::read(bytes, &Limits::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_page_of_more_values_than_the_bound_is_refused() {
        let limits = Limits::default();
        let v1 = |values: usize| read(&header(0, 100, 100, (5, &[values as u64, 0, 3, 3])));
        assert_eq!(v1(limits.page_values).unwrap().values as usize, limits.page_values);
        assert!(v1(limits.page_values + 1).unwrap_err().contains("values, at most"));
        let v2 =
            |values: usize, nulls: usize| read(&header(3, 100, 100, (8, &[values as u64, nulls as u64, 1, 0, 0, 0])));
        assert!(v2(limits.page_values, limits.page_values).is_ok());
        assert!(v2(limits.page_values + 1, 0).unwrap_err().contains("values, at most"));
        assert!(v2(10, 11).unwrap_err().contains("nulls than values"));
    }

    #[test]
    fn a_dictionary_page_of_more_values_than_it_can_hold_is_refused() {
        let limits = Limits::default();
        let dictionary = |bytes: u64, values: usize| read(&header(2, bytes, bytes, (7, &[values as u64, 0])));
        assert!(dictionary(100, 100).is_ok());
        assert!(dictionary(100, 101).unwrap_err().contains("more values than it has bytes"));
        assert!(dictionary(16 << 20, limits.dictionary_values).is_ok());
        assert!(dictionary(16 << 20, limits.dictionary_values + 1).unwrap_err().contains("values, at most"));
    }

    #[test]
    fn a_page_of_more_bytes_than_the_bounds_is_refused() {
        let limits = Limits::default();
        let page =
            |inflated: usize, stored: usize| read(&header(0, inflated as u64, stored as u64, (5, &[1, 0, 3, 3])));
        assert!(page(limits.page_bytes, limits.page_compressed_bytes).is_ok());
        assert!(page(limits.page_bytes + 1, 1).unwrap_err().contains("inflated bytes"));
        assert!(page(1, limits.page_compressed_bytes + 1).unwrap_err().contains("compressed bytes"));
    }
}
