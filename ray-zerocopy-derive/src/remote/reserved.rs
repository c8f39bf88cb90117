//! The method names that a pipeline's remote methods cannot have.
//!
//! A wrapper dereferences to the type with the pipeline's methods, so that a method of the
//! wrapper's own would win over one of the same name, and the pipeline's could not be called.

/// The methods of `TaskWrapper`, `ActorWrapper`, `Actors` and `Actor`, and those that every type
/// with `Clone` has by the prelude. A test of the workspace compares the list with the runtime's
/// source.
pub(crate) const RESERVED: &[&str] = &[
    "actor",
    "actor_count",
    "affinity",
    "arena",
    "attempts",
    "batch",
    "canary",
    "cancel_grace",
    "clone",
    "deadline",
    "device",
    "drain",
    "export",
    "fail_when_full",
    "follow",
    "into",
    "iter",
    "load",
    "load_on",
    "memory",
    "niceness",
    "pin_cores",
    "prewarm",
    "queue",
    "recycled_memory",
    "report",
    "restart",
    "shut_down",
    "shut_down_now",
    "spawn",
    "start_timeout",
    "stream_buffer",
    "strict",
    "swap",
    "swap_discarding_state",
    "swap_if",
    "threads_per_worker",
    "to_owned",
    "try_into",
    "withdraw",
    "worker",
    "workers",
];
