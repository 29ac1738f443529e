//! Layer 3: one answer as the frames that carry it.
//!
//! Knows how an answer's rows are cut: `lookup.proto`, message `AnswerPart`, is the rule. It must not know streams, nor
//! what else is on its way. Each part is made when it is its turn and no sooner: encoding a large answer at once would
//! keep a thread, and everybody on it, for as long as the whole answer takes.

use std::collections::VecDeque;
use std::sync::Arc;

use alcedo_lookup::answer::Body;
use alcedo_lookup::rows::decode_rows;
use alcedo_lookup::schema::RowSchema;
use alcedo_proto::v1::{self, AnswerForm};
use bytes::Bytes;
use prost::Message as _;
use prost::encoding::encoded_len_varint;

use super::convert;
use super::handles::Handles;
use crate::error::Error;
use crate::merge::FileRows;

/// Bytes of a part: what stands behind it waits 2 ms on a line of 1 Gbit/s, and its own overhead is far below a
/// percent.
pub(super) const PART_BYTES: usize = 256 << 10;
/// Of a part, beside the rows of each of its files: handles, tags and lengths.
const FILE_BYTES: usize = 64;
/// Of a row in a list of typed rows, beside the row: its tag and length.
const TYPED_ROW_BYTES: usize = 6;

/// An answer that is handed out frame by frame.
#[derive(Debug)]
pub(super) struct Parts {
    /// The answer without rows.
    end: v1::Answer,
    files: VecDeque<File>,
    part_bytes: usize,
    rows_total: u64,
    bytes_total: u64,
    /// Bytes of rows in the whole answer, whatever they become on the wire.
    held_bytes: usize,
}

/// What comes next of an answer.
#[derive(Debug)]
pub(super) enum Next {
    /// Some of its rows.
    Part(v1::AnswerPart),
    /// The rest of them, and everything else.
    End(v1::Answer),
}

/// What is left of one file's rows.
#[derive(Debug)]
struct File {
    file: u32,
    schema: u32,
    url: Arc<str>,
    key_index: VecDeque<u32>,
    row_number: VecDeque<u64>,
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    /// Compact rows; of the first one, so many bytes belong to a row whose beginning is gone.
    Compact {
        rows: Bytes,
        begun: usize,
    },
    /// Compact rows that travel as typed values.
    Typed {
        rows: Bytes,
        schema: Arc<RowSchema>,
    },
    Arrow(Bytes),
    Pages(v1::Pages),
    PagesPieces(Bytes),
}

/// The number of rows at the beginning of compact rows that fit, and their bytes.
struct Fitting {
    rows: usize,
    bytes: usize,
}

impl Parts {
    /// The frames of an answer whose rows are these.
    pub(super) fn new(
        end: v1::Answer,
        files: Vec<FileRows>,
        form: AnswerForm,
        handles: &mut Handles,
        part_bytes: usize,
    ) -> Self {
        let files: VecDeque<File> = files.into_iter().map(|file| File::new(file, form, handles)).collect();
        let rows_total = files.iter().map(|file| file.row_number.len() as u64).sum();
        let held_bytes = files.iter().map(|file| file.rest.len()).sum();
        let bytes_total = if form == AnswerForm::TypedValues { 0 } else { held_bytes as u64 };
        Self { end, files, part_bytes, rows_total, bytes_total, held_bytes }
    }

    /// Bytes of rows in the whole answer.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The file whose rows come next.
    pub(super) fn subject(&self) -> String {
        self.files.front().map(|file| file.url.to_string()).unwrap_or_default()
    }

    /// The next frame; the one that ends the answer comes once.
    ///
    /// # Errors
    /// The rows are not what they should be: a defect of the program.
    pub(super) fn next(&mut self) -> Result<Next, Error> {
        #[cfg(test)]
        crate::panics::here(&self.subject(), "encode", false);
        let files = self.fill()?;
        if self.files.is_empty() {
            return Ok(Next::End(v1::Answer { files, ..std::mem::take(&mut self.end) }));
        }
        let number = self.end.parts;
        self.end.parts += 1;
        let (rows_total, bytes_total) = if number == 0 { (self.rows_total, self.bytes_total) } else { (0, 0) };
        Ok(Next::Part(v1::AnswerPart { number, files, rows_total, bytes_total }))
    }

    /// As many rows as fit into a part, at least something.
    fn fill(&mut self) -> Result<Vec<v1::FileRows>, Error> {
        let (mut filled, mut room) = (Vec::new(), self.part_bytes);
        while let Some(file) = self.files.front_mut() {
            let Some((piece, bytes)) = file.piece(room, filled.is_empty())? else { break };
            filled.push(piece);
            if !file.is_done() {
                break;
            }
            self.files.pop_front();
            match room.checked_sub(bytes.saturating_add(FILE_BYTES)) {
                Some(left) => room = left,
                None => break,
            }
        }
        Ok(filled)
    }
}

impl File {
    fn new(file: FileRows, form: AnswerForm, handles: &mut Handles) -> Self {
        let FileRows { version, answer } = file;
        let says_something = answer.key_index.iter().any(|key| *key != 0);
        Self {
            file: handles.file(&version),
            schema: handles.schema(&answer.schema),
            url: Arc::clone(&version.stat.url),
            key_index: if says_something { answer.key_index.into() } else { VecDeque::new() },
            row_number: answer.row_number.into(),
            rest: match answer.body {
                Body::Compact(rows) if form == AnswerForm::TypedValues => Rest::Typed { rows, schema: answer.schema },
                Body::Compact(rows) => Rest::Compact { rows, begun: 0 },
                Body::ArrowIpc(stream) => Rest::Arrow(stream),
                Body::Pages(pages) => Rest::Pages(convert::pages(pages)),
            },
        }
    }

    fn is_done(&self) -> bool {
        self.row_number.is_empty() && self.rest.len() == 0
    }

    /// What of the file fits into `room` and how many bytes it is. None if that is nothing, and the part holds
    /// something else already.
    fn piece(&mut self, room: usize, is_first: bool) -> Result<Option<(v1::FileRows, usize)>, Error> {
        let mut piece = v1::FileRows { file: self.file, schema: self.schema, ..v1::FileRows::default() };
        let numbers = self.numbers_bytes();
        if let Rest::Pages(pages) = &mut self.rest {
            let bytes = pages.encoded_len().saturating_add(numbers);
            if bytes <= room {
                piece.pages = Some(std::mem::take(pages));
                self.take_numbers(&mut piece, self.row_number.len());
                return Ok(Some((piece, bytes)));
            }
            self.rest = Rest::PagesPieces(pages.encode_to_vec().into());
        }
        let bytes = match &self.rest {
            Rest::Compact { .. } => self.compact(&mut piece, room, is_first)?,
            Rest::Typed { .. } => self.typed(&mut piece, room, is_first)?,
            Rest::Arrow(_) | Rest::PagesPieces(_) | Rest::Pages(_) => self.bytes(&mut piece, room),
        };
        Ok((is_first || bytes > 0 || self.is_done()).then_some((piece, bytes)))
    }

    /// Whole rows; of a row that is larger than a part, as much as fits.
    fn compact(&mut self, piece: &mut v1::FileRows, room: usize, is_first: bool) -> Result<usize, Error> {
        let Rest::Compact { rows, begun } = &self.rest else { return Ok(0) };
        if *begun > 0 {
            let taken = room.min(*begun);
            self.take_compact(piece, 0, taken, *begun - taken);
            return Ok(taken);
        }
        let all = rows.len().saturating_add(self.numbers_bytes());
        if all <= room {
            self.take_compact(piece, self.row_number.len(), rows.len(), 0);
            return Ok(all);
        }
        let fitting = self.fitting(rows, room)?;
        if fitting.rows == 0 && is_first {
            let (row, taken) = (self.first_row(rows)?, room.max(1));
            // The number goes with the row's beginning.
            self.take_compact(piece, 1, taken.min(row), row.saturating_sub(taken));
            return Ok(taken);
        }
        let numbers: usize = (0..fitting.rows).map(|row| self.number_bytes(row)).sum();
        self.take_compact(piece, fitting.rows, fitting.bytes, 0);
        Ok(fitting.bytes + numbers)
    }

    fn take_compact(&mut self, piece: &mut v1::FileRows, numbers: usize, bytes: usize, left: usize) {
        self.take_numbers(piece, numbers);
        if let Rest::Compact { rows, begun } = &mut self.rest {
            piece.compact = rows.split_to(bytes.min(rows.len()));
            *begun = left;
        }
    }

    fn fitting(&self, rows: &Bytes, room: usize) -> Result<Fitting, Error> {
        let (mut fitting, mut left) = (Fitting { rows: 0, bytes: 0 }, room);
        while fitting.rows < self.row_number.len() {
            let row = self.first_row(rows.get(fitting.bytes..).unwrap_or_default())?;
            match left.checked_sub(row + self.number_bytes(fitting.rows)) {
                Some(rest) => left = rest,
                None => break,
            }
            fitting = Fitting { rows: fitting.rows + 1, bytes: fitting.bytes + row };
        }
        Ok(fitting)
    }

    /// Bytes of the first of these compact rows, its length included.
    fn first_row(&self, rows: &[u8]) -> Result<usize, Error> {
        let mut rest = rows;
        let length = prost::encoding::decode_varint(&mut rest).ok().and_then(|length| usize::try_from(length).ok());
        match length {
            Some(length) if length <= rest.len() => Ok(rows.len() - rest.len() + length),
            _ => Err(self.damaged()),
        }
    }

    /// Whole rows, at least one if the part is empty.
    fn typed(&mut self, piece: &mut v1::FileRows, room: usize, is_first: bool) -> Result<usize, Error> {
        let Rest::Typed { rows, schema } = &self.rest else { return Ok(0) };
        if self.row_number.is_empty() && !rows.is_empty() {
            return Err(self.damaged());
        }
        let (mut taken, mut bytes) = (0, 0_usize);
        while piece.typed.len() < self.row_number.len() {
            let row = self.first_row(rows.get(taken..).unwrap_or_default())?;
            let decoded = decode_rows(schema, &rows.slice(taken..taken + row)).map_err(|_| self.damaged())?;
            let values = decoded.into_iter().flatten().map(convert::value).collect();
            let typed = v1::TypedRow { values };
            let more = typed.encoded_len() + TYPED_ROW_BYTES + self.number_bytes(piece.typed.len());
            let fits = bytes.saturating_add(more) <= room;
            if !(fits || is_first && piece.typed.is_empty()) {
                break;
            }
            (taken, bytes) = (taken + row, bytes + more);
            piece.typed.push(typed);
            if !fits {
                break;
            }
        }
        self.take_numbers(piece, piece.typed.len());
        if let Rest::Typed { rows, .. } = &mut self.rest {
            let _ = rows.split_to(taken.min(rows.len()));
        }
        Ok(bytes)
    }

    /// Numbers first, then bytes.
    fn bytes(&mut self, piece: &mut v1::FileRows, room: usize) -> usize {
        let (mut numbers, mut left) = (0, room);
        while numbers < self.row_number.len() {
            match left.checked_sub(self.number_bytes(numbers)) {
                Some(rest) => left = rest,
                None => break,
            }
            numbers += 1;
        }
        self.take_numbers(piece, numbers);
        if !self.row_number.is_empty() {
            return room - left;
        }
        let target = match &mut self.rest {
            Rest::Arrow(bytes) => Some((bytes, &mut piece.arrow_ipc)),
            Rest::PagesPieces(bytes) => Some((bytes, &mut piece.pages_piece)),
            Rest::Compact { .. } | Rest::Typed { .. } | Rest::Pages(_) => None,
        };
        if let Some((bytes, target)) = target {
            *target = bytes.split_to(left.min(bytes.len()));
            left -= target.len();
        }
        room - left
    }

    /// Moves the numbers of the next rows.
    fn take_numbers(&mut self, piece: &mut v1::FileRows, rows: usize) {
        piece.row_number = first(&mut self.row_number, rows);
        piece.key_index = first(&mut self.key_index, rows);
    }

    /// Upper bound of what the numbers of all rows take: their lists' own tags are counted with the file.
    fn numbers_bytes(&self) -> usize {
        let largest = self.row_number.iter().max().copied().unwrap_or_default();
        let keys = self.key_index.len().saturating_mul(encoded_len_varint(u32::MAX.into()));
        self.row_number.len().saturating_mul(encoded_len_varint(largest)).saturating_add(keys)
    }

    fn number_bytes(&self, row: usize) -> usize {
        let number = |number: Option<u64>| number.map_or(0, encoded_len_varint);
        number(self.row_number.get(row).copied()) + number(self.key_index.get(row).map(|key| u64::from(*key)))
    }

    fn damaged(&self) -> Error {
        Error::Bug { subject: self.url.to_string(), what: "an answer's rows are damaged" }
    }
}

impl Rest {
    fn len(&self) -> usize {
        match self {
            Self::Compact { rows, .. } | Self::Typed { rows, .. } => rows.len(),
            Self::Arrow(bytes) | Self::PagesPieces(bytes) => bytes.len(),
            Self::Pages(pages) => pages.encoded_len(),
        }
    }
}

/// The first so many; all of them without a copy.
fn first<T>(all: &mut VecDeque<T>, count: usize) -> Vec<T> {
    if count >= all.len() { std::mem::take(all).into() } else { all.drain(..count).collect() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use alcedo_lookup::answer::FileAnswer;
    use alcedo_lookup::schema::Column;
    use alcedo_origin::{ContentVersion, FileStat};
    use alcedo_proto::v1::value;

    use crate::reader::FileVersion;

    fn file(types: &[&str], body: Body, key_index: Vec<u32>, row_number: Vec<u64>) -> FileRows {
        let column = |(i, ty): (usize, &&str)| Column { name: format!("c{i}"), ty: ty.parse().unwrap() };
        let schema = Arc::new(RowSchema { columns: types.iter().enumerate().map(column).collect() });
        let stat = FileStat {
            url: "s3://lake/a".into(),
            version: ContentVersion::new("e:1"),
            etag: None,
            size: 9,
            modified_us: 0,
        };
        let answer = FileAnswer { schema, key_index, row_number, statuses: vec![], body, notes: vec![] };
        FileRows { version: FileVersion::new(stat), answer }
    }

    fn compact(types: &[&str], rows: &[u8], key_index: Vec<u32>) -> FileRows {
        let row_number = (0..key_index.len() as u64).collect();
        file(types, Body::Compact(Bytes::copy_from_slice(rows)), key_index, row_number)
    }

    fn frames(files: Vec<FileRows>, form: AnswerForm, part_bytes: usize) -> (Vec<v1::AnswerPart>, v1::Answer) {
        let mut parts = Parts::new(v1::Answer::default(), files, form, &mut Handles::default(), part_bytes);
        let mut sent = Vec::new();
        loop {
            match parts.next().unwrap() {
                Next::Part(part) => sent.push(part),
                Next::End(answer) => return (sent, answer),
            }
        }
    }

    fn whole(file: FileRows, form: AnswerForm) -> v1::FileRows {
        let (parts, mut answer) = frames(vec![file], form, usize::MAX);
        assert!(parts.is_empty());
        answer.files.remove(0)
    }

    #[test]
    fn typed_values_follow_the_contract() {
        let types =
            ["bool", "date32", "uint8", "string", "uuid", "decimal(9,2)", "list<int8>", "map<string,bool>", "null"];
        let row: &[u8] = b"\x00\x01\x01\x07\0\0\0\xff\x02hi\x6f\x1c\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\
            \x1e\xfb\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\x02\x05\x01\0\x01k\0\x01";
        let mut bytes = vec![row.len() as u8];
        bytes.extend_from_slice(row);
        let typed = whole(compact(&types, &bytes, vec![0]), AnswerForm::TypedValues);
        let kinds: Vec<value::Kind> = typed.typed[0].values.iter().map(|value| value.kind.clone().unwrap()).collect();
        assert_eq!(kinds[..3], [value::Kind::Bool(true), value::Kind::Int(7), value::Kind::Uint(255)]);
        assert_eq!(kinds[3], value::Kind::String("hi".to_owned()));
        assert_eq!(kinds[4], value::Kind::String("6f1c0000-0000-0000-0000-000000000001".to_owned()));
        assert_eq!(kinds[5], value::Kind::String("-12.50".to_owned()));
        let value::Kind::List(list) = &kinds[6] else { panic!() };
        assert_eq!(list.values[1].kind, Some(value::Kind::Null(true)));
        let value::Kind::Map(map) = &kinds[7] else { panic!() };
        assert_eq!((map.keys.len(), map.values[0].kind.clone()), (1, Some(value::Kind::Bool(true))));
        assert_eq!(kinds[8], value::Kind::Null(true));
        assert!(typed.compact.is_empty() && typed.key_index.is_empty());
    }

    #[test]
    fn key_indexes_are_sent_only_where_they_say_something() {
        let sent = |key_index| {
            whole(compact(&["bool"], b"\x02\0\x01\x02\0\x01", key_index), AnswerForm::CompactRows).key_index
        };
        assert!(sent(vec![0, 0]).is_empty());
        assert_eq!(sent(vec![0, 1]), [0, 1]);
    }

    /// Eight rows of one int64, of 10 bytes each, and their numbers of 1 byte.
    fn eight() -> FileRows {
        let rows: Vec<u8> = (0..8_u8).flat_map(|row| [9, 0, row, 0, 0, 0, 0, 0, 0, 0]).collect();
        compact(&["int64"], &rows, vec![0; 8])
    }

    fn numbers(part: &v1::AnswerPart) -> Vec<u64> {
        part.files.iter().flat_map(|rows| rows.row_number.clone()).collect()
    }

    #[test]
    fn compact_rows_are_cut_between_rows_and_the_first_part_says_how_many_there_are() {
        let (parts, end) = frames(vec![eight()], AnswerForm::CompactRows, 35);
        assert_eq!(parts.iter().map(numbers).collect::<Vec<_>>(), [vec![0, 1, 2], vec![3, 4, 5]]);
        assert_eq!((&parts[1].files[0].compact[2], parts[1].files[0].compact.len()), (&3, 30));
        assert_eq!(parts.iter().map(|part| part.number).collect::<Vec<_>>(), [0, 1]);
        let totals = parts.iter().map(|part| (part.rows_total, part.bytes_total));
        assert_eq!(totals.collect::<Vec<_>>(), [(8, 80), (0, 0)]);
        assert_eq!((end.parts, end.files[0].row_number.as_slice(), end.files[0].compact.len()), (2, &[6, 7][..], 20));
        let (parts, end) = frames(vec![eight()], AnswerForm::CompactRows, 88);
        assert_eq!((parts.len(), end.parts, end.files[0].row_number.len()), (0, 0, 8));
    }

    #[test]
    fn a_row_that_is_larger_than_a_part_goes_on_in_the_next_ones() {
        let row: Vec<u8> = [&[41, 0, 39][..], &[b'x'; 39]].concat();
        let rows = [&[2, 1, 0][..], &row, &[2, 1, 0]].concat();
        let (parts, end) = frames(vec![compact(&["string"], &rows, vec![0; 3])], AnswerForm::CompactRows, 16);
        assert_eq!(parts.iter().map(numbers).collect::<Vec<_>>(), [vec![0], vec![1], vec![], vec![]]);
        let bytes = |part: &v1::AnswerPart| part.files[0].compact.clone();
        let lengths: Vec<usize> = parts.iter().map(|part| bytes(part).len()).collect();
        assert_eq!((lengths, end.files[0].compact.len()), (vec![3, 16, 16, 10], 3));
        let all: Vec<u8> = parts.iter().map(bytes).chain([end.files[0].compact.clone()]).flatten().collect();
        assert_eq!(all, rows);
    }

    #[test]
    fn typed_rows_stay_whole_and_small_files_share_a_part() {
        let (parts, end) = frames(vec![eight()], AnswerForm::TypedValues, 30);
        assert!(parts.len() > 2 && parts.iter().all(|part| !part.files[0].typed.is_empty()), "{parts:?}");
        let typed = parts.iter().flat_map(|part| &part.files).chain(&end.files).flat_map(|rows| &rows.typed);
        let values: Vec<_> = typed.map(|row| row.values[0].kind.clone().unwrap()).collect();
        assert_eq!(values, (0..8).map(value::Kind::Int).collect::<Vec<_>>());
        assert_eq!((parts[0].rows_total, parts[0].bytes_total), (8, 0));
        // One row is larger than a part of no bytes, and goes whole.
        assert_eq!(frames(vec![eight()], AnswerForm::TypedValues, 1).0.len(), 7);
        let (parts, end) = frames(vec![eight(), eight(), eight()], AnswerForm::CompactRows, 2 * (88 + FILE_BYTES) + 30);
        assert_eq!(parts.iter().map(|part| part.files.len()).collect::<Vec<_>>(), [3]);
        assert_eq!((numbers(&parts[0]).len(), end.files[0].row_number.len()), (18, 6));
    }

    #[test]
    fn streams_and_data_pages_are_cut_anywhere_after_their_numbers() {
        let stream: Vec<u8> = (0..100).collect();
        let arrow = file(&["int8"], Body::ArrowIpc(stream.clone().into()), vec![1; 5], vec![0, 1, 2, 3, 300]);
        let (parts, end) = frames(vec![arrow], AnswerForm::ArrowIpc, 8);
        assert_eq!(parts.iter().map(numbers).take(3).collect::<Vec<_>>(), [vec![0, 1, 2, 3], vec![300], vec![]]);
        assert_eq!((parts[0].files[0].key_index.len(), parts[0].files[0].arrow_ipc.len()), (4, 0));
        let pieces = parts.iter().flat_map(|part| &part.files).chain(&end.files);
        assert_eq!(pieces.flat_map(|rows| rows.arrow_ipc.clone()).collect::<Vec<u8>>(), stream);
        let page = alcedo_lookup::answer::DataPage { first_row: 0, rows: 5, page: stream.into() };
        let chunk = alcedo_lookup::answer::PagesChunk {
            first_row: 0,
            rows: 5,
            dictionary: Bytes::new(),
            data_pages: vec![page],
            aligned: true,
        };
        let column = alcedo_lookup::answer::PagesColumn { leaf: 0, codec: 0, chunks: vec![chunk] };
        let pages = alcedo_lookup::answer::Pages { parquet_schema: vec![1].into(), columns: vec![column] };
        let message = convert::pages(pages.clone());
        let asked = || file(&["int8"], Body::Pages(pages.clone()), vec![0; 5], vec![0, 1, 2, 3, 4]);
        let (parts, end) = frames(vec![asked()], AnswerForm::Pages, 50);
        assert_eq!(parts[0].bytes_total, message.encoded_len() as u64);
        let pieces = parts.iter().flat_map(|part| &part.files).chain(&end.files);
        let joined: Vec<u8> = pieces.flat_map(|rows| rows.pages_piece.clone()).collect();
        assert_eq!(v1::Pages::decode(joined.as_slice()).unwrap(), message);
        assert_eq!(whole(asked(), AnswerForm::Pages).pages, Some(message));
    }

    #[test]
    fn damaged_rows_are_a_defect_not_a_panic() {
        for bytes in [&b"\x05ab"[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x80"] {
            for form in [AnswerForm::CompactRows, AnswerForm::TypedValues] {
                let damaged = compact(&["int64"], bytes, vec![0]);
                let mut parts = Parts::new(v1::Answer::default(), vec![damaged], form, &mut Handles::default(), 1);
                assert!(matches!(parts.next(), Err(Error::Bug { .. })), "{bytes:?}");
            }
        }
    }
}
