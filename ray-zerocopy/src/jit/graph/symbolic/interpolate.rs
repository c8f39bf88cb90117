//! Polynomial interpolation: finds the expression of a number from its values at several sizes.
//!
//! With each symbol at one of two sizes, `n` symbols have 2ⁿ corners. A polynomial that is linear
//! in each symbol has as many coefficients, so it is determined exactly. The result is `None` if a
//! coefficient is not an integer.

use super::expr::{SymExpr, SymTerm};

/// The sizes at which a graph is recorded.
#[derive(Debug, Clone)]
pub(crate) struct SampleGrid {
    low: Vec<usize>,
    high: Vec<usize>,
}

impl SampleGrid {
    /// Creates a grid. `low` and `high` hold two different sizes for each symbol.
    pub(crate) fn new(low: Vec<usize>, high: Vec<usize>) -> Self {
        debug_assert!(low.len() == high.len() && low.iter().zip(&high).all(|(low, high)| low < high));
        Self { low, high }
    }

    /// Returns the sizes at each corner. Bit `i` of a corner's index selects the high size of
    /// symbol `i`.
    pub(crate) fn all(&self) -> Vec<Vec<usize>> {
        let sizes = |corner: usize| {
            let pairs = self.low.iter().zip(&self.high).enumerate();
            pairs.map(|(symbol, (&low, &high))| if corner >> symbol & 1 == 1 { high } else { low }).collect()
        };
        (0..1 << self.low.len()).map(sizes).collect()
    }
}

/// Finds the expression with these values at the corners.
pub(crate) fn interpolate(corners: &SampleGrid, values: &[i64]) -> Option<SymExpr> {
    let count = corners.low.len();
    if values.len() != 1 << count {
        return None;
    }
    // Interpolate linearly in each symbol in turn. Afterwards the value at corner `s` is the
    // coefficient of the product of the symbols in the set `s`.
    let mut factors: Vec<i128> = values.iter().map(|&value| value.into()).collect();
    for symbol in 0..count {
        let (low, high) = (corners.low[symbol] as i128, corners.high[symbol] as i128);
        for corner in (0..factors.len()).filter(|corner| corner >> symbol & 1 == 0) {
            let (at_low, at_high) = (factors[corner], factors[corner | 1 << symbol]);
            let rise = at_high - at_low;
            if rise % (high - low) != 0 {
                return None;
            }
            let slope = rise / (high - low);
            factors[corner] = at_low - slope * low;
            factors[corner | 1 << symbol] = slope;
        }
    }
    let mut terms = Vec::new();
    for (set, factor) in factors.into_iter().enumerate().rev().filter(|(_, factor)| *factor != 0) {
        let symbols = (0..count as u8).filter(|symbol| set >> symbol & 1 == 1).collect();
        terms.push(SymTerm { factor: i64::try_from(factor).ok()?, symbols });
    }
    if terms.is_empty() {
        return Some(SymExpr::number(0));
    }
    Some(SymExpr(terms))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::SampleGrid;
    use super::interpolate;

    fn corners() -> SampleGrid {
        SampleGrid::new(vec![2, 3, 5], vec![7, 8, 9])
    }

    #[test]
    fn constant_number_is_interpolated_as_constant() {
        let expr = interpolate(&corners(), &[12; 8]).unwrap();
        assert_eq!(expr.as_constant(), Some(12));
        assert_eq!(interpolate(&SampleGrid::new(vec![], vec![]), &[3]).unwrap().as_constant(), Some(3));
    }

    #[test]
    fn other_values_have_no_polynomial() {
        let corners = SampleGrid::new(vec![2], vec![5]);
        assert_eq!(interpolate(&corners, &[1, 2]), None, "a third of the size");
        assert_eq!(interpolate(&corners, &[1, 2, 3]), None, "too many values");
    }

    proptest! {
        #[test]
        fn every_polynomial_is_found(factors in prop::collection::vec(-9_i64..9, 8), at in prop::collection::vec(1_usize..99, 3)) {
            let value = |sizes: &[usize]| (0..8).map(|set| {
                let symbols = (0..3).filter(|symbol| set >> symbol & 1 == 1);
                symbols.map(|symbol| sizes[symbol] as i64).product::<i64>() * factors[set]
            }).sum::<i64>();
            let values: Vec<_> = corners().all().iter().map(|sizes| value(sizes)).collect();
            let expr = interpolate(&corners(), &values).unwrap();
            prop_assert_eq!(expr.at(&at), Some(value(&at)));
        }
    }
}
