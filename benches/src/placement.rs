//! On which core each side runs, and how much processor time a process has used.
//!
//! Knows Linux's processes and threads. It must not know what they do. Placement decides: waking an idle core costs
//! more than a lookup, so figures are compared only where both sides are placed alike.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, ensure};
use rustix::io::Errno;
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

impl Placement {
    /// Pins a process that is client and server in one to the cores of both.
    ///
    /// # Errors
    /// It is gone, or the system refuses.
    pub fn pin_together(self, process: u32) -> anyhow::Result<()> {
        let mut cores = only(self.client);
        cores.set(self.server);
        pin(process, &cores)
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

/// Processor time that processes have used, thread by thread, as the scheduler counts it: in nanoseconds, where the
/// ticks of `/proc/PID/stat` are too coarse for a short load.
#[derive(Debug, Clone)]
pub struct Used(HashMap<String, u64>);

impl Used {
    /// What all threads of these processes have used until now, in them and in the kernel for them.
    ///
    /// # Errors
    /// A process is gone, or the kernel does not count.
    pub fn by(processes: &[u32]) -> anyhow::Result<Self> {
        let mut used = HashMap::new();
        for process in processes {
            for thread in fs::read_dir(format!("/proc/{process}/task")).context("a measured process is gone")? {
                let path = thread?.path().join("schedstat");
                // A thread may end while it is looked at; what it did in a measurement is then not counted.
                let Ok(counts) = fs::read_to_string(&path) else { continue };
                let nanos = nanos_on_processor(&counts).context("schedstat has another form")?;
                used.insert(path.to_string_lossy().into_owned(), nanos);
            }
        }
        Ok(Self(used))
    }

    /// Seconds used between that earlier look and this one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> f64 {
        let grown = |(thread, nanos): (&String, &u64)| nanos - earlier.0.get(thread).copied().unwrap_or(0).min(*nanos);
        self.0.iter().map(grown).sum::<u64>() as f64 / 1e9
    }
}

/// The first field of `/proc/PID/task/TID/schedstat`: nanoseconds spent on a processor (sched-stats in the kernel's
/// documents).
fn nanos_on_processor(counts: &str) -> Option<u64> {
    counts.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_the_first_field() {
        assert_eq!(nanos_on_processor("43 7 1\n"), Some(43));
        assert_eq!(nanos_on_processor(""), None);
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
        let own = [std::process::id()];
        let begin = Used::by(&own).unwrap();
        let mut digits = 0_u64;
        while Used::by(&own).unwrap().since(&begin) <= 0.0 {
            digits = std::hint::black_box(digits.wrapping_mul(31).wrapping_add(7));
        }
        assert_eq!(begin.since(&begin), 0.0);
        assert!(Used::by(&[u32::MAX]).is_err());
    }
}
