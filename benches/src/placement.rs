//! On which core each side runs, and how much processor time a process has used.
//!
//! Knows Linux's processes and threads. It must not know what they do. Placement decides: waking an idle core costs
//! more than a lookup, so figures are compared only where both sides are placed alike.

use std::fs;

use anyhow::{Context, ensure};
use rustix::io::Errno;
use rustix::param::clock_ticks_per_second;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that this process may use, as they were before anything was pinned.
#[derive(Debug, Clone)]
pub struct Cores {
    all: CpuSet,
    first: Vec<usize>,
}

/// Which core the client and the server have to themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// What it is called in a row's name.
    pub name: &'static str,
    client: usize,
    server: usize,
}

impl Cores {
    /// # Errors
    /// The system does not say.
    pub fn of_this_process() -> anyhow::Result<Self> {
        let all = sched_getaffinity(None).context("cannot learn which cores may be used")?;
        let first = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).take(2).collect();
        Ok(Self { all, first })
    }

    /// Client and server on one core, which shows the length of the code's path; then each on its own, where a core is
    /// woken for each message. The second only where there are two.
    #[must_use]
    pub fn placements(&self) -> Vec<Placement> {
        let one = self.first.first().map(|core| Placement { name: "one core", client: *core, server: *core });
        let two = match self.first[..] {
            [client, server] => Some(Placement { name: "two cores", client, server }),
            _ => None,
        };
        one.into_iter().chain(two).collect()
    }

    /// Lets this process use all of them again.
    ///
    /// # Errors
    /// The system refuses.
    pub fn release(&self) -> anyhow::Result<()> {
        pin(std::process::id(), &self.all)
    }
}

impl Placement {
    /// Pins this process to the client's core and the servers to theirs. Threads that they start later stay there.
    ///
    /// # Errors
    /// A process is gone, or the system refuses.
    pub fn pin(self, servers: &[u32]) -> anyhow::Result<()> {
        pin(std::process::id(), &only(self.client))?;
        servers.iter().try_for_each(|server| pin(*server, &only(self.server)))
    }
}

fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

/// Pins every thread of a process.
fn pin(process: u32, cores: &CpuSet) -> anyhow::Result<()> {
    // Twice: a thread that began during the first pass may have got the old place from the one that started it.
    for _ in 0..2 {
        let threads = fs::read_dir(format!("/proc/{process}/task")).context("a measured process is gone")?;
        for thread in threads {
            let id = thread?.file_name().to_string_lossy().parse().context("a thread without a number")?;
            let pinned = sched_setaffinity(Pid::from_raw(id), cores);
            // A thread that has ended since it was listed needs no place.
            ensure!(matches!(pinned, Ok(()) | Err(Errno::SRCH)), "process {process} cannot be pinned");
        }
    }
    Ok(())
}

/// Seconds of processor time that all threads of a process have used, in it and in the kernel for it.
///
/// # Errors
/// The process is gone.
pub fn processor_seconds(process: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("a measured process is gone")?;
    let ticks = used_ticks(&stat).context("/proc/PID/stat has another form")?;
    Ok(ticks as f64 / clock_ticks_per_second() as f64)
}

/// `utime` and `stime`, fields 14 and 15 of `/proc/PID/stat` (proc(5)). The second field is the name in parentheses,
/// which may contain blanks.
fn used_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_ticks_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 31 12 5 6 20 0 9 0 100 1000 10";
        assert_eq!(used_ticks(stat), Some(43));
        assert_eq!(used_ticks("7 (a"), None);
    }

    #[test]
    fn a_process_is_pinned_with_all_of_its_threads() {
        let cores = Cores::of_this_process().unwrap();
        let placement = cores.placements()[0];
        assert_eq!((placement.name, placement.client), ("one core", placement.server));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        placement.pin(&[child.id()]).unwrap();
        let place = |id| sched_getaffinity(Pid::from_raw(id)).unwrap();
        assert_eq!(place(child.id().try_into().unwrap()), only(placement.server));
        assert_eq!(place(0), only(placement.client));
        cores.release().unwrap();
        assert_eq!(place(0), cores.all);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(placement.pin(&[u32::MAX]).is_err());
        cores.release().unwrap();
    }

    #[test]
    fn own_time_is_counted() {
        let begin = processor_seconds(std::process::id()).unwrap();
        let mut digits = 0_u64;
        while processor_seconds(std::process::id()).unwrap() <= begin {
            digits = std::hint::black_box(digits.wrapping_mul(31).wrapping_add(7));
        }
        assert!(processor_seconds(u32::MAX).is_err());
    }
}
