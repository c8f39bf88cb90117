//! `rzc`.

fn main() {}
