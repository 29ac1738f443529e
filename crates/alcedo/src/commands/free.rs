//! `alcedo free`: makes the workers drop what they hold of a file, or of the files below a prefix.

use std::io;

use alcedo_client::{Error, Freed, Member};
use clap::Args;
use serde_json::{Value as Json, json};

use super::Context;
use super::members::{self, Answers};
use crate::failure::Failure;
use crate::output::aligned::aligned;
use crate::output::quantity::{bytes, count, counted};
use crate::output::{API_VERSION, Format, json_document, printable};
use crate::terminal::blocking;

const HEADER: [&str; 3] = ["WORKER", "FILES", "FREED"];

/// The flags of `free`.
#[derive(Debug, Args)]
pub(crate) struct FreeArgs {
    /// File or prefix; the files themselves stay as they are
    #[arg(value_name = "PATH")]
    path: String,
    /// Do not ask first
    #[arg(short, long)]
    yes: bool,
}

/// Drops, and prints what was dropped.
///
/// # Errors
/// Nobody said yes, there is no such mount, no worker answered, or some did not.
pub(crate) async fn run(args: FreeArgs, context: &Context) -> Result<(), Failure> {
    let formats = [Format::Table, Format::Json, Format::Jsonl];
    let format = Format::among(context.globals.output, Format::Table, &formats)?;
    let client = context.client()?;
    if !args.yes {
        confirm(&args.path, context).await?;
    }
    let answers = client.free(&args.path).await?;
    if answers.iter().all(|(_, answer)| answer.is_err()) {
        return members::settle(&answers);
    }
    let items = || answers.iter().map(|(member, answer)| item(member, answer));
    let printed = match format {
        Format::Json => {
            let (total, items): (_, Json) = (total(&answers), items().collect());
            json_document(&json!({
                "apiVersion": API_VERSION,
                "kind": "FreedList",
                "path": args.path,
                "total": {
                    "files": total.files,
                    "freed_bytes": total.freed_bytes,
                    "pinned_files": total.pinned_files,
                    "pinned_bytes": total.pinned_bytes,
                },
                "items": items,
            }))
        }
        Format::Jsonl => items().flat_map(|item| json_document(&item)).collect(),
        _ => aligned((!context.globals.no_headers).then_some(HEADER), &lines(&answers)).into_bytes(),
    };
    context.terminal.print(printed).await?;
    let Freed { pinned_files, pinned_bytes, .. } = total(&answers);
    if pinned_files > 0 {
        let files = counted(pinned_files, "pinned file");
        context.terminal.summary(&format!("{files} kept {}; `alcedo unpin` ends that", bytes(pinned_bytes)));
    }
    members::settle(&answers)
}

/// Asks whoever sits at the terminal.
async fn confirm(path: &str, context: &Context) -> Result<(), Failure> {
    if !context.terminal.is_interactive {
        return Err(Failure::usage(format!(
            "free drops what the workers hold of {}, and nobody is here to ask",
            printable(path)
        ))
        .hint("say --yes"));
    }
    context.terminal.say(&format!("Drop what all workers hold of {}? [y/N] ", printable(path)));
    let said = blocking(|| {
        let mut line = String::new();
        io::stdin()
            .read_line(&mut line)
            .map_err(|error| Failure::error(format!("cannot read the answer: {}", error.kind())))?;
        Ok(line)
    });
    if is_yes(&said.await?) { Ok(()) } else { Err(Failure::error("nothing was dropped")) }
}

fn is_yes(said: &str) -> bool {
    matches!(said.trim().to_lowercase().as_str(), "y" | "yes")
}

/// The sum over all workers: a file that two held counts twice, because both dropped it.
fn total(answers: &Answers<Freed>) -> Freed {
    let freed = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
    freed.fold(Freed::default(), |sum, one| Freed {
        files: sum.files.saturating_add(one.files),
        freed_bytes: sum.freed_bytes.saturating_add(one.freed_bytes),
        pinned_files: sum.pinned_files.saturating_add(one.pinned_files),
        pinned_bytes: sum.pinned_bytes.saturating_add(one.pinned_bytes),
    })
}

fn lines(answers: &Answers<Freed>) -> Vec<[String; 3]> {
    let line = |name: &str, freed: &Freed| [name.to_owned(), count(freed.files), bytes(freed.freed_bytes)];
    let mut lines: Vec<_> = answers
        .iter()
        .map(|(member, answer)| match answer {
            Ok(freed) => line(members::name(member), freed),
            Err(error) => [members::name(member), members::trouble(error), "-"].map(str::to_owned),
        })
        .collect();
    lines.push(line("TOTAL", &total(answers)));
    lines
}

fn item(member: &Member, answer: &Result<Freed, Error>) -> Json {
    let freed = answer.as_ref().ok();
    json!({
        "worker": member.id,
        "address": member.address,
        "files": freed.map(|freed| freed.files),
        "freed_bytes": freed.map(|freed| freed.freed_bytes),
        "pinned_files": freed.map(|freed| freed.pinned_files),
        "pinned_bytes": freed.map(|freed| freed.pinned_bytes),
        "error": answer.as_ref().err().map(|error| error.message.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::members::tests::{down, member};
    use super::*;

    #[test]
    fn what_was_dropped_is_told_per_worker() {
        let answers = [
            (member("w-0"), Ok(Freed { files: 2, freed_bytes: 2_048, pinned_files: 1, pinned_bytes: 512 })),
            (member("w-1"), Ok(Freed { files: 1, freed_bytes: 1_024, ..Freed::default() })),
            (member("w-2"), Err(down())),
        ];
        let expected = "\
WORKER  FILES  FREED
w-0     2      2.0 KiB
w-1     1      1.0 KiB
w-2     down   -
TOTAL   3      3.0 KiB
";
        assert_eq!(aligned(Some(HEADER), &lines(&answers)), expected);
        let items: Vec<_> = answers.iter().map(|(member, answer)| item(member, answer)).collect();
        assert_eq!((items[0]["freed_bytes"].as_u64(), &items[0]["error"]), (Some(2_048), &Json::Null));
        assert_eq!((items[0]["pinned_bytes"].as_u64(), items[1]["pinned_files"].as_u64()), (Some(512), Some(0)));
        assert!(items[2]["freed_bytes"].is_null() && items[2]["error"].is_string());
    }

    #[test]
    fn only_yes_is_yes() {
        assert!(["y\n", " YES \n", "yes"].into_iter().all(is_yes));
        assert!(!["", "\n", "n\n", "yesterday\n", "no\n"].into_iter().any(is_yes));
    }
}
