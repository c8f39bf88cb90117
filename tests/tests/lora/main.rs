//! LoRA adapters: numbers, errors, and workers that share the memory of adapters.
//!
//! | file | what |
//! | --- | --- |
//! | `net` | the pipeline of these tests |
//! | `peft` | the results of PEFT, which are in `tests/peft` |
//! | `merged` | the results of a merged weight, and of burn's own adapters |
//! | `refused` | adapters that do not fit |
//! | `workers` | adapters of processes and threads, and their memory |

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod merged;
mod net;
mod peft;
mod refused;
mod workers;
