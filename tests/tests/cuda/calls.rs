//! Calls on a GPU: how arguments and results are copied, and recorded kernels.

use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use ray_zerocopy::jit::{JitActorWrapper, Recorded, TracedGraph, Values, trace};
use ray_zerocopy::{ActorWrapper, Batching, LocalPool, Pipeline, TaskWrapper, device, load, share};
use ray_zerocopy_tests::stand_in::reruns;

#[derive(Pipeline)]
#[pipeline(init = Echo::new)]
struct Echo {
    unused: Tensor<1>,
}

impl Echo {
    fn new(device: &Device) -> Self {
        Self { unused: Tensor::zeros([1], device) }
    }
}

#[ray_zerocopy::remote]
impl Echo {
    pub fn echo(&self, x: Tensor<1>) -> Tensor<1> {
        x
    }

    #[remote(batch)]
    pub fn echo_rows(&self, x: Tensor<2>) -> Tensor<2> {
        x
    }

    /// Keeps a worker busy, so that calls wait and are put together.
    pub fn sleep(&self, ms: u64) {
        std::thread::sleep(std::time::Duration::from_millis(ms));
    }
}

/// A file for the driver's log, with the name of this process's test.
fn log_path() -> std::path::PathBuf {
    std::path::PathBuf::from(std::env::var_os("STAND_IN_LOG").unwrap())
}

/// Lines of the driver's log: what it did, and a number.
fn log() -> Vec<(String, usize)> {
    let text = std::fs::read_to_string(log_path()).unwrap_or_default();
    let line =
        |line: &str| line.split_once(' ').map(|(what, number)| (what.to_owned(), number.parse().unwrap())).unwrap();
    text.lines().map(line).collect()
}

/// Runs a test with the driver and a log.
fn reruns_with_log(test: &str, variables: &[(&str, &str)]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    reruns(test, &[variables, &[("STAND_IN_LOG", path.to_str().unwrap())]].concat())
}

#[test]
fn arguments_and_results_pass_through_page_locked_memory() {
    if !reruns_with_log("calls::arguments_and_results_pass_through_page_locked_memory", &[]) {
        return;
    }
    let actors = ActorWrapper::new(&Echo::new(&Device::flex())).unwrap().device("cuda:0").unwrap().spawn(1).unwrap();
    const BYTES: usize = 4 << 20;
    for round in 0..3 {
        let _ = std::fs::remove_file(log_path());
        let x = Tensor::<1>::full([BYTES / 4], round as f32, &Device::flex());
        let echoed = actors.actor(0).echo(x.clone()).wait().unwrap();
        assert_eq!(echoed.into_data(), x.into_data());
        let log = log();
        let sum = |wanted: &str| log.iter().filter(|(what, _)| what == wanted).map(|(_, bytes)| bytes).sum::<usize>();
        assert_eq!((sum("to-device-locked"), sum("to-host-locked")), (BYTES, BYTES), "{log:?}");
        assert_eq!((sum("to-device-pageable"), sum("to-host-pageable")), (0, 0), "{log:?}");
    }
}

#[test]
fn rows_of_a_batch_are_copied_at_once() {
    if !reruns_with_log("calls::rows_of_a_batch_are_copied_at_once", &[]) {
        return;
    }
    let pool = LocalPool::builder().workers(1).start().unwrap();
    let tasks = TaskWrapper::on(&pool, &Echo::new(&Device::flex())).unwrap();
    let tasks = tasks.device("cuda:0").unwrap().batch(Batching::default());
    tasks.sleep(0).wait().unwrap();
    let _ = std::fs::remove_file(log_path());
    let busy = tasks.sleep(300);
    let rows = |number: usize| Tensor::<2>::full([number % 3 + 1, 1024], number as f32, &Device::flex());
    let pending: Vec<_> = (0..8).map(|number| tasks.echo_rows(rows(number))).collect();
    busy.wait().unwrap();
    for (number, echoed) in pending.into_iter().enumerate() {
        assert_eq!(echoed.wait().unwrap().into_data(), rows(number).into_data());
    }
    let log = log();
    let all: usize = (0..8).map(|number| (number % 3 + 1) * 4096).sum();
    for wanted in ["to-device-locked", "to-host-locked"] {
        let copies: Vec<_> =
            log.iter().filter(|(what, bytes)| what == wanted && *bytes >= 4096).map(|(_, bytes)| *bytes).collect();
        assert_eq!(copies, [all], "{log:?}");
    }
}

#[derive(Pipeline)]
#[pipeline(init = Layers::new)]
struct Layers {
    layers: Vec<Linear>,
}

impl Layers {
    fn new(device: &Device) -> Self {
        Self { layers: (0..3).map(|_| LinearConfig::new(16, 16).init(device)).collect() }
    }

    fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        self.layers.iter().fold(rows, |rows, layer| relu(layer.forward(rows)))
    }
}

fn graph() -> TracedGraph {
    let model = Layers::new(&Device::flex());
    let rows = Tensor::<2>::ones([2, 16], &Device::flex());
    trace(&model).input("rows", rows).forward(|model, inputs| Ok(model.forward(inputs.float("rows")?))).unwrap()
}

fn rows(number: usize) -> Values {
    Values::new().with("rows", Tensor::<2>::full([2, 16], number as f32, &Device::flex()))
}

/// The kernels of the CUDA graphs that were started, for each start.
fn started() -> Vec<usize> {
    log().into_iter().filter(|(what, _)| what == "graph").map(|(_, kernels)| kernels).collect()
}

#[test]
fn traced_graph_is_started_as_a_cuda_graph() {
    // Results of kernels that do not run are the same in both ways if the driver reads zeros.
    let zeros = [("STAND_IN_READS", "zero")];
    if !reruns_with_log("calls::traced_graph_is_started_as_a_cuda_graph", &zeros) {
        return;
    }
    let mut executable = graph().load("cuda:0").unwrap();
    let recorded: Vec<Recorded> = (0..6)
        .map(|number| {
            executable.run(rows(number)).unwrap().data("output").unwrap();
            executable.recorded()
        })
        .collect();
    assert_eq!(recorded.iter().map(|recorded| recorded.shapes).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1], "{recorded:?}");
    // Two runs compare it, and two use it. Each layer has a product at least.
    let started_here = started();
    assert_eq!(started_here.len(), 4);
    assert!(started_here.iter().all(|kernels| *kernels >= 3 && *kernels == started_here[0]), "{started_here:?}");

    // Workers do the same.
    let actors = JitActorWrapper::new(&graph()).device("cuda:0").unwrap().spawn(1).unwrap();
    for number in 0..6 {
        actors.actor(0).run(rows(number)).wait().unwrap();
    }
    assert_eq!(started().len(), 8);
}

#[test]
fn recording_with_other_results_is_not_used() {
    let count = [("STAND_IN_READS", "count")];
    if !reruns_with_log("calls::recording_with_other_results_is_not_used", &count) {
        return;
    }
    let mut executable = graph().load("cuda:0").unwrap();
    (0..6).for_each(|number| drop(executable.run(rows(number)).unwrap().data("output").unwrap()));
    let Recorded { shapes, refused, .. } = executable.recorded();
    assert_eq!(shapes, 0);
    let reason = "output `output` of the recorded kernels differs from that of an ordinary run";
    assert_eq!(refused.as_deref(), Some(reason));
    assert_eq!(started().len(), 1, "the run that compares it");
}

#[test]
fn recordings_and_loads_do_not_disturb_each_other() {
    // While a thread records, CUDA refuses memory to all threads of the process.
    let slow = [("STAND_IN_READS", "zero"), ("STAND_IN_KERNEL_MS", "2")];
    if !reruns_with_log("calls::recordings_and_loads_do_not_disturb_each_other", &slow) {
        return;
    }
    let device = device("cuda:0").unwrap();
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| {
            let mut loads = 0;
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                // Other weights each time, which are uploaded.
                let arena = share(&Layers::new(&Device::flex())).unwrap();
                let loaded = load::<Layers>(&arena, &device).unwrap();
                assert_eq!(loaded.device_memory().unwrap().why_copied, None);
                loads += 1;
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            loads
        });
        // A run during a load is not recorded, and another one is.
        let record = || {
            let mut executable = graph().load("cuda:0").unwrap();
            (0..2000).any(|number| {
                executable.run(rows(number)).unwrap().data("output").unwrap();
                assert_eq!(executable.recorded().refused, None);
                executable.recorded().shapes == 1
            })
        };
        let recorded = std::panic::catch_unwind(|| (0..5).all(|_| record()));
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(loading.join().unwrap() > 0);
        assert!(recorded.unwrap());
    });
}

#[test]
fn recording_can_be_switched_off() {
    let off = [("RAY_ZEROCOPY_RECORDING", "off"), ("STAND_IN_READS", "zero")];
    if reruns_with_log("calls::recording_can_be_switched_off", &off) {
        let mut executable = graph().load("cuda:0").unwrap();
        (0..6).for_each(|number| drop(executable.run(rows(number)).unwrap()));
        assert_eq!((executable.recorded(), started()), (Recorded::default(), vec![]));
    }
}
