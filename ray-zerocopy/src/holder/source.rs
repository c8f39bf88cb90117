//! Sources: what an arena is made from.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::checkpoint::Checkpoint;

/// What an arena is made from, for [`Arena::shared`](crate::Arena::shared): a file, a checkpoint with
/// options, or a name.
///
/// ```
/// use ray_zerocopy::holder::SharedSource;
///
/// let file = SharedSource::from("model.safetensors");
/// let name = SharedSource::named("speech, version 3");
/// assert_eq!(name.to_string(), "the name `speech, version 3`");
/// # drop(file);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct SharedSource<'a>(pub(super) Kind<'a>);

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind<'a> {
    File(&'a Path),
    Checkpoint(&'a Checkpoint),
    Name(&'a str),
}

impl<'a> SharedSource<'a> {
    /// A name. The first program that uses it shares the weights of its pipeline under it, and others
    /// get these, whatever weights their own pipeline has.
    pub fn named(name: &'a str) -> Self {
        Self(Kind::Name(name))
    }
}

/// A saved arena, or a checkpoint without options: see [`Checkpoint::open`].
impl<'a> From<&'a Path> for SharedSource<'a> {
    fn from(path: &'a Path) -> Self {
        Self(Kind::File(path))
    }
}

/// The path of a file, as text.
impl<'a> From<&'a str> for SharedSource<'a> {
    fn from(path: &'a str) -> Self {
        Self(Kind::File(Path::new(path)))
    }
}

/// The path of a file.
impl<'a> From<&'a PathBuf> for SharedSource<'a> {
    fn from(path: &'a PathBuf) -> Self {
        Self(Kind::File(path))
    }
}

/// A checkpoint, with what is done to its tensors.
impl<'a> From<&'a Checkpoint> for SharedSource<'a> {
    fn from(checkpoint: &'a Checkpoint) -> Self {
        Self(Kind::Checkpoint(checkpoint))
    }
}

/// For errors: the path, or the name.
impl fmt::Display for SharedSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::File(path) => write!(f, "{}", path.display()),
            Kind::Checkpoint(checkpoint) => {
                let paths: Vec<_> = checkpoint.files().map(|path| path.display().to_string()).collect();
                f.write_str(&paths.join(", "))
            }
            Kind::Name(name) => write!(f, "the name `{name}`"),
        }
    }
}
