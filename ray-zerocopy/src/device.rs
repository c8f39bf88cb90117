//! Device strings, such as `"cpu"` and `"cuda:1"`, and the burn devices that they name.
//!
//! burn creates a device without checking that it exists, and panics at its first use. [`device()`]
//! checks first.

use crate::error::device::DeviceError;
use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;

/// A parsed device string. Parsing does not check that the device exists, since an owner may name a
/// device that only its workers have.
///
/// Methods that take a device take a `DeviceSpec` or its text, and fail on a text that is not a
/// device. The table at [`device()`] has the texts.
///
/// ```
/// use ray_zerocopy::DeviceSpec;
///
/// assert_eq!("cuda".parse::<DeviceSpec>()?, DeviceSpec::Cuda(0));
/// assert_eq!(DeviceSpec::LibTorchCuda(1).to_string(), "libtorch:cuda:1");
/// assert!("cuda0".parse::<DeviceSpec>().is_err());
/// # Ok::<(), ray_zerocopy::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DeviceSpec {
    /// burn's flex backend, which borrows weights in place: `cpu`.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this number: `cuda:0`.
    Cuda(usize),
    /// The device of this number through Vulkan, Metal or WebGPU: `wgpu:0`.
    Wgpu(usize),
    /// LibTorch on the processor, which borrows weights in place: `libtorch`.
    LibTorch,
    /// LibTorch on the GPU of this number: `libtorch:cuda:0`.
    LibTorchCuda(usize),
}

impl DeviceSpec {
    /// Converts an argument that names a device.
    pub(crate) fn of(device: impl TryInto<Self, Error: Into<DeviceError>>) -> Result<Self, DeviceError> {
        device.try_into().map_err(Into::into)
    }
}

impl TryFrom<&str> for DeviceSpec {
    type Error = DeviceError;

    fn try_from(text: &str) -> Result<Self, DeviceError> {
        text.parse()
    }
}

impl TryFrom<&String> for DeviceSpec {
    type Error = DeviceError;

    fn try_from(text: &String) -> Result<Self, DeviceError> {
        text.parse()
    }
}

impl TryFrom<String> for DeviceSpec {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, DeviceError> {
        text.parse()
    }
}

impl FromStr for DeviceSpec {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown { found: text.to_owned() };
        let index = |text: Option<&str>| text.map_or(Ok(0), str::parse).map_err(|_| unknown());
        let (name, rest) = match text.split_once(':') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        match (name, rest) {
            ("cpu", None) => Ok(Self::Cpu),
            ("cuda", rest) => Ok(Self::Cuda(index(rest)?)),
            ("wgpu", rest) => Ok(Self::Wgpu(index(rest)?)),
            ("libtorch", None | Some("cpu")) => Ok(Self::LibTorch),
            ("libtorch", Some("cuda")) => Ok(Self::LibTorchCuda(0)),
            ("libtorch", Some(rest)) => {
                let rest = rest.strip_prefix("cuda:").ok_or_else(unknown)?;
                Ok(Self::LibTorchCuda(index(Some(rest))?))
            }
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Wgpu(index) => write!(f, "wgpu:{index}"),
            Self::LibTorch => f.write_str("libtorch"),
            Self::LibTorchCuda(index) => write!(f, "libtorch:cuda:{index}"),
        }
    }
}

/// Opens the burn device that a string or [`DeviceSpec`] names, after checking that it exists.
///
/// | string | device | feature |
/// | --- | --- | --- |
/// | `cpu` | burn's flex backend, which borrows weights in place | always available |
/// | `cuda`, `cuda:1` | an NVIDIA GPU, on which processes share one copy of the weights | `cuda` |
/// | `wgpu`, `wgpu:0` | Vulkan, Metal or WebGPU; weights are uploaded | `wgpu` |
/// | `libtorch` | LibTorch on the processor, which borrows weights in place | `libtorch` |
/// | `libtorch:cuda:0` | LibTorch on a GPU, on which processes share one copy of the weights | `libtorch` |
///
/// # Errors
/// If the string is not a device, the program was built without the device's feature, or the
/// machine does not have the device. The error names the feature, or the devices that were found.
///
/// ```
/// use ray_zerocopy::device;
/// assert_eq!(device("cpu")?, burn::tensor::Device::flex());
/// let error = device("gpu0").unwrap_err();
/// assert!(error.to_string().starts_with("`gpu0` is not a device; write `cpu`, `cuda`"));
/// # Ok::<(), ray_zerocopy::Error>(())
/// ```
pub fn device(device: impl TryInto<DeviceSpec, Error: Into<DeviceError>>) -> Result<Device, DeviceError> {
    let spec = DeviceSpec::of(device)?;
    match spec {
        DeviceSpec::Cpu => Ok(Device::flex()),
        DeviceSpec::Cuda(index) => cuda(spec, index),
        DeviceSpec::Wgpu(index) => wgpu(spec, index),
        DeviceSpec::LibTorch | DeviceSpec::LibTorchCuda(_) => libtorch(spec),
    }
}

#[cfg(not(all(feature = "cuda", feature = "wgpu", feature = "libtorch")))]
fn not_compiled(spec: DeviceSpec, feature: &str) -> DeviceError {
    DeviceError::NotCompiled { device: spec.to_string(), feature: feature.to_owned() }
}

/// Returns the device of this index in the backend's list. Some backends panic if their driver is
/// not installed.
#[cfg(any(feature = "cuda", feature = "wgpu", feature = "libtorch"))]
fn pick(spec: DeviceSpec, index: usize, what: &str, list: impl FnOnce() -> Vec<Device>) -> Result<Device, DeviceError> {
    let not_found = |found: String| DeviceError::NotFound { device: spec.to_string(), found };
    let devices = crate::panics::caught(list).map_err(|panic| not_found(format!("no usable driver: {panic}")))?;
    let count = devices.len();
    devices.into_iter().nth(index).ok_or_else(|| match count {
        0 => not_found(format!("no {what}")),
        1 => not_found(format!("one {what}, number 0")),
        _ => not_found(format!("{count} {what}s, numbers 0 to {}", count - 1)),
    })
}

/// Adds to the error of a missing GPU what the environment hides.
#[cfg(any(feature = "cuda", feature = "libtorch"))]
fn explain_visible(mut error: DeviceError) -> DeviceError {
    if let (DeviceError::NotFound { found, .. }, Some(visible)) = (&mut error, std::env::var_os("CUDA_VISIBLE_DEVICES"))
    {
        let visible = visible.to_string_lossy();
        found.push_str(&match visible.trim() {
            "" | "-1" => "; CUDA_VISIBLE_DEVICES hides all GPUs from this process: on Ray, its task or actor has to \
                          request one (`ray::Options::gpus`, or `num_gpus` in Python)"
                .to_owned(),
            visible => format!("; CUDA_VISIBLE_DEVICES shows this process only `{visible}`, which it counts from 0"),
        });
    }
    error
}

#[cfg(feature = "cuda")]
fn cuda(spec: DeviceSpec, index: usize) -> Result<Device, DeviceError> {
    let find = || {
        #[cfg(target_os = "linux")]
        crate::gpu::count().map_err(|found| DeviceError::NotFound { device: spec.to_string(), found })?;
        let list = || Device::enumerate(burn::tensor::DeviceType::Cuda).into_iter().collect();
        let picked = pick(spec, index, "CUDA device", list)?;
        #[cfg(target_os = "linux")]
        crate::gpu::hand_out(index);
        Ok(picked)
    };
    find().map_err(explain_visible)
}

#[cfg(not(feature = "cuda"))]
fn cuda(spec: DeviceSpec, _index: usize) -> Result<Device, DeviceError> {
    Err(not_compiled(spec, "cuda"))
}

#[cfg(feature = "wgpu")]
fn wgpu(spec: DeviceSpec, index: usize) -> Result<Device, DeviceError> {
    pick(spec, index, "wgpu device", || Device::enumerate(burn::tensor::DeviceType::Wgpu).into_iter().collect())
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(spec: DeviceSpec, _index: usize) -> Result<Device, DeviceError> {
    Err(not_compiled(spec, "wgpu"))
}

#[cfg(feature = "libtorch")]
#[allow(deprecated, reason = "burn deprecates its LibTorch backend, which is used only if the user names it")]
fn libtorch(spec: DeviceSpec) -> Result<Device, DeviceError> {
    match spec {
        DeviceSpec::LibTorchCuda(index) => pick(spec, index, "CUDA device of LibTorch", || {
            let devices: Vec<_> = Device::enumerate(burn::tensor::DeviceType::LibTorch).into_iter().collect();
            devices.into_iter().filter(|device| *device != Device::libtorch()).collect()
        })
        .map_err(explain_visible),
        _ => Ok(Device::libtorch()),
    }
}

#[cfg(not(feature = "libtorch"))]
fn libtorch(spec: DeviceSpec) -> Result<Device, DeviceError> {
    Err(not_compiled(spec, "libtorch"))
}

#[cfg(test)]
mod tests {
    use super::DeviceError;
    use super::DeviceSpec;
    use super::device;

    #[test]
    fn strings_are_understood_and_come_back() {
        for (text, canonical) in [
            ("cpu", "cpu"),
            ("cuda", "cuda:0"),
            ("cuda:1", "cuda:1"),
            ("wgpu:0", "wgpu:0"),
            ("libtorch", "libtorch"),
            ("libtorch:cpu", "libtorch"),
            ("libtorch:cuda:3", "libtorch:cuda:3"),
        ] {
            assert_eq!(text.parse::<DeviceSpec>().map(|spec| spec.to_string()), Ok(canonical.to_owned()));
        }
    }

    #[test]
    fn unknown_devices_are_named() {
        for text in
            ["", "gpu", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "libtorch:mps", "CPU", "cuda:99999999999999999999"]
        {
            assert_eq!(text.parse::<DeviceSpec>(), Err(DeviceError::Unknown { found: text.to_owned() }));
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn missing_backend_names_its_feature() {
        let error = device("cuda:1").unwrap_err();
        assert_eq!(error, DeviceError::NotCompiled { device: "cuda:1".into(), feature: "cuda".into() });
        assert!(error.to_string().contains("features = [\"cuda\"]"), "{error}");
    }

    #[test]
    fn cpu_is_always_there() {
        assert_eq!(device("cpu").unwrap(), burn::tensor::Device::flex());
    }
}
