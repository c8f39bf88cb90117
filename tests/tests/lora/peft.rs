//! The results of PEFT.

use burn::tensor::{DType, Device};
use ray_zerocopy::lora::Adapter;
use ray_zerocopy::{Arena, Checkpoint, load, share_from};

use crate::net::{Model, ModelConfig, difference, folder, results};

fn base() -> Arena {
    let checkpoint = Checkpoint::open(folder().join("base.safetensors")).unwrap().from_pytorch().rename("^", "net.");
    share_from(&ModelConfig::PEFT.init(&Device::flex()), &checkpoint.unwrap()).unwrap()
}

fn adapter(name: &str) -> Adapter {
    Adapter::options().rename("^", "net.").unwrap().open(folder().join(name)).unwrap()
}

#[test]
fn results_are_those_of_peft() {
    let results = results();
    let model = load::<Model>(&base(), &Device::flex()).unwrap();
    for name in ["plain", "patterns"] {
        model.adapters.add(name, &adapter(name)).unwrap();
    }
    for name in ["plain", "patterns"] {
        let found = model.run(results["x"].clone(), Some(name.to_owned())).unwrap();
        let [apart, merged] =
            [name.to_owned(), format!("{name}.merged")].map(|name| difference(&found, &results[&name]));
        // The rounding of f32: PEFT differs as much from its own merged weights.
        assert!(apart < 1e-6 && merged < 1e-6, "{name}: {apart} {merged}");
        assert!(difference(&found, &results["base"]) > 0.1, "the adapter changes the result");
    }
    // The base computes what it did before, and what torch does.
    let found = model.run(results["x"].clone(), None).unwrap();
    assert!(difference(&found, &results["base"]) < 1e-6);
}

#[test]
fn ranks_and_scales_are_those_of_the_config() {
    let layers = |name: &str| {
        let adapter = adapter(name);
        adapter.layers().map(|layer| (layer.path.to_owned(), layer.rank, layer.scale)).collect::<Vec<_>>()
    };
    assert_eq!(layers("plain"), [("net.down".to_owned(), 4, 2.0), ("net.up".to_owned(), 4, 2.0)]);
    let expected = [("net.down".to_owned(), 4, 1.5), ("net.up".to_owned(), 2, 8.0 / 2_f64.sqrt())];
    assert_eq!(layers("patterns"), expected);
}

#[test]
fn saved_adapter_is_the_same_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain.bpk");
    let plain = adapter("plain");
    plain.save(&path).unwrap();
    let opened = Adapter::open(&path).unwrap();
    assert_eq!((opened.id(), opened.layers().collect::<Vec<_>>()), (plain.id(), plain.layers().collect::<Vec<_>>()));
    let results = results();
    let model = load::<Model>(&base(), &Device::flex()).unwrap();
    model.adapters.add("opened", &opened).unwrap();
    let found = model.run(results["x"].clone(), Some("opened".to_owned())).unwrap();
    assert!(difference(&found, &results["plain"]) < 1e-6);
}

#[test]
fn pairs_are_cast_on_request() {
    let adapter = Adapter::options().cast_floats(DType::F16).open(folder().join("plain")).unwrap();
    let dtypes: Vec<_> = adapter.arena().tensors().map(|tensor| tensor.dtype).collect();
    assert_eq!(dtypes, [DType::F16; 4]);
    // The names are those of PEFT if they are not changed.
    assert_eq!(adapter.layers().map(|layer| layer.path.to_owned()).collect::<Vec<_>>(), ["down", "up"]);
}
