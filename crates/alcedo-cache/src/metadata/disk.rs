//! RocksDB: opened within bounds, read and written by key.
//!
//! Knows column families, options and files. It must not know what is stored, nor what is done when it fails.
//!
//! Every table is FIFO-compacted: RocksDB itself keeps a table below its quota by dropping the file with the oldest
//! records. That is what a cache of records wants: nothing has to be measured or deleted by us, a record is written
//! about twice in its life, and records that are still asked for are written again when they are learned again. The
//! price is that a read asks the filter of every file, some dozens, of which all but one say no within memory.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Error, LogLevel, Options,
    ReadOptions, WriteBatch, WriteBufferManager, WriteOptions,
};

use super::Table;

/// Memory for blocks, filters, indexes of files and unwritten records, all together: it holds the filters of 25
/// million records, or the 4 KiB blocks that a few thousand lookups come back to. What moka holds above is asked more.
const MEMORY_BYTES: usize = 64 << 20;
/// Part of it for records that are not in a file yet. It is also what is replayed at a start, at about 100 MB/s.
const UNWRITTEN_BYTES: usize = 32 << 20;
/// Unwritten records of one table: a file is made of so many bytes, and four files are merged into one.
const TABLE_UNWRITTEN_BYTES: usize = 16 << 20;
/// Write-ahead log: beyond it, tables that are seldom written are written out so that the log can be cut.
const WAL_BYTES: u64 = 64 << 20;
/// Open files at once: all of them at the quotas below, and far from the usual limit of a process.
const MAX_OPEN_FILES: i32 = 512;
/// Threads that write and merge files. They use the cores that serve, so they are few.
const BACKGROUND_JOBS: i32 = 2;
/// Bits per record of the filters, for one wrong yes in a hundred.
const FILTER_BITS: f64 = 10.0;
/// RocksDB's own log: warnings and errors, two files of this size at most.
const LOG_BYTES: usize = 1 << 20;
const LOG_FILES: usize = 2;
/// The list of files is written anew when it is so large; a start reads it.
const MANIFEST_BYTES: usize = 4 << 20;

impl Table {
    /// Bytes of the table's files, compressed. A file's version takes some 100 bytes there, its index 0.5 to 5 KB, a
    /// listing 50 bytes per file: this is room for ten million files and for the indexes of about two million.
    const fn quota_bytes(self) -> u64 {
        match self {
            Self::Files => 1 << 30,
            Self::Indexes => 4 << 30,
            Self::Listings => 512 << 20,
        }
    }
}

/// An open database.
pub(super) struct Disk {
    db: DB,
}

/// One change.
pub(super) enum Change {
    Put(Table, [u8; 8], Vec<u8>),
    Remove(Table, [u8; 8]),
}

/// Whether an error of opening says that the database is open already, here or in another process.
pub(super) fn is_locked(error: &Error) -> bool {
    let message = error.as_ref();
    message.contains("While lock file") || message.contains("lock hold by current process")
}

/// Whether an error says that the device has no room.
pub(super) fn is_full(error: &Error) -> bool {
    let message = error.as_ref();
    message.contains("No space left") || message.contains("Disk quota exceeded")
}

impl Disk {
    /// Opens what is there, or begins anew where nothing is.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, Table::quota_bytes)
    }

    pub(super) fn open_with(path: &Path, quota_bytes: impl Fn(Table) -> u64) -> Result<Self, Error> {
        let cache = Cache::new_lru_cache(MEMORY_BYTES);
        let options = database_options(&cache);
        // What a later version keeps beside our tables is opened too, so that it survives a way back to this one.
        let present = DB::list_cf(&options, path).unwrap_or_default();
        let known = Table::ALL.map(Table::name);
        let foreign = present.iter().map(String::as_str).filter(|name| !known.contains(name));
        let mut families = Vec::new();
        for name in foreign {
            families.push(ColumnFamilyDescriptor::new(name, Options::default()));
        }
        for table in Table::ALL {
            families.push(ColumnFamilyDescriptor::new(table.name(), table_options(quota_bytes(table), &cache)?));
        }
        Ok(Self { db: DB::open_cf_descriptors(&options, path, families)? })
    }

    pub(super) fn get(&self, table: Table, key: &[u8; 8]) -> Result<Option<Vec<u8>>, Error> {
        let Some(family) = self.db.cf_handle(table.name()) else { return Ok(None) };
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        self.db.get_cf_opt(family, key, &options)
    }

    /// Makes all changes or none.
    pub(super) fn write(&self, changes: &[Change]) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        for change in changes {
            let (Change::Put(table, ..) | Change::Remove(table, _)) = change;
            let Some(family) = self.db.cf_handle(table.name()) else { continue };
            match change {
                Change::Put(_, key, value) => batch.put_cf(family, key, value),
                Change::Remove(_, key) => batch.delete_cf(family, key),
            }
        }
        // No wait for the device: a power cut costs the last records, and they are learned again.
        self.db.write_opt(batch, &WriteOptions::default())
    }

    /// Bytes of all files of the tables.
    pub(super) fn file_bytes(&self) -> u64 {
        let bytes = |table: Table| {
            let family = self.db.cf_handle(table.name())?;
            self.db.property_int_value_cf(family, rocksdb::properties::TOTAL_SST_FILES_SIZE).ok().flatten()
        };
        Table::ALL.into_iter().filter_map(bytes).sum()
    }

    /// Writes what is only in memory and the log into files.
    #[cfg(test)]
    pub(super) fn flush(&self) -> Result<(), Error> {
        Table::ALL.into_iter().filter_map(|table| self.db.cf_handle(table.name())).try_for_each(|f| self.db.flush_cf(f))
    }
}

fn database_options(cache: &Cache) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A file that is missing or has another size than it should is found at the start, not by a lookup.
    options.set_paranoid_checks(true);
    // After a crash everything up to the first damaged place of the log, and nothing beyond it.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_max_total_wal_size(WAL_BYTES);
    options.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager_with_cache(
        UNWRITTEN_BYTES,
        false,
        cache.clone(),
    ));
    options.set_max_open_files(MAX_OPEN_FILES);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(LOG_BYTES);
    options.set_keep_log_file_num(LOG_FILES);
    options.set_max_manifest_file_size(MANIFEST_BYTES);
    options.set_stats_dump_period_sec(0);
    options
}

fn table_options(quota_bytes: u64, cache: &Cache) -> Result<Options, Error> {
    // The binding has a call for the quota only.
    let fifo = format!(
        "compaction_style=kCompactionStyleFIFO;\
         compaction_options_fifo={{max_table_files_size={quota_bytes};allow_compaction=true}}"
    );
    let mut options = Options::default().get_options_from_string(fifo)?;
    // Age is no reason to drop a record (and would keep every file open): its reader looks at the time it carries.
    options.set_ttl(0);
    options.set_write_buffer_size(TABLE_UNWRITTEN_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_bloom_filter(FILTER_BITS, false);
    options.set_block_based_table_factory(&blocks);
    Ok(options)
}
