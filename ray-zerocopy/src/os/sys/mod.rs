//! Memory mappings, memfds, the heap, signals and other system interfaces. The only unsafe code of
//! `os`.
//!
//! Modules outside of this folder see an [`OwnedFd`](std::os::fd::OwnedFd) and byte slices.
//!
//! | file | what |
//! | --- | --- |
//! | `elsewhere` | stands in for `image`, `memfd`, `peer` and `pidfd` on systems other than Linux |
//! | `aligned_map` | read-only mappings that are aligned for huge pages |
//! | `advice` | `madvise` and `mlock` for them |
//! | `node_memory` | the NUMA node of their pages |
//! | `mapping` | mappings of sealed memfds and of unchanging files, as byte slices |
//! | `memfd` | creates and seals memfds |
//! | `recycled_map` | memory for messages that is used again: one process writes, another reads |
//! | `shared_words` | memory that two processes write to, as atomic numbers |
//! | `malloc` | heap thresholds |
//! | `atexit` | exit handlers |
//! | `image` | the executable or shared library that contains this code |
//! | `passed_fds` | file descriptors from the service manager |
//! | `peer` | the process at the other end of a Unix socket |
//! | `pidfd` | exit status of a process that has been reaped |
//! | `process_id` | the id of this process, and the number of its forks |
//! | `privileges` | setuid, setgid and file capabilities |
//! | `signals` | signal handling of workers |

#![allow(unsafe_code)]

pub(crate) mod advice;
pub(crate) mod aligned_map;
pub(crate) mod atexit;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
pub(crate) mod image;
pub(crate) mod malloc;
pub(crate) mod mapping;
#[cfg(target_os = "linux")]
pub(crate) mod memfd;
pub(crate) mod node_memory;
pub(crate) mod passed_fds;
#[cfg(target_os = "linux")]
pub(crate) mod peer;
#[cfg(target_os = "linux")]
pub(crate) mod pidfd;
pub(crate) mod privileges;
pub(crate) mod process_id;
pub(crate) mod recycled_map;
pub(crate) mod shared_words;
pub(crate) mod signals;

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{image, memfd, peer, pidfd};
