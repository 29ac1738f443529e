//! `alcedo check`: what the workers hold of a file, or of the files below a prefix.

use std::collections::BTreeMap;

use alcedo_client::{Error, Holding, Holdings, Member};
use clap::Args;
use serde_json::{Map, Value as Json, json};

use super::Context;
use super::members::{self, Answers};
use crate::failure::Failure;
use crate::output::aligned::aligned;
use crate::output::quantity::{bytes, count, percent};
use crate::output::{API_VERSION, Format, json_document, printable};

/// What a column shows where nothing is known.
const UNKNOWN: &str = "-";

const HEADER: [&str; 6] = ["WORKER", "FILES", "CACHED", "OF", "%", "INDEX"];
const LONG_HEADER: [&str; 6] = ["WORKER", "CACHED", "OF", "%", "INDEX", "URL"];

/// The flags of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// File or prefix
    #[arg(value_name = "PATH")]
    path: String,
    /// One line per file and worker that holds something of it
    #[arg(short, long)]
    long: bool,
}

/// What is held below a path.
#[derive(Debug, Default)]
struct Survey<'a> {
    workers: Vec<(&'a Member, Result<Share, &'a Error>)>,
    /// By URL: the file's size, and who holds what of it.
    files: BTreeMap<&'a str, File<'a>>,
    truncated: bool,
}

/// What one worker holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Share {
    /// Files of which it has anything.
    files: u64,
    cached_bytes: u64,
    indexed: u64,
}

#[derive(Debug, Default)]
struct File<'a> {
    size_bytes: u64,
    /// Workers that hold something of it.
    holders: Vec<(&'a Member, &'a Holding)>,
}

/// Prints what is held.
///
/// # Errors
/// There is no such path, no worker answered, or some did not.
pub(crate) async fn run(args: CheckArgs, context: &Context) -> Result<(), Failure> {
    let formats = [Format::Table, Format::Json, Format::Jsonl, Format::Name];
    let format = Format::among(context.globals.output, Format::Table, &formats)?;
    let answers = context.client()?.check(&args.path).await?;
    if answers.iter().all(|(_, answer)| answer.is_err()) {
        return members::settle(&answers);
    }
    let survey = Survey::new(&answers);
    let headers = !context.globals.no_headers;
    let printed = match format {
        Format::Json => json_document(&survey.json(&args.path, args.long)),
        Format::Jsonl if args.long => survey.file_items().flat_map(|item| json_document(&item)).collect(),
        Format::Jsonl => survey.worker_items().flat_map(|item| json_document(&item)).collect(),
        Format::Name => survey.held().map(|url| format!("{}\n", printable(url))).collect::<String>().into(),
        _ if args.long => aligned(headers.then_some(LONG_HEADER), &survey.file_lines()).into_bytes(),
        _ => aligned(headers.then_some(HEADER), &survey.worker_lines()).into_bytes(),
    };
    context.terminal.print(printed).await?;
    if survey.truncated {
        context.terminal.summary("there are more files below the path than a worker lists");
    }
    members::settle(&answers)?;
    if survey.files.is_empty() {
        return Err(Failure::no_rows(format!("there is nothing at or below {}", printable(&args.path))));
    }
    Ok(())
}

impl<'a> Survey<'a> {
    fn new(answers: &'a Answers<Holdings>) -> Self {
        let mut survey = Self::default();
        for (member, answer) in answers {
            let holdings = match answer {
                Ok(holdings) => holdings,
                Err(error) => {
                    survey.workers.push((member, Err(error)));
                    continue;
                }
            };
            let mut share = Share::default();
            for held in &holdings.files {
                let file = survey.files.entry(&held.url).or_default();
                file.size_bytes = file.size_bytes.max(held.size_bytes);
                if held.cached_bytes == 0 && !held.indexed {
                    continue;
                }
                file.holders.push((member, held));
                share.files += 1;
                share.cached_bytes += held.cached_bytes;
                share.indexed += u64::from(held.indexed);
            }
            survey.truncated |= holdings.truncated;
            survey.workers.push((member, Ok(share)));
        }
        survey
    }

    fn size_bytes(&self) -> u64 {
        self.files.values().map(|file| file.size_bytes).sum()
    }

    /// Of every file what the worker with the most of it has: what several have is not there several times.
    fn total(&self) -> Share {
        let mut total = Share::default();
        for file in self.files.values() {
            total.files += u64::from(!file.holders.is_empty());
            total.cached_bytes += file.holders.iter().map(|(_, held)| held.cached_bytes).max().unwrap_or_default();
            total.indexed += u64::from(file.holders.iter().any(|(_, held)| held.indexed));
        }
        total
    }

    /// The files of which anything is held.
    fn held(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter(|(_, file)| !file.holders.is_empty()).map(|(url, _)| *url)
    }

    fn worker_lines(&self) -> Vec<[String; 6]> {
        let (size, of) = (self.size_bytes(), self.files.len() as u64);
        let line = |name: &str, share: Result<Share, &Error>| match share {
            Err(error) => [name, members::trouble(error), UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN].map(str::to_owned),
            Ok(Share { files, cached_bytes, indexed }) => [
                name.to_owned(),
                count(files),
                bytes(cached_bytes),
                bytes(size),
                percent(cached_bytes, size),
                format!("{}/{}", count(indexed), count(of)),
            ],
        };
        let mut lines: Vec<_> =
            self.workers.iter().map(|(member, share)| line(members::name(member), *share)).collect();
        lines.push(line("TOTAL", Ok(self.total())));
        lines
    }

    fn file_lines(&self) -> Vec<[String; 6]> {
        let mut lines = Vec::new();
        for (url, file) in &self.files {
            let line = |worker: &str, cached: u64, indexed: bool| {
                let index = if indexed { "yes" } else { "no" };
                let (size, part) = (bytes(file.size_bytes), percent(cached, file.size_bytes));
                [worker.to_owned(), bytes(cached), size, part, index.to_owned(), (*url).to_owned()]
            };
            if file.holders.is_empty() {
                lines.push(line(UNKNOWN, 0, false));
            }
            lines.extend(
                file.holders.iter().map(|(member, held)| line(members::name(member), held.cached_bytes, held.indexed)),
            );
        }
        lines
    }

    fn worker_items(&self) -> impl Iterator<Item = Json> {
        self.workers.iter().map(|(member, share)| {
            let mut item = Map::new();
            item.insert("worker".into(), member.id.clone().into());
            item.insert("address".into(), member.address.clone().into());
            item.extend(share.map(fields).unwrap_or_default());
            item.insert("error".into(), share.err().map(|error| error.message.clone()).into());
            Json::Object(item)
        })
    }

    fn file_items(&self) -> impl Iterator<Item = Json> {
        self.files.iter().map(|(url, file)| {
            let holder = |(member, held): &(&Member, &Holding)| {
                json!({
                    "worker": member.id,
                    "version": held.version,
                    "cached_bytes": held.cached_bytes,
                    "indexed": held.indexed,
                })
            };
            let holders: Json = file.holders.iter().map(holder).collect();
            json!({ "url": url, "size_bytes": file.size_bytes, "holders": holders })
        })
    }

    fn json(&self, path: &str, long: bool) -> Json {
        let mut document = json!({
            "apiVersion": API_VERSION,
            "kind": "HoldingList",
            "path": path,
            "files_total": self.files.len(),
            "size_bytes": self.size_bytes(),
            "truncated": self.truncated,
            "total": fields(self.total()),
            "items": self.worker_items().collect::<Json>(),
        });
        if long {
            document["files"] = self.file_items().collect();
        }
        document
    }
}

fn fields(share: Share) -> Map<String, Json> {
    let Share { files, cached_bytes, indexed } = share;
    let fields = json!({ "files": files, "cached_bytes": cached_bytes, "indexed": indexed });
    if let Json::Object(fields) = fields { fields } else { Map::new() }
}

#[cfg(test)]
mod tests {
    use super::super::members::tests::{down, member};
    use super::*;

    fn holding(name: &str, size_bytes: u64, cached_bytes: u64, indexed: bool) -> Holding {
        Holding { url: format!("s3://lake/{name}"), size_bytes, version: "e".into(), cached_bytes, indexed }
    }

    fn answers() -> Vec<(Member, Result<Holdings, Error>)> {
        let files = |a, b, c| Holdings { files: vec![a, b, c], truncated: false };
        let nothing = || holding("c", 2_000, 0, false);
        vec![
            (member("w-0"), Ok(files(holding("a", 1_000, 600, true), holding("b", 1_000, 0, false), nothing()))),
            (member("w-1"), Ok(files(holding("a", 1_000, 400, true), holding("b", 1_000, 1_000, false), nothing()))),
            (member("w-2"), Err(down())),
        ]
    }

    #[test]
    fn each_worker_is_a_line_and_what_two_hold_counts_once() {
        let answers = answers();
        let survey = Survey::new(&answers);
        let expected = "\
WORKER  FILES  CACHED  OF       %     INDEX
w-0     1      600 B   3.9 KiB  15.0  1/3
w-1     2      1.4 KiB 3.9 KiB  35.0  1/3
w-2     down   -       -        -     -
TOTAL   2      1.6 KiB 3.9 KiB  40.0  1/3
";
        let printed = aligned(Some(HEADER), &survey.worker_lines());
        assert_eq!(printed.split_whitespace().collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>());
        assert_eq!(survey.held().collect::<Vec<_>>(), ["s3://lake/a", "s3://lake/b"]);
    }

    #[test]
    fn files_are_listed_with_those_who_hold_them() {
        let answers = answers();
        let expected = "\
WORKER  CACHED   OF       %     INDEX  URL
w-0     600 B    1000 B   60.0  yes    s3://lake/a
w-1     400 B    1000 B   40.0  yes    s3://lake/a
w-1     1000 B   1000 B   100   no     s3://lake/b
-       0 B      2.0 KiB  0.0   no     s3://lake/c
";
        let printed = aligned(Some(LONG_HEADER), &Survey::new(&answers).file_lines());
        assert_eq!(printed.split_whitespace().collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn programs_get_sums_holders_and_errors() {
        let answers = answers();
        let json = Survey::new(&answers).json("lake/", true);
        assert_eq!((json["kind"].as_str(), json["files_total"].as_u64()), (Some("HoldingList"), Some(3)));
        assert_eq!((json["size_bytes"].as_u64(), json["total"]["cached_bytes"].as_u64()), (Some(4_000), Some(1_600)));
        assert_eq!((json["items"][1]["files"].as_u64(), &json["items"][1]["error"]), (Some(2), &Json::Null));
        assert!(json["items"][2]["error"].as_str().is_some() && json["items"][2]["files"].is_null());
        assert_eq!(json["files"][0]["holders"][1]["worker"], "w-1");
        assert_eq!(json["files"][2]["holders"], json!([]));
        assert!(Survey::new(&answers).json("lake/", false)["files"].is_null());
    }
}
