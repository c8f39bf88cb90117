//! A graph whose operations are being replaced.

use std::collections::{HashMap, HashSet};

use burn::tensor::{DType, Shape, TensorId};
use burn_ir::{CustomOpIr, IrVisitorMut, OperationIr, ScalarIr, TensorIr, TensorStatus};

use super::Step;
use super::dead::remove_dead;
use super::fuse_linear::Uses;
use super::renumber::{Dense, dense};
use crate::jit::graph::code::{Constant, GraphCode, Port, Source};
use crate::jit::graph::fused::Fused;
use crate::jit::graph::symbolic::expr::SymExpr;
use crate::jit::graph::symbolic::shapes::{holes, result_shapes};
use crate::tensor::source::Compute;

/// A tensor that is made when a graph is compiled.
pub(crate) struct Made {
    pub(crate) path: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// Computes its bytes.
    pub(crate) compute: Compute,
}

/// Replaces an operand by another tensor.
struct Substitute<'a> {
    from: TensorId,
    to: &'a TensorIr,
}

impl IrVisitorMut for Substitute<'_> {
    fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
        if tensor.id == self.from && tensor.status != TensorStatus::NotInit {
            *tensor = TensorIr { status: tensor.status, ..self.to.clone() };
        }
    }
}

/// A graph whose operations are being replaced.
pub(crate) struct Draft {
    steps: Vec<Step>,
    shapes: HashMap<TensorId, Vec<SymExpr>>,
    constants: HashMap<TensorId, Constant>,
    outputs: Vec<Port>,
    inputs: usize,
    /// The next unused tensor id.
    next: u64,
    made: Vec<Made>,
}

impl Draft {
    /// Begins with a graph.
    ///
    /// # Errors
    /// If an operation cannot be serialised.
    pub(crate) fn of(code: &GraphCode) -> Result<Self, String> {
        let mut steps: Vec<_> = code.operations.iter().cloned().map(Step::fixed).collect();
        for hole in &code.holes {
            let step = steps.get_mut(hole.operation as usize).ok_or("a number belongs to no operation")?;
            step.holes.push((hole.number, hole.form.clone()));
        }
        let inputs = code.inputs.len();
        let id = |at: usize| TensorId::new(at as u64);
        let mut shapes: HashMap<_, _> = code.inputs.iter().map(|port| (port.id, port.shape.clone())).collect();
        let constants: HashMap<_, _> =
            code.constants.iter().enumerate().map(|(at, constant)| (id(inputs + at), constant.clone())).collect();
        shapes.extend(constants.iter().map(|(id, constant)| (*id, constant.shape.clone())));
        for Step { operation, holes } in &steps {
            let hole = |number: u32| holes.iter().find(|(place, _)| *place == number).map(|(_, form)| form);
            shapes.extend(result_shapes(operation, hole)?);
        }
        let next = shapes.len() as u64;
        Ok(Self { steps, shapes, constants, outputs: code.outputs.clone(), inputs, next, made: Vec::new() })
    }

    /// The operations.
    pub(crate) fn operations(&self) -> Vec<OperationIr> {
        self.steps.iter().map(|step| step.operation.clone()).collect()
    }

    /// Producers and readers of the tensors.
    pub(crate) fn uses(&self) -> Uses {
        let outputs: Vec<_> = self.outputs.iter().map(|port| port.id).collect();
        Uses::of(&self.operations(), &outputs)
    }

    /// Returns the constant if the tensor is one.
    pub(crate) fn constant(&self, tensor: &TensorIr) -> Option<&Constant> {
        self.constants.get(&tensor.id)
    }

    /// Returns whether two tensors have the same shape at all sizes.
    pub(crate) fn same_shape(&self, left: &TensorIr, right: &TensorIr) -> bool {
        let (left, right) = (self.shapes.get(&left.id), self.shapes.get(&right.id));
        left.is_some() && left == right
    }

    /// Returns whether the dimensions of a tensor are the last ones of another tensor at all sizes. Leading dimensions
    /// of size 1 do not count.
    pub(crate) fn is_suffix(&self, tensor: &TensorIr, of: &TensorIr) -> bool {
        let (Some(tensor), Some(of)) = (self.shapes.get(&tensor.id), self.shapes.get(&of.id)) else { return false };
        let ones = tensor.iter().take_while(|extent| extent.as_constant() == Some(1)).count();
        of.len() >= tensor.len() && of.ends_with(&tensor[ones..])
    }

    /// Returns whether the numbers of an operation depend on symbols only where they are extents of its tensors: not its
    /// options.
    ///
    /// # Errors
    /// If the operation cannot be serialised.
    pub(crate) fn has_fixed_options(&self, at: usize) -> Result<bool, String> {
        let Step { operation, holes: own } = &self.steps[at];
        Ok(holes(operation, |id| self.shapes.get(&id).map(Vec::as_slice))? == *own)
    }

    /// Adds a tensor of 32-bit floats as [`make`](Self::make) does, whose elements are computed now.
    pub(crate) fn make_floats(
        &mut self,
        path: String,
        shape: Vec<usize>,
        elements: impl FnOnce() -> Vec<f32>,
    ) -> TensorIr {
        let elements = elements();
        self.make(path, DType::F32, shape, Box::new(move |sink| sink(bytemuck::cast_slice(&elements))))
    }

    /// Adds a tensor to the arena of the compiled graph, unless there is one of this path. Returns it as an operand. Its
    /// bytes are computed when they are written.
    pub(crate) fn make(&mut self, path: String, dtype: DType, shape: Vec<usize>, compute: Compute) -> TensorIr {
        let source = Source::Entry(path.clone());
        let known = self.constants.iter().find(|(_, constant)| constant.source == source).map(|(id, _)| *id);
        let id = known.unwrap_or_else(|| {
            let id = TensorId::new(self.next);
            self.next += 1;
            let symbolic: Vec<_> = shape.iter().map(|&extent| SymExpr::number(extent as i64)).collect();
            self.shapes.insert(id, symbolic.clone());
            self.constants.insert(id, Constant { dtype, shape: symbolic, source });
            self.made.push(Made { path, dtype, shape: shape.clone(), compute });
            id
        });
        TensorIr { id, shape: Shape::from(shape), status: TensorStatus::ReadOnly, dtype }
    }

    /// Replaces an operation. Those whose results are not read any more are removed in the end.
    ///
    /// # Errors
    /// If the operands do not fit, or the operation cannot be serialised.
    pub(crate) fn replace(
        &mut self,
        at: usize,
        fused: Fused,
        inputs: &[&TensorIr],
        scalars: Vec<ScalarIr>,
        out: &TensorIr,
    ) -> Result<(), String> {
        let inputs = inputs.iter().map(|&input| TensorIr { status: TensorStatus::ReadOnly, ..input.clone() }).collect();
        let outputs = vec![TensorIr { status: TensorStatus::NotInit, ..out.clone() }];
        let operation = CustomOpIr { id: fused.id(), inputs, outputs, scalars };
        fused.check(&operation)?;
        self.replace_with(at, OperationIr::Custom(operation))
    }

    /// Replaces an operation by one whose numbers depend on symbols only where they are extents of its tensors.
    ///
    /// # Errors
    /// If the operation cannot be serialised.
    pub(crate) fn replace_with(&mut self, at: usize, operation: OperationIr) -> Result<(), String> {
        let holes = holes(&operation, |id| self.shapes.get(&id).map(Vec::as_slice))?;
        self.steps[at] = Step { operation, holes };
        Ok(())
    }

    /// Replaces an operand of an operation by a tensor of another shape, with the same elements.
    ///
    /// # Errors
    /// If the operation cannot be serialised.
    pub(crate) fn set_operand(&mut self, at: usize, from: &TensorIr, to: &TensorIr) -> Result<(), String> {
        let mut operation = self.steps[at].operation.clone();
        operation.visit_mut(&mut Substitute { from: from.id, to });
        let holes = holes(&operation, |id| self.shapes.get(&id).map(Vec::as_slice))?;
        self.steps[at] = Step { operation, holes };
        Ok(())
    }

    /// Replaces a tensor by another one of the same shape in all operations that read it. Returns `false`, and replaces
    /// nothing, if it is an output.
    pub(crate) fn substitute(&mut self, from: &TensorIr, to: &TensorIr) -> bool {
        if self.outputs.iter().any(|port| port.id == from.id) {
            return false;
        }
        for step in &mut self.steps {
            if step.operation.inputs().any(|tensor| tensor.id == from.id) {
                step.operation.visit_mut(&mut Substitute { from: from.id, to });
            }
        }
        true
    }

    /// Removes operations whose results are not read any more.
    pub(crate) fn sweep(&mut self) {
        remove_dead(&mut self.steps, |step| &step.operation, self.outputs.iter().map(|port| port.id));
    }

    /// Returns the graph, and the tensors that its arena has in addition.
    pub(crate) fn finish(mut self, code: &GraphCode, format: u32) -> (GraphCode, Vec<Made>) {
        self.sweep();
        let (constants, ids) = (self.constants, self.outputs.iter_mut().map(|port| &mut port.id));
        let Dense { constants, operations, holes } =
            dense(self.inputs, self.steps, ids, |id| constants.get(&id).cloned());
        let read: HashSet<&str> = constants.iter().filter_map(|constant| constant.source.path()).collect();
        self.made.retain(|made| read.contains(made.path.as_str()));
        let code = GraphCode { format, constants, operations, holes, outputs: self.outputs, ..code.clone() };
        (code, self.made)
    }
}
