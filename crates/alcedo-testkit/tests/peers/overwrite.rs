//! Files that are overwritten under the worker: what a lookup says then, whatever store they are in.
//!
//! Knows two lakes whose files hold partly the same keys at different places. It must not know the store, which is
//! handed in as a closure that puts new bytes in the old one's place.

use std::sync::LazyLock;

use alcedo_client::{Answer, Client};
use alcedo_testkit::lake::{SampleLake, SampleSpec, TruthRow};
use bytes::Bytes;

use crate::plain::{found, of_answer, of_truth};
use crate::served::LAKE;
use crate::tour::{PREFIX, path};

/// Twice as many rows in as many files: a file holds the keys of two of the older lake's.
static NEWER: LazyLock<SampleLake> =
    LazyLock::new(|| SampleLake::new(SampleSpec { rows: 80_000, files: 4, seed: 12 }).unwrap());

/// One file's replacement, and a key that both contents have, in other rows with other values.
pub(crate) struct Overwrite {
    /// The older lake's file.
    pub(crate) file: u32,
    /// Its new content, made by the other kind of writer.
    pub(crate) bytes: Bytes,
    /// The number of the newer lake's file, which these bytes are.
    newer_file: u32,
    id: i64,
}

/// An overwritten file of each kind.
pub(crate) fn overwrites() -> Vec<Overwrite> {
    [(1, 0), (2, 1)].into_iter().map(|(file, newer_file)| overwrite(file, newer_file)).collect()
}

fn overwrite(file: u32, newer_file: u32) -> Overwrite {
    let rows = LAKE.rows_of_file(file);
    let has_both = |number: &u64| {
        let (older, newer) = (LAKE.row(*number).unwrap(), NEWER.row(*number).unwrap());
        older.id == newer.id && NEWER.file_of_row(*number) == Some(newer_file)
    };
    let number = *rows[rows.len() / 2..].iter().find(|number| has_both(number)).unwrap();
    let id = LAKE.row(number).unwrap().id;
    Overwrite { file, bytes: NEWER.file(newer_file).unwrap(), newer_file, id }
}

impl Overwrite {
    fn older(&self) -> TruthRow {
        LAKE.row_of_int_key(self.id).unwrap()
    }

    /// The only row, in the new content's place for it, with nothing but the new content's values.
    fn assert_newer(&self, answer: &Answer) {
        let (key, _, number, values) = found(&NEWER, 0, &NEWER.row_of_int_key(self.id).unwrap());
        assert_eq!(found(&NEWER, 0, &NEWER.row_of_int_key(self.id).unwrap()).1, SampleLake::file_name(self.newer_file));
        assert_eq!(of_answer(answer), [(key, SampleLake::file_name(self.file), number, values)]);
    }

    /// Where every lookup asks the origin first, the new row is there with the next lookup, by file and by prefix.
    pub(crate) async fn is_seen_at_once(&self, client: &Client, put: impl AsyncFnOnce(String, Bytes)) {
        let paths = [path(self.file), PREFIX.to_owned()];
        let mut versions = Vec::new();
        for path in &paths {
            let answer = client.lookup(path).key_column("id").key(self.id).await.unwrap();
            assert_eq!(of_answer(&answer), [found(&LAKE, 0, &self.older())]);
            versions.push(answer.files[0].version.clone());
        }
        put(SampleLake::file_name(self.file), self.bytes.clone()).await;
        for (path, version) in paths.iter().zip(versions) {
            let answer = client.lookup(path).key_column("id").key(self.id).await.unwrap();
            self.assert_newer(&answer);
            assert_ne!(answer.files[0].version, version);
            // Nor is anything of the old content left in the place of what the new one does not have.
            let gone = LAKE.row(self.older().number + 1).filter(|row| NEWER.row_of_int_key(row.id).is_none());
            if let Some(gone) = gone {
                let answer = client.lookup(path).key_column("id").key(gone.id).await.unwrap();
                assert!(answer.is_empty(), "{:?} is no longer there", of_truth(&gone));
            }
        }
    }

    /// The worker believes the old version and has its key column in memory, but not the other columns. The read of
    /// those must fail at the store, and the lookup begin anew: keys of one content never meet values of another.
    pub(crate) async fn is_never_mixed(&self, client: &Client, path: &str, put: impl AsyncFnOnce(String, Bytes)) {
        let only_keys = client.lookup(path).key_column("id").key(self.id).select(["id"]).await.unwrap();
        assert_eq!(of_answer(&only_keys)[0].2, found(&LAKE, 0, &self.older()).2);
        put(SampleLake::file_name(self.file), self.bytes.clone()).await;
        let answer = client.lookup(path).key_column("id").key(self.id).await.unwrap();
        self.assert_newer(&answer);
        assert_ne!(answer.files[0].version, only_keys.files[0].version);
        let again = client.lookup(path).key_column("id").key(self.id).await.unwrap();
        self.assert_newer(&again);
        assert_eq!(again.origin_gets, 0, "the new version is known from then on");
    }
}
