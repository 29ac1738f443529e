//! Answers in data pages, decoded on this side, and the decoded pages that are kept for the next answer.
//!
//! Knows the wire's data pages and a bounded cache that all clones of a client share. It must not know who asked or why
//! pages came. An entry belongs to one content version of one file, so an overwritten file is never answered from what
//! is kept of an older one; that makes room by not being asked for.

use alcedo_lookup::value::Value;
use alcedo_proto::v1 as pb;

use crate::decode::Unreadable;
use crate::handles::Named;

/// Memory for decoded data pages unless the builder says otherwise: some hundred columns' pages of usual size, no more
/// than what a service spends on its connections. It is taken only as pages come, which workers send when they are
/// short of CPU, or when they are asked to.
pub const DEFAULT_DECODED_PAGES_BYTES: u64 = 64 << 20;

/// What a client keeps of the data pages that were sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DecodedPagesUse {
    /// Data pages that are kept.
    pub pages: usize,
    /// Bytes that they take.
    pub bytes: u64,
    /// Times that a page which an answer needed was there.
    pub hits: u64,
    /// Times that it was not, and was decoded from the bytes in the answer.
    pub misses: u64,
}

#[cfg(feature = "pages")]
pub(crate) use kept::KeptPages;
#[cfg(not(feature = "pages"))]
pub(crate) use none::KeptPages;

#[cfg(feature = "pages")]
mod kept {
    //! With the parquet crate.

    use std::sync::Arc;

    use alcedo_lookup::answer::{DataPage, Pages, PagesChunk, PagesColumn};
    use alcedo_lookup::decoded::DecodedPages;
    use alcedo_lookup::limits::Limits;
    use alcedo_lookup::pages_answer::{self, decode_pages_with};
    use alcedo_lookup::rows::decode_rows;
    use bytes::Bytes;

    use super::{DecodedPagesUse, Named, Unreadable, Value, pb};
    use crate::parts::MAX_ANSWER_BYTES;

    /// The decoded data pages of one client.
    #[derive(Debug, Clone)]
    pub(crate) struct KeptPages {
        cache: Arc<DecodedPages>,
        are_accepted: bool,
    }

    impl KeptPages {
        /// None yet, and room for so many bytes; `are_accepted`: pages may come where rows are asked for.
        pub(crate) fn new(bytes: u64, are_accepted: bool) -> Self {
            Self { cache: Arc::new(DecodedPages::new(bytes)), are_accepted }
        }

        /// Whether data pages may come in place of this form.
        pub(crate) fn are_accepted_for(&self, form: i32) -> bool {
            self.are_accepted && form == pb::AnswerForm::CompactRows as i32
        }

        pub(crate) fn usage(&self) -> DecodedPagesUse {
            let cache = &self.cache;
            let (pages, bytes) = (cache.pages(), cache.bytes());
            DecodedPagesUse { pages, bytes, hits: cache.hits(), misses: cache.misses() }
        }

        /// The rows of a file in the pages that were sent.
        pub(crate) fn rows(
            &self,
            pages: pb::Pages,
            Named { file, schema }: &Named,
            row_number: &[u64],
        ) -> Result<Vec<Vec<Value>>, Unreadable> {
            let columns = pages.columns.into_iter().map(column).collect();
            let pages = Pages { parquet_schema: Bytes::from(pages.parquet_schema), columns };
            // As many bytes of rows as are taken in any other form.
            let limits = Limits { answer_bytes: MAX_ANSWER_BYTES, ..Limits::default() };
            let kept = pages_answer::KeptPages::new(Arc::clone(&self.cache), &file.url, &file.version);
            let rows = decode_pages_with(&pages, schema, row_number, &limits, Some(&kept));
            Ok(decode_rows(schema, &rows.map_err(Unreadable::File)?).map_err(|damage| damage.to_string())?)
        }
    }

    fn column(column: pb::PagesColumn) -> PagesColumn {
        let chunks = column.chunks.into_iter().map(chunk).collect();
        PagesColumn { leaf: column.leaf, codec: column.codec, chunks }
    }

    fn chunk(chunk: pb::PagesChunk) -> PagesChunk {
        let page = |page: pb::DataPage| DataPage { first_row: page.first_row, rows: page.rows, page: page.page };
        let data_pages = chunk.data_pages.into_iter().map(page).collect();
        PagesChunk {
            first_row: chunk.first_row,
            rows: chunk.rows,
            dictionary: chunk.dictionary,
            data_pages,
            aligned: !chunk.pages_split_rows,
        }
    }
}

#[cfg(not(feature = "pages"))]
mod none {
    //! Without the parquet crate: refused.

    use super::{DecodedPagesUse, Named, Unreadable, Value, pb};

    /// Nothing is kept.
    #[derive(Debug, Clone)]
    pub(crate) struct KeptPages;

    impl KeptPages {
        pub(crate) fn new(_: u64, _: bool) -> Self {
            Self
        }

        pub(crate) fn are_accepted_for(&self, _: i32) -> bool {
            false
        }

        pub(crate) fn usage(&self) -> DecodedPagesUse {
            DecodedPagesUse::default()
        }

        pub(crate) fn rows(&self, _: pb::Pages, _: &Named, _: &[u64]) -> Result<Vec<Vec<Value>>, Unreadable> {
            Err("they are data pages, and this client is built without the feature `pages`".to_owned().into())
        }
    }
}
