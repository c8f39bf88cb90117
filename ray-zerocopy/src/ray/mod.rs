//! Ray from Rust: clusters, objects, tasks and actors.
//!
//! Ray requires Python, so this process and the workers embed a Python interpreter. A worker is
//! this very executable, which Ray starts in place of Python, and runs functions of this program.
//! No Python code has to be written.
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
//! Pipelines do not use these types directly: [`TaskWrapper::on`](crate::TaskWrapper::on) and
//! [`ActorWrapper::on`](crate::ActorWrapper::on) take a [`Cluster`].
//!
//! # Requirements
//! libpython 3.11 or later, which the program is linked with, and an environment of the same
//! version with Ray: `RAY_ZEROCOPY_PYTHON`, `VIRTUAL_ENV`, or the one created by `cargo xtask
//! ray-env`, in this order.

pub(crate) mod api;
pub(crate) mod baseline;
pub(crate) mod embedding;
#[cfg(feature = "ray")]
pub(crate) mod engine;
pub(crate) mod job;
pub(crate) mod program;
pub(crate) mod python;
pub(crate) mod store;
pub(crate) mod sys;
pub(crate) mod wire;
pub(crate) mod worker;

pub use self::api::actor::{ActorBuilder, ActorHandle};
pub use self::api::builder::ClusterBuilder;
pub use self::api::cluster::{Cluster, Node};
pub use self::api::object::ObjectRef;
pub use self::api::options::Options;
pub use self::api::task::{Argument, Task};
pub use self::engine::ClusterTarget;
pub use crate::error::ray::RayError;
