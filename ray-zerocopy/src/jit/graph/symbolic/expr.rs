//! Symbolic expressions: polynomials in the symbols.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A sum of terms, linear in each symbol: at most one term for each set of symbols.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct SymExpr(pub Vec<SymTerm>);

/// A product of a factor and symbols. Each symbol, identified by its index, occurs at most once.
/// Without symbols, the term is the factor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct SymTerm {
    pub factor: i64,
    pub symbols: Vec<u8>,
}

impl SymExpr {
    /// A constant.
    pub(crate) fn number(value: i64) -> Self {
        Self(vec![SymTerm { factor: value, symbols: Vec::new() }])
    }

    /// A single symbol.
    pub(crate) fn symbol(symbol: u8) -> Self {
        Self(vec![SymTerm { factor: 1, symbols: vec![symbol] }])
    }

    /// Evaluates the expression. Returns `None` on overflow or for an unknown symbol.
    pub(crate) fn at(&self, sizes: &[usize]) -> Option<i64> {
        self.0.iter().try_fold(0_i64, |sum, SymTerm { factor, symbols }| {
            let product = symbols.iter().try_fold(*factor, |product, &symbol| {
                product.checked_mul(i64::try_from(*sizes.get(usize::from(symbol))?).ok()?)
            });
            sum.checked_add(product?)
        })
    }

    /// Returns the value if the expression has no symbols.
    pub(crate) fn as_constant(&self) -> Option<i64> {
        self.0.iter().all(|term| term.symbols.is_empty()).then(|| self.at(&[])).flatten()
    }

    /// Returns the symbol if the expression is a single symbol.
    pub(crate) fn as_symbol(&self) -> Option<usize> {
        match &self.0[..] {
            [SymTerm { factor: 1, symbols }] => match symbols[..] {
                [symbol] => Some(symbol.into()),
                _ => None,
            },
            _ => None,
        }
    }

    /// Formats the expression with the names of the symbols, as in `4·batch·length + 2`.
    pub(crate) fn named<'a>(&'a self, names: &'a [&'a str]) -> impl fmt::Display + 'a {
        struct Named<'a>(&'a SymExpr, &'a [&'a str]);

        impl fmt::Display for Named<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.0.0.is_empty() {
                    return f.write_str("0");
                }
                for (at, SymTerm { factor, symbols }) in self.0.0.iter().enumerate() {
                    if at > 0 {
                        f.write_str(" + ")?;
                    }
                    if *factor != 1 || symbols.is_empty() {
                        write!(f, "{factor}")?;
                    }
                    for (position, &symbol) in symbols.iter().enumerate() {
                        if position > 0 || *factor != 1 {
                            f.write_str("·")?;
                        }
                        f.write_str(self.1.get(usize::from(symbol)).copied().unwrap_or("?"))?;
                    }
                }
                Ok(())
            }
        }

        Named(self, names)
    }
}

#[cfg(test)]
mod tests {
    use super::SymExpr;
    use super::SymTerm;

    #[test]
    fn forms_have_values_and_names() {
        let expr = SymExpr(vec![
            SymTerm { factor: 4, symbols: vec![0, 1] },
            SymTerm { factor: 1, symbols: vec![1] },
            SymTerm { factor: -2, symbols: vec![] },
        ]);
        assert_eq!(expr.at(&[3, 5]), Some(63));
        assert_eq!(expr.at(&[3]), None, "there is no such symbol");
        assert_eq!(expr.at(&[usize::MAX, 5]), None, "it is too large");
        assert_eq!(expr.named(&["batch", "length"]).to_string(), "4·batch·length + length + -2");
        assert_eq!(
            (SymExpr::number(7).as_constant(), SymExpr::symbol(0).as_constant(), expr.as_constant()),
            (Some(7), None, None)
        );
        assert_eq!(
            (SymExpr::symbol(1).as_symbol(), SymExpr::number(1).as_symbol(), expr.as_symbol()),
            (Some(1), None, None)
        );
    }
}
