// What the user writes:
#[ray_zerocopy::remote]
impl Search {
    /// Embeds each text.
    #[remote(batch, cost = tokens)]
    pub fn embed(
        &self,
        texts: Vec<String>,
        normalise: bool,
    ) -> Result<Tensor<2>, String> {}
    #[remote(batch)]
    pub fn learn(&mut self, rows: Tensor<2>) -> Tensor<1> {}
}

// What it becomes:
impl Search {
    /// Embeds each text.
    pub fn embed(
        &self,
        texts: Vec<String>,
        normalise: bool,
    ) -> Result<Tensor<2>, String> {}
    pub fn learn(&mut self, rows: Tensor<2>) -> Tensor<1> {}
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
        ::ray_zerocopy::__private::MethodEntry::of_batch::<0usize, _, _>(),
        ::ray_zerocopy::__private::MethodEntry::of_batch::<1usize, _, _>(),
    ];
    const STATEFUL: bool = true;
}
impl SearchTasks {
    /// Embeds each text.
    ///
    /// Calls `Search::embed` in a worker.
    pub fn embed(
        &self,
        texts: Vec<String>,
        normalise: bool,
    ) -> ::ray_zerocopy::__private::Pending<Result<Tensor<2>, String>> {
        self.0.remote_batch::<Search, 0usize, _, _>((texts, (normalise, ())))
    }
    /// [`embed`](Self::embed) with a single row, and its result.
    pub fn embed_one(
        &self,
        texts: <Vec<String> as ::ray_zerocopy::__private::Rows>::Row,
        normalise: bool,
    ) -> ::ray_zerocopy::__private::Pending<
        <Result<Tensor<2>, String> as ::ray_zerocopy::__private::RowsResult>::Row,
    > {
        self.0
            .remote_row::<
                Search,
                0usize,
                _,
                _,
            >((
                <Vec<String> as ::ray_zerocopy::__private::Rows>::one(texts),
                (normalise, ()),
            ))
    }
}
impl SearchActors {
    /// Embeds each text.
    ///
    /// Calls `Search::embed` in a worker.
    pub fn embed(
        &self,
        texts: Vec<String>,
        normalise: bool,
    ) -> ::ray_zerocopy::__private::Pending<Result<Tensor<2>, String>> {
        self.0.remote_batch::<Search, 0usize, _, _>((texts, (normalise, ())))
    }
    /// [`embed`](Self::embed) with a single row, and its result.
    pub fn embed_one(
        &self,
        texts: <Vec<String> as ::ray_zerocopy::__private::Rows>::Row,
        normalise: bool,
    ) -> ::ray_zerocopy::__private::Pending<
        <Result<Tensor<2>, String> as ::ray_zerocopy::__private::RowsResult>::Row,
    > {
        self.0
            .remote_row::<
                Search,
                0usize,
                _,
                _,
            >((
                <Vec<String> as ::ray_zerocopy::__private::Rows>::one(texts),
                (normalise, ()),
            ))
    }
    /// Calls `Search::learn` in a worker.
    pub fn learn(
        &self,
        rows: Tensor<2>,
    ) -> ::ray_zerocopy::__private::Pending<Tensor<1>> {
        self.0.remote_batch::<Search, 1usize, _, _>((rows, ()))
    }
    /// [`learn`](Self::learn) with a single row, and its result.
    pub fn learn_one(
        &self,
        rows: <Tensor<2> as ::ray_zerocopy::__private::Rows>::Row,
    ) -> ::ray_zerocopy::__private::Pending<
        <Tensor<1> as ::ray_zerocopy::__private::RowsResult>::Row,
    > {
        self.0
            .remote_row::<
                Search,
                1usize,
                _,
                _,
            >((<Tensor<2> as ::ray_zerocopy::__private::Rows>::one(rows), ()))
    }
}
#[automatically_derived]
impl ::ray_zerocopy::__private::BatchMethod<
    0usize,
    (Vec<String>, (bool, ())),
    Result<Tensor<2>, String>,
> for Search {
    fn cost(__row: &<Vec<String> as ::ray_zerocopy::__private::Rows>::Row) -> usize {
        tokens(__row)
    }
}
#[automatically_derived]
impl ::ray_zerocopy::__private::RemoteMethod<
    0usize,
    (Vec<String>, (bool, ())),
    Result<Tensor<2>, String>,
> for Search {
    const SOURCE: ::ray_zerocopy::__private::MethodSource = ::ray_zerocopy::__private::MethodSource {
        name: "embed",
        doc: "Embeds each text.",
        exclusive: false,
        parameters: &["texts", "normalise"],
    };
    fn wire() -> ::ray_zerocopy::__private::MethodWire<
        (Vec<String>, (bool, ())),
        Result<Tensor<2>, String>,
    > {
        use ::ray_zerocopy::__private::{self as __rzc, pick::*};
        (
            (
                __rzc::Remotable::wire(__rzc::WireKind::<Vec<String>>::START.pick()),
                (__rzc::Remotable::wire(__rzc::WireKind::<bool>::START.pick()), ()),
            ),
            __rzc::Remotable::wire(
                __rzc::WireKind::<Result<Tensor<2>, String>>::START.pick(),
            ),
        )
    }
    fn run(
        &mut self,
        (__argument0, (__argument1, ())): (Vec<String>, (bool, ())),
    ) -> Result<Tensor<2>, String> {
        <Search>::embed(self, __argument0, __argument1)
    }
}
#[automatically_derived]
impl ::ray_zerocopy::__private::BatchMethod<1usize, (Tensor<2>, ()), Tensor<1>>
for Search {
    fn cost(_: &<Tensor<2> as ::ray_zerocopy::__private::Rows>::Row) -> usize {
        1
    }
}
#[automatically_derived]
impl ::ray_zerocopy::__private::RemoteMethod<1usize, (Tensor<2>, ()), Tensor<1>>
for Search {
    const SOURCE: ::ray_zerocopy::__private::MethodSource = ::ray_zerocopy::__private::MethodSource {
        name: "learn",
        doc: "",
        exclusive: true,
        parameters: &["rows"],
    };
    fn wire() -> ::ray_zerocopy::__private::MethodWire<(Tensor<2>, ()), Tensor<1>> {
        use ::ray_zerocopy::__private::{self as __rzc, pick::*};
        (
            (__rzc::Remotable::wire(__rzc::WireKind::<Tensor<2>>::START.pick()), ()),
            __rzc::Remotable::wire(__rzc::WireKind::<Tensor<1>>::START.pick()),
        )
    }
    fn run(&mut self, (__argument0, ()): (Tensor<2>, ())) -> Tensor<1> {
        <Search>::learn(self, __argument0)
    }
}
