//! Functions as something that can be sent to a process of the same executable.
//!
//! A worker is this very executable, started again through `/proc/self/exe`: the same file, even if a build has
//! replaced it on disk since. So a function is at the same distance from [`anchor`] in both processes, wherever the
//! kernel has put the executable. That also holds for generic functions, which no registry could list.
//!
//! A few functions are this crate's own, and in every program that has it: these go by name, and so to workers of another
//! executable, too.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::os::sys::image::Image;

/// A function of this executable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FnToken {
    /// Distance from [`anchor`], in bytes.
    offset: isize,
    /// The function's type, as this executable's compiler writes it.
    signature: String,
    /// What the function is called, if it is one of this crate's own.
    name: Option<String>,
}

/// Why a function cannot be named or found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntryError {
    #[error("the method is in a shared library, and workers only have the executable's own code; link it statically")]
    NotInExecutable,
    #[error("a function of type `{expected}` is expected, and one of type `{found}` was sent")]
    Signature { expected: String, found: String },
    #[error("this program has no function `{0}`; owner and worker are of different versions of ray-zerocopy")]
    Unknown(String),
}

/// Where everything is measured from.
#[inline(never)]
fn anchor() {}

/// A function pointer type. Only implemented for `fn` types, which are plain, non-null code addresses.
///
/// # Safety
/// The implementor has to be a `fn` pointer type.
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

/// Where [`anchor`] is.
pub(crate) fn anchor_address() -> usize {
    anchor as fn() as usize
}

/// Where the kernel has put the dynamic loader of the program that it started: 0 if that program is the loader, or needs none.
pub(crate) fn interpreter_base() -> usize {
    // SAFETY: `getauxval` only looks a number up.
    unsafe { libc::getauxval(libc::AT_BASE) as usize }
}

/// Whether an address is code of the file that has [`anchor`].
fn is_own_code(address: usize) -> bool {
    // The program stays where it is, and so does a library that threads of ours run in.
    static OWN: OnceLock<Option<Image>> = OnceLock::new();
    OWN.get_or_init(|| Image::of(anchor_address())).as_ref().is_some_and(|image| image.has_code_at(address))
}

impl FnToken {
    /// Names a function.
    pub(crate) fn of<F: Function>(function: F) -> Result<Self, EntryError> {
        let address = function.address();
        if !is_own_code(address) {
            return Err(EntryError::NotInExecutable);
        }
        let offset = address.wrapping_sub(anchor_address()) as isize;
        Ok(Self { offset, signature: std::any::type_name::<F>().to_owned(), name: None })
    }

    /// One of this crate's own functions.
    pub(crate) fn named(name: &str) -> Self {
        Self { offset: 0, signature: String::new(), name: Some(name.to_owned()) }
    }

    /// Whether any program that has this crate has the function.
    pub(crate) fn is_named(&self) -> bool {
        self.name.is_some()
    }

    /// The function of this process that the token names.
    pub(crate) fn resolve<F: Function>(&self) -> Result<F, EntryError> {
        let expected = std::any::type_name::<F>();
        if let Some(name) = &self.name {
            let function = crate::engine::registry::lookup(name).ok_or_else(|| EntryError::Unknown(name.clone()))?;
            let wrong = |_| EntryError::Signature { expected: expected.to_owned(), found: name.clone() };
            return function.downcast::<F>().map(|function| *function).map_err(wrong);
        }
        if self.signature != expected {
            return Err(EntryError::Signature { expected: expected.to_owned(), found: self.signature.clone() });
        }
        let address = anchor_address().wrapping_add_signed(self.offset);
        if !is_own_code(address) {
            return Err(EntryError::NotInExecutable);
        }
        const { assert!(size_of::<F>() == size_of::<usize>(), "a `fn` pointer is an address") };
        // SAFETY: `F` is a `fn` pointer type (contract of `Function`), so it is a non-null address of code, of the size
        // of `usize` (asserted above). The token was made by `of::<F>` (`type_name` is that of `F`; both sides are the
        // same executable file, so equal names written by one compilation) from a function of that type at this offset
        // from `anchor`. Tokens only arrive over the socket that the parent of this process made for it, and the
        // parent started this process from its own file, so the offset leads to that same function here.
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
    fn functions_come_back_from_their_tokens() {
        let token = FnToken::of(double as fn(u32) -> u32).unwrap();
        assert_eq!(token.resolve::<fn(u32) -> u32>().unwrap()(21), 42);
        let token = FnToken::of(generic::<f64> as fn(f64) -> f64).unwrap();
        assert_eq!(token.resolve::<fn(f64) -> f64>().unwrap()(1.5), 1.5);
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the dynamic loader, which Miri does not have")]
    fn a_function_of_another_type_is_refused() {
        let token = FnToken::of(double as fn(u32) -> u32).unwrap();
        let error = token.resolve::<fn(u64) -> u64>().unwrap_err();
        assert!(matches!(error, EntryError::Signature { .. }), "{error}");
    }

    #[test]
    fn functions_with_names_are_found_and_others_are_not() {
        use crate::engine::served::Loader;

        assert!(FnToken::named(crate::jit::pipeline::LOADER).resolve::<Loader>().is_ok());
        let error = FnToken::named(crate::jit::pipeline::LOADER).resolve::<fn(u32) -> u32>().unwrap_err();
        assert!(matches!(error, EntryError::Signature { .. }), "{error}");
        let error = FnToken::named("jit.dance").resolve::<Loader>().unwrap_err();
        assert!(matches!(&error, EntryError::Unknown(name) if name == "jit.dance"), "{error}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the dynamic loader, which Miri does not have")]
    fn an_offset_outside_of_the_code_is_refused() {
        let mut token = FnToken::of(double as fn(u32) -> u32).unwrap();
        token.offset = isize::MAX / 2;
        assert!(matches!(token.resolve::<fn(u32) -> u32>(), Err(EntryError::NotInExecutable)));
    }
}
