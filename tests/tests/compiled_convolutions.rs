//! Compiled graphs with convolutions and batch norms.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use burn::module::RunningState;
use burn::nn::conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig1d, PaddingConfig2d};
use burn::tensor::activation::{relu, sigmoid, silu};
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use ray_zerocopy::Pipeline;
use ray_zerocopy::jit::{self, Compile, TracedGraph, Values};

/// A small CNN with a residual block of ResNet, and what a compiler has to tell apart from it.
#[derive(Pipeline)]
#[pipeline(init = Cnn::new)]
struct Cnn {
    stem: Conv2d,
    stem_norm: BatchNorm,
    pool: MaxPool2d,
    first: Conv2d,
    first_norm: BatchNorm,
    second: Conv2d,
    second_norm: BatchNorm,
    /// The other summand of the block, with a step.
    shortcut: Conv2d,
    shortcut_norm: BatchNorm,
    /// Without a convolution before it.
    alone: BatchNorm,
    depthwise: Conv2d,
    dilated: Conv2d,
    grouped: Conv2d,
    grouped_norm: BatchNorm,
    mean: AdaptiveAvgPool2d,
    rows: Conv1d,
    rows_norm: BatchNorm,
    head: Linear,
}

/// A batch norm whose parameters and statistics are not those of a new one.
fn norm(channels: usize, device: &Device) -> BatchNorm {
    let random = |from, to| Tensor::<1>::random([channels], Distribution::Uniform(from, to), device);
    let mut norm = BatchNormConfig::new(channels).init(device);
    norm.gamma = burn::module::Param::from_tensor(random(0.5, 1.5));
    norm.beta = burn::module::Param::from_tensor(random(-0.5, 0.5));
    norm.running_mean = RunningState::new(random(-0.3, 0.3));
    norm.running_var = RunningState::new(random(0.2, 2.0));
    norm
}

impl Cnn {
    fn new(device: &Device) -> Self {
        let plain = |from, to, kernel: usize, stride: usize| {
            let padding = PaddingConfig2d::Explicit(kernel / 2, kernel / 2, kernel / 2, kernel / 2);
            Conv2dConfig::new([from, to], [kernel; 2]).with_stride([stride; 2]).with_padding(padding).with_bias(false)
        };
        Self {
            stem: plain(3, 10, 7, 2).init(device),
            stem_norm: norm(10, device),
            pool: MaxPool2dConfig::new([3, 3])
                .with_strides([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(),
            first: plain(10, 20, 3, 2).init(device),
            first_norm: norm(20, device),
            second: plain(20, 20, 3, 1).with_bias(true).init(device),
            second_norm: norm(20, device),
            shortcut: plain(10, 20, 1, 2).init(device),
            shortcut_norm: norm(20, device),
            alone: norm(20, device),
            depthwise: plain(20, 20, 3, 1).with_groups(20).with_bias(true).init(device),
            dilated: Conv2dConfig::new([20, 20], [3, 2])
                .with_dilation([2, 1])
                .with_padding(PaddingConfig2d::Explicit(2, 1, 2, 0))
                .init(device),
            grouped: plain(20, 40, 3, 1).with_groups(5).init(device),
            grouped_norm: norm(40, device),
            mean: AdaptiveAvgPool2dConfig::new([2, 2]).init(),
            rows: Conv1dConfig::new(40, 12, 3).with_padding(PaddingConfig1d::Explicit(1, 1)).init(device),
            rows_norm: norm(12, device),
            head: LinearConfig::new(48, 7).init(device),
        }
    }

    /// `[batch, 3, height, width]` to `[batch, 7]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(relu(self.stem_norm.forward(self.stem.forward(x))));
        let inner = relu(self.first_norm.forward(self.first.forward(x.clone())));
        let inner = self.second_norm.forward(self.second.forward(inner));
        let x = relu(inner + self.shortcut_norm.forward(self.shortcut.forward(x)));
        let x = relu(self.alone.forward(x));
        // The sum is after the activation.
        let x = sigmoid(self.depthwise.forward(x.clone())) + x;
        // Read twice, so the addition cannot become part of it.
        let dilated = self.dilated.forward(x);
        let x = dilated.clone() + relu(dilated);
        let x = silu(self.grouped_norm.forward(self.grouped.forward(x)));
        let [batch, channels, ..] = x.dims();
        let rows = self.mean.forward(x).reshape([batch, channels, 4]);
        let rows = relu(self.rows_norm.forward(self.rows.forward(rows)));
        self.head.forward(rows.reshape([batch, 48]))
    }
}

fn images(batch: usize, [height, width]: [usize; 2]) -> Tensor<4> {
    Tensor::random([batch, 3, height, width], Distribution::Normal(0.0, 1.0), &Device::flex())
}

/// A graph for any number of images of this size.
fn traced(model: &Cnn, size: [usize; 2]) -> TracedGraph {
    jit::trace(model)
        .input("x", images(2, size))
        .symbol("batch", [("x", 0)])
        .forward(|model, inputs| Ok(model.forward(inputs.float("x")?)))
        .unwrap()
}

/// The largest difference, in units of the largest number.
fn difference(found: &TensorData, expected: &TensorData) -> f32 {
    assert_eq!(found.shape(), expected.shape());
    let pairs = || found.iter::<f32>().zip(expected.iter::<f32>());
    let largest = pairs().map(|(_, expected)| expected.abs()).fold(0.0, f32::max);
    pairs().map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max) / largest
}

fn answer(graph: &TracedGraph, x: &Tensor<4>) -> TensorData {
    let values = Values::new().with("x", x.clone());
    graph.load("cpu").unwrap().run(values).unwrap().data("output").unwrap()
}

#[test]
fn answers_are_those_of_the_graph() {
    let model = Cnn::new(&Device::flex());
    for size in [[32, 32], [45, 38]] {
        let graph = traced(&model, size);
        let compiled = graph.compile(Compile::f32()).unwrap();
        assert!(compiled.load("cpu").unwrap().copied().is_empty());
        for batch in [2, 1, 5, 17] {
            let x = images(batch, size);
            let worst = difference(&answer(&compiled, &x), &answer(&graph, &x));
            assert!(worst < 1e-5, "{batch} × {size:?}: {worst}");
        }
    }
}

#[test]
fn convolutions_take_what_follows_them() {
    let graph = traced(&Cnn::new(&Device::flex()), [32, 32]);
    let compiled = graph.compile(Compile::f32()).unwrap();
    let names: Vec<_> = compiled.info().steps().map(|step| step.name).collect();
    let of = |name: &str| names.iter().filter(|found| found.starts_with(name)).cloned().collect::<Vec<_>>();
    let expected = [
        "Convolution + relu",
        "Convolution + relu",
        // Of the sum of two convolutions, the first one takes the addition.
        "Convolution",
        "Convolution + residual + relu",
        "Convolution + relu",
        "Convolution + sigmoid + residual",
        "Convolution",
        "Convolution + silu",
        "Convolution + relu",
    ];
    assert_eq!(of("Convolution"), expected, "{names:?}");
    assert_eq!((of("Conv1d").len(), of("Conv2d").len(), of("BatchNorm").len()), (0, 0, 0), "{names:?}");
    assert_eq!((of("MaxPool"), of("MaxPool2d").len()), (vec!["MaxPool".to_owned()], 0), "{names:?}");
    let paths: Vec<_> = compiled.arena().paths().collect();
    // The weight and the bias of seven batch norms. What they were made of is not kept.
    assert_eq!(paths.iter().filter(|path| path.starts_with("graph.folded.")).count(), 14, "{paths:?}");
    assert!(!paths.iter().any(|path| path.contains("running_mean") && !path.starts_with("graph.")), "{paths:?}");
    assert!(!paths.contains(&"stem.weight") && paths.contains(&"depthwise.weight"), "{paths:?}");
}

#[test]
fn file_and_symbolic_sizes_of_images_give_the_same_answers() {
    #[derive(Pipeline)]
    #[pipeline(init = Wide::new)]
    struct Wide {
        inner: Conv2d,
        norm: BatchNorm,
        rows: Conv1d,
    }

    impl Wide {
        fn new(device: &Device) -> Self {
            let padding = PaddingConfig2d::Explicit(1, 2, 1, 2);
            Self {
                inner: Conv2dConfig::new([3, 6], [3, 5]).with_padding(padding).init(device),
                norm: norm(6, device),
                rows: Conv1dConfig::new(6, 4, 3).init(device),
            }
        }

        fn forward(&self, x: Tensor<4>) -> Tensor<3> {
            let x = silu(self.norm.forward(self.inner.forward(x)));
            self.rows.forward(x.mean_dim(2).squeeze_dim(2))
        }
    }

    let model = Wide::new(&Device::flex());
    let graph = jit::trace(&model)
        .input("x", images(2, [9, 11]))
        .symbol("batch", [("x", 0)])
        .symbol("height", [("x", 2)])
        .symbol("width", [("x", 3)])
        .forward(|model, inputs| Ok(model.forward(inputs.float("x")?)))
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.rzg");
    let compiled = graph.compile(Compile::f32()).unwrap();
    compiled.save(&path).unwrap();
    let opened = TracedGraph::open(&path).unwrap();
    for (batch, size) in [(2, [9, 11]), (1, [4, 3]), (3, [40, 7]), (1, [8, 100])] {
        let x = images(batch, size);
        let expected = model.forward(x.clone()).into_data();
        let found = answer(&opened, &x);
        assert!(difference(&found, &expected) < 1e-5, "{batch} × {size:?}");
        assert_eq!(found, answer(&compiled, &x));
    }
}

/// Batch norms that are not simply behind a convolution of their own.
#[derive(Pipeline)]
#[pipeline(init = Shared::new)]
struct Shared {
    /// Used twice, with two norms.
    rows: Conv1d,
    norms: [BatchNorm; 2],
    /// Behind a convolution that something else reads as well.
    other: BatchNorm,
}

impl Shared {
    fn new(device: &Device) -> Self {
        let padding = PaddingConfig1d::Explicit(1, 1);
        Self {
            rows: Conv1dConfig::new(5, 5, 3).with_padding(padding).init(device),
            norms: [norm(5, device), norm(5, device)],
            other: norm(5, device),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.norms[0].forward(self.rows.forward(x));
        let x = self.norms[1].forward(self.rows.forward(relu(x)));
        let both = self.rows.forward(x);
        relu(self.other.forward(both.clone())) * both
    }
}

#[test]
fn norms_of_shared_convolutions_keep_their_own_factors() {
    let model = Shared::new(&Device::flex());
    let random = |batch| Tensor::<3>::random([batch, 5, 9], Distribution::Normal(0.0, 1.0), &Device::flex());
    let graph = jit::trace(&model)
        .input("x", random(2))
        .symbol("batch", [("x", 0)])
        .forward(|model, inputs| Ok(model.forward(inputs.float("x")?)))
        .unwrap();
    let compiled = graph.compile(Compile::f32()).unwrap();
    let x = random(3);
    let found = compiled.load("cpu").unwrap().run([("x", x.clone())]).unwrap().data("output").unwrap();
    assert!(difference(&found, &model.forward(x).into_data()) < 1e-5);
    let names: Vec<_> = compiled.info().steps().map(|step| step.name).collect();
    let expected = ["Convolution + relu", "Convolution", "Convolution", "Convolution + relu", "Mul"];
    assert_eq!(names, expected);
    // The weight as it is for the last one, and a weight and a bias of each norm.
    let paths: Vec<_> = compiled.arena().paths().filter(|path| *path != "graph").collect();
    assert_eq!(paths.len(), 8, "{paths:?}");
}
