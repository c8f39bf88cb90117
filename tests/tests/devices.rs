//! The conformance suite of `tests/src/conformance` on every device that is compiled in.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use ray_zerocopy_tests::conforms;
use ray_zerocopy_tests::heap::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

conforms!(
    cpu,
    Spec { name: "cpu", nowhere: "cpu:1", feature: None, borrows: true, is_host: true, integers: true, tolerance: 0.0 }
);

#[cfg(feature = "wgpu")]
conforms!(
    wgpu,
    Spec {
        name: "wgpu:0",
        nowhere: "wgpu:7",
        feature: Some("wgpu"),
        borrows: false,
        is_host: false,
        integers: true,
        tolerance: 1e-4
    }
);

#[cfg(feature = "cuda")]
conforms!(
    cuda,
    Spec {
        name: "cuda:0",
        nowhere: "cuda:7",
        feature: Some("cuda"),
        borrows: true,
        is_host: false,
        integers: true,
        tolerance: 2e-3
    }
);

#[cfg(feature = "libtorch")]
conforms!(
    libtorch,
    Spec {
        name: "libtorch",
        nowhere: "libtorch:cuda:7",
        feature: Some("libtorch"),
        borrows: true,
        is_host: true,
        integers: false,
        tolerance: 1e-4
    }
);

#[cfg(any(not(feature = "wgpu"), not(feature = "cuda"), not(feature = "libtorch")))]
mod without {
    use ray_zerocopy_tests::conformance::errors::not_compiled_in;

    #[cfg(not(feature = "wgpu"))]
    #[test]
    fn wgpu() {
        not_compiled_in("wgpu:0", "wgpu");
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn cuda() {
        not_compiled_in("cuda:0", "cuda");
    }

    #[cfg(not(feature = "libtorch"))]
    #[test]
    fn libtorch() {
        not_compiled_in("libtorch", "libtorch");
    }
}
