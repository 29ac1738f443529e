//! What a worker says of a cache directory that it cannot have: one line that names the directory and what to do, and
//! nothing in it is touched.

use std::fs;
use std::path::Path;

use alcedo_testkit::cluster::{Finished, WorkerProcess, command, run, worker_toml};
use alcedo_testkit::s3::{S3Options, S3Server};

/// A worker's configuration with this cache directory; nobody is asked at the store.
fn toml(store: &S3Server, cache: &Path) -> String {
    worker_toml(&store.url(), "", &format!("[cache]\ndir = \"{}\"\n", cache.display()))
}

/// Starts a worker that is expected to end by itself.
async fn refused(store: &S3Server, cache: &Path, id: &str) -> Finished {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("worker.toml"), toml(store, cache)).unwrap();
    let mut command = command(home.path()).unwrap();
    command.args(["worker", "run", "-c", "worker.toml", "--id", id]);
    run(command).await.unwrap()
}

#[tokio::test]
async fn a_directory_that_is_not_a_cache_is_refused_and_left_alone() {
    let store = S3Server::start(S3Options::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let precious = directory.path().join("precious.txt");
    fs::write(&precious, "mine").unwrap();
    let ended = refused(&store, directory.path(), "w-1").await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for part in ["holds something else", "precious.txt", &directory.path().display().to_string()] {
        assert!(ended.stderr.contains(part), "no `{part}` in {}", ended.stderr);
    }
    assert_eq!(ended.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{}", ended.stderr);
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["precious.txt"]);
    assert_eq!(fs::read_to_string(precious).unwrap(), "mine");
}

#[tokio::test]
async fn what_cannot_be_a_directory_is_refused() {
    let store = S3Server::start(S3Options::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    // The kernel's own tree cannot be written, not even by root.
    for path in [file.as_path(), Path::new("/proc/alcedo")] {
        let ended = refused(&store, path, "w-1").await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(&format!("the cache directory {} cannot be used", path.display())), "{ended:?}");
    }
}

#[tokio::test]
async fn a_directory_belongs_to_one_worker_and_to_one_process() {
    let store = S3Server::start(S3Options::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let running = WorkerProcess::start(&toml(&store, directory.path()), &[]).await.unwrap();
    let second = refused(&store, directory.path(), "w-1").await;
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("is in use by another process"), "{second:?}");
    running.kill().await.unwrap();
    let other = refused(&store, directory.path(), "w-2").await;
    assert_eq!(other.code, Some(1), "{other:?}");
    assert!(other.stderr.contains("belongs to worker \"w-1\", and this is worker \"w-2\""), "{other:?}");
    // Its own worker finds it as it was.
    let again = WorkerProcess::start(&toml(&store, directory.path()), &[]).await.unwrap();
    again.kill().await.unwrap();
}
