//! Winograd's convolution: filters of 3 × 3 with steps of 1, with 16 multiplications for 4 pixels in place of 36.
//!
//! Each of the 16 points is a product of its own: the transformed filters, a row for each channel of the result, times
//! the transformed tiles, a column for each. Filters are transformed when they are used, since the transformed ones
//! would be 1.8 times as large.

use rayon::prelude::*;

use super::scratch::{Panels, Scratch, aligned};
use super::{ChannelEpilogue, Filters, Images, Options};
use crate::isa::Isa;
use crate::packed::PANEL;
use crate::sys::{
    Columns, GROUP, HALF, MOST_ROWS, POINTS, Strip, dot_products, finish_tiles, row_width, transform_elements,
    transform_filters, transform_products,
};

/// The fewest channels, of images and results.
const CHANNELS: usize = 16;
/// The fewest pixels of an image: transforming the filters costs as much as some of them.
const PIXELS: usize = 100;
/// Bytes of the transformed tiles of a block, which stay in the second level cache.
const CACHED: usize = 832 << 10;
/// The most tiles behind the last whole vector that are computed one by one.
const SINGLE: usize = 4;

/// A convolution whose filters fit.
pub(super) struct Winograd<'a> {
    isa: Isa,
    x: &'a Images<'a>,
    filters: &'a Filters<'a>,
    epilogue: &'a ChannelEpilogue<'a>,
    /// Zeros before the first row and the first column.
    before: [usize; 2],
    /// Rows and columns of the result.
    size: [usize; 2],
    /// Rows and columns of tiles.
    tiles: [usize; 2],
    /// Blocks of rows of tiles.
    blocks: usize,
    threads: usize,
}

/// A part of the result: some channels, and the pixels of some rows of tiles.
struct Part<'a> {
    image: usize,
    channel: usize,
    /// Rows of tiles.
    rows: std::ops::Range<usize>,
    elements: Columns<'a>,
}

/// Where the tiles of a block are in memory.
struct Block {
    /// Number of tiles.
    count: usize,
    /// Tiles whose products are computed by vectors.
    wide: usize,
    /// Distance between the rows of transformed tiles.
    width: usize,
}

impl Block {
    fn new(count: usize) -> Self {
        let rest = count % HALF;
        let wide = if rest <= SINGLE { count - rest } else { count.next_multiple_of(HALF) };
        // An odd number of cache lines: rows are in all parts of the cache.
        let width = (count.div_ceil(GROUP) | 1) * GROUP;
        Self { count, wide, width }
    }

    /// Distance between the points of transformed tiles. What is written behind the tiles of the last channel is between
    /// them.
    fn plane(&self, channels: usize) -> usize {
        channels * self.width + GROUP
    }
}

impl<'a> Winograd<'a> {
    /// Returns `None` if the filters do not fit, or it is not worth it.
    pub(super) fn new(
        isa: Isa,
        x: &'a Images<'a>,
        filters: &'a Filters<'a>,
        options: &Options,
        epilogue: &'a ChannelEpilogue<'a>,
        size: [usize; 2],
    ) -> Option<Self> {
        let ([_, channels, ..], [out, _, rows, columns]) = (x.dimensions, filters.dimensions);
        let fits = [rows, columns, options.groups] == [3, 3, 1] && [options.stride, options.dilation] == [[1, 1]; 2];
        let is_worth_it = channels.min(out) >= CHANNELS && size[0] * size[1] >= PIXELS;
        if !fits || !is_worth_it {
            return None;
        }
        let tiles = size.map(|pixels| pixels.div_ceil(2));
        let row = POINTS * channels * tiles[1] * size_of::<f32>();
        let most = (CACHED / row).clamp(1, tiles[0]);
        let blocks = tiles[0].div_ceil(most);
        let before = [options.padding[0].0, options.padding[1].0];
        let threads = rayon::current_num_threads();
        Some(Self { isa, x, filters, epilogue, before, size, tiles, blocks, threads })
    }

    /// Channels of the images, and of the result.
    fn channels(&self) -> [usize; 2] {
        [self.filters.dimensions[1], self.filters.dimensions[0]]
    }

    /// Computes the result. Returns `false` if a sum is not a finite number: then elements have reached pixels that do
    /// not read them.
    pub(super) fn run(&self, y: &mut [f32]) -> bool {
        let ([channels, out], batch) = (self.channels(), self.x.dimensions[0]);
        let groups = out.div_ceil(MOST_ROWS);
        let mut scratch = Scratch::take();
        // The filters of a group, before they are used, or of all of them.
        let is_shared = self.blocks * batch > 1;
        let group = POINTS * MOST_ROWS * channels;
        let parts = self.parts(y);
        let mut shared = std::mem::take(&mut scratch.planes);
        if is_shared {
            let filters = aligned(&mut shared, group * groups);
            let transform = |(at, to): (usize, &mut [f32])| self.transform_filters(at, to);
            if self.threads > 1 {
                filters.par_chunks_mut(group).enumerate().for_each(transform);
            } else {
                filters.chunks_mut(group).enumerate().for_each(transform);
            }
            let filters = &*filters;
            let result = self.all(parts, Some(filters), &mut scratch);
            scratch.planes = shared;
            return result;
        }
        scratch.planes = shared;
        self.all(parts, None, &mut scratch)
    }

    fn all(&self, parts: Vec<Part<'_>>, filters: Option<&[f32]>, scratch: &mut Scratch) -> bool {
        if self.threads > 1 {
            let one = |scratch: &mut Scratch, part| self.compute(part, filters, scratch);
            return parts.into_par_iter().map_init(Scratch::take, one).reduce(|| true, |one, other| one && other);
        }
        let mut is_finite = true;
        for part in parts {
            is_finite &= self.compute(part, filters, scratch);
        }
        is_finite
    }

    /// Divides the result into parts.
    fn parts<'y>(&self, y: &'y mut [f32]) -> Vec<Part<'y>> {
        let ([_, out], [height, width]) = (self.channels(), self.size);
        let pixels = height * width;
        let divisor = self.threads.div_ceil(self.blocks * self.x.dimensions[0]);
        let channels = out.div_ceil(divisor).next_multiple_of(MOST_ROWS).min(out);
        let mut parts = Vec::new();
        for (image, y) in y.chunks_mut(out * pixels).enumerate() {
            for (at, y) in y.chunks_mut(channels * pixels).enumerate() {
                let mut rest = Columns::new(y, pixels);
                for block in 0..self.blocks {
                    let bound = |block: usize| block * self.tiles[0] / self.blocks;
                    let rows = bound(block)..bound(block + 1);
                    let count = ((2 * rows.end).min(height) - 2 * rows.start) * width;
                    let (elements, others) = rest.split_at(count);
                    rest = others;
                    parts.push(Part { image, channel: at * channels, rows, elements });
                }
            }
        }
        parts
    }

    /// Transforms the filters of a group of channels.
    fn transform_filters(&self, group: usize, to: &mut [f32]) {
        let [channels, out] = self.channels();
        let first = group * MOST_ROWS;
        let rows = MOST_ROWS.min(out - first);
        let filters = &self.filters.elements[first * channels * 9..(first + rows) * channels * 9];
        transform_filters(self.isa, filters, rows, channels, to);
    }

    /// Computes a part. Returns `false` if a sum is not a finite number.
    fn compute(&self, mut part: Part<'_>, filters: Option<&[f32]>, scratch: &mut Scratch) -> bool {
        let [channels, _] = self.channels();
        let block = Block::new(part.rows.len() * self.tiles[1]);
        let Panels { panels, sums } = &mut scratch.panels;
        let plane = block.plane(channels);
        let singles = block.count.saturating_sub(block.wide);
        let group = POINTS * MOST_ROWS * channels;
        // The transformed tiles, those that are computed one by one, filters, products.
        let sizes = [
            POINTS * plane,
            singles * POINTS * channels,
            if filters.is_some() { 0 } else { group },
            POINTS * MOST_ROWS * block.width,
            4 * block.width,
        ];
        let memory = aligned(panels, sizes.map(|size| size.next_multiple_of(GROUP)).iter().sum());
        let (tiles, memory) = memory.split_at_mut(sizes[0].next_multiple_of(GROUP));
        let (columns, memory) = memory.split_at_mut(sizes[1].next_multiple_of(GROUP));
        let (own, memory) = memory.split_at_mut(sizes[2].next_multiple_of(GROUP));
        let (products, memory) = memory.split_at_mut(sizes[3].next_multiple_of(GROUP));
        let pixels = &mut memory[..sizes[4]];
        self.transform_tiles(&part, &block, tiles, sums);
        for (at, column) in columns.chunks_mut(channels.max(1)).take(singles * POINTS).enumerate() {
            let (single, point) = (at / POINTS, at % POINTS);
            for (channel, element) in column.iter_mut().enumerate() {
                *element = tiles[point * plane + channel * block.width + block.wide + single];
            }
        }
        let mut is_finite = true;
        let rows = part.elements.rows();
        for first in (0..rows).step_by(MOST_ROWS) {
            let count = MOST_ROWS.min(rows - first);
            let number = (part.channel + first) / MOST_ROWS;
            let filters = match filters {
                Some(all) => &all[number * group..(number + 1) * group],
                None => {
                    self.transform_filters(number, own);
                    &*own
                }
            };
            for point in 0..POINTS {
                let filters = &filters[point * count * channels..(point + 1) * count * channels];
                let tiles = &tiles[point * plane..];
                let products = &mut products[point * MOST_ROWS * block.width..][..count * block.width];
                let mut products = Columns::new(products, block.width);
                let mut column = 0;
                while column < block.wide {
                    let columns = if block.wide - column >= PANEL { PANEL } else { HALF };
                    let strip = Strip {
                        x: filters,
                        stride: channels,
                        matrix: &tiles[column..],
                        width: block.width,
                        depth: channels,
                        adds: false,
                    };
                    strip.multiply(self.isa, &mut products.part(0, column, count, columns));
                    column += columns;
                }
                for single in 0..singles {
                    let mut sums = [0.0; MOST_ROWS];
                    let column = &columns[(single * POINTS + point) * channels..][..channels];
                    dot_products(self.isa, column, filters, &mut sums[..count]);
                    for (row, sum) in sums[..count].iter().enumerate() {
                        products.row(row)[block.wide + single] = *sum;
                    }
                }
            }
            for row in 0..count {
                let all = block.count.next_multiple_of(GROUP);
                let (upper, lower) = pixels[..4 * all].split_at_mut(2 * all);
                let plane = MOST_ROWS * block.width;
                transform_products(self.isa, &products[row * block.width..], plane, upper, lower);
                is_finite &= self.finish(&mut part, first + row, &block, [upper, lower]);
            }
        }
        is_finite
    }

    /// Transforms the tiles of a part.
    fn transform_tiles(&self, part: &Part<'_>, block: &Block, to: &mut [f32], memory: &mut Vec<f32>) {
        let [channels, _] = self.channels();
        let ([_, _, height, width], [above, left]) = (self.x.dimensions, self.before);
        let (first, count) = (2 * part.rows.start, 2 * part.rows.len() + 2);
        let padded = row_width(self.tiles[1]).max(left + width);
        let rows = aligned(memory, count * padded);
        rows.fill(0.0);
        for channel in 0..channels {
            let image = &self.x.elements[(part.image * channels + channel) * height * width..][..height * width];
            for (at, row) in rows.chunks_mut(padded).enumerate() {
                // Rows outside of the image are zeros for all channels.
                let place = (first + at).checked_sub(above).filter(|place| *place < height);
                if let Some(place) = place {
                    row[left..left + width].copy_from_slice(&image[place * width..(place + 1) * width]);
                }
            }
            let tiles = [part.rows.len(), self.tiles[1]];
            let plane = block.plane(channels);
            transform_elements(self.isa, rows, padded, tiles, &mut to[channel * block.width..], plane);
        }
    }

    /// Writes a channel of a part: its pixels, with what follows them. `rows` has the upper rows of tiles, and the lower
    /// ones. Returns `false` if a sum is not a finite number.
    fn finish(&self, part: &mut Part<'_>, row: usize, block: &Block, [upper, lower]: [&mut [f32]; 2]) -> bool {
        let ([_, out], [height, width]) = (self.channels(), self.size);
        let channel = part.channel + row;
        let y = part.elements.row(row);
        let begin = ((part.image * out + channel) * height + 2 * part.rows.start) * width;
        let epilogue = self.epilogue.of_channel(channel, begin..begin + y.len());
        let mut is_finite = true;
        let pixels = 2 * block.count;
        finish_tiles(
            self.isa,
            [&mut upper[..pixels], &mut lower[..pixels]],
            [2 * self.tiles[1], width],
            epilogue,
            y,
            &mut is_finite,
        );
        is_finite
    }
}
