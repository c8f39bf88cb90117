//! Tracing: creates a graph from a pipeline and example inputs.
//!
//! | file | what |
//! | --- | --- |
//! | `record` | runs the forward pass once, on a device that records operations without executing them |
//! | `symbolize` | runs the forward pass at several sizes, and finds the numbers that depend on them |
//! | `assemble` | combines recordings and constants into one graph |
//! | `method` | a method of `#[remote]` as a forward pass |
//! | `verify` | compares the graph with the pipeline |

pub(crate) mod assemble;
pub(crate) mod method;
pub(crate) mod record;
pub(crate) mod symbolize;
pub(crate) mod verify;

use std::fmt;

use burn::tensor::{Tensor, TensorData};

use crate::error::trace::TraceError;

use super::traced_graph::TracedGraph;
use crate::arena::arena::Arena;
use crate::error::value::ValueError;
use crate::pipeline::rebuild::Root;
use crate::pipeline::share::share;
use crate::remote::Remote;
use crate::tensor::value::{ElementKind, IntoOutputs, Value, Values, outputs};

/// A forward pass: runs a pipeline on inputs.
type Forward<'a, P> = dyn Fn(&mut P, &Values) -> Result<Values, TraceError> + 'a;

/// Maximum number of symbols: each doubles the number of recordings.
const MOST_SYMBOLS: usize = 4;

/// Starts tracing a pipeline.
///
/// The forward pass runs on burn's capture device, which records operations without executing them.
/// Control flow may depend on shapes but not on tensor values. The graph is verified against the
/// pipeline, on the example inputs and on inputs of other sizes. Tracing fails if any bit differs,
/// or, for a pipeline whose own bits differ from run to run, if a number differs by more than 1e-5.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use ray_zerocopy::{Pipeline, jit};
///
/// #[derive(Pipeline)]
/// #[pipeline(init = Model::new)]
/// struct Model { head: Linear }
///
/// impl Model {
///     fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } }
/// }
///
/// let device = Device::flex();
/// let model = Model::new(&device);
/// let graph = jit::trace(&model)
///     .input("rows", Tensor::<2>::ones([3, 4], &device))
///     .symbol("batch", [("rows", 0)])
///     .forward(|model, inputs| Ok(model.head.forward(inputs.float::<2>("rows")?)))?;
///
/// let rows = Tensor::<2>::ones([7, 4], &device);       // another batch size than in the example
/// let outputs = graph.load("cpu")?.run([("rows", rows.clone())])?;
/// assert_eq!(outputs.float::<2>("output")?.into_data(), model.head.forward(rows).into_data());
/// # Ok::<(), ray_zerocopy::Error>(())
/// ```
pub fn trace<P: Root>(pipeline: &P) -> Tracer<'_, P> {
    crate::os::fork::adopt();
    Tracer { from: From::Pipeline(pipeline), inputs: Vec::new(), symbols: Vec::new(), values: Vec::new() }
}

/// Builder of a trace: see [`trace()`].
pub struct Tracer<'a, P> {
    from: From<'a, P>,
    inputs: Vec<(String, Value)>,
    symbols: Vec<SymbolAxes>,
    /// Arguments of a method that are not tensors.
    values: Vec<(String, Result<Vec<u8>, String>)>,
}

impl<P> fmt::Debug for Tracer<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |names: &[(String, Value)]| names.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let mut text = f.debug_struct("Tracer");
        text.field("pipeline", &std::any::type_name::<P>()).field("inputs", &names(&self.inputs));
        text.finish_non_exhaustive()
    }
}

enum From<'a, P> {
    Pipeline(&'a P),
    Arena(Arena),
}

/// The axes of inputs whose size is the symbol.
struct SymbolAxes {
    name: String,
    axes: Vec<(String, usize)>,
}

/// An example input, read into host memory.
#[derive(Clone)]
struct Example {
    name: String,
    data: TensorData,
    /// The symbol of each axis, if it has one.
    symbols: Vec<Option<u8>>,
}

impl<'a, P: Root> Tracer<'a, P> {
    /// Uses weights that are already shared: the graph borrows them, so the machine holds them only
    /// once for all users of the graph and of the arena. The arena must belong to a pipeline of
    /// this type.
    #[must_use]
    pub fn arena(self, arena: &Arena) -> Tracer<'static, P> {
        let Self { inputs, symbols, values, .. } = self;
        Tracer { from: From::Arena(arena.clone()), inputs, symbols, values }
    }

    /// Adds an example input. Its shape is fixed, except for the axes of symbols.
    #[must_use]
    pub fn input<const D: usize, K: ElementKind>(mut self, name: &str, example: Tensor<D, K>) -> Self {
        self.inputs.push((name.to_owned(), example.into()));
        self
    }

    /// Declares a size that may differ from call to call: the size of the given axes, which must be
    /// equal in every call.
    ///
    /// Up to four symbols are possible. The forward pass must run the same operations at all sizes,
    /// and every number in it must be a sum of products of sizes. Sizes 0 and 1 are not sampled;
    /// the behaviour at larger sizes is assumed to hold.
    #[must_use]
    pub fn symbol<'n>(mut self, name: &str, axes: impl IntoIterator<Item = (&'n str, usize)>) -> Self {
        let axes = axes.into_iter().map(|(input, axis)| (input.to_owned(), axis)).collect();
        self.symbols.push(SymbolAxes { name: name.to_owned(), axes });
        self
    }

    /// Sets an argument of a [`method`](Self::method) that is not a tensor. Its value becomes part
    /// of the graph.
    #[must_use]
    pub fn value<T: serde::Serialize + ?Sized>(mut self, name: &str, value: &T) -> Self {
        self.values.push((name.to_owned(), crate::codec::encode(value)));
        self
    }

    /// Records a forward pass. It returns one tensor, which is named `output`, or [`Values`] with
    /// names.
    ///
    /// # Errors
    /// If the forward pass cannot be recorded, or the graph's results differ from its results.
    pub fn forward<R: IntoOutputs>(
        self,
        forward: impl Fn(&P, &Values) -> Result<R, ValueError>,
    ) -> Result<TracedGraph, TraceError> {
        let origin = crate::error::type_name::<P>();
        self.run(origin, &|pipeline, inputs| Ok(outputs(forward(pipeline, inputs)?)))
    }

    fn run(self, origin: String, forward: &Forward<'_, P>) -> Result<TracedGraph, TraceError> {
        let arena = match &self.from {
            From::Pipeline(pipeline) => share(*pipeline)?,
            From::Arena(arena) => arena.clone(),
        };
        let examples = self.examples()?;
        let names: Vec<_> = self.symbols.iter().map(|symbol| symbol.name.clone()).collect();
        let recorded = symbolize::record_all(&arena, &examples, &names, forward)?;
        let code = assemble::code(&arena, origin, &examples, recorded)?;
        let graph = TracedGraph::new(code, &arena)?;
        verify::verify(&graph, &arena, &examples, names.len(), forward)?;
        Ok(graph)
    }

    /// The example inputs, with their symbols.
    fn examples(&self) -> Result<Vec<Example>, TraceError> {
        let input_error = |name: &str, reason: String| TraceError::Input { name: name.to_owned(), reason };
        let mut examples: Vec<Example> = Vec::new();
        for (name, value) in &self.inputs {
            if examples.iter().any(|known| known.name == *name) {
                return Err(input_error(name, "two inputs have this name".to_owned()));
            }
            let data = value.data().map_err(|reason| input_error(name, reason))?;
            if matches!(data.dtype(), burn::tensor::DType::QFloat(_)) {
                return Err(input_error(name, "it is quantised, which graphs do not support".to_owned()));
            }
            if data.shape().num_elements() == 0 {
                return Err(input_error(name, format!("it is empty: its shape is {:?}", data.shape().to_vec())));
            }
            let symbols = vec![None; data.shape().num_dims()];
            examples.push(Example { name: name.clone(), data, symbols });
        }
        if self.symbols.len() > MOST_SYMBOLS {
            let name = self.symbols[MOST_SYMBOLS].name.clone();
            return Err(TraceError::Symbol { name, reason: format!("a graph has at most {MOST_SYMBOLS} symbols") });
        }
        for (number, symbol) in self.symbols.iter().enumerate() {
            assign_symbol(&mut examples, number as u8, symbol)
                .map_err(|reason| TraceError::Symbol { name: symbol.name.clone(), reason })?;
        }
        Ok(examples)
    }
}

/// Assigns a symbol to its axes.
fn assign_symbol(examples: &mut [Example], number: u8, symbol: &SymbolAxes) -> Result<(), String> {
    let mut size: Option<(usize, String)> = None;
    for (input, axis) in &symbol.axes {
        let names = crate::tensor::value::listed(examples.iter().map(|example| example.name.as_str()));
        let example = examples.iter_mut().find(|example| example.name == *input);
        let example = example.ok_or_else(|| format!("there is no input `{input}`; there is {names}"))?;
        let shape = example.data.shape().to_vec();
        let found = shape.get(*axis).copied();
        let found = found.ok_or_else(|| format!("`{input}` has no axis {axis}: its shape is {shape:?}"))?;
        match &size {
            Some((known, other)) if *known != found => {
                return Err(format!(
                    "axis {axis} of `{input}` has size {found}, but the axis of `{other}` has size {known}"
                ));
            }
            _ => size = Some((found, input.clone())),
        }
        if example.symbols[*axis].replace(number).is_some() {
            return Err(format!("axis {axis} of `{input}` already has a symbol"));
        }
    }
    size.map(drop).ok_or_else(|| "it does not name an axis".to_owned())
}

impl Example {
    /// Resizes the example by repeating rows, so that the values stay in the same range.
    fn resized(&self, sizes: &[usize]) -> TensorData {
        let mut data = self.data.clone();
        for (axis, symbol) in self.symbols.iter().enumerate() {
            if let Some(size) = symbol.and_then(|symbol| sizes.get(usize::from(symbol))) {
                data = repeat_along(data, axis, *size);
            }
        }
        data
    }
}

/// Resizes an axis by repeating the elements along it.
fn repeat_along(data: TensorData, axis: usize, size: usize) -> TensorData {
    let (mut shape, dtype) = (data.shape().to_vec(), data.dtype());
    let run = shape[axis + 1..].iter().product::<usize>() * dtype.size();
    let (block, bytes) = (shape[axis] * run, data.into_bytes());
    let mut all = Vec::with_capacity(bytes.len() / shape[axis].max(1) * size);
    for block in bytes.chunks_exact(block.max(1)) {
        for at in 0..size {
            let start = at % shape[axis] * run;
            all.extend_from_slice(&block[start..start + run]);
        }
    }
    shape[axis] = size;
    TensorData::from_bytes_vec(all, shape, dtype)
}

impl<P: Remote> Tracer<'_, P> {
    /// Records a method of `#[remote]`. The inputs have the names of its parameters; parameters
    /// that are not tensors get their values from [`value`](Self::value).
    ///
    /// The result is named `output`, or `output.0`, `output.1`, … if it is a tuple or an array.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), or if there is no such method, or a parameter or the result
    /// is neither a tensor nor a value.
    pub fn method(mut self, name: &str) -> Result<TracedGraph, TraceError> {
        let values = std::mem::take(&mut self.values);
        let call = method::Call::<P>::new(name, &self.inputs, values)
            .map_err(|reason| TraceError::Method { name: name.to_owned(), reason })?;
        let origin = format!("{}::{name}", crate::error::type_name::<P>());
        self.run(origin, &|pipeline, inputs| call.run(pipeline, inputs))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::repeat_along;

    #[test]
    fn repeat_along_repeats_rows() {
        let data = TensorData::from([[1_i32, 2], [3, 4], [5, 6]]);
        let expected = TensorData::from([[1_i32, 2], [3, 4], [5, 6], [1, 2], [3, 4]]);
        assert_eq!(repeat_along(data.clone(), 0, 5), expected);
        assert_eq!(repeat_along(data.clone(), 1, 3), TensorData::from([[1_i32, 2, 1], [3, 4, 3], [5, 6, 5]]));
        assert_eq!(repeat_along(data, 0, 1), TensorData::from([[1_i32, 2]]));
    }
}
