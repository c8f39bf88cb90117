//! Records one forward pass: loads the pipeline on burn's capture device, which executes nothing,
//! and runs it there.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::tensor::{Device, DeviceConfig, TensorData, TensorId};
use burn_ir::OperationIr;

use super::Forward;
use crate::arena::arena::Arena;
use crate::error::trace::TraceError;
use crate::jit::graph::passes;
use crate::os::sync::Mutex;
use crate::panics;
use crate::pipeline::load::load;
use crate::pipeline::rebuild::Root;
use crate::tensor::quantised::{self, Place};
use crate::tensor::value::{Value, Values};

/// A recorded forward pass at concrete sizes.
pub(super) struct Recording {
    pub operations: Vec<OperationIr>,
    pub inputs: Vec<TensorId>,
    pub outputs: Vec<Output>,
    /// Tensors that existed before the first operation: inputs, weights, and tensors that the
    /// forward pass created from numbers.
    pub values: BTreeMap<TensorId, TensorData>,
    /// Places of floats that stand for quantised weights, and the places of these.
    pub quantised: Vec<(Place, Place)>,
}

/// An output of a forward pass.
pub(super) struct Output {
    pub name: String,
    pub id: TensorId,
    pub shape: Vec<usize>,
    pub dtype: burn::tensor::DType,
}

/// The capture device, with the default element types of the CPU device. It is created once,
/// because burn never recycles the ids of capture devices.
fn device() -> Result<Device, String> {
    static DEVICE: LazyLock<Result<Device, String>> = LazyLock::new(|| {
        let flex = Device::flex().settings();
        let device = Device::capture();
        let config =
            DeviceConfig::default().float_dtype(flex.float_dtype).int_dtype(flex.int_dtype).bool_dtype(flex.bool_dtype);
        let mut configured = Ok(());
        // The device only reports the element types that it supports inside a scope.
        let scope = device.capture_scope(|scope| {
            configured = device.clone().configure(config).map_err(|error| error.to_string());
            scope.complete([], [])
        });
        scope.map_err(|error| error.to_string()).and(configured).map(|()| device)
    });
    DEVICE.clone()
}

/// Returns burn's id of a tensor on the capture device, or `None` for another device.
fn id(value: &Value) -> Option<TensorId> {
    match value.kind_of() {
        DispatchTensorKind::Capture(BackendTensor::Float(tensor)) => Some(tensor.id()),
        DispatchTensorKind::Capture(BackendTensor::Int(tensor)) => Some(tensor.id()),
        DispatchTensorKind::Capture(BackendTensor::Bool(tensor)) => Some(tensor.id()),
        _ => None,
    }
}

/// Records a forward pass of the pipeline in an arena. The bytes of recorded weights are in the
/// arena.
///
/// # Errors
/// If the forward pass cannot be recorded.
pub(super) fn record<P: Root>(
    arena: &Arena,
    inputs: &[(String, TensorData)],
    forward: &Forward<'_, P>,
) -> Result<Recording, TraceError> {
    static RECORDING: Mutex<()> = Mutex::new(());
    let _guard = RECORDING.lock();
    let untraceable = |reason: String| TraceError::Untraceable { reason, after: None };
    let device = device().map_err(untraceable)?;
    let (mut done, mut quantised) = (None, Vec::new());
    let captured = device.capture_scope(|scope| {
        let run = || -> Result<(Vec<TensorId>, Vec<Output>), TraceError> {
            let (loaded, replaced) = quantised::recorded(|| load::<P>(arena, &device));
            quantised = replaced;
            let mut pipeline = loaded?;
            let mut values = Values::new();
            let mut ids = Vec::with_capacity(inputs.len());
            for (name, data) in inputs {
                let input_error = |reason: String| TraceError::Input { name: name.clone(), reason };
                let value = Value::from_data(data.clone(), &device).map_err(input_error)?;
                ids.push(id(&value).ok_or_else(|| input_error("it is not on the capture device".to_owned()))?);
                values.insert(name, value);
            }
            let given = forward(&mut pipeline, &values)?;
            let outputs = given.iter().map(|(name, value)| {
                let (name, shape, dtype) = (name.to_owned(), value.shape(), value.dtype());
                match id(value) {
                    Some(id) => Ok(Output { name, id, shape, dtype }),
                    None => Err(TraceError::Output {
                        name,
                        reason: "it was created on another device; create it on the device of the inputs or weights"
                            .to_owned(),
                    }),
                }
            });
            Ok((ids, outputs.collect::<Result<_, _>>()?))
        };
        let result =
            panics::caught(run).unwrap_or_else(|panic| Err(TraceError::Untraceable { reason: panic, after: None }));
        let (inputs, mut outputs): (Vec<_>, Vec<_>) = match &result {
            Ok((inputs, outputs)) => (inputs.clone(), outputs.iter().map(|output| output.id).collect()),
            Err(_) => Default::default(),
        };
        // Two outputs may be the same tensor.
        outputs.sort_unstable();
        outputs.dedup();
        done = Some(result);
        scope.complete(inputs, outputs)
    });
    let operations = captured.as_ref().map(|captured| &captured.graph.operations[..]).unwrap_or_default();
    let after = operations.iter().rev().find(|operation| !matches!(operation, OperationIr::Init(_)));
    let (inputs, outputs) = match done {
        Some(Ok(done)) => done,
        Some(Err(TraceError::Untraceable { reason, .. })) => {
            return Err(TraceError::Untraceable { reason, after: after.map(passes::name) });
        }
        Some(Err(error)) => return Err(error),
        None => return Err(untraceable("it did not run".to_owned())),
    };
    let captured = captured.map_err(|error| match error {
        // burn's error message identifies tensors by id.
        burn::tensor::CaptureError::InvalidOutput { tensor } if outputs.iter().any(|output| output.id == tensor) => {
            let name = outputs.iter().find(|output| output.id == tensor).map(|output| output.name.clone());
            let reason = "it is a constant, not the result of an operation".to_owned();
            TraceError::Output { name: name.unwrap_or_default(), reason }
        }
        error => untraceable(error.to_string()),
    })?;
    let mut operations = captured.graph.operations;
    passes::strip_initialisation(&mut operations);
    Ok(Recording { operations, inputs, outputs, values: captured.values, quantised })
}
