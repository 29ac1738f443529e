//! The machine and the checkout that a run belongs to.
//!
//! Knows Linux's descriptions of hardware, and git. It must not know what is measured.

use std::fs;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use chrono::{DateTime, Utc};

/// Cores, processor, memory, kernel.
#[must_use]
pub fn hardware() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let memory = field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .map_or_else(|| "unknown memory".to_owned(), |kib| format!("{} GiB", (kib + (1 << 19)) >> 20));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores ({model}), {memory}, Linux {}", kernel.trim())
}

/// The commit that is checked out, with a mark if the files differ from it.
#[must_use]
pub fn commit() -> String {
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    // What a run writes itself is no difference.
    let changed = git(&["status", "--porcelain", "--", ":/", ":(top,exclude)benches/runs"]);
    if changed.is_some_and(|list| list.is_empty()) { commit } else { format!("{commit} with changes") }
}

/// Today in UTC, `2026-11-22`.
#[must_use]
pub fn date() -> String {
    DateTime::<Utc>::from(SystemTime::now()).format("%Y-%m-%d").to_string()
}

fn git(args: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    // A checkout may belong to another user than the one who measures.
    command
        .args(["-c", "safe.directory=*"])
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The value of the first line `name : value` of a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_hardware_and_the_date_are_told() {
        let hardware = hardware();
        assert!(hardware.contains(" cores (") && hardware.contains(" GiB, Linux "), "{hardware}");
        assert!(!hardware.contains("unknown memory"), "{hardware}");
        let date = date();
        assert!(date.len() == 10 && date.split('-').count() == 3, "{date}");
    }
}
