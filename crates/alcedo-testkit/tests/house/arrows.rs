//! The crates of the house and which of them may see which.
//!
//! Knows the table below, which `docs/ARCHITECTURE.md` prints, and cargo's metadata. A new arrow is a change of this
//! table, argued for there.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::tree::{assert_none, own_metadata};

/// One crate of the house.
pub(crate) struct Room {
    pub(crate) name: &'static str,
    /// Arrows go strictly down.
    pub(crate) layer: u8,
    /// The crates of the house that it may depend on, for its tests too.
    pub(crate) may_see: &'static [&'static str],
    /// Foreign crates that it must not depend on (its tests may).
    must_not_know: &'static [&'static str],
}

/// The house, from the bottom.
pub(crate) const HOUSE: &[Room] = &[
    Room {
        name: "alcedo-proto",
        layer: 0,
        may_see: &[],
        must_not_know: &["parquet", "object_store", "rocksdb", "hashring"],
    },
    Room {
        name: "alcedo-lookup",
        layer: 0,
        may_see: &[],
        must_not_know: &["tokio", "object_store", "tonic", "prost", "rocksdb", "hashring", "moka", "reqwest"],
    },
    Room {
        name: "alcedo-origin",
        layer: 0,
        may_see: &[],
        must_not_know: &["parquet", "tonic", "prost", "rocksdb", "hashring", "moka"],
    },
    Room {
        name: "alcedo-cluster",
        layer: 1,
        may_see: &["alcedo-proto"],
        must_not_know: &["parquet", "object_store", "rocksdb"],
    },
    Room {
        name: "alcedo-cache",
        layer: 1,
        may_see: &["alcedo-origin"],
        must_not_know: &["parquet", "arrow-array", "tonic", "hashring"],
    },
    Room {
        name: "alcedo-client",
        layer: 2,
        may_see: &["alcedo-proto", "alcedo-lookup", "alcedo-origin", "alcedo-cluster"],
        must_not_know: &["rocksdb"],
    },
    Room {
        name: "alcedo-worker",
        layer: 3,
        may_see: &["alcedo-proto", "alcedo-lookup", "alcedo-origin", "alcedo-cluster", "alcedo-cache", "alcedo-client"],
        must_not_know: &["clap", "comfy-table"],
    },
    Room {
        name: "alcedo",
        layer: 4,
        may_see: &["alcedo-lookup", "alcedo-origin", "alcedo-cluster", "alcedo-client", "alcedo-worker"],
        must_not_know: &["parquet", "object_store", "rocksdb", "tonic"],
    },
    Room {
        name: "alcedo-testkit",
        layer: 5,
        may_see: &[
            "alcedo-proto",
            "alcedo-lookup",
            "alcedo-origin",
            "alcedo-cluster",
            "alcedo-cache",
            "alcedo-client",
            "alcedo-worker",
            "alcedo",
        ],
        must_not_know: &["rocksdb"],
    },
    Room {
        name: "alcedo-benches",
        layer: 6,
        may_see: &[
            "alcedo-proto",
            "alcedo-lookup",
            "alcedo-origin",
            "alcedo-cluster",
            "alcedo-cache",
            "alcedo-client",
            "alcedo-worker",
            "alcedo",
            "alcedo-testkit",
        ],
        must_not_know: &[],
    },
    Room { name: "xtask", layer: 0, may_see: &[], must_not_know: &[] },
];

/// Pairs that never see each other, whatever else the table is made to say.
const STRANGERS: &[(&str, &str)] = &[
    ("alcedo-cluster", "alcedo-cache"),
    ("alcedo-cluster", "alcedo-lookup"),
    ("alcedo-cache", "alcedo-lookup"),
    ("alcedo-client", "alcedo-cache"),
];

/// One dependency, as a manifest declares it.
struct Arrow {
    from: String,
    to: String,
    /// It leads to a crate of the workspace.
    inside: bool,
    /// For tests only.
    dev: bool,
}

fn arrows(metadata: &Value) -> Vec<Arrow> {
    let packages = metadata["packages"].as_array().expect("packages");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let of_package = |package: &Value| {
        let from = text(&package["name"]);
        let arrow = |dependency: &Value| Arrow {
            from: from.clone(),
            to: text(&dependency["name"]),
            inside: dependency["path"].is_string(),
            dev: dependency["kind"] == "dev",
        };
        package["dependencies"].as_array().expect("dependencies").iter().map(arrow).collect::<Vec<_>>()
    };
    packages.iter().flat_map(of_package).collect()
}

fn arrow_faults(metadata: &Value, house: &[Room]) -> Vec<String> {
    let room = |name: &str| house.iter().find(|room| room.name == name);
    let names = metadata["packages"].as_array().expect("packages").iter().filter_map(|p| p["name"].as_str());
    let unknown = names.filter(|name| room(name).is_none());
    let mut faults: Vec<String> = unknown.map(|name| format!("{name}: not in the table of the house")).collect();
    for Arrow { from, to, inside, dev } in arrows(metadata) {
        let Some(room) = room(&from) else { continue };
        let kind = if dev { " (in its tests)" } else { "" };
        if from == "xtask" {
            faults.push(format!("xtask -> {to}: it must start on a fresh machine in seconds, so it has no dependency"));
        } else if inside && !room.may_see.contains(&to.as_str()) {
            faults.push(format!("{from} -> {to}{kind}: not an arrow of the house"));
        } else if !inside && !dev && room.must_not_know.contains(&to.as_str()) {
            faults.push(format!("{from} -> {to}: what {from} must not know"));
        }
    }
    faults
}

/// Everything that a crate sees, directly or through others.
fn reach(house: &[Room], from: &str) -> BTreeSet<&'static str> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(name) = open.pop() {
        let direct = house.iter().filter(|room| room.name == name).flat_map(|room| room.may_see);
        open.extend(direct.filter(|next| seen.insert(**next)).map(|next| (*next).to_owned()));
    }
    seen
}

fn table_faults(house: &[Room]) -> Vec<String> {
    let layer = |name: &str| house.iter().find(|room| room.name == name).map(|room| room.layer);
    let arrows = house.iter().flat_map(|room| room.may_see.iter().map(move |to| (room, *to)));
    let upward = arrows.filter(|(room, to)| layer(to).is_none_or(|layer| layer >= room.layer));
    let mut faults: Vec<String> = upward.map(|(room, to)| format!("{} -> {to} does not go down", room.name)).collect();
    let meet = STRANGERS.iter().filter(|(a, b)| reach(house, a).contains(b) || reach(house, b).contains(a));
    faults.extend(meet.map(|(a, b)| format!("{a} and {b} must never see each other")));
    let above_testkit = |room: &&Room| room.name != "alcedo-benches" && room.may_see.contains(&"alcedo-testkit");
    faults.extend(house.iter().filter(above_testkit).map(|room| format!("{} sees the testkit", room.name)));
    faults
}

#[test]
fn arrows_go_down() {
    assert_none("an arrow that the house does not have", &arrow_faults(own_metadata(), HOUSE));
    assert_none("the table of the house", &table_faults(HOUSE));
}

/// The metadata of one crate with one dependency.
fn planted(from: &str, to: &str, kind: &str) -> Value {
    let path = if to.starts_with("alcedo") { serde_json::json!("x") } else { Value::Null };
    let kind = if kind.is_empty() { Value::Null } else { serde_json::json!(kind) };
    let dependency = serde_json::json!({ "name": to, "kind": kind, "path": path });
    serde_json::json!({ "packages": [{ "name": from, "dependencies": [dependency] }] })
}

#[test]
fn planted_arrows_are_reported() {
    for (from, to, kind) in [
        ("alcedo-cache", "alcedo-lookup", ""),
        ("alcedo-cache", "alcedo-lookup", "dev"),
        ("alcedo-client", "alcedo-cache", "build"),
        ("alcedo-lookup", "alcedo-client", ""),
        ("alcedo-worker", "alcedo-testkit", "dev"),
        ("alcedo-lookup", "tokio", ""),
        ("alcedo-client", "rocksdb", ""),
        ("xtask", "clap", "dev"),
        ("alcedo-extra", "bytes", ""),
    ] {
        assert_eq!(arrow_faults(&planted(from, to, kind), HOUSE).len(), 1, "{from} -> {to} {kind}");
    }
    for (from, to, kind) in [("alcedo-cache", "alcedo-origin", ""), ("alcedo-lookup", "tokio", "dev")] {
        assert_eq!(arrow_faults(&planted(from, to, kind), HOUSE), Vec::<String>::new());
    }
}

#[test]
fn planted_tables_are_reported() {
    let room = |name, layer, may_see| Room { name, layer, may_see, must_not_know: &[] };
    let sideways = [room("alcedo-cluster", 1, &["alcedo-cache"]), room("alcedo-cache", 1, &[])];
    assert_eq!(
        table_faults(&sideways),
        [
            "alcedo-cluster -> alcedo-cache does not go down",
            "alcedo-cluster and alcedo-cache must never see each other"
        ]
    );
    let around = [
        room("alcedo-client", 3, &["alcedo-go-between"]),
        room("alcedo-go-between", 2, &["alcedo-cache"]),
        room("alcedo-cache", 1, &[]),
    ];
    assert_eq!(table_faults(&around), ["alcedo-client and alcedo-cache must never see each other"]);
    let tests = [room("alcedo", 9, &["alcedo-testkit"]), room("alcedo-testkit", 5, &[])];
    assert_eq!(table_faults(&tests), ["alcedo sees the testkit"]);
}
