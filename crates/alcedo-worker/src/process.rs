//! Layer 3: this process as the operating system sees it.
//!
//! Knows `/proc/self` (proc(5)) and resource limits. It must not know the worker. What cannot be read is 0: a number
//! on a page, never a reason to fail.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Ticks of a second in `/proc/self/stat`: the same on every Linux that Rust supports (sysconf(3), `_SC_CLK_TCK`).
const TICKS_PER_SECOND: f64 = 100.0;
/// Where user and system time stand in `/proc/self/stat`, counted behind the command's closing parenthesis.
const USER_TIME_FIELD: usize = 11;

/// What the process uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: u64,
    pub(crate) open_fds: u64,
    pub(crate) max_fds: u64,
}

impl Usage {
    pub(crate) fn now() -> Self {
        Self {
            cpu_seconds: cpu_seconds(&fs::read_to_string("/proc/self/stat").unwrap_or_default()),
            resident_bytes: resident_bytes(),
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64),
            max_fds: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        }
    }
}

/// Memory of this process that is in RAM.
pub(crate) fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    resident.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}

fn cpu_seconds(stat: &str) -> f64 {
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    let ticks = fields.split_whitespace().skip(USER_TIME_FIELD).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
    ticks.sum::<u64>() as f64 / TICKS_PER_SECOND
}

/// Makes room for so many open files: raises the soft limit as far as the hard one allows. The limit that holds then.
pub(crate) fn raise_open_files(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return current;
    }
    let raised = wanted.min(limit.maximum.unwrap_or(u64::MAX));
    match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }) {
        Ok(()) => raised,
        // Allowed by the rules, but something forbids it; the old limit holds.
        Err(_) => current,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_command_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert!((cpu_seconds(stat) - 2.0).abs() < 1e-9, "{}", cpu_seconds(stat));
        assert_eq!(cpu_seconds("nonsense"), 0.0);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::now();
        assert!(usage.resident_bytes > 1 << 20 && usage.open_fds >= 3 && usage.max_fds >= usage.open_fds, "{usage:?}");
    }

    #[test]
    fn a_soft_limit_is_raised_no_further_than_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        // A worker of another test may raise it meanwhile; nobody lowers it.
        let current = || getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let (before, kept, after) = (current(), raise_open_files(0), current());
        assert!(before <= kept && kept <= after, "{before} {kept} {after}");
        assert!(raise_open_files(u64::MAX) <= hard);
    }

    #[test]
    fn memory_that_was_given_back_does_not_count() {
        const BYTES: usize = 256 << 20;
        // Far more than other tests of this process take meanwhile.
        let most = (BYTES / 2) as u64;
        let before = resident_bytes();
        let taken = vec![1_u8; BYTES];
        let while_taken = resident_bytes();
        assert!(while_taken > before + most, "{before} {while_taken} {}", taken[BYTES - 1]);
        drop(taken);
        let after = resident_bytes();
        assert!(after + most < while_taken, "{while_taken} {after}");
    }
}
