//! Copying a value by serde: serialised into the arena, and deserialised in every worker.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::autoref::autoref_ladder;
use super::field_kind::FieldOps;
use super::rebuild::Source;
use crate::codec;
use crate::error::load::LoadError;

/// How a value of type `T` is serialised.
pub struct CopyOps<T> {
    pub(super) encode: fn(&T) -> Result<Vec<u8>, String>,
    pub(super) decode: fn(&[u8]) -> Result<T, String>,
}

impl<T> Clone for CopyOps<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for CopyOps<T> {}

impl<T: Serialize + DeserializeOwned> CopyOps<T> {
    pub(super) fn of() -> Self {
        Self { encode, decode: codec::decode }
    }
}

autoref_ladder! {
    /// A container's type `T`, on which the compiler looks up whether the container can be copied.
    pub struct SerdeProbe;

    /// The container is serde: one without tensors is copied.
    IsSerde: [T: Serialize + DeserializeOwned] T => Option<CopyOps<T>> = Some(CopyOps::of());

    /// The container is not serde: it is walked.
    IsNotSerde: [T] T => Option<CopyOps<T>> = None;
}

/// A field with `#[pipeline(config)]` or `#[pipeline(copy)]`: copied, whatever else the type is.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be copied to another process",
    label = "not `Serialize + DeserializeOwned`",
    note = "a field with `#[pipeline(config)]` or `#[pipeline(copy)]` is copied by serde: derive `serde::Serialize` and `serde::Deserialize` on `{Self}`"
)]
pub trait CopyField: Sized {
    /// How the field is collected and attached.
    fn walk() -> FieldOps<Self>;

    /// Decodes the config that was shared as the field of that name.
    ///
    /// # Errors
    /// If there is no config, or it cannot be decoded.
    fn config(source: &Source<'_>, name: &str) -> Result<Self, LoadError>;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> CopyField for T {
    fn walk() -> FieldOps<Self> {
        FieldOps::copy()
    }

    fn config(source: &Source<'_>, name: &str) -> Result<Self, LoadError> {
        source.config(name)
    }
}

/// Serialises a value, and checks that it can be read back: an error here is better than one in a
/// worker.
fn encode<T: Serialize + DeserializeOwned>(value: &T) -> Result<Vec<u8>, String> {
    let bytes = codec::encode(value)?;
    let back: T = codec::decode(&bytes).map_err(|reason| format!("it cannot be deserialised again: {reason}"))?;
    let again = codec::encode(&back)?;
    // Hash maps are read back in another order: the same bytes in any order are the same value.
    if histogram(&bytes) == histogram(&again) {
        Ok(bytes)
    } else {
        Err("it is another value after it was deserialised; do `Serialize` and `Deserialize` disagree?".into())
    }
}

fn histogram(bytes: &[u8]) -> [usize; 256] {
    let mut counts = [0; 256];
    for &byte in bytes {
        counts[byte as usize] += 1;
    }
    counts
}
