//! Any writes, reads, forgetting and reopening beside a plain model of what may be there.

use std::collections::HashSet;

use alcedo_cache::{FileKey, PageStore};
use proptest::prelude::*;

use super::lake::{BLOCK, disk_bytes, is_here, key, open, settle, write};

const SIZE: u64 = 200 * BLOCK + 77;

#[derive(Debug, Clone)]
enum Act {
    Write { file: u64, start: u64, length: u64 },
    Read { file: u64, start: u64, length: u64 },
    Forget { file: u64 },
    ForgetUrl { file: u64 },
    Settle,
    Reopen,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let range = || (0_u64..8, 0..SIZE, prop_oneof![1..3 * BLOCK, 1..SIZE]);
    let act = prop_oneof![
        6 => range().prop_map(|(file, start, length)| Act::Write { file, start, length }),
        6 => range().prop_map(|(file, start, length)| Act::Read { file, start, length }),
        1 => (0_u64..8).prop_map(|file| Act::Forget { file }),
        1 => (0_u64..8).prop_map(|file| Act::ForgetUrl { file }),
        1 => Just(Act::Settle),
        2 => Just(Act::Reopen),
    ];
    proptest::collection::vec(act, 1..60)
}

/// Four files in two versions each.
fn file(number: u64) -> FileKey {
    key(number / 2, number % 2)
}

/// The blocks of the model in a range.
fn blocks(range: std::ops::Range<u64>) -> std::ops::Range<u64> {
    range.start / BLOCK..range.end.div_ceil(BLOCK)
}

/// Plays the acts. With room for everything, what was written is there; with little, what is there was written.
fn play(capacity: u64, acts: Vec<Act>) {
    let temp = tempfile::tempdir().unwrap();
    let mut store: Option<PageStore> = None;
    let mut present: HashSet<(u64, u64)> = HashSet::new();
    let keeps_all = capacity > 32 << 20;
    for act in acts {
        let now = store.get_or_insert_with(|| open(temp.path(), capacity));
        match act {
            Act::Write { file: number, start, length } => {
                let range = start..(start + length).min(SIZE);
                write(now, &file(number), SIZE, range.clone());
                let whole = blocks(range.clone())
                    .filter(|block| block * BLOCK >= range.start && ((block + 1) * BLOCK).min(SIZE) <= range.end);
                present.extend(whole.map(|block| (number, block)));
            }
            Act::Read { file: number, start, length } => {
                let range = start..(start + length).min(SIZE);
                let expected = blocks(range.clone()).all(|block| present.contains(&(number, block)));
                let here = is_here(now, &file(number), range.clone());
                assert!(!here || expected, "{number} at {range:?} is here and must not be");
                assert!(here || !expected || !keeps_all, "{number} at {range:?} was lost");
                let missing = now.missing(&file(number), SIZE, range.clone());
                assert!(missing.windows(2).all(|pair| pair[0].end < pair[1].start));
                if here != missing.is_empty() {
                    // The writer made room between the two questions; when it rests, they have one answer.
                    assert!(!keeps_all, "{number} at {range:?}: here is {here}, and {missing:?} is missing");
                    settle(now);
                    assert!(now.counts().evictions > 0, "{number} at {range:?} was there, and nothing was evicted");
                    let missing = now.missing(&file(number), SIZE, range.clone());
                    assert_eq!(is_here(now, &file(number), range), missing.is_empty());
                }
            }
            Act::Forget { file: number } => {
                now.forget(&file(number));
                present.retain(|(other, _)| *other != number);
                assert_eq!(now.held_bytes(&file(number)), 0);
            }
            Act::ForgetUrl { file: number } => {
                now.forget_url(file(number).url());
                present.retain(|(other, _)| other / 2 != number / 2);
            }
            Act::Settle => settle(now),
            Act::Reopen => store = None,
        }
        assert!(disk_bytes(temp.path()) <= capacity);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn with_room_everything_is_kept(acts in acts()) {
        play(64 << 20, acts);
    }

    #[test]
    fn with_little_room_nothing_is_wrong(acts in acts()) {
        play(2 << 20, acts);
    }
}
