// What the user writes:
#[derive(Pipeline)]
enum Never {}

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
impl ::ray_zerocopy::__private::Pipeline for Never {
    fn collect(
        &self,
        __collector: &mut ::ray_zerocopy::__private::Collector,
    ) -> ::core::result::Result<(), ::ray_zerocopy::__private::ShareError> {
        match *self {}
    }
    fn attach(
        &mut self,
        __attacher: &mut ::ray_zerocopy::__private::Attacher,
    ) -> ::core::result::Result<(), ::ray_zerocopy::__private::LoadError> {
        match *self {}
    }
}
