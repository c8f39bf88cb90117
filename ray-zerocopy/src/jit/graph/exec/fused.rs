//! Runs fused operations with the kernels of this crate, on burn's CPU backend.

use std::borrow::Cow;

use burn::backend::Flex;
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, Element, Shape, bf16, f16};
use burn_ir::CustomOpIr;
use bytemuck::{Pod, cast_slice};
use ray_zerocopy_kernels::{
    ChannelEpilogue, Epilogue, Filters, Heads, Images, Isa, LayerNorm, Mask, Packed, PackedBf16, PackedI4, PackedI8,
    attention, convolution, layer_norm, linear, linear_bf16, linear_bf16_rounded, linear_i4, linear_i8, max_pool,
    softmax,
};

use super::executor::Slots;
use crate::jit::graph::fused::{Fused, Residual, max_pool_of, with_rows};
use crate::jit::graph::weight_format::WeightFormat;

/// Runs a fused operation.
///
/// # Panics
/// If an operand does not fit, which [`Fused::check`] excludes at the traced sizes.
pub(super) fn run(fused: Fused, operation: &CustomOpIr, slots: &mut Slots<Flex>) {
    let isa = Isa::best();
    let operands: Vec<_> = operation.inputs.iter().map(|input| slots_operand(slots, input)).collect();
    let out = &operation.outputs[0];
    let shape = out.shape.clone();
    let scalar = |at: usize| operation.scalars.get(at).map_or(0.0, |scalar| scalar.elem::<f32>());
    // All elements are written.
    let mut y = slots.buffers.take(shape.num_elements());
    match fused {
        Fused::Linear { columns, format, activation, has_bias, has_residual } => {
            let (weights, others) = operands[1..].split_at(format.operands());
            let bias = has_bias.then(|| widened(&others[0]));
            let residual = has_residual.then(|| widened(&others[usize::from(has_bias)]));
            let x = widened(&operands[0]);
            let k = operands[0].layout().shape().iter().next_back().copied().unwrap_or(0);
            let epilogue = Epilogue { bias: bias.as_deref(), activation, residual: residual.as_deref() };
            match format {
                WeightFormat::F32 => {
                    let panels = elements(&weights[0]);
                    let packed = Packed::new(&panels, k, columns).unwrap_or_else(|| wrong_size(k, columns));
                    linear(isa, &x, &packed, &epilogue, &mut y);
                }
                WeightFormat::Bf16 => {
                    let panels = elements::<bf16>(&weights[0]);
                    let packed =
                        PackedBf16::new(cast_slice(&panels), k, columns).unwrap_or_else(|| wrong_size(k, columns));
                    // bf16 is not rounded, and processors that multiply it may do so.
                    let product = if operands[0].dtype() == DType::BF16 { linear_bf16_rounded } else { linear_bf16 };
                    product(isa, &x, &packed, &epilogue, &mut y);
                }
                WeightFormat::Int4 => {
                    let (panels, scales) = (elements::<u8>(&weights[0]), elements::<bf16>(&weights[1]));
                    let packed = PackedI4::new(&panels, cast_slice(&scales), [k, columns])
                        .unwrap_or_else(|| wrong_size(k, columns));
                    linear_i4(isa, &x, &packed, &epilogue, &mut y);
                }
                WeightFormat::Int8 { block } => {
                    let (panels, scales, sums) =
                        (elements::<i8>(&weights[0]), elements(&weights[1]), elements::<i32>(&weights[2]));
                    let packed = PackedI8::new(&panels, &scales, &sums, [k, columns], block)
                        .unwrap_or_else(|| wrong_size(k, columns));
                    linear_i8(isa, &x, &packed, &epilogue, &mut y);
                }
            }
        }
        Fused::Embedding { .. } => {
            let (table, others) = (elements(&operands[0]), operands[2..].iter().map(elements));
            let numbers = match operands[1].dtype() {
                DType::I32 => elements::<i32>(&operands[1]).iter().map(|number| i64::from(*number)).collect(),
                _ => elements::<i64>(&operands[1]),
            };
            embedding(&table, &numbers, others, &mut y);
        }
        Fused::LayerNorm { has_beta } => {
            let (x, gamma) = (elements(&operands[0]), elements(&operands[1]));
            let beta = has_beta.then(|| elements(&operands[2]));
            let norm = LayerNorm { gamma: &gamma, beta: beta.as_deref(), epsilon: scalar(0) };
            layer_norm(isa, &x, &norm, &mut y);
        }
        Fused::Softmax => {
            y.copy_from_slice(&elements(&operands[0]));
            softmax(isa, &mut y, shape.iter().next_back().copied().unwrap_or(1));
        }
        Fused::Attention { has_mask } => {
            let extents = |at: usize| operands[at].layout().shape().iter().copied().collect::<Vec<_>>();
            let all = [0, 1, 2].map(|at| elements(&operands[at]));
            let heads = |at: usize| Heads { elements: &all[at], rows: extents(at)[1], width: extents(at)[3] };
            let q = extents(0);
            let dimensions = [q[0], q[2], q[1], extents(1)[1]];
            let mask = has_mask.then(|| mask_of(&operands[3], dimensions, scalar(1)));
            attention(isa, [q[0], q[2]], &heads(0), &heads(1), &heads(2), mask.as_ref(), scalar(0), &mut y);
        }
        Fused::Convolution { options, activation, has_bias, residual } => {
            let dimensions = |at: usize| {
                let shape: &Shape = operands[at].layout().shape();
                with_rows(shape).unwrap_or_else(|| panic!("a convolution does not have operands of shape {shape:?}"))
            };
            let all: Vec<_> = operands.iter().map(elements).collect();
            let x = Images { elements: &all[0], dimensions: dimensions(0) };
            let filters = Filters { elements: &all[1], dimensions: dimensions(1) };
            let bias = has_bias.then(|| &*all[2]);
            let residual = residual.map(|when| (&*all[2 + usize::from(has_bias)], when == Residual::BeforeActivation));
            let epilogue = ChannelEpilogue { bias, activation, residual };
            convolution(isa, &x, &filters, &options, &epilogue, &mut y);
        }
        Fused::MaxPool { kernel, options } => {
            let from = operands[0].layout().shape();
            let pool = max_pool_of(from, &shape, kernel, &options)
                .unwrap_or_else(|| panic!("a max pooling of {from:?} does not have the size of {shape:?}"));
            max_pool(isa, &elements(&operands[0]), &pool, &mut y);
        }
    }
    for operand in operands {
        slots.buffers.give(memory_of(operand));
    }
    let bytes = match out.dtype {
        DType::BF16 => narrowed(slots, y, bf16::from_f32),
        DType::F16 => narrowed(slots, y, f16::from_f32),
        _ => Bytes::from_elems(y),
    };
    slots.put(out, burn_ir::HandleKind::Float(FlexTensor::new(bytes, Layout::contiguous(shape), out.dtype)));
}

/// Writes rows of a table, and adds the elements of each of the others, again and again.
fn embedding<'a>(table: &[f32], numbers: &[i64], others: impl Iterator<Item = Cow<'a, [f32]>>, y: &mut [f32]) {
    let width = y.len().checked_div(numbers.len()).unwrap_or(0);
    if width == 0 {
        return;
    }
    let rows = table.len() / width;
    for (number, y) in numbers.iter().zip(y.chunks_exact_mut(width)) {
        let row = usize::try_from(*number).ok().filter(|row| *row < rows);
        let row = row.unwrap_or_else(|| panic!("row {number} of a table of {rows} rows"));
        y.copy_from_slice(&table[row * width..(row + 1) * width]);
    }
    for other in others {
        for y in y.chunks_mut(other.len().max(1)) {
            y.iter_mut().zip(&*other).for_each(|(y, other)| *y += other);
        }
    }
}

/// The elements of a result in a type of 16 bits.
fn narrowed<T: Element + Pod>(slots: &mut Slots<Flex>, y: Vec<f32>, narrow: impl Fn(f32) -> T) -> Bytes {
    let narrowed = Bytes::from_elems(y.iter().map(|element| narrow(*element)).collect::<Vec<T>>());
    slots.buffers.give(y);
    narrowed
}

fn wrong_size(k: usize, columns: usize) -> ! {
    panic!("the packed weight does not have the size of {k} × {columns}")
}

fn slots_operand(slots: &mut Slots<Flex>, tensor: &burn_ir::TensorIr) -> FlexTensor {
    match slots.operand(tensor) {
        burn_ir::HandleKind::Float(tensor) | burn_ir::HandleKind::Int(tensor) | burn_ir::HandleKind::Bool(tensor) => {
            tensor
        }
        other => panic!("the operation reads another kind of tensor than {}", other.name()),
    }
}

/// The memory of an operand that nothing else reads any more. Empty if there is something.
fn memory_of(tensor: FlexTensor) -> Vec<f32> {
    let bytes = tensor.layout().num_elements() * size_of::<f32>();
    let is_whole = tensor.layout().is_contiguous() && tensor.layout().start_offset() == 0;
    if tensor.dtype() != DType::F32 || !is_whole || !tensor.is_unique() || tensor.bytes().len() != bytes {
        return Vec::new();
    }
    // Weights in the arena and messages are not memory of this process' allocator.
    tensor.into_data().into_parts().0.try_into_vec().unwrap_or_default()
}

/// The elements of a tensor in the order of its dimensions: a copy only if they are stored in another one.
fn elements<T: Element + Pod>(tensor: &FlexTensor) -> Cow<'_, [T]> {
    let (layout, count) = (tensor.layout(), tensor.layout().num_elements());
    if layout.is_contiguous() {
        let start = layout.start_offset();
        return Cow::Borrowed(&tensor.storage::<T>()[start..start + count]);
    }
    Cow::Owned(tensor.to_contiguous().storage::<T>()[..count].to_vec())
}

/// The elements of a tensor of floats, in 32 bits.
fn widened(tensor: &FlexTensor) -> Cow<'_, [f32]> {
    match tensor.dtype() {
        DType::BF16 => Cow::Owned(elements::<bf16>(tensor).iter().map(|element| element.to_f32()).collect()),
        DType::F16 => Cow::Owned(elements::<f16>(tensor).iter().map(|element| element.to_f32()).collect()),
        _ => elements(tensor),
    }
}

/// A mask of these dimensions, of which some may be 1.
fn mask_of(tensor: &FlexTensor, dimensions: [usize; 4], fill: f32) -> Mask<'_> {
    let layout = tensor.layout();
    let stride = |at: usize| {
        let is_wide = layout.shape().iter().nth(at).copied().unwrap_or(1) == dimensions[at];
        let stride = if is_wide { layout.strides()[at] } else { 0 };
        usize::try_from(stride).unwrap_or_else(|_| panic!("the mask is stored backwards"))
    };
    Mask { elements: tensor.bytes(), start: layout.start_offset(), strides: [0, 1, 2, 3].map(stride), fill }
}
