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
impl<M: Module, const N: usize> my_crate::reexport::__private::Pipeline for Wrapper<M, N>
where
    M: Debug,
    M: 'static,
{
    fn collect(
        &self,
        __collector: &mut my_crate::reexport::__private::Collector,
    ) -> ::core::result::Result<(), my_crate::reexport::__private::ShareError> {
        use my_crate::reexport::__private::{self as __rzc, pick::*};
        let __walk = __rzc::Container::new(
            __rzc::SerdeProbe::<[M; N]>::START.pick(),
            <<[M; N] as __rzc::PipelineList<
                M,
            >>::Walk as __rzc::Over>::over(
                __rzc::PipelineField::walk(__rzc::FieldKind::<M>::START.pick()),
            ),
        );
        __rzc::Walk::collect_field(&__walk, "0", &self.0, __collector)?;
        let __walk = __rzc::PipelineField::walk(
            __rzc::FieldKind::<M::Config>::START.pick(),
        );
        __rzc::Walk::collect_field(&__walk, "1", &self.1, __collector)?;
        ::core::result::Result::Ok(())
    }
    fn attach(
        &mut self,
        __attacher: &mut my_crate::reexport::__private::Attacher,
    ) -> ::core::result::Result<(), my_crate::reexport::__private::LoadError> {
        use my_crate::reexport::__private::{self as __rzc, pick::*};
        let __walk = __rzc::Container::new(
            __rzc::SerdeProbe::<[M; N]>::START.pick(),
            <<[M; N] as __rzc::PipelineList<
                M,
            >>::Walk as __rzc::Over>::over(
                __rzc::PipelineField::walk(__rzc::FieldKind::<M>::START.pick()),
            ),
        );
        __rzc::Walk::attach_field(&__walk, "0", &mut self.0, __attacher)?;
        let __walk = __rzc::PipelineField::walk(
            __rzc::FieldKind::<M::Config>::START.pick(),
        );
        __rzc::Walk::attach_field(&__walk, "1", &mut self.1, __attacher)?;
        ::core::result::Result::Ok(())
    }
}
