//! Layer 3: the answers of several files as one.
//!
//! Knows rows per key in listing order, and how to leave out rows of an encoded answer. It must not know how the
//! answers came about. Every file is asked with the whole row limit, because all are asked at once; what is beyond the
//! limit over all of them is cut here.

use std::sync::Arc;

use alcedo_lookup::answer::{Body, FileAnswer, KeyStatus};
use alcedo_lookup::schema::RowSchema;
use arrow_array::BooleanArray;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_select::filter::filter_record_batch;
use bytes::{BufMut as _, Bytes, BytesMut};

use crate::hot_rows::{HotRow, cut_rows};
use crate::reader::FileVersion;

/// The rows of one version of one file.
#[derive(Debug, Clone)]
pub struct FileRows {
    /// The version.
    pub version: FileVersion,
    /// The rows and what became of each key in this file.
    pub answer: FileAnswer,
}

/// An encoded answer that is not what it should be; a defect of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged;

/// The files that hold rows, or all if `keep_empty`, in the order given, and what became of each key over all of them.
/// Per key at most `row_limit` rows stay.
pub(crate) fn merge(
    answers: Vec<FileRows>,
    keys: usize,
    row_limit: Option<u32>,
    keep_empty: bool,
) -> Result<(Vec<FileRows>, Vec<KeyStatus>), Damaged> {
    let mut statuses = vec![KeyStatus::NotFound; keys];
    let mut rows_left = vec![row_limit.unwrap_or(u32::MAX); keys];
    let mut files = Vec::with_capacity(answers.len());
    for mut file in answers {
        for (merged, status) in statuses.iter_mut().zip(&file.answer.statuses) {
            *merged = later(*merged, *status);
        }
        if row_limit.is_some() {
            let keep = keep(&file.answer.key_index, &mut rows_left, &mut statuses);
            if keep.contains(&false) {
                cut(&mut file.answer, &keep)?;
            }
        }
        if keep_empty || !file.answer.row_number.is_empty() {
            files.push(file);
        }
    }
    Ok((files, statuses))
}

/// The answer of one file of which some keys are hot; `found` holds what was searched for and, per key of it, its index
/// among all keys.
pub(crate) fn join(
    schema: &Arc<RowSchema>,
    hot: &[Option<HotRow>],
    found: Option<(FileAnswer, Vec<u32>)>,
) -> Result<FileAnswer, Damaged> {
    let status = |hot: &Option<HotRow>| hot.as_ref().map_or(KeyStatus::NotFound, HotRow::status);
    let mut statuses: Vec<KeyStatus> = hot.iter().map(status).collect();
    let mut rows = Vec::new();
    for (key, hot) in (0..).zip(hot) {
        let Some(hot) = hot else { continue };
        let cut = cut_rows(&hot.rows, hot.numbers().len()).ok_or(Damaged)?;
        rows.extend(hot.numbers().iter().zip(cut).map(|(number, row)| (*number, key, row)));
    }
    let mut notes = vec![format!("{} of {} keys by hot rows", hot.iter().flatten().count(), hot.len())];
    if let Some((found, keys)) = &found {
        let Body::Compact(body) = &found.body else { return Err(Damaged) };
        let cut = cut_rows(body, found.row_number.len()).ok_or(Damaged)?;
        for ((number, key), row) in found.row_number.iter().zip(&found.key_index).zip(cut) {
            rows.push((*number, *keys.get(*key as usize).ok_or(Damaged)?, row));
        }
        for (key, status) in keys.iter().zip(&found.statuses) {
            *statuses.get_mut(*key as usize).ok_or(Damaged)? = *status;
        }
        notes.extend_from_slice(&found.notes);
    }
    let (key_index, row_number, body) = in_file_order(rows);
    let (schema, body) = (Arc::clone(schema), Body::Compact(body));
    Ok(FileAnswer { schema, key_index, row_number, statuses, body, notes })
}

/// Rows as an answer has them: by their numbers, and by their keys where several have one.
pub(crate) fn in_file_order(mut rows: Vec<(u64, u32, &[u8])>) -> (Vec<u32>, Vec<u64>, Bytes) {
    rows.sort_unstable_by_key(|(number, key, _)| (*number, *key));
    let mut body = BytesMut::with_capacity(rows.iter().map(|(.., row)| row.len()).sum());
    rows.iter().for_each(|(.., row)| body.put_slice(row));
    (rows.iter().map(|(_, key, _)| *key).collect(), rows.iter().map(|(number, ..)| *number).collect(), body.freeze())
}

pub(crate) fn later(merged: KeyStatus, status: KeyStatus) -> KeyStatus {
    match (merged, status) {
        (KeyStatus::Truncated, _) | (_, KeyStatus::Truncated) => KeyStatus::Truncated,
        (KeyStatus::Found, _) | (_, KeyStatus::Found) => KeyStatus::Found,
        _ => KeyStatus::NotFound,
    }
}

/// Which rows stay within what is left of each key's limit.
fn keep(key_index: &[u32], rows_left: &mut [u32], statuses: &mut [KeyStatus]) -> Vec<bool> {
    let within = |key: &u32| {
        let Some(left) = rows_left.get_mut(*key as usize) else { return false };
        if *left > 0 {
            *left -= 1;
            return true;
        }
        if let Some(status) = statuses.get_mut(*key as usize) {
            *status = KeyStatus::Truncated;
        }
        false
    };
    key_index.iter().map(within).collect()
}

fn cut(answer: &mut FileAnswer, keep: &[bool]) -> Result<(), Damaged> {
    if answer.row_number.len() != keep.len() {
        return Err(Damaged);
    }
    answer.body = match &answer.body {
        Body::Compact(rows) => Body::Compact(cut_compact(rows, keep)?),
        Body::ArrowIpc(stream) => Body::ArrowIpc(cut_arrow(stream, keep).map_err(|_| Damaged)?),
        // The pages hold other rows too; which of them are the answer is said by the row numbers.
        Body::Pages(pages) => Body::Pages(pages.clone()),
    };
    let mut kept = keep.iter();
    answer.key_index.retain(|_| kept.next() == Some(&true));
    let mut kept = keep.iter();
    answer.row_number.retain(|_| kept.next() == Some(&true));
    Ok(())
}

/// Compact rows are `length fields` one behind the other (`proto/alcedo/v1/values.proto`).
fn cut_compact(rows: &Bytes, keep: &[bool]) -> Result<Bytes, Damaged> {
    let mut kept = BytesMut::new();
    let mut rest: &[u8] = rows;
    for keep in keep {
        let (mut fields, mut shift, mut prefix) = (0_usize, 0_u32, 0_usize);
        loop {
            let byte = *rest.get(prefix).ok_or(Damaged)?;
            fields |= usize::from(byte & 0x7f).checked_shl(shift).ok_or(Damaged)?;
            (prefix, shift) = (prefix + 1, shift + 7);
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (row, behind) = rest.split_at_checked(prefix.checked_add(fields).ok_or(Damaged)?).ok_or(Damaged)?;
        rest = behind;
        if *keep {
            kept.put_slice(row);
        }
    }
    if rest.is_empty() { Ok(kept.freeze()) } else { Err(Damaged) }
}

fn cut_arrow(stream: &Bytes, keep: &[bool]) -> Result<Bytes, Box<dyn std::error::Error>> {
    let reader = StreamReader::try_new(stream.as_ref(), None)?;
    let mut writer = StreamWriter::try_new(Vec::new(), &reader.schema())?;
    let mut rest = keep;
    for batch in reader {
        let batch = batch?;
        let (here, behind) = rest.split_at_checked(batch.num_rows()).ok_or("more rows than row numbers")?;
        rest = behind;
        writer.write(&filter_record_batch(&batch, &BooleanArray::from(here.to_vec()))?)?;
    }
    Ok(writer.into_inner()?.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use alcedo_cache::FileKey;
    use alcedo_origin::{ContentVersion, FileStat};
    use arrow_array::{Array as _, Int64Array, RecordBatch};

    fn file(key_index: &[u32], body: Body) -> FileRows {
        let url: Arc<str> = "s3://lake/a".into();
        let stat = FileStat { url, version: ContentVersion::new("1"), etag: None, size: 1, modified_us: 0 };
        let version = FileVersion { key: FileKey::new("s3://lake/a", "1"), stat: Arc::new(stat) };
        let mut statuses = vec![KeyStatus::NotFound; 3];
        key_index.iter().for_each(|key| statuses[*key as usize] = KeyStatus::Found);
        let schema = Arc::new(RowSchema::default());
        let row_number = (10..10 + key_index.len() as u64).collect();
        let answer = FileAnswer { schema, key_index: key_index.to_vec(), row_number, statuses, body, notes: vec![] };
        FileRows { version, answer }
    }

    fn compact(rows: &[&[u8]]) -> Body {
        let mut bytes = Vec::new();
        for row in rows {
            bytes.push(row.len() as u8);
            bytes.extend_from_slice(row);
        }
        Body::Compact(bytes.into())
    }

    #[test]
    fn the_row_limit_holds_per_key_over_all_files_in_order() {
        let answers = || {
            vec![
                file(&[0, 1], compact(&[b"\0a", b"\0b"])),
                file(&[], compact(&[])),
                file(&[0, 0, 1], compact(&[b"\0c", b"\0d", b"\0e"])),
                file(&[0], compact(&[b"\0f"])),
            ]
        };
        let (files, statuses) = merge(answers(), 3, Some(2), false).unwrap();
        assert_eq!(statuses, [KeyStatus::Truncated, KeyStatus::Found, KeyStatus::NotFound]);
        assert_eq!(files.len(), 2);
        assert_eq!((&files[1].answer.key_index, &files[1].answer.row_number), (&vec![0, 1], &vec![10, 12]));
        let Body::Compact(rows) = &files[1].answer.body else { panic!() };
        assert_eq!(rows.as_ref(), b"\x02\0c\x02\0e");
        let (files, statuses) = merge(answers(), 3, None, false).unwrap();
        assert_eq!((files.len(), statuses[0]), (3, KeyStatus::Found));
        let (files, statuses) = merge(vec![file(&[], compact(&[]))], 3, Some(2), true).unwrap();
        assert_eq!((files.len(), statuses), (1, vec![KeyStatus::NotFound; 3]));
    }

    #[test]
    fn arrow_rows_are_cut_too() {
        let column: Arc<dyn arrow_array::Array> = Arc::new(Int64Array::from(vec![5, 6, 7]));
        let batch = RecordBatch::try_from_iter([("x", column)]).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        let stream = Bytes::from(writer.into_inner().unwrap());
        let (files, _) = merge(vec![file(&[0, 1, 0], Body::ArrowIpc(stream))], 3, Some(1), false).unwrap();
        let Body::ArrowIpc(stream) = &files[0].answer.body else { panic!() };
        let batches: Vec<_> = StreamReader::try_new(stream.as_ref(), None).unwrap().map(Result::unwrap).collect();
        let kept = batches[0].column(0).as_any().downcast_ref::<Int64Array>().unwrap();
        assert_eq!(kept.values().as_ref(), [5, 6]);
    }

    #[test]
    fn damaged_rows_are_a_defect_not_a_panic() {
        for bytes in [&b"\x05ab"[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x80", b"\x01a\x01"] {
            let damaged = file(&[0, 0], Body::Compact(Bytes::copy_from_slice(bytes)));
            assert!(merge(vec![damaged], 3, Some(1), false).is_err(), "{bytes:?}");
        }
    }
}
