//! Files made to do harm: each is asked everything, in a process of its own, and ends in rows or one clear error.
//!
//! What is measured is resident growth and whether the process lives: an abort or a stack that overflows is then one
//! file's failure and not the end of the run. Time is printed and not asserted. The fuzz targets' library is taken in
//! to craft files, to ask, and to replay what fuzzing found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

#[path = "hostile/bombs.rs"]
mod bombs;
#[path = "hostile/column.rs"]
mod column;
#[path = "hostile/encodings.rs"]
mod encodings;
#[path = "hostile/footers.rs"]
mod footers;
#[path = "../fuzz/src/lib.rs"]
#[allow(missing_docs, unreachable_pub, reason = "a library elsewhere")]
mod fuzzed;
#[path = "hostile/indexes.rs"]
mod indexes;
#[path = "hostile/mutations.rs"]
mod mutations;
#[path = "hostile/offsets.rs"]
mod offsets;
#[path = "hostile/process.rs"]
mod process;
#[path = "hostile/regressions.rs"]
mod regressions;

use process::{Child, Report};

/// What a file must come to.
#[derive(Debug, Clone, Copy)]
enum Expect {
    /// Rows or errors about the file, as long as every question ends.
    Ends,
    /// Every lookup, or already opening, ends in an error of one of these kinds.
    Fails(&'static [&'static str]),
    /// Some lookup finds rows, and none fails.
    Answers,
}

/// A file that a real writer would not write.
struct Hostile {
    name: String,
    expect: Expect,
    bytes: Box<dyn Fn() -> Vec<u8>>,
}

impl Hostile {
    fn new(name: impl Into<String>, expect: Expect, bytes: impl Fn() -> Vec<u8> + 'static) -> Self {
        Self { name: name.into(), expect, bytes: Box::new(bytes) }
    }
}

/// What is wrong with a report, in words.
fn faults(expect: Expect, report: &Report) -> Vec<String> {
    let mut faults = report.faults();
    if !faults.is_empty() {
        return faults;
    }
    let lookups = || report.answers.iter().filter(|answer| !["open", "names"].contains(&answer.question.as_str()));
    match expect {
        Expect::Ends => {}
        Expect::Fails(kinds) => {
            let allowed = |kind: &str| kinds.contains(&kind);
            let opened = !report.answers.iter().any(|answer| answer.question == "open" && allowed(&answer.kind));
            // Statistics may rule a key out before the damage is met, so some question must fail, and none find rows.
            if opened && !lookups().any(|answer| allowed(&answer.kind)) {
                faults.push(format!("nothing failed as {kinds:?}"));
            }
            let others =
                report.answers.iter().filter(|answer| !answer.kind.starts_with("rows") && !allowed(&answer.kind));
            faults.extend(others.map(|answer| format!("{}: {} {}", answer.question, answer.kind, answer.message)));
        }
        Expect::Answers => {
            if !lookups().any(|answer| answer.kind.starts_with("rows") && answer.kind != "rows 0") {
                faults.push("no lookup found a row".to_owned());
            }
            let failed = report.answers.iter().filter(|answer| !answer.kind.starts_with("rows"));
            faults.extend(failed.map(|answer| format!("{}: {} {}", answer.question, answer.kind, answer.message)));
        }
    }
    faults
}

/// Runs all files of a family and fails with everything that is wrong.
fn check(family: Vec<Hostile>) {
    let mut wrong = Vec::new();
    for file in &family {
        let report = Child::file(&file.name, &(file.bytes)()).report();
        println!("{:<60} {report}", file.name);
        wrong.extend(faults(file.expect, &report).into_iter().take(3).map(|fault| format!("{}: {fault}", file.name)));
    }
    assert!(wrong.is_empty(), "{} files, {} faults:\n  {}", family.len(), wrong.len(), wrong.join("\n  "));
}

#[test]
fn bombs_are_not_inflated_beyond_what_they_declare() {
    check(bombs::all());
}

#[test]
fn levels_and_encodings_that_lie_cost_an_error() {
    check(encodings::all());
}

#[test]
fn footers_that_lie_cost_an_error() {
    check(footers::all());
}

#[test]
fn page_indexes_that_lie_cost_a_note_or_an_error() {
    check(indexes::all());
}

#[test]
fn offsets_that_point_anywhere_cost_an_error() {
    check(offsets::all());
}

#[test]
fn a_report_without_an_answer_or_with_growth_is_a_fault() {
    let sound = column::Column::int64(&[1, 2, 3]).file();
    let report = Child::file("sound", &sound).report();
    assert_eq!(faults(Expect::Answers, &report), Vec::<String>::new(), "{report}");
    assert!(!faults(Expect::Fails(&["Corrupt"]), &report).is_empty());
    let dead = Child::file("dead", &sound).dying().report();
    assert!(dead.faults()[0].contains("signal"), "{:?}", dead.faults());
    let grown = Child::file("grown", &sound).growing().report();
    assert!(grown.faults()[0].contains("grew by"), "{:?}", grown.faults());
}
