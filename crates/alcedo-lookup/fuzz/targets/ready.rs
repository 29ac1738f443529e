//! The fuzz target `ready`: see `derived` in the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: alcedo_lookup_fuzz::start(), |data: &[u8]| alcedo_lookup_fuzz::ready(data));
