//! Messages between owner and worker: the frame, and the values in it.

#![no_main]

use ray_zerocopy::__private::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ray_zerocopy_fuzz::run(|| drop(fuzz::message(bytes))));
