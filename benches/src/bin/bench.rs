//! The program behind `cargo xtask bench`: it measures, prints the table and writes the run.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's own output")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use alcedo_benches::effort::Effort;
use alcedo_benches::report::{self, Row, Run};
use alcedo_benches::{
    beside_redis, big_tables, builds, cold, floors, footer, hostile, machine, memory, overload, peers, restart, ring,
    scaling,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const USAGE: &str = "\
usage: cargo xtask bench [--rounds N] [--load MS] [--long] [--markdown] [--only PART]...
       cargo xtask bench --profile SECONDS

  --rounds N         rounds of each comparison, 5 unless said otherwise
  --load MS          how long each load of a round lasts, 400 unless said otherwise
  --long             the mixed run of the part `memory` lasts ten minutes
  --markdown         print the table for documents
  --only PART        this part alone, or these; the table is printed and no run is written
  --profile SECONDS  measure nothing: keep a worker busy, so that a profiler can look at it

parts: hot, big, cold, peers, memory, scaling, overload, builds, footer, hostile, ring,
       restart
";

/// The parts in the order in which they run.
const PARTS: [Part; 12] = [
    Part { word: "hot", title: "hot rows beside redis-server and the floors" },
    Part { word: "big", title: "tables larger than memory" },
    Part { word: "cold", title: "files of which nothing is known" },
    Part { word: "peers", title: "other programs on the same rows" },
    Part { word: "memory", title: "memory" },
    Part { word: "scaling", title: "connections and workers" },
    Part { word: "overload", title: "overload" },
    Part { word: "builds", title: "background builds" },
    Part { word: "footer", title: "footers" },
    Part { word: "hostile", title: "hostile files" },
    Part { word: "ring", title: "the ring" },
    Part { word: "restart", title: "restart with a full page store" },
];

/// Letters of the reason why a part broke off that go into its row.
const MAX_WHY: usize = 300;

/// Something that can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    word: &'static str,
    title: &'static str,
}

#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Measure { effort: Effort, only: Vec<Part>, is_markdown: bool },
    Hold { duration: Duration },
    Serve { floor: String },
    Help,
}

fn main() -> ExitCode {
    let done = match parse(std::env::args().skip(1)) {
        Ok(Wish::Help) => {
            print!("{USAGE}");
            Ok(())
        }
        Ok(Wish::Measure { effort, only, is_markdown }) => measure(effort, &only, is_markdown),
        Ok(Wish::Hold { duration }) => runtime().and_then(|runtime| runtime.block_on(beside_redis::hold(duration))),
        Ok(Wish::Serve { floor }) => floors::serve(&floor),
        Err(problem) => {
            eprintln!("error: {problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Wish, String> {
    let (mut effort, mut only, mut hold, mut is_markdown) = (Effort::default(), Vec::new(), None, false);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_default();
        let number = |text: String| match text.parse::<u64>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("{arg} takes a number from 1 on")),
        };
        match arg.as_str() {
            "--rounds" => effort.rounds = number(value())?.try_into().map_err(|_| "too many rounds".to_owned())?,
            "--load" => effort.load = Duration::from_millis(number(value())?),
            "--long" => effort.long = true,
            "--markdown" => is_markdown = true,
            "--only" => {
                let word = value();
                let part = PARTS.into_iter().find(|part| part.word == word);
                only.push(part.ok_or_else(|| format!("there is no part `{word}`"))?);
            }
            "--profile" => hold = Some(Duration::from_secs(number(value())?)),
            floors::SERVE_FLAG => return Ok(Wish::Serve { floor: value() }),
            "--help" | "-h" => return Ok(Wish::Help),
            _ => return Err(format!("there is no `{arg}`")),
        }
    }
    Ok(match hold {
        Some(duration) => Wish::Hold { duration },
        None => Wish::Measure { effort, only, is_markdown },
    })
}

/// One thread, as the worker that is measured has: neither side wins by using more of the machine.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn measure(effort: Effort, only: &[Part], is_markdown: bool) -> anyhow::Result<()> {
    // A thousand connections have two ends; the workers inherit what is set here.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
    let (hardware, commit) = (machine::hardware(), machine::commit());
    let mut rows = Vec::new();
    for part in PARTS.into_iter().filter(|part| only.is_empty() || only.contains(part)) {
        println!("bench: {} ...", part.title);
        let begin = Instant::now();
        // One part that breaks is a target that is missed; the others are measured all the same.
        let figures = run(part, effort).unwrap_or_else(|error| vec![broken(part, &error)]);
        println!("bench: {} figures in {:.0} s", figures.len(), begin.elapsed().as_secs_f64());
        rows.extend(figures);
    }
    let run = Run { hardware, commit, rows };
    println!("\n{}", if is_markdown { run.markdown() } else { run.table() });
    if only.is_empty() {
        for path in run.write(&report::directory(), &machine::date())? {
            println!("wrote {}", path.display());
        }
    }
    Ok(())
}

/// The row of a part that did not come to its end.
fn broken(part: Part, error: &anyhow::Error) -> Row {
    eprintln!("bench: {} broke off: {error:#}", part.title);
    let why = format!("{error:#}").replace(['\n', '|'], " ");
    let target = format!("it runs to its end; it broke off: {}", why.chars().take(MAX_WHY).collect::<String>());
    Row::new(format!("{}, the part's end", part.word), "runs", 0.0).judged(target, Some(false))
}

fn run(part: Part, effort: Effort) -> anyhow::Result<Vec<Row>> {
    let runtime = runtime()?;
    match part.word {
        "hot" => runtime.block_on(beside_redis::run(effort)),
        "big" => runtime.block_on(big_tables::run(effort)),
        "cold" => runtime.block_on(cold::run(effort)),
        "peers" => runtime.block_on(peers::run(effort)),
        "memory" => runtime.block_on(memory::run(effort)),
        "scaling" => runtime.block_on(scaling::run(effort)),
        "overload" => runtime.block_on(overload::run(effort)),
        "builds" => runtime.block_on(builds::run(effort)),
        "footer" => footer::run(),
        "hostile" => runtime.block_on(hostile::run()),
        "ring" => ring::run(),
        _ => restart::run(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_wrong_ones_refused() {
        let parse = |args: &str| parse(args.split_whitespace().map(str::to_owned));
        let (effort, only) = (Effort::default(), Vec::new());
        assert_eq!(parse(""), Ok(Wish::Measure { effort, only: only.clone(), is_markdown: false }));
        assert_eq!(
            parse("--rounds 9"),
            Ok(Wish::Measure { effort: Effort { rounds: 9, ..effort }, only, is_markdown: false })
        );
        let short = Effort { rounds: 1, load: Duration::from_millis(50), long: true };
        let wish = Wish::Measure { effort: short, only: vec![PARTS[0], PARTS[3]], is_markdown: true };
        assert_eq!(parse("--rounds 1 --load 50 --long --markdown --only hot --only peers"), Ok(wish));
        assert_eq!(parse("--profile 30"), Ok(Wish::Hold { duration: Duration::from_secs(30) }));
        for wrong in ["--rounds", "--rounds 0", "--rounds x", "--fast", "--only", "--only fast"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(PARTS.iter().all(|part| USAGE.contains(&format!(" {}", part.word))));
    }
}
