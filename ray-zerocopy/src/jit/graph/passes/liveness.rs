//! Who uses a tensor for the last time: that operation may overwrite it, and its memory is free afterwards.

use std::collections::{HashMap, HashSet};

use burn::tensor::TensorId;
use burn_ir::{IrVisitorMut, OperationIr, TensorIr, TensorStatus};

/// Marks each operand that is used for the last time, and says for each operation which of its results nobody uses.
///
/// `kept` are never used for the last time: inputs, constants and outputs.
pub(crate) fn last_uses(operations: &mut [OperationIr], kept: &HashSet<TensorId>) -> Vec<Vec<TensorIr>> {
    let mut used: HashSet<TensorId> = kept.clone();
    let mut unused = Vec::with_capacity(operations.len());
    for operation in operations.iter_mut().rev() {
        unused.push(operation.outputs().filter(|tensor| !used.contains(&tensor.id)).cloned().collect::<Vec<_>>());
        let mut counts = HashMap::new();
        operation.inputs().for_each(|tensor| *counts.entry(tensor.id).or_insert(0) += 1);
        let own: HashSet<TensorId> = operation.outputs().map(|tensor| tensor.id).collect();
        operation.visit_mut(&mut Mark { used: &used, counts, own: &own });
        used.extend(operation.inputs().map(|tensor| tensor.id));
    }
    unused.reverse();
    unused
}

struct Mark<'a> {
    used: &'a HashSet<TensorId>,
    /// How often each operand is still to come in this operation: the last of them is the last use.
    counts: HashMap<TensorId, u32>,
    own: &'a HashSet<TensorId>,
}

impl IrVisitorMut for Mark<'_> {
    fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
        if self.own.contains(&tensor.id) {
            tensor.status = TensorStatus::NotInit;
            return;
        }
        let left = self.counts.entry(tensor.id).or_insert(1);
        *left -= 1;
        tensor.status = match *left == 0 && !self.used.contains(&tensor.id) {
            true => TensorStatus::ReadWrite,
            false => TensorStatus::ReadOnly,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use burn_ir::TensorStatus::{ReadOnly, ReadWrite};

    use super::super::tests::{binary, id};
    use super::last_uses;

    #[test]
    fn each_tensor_has_one_last_use() {
        let mut operations = vec![binary(0, 0, 1), binary(1, 1, 2), binary(2, 0, 3), binary(1, 2, 4)];
        let unused = last_uses(&mut operations, &HashSet::from([id(0), id(4)]));
        let statuses: Vec<Vec<_>> =
            operations.iter().map(|operation| operation.inputs().map(|tensor| tensor.status).collect()).collect();
        assert_eq!(
            statuses,
            [[ReadOnly, ReadOnly], [ReadOnly, ReadOnly], [ReadOnly, ReadOnly], [ReadWrite, ReadWrite]],
            "inputs stay"
        );
        let unused: Vec<Vec<_>> = unused.iter().map(|unused| unused.iter().map(|tensor| tensor.id).collect()).collect();
        assert_eq!(unused, [vec![], vec![], vec![id(3)], vec![]]);

        // Twice in one operation: the second is the last.
        let mut operations = vec![binary(0, 0, 1), binary(1, 1, 2)];
        last_uses(&mut operations, &HashSet::from([id(0), id(2)]));
        let statuses: Vec<_> = operations[1].inputs().map(|tensor| tensor.status).collect();
        assert_eq!(statuses, [ReadOnly, ReadWrite]);
    }
}
