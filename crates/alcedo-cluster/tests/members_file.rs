//! The watched members file, changed under its reader in every way that a file changes. Time is paused, so that polls
//! and holds pass at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use alcedo_cluster::{DiscoveryError, MASS_LEAVE_HOLD, MAX_FILE_BYTES, Members, MembersFile, POLL_INTERVAL};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

fn lines(count: usize) -> String {
    (0..count).map(|number| format!("w-{number}=10.0.0.{number}:7610\n")).collect()
}

fn members(count: usize) -> Members {
    Members::from_lines(&lines(count)).unwrap()
}

fn written(text: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("members");
    fs::write(&path, text).unwrap();
    (dir, path)
}

/// Replaces the file by another one, as a careful writer does.
fn rename_to(path: &PathBuf, text: &str) {
    let aside = path.with_extension("new");
    fs::write(&aside, text).unwrap();
    fs::rename(&aside, path).unwrap();
}

/// Nothing is told for a long time.
async fn is_quiet(file: &mut MembersFile) -> bool {
    timeout(Duration::from_secs(100), file.next()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn renames_and_writes_in_place_are_seen() {
    let (_dir, path) = written(&format!("# the fleet\n\n{}", lines(3)));
    let (mut file, found) = MembersFile::open(&path).unwrap();
    assert_eq!(found, members(3));
    rename_to(&path, &lines(4));
    assert_eq!(file.next().await.unwrap(), members(4));
    fs::write(&path, lines(5)).unwrap();
    assert_eq!(file.next().await.unwrap(), members(5));
    // Another order and other comments are the same members.
    fs::write(&path, format!("w-4=10.0.0.4:7610\n#\n{}", lines(4))).unwrap();
    assert!(is_quiet(&mut file).await);
    fs::write(&path, lines(6)).unwrap();
    assert_eq!(file.next().await.unwrap(), members(6));
}

#[tokio::test(start_paused = true)]
async fn a_file_being_written_is_not_a_smaller_one() {
    let (_dir, path) = written(&lines(6));
    let (mut file, _) = MembersFile::open(&path).unwrap();
    // Five of the members, then nothing, then a change at every poll: not one of these is told.
    for count in [5, 1, 4, 5, 3, 5] {
        fs::write(&path, lines(count)).unwrap();
        assert!(timeout(POLL_INTERVAL + POLL_INTERVAL / 2, file.next()).await.is_err(), "{count}");
    }
    fs::write(&path, lines(7)).unwrap();
    assert_eq!(file.next().await.unwrap(), members(7));
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_named_once_and_the_last_good_list_stays() {
    let (_dir, path) = written(&lines(3));
    let (mut file, _) = MembersFile::open(&path).unwrap();
    let shown = path.display();
    let cases = [
        (String::new(), format!("the members file {shown} lists no member")),
        ("# nobody\n".to_owned(), format!("the members file {shown} lists no member")),
        (format!("{}w-1=h:1\n", lines(3)), format!("{shown}, line 4: the worker id \"w-1\" is already used by line 2")),
        (format!("{}w-9=10.0.0.1:7610\n", lines(3)), format!("{shown}, line 4: the address 10.0.0.1:7610 is already")),
        ("w-0=10.0.0.0:7610\nw-1=10.0".to_owned(), format!("{shown}, line 2: the address \"10.0\" is not usable")),
        ("\u{1}".to_owned(), format!("{shown}, line 1: ")),
    ];
    for (text, message) in cases {
        fs::write(&path, &text).unwrap();
        let error = file.next().await.unwrap_err().to_string();
        assert!(error.contains(&message), "{error}");
        assert!(is_quiet(&mut file).await, "{message}");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(file.next().await, Err(DiscoveryError::Unreadable { .. })));
    assert!(is_quiet(&mut file).await);
    fs::create_dir(&path).unwrap();
    assert!(file.next().await.unwrap_err().to_string().contains("not a regular file"));
    fs::remove_dir(&path).unwrap();
    // The list that was in force all the time is no change.
    fs::write(&path, lines(3)).unwrap();
    while let Ok(told) = timeout(Duration::from_secs(100), file.next()).await {
        assert!(matches!(told, Err(DiscoveryError::Unreadable { .. })), "{told:?}");
    }
    fs::write(&path, lines(4)).unwrap();
    assert_eq!(file.next().await.unwrap(), members(4));
}

#[tokio::test(start_paused = true)]
async fn many_that_leave_at_once_are_held() {
    let (_dir, path) = written(&lines(9));
    let (mut file, _) = MembersFile::open(&path).unwrap();
    // A third may leave at once, and one always.
    fs::write(&path, lines(6)).unwrap();
    assert_eq!(file.next().await.unwrap(), members(6));
    fs::write(&path, lines(3)).unwrap();
    let error = file.next().await.unwrap_err();
    assert_eq!(error, DiscoveryError::MassLeave { path: path.clone(), leaving: 3, members: 6 });
    // They come back before the time is over: nothing happened.
    fs::write(&path, lines(6)).unwrap();
    assert!(is_quiet(&mut file).await);
    // They stay away: after the time it is believed.
    fs::write(&path, lines(2)).unwrap();
    assert!(matches!(file.next().await, Err(DiscoveryError::MassLeave { leaving: 4, .. })));
    let reported = Instant::now();
    assert_eq!(file.next().await.unwrap(), members(2));
    assert!(reported.elapsed() >= MASS_LEAVE_HOLD);
    fs::write(&path, lines(1)).unwrap();
    assert_eq!(file.next().await.unwrap(), members(1));
}

#[test]
fn a_file_that_cannot_be_used_is_refused_at_the_start() {
    let (dir, path) = written("");
    assert_eq!(MembersFile::open(&path).unwrap_err(), DiscoveryError::Empty { path: path.clone() });
    let missing = MembersFile::open(dir.path().join("other")).unwrap_err().to_string();
    assert!(missing.contains("/other cannot be read: No such file"), "{missing}");
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(MembersFile::open(&path), Err(DiscoveryError::Unreadable { .. })));
    fs::File::options().write(true).open(&path).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
    fs::write(dir.path().join("large"), "#\n".repeat(MAX_FILE_BYTES as usize / 2 + 1)).unwrap();
    let large = MembersFile::open(dir.path().join("large")).unwrap_err();
    assert!(matches!(large, DiscoveryError::TooLarge { bytes, .. } if bytes > MAX_FILE_BYTES), "{large}");
}
