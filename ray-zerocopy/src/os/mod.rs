//! Operating system interfaces: memory mappings, `/proc`, resource limits, signals, and files that
//! are replaced atomically.
//!
//! | file | what |
//! | --- | --- |
//! | `available_memory` | memory that the machine and the cgroups leave |
//! | `background` | work at a low priority |
//! | `byte_size` | sizes as text |
//! | `cpu_placement` | affinity and niceness |
//! | `fd_packet` | packets with file descriptors, over Unix sockets |
//! | `last_call` | a worker process that ends after its current call |
//! | `limits` | which limit caused an error of a system call |
//! | `fork` | thread pools and mutexes in a child of `fork` |
//! | `numa`, `numa_maps` | the NUMA nodes of the machine, and on which of them pages are |
//! | `per_process` | a value for each process, with a new one after a fork |
//! | `procfs`, `smaps` | parsers for `/proc/<pid>/maps`, `smaps`, `stat` and `cmdline` |
//! | `recording` | keeps recordings of kernels apart from other uses of a GPU |
//! | `replace` | writes a file that appears under its name when it is complete |
//! | `scratch` | buffers whose memory goes back to the kernel |
//! | `sync` | `Mutex` and `Condvar` without poisoning, and the clock |
//! | `temporary` | files that have a name before they are complete, removed if the program ends by a signal |
//! | `title` | process titles of workers |
//! | `sys` | memory mappings, memfds, signals and the heap. The unsafe code of this folder |

pub(crate) mod available_memory;
pub(crate) mod background;
pub(crate) mod byte_size;
pub(crate) mod cpu_placement;
pub(crate) mod fd_packet;
pub(crate) mod fork;
pub(crate) mod last_call;
pub(crate) mod limits;
pub(crate) mod numa;
pub(crate) mod numa_maps;
pub(crate) mod per_process;
pub(crate) mod procfs;
pub(crate) mod readahead;
#[cfg(any(feature = "gpu", feature = "wgpu"))]
pub(crate) mod recording;
pub(crate) mod replace;
pub(crate) mod scratch;
pub(crate) mod smaps;
pub(crate) mod sync;
pub(crate) mod sys;
pub(crate) mod temporary;
pub(crate) mod title;
