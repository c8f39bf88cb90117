//! Liveness analysis: the last use of a tensor may overwrite it, and frees its memory.

use std::collections::{HashMap, HashSet};

use burn::tensor::TensorId;
use burn_ir::{IrVisitorMut, OperationIr, TensorIr, TensorStatus};

/// Marks the last use of each operand, and returns the unused results of each operation.
///
/// Tensors in `always_live` have no last use: inputs, constants and outputs.
pub(crate) fn last_uses(operations: &mut [OperationIr], always_live: &HashSet<TensorId>) -> Vec<Vec<TensorIr>> {
    let mut used: HashSet<TensorId> = always_live.clone();
    let mut unused = Vec::with_capacity(operations.len());
    for operation in operations.iter_mut().rev() {
        unused.push(operation.outputs().filter(|tensor| !used.contains(&tensor.id)).cloned().collect::<Vec<_>>());
        let mut counts = HashMap::new();
        for tensor in operation.inputs() {
            *counts.entry(tensor.id).or_insert(0) += 1;
        }
        let results: HashSet<TensorId> = operation.outputs().map(|tensor| tensor.id).collect();
        operation.visit_mut(&mut Mark { used: &used, counts, results: &results });
        used.extend(operation.inputs().map(|tensor| tensor.id));
    }
    unused.reverse();
    unused
}

struct Mark<'a> {
    used: &'a HashSet<TensorId>,
    /// Remaining occurrences of each operand in this operation: the last of them is the last use.
    counts: HashMap<TensorId, u32>,
    results: &'a HashSet<TensorId>,
}

impl IrVisitorMut for Mark<'_> {
    fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
        if self.results.contains(&tensor.id) {
            tensor.status = TensorStatus::NotInit;
            return;
        }
        let left = self.counts.entry(tensor.id).or_insert(1);
        *left -= 1;
        let is_last_use = *left == 0 && !self.used.contains(&tensor.id);
        tensor.status = if is_last_use { TensorStatus::ReadWrite } else { TensorStatus::ReadOnly };
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

        // Twice in one operation: the second occurrence is the last use.
        let mut operations = vec![binary(0, 0, 1), binary(1, 1, 2)];
        last_uses(&mut operations, &HashSet::from([id(0), id(2)]));
        let statuses: Vec<_> = operations[1].inputs().map(|tensor| tensor.status).collect();
        assert_eq!(statuses, [ReadOnly, ReadWrite]);
    }
}
