//! Assigns dense tensor ids, so that recordings of the same code are equal, and the executor can
//! use ids as slot indexes.

use std::collections::HashMap;

use burn::tensor::TensorId;
use burn_ir::{IrVisitorMut, OperationIr, TensorIr, TensorStatus};

use super::Step;
use crate::jit::graph::code::{Constant, SymbolicScalar};

/// Consecutive ids from 0.
#[derive(Default)]
pub(crate) struct Numbering(HashMap<TensorId, TensorId>);

impl Numbering {
    /// Returns the new id of a tensor. Assigns the next one if it has none.
    pub(crate) fn of(&mut self, id: TensorId) -> TensorId {
        let next = TensorId::new(self.0.len() as u64);
        *self.0.entry(id).or_insert(next)
    }

    /// Returns the new id of a tensor, or `None` if it has none.
    pub(crate) fn known(&self, id: TensorId) -> Option<TensorId> {
        self.0.get(&id).copied()
    }

    /// Renumbers an operation. Discards the marks of last uses, which are computed again later.
    pub(crate) fn apply(&mut self, operation: &mut OperationIr) {
        struct Apply<'a>(&'a mut Numbering);

        impl IrVisitorMut for Apply<'_> {
            fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
                tensor.id = self.0.of(tensor.id);
                if tensor.status == TensorStatus::ReadWrite {
                    tensor.status = TensorStatus::ReadOnly;
                }
            }
        }

        operation.visit_mut(&mut Apply(self));
    }
}

/// The constants, operations and symbolic numbers of a graph, with dense tensor ids.
pub(crate) struct Dense {
    pub(crate) constants: Vec<Constant>,
    pub(crate) operations: Vec<OperationIr>,
    pub(crate) holes: Vec<SymbolicScalar>,
}

/// Numbers the tensors of a graph: inputs, then the constants that are read, then results. The ids of the outputs
/// are replaced.
pub(crate) fn dense<'a>(
    inputs: usize,
    mut steps: Vec<Step>,
    outputs: impl IntoIterator<Item = &'a mut TensorId>,
    constant: impl Fn(TensorId) -> Option<Constant>,
) -> Dense {
    let outputs: Vec<_> = outputs.into_iter().collect();
    let mut numbering = Numbering::default();
    for input in 0..inputs {
        numbering.of(TensorId::new(input as u64));
    }
    let mut constants = Vec::new();
    let read = steps.iter().flat_map(|step| step.operation.inputs().map(|tensor| tensor.id).collect::<Vec<_>>());
    for id in read.chain(outputs.iter().map(|id| **id)) {
        if let (None, Some(constant)) = (numbering.known(id), constant(id)) {
            numbering.of(id);
            constants.push(constant);
        }
    }
    for step in &mut steps {
        numbering.apply(&mut step.operation);
    }
    for id in outputs {
        *id = numbering.of(*id);
    }
    let (mut holes, mut operations) = (Vec::new(), Vec::with_capacity(steps.len()));
    for (at, Step { operation, holes: own }) in steps.into_iter().enumerate() {
        operations.push(operation);
        holes.extend(own.into_iter().map(|(number, form)| SymbolicScalar { operation: at as u32, number, form }));
    }
    Dense { constants, operations, holes }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{binary, id};
    use super::Numbering;

    #[test]
    fn numbers_are_dense_and_in_order() {
        let mut numbering = Numbering::default();
        assert_eq!((numbering.of(id(70)), numbering.of(id(9)), numbering.of(id(70))), (id(0), id(1), id(0)));
        let mut operation = binary(9, 8, 200);
        numbering.apply(&mut operation);
        assert_eq!(operation, binary(1, 2, 3));
        assert_eq!((numbering.known(id(8)), numbering.known(id(5))), (Some(id(2)), None));
    }
}
