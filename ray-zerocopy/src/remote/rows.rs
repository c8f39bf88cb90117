//! Arguments and results that have rows, so that calls can be put together.

use burn::tensor::{Device, Tensor};

use crate::tensor::host;
use crate::tensor::kind::Kind;

/// An argument of a method under `#[remote(batch)]`: a `Vec`, whose rows are its items, or a tensor,
/// whose rows are the slices along its first dimension.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no rows, so that calls with it cannot be put together",
    label = "neither a `Vec` nor a tensor",
    note = "the first argument of a method under `#[remote(batch)]` is a `Vec` or a tensor: `pub fn embed(&self, texts: Vec<String>) -> Vec<f32>`"
)]
pub trait Rows: Sized {
    /// One row.
    type Row;

    /// Number of rows.
    fn rows(&self) -> usize;

    /// Largest cost of a row.
    fn row_cost(&self, cost: &dyn Fn(&Self::Row) -> usize) -> usize;

    /// What the rows of two arguments must have in common, so that they can be joined.
    fn shape(&self) -> Vec<u8>;

    /// Joins arguments.
    fn join(parts: Vec<Self>) -> Self;

    /// The argument of a single row.
    fn one(row: Self::Row) -> Self;

    /// Whether it is a tensor.
    const IS_TENSOR: bool = false;

    /// The same on a device, if it is a tensor.
    ///
    /// # Errors
    /// If it cannot be copied there, with the reason.
    fn to_device(self, _device: &Device) -> Result<Self, String> {
        Ok(self)
    }
}

impl<T> Rows for Vec<T> {
    type Row = T;

    fn rows(&self) -> usize {
        self.len()
    }

    fn row_cost(&self, cost: &dyn Fn(&T) -> usize) -> usize {
        self.iter().map(cost).max().unwrap_or(0)
    }

    fn shape(&self) -> Vec<u8> {
        Vec::new()
    }

    fn join(parts: Vec<Self>) -> Self {
        parts.into_iter().flatten().collect()
    }

    fn one(row: T) -> Self {
        vec![row]
    }
}

/// A result of a method under `#[remote(batch)]`: what has [`Rows`], a tuple of that, or a `Result`
/// of that.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no rows, so that it cannot be divided among calls",
    label = "neither a `Vec` nor a tensor, nor a tuple or a `Result` of them",
    note = "a method under `#[remote(batch)]` returns one row for each row of its first argument"
)]
pub trait RowsResult: Sized {
    /// The result of one row.
    type Row;

    /// Divides the result among calls with these numbers of rows.
    fn divide(self, rows: &[usize]) -> Divided<Self>;

    /// The row of a result that has one.
    fn into_row(self) -> Option<Self::Row>;

    /// The same with its tensors in host memory.
    ///
    /// # Errors
    /// If one cannot be read from its device, with the reason.
    fn to_host(self) -> Result<Self, String>;
}

/// A result that is divided among calls.
pub enum Divided<T> {
    /// The result of each call.
    Parts(Vec<T>),
    /// An error of the method, for all of them.
    Error(T),
    /// The result has this number of rows, which is not that of the arguments.
    WrongNumber(usize),
}

impl<T> RowsResult for Vec<T> {
    type Row = T;

    fn divide(self, rows: &[usize]) -> Divided<Self> {
        if self.len() != rows.iter().sum::<usize>() {
            return Divided::WrongNumber(self.len());
        }
        let mut all = self.into_iter();
        Divided::Parts(rows.iter().map(|&count| all.by_ref().take(count).collect()).collect())
    }

    fn into_row(self) -> Option<T> {
        let mut rows = self.into_iter();
        rows.next().filter(|_| rows.next().is_none())
    }

    fn to_host(self) -> Result<Self, String> {
        Ok(self)
    }
}

impl<T: RowsResult, E> RowsResult for Result<T, E> {
    type Row = Result<T::Row, E>;

    fn divide(self, rows: &[usize]) -> Divided<Self> {
        match self.map(|value| value.divide(rows)) {
            Ok(Divided::Parts(parts)) => Divided::Parts(parts.into_iter().map(Ok).collect()),
            Ok(Divided::Error(error)) => Divided::Error(Ok(error)),
            Ok(Divided::WrongNumber(found)) => Divided::WrongNumber(found),
            Err(error) => Divided::Error(Err(error)),
        }
    }

    fn into_row(self) -> Option<Self::Row> {
        match self {
            Ok(value) => value.into_row().map(Ok),
            Err(error) => Some(Err(error)),
        }
    }

    fn to_host(self) -> Result<Self, String> {
        self.map(T::to_host).map_or_else(|error| Ok(Err(error)), |value| value.map(Ok))
    }
}

macro_rules! tuples {
    ($(($($ty:ident $value:ident),*))*) => {$(
        impl<$($ty: RowsResult),*> RowsResult for ($($ty,)*) {
            type Row = ($($ty::Row,)*);

            fn divide(self, rows: &[usize]) -> Divided<Self> {
                let ($($value,)*) = self;
                $(let mut $value = match $value.divide(rows) {
                    Divided::Parts(parts) => parts.into_iter(),
                    // A `Result` in a tuple has no error that is one of the whole tuple.
                    Divided::Error(_) => return Divided::WrongNumber(0),
                    Divided::WrongNumber(found) => return Divided::WrongNumber(found),
                };)*
                let parts = rows.iter().map(|_| Some(($($value.next()?,)*)));
                parts.collect::<Option<_>>().map_or(Divided::WrongNumber(0), Divided::Parts)
            }

            fn into_row(self) -> Option<Self::Row> {
                let ($($value,)*) = self;
                Some(($($value.into_row()?,)*))
            }

            fn to_host(self) -> Result<Self, String> {
                let ($($value,)*) = self;
                Ok(($($value.to_host()?,)*))
            }
        }
    )*};
}

tuples! {
    (A a, B b)
    (A a, B b, C c)
}

macro_rules! tensors {
    ($($rank:literal of $row:literal),*) => {$(
        impl<K: Kind> Rows for Tensor<$rank, K> {
            type Row = Tensor<$row, K>;

            fn rows(&self) -> usize {
                self.dims()[0]
            }

            fn row_cost(&self, cost: &dyn Fn(&Tensor<$row, K>) -> usize) -> usize {
                (0..self.dims()[0]).filter_map(|row| row_at(self, row)).map(|row| cost(&row)).max().unwrap_or(0)
            }

            fn shape(&self) -> Vec<u8> {
                let sizes = self.dims().into_iter().skip(1).flat_map(|size| (size as u64).to_le_bytes());
                sizes.chain(format!("{:?}", host::dtype(self)).into_bytes()).collect()
            }

            fn join(parts: Vec<Self>) -> Self {
                let (empty, parts): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| part.dims()[0] == 0);
                // Only empty ones are joined to an empty one.
                if parts.is_empty() { empty.into_iter().next().unwrap_or_else(none) } else { Tensor::cat(parts, 0) }
            }

            fn one(row: Tensor<$row, K>) -> Self {
                let sizes: Vec<_> = row.dims().into_iter().skip(usize::from($rank == $row)).collect();
                row.reshape(shape::<$rank>(1, &sizes))
            }

            const IS_TENSOR: bool = true;

            fn to_device(self, device: &Device) -> Result<Self, String> {
                moved(self, device)
            }
        }

        impl<K: Kind> RowsResult for Tensor<$rank, K> {
            type Row = Tensor<$row, K>;

            fn divide(self, rows: &[usize]) -> Divided<Self> {
                let found = self.dims()[0];
                if found != rows.iter().sum::<usize>() {
                    return Divided::WrongNumber(found);
                }
                if rows.len() == 1 {
                    return Divided::Parts(vec![self]);
                }
                let mut start = 0;
                let mut parts = Vec::with_capacity(rows.len());
                for &count in rows {
                    parts.push(rows_at(&self, start, count));
                    start += count;
                }
                Divided::Parts(parts)
            }

            fn into_row(self) -> Option<Tensor<$row, K>> {
                (self.dims()[0] == 1).then(|| row_at(&self, 0))?
            }

            fn to_host(self) -> Result<Self, String> {
                moved(self, &Device::flex())
            }
        }
    )*};
}

/// The shape of a tensor of rank `D` with `rows` rows of these sizes.
fn shape<const D: usize>(rows: usize, sizes: &[usize]) -> [usize; D] {
    let mut shape = [rows; D];
    shape.iter_mut().skip(1).zip(sizes).for_each(|(to, size)| *to = *size);
    shape
}

/// Rows of a tensor. burn's `narrow` does not take zero rows.
fn rows_at<const D: usize, K: Kind>(tensor: &Tensor<D, K>, start: usize, count: usize) -> Tensor<D, K> {
    if count > 0 {
        return tensor.clone().narrow(0, start, count);
    }
    let mut shape = tensor.dims();
    shape[0] = 0;
    Tensor::empty(shape, &tensor.device())
}

/// The same tensor on a device.
fn moved<const D: usize, K: Kind>(tensor: Tensor<D, K>, device: &Device) -> Result<Tensor<D, K>, String> {
    if tensor.device() == *device {
        return Ok(tensor);
    }
    host::tensor(host::bytes(&tensor)?, &tensor.dims(), host::dtype(&tensor), device)
}

/// A tensor without elements.
fn none<const D: usize, K: Kind>() -> Tensor<D, K> {
    Tensor::empty([0; D], &Device::flex())
}

/// A row of a tensor, with one dimension less. The row of a tensor of rank 1 is a tensor of one
/// element.
fn row_at<const D: usize, const R: usize, K: Kind>(tensor: &Tensor<D, K>, row: usize) -> Option<Tensor<R, K>> {
    let dims = tensor.dims();
    let mut sizes = [1; R];
    sizes.iter_mut().zip(dims.iter().skip(1)).for_each(|(to, size)| *to = *size);
    (row < dims[0]).then(|| tensor.clone().narrow(0, row, 1).reshape(sizes))
}

tensors!(1 of 1, 2 of 1, 3 of 2, 4 of 3, 5 of 4, 6 of 5);

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int, Tensor, TensorData};

    use super::{Divided, Rows, RowsResult};

    fn parts<T: RowsResult>(result: T, rows: &[usize]) -> Vec<T> {
        match result.divide(rows) {
            Divided::Parts(parts) => parts,
            Divided::Error(_) => panic!("the result is an error"),
            Divided::WrongNumber(found) => panic!("the result has {found} rows"),
        }
    }

    #[test]
    fn vectors_are_joined_and_divided() {
        let joined = Vec::join(vec![vec!["a"], vec![], vec!["b", "c"]]);
        assert_eq!(joined, ["a", "b", "c"]);
        assert_eq!(parts(joined, &[1, 0, 2]), [vec!["a"], vec![], vec!["b", "c"]]);
        assert!(matches!(vec![1].divide(&[1, 1]), Divided::WrongNumber(1)));
        assert_eq!(vec!["abc", "a"].row_cost(&|row| row.len()), 3);
        assert_eq!((Vec::one(7), vec![7].into_row(), vec![7, 8].into_row()), (vec![7], Some(7), None));
    }

    #[test]
    fn tensors_are_joined_and_divided_by_rows() {
        let device = Device::flex();
        let tensor = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &device);
        let divided = parts(tensor.clone(), &[1, 2]);
        assert_eq!(divided[1].to_data(), TensorData::from([[3.0_f32, 4.0], [5.0, 6.0]]));
        assert_eq!(Tensor::join(divided).to_data(), tensor.to_data());
        let divided = parts(tensor.clone(), &[0, 3, 0]);
        assert_eq!((divided[0].dims(), divided[2].dims()), ([0, 2], [0, 2]));
        assert_eq!(Tensor::join(divided).to_data(), tensor.to_data());
        assert_eq!(Tensor::join(vec![Tensor::<2>::zeros([0, 2], &device)]).dims(), [0, 2]);
        assert!(matches!(tensor.clone().divide(&[4]), Divided::WrongNumber(3)));
        assert_eq!(tensor.row_cost(&|row| row.clone().sum().into_scalar::<f32>() as usize), 11);
        let row = tensor.narrow(0, 1, 1).into_row().unwrap();
        assert_eq!(row.to_data(), TensorData::from([3.0_f32, 4.0]));
        assert_eq!(Tensor::<2>::one(row).to_data(), TensorData::from([[3.0_f32, 4.0]]));
        let number = Tensor::<1, Int>::from_ints([7], &device);
        assert_eq!(Tensor::<1, Int>::one(number.clone()).to_data(), number.to_data());
        assert_eq!(number.clone().into_row().unwrap().to_data(), number.to_data());
    }

    #[test]
    fn rows_of_other_shapes_are_not_joined() {
        let zeros = |shape| Tensor::<2>::zeros(shape, &Device::flex()).shape_key();
        assert_eq!(zeros([1, 3]), zeros([2, 3]));
        assert_ne!(zeros([1, 3]), zeros([1, 4]));
    }

    trait ShapeKey {
        fn shape_key(&self) -> Vec<u8>;
    }

    impl<T: Rows> ShapeKey for T {
        fn shape_key(&self) -> Vec<u8> {
            Rows::shape(self)
        }
    }

    #[test]
    fn results_and_tuples_are_divided() {
        let good: Result<Vec<u8>, String> = Ok(vec![1, 2]);
        assert_eq!(parts(good, &[1, 1]), [Ok(vec![1]), Ok(vec![2])]);
        let bad: Result<Vec<u8>, String> = Err("bad".to_owned());
        assert!(matches!(bad.clone().divide(&[1, 1]), Divided::Error(Err(_))));
        assert_eq!(bad.into_row(), Some(Err("bad".to_owned())));
        assert_eq!(parts((vec![1, 2], vec!["a", "b"]), &[1, 1]), [(vec![1], vec!["a"]), (vec![2], vec!["b"])]);
        assert!(matches!((vec![1, 2], vec!["a"]).divide(&[1, 1]), Divided::WrongNumber(1)));
        assert_eq!((vec![1], vec!["a"]).into_row(), Some((1, "a")));
    }
}
