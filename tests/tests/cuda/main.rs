//! The device `cuda:0` up to the driver, on machines without a GPU: a driver of the tests' own has
//! memory and runs no kernel. `tests/devices.rs` has what runs on a GPU.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod calls;
mod failures;
mod sharing;

use burn::tensor::{Device, Tensor};
use ray_zerocopy::error::DeviceError;
use ray_zerocopy::{ActorWrapper, Error, Pipeline, device};
use ray_zerocopy_tests::conformance::{Spec, errors, loads, wrappers};
use ray_zerocopy_tests::models::TestModelConfig;
use ray_zerocopy_tests::stand_in;

const SPEC: Spec = Spec {
    name: "cuda:0",
    nowhere: "cuda:7",
    feature: Some("cuda"),
    borrows: true,
    is_host: false,
    integers: true,
    tolerance: f32::INFINITY,
};

/// The text of the error of `cuda:0` in this process, and of a load and a call in a worker.
fn refusal() -> String {
    let error = device("cuda:0").unwrap_err();
    let shared = ActorWrapper::new(&TestModelConfig::new(4).init(&Device::flex())).unwrap().device("cuda:0").unwrap();
    let load = shared.load().unwrap_err();
    assert!(matches!(&load, Error::Device(found) if *found == error), "{load}");
    let worker = shared.spawn(1).and_then(|actors| actors.pid().wait()).unwrap_err().to_string();
    assert!(worker.contains(&error.to_string()), "{worker}");
    error.to_string()
}

#[test]
fn machine_without_a_driver_is_one_line() {
    if !matches!(device("cuda:0"), Err(DeviceError::NotFound { found, .. }) if found.contains("libcuda.so")) {
        eprintln!("skipped: this machine has a CUDA driver");
        return;
    }
    assert_eq!(
        refusal(),
        "device `cuda:0` is not available: found no NVIDIA driver: the dynamic loader does not find libcuda.so"
    );
}

#[test]
fn driver_without_a_device_is_one_line() {
    if stand_in::reruns("driver_without_a_device_is_one_line", &[("STAND_IN_DEVICES", "0")]) {
        assert_eq!(refusal(), "device `cuda:0` is not available: found no CUDA device: the driver lists none");
    }
}

#[test]
fn driver_that_does_not_start_is_named() {
    // What the driver answers in a container without the device's files, and if it is too old.
    if stand_in::reruns("driver_that_does_not_start_is_named", &[("STAND_IN_INIT", "100")]) {
        assert_eq!(
            refusal(),
            "device `cuda:0` is not available: found no CUDA device: the driver answers CUDA_ERROR_NO_DEVICE to cuInit"
        );
    }
}

#[test]
fn driver_that_is_too_old_is_named() {
    if stand_in::reruns("driver_that_is_too_old_is_named", &[("STAND_IN_COMPILED", "-DTOO_OLD")]) {
        assert_eq!(
            refusal(),
            "device `cuda:0` is not available: found an NVIDIA driver that is too old: it lacks cuMemCreate"
        );
    }
}

#[test]
fn environment_that_hides_gpus_is_named() {
    let environment = [("CUDA_VISIBLE_DEVICES", ""), ("STAND_IN_DEVICES", "0")];
    if stand_in::reruns("environment_that_hides_gpus_is_named", &environment) {
        let text = refusal();
        assert!(text.contains("CUDA_VISIBLE_DEVICES hides all GPUs") && text.contains("num_gpus"), "{text}");
    }
}

#[test]
fn numbers_count_the_visible_gpus() {
    let environment = [("CUDA_VISIBLE_DEVICES", "3"), ("STAND_IN_DEVICES", "4")];
    if stand_in::reruns("numbers_count_the_visible_gpus", &environment) {
        device("cuda:0").unwrap();
        let text = device("cuda:3").unwrap_err().to_string();
        assert!(text.ends_with("; CUDA_VISIBLE_DEVICES shows this process only `3`, which it counts from 0"), "{text}");
    }
}

#[test]
fn workers_compile_kernels() {
    // LLVM loops for ever in a worker in which its constructors have not run.
    if stand_in::reruns("workers_compile_kernels", &[]) {
        let shared = ActorWrapper::new(&TestModelConfig::new(64).init(&Device::flex())).unwrap();
        let actors = shared.device("cuda:0").unwrap().spawn(2).unwrap();
        let x = Tensor::<2>::ones([8, 64], &Device::flex());
        let calls: Vec<_> = actors.iter().map(|actor| actor.forward(x.clone())).collect();
        for call in calls {
            assert_eq!(call.wait().unwrap().dims(), [8, 64]);
        }
    }
}

/// A pipeline with a function of CUDA's mathematical library.
#[derive(Pipeline)]
#[pipeline(init = Exponential::new)]
struct Exponential {
    unused: Tensor<1>,
}

impl Exponential {
    fn new(device: &Device) -> Self {
        Self { unused: Tensor::zeros([1], device) }
    }
}

#[ray_zerocopy::remote]
impl Exponential {
    pub fn exp(&self, x: Tensor<1>) -> Tensor<1> {
        x.exp()
    }
}

#[test]
fn missing_libdevice_is_named() {
    if stand_in::reruns("missing_libdevice_is_named", &[("CUDA_PATH", "/nowhere")]) {
        let shared = ActorWrapper::new(&Exponential::new(&Device::flex())).unwrap().device("cuda:0").unwrap();
        let actors = shared.spawn(1).unwrap();
        let error = actors.actor(0).exp(Tensor::ones([4], &Device::flex())).wait().unwrap_err().to_string();
        assert!(error.contains("libdevice.10.bc was not found"), "{error}");
        assert!(error.contains("in nvvm/libdevice below CUDA_PATH, or else below /usr/local/cuda"), "{error}");
    }
}

/// Runs a part of the conformance suite that needs no computed number.
macro_rules! conforms_without_numbers {
    ($($place:ident::$name:ident)*) => {$(
        #[test]
        fn $name() {
            if stand_in::reruns(stringify!($name), &[]) {
                $place::$name(&SPEC, &device(SPEC.name).unwrap());
            }
        }
    )*};
}

conforms_without_numbers!(
    loads::every_field_comes_back loads::tied_weights_stay_tied loads::copied_lists_all_or_none
    loads::running_statistics_are_loaded
    wrappers::strict_is_an_error_of_the_worker
    errors::missing_device_is_an_error errors::worker_reports_the_missing_device
);
