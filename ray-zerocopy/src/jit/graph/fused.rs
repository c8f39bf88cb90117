//! Fused operations: those of compiled graphs, which the kernels of this crate run.
//!
//! In a graph they are custom operations of burn's representation. The id says what is computed.

use burn::tensor::{DType, Shape};
use burn_ir::{CustomOpIr, OperationIr, TensorIr};
use ray_zerocopy_kernels::{Activation, ConvolutionOptions, MaxPool, PANEL};

use super::weight_format::{WeightFormat, is_float};

/// The start of the ids.
const PREFIX: &str = "rzc";

/// A fused operation. The comments name its operands, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fused {
    /// `activation(x · weight + bias) + residual`: x, the tensors of the packed weight, the bias, the residual.
    Linear { columns: usize, format: WeightFormat, activation: Option<Activation>, has_bias: bool, has_residual: bool },
    /// The rows of a table, with other tensors added: the table, the numbers of rows, and the other tensors. Each of
    /// them is the same for all leading dimensions that it does not have.
    Embedding { others: usize },
    /// A layer norm of the last dimension: x, gamma, beta. The scalar is epsilon.
    LayerNorm { has_beta: bool },
    /// Softmax over the last dimension: x.
    Softmax,
    /// Attention: q, k and v with the dimensions batch, rows, heads, width, and a mask. The scalars are the scale, and
    /// the score of what is left out.
    Attention { has_mask: bool },
    /// A convolution of one or two dimensions, with an activation, and a residual before or after it: x, the weight,
    /// the bias, the residual.
    Convolution {
        options: ConvolutionOptions,
        activation: Option<Activation>,
        has_bias: bool,
        residual: Option<Residual>,
    },
    /// The largest elements of windows of this size. The padding after the elements, and the groups, do not count.
    MaxPool { kernel: [usize; 2], options: ConvolutionOptions },
}

/// When a residual is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Residual {
    BeforeActivation,
    AfterActivation,
}

impl Residual {
    fn name(self) -> &'static str {
        match self {
            Self::BeforeActivation => "before",
            Self::AfterActivation => "after",
        }
    }
}

/// The most tensors that are added to an embedding by one operation.
pub(crate) const MOST_SUMMANDS: usize = 4;

/// The largest number among the options of a convolution. More would ask for memory that no machine has.
const MOST_OPTION: usize = 1 << 16;

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
            Self::Embedding { others } => format!("{PREFIX}:embedding:{others}"),
            Self::LayerNorm { has_beta } => format!("{PREFIX}:layer_norm:{}", flag(has_beta, "beta")),
            Self::Softmax => format!("{PREFIX}:softmax"),
            Self::Attention { has_mask } => format!("{PREFIX}:attention:{}", flag(has_mask, "mask")),
            Self::Convolution { options, activation, has_bias, residual } => format!(
                "{PREFIX}:convolution:{}:{}:{}:{}",
                numbers_of(&options),
                activation.map_or("", Activation::name),
                flag(has_bias, "bias"),
                residual.map_or("", Residual::name)
            ),
            Self::MaxPool { kernel: [rows, columns], options } => {
                format!("{PREFIX}:max_pool:{rows},{columns}:{}", numbers_of(&options))
            }
        }
    }

    /// Reads an id. Returns `None` if it is not that of a fused operation.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        let flag = |text: &str, name: &str| match text {
            "" => Some(false),
            text => (text == name).then_some(true),
        };
        let parts: Vec<&str> = id.split(':').collect();
        let activation_of = |name: &str| match name {
            "" => Some(None),
            name => ACTIVATIONS.into_iter().find(|known| known.name() == name).map(Some),
        };
        match parts[..] {
            [PREFIX, "linear", columns, activation, bias, residual, ref format @ ..] => {
                let format = match format {
                    [] => WeightFormat::F32,
                    [format] => WeightFormat::parse(format).filter(|format| *format != WeightFormat::F32)?,
                    _ => return None,
                };
                Some(Self::Linear {
                    columns: columns.parse().ok().filter(|columns| *columns > 0)?,
                    format,
                    activation: activation_of(activation)?,
                    has_bias: flag(bias, "bias")?,
                    has_residual: flag(residual, "residual")?,
                })
            }
            [PREFIX, "layer_norm", beta] => Some(Self::LayerNorm { has_beta: flag(beta, "beta")? }),
            [PREFIX, "embedding", others] => {
                let others = others.parse().ok().filter(|others| (1..=MOST_SUMMANDS).contains(others));
                // Each operation has one id.
                others.map(|others| Self::Embedding { others }).filter(|fused| fused.id() == id)
            }
            [PREFIX, "softmax"] => Some(Self::Softmax),
            [PREFIX, "attention", mask] => Some(Self::Attention { has_mask: flag(mask, "mask")? }),
            [PREFIX, "convolution", options, activation, bias, residual] => Some(Self::Convolution {
                options: options_of(options)?,
                activation: activation_of(activation)?,
                has_bias: flag(bias, "bias")?,
                residual: match residual {
                    "" => None,
                    "before" => Some(Residual::BeforeActivation),
                    "after" => Some(Residual::AfterActivation),
                    _ => return None,
                },
            }),
            [PREFIX, "max_pool", kernel, options] => {
                let (rows, columns) = kernel.split_once(',')?;
                let kernel = [rows.parse().ok()?, columns.parse().ok()?];
                (!kernel.contains(&0)).then_some(Self::MaxPool { kernel, options: options_of(options)? })
            }
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
            Self::Embedding { others } => format!("Embedding{}", " + residual".repeat(others)),
            Self::LayerNorm { .. } => "LayerNorm".to_owned(),
            Self::Softmax => "Softmax".to_owned(),
            Self::Attention { .. } => "Attention".to_owned(),
            Self::MaxPool { .. } => "MaxPool".to_owned(),
            Self::Convolution { activation, residual, .. } => {
                let activation = activation.map(|activation| format!(" + {}", activation.name())).unwrap_or_default();
                match residual {
                    None => format!("Convolution{activation}"),
                    Some(Residual::BeforeActivation) => format!("Convolution + residual{activation}"),
                    Some(Residual::AfterActivation) => format!("Convolution{activation} + residual"),
                }
            }
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
            Self::Convolution { has_bias, residual, .. } => {
                (2 + usize::from(has_bias) + usize::from(residual.is_some()), 0)
            }
            Self::Embedding { others } => (2 + others, 0),
            Self::Softmax | Self::MaxPool { .. } => (1, 0),
        };
        if inputs.len() != operands || operation.scalars.len() != scalars {
            let found = (inputs.len(), operation.scalars.len());
            return Err(format!("it has {found:?} operands and scalars, and {:?} are expected", (operands, scalars)));
        }
        let is_mask = |at: usize| at == 3 && matches!(self, Self::Attention { .. });
        let is_index = |at: usize| at == 1 && matches!(self, Self::Embedding { .. });
        // The types of packed weights are checked with their shapes.
        let is_weight = |at: usize| match self {
            Self::Linear { format, .. } => (1..=format.operands()).contains(&at),
            _ => false,
        };
        // Linear layers compute bf16 and f16 in 32 bits, too.
        let is_linear = matches!(self, Self::Linear { .. });
        let dtype = if is_linear && is_float(out.dtype) { out.dtype } else { DType::F32 };
        let fits = |(at, input): (usize, &TensorIr)| match at {
            _ if is_mask(at) => input.dtype.is_bool(),
            _ if is_index(at) => matches!(input.dtype, DType::I64 | DType::I32),
            _ => is_weight(at) || input.dtype == dtype,
        };
        if out.dtype != dtype || !inputs.iter().enumerate().all(fits) {
            return Err("an operand has another type".to_owned());
        }
        let is = match self {
            Self::Linear { columns, format, has_bias, .. } => linear_fits(inputs, out, columns, format, has_bias),
            Self::LayerNorm { .. } => {
                let width = inputs[0].shape.iter().next_back();
                let fits = |part: &TensorIr| part.shape.num_dims() == 1 && part.shape.iter().next_back() == width;
                width.is_some() && inputs[1..].iter().all(fits) && inputs[0].shape == out.shape
            }
            Self::Embedding { .. } => embedding_fits(inputs, out),
            Self::Softmax => {
                inputs[0].shape == out.shape && out.shape.iter().next_back().is_some_and(|width| *width > 0)
            }
            Self::Attention { .. } => attention_fits(inputs, out),
            Self::Convolution { options, has_bias, .. } => convolution_fits(inputs, out, &options, has_bias),
            Self::MaxPool { kernel, options } => max_pool_of(&inputs[0].shape, &out.shape, kernel, &options).is_some(),
        };
        if is { Ok(()) } else { Err("the shapes of its operands do not fit".to_owned()) }
    }
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

fn embedding_fits(inputs: &[TensorIr], out: &TensorIr) -> bool {
    let Some((rows, width)) = lead(&out.shape) else { return false };
    let is_table = inputs[0].shape.num_dims() == 2 && inputs[0].shape.iter().next_back() == Some(&width);
    let all: Vec<usize> = out.shape.iter().copied().collect();
    let is_part = |other: &TensorIr| {
        let extents: Vec<usize> = other.shape.iter().copied().skip_while(|extent| *extent == 1).collect();
        other.shape.num_dims() <= all.len() && all.ends_with(&extents)
    };
    is_table && inputs[2..].iter().all(is_part) && inputs[1].shape.iter().eq(&rows)
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

/// The dimensions of images or filters: those of one dimension have one row.
pub(crate) fn with_rows(shape: &Shape) -> Option<[usize; 4]> {
    match shape.iter().copied().collect::<Vec<_>>()[..] {
        [first, second, columns] => Some([first, second, 1, columns]),
        [first, second, rows, columns] => Some([first, second, rows, columns]),
        _ => None,
    }
}

fn convolution_fits(inputs: &[TensorIr], out: &TensorIr, options: &ConvolutionOptions, has_bias: bool) -> bool {
    let (Some(x), Some(weight), Some(y)) =
        (with_rows(&inputs[0].shape), with_rows(&inputs[1].shape), with_rows(&out.shape))
    else {
        return false;
    };
    let ranks = [&inputs[1], out].map(|tensor| tensor.shape.num_dims());
    let bias = !has_bias || inputs[2].shape.iter().copied().eq([weight[0]]);
    let residual = inputs.get(2 + usize::from(has_bias)).is_none_or(|residual| residual.shape == out.shape);
    ranks == [inputs[0].shape.num_dims(); 2] && bias && residual && options.result(x, weight) == Some(y)
}

/// The max pooling of images to a result of this shape. `None` if they do not fit.
pub(crate) fn max_pool_of(x: &Shape, y: &Shape, kernel: [usize; 2], options: &ConvolutionOptions) -> Option<MaxPool> {
    let ([batch, channels, height, width], [y_batch, y_channels, rows, columns]) = (with_rows(x)?, with_rows(y)?);
    let size = [height, width];
    let result = [rows, columns];
    let ConvolutionOptions { stride, padding, dilation, .. } = *options;
    // The last window may be outside in part, so that there is one more than of a convolution.
    let fits = options
        .output(size, kernel)?
        .iter()
        .zip(result)
        .all(|(least, found)| (*least..=least.saturating_add(1)).contains(&found));
    let pool = MaxPool { size, kernel, stride, padding: [padding[0].0, padding[1].0], dilation, result };
    ([batch, channels] == [y_batch, y_channels] && fits).then_some(pool)
}

/// The numbers of the options of a convolution: strides, zeros, distances, groups.
fn numbers_of(options: &ConvolutionOptions) -> String {
    let ConvolutionOptions { stride, padding: [rows, columns], dilation, groups } = *options;
    let all = [stride[0], stride[1], rows.0, rows.1, columns.0, columns.1, dilation[0], dilation[1], groups];
    all.map(|number| number.to_string()).join(",")
}

fn options_of(numbers: &str) -> Option<ConvolutionOptions> {
    let numbers: Vec<usize> = numbers.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
    let &[rows, columns, above, below, left, right, down, across, groups] = &numbers[..] else { return None };
    let are_sound =
        ![rows, columns, down, across, groups].contains(&0) && numbers.iter().all(|number| *number <= MOST_OPTION);
    are_sound.then_some(ConvolutionOptions {
        stride: [rows, columns],
        padding: [(above, below), (left, right)],
        dilation: [down, across],
        groups,
    })
}

#[cfg(test)]
mod tests {
    use ray_zerocopy_kernels::{Activation, ConvolutionOptions};

    use super::{ACTIVATIONS, Fused, MOST_SUMMANDS, Residual, WeightFormat};

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
        all.push(Fused::Softmax);
        all.extend([1, MOST_SUMMANDS].map(|others| Fused::Embedding { others }));
        for block in [WeightFormat::WHOLE, 64] {
            let format = WeightFormat::Int8 { block };
            all.extend([of(format, None, false, true), of(format, Some(Activation::Gelu), true, false)]);
        }
        let options = ConvolutionOptions { stride: [1, 2], padding: [(3, 4), (5, 6)], dilation: [7, 8], groups: 9 };
        let residuals = [None, Some(Residual::BeforeActivation), Some(Residual::AfterActivation)];
        all.extend(residuals.map(|residual| Fused::Convolution {
            options,
            activation: residual.map(|_| ACTIVATIONS[0]),
            has_bias: residual.is_none(),
            residual,
        }));
        all.push(Fused::MaxPool { kernel: [10, 11], options });
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
            "rzc:embedding",
            "rzc:embedding:0",
            "rzc:embedding:5",
            "rzc:embedding:01",
            // A number less, a step of 0, an unknown place of the residual.
            "rzc:convolution:1,1,0,0,0,0,1,1:::",
            "rzc:convolution:1,0,0,0,0,0,1,1,1:::",
            "rzc:convolution:1,1,0,0,0,0,1,1,1:::first",
            "rzc:max_pool:0,2:1,1,0,0,0,0,1,1,1",
            "rzc:max_pool:1,1:1,1,18446744073709551612,0,0,0,1,1,1",
            "rzc:convolution:1,1,0,0,0,0,1,65537,1:::",
        ] {
            assert_eq!(Fused::parse(other), None, "{other}");
        }
    }
}
