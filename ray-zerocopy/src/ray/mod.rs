//! Ray, from Rust: clusters, objects, tasks and actors.
//!
//! Ray is Python's, so Python runs in this process, and in the workers. A worker is this very executable, which Ray starts
//! where it would start Python; the functions that it runs are this program's own. There is no Python to write.
//!
//! | Ray | here |
//! | --- | --- |
//! | `ray.init` | [`Cluster::connect`], [`Cluster::local`] |
//! | `ray.put`, `ray.get`, `ray.wait` | [`Cluster::put`], [`ObjectRef::get`], [`Cluster::wait`] |
//! | `@ray.remote` on a function | [`Cluster::task`] |
//! | `@ray.remote` on a class | [`Cluster::actor`] |
//! | `.options(..)` | [`Options`] |
//! | `ray.cancel`, `ray.kill` | [`ObjectRef::cancel`], [`ActorHandle::kill`] |
//!
//! A pipeline needs none of these by hand: [`TaskWrapper::on`](crate::TaskWrapper::on) and
//! [`ActorWrapper::on`](crate::ActorWrapper::on) take a [`Cluster`].
//!
//! # What it needs
//! libpython 3.11 or later, which the program is linked with, and an environment of the same version that has Ray:
//! `RAY_ZEROCOPY_PYTHON`, `VIRTUAL_ENV`, or the one that `cargo xtask ray-env` makes, in this order.

mod actor;
pub(crate) mod bare;
mod cluster;
mod connect;
mod error;
mod fingerprint;
pub(crate) mod frame;
pub(crate) mod guest;
mod job;
pub(crate) mod module;
pub(crate) mod object;
mod options;
pub(crate) mod plasma;
mod program;
pub(crate) mod protocol;
mod python;
mod serve;
mod shim;
mod sys;
mod task;

pub use crate::engine::ray::Site;
pub(crate) use actor::start as start_actor;
pub use actor::{ActorBuilder, ActorHandle};
pub use cluster::{Cluster, Node};
pub use connect::ClusterBuilder;
pub use error::RayError;
pub use object::ObjectRef;
pub use options::Options;
pub(crate) use python::without_python;
pub(crate) use sys::main::{become_a_worker, is_asked_for};
pub use task::{Argument, Task};
