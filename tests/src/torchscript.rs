//! The TorchScript modules that `tests/torchscript/make.py` wrote, PyTorch's outputs for them, and
//! modules of any width made of them.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use ray_zerocopy::jit::TorchScript;
use tch::{CModule, Kind};

/// The path of a module's file.
pub fn module(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("torchscript").join(format!("{name}.pt"))
}

/// Opens a module.
pub fn open(name: &str) -> TorchScript {
    TorchScript::open(module(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// PyTorch's outputs, as one flat list of numbers.
pub fn expected(name: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(module("mlp").with_file_name("expected.json")).unwrap();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut numbers = Vec::new();
    fn flat(value: &serde_json::Value, numbers: &mut Vec<f64>) {
        match value {
            serde_json::Value::Array(values) => values.iter().for_each(|value| flat(value, numbers)),
            value => numbers.push(value.as_f64().unwrap()),
        }
    }
    flat(name.split('/').fold(&all, |value, key| &value[key]), &mut numbers);
    numbers
}

/// Compares numbers with a tolerance of 1e-5: builds of LibTorch differ that much between machines.
pub fn assert_close(found: TensorData, expected: &[f64]) {
    let found: Vec<f64> = found.iter::<f64>().collect();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{found} and {expected}");
    }
}

/// Equally spaced numbers from -1 to 1.
pub fn rows<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let count = shape.iter().product::<usize>();
    let numbers: Vec<f32> = (0..count).map(|at| -1.0 + 2.0 * at as f32 / (count - 1) as f32).collect();
    Tensor::<1>::from_floats(numbers.as_slice(), &Device::flex()).reshape(shape)
}

/// Writes the two linear layers of `mlp.pt` with `width` inputs and outputs each.
pub fn widened(mlp: &Path, width: usize, folder: &Path) -> PathBuf {
    let module = CModule::load(mlp).expect("the module exists");
    let width = width as i64;
    tch::no_grad(|| {
        for (name, mut parameter) in module.named_parameters().expect("it has parameters") {
            let shape = if name.ends_with("weight") { vec![width, width] } else { vec![width] };
            parameter.set_data(&tch::Tensor::rand(shape, (Kind::Float, tch::Device::Cpu)));
        }
    });
    let path = folder.join("wide.pt");
    module.save(&path).expect("the folder can be written to");
    path
}
