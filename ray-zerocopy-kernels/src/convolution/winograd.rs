//! Winograd's convolution: filters of 3 × 3 with steps of 1, with 16 multiplications for 4 pixels in place of 36.
//!
//! Each of the 16 points is a product of its own: the transformed filters, a row for each channel of the result, times
//! the transformed tiles, a column for each. Filters are transformed when they are used, since the transformed ones
//! would be 1.8 times as large.

use rayon::prelude::*;

use super::lanes::Lanes;
use super::scratch::{Panels, Scratch, aligned, divided};
use super::{ChannelEpilogue, Filters, Images, Options};
use crate::isa::Isa;
use crate::sys::{
    Columns, GROUP, MOST_ROWS, POINTS, Strip, finish_tiles, row_width, transform_elements, transform_filters,
    transform_products,
};

/// The fewest channels, of images and results.
const CHANNELS: usize = 16;
/// The fewest pixels of an image: transforming the filters costs as much as some of them.
const PIXELS: usize = 100;
/// Bytes of the transformed tiles of a block, which stay in the second level cache.
const CACHED: usize = 832 << 10;
/// The same if the transformed filters have not more bytes: both stay there.
const BESIDE_FILTERS: usize = 500 << 10;

/// Multiplications, without transforms, from which a convolution is divided among threads.
const PARALLEL: usize = 1 << 20;

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
        let of_filters = POINTS * channels * out * size_of::<f32>();
        let cached = if of_filters <= BESIDE_FILTERS { BESIDE_FILTERS } else { CACHED };
        let most = (cached / row).clamp(1, tiles[0]);
        let blocks = tiles[0].div_ceil(most);
        let before = [options.padding[0].0, options.padding[1].0];
        let work = x.dimensions[0].saturating_mul(9 * size[0] * size[1]).saturating_mul(channels * out);
        let threads = if work < PARALLEL { 1 } else { rayon::current_num_threads() };
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
        let lanes = Lanes::new(part.rows.len() * self.tiles[1]);
        let (plane, singles) = (lanes.matrix(channels), lanes.singles() * channels);
        let group = POINTS * MOST_ROWS * channels;
        let own = if filters.is_some() { 0 } else { group };
        let sizes = [POINTS * plane, POINTS * singles, own, POINTS * MOST_ROWS * lanes.width, 4 * lanes.width];
        let Panels { panels, sums } = &mut scratch.panels;
        let [tiles, columns, own, products, pixels] = divided(panels, sizes);
        self.transform_tiles(&part, &lanes, tiles, sums);
        for (at, column) in columns.chunks_exact_mut(channels).enumerate() {
            let (point, single) = (at / lanes.singles(), at % lanes.singles());
            lanes.copy_single(single, &tiles[point * plane..], column);
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
                let strip = Strip {
                    x: &filters[point * count * channels..(point + 1) * count * channels],
                    stride: channels,
                    matrix: &tiles[point * plane..],
                    width: lanes.width,
                    depth: channels,
                    adds: false,
                };
                let singles = &columns[point * singles..(point + 1) * singles];
                let products = &mut products[point * MOST_ROWS * lanes.width..][..count * lanes.width];
                lanes.multiply(self.isa, &strip, singles, &mut Columns::new(products, lanes.width), |_| {});
            }
            for row in 0..count {
                let all = 2 * lanes.count.next_multiple_of(GROUP);
                let (upper, lower) = pixels[..2 * all].split_at_mut(all);
                let plane = MOST_ROWS * lanes.width;
                transform_products(self.isa, &products[row * lanes.width..], plane, upper, lower);
                is_finite &= self.finish(&mut part, first + row, &lanes, [upper, lower]);
            }
        }
        is_finite
    }

    /// Transforms the tiles of a part.
    fn transform_tiles(&self, part: &Part<'_>, lanes: &Lanes, to: &mut [f32], memory: &mut Vec<f32>) {
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
            let plane = lanes.matrix(channels);
            transform_elements(self.isa, rows, padded, tiles, &mut to[channel * lanes.width..], plane);
        }
    }

    /// Writes a channel of a part: its pixels, with what follows them. `rows` has the upper rows of tiles, and the lower
    /// ones. Returns `false` if a sum is not a finite number.
    fn finish(&self, part: &mut Part<'_>, row: usize, lanes: &Lanes, [upper, lower]: [&mut [f32]; 2]) -> bool {
        let ([_, out], [height, width]) = (self.channels(), self.size);
        let channel = part.channel + row;
        let y = part.elements.row(row);
        let begin = ((part.image * out + channel) * height + 2 * part.rows.start) * width;
        let epilogue = self.epilogue.of_channel(channel, begin..begin + y.len());
        let mut is_finite = true;
        let pixels = 2 * lanes.count;
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
