//! Diagnostics of the macros: each file of `ui/` must fail to compile with the errors in its
//! `.stderr` file. `TRYBUILD=overwrite cargo test --workspace --test ui` rewrites those files.
//! Review the difference before a commit.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

#[test]
fn diagnostics() {
    trybuild::TestCases::new().compile_fail("ui/*.rs");
}
