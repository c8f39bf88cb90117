//! The symbolic shapes of all tensors of a graph.

use burn::tensor::{Shape, TensorId};
use burn_ir::{IrVisitorMut, OperationIr, TensorIr};

use super::expr::SymExpr;
use super::scalars::{Scalar, numbers};

/// The first of the numbers that stand for extents while their places are looked up. Larger than any extent.
const MARK: usize = 1 << 50;
/// The most dimensions of a tensor.
const DIMENSIONS: usize = 16;

/// Places of extents among the numbers of an operation.
struct Places {
    /// The tensors of the operation, in the order in which burn visits them.
    tensors: Vec<TensorId>,
    /// The index of each number that is an extent, with its tensor in `tensors` and its dimension.
    extents: Vec<(u32, usize, usize)>,
}

impl Places {
    fn of(operation: &OperationIr) -> Result<Self, String> {
        struct Mark(Vec<TensorId>);

        impl IrVisitorMut for Mark {
            fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
                let first = MARK + self.0.len() * DIMENSIONS;
                tensor.shape = Shape::from((0..tensor.shape.num_dims()).map(|at| first + at).collect::<Vec<_>>());
                self.0.push(tensor.id);
            }
        }

        let mut marked = operation.clone();
        let mut mark = Mark(Vec::new());
        marked.visit_mut(&mut mark);
        let place = |(at, number): (usize, Scalar)| {
            let marked = usize::try_from(number.whole()?).ok()?.checked_sub(MARK)?;
            Some((at as u32, marked / DIMENSIONS, marked % DIMENSIONS))
        };
        let extents = numbers(&marked)?.into_iter().enumerate().filter_map(place).collect();
        Ok(Self { tensors: mark.0, extents })
    }
}

/// Returns the shapes of the results of an operation. `hole` returns the expression of a number.
///
/// # Errors
/// If the operation cannot be serialised.
pub(crate) fn result_shapes<'a>(
    operation: &OperationIr,
    hole: impl Fn(u32) -> Option<&'a SymExpr>,
) -> Result<Vec<(TensorId, Vec<SymExpr>)>, String> {
    let places = Places::of(operation)?;
    let shape = |tensor: &TensorIr| {
        let mut shape: Vec<_> = tensor.shape.iter().map(|&extent| SymExpr::number(extent as i64)).collect();
        for &(number, position, dimension) in &places.extents {
            if places.tensors.get(position) == Some(&tensor.id)
                && let (Some(expression), Some(extent)) = (hole(number), shape.get_mut(dimension))
            {
                *extent = expression.clone();
            }
        }
        (tensor.id, shape)
    };
    Ok(operation.outputs().map(shape).collect())
}

/// Returns the numbers of an operation that depend on symbols, by the shapes of its tensors.
///
/// # Errors
/// If the operation cannot be serialised.
pub(crate) fn holes<'a>(
    operation: &OperationIr,
    shape: impl Fn(TensorId) -> Option<&'a [SymExpr]>,
) -> Result<Vec<(u32, SymExpr)>, String> {
    let places = Places::of(operation)?;
    let hole = |&(number, position, dimension): &(u32, usize, usize)| {
        let extent = shape(*places.tensors.get(position)?)?.get(dimension)?;
        extent.as_constant().is_none().then(|| (number, extent.clone()))
    };
    Ok(places.extents.iter().filter_map(hole).collect())
}
