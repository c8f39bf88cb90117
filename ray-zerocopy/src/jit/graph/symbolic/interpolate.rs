//! From the same number at several sizes to its form.
//!
//! With each symbol at one of two sizes, `n` symbols have 2ⁿ corners, and a polynomial that is linear in each symbol has as many
//! coefficients: it is found exactly, or there is none with whole factors.

use super::expr::{SymExpr, SymTerm};

/// The sizes at which a graph is recorded.
#[derive(Debug, Clone)]
pub(crate) struct SampleGrid {
    low: Vec<usize>,
    high: Vec<usize>,
}

impl SampleGrid {
    /// `low` and `high` have two different sizes for each symbol.
    pub(crate) fn new(low: Vec<usize>, high: Vec<usize>) -> Self {
        debug_assert!(low.len() == high.len() && low.iter().zip(&high).all(|(low, high)| low < high));
        Self { low, high }
    }

    /// The sizes at each corner: bit `i` of its number says whether symbol `i` is at its high size.
    pub(crate) fn all(&self) -> Vec<Vec<usize>> {
        let sizes = |corner: usize| {
            let pairs = self.low.iter().zip(&self.high).enumerate();
            pairs.map(|(symbol, (&low, &high))| if corner >> symbol & 1 == 1 { high } else { low }).collect()
        };
        (0..1 << self.low.len()).map(sizes).collect()
    }
}

/// The form that has these values at the corners.
pub(crate) fn fit(corners: &SampleGrid, values: &[i64]) -> Option<SymExpr> {
    let count = corners.low.len();
    if values.len() != 1 << count {
        return None;
    }
    // The polynomial in one symbol through two points, for each symbol in turn: afterwards the value at corner `s` is the factor
    // of the product of the symbols in the set `s`.
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
    use super::fit;

    fn corners() -> SampleGrid {
        SampleGrid::new(vec![2, 3, 5], vec![7, 8, 9])
    }

    #[test]
    fn a_number_that_is_always_the_same_is_that_number() {
        let form = fit(&corners(), &[12; 8]).unwrap();
        assert_eq!(form.fixed(), Some(12));
        assert_eq!(fit(&SampleGrid::new(vec![], vec![]), &[3]).unwrap().fixed(), Some(3));
    }

    #[test]
    fn what_is_no_such_polynomial_has_no_form() {
        let corners = SampleGrid::new(vec![2], vec![5]);
        assert_eq!(fit(&corners, &[1, 2]), None, "a third of the size");
        assert_eq!(fit(&corners, &[1, 2, 3]), None, "too many values");
    }

    proptest! {
        #[test]
        fn every_polynomial_is_found(factors in prop::collection::vec(-9_i64..9, 8), at in prop::collection::vec(1_usize..99, 3)) {
            let value = |sizes: &[usize]| (0..8).map(|set| {
                let symbols = (0..3).filter(|symbol| set >> symbol & 1 == 1);
                symbols.map(|symbol| sizes[symbol] as i64).product::<i64>() * factors[set]
            }).sum::<i64>();
            let values: Vec<_> = corners().all().iter().map(|sizes| value(sizes)).collect();
            let form = fit(&corners(), &values).unwrap();
            prop_assert_eq!(form.at(&at), Some(value(&at)));
        }
    }
}
