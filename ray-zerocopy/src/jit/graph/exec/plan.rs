//! Execution plans: the operations of a graph with concrete sizes.

use std::collections::HashSet;

use burn::tensor::{DType, Device, TensorId};
use burn_ir::{HandleKind, IrVisitorMut, OperationIr, TensorIr};

use super::backend::Bridge;
use super::executor::{Slots, constant_handle};
use super::recording::Progress;
use crate::error::graph::ReplayError;
use crate::jit::graph::code::GraphCode;
use crate::jit::graph::passes;
use crate::jit::graph::symbolic::scalars::with_numbers;

/// An operation with concrete sizes.
pub(super) struct PlannedOp {
    pub operation: OperationIr,
    /// Index in the graph.
    pub number: usize,
    /// Results that no operation uses.
    pub unused: Vec<usize>,
}

pub(super) struct ExecutionPlan<B: Bridge> {
    /// Constants for these sizes, and folded results.
    pub fixed: Vec<(usize, HandleKind<B>)>,
    /// Total size of their elements in bytes.
    pub fixed_bytes: usize,
    pub steps: Vec<PlannedOp>,
    /// Slots that are still filled after a run: outputs.
    retained: Vec<usize>,
    /// The kernels of a run with these sizes.
    pub recording: Progress<B>,
}

impl<B: Bridge> ExecutionPlan<B> {
    /// Substitutes the sizes into the operations.
    pub(super) fn new(
        code: &GraphCode,
        sizes: &[usize],
        device: &Device,
        backend_device: &B::Device,
    ) -> Result<Self, ReplayError> {
        let bools: DType = device.settings().bool_dtype.into();
        let traced = code.symbols.iter().zip(sizes).all(|(symbol, &size)| symbol.traced == size);
        let mut holes = code.holes.iter().peekable();
        let mut steps = Vec::with_capacity(code.operations.len());
        for (number, operation) in code.operations.iter().enumerate() {
            let mut filled = Vec::new();
            while let Some(hole) = holes.next_if(|hole| hole.operation as usize == number) {
                filled.push(hole);
            }
            let sizes_error = |reason: String| ReplayError::Sizes {
                number,
                operation: passes::name(operation),
                sizes: format_sizes(code, sizes),
                reason,
            };
            let mut operation = if filled.is_empty() || traced {
                operation.clone()
            } else {
                let value = |hole: &&crate::jit::graph::code::SymbolicScalar| Some((hole.number, hole.form.at(sizes)?));
                let values: Option<Vec<_>> = filled.iter().map(value).collect();
                let values = values.ok_or_else(|| sizes_error("a number is out of range".to_owned()))?;
                with_numbers(operation, &values).map_err(sizes_error)?
            };
            operation.visit_mut(&mut Bools(bools));
            steps.push(PlannedOp { operation, number, unused: Vec::new() });
        }
        let mut fixed = Vec::new();
        let mut fixed_bytes = 0;
        for (at, constant) in code.constants.iter().enumerate() {
            // Constants that do not depend on symbols are created once by the executor.
            if constant.shape.iter().all(|extent| extent.as_constant().is_some()) {
                continue;
            }
            let sizes_error = || ReplayError::Sizes {
                number: 0,
                operation: format!("constant {at}"),
                sizes: format_sizes(code, sizes),
                reason: "it cannot be created".to_owned(),
            };
            let data = constant.data(sizes).ok_or_else(sizes_error)?;
            fixed_bytes += data.as_bytes().len();
            let handle = constant_handle::<B>(data, device, backend_device, &format!("constant {at}"))?;
            fixed.push((code.inputs.len() + at, handle));
        }
        Ok(Self { fixed, fixed_bytes, steps, retained: Vec::new(), recording: Progress::default() })
    }

    /// Operations that depend only on constants. The first `inputs` tensors are inputs.
    pub(super) fn constant_only(&self, inputs: usize) -> Vec<usize> {
        let mut varying: HashSet<TensorId> = (0..inputs).map(|input| TensorId::new(input as u64)).collect();
        let mut found = Vec::new();
        for (at, PlannedOp { operation, .. }) in self.steps.iter().enumerate() {
            if passes::is_impure(operation) || operation.inputs().any(|tensor| varying.contains(&tensor.id)) {
                varying.extend(operation.outputs().map(|tensor| tensor.id));
            } else {
                found.push(at);
            }
        }
        found
    }

    /// Removes operations that have been folded, and determines the last use of each tensor.
    pub(super) fn finish(&mut self, code: &GraphCode, done: &[bool]) {
        let mut done = done.iter();
        self.steps.retain(|_| !done.next().copied().unwrap_or(false));
        let mut always_live: HashSet<TensorId> =
            (0..code.inputs.len() + code.constants.len()).map(|id| TensorId::new(id as u64)).collect();
        always_live.extend(code.outputs.iter().map(|port| port.id));
        always_live.extend(self.fixed.iter().map(|(id, _)| TensorId::new(*id as u64)));
        let mut operations: Vec<_> = self.steps.iter().map(|step| step.operation.clone()).collect();
        let unused = passes::last_uses(&mut operations, &always_live);
        for ((step, operation), unused) in self.steps.iter_mut().zip(operations).zip(unused) {
            step.operation = operation;
            step.unused = unused.iter().map(|tensor| tensor.id.value() as usize).collect();
        }
        let constants = code.inputs.len() + code.constants.len();
        self.retained =
            code.outputs.iter().map(|port| port.id.value() as usize).filter(|id| *id >= constants).collect();
    }

    /// Approximate memory use in bytes.
    pub(super) fn bytes(&self) -> usize {
        let extents =
            |step: &PlannedOp| step.operation.nodes().iter().map(|tensor| tensor.shape.num_dims()).sum::<usize>();
        let step = |step: &PlannedOp| size_of::<PlannedOp>() + size_of::<usize>() * (extents(step) + step.unused.len());
        self.fixed_bytes + self.steps.iter().map(step).sum::<usize>()
    }

    /// Empties the slots that are filled after a run.
    pub(super) fn clear_slots(&self, slots: &mut Slots<B>, inputs: usize) {
        for id in (0..inputs).chain(self.retained.iter().copied()).chain(self.fixed.iter().map(|(id, _)| *id)) {
            slots.tensors[id] = None;
        }
    }
}

fn format_sizes(code: &GraphCode, sizes: &[usize]) -> String {
    let sizes: Vec<_> =
        code.symbols.iter().zip(sizes).map(|(symbol, size)| format!("{} {size}", symbol.name)).collect();
    if sizes.is_empty() { "fixed sizes".to_owned() } else { sizes.join(", ") }
}

/// Sets the device's encoding of booleans.
struct Bools(DType);

impl IrVisitorMut for Bools {
    fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
        if tensor.dtype.is_bool() {
            tensor.dtype = self.0;
        }
    }
}
