//! The copy of an arena on a GPU: found or made once per GPU, and kept as long as tensors use it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::burn::tensor::{Bytes, DType};

use super::exchange::{CopyKey, Server};
use super::home::Home;
pub(crate) use super::home::Use;
use super::layout::Layout;
use super::lookup::{Lock, find, give_to_keepers};
use super::sys::context::Gpu;
use super::sys::memory::{Access, MappedRange, Mapping, Memory};
use super::upload::upload;
use crate::os::per_process::PerProcess;
use crate::os::recording;
use crate::os::sync::Mutex;

/// Version of the layout and of the protocol between processes.
const VERSION: &[u8] = b"1";

/// How often a process looks whether it still uses a copy.
const SWEEP: Duration = Duration::from_millis(500);

/// Why there is no shared copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The GPU has no room for the weights, so they cannot be uploaded either. The text names sizes.
    NoRoom(String),
    /// The weights can only be uploaded by each process. The text says why.
    NotShared(String),
}

impl Refusal {
    fn because(reason: impl std::fmt::Display) -> Self {
        Self::NotShared(reason.to_string())
    }
}

/// An arena's weights in the memory of a GPU, which this process has mapped.
pub(crate) struct DeviceCopy {
    pub(super) home: Home,
    layout: Layout,
    /// The size on the GPU, in bytes.
    bytes: u64,
    /// Whether this process has uploaded it.
    is_uploaded: bool,
    gpu: [u8; 16],
}

impl DeviceCopy {
    /// The size on the GPU, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The name of the GPU in NVIDIA's tools.
    #[cfg(any(feature = "cuda", feature = "libtorch"))]
    pub(crate) fn gpu(&self) -> String {
        super::sys::context::gpu_name(&self.gpu)
    }

    /// Whether this process has uploaded it, and not another one.
    pub(crate) fn is_uploaded(&self) -> bool {
        self.is_uploaded
    }

    /// The offset and the size of a tensor. `None` if the blob is not in the copy with elements of this
    /// type, or has another size.
    pub(super) fn place(&self, blob: u32, shape: &[usize], dtype: DType) -> Option<(usize, usize)> {
        let (offset, part) = self.layout.offset(blob, dtype)?;
        let elements = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size))?;
        let len = elements.checked_mul(dtype.size())?;
        (len == part.len).then_some((offset, len))
    }

    /// The memory of a blob with elements of this type. `None` if it is not in the copy, or burn has the
    /// memory.
    pub(crate) fn range(&self, blob: u32, dtype: DType) -> Option<MappedRange> {
        let (offset, part) = self.layout.offset(blob, dtype)?;
        self.home.range(offset, part.len)
    }
}

/// A copy, if this process has it. Locked while the copy is looked for or made.
type Slot = Mutex<Option<Arc<DeviceCopy>>>;

/// The copies that this process has or had, for each use.
type Copies = Mutex<HashMap<(CopyKey, Use), Arc<Slot>>>;

static COPIES: PerProcess<Copies> = PerProcess::new();

/// Returns the copy of an arena on GPU `index`: the one that this process has, or that of another
/// process of the user. Otherwise uploads it, while other processes that need it wait.
///
/// `bytes` returns those of one part of the layout.
///
/// # Errors
/// If there is no room, or processes cannot share the GPU's memory.
pub(crate) fn open(
    on: (usize, Use),
    arena: &[u8],
    layout: Layout,
    bytes: &(dyn Fn(usize) -> Result<Bytes, String> + Sync),
) -> Result<Arc<DeviceCopy>, Refusal> {
    recording::apart(|| open_apart(on, arena, layout, bytes))
}

fn open_apart(
    (index, wanted): (usize, Use),
    arena: &[u8],
    layout: Layout,
    bytes: &(dyn Fn(usize) -> Result<Bytes, String> + Sync),
) -> Result<Arc<DeviceCopy>, Refusal> {
    let gpu = Gpu::open(index).map_err(Refusal::because)?;
    let key = CopyKey::of(&[VERSION, arena, &gpu.uuid, layout.describe().as_bytes()]);
    let slot = Arc::clone(COPIES.get().lock().entry((key.clone(), wanted)).or_default());
    // Held until the copy is there, so that threads of one process make it once.
    let mut known = slot.lock();
    if let Some(copy) = &*known {
        return Ok(Arc::clone(copy));
    }
    #[cfg(feature = "cuda")]
    if wanted == Use::Burn {
        super::sys::overlay::install().map_err(Refusal::NotShared)?;
    }
    if !gpu.shares_memory().map_err(Refusal::because)? {
        // Each process needs room for a copy. burn would not say that it is missing.
        if gpu.memory().is_ok_and(|(free, _)| free < layout.len() as u64) {
            return Err(no_room(gpu, index, layout.len() as u64));
        }
        return Err(Refusal::because("the GPU has no memory that processes can share"));
    }
    let len = Memory::rounded(&gpu, layout.len()).map_err(Refusal::because)?;
    let lock = Lock::take(&key).map_err(Refusal::because)?;
    let (shared, mapping, is_uploaded) = match find(&key).map_err(Refusal::because)? {
        Some((fd, found)) if found == len as u64 => {
            let memory = Memory::import(gpu, &fd, len).map_err(Refusal::because)?;
            let mapping = memory.map(Access::Read).map_err(Refusal::because)?;
            (fd, mapping, false)
        }
        Some((_, found)) => {
            return Err(Refusal::because(format!("another process has a copy of {found} bytes, and {len} are needed")));
        }
        None => {
            let (memory, mapping) = make(gpu, index, &layout, len, bytes)?;
            (memory.export().map_err(Refusal::because)?, mapping, true)
        }
    };
    give_to_keepers(arena, &key, &shared, len as u64);
    let server = Server::new(&key, shared, len as u64).map_err(Refusal::because)?;
    let home = Home::of(mapping, wanted, index).map_err(Refusal::NotShared)?;
    let copy = Arc::new(DeviceCopy { home, layout, bytes: len as u64, is_uploaded, gpu: gpu.uuid });
    let keeper = std::thread::Builder::new().name("ray-zerocopy gpu".to_owned());
    let serving = Arc::clone(&slot);
    keeper.spawn(move || serve(&serving, &server)).map_err(Refusal::because)?;
    *known = Some(Arc::clone(&copy));
    drop(lock);
    Ok(copy)
}

/// Allocates memory on the GPU and uploads the parts.
fn make(
    gpu: Gpu,
    index: usize,
    layout: &Layout,
    len: usize,
    bytes: &(dyn Fn(usize) -> Result<Bytes, String> + Sync),
) -> Result<(Memory, Mapping), Refusal> {
    let memory = Memory::create(gpu, len).map_err(|error| {
        if error.is_out_of_memory() { no_room(gpu, index, layout.len() as u64) } else { Refusal::because(error) }
    })?;
    let mut mapping = memory.map(Access::ReadWrite).map_err(Refusal::because)?;
    upload(gpu, &mapping, layout, bytes).map_err(Refusal::NotShared)?;
    mapping.protect(Access::Read).map_err(Refusal::because)?;
    Ok((memory, mapping))
}

fn no_room(gpu: Gpu, index: usize, needed: u64) -> Refusal {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Refusal::NoRoom(match gpu.memory() {
        Ok((free, total)) => format!(
            "the weights take {} MiB, and `cuda:{index}` has {} of {} MiB free",
            mib(needed),
            free >> 20,
            mib(total)
        ),
        Err(_) => format!("the weights take {} MiB, and `cuda:{index}` has less", mib(needed)),
    })
}

/// Passes a copy on to other processes, until this process does not use it any more.
fn serve(slot: &Slot, server: &Server) {
    loop {
        server.serve_for(SWEEP);
        let mut known = slot.lock();
        let Some(copy) = known.take() else { return };
        match Arc::try_unwrap(copy) {
            Ok(copy) if copy.home.is_unused() => {
                copy.home.free();
                return;
            }
            Ok(copy) => *known = Some(Arc::new(copy)),
            Err(copy) => *known = Some(copy),
        }
    }
}
