//! Removes initialisations: their tensors are registered before the first operation.

use burn_ir::OperationIr;

/// Removes operations that compute nothing.
pub(crate) fn strip_initialisation(operations: &mut Vec<OperationIr>) {
    operations.retain(|operation| !matches!(operation, OperationIr::Init(_) | OperationIr::Drop(_)));
}
