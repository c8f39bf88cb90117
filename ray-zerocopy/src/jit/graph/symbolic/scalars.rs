//! Access to the numbers in an operation, in serde's visiting order.
//!
//! burn's operations have dozens of types, and serde supports all of them: an operation is
//! serialised into a tree of plain values, whose numbers can be read, compared and replaced, and
//! deserialised again.

use burn_ir::OperationIr;
use ciborium::Value;

/// A number in an operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar {
    Whole(i64),
    /// Compared by bits, so that NaN equals itself.
    Real(f64),
}

impl Scalar {
    /// Returns the value if it is an integer.
    pub(crate) fn whole(self) -> Option<i64> {
        match self {
            Self::Whole(number) => Some(number),
            // Beyond this bound, `f64` cannot represent all integers.
            Self::Real(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(number as i64),
            Self::Real(_) => None,
        }
    }

    pub(crate) fn same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Whole(own), Self::Whole(other)) => own == other,
            (Self::Real(own), Self::Real(other)) => own.to_bits() == other.to_bits(),
            _ => false,
        }
    }
}

fn tree(operation: &OperationIr) -> Result<Value, String> {
    Value::serialized(operation).map_err(|error| error.to_string())
}

/// Visits every number in a tree.
fn visit(value: &mut Value, on: &mut dyn FnMut(&mut Value) -> Result<(), String>) -> Result<(), String> {
    match value {
        Value::Integer(_) | Value::Float(_) => on(value),
        Value::Array(values) => values.iter_mut().try_for_each(|value| visit(value, on)),
        Value::Map(entries) => entries.iter_mut().try_for_each(|(_, value)| visit(value, on)),
        Value::Tag(_, value) => visit(value, on),
        _ => Ok(()),
    }
}

fn number(value: &Value) -> Result<Scalar, String> {
    match value {
        Value::Float(number) => Ok(Scalar::Real(*number)),
        Value::Integer(number) => {
            // Larger values are `usize::MAX`, which denotes an open end.
            let whole = i128::from(*number);
            Ok(Scalar::Whole(i64::try_from(whole).unwrap_or(i64::MAX)))
        }
        other => Err(format!("{other:?} is not a number")),
    }
}

/// Returns the numbers in an operation.
///
/// # Errors
/// If serde cannot serialise it.
pub(crate) fn numbers(operation: &OperationIr) -> Result<Vec<Scalar>, String> {
    let mut found = Vec::new();
    visit(&mut tree(operation)?, &mut |value| {
        found.push(number(value)?);
        Ok(())
    })?;
    Ok(found)
}

/// Returns the operation with its numbers blanked: equal for operations that differ only in
/// numbers.
///
/// # Errors
/// If serde cannot serialise it.
pub(crate) fn skeleton(operation: &OperationIr) -> Result<Value, String> {
    let mut tree = tree(operation)?;
    visit(&mut tree, &mut |value| {
        *value = Value::Null;
        Ok(())
    })?;
    Ok(tree)
}

/// Replaces the numbers at some indexes, which are in ascending order.
///
/// # Errors
/// If there is no number at an index, or a number is invalid there.
pub(crate) fn with_numbers(operation: &OperationIr, others: &[(u32, i64)]) -> Result<OperationIr, String> {
    let mut tree = tree(operation)?;
    let (mut at, mut rest) = (0, others);
    visit(&mut tree, &mut |value| {
        if let [(place, other), after @ ..] = rest
            && *place == at
        {
            *value = match value {
                Value::Float(_) => Value::Float(*other as f64),
                _ => Value::Integer((*other).into()),
            };
            rest = after;
        }
        at += 1;
        Ok(())
    })?;
    match rest {
        [] => tree.deserialized().map_err(|error| error.to_string()),
        [(place, _), ..] => Err(format!("it has {at} numbers, and number {place} is to be replaced")),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Shape, TensorId};
    use burn_ir::{BaseOperationIr, NumericOperationIr, OperationIr, ScalarIr, ScalarOpIr, ShapeOpIr, TensorIr};

    use super::Scalar;
    use super::numbers;
    use super::skeleton;
    use super::with_numbers;

    fn tensor(id: u64, shape: [usize; 2]) -> TensorIr {
        TensorIr::uninit(TensorId::new(id), Shape::new(shape), DType::F32)
    }

    fn reshape(to: [usize; 2]) -> OperationIr {
        let (input, out) = (tensor(1, [6, 4]), tensor(2, to));
        OperationIr::BaseFloat(BaseOperationIr::Reshape(ShapeOpIr { input, out }))
    }

    #[test]
    fn numbers_are_found_and_replaced() {
        let operation = reshape([3, 8]);
        let found = numbers(&operation).unwrap();
        let places: Vec<_> = (0..found.len()).filter(|&at| found[at] == Scalar::Whole(3)).collect();
        let &[three] = &places[..] else { panic!("{found:?}") };
        let other = with_numbers(&operation, &[(three as u32, 12), (three as u32 + 1, 2)]).unwrap();
        assert_eq!(other, reshape([12, 2]));
        assert_eq!(skeleton(&operation).unwrap(), skeleton(&other).unwrap());
        let error = with_numbers(&operation, &[(99, 1)]).unwrap_err();
        assert!(error.ends_with("and number 99 is to be replaced"), "{error}");
        let error = with_numbers(&operation, &[(three as u32, -1)]).unwrap_err();
        assert!(!error.is_empty(), "an extent is not negative");
    }

    #[test]
    fn non_integer_scalars_are_kept() {
        for number in [f64::NEG_INFINITY, f64::NAN, -0.0, 0.1] {
            let (lhs, out) = (tensor(1, [2, 2]), tensor(2, [2, 2]));
            let operation = NumericOperationIr::AddScalar(ScalarOpIr { lhs, rhs: ScalarIr::Float(number), out });
            let operation = OperationIr::NumericFloat(DType::F32, operation);
            let found = numbers(&operation).unwrap();
            assert!(found.iter().any(|found| found.same(Scalar::Real(number))), "{found:?}");
            let again = with_numbers(&operation, &[]).unwrap();
            assert!(numbers(&again).unwrap().iter().zip(&found).all(|(own, other)| own.same(*other)));
        }
    }
}
