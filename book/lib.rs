//! The book, chapter by chapter: every `rust` block in it is a doc test of this crate.
//!
//! `cargo test --workspace --doc` runs them, with `--features ray` those about Ray too; `mdbook build book` makes the pages. A chapter has one module here, and the
//! unit tests below see to it that none is forgotten and that links and lists of errors do not go stale.

#![forbid(unsafe_code)]

macro_rules! chapters {
    ($($(#[$gate:meta])* $module:ident $file:literal)*) => {
        $($(#[$gate])* #[doc = include_str!(concat!("src/", $file))] pub mod $module {})*

        #[cfg(test)]
        const CHAPTERS: &[&str] = &[$($file),*];
    };
}

chapters! {
    introduction "introduction.md"
    quickstart "quickstart.md"
    pipelines "pipelines.md"
    errors "errors.md"
    tasks_and_actors "tasks-and-actors.md"
    engines "engines.md"
    elastic "elastic.md"
    observability "observability.md"
    batching "batching.md"
    bulk "bulk.md"
    cancellation "cancellation.md"
    streams "streams.md"
    large_tensors "large-tensors.md"
    hot_swap "hot-swap.md"
    jit "jit.md"
    compiled "compiled.md"
    torchscript "torchscript.md"
    serving "serving.md"
    python "python.md"
    #[cfg(feature = "ray")] ray "ray.md"
    #[cfg(feature = "ray")] ray_nodes "ray-nodes.md"
    ray_python "ray-python.md"
    plain_ray "plain-ray.md"
    memory_model "memory-model.md"
    files "files.md"
    holders "holders.md"
    variants "variants.md"
    rzc "rzc.md"
    devices "devices.md"
    benchmarks "benchmarks.md"
    design "design.md"
}

/// The project's first page.
#[doc = include_str!("../README.md")]
pub mod readme {}

/// The page of the macros' package. It cannot be a doc test there, because the package does not
/// depend on the crate that the macros write code for.
#[doc = include_str!("../ray-zerocopy-derive/README.md")]
pub mod readme_of_the_macros {}

#[cfg(test)]
mod tests;
