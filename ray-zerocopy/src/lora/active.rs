//! The adapter of one call.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use burn::module::{LoraAdapter, ParamId};
use burn::nn::Linear;
use burn::tensor::{Tensor, module};

use super::adapter::Adapter;

/// The adapter of one call, or none. Cheap to clone.
///
/// Pass it through the forward pass, and compute linear layers with [`linear`](Self::linear) in place of
/// their own `forward`.
#[derive(Clone, Default)]
pub struct ActiveAdapter(Option<Arc<Bound>>);

/// An adapter whose pairs are on a device, by the parameters that they change.
pub(super) struct Bound {
    pub(super) name: String,
    /// Boxed, since a table has empty places.
    pub(super) pairs: HashMap<ParamId, Box<Pair>>,
    /// Kept, so that this process hands the arena to others that open the same adapter.
    pub(super) adapter: Adapter,
}

/// The pair of a layer, without what burn keeps for training.
pub(super) struct Pair {
    a: Tensor<2>,
    b: Tensor<2>,
    scale: f64,
}

impl From<LoraAdapter> for Pair {
    fn from(adapter: LoraAdapter) -> Self {
        Self { a: adapter.a.into_value(), b: adapter.b.into_value(), scale: adapter.scale }
    }
}

impl ActiveAdapter {
    /// No adapter: layers compute as the base does.
    pub fn none() -> Self {
        Self(None)
    }

    pub(super) fn of(bound: Arc<Bound>) -> Self {
        Self(Some(bound))
    }

    /// The adapter itself. `None` for the base.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.0.as_ref().map(|bound| &bound.adapter)
    }

    /// The name of the adapter. `None` for the base.
    pub fn name(&self) -> Option<&str> {
        self.0.as_ref().map(|bound| bound.name.as_str())
    }

    /// Computes a linear layer: `x·W + bias + (x·a)·b·scale` if the adapter changes the layer, and
    /// `x·W + bias` otherwise, bit for bit as the base does.
    ///
    /// The layer is recognised by the id of its weight, wherever it is in the pipeline. `x` has the shape
    /// `[.., inputs]`, and the result `[.., outputs]`. No matrix of the size of the weight is made. The
    /// result differs from that of a merged weight `W + a·b·scale` by the rounding of the sums: for `f32`
    /// by about 10⁻⁶ of the largest sum.
    ///
    /// # Panics
    /// As [`Linear::forward`], if the last axis of `x` is not that of the layer.
    pub fn linear<const D: usize>(&self, layer: &Linear, x: Tensor<D>) -> Tensor<D> {
        let Some(pair) = self.0.as_ref().and_then(|bound| bound.pairs.get(&layer.weight.id)) else {
            return layer.forward(x);
        };
        // The result of the small product is scaled, which has the fewest elements.
        let small = module::linear(x.clone(), pair.a.clone(), None).mul_scalar(pair.scale);
        layer.forward(x) + module::linear(small, pair.b.clone(), None)
    }
}

impl fmt::Debug for ActiveAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ActiveAdapter").field(&self.name()).finish()
    }
}
