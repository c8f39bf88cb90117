//! Verifies the graph against the pipeline, on the example inputs and on inputs of other sizes.

use burn::tensor::{Device, TensorData};

use super::{Example, Forward, symbolize};
use crate::arena::arena::Arena;
use crate::error::trace::TraceError;
use crate::jit::traced_graph::TracedGraph;
use crate::panics;
use crate::pipeline::load::load;
use crate::pipeline::rebuild::Root;
use crate::tensor::value::{Value, Values};

/// Compares the results of the graph and of the pipeline bitwise.
///
/// # Errors
/// If they differ. Names the output.
pub(super) fn verify<P: Root>(
    graph: &TracedGraph,
    arena: &Arena,
    examples: &[Example],
    symbols: usize,
    forward: &Forward<'_, P>,
) -> Result<(), TraceError> {
    let device = Device::flex();
    let mut executable = graph.load("cpu")?;
    let own: Vec<_> = examples.iter().map(|example| example.data.clone()).collect();
    // Sizes that were not recorded, unless all sizes of a symbol were.
    let others: Vec<_> = (0..symbols).map(|symbol| symbolize::size(examples, symbol) + 1 + symbol % 2).collect();
    let other = examples.iter().map(|example| altered(example.resized(&others))).collect();
    for (which, inputs) in [("the example inputs", own), ("other inputs, derived from the examples", other)] {
        let values = || -> Result<Values, TraceError> {
            let value = |(example, data): (&Example, &TensorData)| {
                let value = Value::from_data(data.clone(), &device);
                value
                    .map(|value| (example.name.clone(), value))
                    .map_err(|reason| TraceError::Input { name: example.name.clone(), reason })
            };
            examples.iter().zip(&inputs).map(value).collect()
        };
        let run_pipeline = || -> Result<Values, TraceError> {
            let mut pipeline = load::<P>(arena, &device)?;
            let values = values()?;
            let result = panics::caught(|| forward(&mut pipeline, &values));
            result.unwrap_or_else(|panic| {
                let reason = format!("on {which}, the pipeline itself panicked: {panic}");
                Err(TraceError::Untraceable { reason, after: None })
            })
        };
        let expected = run_pipeline()?;
        let found = executable.run(values()?)?;
        for (name, expected) in expected.iter() {
            let Some(how) = difference(expected, found.get(name)) else { continue };
            // Some kernels add in a different order from run to run.
            let again = run_pipeline()?;
            let repeats = again.get(name).is_some_and(|again| difference(expected, Some(again)).is_none());
            if repeats || !found.get(name).is_some_and(|found| close(expected, found)) {
                return Err(TraceError::Differs { output: name.to_owned(), which: which.to_owned(), how });
            }
        }
    }
    Ok(())
}

/// Reverses the order of the elements, so that every value occurs in the example.
fn altered(data: TensorData) -> TensorData {
    let (shape, dtype) = (data.shape().to_vec(), data.dtype());
    let size = dtype.size();
    let bytes: Vec<_> = data.as_bytes().rchunks_exact(size).flatten().copied().collect();
    // If that has no effect, the elements are scaled and shifted instead.
    if bytes == data.as_bytes() && dtype.is_float() {
        let numbers: Vec<f64> =
            data.iter::<f64>().enumerate().map(|(at, x)| x * 0.5 + (at % 7) as f64 * 0.125).collect();
        return TensorData::new(numbers, shape).convert_dtype(dtype);
    }
    TensorData::from_bytes_vec(bytes, shape, dtype)
}

/// Describes the first difference. Returns `None` if there is none.
fn difference(expected: &Value, found: Option<&Value>) -> Option<String> {
    let Some(found) = found else { return Some("it is missing".to_owned()) };
    if (expected.dtype(), expected.shape()) != (found.dtype(), found.shape()) {
        return Some(format!("{found} instead of {expected}"));
    }
    let (expected, found) = match (expected.data(), found.data()) {
        (Ok(expected), Ok(found)) => (expected, found),
        (Err(reason), _) | (_, Err(reason)) => return Some(reason),
    };
    let size = expected.dtype().size();
    let pairs = expected.as_bytes().chunks_exact(size).zip(found.as_bytes().chunks_exact(size));
    let at = pairs.clone().position(|(expected, found)| expected != found)?;
    let element = |data: &TensorData| data.iter::<f64>().nth(at).unwrap_or(f64::NAN);
    let differ = pairs.filter(|(expected, found)| expected != found).count();
    Some(format!("element {at} is {} instead of {}, and {differ} elements differ", element(&found), element(&expected)))
}

fn close(expected: &Value, found: &Value) -> bool {
    let (Ok(expected), Ok(found)) = (expected.data(), found.data()) else { return false };
    expected.iter::<f64>().zip(found.iter::<f64>()).all(|(own, other)| (own - other).abs() <= 1e-5 * own.abs().max(1.0))
}
