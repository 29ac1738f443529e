//! The hashes of the keys in a key column's data pages, row by row: what a keymap is made of.
//!
//! Pages are as hostile as they are to a search, and are decoded in the same way and within the same bounds. The values
//! of a dictionary are hashed once: the data pages that use it are then read with the hashes in their place.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Encoding, Repetition, Type as Physical};
use parquet::column::page::Page;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::DataType;
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor, ColumnPath, Type};

use crate::data_page::{PageSequence, Part};
use crate::error::Error;
use crate::key_column::{KeyColumn, Stored, int96_nanoseconds};
use crate::key_scan::KeyPage;
use crate::keymap::key_hash::of_stored;

/// Values that are decoded at a time: they stay in a core's cache.
const BATCH_VALUES: usize = 4_096;
/// Bytes that the values of one batch may take. Only delta-encoded texts are copied as they are decoded, and none of
/// them is longer than its page.
const BATCH_BYTES: usize = 32 << 20;

/// Takes what a row holds: the hash of its key, or none for null.
pub(crate) trait Rows {
    /// `row` is the number of the row in the file, as far as the pages were given such numbers.
    fn take(&mut self, row: u64, hash: Option<u64>);
}

/// A dictionary page whose values are the hashes of another one's.
pub(crate) struct HashedDictionary {
    page: Page,
    /// A column of hashes, as often null as the key column.
    column: ColumnDescPtr,
}

impl HashedDictionary {
    /// None where the page is no dictionary.
    ///
    /// # Errors
    /// The dictionary cannot be decoded.
    pub(crate) fn of(column: &KeyColumn, dictionary: Page) -> Result<Option<Self>, Error> {
        let Page::DictionaryPage { buf, num_values, .. } = dictionary else { return Ok(None) };
        let values = Page::DataPage {
            buf,
            num_values,
            encoding: Encoding::PLAIN,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let descr = ColumnDescriptor::new(column.descr.self_type_ptr(), 0, 0, ColumnPath::new(Vec::new()));
        let mut hashes = Hashes(Vec::with_capacity(num_values as usize * 8));
        let values = [KeyPage { page: values, first_row: 0, keep: false }];
        read(column, (None, Arc::new(descr)), &values, &mut hashes)?;
        let optional = column.descr.max_def_level() > 0;
        let repetition = if optional { Repetition::OPTIONAL } else { Repetition::REQUIRED };
        let ty = Type::primitive_type_builder("hash", Physical::INT64).with_repetition(repetition).build()?;
        let levels = column.descr.max_def_level();
        let descr = ColumnDescriptor::new(Arc::new(ty), levels, 0, ColumnPath::new(Vec::new()));
        let page = Page::DictionaryPage {
            buf: Bytes::from(hashes.0),
            num_values,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        Ok(Some(Self { page, column: Arc::new(descr) }))
    }
}

/// Hashes in plain encoding.
struct Hashes(Vec<u8>);

impl Rows for Hashes {
    fn take(&mut self, _row: u64, hash: Option<u64>) {
        self.0.extend(hash.unwrap_or_default().to_le_bytes());
    }
}

/// Goes through data pages of one column chunk, in order.
///
/// # Errors
/// A page cannot be decoded.
pub(crate) fn go_through(
    column: &KeyColumn,
    dictionary: Option<&HashedDictionary>,
    pages: &[KeyPage],
    rows: &mut impl Rows,
) -> Result<(), Error> {
    for pages in pages.chunk_by(|a, b| uses_dictionary(&a.page) == uses_dictionary(&b.page)) {
        match dictionary.filter(|_| pages.first().is_some_and(|page| uses_dictionary(&page.page))) {
            Some(hashed) => read_hashed(hashed, pages, rows)?,
            // A page that needs a dictionary which is not there ends in an error.
            None => read(column, (None, column.descr.clone()), pages, rows)?,
        }
    }
    Ok(())
}

fn uses_dictionary(page: &Page) -> bool {
    matches!(page.encoding(), Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY)
}

fn reader_of(descr: ColumnDescPtr, dictionary: Option<Page>, pages: &[KeyPage]) -> ColumnReader {
    let parts = pages.iter().map(|KeyPage { page, .. }| (page.num_values() as usize, page.clone()));
    // A page without values is nothing to read.
    let parts = parts.filter(|(rows, _)| *rows > 0).map(|(rows, page)| Part::Data { page, rows });
    get_column_reader(descr, Box::new(PageSequence::new(dictionary, parts, true)))
}

fn read_hashed(hashed: &HashedDictionary, pages: &[KeyPage], rows: &mut impl Rows) -> Result<(), Error> {
    match reader_of(hashed.column.clone(), Some(hashed.page.clone()), pages) {
        ColumnReader::Int64ColumnReader(reader) => {
            read_pages(reader, &hashed.column, pages, rows, |hash: &i64| *hash as u64)
        }
        _ => Err(Error::corrupt("hashes that are no numbers")),
    }
}

fn read(
    column: &KeyColumn,
    (dictionary, descr): (Option<Page>, ColumnDescPtr),
    pages: &[KeyPage],
    rows: &mut impl Rows,
) -> Result<(), Error> {
    let int = |value: i128| of_stored(&Stored::Int(value));
    let bytes = |value: &[u8]| of_stored(&column.stored_bytes(value));
    match reader_of(descr.clone(), dictionary, pages) {
        ColumnReader::BoolColumnReader(r) => read_pages(r, &descr, pages, rows, |v: &bool| int((*v).into())),
        ColumnReader::Int32ColumnReader(r) => read_pages(r, &descr, pages, rows, |v| int(column.int32(*v))),
        ColumnReader::Int64ColumnReader(r) => read_pages(r, &descr, pages, rows, |v| int(column.int64(*v))),
        ColumnReader::Int96ColumnReader(r) => read_pages(r, &descr, pages, rows, |v| int(int96_nanoseconds(v))),
        ColumnReader::FloatColumnReader(r) => {
            read_pages(r, &descr, pages, rows, |v: &f32| of_stored(&Stored::Float((*v).into())))
        }
        ColumnReader::DoubleColumnReader(r) => read_pages(r, &descr, pages, rows, |v| of_stored(&Stored::Float(*v))),
        ColumnReader::ByteArrayColumnReader(r) => read_pages(r, &descr, pages, rows, |v| bytes(v.data())),
        ColumnReader::FixedLenByteArrayColumnReader(r) => read_pages(r, &descr, pages, rows, |v| bytes(v.data())),
    }
}

fn read_pages<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    column: &ColumnDescriptor,
    pages: &[KeyPage],
    rows: &mut impl Rows,
    hash: impl Fn(&T::T) -> u64,
) -> Result<(), Error> {
    let max_def = column.max_def_level();
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    for KeyPage { page, first_row, .. } in pages {
        let all = page.num_values() as usize;
        let unfolds = page.encoding() == Encoding::DELTA_BYTE_ARRAY;
        let bytes = page.buffer().len().max(1);
        let batch = if unfolds { (BATCH_BYTES / bytes).clamp(1, BATCH_VALUES) } else { BATCH_VALUES };
        let mut done = 0;
        while done < all {
            levels.clear();
            values.clear();
            let def_levels = (max_def > 0).then_some(&mut levels);
            let (read, _, _) = reader.read_records(batch.min(all - done), def_levels, None, &mut values)?;
            let row = first_row + done as u64;
            let short = || Error::corrupt("a data page has fewer values than its header says");
            if read == 0 {
                return Err(short());
            }
            if max_def == 0 || values.len() == read {
                for (row, value) in (row..).zip(values.get(..read).ok_or_else(short)?) {
                    rows.take(row, Some(hash(value)));
                }
            } else {
                let mut values = values.iter();
                for (row, level) in (row..).zip(levels.get(..read).ok_or_else(short)?) {
                    let value = if *level < max_def { None } else { Some(values.next().ok_or_else(short)?) };
                    rows.take(row, value.map(&hash));
                }
            }
            done += read;
        }
    }
    Ok(())
}
