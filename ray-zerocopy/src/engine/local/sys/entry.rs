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

/// A function of this executable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryToken {
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
    #[error("the code of this executable cannot be found in /proc/self/maps: {0}")]
    Maps(String),
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

/// The addresses at which this executable's code is mapped.
fn code() -> Result<&'static [(usize, usize)], EntryError> {
    static CODE: OnceLock<Result<Vec<(usize, usize)>, String>> = OnceLock::new();
    CODE.get_or_init(|| {
        let maps = std::fs::read_to_string("/proc/self/maps").map_err(|error| error.to_string())?;
        let address = anchor as fn() as usize;
        let mappings = || maps.lines().filter_map(mapping);
        let own = mappings().find(|(range, ..)| (range.0..range.1).contains(&address)).map(|(.., file)| file);
        let own = own.ok_or("the anchor is not in it")?;
        Ok(mappings().filter(|(_, code, file)| *code && *file == own).map(|(range, ..)| range).collect())
    })
    .as_deref()
    .map_err(|reason| EntryError::Maps(reason.clone()))
}

/// A line of `/proc/<pid>/maps`: the addresses, whether it is code, and device and inode of the file.
fn mapping(line: &str) -> Option<((usize, usize), bool, [&str; 2])> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let flags = words.next()?;
    let file = [words.nth(1)?, words.next()?];
    let hex = |text| usize::from_str_radix(text, 16).ok();
    Some(((hex(start)?, hex(end)?), flags.contains('x'), file))
}

impl EntryToken {
    /// Names a function.
    pub(crate) fn of<F: Function>(function: F) -> Result<Self, EntryError> {
        let address = function.address();
        let known = code()?.iter().any(|&(start, end)| (start..end).contains(&address));
        match known {
            true => Ok(Self {
                offset: address.wrapping_sub(anchor as fn() as usize) as isize,
                signature: std::any::type_name::<F>().to_owned(),
                name: None,
            }),
            false => Err(EntryError::NotInExecutable),
        }
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
            let function = crate::own_function(name).ok_or_else(|| EntryError::Unknown(name.clone()))?;
            let wrong = |_| EntryError::Signature { expected: expected.to_owned(), found: name.clone() };
            return function.downcast::<F>().map(|function| *function).map_err(wrong);
        }
        if self.signature != expected {
            return Err(EntryError::Signature { expected: expected.to_owned(), found: self.signature.clone() });
        }
        let address = (anchor as fn() as usize).wrapping_add_signed(self.offset);
        if !code()?.iter().any(|&(start, end)| (start..end).contains(&address)) {
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
    use super::{EntryError, EntryToken, mapping};

    fn double(x: u32) -> u32 {
        x * 2
    }

    fn generic<T: 'static + Copy>(x: T) -> T {
        x
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads where the executable's code lies, from /proc")]
    fn functions_come_back_from_their_tokens() {
        let token = EntryToken::of(double as fn(u32) -> u32).unwrap();
        assert_eq!(token.resolve::<fn(u32) -> u32>().unwrap()(21), 42);
        let token = EntryToken::of(generic::<f64> as fn(f64) -> f64).unwrap();
        assert_eq!(token.resolve::<fn(f64) -> f64>().unwrap()(1.5), 1.5);
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads where the executable's code lies, from /proc")]
    fn a_function_of_another_type_is_refused() {
        let token = EntryToken::of(double as fn(u32) -> u32).unwrap();
        let error = token.resolve::<fn(u64) -> u64>().unwrap_err();
        assert!(matches!(error, EntryError::Signature { .. }), "{error}");
    }

    #[test]
    fn functions_with_names_are_found_and_others_are_not() {
        use crate::engine::local::Loader;

        assert!(EntryToken::named(crate::jit::LOADER).resolve::<Loader>().is_ok());
        let error = EntryToken::named(crate::jit::LOADER).resolve::<fn(u32) -> u32>().unwrap_err();
        assert!(matches!(error, EntryError::Signature { .. }), "{error}");
        let error = EntryToken::named("jit.dance").resolve::<Loader>().unwrap_err();
        assert!(matches!(&error, EntryError::Unknown(name) if name == "jit.dance"), "{error}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads where the executable's code lies, from /proc")]
    fn an_offset_outside_of_the_code_is_refused() {
        let mut token = EntryToken::of(double as fn(u32) -> u32).unwrap();
        token.offset = isize::MAX / 2;
        assert!(matches!(token.resolve::<fn(u32) -> u32>(), Err(EntryError::NotInExecutable)));
    }

    #[test]
    fn lines_of_proc_maps_are_understood() {
        let line =
            "55d0c8a00000-55d0c8a21000 r-xp 00021000 08:02 173521                     /usr/bin/my prog (deleted)";
        assert_eq!(mapping(line), Some(((0x55d0_c8a0_0000, 0x55d0_c8a2_1000), true, ["08:02", "173521"])));
        let line = "7ffd4a5f0000-7ffd4a611000 rw-p 00000000 00:00 0                          [stack]";
        assert_eq!(mapping(line), Some(((0x7ffd_4a5f_0000, 0x7ffd_4a61_1000), false, ["00:00", "0"])));
        assert_eq!(mapping("nonsense"), None);
    }
}
