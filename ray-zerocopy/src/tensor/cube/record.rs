//! Records the kernels that a computation starts.

use burn_backend::TensorMetadata;
use burn_backend::cubecl::dtype_to_storage_type;
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::std::tensor::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_std::id::StreamId;

use super::sys::Recording;
use crate::os::recording;

/// Records the kernels that `run` starts. `run` is called twice with the same tensors, which have the shapes of `inputs`: the
/// first time it computes, so that all memory that it needs is there, and the second time its kernels are recorded. `kept` are
/// the other tensors that it reads.
///
/// No other thread uses the device meanwhile. Returns `None` if one is loading weights: it can be tried later.
///
/// # Errors
/// If `run` fails, or does what cannot be recorded: it reads a result, writes from the host, or allocates more memory the second
/// time.
pub(crate) fn record(
    client: &Client,
    inputs: &[CubeTensor],
    kept: Vec<CubeTensor>,
    run: &mut (dyn FnMut(Vec<CubeTensor>) -> Result<Vec<CubeTensor>, String> + Send),
) -> Result<Option<Recording>, String> {
    let stream = StreamId::allocate();
    let inputs: Vec<_> = stream.executes(|| inputs.iter().map(copy).collect());
    let (given, capturing) = (inputs.clone(), client.clone());
    let work = move || {
        capturing.graph_prepare().map_err(|error| error.to_string())?;
        let mut start = || {
            drop(run(given.clone())?);
            capturing.start_capture().map_err(|error| error.to_string())?;
            run(given.clone())
        };
        let outputs = start();
        // In the case of an error, too: until then, nothing else can be recorded.
        let graph = capturing.stop_capture();
        Ok::<_, String>((outputs?, graph.map_err(|error| error.to_string())?))
    };
    // On burn's thread for the device, which does nothing else meanwhile.
    let recorded = client.exclusive(move || recording::try_record(|| stream.executes(work)));
    let Some(recorded) = recorded.map_err(|error| error.to_string())? else { return Ok(None) };
    let (outputs, graph) = recorded?;
    Ok(Some(Recording::new(graph, stream, inputs, outputs, kept)))
}

/// A new tensor with the same elements, in row-major order.
pub(super) fn copy(tensor: &CubeTensor) -> CubeTensor {
    let (client, device, dtype) = (tensor.client.clone(), tensor.device(), tensor.dtype);
    let made = into_contiguous(&client, tensor.clone().binding(), dtype_to_storage_type(dtype));
    CubeTensor::new(client, made.handle, *made.metadata, device, dtype)
}
