//! `alcedo get`: the rows whose key column equals a key.

use std::path::PathBuf;
use std::time::Duration;

use alcedo_client::{Answer, Client, Form, Key, KeyStatus, Source};
use clap::{Args, ValueEnum, value_parser};
use serde_json::Value as Json;

use super::keys::{Keys, Text};
use super::question::Question;
use super::{Context, requests, trace};
use crate::failure::Failure;
use crate::output::printer::Printer;
use crate::output::quantity::{count, counted};
use crate::output::rows_json::Beside;
use crate::output::summary::Summary;
use crate::output::value_text::BytesStyle;
use crate::output::{Format, printable};

const FORMATS: [Format; 7] =
    [Format::Table, Format::Json, Format::Jsonl, Format::Csv, Format::Tsv, Format::Arrow, Format::Raw];

/// What the lines of `--requests` say for themselves, or what does not go with their form.
const NOT_WITH_REQUESTS: [&str; 14] = [
    "path",
    "keys",
    "key",
    "select",
    "keys_from",
    "null",
    "missing",
    "first",
    "limit",
    "trace",
    "repeat",
    "maxrows",
    "bytes",
    "form",
];

/// Missing keys that a message names.
const NAMED_KEYS: usize = 5;

/// The flags of `get`.
// Lines of --requests have paths of their own. An argument that is changed loses its place in the line: both say it.
#[derive(Debug, Args)]
#[command(mut_arg("path", |path| path.index(1).required(false).required_unless_present("requests")))]
pub(crate) struct GetArgs {
    #[command(flatten)]
    question: Option<Question>,
    /// Keys, as texts that the worker reads by the key column's type
    #[arg(value_name = "KEY", index = 2, allow_negative_numbers = true)]
    keys: Vec<String>,
    /// File with one key per line; - is stdin
    #[arg(long, value_name = "FILE", conflicts_with = "keys")]
    keys_from: Option<PathBuf>,
    /// File with one JSON lookup per line, each answered by one JSON line; - is stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = NOT_WITH_REQUESTS)]
    requests: Option<PathBuf>,
    /// Also the rows whose key is null
    #[arg(long)]
    null: bool,
    /// What becomes of a key that no row has
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Missing::Skip)]
    missing: Missing,
    /// At most one row per key
    #[arg(long, conflicts_with = "limit")]
    first: bool,
    /// At most N rows per key
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Show on stderr where time and bytes went; json has it inside
    #[arg(long)]
    trace: bool,
    /// Look up N times, print once, and tell the times
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "keys_from",
        value_parser = value_parser!(u32).range(1..=1_000_000))]
    repeat: u32,
    /// Rows of a table at most; 0 is all
    #[arg(long, value_name = "N", default_value_t = 40)]
    maxrows: usize,
    /// How binary values print [default: hex; base64 in json and jsonl]
    #[arg(long, value_name = "STYLE", value_enum)]
    bytes: Option<BytesStyle>,
    /// How rows travel
    #[arg(long, value_name = "FORM", value_enum, hide = true, default_value_t = Travel::Rows)]
    form: Travel,
}

/// What becomes of a key that no row has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Missing {
    /// Nothing is printed for it; exit code 3 if no key has a row
    Skip,
    /// A row of nulls is printed for it
    Null,
    /// Exit code 3, after the rows of the others
    Error,
}

/// How rows travel from the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Travel {
    /// Compact rows on the lookup stream
    Rows,
    /// Typed values by the unary call
    Typed,
    /// Compressed data pages, decoded here
    Pages,
}

/// Prints the rows.
///
/// # Errors
/// Nothing was found, or something failed; see docs/CLI.md for the codes.
pub(crate) async fn run(mut args: GetArgs, context: &Context) -> Result<(), Failure> {
    if let Some(file) = &args.requests {
        return requests::run(file, context).await;
    }
    let question = args.question.take().ok_or_else(|| Failure::usage("no path was given"))?;
    let default = if context.terminal.stdout_is_terminal { Format::Table } else { Format::Jsonl };
    let format = Format::among(context.globals.output, default, &FORMATS)?;
    refuse(&args, format, context.terminal.stdout_is_terminal)?;
    question.columns()?;
    let mut keys = Keys::new(args.keys.clone(), args.keys_from.as_deref(), args.null)?;
    let client = context.client()?;
    let printer = Printer::new(format, args.bytes, !context.globals.no_headers, args.maxrows);
    let mut get = Get { args, question, context, client, format, printer, found: Found::default() };
    loop {
        let done = get.found.summary.keys;
        match get.step(&mut keys).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(failure) if done > 0 => {
                return Err(failure.after_some(&format!("after {} were answered", counted(done, "key"))));
            }
            Err(failure) => return Err(failure),
        }
    }
    get.finish().await
}

/// What cannot be printed in the format.
fn refuse(args: &GetArgs, format: Format, terminal: bool) -> Result<(), Failure> {
    if format != Format::Arrow {
        return Ok(());
    }
    if terminal {
        return Err(Failure::usage("an Arrow stream is not for a terminal")
            .hint("redirect it to a file, pipe it to a program, or choose another -o"));
    }
    if args.missing == Missing::Null {
        return Err(Failure::usage("--missing null has no rows in an Arrow stream").hint("print -o jsonl"));
    }
    if args.form != Travel::Rows {
        return Err(Failure::usage("--form does not go with -o arrow, which is a form of its own"));
    }
    Ok(())
}

/// A `get` under way.
struct Get<'a> {
    args: GetArgs,
    question: Question,
    context: &'a Context,
    client: Client,
    format: Format,
    printer: Printer,
    found: Found,
}

/// What the answers so far said.
#[derive(Default)]
struct Found {
    summary: Summary,
    /// Times of repeated lookups.
    runs: Vec<Duration>,
    /// For the JSON document only: all keys, and the places of those without rows and with too many.
    keys: Vec<Text>,
    missing: Vec<usize>,
    truncated: Vec<usize>,
    traces: Vec<Json>,
    /// The first missing keys, for the message.
    named: Vec<String>,
    cut: u64,
}

impl Get<'_> {
    /// Looks up the next keys and prints their rows; false when there are no more keys.
    async fn step(&mut self, keys: &mut Keys) -> Result<bool, Failure> {
        let batch = keys.batch().await?;
        if batch.is_empty() {
            return Ok(false);
        }
        let answer = self.ask(&batch).await?;
        self.found.runs.push(answer.elapsed);
        for _ in 1..self.args.repeat {
            self.found.runs.push(self.ask(&batch).await?.elapsed);
        }
        self.take(&batch, answer)?;
        let written = self.printer.end_batch()?;
        if !written.is_empty() {
            self.context.terminal.print(written).await?;
        }
        Ok(true)
    }

    async fn ask(&self, batch: &[Text]) -> Result<Answer, Failure> {
        let keys = batch.iter().map(|key| key.clone().map_or(Key::Null, Key::Text));
        let form = match (self.format, self.args.form) {
            (Format::Arrow, _) => Form::ArrowIpc,
            (_, Travel::Pages) => Form::Pages,
            (_, Travel::Rows | Travel::Typed) => Form::CompactRows,
        };
        let limit = if self.args.first { Some(1) } else { self.args.limit };
        let mut lookup = self.question.lookup(&self.client)?.keys(keys).form(form);
        if let Some(limit) = limit {
            lookup = lookup.row_limit(limit);
        }
        Ok(lookup.trace(self.args.trace).unary(self.args.form == Travel::Typed).await?)
    }

    /// Hands an answer to the printer and adds it up.
    fn take(&mut self, batch: &[Text], answer: Answer) -> Result<(), Failure> {
        let first_key = self.found.summary.keys as usize;
        self.found.add(batch, &answer, self.format == Format::Json);
        if let Some(trace) = &answer.trace {
            if self.format == Format::Json {
                self.found.traces.push(trace::json(trace));
            } else {
                self.context.terminal.say(&format!("{}\n{}", trace::totals(trace), trace::text(trace)));
            }
        }
        for file in answer.files {
            if let Some(stream) = &file.arrow {
                self.printer.add_arrow(&file.url, stream)?;
                continue;
            }
            // A file that was named is told also where it has no such row, and its columns with it.
            let set = self.printer.rows();
            let at = set.add_file(&file.url, &file.version, &file.schema);
            for row in file.rows {
                set.add_row(first_key + row.key_index as usize, at, row.row_number, row.values);
            }
        }
        if self.args.missing == Missing::Null {
            self.add_nulls(batch, first_key, &answer.statuses)?;
        }
        Ok(())
    }

    fn add_nulls(&mut self, batch: &[Text], first_key: usize, statuses: &[KeyStatus]) -> Result<(), Failure> {
        let key_column = self.question.key.as_deref();
        let mut columns = self.question.columns()?.to_vec();
        if columns.is_empty() {
            columns.push(key_column.unwrap_or("key").to_owned());
        }
        for (i, key) in batch.iter().enumerate() {
            if statuses.get(i) == Some(&KeyStatus::NotFound) {
                self.printer.rows().add_missing(first_key + i, key.as_deref(), key_column, &columns);
            }
        }
        Ok(())
    }

    /// Prints what waited for the last batch, sums up, and says what was not found.
    async fn finish(self) -> Result<(), Failure> {
        let Self { args, question, context, printer, found, format, .. } = self;
        if found.summary.keys == 0 {
            return Err(Failure::usage("there is no key in the file of --keys-from"));
        }
        let beside = Beside {
            keys: &found.keys,
            missing: &found.missing,
            truncated: &found.truncated,
            summary: found.summary.clone(),
            traces: found.traces.clone(),
        };
        let rest = printer.finish(&beside)?;
        let found_nothing = found.summary.rows == 0 && args.missing == Missing::Skip;
        // A table without rows says nothing that the message does not say.
        let empty_table = found_nothing && format == Format::Table;
        if !rest.is_empty() && !empty_table {
            context.terminal.print(rest).await?;
        }
        let missing = found.summary.missing > 0;
        if found_nothing || (missing && args.missing == Missing::Error) {
            return Err(not_found(&question, &found));
        }
        if format == Format::Table && args.maxrows > 0 && found.summary.rows > args.maxrows as u64 {
            context
                .terminal
                .summary(&format!("the first {} rows are shown; --maxrows 0 shows all", count(args.maxrows as u64)));
        }
        if found.cut > 0 {
            let keys = counted(found.cut, "key");
            context.terminal.summary(&format!("{keys} had more rows than --first or --limit allows"));
        }
        context.terminal.summary(&found.summary.line());
        if args.repeat > 1 {
            context.terminal.summary(&found.summary.repeated(&found.runs));
        }
        Ok(())
    }
}

impl Found {
    fn add(&mut self, batch: &[Text], answer: &Answer, keep_keys: bool) {
        let first_key = self.summary.keys as usize;
        for (i, status) in answer.statuses.iter().enumerate() {
            match status {
                KeyStatus::Found => continue,
                KeyStatus::Truncated => {
                    self.cut += 1;
                    self.truncated.extend(keep_keys.then_some(first_key + i));
                }
                KeyStatus::NotFound => {
                    self.summary.missing += 1;
                    self.missing.extend(keep_keys.then_some(first_key + i));
                    if self.named.len() < NAMED_KEYS {
                        self.named.push(batch.get(i).cloned().flatten().unwrap_or_else(|| "null".to_owned()));
                    }
                }
            }
        }
        if keep_keys {
            self.keys.extend_from_slice(batch);
        }
        let summary = &mut self.summary;
        summary.keys += batch.len() as u64;
        summary.rows += answer.files.iter().map(|file| file.rows.len() as u64).sum::<u64>();
        summary.lookups += 1;
        summary.workers.insert(answer.worker.to_string());
        summary.source = source(answer.source).to_owned();
        summary.ring_epoch = answer.ring_epoch;
        summary.files_total = u64::from(answer.files_total);
        summary.files_asked = summary.files_asked.max(u64::from(answer.files_asked));
        summary.origin_gets += answer.origin_gets;
        summary.origin_bytes += answer.origin_bytes;
        summary.elapsed += answer.elapsed;
    }
}

/// The word of a source in JSON.
pub(crate) fn source(source: Source) -> &'static str {
    match source {
        Source::Unknown => "unknown",
        Source::Memory => "memory",
        Source::PageStore => "page_store",
        Source::Peer => "peer",
        Source::Origin => "origin",
    }
}

fn not_found(question: &Question, found: &Found) -> Failure {
    let (path, keys, missing) = (&question.path, found.summary.keys, found.summary.missing);
    let more = if missing > found.named.len() as u64 { ", …" } else { "" };
    let named = format!("{}{more}", printable(&found.named.join(", ")));
    Failure::no_rows(match (keys, &question.key) {
        (1, Some(column)) => format!("{column}={named} in {path}"),
        (1, None) => format!("{named} in {path}"),
        _ if missing == keys => format!("none of {} in {path}: {named}", counted(keys, "key")),
        _ => format!("{} of {} in {path}: {named}", count(missing), counted(keys, "key")),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn question(key: Option<&str>) -> Question {
        Question { path: "lake/users/".into(), key: key.map(str::to_owned), select: Vec::new() }
    }

    fn answer(statuses: Vec<KeyStatus>) -> Answer {
        Answer {
            files: Vec::new(),
            statuses,
            ring_epoch: 7,
            worker: Arc::from("127.0.0.1:7610"),
            source: Source::Memory,
            files_total: 16,
            files_asked: 2,
            origin_gets: 1,
            origin_bytes: 10,
            trace: None,
            elapsed: Duration::from_micros(100),
        }
    }

    fn texts(keys: &[&str]) -> Vec<Text> {
        keys.iter().map(|key| Some((*key).to_owned())).collect()
    }

    #[test]
    fn what_was_not_found_is_named() {
        let mut found = Found::default();
        found.add(&texts(&["9"]), &answer(vec![KeyStatus::NotFound]), false);
        assert_eq!(not_found(&question(Some("id")), &found).to_string(), "not found: id=9 in lake/users/\n");
        assert_eq!(not_found(&question(None), &found).to_string(), "not found: 9 in lake/users/\n");
        found.add(&texts(&["7", "8"]), &answer(vec![KeyStatus::Found, KeyStatus::NotFound]), false);
        assert_eq!(not_found(&question(None), &found).to_string(), "not found: 2 of 3 keys in lake/users/: 9, 8\n");
        let mut many = Found::default();
        many.add(&texts(&["1", "2", "3", "4", "5", "6"]), &answer(vec![KeyStatus::NotFound; 6]), false);
        let failure = not_found(&question(None), &many);
        assert_eq!(failure.to_string(), "not found: none of 6 keys in lake/users/: 1, 2, 3, 4, 5, …\n");
        assert_eq!(failure.code(), 3);
    }

    #[test]
    fn answers_add_up() {
        let mut found = Found::default();
        let statuses = vec![KeyStatus::Found, KeyStatus::Truncated, KeyStatus::NotFound];
        found.add(&texts(&["a", "b", "c"]), &answer(statuses.clone()), true);
        found.add(&texts(&["d", "e", "f"]), &answer(statuses), true);
        assert_eq!((found.summary.keys, found.summary.missing, found.cut), (6, 2, 2));
        assert_eq!((found.missing.as_slice(), found.truncated.as_slice()), ([2, 5].as_slice(), [1, 4].as_slice()));
        assert_eq!((found.summary.lookups, found.summary.origin_gets, found.summary.files_asked), (2, 2, 2));
        assert_eq!(found.keys.len(), 6);
    }
}
