//! Location of a value within the arguments of a call, for error messages.

use std::fmt;

/// A method's parameter, and the path from its argument to a nested value.
///
/// Unrelated to `ray_zerocopy::arena::Location`, the position of a tensor in an arena.
pub(crate) struct Location<'a> {
    /// `Embedder.embed`.
    pub(crate) method: &'a str,
    pub(crate) parameter: &'a str,
    steps: Vec<String>,
}

impl<'a> Location<'a> {
    pub(crate) fn new(method: &'a str, parameter: &'a str) -> Self {
        Self { method, parameter, steps: Vec::new() }
    }

    /// Calls `inside` with the location of a nested value, one `step` deeper.
    pub(crate) fn inside<R>(&mut self, step: impl fmt::Display, inside: impl FnOnce(&mut Self) -> R) -> R {
        self.steps.push(format!("[{step}]"));
        let result = inside(self);
        self.steps.pop();
        result
    }

    /// Nesting depth of the value.
    pub(crate) fn depth(&self) -> usize {
        self.steps.len()
    }
}

impl fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(): `{}{}`", self.method, self.parameter, self.steps.concat())
    }
}
