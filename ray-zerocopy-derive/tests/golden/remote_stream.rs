// What the user writes:
#[ray_zerocopy::remote]
impl Search {
    /// Finds texts, one after the other.
    #[remote(stream)]
    pub fn find(
        &self,
        query: String,
    ) -> impl Iterator<Item = Result<String, SearchError>> + '_ {
        self.texts(query)
    }
    #[remote(stream)]
    pub fn boxed(&mut self) -> Box<dyn Iterator<Item = Self> + '_> {
        Box::new(std::iter::empty())
    }
    #[remote(stream)]
    pub fn named(&self) -> Texts {
        Texts
    }
}

// What it becomes:
impl Search {
    /// Finds texts, one after the other.
    pub fn find(
        &self,
        query: String,
    ) -> impl Iterator<Item = Result<String, SearchError>> + '_ {
        self.texts(query)
    }
    pub fn boxed(&mut self) -> Box<dyn Iterator<Item = Self> + '_> {
        Box::new(std::iter::empty())
    }
    pub fn named(&self) -> Texts {
        Texts
    }
}
/// Calls `Search`'s methods, each call as one task.
pub struct SearchTasks(
    ::ray_zerocopy::__private::Caller,
    ::core::marker::PhantomData<fn() -> Search>,
);
#[automatically_derived]
impl ::core::convert::From<::ray_zerocopy::__private::Caller> for SearchTasks {
    fn from(__caller: ::ray_zerocopy::__private::Caller) -> Self {
        Self(__caller, ::core::marker::PhantomData)
    }
}
/// Calls `Search`'s methods in an actor, which keeps its state.
pub struct SearchActors(
    ::ray_zerocopy::__private::Caller,
    ::core::marker::PhantomData<fn() -> Search>,
);
#[automatically_derived]
impl ::core::convert::From<::ray_zerocopy::__private::Caller> for SearchActors {
    fn from(__caller: ::ray_zerocopy::__private::Caller) -> Self {
        Self(__caller, ::core::marker::PhantomData)
    }
}
#[automatically_derived]
impl ::ray_zerocopy::__private::Remote for Search {
    type Tasks = SearchTasks;
    type Actors = SearchActors;
    const METHODS: &'static [::ray_zerocopy::__private::MethodEntry<Self>] = &[
        ::ray_zerocopy::__private::MethodEntry::of_stream::<0usize, _, _>(),
        ::ray_zerocopy::__private::MethodEntry::of_stream::<1usize, _, _>(),
        ::ray_zerocopy::__private::MethodEntry::of_stream::<2usize, _, _>(),
    ];
    const STREAMS: bool = true;
    const STATEFUL: bool = true;
}
impl SearchTasks {
    /// Finds texts, one after the other.
    ///
    /// Calls `Search::find` in a worker.
    pub fn find(
        &self,
        query: String,
    ) -> ::ray_zerocopy::__private::Streaming<Result<String, SearchError>> {
        self.0.remote_stream::<Search, 0usize, _, _>((query, ()))
    }
    /// Calls `Search::named` in a worker.
    pub fn named(
        &self,
    ) -> ::ray_zerocopy::__private::Streaming<
        <Texts as ::core::iter::IntoIterator>::Item,
    > {
        self.0.remote_stream::<Search, 2usize, _, _>(())
    }
}
impl SearchActors {
    /// Finds texts, one after the other.
    ///
    /// Calls `Search::find` in a worker.
    pub fn find(
        &self,
        query: String,
    ) -> ::ray_zerocopy::__private::Streaming<Result<String, SearchError>> {
        self.0.remote_stream::<Search, 0usize, _, _>((query, ()))
    }
    /// Calls `Search::boxed` in a worker.
    pub fn boxed(&self) -> ::ray_zerocopy::__private::Streaming<Search> {
        self.0.remote_stream::<Search, 1usize, _, _>(())
    }
    /// Calls `Search::named` in a worker.
    pub fn named(
        &self,
    ) -> ::ray_zerocopy::__private::Streaming<
        <Texts as ::core::iter::IntoIterator>::Item,
    > {
        self.0.remote_stream::<Search, 2usize, _, _>(())
    }
}
#[automatically_derived]
impl ::ray_zerocopy::__private::RemoteStream<
    0usize,
    (String, ()),
    Result<String, SearchError>,
> for Search {
    const SOURCE: ::ray_zerocopy::__private::MethodSource = ::ray_zerocopy::__private::MethodSource {
        name: "find",
        doc: "Finds texts, one after the other.",
        exclusive: false,
        parameters: &["query"],
    };
    fn wire() -> ::ray_zerocopy::__private::MethodWire<
        (String, ()),
        Result<String, SearchError>,
    > {
        use ::ray_zerocopy::__private::{self as __rzc, pick::*};
        (
            (__rzc::Remotable::wire(__rzc::WireKind::<String>::START.pick()), ()),
            __rzc::Remotable::wire(
                __rzc::WireKind::<Result<String, SearchError>>::START.pick(),
            ),
        )
    }
    fn run(
        &mut self,
        (__argument0, ()): (String, ()),
        __each: &mut dyn ::core::ops::FnMut(Result<String, SearchError>) -> bool,
    ) {
        for __item in <Search>::find(self, __argument0) {
            if !__each(__item) {
                break;
            }
        }
    }
}
#[automatically_derived]
impl ::ray_zerocopy::__private::RemoteStream<1usize, (), Search> for Search {
    const SOURCE: ::ray_zerocopy::__private::MethodSource = ::ray_zerocopy::__private::MethodSource {
        name: "boxed",
        doc: "",
        exclusive: true,
        parameters: &[],
    };
    fn wire() -> ::ray_zerocopy::__private::MethodWire<(), Search> {
        use ::ray_zerocopy::__private::{self as __rzc, pick::*};
        ((), __rzc::Remotable::wire(__rzc::WireKind::<Search>::START.pick()))
    }
    fn run(&mut self, (): (), __each: &mut dyn ::core::ops::FnMut(Search) -> bool) {
        for __item in <Search>::boxed(self) {
            if !__each(__item) {
                break;
            }
        }
    }
}
#[automatically_derived]
impl ::ray_zerocopy::__private::RemoteStream<
    2usize,
    (),
    <Texts as ::core::iter::IntoIterator>::Item,
> for Search {
    const SOURCE: ::ray_zerocopy::__private::MethodSource = ::ray_zerocopy::__private::MethodSource {
        name: "named",
        doc: "",
        exclusive: false,
        parameters: &[],
    };
    fn wire() -> ::ray_zerocopy::__private::MethodWire<
        (),
        <Texts as ::core::iter::IntoIterator>::Item,
    > {
        use ::ray_zerocopy::__private::{self as __rzc, pick::*};
        (
            (),
            __rzc::Remotable::wire(
                __rzc::WireKind::<<Texts as ::core::iter::IntoIterator>::Item>::START
                    .pick(),
            ),
        )
    }
    fn run(
        &mut self,
        (): (),
        __each: &mut dyn ::core::ops::FnMut(
            <Texts as ::core::iter::IntoIterator>::Item,
        ) -> bool,
    ) {
        for __item in <Search>::named(self) {
            if !__each(__item) {
                break;
            }
        }
    }
}
