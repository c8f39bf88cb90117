//! `rzc variant`, and the other commands on its files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::fs;
use std::os::fd::AsRawFd;

use common::{Column, Folder, checkpoint, rzc};
use ray_zerocopy::{Arena, load, share};

/// A base of two layers and a norm, and one that differs in the second layer.
fn files(folder: &Folder) -> [String; 3] {
    let device = burn::tensor::Device::flex();
    let base = Column::new(&device);
    let arena = share(&base).unwrap();
    arena.save(folder.path().join("base.bpk")).unwrap();
    let mut tuned = load::<Column>(&arena, &device).unwrap().into_inner();
    let other = Column::new(&device);
    tuned.net.replace_second(&other.net);
    share(&tuned).unwrap().save(folder.path().join("tuned.bpk")).unwrap();
    share(&other).unwrap().save(folder.path().join("other.bpk")).unwrap();
    ["base.bpk", "tuned.bpk", "other.bpk"].map(|name| folder.at(name))
}

fn len(path: &str) -> u64 {
    fs::metadata(path).unwrap().len()
}

#[test]
fn variant_is_written_and_read_with_its_base() {
    let folder = Folder::new();
    let [base, tuned, other] = files(&folder);
    let variant = folder.at("variant.bpk");
    let said = rzc(&["variant", &base, &tuned, "-o", &variant]).well().out;
    let id = Arena::open(&base).unwrap().id();
    assert!(said.contains(&format!("a variant of {base}, arena {id}")), "{said}");
    assert!(said.contains("stored") && said.contains(&format!("borrowed from {id}")), "{said}");
    assert!(len(&variant) < len(&tuned), "{} {}", len(&variant), len(&tuned));

    let stored = rzc(&["variant", &base, &tuned, "-o", &variant, "--force", "--json"]).well().json();
    assert_eq!(stored["stored"], serde_json::json!(["net.two.weight", "net.two.bias"]));
    assert_eq!((stored["tensors"].as_u64(), stored["file_bytes"].as_u64()), (Some(6), Some(len(&variant))));
    assert_eq!(stored["bases"][0]["id"], id.to_hex());

    let verified = rzc(&["verify", &variant, "--base", &base]).well().out;
    assert!(verified.contains("ok: 6 tensors") && verified.contains("with 4 tensors of the base"), "{verified}");
    let shown = rzc(&["inspect", &variant, "--base", &base]).well().out;
    assert!(shown.contains(&format!("base         {id}, ")) && shown.contains("in the base"), "{shown}");
    let shown = rzc(&["inspect", &variant, "--base", &base, "--json"]).well().json();
    assert_eq!((&shown["tensors"][0]["base"], &shown["tensors"][5]["base"]), (&id.to_hex().into(), &().into()));

    // It has the tensors of the file that it was made from, and differs from the base in two.
    let equal = rzc(&["diff", &variant, &tuned, "--base", &base]);
    assert_eq!(equal.code, Some(0), "{equal:?}");
    let differs = rzc(&["diff", &base, &variant, "--base", &base, "--values"]);
    assert_eq!(differs.code, Some(1), "{differs:?}");
    assert!(differs.out.contains("2 differences") && differs.out.contains("net.two.bias"), "{differs:?}");
    let opened = Arena::open_variant(&variant, &Arena::open(&base).unwrap()).unwrap();
    opened.verify().unwrap();

    // A variant of the variant, which is read with both.
    let second = folder.at("second.bpk");
    rzc(&["variant", &variant, &tuned, "--base", &base, "-o", &second]).well();
    rzc(&["verify", &second, "--base", &base, "--base", &variant]).well();
    let error = rzc(&["verify", &second, "--base", &base]);
    assert!(error.error().contains("and the given base is arena"), "{error:?}");

    // Without anything in common, the file is whole.
    let whole = folder.at("whole.bpk");
    let said = rzc(&["variant", &base, &other, "-o", &whole]).well().out;
    let is_whole = said.contains("needs no base");
    assert!(is_whole == Arena::open(&whole).is_ok(), "{said}");
}

#[test]
fn variant_without_its_base_is_an_error_of_every_command() {
    let folder = Folder::new();
    let [base, tuned, other] = files(&folder);
    let variant = folder.at("variant.bpk");
    rzc(&["variant", &base, &tuned, "-o", &variant]).well();
    let [base_id, other_id] = [&base, &other].map(|path| Arena::open(path).unwrap().id().to_string());
    let packed = folder.at("packed.bpk");
    let commands: [&[&str]; 9] = [
        &["inspect", &variant],
        &["verify", &variant],
        &["diff", &variant, &tuned],
        &["diff", &tuned, &variant],
        &["pack", &variant, "-o", &packed],
        &["hold", &variant],
        &["run", &variant, "--input", "x=1"],
        &["graph", &variant],
        &["variant", &base, &variant, "-o", &packed],
    ];
    for arguments in commands {
        let done = rzc(arguments);
        let error = done.error();
        let names = ["variant.bpk", &base_id, "--base FILE"].iter().all(|part| error.contains(part));
        assert!(names, "{arguments:?}: {error}");
    }
    assert!(!fs::exists(&packed).unwrap());
    for arguments in [&["inspect", &variant, "--base", &other][..], &["verify", &variant, "--base", &other]] {
        let done = rzc(arguments);
        assert!([&base_id, &other_id].iter().all(|id| done.error().contains(*id)), "{arguments:?}: {done:?}");
    }
    // A base that is gone: the error names the file, the variant and the id.
    fs::remove_file(&base).unwrap();
    let done = rzc(&["verify", &variant, "--base", &base]);
    let error = done.error();
    assert!([base.as_str(), &variant, &base_id].iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn damage_of_a_variant_or_its_base_is_found() {
    let folder = Folder::new();
    let [base, tuned, _] = files(&folder);
    let variant = folder.at("variant.bpk");
    rzc(&["variant", &base, &tuned, "-o", &variant]).well();
    let flip = |path: &str| {
        let mut bytes = fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    };
    flip(&variant);
    let done = rzc(&["verify", &variant, "--base", &base]);
    assert!(done.code == Some(1) && done.out.contains("DAMAGED"), "{done:?}");
    flip(&variant);
    // The last tensor of the base is not borrowed, and the one before is.
    let mut bytes = fs::read(&base).unwrap();
    let norm = Arena::open(&base).unwrap();
    let place = ray_zerocopy::arena::ArenaFile::open(&base).unwrap();
    let place = place.tensors().find(|tensor| tensor.path == "net.norm.gamma").unwrap().placed;
    let ray_zerocopy::arena::Location::File { offset, .. } = place else { panic!("{place:?}") };
    bytes[offset as usize] ^= 1;
    fs::write(&base, bytes).unwrap();
    let done = rzc(&["verify", &variant, "--base", &base]);
    assert!(done.code == Some(1) && done.out.contains("`net.norm.gamma`"), "{done:?}");
    drop(norm);
}

#[test]
fn wrong_arguments_are_explained() {
    let folder = Folder::new();
    let [base, tuned, _] = files(&folder);
    let done = rzc(&["variant", &base, &tuned, "-o", &tuned]);
    assert!(done.error().contains("already exists; --force replaces it"), "{done:?}");
    let plain = folder.safetensors("model.safetensors", &checkpoint());
    let done = rzc(&["variant", &base, &plain, "-o", &folder.at("variant.bpk")]);
    assert!(done.error().contains("has no checksums") && done.error().contains("`rzc pack`"), "{done:?}");
    let packed = folder.at("packed.bpk");
    rzc(&["pack", &plain, "-o", &packed]).well();
    rzc(&["variant", &packed, &packed, "-o", &folder.at("variant.bpk")]).well();
}

/// The memory of a variant that a process has open: what it borrows is elsewhere.
#[test]
fn memory_of_a_variant_in_use_is_inspected() {
    let folder = Folder::new();
    let [base, tuned, _] = files(&folder);
    let variant = folder.at("variant.bpk");
    rzc(&["variant", &base, &tuned, "-o", &variant]).well();
    let base = Arena::open(&base).unwrap();
    let opened = Arena::open_variant(&variant, &base).unwrap();
    let memory = format!("/proc/{}/fd/{}", std::process::id(), opened.fd().unwrap().as_raw_fd());
    let shown = rzc(&["inspect", &memory]).well().out;
    assert!(shown.contains(&format!("base         {}", base.id())), "{shown}");
    let verified = rzc(&["verify", &memory]).well().out;
    assert!(verified.contains("except 4 tensors of the base, which were not read"), "{verified}");
    let listed = rzc(&["ps"]).well().out;
    let line = listed.lines().find(|line| line.contains(&format!("id {} ", opened.id()))).unwrap();
    assert!(line.contains(&format!("borrowed from {}", base.id())), "{line}");
}
