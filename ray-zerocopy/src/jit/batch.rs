//! Calls of a graph or a TorchScript module that are put together.
//!
//! Rows are the slices along the first dimension. In a graph, that is a symbol, and the graph says
//! which inputs and outputs have it. A module does not say, so all of its tensors have rows, except
//! those without dimensions.

use burn::tensor::{Bytes, Device, TensorData};

use super::pipeline::Graph;
use super::program::ProgramKind;
use crate::engine::call::batch::message::{join, take_apart};
use crate::engine::served::MethodError;
use crate::error::call::CallPart;
use crate::error::graph::ReplayError;
use crate::remote::wire::{Reader, WireError, Writer};
use crate::tensor::value::{Value, Values};

/// The rows of a call's inputs.
pub(super) struct CallRows {
    pub(super) rows: usize,
    /// What the calls of a batch have in common: the method, the inputs without rows, and the shapes
    /// of the rows.
    pub(super) key: Vec<u8>,
}

fn refused(reason: String) -> ReplayError {
    ReplayError::NotBatchable { reason }
}

/// Counts the rows of a call.
///
/// # Errors
/// If calls of this graph or module cannot be put together.
pub(super) fn rows_of(kind: &ProgramKind, method: &str, inputs: &Values) -> Result<CallRows, ReplayError> {
    let mut key = method.as_bytes().to_vec();
    let mut rows = None;
    for (name, value) in inputs.iter() {
        key.extend(name.as_bytes());
        let shape = value.shape();
        let unreadable = |reason| refused(format!("input `{name}` cannot be read: {reason}"));
        if !kind.has_rows(name, &shape)? {
            key.extend(format!("{:?}{shape:?}", value.dtype()).into_bytes());
            key.extend(value.data().map_err(unreadable)?.as_bytes());
            continue;
        }
        key.extend(format!("{:?}{:?}", value.dtype(), &shape[1..]).into_bytes());
        let found = *rows.get_or_insert(shape[0]);
        if found != shape[0] {
            return Err(refused(format!("input `{name}` has {} rows, and another input has {found}", shape[0])));
        }
    }
    let rows = rows.ok_or_else(|| refused("none of its inputs has rows".to_owned()))?;
    Ok(CallRows { rows, key })
}

/// Runs a batch of calls. Called in the worker.
pub(super) fn serve(graph: &mut Graph, reader: &mut Reader, writer: &mut Writer) -> Result<(), WireError> {
    let calls = take_apart(reader.take_message()).map_err(WireError::new)?;
    let device = reader.device().clone();
    let mut batch: Option<(String, Vec<(String, Joined)>)> = None;
    let mut rows = Vec::with_capacity(calls.len());
    for call in calls {
        let call = call.map_err(|error| WireError::new(format!("{error:?}")))?;
        let mut reader = Reader::new(call, device.clone());
        let method: String = reader.value()?;
        let inputs = take_data(&mut reader)?;
        let (_, joined) = batch.get_or_insert_with(|| {
            let empty = inputs.iter().map(|(name, data)| (name.clone(), Joined::like(graph.kind(), name, data)));
            (method, empty.collect())
        });
        rows.push(0);
        for ((_, joined), (name, data)) in joined.iter_mut().zip(inputs) {
            if let (Some(count), Some(last)) = (joined.add(&name, data)?, rows.last_mut()) {
                *last = count;
            }
        }
    }
    let Some((method, inputs)) = batch else { return Err(WireError::new("a batch without calls".to_owned())) };
    let inputs: Result<Values, WireError> =
        inputs.into_iter().map(|(name, joined)| Ok((name, joined.value(&device)?))).collect();
    let outputs = graph.loaded()?.call(&method, inputs?)?;
    let parts = divide(&outputs, &rows)?;
    let write = |values: Vec<(String, TensorData)>| {
        let mut writer = Writer::default();
        let names: Vec<_> = values.iter().map(|(name, _)| name.as_str()).collect();
        let put = writer.value(&names);
        let put = put.and_then(|()| values.into_iter().try_for_each(|(_, data)| writer.data(data)));
        let failed = |error: WireError| MethodError::Wire {
            what: CallPart::Result.name().to_owned(),
            reason: error.to_string(),
        };
        put.map(|()| writer.finish()).map_err(failed)
    };
    writer.replace(join(parts.into_iter().map(write).collect()).map_err(WireError::new)?);
    Ok(())
}

/// Reads the inputs of a call, without making tensors of them.
fn take_data(reader: &mut Reader) -> Result<Vec<(String, TensorData)>, WireError> {
    let names: Vec<String> = reader.value()?;
    names.into_iter().map(|name| Ok((name, reader.data()?))).collect()
}

/// One input of a batch.
enum Joined {
    /// The same for all calls.
    Same(TensorData),
    /// The rows of all calls. The elements of a tensor are in C order, so rows are joined by joining
    /// their bytes.
    Rows { rows: usize, row: Vec<usize>, dtype: burn::tensor::DType, bytes: Vec<u8> },
}

impl Joined {
    /// An input without rows yet.
    fn like(kind: &ProgramKind, name: &str, data: &TensorData) -> Self {
        let shape = data.shape().to_vec();
        if kind.has_rows(name, &shape).unwrap_or(false) {
            Self::Rows { rows: 0, row: shape[1..].to_vec(), dtype: data.dtype(), bytes: Vec::new() }
        } else {
            Self::Same(data.clone())
        }
    }

    /// Adds the input of a call. Returns its number of rows, if it has rows.
    fn add(&mut self, name: &str, data: TensorData) -> Result<Option<usize>, WireError> {
        let Self::Rows { rows, row, dtype, bytes } = self else { return Ok(None) };
        let shape = data.shape().to_vec();
        if data.dtype() != *dtype || shape.get(1..) != Some(&row[..]) {
            return Err(WireError::new(format!("input `{name}` of a batch has rows of different shapes")));
        }
        *rows += shape[0];
        bytes.extend(data.as_bytes());
        Ok(Some(shape[0]))
    }

    fn value(self, device: &Device) -> Result<Value, WireError> {
        let data = match self {
            Self::Same(data) => data,
            Self::Rows { rows, row, dtype, bytes } => {
                let shape: Vec<_> = std::iter::once(rows).chain(row).collect();
                TensorData::from_bytes(Bytes::from_bytes_vec(bytes), shape, dtype)
            }
        };
        Value::from_data(data, device).map_err(WireError::new)
    }
}

/// Divides outputs among calls with these numbers of rows.
fn divide(outputs: &Values, rows: &[usize]) -> Result<Vec<Vec<(String, TensorData)>>, WireError> {
    let total: usize = rows.iter().sum();
    let mut parts = vec![Vec::new(); rows.len()];
    for (name, value) in outputs.iter() {
        let data = value.data().map_err(WireError::new)?;
        let shape = data.shape().to_vec();
        if shape.first() != Some(&total) {
            let found = value.to_string();
            return Err(WireError::new(format!("output `{name}` is {found}, and has to have {total} rows")));
        }
        let row_bytes = data.as_bytes().len().checked_div(total).unwrap_or(0);
        let mut start = 0;
        for (part, &count) in parts.iter_mut().zip(rows) {
            let end = start + count * row_bytes;
            let bytes = Bytes::from_bytes_vec(data.as_bytes()[start..end].to_vec());
            let shape: Vec<_> = std::iter::once(count).chain(shape[1..].iter().copied()).collect();
            part.push((name.to_owned(), TensorData::from_bytes(bytes, shape, data.dtype())));
            start = end;
        }
    }
    Ok(parts)
}
