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
pub struct SearchTasks(
    my_crate::reexport::__private::Caller,
    ::core::marker::PhantomData<fn() -> Search>,
);
#[automatically_derived]
#[allow(
    deprecated,
    elided_lifetimes_in_paths,
    unused_qualifications,
    clippy::pedantic,
    clippy::nursery,
    clippy::absolute_paths
)]
impl ::core::convert::From<my_crate::reexport::__private::Caller> for SearchTasks {
    fn from(__caller: my_crate::reexport::__private::Caller) -> Self {
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
pub struct SearchActors(
    my_crate::reexport::__private::Caller,
    ::core::marker::PhantomData<fn() -> Search>,
);
#[automatically_derived]
#[allow(
    deprecated,
    elided_lifetimes_in_paths,
    unused_qualifications,
    clippy::pedantic,
    clippy::nursery,
    clippy::absolute_paths
)]
impl ::core::convert::From<my_crate::reexport::__private::Caller> for SearchActors {
    fn from(__caller: my_crate::reexport::__private::Caller) -> Self {
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
impl my_crate::reexport::__private::Remote for Search {
    type Tasks = SearchTasks;
    type Actors = SearchActors;
    fn methods() -> ::std::vec::Vec<my_crate::reexport::__private::MethodInfo<Self>> {
        #[allow(unused_mut, reason = "a block may have no methods")]
        let mut __methods = ::std::vec::Vec::new();
        __methods
            .push(my_crate::reexport::__private::MethodInfo {
                name: "good",
                doc: "",
                exclusive: false,
                parameters: ::std::vec![],
                result: {
                    let __wire = my_crate::reexport::__private::wire::Wire::<()>::NEW;
                    {
                        use my_crate::reexport::__private::wire::*;
                        (&&&&__wire).ops()
                    }
                }
                    .schema,
                handler: SearchActors::__rzc_handle_good,
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
impl SearchTasks {
    /// Calls `Search::good` in a worker.
    pub fn good(&self) -> my_crate::reexport::__private::Pending<()> {
        SearchActors::__rzc_call_good(&self.0)
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
impl SearchActors {
    /// Calls `Search::good` in a worker.
    pub fn good(&self) -> my_crate::reexport::__private::Pending<()> {
        SearchActors::__rzc_call_good(&self.0)
    }
    #[doc(hidden)]
    fn __rzc_call_good(
        __caller: &my_crate::reexport::__private::Caller,
    ) -> my_crate::reexport::__private::Pending<()> {
        let __method = my_crate::reexport::__private::Method::new::<
            Search,
        >("good", SearchActors::__rzc_handle_good);
        let __put = move |
            __writer: &mut my_crate::reexport::__private::Writer,
        | -> ::core::result::Result<(), my_crate::reexport::__private::WireError> {
            ::core::result::Result::Ok(())
        };
        let __ops = {
            let __wire = my_crate::reexport::__private::wire::Wire::<()>::NEW;
            {
                use my_crate::reexport::__private::wire::*;
                (&&&&__wire).ops()
            }
        };
        __caller.call(__method, __put, __ops.take)
    }
    #[doc(hidden)]
    fn __rzc_handle_good(
        __target: &mut Search,
        __reader: &mut my_crate::reexport::__private::Reader,
        __writer: &mut my_crate::reexport::__private::Writer,
    ) -> ::core::result::Result<(), my_crate::reexport::__private::WireError> {
        let __result: () = <Search>::good(&*__target);
        let __ops = {
            let __wire = my_crate::reexport::__private::wire::Wire::<()>::NEW;
            {
                use my_crate::reexport::__private::wire::*;
                (&&&&__wire).ops()
            }
        };
        (__ops.put)(&__result, __writer)
    }
}
::core::compile_error! {
    "an argument of a remote method crosses to another process: take `String` instead of `&str`"
}
