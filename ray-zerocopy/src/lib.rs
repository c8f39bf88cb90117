//! One copy of a model's weights per machine, however many processes run it.
//!
//! A worker does not load a model: it *borrows* it. The owner writes every weight once into an
//! [`Arena`], a sealed block of memory. Each worker rebuilds the pipeline from its config, and its
//! tensors read the arena in place.
//!
//! | you have | you write | you get |
//! | --- | --- | --- |
//! | a struct with burn modules | `#[derive(`[`Pipeline`]`)]` | its weights can be shared, the rest is copied |
//! | methods on it | `#[`[`remote`](macro@remote)`]` on the impl block | they can be called in other processes |
//! | calls now and then | [`TaskWrapper`] | each call runs on a free worker |
//! | many calls, or state | [`ActorWrapper`] | processes that load once and serve |
//! | workers that do not know the type | [`jit::trace()`], [`jit::JitActorWrapper`] | a recorded forward pass on the same weights |
//! | a process of your own | [`ActorWrapper::load`] | the pipeline in it, on the same weights |
//!
//! ```
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::{Device, Tensor};
//! use ray_zerocopy::{Pipeline, TaskWrapper};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, Clone)]
//! struct ModelConfig { inputs: usize, classes: usize }
//!
//! #[derive(Pipeline)]
//! struct Model {
//!     #[pipeline(config)]
//!     config: ModelConfig,      // rebuilds the model in a worker: `config.init(&device)`
//!     head: Linear,             // a Module: shared
//!     labels: Vec<String>,      // serde: copied
//! }
//!
//! impl ModelConfig {
//!     fn init(&self, device: &Device) -> Model {
//!         let head = LinearConfig::new(self.inputs, self.classes).init(device);
//!         Model { config: self.clone(), head, labels: Vec::new() }
//!     }
//! }
//!
//! #[ray_zerocopy::remote]
//! impl Model {
//!     pub fn classify(&self, x: Tensor<2>) -> Vec<String> {
//!         let best = self.head.forward(x).argmax(1).into_data();
//!         best.iter::<u32>().map(|class| self.labels[class as usize].clone()).collect()
//!     }
//! }
//!
//! fn main() -> ray_zerocopy::Result<()> {
//!     ray_zerocopy::init();
//!     let device = Device::flex();
//!     let mut model = ModelConfig { inputs: 8, classes: 2 }.init(&device);
//!     model.labels = vec!["cat".into(), "dog".into()];
//!
//!     let tasks = TaskWrapper::new(&model)?;
//!     let x = Tensor::<2>::ones([3, 8], &device);
//!     assert_eq!(tasks.classify(x.clone()).wait()?, model.classify(x));
//!     Ok(())
//! }
//! ```
//!
//! # Guarantees
//! 1. **No silent copy.** After a load, every weight either lies in the arena or is on the list
//!    that [`Loaded::copied`] returns. `strict` turns a non-empty list into an error.
//! 2. **No write.** Arenas are sealed memfds: the kernel refuses every write, by any process.
//!    On Ray, each process protects its own mapping.
//! 3. **A crash loses no task.** Tasks of a killed worker run again on another one, with three
//!    attempts by default. The call that a killed actor was running is an error that names it, and
//!    the actor is restarted. Workers end with their owner, even after `kill -9`.
//! 4. **The same answer**, bit for bit, on the same backend, if the backend is deterministic.
//!
//! # Modules
//! The root has the items that most programs use. The rest is in modules: [`arena`] for saved
//! arenas and their tensors, [`holder`] for one copy in several programs, [`checkpoint`] for weights of other programs, [`memory`] for huge
//! pages and locked memory, [`report`] for memory use by process, [`engine`] for where calls run,
//! [`error`] for the error of each operation, and [`jit`] for traced graphs.
//!
//! # Features
//!
//! No feature is on by default, and none changes the behaviour of another. The device `cpu`, burn's
//! flex backend, is always available and borrows weights in place.
//!
//! ## `cuda`
//!
//! NVIDIA GPUs as the devices `cuda` and `cuda:N`, where the processes of a user share one copy of
//! the weights. Needs NVIDIA's driver at run time, and CUDA's `libdevice`. The build script of
//! burn's backend downloads LLVM. Adds no items.
//!
//! ## `wgpu`
//!
//! GPUs through Vulkan as the devices `wgpu` and `wgpu:N`, which weights are
//! uploaded to. Needs a Vulkan driver at run time. Adds no items.
//!
//! ## `libtorch`
//!
//! LibTorch as the devices `libtorch`, which borrows weights, and `libtorch:cuda:N`. Needs LibTorch
//! 2.9, which the variable `LIBTORCH` names, and a C++ compiler. Adds no items.
//!
//! ## `torchscript`
//!
//! Runs [modules that PyTorch has traced or scripted](jit::TorchScript) on shared weights. Enables
//! `libtorch`, and needs the same. Without it, such a module can be inspected but not run.
//!
//! ## `ray`
//!
//! The module `ray`: tasks and actors on clusters of [Ray](https://docs.ray.io), with weights in
//! its object store. Needs Python 3.11 or later with a shared libpython to build, and an
//! environment of that Python with Ray to run.
//!
//! # Platforms
//!
//! Linux 5.10 or later. On macOS the crate compiles without the feature `ray`, so that a program can be
//! checked and tested there as far as it runs in one process; sharing a pipeline and starting workers
//! return errors that name what is missing. On Windows, use WSL 2, which is a Linux.

#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(unix))]
compile_error!("ray-zerocopy runs on Linux, and compiles on Unix systems; on Windows, build inside of WSL 2");

// The macros' code names this crate `ray_zerocopy`, also in the crate's own tests.
extern crate self as ray_zerocopy;

pub mod arena;
pub mod checkpoint;
mod codec;
mod device;
pub mod engine;
pub mod error;
mod fuzz;
#[cfg(target_os = "linux")]
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "burn's CUDA backend needs the most of the driver"))]
mod gpu;
pub mod holder;
pub mod jit;
pub mod lora;
pub mod observe;
mod os;
mod panics;
mod pipeline;
#[cfg(feature = "ray")]
pub mod ray;
mod remote;
pub mod report;
mod startup;
mod tensor;

/// Memory policies: huge pages, prefaulting, locking and replicas of an arena's memory, and their outcome.
///
/// [`Arena::apply_policy`] and the `memory` methods of the wrappers take a
/// [`MemoryPolicy`](memory::MemoryPolicy).
pub mod memory {
    pub use crate::arena::memory::policy::{HugePages, MemoryPolicy, Replicas};
    pub use crate::arena::memory::status::{MemoryStatus, Obstacle, PolicyStatus};
}

pub use crate::arena::arena::Arena;
pub use crate::checkpoint::Checkpoint;
pub use crate::device::{DeviceSpec, device};
pub use crate::engine::call::batch::batching::Batching;
pub use crate::engine::cancellation::cancelled;
pub use crate::engine::local::LocalPool;
pub use crate::engine::threads::Threads;
pub use crate::error::call::CallError;
pub use crate::error::{Error, Result};
pub use crate::os::background::in_background;
pub use crate::os::fork::after_fork;
pub use crate::pipeline::Pipeline;
pub use crate::pipeline::load::{Loaded, load};
pub use crate::pipeline::rebuild::Root;
pub use crate::pipeline::share::share;
pub use crate::pipeline::share_from::share_from;
pub use crate::remote::Remote;
pub use crate::remote::actor::ActorWrapper;
pub use crate::remote::actors::{Actor, Actors};
pub use crate::remote::pending::{Gather, Pending, gather};
pub use crate::remote::streaming::{Streaming, StreamingAsync};
pub use crate::remote::swap::{Canary, Checked, Swapped};
pub use crate::remote::task::TaskWrapper;
pub use crate::remote::ticket::Ticket;
pub use ray_zerocopy_derive::{Pipeline, remote};

/// Turns this process into a worker if it was started as one. Call it first in `main`.
///
/// Workers are this executable, started again. They normally start from a constructor that runs
/// before `main`, so tests and benchmarks, whose `main` you do not write, need no call. This call
/// is the fallback on platforms without such constructors. It also tells readers of the program
/// that the process may be a worker.
pub fn init() {
    startup::fallback();
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Traits that the compiler names in errors about types that the macros cannot handle.
///
/// The code of the macros implements or calls all of them, and each error says what to write.
/// Programs need not name them.
pub mod diagnostics {
    pub use crate::pipeline::containers::{MapKey, PipelineContainer, PipelineList, PipelineMap};
    pub use crate::pipeline::copy_field::CopyField;
    pub use crate::pipeline::field_kind::{ModuleField, PipelineField};
    pub use crate::pipeline::rebuild::Rebuilt;
    pub use crate::remote::batch_method::BatchMethod;
    pub use crate::remote::caller::Caller;
    pub use crate::remote::method::RemoteMethod;
    pub use crate::remote::rows::{Rows, RowsResult};
    pub use crate::remote::stream_method::RemoteStream;
    pub use crate::remote::wire::Remotable;
}

/// Items that the macros' code calls. They are not public API and change without notice.
#[doc(hidden)]
pub mod __private {
    pub use burn::tensor::Device;

    pub use crate::diagnostics::*;
    pub use crate::error::load::LoadError;
    pub use crate::error::share::ShareError;
    pub use crate::os::fork::{ForkMutex, HeldAtFork};
    pub use crate::pipeline::Pipeline;
    pub use crate::pipeline::attach::Attacher;
    pub use crate::pipeline::collect::Collector;
    pub use crate::pipeline::copy_field::SerdeProbe;
    pub use crate::pipeline::field_kind::FieldKind;
    pub use crate::pipeline::rebuild::{Root, Source};
    pub use crate::pipeline::walk::{Container, Nothing, Over, Walk};
    /// The traits with `pick`, exported without names, so that a glob import of them hides no type.
    pub mod pick {
        pub use crate::pipeline::copy_field::{IsNotSerde as _, IsSerde as _};
        pub use crate::pipeline::field_kind::{
            AsModule as _, AsModuleAndSerde as _, AsPipeline as _, AsSerde as _, AsTensor as _, AsUnsupported as _,
        };
        pub use crate::remote::wire::{AsResult as _, AsTensors as _, AsUnsendable as _, AsValue as _};
    }
    /// For `rzc`: atomic replacement of files.
    pub mod os {
        pub use crate::os::replace::replace;
        pub use crate::os::temporary::remove as remove_temporaries;
    }
    /// For this workspace's fuzz targets and the tests of their corpora.
    pub mod fuzz {
        pub use crate::fuzz::{arena, checkpoint, graph, manifest, message, module, pytorch, variant, variant_seed};
    }
    /// For `ray-zerocopy-python`, calls on a pipeline of this process; for `ray-zerocopy-serve`, calls by name.
    pub mod dynamic {
        pub use crate::remote::by_name::{ByName, Called, NamedMethod};
        pub use crate::remote::schema::{MethodInfo, Parameter, Schema};
        pub use crate::remote::untyped::{Arguments, Failed, ResultTensor, Results, call, make};
        pub use crate::remote::wire::WireError;
        pub use crate::tensor::kind::TensorKind;
    }
    /// For `ray-zerocopy-python`: functions for modules that run in a Python process.
    #[cfg(feature = "ray")]
    pub mod guest {
        pub use crate::arena::parts::{
            Part, PlacedPart, address, arena_of_parts, parse_id, pieces_of_parts, placed_parts, value,
        };
        pub use crate::holder::shared::{of_id, offer};
        pub use crate::pipeline::gpu_parts::{GpuParts, NoGpuParts};
        pub use crate::ray::embedding::{libtorch, open};
        pub use crate::ray::store::plasma::{put, put_pieces};
        pub use crate::ray::sys::buffer::{hold, lend};
        pub use crate::ray::worker::serve::use_threads;
        pub use crate::report::processes::report_all;
    }
    /// For this workspace's benchmarks.
    #[cfg(feature = "ray")]
    pub use crate::ray::baseline::Bare;
    /// For this workspace's benchmarks.
    pub mod transport {
        pub use crate::engine::local::transport::{Connection, Received, Wait};
        pub use crate::engine::message::{Incoming, Outgoing};
    }
    pub use crate::remote::Remote;
    pub use crate::remote::method::{MethodEntry, MethodSource, MethodWire};
    pub use crate::remote::pending::Pending;
    pub use crate::remote::streaming::Streaming;
    pub use crate::remote::wire::{Reader, WireError, WireKind};
}
