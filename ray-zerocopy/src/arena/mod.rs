//! The arena: one immutable, sealed block of memory that holds every weight exactly once.
//!
//! An arena is a memfd that contains a [burnpack](https://docs.rs/burn-pack) container, so that any burn tool can
//! read it. It is a store of named bytes: it knows nothing of pipelines, engines or workers. It can be saved to a file, and
//! opened from one; and if its user promises that nobody changes a file, weights may stay there.
//!
//! | part | where | what |
//! | --- | --- | --- |
//! | blobs | tensors of the container, 256-byte aligned | the bytes of a weight, or of a copied field |
//! | `Manifest` | string metadata `ray_zerocopy.manifest` | which path is which blob, with dtype and shape |
//! | checksum | string metadata `ray_zerocopy.blake3` | BLAKE3 of the manifest; the manifest holds one for each blob |

#[allow(clippy::module_inception, reason = "the file is named after its type")]
pub(crate) mod arena;
pub(crate) mod builder;
pub(crate) mod file;
pub(crate) mod index;
pub(crate) mod io;
pub(crate) mod layout;
pub(crate) mod manifest;
pub(crate) mod memory;
pub(crate) mod placement;
pub(crate) mod region;
pub(crate) mod source;
pub(crate) mod tensor;
pub(crate) mod validate;

pub use self::file::ArenaFile;
pub use self::io::Progress;
pub use self::manifest::ArenaId;
pub use self::placement::Placement;
pub use self::tensor::{Location, SharedTensor};
pub use crate::tensor::copied::CopiedTensor;
pub use crate::tensor::kind::TensorKind;
