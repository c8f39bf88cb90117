//! Type-erased constructors: functions that return a pipeline, called with deserialised arguments.

use std::fmt::Display;

use ray_zerocopy::__private::{Reader, WireError};
use serde::de::DeserializeOwned;

/// Return types of a constructor: the pipeline, or a `Result` of it.
pub trait ConstructorResult<P> {
    /// Converts to a `Result` whose error is text.
    ///
    /// # Errors
    /// The constructor's own error.
    fn into_result(self) -> Result<P, String>;
}

impl<P> ConstructorResult<P> for P {
    fn into_result(self) -> Result<P, String> {
        Ok(self)
    }
}

impl<P, E: Display> ConstructorResult<P> for Result<P, E> {
    fn into_result(self) -> Result<P, String> {
        // The alternate form includes the causes, if the error type prints them.
        self.map_err(|error| format!("{error:#}"))
    }
}

/// A function that constructs a pipeline from `N` arguments, each of which serde can deserialise.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a constructor of `{P}` with {N} parameters",
    label = "give each of its parameters a name: `open(folder) = Embedder::open`",
    note = "it takes up to six parameters that are `DeserializeOwned`, and returns the pipeline, or a `Result` of it whose error is `Display`"
)]
pub trait Constructor<P, A, const N: usize>: Send + Sync + 'static {
    /// Returns the type names of the parameters.
    fn types() -> [&'static str; N];

    /// Deserialises the arguments and calls the function.
    ///
    /// # Errors
    /// If an argument has another type than its parameter. The inner `Result` is that of the
    /// function.
    fn make(&self, reader: &mut Reader) -> Result<Result<P, String>, WireError>;
}

macro_rules! constructors {
    ($(($($name:ident),*) $count:literal;)*) => {$(
        impl<P, F, R, $($name),*> Constructor<P, ($($name,)*), $count> for F
        where
            F: Fn($($name),*) -> R + Send + Sync + 'static,
            R: ConstructorResult<P>,
            $($name: DeserializeOwned,)*
        {
            fn types() -> [&'static str; $count] {
                [$(std::any::type_name::<$name>()),*]
            }

            #[allow(non_snake_case, unused_variables, reason = "each value has the name of its type; `reader` is unused without parameters")]
            fn make(&self, reader: &mut Reader) -> Result<Result<P, String>, WireError> {
                $(let $name: $name = reader.value()?;)*
                Ok(self($($name),*).into_result())
            }
        }
    )*};
}

constructors! {
    () 0;
    (A) 1;
    (A, B) 2;
    (A, B, C) 3;
    (A, B, C, D) 4;
    (A, B, C, D, E) 5;
    (A, B, C, D, E, F0) 6;
}

/// A type-erased constructor with its name.
pub struct NamedConstructor<P> {
    pub(crate) name: &'static str,
    /// Each parameter's name and type.
    pub(crate) parameters: Vec<(&'static str, &'static str)>,
    pub(crate) make: Make<P>,
}

type Make<P> = Box<dyn Fn(&mut Reader) -> Result<Result<P, String>, WireError> + Send + Sync>;

/// Erases the types of a constructor, and names it and its parameters.
pub fn named<P, A, F: Constructor<P, A, N>, const N: usize>(
    name: &'static str,
    parameters: [&'static str; N],
    function: F,
) -> NamedConstructor<P> {
    let parameters = parameters.into_iter().zip(F::types()).collect();
    NamedConstructor { name, parameters, make: Box::new(move |reader| function.make(reader)) }
}
