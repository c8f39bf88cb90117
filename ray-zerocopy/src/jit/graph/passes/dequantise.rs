//! Replaces quantised weights by the floats that they stand for, which the arena of the compiled graph has.
//!
//! Linear layers do not read these floats: they are packed from the quantised weight. The arena only has what is read.

use burn::tensor::{DType, TensorData};
use burn_ir::{FloatOperationIr, OperationIr};

use super::draft::Draft;
use crate::jit::graph::code::{Constant, FIELD, Source};
use crate::tensor::quantised::dequantised;

/// Returns a quantised tensor, by its path.
pub(crate) type ReadQuantised<'a> = &'a dyn Fn(&str) -> Option<TensorData>;

/// The path of the floats of a quantised weight begins so.
const FLOATS: &str = "floats.";

/// The path of the quantised weight whose floats have this path, or the path itself.
pub(crate) fn original(path: &str) -> &str {
    let own = path.strip_prefix(FIELD).and_then(|path| path.strip_prefix('.'));
    own.and_then(|path| path.strip_prefix(FLOATS)).unwrap_or(path)
}

/// Replaces every operation that turns a quantised weight into 32-bit floats by a tensor of these. Returns their number.
pub(crate) fn dequantise(draft: &mut Draft, read: ReadQuantised<'_>) -> usize {
    let mut count = 0;
    for operation in draft.operations() {
        let OperationIr::Float(_, FloatOperationIr::Dequantize(operation)) = operation else { continue };
        let Some(Constant { source: Source::Entry(path), .. }) = draft.constant(&operation.input) else { continue };
        let Some(data) = read(path).filter(|_| operation.out.dtype == DType::F32) else { continue };
        let (path, shape) = (format!("{FIELD}.{FLOATS}{path}"), data.shape().to_vec());
        let floats =
            draft.make(path, DType::F32, shape, Box::new(move |sink| sink(dequantised(data.clone())?.as_bytes())));
        count += usize::from(draft.substitute(&operation.out, &floats));
    }
    draft.sweep();
    count
}
