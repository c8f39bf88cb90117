//! `rzc inspect`: tables, filters, and every kind of file, valid and invalid.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use burn::tensor::Device;
use common::{Folder, Model, Stored, checkpoint, command, finish, floats, rzc, sharded};
use ray_zerocopy::{Arena, share};
use safetensors::Dtype;
use serde_json::json;

#[test]
fn an_arena_shows_its_tensors_ties_and_copied_fields() {
    let folder = Folder::new();
    let file = folder.arena("model.bpk", 16);
    let arena = Arena::open(&file).unwrap();
    let done = rzc(&["inspect", &file]).well().out;
    for line in [
        &format!("{file}: an arena, ")[..],
        &format!("pipeline     {}", arena.pipeline()),
        &format!("id           {}", arena.id()),
        "tied.weight   f32   [16, 16]  1.0 KiB",
        "= first.weight",
        "labels",
        "f32               4       544  2.1 KiB",
        "stored: 1.1 KiB, since 2 tensors (marked =)",
    ] {
        assert!(done.contains(line), "`{line}` in\n{done}");
    }
    let json = rzc(&["inspect", &file, "--json"]).well().json();
    assert_eq!((&json["format"], &json["pipeline"]), (&json!("arena"), &json!(arena.pipeline())));
    assert_eq!(json["id"], json!(arena.id().to_hex()));
    assert_eq!(json["totals"]["stored_bytes"], json!(arena.stored_bytes()));
    assert_eq!(json["tensors"].as_array().unwrap().len(), 4);
    assert_eq!(json["tensors"][2]["same_as"], json!("first.weight"));
    assert_eq!(json["copied_fields"][0]["path"], json!("width"));
}

#[test]
fn the_arena_of_a_running_process_is_a_file_too() {
    use std::os::fd::AsRawFd;
    let arena = share(&Model::of(8, &Device::flex())).unwrap();
    let file = format!("/proc/{}/fd/{}", std::process::id(), arena.fd().unwrap().as_raw_fd());
    let json = rzc(&["inspect", &file, "--json"]).well().json();
    assert_eq!(json["id"], json!(arena.id().to_hex()));
    rzc(&["verify", &file]).well();
}

#[test]
fn files_of_other_programs_are_shown_as_they_are() {
    let folder = Folder::new();
    let mut tensors = checkpoint();
    tensors.push(Stored("odd".to_owned(), Dtype::F8_E4M3, vec![2], vec![1, 2]));
    let file = folder.safetensors("model.safetensors", &tensors);
    let done = rzc(&["inspect", &file]).well().out;
    assert!(done.contains("a safetensors checkpoint") && done.contains("type not supported by burn"), "{done}");
    let json = rzc(&["inspect", &file, "--json"]).well().json();
    assert_eq!((&json["pipeline"], &json["id"]), (&json!(null), &json!(null)));
    assert!(json["tensors"].as_array().unwrap().iter().any(|tensor| tensor["dtype"] == json!("F8_E4M3")));

    let index = sharded(&folder, &checkpoint());
    let json = rzc(&["inspect", index.to_str().unwrap(), "--json"]).well().json();
    assert_eq!((json["files"].as_array().unwrap().len(), &json["totals"]["tensors"]), (2, &json!(8)));
    assert_eq!(rzc(&["inspect", folder.path().to_str().unwrap(), "--json"]).well().json()["totals"], json["totals"]);
}

#[test]
fn thousands_of_tensors_are_cut_and_filtered() {
    let folder = Folder::new();
    let tensors: Vec<_> = (0..3000).map(|at| floats(&format!("layer.{at}.weight"), &[1])).collect();
    let file = folder.safetensors("model.safetensors", &tensors);
    let lines = |arguments: &[&str]| {
        let done = rzc(&[&["inspect", &file], arguments].concat()).well().out;
        (done.lines().filter(|line| line.starts_with("layer.")).count(), done.contains("more: --all shows"))
    };
    assert_eq!(lines(&[]), (40, true));
    assert_eq!(lines(&["--all"]), (3000, false));
    assert_eq!(lines(&["--tensors", "layer.17.*"]), (1, false));
    assert_eq!(lines(&["-t", "layer.???.*"]), (40, true));
    assert_eq!(lines(&["-t", ".29"]), (40, true));
    assert_eq!(lines(&["-t", "nothing"]), (0, false));
    let json = rzc(&["inspect", &file, "--json", "-t", "layer.???.*"]).well().json();
    assert_eq!((json["tensors"].as_array().unwrap().len(), &json["totals"]["tensors"]), (900, &json!(3000)));
    assert!(rzc(&["inspect", &file, "-t", "nothing"]).well().out.contains("no tensor path matches `nothing`"));
}

#[test]
fn names_cannot_move_the_cursor() {
    let folder = Folder::new();
    let file = folder.safetensors("model.safetensors", &[floats("a\u{1b}[2J\nb\r", &[1])]);
    let done = rzc(&["inspect", &file]).well().out;
    assert!(done.contains("a [2J b") && !done.contains('\u{1b}'), "{done:?}");
    assert_eq!(rzc(&["inspect", &file, "--json"]).well().json()["tensors"][0]["path"], json!("a\u{1b}[2J\nb\r"));
}

#[test]
fn other_files_are_errors_of_one_line() {
    let folder = Folder::new();
    let arena = fs::read(folder.arena("model.bpk", 16)).unwrap();
    let model = fs::read(folder.safetensors("model.safetensors", &checkpoint())).unwrap();
    let mut other = arena.clone();
    // One character of the manifest.
    let at = other.windows(8).position(|text| text == b"pipeline").unwrap();
    other[at + 12] ^= 1;
    let empty = Folder::new();
    for (file, word) in [
        (folder.at("nowhere.bpk"), "does not exist; name a"),
        (folder.write("empty.bpk", b""), "it is empty"),
        (folder.write("text.txt", b"hello, world"), "is neither a `.safetensors`"),
        (folder.write("short.bpk", &arena[..arena.len() / 2]), "corrupted"),
        (folder.write("head.bpk", &arena[..40]), "corrupted"),
        (folder.write("other.bpk", &other), "manifest is corrupted"),
        (folder.write("short.safetensors", &model[..model.len() - 1]), "1 of its bytes are missing"),
        (folder.write("header.safetensors", &[0xff; 64]), "it starts with the bytes [ff"),
        (folder.write("x.index.json", b"{}"), "it is unreadable"),
        (empty.path().display().to_string(), "the folder has none of"),
        ("/dev/null".to_owned(), "neither a file nor a folder"),
    ] {
        let done = rzc(&["inspect", &file]);
        assert!(done.error().contains(word), "{file}: {done:?}");
        assert!(done.out.is_empty(), "{file}: {done:?}");
    }
}

#[test]
fn a_file_that_may_not_be_read_says_so() {
    const NOBODY: u32 = 65534;
    let folder = Folder::new();
    let file = folder.arena("model.bpk", 8);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    let mut inspect = command(&["inspect", &file]);
    if fs::File::open(&file).is_ok() {
        // Root can read every file, so another user runs a program and reads a folder that are open
        // to all users.
        let program = folder.path().join("rzc");
        fs::copy(env!("CARGO_BIN_EXE_rzc"), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        inspect = std::process::Command::new(program);
        inspect.args(["inspect", &file]).uid(NOBODY).gid(NOBODY);
        if let Err(error) = inspect.output() {
            eprintln!("skipped: root can read every file, and a program cannot be run as another user: {error}");
            return;
        }
    }
    assert!(finish(&mut inspect).error().contains("may not be read by this user"));
}
