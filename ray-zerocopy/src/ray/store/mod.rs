//! Arenas in Ray's object store.

pub(crate) mod plasma;
