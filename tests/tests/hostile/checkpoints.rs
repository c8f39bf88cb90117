//! Malicious checkpoints in the formats of other programs.

use serde_json::json;

use super::Case;
use super::pack::{Cbor, Draft};

/// A safetensors file with this header and a number of data bytes.
fn safetensors(file: &'static str, tries: &'static str, refused: &'static str, header: &str, data: usize) -> Case {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    Case { file, tries, refused, bytes }
}

/// A safetensors file with tensors given as JSON.
fn tensors(
    file: &'static str,
    tries: &'static str,
    refused: &'static str,
    header: serde_json::Value,
    data: usize,
) -> Case {
    safetensors(file, tries, refused, &header.to_string(), data)
}

fn raw(file: &'static str, tries: &'static str, refused: &'static str, bytes: &[u8]) -> Case {
    Case { file, tries, refused, bytes: bytes.to_vec() }
}

fn index(file: &'static str, tries: &'static str, refused: &'static str, text: &str) -> Case {
    raw(file, tries, refused, text.as_bytes())
}

fn entry(dtype: &str, shape: &[u64], start: u64, end: u64) -> serde_json::Value {
    json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]})
}

pub fn cases() -> Vec<Case> {
    let mut cases = headers();
    cases.extend(entries());
    cases.extend(indexes());
    cases.extend(others());
    cases
}

fn headers() -> Vec<Case> {
    let cut = "it is incomplete, as a download that was cut: ";
    let bytes = "it is neither a `.safetensors`, a `.bpk`, a file of `torch.save`, an index of such, nor a folder with one of them: it starts with the bytes";
    let invalid = "it is corrupted: invalid JSON in header";
    vec![
        raw("empty.safetensors", "no byte at all", "it is incomplete, as a download that was cut: it is empty", &[]),
        raw(
            "cut-in-length.safetensors",
            "ends in the length of its header",
            "it is incomplete, as a download that was cut: it has 7 bytes",
            &[0; 7],
        ),
        raw("header-2-to-the-64.safetensors", "a header of all bytes there can be", bytes, &[0xff; 16]),
        raw(
            "header-beyond.safetensors",
            "a header that ends one byte behind the file",
            cut,
            &[3, 0, 0, 0, 0, 0, 0, 0, b'{', b'}'],
        ),
        raw(
            "header-of-100-mib.safetensors",
            "the largest header that is allowed, in a small file",
            cut,
            &[0, 0xe1, 0xf5, 5, 0, 0, 0, 0, b'{'],
        ),
        safetensors("header-empty.safetensors", "a header of no byte", bytes, "", 8),
        safetensors("header-no-json.safetensors", "a header that is no JSON", invalid, "{weights}", 0),
        safetensors("header-deep.safetensors", "objects in objects in objects", invalid, &"{\"a\":".repeat(2000), 0),
        safetensors("header-cut.safetensors", "a header that ends in the middle of a name", invalid, "{\"weig", 0),
    ]
}

fn entries() -> Vec<Case> {
    let offsets = "it is corrupted: invalid offset for tensor `";
    let shape = "it is corrupted: invalid shape, data type, or offset for tensor";
    vec![
        tensors(
            "dtype-unknown.safetensors",
            "a type of elements that the format does not have",
            "it is corrupted: invalid JSON",
            json!({"a": entry("F31", &[1], 0, 4)}),
            4,
        ),
        tensors(
            "offsets-backwards.safetensors",
            "a tensor that ends before it starts",
            offsets,
            json!({"a": entry("F32", &[1], 4, 0)}),
            4,
        ),
        tensors(
            "offsets-beyond.safetensors",
            "a tensor that ends behind the file",
            "it is incomplete, as a download that was cut: 4 of its bytes are missing",
            json!({"a": entry("F32", &[2], 0, 8)}),
            4,
        ),
        tensors(
            "offsets-overlap.safetensors",
            "two tensors of the same bytes",
            offsets,
            json!({"a": entry("F32", &[2], 0, 8), "b": entry("F32", &[2], 4, 12)}),
            12,
        ),
        tensors(
            "offsets-hole.safetensors",
            "bytes that belong to no tensor",
            offsets,
            json!({"a": entry("F32", &[1], 0, 4), "b": entry("F32", &[1], 8, 12)}),
            12,
        ),
        tensors(
            "offsets-2-to-the-64.safetensors",
            "a tensor that ends where no file does",
            "it is corrupted: ",
            json!({"a": entry("U8", &[u64::MAX], 0, u64::MAX)}),
            4,
        ),
        tensors(
            "shape-overflow.safetensors",
            "a product of dimensions beyond 64 bits",
            "it is corrupted: ",
            json!({"a": entry("F32", &[1 << 32, 1 << 32], 0, 4)}),
            4,
        ),
        tensors(
            "shape-other.safetensors",
            "a shape that needs other bytes",
            shape,
            json!({"a": entry("F32", &[2, 2], 0, 4)}),
            4,
        ),
        safetensors(
            "shape-negative.safetensors",
            "a dimension below zero",
            "it is corrupted: invalid JSON in header",
            "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}",
            4,
        ),
        tensors(
            "bytes-behind.safetensors",
            "bytes behind the last tensor",
            "it is corrupted: ",
            json!({"a": entry("F32", &[1], 0, 4)}),
            400,
        ),
        tensors(
            "cut-in-tensor.safetensors",
            "ends one byte before its tensor does",
            "it is incomplete, as a download that was cut: 1 of its bytes are missing",
            json!({"a": entry("F32", &[1], 0, 4)}),
            3,
        ),
    ]
}

fn indexes() -> Vec<Case> {
    let unreadable = "it: it is unreadable: ";
    let map = |shard: &str| json!({"weight_map": {"a": shard}}).to_string();
    let many: serde_json::Map<_, _> =
        (0..300).map(|at| (format!("t{at}"), json!(format!("{at}.safetensors")))).collect();
    vec![
        index("no-json.index.json", "an index that is no JSON", unreadable, "weights"),
        index("no-map.index.json", "an index without its map", unreadable, "{\"metadata\":{}}"),
        index(
            "deep.index.json",
            "lists in lists in lists",
            unreadable,
            &format!("{{\"weight_map\":{}", "[".repeat(5000)),
        ),
        index(
            "absolute.index.json",
            "a file elsewhere on the machine",
            "it: `a` is said to be in `/etc/hostname`, which is not a file beside",
            &map("/etc/hostname"),
        ),
        index(
            "parent.index.json",
            "a file in the folder above",
            "it: `a` is said to be in `../README.md`, which is not a file beside",
            &map("../README.md"),
        ),
        index(
            "folder.index.json",
            "the folder itself",
            "it: `a` is said to be in `.`, which is not a file beside",
            &map("."),
        ),
        index(
            "nameless.index.json",
            "a file without a name",
            "it: `a` is said to be in ``, which is not a file beside",
            &map(""),
        ),
        index(
            "itself.index.json",
            "the index as its own file",
            "it is not a checkpoint, but a JSON text",
            &map("itself.index.json"),
        ),
        index(
            "missing.index.json",
            "a file that is not there",
            "missing.safetensors: No such file",
            &map("missing.safetensors"),
        ),
        index(
            "other-tensor.index.json",
            "a tensor that the file does not have",
            "it: `a` is said to be in `good.safetensors`, which does not",
            &map("good.safetensors"),
        ),
        index(
            "broken.index.json",
            "a file that is broken",
            "offsets-hole.safetensors is corrupted: ",
            &map("offsets-hole.safetensors"),
        ),
        index(
            "300-files.index.json",
            "more files than a worker can be given",
            "it: it names 300 files, and",
            &json!({"weight_map": many}).to_string(),
        ),
    ]
}

fn others() -> Vec<Case> {
    let quantised = |block: serde_json::Value| {
        let mut draft = Draft::valid();
        draft.text = Some("no arena".to_owned());
        draft.tensors[0].dtype = json!({"QFloat": {
            "value": "Q8S", "store": "Native", "mode": "Symmetric", "tensor": null, "block": block,
        }});
        draft
    };
    let mut deep = Draft::valid();
    deep.extra.push((Cbor::text("x"), Cbor::Raw(vec![0x81; 10_000])));
    let block = json!({"size": {"storage": [0, 1, 1, 1, 1], "len": 1}, "dtype": "F32"});
    vec![
        raw(
            "archive.bin",
            "a file of another kind",
            "it is incomplete, as a download that was cut: its table of contents is missing",
            b"PK\x03\x04, and what else is in an archive",
        ),
        raw("nothing.bin", "no byte at all", "it is neither a `.safetensors`, a `.bpk`", b""),
        Case {
            file: "deep.bpk",
            tries: "lists in lists in lists",
            refused: "it is corrupted: Metadata des",
            bytes: deep.bytes(),
        },
        Case {
            file: "quantised-length.bpk",
            tries: "quantised values without their scale",
            refused: "it is corrupted: tensor `a`: QuantScheme {",
            bytes: quantised(json!(null)).bytes(),
        },
        Case {
            file: "quantised-block.bpk",
            tries: "scales for blocks of no value",
            refused: "it is corrupted: tensor `a`: its quantisation has a block",
            bytes: quantised(block).bytes(),
        },
    ]
}

/// The valid file, which an index refers to.
pub fn good() -> Vec<u8> {
    tensors("", "", "", json!({"b": entry("F32", &[1], 0, 4)}), 4).bytes
}
