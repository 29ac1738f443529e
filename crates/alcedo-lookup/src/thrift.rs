//! Thrift's compact protocol, read within bounds.
//!
//! Footers, page indexes and page headers are thrift structs
//! (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>). They are hostile until
//! checked: every count is compared with the bytes that are left before anything is reserved, and nesting is bounded,
//! because a stack that overflows ends the process.

use crate::error::Error;

/// Nesting of structs and containers in Parquet's own metadata is below ten; unknown fields of later versions may nest
/// deeper.
const MAX_DEPTH: usize = 32;

pub(crate) const TRUE: u8 = 1;
pub(crate) const FALSE: u8 = 2;
pub(crate) const BYTE: u8 = 3;
pub(crate) const I16: u8 = 4;
pub(crate) const I32: u8 = 5;
pub(crate) const I64: u8 = 6;
pub(crate) const DOUBLE: u8 = 7;
pub(crate) const BINARY: u8 = 8;
pub(crate) const LIST: u8 = 9;
pub(crate) const SET: u8 = 10;
pub(crate) const MAP: u8 = 11;
pub(crate) const STRUCT: u8 = 12;
pub(crate) const UUID: u8 = 13;

/// A cursor over thrift bytes. `what` names them in errors.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { bytes, at: 0, what }
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn error(&self, problem: &str) -> Error {
        Error::Corrupt(format!("{} at byte {}: {problem}", self.what, self.at))
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn byte(&mut self) -> Result<u8, Error> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.error("it ends early"))?;
        self.at += 1;
        Ok(byte)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        if length > self.left() {
            return Err(self.error("a value ends beyond it"));
        }
        let taken = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(taken)
    }

    fn uvarint(&mut self) -> Result<u64, Error> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error("an integer takes more than 64 bits"))
    }

    /// An i16, i32 or i64 field.
    pub(crate) fn int(&mut self) -> Result<i64, Error> {
        let zigzag = self.uvarint()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Error> {
        let value = self.int()?;
        i32::try_from(value).map_err(|_| self.error("an i32 is out of range"))
    }

    /// A count, offset or length, which cannot be negative.
    pub(crate) fn unsigned(&mut self) -> Result<u64, Error> {
        let value = self.int()?;
        u64::try_from(value).map_err(|_| self.error("an offset, size or count is negative"))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        let value = self.unsigned()?;
        u32::try_from(value).map_err(|_| self.error("a size or count is out of range"))
    }

    pub(crate) fn binary(&mut self) -> Result<&'a [u8], Error> {
        let length = self.uvarint()?;
        let length = usize::try_from(length).map_err(|_| self.error("a length is larger than memory"))?;
        self.take(length)
    }

    /// A list's element type and count. Every element takes at least a byte, so a count beyond the bytes left is a lie.
    pub(crate) fn list(&mut self) -> Result<(u8, usize), Error> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.uvarint()?,
            short => u64::from(short),
        };
        match usize::try_from(count) {
            Ok(count) if count <= self.left() => Ok((head & 0x0f, count)),
            _ => Err(self.error("a list claims more elements than there are bytes")),
        }
    }

    /// A list whose elements must be of type `element`.
    pub(crate) fn list_of(&mut self, element: u8) -> Result<usize, Error> {
        let (found, count) = self.list()?;
        // Writers disagree on which of the two boolean types a list of booleans has.
        let same = found == element || (element == TRUE && found == FALSE);
        if count > 0 && !same {
            return Err(self.error("a list holds another type than the format says"));
        }
        Ok(count)
    }

    /// One element of a list of booleans.
    pub(crate) fn list_bool(&mut self) -> Result<bool, Error> {
        Ok(self.byte()? == TRUE)
    }

    /// The next field of a struct: its id and type; none at the struct's end. `last` is the previous id, 0 at first.
    pub(crate) fn field(&mut self, last: &mut i16) -> Result<Option<(i16, u8)>, Error> {
        let head = self.byte()?;
        if head & 0x0f == 0 {
            return Ok(None);
        }
        let id = match head >> 4 {
            0 => i16::try_from(self.int()?).ok(),
            delta => last.checked_add(i16::from(delta)),
        };
        *last = id.ok_or_else(|| self.error("a field id is out of range"))?;
        Ok(Some((*last, head & 0x0f)))
    }

    /// Passes over one value of type `ty`.
    pub(crate) fn skip(&mut self, ty: u8) -> Result<(), Error> {
        self.skip_nested(ty, 0)
    }

    fn skip_nested(&mut self, ty: u8, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(self.error("values nest too deep"));
        }
        match ty {
            TRUE | FALSE => {}
            BYTE => {
                self.byte()?;
            }
            I16 | I32 | I64 => {
                self.uvarint()?;
            }
            DOUBLE => {
                self.take(8)?;
            }
            BINARY => {
                self.binary()?;
            }
            LIST | SET => {
                let (element, count) = self.list()?;
                for _ in 0..count {
                    self.skip_element(element, depth)?;
                }
            }
            MAP => self.skip_map(depth)?,
            STRUCT => {
                let mut last = 0;
                while let Some((_, field)) = self.field(&mut last)? {
                    self.skip_nested(field, depth + 1)?;
                }
            }
            UUID => {
                self.take(16)?;
            }
            _ => return Err(self.error("a field has an unknown type")),
        }
        Ok(())
    }

    /// Booleans take a byte as an element, none as a field.
    fn skip_element(&mut self, ty: u8, depth: usize) -> Result<(), Error> {
        match ty {
            TRUE | FALSE => self.byte().map(|_| ()),
            other => self.skip_nested(other, depth + 1),
        }
    }

    fn skip_map(&mut self, depth: usize) -> Result<(), Error> {
        let count = self.uvarint()?;
        if count == 0 {
            return Ok(());
        }
        if count > self.left() as u64 {
            return Err(self.error("a map claims more entries than there are bytes"));
        }
        let kinds = self.byte()?;
        for _ in 0..count {
            self.skip_element(kinds >> 4, depth)?;
            self.skip_element(kinds & 0x0f, depth)?;
        }
        Ok(())
    }

    /// Reads a struct: `read` takes the fields it knows and returns false for those to pass over.
    pub(crate) fn fields(
        &mut self,
        mut read: impl FnMut(&mut Self, i16, u8) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let mut last = 0;
        while let Some((id, ty)) = self.field(&mut last)? {
            if !read(self, id, ty)? {
                self.skip(ty)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn deep_nesting_ends_in_an_error_not_in_a_stack_overflow() {
        // A struct whose first field is a struct whose first field is ...
        let bytes = vec![0x1c; 1 << 20];
        let error = Reader::new(&bytes, "footer").skip(STRUCT).unwrap_err();
        assert!(error.to_string().contains("nest too deep"), "{error}");
    }

    #[test]
    fn a_count_beyond_the_bytes_left_is_refused() {
        // A list of 2^31 - 1 structs in seven bytes.
        let bytes = [0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00];
        assert!(Reader::new(&bytes, "footer").list().is_err());
        assert!(Reader::new(&[0xff, 0x01], "footer").binary().is_err());
        assert!(Reader::new(&[0xff; 11], "footer").int().is_err());
    }

    #[test]
    fn integers_are_zigzag() {
        assert_eq!(Reader::new(&[0x01], "x").int().unwrap(), -1);
        assert_eq!(Reader::new(&[0xac, 0x02], "x").int().unwrap(), 150);
        assert!(Reader::new(&[0x01], "x").unsigned().is_err());
    }
}
