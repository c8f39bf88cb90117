//! Calls on a pipeline of this process, for callers that do not know the types at compile time.
//!
//! Arguments are written one by one as a [`Schema`](super::schema::Schema) says, and results are
//! read in the same way. Arguments are not trusted: one that does not fit is an error with its
//! position.

use burn::tensor::{DType, Device, TensorData};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::hosted::Handler;
use super::wire::{Reader, TensorHeader, WireError, Writer};
use crate::engine::message::{Incoming, shared};
use crate::{codec, panics};

/// The arguments of a call.
#[derive(Default)]
pub struct Arguments {
    values: Vec<u8>,
    tensors: Vec<bytes::Bytes>,
}

impl Arguments {
    /// The position at which the next value begins, to compare with that of [`Failed::Argument`].
    pub fn position(&self) -> usize {
        self.values.len()
    }

    /// Appends a value that is already MessagePack.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.values.extend((bytes.len() as u64).to_le_bytes());
        self.values.extend(bytes);
    }

    /// Appends a value.
    ///
    /// # Errors
    /// If serde cannot write it.
    pub fn value<T: Serialize>(&mut self, value: &T) -> Result<(), WireError> {
        codec::encode(value).map(|bytes| self.raw(&bytes)).map_err(WireError::new)
    }

    /// Appends a tensor. Its bytes are not copied if their address is a multiple of an element's
    /// size.
    ///
    /// # Errors
    /// Never: serde can write every part of a tensor's header.
    pub fn tensor(&mut self, dtype: DType, shape: Vec<usize>, bytes: bytes::Bytes) -> Result<(), WireError> {
        self.tensors.push(bytes);
        self.value(&TensorHeader { dtype, shape, segment: self.tensors.len() })
    }

    pub(super) fn reader(self, device: &Device) -> Reader {
        let values = bytes::Bytes::from(self.values);
        let message = Incoming::from_here(std::iter::once(values).chain(self.tensors).collect());
        Reader::new(message, device.clone())
    }
}

/// The result of a call, to be read as a [`Schema`](super::schema::Schema) says.
pub struct Results {
    values: bytes::Bytes,
    tensors: Vec<bytes::Bytes>,
    at: usize,
}

/// A tensor in a result.
pub struct ResultTensor {
    /// The type of its elements.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, in C order. They may be the pipeline's own memory, so they must not be written
    /// to.
    pub bytes: bytes::Bytes,
}

impl From<TensorData> for ResultTensor {
    fn from(data: TensorData) -> Self {
        let (shape, dtype) = (data.shape().to_vec(), data.dtype());
        Self { dtype, shape, bytes: shared(data.into_bytes()) }
    }
}

impl Results {
    /// The result in a message.
    pub(super) fn received(message: Incoming) -> Self {
        let mut segments = message.segments.into_iter();
        Self { values: segments.next().unwrap_or_default(), tensors: segments.collect(), at: 0 }
    }

    /// Returns the next value, as MessagePack.
    ///
    /// # Errors
    /// If there is no further value.
    pub fn raw(&mut self) -> Result<&[u8], WireError> {
        let short = || WireError::new("the result ends too early".to_owned());
        let start = self.at.checked_add(8).ok_or_else(short)?;
        let len = self.values.get(self.at..start).and_then(|bytes| bytes.try_into().ok()).ok_or_else(short)?;
        let end = usize::try_from(u64::from_le_bytes(len)).ok().and_then(|len| start.checked_add(len));
        let end = end.ok_or_else(short)?;
        let value = self.values.get(start..end).ok_or_else(short)?;
        self.at = end;
        Ok(value)
    }

    /// Returns the next value.
    ///
    /// # Errors
    /// If there is no further value, or it has another type.
    pub fn value<T: DeserializeOwned>(&mut self) -> Result<T, WireError> {
        codec::decode(self.raw()?).map_err(WireError::new)
    }

    /// Returns the next tensor.
    ///
    /// # Errors
    /// If there is no further tensor.
    pub fn tensor(&mut self) -> Result<ResultTensor, WireError> {
        let TensorHeader { dtype, shape, segment } = self.value()?;
        let bytes = segment.checked_sub(1).and_then(|index| self.tensors.get(index));
        let bytes = bytes.ok_or_else(|| WireError::new("the result does not have the tensor's bytes".to_owned()))?;
        Ok(ResultTensor { dtype, shape, bytes: bytes.clone() })
    }
}

/// Why a call has no result.
#[derive(Debug)]
pub enum Failed {
    /// An argument is not what the method takes.
    Argument {
        /// The position of the value.
        at: usize,
        /// The reason.
        reason: String,
    },
    /// The result cannot be serialised.
    Answer(String),
    /// The method panicked. The pipeline may be half-changed, if the method takes `&mut self`.
    Panicked(String),
}

/// Runs a method.
///
/// # Errors
/// If the arguments are not those of the method, or the method panics.
pub fn call<P>(
    handler: Handler<P>,
    pipeline: &mut P,
    device: &Device,
    arguments: Arguments,
) -> Result<Results, Failed> {
    crate::os::fork::adopt();
    let end = arguments.position();
    let mut reader = arguments.reader(device);
    let mut writer = Writer::default();
    match panics::caught(|| handler(pipeline, &mut reader, &mut writer)) {
        Ok(Ok(())) => Ok(Results::received(writer.finish().received())),
        Ok(Err(WireError { reason, .. })) if reader.position() < end => {
            Err(Failed::Argument { at: reader.position(), reason })
        }
        Ok(Err(WireError { reason, .. })) => Err(Failed::Answer(reason)),
        Err(panic) => Err(Failed::Panicked(panic)),
    }
}

/// Makes a pipeline from arguments. `make` reads them in order with [`Reader::value`].
///
/// # Errors
/// If the arguments are not those that `make` reads, or it panics.
pub fn make<P>(arguments: Arguments, make: impl FnOnce(&mut Reader) -> Result<P, WireError>) -> Result<P, Failed> {
    crate::os::fork::adopt();
    let mut reader = arguments.reader(&Device::flex());
    match panics::caught(|| make(&mut reader)) {
        Ok(made) => made.map_err(|WireError { reason, .. }| Failed::Argument { at: reader.position(), reason }),
        Err(panic) => Err(Failed::Panicked(panic)),
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::{DType, Device, Tensor};

    use super::super::schema::Schema;
    use super::Arguments;
    use super::Failed;
    use super::call;
    use super::make;
    use crate::remote::Remote;
    use crate::tensor::align::aligned;

    #[derive(ray_zerocopy_derive::Pipeline)]
    #[pipeline(init = Model::new)]
    struct Model {
        head: Linear,
        calls: u32,
    }

    #[ray_zerocopy::remote]
    impl Model {
        pub fn new(device: &Device) -> Self {
            Self { head: LinearConfig::new(4, 2).init(device), calls: 0 }
        }

        /// Scores.
        ///
        /// One row an input.
        pub fn predict(&self, rows: Tensor<2>, scale: f32) -> Tensor<2> {
            self.head.forward(rows) * scale
        }

        pub fn same(&self, rows: Tensor<2>) -> Tensor<2> {
            rows
        }

        pub fn count(&mut self, by: u32) -> Result<u32, String> {
            self.calls += by;
            if self.calls > 9 { Err("too many".to_owned()) } else { Ok(self.calls) }
        }

        pub fn clash(&self) {
            panic!("no such {}", "thing");
        }

        pub fn rare(&self) -> u8
        where
            String: Clone,
        {
            0
        }
    }

    fn rows() -> bytes::Bytes {
        aligned(bytemuck::cast_slice(&[1.0_f32; 8]))
    }

    #[test]
    fn method_table_matches_the_source() {
        let methods = Model::methods();
        let names: Vec<_> = methods.iter().map(|method| (method.name, method.exclusive)).collect();
        assert!(methods.iter().all(|method| !method.is_stream));
        assert_eq!(names, [("predict", false), ("same", false), ("count", true), ("clash", false)]);
        assert_eq!((methods[0].doc, methods[1].doc), ("Scores.\n\nOne row an input.", ""));
        let parameters: Vec<_> = methods[0].parameters.iter().map(|parameter| parameter.name).collect();
        assert_eq!(parameters, ["rows", "scale"]);
        assert_eq!(methods[0].parameters[1].schema, Schema::Value { ty: "f32" });
        assert!(matches!(&methods[2].result, Schema::Fallible { ok, .. } if **ok == Schema::Value { ty: "u32" }));
    }

    #[test]
    fn methods_run_by_their_entries() {
        let device = Device::flex();
        let mut model = Model::new(&device);
        let methods = Model::methods();
        let mut arguments = Arguments::default();
        arguments.tensor(DType::F32, vec![2, 4], rows()).unwrap();
        arguments.value(&2.0).unwrap();
        let mut results = call(methods[0].handler, &mut model, &device, arguments).ok().unwrap();
        let found = results.tensor().unwrap();
        let expected = model.predict(Tensor::ones([2, 4], &device), 2.0).into_data();
        assert_eq!((found.dtype, found.shape), (DType::F32, vec![2, 2]));
        assert_eq!(found.bytes, expected.as_bytes());
        assert!(results.raw().is_err(), "there is no more");
    }

    #[test]
    fn tensor_bytes_are_passed_without_a_copy() {
        let device = Device::flex();
        for offset in [0, 4] {
            let (bytes, mut arguments) = (rows(), Arguments::default());
            let bytes = bytes.slice(offset..offset + 16);
            arguments.tensor(DType::F32, vec![1, 4], bytes.clone()).unwrap();
            let mut model = Model::new(&device);
            let mut results = call(Model::methods()[1].handler, &mut model, &device, arguments).ok().unwrap();
            assert_eq!(
                results.tensor().unwrap().bytes.as_ptr(),
                bytes.as_ptr(),
                "{offset} bytes behind a multiple of 64"
            );
        }
    }

    #[test]
    fn mismatched_argument_error_has_its_position() {
        let device = Device::flex();
        let mut model = Model::new(&device);
        let predict = Model::methods()[0].handler;
        let mut failed = |write: &dyn Fn(&mut Arguments) -> usize| {
            let mut arguments = Arguments::default();
            let at = write(&mut arguments);
            match call(predict, &mut model, &device, arguments).err() {
                Some(Failed::Argument { at: found, reason }) => assert_eq!(found, at, "{reason}"),
                other => panic!("{other:?}"),
            }
        };
        // Another rank, another kind, too few bytes, another value, none.
        failed(&|arguments| {
            arguments.tensor(DType::F32, vec![8], rows()).unwrap();
            0
        });
        failed(&|arguments| {
            arguments.tensor(DType::I32, vec![2, 4], rows()).unwrap();
            0
        });
        failed(&|arguments| {
            arguments.tensor(DType::F32, vec![3, 4], rows()).unwrap();
            0
        });
        failed(&|arguments| {
            arguments.tensor(DType::F32, vec![2, 4], rows()).unwrap();
            let at = arguments.position();
            arguments.value(&"two").unwrap();
            at
        });
    }

    #[test]
    fn method_errors_and_panics_are_distinguished() {
        let device = Device::flex();
        let mut model = Model::new(&device);
        let methods = Model::methods();
        let mut arguments = Arguments::default();
        arguments.value(&10).unwrap();
        let mut results = call(methods[2].handler, &mut model, &device, arguments).ok().unwrap();
        assert_eq!(results.value::<Result<u32, String>>().unwrap(), Err("too many".to_owned()));
        match call(methods[3].handler, &mut model, &device, Arguments::default()).err() {
            Some(Failed::Panicked(message)) => assert!(message.starts_with("no such thing ("), "{message}"),
            other => panic!("{other:?}"),
        }
        let mut arguments = Arguments::default();
        arguments.value(&"x").unwrap();
        assert!(matches!(make(arguments, |reader| reader.value::<u8>()), Err(Failed::Argument { at: 0, .. })));
    }
}
