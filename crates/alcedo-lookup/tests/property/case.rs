//! One case: a seed becomes a file, queries, and a verdict.

use std::sync::Arc;

use alcedo_lookup::answer::{FileAnswer, Form};
use alcedo_lookup::decoded::DecodedPages;
use alcedo_lookup::derived::Built;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::key::Key;
use alcedo_lookup::keymap::builder::Builder;
use alcedo_lookup::keymap::{Keymap, Next};
use alcedo_lookup::limits::Limits;
use alcedo_lookup::open::Open;
use alcedo_lookup::prepared::Prepared;
use alcedo_lookup::search::{Query, Search};
use bytes::Bytes;
use parquet::basic::Type as Physical;

use crate::asking::{Asked, Column, ask, columns};
use crate::checking::check;
use crate::random::Random;
use crate::reading::Reading;
use crate::readying::Ready;
use crate::rewriting::rewrite;
use crate::schema::{Node, Shape, generate};
use crate::values::order;
use crate::writing::{Row, Writing, row_groups, write};

/// Per file.
const QUERIES: usize = 10;
/// Room for all decoded pages of a file.
const DECODED_BYTES: u64 = 64 << 20;

/// A file and the rows that are in it.
pub(crate) struct Case {
    pub(crate) schema: Vec<Node>,
    pub(crate) rows: Vec<Row>,
    pub(crate) file: Bytes,
    focus: Option<Column>,
    random: Random,
    decoded: Arc<DecodedPages>,
    /// Everything that was drawn, for the report of a failure.
    pub(crate) described: String,
}

impl Case {
    pub(crate) fn generate(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let arrow = random.percent(35);
        let schema = generate(&mut random, arrow);
        let count = *random.pick(&[0, 1, 2, 9, 30, 30, 100, 100, 250, 250, 600]);
        let count = if random.percent(1) { 3_000 } else { count };
        let mut rows: Vec<Row> =
            (0..count).map(|_| schema.iter().map(|node| node.draw(&mut random)).collect()).collect();
        let keys: Vec<Column> = columns(&schema)
            .into_iter()
            .filter(|column| matches!(column.node(&schema).shape, Shape::Leaf(..)))
            .collect();
        // Byte strings have the most ways to be bounded wrongly.
        let is_bytes = |column: &&Column| match column.node(&schema).shape {
            Shape::Leaf(leaf, _) => matches!(leaf.physical(), Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY),
            _ => false,
        };
        let bytes: Vec<Column> = keys.iter().filter(is_bytes).cloned().collect();
        let likely = if random.percent(40) && !bytes.is_empty() { &bytes } else { &keys };
        let focus = (!likely.is_empty()).then(|| random.pick(likely).clone());
        let layout = focus.as_ref().map_or("as drawn", |focus| arrange(&mut random, &mut rows, focus));
        let groups = row_groups(&mut random, rows.len());
        let writing = Writing::generate(&mut random, &schema, arrow);
        let file = write(&schema, &rows, &groups, &writing, arrow);
        let (file, changes) = rewrite(&mut random, file, &schema, &rows, &groups, arrow);
        let sketch: Vec<String> = schema.iter().map(sketch).collect();
        let described = format!(
            "  schema: {}\n  rows: {count}, {layout} by {:?}, row groups {groups:?}\n  writer: {} {}\n  then: {}",
            sketch.join("; "),
            focus.as_ref().map(|focus| &focus.name),
            if arrow { "Arrow's," } else { "low-level," },
            writing.described,
            changes.join(", "),
        );
        let decoded = Arc::new(DecodedPages::new(DECODED_BYTES));
        Self { schema, rows, file, focus, random, decoded, described }
    }

    /// # Errors
    /// The first answer that is not what the scan says.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        // All rows of all keys with every column can be much.
        let mut limits = Limits { answer_bytes: 1 << 30, ..Limits::default() };
        if self.random.percent(40) {
            // So that a small file is searched in several windows.
            limits.scan_bytes = self.random.within(1, 4_000) as u64;
            limits.speculate_bytes = self.random.within(0, 4_000) as u64;
            limits.coalesce_gap_bytes = self.random.within(0, 100) as u64;
        }
        let limits = Arc::new(limits);
        let reading = Reading::new(self.file.clone(), self.random.next());
        let tail = *self.random.pick(&[8, 9, 500, 64 << 10, 64 << 10, self.file.len() as u64]);
        let mut index = reading.drive(Open::new(tail, limits.clone()))?;
        if index.rows() != self.rows.len() as u64 {
            return Err(format!("the index has {} rows", index.rows()));
        }
        for _ in 0..QUERIES {
            let Some(asked) = ask(&mut self.random, &self.schema, &self.rows, self.focus.as_ref()) else { break };
            let mut forms = [Form::CompactRows, Form::ArrowIpc, Form::Pages];
            self.random.shuffle(&mut forms);
            for form in forms {
                self.compare(&index, &asked, form, &reading, &limits)
                    .map_err(|problem| format!("{problem}\n  query: {}", describe(&asked, form)))?;
            }
            if self.random.percent(40) {
                let stored = index.encode();
                let read =
                    FileIndex::decode(&stored, &limits).map_err(|e| format!("the index is not read back: {e}"))?;
                index = Arc::new(read);
            } else if self.random.percent(20) {
                index = reading.drive(Open::new(64 << 10, limits.clone()))?;
            }
        }
        self.compare_ready(&index, &reading, &limits)
    }

    /// Queries answered from lookup-ready rows.
    fn compare_ready(&mut self, index: &Arc<FileIndex>, reading: &Reading, limits: &Arc<Limits>) -> Result<(), String> {
        let Some(first) = ask(&mut self.random, &self.schema, &self.rows, self.focus.as_ref()) else { return Ok(()) };
        let told = |asked: &Asked, problem| format!("{problem}\n  query: {}", describe(asked, Form::CompactRows));
        let ready = Ready::build(index, &first, &self.schema, (reading, limits)).map_err(|e| told(&first, e))?;
        let Some(ready) = ready else { return Ok(()) };
        for _ in 0..QUERIES {
            // Other keys of the same column, and the same columns in another order.
            let Some(next) = ask(&mut self.random, &self.schema, &self.rows, Some(&first.column)) else { break };
            if next.column.path != first.column.path {
                continue;
            }
            let mut columns = first.columns.clone();
            if let Some(columns) = &mut columns {
                self.random.shuffle(columns);
                columns.truncate(1 + self.random.below(columns.len()));
            }
            let asked = Asked { columns, ..next };
            ready.compare(index, &asked, limits, (&self.schema, &self.rows)).map_err(|e| told(&asked, e))?;
        }
        Ok(())
    }

    fn compare(
        &self,
        index: &Arc<FileIndex>,
        asked: &Asked,
        form: Form,
        reading: &Reading,
        limits: &Arc<Limits>,
    ) -> Result<(), String> {
        let names = |columns: &Vec<Column>| columns.iter().map(|column| column.name.clone()).collect();
        let query = Arc::new(Query {
            key_column: Some(asked.column.name.clone()),
            keys: asked.keys.iter().map(|(key, _)| key.clone()).collect(),
            columns: asked.columns.as_ref().map(names),
            form,
            row_limit: asked.row_limit,
        });
        let truth = asked.scan(&self.rows);
        let may_hold = index.may_hold(&query).map_err(|e| format!("may_hold: {e}"))?;
        if !may_hold && !truth.rows.is_empty() {
            return Err(format!("may_hold says no, the scan has {:?}", truth.rows));
        }
        let search = Search::new(index.clone(), query.clone(), limits.clone()).map_err(|e| format!("the plan: {e}"))?;
        let answer = reading.drive(search)?;
        check(&answer, asked, &truth, (&self.schema, &self.rows))?;
        // A page is kept when it is asked for again; then it is asked for once more.
        let prepare = || Prepared::new(index.clone(), &query, limits.clone()).map_err(|e| format!("preparing: {e}"));
        let (plain, prepared) = (Arc::new(prepare()?), Arc::new(prepare()?.with_decoded(self.decoded.clone())));
        for time in ["first", "second", "third"] {
            let search = Search::of(prepared.clone(), &query.keys).map_err(|e| format!("the plan: {e}"))?;
            let answer = reading.drive(search)?;
            check(&answer, asked, &truth, (&self.schema, &self.rows))
                .map_err(|problem| format!("with decoded pages, {time} time: {problem}"))?;
        }
        if form != Form::CompactRows {
            return Ok(());
        }
        for prepared in [plain, prepared] {
            let search = Search::of(prepared.clone(), &query.keys).map_err(|e| format!("the plan: {e}"))?;
            let answer = reading.drive(search.or_pages(u64::MAX))?;
            check(&answer, asked, &truth, (&self.schema, &self.rows))
                .map_err(|problem| format!("perhaps as pages: {problem}"))?;
            let answer = by_keymap(&prepared, &query.keys, reading).map_err(|e| format!("by keymap: {e}"))?;
            let rows = (&self.schema[..], &self.rows[..]);
            check(&answer, asked, &truth, rows).map_err(|problem| format!("by keymap: {problem}"))?;
        }
        Ok(())
    }
}

/// Builds the column's keymap, and searches at the rows that it names and at some that it does not.
fn by_keymap(prepared: &Arc<Prepared>, keys: &[Key], reading: &Reading) -> Result<FileAnswer, String> {
    let mut builder = Builder::new(prepared.clone(), 0).map_err(|e| e.to_string())?;
    let mut parts = Vec::new();
    let head = loop {
        match reading.drive(builder)? {
            Built::Part { bytes, rest, .. } => {
                parts.push(bytes);
                builder = rest;
            }
            Built::Head(head) => break head,
        }
    };
    let keymap = Keymap::read(&head, prepared.index()).map_err(|e| e.to_string())?;
    let mut rows: Vec<u64> = (0..prepared.index().rows() + 7).step_by(7).collect();
    for key in keys {
        let Some(point) = prepared.key_point(key).map_err(|e| e.to_string())? else { continue };
        let mut next = keymap.place(&point);
        while let Next::Read(read) = &next {
            let bytes = &parts[read.part as usize][read.range.start as usize..read.range.end as usize];
            next = keymap.rows(read, bytes, &mut rows).map_err(|e| e.to_string())?;
        }
        if next == Next::Search {
            return Err(format!("so few rows, and {key} is not listed"));
        }
    }
    reading.drive(Search::at_rows(prepared.clone(), keys, rows).map_err(|e| e.to_string())?)
}

/// Brings the rows into one of the orders that writers leave them in.
fn arrange(random: &mut Random, rows: &mut [Row], focus: &Column) -> &'static str {
    let by_focus = |a: &Row, b: &Row| order(focus.value(a), focus.value(b));
    match random.below(8) {
        0 | 1 => {
            rows.sort_by(by_focus);
            "ascending, nulls first"
        }
        2 => {
            rows.sort_by(by_focus);
            let nulls = rows.iter().filter(|row| *focus.value(row) == crate::values::Datum::Null).count();
            rows.rotate_left(nulls);
            "ascending, nulls last"
        }
        3 => {
            rows.sort_by(|a, b| by_focus(b, a));
            "descending, nulls last"
        }
        4 if !rows.is_empty() => {
            rows.sort_by(by_focus);
            let part = 1 + random.below(rows.len());
            let mut parts: Vec<Vec<Row>> = rows.chunks(part).map(<[Row]>::to_vec).collect();
            random.shuffle(&mut parts);
            rows.clone_from_slice(&parts.concat());
            "clustered"
        }
        _ => "as drawn",
    }
}

fn sketch(node: &Node) -> String {
    let null = if node.nullable { format!("?{}", node.null_share) } else { String::new() };
    match &node.shape {
        Shape::Leaf(leaf, pool) => format!("{:?}: {leaf:?}{null} of {}", node.name, pool.len()),
        Shape::Struct(fields) => {
            format!("{:?}{null}: {{{}}}", node.name, fields.iter().map(sketch).collect::<Vec<_>>().join("; "))
        }
        Shape::List(form, item) => format!("{:?}{null}: {form:?} [{}]", node.name, sketch(item)),
        Shape::Map(key, value) => format!("{:?}{null}: ({} -> {})", node.name, sketch(key), sketch(value)),
    }
}

fn describe(asked: &Asked, form: Form) -> String {
    let mut keys = format!("{:?}", asked.keys);
    if keys.len() > 600 {
        keys = format!("{}…", keys.chars().take(600).collect::<String>());
    }
    let columns: Option<Vec<&String>> = asked.columns.as_ref().map(|all| all.iter().map(|c| &c.name).collect());
    format!("`{}` in {keys}, columns {columns:?}, limit {:?}, {form:?}", asked.column.name, asked.row_limit)
}
