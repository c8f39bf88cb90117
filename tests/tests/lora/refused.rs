//! Adapters that do not fit, and names that do not exist.

use std::path::Path;

use burn::module::{Lora, Module};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Device};
use ray_zerocopy::error::ShareError;
use ray_zerocopy::lora::{Adapter, Adapters, LoraError};
use ray_zerocopy::{Loaded, Pipeline, load, share};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::net::{Model, ModelConfig, folder};

fn model(config: ModelConfig) -> Loaded<Model> {
    let device = Device::flex();
    load(&share(&config.init(&device)).unwrap(), &device).unwrap()
}

fn plain() -> Adapter {
    Adapter::options().rename("^", "net.").unwrap().open(folder().join("plain")).unwrap()
}

#[test]
fn unknown_names_are_told_with_similar_ones() {
    let model = model(ModelConfig::PEFT);
    let error = model.adapters.choose(Some("french")).unwrap_err().to_string();
    assert_eq!(error, "there is no adapter `french`; none has been added to this worker");
    for name in ["french", "german"] {
        model.adapters.add(name, &plain()).unwrap();
    }
    let expected = "there is no adapter `frnch` (there is `french`); the 2 of this worker are french, german";
    assert_eq!(model.adapters.choose(Some("frnch")).unwrap_err().to_string(), expected);
    assert_eq!(model.adapters.remove("frnch").unwrap_err().to_string(), expected);
    let LoraError::Unknown { similar, .. } = model.adapters.choose(Some("7")).unwrap_err() else { panic!() };
    assert_eq!(similar, None);

    let error = model.adapters.add("french", &plain()).unwrap_err();
    assert_eq!(error, LoraError::Exists { name: "french".to_owned() });
    // A call keeps the adapter that it has chosen.
    let chosen = model.adapters.choose(Some("french")).unwrap();
    model.adapters.remove("french").unwrap();
    assert_eq!((chosen.name(), model.adapters.names()), (Some("french"), vec!["german".to_owned()]));
    model.adapters.add("french", &plain()).unwrap();
}

#[test]
fn layer_that_does_not_exist_is_refused() {
    let model = model(ModelConfig::PEFT);
    let adapter = Adapter::open(folder().join("plain")).unwrap();
    let error = model.adapters.add("plain", &adapter).unwrap_err().to_string();
    assert!(error.starts_with("the adapter changes the layer `down`, but the pipeline has no matrix"), "{error}");
    assert!(error.contains("(there is `net.down`)") && error.contains(".rename(..)"), "{error}");
    assert!(model.adapters.names().is_empty());
}

#[test]
fn shape_or_type_that_does_not_fit_is_refused() {
    let other = model(ModelConfig { narrow: 16, wide: 50, is_column: false });
    let error = other.adapters.add("plain", &plain()).unwrap_err().to_string();
    let expected = "the adapter does not fit the layer `net.down`: it has 50 inputs and 16 outputs, and the adapter is \
                    for 48 inputs and 16 outputs";
    assert_eq!(error, expected);
    // A layer whose weight is stored transposed is not confused with its transpose.
    let column = model(ModelConfig { narrow: 48, wide: 16, is_column: true });
    let error = column.adapters.add("plain", &plain()).unwrap_err().to_string();
    assert!(error.contains("`net.down`: it has 16 inputs and 48 outputs"), "{error}");
    model(ModelConfig { is_column: true, ..ModelConfig::PEFT }).adapters.add("plain", &plain()).unwrap();

    let halves = Adapter::options().rename("^", "net.").unwrap().cast_floats(DType::F16);
    let halves = halves.open(folder().join("plain")).unwrap();
    let error = model(ModelConfig::PEFT).adapters.add("plain", &halves).unwrap_err().to_string();
    assert!(error.contains("it is F32, and the adapter F16; open the adapter with"), "{error}");
}

#[derive(Pipeline)]
#[pipeline(init = Tied::new)]
struct Tied {
    first: Linear,
    second: Linear,
    adapters: Adapters,
}

impl Tied {
    fn new(device: &Device) -> Self {
        let first: Linear = LinearConfig::new(8, 8).init(device);
        Self { second: first.clone(), first, adapters: Adapters::default() }
    }
}

#[test]
fn tied_layer_is_refused() {
    let device = Device::flex();
    let model: Loaded<Tied> = load(&share(&Tied::new(&device)).unwrap(), &device).unwrap();
    let adapter = Adapter::from_module("first", &model.first.clone().apply_lora(Lora::new(2, 2.0)), 1.0).unwrap();
    let error = model.adapters.add("a", &adapter).unwrap_err().to_string();
    assert!(error.starts_with("the layer `first` has the same parameter as `second.weight`"), "{error}");
}

#[test]
fn set_of_another_pipeline_is_refused() {
    let pipeline = ModelConfig::PEFT.init(&Device::flex());
    assert_eq!(pipeline.adapters.add("a", &plain()), Err(LoraError::NotLoaded));
    // A set with adapters is not dropped silently when its pipeline is shared.
    let model = model(ModelConfig::PEFT);
    model.adapters.add("a", &plain()).unwrap();
    let error = share(&*model).unwrap_err();
    assert!(matches!(&error, ShareError::LossyCopy { field, .. } if field == "adapters"), "{error}");
}

/// Writes a folder of PEFT: the config with some fields changed, and tensors of these names and shapes.
fn written(at: &Path, config: &Value, tensors: &[(&str, [usize; 2])]) -> Result<Adapter, String> {
    let mut all = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["up"]});
    for (field, value) in config.as_object().unwrap() {
        all[field] = value.clone();
    }
    std::fs::write(at.join("adapter_config.json"), all.to_string()).unwrap();
    let zeros = vec![0; 4 * 4096];
    let views = tensors.iter().map(|(name, shape)| {
        (name, TensorView::new(Dtype::F32, shape.to_vec(), &zeros[..4 * shape[0] * shape[1]]).unwrap())
    });
    safetensors::serialize_to_file(views, None, &at.join("adapter_model.safetensors")).unwrap();
    Adapter::open(at).map_err(|error| error.to_string())
}

#[test]
fn folder_that_is_no_lora_adapter_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let error = Adapter::open(at).unwrap_err().to_string();
    assert!(error.contains("adapter_config.json: No such file"), "{error}");
    let good = [("base_model.model.up.lora_A.weight", [2, 8]), ("base_model.model.up.lora_B.weight", [16, 2])];
    written(at, &json!({}), &good).unwrap();
    let refused = |config: Value, tensors: &[(&str, [usize; 2])], reason: &str| {
        let error = written(at, &config, tensors).unwrap_err();
        assert!(error.contains(reason), "{error}");
    };
    refused(json!({"peft_type": "IA3"}), &good, "`peft_type` is `IA3`, and `LORA` is supported");
    refused(json!({"use_dora": true}), &good, "`use_dora` is true");
    refused(json!({"r": "many"}), &good, "adapter_config.json: invalid type");
    refused(
        json!({"r": 4}),
        &good,
        "`up`: the rank of adapter_config.json is 4, and lora_A has 2 rows and lora_B 2 columns",
    );
    refused(json!({"r": 0}), &good, "the rank of adapter_config.json is 0");
    let [a, b] = good;
    refused(json!({}), &[a], "the tensor `base_model.model.up.lora_A.weight` is not");
    refused(json!({}), &[a], "its other half is missing");
    refused(json!({}), &[a, b, ("base_model.model.up.bias", [1, 16])], "`base_model.model.up.bias`");
    refused(json!({}), &[a, b, ("up.lora_A.weight", [2, 8])], "both change the layer `up`");
    refused(json!({}), &[a, ("base_model.model.up.lora_B.weight", [16, 3])], "lora_B 3 columns");
    refused(json!({}), &[], "it has no tensor");
    std::fs::remove_file(at.join("adapter_model.safetensors")).unwrap();
    let error = Adapter::open(at).unwrap_err().to_string();
    assert!(error.contains("it has neither adapter_model.safetensors nor adapter_model.bin"), "{error}");

    // A saved arena of another pipeline.
    let other = at.join("other.bpk");
    share(&ModelConfig::PEFT.init(&Device::flex())).unwrap().save(&other).unwrap();
    let error = Adapter::open(&other).unwrap_err();
    assert!(matches!(&error, LoraError::Load(_)), "{error}");
}
