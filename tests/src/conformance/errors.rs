//! A device that is not there is an error before anything is computed, wherever it is asked for.

use burn::tensor::Device;
use ray_zerocopy::error::DeviceError;
use ray_zerocopy::{ActorWrapper, Error, device};

use super::Spec;
use super::model::Sample;

/// In this process.
pub fn one_that_is_not_there(spec: &Spec, _: &Device) {
    let error = device(spec.nowhere).unwrap_err();
    match spec.feature {
        // There is one `cpu`, and it has no number.
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
    // The wrapper is none the worse for it.
    shared.load_on(spec.name).unwrap();
}

/// In a worker, whose answer names the device.
pub fn a_worker_says_it_too(spec: &Spec, _: &Device) {
    let shared = ActorWrapper::new(&Sample::new(&Device::flex())).unwrap().device(spec.nowhere);
    // A string that is not a device fails where it is written; one that is, and is not there, in the worker.
    let error = shared.and_then(|shared| shared.spawn(1)?.count().wait()).unwrap_err();
    assert!(error.to_string().contains(&format!("`{}`", spec.nowhere)), "{error}");
}

/// A backend that the program was built without names the feature that has it.
pub fn not_compiled_in(name: &str, feature: &str) {
    let error = device(name).unwrap_err();
    assert!(matches!(&error, DeviceError::NotCompiled { feature: found, .. } if found == feature), "{error}");
    let shared = ActorWrapper::new(&Sample::new(&Device::flex())).unwrap().device(name).unwrap();
    let failed = shared.load().unwrap_err();
    assert!(matches!(&failed, Error::Device(found) if *found == error), "{failed}");
    let worker = shared.spawn(1).and_then(|actors| actors.count().wait()).unwrap_err();
    assert!(worker.to_string().contains(&format!("feature `{feature}`")), "{worker}");
}
