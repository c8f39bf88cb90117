//! The module: its Rust half registered, its Python half run.

use std::ffi::CString;

use pyo3::prelude::*;
use ray_zerocopy::Remote;

use crate::constructor::NamedConstructor;
use crate::native::{Exported, Kind};
use crate::source;

/// The classes that do not depend on the pipeline.
const GLUE: &str = include_str!("glue.py");

/// Makes a Python module of a pipeline: `export!(embedder, Embedder, open(folder) = Embedder::open);`
///
/// First the module's name, which is the crate's library; then the pipeline's type, whose `#[ray_zerocopy::remote]` methods
/// the class of the same name will have; then its constructors. A constructor is any function that gives the pipeline, or
/// a `Result` of it; the names of its parameters are to be written down, since a function does not have them. One that
/// is called `new` is the class's own constructor, others are its class methods. The pipeline has to be [`Send`]. A doc
/// comment before the names is the class's.
///
/// # What travels how
/// | Rust | Python |
/// | --- | --- |
/// | `Tensor<D>`, `Tensor<D, Int>`, `Tensor<D, Bool>` | arrays: numpy's, whatever has the buffer protocol or DLPack; lists |
/// | `Vec`, arrays, tuples, maps, `Option` of tensors | list, tuple, dict, None |
/// | anything with serde | None, bool, int, float, str, bytes, list, tuple, dict; numpy's, pandas' and pyarrow's arrays are read as lists |
/// | `Result<T, E>` | `T`, or `PipelineError` with `.error` |
/// | a panic | `PanicError` |
///
/// An array is read where it is if it is in one piece, in the order of C, at a multiple of its element's size. Otherwise it
/// is copied once. An array that could be written to is copied too if the method takes `&mut self`, since the pipeline may keep
/// it; a method that takes `&self` must not keep its arguments. As with any function that works without the interpreter's lock,
/// nobody may write to an argument from another thread before the call returns.
///
/// The type of an array's elements is the tensor's: float64 is not made float32. Lists become float32, int64 and bool.
/// Results are read-only arrays over the tensor's own memory. bfloat16, which numpy lacks, arrives as float32.
#[macro_export]
macro_rules! export {
    (
        $(#[doc = $doc:literal])*
        $module:ident, $class:ident
        $(, $constructor:ident($($parameter:ident),* $(,)?) = $function:expr)* $(,)?
    ) => {
        #[doc(hidden)]
        mod __ray_zerocopy_python {
            use super::*;

            // A text has no `$crate`. pyo3 is no dependency of the user's.
            #[$crate::__private::pyo3::pymodule]
            #[pyo3(crate = "::ray_zerocopy_python::__private::pyo3")]
            pub(super) fn $module(
                module: &$crate::__private::pyo3::Bound<'_, $crate::__private::pyo3::types::PyModule>,
            ) -> $crate::__private::pyo3::PyResult<()> {
                $crate::__private::export::<$class>(
                    module,
                    ::core::stringify!($class),
                    ::core::concat!($($doc, "\n"),*),
                    ::std::vec![$(
                        $crate::__private::named(
                            ::core::stringify!($constructor),
                            [$(::core::stringify!($parameter)),*],
                            $function,
                        )
                    ),*],
                )
            }
        }
    };
}

/// What [`export!`] calls.
///
/// # Errors
/// If Python fails.
pub fn export<P: Remote + Send + 'static>(
    module: &Bound<'_, PyModule>,
    class: &'static str,
    doc: &str,
    constructors: Vec<NamedConstructor<P>>,
) -> PyResult<()> {
    let py = module.py();
    let names = module.dict();
    let methods = P::methods();
    let description = source::Description::new(class, doc, &methods, &constructors);
    let exported = Exported { class, methods, constructors, names: names.clone().unbind() };
    names.set_item("_kind", Bound::new(py, Kind::new(exported))?)?;
    names.set_item("_stubs", description.stubs())?;
    run(py, GLUE, &names)?;
    run(py, &description.module(), &names)?;
    let public = [class, "ActorWrapper", "TaskWrapper", "PanicError", "PipelineError", "stubs", "traffic", "copied"];
    names.set_item("__all__", public)
}

fn run(py: Python<'_>, source: &str, names: &Bound<'_, pyo3::types::PyDict>) -> PyResult<()> {
    py.run(&CString::new(source)?, Some(names), None)
}
