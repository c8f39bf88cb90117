//! Fuzz target for the operations of a traced graph, as an arena stores them.

#![no_main]

use ray_zerocopy::__private::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ray_zerocopy_fuzz::run(|| drop(fuzz::graph(bytes))));
