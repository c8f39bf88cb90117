//! Assembles recordings into one graph: finds the source of each constant, and folds constants.

use std::collections::HashMap;

use burn::tensor::{DType, Shape, TensorData, TensorId};
use burn_ir::{DequantizeOpIr, FloatOperationIr, OperationIr, TensorIr, TensorStatus};

use super::Example;
use super::symbolize::{Recorded, TracedConstant};
use crate::arena::arena::Arena;
use crate::arena::manifest::TensorEntry;
use crate::error::trace::TraceError;
use crate::jit::graph::code::{BURN, Constant, FORMAT, GraphCode, Inline, Port, Source, Symbol};
use crate::jit::graph::passes::Step;
use crate::jit::graph::passes::dead::remove_dead;
use crate::jit::graph::passes::fold::fold;
use crate::jit::graph::passes::renumber::dense;
use crate::jit::graph::symbolic::expr::SymExpr;
use crate::tensor::quantised::{Place, place};

/// Builds the graph of the recordings.
///
/// # Errors
/// If a constant depends on the sizes in an unsupported way.
pub(super) fn code(
    arena: &Arena,
    origin: String,
    examples: &[Example],
    recorded: Recorded,
) -> Result<GraphCode, TraceError> {
    let Recorded { symbols, mut steps, inputs, mut outputs, constants, quantised } = recorded;
    let names = crate::tensor::value::listed(symbols.iter().map(|(name, _)| name.as_str()));
    let entries = Entries::of(arena, &quantised);
    let mut known = HashMap::new();
    // Ids that no other tensor has.
    let count = constants.len() + steps.iter().map(|step| step.operation.outputs().count()).sum::<usize>();
    let mut unused = (inputs + count) as u64..;
    for (at, traced) in constants.into_iter().enumerate() {
        let id = TensorId::new((inputs + at) as u64);
        if let Some(entry) = traced.at.first().and_then(|data| entries.quantised(data)) {
            let weight = TensorId::new(unused.next().unwrap_or_default());
            dequantise(&mut steps, entry, weight, id);
            let source = Source::Entry(entry.path.clone());
            known.insert(weight, (Constant { dtype: entry.dtype, shape: traced.shape, source }, None));
            continue;
        }
        let source = source(&traced, &entries).ok_or_else(|| TraceError::Constant {
            operation: traced.reader.clone(),
            shape: format!("{:?}", traced.at[0].shape().to_vec()),
            symbols: names.clone(),
        })?;
        let data = traced.at.into_iter().next();
        known.insert(
            id,
            (
                Constant { dtype: data.as_ref().map_or(DType::F32, TensorData::dtype), shape: traced.shape, source },
                data,
            ),
        );
    }

    let folded = fold(&mut steps, |id| {
        let (constant, data) = known.get(&id)?;
        let is_fixed = constant.shape.iter().all(|extent| extent.as_constant().is_some());
        Some((data.clone().filter(|_| is_fixed)?, matches!(constant.source, Source::Entry(_))))
    });
    for (id, data) in folded {
        let (shape, dtype) =
            (data.shape().iter().map(|&extent| SymExpr::number(extent as i64)).collect(), data.dtype());
        let source = Source::Inline(Inline(data.into_bytes().to_vec().into()));
        known.insert(id, (Constant { dtype, shape, source }, None));
    }
    remove_dead(&mut steps, |step| &step.operation, outputs.iter().map(|output| output.id));

    let ids = outputs.iter_mut().map(|output| &mut output.id);
    let dense = dense(inputs, steps, ids, |id| known.get(&id).map(|(constant, _)| constant.clone()));
    let input = |(at, example): (usize, &Example)| {
        let shape = example.data.shape().to_vec();
        let extent = |(extent, symbol): (usize, &Option<u8>)| {
            symbol.map_or_else(|| SymExpr::number(extent as i64), SymExpr::symbol)
        };
        Port {
            name: example.name.clone(),
            id: TensorId::new(at as u64),
            dtype: example.data.dtype(),
            shape: shape.into_iter().zip(&example.symbols).map(extent).collect(),
        }
    };
    Ok(GraphCode {
        format: FORMAT,
        burn: BURN.to_owned(),
        origin,
        symbols: symbols.into_iter().map(|(name, traced)| Symbol { name, traced }).collect(),
        inputs: examples.iter().enumerate().map(input).collect(),
        outputs: outputs
            .into_iter()
            .map(|output| Port { name: output.name, id: output.id, dtype: output.dtype, shape: output.shape })
            .collect(),
        constants: dense.constants,
        operations: dense.operations,
        holes: dense.holes,
    })
}

/// Adds the operation that turns a quantised weight into the floats that the recording has in its place: before the
/// first operation that reads them, so that not all weights are floats at the same time.
fn dequantise(steps: &mut Vec<Step>, entry: &TensorEntry, weight: TensorId, floats: TensorId) {
    let reads = |step: &Step| step.operation.inputs().any(|tensor| tensor.id == floats);
    let at = steps.iter().position(reads).unwrap_or(steps.len());
    let tensor = |id, status, dtype| TensorIr { id, shape: Shape::from(entry.shape.clone()), status, dtype };
    let operation = DequantizeOpIr {
        input: tensor(weight, TensorStatus::ReadOnly, entry.dtype),
        out: tensor(floats, TensorStatus::NotInit, DType::F32),
    };
    steps.insert(at, Step::fixed(OperationIr::Float(DType::F32, FloatOperationIr::Dequantize(operation))));
}

/// The tensors of an arena by the addresses of their bytes.
struct Entries<'a> {
    places: HashMap<Place, Vec<&'a TensorEntry>>,
    /// Places of floats that stand for quantised weights, and the places of these.
    quantised: &'a HashMap<Place, Place>,
}

impl<'a> Entries<'a> {
    fn of(arena: &'a Arena, quantised: &'a HashMap<Place, Place>) -> Self {
        let mut entries: HashMap<_, Vec<_>> = HashMap::new();
        for entry in &arena.manifest().tensors {
            let bytes = arena.slice(entry.blob);
            if !bytes.is_empty() {
                entries.entry(place(&bytes)).or_default().push(entry);
            }
        }
        Self { places: entries, quantised }
    }

    fn find(&self, data: &TensorData) -> Option<&str> {
        let entries = self.places.get(&place(data.as_bytes()))?;
        let shape = data.shape().to_vec();
        let mut fitting = entries.iter().filter(|entry| entry.dtype == data.dtype() && entry.shape == shape);
        fitting.next().map(|entry| entry.path.as_str())
    }

    /// The quantised weight that these floats stand for.
    fn quantised(&self, floats: &TensorData) -> Option<&'a TensorEntry> {
        let weight = self.quantised.get(&place(floats.as_bytes()))?;
        let shape = floats.shape().to_vec();
        self.places.get(weight)?.iter().copied().find(|entry| entry.shape == shape)
    }
}

/// Finds the source of a constant's elements. Returns `None` if they follow no known pattern.
fn source(traced: &TracedConstant, entries: &Entries<'_>) -> Option<Source> {
    let first = traced.at.first()?;
    let same = traced.at.iter().all(|other| other.shape() == first.shape() && other.as_bytes() == first.as_bytes());
    if same {
        return Some(match entries.find(first) {
            Some(path) => Source::Entry(path.to_owned()),
            None => Source::Inline(Inline(first.as_bytes().to_vec().into())),
        });
    }
    // The largest tensor determines the pattern best.
    let largest = traced.at.iter().max_by_key(|data| data.shape().num_elements())?;
    let candidates = [filled(largest), range(largest)];
    candidates.into_iter().flatten().find(|source| {
        let constant = |data: &TensorData| {
            let shape = data.shape().iter().map(|&extent| SymExpr::number(extent as i64)).collect();
            Constant { dtype: data.dtype(), shape, source: source.clone() }
        };
        traced.at.iter().all(|data| constant(data).data(&[]).is_some_and(|own| own.as_bytes() == data.as_bytes()))
    })
}

fn filled(data: &TensorData) -> Option<Source> {
    Some(Source::Fill(data.as_bytes().get(..data.dtype().size())?.to_vec()))
}

fn range(data: &TensorData) -> Option<Source> {
    if !(data.dtype().is_int() || data.dtype().is_uint()) {
        return None;
    }
    let mut numbers = data.iter::<i64>();
    let start = numbers.next()?;
    Some(Source::Range { start, step: numbers.next()?.checked_sub(start)? })
}
