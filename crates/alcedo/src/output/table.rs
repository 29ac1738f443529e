//! Rows as a boxed table with a line of types, for people at a terminal.
//!
//! Part of the output layer. Long values are cut: a table is for eyes, the other formats print everything.

use comfy_table::{Cell, ContentArrangement, ContentLineStyle, LineStyle, Table, TableStyle};

use super::printable;
use super::row_set::RowSet;
use super::value_text::{BytesStyle, text};

/// Characters of a value that a table shows: a few lines of a terminal, for the widest of values.
const CELL_CHARS: usize = 300;

/// Characters of a terminal's width that a column needs on average to be worth fitting in.
const COLUMN_CHARS: usize = 10;

/// How null prints. CSV has an empty field, JSON its own null.
const NULL: &str = "NULL";

const BOXED: TableStyle = TableStyle::new()
    .top_border(LineStyle::new('┌', '─', '┬', '┐'))
    .header_lines(ContentLineStyle::new('│', '│', '│'))
    .header_separator(LineStyle::new('├', '─', '┼', '┤'))
    .content_lines(ContentLineStyle::new('│', '│', '│'))
    .bottom_border(LineStyle::new('└', '─', '┴', '┘'));

/// The table; on a terminal it is at most as wide.
pub(crate) fn table(set: &RowSet, headers: bool, bytes: BytesStyle) -> Vec<u8> {
    if set.columns().is_empty() {
        return Vec::new();
    }
    let mut table = Table::new();
    // Where columns would be a few characters wide, the terminal's own wrapping reads better. Some terminals say 0.
    let room = table.width().is_none_or(|width| usize::from(width) >= COLUMN_CHARS * set.columns().len());
    let arrangement = if room { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.load_style(BOXED).set_content_arrangement(arrangement);
    if headers {
        let head = set.columns().iter().map(|head| format!("{}\n{}", cut(&head.name), cut(&head.ty)));
        table.set_header(head.map(Cell::new));
    }
    for row in set.rows() {
        let cell = |column| {
            let value = set.cell(row, column).and_then(|(value, ty)| text(value, ty, bytes));
            Cell::new(value.map_or_else(|| NULL.to_owned(), |value| cut(&value)))
        };
        table.add_row((0..set.columns().len()).map(cell));
    }
    let mut rendered = table.to_string().into_bytes();
    rendered.push(b'\n');
    rendered
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(CELL_CHARS) {
        Some((end, _)) => format!("{}…", printable(&text[..end])),
        None => printable(text).into_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use alcedo_lookup::value::Value;

    use super::super::row_set::tests::{schema, two_rows};
    use super::*;

    #[test]
    fn rows_stand_in_a_box_with_names_and_types() {
        let printed = String::from_utf8(table(&two_rows(), true, BytesStyle::Hex)).unwrap();
        let expected = "\
┌───────┬──────────────┐
│ id    │ name         │
│ int64 │ string       │
├───────┼──────────────┤
│ 123   │ Ada Lovelace │
│ 124   │ NULL         │
└───────┴──────────────┘
";
        assert_eq!(printed, expected);
    }

    #[test]
    fn without_headers_only_the_rows_are_boxed() {
        let printed = String::from_utf8(table(&two_rows(), false, BytesStyle::Hex)).unwrap();
        let expected = "\
┌─────┬──────────────┐
│ 123 │ Ada Lovelace │
│ 124 │ NULL         │
└─────┴──────────────┘
";
        assert_eq!(printed, expected);
    }

    #[test]
    fn long_and_hostile_values_are_cut_and_escaped() {
        let mut set = RowSet::default();
        let file = set.add_file("f", "v", &schema(&[("note", "string")]));
        set.add_row(0, file, 0, vec![Value::String(format!("\u{1b}[31m{}", "x".repeat(1_000)))]);
        let printed = String::from_utf8(table(&set, true, BytesStyle::Hex)).unwrap();
        assert!(printed.contains("\\u{1b}[31mx"), "{printed}");
        assert!(!printed.contains('\u{1b}'));
        assert_eq!(printed.matches('x').count(), CELL_CHARS - 5);
        assert!(printed.contains("x…"));
    }

    #[test]
    fn no_columns_are_no_table() {
        assert!(table(&RowSet::default(), true, BytesStyle::Hex).is_empty());
    }
}
