//! Fuzz target for messages between owner and worker: the frame and its values.

#![no_main]

use ray_zerocopy::__private::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ray_zerocopy_fuzz::run(|| drop(fuzz::message(bytes))));
