//! Thrift's compact protocol, read within bounds.
//!
//! Footers, page indexes and page headers are thrift structs
//! (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>). They are hostile until
//! checked: every count is compared with its bound and with the bytes that are left before anything is reserved, and
//! nesting is bounded, because a stack that overflows ends the process.

use crate::error::Error;
use crate::limits::Limits;

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
    max_elements: usize,
    max_depth: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: &'static str, limits: &Limits) -> Self {
        Self { bytes, at: 0, what, max_elements: limits.list_elements, max_depth: limits.thrift_depth }
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// The bytes read since an earlier position.
    pub(crate) fn since(&self, position: usize) -> &'a [u8] {
        &self.bytes[position..self.at]
    }

    pub(crate) fn error(&self, problem: &str) -> Error {
        Error::Corrupt(format!("{} at byte {}: {problem}", self.what, self.at))
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// One byte; an i8 field.
    pub(crate) fn byte(&mut self) -> Result<u8, Error> {
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
        Ok((head & 0x0f, self.count(count)?))
    }

    /// A list's or map's count, within the bytes left and the bound.
    fn count(&self, claimed: u64) -> Result<usize, Error> {
        match usize::try_from(claimed) {
            Ok(count) if count > self.left() => Err(self.error("a list claims more elements than there are bytes")),
            Ok(count) if count <= self.max_elements => Ok(count),
            _ => Err(Error::Limit(format!(
                "{} at byte {}: a list of {claimed} elements, at most {} are read",
                self.what, self.at, self.max_elements
            ))),
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
        if depth > self.max_depth {
            return Err(Error::Limit(format!("{}: values nest more than {} deep", self.what, self.max_depth)));
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
        let count = self.count(count)?;
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

    fn reader(bytes: &[u8]) -> Reader<'_> {
        Reader::new(bytes, "footer", &Limits::default())
    }

    #[test]
    fn deep_nesting_ends_in_an_error_not_in_a_stack_overflow() {
        // Structs in structs, lists in lists, and maps in maps, on the smallest stack that a thread here has.
        let deep = || {
            for nest in [0x1c_u8, 0x19, 0x1b] {
                let ty = nest & 0x0f;
                let bytes = if ty == MAP { [1, 0xbb].repeat(1 << 19) } else { vec![nest; 1 << 20] };
                let error = reader(&bytes).skip(ty).unwrap_err();
                assert!(error.to_string().contains("nest more than 100 deep"), "{error}");
            }
        };
        std::thread::Builder::new().stack_size(2 << 20).spawn(deep).unwrap().join().unwrap();
        let shallow = [&[0x1c; 100][..], &[0; 101]].concat();
        assert!(reader(&shallow).skip(STRUCT).is_ok());
        let deeper = [&[0x1c; 101][..], &[0; 102]].concat();
        assert!(reader(&deeper).skip(STRUCT).is_err());
    }

    #[test]
    fn a_count_beyond_the_bytes_left_is_refused() {
        // A list of 2^31 - 1 structs in seven bytes.
        let bytes = [0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00];
        assert!(reader(&bytes).list().is_err());
        assert!(reader(&[0xff, 0x01]).binary().is_err());
        assert!(reader(&[0xff; 11]).int().is_err());
    }

    #[test]
    fn a_list_beyond_the_bound_is_refused_wherever_it_stands() {
        let list = |count: usize| {
            let mut bytes = vec![0xf3];
            bytes.extend([count as u8 & 0x7f | 0x80, (count >> 7) as u8 & 0x7f | 0x80, (count >> 14) as u8]);
            bytes.resize(bytes.len() + count, 0);
            bytes
        };
        let (bound, over) = (list(1_000_000), list(1_000_001));
        assert_eq!(reader(&bound).list_of(BYTE).unwrap(), 1_000_000);
        assert!(matches!(reader(&over).list_of(BYTE), Err(Error::Limit(_))));
        assert!(reader(&bound).skip(LIST).is_ok());
        assert!(matches!(reader(&over).skip(SET), Err(Error::Limit(_))));
        // A map of bytes to bytes.
        let map = |count: &[u8]| [count, &[0x33], &vec![0; 2_000_002]].concat();
        assert!(reader(&map(&bound[1..4])).skip(MAP).is_ok());
        assert!(matches!(reader(&map(&over[1..4])).skip(MAP), Err(Error::Limit(_))));
    }

    #[test]
    fn integers_are_zigzag() {
        assert_eq!(reader(&[0x01]).int().unwrap(), -1);
        assert_eq!(reader(&[0xac, 0x02]).int().unwrap(), 150);
        assert!(reader(&[0x01]).unsigned().is_err());
    }
}
