//! Raises linear layers to a single operation.
//!
//! burn lowers a linear layer before it is recorded, in one of two ways: many rows of few columns
//! are multiplied as one matrix, others as a batch of matrices. The choice depends on the sizes. So
//! a recording of one way would be slower, or differ in bits from the pipeline, at sizes where burn
//! chooses the other way. The single operation leaves the choice to the backend, at the sizes of
//! each call.

use std::collections::HashMap;

use burn::tensor::TensorId;
use burn_ir::{
    BaseOperationIr, BinaryOpIr, FloatOperationIr, LinearOpIr, MatmulOpIr, ModuleOperationIr, NumericOperationIr,
    OperationIr, ShapeOpIr, TensorIr,
};
use burn_std::{MatmulTransformAction, MatmulTransformAnalysis, MatmulTransformPolicy};

/// The parts of a linear layer, in the order in which they are found.
struct Parts {
    /// Index of the operation that computes the result.
    last: usize,
    x: TensorIr,
    weight: TensorIr,
    bias: Option<TensorIr>,
    out: TensorIr,
}

/// Replaces the last operation of each linear layer by the raised operation. The other operations
/// are left for dead code elimination.
pub(crate) fn raise_linear(operations: &mut [OperationIr], outputs: &[TensorId]) {
    let graph = Uses::of(operations, outputs);
    let found: Vec<_> = (0..operations.len()).filter_map(|at| parts(operations, &graph, at)).collect();
    for Parts { last, x, weight, bias, out } in found {
        operations[last] = OperationIr::Module(ModuleOperationIr::Linear(LinearOpIr { x, weight, bias, out }));
    }
}

/// Producers and readers of each tensor.
pub(crate) struct Uses {
    producers: HashMap<TensorId, usize>,
    /// The operations that read a tensor, in their order, once for each time. Without those of outputs.
    readers: HashMap<TensorId, Vec<usize>>,
}

impl Uses {
    pub(crate) fn of(operations: &[OperationIr], outputs: &[TensorId]) -> Self {
        let (mut producers, mut readers) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        for (at, operation) in operations.iter().enumerate() {
            producers.extend(operation.outputs().map(|tensor| (tensor.id, at)));
            for tensor in operation.inputs() {
                readers.entry(tensor.id).or_default().push(at);
            }
        }
        for id in outputs {
            readers.remove(id);
        }
        Self { producers, readers }
    }

    pub(crate) fn producer<'a>(&self, operations: &'a [OperationIr], tensor: &TensorIr) -> Option<&'a OperationIr> {
        self.producer_index(tensor).map(|at| &operations[at])
    }

    pub(crate) fn producer_index(&self, tensor: &TensorIr) -> Option<usize> {
        self.producers.get(&tensor.id).copied()
    }

    /// The indexes of the operations that read a tensor. Empty if it is an output.
    pub(crate) fn readers(&self, tensor: &TensorIr) -> &[usize] {
        self.readers.get(&tensor.id).map(Vec::as_slice).unwrap_or_default()
    }

    /// The operation that reads a tensor, if there is exactly one and the tensor is not an output.
    pub(crate) fn only_reader<'a>(
        &self,
        operations: &'a [OperationIr],
        tensor: &TensorIr,
    ) -> Option<(usize, &'a OperationIr)> {
        let [at] = self.readers(tensor) else { return None };
        Some((*at, &operations[*at]))
    }
}

pub(crate) fn reshape(operation: &OperationIr) -> Option<&ShapeOpIr> {
    match operation {
        OperationIr::BaseFloat(BaseOperationIr::Reshape(operation)) => Some(operation),
        _ => None,
    }
}

/// Undoes a reshape that added leading dimensions of size 1: to a bias of one dimension, a weight
/// of two. Returns the tensor itself if it has rank `rank` already.
pub(crate) fn without_leading(
    operations: &[OperationIr],
    uses: &Uses,
    tensor: &TensorIr,
    rank: usize,
) -> Option<TensorIr> {
    if tensor.shape.num_dims() == rank {
        return Some(tensor.clone());
    }
    let ShapeOpIr { input, out } = reshape(uses.producer(operations, tensor)?)?;
    let lead = out.shape.num_dims().checked_sub(rank)?;
    let is = input.shape.num_dims() == rank
        && out.shape.iter().take(lead).all(|&extent| extent == 1)
        && out.shape.iter().skip(lead).eq(input.shape.iter());
    is.then(|| input.clone())
}

fn parts(operations: &[OperationIr], uses: &Uses, at: usize) -> Option<Parts> {
    let OperationIr::Float(_, FloatOperationIr::Matmul(MatmulOpIr { lhs, rhs, out })) = &operations[at] else {
        return None;
    };
    let weight = without_leading(operations, uses, rhs, 2)?;
    // Include the addition of a bias, if there is one.
    let (mut last, mut out) = (at, out.clone());
    let mut bias = None;
    if let Some((next, OperationIr::NumericFloat(_, NumericOperationIr::Add(BinaryOpIr { lhs, rhs, out: sum })))) =
        uses.only_reader(operations, &out)
        && lhs.id == out.id
        && rhs.id != out.id
        && let Some(found) = without_leading(operations, uses, rhs, 1)
        && found.shape.iter().eq(weight.shape.iter().skip(1))
        && rhs.shape.num_dims() == lhs.shape.num_dims()
    {
        (last, out, bias) = (next, sum.clone(), Some(found));
    }
    let action = |x: &TensorIr| {
        MatmulTransformPolicy::default().action(&MatmulTransformAnalysis::from_shapes(&x.shape, &weight.shape))
    };
    if lhs.shape.num_dims() > 2 {
        // As a batch of products.
        let is = rhs.shape.num_dims() == lhs.shape.num_dims() && matches!(action(lhs), MatmulTransformAction::Keep);
        return is.then(|| Parts { last, x: lhs.clone(), weight, bias, out });
    }
    // As one product, between two reshapes.
    let ShapeOpIr { input: x, .. } = reshape(uses.producer(operations, lhs)?)?;
    let (end, back) = uses.only_reader(operations, &out)?;
    let back = &reshape(back)?.out;
    let rank = x.shape.num_dims();
    let whole = rank > 2
        && x.shape.iter().next_back() == lhs.shape.iter().next_back()
        && back.shape.num_dims() == rank
        && back.shape.iter().take(rank - 1).eq(x.shape.iter().take(rank - 1))
        && matches!(action(x), MatmulTransformAction::MergeBatches { .. });
    whole.then(|| Parts { last: end, x: x.clone(), weight, bias, out: back.clone() })
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Shape, TensorId};
    use burn_ir::*;

    use super::super::tests::id;
    use super::raise_linear;

    fn tensor<const D: usize>(number: u64, shape: [usize; D]) -> TensorIr {
        TensorIr::uninit(TensorId::new(number), Shape::new(shape), DType::F32)
    }

    fn reshape<const A: usize, const B: usize>(from: (u64, [usize; A]), to: (u64, [usize; B])) -> OperationIr {
        let (input, out) = (tensor(from.0, from.1), tensor(to.0, to.1));
        OperationIr::BaseFloat(BaseOperationIr::Reshape(ShapeOpIr { input, out }))
    }

    fn matmul<const D: usize>(lhs: TensorIr, rhs: TensorIr, out: (u64, [usize; D])) -> OperationIr {
        let out = tensor(out.0, out.1);
        OperationIr::Float(DType::F32, FloatOperationIr::Matmul(MatmulOpIr { lhs, rhs, out }))
    }

    fn add(lhs: TensorIr, rhs: TensorIr, out: TensorIr) -> OperationIr {
        OperationIr::NumericFloat(DType::F32, NumericOperationIr::Add(BinaryOpIr { lhs, rhs, out }))
    }

    fn linear(operation: &OperationIr) -> Option<[Option<TensorId>; 4]> {
        match operation {
            OperationIr::Module(ModuleOperationIr::Linear(LinearOpIr { x, weight, bias, out })) => {
                Some([Some(x.id), Some(weight.id), bias.as_ref().map(|bias| bias.id), Some(out.id)])
            }
            _ => None,
        }
    }

    /// Tensor 0 is x, 1 the weight, 2 the bias.
    fn batched(lead: [usize; 2]) -> Vec<OperationIr> {
        let [batch, rows] = lead;
        vec![
            reshape((1, [8, 4]), (3, [1, 8, 4])),
            matmul(tensor(0, [batch, rows, 8]), tensor(3, [1, 8, 4]), (4, [batch, rows, 4])),
            reshape((2, [4]), (5, [1, 1, 4])),
            add(tensor(4, [batch, rows, 4]), tensor(5, [1, 1, 4]), tensor(6, [batch, rows, 4])),
        ]
    }

    fn merged([batch, rows]: [usize; 2]) -> Vec<OperationIr> {
        vec![
            reshape((0, [batch, rows, 8]), (3, [batch * rows, 8])),
            matmul(tensor(3, [batch * rows, 8]), tensor(1, [8, 4]), (4, [batch * rows, 4])),
            reshape((2, [4]), (5, [1, 4])),
            add(tensor(4, [batch * rows, 4]), tensor(5, [1, 4]), tensor(6, [batch * rows, 4])),
            reshape((6, [batch * rows, 4]), (7, [batch, rows, 4])),
        ]
    }

    #[test]
    fn linear_is_fused_as_burn_would_compute_it() {
        use burn_std::{MatmulTransformAction, MatmulTransformAnalysis, MatmulTransformPolicy};

        for lead in [[2, 3], [2, 100], [64, 2], [9, 15], [1, 1]] {
            let shape = Shape::new([lead[0], lead[1], 8]);
            let analysis = MatmulTransformAnalysis::from_shapes(&shape, &Shape::new([8, 4]));
            let keeps = matches!(MatmulTransformPolicy::default().action(&analysis), MatmulTransformAction::Keep);
            let (mut batched, mut merged) = (batched(lead), merged(lead));
            raise_linear(&mut batched, &[id(6)]);
            raise_linear(&mut merged, &[id(7)]);
            let expected = |out| Some([Some(id(0)), Some(id(1)), Some(id(2)), Some(id(out))]);
            assert_eq!(linear(&batched[3]), expected(6).filter(|_| keeps), "{lead:?}");
            assert_eq!(linear(&merged[4]), expected(7).filter(|_| !keeps), "{lead:?}");
        }
    }

    #[test]
    fn intermediate_with_another_reader_is_kept() {
        let mut operations = batched([2, 3]);
        raise_linear(&mut operations, &[id(6), id(4)]);
        assert_eq!(linear(&operations[1]), Some([Some(id(0)), Some(id(1)), None, Some(id(4))]), "without its bias");
        assert_eq!(linear(&operations[3]), None);
    }
}
