//! Errors of devices: the string is not a device, or the device is not available.

use serde::{Deserialize, Serialize};

/// Why a device string does not name a usable device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DeviceError {
    /// The string is not a device.
    #[error(
        "`{found}` is not a device; write `cpu`, `cuda`, `cuda:1`, `wgpu`, `wgpu:0`, `libtorch` or `libtorch:cuda:0`"
    )]
    Unknown {
        /// The string.
        found: String,
    },
    /// The program was built without the backend.
    #[error(
        "device `{device}` needs the feature `{feature}`, which this program was built without; \
         build it with `ray-zerocopy = {{ features = [\"{feature}\"] }}`"
    )]
    NotCompiled {
        /// The device that was asked for.
        device: String,
        /// The feature of `ray-zerocopy` that has it.
        feature: String,
    },
    /// The machine does not have the device.
    #[error("device `{device}` is not available: found {found}")]
    NotFound {
        /// The device that was asked for.
        device: String,
        /// What the machine has.
        found: String,
    },
}

/// Never called: a [`DeviceSpec`](crate::DeviceSpec) converts into itself without an error.
impl From<std::convert::Infallible> for DeviceError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
