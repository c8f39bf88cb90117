//! Runs the forward pass at several sizes, and finds the numbers that depend on them.
//!
//! Each symbol is recorded at two sizes, in all combinations with the sizes of the other symbols. A
//! number that differs is interpolated by the unique polynomial through all of its values. Another
//! recording, at sizes that were not used before, must agree with the polynomials.

use std::collections::HashMap;

use burn::tensor::{DType, TensorData};
use burn_ir::OperationIr;

use super::record::{Recording, record};
use super::{Example, Forward};
use crate::arena::arena::Arena;
use crate::error::trace::TraceError;
use crate::jit::graph::passes;
use crate::jit::graph::passes::Step;
use crate::jit::graph::passes::dead::remove_dead;
use crate::jit::graph::passes::renumber::Numbering;
use crate::jit::graph::symbolic::expr::SymExpr;
use crate::jit::graph::symbolic::interpolate::SampleGrid;
use crate::jit::graph::symbolic::interpolate::interpolate;
use crate::jit::graph::symbolic::scalars::numbers;
use crate::jit::graph::symbolic::scalars::{skeleton, with_numbers};
use crate::pipeline::rebuild::Root;
use crate::tensor::quantised::Place;

/// The combined recordings of all sizes.
pub(super) struct Recorded {
    /// Names of the symbols, and the sizes at which the operations were recorded.
    pub symbols: Vec<(String, usize)>,
    pub steps: Vec<Step>,
    pub inputs: usize,
    pub outputs: Vec<Output>,
    /// Constants, whose ids follow those of the inputs.
    pub constants: Vec<TracedConstant>,
    /// Places of floats that stand for quantised weights, and the places of these.
    pub quantised: HashMap<Place, Place>,
}

/// An output.
pub(super) struct Output {
    pub name: String,
    pub id: burn::tensor::TensorId,
    pub dtype: DType,
    pub shape: Vec<SymExpr>,
}

/// A constant.
pub(super) struct TracedConstant {
    pub shape: Vec<SymExpr>,
    /// Its elements at each corner.
    pub at: Vec<TensorData>,
    /// Name of the first operation that reads it.
    pub reader: String,
}

/// A recording with dense tensor ids.
struct Normalized {
    operations: Vec<OperationIr>,
    outputs: Vec<super::record::Output>,
    constants: Vec<TensorData>,
    quantised: Vec<(Place, Place)>,
}

fn normalize(recording: Recording) -> Result<Normalized, TraceError> {
    let Recording { mut operations, inputs, mut outputs, values, quantised } = recording;
    let wanted: Vec<_> = outputs.iter().map(|output| output.id).collect();
    passes::raise_linear(&mut operations, &wanted);
    remove_dead(&mut operations, |operation| operation, wanted);
    let mut numbering = Numbering::default();
    for input in &inputs {
        numbering.of(*input);
    }
    // Constants in the order in which they are read.
    let read = operations.iter().flat_map(|operation| operation.inputs().map(|tensor| tensor.id).collect::<Vec<_>>());
    let mut constants = Vec::new();
    for id in read.chain(outputs.iter().map(|output| output.id)) {
        if let (None, Some(data)) = (numbering.known(id), values.get(&id)) {
            numbering.of(id);
            constants.push(data.clone());
        }
    }
    for operation in &mut operations {
        numbering.apply(operation);
    }
    for output in &mut outputs {
        let unmade = || TraceError::Output { name: output.name.clone(), reason: "no operation computes it".to_owned() };
        output.id = numbering.known(output.id).ok_or_else(unmade)?;
    }
    Ok(Normalized { operations, outputs, constants, quantised })
}

/// Records at all corners, and finds the symbolic expressions.
///
/// # Errors
/// If the forward pass cannot be recorded, or runs other operations at other sizes.
pub(super) fn record_all<P: Root>(
    arena: &Arena,
    examples: &[Example],
    names: &[String],
    forward: &Forward<'_, P>,
) -> Result<Recorded, TraceError> {
    let low: Vec<_> = (0..names.len()).map(|symbol| size(examples, symbol).max(2)).collect();
    let high: Vec<_> = low.iter().enumerate().map(|(symbol, low)| low + 3 + symbol).collect();
    let corners = SampleGrid::new(low.clone(), high.clone());
    let at = |sizes: &[usize]| {
        let inputs: Vec<_> = examples.iter().map(|example| (example.name.clone(), example.resized(sizes))).collect();
        normalize(record(arena, &inputs, forward)?)
    };
    let recordings = corners.all().iter().map(|sizes| at(sizes)).collect::<Result<Vec<_>, _>>()?;
    let symbols = listed(names);
    let steps = steps(&corners, &recordings, &symbols)?;
    let outputs = outputs(&corners, &recordings, &symbols)?;
    let quantised = recordings.iter().flat_map(|recording| recording.quantised.iter().copied()).collect();
    let constants = constants(&corners, recordings, &symbols, examples.len())?;
    let recorded = Recorded {
        symbols: names.iter().cloned().zip(low).collect(),
        steps,
        inputs: examples.len(),
        outputs,
        constants,
        quantised,
    };
    if !names.is_empty() {
        let further: Vec<_> = high.iter().enumerate().map(|(symbol, high)| high + 4 + 2 * symbol).collect();
        check_prediction(&recorded, &at(&further)?, &further, &symbols)?;
    }
    Ok(recorded)
}

fn listed(names: &[String]) -> String {
    crate::tensor::value::listed(names.iter().map(String::as_str))
}

/// Size of a symbol in the examples.
pub(super) fn size(examples: &[Example], symbol: usize) -> usize {
    let axes = examples.iter().flat_map(|example| example.symbols.iter().zip(example.data.shape().to_vec()));
    let mut sizes = axes.filter(|(of, _)| **of == Some(symbol as u8)).map(|(_, size)| size);
    sizes.next().unwrap_or(1)
}

fn steps(corners: &SampleGrid, recordings: &[Normalized], symbols: &str) -> Result<Vec<Step>, TraceError> {
    let structure = |reason: String| TraceError::Structure { symbols: symbols.to_owned(), reason };
    let Some((first, others)) = recordings.split_first() else { return Ok(Vec::new()) };
    if let Some(other) = others.iter().find(|other| other.operations.len() != first.operations.len()) {
        let (own, found) = (first.operations.len(), other.operations.len());
        let pairs =
            first.operations.iter().zip(&other.operations).map(|(own, other)| (passes::name(own), passes::name(other)));
        let parts = pairs.enumerate().find(|(_, (own, other))| own != other);
        let parts = parts.map_or(String::new(), |(at, (own, other))| format!("; operation {at} is {own} or {other}"));
        return Err(structure(format!("it has {own} operations at one size, and {found} at another{parts}")));
    }
    let mut steps = Vec::with_capacity(first.operations.len());
    for (at, operation) in first.operations.iter().enumerate() {
        if others.is_empty() {
            steps.push(Step::fixed(operation.clone()));
            continue;
        }
        let name = || format!("operation {at} ({})", passes::name(operation));
        let all = || recordings.iter().map(|recording| &recording.operations[at]);
        let shape = skeleton(operation).map_err(&structure)?;
        for other in all().skip(1) {
            if skeleton(other).map_err(&structure)? != shape {
                return Err(structure(format!("{} is {} at another size", name(), passes::name(other))));
            }
        }
        let found = all().map(numbers).collect::<Result<Vec<_>, _>>().map_err(&structure)?;
        let mut holes = Vec::new();
        for place in 0..found[0].len() {
            let values: Option<Vec<_>> = found.iter().map(|numbers| numbers.get(place).copied()).collect();
            let values = values.ok_or_else(|| structure(format!("{} has other parameters at another size", name())))?;
            if values.iter().all(|value| value.same(values[0])) {
                continue;
            }
            let whole: Option<Vec<_>> = values.iter().map(|value| value.whole()).collect();
            let expr = whole.and_then(|whole| interpolate(corners, &whole)).ok_or_else(|| TraceError::Number {
                operation: name(),
                symbols: symbols.to_owned(),
                found: values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(", "),
            })?;
            holes.push((place as u32, expr));
        }
        steps.push(Step { operation: operation.clone(), holes });
    }
    Ok(steps)
}

fn shape_of(corners: &SampleGrid, shapes: &[Vec<usize>]) -> Option<Vec<SymExpr>> {
    let rank = shapes.first()?.len();
    let extent = |axis: usize| {
        let extents: Option<Vec<_>> = shapes.iter().map(|shape| shape.get(axis).map(|&extent| extent as i64)).collect();
        interpolate(corners, &extents?)
    };
    shapes.iter().all(|shape| shape.len() == rank).then(|| (0..rank).map(extent).collect()).flatten()
}

fn outputs(corners: &SampleGrid, recordings: &[Normalized], symbols: &str) -> Result<Vec<Output>, TraceError> {
    let structure = |reason: String| TraceError::Structure { symbols: symbols.to_owned(), reason };
    let same = |own: &super::record::Output, other: &super::record::Output| {
        (&own.name, own.id, own.dtype) == (&other.name, other.id, other.dtype)
    };
    let first = &recordings[0].outputs;
    for other in &recordings[1..] {
        if other.outputs.len() != first.len() || !first.iter().zip(&other.outputs).all(|(own, other)| same(own, other))
        {
            return Err(structure("it has other outputs at some sizes".to_owned()));
        }
    }
    let output = |(at, output): (usize, &super::record::Output)| {
        let shapes: Vec<_> = recordings.iter().map(|recording| recording.outputs[at].shape.clone()).collect();
        let shape = shape_of(corners, &shapes).ok_or_else(|| TraceError::Number {
            operation: format!("the shape of output `{}`", output.name),
            symbols: symbols.to_owned(),
            found: format!("{shapes:?}"),
        })?;
        Ok(Output { name: output.name.clone(), id: output.id, dtype: output.dtype, shape })
    };
    first.iter().enumerate().map(output).collect()
}

fn constants(
    corners: &SampleGrid,
    recordings: Vec<Normalized>,
    symbols: &str,
    inputs: usize,
) -> Result<Vec<TracedConstant>, TraceError> {
    let structure = |reason: String| TraceError::Structure { symbols: symbols.to_owned(), reason };
    let count = recordings[0].constants.len();
    if recordings.iter().any(|recording| recording.constants.len() != count) {
        return Err(structure("it creates other tensors from numbers".to_owned()));
    }
    let made = |at: usize| {
        let id = burn::tensor::TensorId::new((inputs + at) as u64);
        let reads = |operation: &&OperationIr| operation.inputs().any(|tensor| tensor.id == id);
        let reader = recordings[0].operations.iter().find(reads).map_or("an output".to_owned(), passes::name);
        let data: Vec<_> = recordings.iter().map(|recording| recording.constants[at].clone()).collect();
        let shapes: Vec<_> = data.iter().map(|data| data.shape().to_vec()).collect();
        let shape = shape_of(corners, &shapes).ok_or_else(|| TraceError::Constant {
            operation: reader.clone(),
            shape: format!("{:?}", shapes[0]),
            symbols: symbols.to_owned(),
        })?;
        Ok(TracedConstant { shape, at: data, reader })
    };
    (0..count).map(made).collect()
}

/// Compares the prediction for further sizes with a recording at these sizes.
fn check_prediction(recorded: &Recorded, found: &Normalized, sizes: &[usize], symbols: &str) -> Result<(), TraceError> {
    let structure = |reason: String| TraceError::Structure { symbols: symbols.to_owned(), reason };
    if recorded.steps.len() != found.operations.len() {
        let (own, other) = (recorded.steps.len(), found.operations.len());
        return Err(structure(format!("at {sizes:?} it has {other} operations, and {own} at smaller sizes")));
    }
    for (at, (step, found)) in recorded.steps.iter().zip(&found.operations).enumerate() {
        let name = || format!("operation {at} ({})", passes::name(found));
        let values: Option<Vec<_>> = step.holes.iter().map(|(place, expr)| Some((*place, expr.at(sizes)?))).collect();
        let values = values.ok_or_else(|| structure(format!("{} is out of range at {sizes:?}", name())))?;
        let expected = with_numbers(&step.operation, &values).map_err(&structure)?;
        let same = |own: Vec<crate::jit::graph::symbolic::scalars::Scalar>,
                    other: Vec<crate::jit::graph::symbolic::scalars::Scalar>| {
            own.len() == other.len() && own.iter().zip(other).all(|(own, other)| own.same(other))
        };
        let equal = skeleton(&expected).map_err(&structure)? == skeleton(found).map_err(&structure)?
            && same(numbers(&expected).map_err(&structure)?, numbers(found).map_err(&structure)?);
        if !equal {
            return Err(structure(format!("{} at {sizes:?} differs from the prediction by the other sizes", name())));
        }
    }
    Ok(())
}
