//! Where in the arguments of a call a value is.

use std::fmt;

/// A parameter of a method, and the way from its argument to a value in it.
pub(crate) struct ValuePath<'a> {
    /// `Embedder.embed`.
    pub(crate) method: &'a str,
    pub(crate) parameter: &'a str,
    steps: Vec<String>,
}

impl<'a> ValuePath<'a> {
    pub(crate) fn new(method: &'a str, parameter: &'a str) -> Self {
        Self { method, parameter, steps: Vec::new() }
    }

    /// Does something with a value inside.
    pub(crate) fn inside<R>(&mut self, step: impl fmt::Display, inside: impl FnOnce(&mut Self) -> R) -> R {
        self.steps.push(format!("[{step}]"));
        let result = inside(self);
        self.steps.pop();
        result
    }

    /// How deep the value is.
    pub(crate) fn depth(&self) -> usize {
        self.steps.len()
    }
}

impl fmt::Display for ValuePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(): `{}{}`", self.method, self.parameter, self.steps.concat())
    }
}
