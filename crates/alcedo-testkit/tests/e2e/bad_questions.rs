//! Questions that cannot be answered: each with its exact message, its kind, and the command's exit code.

use alcedo_client::{Kind, Reason};
use alcedo_testkit::cluster::{ClusterOptions, TestCluster};
use bytes::Bytes;

use crate::sample::{COLUMNS, refused, small_objects};

/// One question to the client and the command, and what both say.
struct Case {
    path: &'static str,
    key_column: &'static str,
    key: &'static str,
    select: &'static str,
    kind: Kind,
    reason: Reason,
    code: i32,
    message: &'static str,
    /// What the command adds in a second line; empty: nothing.
    hint: &'static str,
}

const FILE: &str = "lake/lake/part-00000.parquet";

fn case(path: &'static str, kind: Kind, reason: Reason, code: i32, message: &'static str) -> Case {
    Case { path, key_column: "id", key: "1", select: "*", kind, reason, code, message, hint: "" }
}

fn bad_path(path: &'static str, message: &'static str) -> Case {
    case(path, Kind::Invalid, Reason::BadPath, 1, message)
}

/// Small files of the lake, files that are none, and a directory with links out of it.
fn cluster(outside: &std::path::Path, inside: &std::path::Path, tables: &str) -> TestCluster {
    std::fs::create_dir(inside).unwrap();
    std::fs::write(outside, small_objects()[0].1.as_ref()).unwrap();
    std::os::unix::fs::symlink(outside, inside.join("link.parquet")).unwrap();
    std::os::unix::fs::symlink(outside.parent().unwrap(), inside.join("up")).unwrap();
    std::fs::write(inside.join("real.parquet"), small_objects()[0].1.as_ref()).unwrap();
    std::os::unix::fs::symlink("real.parquet", inside.join("within.parquet")).unwrap();
    let mut objects = small_objects();
    objects.push(("other/readme.txt".to_owned(), Bytes::from_static(b"hello")));
    let (tables, local) = (tables.to_owned(), Some(inside.to_owned()));
    TestCluster::start(ClusterOptions { objects, tables, local, ..ClusterOptions::default() }).unwrap()
}

/// Asks by the client, on the stream and unary, and by the command.
async fn check(cluster: &TestCluster, case: &Case, local: &str) {
    let Case { path, key_column, key, select, .. } = case;
    let message = case.message.replace("LOCAL", local);
    for unary in [false, true] {
        let lookup = cluster.client().lookup(*path).key_column(*key_column).key(*key).unary(unary);
        let columns = if *select == "*" { vec![] } else { select.split(',').collect() };
        let error = refused(lookup.select(columns).await);
        assert_eq!(error.message, message);
        assert_eq!((error.kind(), error.reason), (case.kind, Some(case.reason)), "{path}: {error}");
        assert!(!error.is_retryable());
    }
    let said = cluster.run(&["get", path, key, "-k", key_column, "-s", select]).await.unwrap();
    let hint = if case.hint.is_empty() { String::new() } else { format!("hint: {}\n", case.hint) };
    assert_eq!((said.code, said.stderr), (Some(case.code), format!("error: {message}\n{hint}")), "{path}");
    assert_eq!(said.stdout, "");
}

#[tokio::test]
async fn paths_that_name_nothing_or_lead_outside() {
    let home = tempfile::tempdir().unwrap();
    let inside = home.path().join("mounted");
    let cluster = cluster(&home.path().join("secret.parquet"), &inside, "");
    let inside = inside.display().to_string();
    let known = "known mounts: lake (s3://lake), local (file://LOCAL)";
    let known = |text: &str| &*Box::leak(format!("{text}; {known}").into_boxed_str());
    let way_out = |path| {
        let why = "a symbolic link leads out of the mount's directory, or in a circle";
        let what_to_do = "links are followed inside the mount only";
        &*Box::leak(format!("file://LOCAL/{path}: {why}: {what_to_do}").into_boxed_str())
    };
    let not_found = |path, reason, message| case(path, Kind::NotFound, reason, 3, message);
    let mount_hint = "`alcedo ls` lists the mounts";
    let cases = [
        Case {
            hint: mount_hint,
            ..not_found("lak/lake/", Reason::NoSuchMount, known("lak/lake/: no such mount (did you mean \"lake\"?)"))
        },
        Case {
            hint: mount_hint,
            ..not_found("zzz/a.parquet", Reason::NoSuchMount, known("zzz/a.parquet: no such mount"))
        },
        Case {
            hint: mount_hint,
            ..not_found("gs://other/a.parquet", Reason::NoSuchMount, known("gs://other/a.parquet: no such mount"))
        },
        Case {
            hint: mount_hint,
            ..not_found(
                "s3://lakehouse/a.parquet",
                Reason::NoSuchMount,
                known("s3://lakehouse/a.parquet: no such mount (did you mean \"lake\"?)"),
            )
        },
        not_found(
            "lake/lake/none.parquet",
            Reason::NoSuchFile,
            "s3://lake/lake/none.parquet: no such file at the origin",
        ),
        not_found("lake/nothing/", Reason::EmptyPrefix, "s3://lake/nothing/: no .parquet files below this prefix"),
        not_found("lake/other", Reason::NoSuchFile, "s3://lake/other: no such file at the origin"),
        not_found("local/none.parquet", Reason::NoSuchFile, "file://LOCAL/none.parquet: no such file at the origin"),
        case("local/link.parquet", Kind::Denied, Reason::OriginDenied, 1, way_out("link.parquet")),
        case("local/up/secret.parquet", Kind::Denied, Reason::OriginDenied, 1, way_out("up/secret.parquet")),
    ];
    for case in cases {
        check(&cluster, &case, &inside).await;
    }
    // A link that stays inside is followed, so it was the way out that was refused.
    let answer = cluster.client().lookup("local/within.parquet").key_column("id").key(1).await;
    assert!(answer.is_ok(), "{answer:?}");
}

#[tokio::test]
async fn paths_that_break_the_rule_for_paths() {
    let home = tempfile::tempdir().unwrap();
    let cluster = cluster(&home.path().join("secret.parquet"), &home.path().join("mounted"), "");
    let cases = [
        bad_path(
            "lake/../secret.parquet",
            "lake/../secret.parquet: not a usable path: a segment is, or percent-decodes to, \".\" or \"..\"",
        ),
        bad_path(
            "local/%2e%2e/secret.parquet",
            "local/%2e%2e/secret.parquet: not a usable path: a segment is, or percent-decodes to, \".\" or \"..\"",
        ),
        bad_path(
            "local/%252e%252e/secret.parquet",
            "local/%252e%252e/secret.parquet: not a usable path: a segment is, or percent-decodes to, \".\" or \"..\"",
        ),
        bad_path(
            "local/a%2f..%2fb",
            "local/a%2f..%2fb: not a usable path: a segment percent-decodes to one with a slash in it",
        ),
        bad_path(
            "lake//part-00000.parquet",
            "lake//part-00000.parquet: not a usable path: a segment is empty: write single slashes, and none at \
             the start",
        ),
        bad_path("/etc/passwd", "/etc/passwd: not a usable path: it starts with neither a mount's name nor a URL"),
        bad_path(
            "s3://key:word@lake/a.parquet",
            "s3://[redacted]@lake/a.parquet: not a usable path: a URL must not carry user information: credentials \
             belong to the mount",
        ),
    ];
    for case in cases {
        check(&cluster, &case, "").await;
    }
    // Nothing was asked of any store.
    assert_eq!(cluster.store().counters(), alcedo_testkit::s3::Counters::default());
}

#[tokio::test]
async fn columns_and_keys_that_do_not_fit_the_file() {
    let home = tempfile::tempdir().unwrap();
    let cluster = cluster(&home.path().join("secret.parquet"), &home.path().join("mounted"), "");
    let invalid = |reason, message| case(FILE, Kind::Invalid, reason, 1, message);
    let cases = [
        Case {
            key_column: "idd",
            ..invalid(Reason::NoSuchColumn, "s3://lake/lake/part-00000.parquet: no column `idd`: did you mean `id`?")
        },
        Case {
            key_column: "zzzzzz",
            ..invalid(Reason::NoSuchColumn, "s3://lake/lake/part-00000.parquet: no column `zzzzzz`")
        },
        Case {
            select: "id,nmae",
            ..invalid(Reason::NoSuchColumn, "s3://lake/lake/part-00000.parquet: no column `nmae`: did you mean `name`?")
        },
        Case {
            key: "12a",
            ..invalid(
                Reason::BadKey,
                "s3://lake/lake/part-00000.parquet: key `12a` does not read as int64 (column `id`): write a \
                 whole number",
            )
        },
        Case {
            key_column: "created",
            key: "yesterday",
            ..invalid(
                Reason::BadKey,
                "s3://lake/lake/part-00000.parquet: key `yesterday` does not read as timestamp[us,UTC] (column \
                 `created`): write \
                 YYYY-MM-DDTHH:MM:SS[.fraction][Z or offset] or a count of the unit",
            )
        },
        Case {
            key_column: "active",
            key: "maybe",
            ..invalid(
                Reason::BadKey,
                "s3://lake/lake/part-00000.parquet: key `maybe` does not read as bool (column `active`): write \
                 true or false",
            )
        },
    ];
    for case in cases {
        check(&cluster, &case, "").await;
    }
    // A file that declares no order must be told its key column.
    let error = refused(cluster.client().lookup(FILE).key(1).await);
    let wanted = format!(
        "s3://lake/{}: the file declares no sort order: name the key column (its columns: {})",
        &FILE["lake/".len()..],
        COLUMNS.join(", ")
    );
    assert_eq!((error.message, error.reason), (wanted, Some(Reason::BadRequest)));
}

#[tokio::test]
async fn more_files_than_one_lookup_may_ask() {
    let home = tempfile::tempdir().unwrap();
    let tables = "[lookup]\nmax_candidates = 4\nmax_files = 16\n";
    let cluster = cluster(&home.path().join("secret.parquet"), &home.path().join("mounted"), tables);
    let too_many = Case {
        key_column: "city",
        key: "Porto",
        ..case(
            "lake/lake/",
            Kind::Invalid,
            Reason::TooManyCandidates,
            1,
            "s3://lake/lake/: 16 of 16 files may hold the keys, at most 4 are asked: name a narrower prefix, ask for \
             fewer keys, sort the files by the key column, or raise lookup.max_candidates",
        )
    };
    check(&cluster, &too_many, "").await;
    // The bound is on files that may hold the key, not on files.
    let answer = cluster.client().lookup("lake/lake/").key_column("id").key(1).await.unwrap();
    assert_eq!((answer.files_total, answer.files_asked <= 4), (16, true));
    cluster.store().put("lake", "more/a.parquet", small_objects()[0].1.clone());
    let too_many_files = case(
        "lake/",
        Kind::Invalid,
        Reason::TooManyCandidates,
        1,
        "s3://lake/: more than 16 files below this prefix: name a narrower prefix, or raise lookup.max_files (and \
         origin.listed_entries)",
    );
    check(&cluster, &too_many_files, "").await;
}
