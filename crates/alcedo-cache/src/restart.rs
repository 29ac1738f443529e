//! Layer 1: the way back from segment files to the index.
//!
//! Knows that reading and checking tables can go on several threads, and that older segments come before newer ones. It
//! must not know what is in a segment file. Segments are taken in lots, so that memory for tables stays bounded.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use rustix::io::Errno;

use crate::cache_dir::OpenError;
use crate::places::Places;
use crate::segment::{Opened, Segment};
use crate::segment_log::SegmentLog;
use crate::table::Group;

/// Threads at most: tables come out of the operating system's cache or one disk, and more do not help either.
const MOST_THREADS: usize = 8;
/// Segments per lot: enough for all threads, and with the longest tables some tens of megabytes.
const LOT: usize = 64;

/// Puts all segments into the log and its index.
///
/// # Errors
/// There are more segments than files can be opened.
pub(crate) fn restore(log: &mut SegmentLog, files: &[(u64, PathBuf)]) -> Result<(), OpenError> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let last = files.last().map(|(id, _)| *id);
    for lot in files.chunks(LOT) {
        let opened = open_all(log, lot, threads);
        let mut found = Vec::with_capacity(lot.len());
        for ((id, path), opened) in lot.iter().zip(opened) {
            let opened = match opened {
                Ok(opened) => opened,
                Err(error) if is_out_of_files(&error) => {
                    let dir = log.dir().path().to_owned();
                    return Err(OpenError::TooManyFiles { dir, segments: files.len() });
                }
                Err(_) => {
                    log.tally().read_errors.add(1);
                    Opened::Foreign
                }
            };
            found.extend(log.take(opened, path, Some(*id) == last));
        }
        index(log.places(), &found, threads);
    }
    Ok(())
}

/// Opens all files of a lot; the outcomes are in the order of the files.
fn open_all(log: &SegmentLog, lot: &[(u64, PathBuf)], threads: usize) -> Vec<io::Result<Opened>> {
    let open = |(id, path): &(u64, PathBuf)| Segment::open(log.io(), Path::new(path), *id);
    thread::scope(|scope| {
        let slices = lot.chunks(lot.len().div_ceil(threads).max(1));
        let running: Vec<_> =
            slices.map(|slice| (slice, scope.spawn(move || slice.iter().map(open).collect::<Vec<_>>()))).collect();
        let outcomes = running.into_iter().flat_map(|(slice, thread)| {
            // A thread that panicked found something that nobody thought of: its segments are as good as broken.
            thread.join().unwrap_or_else(|_| slice.iter().map(|_| Ok(Opened::Foreign)).collect())
        });
        outcomes.collect()
    })
}

/// Puts what was found into the index. Each thread has files of its own, and takes the segments in their order.
fn index(places: &Places, found: &[(Arc<Segment>, Vec<Group>)], threads: usize) {
    thread::scope(|scope| {
        for lane in 0..threads {
            scope.spawn(move || {
                for (segment, groups) in found {
                    for group in groups.iter().filter(|group| Places::lane(&group.file, threads) == lane) {
                        places.restore(group, segment);
                    }
                }
            });
        }
    });
}

fn is_out_of_files(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
