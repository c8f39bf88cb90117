//! Specialisation by autoref: choosing an implementation by the traits that a type has.
//!
//! Method lookup tries the receiver with the most references first, and skips an impl whose bounds
//! do not hold. So a trait that is implemented for `&&Probe<T>` wins over one for `&Probe<T>`, and
//! both may overlap. This only works where `T` is concrete or has the bounds in scope: in the code
//! that the macros write, not in a generic function.

/// Defines a probe and its traits, the preferred one first.
///
/// `Probe::<T>::START.pick()` calls the first trait whose bounds `T` satisfies, if all of them are
/// in scope. The number of references follows from the number of traits.
macro_rules! autoref_ladder {
    (
        $(#[$attribute:meta])*
        pub struct $probe:ident;
        $($(#[$doc:meta])* $rung:ident: [$($generics:tt)*] $of:ty => $output:ty = $value:expr;)+
    ) => {
        $(#[$attribute])*
        pub struct $probe<T: ?Sized>(::std::marker::PhantomData<fn() -> Box<T>>);

        impl<T: ?Sized + 'static> $probe<T> {
            /// The receiver of `pick`, with one reference for each trait.
            pub const START: autoref_ladder!(@type [$($rung)+] Self) =
                autoref_ladder!(@value [$($rung)+] Self(::std::marker::PhantomData));
        }

        autoref_ladder! { @rungs $probe $({ $(#[$doc])* $rung: [$($generics)*] $of => $output = $value; })+ }
    };
    (@rungs $probe:ident
        { $(#[$doc:meta])* $rung:ident: [$($generics:tt)*] $of:ty => $output:ty = $value:expr; }
        $($rest:tt)*
    ) => {
        $(#[$doc])*
        pub trait $rung<T> {
            /// What this type is treated with.
            type Output;
            /// See [`Self::Output`].
            fn pick(&self) -> Self::Output;
        }

        impl<$($generics)*> $rung<$of> for autoref_ladder!(@type [$($rest)*] $probe<$of>) {
            type Output = $output;
            fn pick(&self) -> $output {
                $value
            }
        }

        autoref_ladder! { @rungs $probe $($rest)* }
    };
    (@rungs $probe:ident) => {};
    (@type [$first:tt $($rest:tt)*] $ty:ty) => { &'static autoref_ladder!(@type [$($rest)*] $ty) };
    (@type [] $ty:ty) => { $ty };
    (@value [$first:tt $($rest:tt)*] $value:expr) => { &autoref_ladder!(@value [$($rest)*] $value) };
    (@value [] $value:expr) => { $value };
}

pub(crate) use autoref_ladder;
