//! Layer 1: which of the page stores of one cache directory.
//!
//! Knows their names and what each may drop to make room. It must not know what is kept in them. They have the same
//! form and the same code; each has a directory and a quota of its own, so that one never takes another's room.

/// One page store of a cache directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreName {
    /// Bytes of files, as they were asked for. What is oldest goes first.
    Pages,
    /// What was computed from files. What was forgotten goes first, then what is oldest.
    Derived,
    /// What is to stay whatever is asked. Only what was forgotten goes; a write for which there is no room is dropped.
    Pinned,
}

impl StoreName {
    pub(crate) const ALL: [Self; 3] = [Self::Pages, Self::Derived, Self::Pinned];

    /// The name of its directory below the cache directory.
    pub(crate) fn directory(self) -> &'static str {
        match self {
            Self::Pages => "pages",
            Self::Derived => "derived",
            Self::Pinned => "pinned",
        }
    }

    /// Whether it drops what is wanted to make room for what is new.
    pub(crate) fn evicts(self) -> bool {
        self != Self::Pinned
    }
}
