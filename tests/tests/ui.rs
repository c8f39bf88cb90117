//! Every diagnostic of the macros as a user reads it: each file of `ui/` must not compile, with the errors beside it.
//! `TRYBUILD=overwrite cargo test --workspace --test ui` writes them anew; read the difference before it is committed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

#[test]
fn diagnostics() {
    trybuild::TestCases::new().compile_fail("ui/*.rs");
}
