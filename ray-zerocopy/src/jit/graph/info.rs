//! Inputs, outputs and operations of a graph, for display.

use std::fmt;
use std::sync::Arc;

use super::code::{GraphCode, Source};
use super::fused::Fused;
use super::passes;
use crate::arena::file::ArenaFile;
use crate::error::graph::GraphError;

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
        self.0.operations.iter().enumerate().map(move |(at, operation)| StepInfo {
            name: passes::name(operation),
            inputs: operation.inputs().map(|tensor| operands.find(tensor.id)).collect(),
            outputs: operation
                .outputs()
                .map(|out| {
                    let traced: Vec<_> = out.shape.iter().map(usize::to_string).collect();
                    let at = if names.is_empty() { "" } else { " as traced" };
                    format!("{} [{}]{at}", crate::tensor::value::dtype_name(out.dtype), traced.join(", "))
                })
                .collect(),
            computes: !passes::is_view(operation),
            is_fused: Fused::of(operation).is_some(),
            number: at,
        })
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
    /// Type and shape of each output, at the traced sizes.
    pub outputs: Vec<String>,
    /// Whether the operation computes new elements. `false` for views.
    pub computes: bool,
    /// Whether it is an operation of a compiled graph: fused, or on packed weights.
    pub is_fused: bool,
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

    fn find(&self, id: burn::tensor::TensorId) -> Operand {
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
    pub element: burn::tensor::DType,
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
            dtype: crate::tensor::value::dtype_name(port.dtype),
            shape: port.shape.iter().map(|expr| expr.named(&names).to_string()).collect(),
        }
    }
}
