//! Fused operations: those of compiled graphs, which the kernels of this crate run.
//!
//! In a graph they are custom operations of burn's representation. The id says what is computed.

use burn::tensor::{DType, Shape};
use burn_ir::{CustomOpIr, OperationIr, TensorIr};
use ray_zerocopy_kernels::{Activation, PANEL};

use super::weight_format::WeightFormat;

/// The start of the ids.
const PREFIX: &str = "rzc";

/// A fused operation. The comments name its operands, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fused {
    /// `activation(x · weight + bias) + residual`: x, the tensors of the packed weight, the bias, the residual.
    Linear { columns: usize, format: WeightFormat, activation: Option<Activation>, has_bias: bool, has_residual: bool },
    /// A layer norm of the last dimension: x, gamma, beta. The scalar is epsilon.
    LayerNorm { has_beta: bool },
    /// Attention: q, k and v with the dimensions batch, rows, heads, width, and a mask. The scalars are the scale, and
    /// the score of what is left out.
    Attention { has_mask: bool },
}

/// The activations by their names.
const ACTIVATIONS: [Activation; 5] =
    [Activation::Relu, Activation::Gelu, Activation::Silu, Activation::Sigmoid, Activation::Tanh];

impl Fused {
    /// The id of the operation in a graph.
    pub(crate) fn id(self) -> String {
        let flag = |set: bool, name: &'static str| if set { name } else { "" };
        match self {
            Self::Linear { columns, format, activation, has_bias, has_residual } => format!(
                "{PREFIX}:linear:{columns}:{}:{}:{}{}{}",
                activation.map_or("", Activation::name),
                flag(has_bias, "bias"),
                flag(has_residual, "residual"),
                if format == WeightFormat::F32 { "" } else { ":" },
                format.id(),
            ),
            Self::LayerNorm { has_beta } => format!("{PREFIX}:layer_norm:{}", flag(has_beta, "beta")),
            Self::Attention { has_mask } => format!("{PREFIX}:attention:{}", flag(has_mask, "mask")),
        }
    }

    /// Reads an id. Returns `None` if it is not that of a fused operation.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        let flag = |text: &str, name: &str| match text {
            "" => Some(false),
            text => (text == name).then_some(true),
        };
        let parts: Vec<&str> = id.split(':').collect();
        match parts[..] {
            [PREFIX, "linear", columns, activation, bias, residual, ref format @ ..] => {
                let format = match format {
                    [] => WeightFormat::F32,
                    [format] => WeightFormat::parse(format).filter(|format| *format != WeightFormat::F32)?,
                    _ => return None,
                };
                let known = || ACTIVATIONS.into_iter().find(|known| known.name() == activation);
                Some(Self::Linear {
                    columns: columns.parse().ok().filter(|columns| *columns > 0)?,
                    format,
                    activation: if activation.is_empty() { None } else { Some(known()?) },
                    has_bias: flag(bias, "bias")?,
                    has_residual: flag(residual, "residual")?,
                })
            }
            [PREFIX, "layer_norm", beta] => Some(Self::LayerNorm { has_beta: flag(beta, "beta")? }),
            [PREFIX, "attention", mask] => Some(Self::Attention { has_mask: flag(mask, "mask")? }),
            _ => None,
        }
    }

    /// Returns the fused operation if it is one.
    pub(crate) fn of(operation: &OperationIr) -> Option<(Self, &CustomOpIr)> {
        match operation {
            OperationIr::Custom(operation) => Some((Self::parse(&operation.id)?, operation)),
            _ => None,
        }
    }

    /// What it computes, for display: `Linear + gelu + residual`.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Linear { format, activation, has_residual, .. } => {
                let activation = activation.map(|activation| format!(" + {}", activation.name())).unwrap_or_default();
                let format = if format == WeightFormat::F32 { String::new() } else { format!(" {format}") };
                format!("Linear{format}{activation}{}", if has_residual { " + residual" } else { "" })
            }
            Self::LayerNorm { .. } => "LayerNorm".to_owned(),
            Self::Attention { .. } => "Attention".to_owned(),
        }
    }

    /// Checks operands and results at the traced sizes.
    ///
    /// # Errors
    /// Says what does not fit.
    pub(crate) fn check(self, operation: &CustomOpIr) -> Result<(), String> {
        let [out] = &operation.outputs[..] else { return Err("it does not have one result".to_owned()) };
        let inputs = &operation.inputs[..];
        let (operands, scalars) = match self {
            Self::Linear { format, has_bias, has_residual, .. } => {
                (1 + format.operands() + usize::from(has_bias) + usize::from(has_residual), 0)
            }
            Self::LayerNorm { has_beta } => (2 + usize::from(has_beta), 1),
            Self::Attention { has_mask } => (3 + usize::from(has_mask), 2),
        };
        if inputs.len() != operands || operation.scalars.len() != scalars {
            let found = (inputs.len(), operation.scalars.len());
            return Err(format!("it has {found:?} operands and scalars, and {:?} are expected", (operands, scalars)));
        }
        let is_mask = |at: usize| at == 3 && matches!(self, Self::Attention { .. });
        // The types of packed weights are checked with their shapes.
        let is_weight = |at: usize| match self {
            Self::Linear { format, .. } => (1..=format.operands()).contains(&at),
            _ => false,
        };
        let fits = |(at, input): (usize, &TensorIr)| {
            is_weight(at) || if is_mask(at) { input.dtype.is_bool() } else { is_f32(input) }
        };
        if !is_f32(out) || !inputs.iter().enumerate().all(fits) {
            return Err("an operand has another type".to_owned());
        }
        let is = match self {
            Self::Linear { columns, format, has_bias, .. } => linear_fits(inputs, out, columns, format, has_bias),
            Self::LayerNorm { .. } => {
                let width = inputs[0].shape.iter().next_back();
                let fits = |part: &TensorIr| part.shape.num_dims() == 1 && part.shape.iter().next_back() == width;
                width.is_some() && inputs[1..].iter().all(fits) && inputs[0].shape == out.shape
            }
            Self::Attention { .. } => attention_fits(inputs, out),
        };
        if is { Ok(()) } else { Err("the shapes of its operands do not fit".to_owned()) }
    }
}

fn is_f32(tensor: &TensorIr) -> bool {
    tensor.dtype == DType::F32
}

/// All extents but the last one.
fn lead(shape: &Shape) -> Option<(Vec<usize>, usize)> {
    let mut extents: Vec<usize> = shape.iter().copied().collect();
    let last = extents.pop()?;
    Some((extents, last))
}

fn linear_fits(inputs: &[TensorIr], out: &TensorIr, columns: usize, format: WeightFormat, has_bias: bool) -> bool {
    if columns.checked_add(PANEL).is_none() {
        return false;
    }
    let (Some((rows, k)), Some((out_rows, n))) = (lead(&inputs[0].shape), lead(&out.shape)) else { return false };
    let (weights, others) = inputs[1..].split_at(format.operands());
    let packed = format
        .parts(k, columns)
        .iter()
        .zip(weights)
        .all(|(part, weight)| weight.dtype == part.dtype && weight.shape.iter().eq(&part.shape));
    let bias = !has_bias || others[0].shape.iter().copied().eq([columns]);
    let residual = others.get(usize::from(has_bias)).is_none_or(|residual| residual.shape == out.shape);
    rows == out_rows && n == columns && packed && bias && residual
}

fn attention_fits(inputs: &[TensorIr], out: &TensorIr) -> bool {
    let extents = |tensor: &TensorIr| <[usize; 4]>::try_from(tensor.shape.iter().copied().collect::<Vec<_>>()).ok();
    let (Some(q), Some(k), Some(v), Some(y)) =
        (extents(&inputs[0]), extents(&inputs[1]), extents(&inputs[2]), extents(out))
    else {
        return false;
    };
    let [batch, rows, heads, width] = q;
    let keys = k[1];
    let mask = inputs.get(3).is_none_or(|mask| {
        let wanted = [batch, heads, rows, keys];
        extents(mask).is_some_and(|found| found.iter().zip(wanted).all(|(found, wanted)| [1, wanted].contains(found)))
    });
    mask && k == [batch, keys, heads, width] && v == [batch, keys, heads, v[3]] && y == [batch, rows, heads, v[3]]
}

#[cfg(test)]
mod tests {
    use ray_zerocopy_kernels::Activation;

    use super::{ACTIVATIONS, Fused, WeightFormat};

    #[test]
    fn ids_are_read_as_they_are_written() {
        let of = |format, activation, has_bias, has_residual| Fused::Linear {
            columns: 384,
            format,
            activation,
            has_bias,
            has_residual,
        };
        let linear = |activation, has_bias, has_residual| of(WeightFormat::F32, activation, has_bias, has_residual);
        let mut all = vec![linear(None, false, false), linear(None, true, true)];
        all.extend(ACTIVATIONS.map(|activation| linear(Some(activation), true, false)));
        all.extend([true, false].map(|has_beta| Fused::LayerNorm { has_beta }));
        all.extend([true, false].map(|has_mask| Fused::Attention { has_mask }));
        for block in [WeightFormat::WHOLE, 64] {
            let format = WeightFormat::Int8 { block };
            all.extend([of(format, None, false, true), of(format, Some(Activation::Gelu), true, false)]);
        }
        for fused in all {
            assert_eq!(Fused::parse(&fused.id()), Some(fused), "{}", fused.id());
        }
        for other in [
            "",
            "rzc",
            "rzc:linear",
            "rzc:linear:0:::",
            "rzc:linear:-1:::",
            "rzc:linear:4:swish::",
            "rzc:linear:4::::",
            "rzc:linear:4::::int9",
            "rzc:linear:4::::int8/3",
            "rzc:linear:4::::int8:int8",
            "x:attention:",
        ] {
            assert_eq!(Fused::parse(other), None, "{other}");
        }
    }
}
