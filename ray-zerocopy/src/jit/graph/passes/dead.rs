//! Dead code elimination.

use std::collections::HashSet;

use burn::tensor::TensorId;
use burn_ir::OperationIr;

/// For each operation, whether the outputs use its results, directly or indirectly.
pub(crate) fn needed<'a>(
    operations: impl DoubleEndedIterator<Item = &'a OperationIr> + ExactSizeIterator,
    outputs: impl IntoIterator<Item = TensorId>,
) -> Vec<bool> {
    let mut wanted: HashSet<_> = outputs.into_iter().collect();
    let mut needed = vec![false; operations.len()];
    for (operation, needed) in operations.rev().zip(needed.iter_mut().rev()) {
        *needed = operation.outputs().any(|tensor| wanted.contains(&tensor.id));
        if *needed {
            wanted.extend(operation.inputs().map(|tensor| tensor.id));
        }
    }
    needed
}

/// Removes operations whose results are not used.
pub(crate) fn remove_dead<T>(
    steps: &mut Vec<T>,
    operation: impl Fn(&T) -> &OperationIr,
    outputs: impl IntoIterator<Item = TensorId>,
) {
    let needed = needed(steps.iter().map(operation), outputs);
    let mut needed = needed.into_iter();
    steps.retain(|_| needed.next().unwrap_or(true));
}

#[cfg(test)]
mod tests {
    use super::super::tests::{binary, id};
    use super::remove_dead;

    #[test]
    fn only_operations_of_outputs_are_kept() {
        let mut operations = vec![binary(0, 0, 1), binary(1, 0, 2), binary(1, 1, 3), binary(3, 0, 4)];
        remove_dead(&mut operations, |operation| operation, [id(4)]);
        assert_eq!(operations, [binary(0, 0, 1), binary(1, 1, 3), binary(3, 0, 4)]);
        remove_dead(&mut operations, |operation| operation, [id(0)]);
        assert!(operations.is_empty(), "the output is an input");
    }
}
