//! Layer 1: the one thread that writes segments.
//!
//! Knows what to do when the disk is full, fails, or is gone. It must not know who reads. It owns the log, so that
//! nobody else ever waits for the disk's writes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::disk::Shared;
use crate::places::PendingExtent;
use crate::segment_log::{AppendError, SegmentLog};
use crate::write_queue::{Job, Next};

/// Without work, the writer looks after probes this often.
const IDLE: Duration = Duration::from_secs(1);
/// How often it looks whether somebody removed files, and whether what was left alone is old enough to go.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// What a probe writes and reads back: one block.
const PROBE_BYTES: usize = 4 << 10;

/// Says that the thread ended, also when it panicked.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.queue.end();
    }
}

/// Writes what comes until the queue is closed and empty.
pub(crate) fn run(shared: &Arc<Shared>, mut log: SegmentLog) {
    let ending = Ending(Arc::clone(shared));
    let mut kept_house = Instant::now();
    loop {
        match shared.queue.next(IDLE) {
            Next::Closed => break,
            Next::Idle => {}
            Next::Job(Job::Append(extent)) => {
                append(shared, &mut log, &extent);
                shared.queue.done(extent.bytes.len() as u32);
            }
            Next::Job(Job::Forget(file, file_size)) => {
                // Without this note a restart brings the bytes back, which is allowed.
                if shared.health.admits() {
                    let outcome = log.append((&file, file_size), 0, &[]);
                    outcome.err().iter().for_each(|error| note(shared, &log, error));
                }
                shared.queue.done(0);
            }
        }
        if shared.health.wants_probe() && probe(&log).is_ok() {
            shared.health.recovered();
        }
        if kept_house.elapsed() >= HOUSEKEEPING {
            kept_house = Instant::now();
            // A directory that is gone altogether is made when there is something to write.
            if log.segments_dir().exists() {
                log.repair();
            }
            log.drop_vanished();
            log.reclaim_others();
        }
    }
    // The directory is free before anybody hears that it is.
    drop(log);
    drop(ending);
}

fn append(shared: &Shared, log: &mut SegmentLog, extent: &PendingExtent) {
    if !shared.places.is_waiting(extent) {
        return;
    }
    if !shared.health.admits() {
        shared.tally.dropped_writes.add(1);
        shared.places.abandon(extent);
        return;
    }
    match log.append((&extent.file, extent.file_size), extent.offset, &extent.bytes) {
        Ok((segment, spot)) => shared.places.settle(extent, &segment, spot),
        Err(error) => {
            shared.tally.dropped_writes.add(1);
            shared.places.abandon(extent);
            note(shared, log, &error);
        }
    }
}

/// Draws the consequences of an error of the disk.
fn note(shared: &Shared, log: &SegmentLog, error: &AppendError) {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match error {
        // A store that drops nothing has room again when something is forgotten; asking it costs nothing.
        AppendError::NoRoom if !log.name().evicts() => {}
        AppendError::NoRoom => shared.health.is_full(),
        AppendError::Disk(error) => {
            shared.tally.write_errors.add(1);
            match error.kind() {
                StorageFull | QuotaExceeded | FileTooLarge => shared.health.is_full(),
                _ => shared.health.failed(),
            }
        }
    }
}

/// Writes a block to the directory and reads it back.
fn probe(log: &SegmentLog) -> io::Result<()> {
    log.dir().repair()?;
    let path = log.segments_dir().join("probe");
    let open = || OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
    let round = |file: &File| {
        let mut block = [0x5a; PROBE_BYTES];
        log.io().write(file, &block, 0)?;
        file.sync_data()?;
        log.io().read(file, &mut block, 0)
    };
    let outcome = open().and_then(|file| round(&file));
    fs::remove_file(&path)?;
    outcome
}
