//! A process that fills a store and is killed at random moments.
//!
//! The process is this very test program, asked to run one test, which fills for as long as it lives when it is told a
//! directory, and otherwise only shows that the numbers of both sides agree.

use std::collections::HashMap;
use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::lake::{BLOCK, PATIENCE, is_here, key, open, segments, settle, write};

const DIRECTORY: &str = "ALCEDO_TEST_FILL";
/// How often the process is killed; a longer run is asked for by hand.
const KILLS: &str = "ALCEDO_TEST_KILLS";
const FEW_KILLS: u64 = 20;
const CAPACITY: u64 = 256 << 20;
const SIZE: u64 = 1 << 20;
/// A process fills in so many files at most, which are half of what there is room for: where it is let live for long,
/// its own first ones must not be dropped for its last.
const MOST_FILES: u64 = 1_500;

/// The length of the file with this number, in blocks.
fn length(number: u64) -> u64 {
    (1 + number.wrapping_mul(0x9e37_79b9) % 40) * BLOCK
}

#[test]
fn fills_until_it_is_killed() {
    assert!((0..1_000).all(|number| (BLOCK..=40 * BLOCK).contains(&length(number))));
    let Ok(directory) = env::var(DIRECTORY) else { return };
    let store = open(Path::new(&directory), CAPACITY);
    let first: u64 = env::var("ALCEDO_TEST_FIRST").unwrap().parse().unwrap();
    let mut out = std::io::stdout().lock();
    for number in first..first + MOST_FILES {
        write(&store, &key(number, 0), SIZE, 0..length(number));
        if number % 8 == 7 {
            settle(&store);
            // A line only now: all up to it reached its file.
            writeln!(out, "filled {number}").unwrap();
            out.flush().unwrap();
        }
    }
    // It is to be killed, not to end.
    std::thread::sleep(PATIENCE);
}

fn filler(directory: &Path, first: u64) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "disk::killed::fills_until_it_is_killed", "--nocapture"]);
    command.env(DIRECTORY, directory).env("ALCEDO_TEST_FIRST", first.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Lets a process fill, kills it after this time, and returns the last number that it had finished, if any. The time is
/// that from its start, or from the first files that it finished.
fn killed(directory: &Path, first: u64, has_begun: bool, after: Duration) -> Option<u64> {
    let mut child = filler(directory, first);
    let out = BufReader::new(child.stdout.take().unwrap());
    let (finished, some_finished) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let lines = out.lines().map_while(Result::ok);
        let numbers = lines.filter_map(|line| line.strip_prefix("filled ")?.parse::<u64>().ok());
        // Nobody may be waiting for it.
        let tell = |_: &u64| {
            let _ = finished.send(());
        };
        numbers.inspect(tell).last()
    });
    if has_begun {
        some_finished.recv_timeout(PATIENCE).expect("it fills nothing");
    }
    std::thread::sleep(after);
    assert_eq!(child.try_wait().unwrap(), None, "the process ended by itself");
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[test]
fn a_killed_process_leaves_a_store_that_serves() {
    let kills = env::var(KILLS).map_or(FEW_KILLS, |kills| kills.parse().unwrap());
    let temp = tempfile::tempdir().unwrap();
    let mut seed = Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id());
    let mut ends = HashMap::new();
    let (mut finished, mut kept, mut lost) = (0_u64, 0_u64, 0_u64);
    for kill in 0..kills {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let first = kill * 1_000_000;
        // Every other one at any moment, its start included; a slow machine may need longer than this to start it.
        let after = Duration::from_micros(20_000 + (seed >> 33) % 180_000);
        let last = killed(temp.path(), first, kill.is_multiple_of(2), after);
        ends.insert(first, last.map_or(0, |last| last + 1 - first));
        let store = open(temp.path(), CAPACITY);
        for (first, count) in &ends {
            for number in *first..first + count + 16 {
                // Right or a miss; what it had not finished may be here, too.
                let here = is_here(&store, &key(number, 0), 0..length(number));
                if number < first + count && *first == kill * 1_000_000 {
                    finished += 1;
                    kept += u64::from(here);
                    lost += u64::from(!here);
                }
            }
        }
        assert_eq!(store.counts().write_errors + store.counts().read_errors, 0);
        write(&store, &key(u64::MAX, kill), SIZE, 0..BLOCK);
        settle(&store);
        assert!(is_here(&store, &key(u64::MAX, kill), 0..BLOCK), "it does not go on");
    }
    assert!(finished > kills, "the process was killed before it did anything: {finished} finished");
    let tally = format!("{kills} kills: of {finished} finished extents {kept} are kept and {lost} lost");
    assert!(kept * 100 >= finished * 95, "{tally}");
    println!("{tally}");
    assert!(!segments(temp.path()).is_empty());
}
