//! A polynomial in the symbols.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The sum of its terms: linear in each symbol, so at most one term for each set of symbols.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct SymExpr(pub Vec<SymTerm>);

/// A product of symbols, which are named by their numbers, each once; and of a factor. No symbol: the factor itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct SymTerm {
    pub factor: i64,
    pub symbols: Vec<u8>,
}

impl SymExpr {
    /// A number.
    pub(crate) fn number(value: i64) -> Self {
        Self(vec![SymTerm { factor: value, symbols: Vec::new() }])
    }

    /// A symbol by itself.
    pub(crate) fn symbol(symbol: u8) -> Self {
        Self(vec![SymTerm { factor: 1, symbols: vec![symbol] }])
    }

    /// Its value; none if it is no number of this machine, or names a symbol that there is not.
    pub(crate) fn at(&self, sizes: &[usize]) -> Option<i64> {
        self.0.iter().try_fold(0_i64, |sum, SymTerm { factor, symbols }| {
            let product = symbols.iter().try_fold(*factor, |product, &symbol| {
                product.checked_mul(i64::try_from(*sizes.get(usize::from(symbol))?).ok()?)
            });
            sum.checked_add(product?)
        })
    }

    /// The number that it is, if no symbol is in it.
    pub(crate) fn fixed(&self) -> Option<i64> {
        self.0.iter().all(|term| term.symbols.is_empty()).then(|| self.at(&[])).flatten()
    }

    /// The symbol that it is, if it is one by itself.
    pub(crate) fn alone(&self) -> Option<usize> {
        match &self.0[..] {
            [SymTerm { factor: 1, symbols }] => match symbols[..] {
                [symbol] => Some(symbol.into()),
                _ => None,
            },
            _ => None,
        }
    }

    /// With the names of the symbols, as in `4·batch·length + 2`.
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
        let form = SymExpr(vec![
            SymTerm { factor: 4, symbols: vec![0, 1] },
            SymTerm { factor: 1, symbols: vec![1] },
            SymTerm { factor: -2, symbols: vec![] },
        ]);
        assert_eq!(form.at(&[3, 5]), Some(63));
        assert_eq!(form.at(&[3]), None, "there is no such symbol");
        assert_eq!(form.at(&[usize::MAX, 5]), None, "it is too large");
        assert_eq!(form.named(&["batch", "length"]).to_string(), "4·batch·length + length + -2");
        assert_eq!((SymExpr::number(7).fixed(), SymExpr::symbol(0).fixed(), form.fixed()), (Some(7), None, None));
        assert_eq!((SymExpr::symbol(1).alone(), SymExpr::number(1).alone(), form.alone()), (Some(1), None, None));
    }
}
