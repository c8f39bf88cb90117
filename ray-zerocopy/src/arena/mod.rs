//! The arena: one immutable, sealed block of memory that holds every weight exactly once.
//!
//! An arena is a memfd that contains a [burnpack](https://docs.rs/burn-pack) container, so any burn
//! tool can read it. It is a store of named bytes, and independent of pipelines, engines and
//! workers. It can be saved to a file and opened from one. If the caller guarantees that a file
//! does not change, weights may stay in the file.
//!
//! | part | where | what |
//! | --- | --- | --- |
//! | blobs | tensors of the container, 256-byte aligned | the bytes of a weight, or of a copied field |
//! | borrowed blobs | in files, or in the containers of other arenas (`base`) | the bytes of a weight that is not stored again |
//! | `Manifest` | string metadata `ray_zerocopy.manifest` | path, blob, dtype and shape of each tensor |
//! | checksum | string metadata `ray_zerocopy.blake3` | BLAKE3 of the manifest, which holds one for each blob |

#[allow(clippy::module_inception, reason = "the file is named after its type")]
pub(crate) mod arena;
mod base;
pub(crate) mod builder;
pub(crate) mod file;
pub(crate) mod handle;
pub(crate) mod index;
pub(crate) mod io;
pub(crate) mod layout;
pub(crate) mod manifest;
pub(crate) mod memory;
mod node_copy;
#[cfg(feature = "ray")]
pub(crate) mod parts;
#[cfg(feature = "ray")]
mod pieces;
pub(crate) mod placement;
pub(crate) mod ranges;
pub(crate) mod region;
pub(crate) mod replicas;
pub(crate) mod save;
pub(crate) mod source;
#[cfg(feature = "ray")]
pub(crate) mod store;
pub(crate) mod tensor;
pub(crate) mod validate;

/// The name of the memfds of arenas. It only appears in `/proc/<pid>/maps`.
const MEMFD: &str = "ray-zerocopy";

pub use self::file::ArenaFile;
pub use self::io::Progress;
pub use self::manifest::ArenaId;
pub use self::placement::Placement;
pub use self::tensor::{Location, SharedTensor};
pub use crate::tensor::copied::{CopiedTensor, DeviceMemory};
pub use crate::tensor::kind::TensorKind;
