//! What follows a product or a convolution, and can become part of it: an activation, an addition.

use burn_ir::{
    ActivationOperationIr, BinaryOpIr, FloatOperationIr, NumericOperationIr, OperationIr, TensorIr, UnaryOpIr,
};
use ray_zerocopy_kernels::Activation;

use super::fuse_linear::Uses;

/// The activation that is the only use of a tensor: the index of the operation that computes the result, the function,
/// and the result.
pub(crate) fn activation_of(
    operations: &[OperationIr],
    uses: &Uses,
    tensor: &TensorIr,
) -> Option<(usize, Activation, TensorIr)> {
    let Some((at, operation)) = uses.only_reader(operations, tensor) else { return silu_of(operations, uses, tensor) };
    let (activation, UnaryOpIr { out, .. }) = match operation {
        OperationIr::Activation(ActivationOperationIr::Relu(op)) => (Activation::Relu, op),
        OperationIr::Activation(ActivationOperationIr::Gelu(op)) => (Activation::Gelu, op),
        OperationIr::Activation(ActivationOperationIr::Sigmoid(op)) => (Activation::Sigmoid, op),
        OperationIr::Float(_, FloatOperationIr::Tanh(op)) => (Activation::Tanh, op),
        _ => return None,
    };
    (out.dtype == tensor.dtype).then(|| (at, activation, out.clone()))
}

/// `x · sigmoid(x)`, which reads x twice.
fn silu_of(operations: &[OperationIr], uses: &Uses, tensor: &TensorIr) -> Option<(usize, Activation, TensorIr)> {
    let [first, last] = *uses.readers(tensor) else { return None };
    let OperationIr::Activation(ActivationOperationIr::Sigmoid(sigmoid)) = &operations[first] else { return None };
    let (at, OperationIr::NumericFloat(_, NumericOperationIr::Mul(BinaryOpIr { lhs, rhs, out }))) =
        uses.only_reader(operations, &sigmoid.out)?
    else {
        return None;
    };
    let reads = [[lhs.id, rhs.id], [rhs.id, lhs.id]].contains(&[tensor.id, sigmoid.out.id]);
    (at == last && reads).then(|| (at, Activation::Silu, out.clone()))
}

/// The addition that is the only use of a tensor: its index, the other summand, and the sum.
pub(crate) fn addition_of(
    operations: &[OperationIr],
    uses: &Uses,
    tensor: &TensorIr,
) -> Option<(usize, TensorIr, TensorIr)> {
    let (at, operation) = uses.only_reader(operations, tensor)?;
    let OperationIr::NumericFloat(_, NumericOperationIr::Add(BinaryOpIr { lhs, rhs, out })) = operation else {
        return None;
    };
    let other = if lhs.id == tensor.id { rhs } else { lhs };
    (other.id != tensor.id).then(|| (at, other.clone(), out.clone()))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Shape, TensorId};
    use burn_ir::{ActivationOperationIr, BinaryOpIr, NumericOperationIr, OperationIr, TensorIr, UnaryOpIr};
    use ray_zerocopy_kernels::Activation;

    use super::super::fuse_linear::Uses;
    use super::super::tests::{binary, id};
    use super::{activation_of, addition_of};

    fn tensor(number: u64) -> TensorIr {
        TensorIr::uninit(TensorId::new(number), Shape::new([2]), DType::F32)
    }

    fn sigmoid(input: u64, out: u64) -> OperationIr {
        OperationIr::Activation(ActivationOperationIr::Sigmoid(UnaryOpIr { input: tensor(input), out: tensor(out) }))
    }

    fn multiplied(lhs: u64, rhs: u64, out: u64) -> OperationIr {
        let (lhs, rhs, out) = (tensor(lhs), tensor(rhs), tensor(out));
        OperationIr::NumericFloat(DType::F32, NumericOperationIr::Mul(BinaryOpIr { lhs, rhs, out }))
    }

    fn found(operations: &[OperationIr], outputs: &[TensorId]) -> Option<(usize, Activation, TensorId)> {
        let uses = Uses::of(operations, outputs);
        activation_of(operations, &uses, &tensor(0)).map(|(at, activation, out)| (at, activation, out.id))
    }

    #[test]
    fn silu_is_a_product_with_its_sigmoid() {
        let silu = [sigmoid(0, 1), multiplied(0, 1, 2)];
        assert_eq!(found(&silu, &[id(2)]), Some((1, Activation::Silu, id(2))));
        assert_eq!(found(&[sigmoid(0, 1), multiplied(1, 0, 2)], &[id(2)]), Some((1, Activation::Silu, id(2))));
        assert_eq!(found(&[sigmoid(0, 1)], &[id(1)]), Some((0, Activation::Sigmoid, id(1))));
        // Another use of the input or of the sigmoid, and products of something else.
        assert_eq!(found(&silu, &[id(2), id(0)]), None);
        assert_eq!(found(&silu, &[id(2), id(1)]), None);
        assert_eq!(found(&[sigmoid(0, 1), multiplied(0, 1, 2), binary(0, 2, 3)], &[id(3)]), None);
        assert_eq!(found(&[sigmoid(0, 1), multiplied(0, 0, 2)], &[id(2)]), None);
        assert_eq!(found(&[sigmoid(0, 1), binary(0, 1, 2)], &[id(2)]), None);
    }

    #[test]
    fn sum_with_itself_is_not_an_addition_of_another() {
        let of = |operations: &[OperationIr]| {
            let uses = Uses::of(operations, &[]);
            addition_of(operations, &uses, &tensor(0)).map(|(at, other, out)| (at, other.id, out.id))
        };
        assert_eq!(of(&[binary(0, 1, 2)]), Some((0, id(1), id(2))));
        assert_eq!(of(&[binary(1, 0, 2)]), Some((0, id(1), id(2))));
        assert_eq!((of(&[binary(0, 0, 2)]), of(&[binary(0, 1, 2), binary(0, 1, 3)])), (None, None));
    }
}
