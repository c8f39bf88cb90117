//! One copy of the weights per GPU: which process makes it, who finds it, and when its memory returns.

use burn::tensor::{Device, Tensor};
use ray_zerocopy::error::LoadError;
use ray_zerocopy::holder::Holder;
use ray_zerocopy::{ActorWrapper, Actors, Arena, Error, device, load, share};
use ray_zerocopy_tests::gpu_weights::{CORNERS, LAYER, MODEL, Weights, copies};
use ray_zerocopy_tests::memory::{eventually, is_alive};
use ray_zerocopy_tests::stand_in::{allocations, held, reruns};
use rustix::process::{Pid, Signal, kill_process};

pub(super) fn arena() -> Arena {
    share(&Weights::new(&Device::flex())).unwrap()
}

fn spawn(arena: &Arena, workers: usize) -> Actors<Weights> {
    ActorWrapper::<Weights>::from_arena(arena.clone()).device("cuda:0").unwrap().spawn(workers).unwrap()
}

pub(super) fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    eventually("the worker ends", || !is_alive(pid));
}

#[test]
fn workers_share_one_allocation() {
    if !reruns("sharing::workers_share_one_allocation", &[]) {
        return;
    }
    let arena = arena();
    let actors = spawn(&arena, 3);
    for actor in actors.iter() {
        assert_eq!(actor.corners().wait().unwrap(), CORNERS);
    }
    assert_eq!(copies(), [MODEL], "{:?}", allocations());
    let all: u64 = allocations().values().sum();
    assert!(all < MODEL + 3 * LAYER / 2, "{all} bytes for a model of {MODEL} and three workers");
    let report = actors.report().unwrap();
    let devices: Vec<_> = report.processes[1..].iter().map(|process| process.device.clone().unwrap()).collect();
    assert!(devices.iter().all(|device| device.bytes == MODEL && device.why_copied.is_none()), "{devices:?}");
    assert_eq!(devices.iter().filter(|device| device.is_uploaded).count(), 1, "{devices:?}");
    assert!(report.processes.iter().all(|process| process.copied == 0), "{report}");
    let text = report.to_string();
    assert!(
        text.contains("on the GPU: one copy of 64.0 MiB, used by worker 0, worker 1, worker 2; uploaded by worker "),
        "{text}"
    );

    // A pipeline of this process uses it, too, and two of them have one mapping.
    let device = device("cuda:0").unwrap();
    let [first, second] = [0, 1].map(|_| load::<Weights>(&arena, &device).unwrap().strict().unwrap());
    assert_eq!([first.corners(), second.corners()], [CORNERS, CORNERS]);
    assert!(!first.device_memory().unwrap().is_uploaded);
    assert_eq!(copies(), [MODEL]);
}

#[test]
fn copy_outlives_the_process_that_uploaded_it() {
    if !reruns("sharing::copy_outlives_the_process_that_uploaded_it", &[]) {
        return;
    }
    let arena = arena();
    let uploader = spawn(&arena, 1);
    assert_eq!(uploader.actor(0).corners().wait().unwrap(), CORNERS);
    let user = spawn(&arena, 1);
    assert_eq!(user.actor(0).corners().wait().unwrap(), CORNERS);
    kill(uploader.workers()[0].pid);
    drop(uploader);
    assert_eq!(user.actor(0).corners().wait().unwrap(), CORNERS);
    // The next one finds it with the process that has it left.
    let next = spawn(&arena, 1);
    assert_eq!(next.actor(0).corners().wait().unwrap(), CORNERS);
    let report = next.report().unwrap();
    assert!(!report.processes[1].device.as_ref().unwrap().is_uploaded, "{report}");
    assert_eq!(copies(), [MODEL]);
    drop((user, next));
    eventually("the memory returns with the last user", || allocations().is_empty());
}

#[test]
fn memory_returns_when_a_pipeline_is_dropped() {
    if !reruns("sharing::memory_returns_when_a_pipeline_is_dropped", &[]) {
        return;
    }
    let (arena, device) = (arena(), device("cuda:0").unwrap());
    for _ in 0..2 {
        let loaded = load::<Weights>(&arena, &device).unwrap();
        assert!(loaded.device_memory().unwrap().is_uploaded);
        // A tensor that is taken out of the pipeline keeps the copy.
        let weight = loaded.layers[3].weight.val();
        drop(loaded);
        // Longer than a process takes to notice that it does not use a copy.
        std::thread::sleep(std::time::Duration::from_millis(1200));
        assert_eq!(copies(), [MODEL]);
        assert_eq!(weight.into_data().iter::<f32>().next(), Some(4.0));
        eventually("the memory returns", || copies().is_empty());
    }
}

/// Environment variable with the number of workers that `attaches_and_kills_leave_nothing` starts and kills.
const ATTACHES: &str = "RAY_ZEROCOPY_ATTACHES";

#[test]
fn attaches_and_kills_leave_nothing() {
    if !reruns("sharing::attaches_and_kills_leave_nothing", &[]) {
        return;
    }
    let attaches = std::env::var(ATTACHES).map_or(40, |number| number.parse().unwrap());
    let arena = arena();
    let keeper = spawn(&arena, 1);
    assert_eq!(keeper.actor(0).corners().wait().unwrap(), CORNERS);
    let before = allocations();
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut open = 0;
    for round in 0..usize::div_ceil(attaches, 4) {
        let actors = spawn(&arena, 4);
        let calls: Vec<_> = actors.iter().map(|actor| actor.corners()).collect();
        for call in calls {
            assert_eq!(call.wait().unwrap(), CORNERS);
        }
        actors.workers().iter().for_each(|worker| kill(worker.pid));
        drop(actors);
        if round == 0 {
            open = files();
        }
    }
    eventually("the memory of killed workers returns", || allocations() == before);
    eventually("the descriptors are closed", || files() <= open);
    drop(keeper);
    eventually("all memory returns", || allocations().is_empty());
}

#[test]
fn uploader_killed_during_the_upload_is_replaced() {
    let slow = [("STAND_IN_COPY_MS", "40")];
    if !reruns("sharing::uploader_killed_during_the_upload_is_replaced", &slow) {
        return;
    }
    let arena = arena();
    let starting = std::thread::spawn({
        let arena = arena.clone();
        move || ActorWrapper::<Weights>::from_arena(arena).device("cuda:0").unwrap().spawn(1)
    });
    let uploader = || held().into_iter().find(|held| held.bytes >= MODEL).map(|held| held.pid);
    eventually("the upload begins", || uploader().is_some());
    let killed = uploader().unwrap();
    assert_ne!(killed, std::process::id());
    kill(killed);
    // Either the worker is replaced, or the start has failed.
    let first = starting.join().unwrap();
    let second = spawn(&arena, 1);
    assert_eq!(second.actor(0).corners().wait().unwrap(), CORNERS);
    if let Ok(first) = first {
        assert_eq!(first.actor(0).corners().wait().unwrap(), CORNERS);
    }
    assert_eq!(copies(), [MODEL]);
}

#[test]
fn holder_keeps_the_copy_without_a_gpu() {
    if !reruns("sharing::holder_keeps_the_copy_without_a_gpu", &[]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.bpk");
    arena().save(&path).unwrap();
    let holder = Holder::builder().build();
    let arena = holder.keep(&path, |_| {}).unwrap();
    for round in 0..2 {
        let actors = spawn(&arena, 1);
        assert_eq!(actors.actor(0).corners().wait().unwrap(), CORNERS);
        let is_uploaded = actors.report().unwrap().processes[1].device.as_ref().unwrap().is_uploaded;
        assert_eq!(is_uploaded, round == 0, "only the first worker uploads");
        kill(actors.workers()[0].pid);
        drop(actors);
        // Longer than the memory would take to return.
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert_eq!(copies(), [MODEL]);
    }
    assert!(holder.release(&path).unwrap());
    eventually("the memory returns", || copies().is_empty());
}

#[test]
fn full_gpu_is_an_error_with_sizes() {
    if !reruns("sharing::full_gpu_is_an_error_with_sizes", &[("STAND_IN_MIB", "48")]) {
        return;
    }
    let arena = arena();
    let expected = "the weights take 64 MiB, and `cuda:0` has 48 of 48 MiB free";
    let error = load::<Weights>(&arena, &device("cuda:0").unwrap()).unwrap_err();
    assert!(matches!(&error, LoadError::Upload { reason } if reason == expected), "{error}");
    let shared = ActorWrapper::<Weights>::from_arena(arena).device("cuda:0").unwrap();
    let error = shared.spawn(1).and_then(|actors| actors.actor(0).corners().wait()).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
    eventually("nothing is left", || copies().is_empty());
}

#[test]
fn gpu_without_room_for_a_context_is_an_error() {
    if !reruns("sharing::gpu_without_room_for_a_context_is_an_error", &[("STAND_IN_CONTEXT", "2")]) {
        return;
    }
    let expected = "no context can be created on `cuda:0`: the driver answers CUDA_ERROR_OUT_OF_MEMORY to cuDevicePrimaryCtxRetain";
    let error = load::<Weights>(&arena(), &device("cuda:0").unwrap()).unwrap_err();
    assert!(matches!(&error, LoadError::Upload { reason } if reason.starts_with(expected)), "{error}");
}

#[test]
fn gpu_without_shared_memory_gets_copies() {
    if !reruns("sharing::gpu_without_shared_memory_gets_copies", &[("STAND_IN_WITHOUT_VMM", "1")]) {
        return;
    }
    let arena = arena();
    let loaded = load::<Weights>(&arena, &device("cuda:0").unwrap()).unwrap();
    let why = "the GPU has no memory that processes can share";
    assert_eq!(loaded.device_memory().unwrap().why_copied.as_deref(), Some(why));
    assert_eq!(loaded.copied().len(), 4);
    assert_eq!(loaded.corners(), CORNERS);
    let actors = spawn(&arena, 2);
    for actor in actors.iter() {
        assert_eq!(actor.corners().wait().unwrap(), CORNERS);
    }
    let report = actors.report().unwrap().to_string();
    assert!(report.contains(&format!("on the GPU: a copy for each of worker 0, worker 1: {why}")), "{report}");
    let strict = ActorWrapper::<Weights>::from_arena(arena).device("cuda:0").unwrap().strict().load().unwrap_err();
    assert!(matches!(&strict, Error::Load(LoadError::Copied { count: 4, .. })), "{strict}");
}

#[test]
fn burn_that_has_the_driver_already_gets_copies() {
    if !reruns("sharing::burn_that_has_the_driver_already_gets_copies", &[]) {
        return;
    }
    let device = Device::cuda(0);
    Tensor::<1>::from_floats([1.0], &device).into_data();
    let loaded = load::<Weights>(&arena(), &device).unwrap();
    let why = loaded.device_memory().unwrap().why_copied.clone().unwrap();
    assert!(why.contains("open the device with `ray_zerocopy::device` before"), "{why}");
    assert_eq!(loaded.copied().len(), 4);
    assert_eq!(loaded.corners(), CORNERS);
}
