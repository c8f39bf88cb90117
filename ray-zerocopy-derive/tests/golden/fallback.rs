// What the user writes:
#[derive(Pipeline)]
struct Broken<'a, M> {
    name: &'a str,
    model: M,
}

// What it becomes:
::core::compile_error! {
    "a pipeline is rebuilt in other processes and cannot borrow: own the data instead of `'a`"
}
::core::compile_error! {
    "field `name` holds a reference, which another process cannot own: own the value (`String` for `&str`, `Vec<T>` for `&[T]`), or leave the field out with `#[pipeline(skip)]`"
}
#[automatically_derived]
impl<'a, M> ::ray_zerocopy::__private::Pipeline for Broken<'a, M>
where
    M: 'static,
    'a: 'static,
{
    fn collect(
        &self,
        _: &mut ::ray_zerocopy::__private::Collector,
    ) -> ::core::result::Result<(), ::ray_zerocopy::__private::ShareError> {
        ::core::unreachable!()
    }
    fn attach(
        &mut self,
        _: &mut ::ray_zerocopy::__private::Attacher,
    ) -> ::core::result::Result<(), ::ray_zerocopy::__private::LoadError> {
        ::core::unreachable!()
    }
}
#[automatically_derived]
impl<'a, M> ::ray_zerocopy::__private::Root for Broken<'a, M>
where
    M: 'static,
    'a: 'static,
{
    fn rebuild(
        _: &::ray_zerocopy::__private::Source<'_>,
        _: &::ray_zerocopy::__private::Device,
    ) -> ::core::result::Result<Self, ::ray_zerocopy::__private::LoadError> {
        ::core::unreachable!()
    }
}
