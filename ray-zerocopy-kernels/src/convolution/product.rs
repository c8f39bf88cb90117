//! The product of filters and pixels.

use std::ops::Range;

use rayon::prelude::*;

use super::lanes::Lanes;
use super::planes::Layout;
use super::scratch::{Panels, Scratch, aligned, divided};
use super::{ChannelEpilogue, Filters, Images};
use crate::isa::Isa;
use crate::packed::PANEL;
use crate::sys::{Columns, HALF, MOST_ROWS, Strip, depthwise, finish_channel, gather};

/// Elements of the filters that are gathered at a time.
const DEPTH: usize = 256;
/// Bytes of gathered elements and sums of a part, which stay in the second level cache.
const CACHED: usize = 448 << 10;
/// The most pixels of a part.
const PIXELS: usize = 256;
/// Multiplications from which a convolution is divided among threads.
const PARALLEL: usize = 1 << 20;

/// A convolution.
pub(super) struct Product<'a> {
    isa: Isa,
    x: &'a Images<'a>,
    weight: &'a [f32],
    epilogue: &'a ChannelEpilogue<'a>,
    layout: Layout,
    /// Where the elements of the first filter read.
    offsets: Vec<usize>,
    /// Channels of the result.
    channels: usize,
    groups: usize,
    /// Elements of a filter.
    k: usize,
    /// Pixels of a channel of the result.
    pixels: usize,
    threads: usize,
}

/// A part of the result: some channels of a group, and some pixels of a block of images.
struct Part<'a> {
    group: usize,
    /// The first channel.
    channel: usize,
    pixels: Range<usize>,
    images: Vec<OfImage<'a>>,
}

/// A part of one image of the result.
struct OfImage<'a> {
    /// Its number in the block.
    number: usize,
    /// The first pixel.
    first: usize,
    /// A row for each channel.
    elements: Columns<'a>,
}

impl<'a> Product<'a> {
    pub(super) fn new(
        isa: Isa,
        x: &'a Images<'a>,
        filters: &Filters<'a>,
        groups: usize,
        epilogue: &'a ChannelEpilogue<'a>,
        layout: Layout,
        pixels: usize,
    ) -> Self {
        let [channels, of_group, rows, columns] = filters.dimensions;
        let k = of_group * rows * columns;
        let work = x.dimensions[0].saturating_mul(pixels).saturating_mul(channels).saturating_mul(k);
        let threads = if work < PARALLEL { 1 } else { rayon::current_num_threads() };
        let offsets = (0..of_group).flat_map(|at| layout.taps.iter().map(move |tap| (at, tap)));
        let offsets = offsets.map(|(at, tap)| at * layout.channel() + tap).collect();
        Self { isa, x, weight: filters.elements, epilogue, layout, offsets, channels, groups, k, pixels, threads }
    }

    /// Computes the result.
    pub(super) fn run(&self, y: &mut [f32]) {
        let block = self.layout.images * self.channels * self.pixels;
        if self.threads > 1 && y.len() / block >= self.threads {
            y.par_chunks_mut(block).enumerate().for_each_init(Scratch::take, |scratch, (at, y)| {
                let planes = self.layout.fill(self.x, at, &mut scratch.planes);
                for part in self.parts(y, 1) {
                    self.compute(planes, at, part, &mut scratch.panels);
                }
            });
            return;
        }
        let mut scratch = Scratch::take();
        let Scratch { planes, panels } = &mut scratch;
        for (at, y) in y.chunks_mut(block).enumerate() {
            let planes = self.layout.fill(self.x, at, planes);
            let parts = self.parts(y, self.threads);
            if self.threads > 1 {
                parts.into_par_iter().for_each_init(Scratch::take, |scratch, part| {
                    self.compute(planes, at, part, &mut scratch.panels);
                });
                continue;
            }
            for part in parts {
                self.compute(planes, at, part, panels);
            }
        }
    }

    /// Returns `true` if few channels of the result are of each channel of the images, so that gathering is not worth it.
    fn is_depthwise(&self) -> bool {
        self.k == self.layout.taps.len() && self.channels < 4 * self.groups
    }

    /// Divides a block of images into parts for a number of threads.
    fn parts<'y>(&self, y: &'y mut [f32], threads: usize) -> Vec<Part<'y>> {
        let of_group = self.channels / self.groups;
        // The last block may have fewer images.
        let end = y.len() / self.channels;
        let vectors = end.div_ceil(HALF);
        // Channels are divided only if there are not enough pixels.
        let divisor = threads.div_ceil(vectors.div_ceil(2) * self.groups);
        let channels = of_group.div_ceil(divisor).next_multiple_of(MOST_ROWS).min(of_group);
        let most = (CACHED / ((DEPTH.min(self.k) + channels) * size_of::<f32>())).min(PIXELS);
        let count = end.div_ceil(most.max(PANEL)).next_multiple_of(threads).min(vectors);
        let mut parts = Vec::new();
        for (group, channel, mut rest) in self.by_channels(y, channels) {
            for at in 0..count {
                // Numbers of vectors that differ by one at most.
                let bound = |at: usize| (vectors * at / count * HALF).min(end);
                let pixels = bound(at)..bound(at + 1);
                let numbers = pixels.start / self.pixels..=(pixels.end - 1) / self.pixels;
                let one = |number: usize| {
                    let inside = |pixel: usize| pixel.saturating_sub(number * self.pixels).min(self.pixels);
                    let (first, last) = (inside(pixels.start), inside(pixels.end));
                    let (elements, others) = rest[number].take()?.split_at(last - first);
                    rest[number] = Some(others);
                    Some(OfImage { number, first, elements })
                };
                let images = numbers.filter_map(one).collect();
                parts.push(Part { group, channel, pixels, images });
            }
        }
        parts
    }

    /// Divides a block of images by channels: the group, the first channel, and the elements of each image.
    fn by_channels<'y>(&self, y: &'y mut [f32], channels: usize) -> Vec<(usize, usize, Vec<Option<Columns<'y>>>)> {
        let of_group = self.channels / self.groups;
        let firsts = (0..self.groups).flat_map(|group| (0..of_group).step_by(channels).map(move |at| (group, at)));
        let mut all: Vec<_> = firsts.map(|(group, at)| (group, group * of_group + at, Vec::new())).collect();
        for image in y.chunks_mut(self.channels * self.pixels) {
            let parts = image.chunks_mut(of_group * self.pixels).flat_map(|y| y.chunks_mut(channels * self.pixels));
            for ((.., images), part) in all.iter_mut().zip(parts) {
                images.push(Some(Columns::new(part, self.pixels)));
            }
        }
        all
    }

    /// Computes a part. `block` is the number of the block of images.
    fn compute(&self, planes: &[f32], block: usize, mut part: Part<'_>, memory: &mut Panels) {
        let planes = planes.get(part.group * self.layout.channel() * (self.k / self.layout.taps.len())..);
        let planes = planes.unwrap_or_default();
        if self.is_depthwise() {
            self.compute_depthwise(planes, block, &mut part, memory);
        } else {
            self.compute_product(planes, block, &mut part, memory);
        }
    }

    /// Number of channels of a part.
    fn rows(part: &Part<'_>) -> usize {
        part.images.first().map_or(0, |image| image.elements.rows())
    }

    /// The filters of a part, from the one in a row on.
    fn filters(&self, part: &Part<'_>, row: usize) -> &[f32] {
        &self.weight[(part.channel + row) * self.k..]
    }

    /// Applies each filter to its channel, without gathering.
    fn compute_depthwise(&self, planes: &[f32], block: usize, part: &mut Part<'_>, memory: &mut Panels) {
        let (first, last) = (self.layout.place(part.pixels.start), self.layout.place(part.pixels.end - 1));
        let count = part.pixels.len();
        // Also the positions between the rows of pixels: so all of them are one row.
        let [all, sums] = divided(&mut memory.sums, [last + 1 - first + HALF, count + HALF]);
        let mut runs = self.layout.runs(part.pixels.clone());
        runs.iter_mut().for_each(|run| run.place -= first);
        for row in 0..Self::rows(part) {
            let filter = &self.filters(part, row)[..self.k];
            depthwise(self.isa, planes, first, &self.layout.taps, filter, &mut all[..last + 1 - first]);
            gather(self.isa, all, &[0], &runs, sums, 0);
            self.finish(block, part, row, &sums[..count]);
        }
    }

    /// Gathers the elements that the filters read for the pixels, and multiplies.
    fn compute_product(&self, planes: &[f32], block: usize, part: &mut Part<'_>, memory: &mut Panels) {
        let (channels, lanes) = (Self::rows(part), Lanes::new(part.pixels.len()));
        // Elements of a filter at a time, of nearly equal numbers.
        let depth = self.k.div_ceil(self.k.div_ceil(DEPTH).max(1)).max(1);
        let Panels { panels, sums } = memory;
        let [matrix, singles] = divided(panels, [lanes.matrix(depth), lanes.singles() * depth]);
        // Sums of all channels are needed only if the elements are gathered in several steps.
        let is_divided = self.k > depth;
        let sums = aligned(sums, if is_divided { channels } else { channels.min(MOST_ROWS) } * lanes.width);
        let runs = self.layout.runs(part.pixels.clone());
        for begin in (0..self.k.max(1)).step_by(depth) {
            let depth = begin..(begin + depth).min(self.k);
            gather(self.isa, planes, &self.offsets[depth.clone()], &runs, matrix, lanes.width);
            for (single, column) in singles.chunks_exact_mut(depth.len().max(1)).take(lanes.singles()).enumerate() {
                lanes.copy_single(single, matrix, column);
            }
            let mut row = 0;
            while row < channels {
                let rows = tile_rows(channels - row);
                let first = if is_divided { row } else { 0 };
                let tile = &mut sums[first * lanes.width..(first + rows) * lanes.width];
                let strip = Strip {
                    x: &self.filters(part, row)[begin..],
                    stride: self.k,
                    matrix,
                    width: lanes.width,
                    depth: depth.len(),
                    adds: begin > 0,
                };
                // What is written behind the products is requested while they are computed.
                let before = |columns: Range<usize>| {
                    if let ([image], true) = (&part.images[..], depth.end == self.k) {
                        image.elements.request_part(row..row + rows, columns);
                    }
                };
                lanes.multiply(self.isa, &strip, singles, &mut Columns::new(tile, lanes.width), before);
                if depth.end == self.k {
                    for (at, sums) in tile.chunks_exact(lanes.width).enumerate() {
                        self.finish(block, part, row + at, sums);
                    }
                }
                row += rows;
            }
        }
    }

    /// Writes a channel of a part: the sums of its pixels, with what follows them.
    fn finish(&self, block: usize, part: &mut Part<'_>, row: usize, mut sums: &[f32]) {
        let channel = part.channel + row;
        for image in &mut part.images {
            let to = image.elements.row(row);
            let number = block * self.layout.images + image.number;
            let begin = (number * self.channels + channel) * self.pixels + image.first;
            let (of_image, rest) = sums.split_at(to.len());
            sums = rest;
            let epilogue = self.epilogue.of_channel(channel, begin..begin + to.len());
            finish_channel(self.isa, of_image, epilogue, to);
        }
    }
}

/// The number of rows of the next tile, so that all tiles have nearly the same.
fn tile_rows(left: usize) -> usize {
    left.div_ceil(left.div_ceil(MOST_ROWS).max(1))
}
