//! Malicious variants of a valid arena. One case per file.

use std::path::Path;

use ray_zerocopy::Arena;
use serde_json::json;

use super::Case;
use super::pack::Draft;

/// The base of all variants.
pub fn base() -> Arena {
    Arena::from_memfd(super::memfd(&Draft::valid().bytes())).unwrap()
}

/// The offset of the base's tensor `a` in its container.
fn offset() -> u64 {
    let draft = Draft::valid();
    (draft.bytes().len() - draft.data.len()) as u64
}

/// A variant that stores `b` and the copied field, and borrows `a`.
pub fn valid() -> Draft {
    let mut draft = Draft::valid();
    draft.tensors.remove(0);
    draft.manifest["bases"] = json!([base().id().to_hex()]);
    draft.manifest["blobs"][0]["base"] = json!({"base": 0, "offset": offset(), "len": 24});
    draft
}

/// A case that changes one thing of a valid variant.
fn spoilt(file: &'static str, tries: &'static str, refused: &'static str, spoil: impl FnOnce(&mut Draft)) -> Case {
    let mut draft = valid();
    spoil(&mut draft);
    Case { file, tries, refused, bytes: draft.bytes() }
}

/// Opens a variant with its base, and verifies it.
pub fn open(path: &Path) -> Result<(), String> {
    let opened = Arena::open_variant(path, &base()).and_then(|variant| variant.verify());
    opened.map_err(|error| error.to_string().replace(&path.display().to_string(), "it"))
}

pub fn cases() -> Vec<Case> {
    let place = |draft: &mut Draft, field: &str, value: u64| draft.manifest["blobs"][0]["base"][field] = json!(value);
    let of_a = "entry `a` of the arena is corrupted: its base, arena";
    vec![
        spoilt(
            "base-out-of-range",
            "a base that is not there",
            "entry `a` of the arena is corrupted: it names base 1",
            |d| {
                place(d, "base", 1);
            },
        ),
        spoilt("outside-of-the-base", "bytes behind the end of the base", of_a, |d| place(d, "offset", 1 << 40)),
        spoilt("offset-beyond-all-addresses", "bytes whose end is beyond 64 bits", of_a, |d| {
            place(d, "offset", u64::MAX - 11);
        }),
        spoilt("table-of-the-base", "the base's table of contents as a weight", of_a, |d| place(d, "offset", 0)),
        spoilt("between-tensors", "bytes that start in one tensor of the base and end behind it", of_a, |d| {
            place(d, "offset", offset() + 8);
        }),
        spoilt("longer-than-the-tensor", "more bytes than the tensor of the base has", of_a, |d| {
            place(d, "len", 32);
            d.manifest["tensors"][0]["shape"] = json!([2, 4]);
            d.manifest["tensors"][2]["shape"] = json!([8]);
        }),
        spoilt(
            "checksum-of-other-bytes",
            "another checksum than that of the base",
            "entry `a` of the arena is corrupted: its checksum is 0000",
            |d| d.manifest["blobs"][0]["blake3"] = json!("0".repeat(64)),
        ),
        spoilt(
            "without-checksum",
            "borrowed bytes without a checksum",
            "entry `a` of the arena is corrupted: it has no checksum",
            |d| d.manifest["blobs"][0]["blake3"] = json!(null),
        ),
        spoilt(
            "place-twice",
            "many blobs of one place, each of which is read",
            "entry `a2` of the arena is corrupted: another blob has the same place",
            |d| {
                let mut again = d.manifest["blobs"][0].clone();
                again["name"] = json!("a2");
                d.manifest["blobs"].as_array_mut().unwrap().push(again);
                d.manifest["tensors"][2]["blob"] = json!(3);
            },
        ),
        spoilt(
            "base-twice",
            "many bases that are one, so that each place can be read often",
            "entry `hostile::Model` of the arena is corrupted: it names the base",
            |d| {
                let id = d.manifest["bases"][0].clone();
                d.manifest["bases"].as_array_mut().unwrap().push(id);
            },
        ),
        spoilt(
            "file-and-base",
            "bytes that are in a file and in a base",
            "entry `a` of the arena is corrupted: it is both in a file and in another arena",
            |d| {
                d.manifest["blobs"][0]["file"] = json!({"file": 0, "offset": 0, "len": 24});
                d.manifest["blobs"][0]["blake3"] = json!(null);
            },
        ),
        spoilt("id-of-no-arena", "a base whose id is not one", "not an arena: its manifest is unreadable", |d| {
            d.manifest["bases"] = json!(["weights"]);
        }),
        spoilt("other-base", "the variant of another arena", "it is a variant of arena 0707", |d| {
            d.manifest["bases"] = json!(["07".repeat(32)]);
        }),
        spoilt(
            "copy-of-a-weight",
            "a copied field in the bytes of a weight",
            "entry `c` of the arena is corrupted: its bytes overlap",
            |d| d.manifest["copies"][0]["blob"] = json!(0),
        ),
        spoilt(
            "kind-confusion",
            "floating point numbers of the base as integers",
            "entry `a` of the arena is corrupted: a tensor of kind int",
            |d| d.manifest["tensors"][0]["kind"] = json!("Int"),
        ),
        spoilt(
            "weight-changed",
            "another stored weight than the manifest's",
            "entry `b` of the arena is corrupted: BLAKE3",
            |d| d.data[256] ^= 1,
        ),
    ]
}
