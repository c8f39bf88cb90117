//! Convolutions compared with plain loops in double precision.

use super::{ChannelEpilogue, Filters, Images, Options, convolution};
use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::testing::{numbers, present};

const PLAIN: Options = Options { stride: [1, 1], padding: [(0, 0); 2], dilation: [1, 1], groups: 1 };

/// The convolution without what follows it, by plain loops that leave out what is outside of the image.
fn plain(x: &Images<'_>, filters: &Filters<'_>, options: &Options) -> Vec<f64> {
    let [_, channels, h, w] = x.dimensions;
    let [out, of_group, kh, kw] = filters.dimensions;
    let [batch, _, rows, columns] = options.result(x.dimensions, filters.dimensions).unwrap();
    let mut y = Vec::new();
    let inside = |at: usize, tap: usize, axis: usize, size: usize| {
        let place = at * options.stride[axis] + tap * options.dilation[axis];
        place.checked_sub(options.padding[axis].0).filter(|place| *place < size)
    };
    for at in 0..batch * out * rows * columns {
        let (column, row, channel) = (at % columns, at / columns % rows, at / columns / rows % out);
        let image = at / columns / rows / out;
        let first = channel / (out / options.groups) * of_group;
        let mut sum = 0.0;
        for tap in 0..of_group * kh * kw {
            let (tap_column, tap_row, from) = (tap % kw, tap / kw % kh, tap / kw / kh);
            if let (Some(row), Some(column)) = (inside(row, tap_row, 0, h), inside(column, tap_column, 1, w)) {
                let element = x.elements[((image * channels + first + from) * h + row) * w + column];
                sum += f64::from(element) * f64::from(filters.elements[channel * of_group * kh * kw + tap]);
            }
        }
        y.push(sum);
    }
    y
}

/// Compares with plain loops.
fn check(isa: Isa, images: [usize; 4], filters: [usize; 4], options: &Options, is_residual_first: bool) {
    let (elements, weight) = (numbers(images.iter().product(), 1), numbers(filters.iter().product(), 2));
    let x = Images { elements: &elements, dimensions: images };
    let filters = Filters { elements: &weight, dimensions: filters };
    let sums = plain(&x, &filters, options);
    let [_, channels, rows, columns] = options.result(images, filters.dimensions).unwrap();
    let (bias, residual) = (numbers(channels, 3), numbers(sums.len(), 4));
    let residual_of = Some((&residual[..], is_residual_first));
    let epilogues = [
        ChannelEpilogue::default(),
        ChannelEpilogue { bias: Some(&bias), activation: Some(Activation::Relu), residual: residual_of },
    ];
    for epilogue in epilogues {
        let mut y = vec![f32::NAN; sums.len()];
        convolution(isa, &x, &filters, options, &epilogue, &mut y);
        for (at, (found, sum)) in y.iter().zip(&sums).enumerate() {
            let channel = at / (rows * columns) % channels;
            let sum = sum + epilogue.bias.map_or(0.0, |bias| f64::from(bias[channel]));
            let (before, after) = match epilogue.residual {
                Some((all, true)) => (f64::from(all[at]), 0.0),
                Some((all, false)) => (0.0, f64::from(all[at])),
                None => (0.0, 0.0),
            };
            let sum = sum + before;
            let expected = if epilogue.activation.is_some() { sum.max(0.0) } else { sum } + after;
            let bound = 1e-5 * (filters.dimensions[1..].iter().product::<usize>() as f64).sqrt().max(1.0);
            let error = (f64::from(*found) - expected).abs();
            let case = (isa, images, filters.dimensions, options, at);
            assert!(error <= bound, "{case:?}: {found} instead of {expected}");
        }
    }
}

/// Images, filters, options.
fn cases() -> Vec<([usize; 4], [usize; 4], Options)> {
    let padded = |padding: usize| Options { padding: [(padding, padding); 2], ..PLAIN };
    let strided = |stride: [usize; 2], padding: usize| Options { stride, ..padded(padding) };
    vec![
        // One element, one pixel, one column, one row.
        ([1, 1, 1, 1], [1, 1, 1, 1], PLAIN),
        ([1, 3, 5, 5], [2, 3, 5, 5], PLAIN),
        ([1, 2, 9, 1], [3, 2, 3, 1], padded(0)),
        ([2, 3, 1, 40], [5, 3, 1, 3], Options { padding: [(0, 0), (1, 1)], ..PLAIN }),
        // Transformed: whole tiles, half ones, several blocks, tiles behind the last vector, zeros on some sides.
        ([1, 16, 14, 14], [16, 16, 3, 3], padded(1)),
        ([2, 19, 15, 13], [29, 19, 3, 3], padded(1)),
        ([1, 70, 64, 56], [16, 70, 3, 3], padded(1)),
        ([1, 16, 12, 20], [40, 16, 3, 3], padded(0)),
        ([1, 17, 11, 10], [16, 17, 3, 3], Options { padding: [(0, 2), (3, 1)], ..PLAIN }),
        ([1, 16, 1, 120], [16, 16, 3, 3], padded(1)),
        // Of ResNet: the first one, those of a block, and those with a step.
        ([1, 3, 20, 22], [13, 3, 7, 7], strided([2, 2], 3)),
        ([1, 8, 14, 14], [25, 8, 3, 3], padded(1)),
        ([2, 8, 15, 14], [9, 8, 3, 3], strided([2, 2], 1)),
        ([2, 8, 15, 14], [9, 8, 1, 1], strided([2, 2], 0)),
        // Small images, which share panels, and those that do not.
        ([9, 4, 3, 3], [12, 4, 3, 3], padded(1)),
        ([70, 2, 3, 2], [3, 2, 1, 1], PLAIN),
        ([3, 40, 7, 5], [30, 40, 1, 1], PLAIN),
        // More elements of a filter than are gathered at a time.
        ([1, 70, 9, 9], [14, 70, 3, 3], padded(1)),
        ([2, 600, 3, 3], [5, 600, 1, 1], PLAIN),
        // Steps, distances and zeros of all kinds, also larger ones than the filter or the image.
        ([1, 2, 17, 19], [4, 2, 3, 2], Options { stride: [3, 1], dilation: [2, 4], ..padded(2) }),
        (
            [2, 2, 6, 7],
            [4, 2, 2, 3],
            Options { stride: [2, 3], padding: [(0, 3), (4, 1)], dilation: [3, 2], groups: 1 },
        ),
        ([1, 1, 2, 2], [2, 1, 3, 3], Options { stride: [5, 4], ..padded(6) }),
        ([2, 2, 8, 8], [3, 2, 1, 1], strided([3, 5], 2)),
        // So few pixels that there are no panels.
        ([1, 33, 1, 4], [20, 33, 1, 3], Options { padding: [(0, 0), (1, 1)], ..PLAIN }),
        ([2, 7, 3, 3], [6, 7, 3, 3], PLAIN),
        ([1, 1, 1, 640], [258, 1, 1, 256], strided([1, 128], 0)),
        ([1, 5, 2, 5], [9, 5, 3, 3], Options { dilation: [1, 2], padding: [(1, 1), (3, 2)], ..PLAIN }),
        ([2, 9, 1, 1], [1, 9, 1, 1], PLAIN),
        ([1, 6, 2, 4], [10, 3, 1, 2], Options { groups: 2, ..strided([1, 1], 0) }),
        ([1, 4, 2, 2], [7, 4, 1, 1], strided([1, 3], 2)),
        // Groups, of which each has one channel or more.
        ([2, 6, 9, 10], [9, 2, 3, 3], Options { groups: 3, ..padded(1) }),
        ([1, 5, 30, 31], [5, 1, 3, 3], Options { groups: 5, ..padded(1) }),
        ([2, 5, 12, 13], [10, 1, 5, 3], Options { groups: 5, ..strided([2, 2], 2) }),
        ([3, 4, 2, 3], [4, 1, 1, 1], Options { groups: 4, ..PLAIN }),
        ([1, 2, 9, 9], [16, 1, 3, 3], Options { groups: 2, ..padded(1) }),
        // Without images, channels of a group.
        ([0, 2, 4, 4], [3, 2, 3, 3], PLAIN),
        ([1, 0, 4, 4], [3, 0, 3, 3], PLAIN),
    ]
}

#[test]
fn convolutions_of_all_kinds_are_right() {
    for isa in present() {
        for (at, (images, filters, options)) in cases().iter().enumerate() {
            check(isa, *images, *filters, options, at % 2 == 0);
        }
    }
}

#[test]
fn divided_convolutions_are_right() {
    let threads = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let padded = Options { padding: [(1, 1); 2], ..PLAIN };
    threads.install(|| {
        for isa in present() {
            // By pixels, by channels since there are few pixels, by images, by blocks of images, by groups.
            check(isa, [1, 16, 33, 35], [40, 16, 3, 3], &padded, true);
            check(isa, [1, 200, 3, 4], [130, 200, 3, 3], &padded, false);
            check(isa, [4, 16, 20, 20], [20, 16, 3, 3], &padded, true);
            check(isa, [700, 32, 2, 2], [12, 32, 2, 2], &padded, false);
            check(isa, [1, 40, 60, 60], [40, 1, 3, 3], &Options { groups: 40, ..padded }, true);
            // Transformed: by blocks, by channels.
            check(isa, [1, 64, 60, 40], [40, 64, 3, 3], &padded, false);
            check(isa, [1, 20, 12, 12], [60, 20, 3, 3], &padded, true);
            check(isa, [1, 16, 10, 10], [16, 16, 3, 3], &padded, true);
        }
    });
}

#[test]
fn nan_and_infinity_reach_the_pixels_that_read_them() {
    let options = Options { padding: [(1, 1); 2], ..PLAIN };
    // With 20 channels, a tile is transformed, and an element is in all numbers of its tiles.
    for (channels, out) in [(2, 3), (20, 17)] {
        let (images, filters) = ([2, channels, 5, 40], [out, channels, 3, 3]);
        for (isa, value) in present().flat_map(|isa| [(isa, f32::NAN), (isa, f32::INFINITY)]) {
            let mut elements = vec![1.0; images.iter().product()];
            // The last element of the second row of the first channel, whose neighbour in memory is the next row.
            elements[2 * 40 - 1] = value;
            let (weight, mut y) = (vec![1.0; filters.iter().product()], vec![0.0; 2 * out * 5 * 40]);
            let x = Images { elements: &elements, dimensions: images };
            let filters = Filters { elements: &weight, dimensions: filters };
            convolution(isa, &x, &filters, &options, &ChannelEpilogue::default(), &mut y);
            for (at, found) in y.iter().enumerate() {
                let (column, row, image) = (at % 40, at / 40 % 5, at / (out * 5 * 40));
                let is_hit = image == 0 && row <= 2 && column >= 38;
                assert_eq!(found.is_finite(), !is_hit, "{isa} {at}: {found}");
                assert_eq!(found.is_nan(), is_hit && value.is_nan());
            }
        }
    }
}

/// Transforms lose accuracy: by less than a network's results can differ.
#[test]
fn errors_of_a_network_stay_small() {
    let options = Options { padding: [(1, 1); 2], ..PLAIN };
    let (channels, size) = (24, 12);
    let (images, filters) = ([1, channels, size, size], [channels, channels, 3, 3]);
    let first = numbers(channels * size * size, 1);
    for isa in present() {
        let (mut found, mut exact) = (first.clone(), first.clone());
        for layer in 0..8 {
            // The elements neither grow nor shrink from layer to layer.
            let factor = (6.0 / (channels * 9) as f32).sqrt();
            let weight: Vec<f32> =
                numbers(filters.iter().product(), 10 + layer).iter().map(|one| factor * one).collect();
            let filters = Filters { elements: &weight, dimensions: filters };
            let epilogue = ChannelEpilogue { activation: Some(Activation::Relu), ..ChannelEpilogue::default() };
            let (x, mut y) = (Images { elements: &found, dimensions: images }, vec![0.0; first.len()]);
            convolution(isa, &x, &filters, &options, &epilogue, &mut y);
            let x = Images { elements: &exact, dimensions: images };
            exact = plain(&x, &filters, &options).iter().map(|sum| sum.max(0.0) as f32).collect();
            found = y;
        }
        let largest = exact.iter().copied().fold(0.0, f32::max);
        let error = found.iter().zip(&exact).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
        assert!(largest > 0.01 && error < 1e-5 * largest, "{isa}: {error} beside {largest}");
    }
}

#[test]
fn results_have_the_size_that_the_options_give() {
    let options = Options { stride: [2, 3], padding: [(1, 0), (2, 2)], dilation: [1, 2], groups: 1 };
    assert_eq!(options.output([8, 9], [3, 3]), Some([4, 3]));
    assert_eq!(options.output([1, 9], [3, 3]), None, "the filter is larger than the image");
    assert_eq!(options.output([8, 9], [0, 3]), None);
    let broken = [
        Options { stride: [0, 1], ..PLAIN },
        Options { dilation: [1, 0], ..PLAIN },
        Options { padding: [(usize::MAX, 1), (0, 0)], ..PLAIN },
        Options { dilation: [usize::MAX, 1], ..PLAIN },
    ];
    for options in broken {
        assert_eq!(options.output([8, 9], [3, 3]), None, "{options:?}");
    }
    assert_eq!(PLAIN.result([1, 4, 8, 8], [6, 3, 3, 3]), None);
    assert_eq!(Options { groups: 2, ..PLAIN }.result([1, 4, 8, 8], [6, 2, 3, 3]), Some([1, 6, 6, 6]));
    assert_eq!(Options { groups: 0, ..PLAIN }.result([1, 0, 8, 8], [0, 0, 3, 3]), None);
}

#[test]
#[should_panic(expected = "do not fit images")]
fn filters_of_other_channels_are_refused() {
    let x = Images { elements: &[0.0; 8], dimensions: [1, 2, 2, 2] };
    let filters = Filters { elements: &[0.0; 3], dimensions: [1, 3, 1, 1] };
    convolution(Isa::Portable, &x, &filters, &PLAIN, &ChannelEpilogue::default(), &mut [0.0; 4]);
}
