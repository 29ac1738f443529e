//! The page store on disk as its user sees it: what comes back after a reopen, and what must never come back.
//!
//! Knows the public API and the files below the directory. It must not know how they are written.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// A process is let live for a while, and a directory emptied now and then.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

mod disk {
    pub(crate) mod lake;

    mod damage;
    mod kept;
    mod killed;
    mod model;
    mod stores;
}
