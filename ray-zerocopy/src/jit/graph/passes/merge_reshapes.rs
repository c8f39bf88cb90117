//! Removes repeated reshapes: of several in a row, only the last one stays, or none if it has the first shape.

use burn_ir::{BaseOperationIr, OperationIr, ShapeOpIr};

use super::draft::Draft;

/// The parts of a reshape.
fn reshape(operation: &OperationIr) -> Option<&ShapeOpIr> {
    match operation {
        OperationIr::BaseFloat(BaseOperationIr::Reshape(reshape))
        | OperationIr::BaseInt(BaseOperationIr::Reshape(reshape))
        | OperationIr::BaseBool(BaseOperationIr::Reshape(reshape)) => Some(reshape),
        _ => None,
    }
}

/// Removes repeated reshapes. Returns how many reshapes read another tensor now.
///
/// # Errors
/// If an operation cannot be serialised.
pub(crate) fn merge_reshapes(draft: &mut Draft) -> Result<usize, String> {
    let mut count = 0;
    // Only operands are replaced, so what produces a tensor stays the same.
    let (mut operations, uses) = (draft.operations(), draft.uses());
    for at in 0..operations.len() {
        let Some(last) = reshape(&operations[at]).cloned() else { continue };
        let first = uses.producer(&operations, &last.input).and_then(reshape);
        let mut input = last.input.clone();
        if let Some(first) = first.cloned() {
            // The one before it is merged already: it reads what is not reshaped.
            input = first.input;
            draft.set_operand(at, &last.input, &input)?;
            operations = draft.operations();
            count += 1;
        }
        if draft.same_shape(&input, &last.out) && draft.substitute(&last.out, &input) {
            operations = draft.operations();
            count += 1;
        }
    }
    Ok(count)
}
