//! Tests of answers from derived objects: what is read at once is what a search says, one read a key, and what changes
//! or is damaged is noticed.

use std::ops::Range;
use std::slice::from_ref;

use super::*;
use crate::builds::What;
use crate::builds::tests::{FEWER_ROWS, ROWS, Site};

/// Keys that have rows and keys that have none, within the bounds of all columns and beyond.
const KEYS: Range<i64> = -3..130;
/// So much of what `x` is of an id.
const STEP: i64 = 7_919;

/// A worker without memory for rows, so that each key is read.
async fn site(dir: Option<&std::path::Path>) -> Site {
    let mut config = Config::default();
    (config.cache.decoded_bytes, config.cache.dir) = (0, dir.map(Into::into));
    Site::with(config).await
}

async fn build(site: &Site, what: What) {
    site.running.build("lake/a.parquet", what).await.unwrap();
}

fn ready(key: &str, columns: &[&str]) -> What {
    let columns = columns.iter().map(ToString::to_string).collect();
    What::Ready { key: Some(key.to_owned()), columns: Some(columns) }
}

fn keymap(column: &str) -> What {
    What::Keymap { column: column.to_owned() }
}

/// Numbers that are keys of a column, each beside some that are not.
fn keys(column: &str) -> Vec<Key> {
    let of_column = |number: i64| match column {
        "x" => number * STEP % 1_000_003 + number % 2,
        "id" => number * 302 + number % 2,
        _ => number * 16,
    };
    KEYS.map(of_column).map(Key::Int).collect()
}

/// Version, key indexes, row numbers, rows and statuses.
type Said = (Vec<(String, Vec<u32>, Vec<u64>, Vec<u8>)>, Vec<KeyStatus>);

fn said(answer: Answer) -> Said {
    let file = |file: FileRows| {
        let alcedo_lookup::answer::FileAnswer { key_index, row_number, body, .. } = file.answer;
        let Body::Compact(rows) = body else { panic!("no rows") };
        (file.version.key.version().to_owned(), key_index, row_number, rows.to_vec())
    };
    (answer.files.into_iter().map(file).collect(), answer.statuses)
}

/// The general way.
async fn answered(site: &Site, asked: &Arc<Asked>, keys: &[Key]) -> Said {
    let lookup = Lookup { asked: Arc::clone(asked), keys: keys.to_vec(), sent_pages_bytes: 0 };
    said(site.door().lookups.answer(&lookup, &Arc::new(Cost::new(false))).await.unwrap())
}

fn at_once(site: &Site, asked: &Asked, keys: &[Key]) -> Option<AtOnce> {
    crate::turns::rested();
    site.door().lookups.answer_at_once(asked, keys, Instant::now())
}

/// The same and its reads, also of a disk: what the operating system has let go of is read until it has it. Nothing
/// where it cannot say what it has, as of some file systems; then no read of the store finds anything at once either.
async fn at_once_of_disk(site: &Site, asked: &Asked, keys: &[Key]) -> Option<(AtOnce, usize)> {
    let derived = site.door().lookups.derived();
    for _ in 0..200 {
        let before = reads(site);
        if let Some(answer) = at_once(site, asked, keys) {
            return Some((answer, (reads(site) - before) as usize));
        }
        let (mut has_any, mut has_all) = (false, true);
        for part in derived.all().iter().flat_map(|object| object.parts.iter().chain([&object.head])) {
            derived.pages().read_waiting(&part.key, 0..part.bytes).await;
            let is_here = derived.pages().read(&part.key, 0..part.bytes).is_some();
            (has_any, has_all) = (has_any || is_here, has_all && is_here);
        }
        if !has_any {
            return None;
        }
        assert!(!has_all || at_once(site, asked, keys).is_some(), "it is here, and is not read at once");
    }
    panic!("the operating system lets go of everything at once");
}

fn reads(site: &Site) -> u64 {
    site.door().lookups.derived().counts().hits.get()
}

#[tokio::test]
async fn what_objects_say_at_once_is_what_a_search_says() {
    let (plain, home) = (Site::new().await, tempfile::tempdir().unwrap());
    for dir in [None, Some(home.path())] {
        let built = site(dir).await;
        for what in [ready("id", &["x", "y", "z"]), keymap("x"), ready("x", &["y", "id"]), keymap("ten")] {
            build(&built, what).await;
        }
        build(&built, ready("ten", &["id"])).await;
        for (key, columns, limit) in
            [("id", &["z", "x"][..], None), ("x", &["y"], None), ("ten", &["id"], None), ("ten", &["id"], Some(3))]
        {
            let asked = |site: &Site| site.asked(key, columns, limit);
            let (of_plain, of_built, keys) = (asked(&plain), asked(&built), keys(key));
            let wanted = answered(&plain, &of_plain, &keys).await;
            assert_eq!(answered(&built, &of_built, &keys).await, wanted, "{key}");
            assert!(wanted.1.contains(&KeyStatus::NotFound), "{key}: {:?}", wanted.1);
            assert!(wanted.1.contains(&if limit.is_some() { KeyStatus::Truncated } else { KeyStatus::Found }), "{key}");
            let within: Vec<_> = keys.iter().filter(|key| may_hold(&of_built, key)).cloned().collect();
            assert!(within.len() > 100 && within.len() < keys.len(), "{key}: {}", within.len());
            let is_said = says_at_once((&plain, &of_plain), (&built, &of_built), key, &keys).await;
            assert!(is_said || dir.is_some(), "{key}: what is in memory is always there");
        }
    }
}

/// Compares what is read at once with what a search says; whether anything can be.
async fn says_at_once(
    (plain, of_plain): (&Site, &Arc<Asked>),
    (built, of_built): (&Site, &Arc<Asked>),
    key: &str,
    keys: &[Key],
) -> bool {
    let Some((read, reads)) = at_once_of_disk(built, of_built, &keys[..100]).await else { return false };
    assert!(read.read_keys > 90, "{key}: {}", read.read_keys);
    if key == "id" {
        // One for each, but for those that lie between two blocks.
        assert!((90..=read.read_keys).contains(&reads), "{reads} reads for {} keys", read.read_keys);
    }
    assert_eq!(said(read.into_answer()), answered(plain, of_plain, &keys[..100]).await, "{key}");
    // One by one, as they come on a stream.
    for one in keys {
        let (read, _) = at_once_of_disk(built, of_built, from_ref(one)).await.unwrap();
        assert_eq!(said(read.into_answer()), answered(plain, of_plain, from_ref(one)).await, "{one:?}");
    }
    true
}

fn may_hold(asked: &Asked, key: &Key) -> bool {
    let target = asked.target().unwrap().files[0].upgrade().unwrap();
    target.prepared.may_hold(from_ref(key)).unwrap()
}

#[tokio::test]
async fn a_keymap_alone_says_at_once_what_is_absent_and_no_more() {
    let site = site(None).await;
    build(&site, keymap("x")).await;
    let asked = site.asked("x", &["y"], None);
    let (there, absent) = (Key::Int(3 * STEP), Key::Int(3 * STEP + 1));
    assert_eq!(answered(&site, &asked, from_ref(&there)).await.1, [KeyStatus::Found]);
    let answer = at_once(&site, &asked, from_ref(&absent)).unwrap();
    assert_eq!((answer.read_keys, answer.statuses), (1, vec![KeyStatus::NotFound]));
    assert!(at_once(&site, &asked, from_ref(&there)).is_none() && at_once(&site, &asked, &[absent, there]).is_none());
}

#[tokio::test]
async fn objects_that_come_and_go_are_noticed_and_so_is_a_new_version() {
    let site = site(None).await;
    let (asked, keys) = (site.asked("id", &["x"], None), [Key::Int(40), Key::Int(5_000)]);
    let (first, derived) = (answered(&site, &asked, &keys).await, site.door().lookups.derived());
    assert!(at_once(&site, &asked, &keys).is_none());
    build(&site, ready("id", &["x"])).await;
    assert_eq!(said(at_once(&site, &asked, &keys).unwrap().into_answer()), first);
    assert!(derived.all().iter().all(|object| derived.drop_object(object)));
    assert!(at_once(&site, &asked, &keys).is_none());
    assert_eq!(answered(&site, &asked, &keys).await, first);
    build(&site, ready("id", &["x"])).await;
    assert!(at_once(&site, &asked, &keys).is_some());
    site.overwrite().await;
    assert!(at_once(&site, &asked, &keys).is_none(), "nothing is known of the new version");
    let second = answered(&site, &asked, &keys).await;
    assert_eq!(second.1, [KeyStatus::Found, KeyStatus::NotFound], "it has {FEWER_ROWS} of {ROWS} rows");
    build(&site, ready("id", &["x"])).await;
    let read = said(at_once(&site, &asked, &keys).unwrap().into_answer());
    assert!(read == second && read.0[0].0 != first.0[0].0, "{read:?}");
}

#[tokio::test]
async fn rows_that_were_read_at_once_are_kept_for_their_version_only() {
    let site = Site::with(Config::default()).await;
    let (asked, keys) = (site.asked("id", &["x"], None), [Key::Int(40), Key::Int(5_000)]);
    answered(&site, &asked, &[Key::Int(1)]).await;
    build(&site, ready("id", &["x"])).await;
    let first = at_once(&site, &asked, &keys).unwrap();
    assert_eq!(first.read_keys, 2);
    let (before, again) = (reads(&site), at_once(&site, &asked, &keys).unwrap());
    assert_eq!((again.read_keys, reads(&site)), (0, before));
    assert_eq!(said(again.into_answer()), said(first.into_answer()));
    site.overwrite().await;
    assert!(at_once(&site, &asked, &keys).is_none());
    let second = answered(&site, &asked, &keys).await;
    assert_eq!(second.1, [KeyStatus::Found, KeyStatus::NotFound]);
    assert_eq!(said(at_once(&site, &asked, &keys).unwrap().into_answer()), second);
    // Nor are they another question's.
    let other = site.asked("id", &["y"], None);
    let wanted = answered(&site, &other, &keys[..1]).await;
    assert_eq!(said(at_once(&site, &other, &keys[..1]).unwrap().into_answer()), wanted);
}

#[tokio::test]
async fn damaged_rows_are_never_answered() {
    let home = tempfile::tempdir().unwrap();
    let site = site(Some(home.path())).await;
    let (asked, keys) = (site.asked("id", &["x"], None), [Key::Int(40), Key::Int(5_000)]);
    let wanted = answered(&site, &asked, &keys).await;
    build(&site, ready("id", &["x"])).await;
    assert_eq!(answered(&site, &asked, &keys).await, wanted);
    let is_read_at_once = at_once_of_disk(&site, &asked, &keys).await.is_some();
    let segments = || std::fs::read_dir(home.path().join("derived")).unwrap().map(|entry| entry.unwrap().path());
    for path in segments() {
        let bytes: Vec<u8> = std::fs::read(&path).unwrap().iter().map(|byte| byte ^ 0x40).collect();
        std::fs::write(&path, bytes).unwrap();
    }
    let (derived, until) = (site.door().lookups.derived(), Instant::now() + Duration::from_secs(60));
    loop {
        assert!(at_once(&site, &asked, &keys).is_none());
        if derived.all().is_empty() {
            break;
        }
        assert!(Instant::now() < until, "nobody sees it");
        // The operating system may have let go of it; and where it cannot say what it has, those see it who wait.
        match is_read_at_once {
            true => segments().for_each(|path| drop(std::fs::read(path).unwrap())),
            false => assert_eq!(answered(&site, &asked, &keys).await, wanted),
        }
    }
    assert_eq!(derived.counts().broken.get(), 1, "it is dropped as a whole");
    assert_eq!(answered(&site, &asked, &keys).await, wanted);
}

#[tokio::test]
async fn a_tired_thread_reads_nothing_and_a_question_of_very_many_keys_is_not_read_at_once() {
    let site = site(None).await;
    build(&site, ready("id", &["x"])).await;
    let (asked, many) = (site.asked("id", &["x"], None), (0..500).map(Key::Int).collect::<Vec<_>>());
    answered(&site, &asked, &many).await;
    assert!(at_once(&site, &asked, &many).is_none());
    let lookups = &site.door().lookups;
    crate::turns::rested();
    let (some, which) = lookups.answer_some_at_once(&asked, &many, Instant::now()).unwrap();
    assert!(some.read_keys > 50 && some.read_keys < 500 && which.keys.len() == some.read_keys, "{}", some.read_keys);
    crate::turns::worked(Duration::from_secs(1));
    assert!(lookups.answer_at_once(&asked, &many[..1], Instant::now()).is_none());
    assert!(at_once(&site, &asked, &many[..1]).is_some());
}
