//! `alcedo unpin`: ends a pin.

use alcedo_client::{Error, Member, Unpinned};
use clap::Args;
use serde_json::{Value as Json, json};

use super::Context;
use super::members::{self, Answers};
use crate::failure::Failure;
use crate::output::aligned::aligned;
use crate::output::quantity::{bytes, count};
use crate::output::{API_VERSION, Format, json_document, printable};

const HEADER: [&str; 4] = ["WORKER", "PINS", "FILES", "FREED"];

/// The flags of `unpin`.
#[derive(Debug, Args)]
pub(crate) struct UnpinArgs {
    /// File or prefix, as it was pinned
    #[arg(value_name = "PATH")]
    path: String,
}

/// Ends a pin, and prints what was dropped.
///
/// # Errors
/// There is no such pin or mount, no worker answered, or some did not.
pub(crate) async fn run(args: UnpinArgs, context: &Context) -> Result<(), Failure> {
    let formats = [Format::Table, Format::Json, Format::Jsonl];
    let format = Format::among(context.globals.output, Format::Table, &formats)?;
    let answers = context.client()?.unpin(&args.path).await?;
    if answers.iter().all(|(_, answer)| answer.is_err()) {
        return members::settle(&answers);
    }
    let items = || answers.iter().map(|(member, answer)| item(member, answer));
    let printed = match format {
        Format::Json => {
            let items: Json = items().collect();
            json_document(
                &json!({ "apiVersion": API_VERSION, "kind": "UnpinnedList", "path": args.path, "items": items }),
            )
        }
        Format::Jsonl => items().flat_map(|item| json_document(&item)).collect(),
        _ => aligned((!context.globals.no_headers).then_some(HEADER), &lines(&answers)).into_bytes(),
    };
    context.terminal.print(printed).await?;
    members::settle(&answers)?;
    if answers.iter().all(|(_, answer)| answer.as_ref().is_ok_and(|unpinned| unpinned.pins == 0)) {
        let message = format!("there is no pin of {}", printable(&args.path));
        return Err(Failure::no_rows(message).hint("`alcedo pins` lists them"));
    }
    Ok(())
}

fn lines(answers: &Answers<Unpinned>) -> Vec<[String; 4]> {
    answers
        .iter()
        .map(|(member, answer)| match answer {
            Ok(Unpinned { pins, files, freed_bytes }) => {
                [members::name(member).to_owned(), count(*pins), count(*files), bytes(*freed_bytes)]
            }
            Err(error) => [members::name(member), members::trouble(error), "-", "-"].map(str::to_owned),
        })
        .collect()
}

fn item(member: &Member, answer: &Result<Unpinned, Error>) -> Json {
    let unpinned = answer.as_ref().ok();
    json!({
        "worker": member.id,
        "address": member.address,
        "pins": unpinned.map(|unpinned| unpinned.pins),
        "files": unpinned.map(|unpinned| unpinned.files),
        "freed_bytes": unpinned.map(|unpinned| unpinned.freed_bytes),
        "error": answer.as_ref().err().map(|error| error.message.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::members::tests::{down, member};
    use super::*;

    #[test]
    fn what_ended_is_told_per_worker() {
        let unpinned = Unpinned { pins: 1, files: 2, freed_bytes: 4_096 };
        let answers = [(member("w-0"), Ok(unpinned)), (member("w-1"), Err(down()))];
        let expected = "\
WORKER  PINS  FILES  FREED
w-0     1     2      4.0 KiB
w-1     down  -      -
";
        assert_eq!(aligned(Some(HEADER), &lines(&answers)), expected);
        let items: Vec<_> = answers.iter().map(|(member, answer)| item(member, answer)).collect();
        assert_eq!((items[0]["freed_bytes"].as_u64(), items[1]["pins"].as_u64()), (Some(4_096), None));
    }
}
