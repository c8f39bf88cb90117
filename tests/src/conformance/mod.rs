//! The conformance suite of devices. `tests/devices.rs` runs it on each device that is compiled in.
//!
//! A device that the machine lacks is skipped, and the reason is printed, unless
//! `RAY_ZEROCOPY_REQUIRE` names it.

pub mod dtypes;
pub mod errors;
pub mod graphs;
pub mod loads;
pub mod memory;
pub mod model;
pub mod wrappers;

use std::io::Write;

use burn::tensor::{Device, TensorData};
use ray_zerocopy::error::DeviceError;
use ray_zerocopy::{Error, device};

use self::model::Sample;

/// Environment variable with the devices that must exist, without their numbers and separated by commas:
/// `wgpu,libtorch,libtorch:cuda`.
pub const REQUIRE: &str = "RAY_ZEROCOPY_REQUIRE";

/// Expected behaviour of a device.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Its device string.
    pub name: &'static str,
    /// A device string of the same backend that no machine has.
    pub nowhere: &'static str,
    /// The Cargo feature of its backend. `cpu` needs none.
    pub feature: Option<&'static str>,
    /// Whether weights are borrowed from the arena, or from one copy on the device that all processes
    /// share.
    pub borrows: bool,
    /// Whether the device computes in host memory, on the arena's pages.
    pub is_host: bool,
    /// Whether it has the integer type of flex. Otherwise it has 64-bit ones.
    pub integers: bool,
    /// Tolerance of outputs against flex, relative to the largest number. Zero means bit-identical.
    pub tolerance: f32,
}

impl Spec {
    /// Whether integers are borrowed. In host memory the arena's own integers are, and on a device those of
    /// the shared copy, which has the device's types.
    pub fn borrows_integers(&self) -> bool {
        self.borrows && (self.integers || !self.is_host)
    }

    /// Returns the device. If the machine lacks it, checks the error, prints the reason and returns
    /// `None`.
    ///
    /// # Panics
    /// If the device is required and missing, or if it fails in another way.
    pub fn there(&self) -> Option<Device> {
        let error = match device(self.name) {
            Ok(device) => return Some(device),
            Err(error) => error,
        };
        assert!(self.feature.is_some(), "`{}` is always there, and yet: {error}", self.name);
        assert!(matches!(&error, DeviceError::NotFound { device, .. } if device == self.name), "{error}");
        let required = std::env::var(REQUIRE).unwrap_or_default();
        let backend = self.name.trim_end_matches(":0");
        assert!(!required.split(',').any(|name| name == backend), "{REQUIRE} says `{required}`, and yet: {error}");
        // `load_on` returns the same error.
        let shared = ray_zerocopy::ActorWrapper::new(&Sample::new(&Device::flex())).unwrap();
        let failed = shared.load_on(self.name).unwrap_err();
        assert!(matches!(&failed, Error::Device(found) if *found == error), "{failed}");
        // Written to stderr directly, because the test harness captures `eprintln!` of tests that
        // pass.
        let skipped = format!("skipped on `{}`, which failed as it should: {error}\n", self.name);
        std::io::stderr().write_all(skipped.as_bytes()).unwrap();
        None
    }

    /// Compares an output with that of flex.
    ///
    /// # Panics
    /// If the difference exceeds the tolerance.
    pub fn same(&self, found: TensorData, expected: TensorData) {
        assert_eq!(found.shape(), expected.shape());
        if self.tolerance == 0.0 {
            assert_eq!(found, expected, "not bit for bit on `{}`", self.name);
            return;
        }
        let (found, expected): (Vec<f32>, Vec<f32>) = (found.iter().collect(), expected.iter().collect());
        let largest = expected.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            let difference = (found - expected).abs();
            assert!(difference <= self.tolerance * largest, "{found} on `{}`, {expected} on `cpu`", self.name);
        }
    }
}

/// Expands to a module with one test for each function of the suite, run on a device.
#[macro_export]
macro_rules! conforms {
    ($module:ident, $spec:expr) => {
        mod $module {
            use $crate::conformance::{Spec, dtypes, errors, graphs, loads, memory, wrappers};

            const SPEC: Spec = $spec;

            $crate::conforms!(@tests
                loads::forward_matches_flex loads::every_field_comes_back loads::tied_weights_stay_tied
                loads::copied_lists_all_or_none loads::running_statistics_are_loaded loads::changes_are_private
                dtypes::floats dtypes::integers dtypes::booleans dtypes::quantised
                dtypes::empty_tensors_are_not_copied
                memory::no_second_copy_in_the_heap memory::workers_share_the_pages memory::holder_keeps_the_copy
                wrappers::tasks wrappers::actors wrappers::strict_is_an_error_of_the_worker
                graphs::graph_matches_the_pipeline graphs::kernels_are_recorded graphs::workers_run_a_graph
                errors::missing_device_is_an_error errors::worker_reports_the_missing_device
            );
        }
    };
    (@tests $($place:ident::$name:ident)*) => {$(
        #[test]
        fn $name() {
            if let Some(device) = SPEC.there() {
                $place::$name(&SPEC, &device);
            }
        }
    )*};
}
