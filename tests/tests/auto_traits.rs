//! Assertions of `Send`, `Sync`, `Unpin` and `'static` for public types. A private field can remove
//! such a trait from its type without a compile error.

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
use ray_zerocopy_tests::models::TestModel;

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
    send_sync::<TaskWrapper<TestModel>>();
    send_sync::<ActorWrapper<TestModel>>();
    send_sync::<Actors<TestModel>>();
    send_sync::<Actor<TestModel>>();
    send_sync::<Ticket<TestModel>>();
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

/// Required for `?` to convert them into `anyhow::Error` and `Box<dyn Error + Send + Sync>`.
#[test]
fn errors_are_send_and_sync() {
    fn error<T: std::error::Error + Send + Sync + Clone + 'static>() {}
    error::<Error>();
    error::<CallError>();
    error::<StartError>();
}

#[test]
fn futures_are_send_and_unpin() {
    send::<Pending<TestModel>>();
    send::<Gather<TestModel>>();
    unpin::<Pending<TestModel>>();
    unpin::<Gather<TestModel>>();
}

/// Loaded models are used by one thread at a time, so they need not be `Sync`.
#[test]
fn loaded_models_are_send() {
    send::<Loaded<TestModel>>();
    send::<Executable>();
    shared::<Tracer<'_, TestModel>>();
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
