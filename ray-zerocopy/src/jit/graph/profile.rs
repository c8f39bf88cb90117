//! Profiles: time and bytes of each operation of a graph.

use std::time::Duration;

use burn_ir::{BaseOperationIr, ModuleOperationIr, OperationIr, TensorIr};

use super::passes;
use crate::tensor::dtype::bytes_of;

/// Time and bytes of each operation of a graph. Created by
/// [`TracedGraph::profile`](super::super::TracedGraph::profile).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Profile {
    /// Number of runs that were measured.
    pub runs: usize,
    /// Median time of a run: its operations, without the conversion of inputs and outputs.
    pub time: Duration,
    /// The operations of a run, in execution order. It lacks those that are evaluated once, because they depend on
    /// constants only.
    pub steps: Vec<StepProfile>,
}

/// Time and bytes of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepProfile {
    /// Index of the operation in the graph.
    pub number: usize,
    /// Median time.
    pub time: Duration,
    /// Size in bytes of what it reads: its operands, or the selected rows of an embedding. 0 for views.
    pub read: u64,
    /// Size in bytes of its results. 0 for views, although a reshape may copy a transposed tensor.
    pub written: u64,
}

impl Profile {
    /// Summarises the runs: for each, the time of each operation.
    pub(super) fn of<'a>(operations: impl Iterator<Item = (usize, &'a OperationIr)>, runs: &[Vec<Duration>]) -> Self {
        let step = |(at, (number, operation)): (usize, (usize, &OperationIr))| {
            let time = median(runs.iter().filter_map(|run| run.get(at)).copied().collect());
            let (read, written) = bytes(operation);
            StepProfile { number, time, read, written }
        };
        let time = median(runs.iter().map(|run| run.iter().sum()).collect());
        Self { runs: runs.len(), time, steps: operations.enumerate().map(step).collect() }
    }

    /// The profile of inputs for which no operation runs, such as an empty batch.
    pub(super) fn empty(runs: usize) -> Self {
        Self { runs, time: Duration::ZERO, steps: Vec::new() }
    }
}

/// The median: the lower one of the two in the middle of an even number. 0 if there are none.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// Size in bytes of what an operation reads and writes.
fn bytes(operation: &OperationIr) -> (u64, u64) {
    if passes::is_view(operation) {
        return (0, 0);
    }
    let size = |tensor: &TensorIr| bytes_of(tensor.dtype, tensor.shape.num_elements() as u64).unwrap_or(u64::MAX);
    let written: u64 = operation.outputs().map(size).sum();
    // Of the table, only the selected rows are read.
    let table = match operation {
        OperationIr::Module(ModuleOperationIr::Embedding(op)) => Some(&op.weights),
        OperationIr::BaseFloat(operation) | OperationIr::BaseInt(operation) | OperationIr::BaseBool(operation) => {
            match operation {
                BaseOperationIr::Select(op) => Some(&op.tensor),
                BaseOperationIr::Gather(op) => Some(&op.tensor),
                _ => None,
            }
        }
        _ => None,
    };
    let is_table = |tensor: &&TensorIr| table.is_some_and(|table| table.id == tensor.id);
    let others: u64 = operation.inputs().filter(|tensor| !is_table(tensor)).map(size).sum();
    (others + if table.is_some() { written } else { 0 }, written)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use burn::tensor::{DType, Shape, TensorId};
    use burn_ir::{BinaryOpIr, NumericOperationIr, OperationIr, TensorIr, TensorStatus};

    use super::{Profile, StepProfile};

    /// An addition of tensors of two elements.
    fn addition(left: u64, right: u64, out: u64) -> OperationIr {
        let tensor = |id| TensorIr {
            id: TensorId::new(id),
            shape: Shape::new([2]),
            status: TensorStatus::ReadOnly,
            dtype: DType::F32,
        };
        let (lhs, rhs, out) = (tensor(left), tensor(right), tensor(out));
        OperationIr::NumericFloat(DType::F32, NumericOperationIr::Add(BinaryOpIr { lhs, rhs, out }))
    }

    #[test]
    fn times_are_medians_and_bytes_are_those_of_operands() {
        let operations = [addition(0, 1, 5), addition(5, 0, 6)];
        let ms = Duration::from_millis;
        let runs = [vec![ms(9), ms(1)], vec![ms(2), ms(3)], vec![ms(1), ms(2)]];
        let profile = Profile::of([0, 3].into_iter().zip(&operations), &runs);
        let step = |number, time| StepProfile { number, time, read: 16, written: 8 };
        assert_eq!(profile, Profile { runs: 3, time: ms(5), steps: vec![step(0, ms(2)), step(3, ms(2))] });
        assert_eq!(Profile::of([0].into_iter().zip(&operations), &[]).steps[0].time, Duration::ZERO);
    }
}
