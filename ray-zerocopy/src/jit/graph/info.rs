//! Inputs, outputs, operations and weights of a graph, for display.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use burn::tensor::{DType, TensorId};
use burn_ir::{OperationIr, TensorIr};

use super::code::{FIELD, GraphCode, Source};
use super::fused::Fused;
use super::passes::{self, SymExpr};
use super::symbolic::shapes::result_shapes;
use super::weight_format::WeightFormat;
use crate::arena::file::ArenaFile;
use crate::error::graph::GraphError;
use crate::tensor::dtype::bytes_of;
use crate::tensor::value::dtype_name;

/// Inputs, outputs and operations of a graph. It has no weights: reading it from a file reads none.
#[derive(Clone)]
pub struct GraphInfo(pub(crate) Arc<GraphCode>);

impl GraphInfo {
    /// Reads the information from a saved graph.
    ///
    /// # Errors
    /// If the file does not contain a graph, or the graph has another version.
    pub fn of_file(file: &ArenaFile) -> Result<Self, GraphError> {
        if file.pipeline() != super::code::PIPELINE {
            return Err(GraphError::NoGraph { found: file.pipeline().to_owned() });
        }
        let bytes = file.copied_field(super::code::FIELD)?;
        let bytes = bytes.ok_or_else(|| GraphError::NoGraph { found: "an arena without operations".to_owned() })?;
        Ok(Self(Arc::new(GraphCode::read(&bytes)?)))
    }

    /// The traced pipeline's type, with the method if one was traced.
    pub fn origin(&self) -> &str {
        &self.0.origin
    }

    /// The inputs.
    pub fn inputs(&self) -> impl Iterator<Item = PortInfo> {
        self.0.inputs.iter().map(|port| PortInfo::new(&self.0, port))
    }

    /// The outputs.
    pub fn outputs(&self) -> impl Iterator<Item = PortInfo> {
        self.0.outputs.iter().map(|port| PortInfo::new(&self.0, port))
    }

    /// Number of operations.
    pub fn operations(&self) -> usize {
        self.0.operations.len()
    }

    /// Returns `true` if the graph was [compiled](super::super::TracedGraph::compile).
    pub fn is_compiled(&self) -> bool {
        self.0.format == super::code::COMPILED
    }

    /// The operations in execution order.
    pub fn steps(&self) -> impl Iterator<Item = StepInfo> {
        let operands = Operands::of(&self.0);
        let names: Vec<_> = self.0.symbols.iter().map(|symbol| symbol.name.clone()).collect();
        let mut holes = self.0.holes.iter().peekable();
        self.0.operations.iter().enumerate().map(move |(at, operation)| {
            let mut filled = HashMap::new();
            while let Some(hole) = holes.next_if(|hole| hole.operation as usize == at) {
                filled.insert(hole.number, &hole.form);
            }
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            StepInfo {
                name: passes::name(operation),
                inputs: operation.inputs().map(|tensor| operands.find(tensor.id)).collect(),
                outputs: results(operation, &filled, &names),
                computes: !passes::is_view(operation),
                is_fused: Fused::of(operation).is_some(),
                number: at,
            }
        })
    }

    /// The tensors of the arena that the graph reads, each once.
    pub fn weights(&self) -> impl Iterator<Item = WeightInfo> {
        let names: Vec<_> = self.0.symbols.iter().map(|symbol| symbol.name.as_str()).collect();
        let packed = packed(&self.0);
        let (mut weights, mut known) = (Vec::new(), HashSet::new());
        for (at, constant) in self.0.constants.iter().enumerate() {
            if let Source::Entry(path) = &constant.source
                && known.insert(path)
            {
                let packed = packed.get(&TensorId::new((self.0.inputs.len() + at) as u64));
                weights.push(WeightInfo {
                    path: path.clone(),
                    origin: origin(path, packed.map_or("", |packed| packed.part)).map(str::to_owned),
                    tensor: TensorInfo::new(constant.dtype, &constant.shape, &names),
                    packed: packed.map(|packed| packed.shape),
                    format: packed.map(|packed| packed.format),
                });
            }
        }
        weights.into_iter()
    }

    /// The source of each output.
    pub fn output_operands(&self) -> impl Iterator<Item = Operand> {
        let operands = Operands::of(&self.0);
        self.0.outputs.iter().map(move |port| operands.find(port.id))
    }
}

/// Decodes untrusted bytes.
///
/// # Errors
/// As [`GraphCode::read`].
pub(crate) fn info_of(bytes: &[u8]) -> Result<GraphInfo, GraphError> {
    Ok(GraphInfo(Arc::new(GraphCode::read(bytes)?)))
}

impl fmt::Debug for GraphInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("GraphInfo");
        text.field("origin", &self.origin()).field("operations", &self.operations()).finish_non_exhaustive()
    }
}

/// An operation of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepInfo {
    /// Index of the operation.
    pub number: usize,
    /// Name of the operation: `Matmul`, `Reshape`.
    pub name: String,
    /// Where its operands come from.
    pub inputs: Vec<Operand>,
    /// Type and shape of each output.
    pub outputs: Vec<TensorInfo>,
    /// Whether the operation computes new elements. `false` for views.
    pub computes: bool,
    /// Whether it is an operation of a compiled graph: fused, or on packed weights.
    pub is_fused: bool,
}

/// Type and shape of a tensor of a graph. Displayed as in `F32 [batch, 384]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TensorInfo {
    /// Element type as text: `F32`, `I64`, `Bool`.
    pub dtype: String,
    /// Shape: numbers, symbols, and expressions of symbols such as `4·batch`.
    pub shape: Vec<String>,
    /// Size in bytes; of a quantised tensor, without its scales. `None` if it depends on symbols.
    pub bytes: Option<u64>,
}

impl TensorInfo {
    fn new(dtype: DType, shape: &[SymExpr], names: &[&str]) -> Self {
        let extents: Option<Vec<usize>> = super::code::extents(shape, &[]);
        let elements =
            extents.and_then(|extents| extents.iter().try_fold(1_u64, |all, &extent| all.checked_mul(extent as u64)));
        let bytes = elements.and_then(|elements| bytes_of(dtype, elements));
        let shape = shape.iter().map(|extent| extent.named(names).to_string()).collect();
        Self { dtype: dtype_name(dtype), shape, bytes }
    }
}

impl fmt::Display for TensorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.dtype, self.shape.join(", "))
    }
}

/// A tensor of the arena that a graph reads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WeightInfo {
    /// Its path in the arena.
    pub path: String,
    /// Path of the weight in the traced pipeline. `None` for a tensor that the forward pass creates.
    pub origin: Option<String>,
    /// Type and shape, in the arena.
    pub tensor: TensorInfo,
    /// Rows and columns of the matrix, if the tensor is a packed one of a [compiled](super::super::TracedGraph::compile)
    /// graph.
    pub packed: Option<[usize; 2]>,
    /// The form of the packed matrix. Those of 8 and 4 bits are several tensors: the numbers, and their scales.
    pub format: Option<WeightFormat>,
}

/// Path of the weight that the tensor at `path` was made of. `part` is the end of the path of a part of a packed one.
fn origin<'a>(path: &'a str, part: &str) -> Option<&'a str> {
    let Some(own) = path.strip_prefix(FIELD).and_then(|rest| rest.strip_prefix('.')) else { return Some(path) };
    match own.split_once('.') {
        Some(("constants", _)) => None,
        Some(("packed", of)) => {
            let of = of.strip_suffix(part).unwrap_or(of);
            Some(of.strip_suffix(".transposed").unwrap_or(of))
        }
        // The path of the convolution's weight, or the mean of a batch norm without one, and then the other parameters.
        Some(("folded", of)) => [".weight.", ".running_mean."].iter().find_map(|name| {
            let start = of.find(name)?;
            of.get(..start + name.len() - 1)
        }),
        _ => Some(path),
    }
}

/// A tensor of a packed weight.
struct Packed {
    /// Rows and columns of the matrix.
    shape: [usize; 2],
    format: WeightFormat,
    /// The end of the path of the tensor.
    part: &'static str,
}

/// The tensors of packed weights, by tensor id.
fn packed(code: &GraphCode) -> HashMap<TensorId, Packed> {
    let mut all = HashMap::new();
    for (fused, operation) in code.operations.iter().filter_map(Fused::of) {
        if let (Fused::Linear { columns, format, .. }, [x, weights @ ..]) = (fused, &operation.inputs[..])
            && let Some(k) = x.shape.iter().next_back().copied()
        {
            let parts = format.parts(k, columns).into_iter().zip(weights);
            all.extend(
                parts.map(|(part, weight)| (weight.id, Packed { shape: [k, columns], format, part: part.name })),
            );
        }
    }
    all
}

/// Types and shapes of the results of an operation, with the sizes as traced if their expressions cannot be found.
fn results(operation: &OperationIr, holes: &HashMap<u32, &SymExpr>, names: &[&str]) -> Vec<TensorInfo> {
    let shapes = result_shapes(operation, |number| holes.get(&number).copied()).unwrap_or_default();
    let traced = |out: &TensorIr| out.shape.iter().map(|&extent| SymExpr::number(extent as i64)).collect::<Vec<_>>();
    let shape = |out: &TensorIr| {
        shapes.iter().find(|(id, _)| *id == out.id).map_or_else(|| traced(out), |(_, shape)| shape.clone())
    };
    operation.outputs().map(|out| TensorInfo::new(out.dtype, &shape(out), names)).collect()
}

/// Source of a tensor of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operand {
    /// An input, by index.
    Input(usize),
    /// A weight, by path, or a description of a constant without a path.
    Constant(String),
    /// The operation of this index.
    Step(usize),
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(input) => write!(f, "input {input}"),
            Self::Constant(path) => f.write_str(path),
            Self::Step(step) => write!(f, "#{step}"),
        }
    }
}

/// Source of each tensor, by tensor id.
struct Operands(Vec<Operand>);

impl Operands {
    fn of(code: &GraphCode) -> Self {
        let inputs = (0..code.inputs.len()).map(Operand::Input);
        let constants = code.constants.iter().map(|constant| {
            Operand::Constant(match &constant.source {
                Source::Entry(path) => path.clone(),
                Source::Inline(_) => "a constant".to_owned(),
                Source::Range { .. } => "a range".to_owned(),
                Source::Fill(_) => "a constant".to_owned(),
            })
        });
        let made = code.operations.iter().enumerate();
        let made =
            made.flat_map(|(at, operation)| operation.outputs().map(move |_| Operand::Step(at)).collect::<Vec<_>>());
        Self(inputs.chain(constants).chain(made).collect())
    }

    fn find(&self, id: TensorId) -> Operand {
        self.0.get(id.value() as usize).cloned().unwrap_or(Operand::Constant("nothing".to_owned()))
    }
}

/// An input or an output of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortInfo {
    /// Its name.
    pub name: String,
    /// Kind of its elements.
    pub kind: crate::tensor::kind::TensorKind,
    /// Element type.
    pub element: DType,
    /// Element type as text: `F32`, `I64`, `Bool`.
    pub dtype: String,
    /// Shape: numbers, symbols, and expressions of symbols such as `4·batch`.
    pub shape: Vec<String>,
}

impl PortInfo {
    fn new(code: &GraphCode, port: &super::code::Port) -> Self {
        let names: Vec<_> = code.symbols.iter().map(|symbol| symbol.name.as_str()).collect();
        Self {
            name: port.name.clone(),
            kind: port.kind(),
            element: port.dtype,
            dtype: dtype_name(port.dtype),
            shape: port.shape.iter().map(|expr| expr.named(&names).to_string()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::origin;

    #[test]
    fn packed_and_folded_weights_have_an_origin() {
        let is = |path: &str, part: &str, expected: Option<&str>| assert_eq!(origin(path, part), expected, "{path}");
        is("a.weight", "", Some("a.weight"));
        is("graph.packed.a.weight", "", Some("a.weight"));
        is("graph.packed.a.weight.transposed", "", Some("a.weight"));
        is("graph.packed.a.weight.transposed.int8", ".int8", Some("a.weight"));
        is("graph.packed.a.scales", "", Some("a.scales"));
        is("graph.folded.a.conv.weight.a.bn.running_mean.4-5-6-1e-5.bias", "", Some("a.conv.weight"));
        is("graph.folded.a.bn.running_mean.4-5-6-1e-5.factors", "", Some("a.bn.running_mean"));
        is("graph.folded.7", "", None);
        is("graph.constants.3", "", None);
        is("graph", "", Some("graph"));
    }
}
