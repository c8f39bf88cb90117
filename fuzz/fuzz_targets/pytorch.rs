//! Fuzz target for pickles of state dicts, in a valid archive.

#![no_main]

use ray_zerocopy::__private::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ray_zerocopy_fuzz::run(|| drop(fuzz::pytorch(bytes))));
