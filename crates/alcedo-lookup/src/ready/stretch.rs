//! Which rows of a row group are read next: as many as have their data pages within a window.

use std::ops::Range;

use crate::chunk::PageTable;
use crate::error::Error;
use crate::limits::Limits;

/// Rows of a row group whose data pages are held at once.
pub(crate) struct Stretch {
    pub(crate) rows: Range<u64>,
    /// The data pages and dictionary pages, as ranges of the file.
    pub(crate) pages: Vec<Range<u64>>,
    /// Those of them that no later row needs.
    pub(crate) done: Vec<Range<u64>>,
}

impl Stretch {
    /// The rows from `first` on whose data pages in all columns take about a window.
    ///
    /// # Errors
    /// The data pages of one row pass their bound.
    pub(crate) fn cut(tables: &[&PageTable], (first, rows): (u64, u64), limits: &Limits) -> Result<Self, Error> {
        let one = first..first + 1;
        let length = |range: &Range<u64>| range.end - range.start;
        let of_first = tables.iter().flat_map(|table| ranges(table, &one));
        let mut bytes: u64 = of_first.map(|range| length(&range)).sum();
        if bytes > limits.row_bytes {
            return Err(Error::Limit(format!(
                "one row's data pages take {bytes} bytes, at most {} are read: choose fewer columns",
                limits.row_bytes
            )));
        }
        // Where columns' data pages start at different rows and one row's take the window already, each would be
        // inflated once per page of every other column: twice as much lets a page of each fit.
        let window = limits.scan_bytes.max(limits.row_bytes.min(bytes * 2));
        let mut later: Vec<(u64, u64)> = Vec::new();
        for table in tables.iter().filter(|table| table.aligned) {
            let mut taken = 0;
            for page in table.pages_of(&one).end..table.len() {
                let page_bytes = length(&table.page_range(page));
                later.push((table.page_rows(page).start, page_bytes));
                taken += page_bytes;
                if taken > window {
                    break;
                }
            }
        }
        later.sort_unstable();
        let mut end = rows;
        for (row, page_bytes) in later {
            bytes += page_bytes;
            if bytes > window {
                end = row;
                break;
            }
        }
        let stretch = first..end;
        let pages = tables.iter().flat_map(|table| ranges(table, &stretch)).collect();
        let done = tables.iter().flat_map(|table| finished(table, &stretch)).collect();
        Ok(Self { rows: stretch, pages, done })
    }
}

/// The pages that hold any of these rows, with the dictionary that they need.
fn ranges<'a>(table: &'a PageTable, rows: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<'a> {
    let pages = table.pages_of(rows);
    let dictionary = table.dictionary.clone().filter(|_| !pages.is_empty());
    dictionary.into_iter().chain(pages.map(|page| table.page_range(page)))
}

/// The pages of which these rows are the last ones.
fn finished<'a>(table: &'a PageTable, rows: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<'a> {
    let end = rows.end;
    let is_last = end >= table.rows;
    let pages = table.pages_of(rows).filter(move |page| is_last || table.aligned && table.page_rows(*page).end <= end);
    let dictionary = table.dictionary.clone().filter(|_| is_last);
    dictionary.into_iter().chain(pages.map(|page| table.page_range(page)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::page_index::PageLocation;

    /// Data pages of so many rows and bytes, one behind the other from `offset` on.
    fn table(mut offset: u64, pages: &[(u64, u32)], aligned: bool) -> PageTable {
        let mut first_row = 0;
        let mut locations = Vec::new();
        for (rows, length) in pages {
            locations.push(PageLocation { offset, length: *length, first_row });
            (offset, first_row) = (offset + u64::from(*length), first_row + rows);
        }
        PageTable { dictionary: Some(4..14), pages: locations.into(), rows: first_row, aligned, bounds: None }
    }

    fn limits(scan_bytes: u64, row_bytes: u64) -> Limits {
        Limits { scan_bytes, row_bytes, ..Limits::default() }
    }

    #[test]
    fn a_stretch_ends_where_the_next_data_page_would_pass_the_window() {
        let (a, b) = (table(100, &[(10, 50), (10, 50), (10, 50)], true), table(1_000, &[(15, 60), (15, 60)], true));
        let cut = |first, limits: &Limits| Stretch::cut(&[&a, &b], (first, 30), limits);
        // Dictionaries 20, first pages 110; then 50 more at row 10, 60 at row 15.
        let first = cut(0, &limits(239, 1_000)).unwrap();
        assert_eq!(first.rows, 0..20, "twice what one row takes fits whatever the window says");
        let first = cut(0, &limits(1, 180)).unwrap();
        assert_eq!(first.rows, 0..15);
        assert_eq!(first.pages, [4..14, 100..150, 150..200, 4..14, 1_000..1_060]);
        assert_eq!(first.done, [100..150, 1_000..1_060], "row 15 is in the second page still");
        let rest = cut(15, &limits(1, 1_000)).unwrap();
        assert_eq!(rest.rows, 15..30);
        assert_eq!(rest.done.len(), 5, "all pages and dictionaries are done: {:?}", rest.done);
        assert_eq!(cut(0, &limits(1_000, 1_000)).unwrap().rows, 0..30);
        assert!(matches!(cut(0, &limits(1_000, 129)), Err(Error::Limit(_))));
    }

    #[test]
    fn pages_that_split_rows_are_read_all_at_once() {
        let (a, split) = (table(100, &[(10, 50), (20, 50)], true), table(1_000, &[(15, 60), (15, 60)], false));
        let stretch = Stretch::cut(&[&a, &split], (0, 30), &limits(1, 190)).unwrap();
        assert_eq!(stretch.rows, 0..10);
        assert_eq!(stretch.pages, [4..14, 100..150, 4..14, 1_000..1_060, 1_060..1_120]);
        assert_eq!(stretch.done, vec![100..150]);
    }
}
