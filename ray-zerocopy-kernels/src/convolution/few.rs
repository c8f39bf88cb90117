//! Convolutions with so few pixels that vectors of them would be mostly empty: vectors are along the filters.

use rayon::prelude::*;

use super::scratch::{Scratch, divided};
use super::{ChannelEpilogue, Filters, Images, Options};
use crate::isa::Isa;
use crate::sys::{dot_rows, finish_channels};

/// The most pixels of all images together.
const MOST: usize = 8;
/// Multiplications from which the channels are divided among threads.
const PARALLEL: usize = 1 << 20;

/// Computes the convolution if it has few pixels. Returns `false` if it has more. `size` is that of the result.
pub(super) fn convolve_few(
    isa: Isa,
    x: &Images<'_>,
    filters: &Filters<'_>,
    options: &Options,
    epilogue: &ChannelEpilogue<'_>,
    size: [usize; 2],
    y: &mut [f32],
) -> bool {
    let ([batch, ..], [out, of_group, kh, kw]) = (x.dimensions, filters.dimensions);
    let (pixels, depth, of_result) = (size[0] * size[1], of_group * kh * kw, out / options.groups.max(1));
    if batch * pixels > MOST || depth == 0 || (options.groups > 1 && of_result < 2) {
        return false;
    }
    let mut scratch = Scratch::take();
    let [columns] = divided(&mut scratch.panels.panels, [pixels * depth]);
    let threads = if out * depth * pixels < PARALLEL { 1 } else { rayon::current_num_threads() };
    let channels = of_result.div_ceil(threads);
    for (image, y) in y.chunks_mut(out * pixels).enumerate() {
        for (group, y) in y.chunks_mut(of_result * pixels).enumerate() {
            for (pixel, column) in columns.chunks_exact_mut(depth).enumerate() {
                let first = image * x.dimensions[1] + group * of_group;
                gather(x, first, [kh, kw], options, [pixel / size[1], pixel % size[1]], column);
            }
            let columns = &*columns;
            let one = |(at, y): (usize, &mut [f32])| {
                let (first, count) = (group * of_result + at * channels, y.len() / pixels);
                let filters = &filters.elements[first * depth..(first + count) * depth];
                dot_rows(isa, filters, depth, columns, depth, y);
                let begin = (image * out + first) * pixels;
                let bias = epilogue.bias.map(|bias| &bias[first..first + count]);
                let residual = epilogue.residual.map(|(all, is_first)| (&all[begin..begin + y.len()], is_first));
                finish_channels(isa, bias, epilogue.activation, residual, y);
            };
            if threads == 1 {
                one((0, y));
            } else {
                y.par_chunks_mut(channels * pixels).enumerate().for_each(one);
            }
        }
    }
    true
}

/// Copies what a filter reads for one pixel. `plane` is the first channel of the image.
fn gather(
    x: &Images<'_>,
    plane: usize,
    [kh, kw]: [usize; 2],
    options: &Options,
    [row, column]: [usize; 2],
    to: &mut [f32],
) {
    let ([_, _, height, width], Options { stride, padding, dilation, .. }) = (x.dimensions, *options);
    // The elements of a row that are inside of the image: the first one's number, and their number.
    let left = padding[1].0;
    let begin = column * stride[1];
    let skipped = left.saturating_sub(begin).div_ceil(dilation[1]).min(kw);
    let first = (begin + skipped * dilation[1]).saturating_sub(left);
    let inside = width.saturating_sub(first).div_ceil(dilation[1]).min(kw - skipped);
    for (at, to) in to.chunks_exact_mut(kw).enumerate() {
        to.fill(0.0);
        let place = (row * stride[0] + at % kh * dilation[0]).checked_sub(padding[0].0);
        let Some(place) = place.filter(|place| *place < height && inside > 0) else { continue };
        let source = &x.elements[((plane + at / kh) * height + place) * width + first..];
        let to = &mut to[skipped..skipped + inside];
        if dilation[1] == 1 {
            to.copy_from_slice(&source[..inside]);
        } else {
            to.iter_mut().zip(source.iter().step_by(dilation[1])).for_each(|(to, from)| *to = *from);
        }
    }
}
