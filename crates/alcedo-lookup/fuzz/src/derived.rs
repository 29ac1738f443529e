//! Derived objects: built of files that nobody trusts, and read where nobody knows who wrote them.
//!
//! A build of a hostile file ends in parts and a head, or in an error; an object whose bytes are anything gives rows of
//! its file, or an error. Checksums are set right again where an input asks for it, because an input that only fails
//! them tells little.

use std::sync::{Arc, LazyLock};

use alcedo_lookup::answer::Form;
use alcedo_lookup::derived::Built;
use alcedo_lookup::error::Error;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::key::Key;
use alcedo_lookup::keymap::builder::Builder;
use alcedo_lookup::keymap::{Keymap, Next};
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::drive_bytes;
use alcedo_lookup::prepared::Prepared;
use alcedo_lookup::ready::{FoundReady, ReadyBuild, ReadyRows};
use alcedo_lookup::search::{Query, Search};
use bytes::Bytes;

use super::ask::{self, Asked};
use super::guard::run;
use super::page::indexed_file;

/// Bytes that a keymap's entries may take while it is built.
const BUDGET_BYTES: usize = 16 << 20;
/// Rows of a file of which objects are built: some bytes of a file may stand for billions of equal rows, which is no
/// harm to who builds part by part but takes its time.
const MAX_ROWS: u64 = 1 << 17;
/// Columns of which rows are made all together; of a wider file those of the key column alone are.
const MAX_COLUMNS: usize = 1_000;
/// Parts after which a build is given up, as a worker with a full store does.
const MAX_PARTS: usize = 4;
/// Reads of one question to a keymap, at most: a bucket, and a list.
const MAX_READS: usize = 2;

/// An object's parts and head; none where it has too many parts.
pub struct Object {
    /// Each at most 16 MiB.
    pub parts: Vec<Bytes>,
    /// What is in memory of it.
    pub head: Bytes,
}

fn build<B>(mut builder: B, run: impl Fn(B) -> Result<Built<B>, Error>) -> Result<Option<Object>, Error> {
    let mut parts = Vec::new();
    while parts.len() < MAX_PARTS {
        match run(builder)? {
            Built::Head(head) => return Ok(Some(Object { parts, head })),
            Built::Part { bytes, rest, .. } => {
                parts.push(bytes);
                builder = rest;
            }
        }
    }
    Ok(None)
}

fn prepared(index: &Arc<FileIndex>, limits: &Arc<Limits>, column: &str) -> Result<Arc<Prepared>, Error> {
    let (key_column, keys, form) = (Some(column.to_owned()), Vec::new(), Form::CompactRows);
    let query = Query { key_column, keys, columns: None, form, row_limit: None };
    Prepared::new(index.clone(), &query, limits.clone()).map(Arc::new)
}

/// Builds both objects for a key column and asks them for keys; what they come to, rows or errors, is not told, because
/// builders read more of a file than lookups do and refuse more.
///
/// # Panics
/// What was just built is not read back.
pub fn both(
    index: &Arc<FileIndex>,
    file: &Bytes,
    limits: &Arc<Limits>,
    (column, keys): (&str, &[Key]),
    tell: &mut dyn FnMut(Asked),
) {
    if index.rows() > MAX_ROWS {
        return;
    }
    let mut told =
        |what: &str| tell(Asked { question: format!("{what} by `{}`", column.escape_default()), outcome: Ok(0) });
    let Ok(prepared) = prepared(index, limits, column) else { return };
    let keymap = Builder::new(prepared.clone(), BUDGET_BYTES)
        .and_then(|builder| build(builder, |builder| drive_bytes(builder, file)));
    if let Ok(Some(object)) = keymap {
        Keymap::read(&object.head, index).expect("a keymap that was just built");
        let _ = ask_keymap(&prepared, file, keys, &object);
    }
    told("a keymap");
    let only = [column.to_owned()];
    let columns = (index.columns() > MAX_COLUMNS).then_some(&only[..]);
    let ready = ReadyBuild::new(index.clone(), Some(column), columns, limits.clone())
        .and_then(|builder| build(builder, |builder| drive_bytes(builder, file)));
    if let Ok(Some(object)) = ready {
        ReadyRows::read(object.head.clone(), index, limits).expect("rows that were just built");
        let _ = ask_ready(&prepared, limits, keys, &object);
    }
    told("lookup-ready rows");
}

/// Rows of all keys through a keymap, compared with the keys.
fn ask_keymap(prepared: &Arc<Prepared>, file: &Bytes, keys: &[Key], object: &Object) -> Result<usize, Error> {
    let keymap = Keymap::read(&object.head, prepared.index())?;
    let mut found = 0;
    for key in keys {
        let Some(point) = prepared.key_point(key)? else { continue };
        let (mut rows, mut next) = (Vec::new(), keymap.place(&point));
        for _ in 0..MAX_READS {
            let Next::Read(read) = &next else { break };
            let range = read.range.start as usize..read.range.end as usize;
            let bytes = object.parts.get(read.part as usize).and_then(|part| part.get(range));
            let bytes = bytes.ok_or_else(|| Error::Corrupt("the part is shorter".to_owned()))?;
            let bytes = resealed(bytes);
            next = keymap.rows(read, &bytes, &mut rows)?;
        }
        assert!(!matches!(next, Next::Read(_)), "a question that does not end");
        assert!(rows.iter().all(|row| *row < prepared.index().rows()), "rows that the file has not");
        let search = Search::at_rows(prepared.clone(), std::slice::from_ref(key), rows)?;
        found += drive_bytes(search, file)?.row_number.len();
    }
    Ok(found)
}

/// Rows of all keys from lookup-ready rows.
fn ask_ready(prepared: &Prepared, limits: &Limits, keys: &[Key], object: &Object) -> Result<usize, Error> {
    let ready = ReadyRows::read(object.head.clone(), prepared.index(), limits)?;
    let Some(plan) = ready.serves(prepared) else { return Ok(0) };
    let mut found = FoundReady::default();
    for key in keys {
        let Some(point) = prepared.key_point(key)? else { continue };
        for block in ready.blocks(&point) {
            let range = block.range.start as usize..block.range.end as usize;
            let bytes = object.parts.get(block.part as usize).and_then(|part| part.get(range));
            let bytes = bytes.ok_or_else(|| Error::Corrupt("the part is shorter".to_owned()))?;
            ready.find(&plan, &block, bytes, &point, &mut found)?;
        }
        let rows = prepared.index().rows();
        assert!(found.row_numbers.iter().all(|row| *row < rows), "rows that the file has not");
    }
    Ok(found.row_numbers.len())
}

/// A bucket or a list with the checksum at its start set right, as of the first bucket; its own where that is right.
fn resealed(bytes: &[u8]) -> Bytes {
    let Some((stored, rest)) = bytes.split_first_chunk::<4>() else { return Bytes::copy_from_slice(bytes) };
    let (as_list, as_bucket) = (crc32c::crc32c(rest), crc32c::crc32c_append(crc32c::crc32c(&[0; 4]), rest));
    // What is neither is taken for a bucket, which most are.
    let crc = if u32::from_le_bytes(*stored) == as_list { as_list } else { as_bucket };
    [&crc.to_le_bytes(), rest].concat().into()
}

/// A small file, and the objects that are made of it.
struct Subject {
    file: Bytes,
    prepared: Arc<Prepared>,
    limits: Arc<Limits>,
    keymap: Object,
    ready: Object,
}

static SUBJECT: LazyLock<Subject> = LazyLock::new(|| {
    let (file, limits) = (Bytes::from(indexed_file(&[], &[])), Arc::new(Limits::default()));
    let index = ask::open(&file, &limits).expect("a sound file");
    let prepared = prepared(&index, &limits, "k").expect("a column of the file");
    let builder = Builder::new(prepared.clone(), BUDGET_BYTES).expect("a small file");
    let keymap = build(builder, |builder| drive_bytes(builder, &file)).ok().flatten().expect("a keymap");
    let builder = ReadyBuild::new(index, Some("k"), None, limits.clone()).expect("a small file");
    let ready = build(builder, |builder| drive_bytes(builder, &file)).ok().flatten().expect("lookup-ready rows");
    Subject { file, prepared, limits, keymap, ready }
});

/// An object that an input makes of a sound one: its first byte says how. With an odd one, the rest is two bytes of the
/// head's length, the head and the part; else it is places of two bytes, each with the byte that comes there, where the
/// highest bit of a place says that it is in the part. The head's checksum is set right but for a first byte of 4 and
/// more.
fn object_of(data: &[u8], sound: &Object) -> Object {
    let Some((how, rest)) = data.split_first() else { return Object { parts: Vec::new(), head: Bytes::new() } };
    let (mut head, mut part) = (sound.head.to_vec(), sound.parts.first().map(|part| part.to_vec()).unwrap_or_default());
    if how & 1 == 1 {
        let (length, rest) = rest
            .split_first_chunk::<2>()
            .map_or((0, rest), |(length, rest)| (usize::from(u16::from_le_bytes(*length)).min(rest.len()), rest));
        (head, part) = (rest[..length].to_vec(), rest[length..].to_vec());
    } else {
        for change in rest.as_chunks::<3>().0 {
            let place = u16::from_le_bytes([change[0], change[1]]);
            let of = if place >> 15 == 1 { &mut part } else { &mut head };
            let length = of.len().max(1);
            if let Some(byte) = of.get_mut(usize::from(place & 0x7fff) % length) {
                *byte = change[2];
            }
        }
    }
    if *how < 4
        && let Some((body, crc)) = head.split_last_chunk_mut::<4>()
    {
        *crc = crc32c::crc32c(body).to_le_bytes();
    }
    Object { parts: vec![part.into()], head: head.into() }
}

/// Keys of which the sound file has some.
fn keys() -> Vec<Key> {
    (-1..18).map(Key::Int).chain([Key::Null]).collect()
}

/// A keymap whose head and part are anything.
pub fn keymap(data: &[u8]) {
    run(|| {
        let subject = &*SUBJECT;
        let _ = ask_keymap(&subject.prepared, &subject.file, &keys(), &object_of(data, &subject.keymap));
    });
}

/// Lookup-ready rows whose head and part are anything.
pub fn ready(data: &[u8]) {
    run(|| {
        let subject = &*SUBJECT;
        let mut object = object_of(data, &subject.ready);
        // The part is one block here, whose checksum starts from the columns' number in the head.
        let number = object.head.get(16..24).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        if let Some((_, rows)) = object.parts.first().and_then(|part| part.split_first_chunk::<4>()) {
            let crc = crc32c::crc32c_append((number ^ number >> 32) as u32, rows);
            object.parts = vec![[&crc.to_le_bytes(), rows].concat().into()];
        }
        let _ = ask_ready(&subject.prepared, &subject.limits, &keys(), &object);
    });
}
