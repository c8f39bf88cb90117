//! The `export!` macro, and the function that fills an exported module: it adds the native classes
//! and runs the Python source.

use std::ffi::CString;

use pyo3::prelude::*;
use ray_zerocopy::Remote;

use crate::bound::{Exported, PipelineClass};
use crate::constructor::NamedConstructor;
use crate::{base, source};

/// Source of the classes that do not depend on the pipeline.
const GLUE: &str = include_str!("glue.py");

/// Exports a pipeline as a Python module: `export!(embedder, Embedder, open(folder) =
/// Embedder::open);`
///
/// The arguments are:
///
/// 1. the name of the module, which must be that of the crate's library;
/// 2. the pipeline's type; the Python class has the same name, and its `#[ray_zerocopy::remote]`
///    methods;
/// 3. its constructors: functions that return the pipeline, or a `Result` of it.
///
/// The names of a constructor's parameters have to be listed, since the type of a function does not
/// contain them. A constructor called `new` becomes the class's own constructor, others become
/// class methods. The pipeline must be [`Send`]. A doc comment before the names becomes the
/// docstring of the class.
///
/// # Conversions
/// | Rust | Python |
/// | --- | --- |
/// | `Tensor<D>`, `Tensor<D, Int>`, `Tensor<D, Bool>` | arrays: numpy's, any object with the buffer protocol or DLPack; lists |
/// | `Vec`, arrays, tuples, maps, `Option` of tensors | list, tuple, dict, None |
/// | any serde type | None, bool, int, float, str, bytes, list, tuple, dict; numpy's, pandas' and pyarrow's arrays are read as lists |
/// | `Result<T, E>` | `T`, or `PipelineError` with `.error` |
/// | a panic | `PanicError` |
///
/// An array is read in place if it is C-contiguous and aligned to the size of its elements.
/// Otherwise it is copied once. A writable array is copied too if the method takes `&mut self`,
/// since the pipeline may keep it; a method that takes `&self` must not keep its arguments. As with
/// any function that releases the GIL, other threads must not write to an argument before the call
/// returns.
///
/// The tensor has the element type of the array: float64 is not converted to float32. Lists become
/// float32, int64 or bool. Results are read-only arrays over the tensor's own memory. bfloat16,
/// which numpy lacks, is returned as float32.
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

            // `crate` is a string literal, which cannot contain `$crate`. pyo3 is not a dependency
            // of the user's crate.
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

/// Fills an exported module. Called by [`export!`].
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
    // Python has no way to take the items of a stream.
    let methods: Vec<_> = P::methods().into_iter().filter(|method| !method.is_stream).collect();
    let description = source::Description::new(class, doc, &methods, &constructors);
    let exported = Exported { class, methods, constructors, names: names.clone().unbind() };
    names.set_item("_base", base::base(py)?)?;
    names.set_item("_pipeline_class", Bound::new(py, PipelineClass::new(exported))?)?;
    names.set_item("_stubs", description.stubs())?;
    run(py, GLUE, &names)?;
    run(py, &description.module(), &names)?;
    let public = [class, "ActorWrapper", "TaskWrapper", "PanicError", "PipelineError", "stubs", "traffic", "copied"];
    names.set_item("__all__", public)
}

fn run(py: Python<'_>, source: &str, names: &Bound<'_, pyo3::types::PyDict>) -> PyResult<()> {
    py.run(&CString::new(source)?, Some(names), None)
}
