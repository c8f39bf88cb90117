//! Functions that make a pipeline, called with arguments whose types only the compiler knows.

use std::fmt::Display;

use ray_zerocopy::__private::{Reader, WireError};
use serde::de::DeserializeOwned;

/// What a constructor may return: the pipeline, or why there is none.
pub trait Made<P> {
    /// The pipeline.
    ///
    /// # Errors
    /// What the constructor says.
    fn made(self) -> Result<P, String>;
}

impl<P> Made<P> for P {
    fn made(self) -> Result<P, String> {
        Ok(self)
    }
}

impl<P, E: Display> Made<P> for Result<P, E> {
    fn made(self) -> Result<P, String> {
        // With its causes, where the error type has them.
        self.map_err(|error| format!("{error:#}"))
    }
}

/// A function that makes a pipeline of `N` arguments, each of them anything that serde reads.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no constructor of `{P}` with {N} parameters",
    label = "give each of its parameters a name: `open(folder) = Embedder::open`",
    note = "it takes up to six parameters that are `DeserializeOwned`, and returns the pipeline, or a `Result` of it whose error is `Display`"
)]
pub trait Constructor<P, A, const N: usize>: Send + Sync + 'static {
    /// The types of the parameters.
    fn types() -> [&'static str; N];

    /// Reads the arguments, and calls the function.
    ///
    /// # Errors
    /// If an argument is another than expected. What the function itself says is inside.
    fn make(&self, reader: &mut Reader) -> Result<Result<P, String>, WireError>;
}

macro_rules! constructors {
    ($(($($name:ident),*) $count:literal;)*) => {$(
        impl<P, F, R, $($name),*> Constructor<P, ($($name,)*), $count> for F
        where
            F: Fn($($name),*) -> R + Send + Sync + 'static,
            R: Made<P>,
            $($name: DeserializeOwned,)*
        {
            fn types() -> [&'static str; $count] {
                [$(std::any::type_name::<$name>()),*]
            }

            #[allow(non_snake_case, unused_variables, reason = "a value is named as its type, and there may be none")]
            fn make(&self, reader: &mut Reader) -> Result<Result<P, String>, WireError> {
                $(let $name: $name = reader.value()?;)*
                Ok(self($($name),*).made())
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

/// A constructor whose types are forgotten.
pub struct NamedConstructor<P> {
    pub(crate) name: &'static str,
    /// Each parameter, and its type.
    pub(crate) parameters: Vec<(&'static str, &'static str)>,
    pub(crate) make: Make<P>,
}

type Make<P> = Box<dyn Fn(&mut Reader) -> Result<Result<P, String>, WireError> + Send + Sync>;

/// Names a constructor and its parameters.
pub fn named<P, A, F: Constructor<P, A, N>, const N: usize>(
    name: &'static str,
    parameters: [&'static str; N],
    function: F,
) -> NamedConstructor<P> {
    let parameters = parameters.into_iter().zip(F::types()).collect();
    NamedConstructor { name, parameters, make: Box::new(move |reader| function.make(reader)) }
}
