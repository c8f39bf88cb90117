//! Tensors and containers of tensors as parts of a message.

use burn::tensor::Tensor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::schema::Schema;
use super::wire::{Reader, WireError, Writer};
use crate::pipeline::containers::{with_lists, with_maps};
use crate::tensor::kind::Kind;

/// A tensor, or a container of tensors, whose bytes are segments of a message.
pub trait Tensors: Sized {
    /// Writes it into a message.
    ///
    /// # Errors
    /// If a tensor cannot be read from its device.
    fn put(&self, writer: &mut Writer) -> Result<(), WireError>;

    /// Reads it from a message.
    ///
    /// # Errors
    /// If the message does not have it.
    fn take(reader: &mut Reader) -> Result<Self, WireError>;

    /// Its format.
    fn schema() -> Schema;
}

impl<const D: usize, K: Kind> Tensors for Tensor<D, K> {
    fn put(&self, writer: &mut Writer) -> Result<(), WireError> {
        writer.tensor(self)
    }

    fn take(reader: &mut Reader) -> Result<Self, WireError> {
        reader.tensor()
    }

    fn schema() -> Schema {
        Schema::Tensor { rank: D, kind: K::STORED }
    }
}

macro_rules! lists {
    ($($list:ty;)*) => {$(
        impl<T: Tensors> Tensors for $list {
            fn put(&self, writer: &mut Writer) -> Result<(), WireError> {
                writer.value(&self.len())?;
                self.iter().try_for_each(|item| item.put(writer))
            }

            fn take(reader: &mut Reader) -> Result<Self, WireError> {
                let len: usize = reader.value()?;
                (0..len).map(|_| T::take(reader)).collect()
            }

            fn schema() -> Schema {
                Schema::List(Box::new(T::schema()))
            }
        }
    )*};
}

with_lists!(lists);

impl<T: Tensors> Tensors for Option<T> {
    fn put(&self, writer: &mut Writer) -> Result<(), WireError> {
        writer.value(&self.is_some())?;
        self.iter().try_for_each(|item| item.put(writer))
    }

    fn take(reader: &mut Reader) -> Result<Self, WireError> {
        if reader.value()? { T::take(reader).map(Some) } else { Ok(None) }
    }

    fn schema() -> Schema {
        Schema::Optional(Box::new(T::schema()))
    }
}

impl<T: Tensors> Tensors for Box<T> {
    fn put(&self, writer: &mut Writer) -> Result<(), WireError> {
        (**self).put(writer)
    }

    fn take(reader: &mut Reader) -> Result<Self, WireError> {
        T::take(reader).map(Self::new)
    }

    fn schema() -> Schema {
        T::schema()
    }
}

impl<T: Tensors, const N: usize> Tensors for [T; N] {
    fn put(&self, writer: &mut Writer) -> Result<(), WireError> {
        self.iter().try_for_each(|item| item.put(writer))
    }

    fn take(reader: &mut Reader) -> Result<Self, WireError> {
        let items = (0..N).map(|_| T::take(reader)).collect::<Result<Vec<_>, _>>()?;
        items.try_into().map_err(|_| WireError::new(format!("{N} tensors are expected")))
    }

    fn schema() -> Schema {
        Schema::Array(Box::new(T::schema()), N)
    }
}

impl<T: Tensors, E: Serialize + DeserializeOwned> Tensors for Result<T, E> {
    fn put(&self, writer: &mut Writer) -> Result<(), WireError> {
        writer.value(&self.is_ok())?;
        match self {
            Ok(item) => item.put(writer),
            Err(error) => writer.value(error),
        }
    }

    fn take(reader: &mut Reader) -> Result<Self, WireError> {
        if reader.value()? { T::take(reader).map(Ok) } else { reader.value().map(Err) }
    }

    fn schema() -> Schema {
        Schema::fallible::<E>(T::schema())
    }
}

macro_rules! maps {
    ($([$($generics:tt)*] $map:ty;)*) => {$(
        impl<$($generics)*> Tensors for $map
        where
            K: Serialize + DeserializeOwned,
            V: Tensors,
            Self: FromIterator<(K, V)>,
        {
            fn put(&self, writer: &mut Writer) -> Result<(), WireError> {
                writer.value(&self.len())?;
                self.iter().try_for_each(|(key, item)| {
                    writer.value(key)?;
                    item.put(writer)
                })
            }

            fn take(reader: &mut Reader) -> Result<Self, WireError> {
                let len: usize = reader.value()?;
                (0..len).map(|_| Ok((reader.value()?, V::take(reader)?))).collect()
            }

            fn schema() -> Schema {
                Schema::Map { key: Box::new(Schema::value::<K>()), value: Box::new(V::schema()) }
            }
        }
    )*};
}

with_maps!(maps);

macro_rules! tuples {
    ($(($($name:ident $index:tt),*))*) => {$(
        impl<$($name: Tensors),*> Tensors for ($($name,)*) {
            fn put(&self, writer: &mut Writer) -> Result<(), WireError> {
                $(self.$index.put(writer)?;)*
                Ok(())
            }

            fn take(reader: &mut Reader) -> Result<Self, WireError> {
                Ok(($($name::take(reader)?,)*))
            }

            fn schema() -> Schema {
                Schema::Tuple(vec![$($name::schema()),*])
            }
        }
    )*};
}

tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
}
