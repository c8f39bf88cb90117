//! The inner loops: tiles of a product, and functions of rows, once for each instruction set.
//!
//! | file | what |
//! | --- | --- |
//! | `columns` | a part of the columns of a matrix, which threads write at the same time |
//! | `tile` | a tile of a product: some rows, and the columns of a panel |
//! | `tile_i8` | a tile of a product of 8-bit numbers |
//! | `tile_i4` | a tile of a product of 8-bit and 4-bit numbers |
//! | `quantise` | conversion to 8-bit numbers and back, compiled for each instruction set |
//! | `row_functions` | softmax, layer norm and epilogues, compiled for each instruction set |

mod columns;
mod quantise;
mod row_functions;
mod tile;
mod tile_i4;
mod tile_i8;

pub(crate) use self::columns::Columns;
pub(crate) use self::quantise::{Scaling, dequantise_u8, quantise_i8, quantise_u8};
pub(crate) use self::row_functions::{layer_norm, masked_softmax, softmax};
pub(crate) use self::tile::{Element, MOST_ROWS, Tile};
pub(crate) use self::tile_i4::{MOST_ROWS_I4, TileI4};
pub(crate) use self::tile_i8::TileI8;
