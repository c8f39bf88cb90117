//! Every kind of module of burn-nn: after a load, the storage of each parameter is in the arena,
//! with the same values.
//!
//! The library checks the same at each load. This test uses burn's own visitor of modules, which
//! finds a parameter that the library would miss.

#![allow(clippy::unwrap_used, reason = "test code")]

use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::activation::{ActivationConfig, PRelu, PReluConfig, RRelu, RReluConfig, SwiGlu, SwiGluConfig};
use burn::nn::attention::{CrossAttention, CrossAttentionConfig, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::conv::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Conv3d, Conv3dConfig, ConvTranspose1d, ConvTranspose1dConfig,
    ConvTranspose2d, ConvTranspose2dConfig, ConvTranspose3d, ConvTranspose3dConfig, DeformConv2d, DeformConv2dConfig,
};
use burn::nn::norm::{Normalization, NormalizationConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::transformer::{
    PositionWiseFeedForward, PositionWiseFeedForwardConfig, TransformerDecoder, TransformerDecoderConfig,
    TransformerEncoder, TransformerEncoderConfig,
};
use burn::nn::{
    BatchNorm, BatchNormConfig, BiGru, BiGruConfig, BiLstm, BiLstmConfig, BiRnn, BiRnnConfig, Dropout, DropoutConfig,
    Embedding, EmbeddingConfig, GaussianNoise, GaussianNoiseConfig, GroupNorm, GroupNormConfig, Gru, GruConfig,
    InstanceNorm, InstanceNormConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, LinearLayout, Lstm, LstmConfig,
    PositionalEncoding, PositionalEncodingConfig, RmsNorm, RmsNormConfig, Rnn, RnnConfig, RotaryEncoding,
    RotaryEncodingConfig,
};
use burn::tensor::kind::Basic;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use ray_zerocopy::{Arena, Pipeline, load, share};

/// The tensors of a module: values and addresses.
#[derive(Default)]
struct Storages(Vec<(TensorData, *const u8)>);

impl Storages {
    fn of<M: Module>(module: &M) -> Self {
        let mut storages = Self::default();
        module.visit(&mut storages);
        storages
    }

    #[allow(irrefutable_let_patterns, reason = "each backend that is compiled in adds a variant")]
    fn add<const D: usize, K: Basic>(&mut self, tensor: Tensor<D, K>) {
        let DispatchTensorKind::Flex(kind) = tensor.clone().into_dispatch().kind else { panic!("not on flex") };
        let (BackendTensor::Float(flex) | BackendTensor::Int(flex) | BackendTensor::Bool(flex)) = kind else {
            panic!("another kind of tensor")
        };
        self.0.push((tensor.into_data(), flex.bytes().as_ptr()));
    }
}

impl ModuleVisitor for Storages {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.add(param.val());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.add(param.val());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.add(param.val());
    }
}

/// Checks that `here` and `there` have the same parameters, and that those of `there` are in the
/// arena. Returns their number.
fn borrowed<M: Module>(name: &str, here: &M, there: &M, arena: &Arena) -> usize {
    let (here, there) = (Storages::of(here).0, Storages::of(there).0);
    assert_eq!(here.len(), there.len(), "{name}");
    for (number, ((original, own), (shared, address))) in here.iter().zip(&there).enumerate() {
        assert_eq!(original, shared, "{name}: tensor {number} has other values");
        assert!(arena.contains(*address), "{name}: tensor {number} was copied out of the arena");
        assert!(!arena.contains(*own), "{name}: tensor {number} of the original is in the arena");
    }
    here.len()
}

macro_rules! modules {
    ($($name:ident: $module:ty = $init:expr, $parameters:literal;)*) => {
        #[derive(Pipeline)]
        #[pipeline(init = Everything::new)]
        struct Everything {
            $($name: $module,)*
        }

        impl Everything {
            fn new(device: &Device) -> Self {
                $(let $name = ($init)(device);)*
                Self { $($name,)* }
            }
        }

        #[test]
        fn every_module_parameter_lies_in_the_arena() {
            let pipeline = Everything::new(&Device::flex());
            let arena = share(&pipeline).unwrap();
            let twin = load::<Everything>(&arena, &Device::flex()).unwrap().strict().unwrap();
            let mut all = 0;
            $(
                let found = borrowed(stringify!($name), &pipeline.$name, &twin.$name, &arena);
                assert_eq!(found, $parameters, "parameters of {}", stringify!($name));
                all += found;
            )*
            assert_eq!(arena.paths().count(), all);
        }
    };
}

modules! {
    linear: Linear = |d: &_| LinearConfig::new(3, 4).init(d), 2;
    column: Linear = |d: &_| LinearConfig::new(3, 4).with_layout(LinearLayout::Col).init(d), 2;
    embedding: Embedding = |d: &_| EmbeddingConfig::new(5, 3).init(d), 1;
    conv1: Conv1d = |d: &_| Conv1dConfig::new(2, 3, 3).init(d), 2;
    conv2: Conv2d = |d: &_| Conv2dConfig::new([2, 3], [3, 3]).init(d), 2;
    conv3: Conv3d = |d: &_| Conv3dConfig::new([2, 3], [3, 3, 3]).init(d), 2;
    transposed1: ConvTranspose1d = |d: &_| ConvTranspose1dConfig::new([2, 3], 3).init(d), 2;
    transposed2: ConvTranspose2d = |d: &_| ConvTranspose2dConfig::new([2, 3], [3, 3]).init(d), 2;
    transposed3: ConvTranspose3d = |d: &_| ConvTranspose3dConfig::new([2, 3], [3, 3, 3]).init(d), 2;
    deformed: DeformConv2d = |d: &_| DeformConv2dConfig::new([2, 3], [3, 3]).init(d), 2;
    batch: BatchNorm = |d: &_| BatchNormConfig::new(4).init(d), 4;
    group: GroupNorm = |d: &_| GroupNormConfig::new(2, 4).init(d), 2;
    instance: InstanceNorm = |d: &_| InstanceNormConfig::new(4).init(d), 2;
    layer: LayerNorm = |d: &_| LayerNormConfig::new(4).init(d), 2;
    rms: RmsNorm = |d: &_| RmsNormConfig::new(4).init(d), 1;
    any_norm: Normalization = |d: &_| NormalizationConfig::Layer(LayerNormConfig::new(4)).init(d), 2;
    rnn: Rnn = |d: &_| RnnConfig::new(3, 4, true).init(d), 4;
    birnn: BiRnn = |d: &_| BiRnnConfig::new(3, 4, true).init(d), 8;
    gru: Gru = |d: &_| GruConfig::new(3, 4, true).init(d), 12;
    bigru: BiGru = |d: &_| BiGruConfig::new(3, 4, true).init(d), 24;
    lstm: Lstm = |d: &_| LstmConfig::new(3, 4, true).init(d), 16;
    bilstm: BiLstm = |d: &_| BiLstmConfig::new(3, 4, true).init(d), 32;
    attention: MultiHeadAttention = |d: &_| MultiHeadAttentionConfig::new(4, 2).init(d), 8;
    cross: CrossAttention = |d: &_| CrossAttentionConfig::new(4, 6, 2, 1, 2).init(d), 8;
    feed_forward: PositionWiseFeedForward = |d: &_| PositionWiseFeedForwardConfig::new(4, 8).init(d), 4;
    encoder: TransformerEncoder = |d: &_| TransformerEncoderConfig::new(4, 8, 2, 2).init(d), 32;
    decoder: TransformerDecoder = |d: &_| TransformerDecoderConfig::new(4, 8, 2, 2).init(d), 52;
    swiglu: SwiGlu = |d: &_| SwiGluConfig::new(3, 4).init(d), 2;
    prelu: PRelu = |d: &_| PReluConfig::new().init(d), 1;
    any_activation: burn::nn::activation::Activation = |d: &_| ActivationConfig::PRelu(PReluConfig::new()).init(d), 1;
    // These modules have flags, constants and tables, but no parameters.
    rrelu: RRelu = |_: &_| RReluConfig::new().init(), 0;
    dropout: Dropout = |_: &_| DropoutConfig::new(0.5).init(), 0;
    noise: GaussianNoise = |_: &_| GaussianNoiseConfig::new(0.1).init(), 0;
    positions: PositionalEncoding = |d: &_| PositionalEncodingConfig::new(4).init(d), 0;
    rotary: RotaryEncoding = |d: &_| RotaryEncodingConfig::new(8, 4).init(d), 0;
    pool: MaxPool2d = |_: &_| MaxPool2dConfig::new([2, 2]).init(), 0;
}
