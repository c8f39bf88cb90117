//! Padded copies of images, in which the elements that a tap of the filter reads are contiguous.
//!
//! With a step of 2, the even and the odd elements of a row are two *phases*, and so are the rows. Each phase is a
//! plane. A tap reads one phase, at a fixed offset from the pixel of the result. The zeros left of a row are also those
//! right of the row before it.

use rayon::prelude::*;

use super::{Filters, Images, Options};
use crate::sys::{HALF, Run};

/// Elements behind the last plane, so that whole vectors can be read.
const TAIL: usize = 64;
/// Elements from which copying is divided among threads.
const PARALLEL: usize = 1 << 16;

/// One dimension of images, filters and results.
#[derive(Debug, Clone)]
struct Axis {
    size: usize,
    stride: usize,
    /// Zeros before the first element.
    before: usize,
    /// Number of pixels of the result.
    out: usize,
    /// Number of elements of a phase.
    pitch: usize,
    /// The phases that are read.
    phases: Vec<usize>,
    /// For each tap: its phase, as an index of `phases`, and its offset.
    taps: Vec<(usize, usize)>,
}

impl Axis {
    fn new(size: usize, kernel: usize, stride: usize, dilation: usize, before: usize, out: usize) -> Self {
        let needed = (out - 1) * stride + (kernel - 1) * dilation + 1;
        let used = size.min(needed.saturating_sub(before));
        // What is read behind the end is in the zeros before the next row.
        let length = (before + used).max(needed.saturating_sub(before)).max(out * stride - stride + 1);
        let mut phases: Vec<_> = (0..kernel).map(|tap| tap * dilation % stride).collect();
        phases.sort_unstable();
        phases.dedup();
        let tap = |tap: usize| {
            let phase = phases.iter().position(|phase| *phase == tap * dilation % stride);
            (phase.unwrap_or(0), tap * dilation / stride)
        };
        let taps = (0..kernel).map(tap).collect();
        Self { size, stride, before, out, pitch: length.div_ceil(stride), phases, taps }
    }

    /// Elements of a phase that are elements of the image: the first one's place in the phase, its place in the image,
    /// and their number.
    fn range(&self, phase: usize) -> (usize, usize, usize) {
        let first = self.before.saturating_sub(phase).div_ceil(self.stride);
        let source = first * self.stride + phase - self.before;
        let count = self.size.saturating_sub(source).div_ceil(self.stride);
        (first, source, count.min(self.pitch.saturating_sub(first)))
    }
}

/// Where the elements of a block of images are.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    rows: Axis,
    columns: Axis,
    /// Images of a block.
    pub(super) images: usize,
    /// Whether the images are read where they are.
    is_direct: bool,
    /// Offset of each tap of a filter.
    pub(super) taps: Vec<usize>,
}

impl Layout {
    /// Chooses the layout. The dimensions have been checked.
    pub(super) fn new(x: &Images<'_>, filters: &Filters<'_>, options: &Options, [height, width]: [usize; 2]) -> Self {
        let ([batch, _, h, w], [_, _, kh, kw]) = (x.dimensions, filters.dimensions);
        let axis = |at: usize, size, kernel, out| {
            Axis::new(size, kernel, options.stride[at], options.dilation[at], options.padding[at].0, out)
        };
        let (rows, columns) = (axis(0, h, kh, height), axis(1, w, kw, width));
        // Then the only phase of an image is the image.
        let is_direct = options.stride == [1, 1] && options.padding == [(0, 0); 2];
        let mut layout = Self { rows, columns, images: 1, is_direct, taps: Vec::new() };
        // Small images share vectors, if that makes fewer of them.
        let vectors = |layout: &Self| (layout.images * layout.pixels()).div_ceil(HALF);
        let all = Self { images: batch.min(1 + 512 / layout.plane().max(1)), is_direct: false, ..layout.clone() };
        if vectors(&all) < all.images * vectors(&layout) {
            layout = all;
        }
        let plane = layout.plane();
        let taps = layout.rows.taps.iter().flat_map(|row| layout.columns.taps.iter().map(move |column| (row, column)));
        let offset = |((row_phase, row), (column_phase, column)): (&(usize, usize), &(usize, usize))| {
            let phase = row_phase * layout.columns.phases.len() + column_phase;
            phase * plane + row * layout.columns.pitch + column
        };
        layout.taps = taps.map(offset).collect();
        layout
    }

    /// Distance between planes, which are one phase of all images of a block. Behind the last row are as many zeros as
    /// are read there: the next plane may begin with elements of the image.
    fn plane(&self) -> usize {
        let zeros = |axis: &Axis| axis.before.div_ceil(axis.stride);
        self.images * self.pitch() + zeros(&self.rows) * self.columns.pitch + zeros(&self.columns)
    }

    /// Distance between images.
    fn pitch(&self) -> usize {
        self.rows.pitch * self.columns.pitch
    }

    /// Distance between channels.
    pub(super) fn channel(&self) -> usize {
        self.rows.phases.len() * self.columns.phases.len() * self.plane()
    }

    /// Number of pixels of an image of the result.
    pub(super) fn pixels(&self) -> usize {
        self.rows.out * self.columns.out
    }

    /// The position of a pixel of a block of images.
    pub(super) fn place(&self, pixel: usize) -> usize {
        let (image, inside) = (pixel / self.pixels(), pixel % self.pixels());
        image * self.pitch() + inside / self.columns.out * self.columns.pitch + inside % self.columns.out
    }

    /// The positions of a range of pixels of a block of images.
    pub(super) fn runs(&self, pixels: std::ops::Range<usize>) -> Vec<Run> {
        // Without positions between them, all rows of an image are one run.
        let row = if self.columns.pitch == self.columns.out { self.pixels() } else { self.columns.out };
        let (mut runs, mut pixel) = (Vec::new(), pixels.start);
        while pixel < pixels.end {
            let end = ((pixel / row + 1) * row).min(pixels.end);
            runs.push(Run { place: self.place(pixel), at: pixel - pixels.start, count: end - pixel });
            pixel = end;
        }
        runs
    }

    /// Returns the elements of a block of images, by its number: in `scratch`, unless they are read where they are.
    pub(super) fn fill<'a>(&self, x: &'a Images<'a>, block: usize, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        let [_, channels, height, width] = x.dimensions;
        let image = channels * height * width;
        if self.is_direct {
            return &x.elements[block * image..(block + 1) * image];
        }
        let channel = self.channel();
        let tail = self.taps.iter().copied().max().unwrap_or(0) + TAIL;
        // The zeros between the elements are in the same places for all blocks.
        scratch.resize(channels * channel + tail, 0.0);
        let copy = |(at, planes): (usize, &mut [f32])| {
            for (number, plane) in planes.chunks_mut(self.plane()).enumerate() {
                for (image, plane) in plane.chunks_mut(self.pitch()).take(self.images).enumerate() {
                    let begin = ((block * self.images + image) * channels + at) * height * width;
                    self.copy(number, x.elements.get(begin..begin + height * width), plane);
                }
            }
        };
        let planes = &mut scratch[..channels * channel];
        if channels * channel < PARALLEL {
            for one in planes.chunks_mut(channel).enumerate() {
                copy(one);
            }
        } else {
            planes.par_chunks_mut(channel).enumerate().for_each(copy);
        }
        scratch
    }

    /// Copies one phase of one channel of an image. The last block may have fewer images.
    fn copy(&self, phase: usize, image: Option<&[f32]>, plane: &mut [f32]) {
        let (Some(image), Self { rows, columns, .. }) = (image, self) else { return };
        let phases = columns.phases.len();
        let (row_phase, column_phase) = (rows.phases[phase / phases], columns.phases[phase % phases]);
        let (first_row, source_row, row_count) = rows.range(row_phase);
        let (first_column, source_column, count) = columns.range(column_phase);
        for row in 0..row_count {
            let from = (source_row + row * rows.stride) * columns.size + source_column;
            let to = (first_row + row) * columns.pitch + first_column;
            let (target, stride) = (&mut plane[to..to + count], columns.stride);
            if count == 0 {
                continue;
            }
            let source = &image[from..from + (count - 1) * stride + 1];
            match stride {
                1 => target.copy_from_slice(source),
                // A constant, which the compiler knows.
                2 => target.iter_mut().zip(source.iter().step_by(2)).for_each(|(to, from)| *to = *from),
                _ => target.iter_mut().zip(source.iter().step_by(stride)).for_each(|(to, from)| *to = *from),
            }
        }
    }
}
