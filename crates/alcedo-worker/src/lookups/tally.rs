//! Layer 3: how large one answer is, over all of its files.
//!
//! Knows rows and bytes. It must not know files beyond their names: each keeps the bounds of an answer by itself, and
//! here all of them together do. Data pages in place of rows are not counted: they are few by a bound of their own, and
//! whether the rows fit is not to depend on how they travel.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use alcedo_lookup::answer::{Body, FileAnswer, Form, PagesChunk};
use alcedo_lookup::limits::Limits;

use crate::error::Error;

/// Rows and bytes of one answer so far.
#[derive(Default)]
pub(super) struct Tally {
    rows: AtomicUsize,
    bytes: AtomicUsize,
}

impl Tally {
    /// Adds the rows of one file.
    ///
    /// # Errors
    /// [`Error::AnswerTooLarge`].
    pub(super) fn add(&self, answer: &FileAnswer, form: Form, limits: &Limits, url: &Arc<str>) -> Result<(), Error> {
        let rows = answer.row_number.len();
        let bytes = match &answer.body {
            Body::Compact(bytes) | Body::ArrowIpc(bytes) => bytes.len(),
            Body::Pages(_) if form == Form::CompactRows => 0,
            Body::Pages(pages) => {
                let page_bytes = |chunk: &PagesChunk| {
                    chunk.dictionary.len() + chunk.data_pages.iter().map(|page| page.page.len()).sum::<usize>()
                };
                pages.columns.iter().flat_map(|column| &column.chunks).map(page_bytes).sum()
            }
        };
        let too_large = |limit, unit| Err(Error::AnswerTooLarge { url: Arc::clone(url), limit, unit });
        if self.rows.fetch_add(rows, Ordering::Relaxed) + rows > limits.answer_rows {
            return too_large(limits.answer_rows, "rows");
        }
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > limits.answer_bytes {
            return too_large(limits.answer_bytes, "bytes of rows");
        }
        Ok(())
    }
}
