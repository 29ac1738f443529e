//! A process for one file: it asks everything on a thread with a small stack, and says how much memory each question
//! took.
//!
//! The test binary starts itself again with one test named, [`asks_in_a_process_of_its_own`], and the file's path in
//! the environment. Resident growth is the peak since `/proc/self/clear_refs` was written, less what was resident then.

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use alcedo_lookup::limits::Limits;
use bytes::Bytes;

use crate::fuzzed::ask::{Asked, everything};
use crate::mutations;

/// What one question may take, in KiB of resident memory.
const GROWTH_KIB: u64 = 256 << 10;
/// The stack that a worker's threads have, in bytes.
const STACK_BYTES: usize = 2 << 20;
/// When a process is taken for one that never ends. The slowest take seconds, on a busy machine a minute.
const DEADLINE: Duration = Duration::from_secs(300);

const FILE: &str = "ALCEDO_HOSTILE_FILE";
/// `FROM..TO`: ask mutations of the file with these seeds instead.
const SEEDS: &str = "ALCEDO_HOSTILE_SEEDS";
/// `die` or `grow`: so that it is known that the parent sees it.
const MISBEHAVE: &str = "ALCEDO_HOSTILE_MISBEHAVE";

/// One line of a child.
pub(crate) struct Answer {
    pub(crate) question: String,
    /// `rows N`, or the error's variant.
    pub(crate) kind: String,
    pub(crate) message: String,
    growth_kib: u64,
}

/// What a child said and how it ended.
pub(crate) struct Report {
    pub(crate) answers: Vec<Answer>,
    /// How it ended, if not well.
    end: Option<String>,
    time: Duration,
}

impl Report {
    /// What is wrong whatever the file was.
    pub(crate) fn faults(&self) -> Vec<String> {
        let ended = self.end.iter().map(|end| format!("after `{}`: {end}", self.last()));
        let grown = self.answers.iter().filter(|answer| answer.growth_kib > GROWTH_KIB);
        ended.chain(grown.map(|a| format!("{}: grew by {} KiB, {}", a.question, a.growth_kib, a.kind))).collect()
    }

    fn last(&self) -> &str {
        self.answers.last().map_or("start", |answer| &answer.question)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let growth = self.answers.iter().map(|answer| answer.growth_kib).max().unwrap_or(0);
        let mut kinds: Vec<&str> = self.answers.iter().map(|answer| answer.kind.as_str()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds.truncate(6);
        let (time, end) = (self.time.as_millis(), self.end.as_deref().unwrap_or("ended"));
        write!(f, "{time:>6} ms, +{:>4} MiB, {}: {end}", growth >> 10, kinds.join(", "))
    }
}

/// A process to be.
pub(crate) struct Child {
    path: PathBuf,
    owned: bool,
    command: Command,
}

impl Child {
    /// One that asks everything of this file.
    pub(crate) fn file(name: &str, bytes: &[u8]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let path = std::env::temp_dir().join(format!("alcedo-hostile-{}-{count}-{name}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "process::asks_in_a_process_of_its_own", "--nocapture", "--test-threads=1"]);
        command.env(FILE, &path);
        // What is freed leaves the process at once, so that growth is what one question takes.
        command.envs([("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "131072")]);
        command.env("MALLOC_MMAP_THRESHOLD_", "131072").stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { path, owned: true, command }
    }

    /// One that asks mutations of a file that stays.
    pub(crate) fn mutations(path: &Path, seeds: std::ops::Range<u64>) -> Self {
        let mut child = Self::file("mutated", b"");
        fs::remove_file(&child.path).unwrap();
        (child.path, child.owned) = (path.to_owned(), false);
        child.command.env(FILE, path).env(SEEDS, format!("{}..{}", seeds.start, seeds.end));
        child
    }

    /// The same, but it ends by a signal.
    pub(crate) fn dying(mut self) -> Self {
        self.command.env(MISBEHAVE, "die");
        self
    }

    /// The same, but it takes more memory than it may.
    pub(crate) fn growing(mut self) -> Self {
        self.command.env(MISBEHAVE, "grow");
        self
    }

    /// Runs it to its end.
    pub(crate) fn report(mut self) -> Report {
        let start = Instant::now();
        let mut process = self.command.spawn().unwrap();
        let (said, complained) = (collected(process.stdout.take()), collected(process.stderr.take()));
        // Its output ends when it does.
        let mut end = None;
        let said = said.recv_timeout(DEADLINE).unwrap_or_else(|_| {
            end = Some(format!("not ended after {} s", DEADLINE.as_secs()));
            process.kill().unwrap();
            said.recv().unwrap()
        });
        let (status, complained) = (process.wait().unwrap(), complained.recv().unwrap());
        if self.owned {
            fs::remove_file(&self.path).unwrap();
        }
        if end.is_none() && !status.success() {
            let panicked = complained.find("panicked at").map_or("", |at| &complained[at..]);
            let why: String = panicked.chars().take(300).collect();
            end = Some(format!("{status} {}", why.replace('\n', " ")));
        }
        let answers: Vec<Answer> = said.lines().filter_map(parse).collect();
        if end.is_none() && answers.is_empty() {
            end = Some(format!("it said nothing: {complained}"));
        }
        Report { answers, end, time: start.elapsed() }
    }
}

/// What a pipe gives, to its end.
fn collected(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.unwrap().read_to_end(&mut bytes).unwrap();
        sender.send(String::from_utf8_lossy(&bytes).into_owned()).unwrap();
    });
    receiver
}

fn parse(line: &str) -> Option<Answer> {
    // The harness's own words may stand before the first of ours.
    let fields: Vec<&str> = line[line.find("@@\t")?..].split('\t').collect();
    let [_, growth, kind, question, message] = fields[..] else { return None };
    let growth_kib = growth.parse().ok()?;
    Some(Answer { question: question.into(), kind: kind.into(), message: message.into(), growth_kib })
}

/// The peak of resident memory since the last [`forget_peak`], in KiB.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Says what came of each question, with the growth since the one before.
fn tell(base: &mut u64, asked: &Asked) {
    let growth = peak_kib().saturating_sub(*base);
    let (kind, message) = match &asked.outcome {
        Ok(rows) => (format!("rows {rows}"), String::new()),
        Err(error) => {
            let variant = format!("{error:?}");
            let variant = variant.split(['(', ' ', '{']).next().unwrap_or_default();
            // A decoder that gave up on a page says of the file what one that noticed does.
            let kind = if variant == "DecoderPanicked" { "Corrupt" } else { variant };
            (kind.to_owned(), error.to_string().chars().take(200).collect())
        }
    };
    println!("@@\t{growth}\t{kind}\t{}\t{}", asked.question, message.escape_debug());
    forget_peak();
    *base = peak_kib();
}

/// Not a test by itself: the body of a child process, and nothing at all where no child was asked for.
#[test]
fn asks_in_a_process_of_its_own() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let file = Bytes::from(fs::read(path).unwrap());
    let misbehave = std::env::var(MISBEHAVE).unwrap_or_default();
    if misbehave == "die" {
        std::process::abort();
    }
    crate::fuzzed::start();
    let body = move || {
        forget_peak();
        let mut base = peak_kib();
        let limits = Arc::new(Limits::default());
        if misbehave == "grow" {
            let grown = std::hint::black_box(vec![1_u8; (GROWTH_KIB as usize + 1024) << 10]);
            assert!(grown.iter().all(|byte| *byte == 1));
        }
        crate::fuzzed::guard::run(|| match std::env::var(SEEDS) {
            Ok(seeds) => {
                let (from, to) = seeds.split_once("..").unwrap();
                for seed in from.parse().unwrap()..to.parse().unwrap() {
                    let mutated = Bytes::from(mutations::mutated(&file, seed));
                    println!("@@\t0\trows 0\tseed {seed}\t");
                    everything(&mutated, &limits, &mut |asked| tell(&mut base, &asked));
                }
            }
            Err(_) => everything(&file, &limits, &mut |asked| tell(&mut base, &asked)),
        });
    };
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(body).unwrap().join().unwrap();
}
