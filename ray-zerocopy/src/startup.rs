//! Becoming a worker before `main`.
//!
//! The `main` of a test or a benchmark is not ours, so a worker cannot be started there. A constructor runs before any
//! `main`, and in a process that was not started as a worker it does nothing. One that was started as a worker never reaches `main`,
//! whatever fails: `main` would do once more what the owner does.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

#[cfg(feature = "ray")]
use crate::engine::blocking;
use crate::engine::local::worker;
use crate::engine::registry;
use crate::jit;
use crate::os::sys::image::Image;
use crate::os::sys::signals;

type Strings = *const *const c_char;
type Constructor = unsafe extern "C" fn(c_int, Strings, Strings);

// Among the constructors without a priority, not before them: those of crates that use this one (registries of types, say)
// have run then, since a linker is given a crate before what it uses.
#[used]
#[unsafe(link_section = ".init_array")]
static HOOK: Constructor = before_main;

/// What the loader passes to constructors.
#[derive(Clone, Copy)]
struct Passed {
    count: c_int,
    arguments: Strings,
    environment: Strings,
}

unsafe extern "C" fn before_main(count: c_int, arguments: Strings, environment: Strings) {
    let passed = Passed { count, arguments, environment };
    compose();
    // In a shared library this runs while a program loads it, which is not the program that was started as a worker.
    if !is_asked_for() {
        return;
    }
    let Some(image) = Image::of(address()).filter(|image| image.library.is_none()) else { return };
    if let Some(claimed) = worker::claim() {
        signals::prepare();
        run_those_behind(&image, passed);
        worker::run(claimed)
    }
    #[cfg(feature = "ray")]
    crate::ray::sys::main::become_a_worker(|| run_those_behind(&image, passed));
}

/// Tells rooms below what they cannot know of those above.
fn compose() {
    registry::install(jit::pipeline::own_function);
    #[cfg(feature = "ray")]
    {
        blocking::install(|wait| crate::ray::python::without_python(wait));
        let (name, init) = crate::ray::worker::module::BUILT_IN;
        crate::ray::sys::main::install(name, init);
    }
}

/// Becomes a worker if the constructor could not: on platforms without constructors.
pub(crate) fn fallback() {
    compose();
    worker::fallback();
}

/// Whether the environment says that this process is a worker of any kind, which a worker's own children inherit.
fn is_asked_for() -> bool {
    #[cfg(feature = "ray")]
    if crate::ray::sys::main::is_asked_for() {
        return true;
    }
    worker::is_asked_for()
}

/// Where the entry of this constructor is.
fn address() -> usize {
    (&raw const HOOK).expose_provenance()
}

/// Runs the constructors that come after this one, which the loader of a worker never reaches: those of what this crate uses. C++
/// libraries depend on theirs: LLVM, which compiles kernels for CUDA, loops forever without.
fn run_those_behind(image: &Image, passed: Passed) {
    for at in image.constructors_behind(address()).step_by(size_of::<usize>()) {
        let entry = std::ptr::with_exposed_provenance::<usize>(at);
        // SAFETY: the image's dynamic section says that there is an entry here, and `HOOK`, which is in the same array, shows that its
        // addresses are those of this process. The loader has relocated the array before it called the first entry.
        let function = unsafe { entry.read() };
        // Linkers leave these where there is nothing to call.
        if function == 0 || function == usize::MAX {
            continue;
        }
        // SAFETY: what is in the array is the address of a constructor, which takes what the loader passes or less.
        let function = unsafe { std::mem::transmute::<usize, Constructor>(function) };
        // SAFETY: the loader would call it like this, in this order, on this thread, after the constructors before it, and never will,
        // since this process does not return from here.
        unsafe { function(passed.count, passed.arguments, passed.environment) };
    }
}
