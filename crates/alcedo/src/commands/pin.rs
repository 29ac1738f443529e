//! `alcedo pin`: keeps parts of a file, or of the files below a prefix, whatever else is asked.

use alcedo_client::{Member, PinEntry, PinState, PinThing};
use clap::Args;
use serde_json::{Value as Json, json};

use super::Context;
use super::members::{self, Answers};
use super::pins::{LONG_HEADER, entry_item, entry_line, tally, words};
use crate::failure::{Failure, exit};
use crate::output::aligned::aligned;
use crate::output::quantity::{count, counted};
use crate::output::{API_VERSION, Format, json_document, printable};

/// Refused things that a message names; the output has all of them.
const NAMED_REFUSALS: usize = 4;
/// What `--what` understands.
const WORDS: &str = "footer, index, bloom, keymap, rows, columns:NAME,...";

const HEADER: [&str; 6] = ["WORKER", "FILES", "PINNED", "WAITING", "REFUSED", "BYTES"];

/// The flags of `pin`.
#[derive(Debug, Args)]
pub(crate) struct PinArgs {
    /// File or prefix
    #[arg(value_name = "PATH")]
    path: String,
    /// What to keep of each file: footer, index, bloom, keymap, rows, columns:NAME,...
    #[arg(short, long, value_name = "WHAT,...", required = true, value_delimiter = ',')]
    what: Vec<String>,
    /// Key column of keymap and rows [default: the first one that the file declares it is sorted by]
    #[arg(short, long, value_name = "COLUMN")]
    key: Option<String>,
    /// One line per worker, file and thing
    #[arg(short, long)]
    long: bool,
}

/// Pins, and prints what came of it.
///
/// # Errors
/// Something was refused, there is no such mount, no worker answered, or some did not.
pub(crate) async fn run(args: PinArgs, context: &Context) -> Result<(), Failure> {
    let formats = [Format::Table, Format::Json, Format::Jsonl];
    let format = Format::among(context.globals.output, Format::Table, &formats)?;
    let things = things(&args.what, args.key.as_deref())?;
    let answers = context.client()?.pin(&args.path, &things).await?;
    if answers.iter().all(|(_, answer)| answer.is_err()) {
        return members::settle(&answers);
    }
    let headers = !context.globals.no_headers;
    let printed = match format {
        Format::Json => {
            let items: Json = answers.iter().map(|(member, answer)| item(member, answer)).collect();
            json_document(&json!({
                "apiVersion": API_VERSION,
                "kind": "PinOutcomeList",
                "path": args.path,
                "items": items,
            }))
        }
        Format::Jsonl => {
            entries(&answers).flat_map(|(member, entry)| json_document(&entry_item(member, entry))).collect()
        }
        _ if args.long => {
            let lines: Vec<_> = entries(&answers).map(|(member, entry)| entry_line(member, entry)).collect();
            aligned(headers.then_some(LONG_HEADER), &lines).into_bytes()
        }
        _ => aligned(headers.then_some(HEADER), &lines(&answers)).into_bytes(),
    };
    context.terminal.print(printed).await?;
    let waiting = entries(&answers).filter(|(_, entry)| entry.state == PinState::Waiting).count() as u64;
    if waiting > 0 {
        let what = counted(waiting, "thing");
        context
            .terminal
            .summary(&format!("{what} not pinned yet; that goes on, and `alcedo pins` tells how far it is"));
    }
    members::settle(&answers)?;
    settle_refused(&answers)
}

/// What the words of `--what` mean. Names behind `columns:` are columns until a word follows that is none.
fn things(words: &[String], key: Option<&str>) -> Result<Vec<PinThing>, Failure> {
    let (key, mut things, mut are_columns) = (key.map(str::to_owned), Vec::new(), false);
    for word in words {
        let thing = match (word.as_str(), word.strip_prefix("columns:")) {
            ("footer", _) => PinThing::Footer,
            ("index", _) => PinThing::Index,
            ("bloom", _) => PinThing::Bloom,
            ("keymap", _) => PinThing::Keymap(key.clone()),
            ("rows", _) => PinThing::Rows(key.clone()),
            (_, Some(name)) if !name.is_empty() => PinThing::Column(name.to_owned()),
            (name, None) if are_columns && !name.is_empty() => PinThing::Column(name.to_owned()),
            (other, _) => {
                let message = format!("`{}` is nothing that can be pinned", printable(other));
                return Err(Failure::usage(message).hint(format!("--what takes {WORDS}")));
            }
        };
        are_columns = matches!(thing, PinThing::Column(_));
        if !things.contains(&thing) {
            things.push(thing);
        }
    }
    let is_keyed = things.iter().any(|thing| matches!(thing, PinThing::Keymap(_) | PinThing::Rows(_)));
    if key.is_some() && !is_keyed {
        return Err(Failure::usage("--key is the key column of keymap and rows, and neither is pinned"));
    }
    Ok(things)
}

fn entries(answers: &Answers<Vec<PinEntry>>) -> impl Iterator<Item = (&Member, &PinEntry)> {
    answers.iter().flat_map(|(member, answer)| {
        let entries = answer.as_ref().map(Vec::as_slice).unwrap_or_default();
        entries.iter().map(move |entry| (member, entry))
    })
}

fn lines(answers: &Answers<Vec<PinEntry>>) -> Vec<[String; 6]> {
    answers
        .iter()
        .map(|(member, answer)| match answer {
            Ok(entries) => {
                let [files, pinned, waiting, refused, bytes] = tally(entries);
                [members::name(member).to_owned(), files, pinned, waiting, refused, bytes]
            }
            Err(error) => [members::name(member), members::trouble(error), "-", "-", "-", "-"].map(str::to_owned),
        })
        .collect()
}

fn item(member: &Member, answer: &Result<Vec<PinEntry>, alcedo_client::Error>) -> Json {
    let entries = answer.as_ref().ok();
    json!({
        "worker": member.id,
        "address": member.address,
        "entries": entries.map(|entries| entries.iter().map(|entry| entry_item(member, entry)).collect::<Json>()),
        "error": answer.as_ref().err().map(|error| error.message.clone()),
    })
}

/// What is refused is not there, so it must not pass for success.
fn settle_refused(answers: &Answers<Vec<PinEntry>>) -> Result<(), Failure> {
    let refused: Vec<_> = entries(answers).filter(|(_, entry)| entry.state == PinState::Refused).collect();
    if refused.is_empty() {
        return Ok(());
    }
    let all = entries(answers).count() as u64;
    let line = |(member, entry): &(&Member, &PinEntry)| {
        let (name, what) = (members::name(member), words(&entry.thing));
        format!("\n  {}", printable(&format!("{name}: {what} of {}: {}", entry.url, entry.why)))
    };
    let lines: String = refused.iter().take(NAMED_REFUSALS).map(line).collect();
    let more = if refused.len() > NAMED_REFUSALS { "\n  ..." } else { "" };
    let code = if refused.len() as u64 == all { exit::ERROR } else { exit::PARTIAL };
    let message = format!("{} of {} refused:{lines}{more}", count(refused.len() as u64), counted(all, "thing"));
    Err(Failure::new(code, message))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::members::tests::{down, member};
    use super::super::pins::tests::entry;
    use super::*;

    fn read(what: &str, key: Option<&str>) -> Result<Vec<PinThing>, Failure> {
        things(&what.split(',').map(str::to_owned).collect::<Vec<_>>(), key)
    }

    #[test]
    fn words_are_things_and_names_behind_columns_are_columns() {
        let column = |name: &str| PinThing::Column(name.to_owned());
        let id = || Some("id".to_owned());
        for (what, key, wanted) in [
            ("footer,index,bloom", None, vec![PinThing::Footer, PinThing::Index, PinThing::Bloom]),
            ("columns:a,b.c,rows", None, vec![column("a"), column("b.c"), PinThing::Rows(None)]),
            ("columns:rows,columns:index", None, vec![column("rows"), column("index")]),
            ("keymap,rows,keymap", Some("id"), vec![PinThing::Keymap(id()), PinThing::Rows(id())]),
        ] {
            assert_eq!(read(what, key).unwrap(), wanted, "{what}");
        }
        for what in ["foter", "a", "columns:", "footer,a", "", "columns:a,,b", "columns:a,index,b"] {
            let failure = read(what, None).unwrap_err();
            assert_eq!(failure.code(), 2, "{what}");
            assert!(failure.to_string().contains(WORDS), "{what}: {failure}");
        }
        assert_eq!(read("footer", Some("id")).unwrap_err().code(), 2);
    }

    #[test]
    fn what_was_refused_is_named_and_no_success() {
        let pinned = entry(PinThing::Footer, PinState::Pinned, 100);
        let refused = entry(PinThing::Column("a".into()), PinState::Refused, 0);
        let answers = [
            (member("w-0"), Ok(vec![pinned.clone(), refused.clone()])),
            (member("w-1"), Ok(vec![])),
            (member("w-2"), Err(down())),
        ];
        let expected = "\
WORKER  FILES  PINNED  WAITING  REFUSED  BYTES
w-0     1      1       0        1        100 B
w-1     0      0       0        0        0 B
w-2     down   -       -        -        -
";
        assert_eq!(aligned(Some(HEADER), &lines(&answers)), expected);
        let failure = settle_refused(&answers).unwrap_err();
        assert_eq!(failure.code(), exit::PARTIAL);
        assert!(failure.to_string().contains("w-0: columns:a of s3://lake/a: no room"), "{failure}");
        let all = [(member("w-0"), Ok(vec![refused]))];
        assert_eq!(settle_refused(&all).unwrap_err().code(), exit::ERROR);
        settle_refused(&[(member("w-0"), Ok(vec![pinned]))]).unwrap();
        let item = item(&answers[0].0, &answers[0].1);
        assert_eq!(
            (item["entries"][1]["state"].as_str(), item["entries"][1]["needed_bytes"].as_u64()),
            (Some("refused"), Some(7))
        );
    }
}
