//! Compares the names that `#[remote]` refuses with the methods of the wrappers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of the public methods in the inherent impl blocks of `ty`. rustfmt puts a block's
/// closing brace at the start of a line, and its methods four spaces in.
fn methods_of(ty: &str, source: &str) -> Vec<String> {
    let is_inherent = |header: &str| {
        let target = header.split_once("> ").map_or(header, |(_, target)| target);
        target.starts_with(&format!("{ty}<")) && !header.contains(" for ")
    };
    let blocks = source.split("\nimpl").skip(1).filter(|block| is_inherent(block.lines().next().unwrap()));
    let blocks = blocks.filter_map(|block| block.split("\n}\n").next());
    let functions = blocks.flat_map(|block| block.split("\n    pub fn ").skip(1));
    let methods = functions.filter_map(|function| {
        let (name, rest) = function.split_once('(')?;
        let receiver = rest.trim_start().split([',', ')']).next()?;
        ["self", "mut self", "&self", "&mut self"].contains(&receiver).then(|| name.to_owned())
    });
    methods.collect()
}

#[test]
fn list_covers_every_method_of_the_wrappers() {
    let list = fs::read_to_string(root().join("ray-zerocopy-derive/src/remote/reserved.rs")).unwrap();
    let list = list.split_once("RESERVED: &[&str] = &[").unwrap().1;
    let list: Vec<_> = list.split('"').skip(1).step_by(2).collect();
    let mut files = Vec::new();
    sources(&root().join("ray-zerocopy/src"), &mut files);
    for ty in ["TaskWrapper", "ActorWrapper", "Actors", "Actor"] {
        let methods: Vec<_> =
            files.iter().flat_map(|file| methods_of(ty, &fs::read_to_string(file).unwrap())).collect();
        assert!(methods.len() > 1, "no methods of {ty} were found");
        for method in methods {
            assert!(list.contains(&method.as_str()), "`{ty}::{method}` is not in reserved.rs");
        }
    }
    for method in ["clone", "into", "try_into", "to_owned"] {
        assert!(list.contains(&method), "`{method}` of the prelude's traits is not in reserved.rs");
    }
}
