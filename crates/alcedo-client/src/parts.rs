//! A large answer that comes in parts: gathered as they arrive, put together when it ends.
//!
//! Knows what must hold between the parts of one answer (`proto/alcedo/v1/lookup.proto`, message `AnswerPart`); a
//! worker's numbers are checked, not believed. It must not know streams, and the rows themselves are `decode`'s to
//! check.

use alcedo_proto::v1 as pb;
use bytes::{Bytes, BytesMut};
use prost::Message as _;

/// Most bytes of one answer that are gathered: four times what a worker answers with unless it is configured otherwise
/// (lookup.answer_bytes), row numbers included.
pub(crate) const MAX_ANSWER_BYTES: usize = 256 << 20;

/// What has come of an answer so far.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    files: Vec<pb::FileRows>,
    count: u32,
    /// What was said in the first part, and what has come.
    rows_total: u64,
    bytes_total: u64,
    rows: u64,
    bytes: u64,
    /// Bytes of all messages.
    held_bytes: usize,
}

/// Why the parts make no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It has more bytes than this side takes.
    TooLarge,
    /// The worker's messages contradict each other.
    Message(String),
}

impl From<String> for Broken {
    fn from(what: String) -> Self {
        Self::Message(what)
    }
}

impl Parts {
    /// Takes the next part.
    pub(crate) fn add(&mut self, part: pb::AnswerPart) -> Result<(), Broken> {
        if part.number != self.count {
            return Err(format!("part {} came where part {} was due", part.number, self.count).into());
        }
        self.held_bytes = self.held_bytes.saturating_add(part.encoded_len());
        if part.number == 0 {
            (self.rows_total, self.bytes_total) = (part.rows_total, part.bytes_total);
        }
        if self.held_bytes > MAX_ANSWER_BYTES || self.bytes_total > MAX_ANSWER_BYTES as u64 {
            return Err(Broken::TooLarge);
        }
        self.count += 1;
        self.count_rows(&part.files)?;
        self.files.extend(part.files);
        Ok(())
    }

    /// The whole answer, once its last frame is here.
    pub(crate) fn end(mut self, mut answer: pb::Answer) -> Result<pb::Answer, Broken> {
        if answer.parts != self.count {
            return Err(format!("the answer ended after {} of {} parts", self.count, answer.parts).into());
        }
        if self.count == 0 {
            return Ok(answer);
        }
        self.count_rows(&answer.files)?;
        if self.rows != self.rows_total || (self.bytes_total > 0 && self.bytes != self.bytes_total) {
            return Err(self.otherwise());
        }
        self.files.append(&mut answer.files);
        answer.files = join(self.files)?;
        Ok(answer)
    }

    fn count_rows(&mut self, files: &[pb::FileRows]) -> Result<(), Broken> {
        for rows in files {
            self.rows += rows.row_number.len() as u64;
            let pages = rows.pages.as_ref().map_or(0, pb::Pages::encoded_len);
            self.bytes += (rows.compact.len() + rows.arrow_ipc.len() + rows.pages_piece.len() + pages) as u64;
        }
        let too_many = self.rows > self.rows_total || (self.bytes_total > 0 && self.bytes > self.bytes_total);
        if too_many { Err(self.otherwise()) } else { Ok(()) }
    }

    fn otherwise(&self) -> Broken {
        let Self { rows, bytes, rows_total, bytes_total, .. } = self;
        format!("{rows} rows of {bytes} bytes came where {rows_total} rows of {bytes_total} bytes were announced")
            .into()
    }
}

/// One file's rows in the making.
#[derive(Default)]
struct Whole {
    rows: pb::FileRows,
    compact: Vec<Bytes>,
    arrow_ipc: Vec<Bytes>,
    pages: Vec<Bytes>,
}

/// Puts the pieces of each file together.
fn join(pieces: Vec<pb::FileRows>) -> Result<Vec<pb::FileRows>, Broken> {
    let mut wholes: Vec<Whole> = Vec::new();
    for mut piece in pieces {
        let is_next = |whole: &&mut Whole| whole.rows.file == piece.file && whole.rows.schema == piece.schema;
        let whole = match wholes.last_mut().filter(is_next) {
            Some(whole) => whole,
            None => {
                let rows = pb::FileRows { file: piece.file, schema: piece.schema, ..Default::default() };
                wholes.push(Whole { rows, ..Whole::default() });
                let Some(whole) = wholes.last_mut() else { continue };
                whole
            }
        };
        whole.rows.key_index.append(&mut piece.key_index);
        whole.rows.row_number.append(&mut piece.row_number);
        whole.rows.typed.append(&mut piece.typed);
        whole.compact.extend(filled(piece.compact));
        whole.arrow_ipc.extend(filled(piece.arrow_ipc));
        whole.pages.extend(filled(piece.pages_piece));
        if piece.pages.is_some() && whole.rows.pages.replace(piece.pages.unwrap_or_default()).is_some() {
            return Err("the data pages of one file came twice".to_owned().into());
        }
    }
    wholes.into_iter().map(Whole::end).collect()
}

impl Whole {
    fn end(mut self) -> Result<pb::FileRows, Broken> {
        self.rows.compact = joined(self.compact);
        self.rows.arrow_ipc = joined(self.arrow_ipc);
        if !self.pages.is_empty() {
            let pages = pb::Pages::decode(joined(self.pages));
            let pages = pages.map_err(|error| Broken::Message(format!("data pages cannot be read: {error}")))?;
            if self.rows.pages.replace(pages).is_some() {
                return Err("the data pages of one file came twice".to_owned().into());
            }
        }
        Ok(self.rows)
    }
}

fn filled(bytes: Bytes) -> Option<Bytes> {
    (!bytes.is_empty()).then_some(bytes)
}

/// All of them as one; each is let go of once it is copied.
fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() <= 1 {
        return pieces.pop().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.into_iter().for_each(|piece| whole.extend_from_slice(&piece));
    whole.freeze()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rows(file: u32, numbers: &[u64], compact: &'static [u8]) -> pb::FileRows {
        pb::FileRows { file, schema: 1, row_number: numbers.to_vec(), compact: compact.into(), ..Default::default() }
    }

    fn part(number: u32, files: Vec<pb::FileRows>) -> pb::AnswerPart {
        let (rows_total, bytes_total) = if number == 0 { (4, 10) } else { (0, 0) };
        pb::AnswerPart { number, files, rows_total, bytes_total }
    }

    fn gathered(parts: Vec<pb::AnswerPart>, end: pb::Answer) -> Result<pb::Answer, Broken> {
        let mut gathered = Parts::default();
        parts.into_iter().try_for_each(|part| gathered.add(part))?;
        gathered.end(end)
    }

    fn end(parts: u32, files: Vec<pb::FileRows>) -> pb::Answer {
        pb::Answer { parts, files, ring_epoch: 7, ..Default::default() }
    }

    #[test]
    fn pieces_of_one_file_become_one() {
        let first = part(0, vec![rows(1, &[4], b"ab"), rows(2, &[0], b"c")]);
        let answer =
            gathered(vec![first, part(1, vec![rows(2, &[], b"def")])], end(2, vec![rows(2, &[3, 9], b"ghij")]));
        let answer = answer.unwrap();
        assert_eq!(answer.files, [rows(1, &[4], b"ab"), rows(2, &[0, 3, 9], b"cdefghij")]);
        assert_eq!(answer.ring_epoch, 7);
    }

    #[test]
    fn data_pages_come_whole_or_in_pieces_but_once() {
        let pages = pb::Pages { parquet_schema: vec![7; 9], columns: vec![pb::PagesColumn::default()] };
        let encoded = Bytes::from(pages.encode_to_vec());
        let piece = |at: std::ops::Range<usize>| pb::FileRows { pages_piece: encoded.slice(at), ..rows(1, &[], b"") };
        let whole = pb::FileRows { pages: Some(pages.clone()), ..rows(1, &[], b"") };
        let joined = join(vec![rows(1, &[5], b""), piece(0..4), piece(4..encoded.len())]).unwrap();
        assert_eq!(joined, [pb::FileRows { pages: Some(pages), ..rows(1, &[5], b"") }]);
        let cut = join(vec![piece(0..4)]).unwrap_err();
        assert!(matches!(&cut, Broken::Message(what) if what.starts_with("data pages cannot be read")), "{cut:?}");
        let twice = Err(Broken::Message("the data pages of one file came twice".to_owned()));
        assert_eq!(join(vec![whole.clone(), whole.clone()]), twice);
        assert_eq!(join(vec![piece(0..encoded.len()), whole]), twice);
    }

    #[test]
    fn an_answer_that_contradicts_itself_is_none() {
        let (ab, cd) = (|| vec![rows(1, &[0, 1], b"abcde")], || vec![rows(1, &[2, 3], b"fghij")]);
        gathered(vec![part(0, ab()), part(1, cd())], end(2, vec![])).unwrap();
        gathered(vec![part(0, ab())], end(1, cd())).unwrap();
        let cases = [
            (vec![part(1, ab())], end(1, vec![]), "part 1 came where part 0 was due"),
            (vec![part(0, ab()), part(2, cd())], end(2, vec![]), "part 2 came where part 1 was due"),
            (vec![part(0, ab()), part(0, cd())], end(2, vec![]), "part 0 came where part 1 was due"),
            (vec![part(0, ab())], end(2, vec![]), "the answer ended after 1 of 2 parts"),
            (vec![], end(1, vec![]), "the answer ended after 0 of 1 parts"),
            (vec![part(0, ab())], end(1, vec![]), "2 rows of 5 bytes came where 4 rows of 10 bytes were announced"),
            (
                vec![part(0, ab()), part(1, ab()), part(2, vec![rows(1, &[], b"x")])],
                end(3, vec![]),
                "4 rows of 11 bytes came where 4 rows of 10 bytes were announced",
            ),
            (
                vec![part(0, ab()), part(1, cd())],
                end(2, vec![rows(1, &[9], b"")]),
                "5 rows of 10 bytes came where 4 rows of 10 bytes were announced",
            ),
        ];
        for (parts, end, what) in cases {
            assert_eq!(gathered(parts, end).unwrap_err(), Broken::Message(what.to_owned()));
        }
    }

    #[test]
    fn an_answer_beyond_the_bound_is_given_up_when_it_is_announced() {
        let first = pb::AnswerPart { bytes_total: MAX_ANSWER_BYTES as u64 + 1, ..part(0, vec![]) };
        assert_eq!(Parts::default().add(first).unwrap_err(), Broken::TooLarge);
        // Parts without rows are no way around the bound.
        let mut gathered = Parts { held_bytes: MAX_ANSWER_BYTES - 2, ..Parts::default() };
        gathered.add(pb::AnswerPart::default()).unwrap();
        assert_eq!(gathered.add(pb::AnswerPart { number: 1, ..Default::default() }), Ok(()));
        let more = pb::AnswerPart { number: 2, ..Default::default() };
        assert_eq!(gathered.add(more).unwrap_err(), Broken::TooLarge);
    }
}
