//! Examples: inputs that a new generation has to answer before it becomes current.

use burn::tensor::{Device, TensorData};
use ray_zerocopy::jit::{JitTaskWrapper, Model, ReplayError, Value, Values};
use ray_zerocopy::{CallError, Checked, Error, LocalPool};

use super::builder::Settings;
use super::info::{ModelInfo, TensorPort};
use crate::error::ServeError;
use crate::tensor::datatype;

/// Most bytes of inputs that are kept as an example.
const LARGEST: usize = 1 << 20;

/// Returns `true` if these inputs may be kept.
pub(super) fn is_small(inputs: &Values) -> bool {
    let bytes = |value: &Value| value.shape().iter().product::<usize>().saturating_mul(value.dtype().size());
    inputs.iter().fold(0_usize, |sum, (_, value)| sum.saturating_add(bytes(value))) <= LARGEST
}

/// Inputs of zeros, with 1 for each dimension that may differ. `None` if the types or shapes are not known.
pub(super) fn zeros(info: &ModelInfo) -> Option<Values> {
    let zeros = |port: &TensorPort| {
        let dtype = datatype::parse(&port.datatype, &port.name).ok()?;
        let shape: Vec<usize> = port.shape.iter().map(|&extent| usize::try_from(extent).unwrap_or(1)).collect();
        let bytes = shape.iter().try_fold(dtype.size(), |all, &extent| all.checked_mul(extent))?;
        let data = TensorData::from_bytes_vec(vec![0; bytes], shape, dtype);
        Some((port.name.clone(), Value::from_data(data, &Device::flex()).ok()?))
    };
    info.inputs.iter().map(zeros).collect()
}

/// Starts a wrapper of a model. Its calls are put together if they can be.
pub(super) fn started(
    pool: &LocalPool,
    settings: &Settings,
    model: &Model,
    info: &ModelInfo,
) -> Result<JitTaskWrapper, ServeError> {
    let alone = JitTaskWrapper::on(pool, model)?.device(settings.device.as_str())?;
    let alone = alone.fail_when_full().cancel_grace(settings.cancel_grace);
    let example = zeros(info);
    let batched = match (model, settings.batching) {
        (Model::Graph(_), Some(batching)) => alone.clone().batch(batching),
        _ => {
            ran(&alone, example)?;
            return Ok(alone);
        }
    };
    match ran(&batched, example.clone()) {
        Err(Error::Call(CallError::Graph { error: ReplayError::NotBatchable { .. }, .. })) => {
            ran(&alone, example)?;
            Ok(alone)
        }
        Err(error) => Err(error.into()),
        Ok(()) => Ok(batched),
    }
}

/// Runs an example in a worker. That its sizes do not suit the model is not an error: they were guessed.
fn ran(wrapper: &JitTaskWrapper, example: Option<Values>) -> Result<(), Error> {
    let Some(example) = example else { return Ok(()) };
    match wrapper.run(example).wait() {
        Err(Error::Call(CallError::Graph {
            error:
                ReplayError::Inputs { .. }
                | ReplayError::Input { .. }
                | ReplayError::Sizes { .. }
                | ReplayError::Operation { .. },
            ..
        })) => Ok(()),
        result => result.map(drop),
    }
}

/// Checks that `next` answers an example. One that `current` cannot answer either says nothing.
pub(super) fn answers(next: &JitTaskWrapper, current: Option<&JitTaskWrapper>, example: Option<Values>) -> Checked {
    let Some(example) = example else { return Ok(()) };
    let Err(error) = next.run(example.clone()).wait() else { return Ok(()) };
    if current.is_some_and(|current| current.run(example).wait().is_err()) {
        return Ok(());
    }
    Err(format!("it did not answer an example that the current version answers: {error}").into())
}
