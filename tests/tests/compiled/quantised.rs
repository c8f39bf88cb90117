//! Graphs of models that burn has quantised: the weights stay as they are, and 8-bit layers compute with them.

use burn::module::{Module, Quantizer};
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::gelu;
use burn::tensor::quantization::{Calibration, QuantScheme, QuantStore, QuantValue, ScaleDtype};
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use ray_zerocopy::jit::{self, Compile, TracedGraph, Values, WeightFormat};
use ray_zerocopy::{Pipeline, share};

use crate::model::difference;

const WIDTH: usize = 64;

#[derive(Module, Debug)]
struct Layers {
    wide: Linear,
    narrow: Linear,
    last: Conv1d,
}

#[derive(Pipeline)]
#[pipeline(init = Model::new)]
struct Model {
    layers: Layers,
}

impl Model {
    fn new(device: &Device) -> Self {
        let layers = Layers {
            wide: LinearConfig::new(WIDTH, 2 * WIDTH).init(device),
            narrow: LinearConfig::new(2 * WIDTH, WIDTH).init(device),
            last: Conv1dConfig::new(4, 4, 4).init(device),
        };
        Self { layers }
    }

    fn quantised(scheme: QuantScheme) -> Self {
        let model = Self::new(&Device::flex());
        Self { layers: model.layers.quantize_weights(&mut Quantizer::new(Calibration::MinMax, scheme)) }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.layers.narrow.forward(gelu(self.layers.wide.forward(x)));
        let [rows, _] = x.dims();
        let x = self.layers.last.forward(x.reshape([rows, 4, WIDTH / 4]));
        x.reshape([rows as i32, -1])
    }
}

fn whole() -> QuantScheme {
    QuantScheme::default().with_value(QuantValue::Q8S).with_store(QuantStore::Native)
}

fn rows(count: usize) -> Tensor<2> {
    Tensor::random([count, WIDTH], Distribution::Normal(0.0, 1.0), &Device::flex())
}

fn traced(model: &Model) -> TracedGraph {
    let graph = jit::trace(model).input("x", rows(2)).symbol("rows", [("x", 0)]);
    graph.forward(|model, inputs| Ok(model.forward(inputs.float::<2>("x")?))).unwrap()
}

fn answer(graph: &TracedGraph, x: &Tensor<2>) -> TensorData {
    let mut executable = graph.load("cpu").unwrap();
    executable.run(Values::new().with("x", x.clone())).unwrap().data("output").unwrap()
}

#[test]
fn graphs_of_quantised_models_are_their_answers() {
    let packed = whole().with_store(QuantStore::PackedU32(0));
    for scheme in [whole(), packed, whole().per_block([4], ScaleDtype::F32), whole().with_value(QuantValue::Q8F)] {
        let model = Model::quantised(scheme);
        let graph = traced(&model);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.rzg");
        graph.save(&path).unwrap();
        let opened = TracedGraph::open(&path).unwrap();
        let x = rows(5);
        let expected = model.forward(x.clone()).into_data();
        assert_eq!(answer(&opened, &x), expected, "{scheme:?}");
        let exact = graph.compile(Compile::exact()).unwrap();
        assert_eq!(answer(&exact, &x), expected, "{scheme:?}");
        // One byte for each weight, and the scales: 4 bytes for up to 4 weights. Floats take 4 bytes for each.
        let bytes = share(&model).unwrap().weight_bytes();
        assert!(bytes < 5 * WIDTH as u64 * 2 * WIDTH as u64, "{bytes}");
        assert!(opened.arena().weight_bytes() <= bytes, "{} of {bytes}", opened.arena().weight_bytes());
        let executable = opened.load("cpu").unwrap();
        assert!(executable.copied().is_empty(), "flex computes with i8 in place: {:?}", executable.copied());
    }
}

#[test]
fn layers_of_32_bits_have_the_same_answers() {
    for scheme in [whole(), whole().per_block([4], ScaleDtype::F32), whole().with_value(QuantValue::Q4S)] {
        let model = Model::quantised(scheme);
        let compiled = traced(&model).compile(Compile::f32()).unwrap();
        let x = rows(5);
        let worst = difference(&answer(&compiled, &x), &model.forward(x).into_data());
        assert!(worst < 1e-5, "{scheme:?}: {worst}");
        let names: Vec<_> = compiled.info().steps().map(|step| step.name).collect();
        assert!(names.contains(&"Linear + gelu".to_owned()), "{names:?}");
        assert!(!names.iter().any(|name| name == "Dequantize"), "{names:?}");
    }
}

#[test]
fn layers_of_8_bits_stay_so() {
    let model = Model::quantised(whole());
    let graph = traced(&model);
    let compiled = graph.compile(Compile::int8()).unwrap();
    let x = rows(5);
    let (found, expected) = (answer(&compiled, &x), model.forward(x).into_data());
    let worst = difference(&found, &expected);
    assert!(worst > 1e-6 && worst < 0.05, "inputs of layers have 8 bits: {worst}");
    let size = compiled.arena().weight_bytes();
    assert!(size < 3 * 2 * WIDTH as u64 * WIDTH as u64, "{size}");
}

#[test]
fn calibration_measures_quantised_models() {
    let model = Model::quantised(whole());
    let samples: Vec<_> = (0..2).map(|_| Values::new().with("x", rows(4))).collect();
    let calibration = traced(&model).calibrate(&Compile::int8(), samples, 0.05, |_, _| ()).unwrap();
    let mut paths: Vec<_> = calibration.layers().iter().map(|layer| layer.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["layers.narrow.weight", "layers.wide.weight"]);
    let int8 = WeightFormat::Int8 { block: WeightFormat::WHOLE };
    assert!(calibration.layers().iter().all(|layer| layer.format == int8), "{calibration}");
}
