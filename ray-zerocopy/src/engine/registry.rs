//! Functions of this crate that are looked up by name. Every program that links the crate has them.
//!
//! The engine cannot import higher-level modules: the startup code installs their table before a
//! worker runs.

use std::any::Any;
use std::sync::OnceLock;

/// Returns the function of a name, as the `fn` type that the caller expects, or `None` if there is
/// no such function.
pub(crate) type Lookup = fn(&str) -> Option<Box<dyn Any>>;

static TABLE: OnceLock<Lookup> = OnceLock::new();

/// Installs the table. Later calls have no effect.
pub(crate) fn install(table: Lookup) {
    TABLE.get_or_init(|| table);
}

/// Looks up a function by name.
pub(crate) fn lookup(name: &str) -> Option<Box<dyn Any>> {
    TABLE.get().and_then(|table| table(name))
}
