//! Malicious arenas. One case per file.

use serde_json::json;

use super::Case;
use super::pack::{Cbor, Draft};

/// A case that changes one thing of a valid arena.
pub fn spoilt(file: &'static str, tries: &'static str, refused: &'static str, spoil: impl FnOnce(&mut Draft)) -> Case {
    let mut draft = Draft::valid();
    spoil(&mut draft);
    Case { file, tries, refused, bytes: draft.bytes() }
}

fn cut(
    file: &'static str,
    tries: &'static str,
    refused: &'static str,
    len: impl FnOnce(usize, usize) -> usize,
) -> Case {
    let draft = Draft::valid();
    let (mut bytes, head) = (draft.bytes(), 10 + draft.head().len());
    bytes.truncate(len(head, bytes.len()));
    Case { file, tries, refused, bytes }
}

/// Text that opens a thousand brackets.
fn deep() -> String {
    "[".repeat(1000)
}

pub fn cases() -> Vec<Case> {
    let mut cases = frames();
    cases.extend(tables());
    cases.extend(manifests());
    cases.extend(super::entries::cases());
    cases
}

/// Cases about the header and the length of the file.
fn frames() -> Vec<Case> {
    let truncated = "not an arena: Validation error: File truncated: expected at least";
    vec![
        cut("empty", "no byte at all", "not an arena: it is empty", |_, _| 0),
        cut("cut-in-header", "ends one byte before its header does", truncated, |_, _| 9),
        cut("cut-behind-header", "ends with its header, which promises a table", truncated, |_, _| 10),
        cut("cut-in-table", "ends in the middle of its table", truncated, |head, _| head / 2),
        cut("cut-before-end-of-table", "ends one byte before its table does", truncated, |head, _| head - 1),
        cut("cut-behind-table", "ends with its table, which promises tensors", truncated, |head, _| head),
        cut("cut-in-tensor", "ends in the middle of its first tensor", truncated, |_, len| len - 512 + 6),
        cut("cut-before-end", "ends one byte before its last tensor does", truncated, |_, len| len - 1),
        spoilt(
            "version-0",
            "an older version of burnpack",
            "not an arena: it is a burnpack container of version 0",
            |d| {
                d.version = 0;
            },
        ),
        spoilt("version-2", "an unknown version of burnpack", "not an arena: Unsupported version", |d| d.version = 2),
        spoilt(
            "table-of-4-gib",
            "a table as large as its field allows",
            "not an arena: Validation error: Metadata size",
            |d| {
                d.longer = i64::from(u32::MAX) - d.head().len() as i64;
            },
        ),
        spoilt("table-of-100-mib", "the largest table that burnpack reads, in a small file", truncated, |d| {
            d.longer = (100 << 20) - d.head().len() as i64;
        }),
        spoilt(
            "table-longer",
            "a byte behind the table",
            "not an arena: its head does not end with its manifest",
            |d| {
                d.longer = 1;
            },
        ),
        spoilt("table-shorter", "a table without its last byte", "not an arena: Metadata deserialization error", |d| {
            d.longer = -1;
        }),
        Case {
            file: "other-file",
            tries: "a file of another kind",
            refused: "not an arena: Invalid magic number",
            bytes: b"PK\x03\x04, and what else is in an archive".to_vec(),
        },
    ]
}

/// Cases about the table of the container.
fn tables() -> Vec<Case> {
    let unreadable = "not an arena: Metadata deserialization error";
    let lies = |head: Vec<u8>| Some(Cbor::Raw(head));
    vec![
        spoilt(
            "deep-table",
            "lists in lists in lists",
            "not an arena: Metadata deserialization error: Recursion",
            |d| {
                d.extra.push((Cbor::text("x"), Cbor::Raw(vec![0x81; 10_000])));
            },
        ),
        spoilt(
            "tensors-2-to-the-60",
            "a table that claims more tensors than there are atoms to store them",
            unreadable,
            |d| {
                d.instead = lies(Cbor::head(5, 1 << 60));
            },
        ),
        spoilt("name-of-4-exabytes", "a name that claims to be longer than all memory", unreadable, |d| {
            d.instead = lies([Cbor::head(5, 1), Cbor::head(3, 1 << 62)].concat());
        }),
        spoilt("dimensions-2-to-the-60", "a shape that claims as many dimensions", unreadable, |d| {
            let mut bytes = [Cbor::head(5, 1), Cbor::head(3, 1), b"a".to_vec(), Cbor::head(5, 3)].concat();
            Cbor::text("shape").write(&mut bytes);
            bytes.extend(Cbor::head(4, 1 << 60));
            d.instead = lies(bytes);
        }),
        spoilt(
            "offsets-backwards",
            "a tensor that ends before it starts",
            "not an arena: Validation error: Tensor 'a' has",
            |d| {
                (d.tensors[0].start, d.tensors[0].end) = (24, 0);
            },
        ),
        spoilt(
            "offset-overflow",
            "a tensor whose end is beyond all addresses",
            "not an arena: Validation error: Tensor 'a' has",
            |d| {
                (d.tensors[0].start, d.tensors[0].end) = (u64::MAX - 23, u64::MAX);
            },
        ),
        spoilt(
            "outside",
            "a tensor that ends behind the file",
            "not an arena: Validation error: File truncated",
            |d| {
                (d.tensors[1].start, d.tensors[1].end) = (1 << 20, (1 << 20) + 16);
            },
        ),
        spoilt(
            "tensor-of-10-gib",
            "a tensor that is larger than the file",
            "not an arena: Validation error: File truncated",
            |d| {
                d.tensors[0].shape = vec![10 << 28];
                d.tensors[0].end = 10 << 30;
            },
        ),
        spoilt(
            "shape-overflow",
            "a product of dimensions beyond 64 bits",
            "not an arena: Validation error: tensor 'a' byte length",
            |d| {
                d.tensors[0].shape = vec![1 << 32, 1 << 32, 6];
            },
        ),
        spoilt(
            "shape-other",
            "a shape that needs other bytes",
            "not an arena: Validation error: tensor 'a' declares 24 bytes",
            |d| {
                d.tensors[0].shape = vec![2, 4];
            },
        ),
        spoilt(
            "misaligned",
            "a tensor that starts at byte 4",
            "entry `a` of the arena is corrupted: it starts at byte",
            |d| {
                (d.tensors[0].start, d.tensors[0].end) = (4, 28);
            },
        ),
        spoilt(
            "overlapping",
            "a tensor that starts in another one",
            "entry `b` of the arena is corrupted: its bytes overlap those of",
            |d| {
                d.tensors[0].end = 24 + 256;
                d.tensors[0].shape = vec![70];
                d.manifest["tensors"].as_array_mut().unwrap().remove(2);
                d.manifest["tensors"][0]["shape"] = json!([70]);
            },
        ),
        spoilt(
            "same-place",
            "two tensors of the same bytes",
            "entry `copied: c` of the arena is corrupted: its bytes",
            |d| {
                (d.tensors[2].start, d.tensors[2].end) = (256, 262);
            },
        ),
    ]
}

/// Cases about the text of the manifest.
fn manifests() -> Vec<Case> {
    let unreadable = "not an arena: its manifest is unreadable";
    let text = |draft: &mut Draft, text: &str| draft.text = Some(text.to_owned());
    vec![
        spoilt(
            "manifest-checksum",
            "a manifest that was changed",
            "the arena's manifest is corrupted: BLAKE3 is",
            |d| {
                d.checksum = Some("0".repeat(64));
            },
        ),
        spoilt("manifest-no-json", "no manifest but another text", unreadable, |d| text(d, "weights")),
        spoilt("manifest-empty", "an empty manifest", unreadable, |d| text(d, "")),
        spoilt("manifest-deep", "a manifest of lists in lists", "not an arena: its manifest is unreadable: EOF", |d| {
            text(d, &format!("{{\"format\":{},\"x\":{}", super::pack::FORMAT, deep()));
        }),
        spoilt(
            "manifest-format",
            "a manifest of another version",
            "the arena's format is 999, and this build reads",
            |d| {
                d.manifest["format"] = json!(999);
            },
        ),
        spoilt("manifest-without-blobs", "a manifest without its list of blobs", unreadable, |d| {
            d.manifest.as_object_mut().unwrap().remove("blobs");
        }),
        spoilt(
            "fingerprint",
            "the fingerprint of another schema",
            "entry `hostile::Model` of the arena is corrupted: its schema fingerprint",
            |d| {
                d.fingerprint = false;
                d.manifest["fingerprint"] = json!("0".repeat(64));
            },
        ),
        spoilt("dtype-unknown", "a dtype that burn does not have", unreadable, |d| {
            d.manifest["tensors"][0]["dtype"] = json!("F31")
        }),
        spoilt("blob-beyond-32-bits", "a number that does not fit its field", unreadable, |d| {
            d.manifest["tensors"][0]["blob"] = json!(1_u64 << 32);
        }),
        spoilt("dimension-negative", "a dimension below zero", unreadable, |d| {
            d.manifest["tensors"][0]["shape"] = json!([-2, -3])
        }),
    ]
}
