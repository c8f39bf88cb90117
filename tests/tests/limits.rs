//! Resource limits of the machine and the user: an error names the limit, and calls work again
//! after it is raised.
//!
//! Limits belong to a process, so each test starts its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::os::unix::process::CommandExt;
use std::process::Command;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::error::CallPart;
use ray_zerocopy::jit::{self, Compile, TracedGraph};
use ray_zerocopy::{CallError, Error, LocalPool, Pipeline, TaskWrapper};
use ray_zerocopy_tests::memory::{eventually, is_alive};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, getuid, kill_process, prlimit, setrlimit};

const ROLE: &str = "RAY_ZEROCOPY_TEST_LIMITS";
/// More elements than fit into a packet.
const LARGE: usize = 1 << 20;

#[derive(Pipeline)]
#[pipeline(init = EchoModel::new)]
struct EchoModel;

#[ray_zerocopy::remote]
impl EchoModel {
    #[remote(skip)]
    pub fn new(_: &Device) -> Self {
        Self
    }

    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    pub fn take(&self, x: Tensor<1>) -> usize {
        x.dims()[0]
    }

    pub fn give(&self, len: usize) -> Tensor<1> {
        Tensor::ones([len], &Device::flex())
    }
}

fn large() -> Tensor<1> {
    Tensor::ones([LARGE], &Device::flex())
}

fn limit(resource: Resource, soft: u64) -> Rlimit {
    let before = getrlimit(resource);
    setrlimit(resource, Rlimit { current: Some(soft), maximum: before.maximum }).unwrap();
    before
}

/// Opens files up to the limit of descriptors.
fn fill() -> Vec<std::fs::File> {
    std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect()
}

fn wire(error: &Error) -> (CallPart, &str) {
    let Error::Call(CallError::Wire { part, reason, .. }) = error else { panic!("{error}") };
    (*part, reason)
}

fn engine() -> (LocalPool, TaskWrapper<EchoModel>) {
    let engine = LocalPool::builder().workers(1).threads_per_worker(1).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &EchoModel).unwrap();
    tasks.pid().wait().unwrap();
    (engine, tasks)
}

fn open_files_of_the_owner() {
    let (_engine, tasks) = engine();
    let pid = tasks.pid().wait().unwrap();
    let before = limit(Resource::Nofile, 64);
    let filled = fill();

    let error = tasks.take(large()).wait().unwrap_err();
    let (part, reason) = wire(&error);
    assert!(part == CallPart::Arguments && reason.contains("see `ulimit -n`"), "{error}");
    let error = tasks.give(LARGE).wait().unwrap_err();
    let (part, reason) = wire(&error);
    assert!(part == CallPart::Result && reason.contains("see `ulimit -n`"), "{error}");
    assert_eq!(tasks.pid().wait().unwrap(), pid, "the worker was replaced");

    let error = LocalPool::builder().workers(1).start().unwrap_err();
    assert!(matches!(&error, CallError::Start(error) if error.reason().contains("see `ulimit -n`")), "{error}");
    // The descriptors that the worker frees would be enough for the next one, so all of them are
    // taken.
    let filled_up = limit(Resource::Nofile, 3);
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    let error = tasks.pid().wait().unwrap_err();
    let Error::Call(CallError::Start(start)) = &error else { panic!("{error}") };
    assert!(start.reason().contains("see `ulimit -n`"), "{error}");

    setrlimit(Resource::Nofile, filled_up).unwrap();
    drop(filled);
    assert_eq!(tasks.take(large()).wait().unwrap(), LARGE);
    setrlimit(Resource::Nofile, before).unwrap();
    assert_eq!(tasks.take(large()).wait().unwrap(), LARGE);
    assert_eq!(tasks.give(LARGE).wait().unwrap().dims(), [LARGE]);
    LocalPool::builder().workers(1).start().unwrap();
}

fn open_files_of_a_worker() {
    let (_engine, tasks) = engine();
    let pid = tasks.pid().wait().unwrap();
    let worker = Pid::from_raw(pid as i32);
    let before =
        prlimit(worker, Resource::Nofile, Rlimit { current: Some(3), maximum: getrlimit(Resource::Nofile).maximum })
            .unwrap();
    let error = tasks.take(large()).wait().unwrap_err();
    let (part, reason) = wire(&error);
    assert!(part == CallPart::Arguments && reason.contains("see `ulimit -n`"), "{error}");
    let error = tasks.give(LARGE).wait().unwrap_err();
    let (part, reason) = wire(&error);
    assert!(part == CallPart::Result && reason.contains("see `ulimit -n`"), "{error}");
    // Loading an arena needs descriptors too.
    let other = TaskWrapper::on(&_engine, &EchoModel).unwrap();
    let error = other.pid().wait().unwrap_err();
    assert!(error.to_string().contains("see `ulimit -n`"), "{error}");
    prlimit(worker, Resource::Nofile, before).unwrap();
    assert_eq!(tasks.take(large()).wait().unwrap(), LARGE);
    assert_eq!(other.pid().wait().unwrap(), pid, "the worker was replaced");
}

fn memory_of_a_worker() {
    let (_engine, tasks) = engine();
    let pid = tasks.pid().wait().unwrap();
    let worker = Pid::from_raw(pid as i32);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.split_whitespace().next()).unwrap();
    let room = size.parse::<u64>().unwrap() * 1024 + (1 << 20);
    let before =
        prlimit(worker, Resource::As, Rlimit { current: Some(room), maximum: getrlimit(Resource::As).maximum })
            .unwrap();
    // 32 MiB of arguments, and address space for one of them.
    let message = Tensor::<1>::ones([8 << 20], &Device::flex());
    let error = tasks.take(message.clone()).wait().unwrap_err();
    let (part, reason) = wire(&error);
    assert!(part == CallPart::Arguments && reason.contains("see `ulimit -v`"), "{error}");
    prlimit(worker, Resource::As, before).unwrap();
    assert_eq!(tasks.take(message).wait().unwrap(), 8 << 20);
    assert_eq!(tasks.pid().wait().unwrap(), pid, "the worker was replaced");
}

fn processes() {
    let (_engine, tasks) = engine();
    let pid = tasks.pid().wait().unwrap();
    let before = limit(Resource::Nproc, 1);
    let error = LocalPool::builder().workers(1).start().unwrap_err();
    assert!(matches!(&error, CallError::Start(error) if error.reason().contains("see `ulimit -u`")), "{error}");
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    eventually("the worker is gone", || !is_alive(pid));
    let error = tasks.pid().wait().unwrap_err();
    let Error::Call(CallError::Start(start)) = &error else { panic!("{error}") };
    assert!(start.reason().contains("see `ulimit -u`"), "{error}");
    setrlimit(Resource::Nproc, before).unwrap();
    assert_ne!(tasks.pid().wait().unwrap(), pid);
}

/// Not a test of its own: what the tests below start.
#[test]
fn role_of_a_limited_process() {
    match std::env::var(ROLE).as_deref() {
        Ok("open files of the owner") => open_files_of_the_owner(),
        Ok("open files of a worker") => open_files_of_a_worker(),
        Ok("memory of a worker") => memory_of_a_worker(),
        Ok("processes") => processes(),
        Ok("memory to compile") => memory_to_compile(),
        _ => {}
    }
}

#[derive(Pipeline)]
#[pipeline(init = Layer::new)]
struct Layer {
    layer: Linear,
}

impl Layer {
    fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(4096, 4096).init(device) }
    }
}

fn memory_to_compile() {
    let device = Device::flex();
    let x = Tensor::<2>::ones([1, 4096], &device);
    let graph = jit::trace(&Layer::new(&device))
        .input("x", x.clone())
        .forward(|model, inputs| Ok(model.layer.forward(inputs.float::<2>("x")?)))
        .unwrap();
    let run = |graph: &TracedGraph| {
        graph
            .load("cpu")
            .unwrap()
            .run([("x", x.clone())])
            .unwrap()
            .float::<2>("output")
            .unwrap()
            .sum()
            .into_scalar::<f32>()
    };
    let expected = run(&graph);
    // The packed weight has 64 MiB.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let used = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let used = used.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
    let before = limit(Resource::As, used + (32 << 20));
    let error = graph.compile(Compile::f32()).unwrap_err().to_string();
    assert!(error.contains("graph.packed.layer.weight") && error.contains("no memory for 64.0 MiB"), "{error}");
    assert_eq!(run(&graph), expected, "the graph is as it was");
    setrlimit(Resource::As, before).unwrap();
    let compiled = run(&graph.compile(Compile::f32()).unwrap());
    assert!((compiled - expected).abs() <= 1e-3 * expected.abs().max(1.0), "{compiled} {expected}");
}

fn in_a_process_of_its_own(role: &str, user: Option<u32>) {
    let mut process = Command::new("/proc/self/exe");
    process.args(["--exact", "role_of_a_limited_process", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    if let Some(user) = user {
        process.uid(user).gid(user);
    }
    let output = process.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn owner_recovers_from_too_many_open_files() {
    in_a_process_of_its_own("open files of the owner", None);
}

#[test]
fn worker_survives_too_many_open_files() {
    in_a_process_of_its_own("open files of a worker", None);
}

#[test]
fn message_beyond_the_map_limit_is_an_error() {
    in_a_process_of_its_own("memory of a worker", None);
}

#[test]
fn compiling_without_memory_leaves_the_graph() {
    in_a_process_of_its_own("memory to compile", None);
}

#[test]
fn pool_recovers_from_the_process_limit() {
    // The limit does not apply to root, so the process runs as another user then.
    let nobody = 65534;
    in_a_process_of_its_own("processes", getuid().is_root().then_some(nobody));
}
