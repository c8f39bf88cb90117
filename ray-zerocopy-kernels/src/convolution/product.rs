//! The product of filters and panels of pixels.

use std::ops::Range;

use rayon::prelude::*;

use super::planes::Layout;
use super::scratch::{Panels, Scratch, aligned};
use super::{ChannelEpilogue, Filters, Images};
use crate::isa::Isa;
use crate::packed::PANEL;
use crate::sys::{Columns, MOST_ROWS, Tile, depthwise, dot_products, finish_channel};

/// Rows of a panel that are gathered at a time.
const DEPTH: usize = 256;
/// Bytes of panels and sums of a part, which stay in the second level cache.
const CACHED: usize = 448 << 10;
/// The most panels of a part.
const MOST_PANELS: usize = 8;
/// The most positions of a part for which panels are not worth it: they would be mostly empty.
const FEW: usize = 8;
/// Multiplications from which a convolution is divided among threads.
const PARALLEL: usize = 1 << 20;

/// A convolution.
pub(super) struct Product<'a> {
    isa: Isa,
    x: &'a Images<'a>,
    weight: &'a [f32],
    epilogue: &'a ChannelEpilogue<'a>,
    layout: Layout,
    /// Channels of the result.
    channels: usize,
    groups: usize,
    /// Elements of a filter: rows of a panel.
    k: usize,
    /// Pixels of a channel of the result.
    pixels: usize,
    threads: usize,
}

/// A part of the result: some channels of a group, and some positions of a block of images.
struct Part<'a> {
    group: usize,
    /// The first channel.
    channel: usize,
    positions: Range<usize>,
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
        Self { isa, x, weight: filters.elements, epilogue, layout, channels, groups, k, pixels, threads }
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

    /// Returns `true` if few channels of the result are of each channel of the images, so that panels are not worth it.
    fn is_depthwise(&self) -> bool {
        self.k == self.layout.taps.len() && self.channels < 4 * self.groups
    }

    /// Divides a block of images into parts for a number of threads.
    fn parts<'y>(&self, y: &'y mut [f32], threads: usize) -> Vec<Part<'y>> {
        let (layout, of_group) = (&self.layout, self.channels / self.groups);
        let images = y.len() / (self.channels * self.pixels);
        // The last block may have fewer images.
        let end = layout.pixels() - (layout.images - images) * layout.pitch();
        let panels = end.div_ceil(PANEL);
        // Channels are divided only if there are not enough pixels.
        let divisor = threads.div_ceil(panels * self.groups);
        let channels = of_group.div_ceil(divisor).next_multiple_of(MOST_ROWS).min(of_group);
        let most = CACHED / ((DEPTH.min(self.k) + channels) * PANEL * size_of::<f32>());
        let count = panels.div_ceil(most.clamp(1, MOST_PANELS)).next_multiple_of(threads).min(panels);
        let mut parts = Vec::new();
        for (group, channel, mut rest) in self.by_channels(y, channels) {
            for at in 0..count {
                // Numbers of panels that differ by one at most.
                let bound = |at: usize| (panels * at / count * PANEL).min(end);
                let positions = bound(at)..bound(at + 1);
                let numbers = positions.start / layout.pitch()..=(positions.end - 1) / layout.pitch();
                let one = |number: usize| {
                    let inside = |position: usize| position.saturating_sub(number * layout.pitch());
                    let first = layout.pixels_before(inside(positions.start));
                    let last = layout.pixels_before(inside(positions.end));
                    let (elements, others) = rest[number].take()?.split_at(last - first);
                    rest[number] = Some(others);
                    Some(OfImage { number, first, elements })
                };
                let images = numbers.filter_map(one).collect();
                parts.push(Part { group, channel, positions, images });
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
        let mut runs = Vec::new();
        let start = part.positions.start;
        self.layout.runs(part.positions.clone(), |image, pixel, position, count| {
            runs.push(Run { image, pixel, at: position - start, count });
        });
        let (channels, count) = (part.images.first().map_or(0, |image| image.elements.rows()), part.positions.len());
        let width = count.next_multiple_of(PANEL);
        let Panels { panels, sums } = memory;
        if self.is_depthwise() {
            let sums = aligned(sums, width);
            for row in 0..channels {
                let planes = &planes[part.group * self.layout.channel()..];
                let filter = &self.weight[(part.channel + row) * self.k..][..self.k];
                depthwise(self.isa, planes, start, &self.layout.taps, filter, &mut sums[..count]);
                self.finish(block, &mut part, row, sums, &runs);
            }
            return;
        }
        if count <= FEW && self.k > 0 {
            let (columns, sums) = (aligned(panels, count * self.k), aligned(sums, count));
            for (at, column) in columns.chunks_exact_mut(self.k).enumerate() {
                for (element, offset) in column.iter_mut().zip(self.offsets(part.group, 0..self.k)) {
                    *element = planes[offset + start + at];
                }
            }
            for row in 0..channels {
                let filter = &self.weight[(part.channel + row) * self.k..][..self.k];
                dot_products(self.isa, filter, columns, sums);
                self.finish(block, &mut part, row, sums, &runs);
            }
            return;
        }
        let panels = aligned(panels, DEPTH.min(self.k) * width);
        // Sums of all channels are needed only if the panels are gathered in several steps.
        let is_divided = self.k > DEPTH;
        let sums = aligned(sums, if is_divided { channels } else { channels.min(MOST_ROWS) } * width);
        // Elements of a filter at a time, of nearly equal numbers.
        let depth = self.k.div_ceil(self.k.div_ceil(DEPTH).max(1)).max(1);
        for begin in (0..self.k.max(1)).step_by(depth) {
            let depth = begin..(begin + depth).min(self.k);
            self.gather(planes, &part, depth.clone(), panels);
            let size = depth.len() * PANEL;
            let mut row = 0;
            while row < channels {
                let rows = tile_rows(channels - row);
                let first = if is_divided { row } else { 0 };
                let tile = &mut sums[first * width..(first + rows) * width];
                for panel in 0..width / PANEL {
                    Tile {
                        x: &self.weight[(part.channel + row) * self.k + begin..],
                        stride: self.k,
                        panel: &panels[panel * size..(panel + 1) * size],
                        rows,
                        columns: PANEL,
                        adds: begin > 0,
                    }
                    .multiply(self.isa, &mut Columns::new(tile, width).part(0, panel * PANEL, rows, PANEL));
                }
                if depth.end == self.k {
                    for at in 0..rows {
                        self.finish(block, &mut part, row + at, &tile[at * width..(at + 1) * width], &runs);
                    }
                }
                row += rows;
            }
        }
    }

    /// Where the elements of a filter read, for the first position.
    fn offsets(&self, group: usize, elements: Range<usize>) -> impl Iterator<Item = usize> {
        let taps = &self.layout.taps;
        let first = group * self.k / taps.len();
        elements.map(move |at| (first + at / taps.len()) * self.layout.channel() + taps[at % taps.len()])
    }

    /// Gathers panels: for each element of a filter, what it is multiplied with at each position.
    fn gather(&self, planes: &[f32], part: &Part<'_>, depth: Range<usize>, panels: &mut [f32]) {
        let (size, offsets) = (depth.len() * PANEL, self.offsets(part.group, depth));
        let width = part.positions.len().next_multiple_of(PANEL);
        for (row, offset) in offsets.enumerate() {
            let source = planes.get(offset + part.positions.start..).unwrap_or_default();
            let source = &source[..width.min(source.len())];
            let (whole, rest) = source.as_chunks::<PANEL>();
            for (panel, source) in whole.iter().enumerate() {
                panels[panel * size + row * PANEL..][..PANEL].copy_from_slice(source);
            }
            // The end of the images: what is behind it belongs to no pixel.
            if whole.len() * PANEL < width {
                let last = &mut panels[whole.len() * size + row * PANEL..][..PANEL];
                last.fill(0.0);
                last[..rest.len()].copy_from_slice(rest);
            }
        }
    }

    /// Writes a channel of a part: the sums of its pixels, with what follows them.
    fn finish(&self, block: usize, part: &mut Part<'_>, row: usize, sums: &[f32], runs: &[Run]) {
        let channel = part.channel + row;
        let mut images = part.images.iter_mut().peekable();
        for run in runs {
            while images.next_if(|image| image.number < run.image).is_some() {}
            let Some(image) = images.peek_mut() else { return };
            let begin = run.pixel - image.first;
            let to = &mut image.elements.row(row)[begin..begin + run.count];
            let number = block * self.layout.images + run.image;
            let begin = (number * self.channels + channel) * self.pixels + run.pixel;
            let epilogue = self.epilogue.of_channel(channel, begin..begin + run.count);
            finish_channel(self.isa, &sums[run.at..run.at + run.count], epilogue, to);
        }
    }
}

/// Pixels that follow each other in the result and among the positions.
struct Run {
    /// The number of the image in the block.
    image: usize,
    /// The first pixel.
    pixel: usize,
    /// The first position in the part.
    at: usize,
    count: usize,
}

/// The number of rows of the next tile, so that all tiles have nearly the same.
fn tile_rows(left: usize) -> usize {
    left.div_ceil(left.div_ceil(MOST_ROWS).max(1))
}
