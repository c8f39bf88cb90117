//! Copying a value as a whole: serialised into the arena, and out of it in every worker.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;

/// Stands for a container of type `T`.
pub struct Whole<T: ?Sized>(PhantomData<fn() -> Box<T>>);

impl<T: ?Sized> Whole<T> {
    /// The only value.
    pub const NEW: Self = Self(PhantomData);
}

/// How a value of type `T` is serialised.
pub struct CopyOps<T> {
    pub(super) encode: fn(&T) -> Result<Vec<u8>, String>,
    pub(super) decode: fn(&[u8]) -> Result<T, String>,
}

impl<T: Serialize + DeserializeOwned> CopyOps<T> {
    pub(super) fn of() -> Self {
        Self { encode, decode: codec::decode }
    }
}

/// The container is serde: it can be copied whole.
pub trait IsSerde<T> {
    /// How, if it can.
    fn copy(&self) -> Option<CopyOps<T>>;
}

impl<T: Serialize + DeserializeOwned> IsSerde<T> for &Whole<T> {
    fn copy(&self) -> Option<CopyOps<T>> {
        Some(CopyOps::of())
    }
}

/// The container is not serde: it is walked.
pub trait IsNotSerde<T> {
    /// Never.
    fn copy(&self) -> Option<CopyOps<T>>;
}

impl<T> IsNotSerde<T> for Whole<T> {
    fn copy(&self) -> Option<CopyOps<T>> {
        None
    }
}

/// Serialises, and makes sure that the value comes back: better an error here than in a worker.
fn encode<T: Serialize + DeserializeOwned>(value: &T) -> Result<Vec<u8>, String> {
    let bytes = codec::encode(value)?;
    let back: T = codec::decode(&bytes).map_err(|reason| format!("it does not come back from its bytes: {reason}"))?;
    let again = codec::encode(&back)?;
    // Hash maps come back in another order: the same bytes, in any order, is the same value.
    match histogram(&bytes) == histogram(&again) {
        true => Ok(bytes),
        false => {
            Err("it comes back from its bytes as another value; are `Serialize` and `Deserialize` at odds?".into())
        }
    }
}

fn histogram(bytes: &[u8]) -> [usize; 256] {
    let mut counts = [0; 256];
    bytes.iter().for_each(|&byte| counts[byte as usize] += 1);
    counts
}
