//! One page from its stored bytes to the parquet crate's form of it, and a reader over such pages.
//!
//! The parquet crate decodes encodings; which pages it sees is ours. [`PageSequence`] gives it the pages of one column
//! chunk that hold the wanted rows, and stands in for the rows between them with gaps that are skipped without bytes:
//! columns whose data pages start at different rows can then share one selection.

use std::collections::VecDeque;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result as ParquetResult};

use crate::codec::Codec;
use crate::error::Error;
use crate::limits::Limits;
use crate::page_header::{PageHeader, PageKind};

/// Checks and inflates the page at the start of `bytes`.
///
/// # Errors
/// The page is damaged or passes a bound.
pub(crate) fn inflate(bytes: &Bytes, codec: Codec, limits: &Limits) -> Result<Page, Error> {
    let header = PageHeader::read(bytes, limits)?;
    if header.total_bytes() > bytes.len() {
        return Err(Error::corrupt("a page ends beyond its column chunk"));
    }
    let body = bytes.slice(header.header_bytes..header.total_bytes());
    if let Some(crc) = header.crc
        && crc32fast::hash(&body) != crc
    {
        return Err(Error::Checksum("a data page".to_owned()));
    }
    let encoding = encoding(header.encoding)?;
    let num_values = header.values;
    match header.kind {
        PageKind::Dictionary => {
            let buf = inflate_body(&body, codec, header.inflated_bytes)?;
            Ok(Page::DictionaryPage { buf, num_values, encoding, is_sorted: false })
        }
        PageKind::DataV1 { def_encoding, rep_encoding } => Ok(Page::DataPage {
            buf: inflate_body(&body, codec, header.inflated_bytes)?,
            num_values,
            encoding,
            def_level_encoding: self::encoding(def_encoding)?,
            rep_level_encoding: self::encoding(rep_encoding)?,
            statistics: None,
        }),
        PageKind::DataV2 { nulls, rows, def_bytes, rep_bytes, compressed } => {
            let levels = def_bytes as usize + rep_bytes as usize;
            if levels > body.len() || levels > header.inflated_bytes {
                return Err(Error::corrupt("a data page's levels are longer than the page"));
            }
            let codec = if compressed { codec } else { Codec::Uncompressed };
            Ok(Page::DataPageV2 {
                buf: inflate_v2(&body, levels, codec, header.inflated_bytes)?,
                num_values,
                encoding,
                num_nulls: nulls,
                num_rows: rows,
                def_levels_byte_len: def_bytes,
                rep_levels_byte_len: rep_bytes,
                is_compressed: false,
                statistics: None,
            })
        }
        PageKind::Other => Err(Error::corrupt("a page of another kind where a data page should be")),
    }
}

fn inflate_body(body: &Bytes, codec: Codec, inflated_bytes: usize) -> Result<Bytes, Error> {
    match codec {
        Codec::Uncompressed if body.len() == inflated_bytes => Ok(body.clone()),
        _ => codec.decompress(body, inflated_bytes).map(Bytes::from),
    }
}

/// The levels of a v2 data page are never compressed; the values after them may be.
fn inflate_v2(body: &Bytes, levels: usize, codec: Codec, inflated_bytes: usize) -> Result<Bytes, Error> {
    let values_bytes = inflated_bytes - levels;
    if codec == Codec::Uncompressed && body.len() == inflated_bytes {
        return Ok(body.clone());
    }
    // Writers store nothing at all where there are no values.
    if values_bytes == 0 {
        return Ok(body.slice(..levels));
    }
    let values = codec.decompress(&body[levels..], values_bytes)?;
    let mut inflated = Vec::with_capacity(inflated_bytes);
    inflated.extend_from_slice(&body[..levels]);
    inflated.extend_from_slice(&values);
    Ok(inflated.into())
}

fn encoding(code: i32) -> Result<Encoding, Error> {
    Ok(match code {
        0 => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        3 => Encoding::RLE,
        #[allow(deprecated)] // Old files still have it, and the crate reads it.
        4 => Encoding::BIT_PACKED,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        7 => Encoding::DELTA_BYTE_ARRAY,
        8 => Encoding::RLE_DICTIONARY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        other => return Err(Error::Unsupported(format!("encoding {other}"))),
    })
}

fn uses_dictionary(page: &Page) -> bool {
    matches!(page.encoding(), Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY)
}

/// A stretch of a column chunk's rows.
#[derive(Clone)]
pub(crate) enum Part {
    /// So many rows that nobody wants.
    Gap(usize),
    /// A data page with its number of rows.
    Data { page: Page, rows: usize },
}

/// A [`PageReader`] over inflated pages of one column chunk, with gaps.
pub(crate) struct PageSequence {
    dictionary: Option<Page>,
    has_dictionary: bool,
    parts: VecDeque<Part>,
    /// Every data page starts a record. False for chunks whose pages split rows.
    aligned: bool,
}

impl PageSequence {
    pub(crate) fn new(dictionary: Option<Page>, parts: impl IntoIterator<Item = Part>, aligned: bool) -> Self {
        let has_dictionary = dictionary.as_ref().is_some_and(Page::is_dictionary_page);
        Self { dictionary, has_dictionary, parts: parts.into_iter().collect(), aligned }
    }
}

impl Iterator for PageSequence {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for PageSequence {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        if let Some(dictionary) = self.dictionary.take() {
            return Ok(Some(dictionary));
        }
        match self.parts.pop_front() {
            None => Ok(None),
            // The parquet crate panics over it.
            Some(Part::Data { page, .. }) if uses_dictionary(&page) && !self.has_dictionary => {
                Err(ParquetError::General("a data page needs a dictionary that its column chunk has not".to_owned()))
            }
            Some(Part::Data { page, .. }) => Ok(Some(page)),
            Some(Part::Gap(rows)) => Err(ParquetError::General(format!("{rows} rows are read that were not fetched"))),
        }
    }

    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        if self.dictionary.is_some() {
            return Ok(Some(PageMetadata { num_rows: None, num_levels: None, is_dict: true }));
        }
        Ok(self.parts.front().map(|part| match part {
            Part::Gap(rows) => PageMetadata { num_rows: Some(*rows), num_levels: None, is_dict: false },
            Part::Data { page, rows } => PageMetadata {
                num_rows: self.aligned.then_some(*rows),
                num_levels: Some(page.num_values() as usize),
                is_dict: false,
            },
        }))
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        if self.dictionary.take().is_none() {
            self.parts.pop_front();
        }
        Ok(())
    }

    fn at_record_boundary(&mut self) -> ParquetResult<bool> {
        Ok(self.aligned || self.parts.is_empty())
    }
}

/// One chunk's pages as the iterator that the parquet crate's array readers ask for.
pub(crate) struct OneChunk(pub(crate) Option<PageSequence>);

impl Iterator for OneChunk {
    type Item = ParquetResult<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(|sequence| Ok(Box::new(sequence) as Box<dyn PageReader>))
    }
}

impl PageIterator for OneChunk {}

/// How many rows start in an inflated data page of a repeated column, and whether its first value starts one.
///
/// # Errors
/// The repetition levels are damaged.
pub(crate) fn count_rows(page: &Page, max_rep_level: i16) -> Result<(usize, bool), Error> {
    let bits = 16 - (max_rep_level as u16).leading_zeros();
    let (levels, values) = match page {
        Page::DataPage { buf, num_values, rep_level_encoding: Encoding::RLE, .. } => {
            let (length, rest) =
                buf.split_first_chunk::<4>().ok_or_else(|| Error::corrupt("a data page without levels"))?;
            let levels = rest.get(..u32::from_le_bytes(*length) as usize);
            (levels.ok_or_else(|| Error::corrupt("a data page's levels are longer than the page"))?, *num_values)
        }
        Page::DataPageV2 { buf, num_values, rep_levels_byte_len, .. } => {
            (&buf[..*rep_levels_byte_len as usize], *num_values)
        }
        _ => return Err(Error::Unsupported("bit-packed repetition levels without an offset index".to_owned())),
    };
    count_zero_levels(levels, bits, values as usize)
}

/// Zeros among `count` levels in Parquet's RLE/bit-packed hybrid
/// (<https://github.com/apache/parquet-format/blob/master/Encodings.md>, "RLE = 3").
fn count_zero_levels(mut levels: &[u8], bits: u32, count: usize) -> Result<(usize, bool), Error> {
    let short = || Error::corrupt("a data page's levels end early");
    let width = bits as usize;
    let (mut zeros, mut seen, mut first_is_zero) = (0, 0, true);
    while seen < count {
        let header = read_uvarint(&mut levels).ok_or_else(short)?;
        let run = (header >> 1) as usize;
        if header & 1 == 0 {
            let bytes = width.div_ceil(8);
            let value = levels.get(..bytes).ok_or_else(short)?;
            levels = &levels[bytes..];
            let run = run.min(count - seen);
            if run == 0 {
                return Err(Error::corrupt("an empty run among a data page's levels"));
            }
            let zero = value.iter().all(|byte| *byte == 0);
            first_is_zero &= seen > 0 || zero;
            zeros += if zero { run } else { 0 };
            seen += run;
        } else {
            let packed = run.checked_mul(width).and_then(|bytes| levels.get(..bytes)).ok_or_else(short)?;
            levels = &levels[packed.len()..];
            let values = (run * 8).min(count - seen);
            for i in 0..values {
                let zero = (0..width).all(|bit| packed[(i * width + bit) / 8] >> ((i * width + bit) % 8) & 1 == 0);
                first_is_zero &= seen + i > 0 || zero;
                zeros += usize::from(zero);
            }
            seen += values;
            if run == 0 {
                return Err(Error::corrupt("an empty run among a data page's levels"));
            }
        }
    }
    Ok((zeros, first_is_zero))
}

fn read_uvarint(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u32;
    for shift in (0..32).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn zero_levels_are_counted_in_both_kinds_of_runs() {
        // 5 zeros (RLE), then bit-packed 8 levels of width 1: 0b00000110, then 2 ones.
        let levels = [10, 0, 3, 0b0000_0110, 4, 1];
        assert_eq!(count_zero_levels(&levels, 1, 15).unwrap(), (11, true));
        // Width 2, bit-packed: 1, 0, 2, 3, ... : the first value continues a row.
        assert_eq!(count_zero_levels(&[3, 0b1110_0001, 0b0101_0101], 2, 8).unwrap(), (1, false));
        assert!(count_zero_levels(&[0, 0], 1, 4).is_err());
        assert!(count_zero_levels(&[255, 255, 255, 255, 15], 1, 4).is_err());
    }
}
