//! The interface that a backend needs to run graphs, and the backends that implement it.

use std::convert::Infallible;
use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::tensor::Device;
use burn_ir::{BackendIr, CustomOpIr, HandleKind};
use ray_zerocopy_kernels::Isa;

use super::Execute;
use super::executor::{Executor, Slots};
use crate::arena::arena::Arena;
use crate::error::graph::ReplayError;
use crate::jit::graph::code::{COMPILED, GraphCode};
use crate::jit::graph::fused::Fused;
use crate::tensor::copied::CopiedTensor;
use crate::tensor::value::Value;

/// Computes outputs from inputs, on another thread.
pub(super) type Run<'a, B> = dyn FnMut(Vec<HandleKind<B>>) -> Result<Vec<HandleKind<B>>, String> + Send + 'a;

/// Why a run was not recorded.
#[cfg_attr(not(any(feature = "cuda", feature = "wgpu")), expect(dead_code, reason = "only GPUs record"))]
pub(super) enum NotRecorded {
    /// The backend records nothing.
    Unsupported,
    /// The device is in use. It can be tried later.
    Busy,
    /// The run cannot be recorded, for this reason.
    Refused(String),
}

/// A backend that can run graphs.
pub(super) trait Bridge: BackendIr {
    /// Extracts the backend's tensor. Returns `None` if the value is on another backend or device.
    fn inside(value: &Value, device: &Self::Device) -> Option<HandleKind<Self>>;

    /// Wraps a tensor in a value. Returns `None` for quantised tensors.
    fn outside(handle: HandleKind<Self>) -> Option<Value>;

    /// Address of the elements, or `None` if they are not in host memory.
    fn address(handle: &HandleKind<Self>) -> Option<*const u8>;

    /// Kernels that a run has started, which the backend can start again.
    type Recording: Send;

    /// Records the kernels of `run`, which is called with tensors of the shapes of `inputs`. `kept` are the other tensors that
    /// it reads. Returns [`NotRecorded`] if it cannot.
    fn record(
        _device: &Self::Device,
        _inputs: &[HandleKind<Self>],
        _kept: Vec<HandleKind<Self>>,
        _run: &mut Run<'_, Self>,
    ) -> Result<Self::Recording, NotRecorded>
    where
        Self: Sized,
    {
        Err(NotRecorded::Unsupported)
    }

    /// Starts recorded kernels with other inputs of the same shapes. Returns new tensors.
    fn replay(recording: &mut Self::Recording, inputs: &[HandleKind<Self>]) -> Result<Vec<HandleKind<Self>>, String>
    where
        Self: Sized;

    /// Runs a fused operation. Returns `false` if the backend does not have them.
    fn fused(_fused: Fused, _operation: &CustomOpIr, _slots: &mut Slots<Self>) -> bool
    where
        Self: Sized,
    {
        false
    }
}

impl Bridge for Flex {
    type Recording = Infallible;

    fn replay(recording: &mut Infallible, _: &[HandleKind<Self>]) -> Result<Vec<HandleKind<Self>>, String> {
        match *recording {}
    }

    fn fused(fused: Fused, operation: &CustomOpIr, slots: &mut Slots<Self>) -> bool {
        super::fused::run(fused, operation, slots);
        true
    }

    fn inside(value: &Value, _: &FlexDevice) -> Option<HandleKind<Self>> {
        match value.kind_of() {
            DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => Some(HandleKind::Float(tensor.clone())),
            DispatchTensorKind::Flex(BackendTensor::Int(tensor)) => Some(HandleKind::Int(tensor.clone())),
            DispatchTensorKind::Flex(BackendTensor::Bool(tensor)) => Some(HandleKind::Bool(tensor.clone())),
            DispatchTensorKind::Flex(BackendTensor::Quantized(tensor)) => Some(HandleKind::Quantized(tensor.clone())),
            _ => None,
        }
    }

    fn outside(handle: HandleKind<Self>) -> Option<Value> {
        let tensor = match handle {
            HandleKind::Float(tensor) => BackendTensor::Float(tensor),
            HandleKind::Int(tensor) => BackendTensor::Int(tensor),
            HandleKind::Bool(tensor) => BackendTensor::Bool(tensor),
            HandleKind::Quantized(_) => return None,
        };
        Some(Value::from_kind(DispatchTensorKind::Flex(tensor)))
    }

    fn address(handle: &HandleKind<Self>) -> Option<*const u8> {
        match handle {
            HandleKind::Float(tensor) | HandleKind::Int(tensor) | HandleKind::Bool(tensor) => {
                Some(tensor.bytes().as_ptr())
            }
            HandleKind::Quantized(tensor) => Some(tensor.tensor().bytes().as_ptr()),
        }
    }
}

#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod cube {
    use burn::backend::{BackendTensor, DispatchTensorKind};
    use burn::tensor::{Device, Tensor};
    use burn_backend::{BackendTypes, TensorMetadata};
    use burn_cubecl::tensor::CubeTensor;
    use burn_ir::HandleKind;
    use burn_std::device::Device as _;

    use super::{Bridge, NotRecorded, Run};
    use crate::panics;
    use crate::tensor::cube::{Recording, record};
    use crate::tensor::kind::TensorKind;
    use crate::tensor::value::Value;

    /// CUDA and wgpu: the same backend of burn. The device selects one of them.
    pub(super) type Cube = burn::backend::Cube;

    /// Converts a device to burn's own type. Returns `None` if it belongs to another backend. burn
    /// only exposes this through a tensor on the device.
    pub(super) fn device(device: &Device) -> Option<<Cube as BackendTypes>::Device> {
        match Tensor::<1>::from_floats([0.0], device).into_dispatch().kind {
            DispatchTensorKind::Cube(BackendTensor::Float(tensor)) => Some(tensor.device()),
            _ => None,
        }
    }

    /// burn's tensor.
    fn tensor(handle: HandleKind<Cube>) -> CubeTensor {
        match handle {
            HandleKind::Float(tensor)
            | HandleKind::Int(tensor)
            | HandleKind::Bool(tensor)
            | HandleKind::Quantized(tensor) => tensor,
        }
    }

    /// The tensor of a graph. Inputs and outputs are not quantised.
    fn handle(tensor: CubeTensor) -> HandleKind<Cube> {
        match TensorKind::of(tensor.dtype) {
            TensorKind::Float => HandleKind::Float(tensor),
            TensorKind::Int => HandleKind::Int(tensor),
            TensorKind::Bool => HandleKind::Bool(tensor),
        }
    }

    fn tensors(handles: Vec<HandleKind<Cube>>) -> Vec<CubeTensor> {
        handles.into_iter().map(tensor).collect()
    }

    fn handles(tensors: Vec<CubeTensor>) -> Vec<HandleKind<Cube>> {
        tensors.into_iter().map(handle).collect()
    }

    impl Bridge for Cube {
        type Recording = Recording;

        fn record(
            device: &Self::Device,
            inputs: &[HandleKind<Self>],
            kept: Vec<HandleKind<Self>>,
            run: &mut Run<'_, Self>,
        ) -> Result<Recording, NotRecorded> {
            let mut run = |inputs| run(handles(inputs)).map(tensors);
            let recorded = panics::caught(|| {
                let client = device.client();
                record(&client, &tensors(inputs.to_vec()), tensors(kept), &mut run)
            });
            let recorded = recorded.and_then(|recorded| recorded).map_err(NotRecorded::Refused)?;
            recorded.ok_or(NotRecorded::Busy)
        }

        fn replay(recording: &mut Recording, inputs: &[HandleKind<Self>]) -> Result<Vec<HandleKind<Self>>, String> {
            let outputs = panics::caught(|| recording.run(&tensors(inputs.to_vec())));
            outputs.and_then(|outputs| outputs).map(handles)
        }

        fn inside(value: &Value, device: &Self::Device) -> Option<HandleKind<Self>> {
            // Another graphics card uses the same backend.
            if value.kind_of().device().to_id() != device.to_id() {
                return None;
            }
            match value.kind_of() {
                DispatchTensorKind::Cube(BackendTensor::Float(tensor)) => Some(HandleKind::Float(tensor.clone())),
                DispatchTensorKind::Cube(BackendTensor::Int(tensor)) => Some(HandleKind::Int(tensor.clone())),
                DispatchTensorKind::Cube(BackendTensor::Bool(tensor)) => Some(HandleKind::Bool(tensor.clone())),
                DispatchTensorKind::Cube(BackendTensor::Quantized(tensor)) => {
                    Some(HandleKind::Quantized(tensor.clone()))
                }
                _ => None,
            }
        }

        fn outside(handle: HandleKind<Self>) -> Option<Value> {
            let tensor = match handle {
                HandleKind::Float(tensor) => BackendTensor::Float(tensor),
                HandleKind::Int(tensor) => BackendTensor::Int(tensor),
                HandleKind::Bool(tensor) => BackendTensor::Bool(tensor),
                HandleKind::Quantized(_) => return None,
            };
            Some(Value::from_kind(DispatchTensorKind::Cube(tensor)))
        }

        fn address(_: &HandleKind<Self>) -> Option<*const u8> {
            None
        }
    }
}

/// Creates the executor of a graph on a device. Also returns the weights that could not be
/// borrowed.
pub(crate) fn executor(
    code: &Arc<GraphCode>,
    arena: &Arena,
    device: &Device,
    name: &str,
) -> Result<(Box<dyn Execute>, Vec<CopiedTensor>), ReplayError> {
    if *device == Device::flex() {
        if code.format == COMPILED {
            // A worker reports it when it has loaded the graph.
            Isa::best();
        }
        let (executor, copied) = Executor::<Flex>::new(code, arena, device, FlexDevice)?;
        return Ok((Box::new(executor), copied));
    }
    if code.format == COMPILED {
        return Err(ReplayError::Compiled { device: name.to_owned() });
    }
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    crate::pipeline::device_weights::prepare(device).map_err(ReplayError::of_upload)?;
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    if let Some(cube_device) = cube::device(device) {
        let (executor, copied) = Executor::<cube::Cube>::new(code, arena, device, cube_device)?;
        return Ok((Box::new(executor), copied));
    }
    Err(ReplayError::NoInterpreter { device: name.to_owned() })
}
