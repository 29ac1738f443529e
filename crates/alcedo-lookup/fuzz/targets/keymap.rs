//! The fuzz target `keymap`: see `derived` in the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: alcedo_lookup_fuzz::start(), |data: &[u8]| alcedo_lookup_fuzz::keymap(data));
