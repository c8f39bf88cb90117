//! A pipeline with the common kinds of modules and fields, which runs on any device.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig,
    LinearLayout,
};
use burn::tensor::activation::{gelu, softmax};
use burn::tensor::{Bool, Device, Distribution, Int, Tensor};
use ray_zerocopy::Pipeline;

const WIDTH: usize = 32;
const WORDS: usize = 50;

/// Fills each parameter with different random values.
struct Varied;

impl ModuleMapper for Varied {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.random_like(Distribution::Uniform(0.5, 2.0)))
    }
}

/// Normalisation and convolution.
#[derive(Module, Debug)]
pub struct Layer {
    /// Has running statistics, which are not parameters.
    pub norm: BatchNorm,
    mix: Conv1d,
    scale: LayerNorm,
}

/// The heads of one language.
#[derive(Pipeline)]
pub struct Heads {
    /// A map in a pipeline in a map.
    pub by_task: BTreeMap<u32, Vec<Linear>>,
    /// Copied.
    pub note: String,
}

/// Embeds, mixes, attends and classifies.
#[derive(Pipeline)]
#[pipeline(init = Sample::new)]
pub struct Sample {
    /// Tied to `out`.
    pub words: Embedding,
    /// A module with running statistics.
    pub layer: Layer,
    /// Query, key and value. The last one has the column layout.
    pub attention: [Linear; 3],
    /// By language.
    pub heads: HashMap<String, Heads>,
    /// Bare, of integers.
    pub order: Tensor<1, Int>,
    /// Bare, of booleans.
    pub known: Tensor<1, Bool>,
    /// Scores words, with the matrix that embeds them.
    pub out: Embedding,
    /// Calls so far.
    #[pipeline(skip)]
    pub calls: usize,
}

impl Sample {
    /// The skeleton.
    pub fn new(device: &Device) -> Self {
        let linear = |outputs| LinearConfig::new(WIDTH, outputs);
        let words = EmbeddingConfig::new(WORDS, WIDTH).init(device);
        let heads = || Heads {
            by_task: [(1, vec![linear(5).init(device)]), (2, vec![linear(WIDTH).init(device), linear(7).init(device)])]
                .into(),
            note: String::new(),
        };
        Self {
            out: words.clone(),
            words,
            layer: Layer {
                norm: BatchNormConfig::new(WIDTH).init(device),
                mix: Conv1dConfig::new(WIDTH, WIDTH, 3).init(device),
                scale: LayerNormConfig::new(WIDTH).init(device),
            },
            attention: [
                linear(WIDTH).init(device),
                linear(WIDTH).init(device),
                linear(WIDTH).with_layout(LinearLayout::Col).init(device),
            ],
            heads: ["fr", "de"].map(|name| (name.to_owned(), heads())).into(),
            order: Tensor::zeros([WIDTH], device),
            known: Tensor::zeros([WORDS], device),
            calls: 0,
        }
    }

    /// A pipeline with values that `init` does not produce.
    pub fn filled() -> Self {
        let device = Device::flex();
        let mut sample = Self::new(&device);
        let values = |low, high| Tensor::<1>::random([WIDTH], Distribution::Uniform(low, high), &device);
        let norm = &sample.layer.norm;
        norm.running_mean.update(values(-1.0, 1.0));
        norm.running_var.update(values(0.5, 2.0));
        // burn keeps an update per thread until the value is read.
        drop((norm.running_mean.value_sync(), norm.running_var.value_sync()));
        // `init` sets scales to ones and biases to zeros, and equal tensors are stored once in the
        // arena.
        sample.layer.scale = sample.layer.scale.map(&mut Varied);
        sample.layer.norm.gamma = Param::from_tensor(values(0.5, 2.0));
        sample.layer.norm.beta = Param::from_tensor(values(-1.0, 1.0));
        sample.order = Tensor::arange(0..WIDTH as i64, &device).flip([0]);
        sample.known = Tensor::<1, Int>::arange(0..WORDS as i64, &device).remainder_scalar(3).equal_elem(0);
        sample.heads.iter_mut().for_each(|(name, heads)| heads.note = format!("of {name}"));
        sample
    }

    /// Ids for [`scores`](Self::scores), and a mask of those that are ignored.
    pub fn input(batch: usize, length: usize) -> (Tensor<2, Int>, Tensor<2, Bool>) {
        let numbers = Tensor::<1, Int>::arange(0..(batch * length) as i64, &Device::flex());
        let ids = (numbers.clone() * 7).remainder_scalar(WORDS as i64).reshape([batch, length]);
        let ignored = numbers.remainder_scalar(5).equal_elem(4).reshape([batch, length]);
        (ids, ignored)
    }
}

#[ray_zerocopy::remote]
impl Sample {
    /// The forward pass: for each position a score for each class.
    pub fn scores(&self, ids: Tensor<2, Int>, ignored: Tensor<2, Bool>, head: String) -> Result<Tensor<3>, String> {
        let heads = self.heads.get(&head).ok_or_else(|| format!("there is no head `{head}`"))?;
        let x = self.words.forward(ids).select(2, self.order.clone());
        let y = self.layer.mix.forward(self.layer.norm.forward(x.clone().swap_dims(1, 2))).swap_dims(1, 2);
        let pad = x.dims()[1] - y.dims()[1];
        let y = Tensor::cat(vec![y, x.clone().narrow(1, 0, pad)], 1);
        let x = self.layer.scale.forward(x + gelu(y));
        let [query, key, value] = [0, 1, 2].map(|part| self.attention[part].forward(x.clone()));
        let weights = query.matmul(key.swap_dims(1, 2)) / (WIDTH as f32).sqrt();
        let [batch, length] = ignored.dims();
        let weights = weights.mask_fill(ignored.reshape([batch, 1, length]).expand([batch, length, length]), -1e4);
        let x = x + softmax(weights, 2).matmul(value);
        Ok(heads.by_task[&2].iter().fold(x, |x, layer| layer.forward(x)))
    }

    /// Which ids are known words: booleans in, booleans out.
    pub fn known(&self, ids: Tensor<1, Int>, not: Tensor<1, Bool>) -> Tensor<1, Bool> {
        self.known.clone().select(0, ids).bool_and(not.bool_not())
    }

    /// The word after the next, with the tied matrix.
    pub fn next(&self, ids: Tensor<2, Int>) -> Tensor<2, Int> {
        let scores = self.words.forward(ids).matmul(self.out.weight.val().transpose().unsqueeze());
        scores.argmax(2).squeeze_dim(2)
    }

    /// State of an actor.
    pub fn count(&mut self) -> (u32, usize) {
        self.calls += 1;
        (std::process::id(), self.calls)
    }

    /// Sets weights of this process to zero, and returns the sum of their absolute values.
    pub fn zero_weights(&mut self) -> f32 {
        for layer in &mut self.attention {
            let weight = layer.weight.val().mul_scalar(0.0);
            layer.weight = Param::from_tensor(weight);
        }
        self.attention.iter().map(|layer| layer.weight.val().abs().sum().into_scalar::<f32>()).sum()
    }
}
