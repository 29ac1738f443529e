//! What it takes to send an answer's data pages in place of its rows, and what that saves.
//!
//! Whoever is short of time sends a page as it is stored rather than decode it for one row; but a page that is decoded
//! already, or comes back so often that it soon will be, costs less as a row, and so does one that was never
//! compressed.

use std::sync::Arc;

use crate::chunk::PageTable;
use crate::codec::Codec;
use crate::decoded::rows_of;
use crate::error::Error;
use crate::search::Plan;
use crate::stretch::{DECODED_VALUE_BYTES, page_key};

/// Data pages are sent where at least one part in so many of their bytes would be inflated for this answer alone.
const SAVED_SHARE: u64 = 2;

/// Data pages that hold an answer's rows.
#[derive(Debug, Default)]
pub(crate) struct SentPages {
    bytes: u64,
    /// Of these, bytes that need not be inflated here.
    saved: u64,
}

impl SentPages {
    /// Adds the data pages that hold these ascending rows of a row group; false where not all of them are known.
    ///
    /// # Errors
    /// A codec that cannot be read.
    pub(crate) fn add(
        &mut self,
        plan: &Plan,
        group: usize,
        rows: &[u64],
        table_of: impl Fn(usize) -> Option<Arc<PageTable>>,
    ) -> Result<bool, Error> {
        for root in &plan.projection.roots {
            // A part of a nested column is never kept, but how often it is asked for is counted under a name as well.
            let code = root.code.or_else(|| rows_of(root.leaves.get(..1)?, false));
            let mut is_seldom = true;
            for (i, leaf) in root.leaves.iter().enumerate() {
                let Some(table) = table_of(*leaf) else { return Ok(false) };
                let is_inflated = plan.index.chunk(group, *leaf).codec()? != Codec::Uncompressed;
                let pages = table.pages_of_rows(rows);
                // The first leaf's pages are looked for in the name of all.
                if let Some((cache, code)) = plan.decoded().zip(code).filter(|_| i == 0) {
                    let key = |page: &usize| page_key(plan, group, code, table.page_rows(*page).start);
                    let bytes = |page: &usize| {
                        let (rows, stored) = (table.page_rows(*page), table.page_range(*page));
                        (stored.end - stored.start).max((rows.end - rows.start).saturating_mul(DECODED_VALUE_BYTES))
                    };
                    let is_once = |page: &usize| cache.is_seldom(&key(page), bytes(page));
                    // All of them are counted as asked for.
                    is_seldom = pages.iter().filter(|page| !is_once(page)).count() == 0;
                }
                let dictionary = table.dictionary.clone().filter(|_| !pages.is_empty());
                let ranges = pages.into_iter().map(|page| table.page_range(page)).chain(dictionary);
                let bytes: u64 = ranges.map(|range| range.end - range.start).sum();
                self.bytes += bytes;
                self.saved += if is_inflated && is_seldom { bytes } else { 0 };
            }
        }
        Ok(true)
    }

    /// Bytes of them all.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether sending them saves more than it costs.
    pub(crate) fn are_worth_it(&self) -> bool {
        self.bytes > 0 && self.saved >= self.bytes / SAVED_SHARE
    }
}
