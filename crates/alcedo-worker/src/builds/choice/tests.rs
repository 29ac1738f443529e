//! Tests of the choice: what is worth its build, what is made of it, and what is left alone.

use std::time::Duration;

use alcedo_lookup::key::Key;

use super::*;
use crate::builds::tests::Site;
use crate::cost::Cost;
use crate::lookups::Lookup;

fn choose(site: &Site) -> Option<Job> {
    hottest(site.door())
}

fn ask(site: &Site, target: &Arc<FileTarget>, keys: usize, micros: u64) {
    for _ in 0..keys {
        site.door().lookups.heat().note(target, 1, Duration::from_micros(micros));
    }
}

#[tokio::test]
async fn an_object_is_made_when_it_saves_more_than_it_costs() {
    let site = Site::new().await;
    let target = site.target("id", &["x"]).await;
    assert!(choose(&site).is_none());
    ask(&site, &target, 1, 300);
    assert!(choose(&site).is_none(), "one lookup does not repay a build");
    ask(&site, &target, 200, 3);
    assert!(choose(&site).is_none(), "these are as fast as they would be with it");
    ask(&site, &target, 1_000, 300);
    let job = choose(&site).unwrap();
    let columns = Some(vec!["x".to_owned()]);
    assert_eq!(job.what, What::Ready { key: Some("id".to_owned()), columns });
    assert!(job.rate > 100.0 && job.object_bytes > 0 && !job.is_pinned);
}

#[tokio::test]
async fn questions_by_one_key_column_share_an_object_of_all_their_columns() {
    let site = Site::new().await;
    for (key, columns) in [("id", ["x", "y"]), ("id", ["y", "z"]), ("z", ["x", "id"])] {
        let target = site.target(key, &columns).await;
        ask(&site, &target, if key == "id" { 1_000 } else { 1_100 }, 300);
        // Others hold it as long as the file is open.
        std::mem::forget(target);
    }
    let columns = ["x", "y", "z"].map(str::to_owned).to_vec();
    assert_eq!(choose(&site).unwrap().what, What::Ready { key: Some("id".to_owned()), columns: Some(columns) });
}

/// Looks keys up, so that the bounds of the key's data pages are known.
async fn look_up(site: &Site, key: &str) {
    let (asked, keys) = (site.asked(key, &["y"], None), vec![Key::Int(7_919)]);
    site.door()
        .lookups
        .answer(&Lookup { asked, keys, sent_pages_bytes: 0 }, &Arc::new(Cost::new(false)))
        .await
        .unwrap();
    site.door().lookups.heat().forget(|_| true);
}

#[tokio::test]
async fn what_may_be_anywhere_gets_a_keymap_however_fast_it_is_scanned() {
    let site = Site::new().await;
    for (key, micros) in [("x", 300), ("id", 9_000)] {
        look_up(&site, key).await;
        let target = site.target(key, &["y"]).await;
        ask(&site, &target, 1_000, micros);
        let what = choose(&site).unwrap().what;
        match key {
            "x" => assert_eq!(what, What::Keymap { column: "x".to_owned() }),
            // What takes long there is the size of its data pages.
            _ => assert!(matches!(what, What::Ready { .. }), "{what:?}"),
        }
        site.door().lookups.heat().forget(|_| true);
    }
}

#[tokio::test]
async fn what_was_noted_before_an_object_was_there_wants_no_other() {
    let site = Site::new().await;
    let (sorted, scanned) = (site.target("id", &["x"]).await, site.target("x", &["y"]).await);
    ask(&site, &sorted, 20_000, 300);
    ask(&site, &scanned, 300, 9_000);
    let (builds, io) = (&site.door().builds, tokio::runtime::Handle::current());
    let first = choose(&site).unwrap();
    assert!(matches!(&first.what, What::Ready { key: Some(key), .. } if key == "id"), "{:?}", first.what);
    builds.make(site.door(), &io, first, None).await;
    // A keymap of the sorted column would save nothing.
    let second = choose(&site).unwrap();
    assert_eq!(second.what, What::Keymap { column: "x".to_owned() });
    builds.make(site.door(), &io, second, None).await;
    assert!(choose(&site).is_none(), "{:?}", choose(&site));
    // What is noted from now on was not enough.
    ask(&site, &scanned, 20_000, 300);
    assert!(matches!(choose(&site).unwrap().what, What::Ready { key: Some(key), .. } if key == "x"));
}

#[tokio::test]
async fn what_is_scanned_gets_a_keymap_and_what_is_there_is_not_made_again() {
    let site = Site::new().await;
    let target = site.target("x", &["y"]).await;
    ask(&site, &target, 1_000, 9_000);
    let first = choose(&site).unwrap();
    assert_eq!(first.what, What::Keymap { column: "x".to_owned() });
    let derived = site.door().lookups.derived();
    let make = |job: &Job| {
        let mut draft = derived.begin(&job.version.key, &job.name, false);
        draft.part(0, &vec![0; 10].into()).unwrap();
        draft.head(&vec![0; 10].into(), 0.0).unwrap();
    };
    make(&first);
    let second = choose(&site).unwrap();
    assert!(matches!(second.what, What::Ready { .. }), "it was not enough: {:?}", second.what);
    make(&second);
    assert!(choose(&site).is_none());
}
