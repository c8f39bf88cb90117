//! Starts a worker before `main`.
//!
//! The `main` of a test or a benchmark belongs to the user, so a worker cannot be started there. A
//! constructor runs before any `main`, and does nothing in a process that was not started as a
//! worker. A process that was started as a worker never reaches `main`, even if startup fails:
//! `main` would repeat the owner's work.

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

// The constructor has no priority, so that it runs after the constructors of crates that use this
// one, such as type registries: a linker is given a crate before its dependencies.
#[used]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
static HOOK: Constructor = before_main;

/// Arguments that the loader passes to constructors.
#[derive(Clone, Copy)]
struct LoaderArgs {
    count: c_int,
    arguments: Strings,
    environment: Strings,
}

unsafe extern "C" fn before_main(count: c_int, arguments: Strings, environment: Strings) {
    let args = LoaderArgs { count, arguments, environment };
    compose();
    // In a shared library the constructor runs while a program loads the library. That program was
    // not started as a worker.
    if !is_asked_for() {
        return;
    }
    let Some(image) = Image::of(address()).filter(|image| image.library.is_none()) else { return };
    if let Some(connection) = worker::claim() {
        signals::prepare();
        run_later_constructors(&image, args);
        worker::run(connection)
    }
    #[cfg(feature = "ray")]
    crate::ray::sys::main::become_a_worker(|| run_later_constructors(&image, args));
}

/// Composition root: installs functions of higher-level modules into lower-level ones, which cannot
/// import them.
fn compose() {
    registry::install(jit::pipeline::own_function);
    #[cfg(feature = "ray")]
    {
        blocking::install(|wait| crate::ray::python::without_python(wait));
        let (name, init) = crate::ray::worker::module::BUILT_IN;
        crate::ray::sys::main::install(name, init);
    }
}

/// Starts the worker on platforms where constructors do not run.
pub(crate) fn fallback() {
    compose();
    worker::fallback();
}

/// Returns `true` if the environment requests a worker of any kind. A worker's own children inherit
/// these variables.
fn is_asked_for() -> bool {
    #[cfg(feature = "ray")]
    if crate::ray::sys::main::is_asked_for() {
        return true;
    }
    worker::is_asked_for()
}

/// Address of this constructor's entry.
fn address() -> usize {
    (&raw const HOOK).expose_provenance()
}

/// Runs the constructors after this one, which the loader never reaches in a worker: those of this
/// crate's dependencies. C++ libraries need their constructors: LLVM, which compiles kernels for
/// CUDA, loops forever without them.
fn run_later_constructors(image: &Image, args: LoaderArgs) {
    for at in image.constructors_behind(address()).step_by(size_of::<usize>()) {
        let entry = std::ptr::with_exposed_provenance::<usize>(at);
        // SAFETY: the image's dynamic section says that there is an entry here, and `HOOK`, which
        // is in the same array, shows that its addresses are those of this process. The loader has
        // relocated the array before it called the first entry.
        let function = unsafe { entry.read() };
        // Linkers leave these values in empty entries.
        if function == 0 || function == usize::MAX {
            continue;
        }
        // SAFETY: an entry of the array is the address of a constructor, which takes the loader's
        // arguments or a prefix of them.
        let function = unsafe { std::mem::transmute::<usize, Constructor>(function) };
        // SAFETY: the loader would call it like this, in this order, on this thread, after the
        // constructors before it. It never will, since this process does not return from here.
        unsafe { function(args.count, args.arguments, args.environment) };
    }
}
