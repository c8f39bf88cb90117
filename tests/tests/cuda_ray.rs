//! GPUs on a Ray cluster, with a driver of the tests' own: which GPU an actor sees, and one copy of the weights per GPU.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::BTreeSet;

use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::ray::{Cluster, Options};
use ray_zerocopy::{ActorWrapper, Pipeline, TaskWrapper, gather};
use ray_zerocopy_tests::memory::eventually;
use ray_zerocopy_tests::stand_in::{allocations, reruns};

const SIZE: usize = 1024;
/// Bytes of the weights: more than burn's own pages for small tensors.
const MODEL: u64 = 4 * (SIZE * SIZE * 4) as u64;

#[derive(Pipeline)]
#[pipeline(init = Weights::new)]
struct Weights {
    layers: Vec<Linear>,
}

impl Weights {
    fn new(device: &Device) -> Self {
        let layer = |index: usize| {
            let initializer = Initializer::Constant { value: (index + 1) as f64 };
            LinearConfig::new(SIZE, SIZE).with_bias(false).with_initializer(initializer).init(device)
        };
        Self { layers: (0..4).map(layer).collect() }
    }
}

#[ray_zerocopy::remote]
impl Weights {
    /// The first number of each layer, and what the process sees of the GPUs.
    pub fn look(&self) -> (Vec<f32>, Option<String>) {
        let first = |layer: &Linear| layer.weight.val().into_data().iter::<f32>().next().unwrap();
        (self.layers.iter().map(first).collect(), std::env::var("CUDA_VISIBLE_DEVICES").ok())
    }

    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.layers[0].forward(x)
    }

    pub fn pid(&self) -> u32 {
        std::process::id()
    }
}

fn cluster() -> Cluster {
    Cluster::local().cpus(4).gpus(2).object_store(200 << 20).quiet().start().unwrap()
}

#[test]
fn actors_share_a_copy_on_each_gpu() {
    if !reruns("actors_share_a_copy_on_each_gpu", &[("STAND_IN_DEVICES", "2")]) {
        return;
    }
    let cluster = cluster();
    let model = Weights::new(&Device::flex());
    let halves = cluster.with(Options::default().cpus(0.1).gpus(0.5));
    let actors = ActorWrapper::on(&halves, &model).unwrap().device("cuda:0").unwrap().strict().spawn(4).unwrap();
    let mut visible = BTreeSet::new();
    for looked in gather(actors.iter().map(|actor| actor.look())).wait().unwrap() {
        assert_eq!(looked.0, [1.0, 2.0, 3.0, 4.0]);
        visible.insert(looked.1.unwrap());
    }
    assert_eq!(visible.into_iter().collect::<Vec<_>>(), ["0", "1"], "two actors on each GPU, which calls it `cuda:0`");
    let copies = || allocations().into_values().filter(|bytes| *bytes >= MODEL).collect::<Vec<_>>();
    assert_eq!(copies(), [MODEL, MODEL], "{:?}", allocations());
    let report = actors.report().unwrap().to_string();
    for gpu in ["GPU-01010101-", "GPU-02020202-"] {
        assert!(report.contains(&format!("on {gpu}")), "{report}");
    }

    // This release of Ray hides no GPU from an actor that requests none. It finds the copy of the first one.
    let without = cluster.with(Options::default().cpus(0.1));
    let more = ActorWrapper::on(&without, &model).unwrap().device("cuda:0").unwrap().spawn(1).unwrap();
    assert_eq!(more.actor(0).look().wait().unwrap(), (vec![1.0, 2.0, 3.0, 4.0], None));
    assert_eq!(copies(), [MODEL, MODEL], "{:?}", allocations());
    drop((actors, more));
    eventually("the copies are freed", || copies().is_empty());
}

#[test]
fn task_process_whose_kernel_failed_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let fault = folder.path().join("fault");
    if !reruns("task_process_whose_kernel_failed_is_replaced", &[("STAND_IN_FAULT", fault.to_str().unwrap())]) {
        return;
    }
    let fault = std::path::PathBuf::from(std::env::var_os("STAND_IN_FAULT").unwrap());
    let cluster = cluster();
    let whole = cluster.with(Options::default().cpus(0.1).gpus(1.0));
    let tasks = TaskWrapper::on(&whole, &Weights::new(&Device::flex())).unwrap().device("cuda:0").unwrap();
    let x = Tensor::<2>::ones([2, SIZE], &Device::flex());
    tasks.forward(x.clone()).wait().unwrap();
    let before = tasks.pid().wait().unwrap();
    std::fs::write(&fault, "").unwrap();
    let error = tasks.forward(x.clone()).wait().unwrap_err().to_string();
    std::fs::remove_file(&fault).unwrap();
    assert!(error.contains("cannot use the GPU any more"), "{error}");
    eventually("another process computes", || {
        tasks.forward(x.clone()).wait().is_ok() && tasks.pid().wait().is_ok_and(|pid| pid != before)
    });
}
