//! Function pointers as tokens that can be sent to a process of the same executable.
//!
//! A worker is this very executable, started again through `/proc/self/exe`: the same file, even if
//! a build has replaced it on disk since. So a function has the same distance from [`anchor`] in
//! both processes, regardless of the address that the kernel has chosen for the executable. That
//! also holds for generic functions, which a registry could not list.
//!
//! A few functions belong to this crate, and exist in every program that links it. These are
//! identified by name, so they can also be sent to workers of another executable.

use std::borrow::Cow;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::os::sys::image::Image;

/// A function of this executable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FnToken {
    /// Distance from [`anchor`], in bytes.
    offset: isize,
    /// Type of the function, as returned by `type_name` in this executable.
    signature: Cow<'static, str>,
    /// Name of the function, if it belongs to this crate.
    name: Option<String>,
}

/// Why a function cannot be converted to a token or resolved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntryError {
    #[error("the method is in a shared library, but workers only have the executable's own code; link it statically")]
    NotInExecutable,
    #[error("expected a function of type `{expected}`, but received one of type `{found}`")]
    Signature { expected: String, found: String },
    #[error("this program has no function `{0}`; owner and worker use different versions of ray-zerocopy")]
    Unknown(String),
}

/// Reference point of all offsets.
#[inline(never)]
fn anchor() {}

/// A function pointer type. Only implemented for `fn` types, which are plain, non-null code
/// addresses, and for a transparent wrapper of one.
///
/// # Safety
/// The implementor must be a `fn` pointer type, or a `repr(transparent)` wrapper of one.
pub(crate) unsafe trait Function: Copy + 'static {
    fn address(self) -> usize;
}

// SAFETY: the implementor is a `fn` pointer.
unsafe impl<A: 'static, R: 'static> Function for fn(A) -> R {
    fn address(self) -> usize {
        self as usize
    }
}

// SAFETY: the implementor is a `fn` pointer.
unsafe impl<A: ?Sized + 'static, B: 'static, C: 'static, R: 'static> Function for fn(&mut A, &mut B, &mut C) -> R {
    fn address(self) -> usize {
        self as usize
    }
}

// SAFETY: the implementor is a `fn` pointer.
unsafe impl<A: ?Sized + 'static, B: 'static, R: 'static> Function for fn(&mut A, B) -> R {
    fn address(self) -> usize {
        self as usize
    }
}

/// A function of one argument, which it may change.
#[repr(transparent)]
pub(crate) struct Change<A>(pub(crate) fn(&mut A));

impl<A> Clone for Change<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Change<A> {}

// SAFETY: `repr(transparent)` makes it a `fn` pointer by another name.
unsafe impl<A: 'static> Function for Change<A> {
    fn address(self) -> usize {
        self.0 as usize
    }
}

/// A function of two values of one type, which it may change.
#[repr(transparent)]
pub(crate) struct ChangeBoth<A>(pub(crate) fn(&mut A, &mut A));

impl<A> Clone for ChangeBoth<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for ChangeBoth<A> {}

// SAFETY: `repr(transparent)` makes it a `fn` pointer by another name.
unsafe impl<A: 'static> Function for ChangeBoth<A> {
    fn address(self) -> usize {
        self.0 as usize
    }
}

/// Address of [`anchor`].
pub(crate) fn anchor_address() -> usize {
    anchor as fn() as usize
}

/// Load address of the dynamic loader of this program. 0 if the program is the loader itself, or
/// needs none.
#[cfg(target_os = "linux")]
pub(crate) fn interpreter_base() -> usize {
    // SAFETY: `getauxval` only looks up a number.
    unsafe { libc::getauxval(libc::AT_BASE) as usize }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn interpreter_base() -> usize {
    0
}

/// Returns `true` if the address is code of the file that contains [`anchor`].
fn is_own_code(address: usize) -> bool {
    // The program is never unloaded, and neither is a library in which threads of this crate run.
    static OWN: OnceLock<Option<Image>> = OnceLock::new();
    OWN.get_or_init(|| Image::of(anchor_address())).as_ref().is_some_and(|image| image.has_code_at(address))
}

impl FnToken {
    /// Creates the token of a function.
    pub(crate) fn of<F: Function>(function: F) -> Result<Self, EntryError> {
        let address = function.address();
        if !is_own_code(address) {
            return Err(EntryError::NotInExecutable);
        }
        let offset = address.wrapping_sub(anchor_address()) as isize;
        Ok(Self { offset, signature: Cow::Borrowed(std::any::type_name::<F>()), name: None })
    }

    /// Creates the token of one of this crate's own functions.
    pub(crate) fn named(name: &str) -> Self {
        Self { offset: 0, signature: Cow::Borrowed(""), name: Some(name.to_owned()) }
    }

    /// Returns `true` if the function exists in any program that links this crate.
    pub(crate) fn is_named(&self) -> bool {
        self.name.is_some()
    }

    /// Resolves the token to a function of this process.
    pub(crate) fn resolve<F: Function>(&self) -> Result<F, EntryError> {
        let expected = std::any::type_name::<F>();
        if let Some(name) = &self.name {
            let function = crate::engine::registry::lookup(name).ok_or_else(|| EntryError::Unknown(name.clone()))?;
            let wrong_type = |_| EntryError::Signature { expected: expected.to_owned(), found: name.clone() };
            return function.downcast::<F>().map(|function| *function).map_err(wrong_type);
        }
        if self.signature != expected {
            return Err(EntryError::Signature {
                expected: expected.to_owned(),
                found: self.signature.clone().into_owned(),
            });
        }
        let address = anchor_address().wrapping_add_signed(self.offset);
        if !is_own_code(address) {
            return Err(EntryError::NotInExecutable);
        }
        const { assert!(size_of::<F>() == size_of::<usize>(), "a `fn` pointer is an address") };
        // SAFETY: `F` is a `fn` pointer type (contract of `Function`), so it is a non-null address
        // of code, of the size of `usize` (asserted above). The token was created by `of::<F>`
        // (`type_name` is that of `F`; both sides are the same executable file, so equal names were
        // written by one compilation) from a function of that type at this offset from `anchor`.
        // Tokens only arrive over the socket that the parent of this process created for it, and
        // the parent started this process from its own file, so the offset leads to that same
        // function here.
        Ok(unsafe { std::mem::transmute_copy::<usize, F>(&address) })
    }
}

#[cfg(test)]
mod tests {
    use super::EntryError;
    use super::FnToken;

    fn double(x: u32) -> u32 {
        x * 2
    }

    fn generic<T: 'static + Copy>(x: T) -> T {
        x
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the dynamic loader, which Miri does not have")]
    fn token_resolves_to_its_function() {
        let token = FnToken::of(double as fn(u32) -> u32).unwrap();
        assert_eq!(token.resolve::<fn(u32) -> u32>().unwrap()(21), 42);
        let token = FnToken::of(generic::<f64> as fn(f64) -> f64).unwrap();
        assert_eq!(token.resolve::<fn(f64) -> f64>().unwrap()(1.5), 1.5);
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the dynamic loader, which Miri does not have")]
    fn function_of_another_type_is_refused() {
        let token = FnToken::of(double as fn(u32) -> u32).unwrap();
        let error = token.resolve::<fn(u64) -> u64>().unwrap_err();
        assert!(matches!(error, EntryError::Signature { .. }), "{error}");
    }

    #[test]
    fn only_registered_functions_are_found() {
        use crate::engine::served::Loader;

        assert!(FnToken::named(crate::jit::pipeline::LOADER).resolve::<Loader>().is_ok());
        let error = FnToken::named(crate::jit::pipeline::LOADER).resolve::<fn(u32) -> u32>().unwrap_err();
        assert!(matches!(error, EntryError::Signature { .. }), "{error}");
        let error = FnToken::named("jit.dance").resolve::<Loader>().unwrap_err();
        assert!(matches!(&error, EntryError::Unknown(name) if name == "jit.dance"), "{error}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the dynamic loader, which Miri does not have")]
    fn offset_outside_of_the_code_is_refused() {
        let mut token = FnToken::of(double as fn(u32) -> u32).unwrap();
        token.offset = isize::MAX / 2;
        assert!(matches!(token.resolve::<fn(u32) -> u32>(), Err(EntryError::NotInExecutable)));
    }
}
