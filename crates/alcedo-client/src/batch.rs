//! The answers of several lookups that came in one message, and each one's part of them.
//!
//! Knows compact rows only as far as their lengths: one pass finds where each lookup's rows are, on the task that reads
//! the stream; what is in them is each caller's to decode. A worker's numbers are checked, not believed.

use std::ops::Range;
use std::sync::Arc;

use alcedo_proto::v1 as pb;
use bytes::Bytes;

use crate::handles::Named;

/// Several answers.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Without its rows.
    pub(crate) answer: pb::Answer,
    pub(crate) files: Vec<Rows>,
    /// The rows, lookup by lookup: file and place in it.
    rows: Vec<(u32, u32)>,
    /// Where each lookup's rows end in `rows`.
    ends: Vec<u32>,
}

/// The rows of one file.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) named: Named,
    row_number: Vec<u64>,
    compact: Bytes,
    /// Where each row ends in `compact`.
    ends: Vec<usize>,
}

/// One lookup's part of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pub(crate) batch: Arc<Batch>,
    /// Its number in the batch.
    pub(crate) number: usize,
}

impl Batch {
    /// Finds each lookup's rows.
    ///
    /// # Errors
    /// What is wrong with the message.
    pub(crate) fn new(lookups: usize, mut answer: pb::Answer, named: Vec<Named>) -> Result<Self, String> {
        if answer.statuses.len() != lookups {
            return Err(format!("{} key statuses for {lookups} lookups", answer.statuses.len()));
        }
        if answer.parts != 0 {
            return Err("the answers of several lookups in parts".to_owned());
        }
        let mut files = Vec::with_capacity(answer.files.len());
        // Which lookup each row belongs to, file by file.
        let mut owners = Vec::with_capacity(answer.files.len());
        for (rows, named) in std::mem::take(&mut answer.files).into_iter().zip(named) {
            let url = Arc::clone(&named.file.url);
            let (rows, owner) =
                Rows::new(rows, named, lookups).map_err(|what| format!("rows of {url} that cannot be read: {what}"))?;
            files.push(rows);
            owners.push(owner);
        }
        let (rows, ends) = by_lookup(lookups, &owners);
        Ok(Self { answer, files, rows, ends })
    }

    /// The rows of one lookup, in the order of the files and of the rows in them.
    fn rows_of(&self, number: usize) -> &[(u32, u32)] {
        let end = |number: usize| self.ends.get(number).map_or(0, |end| *end as usize);
        let start = number.checked_sub(1).map_or(0, end);
        self.rows.get(start..end(number)).unwrap_or_default()
    }
}

/// Counts each lookup's rows, then puts them in their places.
fn by_lookup(lookups: usize, owners: &[Vec<u32>]) -> (Vec<(u32, u32)>, Vec<u32>) {
    let mut next = vec![0_u32; lookups];
    for owner in owners.iter().flatten() {
        if let Some(count) = next.get_mut(*owner as usize) {
            *count += 1;
        }
    }
    let mut total = 0;
    for count in &mut next {
        total += std::mem::replace(count, total);
    }
    let mut rows = vec![(0, 0); total as usize];
    for (file, owners) in (0..).zip(owners) {
        for (row, owner) in (0..).zip(owners) {
            let Some(place) = next.get_mut(*owner as usize) else { continue };
            if let Some(slot) = rows.get_mut(*place as usize) {
                *slot = (file, row);
            }
            *place += 1;
        }
    }
    // Each lookup's next place is now its end.
    (rows, next)
}

impl Rows {
    /// The rows of one file, and the lookup that each belongs to.
    fn new(rows: pb::FileRows, named: Named, lookups: usize) -> Result<(Self, Vec<u32>), String> {
        let pb::FileRows { key_index, row_number, compact, typed, arrow_ipc, pages, .. } = rows;
        if !typed.is_empty() || !arrow_ipc.is_empty() || pages.is_some() {
            return Err("they are in a form in which several lookups are not answered together".to_owned());
        }
        let count = row_number.len();
        let owner = if key_index.is_empty() { vec![0; count] } else { key_index };
        if owner.len() != count {
            return Err(format!("{} key indexes stand for {count} rows", owner.len()));
        }
        if let Some(index) = owner.iter().find(|index| **index as usize >= lookups) {
            return Err(format!("a row belongs to key {index} of {lookups}"));
        }
        if !row_number.is_sorted() {
            return Err("the rows are not in file order".to_owned());
        }
        let ends = ends(&compact, count).ok_or("compact rows are damaged: a row ends beyond them")?;
        if ends.len() != count {
            return Err(format!("{} rows have {count} row numbers", ends.len()));
        }
        Ok((Self { named, row_number, compact, ends }, owner))
    }

    /// Whether no lookup has a row here.
    pub(crate) fn is_empty(&self) -> bool {
        self.row_number.is_empty()
    }

    fn range(&self, row: usize) -> Range<usize> {
        let end = |row: usize| self.ends.get(row).copied().unwrap_or_default();
        row.checked_sub(1).map_or(0, end)..end(row)
    }
}

/// Where each row ends; none if the last one does not end with the bytes. At most one row more than `expected` is
/// looked at.
fn ends(compact: &[u8], expected: usize) -> Option<Vec<usize>> {
    let (mut ends, mut at) = (Vec::with_capacity(expected.min(compact.len())), 0);
    while at < compact.len() && ends.len() <= expected {
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let byte = *compact.get(at)?;
            at += 1;
            // A length of more than 32 bits is longer than any message.
            if shift > 28 {
                return None;
            }
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        at = at.checked_add(length).filter(|at| *at <= compact.len())?;
        ends.push(at);
    }
    Some(ends)
}

impl Share {
    /// What became of its key.
    pub(crate) fn status(&self) -> i32 {
        self.batch.answer.statuses.get(self.number).copied().unwrap_or_default()
    }

    /// The rows of one file: their numbers and bytes, in file order.
    pub(crate) fn rows_of(&self, file: usize) -> impl Iterator<Item = (u64, Bytes)> + '_ {
        let rows = self.batch.files.get(file);
        let own = self.batch.rows_of(self.number).iter().filter(move |(of, _)| *of as usize == file);
        own.filter_map(move |(_, row)| {
            let (rows, row) = (rows?, *row as usize);
            Some((*rows.row_number.get(row)?, rows.compact.slice(rows.range(row))))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::handles::FileVersion;
    use alcedo_lookup::schema::RowSchema;

    fn named(url: &str) -> Named {
        let file = FileVersion { url: url.into(), version: "v".into() };
        Named { file, schema: Arc::new(RowSchema { columns: Vec::new() }) }
    }

    fn rows(key_index: &[u32], row_number: &[u64], compact: &'static [u8]) -> pb::FileRows {
        pb::FileRows {
            key_index: key_index.to_vec(),
            row_number: row_number.to_vec(),
            compact: compact.into(),
            ..Default::default()
        }
    }

    fn batch(files: Vec<pb::FileRows>) -> Result<Arc<Batch>, String> {
        let named = files.iter().map(|_| named("s3://a")).collect();
        Batch::new(3, pb::Answer { files, statuses: vec![1, 0, 1], ..Default::default() }, named).map(Arc::new)
    }

    #[test]
    fn each_lookup_gets_its_own_rows_in_file_order() {
        let one = rows(&[2, 0, 2], &[4, 5, 9], &[1, b'a', 2, b'b', b'c', 0]);
        let batch = batch(vec![one, rows(&[0], &[1], &[1, b'd']), rows(&[], &[], &[])]).unwrap();
        let of = |number, file| -> Vec<(u64, Bytes)> {
            let share = Share { batch: Arc::clone(&batch), number };
            share.rows_of(file).collect()
        };
        assert_eq!(of(0, 0), [(5, Bytes::from_static(&[2, b'b', b'c']))]);
        assert_eq!(of(0, 1), [(1, Bytes::from_static(&[1, b'd']))]);
        assert_eq!(of(2, 0), [(4, Bytes::from_static(&[1, b'a'])), (9, Bytes::from_static(&[0]))]);
        assert!(of(1, 0).is_empty() && of(2, 1).is_empty() && of(0, 2).is_empty());
        let status = |number| Share { batch: Arc::clone(&batch), number }.status();
        assert_eq!([status(0), status(1), status(2)], [1, 0, 1]);
    }

    #[test]
    fn a_batch_that_contradicts_itself_is_none() {
        let typed = pb::FileRows { typed: vec![pb::TypedRow::default()], ..rows(&[0], &[0], &[]) };
        for (rows, what) in [
            (rows(&[0], &[0], &[2, b'a']), "a row ends beyond them"),
            (rows(&[0], &[0], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), "a row ends beyond them"),
            (rows(&[0], &[0], &[0, 0, 0, 0]), "2 rows have 1 row numbers"),
            (rows(&[0, 1], &[0, 1], &[0]), "1 rows have 2 row numbers"),
            (rows(&[3], &[0], &[0]), "a row belongs to key 3 of 3"),
            (rows(&[0], &[0, 1], &[0, 0]), "1 key indexes stand for 2 rows"),
            (rows(&[0, 0], &[1, 0], &[0, 0]), "not in file order"),
            (typed, "in a form in which"),
        ] {
            let error = batch(vec![rows]).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
        let short = pb::Answer { statuses: vec![1], ..Default::default() };
        assert_eq!(Batch::new(2, short, Vec::new()).unwrap_err(), "1 key statuses for 2 lookups");
    }
}
