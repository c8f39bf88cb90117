//! Device strings, `"cpu"`, `"cuda:1"`, `"wgpu:0"`, `"libtorch"`, as burn devices that are known to exist.
//!
//! burn makes a device without asking whether it is there, and panics at its first use. Here it is asked first.

use crate::error::device::DeviceError;
use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;

/// A device string, understood but not yet looked for: the owner may name a device that only its workers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Spec {
    Cpu,
    Cuda(usize),
    Wgpu(usize),
    LibTorch,
    LibTorchCuda(usize),
}

impl FromStr for Spec {
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

impl fmt::Display for Spec {
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

/// The burn device that a string names, if this program has the backend and this machine the device.
///
/// | string | device | feature |
/// | --- | --- | --- |
/// | `cpu` | burn's flex backend, which borrows weights in place | always there |
/// | `cuda`, `cuda:1` | an NVIDIA GPU; weights are uploaded | `cuda` |
/// | `wgpu`, `wgpu:0` | Vulkan, Metal or WebGPU; weights are uploaded | `wgpu` |
/// | `libtorch` | LibTorch on the processor, which borrows weights in place | `libtorch` |
/// | `libtorch:cuda:0` | LibTorch on a GPU; weights are uploaded | `libtorch` |
///
/// # Errors
/// Says which feature is missing, or what was found instead.
///
/// ```
/// use ray_zerocopy::device;
/// assert_eq!(device("cpu")?, burn::tensor::Device::flex());
/// let error = device("gpu0").unwrap_err();
/// assert!(error.to_string().starts_with("`gpu0` is not a device; write `cpu`, `cuda`"));
/// # Ok::<(), ray_zerocopy::Error>(())
/// ```
pub fn device(text: &str) -> Result<Device, DeviceError> {
    let spec: Spec = text.parse()?;
    match spec {
        Spec::Cpu => Ok(Device::flex()),
        Spec::Cuda(index) => cuda(spec, index),
        Spec::Wgpu(index) => wgpu(spec, index),
        Spec::LibTorch | Spec::LibTorchCuda(_) => libtorch(spec),
    }
}

#[cfg(not(all(feature = "cuda", feature = "wgpu", feature = "libtorch")))]
fn not_compiled(spec: Spec, feature: &str) -> DeviceError {
    DeviceError::NotCompiled { device: spec.to_string(), feature: feature.to_owned() }
}

/// Picks a device out of those that the backend lists. Drivers that are not installed panic in some backends.
#[cfg(any(feature = "cuda", feature = "wgpu", feature = "libtorch"))]
fn pick(spec: Spec, index: usize, what: &str, list: impl FnOnce() -> Vec<Device>) -> Result<Device, DeviceError> {
    let not_found = |found: String| DeviceError::NotFound { device: spec.to_string(), found };
    let devices = crate::panics::caught(list).map_err(|panic| not_found(format!("no usable driver: {panic}")))?;
    let count = devices.len();
    devices.into_iter().nth(index).ok_or_else(|| match count {
        0 => not_found(format!("no {what}")),
        1 => not_found(format!("one {what}, number 0")),
        _ => not_found(format!("{count} {what}s, numbers 0 to {}", count - 1)),
    })
}

#[cfg(feature = "cuda")]
fn cuda(spec: Spec, index: usize) -> Result<Device, DeviceError> {
    pick(spec, index, "CUDA device", || Device::enumerate(burn::tensor::DeviceType::Cuda).into_iter().collect())
}

#[cfg(not(feature = "cuda"))]
fn cuda(spec: Spec, _index: usize) -> Result<Device, DeviceError> {
    Err(not_compiled(spec, "cuda"))
}

#[cfg(feature = "wgpu")]
fn wgpu(spec: Spec, index: usize) -> Result<Device, DeviceError> {
    pick(spec, index, "wgpu device", || Device::enumerate(burn::tensor::DeviceType::Wgpu).into_iter().collect())
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(spec: Spec, _index: usize) -> Result<Device, DeviceError> {
    Err(not_compiled(spec, "wgpu"))
}

#[cfg(feature = "libtorch")]
#[allow(deprecated, reason = "burn marks LibTorch as on its way out; users who name it ask for it")]
fn libtorch(spec: Spec) -> Result<Device, DeviceError> {
    match spec {
        Spec::LibTorchCuda(index) => pick(spec, index, "CUDA device of LibTorch", || {
            let devices: Vec<_> = Device::enumerate(burn::tensor::DeviceType::LibTorch).into_iter().collect();
            devices.into_iter().filter(|device| *device != Device::libtorch()).collect()
        }),
        _ => Ok(Device::libtorch()),
    }
}

#[cfg(not(feature = "libtorch"))]
fn libtorch(spec: Spec) -> Result<Device, DeviceError> {
    Err(not_compiled(spec, "libtorch"))
}

#[cfg(test)]
mod tests {
    use super::DeviceError;
    use super::Spec;
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
            assert_eq!(text.parse::<Spec>().map(|spec| spec.to_string()), Ok(canonical.to_owned()));
        }
    }

    #[test]
    fn what_is_no_device_is_named() {
        for text in
            ["", "gpu", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "libtorch:mps", "CPU", "cuda:99999999999999999999"]
        {
            assert_eq!(text.parse::<Spec>(), Err(DeviceError::Unknown { found: text.to_owned() }));
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_backend_that_is_not_compiled_in_names_its_feature() {
        let error = device("cuda:1").unwrap_err();
        assert_eq!(error, DeviceError::NotCompiled { device: "cuda:1".into(), feature: "cuda".into() });
        assert!(error.to_string().contains("features = [\"cuda\"]"), "{error}");
    }

    #[test]
    fn cpu_is_always_there() {
        assert_eq!(device("cpu").unwrap(), burn::tensor::Device::flex());
    }
}
