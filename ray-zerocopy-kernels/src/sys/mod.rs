//! The inner loops: tiles of a product, and functions of rows, once for each instruction set.
//!
//! | file | what |
//! | --- | --- |
//! | `columns` | a part of the columns of a matrix, which threads write at the same time |
//! | `tile` | a tile of a product: some rows, and the columns of a panel |
//! | `row_functions` | softmax, layer norm and epilogues, compiled for each instruction set |

mod columns;
mod row_functions;
mod tile;

pub(crate) use self::columns::Columns;
pub(crate) use self::row_functions::{depthwise, finish_channel, layer_norm, masked_softmax, softmax};
pub(crate) use self::tile::{MOST_ROWS, Tile};
