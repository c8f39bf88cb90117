// What the user writes:
#[derive(Pipeline)]
#[pipeline(init = Model::new)]
enum Model {
    Small(Linear, #[pipeline(skip)] Cache),
    Large { layers: Vec<Linear>, r#type: String },
    Absent,
}

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
impl ::ray_zerocopy::__private::Pipeline for Model {
    fn collect(
        &self,
        __collector: &mut ::ray_zerocopy::__private::Collector,
    ) -> ::core::result::Result<(), ::ray_zerocopy::__private::ShareError> {
        match self {
            Self::Small { 0: __field0, .. } => {
                __collector.variant("Small");
                __collector.enter_field("0");
                let __ops = {
                    let __leaf = ::ray_zerocopy::__private::leaf::Leaf::<Linear>::NEW;
                    {
                        use ::ray_zerocopy::__private::leaf::*;
                        (&&&&&__leaf).ops()
                    }
                };
                (__ops.collect)(__field0, __collector)?;
                __collector.exit();
            }
            Self::Large { layers: __field0, r#type: __field1, .. } => {
                __collector.variant("Large");
                __collector.enter_field("layers");
                let __whole = {
                    let __type = ::ray_zerocopy::__private::whole::Whole::<
                        Vec<Linear>,
                    >::NEW;
                    {
                        use ::ray_zerocopy::__private::whole::*;
                        (&&__type).copy()
                    }
                };
                let __mark = __collector.begin_container();
                for (__index, __item) in ::core::iter::Iterator::enumerate(
                    __field0.iter(),
                ) {
                    __collector.enter_index(__index);
                    let __ops = {
                        let __leaf = ::ray_zerocopy::__private::leaf::Leaf::<
                            Linear,
                        >::NEW;
                        {
                            use ::ray_zerocopy::__private::leaf::*;
                            (&&&&&__leaf).ops()
                        }
                    };
                    (__ops.collect)(__item, __collector)?;
                    __collector.exit();
                }
                __collector.end_container::<Vec<Linear>>(__mark, __whole, __field0)?;
                __collector.exit();
                __collector.enter_field("type");
                let __ops = {
                    let __leaf = ::ray_zerocopy::__private::leaf::Leaf::<String>::NEW;
                    {
                        use ::ray_zerocopy::__private::leaf::*;
                        (&&&&&__leaf).ops()
                    }
                };
                (__ops.collect)(__field1, __collector)?;
                __collector.exit();
            }
            Self::Absent { .. } => {
                __collector.variant("Absent");
            }
        }
        ::core::result::Result::Ok(())
    }
    fn attach(
        &mut self,
        __attacher: &mut ::ray_zerocopy::__private::Attacher,
    ) -> ::core::result::Result<(), ::ray_zerocopy::__private::LoadError> {
        __attacher
            .variant(
                match self {
                    Self::Small { .. } => "Small",
                    Self::Large { .. } => "Large",
                    Self::Absent { .. } => "Absent",
                },
            )?;
        match self {
            Self::Small { 0: __field0, .. } => {
                __attacher.enter_field("0");
                let __ops = {
                    let __leaf = ::ray_zerocopy::__private::leaf::Leaf::<Linear>::NEW;
                    {
                        use ::ray_zerocopy::__private::leaf::*;
                        (&&&&&__leaf).ops()
                    }
                };
                (__ops.attach)(__field0, __attacher)?;
                __attacher.exit();
            }
            Self::Large { layers: __field0, r#type: __field1, .. } => {
                __attacher.enter_field("layers");
                let __whole = {
                    let __type = ::ray_zerocopy::__private::whole::Whole::<
                        Vec<Linear>,
                    >::NEW;
                    {
                        use ::ray_zerocopy::__private::whole::*;
                        (&&__type).copy()
                    }
                };
                if !__attacher.copy_whole::<Vec<Linear>>(__whole, __field0)? {
                    for (__index, __item) in ::core::iter::Iterator::enumerate(
                        __field0.iter_mut(),
                    ) {
                        __attacher.enter_index(__index);
                        let __ops = {
                            let __leaf = ::ray_zerocopy::__private::leaf::Leaf::<
                                Linear,
                            >::NEW;
                            {
                                use ::ray_zerocopy::__private::leaf::*;
                                (&&&&&__leaf).ops()
                            }
                        };
                        (__ops.attach)(__item, __attacher)?;
                        __attacher.exit();
                    }
                }
                __attacher.exit();
                __attacher.enter_field("type");
                let __ops = {
                    let __leaf = ::ray_zerocopy::__private::leaf::Leaf::<String>::NEW;
                    {
                        use ::ray_zerocopy::__private::leaf::*;
                        (&&&&&__leaf).ops()
                    }
                };
                (__ops.attach)(__field1, __attacher)?;
                __attacher.exit();
            }
            Self::Absent { .. } => {}
        }
        ::core::result::Result::Ok(())
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
impl ::ray_zerocopy::__private::Root for Model {
    fn rebuild(
        __source: &::ray_zerocopy::__private::Source,
        __device: &::ray_zerocopy::__private::Device,
    ) -> ::core::result::Result<Self, ::ray_zerocopy::__private::LoadError> {
        let __init: fn(&::ray_zerocopy::__private::Device) -> _ = Model::new;
        ::ray_zerocopy::__private::rebuilt::<Self>(__init(__device))
    }
}
