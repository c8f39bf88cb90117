//! Reading the head of a file needs neither memory nor address space for the rest of the file.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::fs;
use std::process::Command;

use common::{Done, Folder, finish};

/// A file size above the limit of address space below.
const BYTES: u64 = 9 << 30;

/// Runs `rzc` with less address space than that, as in a job of a cluster.
fn limited(arguments: &[&str]) -> Done {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -v 4000000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_rzc")]).args(arguments);
    finish(&mut shell)
}

/// Creates a sparse file that starts with these bytes.
fn sparse(folder: &Folder, name: &str, head: &[u8], len: u64) -> String {
    let path = folder.write(name, head);
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
    path
}

fn shown(path: &str) {
    let found = limited(&["inspect", "--json", path]).well().json();
    let tensors = found["tensors"].as_array().unwrap();
    assert_eq!((tensors.len(), &tensors[0]["path"], &tensors[0]["bytes"]), (1, &"w".into(), &BYTES.into()), "{found}");
}

#[test]
fn the_head_of_a_safetensors_file_is_read_without_room_for_the_rest() {
    let folder = Folder::new();
    let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{BYTES}],"data_offsets":[0,{BYTES}]}}}}"#);
    let head = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    shown(&sparse(&folder, "big.safetensors", &head, head.len() as u64 + BYTES));
    // Errors in the head are found as well.
    let short = sparse(&folder, "short.safetensors", &head, head.len() as u64 + BYTES - 1);
    let done = limited(&["inspect", &short]);
    assert!(done.error().contains("1 of its bytes are missing"), "{done:?}");
}

#[test]
fn the_head_of_a_burnpack_file_is_read_without_room_for_the_rest() {
    let folder = Folder::new();
    let text = |text: &str| [&[0x60 + text.len() as u8], text.as_bytes()].concat();
    let number = |number: u64| [&[0x1b], &number.to_be_bytes()[..]].concat();
    // {"tensors": {"w": {"dtype": "U8", "shape": [BYTES], "data_offsets": [0, BYTES]}}}
    let metadata = [
        &[0xa1][..],
        &text("tensors"),
        &[0xa1],
        &text("w"),
        &[0xa3],
        &text("dtype"),
        &text("U8"),
        &text("shape"),
        &[0x81],
        &number(BYTES),
        &text("data_offsets"),
        &[0x82],
        &number(0),
        &number(BYTES),
    ]
    .concat();
    let mut head = burn_pack::Header::new(metadata.len() as u32).into_bytes().to_vec();
    head.extend(metadata);
    head.resize(burn_pack::aligned_data_section_start(head.len() - burn_pack::HEADER_SIZE), 0);
    let len = head.len() as u64 + BYTES;
    shown(&sparse(&folder, "big.bpk", &head, len));
    let done = limited(&["inspect", &sparse(&folder, "short.bpk", &head, len - 1)]);
    assert!(done.error().contains("File truncated"), "{done:?}");
}
