//! Starts recorded kernels. The unsafe code that deals with burn's CUDA and wgpu backends.

#![allow(unsafe_code)]

use burn_backend::cubecl::dtype_to_storage_type;
use burn_cubecl::cubecl::client::Graph;
use burn_cubecl::cubecl::std::tensor::copy_into;
use burn_cubecl::tensor::CubeTensor;
use burn_std::id::StreamId;

use super::record::copy;

/// Recorded kernels, with the memory that they read and write. On `cuda` the driver starts all of them at once, as a CUDA graph.
pub(crate) struct Recording {
    graph: Graph,
    /// The stream on which they were recorded.
    stream: StreamId,
    /// Tensors that the kernels read. Nothing else has them.
    inputs: Vec<CubeTensor>,
    /// Tensors that the kernels write.
    outputs: Vec<CubeTensor>,
    /// Other tensors that the kernels read.
    _kept: Vec<CubeTensor>,
}

impl Recording {
    pub(super) fn new(
        graph: Graph,
        stream: StreamId,
        inputs: Vec<CubeTensor>,
        outputs: Vec<CubeTensor>,
        kept: Vec<CubeTensor>,
    ) -> Self {
        Self { graph, stream, inputs, outputs, _kept: kept }
    }

    /// Computes the outputs for other inputs, of the shapes that were recorded. The outputs are new tensors.
    ///
    /// # Errors
    /// If an input has another shape or type, or the device refuses.
    pub(crate) fn run(&mut self, inputs: &[CubeTensor]) -> Result<Vec<CubeTensor>, String> {
        let is_same = |(found, known): (&CubeTensor, &CubeTensor)| {
            found.meta.shape() == known.meta.shape() && found.dtype == known.dtype
        };
        if inputs.len() != self.inputs.len() || !inputs.iter().zip(&self.inputs).all(is_same) {
            return Err("the inputs are not those that were recorded".to_owned());
        }
        self.stream.executes(|| {
            for (from, to) in inputs.iter().zip(&self.inputs) {
                let storage = dtype_to_storage_type(from.dtype);
                copy_into(&from.client, from.clone().binding(), to.clone().binding(), storage);
            }
            // SAFETY: the kernels read `inputs` and `_kept`, which this value has, and write memory that burn keeps for the graph
            // and `outputs`, which this value has, too. Only this function uses inputs and outputs, on the stream of the graph,
            // and it has this value for itself. Nothing writes to the kept tensors as long as there is another reference.
            unsafe { self.graph.replay() }.map_err(|error| error.to_string())?;
            Ok(self.outputs.iter().map(copy).collect())
        })
    }
}
