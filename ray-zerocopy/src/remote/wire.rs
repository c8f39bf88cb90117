//! Arguments and results as messages: tensors are segments of a message, everything else is
//! serialised.

use crate::tensor::host;
use std::collections::VecDeque;
use std::fmt;

use burn::backend::DispatchTensor;
use burn::tensor::{Bytes, DType, Device, Tensor, TensorData};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::schema::Schema;
use super::wire_tensors::Tensors;
use crate::codec;
use crate::engine::message::{Incoming, Outgoing};
use crate::engine::served::ItemSink;
use crate::error::graph::ReplayError;
use crate::pipeline::autoref::autoref_ladder;
use crate::tensor::kind::Kind;

/// The reason why a value could not be sent.
#[derive(Debug)]
pub struct WireError {
    pub(crate) reason: String,
    /// The error of a graph, if it is one. The caller gets it as `CallError::Graph`.
    pub(crate) graph: Option<ReplayError>,
}

impl WireError {
    pub(crate) fn new(reason: String) -> Self {
        Self { reason, graph: None }
    }
}

impl From<ReplayError> for WireError {
    fn from(error: ReplayError) -> Self {
        Self { reason: error.to_string(), graph: Some(error) }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Writes values into a message.
#[derive(Default)]
pub struct Writer {
    values: Vec<u8>,
    tensors: Vec<Bytes>,
    /// Tensors as they are, for a caller in this process that asked for them.
    kept: Option<Vec<DispatchTensor>>,
    /// The whole message, if it was not written here.
    message: Option<Outgoing>,
    /// Takes the items of a stream.
    items: Option<ItemSink>,
}

impl Writer {
    /// A writer that keeps tensors as they are, on their devices, without reading their elements.
    pub(crate) fn keeping() -> Self {
        Self { kept: Some(Vec::new()), ..Self::default() }
    }

    /// The writer for the result of a method, whose items go to `items` if it returns a stream.
    pub(super) fn with_items(items: Option<ItemSink>) -> Self {
        Self { items, ..Self::default() }
    }

    /// Sends an item of a stream. Returns `false` if no reader takes more.
    ///
    /// # Errors
    /// If the item could not be sent.
    pub(super) fn item(&mut self, item: Outgoing) -> Result<bool, WireError> {
        let no_reader = || WireError::new("the caller does not take a stream".to_owned());
        let items = self.items.as_mut().ok_or_else(no_reader)?;
        items(item).map_err(WireError::new)
    }

    /// The tensors that were kept, in order.
    pub(crate) fn kept(self) -> Vec<DispatchTensor> {
        self.kept.unwrap_or_default()
    }

    /// Appends a value.
    ///
    /// # Errors
    /// If serde cannot write it.
    pub fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), WireError> {
        let bytes = codec::encode(value).map_err(WireError::new)?;
        self.values.extend((bytes.len() as u64).to_le_bytes());
        self.values.extend(bytes);
        Ok(())
    }

    pub(super) fn tensor<const D: usize, K: Kind>(&mut self, tensor: &Tensor<D, K>) -> Result<(), WireError> {
        let (dtype, shape) = (host::dtype(tensor), tensor.dims().to_vec());
        let header = TensorHeader { dtype, shape, segment: self.tensors.len() + 1 };
        self.value(&header)?;
        match &mut self.kept {
            Some(kept) => kept.push(tensor.clone().into_dispatch()),
            None => self.tensors.push(host::bytes(tensor).map_err(WireError::new)?),
        }
        Ok(())
    }

    /// Appends a tensor of any rank.
    pub(crate) fn data(&mut self, data: TensorData) -> Result<(), WireError> {
        let (shape, dtype) = (data.shape().to_vec(), data.dtype());
        self.value(&TensorHeader { dtype, shape, segment: self.tensors.len() + 1 })?;
        self.tensors.push(data.into_bytes());
        Ok(())
    }

    /// Makes `message` the whole message.
    pub(crate) fn replace(&mut self, message: Outgoing) {
        self.message = Some(message);
    }

    pub(crate) fn finish(self) -> Outgoing {
        if let Some(message) = self.message {
            return message;
        }
        let values = Bytes::from_bytes_vec(self.values);
        Outgoing { segments: std::iter::once(values).chain(self.tensors).collect() }
    }
}

/// Reads the values of a message, in the order in which they were written.
pub struct Reader {
    message: Incoming,
    at: usize,
    device: Device,
    /// Tensors of this process, to be returned as the next ones.
    given: VecDeque<DispatchTensor>,
}

impl Reader {
    /// Tensors are made on `device`.
    pub(crate) fn new(message: Incoming, device: Device) -> Self {
        Self { message, at: 0, device, given: VecDeque::new() }
    }

    /// A reader of values, with tensors of this process for each tensor that is read.
    pub(crate) fn given(values: Vec<u8>, given: VecDeque<DispatchTensor>, device: Device) -> Self {
        let message = Incoming::from_here(vec![bytes::Bytes::from(values)]);
        Self { given, ..Self::new(message, device) }
    }

    /// Takes the whole message.
    pub(crate) fn take_message(&mut self) -> Incoming {
        std::mem::take(&mut self.message)
    }

    /// The device of the tensors that it makes.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Reads a value with tensors in host memory.
    pub(super) fn in_host_memory<T>(&mut self, take: fn(&mut Self) -> Result<T, WireError>) -> Result<T, WireError> {
        let device = std::mem::replace(&mut self.device, Device::flex());
        let value = take(self);
        self.device = device;
        value
    }

    /// The position of the next value, or of the one that could not be read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The next value.
    ///
    /// # Errors
    /// If the message has no such value.
    pub fn value<T: DeserializeOwned>(&mut self) -> Result<T, WireError> {
        let short = || WireError::new("the message ends too early".to_owned());
        let values = self.message.segments.first().ok_or_else(short)?;
        let start = self.at.checked_add(8).ok_or_else(short)?;
        let len = values.get(self.at..start).and_then(|bytes| bytes.try_into().ok()).ok_or_else(short)?;
        let end = usize::try_from(u64::from_le_bytes(len)).ok().and_then(|len| start.checked_add(len));
        let end = end.ok_or_else(short)?;
        let value = codec::decode(values.get(start..end).ok_or_else(short)?).map_err(WireError::new)?;
        self.at = end;
        Ok(value)
    }

    pub(super) fn tensor<const D: usize, K: Kind>(&mut self) -> Result<Tensor<D, K>, WireError> {
        let start = self.at;
        if let Some(given) = self.given.pop_front() {
            let value = crate::tensor::value::Value::from_dispatch(given);
            let wrong = || WireError::new(format!("it is {value}, and a {} tensor of rank {D} is expected", K::STORED));
            return value.tensor().ok_or_else(wrong);
        }
        let TensorHeader { dtype, shape, segment } = self.value()?;
        let bytes = self.message.tensor(segment, dtype.size());
        let bytes = bytes.ok_or_else(|| WireError::new("the message does not have the tensor's bytes".to_owned()));
        let tensor = bytes.and_then(|bytes| host::tensor(bytes, &shape, dtype, &self.device).map_err(WireError::new));
        if tensor.is_err() {
            self.at = start;
        }
        tensor
    }
}

impl Reader {
    /// Returns the next tensor, of any rank. Its bytes stay in the message's memory.
    ///
    /// # Errors
    /// If there is no further tensor, or the number of its bytes does not fit its shape.
    pub(crate) fn data(&mut self) -> Result<TensorData, WireError> {
        let TensorHeader { dtype, shape, segment } = self.value()?;
        let bytes = self.message.tensor(segment, dtype.size());
        let bytes = bytes.ok_or_else(|| WireError::new("the message does not have the tensor's bytes".to_owned()))?;
        crate::tensor::dtype::fits(dtype, &shape, bytes.len()).map_err(WireError::new)?;
        Ok(TensorData::from_bytes(bytes, shape, dtype))
    }
}

/// A tensor among the values of a message.
#[derive(Serialize, Deserialize)]
pub(super) struct TensorHeader {
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    pub(super) segment: usize,
}

/// How a value of type `T` is sent.
pub struct WireOps<T> {
    /// Writes it into a message.
    pub(super) put: fn(&T, &mut Writer) -> Result<(), WireError>,
    /// Reads it from a message.
    pub(super) take: fn(&mut Reader) -> Result<T, WireError>,
    /// The format, for callers that do not know `T`.
    pub(super) schema: fn() -> Schema,
}

impl<T: Serialize + DeserializeOwned> WireOps<T> {
    fn serde(schema: fn() -> Schema) -> Self {
        Self { put: |value, writer| writer.value(value), take: Reader::value, schema }
    }
}

autoref_ladder! {
    /// The type `T` of an argument or result, on which the compiler looks up how it is sent.
    pub struct WireKind;

    /// Tensors, and containers of tensors: their bytes are sent through shared memory, to the
    /// receiver's device.
    AsTensors: [T: Tensors] T => WireOps<T> = WireOps { put: T::put, take: T::take, schema: T::schema };

    /// A result without tensors: serde. A caller that does not know the type has to know that it
    /// may be an error, so the schema is another.
    AsResult: [T: Serialize + DeserializeOwned, E: Serialize + DeserializeOwned] Result<T, E> => WireOps<Result<T, E>> =
        WireOps::serde(|| Schema::fallible::<E>(Schema::value::<T>()));

    /// Everything else: serde.
    AsValue: [T: Serialize + DeserializeOwned] T => WireOps<T> = WireOps::serde(Schema::value::<T>);

    /// None of these. The output is not [`Remotable`], so the code does not compile.
    AsUnsendable: [T] T => T = unreachable!("the type is not `Remotable`");
}

/// What [`WireKind`] finds for an argument or result that can be sent.
///
/// It is looked up on the value's own type if nothing is found, so that the error names that type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent between processes",
    label = "neither tensors nor `Serialize + DeserializeOwned`",
    note = "arguments and results of remote methods are tensors, containers of tensors, or anything that is `Serialize + DeserializeOwned`",
    note = "the error type of a `Result` has to be so too: return `Result<T, String>`, or derive serde on the error",
    note = "or leave the method out: `#[remote(skip)]`"
)]
pub trait Remotable {
    /// How the value is sent.
    type Wire;
    /// See [`Self::Wire`].
    fn wire(self) -> Self::Wire;
}

#[diagnostic::do_not_recommend]
impl<T> Remotable for WireOps<T> {
    type Wire = Self;
    fn wire(self) -> Self {
        self
    }
}
