//! One page from its stored bytes to the parquet crate's form of it, and a reader over such pages.
//!
//! The parquet crate decodes encodings; which pages it sees is ours. [`PageSequence`] gives it the pages of one column
//! chunk that hold the wanted rows, and stands in for the rows between them with gaps that are skipped without bytes:
//! columns whose data pages start at different rows can then share one selection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::schema::types::ColumnDescriptor;

use crate::codec::Codec;
use crate::delta::readable;
use crate::error::Error;
use crate::flat_page::{FlatPage, with_dictionary, with_flat_page};
use crate::inflating::Inflating;
use crate::limits::Limits;
use crate::page_check::checked;
use crate::page_header::{PageHeader, PageKind};
use crate::page_place::PagePlace;
use crate::varint::uvarint32;

/// Reads the page at the start of `bytes`: header, checksum, decompression, and the checks that make it safe to decode.
///
/// # Errors
/// The page is damaged or passes a bound.
pub(crate) fn read_page(
    bytes: &Bytes,
    codec: Codec,
    column: &ColumnDescriptor,
    limits: &Limits,
) -> Result<Page, Error> {
    let page = inflate(bytes, codec, limits).map(|page| readable(page, column));
    page.and_then(|page| checked(page, column, limits.inflate_bytes)).map(|(page, _)| page)
}

/// A page as it was fetched: it is inflated when it is read, so that one page of a column is inflated at a time.
#[derive(Clone)]
pub(crate) struct StoredPage {
    bytes: Bytes,
    codec: Codec,
    pub(crate) header: PageHeader,
    place: Arc<PagePlace>,
}

impl StoredPage {
    /// # Errors
    /// The page's header is damaged or passes a bound.
    pub(crate) fn new(bytes: Bytes, codec: Codec, place: PagePlace, limits: &Limits) -> Result<Self, Error> {
        let header = PageHeader::read(&bytes, limits).map_err(|error| place.name(error))?;
        Ok(Self { bytes, codec, header, place: Arc::new(place) })
    }

    /// Bytes of the page as it inflates, as its header declares them; more are never inflated.
    pub(crate) fn inflated_bytes(&self) -> usize {
        self.header.inflated_bytes
    }

    /// Its values are indices of the dictionary.
    pub(crate) fn uses_dictionary(&self) -> bool {
        matches!(encoding(self.header.encoding), Ok(Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY))
    }

    /// Runs something over the page's values as they are stored; none where that is not understood.
    ///
    /// # Errors
    /// The page is damaged.
    pub(crate) fn with_flat_page<T>(
        &self,
        max_def: i16,
        run: impl FnOnce(&mut FlatPage<'_>) -> T,
    ) -> Result<Option<T>, Error> {
        with_flat_page((&self.bytes, &self.header, self.codec), max_def, run)
    }

    /// Runs something over the dictionary that the page is; none where that is not understood.
    ///
    /// # Errors
    /// The page is damaged.
    pub(crate) fn with_dictionary<T>(
        &self,
        run: impl FnOnce(&mut Inflating<'_>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        with_dictionary((&self.bytes, &self.header, self.codec), run)
    }

    /// The page as [`read_page`] gives it, and how many bytes its values take decoded where that may be more than the
    /// page.
    pub(crate) fn inflate(&self, inflate_bytes: usize) -> Result<(Page, usize), Error> {
        let page = inflate_page(&self.bytes, &self.header, self.codec);
        let page = page.map(|page| readable(page, &self.place.column));
        page.and_then(|page| checked(page, &self.place.column, inflate_bytes)).map_err(|error| self.place.name(error))
    }
}

/// Checks and inflates the page at the start of `bytes`.
///
/// # Errors
/// The page is damaged or passes a bound.
pub(crate) fn inflate(bytes: &Bytes, codec: Codec, limits: &Limits) -> Result<Page, Error> {
    inflate_page(bytes, &PageHeader::read(bytes, limits)?, codec)
}

/// Checks the page at the start of `bytes` as far as that takes no decoding: its header, and its checksum where it
/// carries one.
///
/// # Errors
/// The page is damaged or passes a bound.
pub(crate) fn verify(bytes: &Bytes, limits: &Limits) -> Result<(), Error> {
    verified_body(bytes, &PageHeader::read(bytes, limits)?).map(drop)
}

/// The stored body of a page, which is that of its checksum where it carries one.
pub(crate) fn verified_body(bytes: &Bytes, header: &PageHeader) -> Result<Bytes, Error> {
    if header.total_bytes() > bytes.len() {
        return Err(Error::corrupt("a page ends beyond its column chunk"));
    }
    let body = bytes.slice(header.header_bytes..header.total_bytes());
    match header.crc {
        Some(crc) if crc32fast::hash(&body) != crc => Err(Error::Checksum("a data page".to_owned())),
        _ => Ok(body),
    }
}

fn inflate_page(bytes: &Bytes, header: &PageHeader, codec: Codec) -> Result<Page, Error> {
    let body = verified_body(bytes, header)?;
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
    /// The same, not inflated yet.
    Stored { page: StoredPage, rows: usize },
}

/// Why reading stopped.
pub(crate) enum Stop {
    /// The rows' values take more memory than they may: read fewer rows at a time.
    TooMuch,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What the page sequences of one read share: the parquet crate's errors carry none of ours.
#[derive(Clone)]
pub(crate) struct Reading {
    inflate_bytes: usize,
    state: Arc<Mutex<ReadingState>>,
}

#[derive(Default)]
struct ReadingState {
    stop: Option<Stop>,
    /// Bytes of values that are longer than their pages.
    decoded_bytes: usize,
}

impl Reading {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { inflate_bytes: limits.inflate_bytes, state: Arc::default() }
    }

    /// Why a read failed that ended in an error.
    pub(crate) fn take_stop(&self) -> Option<Stop> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stop.take()
    }

    fn inflate(&self, page: &StoredPage) -> ParquetResult<Page> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stop = match page.inflate(self.inflate_bytes) {
            Ok((page, decoded)) => {
                state.decoded_bytes += decoded;
                if decoded == 0 || state.decoded_bytes <= self.inflate_bytes {
                    return Ok(page);
                }
                Stop::TooMuch
            }
            Err(error) => Stop::Failed(error),
        };
        state.stop = Some(stop);
        Err(ParquetError::General("a page cannot be read".to_owned()))
    }
}

/// The dictionary of a column chunk.
#[derive(Clone)]
pub(crate) enum Dictionary {
    Inflated(Page),
    Stored(StoredPage),
}

/// A [`PageReader`] over pages of one column chunk, with gaps.
pub(crate) struct PageSequence {
    dictionary: Option<Dictionary>,
    has_dictionary: bool,
    parts: VecDeque<Part>,
    /// Every data page starts a record. False for chunks whose pages split rows.
    aligned: bool,
    /// What inflates stored pages; a sequence of inflated ones needs none.
    reading: Option<Reading>,
}

impl PageSequence {
    /// A sequence of inflated pages.
    pub(crate) fn new(dictionary: Option<Page>, parts: impl IntoIterator<Item = Part>, aligned: bool) -> Self {
        Self::build(dictionary.map(Dictionary::Inflated), parts, aligned, None)
    }

    /// A sequence of pages that are inflated as they are read.
    pub(crate) fn stored(
        dictionary: Option<Dictionary>,
        parts: impl IntoIterator<Item = Part>,
        aligned: bool,
        reading: Reading,
    ) -> Self {
        Self::build(dictionary, parts, aligned, Some(reading))
    }

    fn build(
        dictionary: Option<Dictionary>,
        parts: impl IntoIterator<Item = Part>,
        aligned: bool,
        reading: Option<Reading>,
    ) -> Self {
        let has_dictionary = dictionary.as_ref().is_some_and(|dictionary| match dictionary {
            Dictionary::Inflated(page) => page.is_dictionary_page(),
            Dictionary::Stored(page) => page.header.kind == PageKind::Dictionary,
        });
        // A page of another kind where the dictionary should be is no dictionary.
        let dictionary = dictionary.filter(|_| has_dictionary);
        Self { dictionary, has_dictionary, parts: parts.into_iter().collect(), aligned, reading }
    }

    fn inflate(&self, page: &StoredPage) -> ParquetResult<Page> {
        let reading = self.reading.as_ref();
        reading.ok_or_else(|| ParquetError::General("nothing inflates the page".to_owned()))?.inflate(page)
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
        match self.dictionary.take() {
            Some(Dictionary::Inflated(page)) => return Ok(Some(page)),
            Some(Dictionary::Stored(page)) => return self.inflate(&page).map(Some),
            None => {}
        }
        let page = match self.parts.pop_front() {
            None => return Ok(None),
            Some(Part::Data { page, .. }) => page,
            Some(Part::Stored { page, .. }) => self.inflate(&page)?,
            Some(Part::Gap(rows)) => {
                return Err(ParquetError::General(format!("{rows} rows are read that were not fetched")));
            }
        };
        // The parquet crate panics over these.
        if page.is_dictionary_page() {
            return Err(ParquetError::General("a dictionary page where a data page should be".to_owned()));
        }
        if uses_dictionary(&page) && !self.has_dictionary {
            let problem = "a data page needs a dictionary that its column chunk has not";
            return Err(ParquetError::General(problem.to_owned()));
        }
        Ok(Some(page))
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
            Part::Stored { page, rows } => PageMetadata {
                num_rows: self.aligned.then_some(*rows),
                num_levels: Some(page.header.values as usize),
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
        let header = uvarint32(&mut levels).ok_or_else(short)?;
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
