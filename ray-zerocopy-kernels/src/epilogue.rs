//! What follows a matrix product: bias, activation and residual, applied to a part of the result while it is in
//! the cache.

use serde::{Deserialize, Serialize};

use super::math::{erf, exp, tanh};

/// A function of single elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `x / 2 · (1 + erf(x / √2))`.
    Gelu,
    /// `x · sigmoid(x)`.
    Silu,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
}

impl Activation {
    /// The name in a compiled graph.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Gelu => "gelu",
            Self::Silu => "silu",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
        }
    }
}

/// What follows a matrix product: `activation(product + bias) + residual`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// One element for each column.
    pub bias: Option<&'a [f32]>,
    /// Applied after the bias.
    pub activation: Option<Activation>,
    /// A matrix of the shape of the result.
    pub residual: Option<&'a [f32]>,
}

impl Epilogue<'_> {
    /// Returns `true` if it changes nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.bias.is_none() && self.activation.is_none() && self.residual.is_none()
    }

    /// Returns `true` if the lengths are those of a result of `m` rows and `n` columns.
    pub(crate) fn fits(&self, m: usize, n: usize) -> bool {
        self.bias.is_none_or(|bias| bias.len() == n)
            && self.residual.is_none_or(|residual| m.checked_mul(n) == Some(residual.len()))
    }

    /// Applies it to the columns from `column` on of a row of the result, which has `n` columns.
    #[inline(always)]
    pub(crate) fn apply(&self, elements: &mut [f32], row: usize, column: usize, n: usize) {
        let count = elements.len();
        if let Some(bias) = self.bias {
            for (element, bias) in elements.iter_mut().zip(&bias[column..column + count]) {
                *element += bias;
            }
        }
        if let Some(activation) = self.activation {
            activate(elements, activation);
        }
        if let Some(residual) = self.residual {
            let begin = row * n + column;
            for (element, residual) in elements.iter_mut().zip(&residual[begin..begin + count]) {
                *element += residual;
            }
        }
    }
}

/// Applies an activation to each element.
#[inline(always)]
pub(crate) fn activate(elements: &mut [f32], activation: Activation) {
    match activation {
        // Not `max`, which makes a number of NaN.
        Activation::Relu => each(elements, |x| if x < 0.0 { 0.0 } else { x }),
        Activation::Gelu => each(elements, |x| 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))),
        Activation::Silu => each(elements, |x| x / (1.0 + exp(-x))),
        Activation::Sigmoid => each(elements, |x| 1.0 / (1.0 + exp(-x))),
        Activation::Tanh => each(elements, tanh),
    }
}

#[inline(always)]
fn each(elements: &mut [f32], function: impl Fn(f32) -> f32) {
    elements.iter_mut().for_each(|element| *element = function(*element));
}
