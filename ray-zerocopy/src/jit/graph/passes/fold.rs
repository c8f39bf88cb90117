//! Constant folding: operations that depend only on constants are evaluated once, if the result is
//! small.
//!
//! Folding never copies weights. Views of a weight (a transposition, a slice) are left to the
//! executor, which creates them without a copy. So are all results that are not small.

use std::collections::HashMap;

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use burn::tensor::{TensorData, TensorId};
use burn_ir::{BaseOperationIr, OperationIr, TensorIr, TensorStatus};
use burn_router::TensorInterpreter;

use super::Step;
use crate::jit::graph::fused::Fused;
use crate::panics;

/// Maximum size in bytes of a folded result.
pub(crate) const SMALL: usize = 64 << 10;

/// Returns `true` if the operation only reorders or selects elements of its operand.
pub(crate) fn is_view(operation: &OperationIr) -> bool {
    use BaseOperationIr::{Expand, Permute, Reshape, Slice, SwapDims};
    let (OperationIr::BaseFloat(operation) | OperationIr::BaseInt(operation) | OperationIr::BaseBool(operation)) =
        operation
    else {
        return false;
    };
    matches!(operation, Reshape(_) | SwapDims(_) | Permute(_) | Expand(_) | Slice(_))
}

/// Returns `true` if it is not an operation on tensors.
pub(crate) fn is_foreign(operation: &OperationIr) -> bool {
    use OperationIr::{Custom, Distributed, Drop, Init};
    matches!(operation, Custom(_) | Distributed(_) | Drop(_) | Init(_))
}

/// Returns `true` if two runs of the operation may give different results, or if it has side
/// effects.
pub(crate) fn is_impure(operation: &OperationIr) -> bool {
    use burn_ir::{FloatOperationIr, NumericOperationIr};
    (is_foreign(operation) && Fused::of(operation).is_none())
        || matches!(
            operation,
            OperationIr::Float(_, FloatOperationIr::Random(_))
                | OperationIr::NumericFloat(_, NumericOperationIr::IntRandom(_))
                | OperationIr::NumericInt(_, NumericOperationIr::IntRandom(_))
        )
}

/// Removes the operations whose results are constants, and returns these results.
///
/// `constant` returns the elements of a constant that does not depend on symbols, and whether it is
/// a weight.
pub(crate) fn fold(
    steps: &mut Vec<Step>,
    constant: impl Fn(TensorId) -> Option<(TensorData, bool)>,
) -> HashMap<TensorId, TensorData> {
    let mut folded: HashMap<TensorId, TensorData> = HashMap::new();
    let known = |folded: &HashMap<TensorId, TensorData>, id: TensorId| {
        folded.get(&id).map(|data| (data.clone(), false)).or_else(|| constant(id))
    };
    steps.retain(|step| {
        let operation = &step.operation;
        if !step.holes.is_empty() || is_impure(operation) {
            return true;
        }
        let bytes: usize = operation.outputs().map(|out| out.shape.num_elements() * out.dtype.size()).sum();
        if bytes > SMALL {
            return true;
        }
        let operands: Option<Vec<_>> =
            operation.inputs().map(|tensor| Some((tensor.id, known(&folded, tensor.id)?))).collect();
        let Some(operands) = operands else { return true };
        if is_view(operation) && operands.iter().any(|(_, (_, weight))| *weight) {
            return true;
        }
        match run(operation, operands.into_iter().map(|(id, (data, _))| (id, data))) {
            Some(results) => {
                folded.extend(results);
                false
            }
            None => true,
        }
    });
    folded
}

/// Runs one operation on the CPU. Returns `None` if the CPU backend does not support it.
fn run(
    operation: &OperationIr,
    operands: impl Iterator<Item = (TensorId, TensorData)>,
) -> Option<Vec<(TensorId, TensorData)>> {
    panics::caught(|| {
        let mut interpreter = TensorInterpreter::<Flex>::new(FlexDevice);
        for (id, data) in operands {
            interpreter.register_tensor_data_id(id, data);
        }
        interpreter.register_op(operation.clone());
        let outputs = operation.outputs().map(|out| {
            let last_use = TensorIr { status: TensorStatus::ReadWrite, ..out.clone() };
            let data = ready(interpreter.read_tensor_async(last_use)).ok()?;
            Some((out.id, data))
        });
        outputs.collect::<Option<Vec<_>>>()
    })
    .ok()
    .flatten()
}

/// Polls a future to completion. Results of the CPU backend are ready immediately.
fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::super::tests::{binary, id};
    use super::Step;
    use super::fold;

    #[test]
    fn constants_are_added_once() {
        let mut steps: Vec<_> = [binary(0, 1, 5), binary(5, 0, 6), binary(6, 9, 7)].map(Step::fixed).into();
        let constant = |tensor| match tensor {
            _ if tensor == id(0) => Some((TensorData::from([1.0_f32, 2.0]), false)),
            _ if tensor == id(1) => Some((TensorData::from([10.0_f32, 20.0]), true)),
            _ => None,
        };
        let folded = fold(&mut steps, constant);
        assert_eq!(steps, [Step::fixed(binary(6, 9, 7))], "what depends on an input stays");
        assert_eq!(folded[&id(6)], TensorData::from([12.0_f32, 24.0]));
    }

    #[test]
    fn operations_with_symbolic_sizes_are_kept() {
        let step = Step {
            operation: binary(0, 0, 5),
            holes: vec![(0, crate::jit::graph::symbolic::expr::SymExpr::symbol(0))],
        };
        let mut steps = vec![step.clone()];
        assert!(fold(&mut steps, |_| Some((TensorData::from([1.0_f32, 2.0]), false))).is_empty());
        assert_eq!(steps, [step]);
    }
}
