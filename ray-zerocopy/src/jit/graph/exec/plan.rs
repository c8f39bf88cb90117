//! The operations at certain sizes, ready to run.

use std::collections::HashSet;

use burn::tensor::{DType, Device, TensorId};
use burn_ir::{HandleKind, IrVisitorMut, OperationIr, TensorIr};

use super::backend::Bridge;
use super::executor::{Slots, constant_handle};
use crate::error::graph::ReplayError;
use crate::jit::graph::code::GraphCode;
use crate::jit::graph::passes;
use crate::jit::graph::symbolic::scalars::with_numbers;

/// An operation at certain sizes.
pub(super) struct PlannedOp {
    pub operation: OperationIr,
    /// Its place in the graph.
    pub number: usize,
    /// What it gives and nobody uses.
    pub unused: Vec<usize>,
}

pub(super) struct ExecutionPlan<B: Bridge> {
    /// Constants of these sizes, and what is computed of constants once.
    pub fixed: Vec<(usize, HandleKind<B>)>,
    /// The bytes of their elements.
    pub fixed_bytes: usize,
    pub steps: Vec<PlannedOp>,
    /// What is in its slot after a run: outputs.
    left: Vec<usize>,
}

impl<B: Bridge> ExecutionPlan<B> {
    /// Puts the sizes into the operations.
    pub(super) fn new(
        code: &GraphCode,
        sizes: &[usize],
        device: &Device,
        own: &B::Device,
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
            let wrong = |reason: String| ReplayError::Sizes {
                number,
                operation: passes::name(operation),
                sizes: named(code, sizes),
                reason,
            };
            let mut operation = match filled.is_empty() || traced {
                true => operation.clone(),
                false => {
                    let value =
                        |hole: &&crate::jit::graph::code::SymbolicScalar| Some((hole.number, hole.form.at(sizes)?));
                    let values: Option<Vec<_>> = filled.iter().map(value).collect();
                    let values = values.ok_or_else(|| wrong("a number is out of range".to_owned()))?;
                    with_numbers(operation, &values).map_err(wrong)?
                }
            };
            operation.visit_mut(&mut Bools(bools));
            steps.push(PlannedOp { operation, number, unused: Vec::new() });
        }
        let mut fixed = Vec::new();
        let mut fixed_bytes = 0;
        for (at, constant) in code.constants.iter().enumerate() {
            // Those of all sizes are there already.
            if constant.shape.iter().all(|extent| extent.fixed().is_some()) {
                continue;
            }
            let wrong = || ReplayError::Sizes {
                number: 0,
                operation: format!("constant {at}"),
                sizes: named(code, sizes),
                reason: "it cannot be made".to_owned(),
            };
            let data = constant.data(sizes).ok_or_else(wrong)?;
            fixed_bytes += data.as_bytes().len();
            let handle = constant_handle::<B>(data, device, own, &format!("constant {at}"))?;
            fixed.push((code.inputs.len() + at, handle));
        }
        Ok(Self { fixed, fixed_bytes, steps, left: Vec::new() })
    }

    /// The operations that depend on constants alone. The first tensors are inputs.
    pub(super) fn constant_only(&self, inputs: usize) -> Vec<usize> {
        let mut varying: HashSet<TensorId> = (0..inputs).map(|input| TensorId::new(input as u64)).collect();
        let mut found = Vec::new();
        for (at, PlannedOp { operation, .. }) in self.steps.iter().enumerate() {
            match passes::is_impure(operation) || operation.inputs().any(|tensor| varying.contains(&tensor.id)) {
                true => varying.extend(operation.outputs().map(|tensor| tensor.id)),
                false => found.push(at),
            }
        }
        found
    }

    /// Leaves out what is done already, and finds who uses what for the last time.
    pub(super) fn finish(&mut self, code: &GraphCode, done: &[bool]) {
        let mut done = done.iter();
        self.steps.retain(|_| !done.next().copied().unwrap_or(false));
        let mut kept: HashSet<TensorId> =
            (0..code.inputs.len() + code.constants.len()).map(|id| TensorId::new(id as u64)).collect();
        kept.extend(code.outputs.iter().map(|port| port.id));
        kept.extend(self.fixed.iter().map(|(id, _)| TensorId::new(*id as u64)));
        let mut operations: Vec<_> = self.steps.iter().map(|step| step.operation.clone()).collect();
        let unused = passes::last_uses(&mut operations, &kept);
        for ((step, operation), unused) in self.steps.iter_mut().zip(operations).zip(unused) {
            step.operation = operation;
            step.unused = unused.iter().map(|tensor| tensor.id.value() as usize).collect();
        }
        let constants = code.inputs.len() + code.constants.len();
        self.left = code.outputs.iter().map(|port| port.id.value() as usize).filter(|id| *id >= constants).collect();
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let extents =
            |step: &PlannedOp| step.operation.nodes().iter().map(|tensor| tensor.shape.num_dims()).sum::<usize>();
        let step = |step: &PlannedOp| size_of::<PlannedOp>() + size_of::<usize>() * (extents(step) + step.unused.len());
        self.fixed_bytes + self.steps.iter().map(step).sum::<usize>()
    }

    /// Empties the slots that a run leaves full.
    pub(super) fn leave(&self, slots: &mut Slots<B>, inputs: usize) {
        (0..inputs).chain(self.left.iter().copied()).chain(self.fixed.iter().map(|(id, _)| *id)).for_each(|id| {
            slots.0[id] = None;
        });
    }
}

fn named(code: &GraphCode, sizes: &[usize]) -> String {
    let sizes: Vec<_> =
        code.symbols.iter().zip(sizes).map(|(symbol, size)| format!("{} {size}", symbol.name)).collect();
    if sizes.is_empty() { "fixed sizes".to_owned() } else { sizes.join(", ") }
}

/// Booleans are stored as the device does.
struct Bools(DType);

impl IrVisitorMut for Bools {
    fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
        if tensor.dtype.is_bool() {
            tensor.dtype = self.0;
        }
    }
}
