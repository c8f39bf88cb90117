//! Variants and adapters on a Ray cluster: the base is on a node once, whatever is made from it.
//!
//! | file | what |
//! | --- | --- |
//! | `tuned` | a pipeline with a large body and a small head, and variants of it |
//! | `adapters` | LoRA adapters of actors |

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::sync::LazyLock;

use ray_zerocopy::ray::{Cluster, ClusterTarget, Options};

mod adapters;
#[allow(dead_code, reason = "the tests of adapters on this machine use more of it")]
#[path = "../lora/net.rs"]
mod net;
mod tuned;

static CLUSTER: LazyLock<Cluster> =
    LazyLock::new(|| Cluster::local().cpus(4).object_store(300 << 20).quiet().start().unwrap());

fn site() -> ClusterTarget {
    CLUSTER.with(Options::default().cpus(0.1))
}
