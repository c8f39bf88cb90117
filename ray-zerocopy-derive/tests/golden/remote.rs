// What the user writes:
#[ray_zerocopy::remote]
impl<M: Module> Search<M>
where
    Self: Sized,
{
    /// Embeds each text.
    /// One row a text.
    ///
    /// # Panics
    pub fn embed(&self, texts: Vec<String>, mut k: usize) -> Tensor<2> {
        k += 1;
        self.run(texts, k)
    }
    #[cfg(feature = "learning")]
    pub fn learn(&mut self, other: Option<Self>, sizes: [f32; Self::SIZES]) {}
    #[remote(skip)]
    pub fn borrow(&self) -> &M {
        &self.encoder
    }
    pub fn new() -> Self {
        Self::default()
    }
    fn run(&self, texts: Vec<String>, k: usize) -> Tensor<2> {
        self.encoder.forward(texts, k)
    }
}

// What it becomes:
impl<M: Module> Search<M>
where
    Self: Sized,
{
    /// Embeds each text.
    /// One row a text.
    ///
    /// # Panics
    pub fn embed(&self, texts: Vec<String>, mut k: usize) -> Tensor<2> {
        k += 1;
        self.run(texts, k)
    }
    #[cfg(feature = "learning")]
    pub fn learn(&mut self, other: Option<Self>, sizes: [f32; Self::SIZES]) {}
    pub fn borrow(&self) -> &M {
        &self.encoder
    }
    pub fn new() -> Self {
        Self::default()
    }
    fn run(&self, texts: Vec<String>, k: usize) -> Tensor<2> {
        self.encoder.forward(texts, k)
    }
}
/// Calls `Search`'s methods, each call as one task.
pub struct SearchTasks<M: Module>(
    ::ray_zerocopy::__private::Caller,
    ::core::marker::PhantomData<fn() -> Search<M>>,
)
where
    Search<M>: Sized,
    M: 'static;
#[automatically_derived]
impl<M: Module> ::core::convert::From<::ray_zerocopy::__private::Caller>
for SearchTasks<M>
where
    Search<M>: Sized,
    M: 'static,
{
    fn from(__caller: ::ray_zerocopy::__private::Caller) -> Self {
        Self(__caller, ::core::marker::PhantomData)
    }
}
/// Calls `Search`'s methods in an actor, which keeps its state.
pub struct SearchActors<M: Module>(
    ::ray_zerocopy::__private::Caller,
    ::core::marker::PhantomData<fn() -> Search<M>>,
)
where
    Search<M>: Sized,
    M: 'static;
#[automatically_derived]
impl<M: Module> ::core::convert::From<::ray_zerocopy::__private::Caller>
for SearchActors<M>
where
    Search<M>: Sized,
    M: 'static,
{
    fn from(__caller: ::ray_zerocopy::__private::Caller) -> Self {
        Self(__caller, ::core::marker::PhantomData)
    }
}
#[automatically_derived]
impl<M: Module> ::ray_zerocopy::__private::Remote for Search<M>
where
    Search<M>: Sized,
    M: 'static,
{
    type Tasks = SearchTasks<M>;
    type Actors = SearchActors<M>;
    const METHODS: &'static [::ray_zerocopy::__private::MethodEntry<Self>] = &[
        ::ray_zerocopy::__private::MethodEntry::of::<0usize, _, _>(),
        #[cfg(feature = "learning")]
        ::ray_zerocopy::__private::MethodEntry::of::<1usize, _, _>(),
    ];
    const STATEFUL: bool = true;
}
impl<M: Module> SearchTasks<M>
where
    Search<M>: Sized,
    M: 'static,
{
    /// Embeds each text.
    /// One row a text.
    ///
    /// Calls `Search::embed` in a worker.
    pub fn embed(
        &self,
        texts: Vec<String>,
        k: usize,
    ) -> ::ray_zerocopy::__private::Pending<Tensor<2>> {
        self.0.remote::<Search<M>, 0usize, _, _>((texts, (k, ())))
    }
}
impl<M: Module> SearchActors<M>
where
    Search<M>: Sized,
    M: 'static,
{
    /// Embeds each text.
    /// One row a text.
    ///
    /// Calls `Search::embed` in a worker.
    pub fn embed(
        &self,
        texts: Vec<String>,
        k: usize,
    ) -> ::ray_zerocopy::__private::Pending<Tensor<2>> {
        self.0.remote::<Search<M>, 0usize, _, _>((texts, (k, ())))
    }
    /// Calls `Search::learn` in a worker.
    #[cfg(feature = "learning")]
    pub fn learn(
        &self,
        other: Option<Search<M>>,
        sizes: [f32; <Search<M>>::SIZES],
    ) -> ::ray_zerocopy::__private::Pending<()> {
        self.0.remote::<Search<M>, 1usize, _, _>((other, (sizes, ())))
    }
}
#[automatically_derived]
impl<
    M: Module,
> ::ray_zerocopy::__private::RemoteMethod<0usize, (Vec<String>, (usize, ())), Tensor<2>>
for Search<M>
where
    Search<M>: Sized,
    M: 'static,
{
    const SOURCE: ::ray_zerocopy::__private::MethodSource = ::ray_zerocopy::__private::MethodSource {
        name: "embed",
        doc: "Embeds each text.\nOne row a text.\n\n# Panics",
        exclusive: false,
        parameters: &["texts", "k"],
    };
    fn wire() -> ::ray_zerocopy::__private::MethodWire<
        (Vec<String>, (usize, ())),
        Tensor<2>,
    > {
        use ::ray_zerocopy::__private::{self as __rzc, pick::*};
        (
            (
                __rzc::Remotable::wire(__rzc::WireKind::<Vec<String>>::START.pick()),
                (__rzc::Remotable::wire(__rzc::WireKind::<usize>::START.pick()), ()),
            ),
            __rzc::Remotable::wire(__rzc::WireKind::<Tensor<2>>::START.pick()),
        )
    }
    fn run(
        &mut self,
        (__argument0, (__argument1, ())): (Vec<String>, (usize, ())),
    ) -> Tensor<2> {
        <Search<M>>::embed(self, __argument0, __argument1)
    }
}
#[cfg(feature = "learning")]
#[automatically_derived]
impl<
    M: Module,
> ::ray_zerocopy::__private::RemoteMethod<
    1usize,
    (Option<Search<M>>, ([f32; <Search<M>>::SIZES], ())),
    (),
> for Search<M>
where
    Search<M>: Sized,
    M: 'static,
{
    const SOURCE: ::ray_zerocopy::__private::MethodSource = ::ray_zerocopy::__private::MethodSource {
        name: "learn",
        doc: "",
        exclusive: true,
        parameters: &["other", "sizes"],
    };
    fn wire() -> ::ray_zerocopy::__private::MethodWire<
        (Option<Search<M>>, ([f32; <Search<M>>::SIZES], ())),
        (),
    > {
        use ::ray_zerocopy::__private::{self as __rzc, pick::*};
        (
            (
                __rzc::Remotable::wire(
                    __rzc::WireKind::<Option<Search<M>>>::START.pick(),
                ),
                (
                    __rzc::Remotable::wire(
                        __rzc::WireKind::<[f32; <Search<M>>::SIZES]>::START.pick(),
                    ),
                    (),
                ),
            ),
            __rzc::Remotable::wire(__rzc::WireKind::<()>::START.pick()),
        )
    }
    fn run(
        &mut self,
        (
            __argument0,
            (__argument1, ()),
        ): (Option<Search<M>>, ([f32; <Search<M>>::SIZES], ())),
    ) -> () {
        <Search<M>>::learn(self, __argument0, __argument1)
    }
}
