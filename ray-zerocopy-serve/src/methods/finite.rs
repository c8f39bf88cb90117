//! Numbers that JSON does not have.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Refuses a value in MessagePack that contains not-a-number or an infinity. As JSON, serde writes them as null.
pub(super) fn check(packed: &[u8]) -> Result<(), String> {
    rmp_serde::from_slice::<Finite>(packed).map(|Finite| ()).map_err(|error| error.to_string())
}

/// A value of any form without not-a-number and infinities. It reads another one as an error, and keeps nothing.
struct Finite;

impl<'de> Deserialize<'de> for Finite {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

macro_rules! have_no_floats {
    ($($name:ident($kind:ty);)*) => {$(
        fn $name<E>(self, _: $kind) -> Result<Self, E> {
            Ok(self)
        }
    )*};
}

impl<'de> Visitor<'de> for Finite {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers that JSON has")
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self, E> {
        if number.is_finite() {
            Ok(self)
        } else {
            Err(E::custom(format!("it contains {number}, which JSON does not have")))
        }
    }

    have_no_floats! {
        visit_bool(bool);
        visit_i64(i64);
        visit_u64(u64);
        visit_str(&str);
        visit_bytes(&[u8]);
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_none<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
        // Extensions of MessagePack, which serde uses for 128-bit numbers only.
        IgnoredAny::deserialize(deserializer)?;
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        while entries.next_entry::<IgnoredAny, Self>()?.is_some() {}
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    fn read(value: impl serde::Serialize) -> Result<(), String> {
        super::check(&rmp_serde::to_vec_named(&value).unwrap())
    }

    #[test]
    fn finite_values_of_any_form_are_read() {
        let value =
            (true, 1_u8, -2_i64, 1.5_f32, "text", Some(2.5_f64), None::<f32>, vec![()], 'c', u64::MAX, [0_u8; 3]);
        read(value).unwrap();
        read(BTreeMap::from([("key", vec![1.0_f32])])).unwrap();
        read((i128::MAX, u128::MAX)).unwrap();
    }

    #[test]
    fn numbers_that_json_lacks_are_errors() {
        for error in [read(f32::NAN), read(vec![1.0, f64::NAN]), read((1, Some(f64::NAN)))] {
            assert_eq!(error.unwrap_err(), "it contains NaN, which JSON does not have");
        }
        let nested = BTreeMap::from([("key", vec![1.0, f32::NEG_INFINITY])]);
        assert_eq!(read(nested).unwrap_err(), "it contains -inf, which JSON does not have");
    }
}
