//! TorchScript modules of any size, out of those that `tests/torchscript/make.py` has made.

use std::path::{Path, PathBuf};

use tch::{CModule, Kind, Tensor};

/// The two linear layers of `mlp.pt` with `width` inputs, outputs, and rows of weights between them.
pub fn widened(mlp: &Path, width: usize, folder: &Path) -> PathBuf {
    let module = CModule::load(mlp).expect("the module is there");
    let width = width as i64;
    tch::no_grad(|| {
        for (name, mut parameter) in module.named_parameters().expect("it has parameters") {
            let shape = if name.ends_with("weight") { vec![width, width] } else { vec![width] };
            parameter.set_data(&Tensor::rand(shape, (Kind::Float, tch::Device::Cpu)));
        }
    });
    let path = folder.join("wide.pt");
    module.save(&path).expect("the folder can be written to");
    path
}
