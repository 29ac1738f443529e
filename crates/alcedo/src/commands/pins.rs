//! `alcedo pins`: what is pinned, and what came of it.

use std::collections::BTreeSet;

use alcedo_client::{Error, Member, PinEntry, PinInfo, PinState, PinThing, Pins};
use clap::Args;
use serde_json::{Value as Json, json};

use super::Context;
use super::members::{self, Answers};
use crate::failure::Failure;
use crate::output::aligned::aligned;
use crate::output::quantity::{bytes, count};
use crate::output::{API_VERSION, Format, json_document, printable};

const HEADER: [&str; 8] = ["WORKER", "FILES", "PINNED", "WAITING", "REFUSED", "BYTES", "WHAT", "URL"];
pub(super) const LONG_HEADER: [&str; 6] = ["WORKER", "STATE", "BYTES", "WHAT", "URL", "WHY"];

/// The flags of `pins`.
#[derive(Debug, Args)]
pub(crate) struct PinsArgs {
    /// Only what concerns this file or prefix [default: all]
    #[arg(value_name = "PATH")]
    path: Option<String>,
    /// One line per worker, file and thing
    #[arg(short, long)]
    long: bool,
}

/// Prints pins.
///
/// # Errors
/// There is no such mount, no worker answered, or some did not.
pub(crate) async fn run(args: PinsArgs, context: &Context) -> Result<(), Failure> {
    let formats = [Format::Table, Format::Json, Format::Jsonl, Format::Name];
    let format = Format::among(context.globals.output, Format::Table, &formats)?;
    let answers = context.client()?.pins(args.path.as_deref()).await?;
    if answers.iter().all(|(_, answer)| answer.is_err()) {
        return members::settle(&answers);
    }
    let headers = !context.globals.no_headers;
    let printed = match format {
        Format::Json => {
            let items: Json = answers.iter().map(|(member, answer)| item(member, answer)).collect();
            json_document(&json!({ "apiVersion": API_VERSION, "kind": "PinList", "path": args.path, "items": items }))
        }
        Format::Jsonl => pins(&answers).flat_map(|(member, pin)| json_document(&pin_item(member, pin))).collect(),
        Format::Name => {
            let urls: BTreeSet<&str> = pins(&answers).map(|(_, pin)| pin.url.as_str()).collect();
            urls.into_iter().map(|url| format!("{}\n", printable(url))).collect::<String>().into()
        }
        _ if args.long => {
            let entries = pins(&answers).flat_map(|(member, pin)| pin.entries.iter().map(move |entry| (member, entry)));
            let lines: Vec<_> = entries.map(|(member, entry)| entry_line(member, entry)).collect();
            aligned(headers.then_some(LONG_HEADER), &lines).into_bytes()
        }
        _ => aligned(headers.then_some(HEADER), &lines(&answers)).into_bytes(),
    };
    context.terminal.print(printed).await?;
    for (member, answer) in &answers {
        if let Ok(Pins { held_bytes, capacity_bytes, .. }) = answer {
            let (name, held, capacity) = (members::name(member), bytes(*held_bytes), bytes(*capacity_bytes));
            context.terminal.summary(&printable(&format!("{name}: {held} of {capacity} are pinned")));
        }
    }
    members::settle(&answers)
}

fn pins(answers: &Answers<Pins>) -> impl Iterator<Item = (&Member, &PinInfo)> {
    answers.iter().flat_map(|(member, answer)| {
        let pins = answer.as_ref().map(|pins| pins.pins.as_slice()).unwrap_or_default();
        pins.iter().map(move |pin| (member, pin))
    })
}

fn lines(answers: &Answers<Pins>) -> Vec<[String; 8]> {
    let mut lines = Vec::new();
    for (member, answer) in answers {
        match answer {
            Ok(pins) => lines.extend(pins.pins.iter().map(|pin| {
                let [files, pinned, waiting, refused, bytes] = tally(&pin.entries);
                let what: Vec<String> = pin.things.iter().map(words).collect();
                let name = members::name(member).to_owned();
                [name, files, pinned, waiting, refused, bytes, what.join(","), pin.url.clone()]
            })),
            Err(error) => {
                let line = [members::name(member), members::trouble(error), "-", "-", "-", "-", "-", "-"];
                lines.push(line.map(str::to_owned));
            }
        }
    }
    lines
}

/// Files, things that are pinned, that wait, that were refused, and bytes, as a table has them.
pub(super) fn tally(entries: &[PinEntry]) -> [String; 5] {
    let of = |state| entries.iter().filter(|entry| entry.state == state).count() as u64;
    let files: BTreeSet<&str> = entries.iter().map(|entry| entry.url.as_str()).collect();
    let held: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let [pinned, waiting, refused] =
        [PinState::Pinned, PinState::Waiting, PinState::Refused].map(|state| count(of(state)));
    [count(files.len() as u64), pinned, waiting, refused, bytes(held)]
}

/// One thing of one file as a line.
pub(super) fn entry_line(member: &Member, entry: &PinEntry) -> [String; 6] {
    let (name, state, what) = (members::name(member).to_owned(), state(entry.state), words(&entry.thing));
    [name, state.to_owned(), bytes(entry.bytes), what, entry.url.clone(), entry.why.clone()]
}

/// The same for programs.
pub(super) fn entry_item(member: &Member, entry: &PinEntry) -> Json {
    json!({
        "worker": member.id,
        "url": entry.url,
        "version": entry.version,
        "what": what(&entry.thing),
        "key": key(&entry.thing),
        "state": state(entry.state),
        "bytes": entry.bytes,
        "why": entry.why,
        "needed_bytes": entry.needed_bytes,
        "free_bytes": entry.free_bytes,
    })
}

fn pin_item(member: &Member, pin: &PinInfo) -> Json {
    let thing = |thing: &PinThing| json!({ "what": what(thing), "key": key(thing) });
    json!({
        "worker": member.id,
        "url": pin.url,
        "things": pin.things.iter().map(thing).collect::<Json>(),
        "entries": pin.entries.iter().map(|entry| entry_item(member, entry)).collect::<Json>(),
    })
}

fn item(member: &Member, answer: &Result<Pins, Error>) -> Json {
    let pins = answer.as_ref().ok();
    json!({
        "worker": member.id,
        "address": member.address,
        "held_bytes": pins.map(|pins| pins.held_bytes),
        "capacity_bytes": pins.map(|pins| pins.capacity_bytes),
        "pins": pins.map(|pins| pins.pins.iter().map(|pin| pin_item(member, pin)).collect::<Json>()),
        "error": answer.as_ref().err().map(|error| error.message.clone()),
    })
}

fn state(state: PinState) -> &'static str {
    match state {
        PinState::Pinned => "pinned",
        PinState::Waiting => "waiting",
        PinState::Refused => "refused",
    }
}

/// A thing as `--what` takes it.
fn what(thing: &PinThing) -> String {
    match thing {
        PinThing::Footer => "footer".to_owned(),
        PinThing::Index => "index".to_owned(),
        PinThing::Bloom => "bloom".to_owned(),
        PinThing::Column(name) => format!("columns:{name}"),
        PinThing::Keymap(_) => "keymap".to_owned(),
        PinThing::Rows(_) => "rows".to_owned(),
        // A later client has things that this command does not know.
        _ => "?".to_owned(),
    }
}

fn key(thing: &PinThing) -> Option<&str> {
    match thing {
        PinThing::Keymap(key) | PinThing::Rows(key) => key.as_deref(),
        _ => None,
    }
}

/// A thing for people.
pub(super) fn words(thing: &PinThing) -> String {
    match key(thing) {
        Some(key) => format!("{}({key})", what(thing)),
        None => what(thing),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::members::tests::{down, member};
    use super::*;

    pub(crate) fn entry(thing: PinThing, state: PinState, bytes: u64) -> PinEntry {
        let is_refused = state == PinState::Refused;
        let (why, needed_bytes, free_bytes) = if is_refused { ("no room", 7, 3) } else { ("", 0, 0) };
        let (url, version, why) = ("s3://lake/a".to_owned(), "e".to_owned(), why.to_owned());
        PinEntry { url, version, thing, state, bytes, why, needed_bytes, free_bytes }
    }

    #[test]
    fn each_pin_of_each_worker_is_a_line() {
        let rows = || PinThing::Rows(Some("id".to_owned()));
        let entries = vec![entry(PinThing::Footer, PinState::Pinned, 2_048), entry(rows(), PinState::Waiting, 0)];
        let things = vec![PinThing::Footer, rows()];
        let pin = PinInfo { url: "s3://lake".to_owned(), things, entries };
        let pins = Pins { pins: vec![pin], held_bytes: 10, capacity_bytes: 20 };
        let answers = [(member("w-0"), Ok(pins)), (member("w-1"), Err(down()))];
        let expected = "\
WORKER  FILES  PINNED  WAITING  REFUSED  BYTES    WHAT             URL
w-0     1      1       1        0        2.0 KiB  footer,rows(id)  s3://lake
w-1     down   -       -        -        -        -                -
";
        assert_eq!(aligned(Some(HEADER), &lines(&answers)), expected);
        let items: Vec<_> = answers.iter().map(|(member, answer)| item(member, answer)).collect();
        assert_eq!((items[0]["held_bytes"].as_u64(), items[0]["capacity_bytes"].as_u64()), (Some(10), Some(20)));
        assert_eq!(
            items[0]["pins"][0]["things"],
            json!([{ "what": "footer", "key": null }, { "what": "rows", "key": "id" }])
        );
        assert_eq!(items[0]["pins"][0]["entries"][1]["state"], "waiting");
        assert!(items[1]["pins"].is_null() && items[1]["error"].is_string());
    }
}
