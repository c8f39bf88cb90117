//! The inner loops: tiles of a product, and functions of rows, once for each instruction set.
//!
//! | file | what |
//! | --- | --- |
//! | `vector` | vectors of `f32`, for kernels that are generic in them |
//! | `attention_kernels` | the kernels of an attention |
//! | `attention_tile` | tiles of an attention |
//! | `transpose` | transposition of some rows into a panel |
//! | `columns` | a part of the columns of a matrix, which threads write at the same time |
//! | `tile` | a tile of a product: some rows, and the columns of a panel |
//! | `kernels` | the kernels of these tiles |
//! | `strip` | a tile of a product with a matrix that is stored row by row |
//! | `winograd` | the transforms of Winograd's convolution |
//! | `winograd_filters` | the transform of its filters |
//! | `tile_bf16` | a tile of a product of bf16 |
//! | `tile_i8` | a tile of a product of 8-bit numbers |
//! | `tile_i4` | a tile of a product of 8-bit and 4-bit numbers |
//! | `dot` | products of rows with a few columns |
//! | `gather` | copies of runs of pixels |
//! | `max_pool` | max pooling of one plane |
//! | `quantise` | conversion of rows to 8-bit numbers and back, and to bf16, compiled for each instruction set |
//! | `row_functions` | softmax, layer norm and epilogues, compiled for each instruction set |

mod attention_kernels;
mod attention_tile;
mod columns;
mod dot;
mod gather;
mod kernels;
mod max_pool;
mod quantise;
mod row_functions;
mod strip;
mod tile;
mod tile_bf16;
mod tile_i4;
mod tile_i8;
mod transpose;
mod vector;
mod winograd;
mod winograd_filters;

pub(crate) use self::attention_tile::{Lanes, LeftOut, NARROW, scores, softmax_columns, weighted};
pub(crate) use self::columns::{Columns, request_rows};
pub(crate) use self::dot::dot_rows;
pub(crate) use self::gather::{Run, gather};
pub(crate) use self::kernels::Element;
pub(crate) use self::max_pool::max_pool_plane;
pub(crate) use self::quantise::{Scaling, dequantise_u8, quantise_i8, quantise_u8, round_bf16};
pub(crate) use self::row_functions::{depthwise, finish_channel, finish_channels, layer_norm, softmax};
pub(crate) use self::strip::{HALF, Strip};
pub(crate) use self::tile::{Elements, MOST_ROWS, Tile};
pub(crate) use self::tile_bf16::{TileBf16, multiplies_bf16};
pub(crate) use self::tile_i4::{MOST_ROWS_I4, TileI4};
pub(crate) use self::tile_i8::TileI8;
pub(crate) use self::transpose::transpose;
pub(crate) use self::winograd::{GROUP, POINTS, finish_tiles, row_width, transform_elements, transform_products};
pub(crate) use self::winograd_filters::transform_filters;
