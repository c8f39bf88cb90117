// What the user writes:
#[derive(Pipeline)]
enum Never {}

// What it becomes:
#[automatically_derived]
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
