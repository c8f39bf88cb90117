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

#[cfg(feature = "libtorch")]
conforms!(
    libtorch_cuda,
    Spec {
        name: "libtorch:cuda:0",
        nowhere: "libtorch:cuda:7",
        feature: Some("libtorch"),
        borrows: true,
        is_host: false,
        integers: false,
        tolerance: 2e-3
    }
);

#[cfg(feature = "torchscript")]
mod torchscript_cuda {
    use burn::tensor::{Device, Tensor};
    use ray_zerocopy::jit::{JitActorWrapper, TorchScript};
    use ray_zerocopy_tests::torchscript::{module, widened};

    const WIDTH: usize = 1024;
    const GPU: &str = "libtorch:cuda:0";

    #[test]
    fn modules_share_their_weights() {
        if let Err(error) = ray_zerocopy::device(GPU) {
            eprintln!("skipped: {error}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let script = TorchScript::open(widened(&module("mlp"), WIDTH, folder.path())).unwrap();
        let rows = || [("rows", Tensor::<2>::ones([2, WIDTH], &Device::flex()))];
        let output = |device: &str| -> Vec<f32> {
            let outputs = script.load(device).unwrap().run(rows()).unwrap();
            outputs.data("output").unwrap().iter().collect()
        };
        let expected = output("cpu");
        let actors = JitActorWrapper::new(&script).device(GPU).unwrap().spawn(2).unwrap();
        for actor in actors.iter() {
            let outputs = actor.run(rows()).wait().unwrap();
            let found: Vec<f32> = outputs.data("output").unwrap().iter().collect();
            let largest = expected.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() <= 2e-3 * largest, "{found} on `{GPU}`, {expected} on `cpu`");
            }
        }
        // Each worker has copies of small tensors alone.
        let report = actors.report().unwrap();
        let weights = (WIDTH * WIDTH * 4) as u64;
        assert!(report.processes[1..].iter().all(|process| process.copied < weights / 8), "{report}");
    }
}

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
