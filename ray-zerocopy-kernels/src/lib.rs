#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! Kernels of ray-zerocopy's compiled graphs: computation on weights in the form that the processor takes them.
//!
//! A weight is *packed* once, into the arena. All workers compute with the same packed bytes, and none of them
//! copies or rearranges a weight in a call. The form is the same for all processors, so a file that was compiled
//! on one runs on another; which instructions are used is decided when the program runs.
//!
//! | file | what |
//! | --- | --- |
//! | `convolution/` | convolutions, with what follows them |
//! | `pooling` | max pooling |
//! | `packed` | the packed form of a matrix |
//! | `linear` | matrix products with packed weights, and what follows them |
//! | `bf16` | matrix products with packed weights of bf16 |
//! | `bf16_rounded` | the same with rows of `x` that are rounded to bf16 |
//! | `packed_i8` | the packed form of a matrix of 8-bit numbers with scales |
//! | `int8` | matrix products with packed 8-bit weights |
//! | `packed_i4` | the packed form of a matrix of 4-bit numbers with scales |
//! | `int4` | matrix products with packed 4-bit weights |
//! | `quantised_product` | products of rows that are quantised or rounded |
//! | `quantised_rows` | rows of `x` as 8-bit numbers or bf16 |
//! | `divide` | division of a product among threads |
//! | `attention/` | attention of several heads |
//! | `rows` | functions of rows: softmax, layer norm |
//! | `epilogue` | bias, activation and residual, applied while a result is in the cache |
//! | `math` | `exp`, `erf` and `tanh`, without branches |
//! | `isa` | the instruction sets, and which of them this processor has |
//! | `sys` | the inner loops. The unsafe code of this folder |

mod attention;
mod bf16;
mod bf16_rounded;
mod convolution;
mod divide;
mod epilogue;
mod int4;
mod int8;
mod isa;
mod linear;
mod math;
mod packed;
mod packed_i4;
mod packed_i8;
mod pooling;
mod quantised_product;
mod quantised_rows;
mod rows;
mod sys;
#[cfg(test)]
mod testing;

pub use self::attention::{Heads, Mask, attention};
pub use self::bf16::{PackedBf16, linear_bf16, pack_bf16};
pub use self::bf16_rounded::linear_bf16_rounded;
pub use self::convolution::{ChannelEpilogue, Filters, Images, Options as ConvolutionOptions, convolution};
pub use self::epilogue::{Activation, Epilogue};
pub use self::int4::linear_i4;
pub use self::int8::linear_i8;
pub use self::isa::Isa;
pub use self::linear::linear;
pub use self::packed::{PANEL, Packed, pack, packed_shape};
pub use self::packed_i4::{I4_BLOCK, PackedI4, QuantisedI4, blocks_i4_shape, packed_i4_shape, quantise_i4};
pub use self::packed_i8::{
    MOST_BLOCK, PackedI8, QuantisedI8, blocks_i8_shape, packed_i8_shape, quantise_i8, quantise_i8_by,
};
pub use self::pooling::{MaxPool, max_pool};
pub use self::rows::{LayerNorm, layer_norm, softmax};
