//! Tests of pins as a list: what covers what, what is told of which, and what a change does.

use alcedo_origin::{ContentVersion, FileStat};

use super::*;

fn place(path: &str) -> Place {
    use alcedo_origin::{Freshness, Mount, Mounts, OriginLimits};
    let store = Arc::new(object_store::memory::InMemory::new());
    let mount = Mount::with_store("lake", "s3://lake", store, Freshness::default(), OriginLimits::default());
    Mounts::from_mounts(vec![mount.unwrap()]).unwrap().resolve(path).unwrap()
}

async fn add(pins: &Pins, path: &str, things: &[Thing]) -> Result<u64, Error> {
    pins.add(&place(path), path, things.to_vec()).await
}

/// Says that a file was looked at.
fn looked_at(pins: &Pins, url: &str, things: &[Thing]) {
    let stat = FileStat { url: url.into(), version: ContentVersion::new("1"), etag: None, size: 9, modified_us: 0 };
    let pinned = Outcome::Pinned { bytes: 4, why: String::new() };
    let entries = things.iter().map(|thing| Entry::new(thing.clone(), pinned.clone())).collect();
    let file = PinnedFile { version: Some(FileVersion::new(stat)), entries, generation: 1 };
    pins.lock().files.insert(url.into(), file);
}

#[test]
fn a_prefix_covers_what_is_below_it_and_not_what_begins_alike() {
    assert!(covers("s3://lake/a", "s3://lake/a") && covers("s3://lake/a", "s3://lake/a/b.parquet"));
    assert!(covers("file:///", "file:///a"));
    assert!(!covers("s3://lake/a", "s3://lake/ab") && !covers("s3://lake/a/b", "s3://lake/a"));
}

#[tokio::test]
async fn things_are_added_up_and_told_by_path() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("pins");
    let pins = Pins::open(Some(&file));
    add(&pins, "lake/t/", &[Thing::Index]).await.unwrap();
    let column = || Thing::Column("a".to_owned());
    let first = add(&pins, "s3://lake/t", &[column(), Thing::Footer]).await.unwrap();
    let second = add(&pins, "lake/u", &[Thing::Bloom]).await.unwrap();
    assert!(second > first);
    let all = [Thing::Footer, Thing::Index, column()];
    looked_at(&pins, "s3://lake/t/1", &all);
    looked_at(&pins, "s3://lake/tt", &[Thing::Bloom]);
    looked_at(&pins, "s3://lake/u", &[Thing::Bloom]);
    let listed = pins.listed(None);
    assert_eq!(listed.iter().map(|one| &*one.pin.url).collect::<Vec<_>>(), ["s3://lake/t", "s3://lake/u"]);
    assert_eq!((&listed[0].pin.things[..], listed[0].files.len(), listed[0].files[0].2.len()), (&all[..], 1, 3));
    for (url, expected) in [
        ("s3://lake", 2),
        ("s3://lake/t", 1),
        ("s3://lake/t/1", 1),
        ("s3://lake/t/2", 1),
        ("s3://lake/u/x", 1),
        ("s3://lake/v", 0),
    ] {
        assert_eq!(pins.listed(Some(url)).len(), expected, "{url}");
    }
    assert_eq!(pins.listed(Some("s3://lake/t/2"))[0].files.len(), 0);
    assert_eq!(pins.outcome("s3://lake/t", &[Thing::Footer])[0].2.len(), 1);
    assert_eq!(pins.tally(), Tally { pins: 2, pinned: 5, waiting: 0, refused: 0 });
    // Another start finds the same.
    let again = Pins::open(Some(&file));
    assert_eq!(again.lock().pins, pins.lock().pins);
    let unpinned = again.remove("s3://lake/u", |_| 3).await.unwrap();
    assert_eq!(unpinned, Unpinned { pins: 1, files: 0, bytes: 0 });
    assert_eq!(Pins::open(Some(&file)).listed(None).len(), 1);
}

#[tokio::test]
async fn what_another_pin_covers_is_not_dropped_with_a_pin() {
    let pins = Pins::open(None);
    for path in ["lake/t/", "lake/t/1"] {
        add(&pins, path, &[Thing::Footer]).await.unwrap();
    }
    for url in ["s3://lake/t/1", "s3://lake/t/2", "s3://lake/t/3"] {
        looked_at(&pins, url, &[Thing::Footer]);
    }
    let unpinned = pins.remove("s3://lake/t", |_| 5).await.unwrap();
    assert_eq!(unpinned, Unpinned { pins: 1, files: 2, bytes: 10 });
    assert_eq!(pins.remove("s3://lake/t", |_| 5).await.unwrap(), Unpinned::default());
    assert_eq!(pins.remove("s3://lake/t/1", |_| 5).await.unwrap().files, 1);
}

#[tokio::test]
async fn pins_and_their_things_are_bounded_and_what_is_too_much_changes_nothing() {
    let pins = Pins::open(None);
    let columns = |count: usize| (0..count).map(|i| Thing::Column(i.to_string())).collect::<Vec<_>>();
    add(&pins, "lake/t", &columns(MOST_THINGS)).await.unwrap();
    let refused = add(&pins, "lake/t", &[Thing::Footer]).await.unwrap_err().to_string();
    assert!(refused.contains("256 things"), "{refused}");
    for number in 1..MOST_PINS {
        add(&pins, &format!("lake/{number}"), &[Thing::Footer]).await.unwrap();
    }
    let refused = add(&pins, "lake/more", &[Thing::Footer]).await.unwrap_err().to_string();
    assert!(refused.contains("1000 pins"), "{refused}");
    assert_eq!((pins.tally().pins, pins.lock().pins["s3://lake/t"].things.len()), (1_000, MOST_THINGS));
}

#[tokio::test]
async fn pins_that_cannot_be_written_down_are_not_taken() {
    let home = tempfile::tempdir().unwrap();
    let pins = Pins::open(Some(&home.path().join("gone/pins")));
    let refused = add(&pins, "lake/t", &[Thing::Footer]).await.unwrap_err();
    assert!(matches!(refused, Error::NotWritten { .. }), "{refused}");
    assert_eq!((pins.tally().pins, pins.counts().record_errors.get()), (0, 1));
}
