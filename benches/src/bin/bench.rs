//! The program behind `cargo xtask bench`: it measures, prints the table and writes the run.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's own output")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use alcedo_benches::report::{self, Row, Run};
use alcedo_benches::{beside_redis, footer, hostile, machine, restart, ring};

const USAGE: &str = "\
usage: cargo xtask bench [--rounds N] [--profile SECONDS]

  --rounds N         rounds of the comparison with Redis, 5 unless said otherwise
  --profile SECONDS  measure nothing: keep a worker busy, so that a profiler can look at it
";
/// Rounds where none are asked for: the fewest whose median a single disturbance does not move.
const ROUNDS: usize = 5;

#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Measure { rounds: usize },
    Hold { duration: Duration },
    Help,
}

fn main() -> ExitCode {
    let done = match parse(std::env::args().skip(1)) {
        Ok(Wish::Help) => {
            print!("{USAGE}");
            Ok(())
        }
        Ok(Wish::Measure { rounds }) => measure(rounds),
        Ok(Wish::Hold { duration }) => runtime().and_then(|runtime| runtime.block_on(beside_redis::hold(duration))),
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
    let mut wish = Wish::Measure { rounds: ROUNDS };
    while let Some(arg) = args.next() {
        let mut number = || match args.next().unwrap_or_default().parse::<u64>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("{arg} takes a number from 1 on")),
        };
        wish = match arg.as_str() {
            "--rounds" => Wish::Measure { rounds: number()?.try_into().map_err(|_| "too many rounds".to_owned())? },
            "--profile" => Wish::Hold { duration: Duration::from_secs(number()?) },
            "--help" | "-h" => return Ok(Wish::Help),
            _ => return Err(format!("there is no `{arg}`")),
        };
    }
    Ok(wish)
}

/// One thread, as the worker that is measured has: neither side wins by using more of the machine.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn measure(rounds: usize) -> anyhow::Result<()> {
    let (hardware, commit) = (machine::hardware(), machine::commit());
    let mut rows = part("a worker beside redis-server", || runtime()?.block_on(beside_redis::run(rounds)))?;
    rows.extend(part("footers", footer::run)?);
    rows.extend(part("hostile files", || runtime()?.block_on(hostile::run()))?);
    rows.extend(part("the ring", ring::run)?);
    rows.extend(part("restart with a full page store", restart::run)?);
    let run = Run { hardware, commit, rows };
    println!("\n{}", run.table());
    for path in run.write(&report::directory(), &machine::date())? {
        println!("wrote {}", path.display());
    }
    Ok(())
}

fn part(name: &str, work: impl FnOnce() -> anyhow::Result<Vec<Row>>) -> anyhow::Result<Vec<Row>> {
    println!("bench: {name} ...");
    let begin = Instant::now();
    let rows = work()?;
    println!("bench: {} figures in {:.0} s", rows.len(), begin.elapsed().as_secs_f64());
    Ok(rows)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_wrong_ones_refused() {
        let parse = |args: &str| parse(args.split_whitespace().map(str::to_owned));
        assert_eq!(parse(""), Ok(Wish::Measure { rounds: ROUNDS }));
        assert_eq!(parse("--rounds 9"), Ok(Wish::Measure { rounds: 9 }));
        assert_eq!(parse("--profile 30"), Ok(Wish::Hold { duration: Duration::from_secs(30) }));
        for wrong in ["--rounds", "--rounds 0", "--rounds x", "--fast"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
