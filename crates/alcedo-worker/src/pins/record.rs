//! Layer 3: the pins as they are written down, format version 1.
//!
//! Knows the bytes of one small file and how it takes the place of the one before. It must not know what a pin does.
//! The file is: magic, format version and length of the message (both 32 bits, little endian), a protobuf message, so
//! that fields can be added, and the CRC-32C of all before it. One that is anything else is set aside and said to be
//! lost.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use prost::Message;

use super::{Pin, Thing};
use crate::error::Error;

const MAGIC: [u8; 4] = *b"ALPN";
/// What another version wrote is not read.
const FORMAT_VERSION: u32 = 1;
const CRC_BYTES: usize = 4;
/// Longest file that is read: far more than the most pins of the longest paths.
const MOST_BYTES: u64 = 64 << 20;

#[derive(Clone, PartialEq, Message)]
struct PinsRecord {
    #[prost(message, repeated, tag = "1")]
    pins: Vec<PinRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct PinRecord {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(string, tag = "2")]
    url: String,
    #[prost(message, repeated, tag = "3")]
    things: Vec<ThingRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct ThingRecord {
    /// 1 footer, 2 index, 3 bloom filters, 4 column, 5 keymap, 6 rows.
    #[prost(uint32, tag = "1")]
    kind: u32,
    /// The column, or the key column.
    #[prost(string, optional, tag = "2")]
    column: Option<String>,
}

/// Why pins could not be read back.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// The disk's reason.
    #[error("{} cannot be read: {source}", .file.display())]
    Disk {
        /// The file.
        file: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{} is damaged ({why}); it was set aside as {}", .file.display(), aside(.file).display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
}

/// Where a damaged file goes.
fn aside(file: &Path) -> PathBuf {
    file.with_extension("damaged")
}

/// The file's bytes.
pub(super) fn encode<'p>(pins: impl Iterator<Item = &'p Pin>) -> Vec<u8> {
    let thing = |thing: &Thing| {
        let (kind, column) = match thing {
            Thing::Footer => (1, None),
            Thing::Index => (2, None),
            Thing::Bloom => (3, None),
            Thing::Column(name) => (4, Some(name.clone())),
            Thing::Keymap(key) => (5, key.clone()),
            Thing::Rows(key) => (6, key.clone()),
        };
        ThingRecord { kind, column }
    };
    let pin = |pin: &Pin| PinRecord {
        path: pin.path.clone(),
        url: pin.url.to_string(),
        things: pin.things.iter().map(thing).collect(),
    };
    let message = PinsRecord { pins: pins.map(pin).collect() }.encode_to_vec();
    let mut bytes = MAGIC.to_vec();
    bytes.extend(FORMAT_VERSION.to_le_bytes());
    bytes.extend((message.len() as u32).to_le_bytes());
    bytes.extend(message);
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Vec<Pin>, &'static str> {
    let (body, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or("it is too short")?;
    let (magic, rest) = body.split_first_chunk::<4>().ok_or("it is too short")?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or("it is too short")?;
    let (length, message) = rest.split_first_chunk::<4>().ok_or("it is too short")?;
    if *magic != MAGIC {
        return Err("it is no list of pins");
    }
    if u32::from_le_bytes(*version) != FORMAT_VERSION {
        return Err("another version of this program wrote it");
    }
    if u32::from_le_bytes(*length) as usize != message.len() {
        return Err("its length is not the one that it names");
    }
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err("its checksum is not that of its bytes");
    }
    let record = PinsRecord::decode(message).map_err(|_| "it cannot be understood")?;
    record.pins.into_iter().map(|pin| pin.read().ok_or("it names something unknown")).collect()
}

impl PinRecord {
    fn read(self) -> Option<Pin> {
        let thing = |thing: ThingRecord| match (thing.kind, thing.column) {
            (1, _) => Some(Thing::Footer),
            (2, _) => Some(Thing::Index),
            (3, _) => Some(Thing::Bloom),
            (4, Some(column)) => Some(Thing::Column(column)),
            (5, key) => Some(Thing::Keymap(key)),
            (6, key) => Some(Thing::Rows(key)),
            _ => None,
        };
        let things = self.things.into_iter().map(thing).collect::<Option<Vec<_>>>()?;
        Some(Pin { path: self.path, url: self.url.into(), things })
    }
}

/// The pins of a file; none where there is no file.
///
/// # Errors
/// See [`RecordError`]; a damaged file is set aside.
pub(super) fn read(file: &Path) -> Result<Vec<Pin>, RecordError> {
    let failed = |source| RecordError::Disk { file: file.to_owned(), source };
    let opened = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    opened.take(MOST_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    decode(&bytes).map_err(|why| {
        // Where it stays, the next list of pins takes its place.
        let _ = fs::rename(file, aside(file));
        RecordError::Damaged { file: file.to_owned(), why }
    })
}

/// Puts a list of pins in the place of the one before, on disk before it returns. It blocks the thread.
///
/// # Errors
/// The disk's; the one before stays.
pub(super) fn write(file: &Path, bytes: &[u8]) -> Result<(), Error> {
    let made = file.with_extension("new");
    let put = || {
        let mut opened = File::create(&made)?;
        opened.write_all(bytes)?;
        opened.sync_all()?;
        fs::rename(&made, file)?;
        // The name is on disk when its directory is.
        file.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    put().map_err(|error: io::Error| Error::NotWritten { file: file.display().to_string(), why: error.to_string() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn pins() -> Vec<Pin> {
        let key = || Some("id".to_owned());
        let things = vec![Thing::Footer, Thing::Index, Thing::Bloom, Thing::Column("a.b".to_owned())];
        let made = vec![Thing::Keymap(None), Thing::Keymap(key()), Thing::Rows(None), Thing::Rows(key())];
        let pin = |path: &str, url: &str, things| Pin { path: path.to_owned(), url: url.into(), things };
        vec![pin("lake/t/", "s3://lake/t", things), pin("lake/a", "s3://lake/a", made)]
    }

    /// Bytes of a list of pins as version 1 wrote them.
    const GOLDEN: &str = "\
        414c504e010000005c0000000a2b0a076c616b652f742f120b73333a2f2f6c616b652f741a0208011a0208021a0208031a07\
        08041203612e620a2d0a066c616b652f61120b73333a2f2f6c616b652f611a0208051a060805120269641a0208061a060806\
        12026964892d6ccc";

    #[test]
    fn what_version_1_wrote_is_read() {
        let bytes = encode(pins().iter());
        assert!(hex(&bytes) == GOLDEN, "{}", hex(&bytes));
        assert_eq!(decode(&bytes).unwrap(), pins());
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = encode(pins().iter());
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[place] ^= 1 << bit;
                decode(&other).unwrap_err();
            }
            decode(&bytes[..place]).unwrap_err();
        }
        decode(&[&bytes[..], &[0]].concat()).unwrap_err();
    }

    #[test]
    fn a_damaged_list_is_set_aside_and_a_new_one_takes_its_place() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("pins");
        assert_eq!(read(&file).unwrap(), []);
        write(&file, &encode(pins().iter())).unwrap();
        assert_eq!(read(&file).unwrap(), pins());
        fs::write(&file, "something else, and not short").unwrap();
        let damaged = read(&file).unwrap_err().to_string();
        assert!(damaged.contains("pins.damaged") && damaged.contains("no list"), "{damaged}");
        assert_eq!(fs::read_to_string(home.path().join("pins.damaged")).unwrap(), "something else, and not short");
        assert_eq!(read(&file).unwrap(), []);
        write(&file, &encode(pins()[..1].iter())).unwrap();
        assert_eq!(read(&file).unwrap(), pins()[..1]);
        let gone = write(&home.path().join("nowhere/pins"), &[]).unwrap_err().to_string();
        assert!(gone.contains("nowhere/pins"), "{gone}");
    }
}
