// What the user writes:
#[ray_zerocopy::remote(crate = "my_crate::reexport")]
impl Search {
    pub fn good(&self) {}
    pub fn bad(&self, text: &str) {}
}

// What it becomes:
impl Search {
    pub fn good(&self) {}
    pub fn bad(&self, text: &str) {}
}
/// Calls `Search`'s methods, each call as one task.
pub struct SearchTasks(
    my_crate::reexport::__private::Caller,
    ::core::marker::PhantomData<fn() -> Search>,
);
#[automatically_derived]
impl ::core::convert::From<my_crate::reexport::__private::Caller> for SearchTasks {
    fn from(__caller: my_crate::reexport::__private::Caller) -> Self {
        Self(__caller, ::core::marker::PhantomData)
    }
}
/// Calls `Search`'s methods in an actor, which keeps its state.
pub struct SearchActors(
    my_crate::reexport::__private::Caller,
    ::core::marker::PhantomData<fn() -> Search>,
);
#[automatically_derived]
impl ::core::convert::From<my_crate::reexport::__private::Caller> for SearchActors {
    fn from(__caller: my_crate::reexport::__private::Caller) -> Self {
        Self(__caller, ::core::marker::PhantomData)
    }
}
#[automatically_derived]
impl my_crate::reexport::__private::Remote for Search {
    type Tasks = SearchTasks;
    type Actors = SearchActors;
    const METHODS: &'static [my_crate::reexport::__private::MethodEntry<Self>] = &[
        my_crate::reexport::__private::MethodEntry::of::<0usize, _, _>(),
    ];
}
impl SearchTasks {
    /// Calls `Search::good` in a worker.
    pub fn good(&self) -> my_crate::reexport::__private::Pending<()> {
        self.0.remote::<Search, 0usize, _, _>(())
    }
}
impl SearchActors {
    /// Calls `Search::good` in a worker.
    pub fn good(&self) -> my_crate::reexport::__private::Pending<()> {
        self.0.remote::<Search, 0usize, _, _>(())
    }
}
#[automatically_derived]
impl my_crate::reexport::__private::RemoteMethod<0usize, (), ()> for Search {
    const SOURCE: my_crate::reexport::__private::MethodSource = my_crate::reexport::__private::MethodSource {
        name: "good",
        doc: "",
        exclusive: false,
        parameters: &[],
    };
    fn wire() -> my_crate::reexport::__private::MethodWire<(), ()> {
        use my_crate::reexport::__private::{self as __rzc, pick::*};
        ((), __rzc::Remotable::wire(__rzc::WireKind::<()>::START.pick()))
    }
    fn run(&mut self, (): ()) -> () {
        <Search>::good(self)
    }
}
::core::compile_error! {
    "an argument of a remote method crosses to another process: take `String` instead of `&str`"
}
