//! Valid inputs as seeds for the fuzz targets, from which a fuzzer reaches more code.

use std::path::Path;

use serde_json::json;

use super::pack::{Draft, FORMAT};
use super::{checkpoints, messages, pickles};

/// The seeds of each target, by name. `tests/tests/corpus.rs` checks that they are accepted.
fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = vec![
        ("arena", "valid".to_owned(), Draft::valid().bytes()),
        ("manifest", "valid".to_owned(), manifest().into_bytes()),
        ("variant", "valid".to_owned(), ray_zerocopy::__private::fuzz::variant_seed().unwrap().into_bytes()),
        ("checkpoint", "valid-safetensors".to_owned(), checkpoints::good()),
        ("checkpoint", "valid-arena".to_owned(), Draft::valid().bytes()),
    ];
    let mut burnpack = Draft::valid();
    burnpack.text = Some("no arena".to_owned());
    seeds.push(("checkpoint", "valid-burnpack".to_owned(), burnpack.bytes()));
    let [pickle, archive, old] = pickles::valid();
    seeds.push(("pytorch", "valid".to_owned(), pickle));
    seeds.push(("checkpoint", "valid-pytorch".to_owned(), archive));
    seeds.push(("checkpoint", "valid-pytorch-old".to_owned(), old));
    let messages = messages::valid().into_iter().enumerate();
    seeds.extend(messages.map(|(at, bytes)| ("message", format!("valid-{at}"), bytes)));
    seeds
}

pub fn write(folder: &Path) {
    for (target, name, bytes) in seeds() {
        std::fs::create_dir_all(folder.join(target)).unwrap();
        std::fs::write(folder.join(target).join(name), bytes).unwrap();
    }
}

/// A manifest for the container that the target puts around it, in which every byte is 1.
fn manifest() -> String {
    let blob =
        |name: &str, len: usize| json!({"name": name, "blake3": blake3::hash(&vec![1; len]).to_hex().to_string()});
    let tensor = |path: &str, blob: u32, kind: &str, dtype: &str, shape: &[u64]| json!({"path": path, "blob": blob, "kind": kind, "dtype": dtype, "shape": shape, "param": 7});
    json!({
        "format": FORMAT,
        "pipeline": "P",
        "fingerprint": "",
        "tensors": [
            tensor("a.weight", 0, "Float", "F32", &[2, 3]),
            tensor("a.tied", 0, "Float", "F32", &[6]),
            tensor("b", 1, "Float", "F16", &[1, 6, 1]),
            tensor("c", 2, "Int", "I64", &[2]),
            tensor("e", 4, "Float", "F32", &[0, 9]),
        ],
        "copies": [{"path": "d", "blob": 3}],
        "flags": [{"path": "f", "enabled": true}],
        "structure": ["g: module", "h: variant H"],
        "blobs": [blob("f", 24), blob("h", 12), blob("i", 16), blob("copied: c", 6), blob("e", 0)],
    })
    .to_string()
}
