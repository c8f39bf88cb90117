//! Convolutions of two dimensions, with what follows them.
//!
//! There are three ways. With up to 8 pixels, vectors are along the filters. Filters of 3 × 3 with many channels and
//! pixels are transformed, and so are tiles of the images, which saves multiplications. All others are a product:
//!
//! The filters of a channel are a row of a matrix, and the elements that they read for one pixel are a column of
//! another one. The product of the two is the result. So the weight is used as it is: nothing is packed. The columns of
//! some pixels are gathered, and stay in the cache while all filters are applied to them.
//!
//! | file | what |
//! | --- | --- |
//! | `few` | convolutions with few pixels |
//! | `lanes` | division of pixels among vectors |
//! | `planes` | padded copies of images, from which pixels are gathered |
//! | `product` | the product of filters and pixels |
//! | `scratch` | memory that each thread keeps |
//! | `winograd` | Winograd's convolution for filters of 3 × 3 |
//! | `tests` | comparison with plain loops |

mod few;
mod lanes;
mod planes;
mod product;
mod scratch;
#[cfg(test)]
mod tests;
mod winograd;

use self::few::convolve_few;
use self::planes::Layout;
use self::product::Product;
use self::winograd::Winograd;
use crate::epilogue::Activation;
use crate::isa::Isa;

/// Images: a tensor with the dimensions batch, channels, rows, columns.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a> {
    /// The elements, in the order of the dimensions.
    pub elements: &'a [f32],
    /// The extents.
    pub dimensions: [usize; 4],
}

/// Filters: a tensor with the dimensions channels of the result, channels of a group, rows, columns.
#[derive(Debug, Clone, Copy)]
pub struct Filters<'a> {
    /// The elements, in the order of the dimensions.
    pub elements: &'a [f32],
    /// The extents.
    pub dimensions: [usize; 4],
}

/// How filters are applied. The first element of each pair is about rows, the second about columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Options {
    /// Distance between the places of a filter.
    pub stride: [usize; 2],
    /// Number of zeros before and after the elements.
    pub padding: [(usize, usize); 2],
    /// Distance between the elements that a filter reads.
    pub dilation: [usize; 2],
    /// Number of parts into which the channels are divided. Each part of the result is of one part of the image.
    pub groups: usize,
}

impl Options {
    /// The rows and columns of the result. Returns `None` if the filter is larger than the image, or a number is 0.
    pub fn output(&self, size: [usize; 2], kernel: [usize; 2]) -> Option<[usize; 2]> {
        let one = |at: usize| {
            let (before, after) = self.padding[at];
            let padded = size[at].checked_add(before)?.checked_add(after)?;
            let extent = kernel[at].checked_sub(1)?.checked_mul(self.dilation[at])?.checked_add(1)?;
            let places = padded.checked_sub(extent)?.checked_div(self.stride[at])?;
            (self.dilation[at] > 0).then_some(places + 1)
        };
        Some([one(0)?, one(1)?])
    }

    /// The dimensions of the result. Returns `None` if images and filters do not fit each other.
    pub fn result(&self, images: [usize; 4], filters: [usize; 4]) -> Option<[usize; 4]> {
        let ([batch, channels, h, w], [out, of_group, kh, kw]) = (images, filters);
        let fits = self.groups > 0 && out % self.groups == 0 && of_group.checked_mul(self.groups) == Some(channels);
        let [rows, columns] = self.output([h, w], [kh, kw])?;
        fits.then_some([batch, out, rows, columns])
    }
}

/// What follows a convolution: a bias, an activation and the sum with another tensor.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChannelEpilogue<'a> {
    /// One element for each channel.
    pub bias: Option<&'a [f32]>,
    /// Applied after the bias.
    pub activation: Option<Activation>,
    /// A tensor of the shape of the result, and whether it is added before the activation.
    pub residual: Option<(&'a [f32], bool)>,
}

/// What follows the sums of some pixels of a channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OfChannel<'a> {
    pub(crate) bias: f32,
    pub(crate) activation: Option<Activation>,
    pub(crate) residual: Option<(&'a [f32], bool)>,
}

impl<'a> ChannelEpilogue<'a> {
    /// What follows the sums of a channel, which are these elements of the result.
    fn of_channel(&self, channel: usize, elements: std::ops::Range<usize>) -> OfChannel<'a> {
        OfChannel {
            bias: self.bias.map_or(0.0, |bias| bias[channel]),
            activation: self.activation,
            residual: self.residual.map(|(all, is_first)| (&all[elements], is_first)),
        }
    }
}

/// Computes a convolution and what follows it. `y` has the dimensions [`Options::result`]. Uses the threads of rayon's
/// current pool.
///
/// # Panics
/// If a length does not fit, or the processor does not have the instructions.
pub fn convolution(
    isa: Isa,
    x: &Images<'_>,
    filters: &Filters<'_>,
    options: &Options,
    epilogue: &ChannelEpilogue<'_>,
    y: &mut [f32],
) {
    assert!(isa.is_present(), "this processor does not have {isa}");
    let count = |dimensions: [usize; 4]| dimensions.iter().try_fold(1_usize, |all, &one| all.checked_mul(one));
    assert!(count(x.dimensions) == Some(x.elements.len()), "the images do not have the elements of their dimensions");
    let is_whole = count(filters.dimensions) == Some(filters.elements.len());
    assert!(is_whole, "the filters do not have the elements of their dimensions");
    let result = options.result(x.dimensions, filters.dimensions);
    let result = result.unwrap_or_else(|| {
        panic!("filters {:?} with {options:?} do not fit images {:?}", filters.dimensions, x.dimensions)
    });
    assert!(count(result) == Some(y.len()), "the result has {} elements, and its dimensions are {result:?}", y.len());
    let [_, channels, rows, columns] = result;
    let fits = epilogue.bias.is_none_or(|bias| bias.len() == channels)
        && epilogue.residual.is_none_or(|(residual, _)| residual.len() == y.len());
    assert!(fits, "the bias or the residual does not have the size of the result");
    if y.is_empty() {
        return;
    }
    if convolve_few(isa, x, filters, options, epilogue, [rows, columns], y) {
        return;
    }
    let winograd = Winograd::new(isa, x, filters, options, epilogue, [rows, columns]);
    if winograd.is_some_and(|winograd| winograd.run(y)) {
        return;
    }
    let layout = Layout::new(x, filters, options, [rows, columns]);
    Product::new(isa, x, filters, options.groups, epilogue, layout, rows * columns).run(y);
}
