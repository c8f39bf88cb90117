//! What has to hold on every device. `tests/devices.rs` runs it on each that the program has.
//!
//! A device that the machine does not have is skipped with its reason, unless `RAY_ZEROCOPY_REQUIRE` names it.

pub mod dtypes;
pub mod errors;
pub mod graphs;
pub mod heap;
pub mod loads;
pub mod memory;
pub mod model;
pub mod wrappers;

use std::io::Write;

use burn::tensor::{Device, TensorData};
use ray_zerocopy::error::DeviceError;
use ray_zerocopy::{Error, device};

use self::model::Sample;

/// The devices that must be there, with commas between them: `wgpu,libtorch`.
pub const REQUIRE: &str = "RAY_ZEROCOPY_REQUIRE";

/// What is expected of a device.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Its string.
    pub name: &'static str,
    /// Another one of its backend that no machine has.
    pub nowhere: &'static str,
    /// The feature that has it; `cpu` needs none.
    pub feature: Option<&'static str>,
    /// Whether weights stay where they are.
    pub borrows: bool,
    /// Whether integers are those of flex; else they are copied, as ones of 64 bits.
    pub integers: bool,
    /// How far from flex an answer may be, relative to its largest number. Zero is bit for bit.
    pub tolerance: f32,
}

impl Spec {
    /// The device, if the machine has it. If not, it says so in an error that names it, and the reason is printed.
    ///
    /// # Panics
    /// If it is required and not there, or fails in another way.
    pub fn there(&self) -> Option<Device> {
        let error = match device(self.name) {
            Ok(device) => return Some(device),
            Err(error) => error,
        };
        assert!(self.feature.is_some(), "`{}` is always there, and yet: {error}", self.name);
        assert!(matches!(&error, DeviceError::NotFound { device, .. } if device == self.name), "{error}");
        let required = std::env::var(REQUIRE).unwrap_or_default();
        let feature = self.feature.unwrap_or_default();
        assert!(!required.split(',').any(|name| name == feature), "{REQUIRE} says `{required}`, and yet: {error}");
        // It fails cleanly where it is used, too.
        let shared = ray_zerocopy::ActorWrapper::new(&Sample::new(&Device::flex())).unwrap();
        let failed = shared.load_on(self.name).unwrap_err();
        assert!(matches!(&failed, Error::Device(found) if *found == error), "{failed}");
        // Past the test harness, which keeps what tests print unless they fail.
        let skipped = format!("skipped on `{}`, which failed as it should: {error}\n", self.name);
        std::io::stderr().write_all(skipped.as_bytes()).unwrap();
        None
    }

    /// Checks an answer against flex's.
    ///
    /// # Panics
    /// If it is further away than the device may be.
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

/// Runs the whole suite on a device, a test for each thing that has to hold.
#[macro_export]
macro_rules! conforms {
    ($module:ident, $spec:expr) => {
        mod $module {
            use $crate::conformance::{Spec, dtypes, errors, graphs, loads, memory, wrappers};

            const SPEC: Spec = $spec;

            $crate::conforms!(@tests
                loads::forward_is_flex_s loads::every_field_comes_back loads::ties_are_ties loads::copied_tells_the_truth
                loads::running_statistics_travel loads::changes_are_private
                dtypes::floats dtypes::integers dtypes::booleans dtypes::quantised dtypes::nothing
                memory::no_second_copy_in_the_heap memory::workers_share_the_pages
                wrappers::tasks wrappers::actors wrappers::strict_is_an_error_of_the_worker
                graphs::a_graph_gives_the_same graphs::workers_run_a_graph
                errors::one_that_is_not_there errors::a_worker_says_it_too
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
