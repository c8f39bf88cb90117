//! `Send`, `Sync`, `Unpin` and `'static` of public types: a field that lacks one would take it from its type unnoticed.

use ray_zerocopy::arena::{ArenaFile, ArenaId, CopiedTensor, Placement, Progress, SharedTensor, TensorKind};
use ray_zerocopy::checkpoint::{CheckpointOptions, CheckpointTensor};
use ray_zerocopy::engine::{LocalPoolBuilder, Worker};
use ray_zerocopy::error::StartError;
use ray_zerocopy::jit::{
    Executable, GraphInfo, JitActor, JitActorWrapper, JitActors, JitTaskWrapper, JitTicket, Model, TorchScript,
    TracedGraph, Tracer, Value, Values,
};
use ray_zerocopy::memory::{MemoryPolicy, MemoryStatus};
use ray_zerocopy::report::{Report, Scan};
use ray_zerocopy::{
    Actor, ActorWrapper, Actors, Arena, CallError, Checkpoint, DeviceSpec, Error, Gather, Loaded, LocalPool, Pending,
    TaskWrapper, Ticket,
};
use ray_zerocopy_tests::models::Mill;

fn send<T: Send + 'static>() {}
fn send_sync<T: Send + Sync + 'static>() {}
fn shared<T: Send + Sync>() {}
fn unpin<T: Unpin>() {}

#[test]
fn handles_are_send_and_sync() {
    send_sync::<Arena>();
    send_sync::<ArenaFile>();
    send_sync::<Checkpoint>();
    send_sync::<LocalPool>();
    send_sync::<TaskWrapper<Mill>>();
    send_sync::<ActorWrapper<Mill>>();
    send_sync::<Actors<Mill>>();
    send_sync::<Actor<Mill>>();
    send_sync::<Ticket<Mill>>();
    send_sync::<JitTaskWrapper>();
    send_sync::<JitActorWrapper>();
    send_sync::<JitActors>();
    send_sync::<JitActor>();
    send_sync::<JitTicket>();
    send_sync::<Model>();
    send_sync::<TracedGraph>();
    send_sync::<TorchScript>();
    send_sync::<GraphInfo>();
}

#[test]
fn data_and_builders_are_send_and_sync() {
    send_sync::<ArenaId>();
    send_sync::<CopiedTensor>();
    send_sync::<Placement>();
    send_sync::<Progress>();
    shared::<SharedTensor<'_>>();
    send_sync::<TensorKind>();
    send_sync::<CheckpointOptions>();
    shared::<CheckpointTensor<'_>>();
    send_sync::<LocalPoolBuilder>();
    send_sync::<Worker>();
    send_sync::<MemoryPolicy>();
    send_sync::<MemoryStatus>();
    send_sync::<Report>();
    send_sync::<Scan>();
    send_sync::<DeviceSpec>();
    send_sync::<Value>();
    send_sync::<Values>();
}

/// So that `?` converts them into `anyhow::Error` and `Box<dyn Error + Send + Sync>`.
#[test]
fn errors_are_send_and_sync() {
    fn error<T: std::error::Error + Send + Sync + Clone + 'static>() {}
    error::<Error>();
    error::<CallError>();
    error::<StartError>();
}

#[test]
fn futures_are_send_and_unpin() {
    send::<Pending<Mill>>();
    send::<Gather<Mill>>();
    unpin::<Pending<Mill>>();
    unpin::<Gather<Mill>>();
}

/// What is loaded computes, and is used by one thread at a time.
#[test]
fn loaded_models_are_send() {
    send::<Loaded<Mill>>();
    send::<Executable>();
    shared::<Tracer<'_, Mill>>();
}

#[cfg(feature = "ray")]
#[test]
fn handles_of_ray_are_send_and_sync() {
    use ray_zerocopy::ray::{
        ActorBuilder, ActorHandle, Argument, Cluster, ClusterBuilder, ClusterTarget, ObjectRef, Task,
    };

    send_sync::<Cluster>();
    send_sync::<ClusterBuilder>();
    send_sync::<ClusterTarget>();
    send_sync::<ObjectRef<u8>>();
    send_sync::<Argument<u8>>();
    send_sync::<Task<u8, u8>>();
    send_sync::<ActorBuilder<u8, u8>>();
    send_sync::<ActorHandle<u8>>();
}
