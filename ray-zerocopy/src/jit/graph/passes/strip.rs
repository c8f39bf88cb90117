//! Initialisations go: what they stand for is registered before the first operation.

use burn_ir::OperationIr;

/// Removes what computes nothing.
pub(crate) fn strip_initialisation(operations: &mut Vec<OperationIr>) {
    operations.retain(|operation| !matches!(operation, OperationIr::Init(_) | OperationIr::Drop(_)));
}
