//! The files below `deploy/`: each is loaded by the program that reads it.
//!
//! Layer 5. They know systemd's tools, which a machine that runs tests has, and the worker's configuration.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use alcedo_worker::{Config, KeyType};

/// `systemd-analyze security` calls this much exposure, in tenths, still fine.
const MAX_EXPOSURE: &str = "20";

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(deploy().join(path)).unwrap()
}

/// The units with programs that exist on this machine, in a directory of their own.
fn units() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for unit in ["alcedo-worker@.service", "alcedo.target"] {
        let text = read(&format!("systemd/{unit}")).replace("/usr/bin/alcedo", "/bin/true");
        std::fs::write(directory.path().join(unit), text).unwrap();
    }
    directory
}

fn analyze(directory: &Path, args: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(args).current_dir(directory).output();
    let output = output.expect("systemd-analyze is missing: `cargo xtask test` brings it (Debian: systemd)");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn units_have_nothing_that_systemd_does_not_know() {
    let units = units();
    // A key that it does not know is said and is no failure, so silence is what counts.
    for unit in ["./alcedo-worker@0.service", "./alcedo-worker@.service", "./alcedo.target"] {
        assert_eq!(analyze(units.path(), &["verify", "--man=no", unit]).1, "", "{unit}");
    }
    let path = units.path().join("alcedo-worker@.service");
    let planted = std::fs::read_to_string(&path).unwrap().replace("WatchdogSec=", "WatchdogSecs=");
    std::fs::write(&path, planted).unwrap();
    let (_, said) = analyze(units.path(), &["verify", "--man=no", "./alcedo-worker@0.service"]);
    assert!(said.contains("WatchdogSecs"), "{said}");
}

#[test]
fn a_worker_is_exposed_to_little() {
    let units = units();
    let threshold = format!("--threshold={MAX_EXPOSURE}");
    let args = ["security", "--offline=true", "--no-pager", &threshold, "./alcedo-worker@.service"];
    let (is_fine, said) = analyze(units.path(), &args);
    assert!(is_fine, "{said}");
    let path = units.path().join("alcedo-worker@.service");
    let planted = std::fs::read_to_string(&path).unwrap().replace("SystemCallFilter=", "#");
    std::fs::write(&path, planted).unwrap();
    assert!(!analyze(units.path(), &args).0, "the threshold lets everything through");
}

#[test]
fn the_unit_waits_longer_than_a_worker_drains() {
    let unit = read("systemd/alcedo-worker@.service");
    let seconds = |key: &str| -> u64 {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap().strip_suffix('s').unwrap().parse().unwrap()
    };
    let drain = Config::default().drain;
    assert!(seconds("TimeoutStopSec") > (drain.notice + drain.grace).as_secs());
    assert!(seconds("WatchdogSec") > 0 && unit.contains("Type=notify\n") && unit.contains("KillMode=mixed\n"));
    assert!(unit.contains("\nUser=alcedo\n") && read("systemd/alcedo.sysusers.conf").contains("\nu alcedo - "));
    for directory in ["/var/lib/alcedo", "/var/cache/alcedo"] {
        assert!(read("systemd/alcedo.tmpfiles.conf").contains(&format!("d {directory} ")), "{directory}");
    }
}

#[test]
fn every_example_is_a_configuration() {
    for number in 1..=3 {
        let name = format!("three-workers-{number}.toml");
        let config = Config::from_toml(&read(&format!("examples/{name}")), &name).unwrap();
        config.check().unwrap();
        assert_eq!(config.members_file.as_deref(), Some(Path::new("members")));
        let members = members();
        let (id, listen) = (config.worker_id.clone(), config.listen.to_string());
        assert!(members.contains(&(id, listen)), "{name} is not in deploy/examples/members");
    }
}

/// Ids and addresses of the example's members.
fn members() -> Vec<(String, String)> {
    let text = read("examples/members");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once('=').map(|(id, at)| (id.to_owned(), at.to_owned())).unwrap()).collect()
}

#[test]
fn the_large_example_names_every_table() {
    let example = read("worker.example.toml");
    for key in alcedo_worker::CONFIG_KEYS.iter().filter(|key| key.ty != KeyType::Tables) {
        if let Some((table, _)) = key.name.split_once('.') {
            assert!(example.contains(&format!("[{table}]")), "{table}");
        }
    }
}
