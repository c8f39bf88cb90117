// What the user writes:
#[derive(Pipeline)]
#[pipeline(crate = "my_crate::reexport")]
struct Wrapper<M: Module = Linear, const N: usize = 2>(
    [M; N],
    M::Config,
)
where
    M: Debug;

// What it becomes:
#[automatically_derived]
#[allow(
    deprecated,
    elided_lifetimes_in_paths,
    unused_qualifications,
    clippy::pedantic,
    clippy::nursery,
    clippy::absolute_paths
)]
impl<M: Module, const N: usize> my_crate::reexport::__private::Pipeline for Wrapper<M, N>
where
    M: Debug,
    M: 'static,
{
    fn collect(
        &self,
        __collector: &mut my_crate::reexport::__private::Collector,
    ) -> ::core::result::Result<(), my_crate::reexport::__private::ShareError> {
        let Self { 0: __field0, 1: __field1, .. } = self;
        __collector.enter_field("0");
        let __whole = {
            let __type = my_crate::reexport::__private::whole::Whole::<[M; N]>::NEW;
            {
                use my_crate::reexport::__private::whole::*;
                (&&__type).copy()
            }
        };
        let __mark = __collector.begin_container();
        for (__index, __item) in ::core::iter::Iterator::enumerate(__field0.iter()) {
            __collector.enter_index(__index);
            let __ops = {
                let __leaf = my_crate::reexport::__private::leaf::Leaf::<M>::NEW;
                {
                    use my_crate::reexport::__private::leaf::*;
                    (&&&&&__leaf).ops()
                }
            };
            (__ops.collect)(__item, __collector)?;
            __collector.exit();
        }
        __collector.end_container::<[M; N]>(__mark, __whole, __field0)?;
        __collector.exit();
        __collector.enter_field("1");
        let __ops = {
            let __leaf = my_crate::reexport::__private::leaf::Leaf::<M::Config>::NEW;
            {
                use my_crate::reexport::__private::leaf::*;
                (&&&&&__leaf).ops()
            }
        };
        (__ops.collect)(__field1, __collector)?;
        __collector.exit();
        ::core::result::Result::Ok(())
    }
    fn attach(
        &mut self,
        __attacher: &mut my_crate::reexport::__private::Attacher,
    ) -> ::core::result::Result<(), my_crate::reexport::__private::LoadError> {
        let Self { 0: __field0, 1: __field1, .. } = self;
        __attacher.enter_field("0");
        let __whole = {
            let __type = my_crate::reexport::__private::whole::Whole::<[M; N]>::NEW;
            {
                use my_crate::reexport::__private::whole::*;
                (&&__type).copy()
            }
        };
        if !__attacher.copy_whole::<[M; N]>(__whole, __field0)? {
            for (__index, __item) in ::core::iter::Iterator::enumerate(
                __field0.iter_mut(),
            ) {
                __attacher.enter_index(__index);
                let __ops = {
                    let __leaf = my_crate::reexport::__private::leaf::Leaf::<M>::NEW;
                    {
                        use my_crate::reexport::__private::leaf::*;
                        (&&&&&__leaf).ops()
                    }
                };
                (__ops.attach)(__item, __attacher)?;
                __attacher.exit();
            }
        }
        __attacher.exit();
        __attacher.enter_field("1");
        let __ops = {
            let __leaf = my_crate::reexport::__private::leaf::Leaf::<M::Config>::NEW;
            {
                use my_crate::reexport::__private::leaf::*;
                (&&&&&__leaf).ops()
            }
        };
        (__ops.attach)(__field1, __attacher)?;
        __attacher.exit();
        ::core::result::Result::Ok(())
    }
}
