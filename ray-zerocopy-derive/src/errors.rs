//! Collects every error of an input, so that a user can fix all of them in one round.
//!
//! Does not know what makes an input invalid; the stages do.

use quote::ToTokens;
use std::fmt::Display;
use std::thread;

/// The errors found so far. Must be consumed by [`Errors::check`]: an error would be lost
/// otherwise.
pub(crate) struct Errors {
    found: Option<syn::Error>,
    checked: bool,
}

impl Errors {
    pub(crate) fn new() -> Self {
        Errors { found: None, checked: false }
    }

    /// Adds an error that underlines `tokens`.
    pub(crate) fn at(&mut self, tokens: impl ToTokens, message: impl Display) {
        self.push(syn::Error::new_spanned(tokens, message));
    }

    /// Adds an error of another source, for instance syn's parser.
    pub(crate) fn push(&mut self, error: syn::Error) {
        match &mut self.found {
            Some(found) => found.combine(error),
            None => self.found = Some(error),
        }
    }

    /// The parser's result, or `None` with its error noted.
    pub(crate) fn ok<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    /// All the errors as one, in the order in which they were found.
    pub(crate) fn check(mut self) -> syn::Result<()> {
        self.checked = true;
        match self.found.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Drop for Errors {
    fn drop(&mut self) {
        assert!(self.checked || thread::panicking(), "the errors of an input were collected but never reported");
    }
}
