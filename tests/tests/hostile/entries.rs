//! Arenas whose manifest contradicts their entries. One case per file.

use serde_json::{Value, json};

use super::Case;
use super::arenas::spoilt;
use super::pack::Draft;

/// Adds a quantised tensor `a` of this scheme, shape and length to the container and the manifest.
fn quantised(
    file: &'static str,
    tries: &'static str,
    refused: &'static str,
    (block, shape, len): (Value, Value, u64),
) -> Case {
    spoilt(file, tries, refused, |draft| {
        let dtype = json!({"QFloat": {
            "value": "Q8S", "store": "Native", "mode": "Symmetric", "tensor": null, "block": block,
        }});
        draft.tensors[0].dtype = dtype.clone();
        draft.tensors[0].shape = shape.as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap()).collect();
        draft.tensors[0].end = len;
        draft.manifest["tensors"].as_array_mut().unwrap().remove(2);
        let entry = &mut draft.manifest["tensors"][0];
        entry["dtype"] = dtype;
        entry["shape"] = shape;
    })
}

fn block(storage: [u8; 5], len: u8) -> Value {
    json!({"size": {"storage": storage, "len": len}, "dtype": "F32"})
}

/// Cases about the entries of the manifest.
pub fn cases() -> Vec<Case> {
    let entry = |draft: &mut Draft, field: &str, value: Value| draft.manifest["tensors"][0][field] = value;
    let of_a = "entry `a` of the arena is corrupted: its quantisation has a block";
    vec![
        spoilt(
            "blob-out-of-range",
            "a blob that is not there",
            "entry `a` of the arena is corrupted: it names blob 3, and there are 3",
            |d| {
                entry(d, "blob", json!(3));
            },
        ),
        spoilt(
            "copy-out-of-range",
            "a copied field whose blob is not there",
            "entry `c` of the arena is corrupted: it names blob 4",
            |d| {
                d.manifest["copies"][0]["blob"] = json!(4_000_000_000_u32);
            },
        ),
        spoilt(
            "blob-missing",
            "a blob that the container does not have",
            "entry `z` of the arena is corrupted: the container",
            |d| {
                d.manifest["blobs"][0]["name"] = json!("z");
            },
        ),
        spoilt(
            "blob-twice",
            "two blobs that are one tensor of the container",
            "entry `a` of the arena is corrupted: two blobs",
            |d| {
                d.manifest["blobs"][1] = d.manifest["blobs"][0].clone();
            },
        ),
        spoilt(
            "path-twice",
            "two tensors of one path",
            "entry `a` of the arena is corrupted: two entries have this path",
            |d| {
                d.manifest["tensors"][2]["path"] = json!("a");
            },
        ),
        spoilt(
            "copy-twice",
            "two copied fields of one path",
            "entry `c` of the arena is corrupted: two entries have this path",
            |d| {
                d.manifest["copies"] = json!([{"path": "c", "blob": 2}, {"path": "c", "blob": 2}]);
            },
        ),
        spoilt(
            "flag-twice",
            "two flags of one path",
            "entry `d` of the arena is corrupted: two entries have this path",
            |d| {
                d.manifest["flags"] = json!([{"path": "d", "enabled": true}, {"path": "d", "enabled": false}]);
            },
        ),
        spoilt(
            "copies-of-one-blob",
            "many copied fields of one blob, each of which costs its size",
            "entry `c2` of the arena is",
            |d| {
                d.manifest["copies"] = json!([{"path": "c", "blob": 2}, {"path": "c2", "blob": 2}]);
            },
        ),
        spoilt(
            "copy-of-a-tensor",
            "a copied field in the bytes of a tensor",
            "entry `c` of the arena is corrupted: its type is U8 in the",
            |d| {
                d.manifest["copies"][0]["blob"] = json!(0);
            },
        ),
        spoilt(
            "entry-shape-overflow",
            "a product of dimensions beyond 64 bits",
            "entry `a` of the arena is corrupted: shape [4",
            |d| {
                entry(d, "shape", json!([1_u64 << 32, 1_u64 << 32, 6]));
            },
        ),
        spoilt(
            "entry-shape",
            "a shape that needs other bytes",
            "entry `a` of the arena is corrupted: F32 of shape [2, 4] does",
            |d| {
                entry(d, "shape", json!([2, 4]));
            },
        ),
        spoilt(
            "kind-confusion",
            "floating point numbers as integers",
            "entry `a` of the arena is corrupted: a tensor of kind int",
            |d| {
                entry(d, "kind", json!("Int"));
            },
        ),
        spoilt(
            "dtype-confusion",
            "I32 in the manifest, F32 in the container",
            "entry `a` of the arena is corrupted: its type is I32",
            |d| {
                entry(d, "dtype", json!("I32"));
            },
        ),
        spoilt(
            "weight-changed",
            "another weight than was shared",
            "entry `a` of the arena is corrupted: BLAKE3 is",
            |d| d.data[23] ^= 1,
        ),
        spoilt(
            "copy-changed",
            "another copied value than was shared",
            "entry `copied: c` of the arena is corrupted: BLAKE3",
            |d| {
                d.data[512] ^= 0x80;
            },
        ),
        quantised(
            "quantised-short",
            "quantised values without their scale",
            "entry `a` of the arena is corrupted: QuantScheme",
            (json!(null), json!([2, 3]), 6),
        ),
        quantised(
            "quantised-2-to-the-40",
            "a terabyte of quantised values in 24 bytes",
            "entry `a` of the arena is corrupted: QuantScheme",
            (json!(null), json!([1_u64 << 40]), 24),
        ),
        quantised(
            "quantised-overflow",
            "more quantised values than can be counted",
            "entry `a` of the arena is corrupted: shape [",
            (json!(null), json!([1_u64 << 62, 8]), 24),
        ),
        quantised(
            "quantised-block-of-0",
            "scales for blocks of no value",
            of_a,
            (block([0, 1, 1, 1, 1], 1), json!([20]), 24),
        ),
        quantised(
            "quantised-block-of-200",
            "blocks of 200 dimensions",
            of_a,
            (block([2, 1, 1, 1, 1], 200), json!([20]), 24),
        ),
    ]
}
