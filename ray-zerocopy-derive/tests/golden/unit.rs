// What the user writes:
#[derive(Pipeline)]
struct Nothing;

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
impl ::ray_zerocopy::__private::Pipeline for Nothing {
    fn collect(
        &self,
        __collector: &mut ::ray_zerocopy::__private::Collector,
    ) -> ::core::result::Result<(), ::ray_zerocopy::__private::ShareError> {
        let Self { .. } = self;
        ::core::result::Result::Ok(())
    }
    fn attach(
        &mut self,
        __attacher: &mut ::ray_zerocopy::__private::Attacher,
    ) -> ::core::result::Result<(), ::ray_zerocopy::__private::LoadError> {
        let Self { .. } = self;
        ::core::result::Result::Ok(())
    }
}
