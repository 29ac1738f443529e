//! Pins: what is pinned costs the store nothing, whatever happens to everything else, and what finds no room is refused
//! aloud.
//!
//! Knows the command, what the store saw, and the cache directory as far as it breaks it. Every answer is compared with
//! the sample's own rows.

use std::fs;
use std::time::Duration;

use alcedo_client::{Client, PinEntry, PinState, PinThing, Pins};
use alcedo_testkit::cluster::{BUCKET, ClusterOptions, TestCluster};
use alcedo_testkit::lake::{SampleLake, TruthRow};
use alcedo_testkit::process::Finished;
use bytes::Bytes;
use serde_json::Value as Json;

use crate::sample::{draw, large, large_file, metric, only_row, small, small_objects, values};

/// Between two looks at what changes in the background, every few seconds.
const PAUSE: Duration = Duration::from_millis(200);
/// Far longer than any answer takes, so that a slow machine fails no test.
const CLIENT_DEADLINE: Duration = Duration::from_secs(25);
/// Looks until it must have happened: minutes.
const MOST_LOOKS: usize = 900;
const BIG: &str = "lake/big.parquet";
/// Columns of which the pinned ones are asked for.
const PINNED: &str = "footer,index,bloom,columns:id,user,created";
/// Versions and listings are asked for again and again.
const EAGER: &str = "freshness = { mode = \"ttl\", soft = \"0s\", hard = \"0s\" }";
/// Nothing is kept decoded, and next to nothing of what is fetched.
const TINY: &str = "disk = \"1MiB\"\npages = \"64KiB\"\ndecoded = \"0\"\nindex = \"16KiB\"";

/// A cluster, and a client that has not been connected to those that were stopped.
struct Site(TestCluster, Client);

impl Site {
    fn new(cache: &str, mount: &str, objects: Vec<(String, Bytes)>) -> Self {
        let tables = format!("[builds]\ncpu_percent = 100\n[cache]\n{cache}\n");
        Self::of(ClusterOptions { objects, mount: mount.to_owned(), tables, cache: true, ..ClusterOptions::default() })
    }

    fn of(options: ClusterOptions) -> Self {
        Self::over(TestCluster::start(options).unwrap())
    }

    fn over(cluster: TestCluster) -> Self {
        let client = Client::builder().endpoints([cluster.endpoint()]).deadline(CLIENT_DEADLINE).build().unwrap();
        Self(cluster, client)
    }

    fn big(cache: &str, mount: &str) -> Self {
        Self::new(cache, mount, vec![("big.parquet".to_owned(), large_file(0))])
    }

    fn restart(self) -> Self {
        Self::over(self.0.restart().unwrap())
    }

    async fn run(&self, args: &[&str]) -> Finished {
        let args: Vec<&str> = args.iter().copied().chain(["--timeout", "25s"]).collect();
        self.0.run(&args).await.unwrap()
    }

    /// Runs a command that succeeds, and reads what it prints.
    async fn json(&self, args: &[&str]) -> Json {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        let ended = self.run(&args).await;
        assert_eq!(ended.code, Some(0), "{args:?}: {}{}", ended.stdout, ended.stderr);
        serde_json::from_str(&ended.stdout).unwrap()
    }

    /// What is pinned at the first worker.
    async fn pins(&self) -> Pins {
        let all = self.1.pins(None).await.unwrap();
        all.into_iter().next().unwrap().1.unwrap()
    }

    /// Waits until what is pinned is so.
    async fn until(&self, what: &str, is_so: impl Fn(&Pins) -> bool) -> Pins {
        for _ in 0..MOST_LOOKS {
            let pins = self.pins().await;
            if is_so(&pins) {
                return pins;
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("never so: {what}: {:#?}", self.pins().await);
    }

    /// Asks for rows all over a file of the large lake by their ids, in columns of [`PINNED`].
    async fn ask(&self, path: &str, file: u32) {
        let (lake, columns) = (large(7), ["user", "created"]);
        let rows = lake.rows_of_file(file);
        for number in draw(40, rows.len() as u64) {
            let truth = lake.row(rows[number as usize]).unwrap();
            let answer = self.1.lookup(path).key_column("id").key(truth.id).select(columns).await.unwrap();
            let all = values(&truth);
            assert_eq!(only_row(&answer).1, [all[1].clone(), all[6].clone()], "row {number}");
        }
    }

    /// How many GETs those rows cost.
    async fn gets(&self, path: &str, file: u32) -> u64 {
        self.0.store().reset_counters();
        self.ask(path, file).await;
        self.0.store().counters().get
    }

    async fn free(&self) -> Json {
        self.json(&["free", BIG, "--yes"]).await
    }
}

fn states(entries: &[PinEntry]) -> Vec<PinState> {
    entries.iter().map(|entry| entry.state).collect()
}

fn all_pinned(pins: &Pins) -> bool {
    let mut entries = pins.pins.iter().flat_map(|pin| &pin.entries).peekable();
    entries.peek().is_some() && entries.all(|entry| entry.state == PinState::Pinned)
}

async fn right(client: &Client, path: &str, truth: &TruthRow) {
    let answer = client.lookup(path).key_column("id").key(truth.id).await.unwrap();
    assert_eq!(only_row(&answer).1, values(truth), "{path}");
}

#[tokio::test]
async fn what_is_pinned_costs_the_store_nothing_whatever_happens_to_the_rest() {
    let site = Site::big(TINY, "");
    let pinned = site.json(&["pin", BIG, "--what", PINNED]).await;
    let entries = pinned["items"][0]["entries"].as_array().unwrap().clone();
    let what: Vec<&str> = entries.iter().map(|entry| entry["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["footer", "index", "bloom", "columns:created", "columns:id", "columns:user"]);
    assert!(entries.iter().all(|entry| entry["state"] == "pinned"), "{pinned:#}");
    // The index that is in memory is pushed out by that of another file, and so are pages.
    site.0.store().put(BUCKET, "other.parquet", large_file(2));
    for _ in 0..2 {
        site.ask("lake/other.parquet", 2).await;
        assert_eq!(site.gets(BIG, 0).await, 0);
    }
    let freed = site.free().await;
    assert_eq!(freed["total"]["pinned_files"], 1, "{freed}");
    let held = site.pins().await.held_bytes;
    assert!(freed["total"]["pinned_bytes"].as_u64() <= Some(held) && held > 0, "{freed}, {held}");
    assert_eq!(site.gets(BIG, 0).await, 0);
    let site = site.restart();
    assert_eq!(site.gets(BIG, 0).await, 0);
    assert_eq!(site.pins().await.held_bytes, held);
    // What a worker knew of the file is gone with its metadata store: it asks for the version, and for no byte.
    site.until("all pinned again", all_pinned).await;
    let metadata = site.0.cache_dir(0).unwrap().join("metadata");
    fs::remove_dir_all(metadata).unwrap();
    site.0.store().reset_counters();
    let site = site.restart();
    site.until("all pinned again", all_pinned).await;
    assert_eq!(site.0.store().counters().get, 0, "{:?}", site.0.store().requests());
    assert_eq!(site.gets(BIG, 0).await, 0);
    // Only what was pinned is here.
    let truth = large(7).row(large(7).rows_of_file(0)[70_000]).unwrap();
    site.0.store().reset_counters();
    right(&site.1, BIG, &truth).await;
    assert!(site.0.store().counters().get > 0);
}

#[tokio::test]
async fn without_a_directory_pins_live_as_long_as_the_worker() {
    let tables = format!("[cache]\n{TINY}\n");
    let objects = vec![("big.parquet".to_owned(), large_file(0))];
    let site = Site::of(ClusterOptions { objects, tables, ..ClusterOptions::default() });
    site.json(&["pin", BIG, "--what", PINNED]).await;
    site.free().await;
    assert_eq!(site.gets(BIG, 0).await, 0);
    let site = site.restart();
    assert_eq!(site.pins().await.pins, []);
}

#[tokio::test]
async fn keymap_and_rows_are_made_and_stay() {
    let site = Site::new(TINY, "", vec![("big.parquet".to_owned(), large_file(1))]);
    let ended = site.run(&["pin", BIG, "-w", "keymap,rows", "--key", "id"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let pins = site.until("both made", all_pinned).await;
    let key = || Some("id".to_owned());
    assert_eq!(pins.pins[0].things, [PinThing::Keymap(key()), PinThing::Rows(key())]);
    site.ask(BIG, 1).await;
    for _ in 0..2 {
        site.free().await;
        assert_eq!(site.gets(BIG, 1).await, 0);
    }
    let site = site.restart();
    assert_eq!(site.gets(BIG, 1).await, 0);
    assert!(metric(site.0.worker(), "alcedo_derived_keys_total{kind=\"ready\"}").await > 0);
    site.until("found again", all_pinned).await;
    assert_eq!(metric(site.0.worker(), "alcedo_builds_begun_total").await, 0, "nothing is made twice");
    let freed = site.json(&["unpin", BIG]).await;
    assert!(freed["items"][0]["freed_bytes"].as_u64() > Some(1 << 20), "{freed}");
    assert_eq!((site.pins().await.held_bytes, site.pins().await.pins), (0, vec![]));
}

#[tokio::test]
async fn what_has_no_room_is_refused_aloud_with_its_numbers() {
    let site = Site::big("pinned = \"1MiB\"", "");
    let what = "footer,columns:id,user,name,score,amount,created,nothing";
    let ended = site.run(&["pin", BIG, "--what", what, "-o", "json"]).await;
    assert_eq!(ended.code, Some(5), "{}", ended.stderr);
    let json: Json = serde_json::from_str(&ended.stdout).unwrap();
    let entries = json["items"][0]["entries"].as_array().unwrap();
    assert_eq!(entries[0]["state"], "pinned");
    let refused: Vec<&Json> = entries.iter().filter(|entry| entry["state"] == "refused").collect();
    let unknown = refused.iter().find(|entry| entry["what"] == "columns:nothing").unwrap();
    assert!(unknown["why"].as_str().unwrap().contains("nothing") && unknown["needed_bytes"] == 0, "{unknown}");
    // The last that was looked at found what is free now.
    let last = refused.iter().rfind(|entry| entry["needed_bytes"].as_u64() > Some(0)).unwrap();
    let (needed, free) = (last["needed_bytes"].as_u64().unwrap(), last["free_bytes"].as_u64().unwrap());
    let why = last["why"].as_str().unwrap();
    assert!(why.contains("cache.pinned") && why.contains(&format!("needs {needed} bytes")), "{why}");
    assert!(
        ended.stderr.contains("refused:\n") && ended.stderr.contains("columns:nothing of s3://"),
        "{}",
        ended.stderr
    );
    let pins = site.pins().await;
    assert!(needed > free && pins.held_bytes > 0 && pins.held_bytes <= pins.capacity_bytes, "{pins:#?}");
    let held: u64 = entries.iter().map(|entry| entry["bytes"].as_u64().unwrap()).sum();
    assert!(pins.held_bytes <= held + (64 << 10), "{} of {held}: what was refused is there in part", pins.held_bytes);
    let count = refused.len() as u64;
    assert_eq!(metric(site.0.worker(), "alcedo_pins_refused_total").await, count);
    assert_eq!(metric(site.0.worker(), "alcedo_pinned_things{state=\"refused\"}").await, count);
    site.ask(BIG, 0).await;
    let rows = site.run(&["pin", BIG, "--what", "rows", "--key", "id"]).await;
    assert_eq!((rows.code, rows.stderr.contains("cache.pinned")), (Some(1), true), "{}", rows.stderr);
    for (args, code) in [
        (["pin", BIG, "--what", "foter"], 2),
        (["pin", "sea/", "--what", "footer"], 3),
        (["unpin", "lake/other", "-o", "json"], 3),
    ] {
        assert_eq!(site.run(&args).await.code, Some(code), "{args:?}");
    }
}

#[tokio::test]
async fn room_that_comes_back_is_used() {
    let objects = ["a", "b"].map(|name| (format!("{name}.parquet"), large_file(0))).to_vec();
    let what = "columns:id,user,name,score,created,tags";
    let site = Site::new("", "", objects.clone());
    site.json(&["pin", "lake/a.parquet", "--what", what]).await;
    let one = site.pins().await.held_bytes;
    // Room for one and a part of the other.
    let site = Site::new(&format!("pinned = \"{}\"", one / 9 * 14), "", objects);
    site.json(&["pin", "lake/a.parquet", "--what", what]).await;
    let ended = site.run(&["pin", "lake/b.parquet", "--what", what]).await;
    assert!(matches!(ended.code, Some(1 | 5)), "{}", ended.stderr);
    let freed = site.json(&["unpin", "lake/a.parquet"]).await;
    assert_eq!((&freed["items"][0]["pins"], freed["items"][0]["freed_bytes"].as_u64()), (&1.into(), Some(one)));
    site.until("what had no room has it", all_pinned).await;
}

#[tokio::test]
async fn a_new_version_takes_the_place_of_the_old_one() {
    let site = Site::big(TINY, EAGER);
    site.json(&["pin", BIG, "--what", PINNED]).await;
    let before = site.pins().await;
    site.0.store().put(BUCKET, "big.parquet", large_file(2));
    let old = &before.pins[0].entries[0].version;
    let after = site.until("the new version", |pins| all_pinned(pins) && pins.pins[0].entries[0].version != *old).await;
    let versions: Vec<_> = after.pins[0].entries.iter().map(|entry| &entry.version).collect();
    assert!(versions.iter().all(|version| *version == versions[0]));
    assert_eq!(site.gets(BIG, 2).await, 0);
    // Blocks may be shared, so what is held may be less than the sum, but not more than its blocks.
    let sum: u64 = after.pins[0].entries.iter().map(|entry| entry.bytes).sum();
    assert!(after.held_bytes <= sum + (1 << 18), "{} of {sum}: the old version is still held", after.held_bytes);
    site.0.store().remove(BUCKET, "big.parquet");
    let gone = site.until("the file is gone", |pins| pins.held_bytes == 0).await;
    assert!(gone.pins[0].entries.iter().all(|entry| entry.state == PinState::Waiting), "{gone:#?}");
    site.0.store().put(BUCKET, "big.parquet", large_file(0));
    site.until("it is there again", all_pinned).await;
    assert_eq!(site.gets(BIG, 0).await, 0);
}

#[tokio::test]
async fn a_pinned_prefix_takes_files_that_come_and_lets_go_of_those_that_go() {
    let (lake, mut objects) = (small(), small_objects());
    let last = objects.pop().unwrap();
    let site = Site::new("decoded = \"0\"", EAGER, objects);
    let all = "footer,index,columns:id,user,name,city,score,amount,created,flags,active,tags";
    site.json(&["pin", "lake/lake/", "--what", all]).await;
    let pins = site.until("15 files", all_pinned).await;
    assert_eq!(pins.pins[0].entries.len(), 15 * 12);
    site.0.store().put(BUCKET, &last.0, last.1);
    let entries = |pins: &Pins| pins.pins[0].entries.len();
    site.until("16 files", |pins| entries(pins) == 16 * 12 && all_pinned(pins)).await;
    site.json(&["free", "lake/lake/", "--yes"]).await;
    site.0.store().reset_counters();
    for file in 0..lake.spec().files {
        let path = format!("lake/lake/{}", SampleLake::file_name(file));
        let truth = lake.row(lake.rows_of_file(file)[9]).unwrap();
        right(&site.1, &path, &truth).await;
        right(&site.1, "lake/lake/", &truth).await;
    }
    assert_eq!(site.0.store().counters().get, 0);
    site.0.store().remove(BUCKET, &last.0);
    site.until("15 files again", |pins| entries(pins) == 15 * 12).await;
    // A file of it that is pinned by its own name as well keeps what that says.
    let path = format!("lake/lake/{}", SampleLake::file_name(3));
    site.json(&["pin", &path, "--what", "footer"]).await;
    let freed = site.json(&["unpin", "lake/lake"]).await;
    assert_eq!((&freed["items"][0]["pins"], &freed["items"][0]["files"]), (&1.into(), &14.into()));
    let left = site.until("the footer alone", |pins| all_pinned(pins) && pins.held_bytes <= 16 << 10).await;
    assert_eq!((left.pins.len(), left.pins[0].entries.len(), left.pins[0].things.len()), (1, 1, 1));
    let names = site.run(&["pins", "-o", "name"]).await;
    assert_eq!(names.stdout, format!("s3://{path}\n"));
}

#[tokio::test]
async fn a_damaged_list_of_pins_loses_the_pins_and_nothing_else() {
    let site = Site::big("", "");
    site.json(&["pin", BIG, "--what", PINNED]).await;
    let list = site.0.cache_dir(0).unwrap().join("pins");
    let mut bytes = fs::read(&list).unwrap();
    bytes[20] ^= 1;
    fs::write(&list, bytes).unwrap();
    let site = site.restart();
    assert_eq!(metric(site.0.worker(), "alcedo_pins_record_errors_total").await, 1);
    let left = site.until("what was pinned is dropped", |pins| pins.held_bytes == 0).await;
    assert_eq!(left.pins, []);
    assert!(list.with_extension("damaged").exists() && !list.exists());
    site.ask(BIG, 0).await;
    site.json(&["pin", BIG, "--what", PINNED]).await;
    let site = site.restart();
    assert_eq!(site.pins().await.pins.len(), 1);
    site.until("pinned again", all_pinned).await;
    // Pinned bytes that are damaged are read anew, and pinned anew.
    for segment in fs::read_dir(site.0.cache_dir(0).unwrap().join("pinned")).unwrap() {
        let path = segment.unwrap().path();
        let bytes: Vec<u8> = fs::read(&path).unwrap().iter().map(|byte| byte ^ 0x11).collect();
        fs::write(path, bytes).unwrap();
    }
    site.free().await;
    site.ask(BIG, 0).await;
    for _ in 0..MOST_LOOKS {
        site.free().await;
        if site.gets(BIG, 0).await == 0 {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("what was damaged never was pinned again: {:#?}", site.pins().await);
}

#[tokio::test]
async fn the_owner_and_the_replicas_of_a_file_pin_it() {
    let objects = small_objects();
    let site = Site::of(ClusterOptions { objects, workers: 6, ..ClusterOptions::default() });
    let client = &site.1;
    let answers = client.pin("lake/lake/", &[PinThing::Footer]).await.unwrap();
    let of_prefix = client.owners("lake/lake/").await.unwrap().owners;
    for file in 0..small().spec().files {
        let path = format!("lake/lake/{}", SampleLake::file_name(file));
        let owners = client.owners(&path).await.unwrap().owners;
        for (member, entries) in &answers {
            let url = format!("s3://{path}");
            let is_pinned = entries.as_ref().unwrap().iter().any(|entry| entry.url == url);
            let is_meant = owners.contains(member) || of_prefix.contains(member);
            assert_eq!(is_pinned, is_meant, "{} and {path}", member.id);
        }
    }
    assert!(
        answers.iter().all(|(_, entries)| states(entries.as_ref().unwrap()).iter().all(|s| *s == PinState::Pinned))
    );
    let file = format!("lake/lake/{}", SampleLake::file_name(2));
    let alone = client.pin(&file, &[PinThing::Index]).await.unwrap();
    let owners = client.owners(&file).await.unwrap().owners;
    let holders: Vec<_> = alone.iter().filter(|(_, entries)| !entries.as_ref().unwrap().is_empty()).collect();
    assert!(holders.iter().all(|(member, _)| owners.contains(member) || of_prefix.contains(member)));
    assert!(owners.iter().all(|owner| holders.iter().any(|(member, _)| member == owner)));
}
