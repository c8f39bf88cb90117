//! Rejects values that MessagePack cannot distinguish: `None`, `()` and a `Some` of these are all
//! written as nil.
//!
//! A `Some(None)` would silently decode as `None`. So every value is walked before it is written,
//! and a value that contains a `Some` of nil is rejected.

use std::fmt;

use serde::ser::{self, Serialize, Serializer};

/// Whether a value serialises to nil.
#[derive(PartialEq, Eq)]
enum Written {
    Nil,
    Other,
}

/// Rejects values that contain a `Some` of nil.
pub(super) fn check<T: Serialize + ?Sized>(value: &T) -> Result<(), String> {
    value.serialize(Probe).map(drop).map_err(|Refused(reason)| reason)
}

#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

#[derive(Clone, Copy)]
struct Probe;

macro_rules! other {
    ($($name:ident($($argument:ty),*);)*) => {$(
        fn $name(self, $(_: $argument),*) -> Result<Written, Refused> {
            Ok(Written::Other)
        }
    )*};
}

macro_rules! compound {
    ($($name:ident -> $kind:ident($($argument:ty),*);)*) => {$(
        fn $name(self, $(_: $argument),*) -> Result<Self::$kind, Refused> {
            Ok(self)
        }
    )*};
}

impl Serializer for Probe {
    type Ok = Written;
    type Error = Refused;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    other! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_unit_variant(&'static str, u32, &'static str);
    }

    fn serialize_none(self) -> Result<Written, Refused> {
        Ok(Written::Nil)
    }

    fn serialize_unit(self) -> Result<Written, Refused> {
        Ok(Written::Nil)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Written, Refused> {
        Ok(Written::Nil)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Written, Refused> {
        match value.serialize(self)? {
            Written::Nil => Err(Refused(format!(
                "a `Some` of `{}` holds nothing, and would come back as `None`; say it with an enum",
                std::any::type_name::<T>()
            ))),
            Written::Other => Ok(Written::Other),
        }
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Written, Refused> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Written, Refused> {
        value.serialize(self).map(|_| Written::Other)
    }

    compound! {
        serialize_seq -> SerializeSeq(Option<usize>);
        serialize_tuple -> SerializeTuple(usize);
        serialize_tuple_struct -> SerializeTupleStruct(&'static str, usize);
        serialize_tuple_variant -> SerializeTupleVariant(&'static str, u32, &'static str, usize);
        serialize_map -> SerializeMap(Option<usize>);
        serialize_struct -> SerializeStruct(&'static str, usize);
        serialize_struct_variant -> SerializeStructVariant(&'static str, u32, &'static str, usize);
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

macro_rules! elements {
    ($($trait:ident::$name:ident;)*) => {$(
        impl ser::$trait for Probe {
            type Ok = Written;
            type Error = Refused;

            fn $name<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
                value.serialize(*self).map(drop)
            }

            fn end(self) -> Result<Written, Refused> {
                Ok(Written::Other)
            }
        }
    )*};
}

elements! {
    SerializeSeq::serialize_element;
    SerializeTuple::serialize_element;
    SerializeTupleStruct::serialize_field;
    SerializeTupleVariant::serialize_field;
}

impl ser::SerializeMap for Probe {
    type Ok = Written;
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        key.serialize(*self).map(drop)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        value.serialize(*self).map(drop)
    }

    fn end(self) -> Result<Written, Refused> {
        Ok(Written::Other)
    }
}

macro_rules! fields {
    ($($trait:ident)*) => {$(
        impl ser::$trait for Probe {
            type Ok = Written;
            type Error = Refused;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Result<(), Refused> {
                value.serialize(*self).map(drop)
            }

            fn end(self) -> Result<Written, Refused> {
                Ok(Written::Other)
            }
        }
    )*};
}

fields!(SerializeStruct SerializeStructVariant);

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn collapsing_options_are_refused_at_any_depth() {
        let error = check(&vec![("a", Some(None::<u8>))]).unwrap_err();
        assert!(error.starts_with("a `Some` of `core::option::Option<u8>` holds nothing"), "{error}");
        assert!(check(&Some(())).is_err());
        assert!(check(&Ok::<_, ()>(Some(Some(())))).is_err());
    }

    #[test]
    fn values_that_round_trip_are_accepted() {
        check(&(None::<Option<u8>>, Some(Some(7)), (), [Some("x"), None])).unwrap();
        check(&serde_json::json!({"a": null, "b": [1, {"c": false}]})).unwrap();
        check(&Some(Err::<(), ()>(()))).unwrap();
    }
}
