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
#[allow(
    dead_code,
    deprecated,
    missing_docs,
    missing_debug_implementations,
    private_bounds,
    private_interfaces,
    unreachable_pub,
    unused_qualifications,
    rustdoc::broken_intra_doc_links,
    clippy::pedantic,
    clippy::nursery,
    clippy::absolute_paths,
    clippy::too_many_arguments
)]
pub struct SearchTasks<M: Module>(
    ::ray_zerocopy::__private::Caller,
    ::core::marker::PhantomData<fn() -> Search<M>>,
)
where
    Search<M>: Sized,
    M: 'static;
#[automatically_derived]
#[allow(
    deprecated,
    elided_lifetimes_in_paths,
    unused_qualifications,
    clippy::pedantic,
    clippy::nursery,
    clippy::absolute_paths
)]
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
#[allow(
    dead_code,
    deprecated,
    missing_docs,
    missing_debug_implementations,
    private_bounds,
    private_interfaces,
    unreachable_pub,
    unused_qualifications,
    rustdoc::broken_intra_doc_links,
    clippy::pedantic,
    clippy::nursery,
    clippy::absolute_paths,
    clippy::too_many_arguments
)]
pub struct SearchActors<M: Module>(
    ::ray_zerocopy::__private::Caller,
    ::core::marker::PhantomData<fn() -> Search<M>>,
)
where
    Search<M>: Sized,
    M: 'static;
#[automatically_derived]
#[allow(
    deprecated,
    elided_lifetimes_in_paths,
    unused_qualifications,
    clippy::pedantic,
    clippy::nursery,
    clippy::absolute_paths
)]
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
#[allow(
    deprecated,
    elided_lifetimes_in_paths,
    unused_qualifications,
    clippy::pedantic,
    clippy::nursery,
    clippy::absolute_paths
)]
impl<M: Module> ::ray_zerocopy::__private::Remote for Search<M>
where
    Search<M>: Sized,
    M: 'static,
{
    type Tasks = SearchTasks<M>;
    type Actors = SearchActors<M>;
    fn methods() -> ::std::vec::Vec<::ray_zerocopy::__private::MethodInfo<Self>> {
        #[allow(unused_mut, reason = "a block may have no methods")]
        let mut __methods = ::std::vec::Vec::new();
        __methods
            .push(::ray_zerocopy::__private::MethodInfo {
                name: "embed",
                doc: "Embeds each text.\nOne row a text.\n\n# Panics",
                exclusive: false,
                parameters: ::std::vec![
                    ::ray_zerocopy::__private::Parameter { name : "texts", schema : { let
                    __wire = ::ray_zerocopy::__private::wire::Wire:: < Vec < String > >
                    ::NEW; { use ::ray_zerocopy::__private::wire:: *; (&& && __wire)
                    .ops() } } .schema }, ::ray_zerocopy::__private::Parameter { name :
                    "k", schema : { let __wire = ::ray_zerocopy::__private::wire::Wire::
                    < usize > ::NEW; { use ::ray_zerocopy::__private::wire:: *; (&& &&
                    __wire).ops() } } .schema }
                ],
                result: {
                    let __wire = ::ray_zerocopy::__private::wire::Wire::<Tensor<2>>::NEW;
                    {
                        use ::ray_zerocopy::__private::wire::*;
                        (&&&&__wire).ops()
                    }
                }
                    .schema,
                handler: SearchActors::<M>::__rzc_handle_embed,
            });
        #[cfg(feature = "learning")]
        __methods
            .push(::ray_zerocopy::__private::MethodInfo {
                name: "learn",
                doc: "",
                exclusive: true,
                parameters: ::std::vec![
                    ::ray_zerocopy::__private::Parameter { name : "other", schema : { let
                    __wire = ::ray_zerocopy::__private::wire::Wire:: < Option < Search <
                    M > > > ::NEW; { use ::ray_zerocopy::__private::wire:: *; (&& &&
                    __wire).ops() } } .schema }, ::ray_zerocopy::__private::Parameter {
                    name : "sizes", schema : { let __wire =
                    ::ray_zerocopy::__private::wire::Wire:: < [f32; < Search < M > >
                    ::SIZES] > ::NEW; { use ::ray_zerocopy::__private::wire:: *; (&& &&
                    __wire).ops() } } .schema }
                ],
                result: {
                    let __wire = ::ray_zerocopy::__private::wire::Wire::<()>::NEW;
                    {
                        use ::ray_zerocopy::__private::wire::*;
                        (&&&&__wire).ops()
                    }
                }
                    .schema,
                handler: SearchActors::<M>::__rzc_handle_learn,
            });
        __methods
    }
}
#[allow(
    dead_code,
    deprecated,
    missing_docs,
    missing_debug_implementations,
    private_bounds,
    private_interfaces,
    unreachable_pub,
    unused_qualifications,
    rustdoc::broken_intra_doc_links,
    clippy::pedantic,
    clippy::nursery,
    clippy::absolute_paths,
    clippy::too_many_arguments
)]
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
        SearchActors::<M>::__rzc_call_embed(&self.0, texts, k)
    }
}
#[allow(
    dead_code,
    deprecated,
    missing_docs,
    missing_debug_implementations,
    private_bounds,
    private_interfaces,
    unreachable_pub,
    unused_qualifications,
    rustdoc::broken_intra_doc_links,
    clippy::pedantic,
    clippy::nursery,
    clippy::absolute_paths,
    clippy::too_many_arguments
)]
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
        SearchActors::<M>::__rzc_call_embed(&self.0, texts, k)
    }
    /// Calls `Search::learn` in a worker.
    #[cfg(feature = "learning")]
    pub fn learn(
        &self,
        other: Option<Search<M>>,
        sizes: [f32; <Search<M>>::SIZES],
    ) -> ::ray_zerocopy::__private::Pending<()> {
        SearchActors::<M>::__rzc_call_learn(&self.0, other, sizes)
    }
    #[doc(hidden)]
    fn __rzc_call_embed(
        __caller: &::ray_zerocopy::__private::Caller,
        __argument0: Vec<String>,
        __argument1: usize,
    ) -> ::ray_zerocopy::__private::Pending<Tensor<2>> {
        let __method = ::ray_zerocopy::__private::Method::new::<
            Search<M>,
        >("embed", SearchActors::<M>::__rzc_handle_embed);
        let __put = move |
            __writer: &mut ::ray_zerocopy::__private::Writer,
        | -> ::core::result::Result<(), ::ray_zerocopy::__private::WireError> {
            let __ops = {
                let __wire = ::ray_zerocopy::__private::wire::Wire::<Vec<String>>::NEW;
                {
                    use ::ray_zerocopy::__private::wire::*;
                    (&&&&__wire).ops()
                }
            };
            (__ops.put)(&__argument0, __writer)?;
            let __ops = {
                let __wire = ::ray_zerocopy::__private::wire::Wire::<usize>::NEW;
                {
                    use ::ray_zerocopy::__private::wire::*;
                    (&&&&__wire).ops()
                }
            };
            (__ops.put)(&__argument1, __writer)?;
            ::core::result::Result::Ok(())
        };
        let __ops = {
            let __wire = ::ray_zerocopy::__private::wire::Wire::<Tensor<2>>::NEW;
            {
                use ::ray_zerocopy::__private::wire::*;
                (&&&&__wire).ops()
            }
        };
        __caller.call(__method, __put, __ops.take)
    }
    #[doc(hidden)]
    fn __rzc_handle_embed(
        __target: &mut Search<M>,
        __reader: &mut ::ray_zerocopy::__private::Reader,
        __writer: &mut ::ray_zerocopy::__private::Writer,
    ) -> ::core::result::Result<(), ::ray_zerocopy::__private::WireError> {
        let __ops = {
            let __wire = ::ray_zerocopy::__private::wire::Wire::<Vec<String>>::NEW;
            {
                use ::ray_zerocopy::__private::wire::*;
                (&&&&__wire).ops()
            }
        };
        let __argument0: Vec<String> = (__ops.take)(__reader)?;
        let __ops = {
            let __wire = ::ray_zerocopy::__private::wire::Wire::<usize>::NEW;
            {
                use ::ray_zerocopy::__private::wire::*;
                (&&&&__wire).ops()
            }
        };
        let __argument1: usize = (__ops.take)(__reader)?;
        let __result: Tensor<2> = <Search<
            M,
        >>::embed(&*__target, __argument0, __argument1);
        let __ops = {
            let __wire = ::ray_zerocopy::__private::wire::Wire::<Tensor<2>>::NEW;
            {
                use ::ray_zerocopy::__private::wire::*;
                (&&&&__wire).ops()
            }
        };
        (__ops.put)(&__result, __writer)
    }
    #[cfg(feature = "learning")]
    #[doc(hidden)]
    fn __rzc_call_learn(
        __caller: &::ray_zerocopy::__private::Caller,
        __argument0: Option<Search<M>>,
        __argument1: [f32; <Search<M>>::SIZES],
    ) -> ::ray_zerocopy::__private::Pending<()> {
        let __method = ::ray_zerocopy::__private::Method::new::<
            Search<M>,
        >("learn", SearchActors::<M>::__rzc_handle_learn);
        let __put = move |
            __writer: &mut ::ray_zerocopy::__private::Writer,
        | -> ::core::result::Result<(), ::ray_zerocopy::__private::WireError> {
            let __ops = {
                let __wire = ::ray_zerocopy::__private::wire::Wire::<
                    Option<Search<M>>,
                >::NEW;
                {
                    use ::ray_zerocopy::__private::wire::*;
                    (&&&&__wire).ops()
                }
            };
            (__ops.put)(&__argument0, __writer)?;
            let __ops = {
                let __wire = ::ray_zerocopy::__private::wire::Wire::<
                    [f32; <Search<M>>::SIZES],
                >::NEW;
                {
                    use ::ray_zerocopy::__private::wire::*;
                    (&&&&__wire).ops()
                }
            };
            (__ops.put)(&__argument1, __writer)?;
            ::core::result::Result::Ok(())
        };
        let __ops = {
            let __wire = ::ray_zerocopy::__private::wire::Wire::<()>::NEW;
            {
                use ::ray_zerocopy::__private::wire::*;
                (&&&&__wire).ops()
            }
        };
        __caller.call(__method, __put, __ops.take)
    }
    #[cfg(feature = "learning")]
    #[doc(hidden)]
    fn __rzc_handle_learn(
        __target: &mut Search<M>,
        __reader: &mut ::ray_zerocopy::__private::Reader,
        __writer: &mut ::ray_zerocopy::__private::Writer,
    ) -> ::core::result::Result<(), ::ray_zerocopy::__private::WireError> {
        let __ops = {
            let __wire = ::ray_zerocopy::__private::wire::Wire::<Option<Search<M>>>::NEW;
            {
                use ::ray_zerocopy::__private::wire::*;
                (&&&&__wire).ops()
            }
        };
        let __argument0: Option<Search<M>> = (__ops.take)(__reader)?;
        let __ops = {
            let __wire = ::ray_zerocopy::__private::wire::Wire::<
                [f32; <Search<M>>::SIZES],
            >::NEW;
            {
                use ::ray_zerocopy::__private::wire::*;
                (&&&&__wire).ops()
            }
        };
        let __argument1: [f32; <Search<M>>::SIZES] = (__ops.take)(__reader)?;
        let __result: () = <Search<M>>::learn(__target, __argument0, __argument1);
        let __ops = {
            let __wire = ::ray_zerocopy::__private::wire::Wire::<()>::NEW;
            {
                use ::ray_zerocopy::__private::wire::*;
                (&&&&__wire).ops()
            }
        };
        (__ops.put)(&__result, __writer)
    }
}
