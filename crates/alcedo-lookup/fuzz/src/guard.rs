//! Panics: which are a finding.
//!
//! A panic of a library that the crate caught and turned into an error is what it promises; one that leaves the crate
//! ends the run, and so does any panic in the crate's own sources, caught or not: a bound was forgotten there.

use std::cell::RefCell;
use std::panic::PanicHookInfo;

/// Where the crate's own sources are, as the compiler names them.
const OWN_SOURCES: &str = "alcedo-lookup/src/";

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Sets the hook for panics. The fuzzer's own hook ends the process at every panic, also at one that is caught.
pub fn start() {
    std::panic::set_hook(Box::new(|info| {
        let own = is_own(info);
        LAST.set(info.to_string());
        if own {
            eprintln!("{info}");
            std::process::abort();
        }
    }));
}

/// True for a panic in the crate's own sources.
pub fn is_own(info: &PanicHookInfo<'_>) -> bool {
    info.location().is_some_and(|place| place.file().contains(OWN_SOURCES))
}

/// Runs `target`; says what a panic was before it goes on.
pub fn run(target: impl FnOnce()) {
    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(target)) {
        eprintln!("{}", LAST.take());
        std::panic::resume_unwind(panic)
    }
}
