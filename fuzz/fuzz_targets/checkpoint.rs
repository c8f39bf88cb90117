//! Weights in files of other programs: safetensors, burnpack and PyTorch.

#![no_main]

use ray_zerocopy::__private::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ray_zerocopy_fuzz::run(|| drop(fuzz::checkpoint(bytes))));
