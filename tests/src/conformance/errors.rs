//! A missing device is an error before anything is computed, in the owner and in workers.

use burn::tensor::Device;
use ray_zerocopy::error::DeviceError;
use ray_zerocopy::{ActorWrapper, Error, device};

use super::Spec;
use super::model::Sample;

/// A missing device is an error in this process.
pub fn missing_device_is_an_error(spec: &Spec, _: &Device) {
    let error = device(spec.nowhere).unwrap_err();
    match spec.feature {
        // `cpu` takes no index.
        None => assert_eq!(error, DeviceError::Unknown { found: spec.nowhere.to_owned() }),
        Some(_) => {
            let DeviceError::NotFound { device, found } = &error else { panic!("{error}") };
            assert_eq!(device, spec.nowhere);
            assert!(!found.is_empty());
        }
    }
    let shared = ActorWrapper::new(&Sample::new(&Device::flex())).unwrap();
    let failed = shared.load_on(spec.nowhere).unwrap_err();
    assert!(matches!(&failed, Error::Device(found) if *found == error), "{failed}");
    // The wrapper is still usable.
    shared.load_on(spec.name).unwrap();
}

/// A missing device is an error in a worker, which names the device.
pub fn worker_reports_the_missing_device(spec: &Spec, _: &Device) {
    let shared = ActorWrapper::new(&Sample::new(&Device::flex())).unwrap().device(spec.nowhere);
    // An invalid device string fails in `device`. A valid string of a missing device fails in the
    // worker.
    let error = shared.and_then(|shared| shared.spawn(1)?.count().wait()).unwrap_err();
    assert!(error.to_string().contains(&format!("`{}`", spec.nowhere)), "{error}");
}

/// A device of a backend that is not compiled in is an error that names the feature.
pub fn not_compiled_in(name: &str, feature: &str) {
    let error = device(name).unwrap_err();
    assert!(matches!(&error, DeviceError::NotCompiled { feature: found, .. } if found == feature), "{error}");
    let shared = ActorWrapper::new(&Sample::new(&Device::flex())).unwrap().device(name).unwrap();
    let failed = shared.load().unwrap_err();
    assert!(matches!(&failed, Error::Device(found) if *found == error), "{failed}");
    let worker = shared.spawn(1).and_then(|actors| actors.count().wait()).unwrap_err();
    assert!(worker.to_string().contains(&format!("feature `{feature}`")), "{worker}");
}
