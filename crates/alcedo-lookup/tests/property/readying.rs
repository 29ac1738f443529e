//! The same queries, answered from lookup-ready rows of the file.

use std::sync::Arc;

use alcedo_lookup::answer::{Body, FileAnswer, Form, KeyStatus};
use alcedo_lookup::derived::Built;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::prepared::Prepared;
use alcedo_lookup::ready::{BlockRef, FoundReady, ReadyBuild, ReadyRows};
use alcedo_lookup::search::Query;
use bytes::Bytes;

use crate::asking::{Asked, Column};
use crate::checking::check;
use crate::reading::Reading;
use crate::schema::{Leaf, Node, Shape};
use crate::writing::Row;

/// Lookup-ready rows of one file, found by one key column.
pub(crate) struct Ready {
    rows: ReadyRows,
    parts: Vec<Bytes>,
}

/// Whether a column holds INT96 timestamps: those are refused.
fn holds_int96(node: &Node) -> bool {
    match &node.shape {
        Shape::Leaf(leaf, _) => *leaf == Leaf::Int96,
        Shape::Struct(fields) => fields.iter().any(holds_int96),
        Shape::List(_, item) => holds_int96(item),
        Shape::Map(key, value) => holds_int96(key) || holds_int96(value),
    }
}

impl Ready {
    /// Builds the rows of the columns that a query asks for; none where they must be refused.
    ///
    /// # Errors
    /// The build failed, or it should have.
    pub(crate) fn build(
        index: &Arc<FileIndex>,
        asked: &Asked,
        schema: &[Node],
        (reading, limits): (&Reading, &Arc<Limits>),
    ) -> Result<Option<Self>, String> {
        let stored = |column: &Column| column.node(schema);
        let refused = holds_int96(stored(&asked.column))
            || match &asked.columns {
                Some(columns) => columns.iter().any(|column| holds_int96(stored(column))),
                None => schema.iter().any(holds_int96),
            };
        let columns: Option<Vec<String>> =
            asked.columns.as_ref().map(|columns| columns.iter().map(|column| column.name.clone()).collect());
        let build = ReadyBuild::new(index.clone(), Some(&asked.column.name), columns.as_deref(), limits.clone());
        let mut build = match (build, refused) {
            (Err(_), true) => return Ok(None),
            (Ok(_), true) => return Err("INT96 timestamps are not refused".to_owned()),
            (build, _) => build.map_err(|error| format!("the build's plan: {error}"))?,
        };
        let mut parts = Vec::new();
        let head = loop {
            match reading.drive(build).map_err(|error| format!("the build: {error}"))? {
                Built::Part { bytes, rest, .. } => {
                    parts.push(bytes);
                    build = rest;
                }
                Built::Head(head) => break head,
            }
        };
        let rows = ReadyRows::read(head, index, limits).map_err(|error| format!("the head: {error}"))?;
        Ok(Some(Self { rows, parts }))
    }

    fn block(&self, block: &BlockRef) -> &[u8] {
        &self.parts[block.part as usize][block.range.start as usize..block.range.end as usize]
    }

    /// # Errors
    /// The answer is not what the scan says.
    pub(crate) fn compare(
        &self,
        index: &Arc<FileIndex>,
        asked: &Asked,
        limits: &Arc<Limits>,
        (schema, rows): (&[Node], &[Row]),
    ) -> Result<(), String> {
        let asked = Asked { row_limit: None, ..asked.clone() };
        let columns = asked.columns.as_ref().map(|all| all.iter().map(|column| column.name.clone()).collect());
        let (key_column, form) = (Some(asked.column.name.clone()), Form::CompactRows);
        let query = Query { key_column, keys: Vec::new(), columns, form, row_limit: None };
        let prepared = Prepared::new(index.clone(), &query, limits.clone()).map_err(|e| e.to_string())?;
        let plan = self.rows.serves(&prepared).ok_or("the rows do not serve what they were built for")?;
        let mut found: Vec<(u64, u32, Vec<u8>)> = Vec::new();
        let mut statuses = Vec::new();
        for (i, (key, _)) in asked.keys.iter().enumerate() {
            let mut out = FoundReady::default();
            if let Some(point) = prepared.key_point(key).map_err(|e| e.to_string())? {
                for block in self.rows.blocks(&point) {
                    let result = self.rows.find(&plan, &block, self.block(&block), &point, &mut out);
                    result.map_err(|error| format!("{block:?}: {error}"))?;
                }
            }
            statuses.push(if out.row_numbers.is_empty() { KeyStatus::NotFound } else { KeyStatus::Found });
            let mut at = &out.rows[..];
            for row in &out.row_numbers {
                let (bytes, rest) = at.split_at(length(at));
                found.push((*row, i as u32, bytes.to_vec()));
                at = rest;
            }
        }
        found.sort();
        let answer = FileAnswer {
            schema: prepared.schema().clone(),
            key_index: found.iter().map(|(_, key, _)| *key).collect(),
            row_number: found.iter().map(|(row, ..)| *row).collect(),
            statuses,
            body: Body::Compact(found.into_iter().flat_map(|(_, _, bytes)| bytes).collect::<Vec<u8>>().into()),
            notes: Vec::new(),
        };
        check(&answer, &asked, &asked.scan(rows), (schema, rows)).map_err(|problem| format!("lookup-ready: {problem}"))
    }
}

/// Bytes of the row at the start.
fn length(bytes: &[u8]) -> usize {
    let (mut length, mut at) = (0_usize, 0);
    loop {
        length |= usize::from(bytes[at] & 0x7f) << (7 * at);
        at += 1;
        if bytes[at - 1] < 0x80 {
            return at + length;
        }
    }
}
