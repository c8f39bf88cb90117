// What the user writes:
#[derive(Pipeline)]
struct Nothing;

// What it becomes:
#[automatically_derived]
impl ::ray_zerocopy::__private::Pipeline for Nothing {
    fn collect(
        &self,
        __collector: &mut ::ray_zerocopy::__private::Collector,
    ) -> ::core::result::Result<(), ::ray_zerocopy::__private::ShareError> {
        ::core::result::Result::Ok(())
    }
    fn attach(
        &mut self,
        __attacher: &mut ::ray_zerocopy::__private::Attacher,
    ) -> ::core::result::Result<(), ::ray_zerocopy::__private::LoadError> {
        ::core::result::Result::Ok(())
    }
}
