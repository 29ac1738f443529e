//! Aligned columns without boxes, for everything that is not rows: easy to read and to cut with awk.
//!
//! Part of the output layer.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

use super::printable;

/// Blanks between two columns.
const GAP: u16 = 2;

/// Lines of cells under an optional header, each column as wide as its widest cell. All lines have the header's cells.
pub(crate) fn aligned<const N: usize>(header: Option<[&str; N]>, lines: &[[String; N]]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if let Some(header) = header {
        table.set_header(header);
    }
    for line in lines {
        table.add_row(line.each_ref().map(|cell| printable(cell).into_owned()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    if lines.is_empty() && header.is_none() {
        return String::new();
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let lines = [["lake".into(), "s3://lake/".into()], ["a".into(), "file:///srv/\n".into()]];
        assert_eq!(aligned(Some(["MOUNT", "URL"]), &lines), "MOUNT  URL\nlake   s3://lake/\na      file:///srv/\\n\n");
        assert_eq!(aligned(None, &[["a".into(), "b".into()]]), "a  b\n");
        assert_eq!(aligned::<1>(None, &[]), "");
        assert_eq!(aligned(Some(["MOUNT"]), &[]), "MOUNT\n");
    }
}
