//! The checked-in code of the protocol is that of `proto/inference.proto`. `BLESS=1` rewrites it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::fs;
use std::path::Path;

const HEAD: &str =
    "// Generated from `proto/inference.proto`: `BLESS=1 cargo test -p ray-zerocopy-serve --test generated`.\n\n";

#[test]
fn generated_code_matches_the_protocol() {
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let root = Path::new(&root);
    let files = protox::compile(["inference.proto"], [root.join("proto")]).unwrap();
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .build_client(true)
        .bytes(".inference")
        .btree_map(".inference")
        .out_dir(out.path())
        .compile_fds(files)
        .unwrap();
    let code = HEAD.to_owned() + &fs::read_to_string(out.path().join("inference.rs")).unwrap();
    let target = root.join("src/grpc/generated/inference.rs");
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(&target, &code).unwrap();
    }
    let found = fs::read_to_string(&target).unwrap_or_default();
    assert!(found == code, "src/grpc/generated/inference.rs differs from proto/inference.proto; BLESS=1 rewrites it");
}
