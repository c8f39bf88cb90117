//! Failures with a Ray cluster on one machine. Each test starts its own cluster and checks that no
//! process of it is left.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Distribution, Tensor};
use ray_zerocopy::ray::{Cluster, ClusterTarget, Options, RayError};
use ray_zerocopy::{ActorWrapper, CallError, Error, Pipeline, TaskWrapper};
use ray_zerocopy_tests::memory::eventually;
use ray_zerocopy_tests::models::{TestModel, TestModelConfig};
use ray_zerocopy_tests::process_tree::{ProcessTree, ROLE, again};

/// Rows and columns of a model of 16 MiB.
const SIZE: usize = 2048;

/// A write to read-only memory.
mod stray {
    #![allow(unsafe_code)]

    /// Writes to an address.
    pub(super) fn write(address: usize) {
        // SAFETY: not safe. It writes to memory that other processes borrow. The kernel must refuse
        // that with a signal, and if it does not, the test fails.
        unsafe { std::ptr::write_volatile(address as *mut u8, 0xff) };
    }
}

/// An address in the middle of the largest read-only mapping of Ray's store.
fn protected() -> Option<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let areas = maps.lines().filter(|line| line.contains(" r--s ") && line.contains("plasma"));
    let hex = |text| usize::from_str_radix(text, 16).unwrap();
    let ranges = areas.map(|line| line.split_whitespace().next().unwrap().split_once('-').unwrap());
    let (start, end) = ranges.map(|(start, end)| (hex(start), hex(end))).max_by_key(|(start, end)| end - start)?;
    Some(start.midpoint(end))
}

#[derive(Pipeline)]
#[pipeline(init = FaultModel::new)]
struct FaultModel {
    layer: Linear,
}

#[ray_zerocopy::remote]
impl FaultModel {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(SIZE, SIZE).init(device) }
    }

    pub fn total(&self) -> f32 {
        self.layer.weight.val().sum().into_scalar()
    }

    /// Writes to the arena. Returns the address if the process survives.
    pub fn attack(&self) -> Option<usize> {
        let address = protected()?;
        stray::write(address);
        Some(address)
    }
}

fn local() -> Cluster {
    Cluster::local().cpus(2).object_store(200 << 20).quiet().start().unwrap()
}

fn small(cluster: &Cluster) -> ClusterTarget {
    cluster.with(Options::default().cpus(0.1))
}

fn model() -> TestModel {
    TestModelConfig::new(SIZE).init(&Device::flex())
}

/// Signals the parent, and waits until it closes the pipe.
fn ready() {
    println!("READY");
    drop(std::io::stdin().read(&mut [0]));
}

/// A driver with running calls.
fn busy() {
    let cluster = local();
    let tasks = TaskWrapper::on(&small(&cluster), &model()).unwrap();
    let actors = ActorWrapper::on(&small(&cluster), &model()).unwrap().spawn(2).unwrap();
    tasks.pid().wait().unwrap();
    let _sleeps = (tasks.sleep(600_000), actors.sleep(600_000));
    ready();
}

fn code_of_its_own() {
    let cluster = local();
    let actors = ActorWrapper::on(&small(&cluster), &model()).unwrap().spawn(1).unwrap();
    actors.pid().wait().unwrap();
    std::process::exit(7);
}

fn forgetful() {
    let cluster = local();
    let actors = ActorWrapper::on(&small(&cluster), &model()).unwrap().spawn(1).unwrap();
    actors.pid().wait().unwrap();
    std::mem::forget((cluster, actors));
}

fn pressure() {
    let cluster = local();
    let input = Tensor::<2>::random([4, SIZE], Distribution::Default, &Device::flex());
    let model = model();
    let here = model.forward(input.clone()).into_data();
    let before = cluster.store().unwrap().0;
    let wrapper = ActorWrapper::on(&small(&cluster), &model).unwrap();
    let tasks = TaskWrapper::on(&small(&cluster), &model).unwrap();
    let arena = wrapper.arena().clone();
    let actors = wrapper.spawn(2).unwrap();
    assert_eq!(tasks.forward(input.clone()).wait().unwrap().into_data(), here);

    // Twice the capacity of the store. Ray spills unread objects to disk.
    let heap: Vec<_> = (0..10_u8).map(|n| cluster.put(&vec![n; 40 << 20]).unwrap()).collect();
    arena.verify().unwrap();
    tasks.arena().verify().unwrap();
    for _ in 0..4 {
        assert_eq!(actors.forward(input.clone()).wait().unwrap().into_data(), here);
        assert_eq!(tasks.forward(input.clone()).wait().unwrap().into_data(), here);
    }
    // New actors can restore it.
    assert_eq!(wrapper.spawn(1).unwrap().forward(input.clone()).wait().unwrap().into_data(), here);
    assert!(heap[3].get().unwrap() == vec![3; 40 << 20]);

    drop(heap);
    let held = cluster.store().unwrap().0;
    assert!(held < before, "{held} of {before} bytes are free, and weights are in the store");
    drop((actors, tasks, wrapper, arena));
    eventually("the store has its room back", || cluster.store().unwrap().0 >= before);
}

/// Borrows more weights than the store has room for. With spilling, all of them give the right
/// answers.
fn spilling() {
    let builder = || Cluster::local().cpus(2).object_store(80 << 20).quiet();
    let input = Tensor::<2>::random([4, SIZE], Distribution::Default, &Device::flex());
    let models: Vec<_> = (0..7).map(|_| model()).collect();
    {
        let cluster = builder().start().unwrap();
        let shared: ray_zerocopy::Result<Vec<_>> =
            models.iter().map(|model| TaskWrapper::on(&small(&cluster), model)).collect();
        let error = shared.map(drop).unwrap_err();
        assert!(matches!(&error, Error::Ray(RayError::StoreFull { .. })), "{error}");
    }
    let cluster = builder().spill().start().unwrap();
    let shared: Vec<_> = models.iter().map(|model| TaskWrapper::on(&small(&cluster), model).unwrap()).collect();
    for (model, shared) in models.iter().zip(&shared) {
        let there = shared.forward(input.clone()).wait().unwrap().into_data();
        assert_eq!(there, model.forward(input.clone()).into_data());
    }
}

fn attack_by_an_actor() {
    let cluster = local();
    let wrapper = ActorWrapper::on(&small(&cluster), &FaultModel::new(&Device::flex())).unwrap();
    let actors = wrapper.spawn(2).unwrap();
    let before = actors.actor(1).total().wait().unwrap();
    let error = actors.actor(0).attack().wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::WorkerDied { worker, .. }) if worker.index == 0), "{error}");
    wrapper.arena().verify().unwrap();
    assert_eq!(actors.actor(1).total().wait().unwrap().to_bits(), before.to_bits());
    assert_eq!(actors.actor(0).total().wait().unwrap().to_bits(), before.to_bits(), "the actor is back");
}

fn attack_by_the_driver() {
    let cluster = local();
    let _wrapper = ActorWrapper::on(&small(&cluster), &FaultModel::new(&Device::flex())).unwrap();
    let address = protected().expect("the arena is in the store, and protected");
    println!("READY");
    stray::write(address);
    println!("it was written");
}

fn afterlife() {
    let cluster = local();
    let model = model();
    let wrapper = ActorWrapper::on(&small(&cluster), &model).unwrap();
    let arena = wrapper.arena().clone();
    let loaded = wrapper.load().unwrap();
    let input = Tensor::<2>::random([4, SIZE], Distribution::Default, &Device::flex());
    let before = model.forward(input.clone()).into_data();
    println!("{:?}", cluster.shut_down());
    arena.verify().unwrap();
    assert_eq!(loaded.forward(input).into_data(), before);
}

fn never_called(number: u64) -> u64 {
    number.rotate_left(7) ^ 0x5eed
}

/// Replaces the file of this program by a copy with one byte of unreachable code changed.
fn rebuild() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let address = never_called as fn(u64) -> u64 as usize;
    let hex = |text| usize::from_str_radix(text, 16).unwrap();
    let offset = maps.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (start, end) = words[0].split_once('-').unwrap();
        (hex(start)..hex(end)).contains(&address).then(|| address - hex(start) + hex(words[2]))
    });
    let own = std::env::current_exe().unwrap();
    let other = own.with_extension("new");
    std::fs::copy(&own, &other).unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&other).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset.unwrap() as u64).unwrap();
    file.write_all_at(&[!byte[0]], offset.unwrap() as u64).unwrap();
    drop(file);
    std::fs::rename(other, own).unwrap();
}

fn double(number: u64) -> u64 {
    2 * number
}

fn other_build() {
    let cluster = local();
    rebuild();
    let says_so = |error: &dyn std::error::Error| {
        let text = error.to_string();
        assert!(text.contains("another build of this program") && !text.contains('\n'), "{text}");
    };
    let error = cluster.task(double as fn(u64) -> u64).remote(2).unwrap().get().unwrap_err();
    assert!(matches!(error, RayError::OtherBinary { .. }), "{error:?}");
    says_so(&error);
    let error = TaskWrapper::on(&small(&cluster), &model()).unwrap().pid().wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Ray { error: RayError::OtherBinary { .. }, .. })), "{error:?}");
    says_so(&error);
    let error = ActorWrapper::on(&small(&cluster), &model()).unwrap().spawn(1).unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Ray { error: RayError::OtherBinary { .. }, .. })), "{error:?}");
    says_so(&error);
}

fn no_ray() {
    let error = Cluster::local().start().unwrap_err();
    println!("ERROR {error}");
    assert_eq!(error.to_string().lines().count(), 1);
    match std::env::var("RAY_ZEROCOPY_TEST_EXPECTS").unwrap().as_str() {
        "NoRay" => assert!(matches!(error, RayError::NoRay { .. }), "{error:?}"),
        _ => assert!(matches!(error, RayError::OtherPython { .. }), "{error:?}"),
    }
}

/// Not a test of its own: the processes that the tests below start.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.as_str() {
        "busy" => busy(),
        "code of its own" => code_of_its_own(),
        "forgetful" => forgetful(),
        "pressure" => pressure(),
        "spilling" => spilling(),
        "attack by an actor" => attack_by_an_actor(),
        "attack by the driver" => attack_by_the_driver(),
        "afterlife" => afterlife(),
        "other build" => other_build(),
        "no ray" => no_ray(),
        other => panic!("{other}"),
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a role to its end.
fn play(role: &str) {
    let tree = ProcessTree::exclusive();
    // Ray spills to a disk that is up to 95 % full. These tests need less than a GiB of any disk.
    let threshold = ("RAY_local_fs_capacity_threshold", "0.999");
    let output = again(role).env("RAY_ZEROCOPY_KEEP_SECONDS", "1").env(threshold.0, threshold.1).output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, text(&output));
    tree.wait_until_gone();
}

#[test]
fn weights_beyond_the_store_are_spilled() {
    play("spilling");
}

#[test]
fn killed_driver_ends_its_cluster() {
    let tree = ProcessTree::exclusive();
    let mut driver = again("busy").spawn().unwrap();
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("READY")));
    let members = tree.members();
    for name in ["raylet", "gcs_server", "ray::"] {
        assert!(members.iter().any(|(_, command)| command.contains(name)), "{name}: {members:?}");
    }
    driver.kill().unwrap();
    assert_eq!(driver.wait().unwrap().signal(), Some(9));
    tree.wait_until_gone();
}

#[test]
fn driver_exit_leaves_nothing_and_has_its_code() {
    let tree = ProcessTree::exclusive();
    let output = again("code of its own").output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    tree.wait_until_gone();
    drop(tree);
    play("forgetful");
}

#[test]
fn weights_are_freed_after_the_last_borrow() {
    play("pressure");
}

#[test]
fn write_to_weights_kills_only_the_writer() {
    play("attack by an actor");
    let tree = ProcessTree::exclusive();
    let output = again("attack by the driver").output().unwrap();
    // The signal has its default effect, because Ray's handler is not installed.
    assert_eq!(output.status.signal(), Some(11), "{}: {}", output.status, text(&output));
    let text = text(&output);
    assert!(text.contains("READY") && !text.contains("it was written"), "{text}");
    tree.wait_until_gone();
}

#[test]
fn an_arena_outlives_its_cluster() {
    play("afterlife");
}

#[test]
fn a_worker_of_another_build_is_refused() {
    let tree = ProcessTree::exclusive();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("program");
    std::fs::copy("/proc/self/exe", &copy).unwrap();
    let mut process = std::process::Command::new(&copy);
    let output = process.args(["--exact", "role", "--nocapture"]).env(ROLE, "other build").output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    tree.wait_until_gone();
    assert_eq!(never_called(0), 0x5eed);
}

/// Starts a driver with an invalid Python environment.
fn without_ray(environment: &Path, expects: &str) -> String {
    let tree = ProcessTree::exclusive();
    let mut process = again("no ray");
    process.env("RAY_ZEROCOPY_PYTHON", environment).env("RAY_ZEROCOPY_TEST_EXPECTS", expects);
    let output = process.env_remove("VIRTUAL_ENV").output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    tree.wait_until_gone();
    let text = text(&output);
    text.lines().find_map(|line| line.split_once("ERROR ")).unwrap().1.to_owned()
}

#[test]
fn environment_without_ray_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let environment = folder.path().join("venv");
    let made = std::process::Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&environment).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", text(&made));
    let error = without_ray(&environment, "NoRay");
    for part in
        ["`pip install ray`", "`cargo xtask ray-env` creates one", "RAY_ZEROCOPY_PYTHON", "No module named 'ray'"]
    {
        assert!(error.contains(part), "{error}");
    }
    assert!(error.contains(&*environment.to_string_lossy()), "{error}");
}

#[test]
fn environment_of_another_python_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("lib/python3.9/site-packages")).unwrap();
    std::fs::create_dir_all(folder.path().join("bin")).unwrap();
    std::fs::write(folder.path().join("bin/python"), "").unwrap();
    let error = without_ray(folder.path(), "OtherPython");
    for part in ["an environment of Python 3.9", "PYO3_PYTHON=", "RAY_ZEROCOPY_PYTHON"] {
        assert!(error.contains(part), "{error}");
    }
}
