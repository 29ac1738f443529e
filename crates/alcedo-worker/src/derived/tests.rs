//! Tests of derived objects: whole or not there, within their quotas, and found again.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use alcedo_lookup::error::Error as LookupError;

use super::*;

const PART: usize = 300 << 10;
const PATIENCE: Duration = Duration::from_secs(30);

fn config(quota: u64) -> CacheConfig {
    CacheConfig { derived_bytes: quota, pinned_bytes: quota, heads_bytes: 1 << 20, ..CacheConfig::default() }
}

fn on_disk(path: &Path, quota: u64) -> Derived {
    let config = CacheConfig { dir: Some(path.to_owned()), ..config(quota) };
    Derived::open(Some(&CacheDir::open(path, "w1").unwrap()), &config).unwrap()
}

fn version(number: u32) -> FileKey {
    FileKey::new(format!("s3://lake/{number}.parquet"), "v1")
}

fn part(number: u32) -> Bytes {
    (0..PART).map(|place| (place ^ (place >> 8) ^ number as usize) as u8).collect::<Vec<u8>>().into()
}

fn make(derived: &Derived, of: u32, name: &str, parts: u32, rate: f32) -> Result<Arc<Object>, NotKept> {
    let mut draft = derived.begin(&version(of), name, false);
    for number in 0..parts {
        draft.part(number, &part(number))?;
    }
    draft.head(&Bytes::from_static(b"head"), rate)
}

/// What `read` brings, however late the disk answers: one that takes longer than an origin is asked again. Not every
/// file system can say what is in memory, so it is a read that waits.
async fn patiently<T>(derived: &Derived, read: impl AsyncFn() -> Option<T>) -> Option<T> {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let slow_reads = derived.pages().counts().slow_reads;
        let brought = read().await;
        if brought.is_some() || derived.pages().counts().slow_reads == slow_reads {
            return brought;
        }
        assert!(std::time::Instant::now() < until, "the disk does not answer in time");
    }
}

async fn bytes_of(derived: &Derived, object: &Object, part: u32, range: Range<u64>) -> Option<Bytes> {
    patiently(derived, async || derived.read_waiting(object, part, range.clone()).await).await
}

/// A head that is a text, and one that cannot be read.
fn as_text(bytes: Bytes) -> Result<Head<String>, LookupError> {
    Ok(Head { weight: bytes.len(), head: String::from_utf8(bytes.into()).unwrap() })
}

fn refused(_: Bytes) -> Result<Head<String>, LookupError> {
    Err(LookupError::Corrupt("planted".to_owned()))
}

async fn text(derived: &Derived, object: &Object) -> Option<String> {
    patiently(derived, async || derived.head_waiting(object, as_text).await).await.map(|head| head.head.clone())
}

fn names(derived: &Derived) -> Vec<(String, String)> {
    let name = |object: &Arc<Object>| (object.version().url().to_owned(), object.name().to_owned());
    let mut names: Vec<_> = derived.all().iter().map(name).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn objects_are_there_once_they_are_whole_and_come_back_after_a_restart() {
    let temp = tempfile::tempdir().unwrap();
    let derived = on_disk(temp.path(), 16 << 20);
    let before = derived.changes();
    let mut draft = derived.begin(&version(1), "rows-1", false);
    draft.part(0, &part(0)).unwrap();
    assert_eq!(draft.part(2, &part(2)), Err(NotKept::OutOfTurn { number: 2, expected: 1 }));
    draft.part(1, &part(1)).unwrap();
    assert!(derived.of(&version(1)).is_none() && derived.changes() == before, "it has no head yet");
    let object = draft.head(&Bytes::from_static(b"head"), 3.0).unwrap();
    assert!(derived.changes() > before && object.bytes() == 2 * PART as u64 + 4);
    // One that is given up leaves nothing.
    drop(make(&derived, 2, "keymap-0", 1, 0.0).unwrap());
    let mut draft = derived.begin(&version(3), "rows-1", false);
    draft.part(0, &part(0)).unwrap();
    drop(draft);
    assert_eq!(derived.held(), [(1, PART as u64 + 4), (1, object.bytes())]);
    // A process that ends in the middle leaves parts.
    assert!(derived.pages().write_whole(&PartName::key(&version(4), "rows-1", Some(0)), &part(0), PATIENCE));
    drop((object, derived));
    let derived = on_disk(temp.path(), 16 << 20);
    let url = |number| version(number).url().to_owned();
    assert_eq!(names(&derived), [(url(1), "rows-1".to_owned()), (url(2), "keymap-0".to_owned())]);
    assert_eq!((derived.counts().restored.get(), derived.counts().unfinished.get()), (2, 1));
    assert_eq!(derived.pages().files().len(), 5, "the parts without a head are gone");
    let object = derived.named(&version(1), "rows-1").unwrap();
    assert_eq!(text(&derived, &object).await.unwrap(), "head");
    assert_eq!(bytes_of(&derived, &object, 1, 70_000..140_000).await.unwrap(), part(1).slice(70_000..140_000));
    assert_eq!(bytes_of(&derived, &object, 0, 0..PART as u64).await.unwrap(), part(0));
}

#[tokio::test]
async fn a_hole_drops_the_object_and_is_counted() {
    let temp = tempfile::tempdir().unwrap();
    let derived = on_disk(temp.path(), 16 << 20);
    let object = make(&derived, 1, "rows-1", 2, 0.0).unwrap();
    let other = make(&derived, 1, "keymap-0", 1, 0.0).unwrap();
    assert_eq!(text(&derived, &object).await.unwrap(), "head");
    derived.pages().forget(&object.parts[1].key);
    assert_eq!(derived.read(&object, 1, 0..10), None);
    assert!(!object.is_gone(), "the way that does not wait draws no conclusions");
    assert!(bytes_of(&derived, &object, 0, 0..10).await.is_some());
    assert_eq!(derived.read_waiting(&object, 1, 0..10).await, None);
    assert!(object.is_gone() && derived.counts().broken.get() == 1 && derived.heads().0 == 0);
    assert_eq!(derived.of(&version(1)).unwrap().len(), 1);
    assert_eq!(derived.pages().files().len(), 2, "its other parts are gone too");
    // Whoever still holds it finds nothing, and it is counted once.
    assert_eq!((text(&derived, &object).await, derived.read_waiting(&object, 0, 0..10).await), (None, None));
    assert_eq!(derived.counts().broken.get(), 1);
    // A head that cannot be read, and a part that no object has.
    assert!(patiently(&derived, async || derived.head_waiting(&other, refused).await).await.is_none());
    assert!(other.is_gone());
    let third = make(&derived, 2, "keymap-0", 1, 0.0).unwrap();
    assert_eq!(derived.read_waiting(&third, 1, 0..10).await, None);
    assert!(third.is_gone() && derived.counts().broken.get() == 3 && derived.all().is_empty());
}

#[tokio::test]
async fn flipped_bytes_on_disk_drop_the_object() {
    let temp = tempfile::tempdir().unwrap();
    let derived = on_disk(temp.path(), 16 << 20);
    let object = make(&derived, 1, "rows-1", 1, 0.0).unwrap();
    for entry in std::fs::read_dir(temp.path().join("derived")).unwrap() {
        let path = entry.unwrap().path();
        let bytes: Vec<u8> = std::fs::read(&path).unwrap().iter().map(|byte| byte ^ 0x40).collect();
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(derived.read(&object, 0, 0..10), None);
    assert_eq!(bytes_of(&derived, &object, 0, 0..10).await, None);
    assert!(object.is_gone() && derived.of(&version(1)).is_none());
}

#[test]
fn room_is_made_of_what_is_much_colder_and_of_nothing_else() {
    let derived = Derived::open(None, &config(4 << 20)).unwrap();
    for (of, rate) in [(1, 100.0), (2, 1.0), (3, 10.0)] {
        make(&derived, of, "rows-1", 3, rate).unwrap();
    }
    let size = 3 * PART as u64 + 4;
    assert!(derived.make_room(size, 0.0).is_ok(), "it fits");
    let full = derived.make_room(2 * size, 1.5).unwrap_err();
    assert!(full.needed == 2 * size && full.free < 2 * size, "{full}");
    assert!(full.to_string().contains("cache.derived") && derived.all().len() == 3, "nothing was dropped: {full}");
    derived.make_room(2 * size, 20.0).unwrap();
    assert_eq!((derived.all().len(), derived.counts().cold.get()), (2, 1));
    assert!(derived.of(&version(2)).is_none(), "the coldest went");
    assert!(derived.make_room(5 * size, 1e9).is_err(), "more than there is at all");
    // Without reads everything gets cold.
    (0..20).for_each(|_| derived.tick());
    derived.make_room(4 * size, 1.0).unwrap();
    assert!(derived.all().is_empty());
}

#[test]
fn what_is_read_stays_warm() {
    let derived = Derived::open(None, &config(4 << 20)).unwrap();
    let object = make(&derived, 1, "rows-1", 1, 0.0).unwrap();
    (0..64).for_each(|_| assert!(derived.read(&object, 0, 0..10).is_some()));
    derived.tick();
    assert_eq!(object.rate(), 32.0);
    derived.tick();
    assert_eq!(object.rate(), 16.0);
}

#[test]
fn an_object_beyond_the_quota_is_not_kept_and_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let derived = on_disk(temp.path(), 8 << 20);
    make(&derived, 1, "rows-1", 1, 0.0).unwrap();
    let refused = make(&derived, 2, "rows-1", 60, 0.0).unwrap_err();
    assert!(matches!(refused, NotKept::Dropped { .. }), "{refused}");
    assert!(derived.of(&version(2)).is_none());
    assert!(derived.pages().counts().file_bytes <= 8 << 20);
    let mut draft = derived.begin(&version(3), "rows-1", true);
    let refused = (0..60).find_map(|number| draft.part(number, &part(number)).err()).unwrap();
    assert!(matches!(refused, NotKept::Part { .. }), "{refused}");
    drop(draft);
    assert!(derived.pinned().files().is_empty());
}

#[test]
fn a_file_that_is_forgotten_takes_its_objects_along_but_not_the_pinned() {
    let derived = Derived::open(None, &config(16 << 20)).unwrap();
    make(&derived, 1, "rows-1", 1, 0.0).unwrap();
    make(&derived, 1, "keymap-0", 1, 0.0).unwrap();
    make(&derived, 2, "rows-1", 1, 0.0).unwrap();
    let mut pinned = derived.begin(&version(1), "rows-1", true);
    pinned.part(0, &part(0)).unwrap();
    let pinned = pinned.head(&Bytes::from_static(b"head"), 0.0).unwrap();
    assert!(derived.of(&version(1)).unwrap()[0].is_pinned(), "the pinned one is found first");
    assert_eq!(derived.forget_url(version(1).url()), 2 * (PART as u64 + 4));
    assert_eq!((derived.all().len(), pinned.is_gone()), (2, false));
    let newer = FileKey::new(version(1).url(), "v2");
    assert_eq!(derived.forget_others(&newer), PART as u64 + 4);
    assert!(pinned.is_gone() && derived.all().len() == 1 && derived.pages().files().len() == 2);
}

#[test]
fn heads_give_room_back_and_take_it_again() {
    let derived = Derived::open(None, &config(1 << 20)).unwrap();
    let whole = derived.heads().2;
    for percent in [5, 50, 100] {
        derived.set_heads_room(percent);
        assert_eq!(derived.heads().2, whole / 100 * percent + whole % 100 * percent / 100);
    }
    assert_eq!(derived.heads().2, whole);
}
