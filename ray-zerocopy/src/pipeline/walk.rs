//! Walks: how the content of a field is visited, for collecting and for attaching.
//!
//! `#[derive(Pipeline)]` builds the walk of a field from the pieces here and in
//! [`containers`](super::containers), one for each container in the field's type. Collecting and
//! attaching visit the same values under the same paths.

use super::attach::Attacher;
use super::collect::Collector;
use super::copy_field::CopyOps;
use crate::error::load::LoadError;
use crate::error::share::ShareError;

/// How a value of type `T` is collected and attached.
pub trait Walk<T: ?Sized> {
    /// Records what the value holds.
    ///
    /// # Errors
    /// If a part of it cannot be shared.
    fn collect(&self, value: &T, collector: &mut Collector) -> Result<(), ShareError>;

    /// Replaces the value by what the arena holds.
    ///
    /// # Errors
    /// If the arena does not hold it.
    fn attach(&self, value: &mut T, attacher: &mut Attacher) -> Result<(), LoadError>;

    /// [`collect`](Self::collect) of a field.
    ///
    /// # Errors
    /// If a part of it cannot be shared.
    fn collect_field(&self, name: &str, value: &T, collector: &mut Collector) -> Result<(), ShareError> {
        collector.enter(name);
        self.collect(value, collector)?;
        collector.exit();
        Ok(())
    }

    /// [`attach`](Self::attach) of a field.
    ///
    /// # Errors
    /// If the arena does not hold it.
    fn attach_field(&self, name: &str, value: &mut T, attacher: &mut Attacher) -> Result<(), LoadError> {
        attacher.enter(name);
        self.attach(value, attacher)?;
        attacher.exit();
        Ok(())
    }
}

/// Makes the walk over a container.
///
/// Each walk is an associated type, which follows from the container's type. So a container that
/// the compiler cannot walk is reported once, without further errors where its walk is used.
pub trait Over {
    /// The walk, with the walk over what is in the container.
    type Walk<W>;
    /// See [`Self::Walk`].
    fn over<W>(inside: W) -> Self::Walk<W>;
}

/// The walk over a container field. A container without tensors is copied as a whole if it is
/// serde, so that its length and its keys are copied too.
pub struct Container<T, W> {
    copy: Option<CopyOps<T>>,
    is_plain: bool,
    items: W,
}

impl<T, W> Container<T, W> {
    /// A container that is copied by `copy`, or walked by `items`.
    pub fn new(copy: Option<CopyOps<T>>, items: W) -> Self {
        Self { copy, is_plain: false, items }
    }

    /// A container of numbers, text and the like: it holds no tensor, and is only walked if it
    /// cannot be copied.
    pub fn plain(copy: Option<CopyOps<T>>, items: W) -> Self {
        Self { copy, is_plain: true, items }
    }
}

impl<T, W: Walk<T>> Walk<T> for Container<T, W> {
    fn collect(&self, value: &T, collector: &mut Collector) -> Result<(), ShareError> {
        let Some(copy) = self.copy else { return self.items.collect(value, collector) };
        let mark = collector.mark();
        if !self.is_plain {
            self.items.collect(value, collector)?;
        }
        if collector.has_structure_since(mark) {
            return Ok(());
        }
        collector.forget_since(mark);
        collector.copy(value, copy)
    }

    fn attach(&self, value: &mut T, attacher: &mut Attacher) -> Result<(), LoadError> {
        match self.copy {
            Some(copy) if attacher.is_copied() => attacher.copy(value, copy),
            _ => self.items.attach(value, attacher),
        }
    }
}

/// The walk over a value that holds nothing to share or copy, such as `PhantomData`.
pub struct Nothing;

impl<T: ?Sized> Walk<T> for Nothing {
    fn collect(&self, _: &T, _: &mut Collector) -> Result<(), ShareError> {
        Ok(())
    }

    fn attach(&self, _: &mut T, _: &mut Attacher) -> Result<(), LoadError> {
        Ok(())
    }
}

macro_rules! tuples {
    ($($($type:ident $walk:ident $index:tt),+;)+) => {$(
        impl<$($type, $walk: Walk<$type>),+> Walk<($($type,)+)> for ($($walk,)+) {
            fn collect(&self, value: &($($type,)+), collector: &mut Collector) -> Result<(), ShareError> {
                $(self.$index.collect_field(stringify!($index), &value.$index, collector)?;)+
                Ok(())
            }

            fn attach(&self, value: &mut ($($type,)+), attacher: &mut Attacher) -> Result<(), LoadError> {
                $(self.$index.attach_field(stringify!($index), &mut value.$index, attacher)?;)+
                Ok(())
            }
        }
    )+};
}

// As many elements as serde supports.
#[rustfmt::skip]
tuples! {
    T0 W0 0;
    T0 W0 0, T1 W1 1;
    T0 W0 0, T1 W1 1, T2 W2 2;
    T0 W0 0, T1 W1 1, T2 W2 2, T3 W3 3;
    T0 W0 0, T1 W1 1, T2 W2 2, T3 W3 3, T4 W4 4;
    T0 W0 0, T1 W1 1, T2 W2 2, T3 W3 3, T4 W4 4, T5 W5 5;
    T0 W0 0, T1 W1 1, T2 W2 2, T3 W3 3, T4 W4 4, T5 W5 5, T6 W6 6;
    T0 W0 0, T1 W1 1, T2 W2 2, T3 W3 3, T4 W4 4, T5 W5 5, T6 W6 6, T7 W7 7;
    T0 W0 0, T1 W1 1, T2 W2 2, T3 W3 3, T4 W4 4, T5 W5 5, T6 W6 6, T7 W7 7, T8 W8 8;
    T0 W0 0, T1 W1 1, T2 W2 2, T3 W3 3, T4 W4 4, T5 W5 5, T6 W6 6, T7 W7 7, T8 W8 8, T9 W9 9;
    T0 W0 0, T1 W1 1, T2 W2 2, T3 W3 3, T4 W4 4, T5 W5 5, T6 W6 6, T7 W7 7, T8 W8 8, T9 W9 9, T10 W10 10;
    T0 W0 0, T1 W1 1, T2 W2 2, T3 W3 3, T4 W4 4, T5 W5 5, T6 W6 6, T7 W7 7, T8 W8 8, T9 W9 9, T10 W10 10, T11 W11 11;
    T0 W0 0, T1 W1 1, T2 W2 2, T3 W3 3, T4 W4 4, T5 W5 5, T6 W6 6, T7 W7 7, T8 W8 8, T9 W9 9, T10 W10 10, T11 W11 11, T12 W12 12;
    T0 W0 0, T1 W1 1, T2 W2 2, T3 W3 3, T4 W4 4, T5 W5 5, T6 W6 6, T7 W7 7, T8 W8 8, T9 W9 9, T10 W10 10, T11 W11 11, T12 W12 12, T13 W13 13;
    T0 W0 0, T1 W1 1, T2 W2 2, T3 W3 3, T4 W4 4, T5 W5 5, T6 W6 6, T7 W7 7, T8 W8 8, T9 W9 9, T10 W10 10, T11 W11 11, T12 W12 12, T13 W13 13, T14 W14 14;
    T0 W0 0, T1 W1 1, T2 W2 2, T3 W3 3, T4 W4 4, T5 W5 5, T6 W6 6, T7 W7 7, T8 W8 8, T9 W9 9, T10 W10 10, T11 W11 11, T12 W12 12, T13 W13 13, T14 W14 14, T15 W15 15;
}
