//! The results of a merged weight, and of burn's own adapters.

use burn::module::{Lora, LoraAdapter, Module, ModuleMapper, Param};
use burn::tensor::{Device, Distribution, Tensor};
use ray_zerocopy::lora::{ActiveAdapter, Adapter};
use ray_zerocopy::{load, share};

use crate::net::{Model, ModelConfig, Net, difference};

/// Gives random numbers to the pairs, whose `b` is zero at first.
struct Trained;

impl ModuleMapper for Trained {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let is_pair = param.lazy_shape().to_vec().contains(&RANK);
        if !is_pair {
            return param;
        }
        let id = param.id;
        let shape = param.val().dims();
        Param::initialized(id, Tensor::random(shape, Distribution::Normal(0.0, 0.3), &Device::flex()))
    }
}

const RANK: usize = 6;

fn trained(net: &Net) -> Net {
    net.clone().apply_lora(Lora::new(RANK, 9.0)).map(&mut Trained)
}

#[test]
fn result_is_that_of_a_merged_weight() {
    for is_column in [false, true] {
        let config = ModelConfig { narrow: 40, wide: 96, is_column };
        let device = Device::flex();
        let pipeline = config.init(&device);
        let base = share(&pipeline).unwrap();
        let model = load::<Model>(&base, &device).unwrap();
        let burn = trained(&model.net);
        let pair: LoraAdapter = burn.up.weight.adapter().unwrap().clone();
        let adapter = Adapter::from_module("net", &burn, 9.0 / 6.0).unwrap();
        assert_eq!(adapter.layers().map(|layer| layer.scale).collect::<Vec<_>>(), [1.5, 1.5]);
        model.adapters.add("trained", &adapter).unwrap();

        let x = Tensor::<3>::random([4, 7, 40], Distribution::Normal(0.0, 1.0), &device);
        let found = model.run(x.clone(), Some("trained".to_owned())).unwrap();
        // burn computes with the whole weight, `W + a·b·scale`.
        let none = ActiveAdapter::none();
        let apart = difference(&found, &burn.forward(x.clone(), &none));
        assert!(apart < 2e-6, "{apart}");
        let merged = burn.materialize();
        let apart = difference(&found, &merged.forward(x.clone(), &none));
        assert!(apart < 2e-6, "{apart}");
        assert_eq!(pair.scale, 1.5);

        // Without an adapter, bit for bit that of the base.
        let expected = pipeline.net.forward(x.clone(), &none).into_data();
        assert_eq!(model.run(x.clone(), None).unwrap().into_data(), expected);
        assert!(difference(&found, &Tensor::from_data(expected, &device)) > 0.01);

        // The tensors of base and adapter are those of their arenas.
        assert!(model.copied().is_empty());
        assert_eq!(adapter.arena().weight_bytes(), 4 * 2 * (40 + 96) * RANK as u64);
    }
}

#[test]
fn module_without_an_adapter_is_refused() {
    let net = ModelConfig::PEFT.init(&Device::flex()).net;
    let error = Adapter::from_module("net", &net, 1.0).unwrap_err().to_string();
    assert!(error.starts_with("`net` has no LoRA adapter"), "{error}");
}
