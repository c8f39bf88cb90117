//! `rzc verify`: finds and names damage, and reports files without checksums.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::fs;

use common::{Folder, checkpoint, damage, rzc};
use serde_json::json;

#[test]
fn damage_is_found_and_named() {
    let folder = Folder::new();
    let arena = folder.arena("arena.bpk", 16);
    let file = folder.safetensors("model.safetensors", &checkpoint());
    let packed = folder.at("model.bpk");
    rzc(&["pack", &file]).well();
    let done = rzc(&["verify", &arena, &packed]).well().out;
    assert!(done.contains("arena.bpk: ok: 4 tensors, 1.1 KiB and 2 copied fields, all checksums match"), "{done}");
    assert!(done.contains("model.bpk: ok: 8 tensors, "), "{done}");

    let json = rzc(&["inspect", &packed, "--json"]).well().json();
    let tensor = json["tensors"].as_array().unwrap().iter().find(|t| t["path"] == json!("net.two.weight")).unwrap();
    damage(&packed, tensor);
    let done = rzc(&["verify", &arena, &packed]);
    assert_eq!((done.code, done.err.as_str()), (Some(1), ""), "{done:?}");
    assert!(done.out.contains("model.bpk: DAMAGED: entry `net.two.weight`"), "{done:?}");
    assert!(done.out.contains("arena.bpk: ok"), "{done:?}");

    let done = rzc(&["verify", "--json", &arena, &packed]);
    let json = done.json();
    assert_eq!((done.code, &json["ok"]), (Some(1), &json!(false)));
    assert_eq!((&json["files"][0]["result"], &json["files"][1]["result"]), (&json!("ok"), &json!("damaged")));
    assert_eq!(json["files"][1]["damaged_entry"], json!("net.two.weight"));
    // `inspect` reads only the head, and does not notice.
    rzc(&["inspect", &packed]).well();
}

#[test]
fn a_changed_head_is_found_or_changes_nothing() {
    let folder = Folder::new();
    let file = folder.arena("arena.bpk", 4);
    let whole = fs::read(&file).unwrap();
    let json = rzc(&["inspect", &file, "--json"]).well().json();
    let head = json["tensors"].as_array().unwrap().iter().map(|t| t["offset"].as_u64().unwrap()).min().unwrap();
    let text = whole.windows(2).position(|bytes| bytes == b"{\"").unwrap();
    let mut refused = 0;
    // A sample of positions: the header and the manifest.
    for at in (0..10).chain((text..head as usize).step_by(17)) {
        let mut other = whole.clone();
        other[at] ^= 0x10;
        let other = folder.write("other.bpk", &other);
        let done = rzc(&["verify", &other]);
        match done.code {
            // burnpack accepts a header length beyond what it uses.
            Some(0) => {
                rzc(&["diff", &file, &other]).well();
            }
            Some(1 | 2) => refused += 1,
            _ => panic!("byte {at}: {done:?}"),
        }
    }
    assert!(refused > 40, "{refused}");
}

#[test]
fn without_checksums_only_the_structure_is_checked() {
    let folder = Folder::new();
    let file = folder.safetensors("model.safetensors", &checkpoint());
    let done = rzc(&["verify", &file]).well().out;
    assert!(done.contains("no checksums") && done.contains("changed bytes would not be detected"), "{done}");
    let json = rzc(&["verify", &file, "--json"]).well().json();
    assert_eq!((&json["ok"], &json["files"][0]["result"]), (&json!(true), &json!("no-checksums")));
    assert_eq!(json["files"][0]["tensors_with_checksum"], json!(0));

    let bytes = fs::read(&file).unwrap();
    let short = folder.write("short.safetensors", &bytes[..bytes.len() - 4]);
    let done = rzc(&["verify", &short]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.out.contains("short.safetensors: DAMAGED: "), "{done:?}");
}

#[test]
fn what_cannot_be_looked_at_does_not_stop_the_rest() {
    let folder = Folder::new();
    let arena = folder.arena("arena.bpk", 4);
    let bytes = fs::read(&arena).unwrap();
    let short = folder.write("short.bpk", &bytes[..bytes.len() - 1]);
    let text = folder.write("text.bpk", b"hello, world");
    let done = rzc(&["verify", &folder.at("nowhere.bpk"), &short, &text, &arena]);
    assert_eq!(done.code, Some(2), "{done:?}");
    assert_eq!(done.err.lines().filter(|line| line.starts_with("error: ")).count(), 2, "{done:?}");
    assert_eq!(done.err.lines().count(), 2, "{done:?}");
    assert!(done.out.contains("short.bpk: DAMAGED") && done.out.contains("arena.bpk: ok"), "{done:?}");
    assert_eq!(rzc(&["verify", &short]).code, Some(1));
    assert_eq!(rzc(&["verify"]).code, Some(2));
}
