//! Assigns dense tensor ids, so that recordings of the same code are equal, and the executor can
//! use ids as slot indexes.

use std::collections::HashMap;

use burn::tensor::TensorId;
use burn_ir::{IrVisitorMut, OperationIr, TensorIr, TensorStatus};

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
