//! Fuzz target for checkpoints: safetensors, burnpack and PyTorch files.

#![no_main]

use ray_zerocopy::__private::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ray_zerocopy_fuzz::run(|| drop(fuzz::checkpoint(bytes))));
