//! The interface for programs and shells: field names, completions, man pages, closed pipes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::fs;
use std::io::Read;
use std::process::Stdio;

use burn::tensor::Device;
use common::{Folder, Model, checkpoint, command, fields, floats, rzc};
use ray_zerocopy::{Arena, share};

const COMMANDS: [&str; 17] = [
    "pack",
    "variant",
    "inspect",
    "verify",
    "ps",
    "hold",
    "drop",
    "swap",
    "diff",
    "run",
    "compile",
    "graph",
    "profile",
    "serve",
    "worker",
    "completions",
    "man",
];

/// Field names are stable: new ones may be added here, but none may be removed.
#[test]
fn the_fields_of_json_are_these() {
    let folder = Folder::new();
    let file = folder.safetensors("model.safetensors", &checkpoint());
    let arena = folder.arena("arena.bpk", 8);
    let held = (share(&Model::of(8, &Device::flex())).unwrap(), Arena::shared_file(&arena, |_| ()).unwrap());
    let is = |arguments: &[&str], expected: &str| {
        let done = rzc(arguments);
        // `ps` lists variants of other programs on this machine, too.
        let own = fields(&done.json()).into_iter().filter(|field| !field.starts_with("arenas.bases."));
        let found = own.collect::<Vec<_>>().join(" ");
        assert_eq!(found, expected, "{arguments:?}");
    };
    is(
        &["pack", &file, "--json"],
        "after after.alignment after.dtypes after.file_bytes after.files after.format before before.alignment \
         before.dtypes before.file_bytes before.files before.format id input output renamed stored_bytes tensors \
         weight_bytes",
    );
    is(
        &["inspect", &arena, "--json"],
        "bases copied_fields copied_fields.bytes copied_fields.checksum copied_fields.path file file_bytes files fingerprint \
         format graph id methods pipeline tensors tensors.alignment tensors.base tensors.bytes tensors.checksum tensors.contiguous \
         tensors.dtype tensors.file tensors.offset tensors.packed tensors.path tensors.same_as tensors.shape totals totals.by_dtype totals.by_dtype.bytes \
         totals.by_dtype.dtype totals.by_dtype.elements totals.by_dtype.tensors totals.stored_bytes totals.tensors \
         totals.weight_bytes",
    );
    is(
        &["verify", &arena, "--json"],
        "files files.bytes files.copied_fields files.damaged_entry files.file files.format files.message files.result \
         files.tensors files.tensors_with_checksum ok",
    );
    is(
        &["ps", "--json"],
        "arenas arenas.bases arenas.bytes arenas.device arenas.error arenas.fingerprint arenas.id arenas.inode arenas.path \
         arenas.pipeline arenas.processes arenas.processes.pid arenas.processes.private arenas.processes.program \
         arenas.processes.pss arenas.processes.role arenas.processes.saved arenas.processes.share \
         arenas.processes.shared arenas.processes.worker arenas.saved arenas.sealed followers held held.bytes held.id \
         held.kept held.pid held.pipeline held.source hidden_processes totals totals.private totals.pss totals.saved",
    );
    is(
        &["diff", &arena, &folder.arena("other.bpk", 8), "--json"],
        "a b compared_by_bytes compared_by_checksum differences differences.a differences.a.bytes \
         differences.a.checksum differences.a.dtype differences.a.shape differences.b differences.b.bytes \
         differences.b.checksum differences.b.dtype differences.b.shape differences.differing_values differences.kind \
         differences.max_abs_difference differences.path differences.what equal pipelines_differ",
    );
    is(
        &["variant", &arena, &folder.arena("tuned.bpk", 8), "-o", &folder.at("variant.bpk"), "--json"],
        "base base_id bases bases.bytes bases.id file_bytes id input input_bytes output stored tensors",
    );
    drop(held);
}

/// The book lists every field, and every command.
#[test]
fn the_book_knows_the_interface() {
    let book = fs::read_to_string("../book/src/rzc.md").unwrap();
    let source = fs::read_to_string("tests/interface.rs").unwrap();
    for name in COMMANDS {
        assert!(book.contains(&format!("rzc {name}")), "{name}");
    }
    let lists = source.split("        &[\"").skip(1).filter_map(|rest| rest.split_once("\"--json\"],\n        \""));
    let mut seen = 0;
    for (_, list) in lists {
        let list = list.split("\",").next().unwrap();
        for field in list.split([' ', '\n', '\\']).filter(|word| !word.is_empty()) {
            let name = field.rsplit('.').next().unwrap();
            assert!(book.contains(&format!("`{name}`")), "`{name}` ({field}) is not in the book");
            seen += 1;
        }
    }
    assert!(seen > 80, "only {seen} fields were found");
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = rzc(&["completions", shell]).well().out;
        for name in COMMANDS {
            assert!(script.contains(name), "{shell}: {name}");
        }
        assert!(script.contains("rename") && script.contains("watch"), "{shell}");
    }
    assert_eq!(rzc(&["completions", "tcsh"]).code, Some(2));
}

#[test]
fn man_pages_know_every_command() {
    let page = rzc(&["man"]).well().out;
    assert!(page.contains(".TH rzc 1") && COMMANDS.iter().all(|name| page.contains(&format!("rzc\\-{name}(1)"))));
    let folder = Folder::new();
    let done = rzc(&["man", "--out", &folder.at("man")]).well().out;
    assert!(done.contains("rzc.1"), "{done}");
    for name in COMMANDS {
        let page = fs::read_to_string(folder.path().join(format!("man/rzc-{name}.1"))).unwrap();
        assert!(page.contains("SYNOPSIS") && page.contains(name), "{page}");
    }
    let file = folder.write("file", b"");
    assert!(rzc(&["man", "--out", &file]).error().contains("file"));
}

#[test]
fn help_says_what_the_status_means() {
    for name in ["pack", "inspect", "verify", "ps", "diff", "graph", "profile"] {
        let help = rzc(&[name, "--help"]).well().out;
        assert!(help.contains("Exit status:") && help.contains("--json"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 110), "{help}");
    }
    assert!(rzc(&["--version"]).well().out.starts_with("rzc "));
    assert_eq!(rzc(&["paint"]).code, Some(2));
}

#[test]
fn closed_output_is_not_an_error() {
    let folder = Folder::new();
    let tensors: Vec<_> = (0..5000).map(|at| floats(&format!("layer.{at}.weight"), &[1])).collect();
    let file = folder.safetensors("model.safetensors", &tensors);
    for arguments in [&["inspect", &file, "--all"][..], &["inspect", &file, "--json"], &["completions", "bash"]] {
        let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut start = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut start).unwrap();
        // The reading end is closed here.
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert_eq!((child.wait().unwrap().code(), errors.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn nothing_is_drawn_without_a_terminal() {
    let folder = Folder::new();
    let file = folder.safetensors("model.safetensors", &[floats("x", &[1 << 20])]);
    let done = rzc(&["pack", &file]).well();
    assert!(!done.out.contains('\u{1b}') && !done.out.contains('\r'), "{done:?}");
    assert!(!rzc(&["verify", &folder.at("model.bpk")]).well().out.contains('\u{1b}'));
}
