//! Fuzz target for the manifest of a variant, in a valid container and with its base.

#![no_main]

use ray_zerocopy::__private::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ray_zerocopy_fuzz::run(|| drop(fuzz::variant(bytes))));
