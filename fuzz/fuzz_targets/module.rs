//! Fuzz target for the table of methods of a TorchScript module, as an arena stores it.

#![no_main]

use ray_zerocopy::__private::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ray_zerocopy_fuzz::run(|| drop(fuzz::module(bytes))));
