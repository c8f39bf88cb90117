//! Rebuilding the skeleton in another process, by the config or by the constructor that the struct
//! names.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::Device;
use serde::de::DeserializeOwned;

use super::Pipeline;
use super::collect::{Item, What};
use crate::arena::arena::Arena;
use crate::error::load::LoadError;
use crate::{codec, panics};

/// A pipeline that another process can rebuild, because it has a config or names its constructor.
#[diagnostic::on_unimplemented(
    message = "another process could not rebuild `{Self}`",
    label = "neither a `#[pipeline(config)]` field nor `#[pipeline(init = ..)]`",
    note = "mark the field that holds the config: `#[pipeline(config)] config: MyConfig`, with `MyConfig::init(&self, &Device) -> {Self}`",
    note = "or name a constructor on the struct: `#[pipeline(init = Self::new)]`, a `fn(&Device) -> Self`"
)]
pub trait Root: Pipeline {
    /// Returns the pipeline as its config makes it, with uninitialised parameters.
    ///
    /// # Errors
    /// If there is no config, or the constructor fails.
    fn rebuild(source: &Source<'_>, device: &Device) -> Result<Self, LoadError>;

    /// The name of the function that loads the pipeline, if this crate has that function, so that
    /// every program that links the crate has it.
    #[doc(hidden)]
    fn loader() -> Option<&'static str> {
        None
    }
}

/// Where [`Root::rebuild`] finds the config.
pub struct Source<'a>(Origin<'a>);

enum Origin<'a> {
    Items(&'a [Item]),
    Arena(&'a Arena),
}

impl<'a> Source<'a> {
    pub(super) fn items(items: &'a [Item]) -> Self {
        Self(Origin::Items(items))
    }

    pub(super) fn arena(arena: &'a Arena) -> Self {
        Self(Origin::Arena(arena))
    }

    /// Returns the arena, or `None` while the pipeline is being shared.
    pub(crate) fn whole(&self) -> Option<&'a Arena> {
        match &self.0 {
            Origin::Items(_) => None,
            Origin::Arena(arena) => Some(arena),
        }
    }

    /// Decodes the config.
    ///
    /// # Errors
    /// If there is no config, or it cannot be decoded.
    pub fn config<C: DeserializeOwned>(&self, field: &str) -> Result<C, LoadError> {
        let decoded = match &self.0 {
            Origin::Items(items) => items.iter().find(|item| item.path == field).and_then(|item| match &item.what {
                What::Copy(Some(bytes)) => Some(codec::decode(bytes)),
                _ => None,
            }),
            Origin::Arena(arena) => {
                let entry = arena.manifest().copies.iter().find(|entry| entry.path == field);
                entry.map(|entry| codec::decode(&arena.slice(entry.blob)))
            }
        };
        decoded
            .ok_or_else(|| LoadError::Missing { path: field.to_owned(), pipeline: "the arena".to_owned() })?
            .map_err(|reason| LoadError::Decode { path: field.to_owned(), reason })
    }
}

/// The return type of a constructor: the pipeline, or a `Result` of it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not rebuild `{P}`",
    label = "neither `{P}` nor a `Result` of it",
    note = "the config's `init(&self, &Device)`, or the function that `#[pipeline(init = ..)]` names, returns `{P}` or `Result<{P}, E>` with `E: Display`"
)]
pub trait Rebuilt<P> {
    /// Returns the pipeline.
    ///
    /// # Errors
    /// If the constructor failed.
    fn rebuilt(self) -> Result<P, LoadError>;
}

#[diagnostic::do_not_recommend]
impl<P: Pipeline> Rebuilt<P> for P {
    fn rebuilt(self) -> Result<P, LoadError> {
        Ok(self)
    }
}

#[diagnostic::do_not_recommend]
impl<P: Pipeline, E: Display> Rebuilt<P> for Result<P, E> {
    fn rebuilt(self) -> Result<P, LoadError> {
        self.map_err(|error| LoadError::Rebuild { pipeline: crate::error::type_name::<P>(), reason: error.to_string() })
    }
}

/// Rebuilds the skeleton. A panic of the constructor is an error.
pub(crate) fn skeleton<P: Root>(source: &Source<'_>, device: &Device) -> Result<P, LoadError> {
    catch_unwind(AssertUnwindSafe(|| P::rebuild(source, device))).unwrap_or_else(|panic| {
        Err(LoadError::Rebuild { pipeline: crate::error::type_name::<P>(), reason: panics::message(&*panic) })
    })
}
