// What the user writes:
#[derive(Pipeline)]
pub struct Search {
    #[pipeline(config)]
    config: SearchConfig,
    encoder: burn::nn::Linear,
    heads: HashMap<String, Vec<Linear>>,
    reranker: Option<Box<Reranker>>,
    pair: (Linear, std::sync::Arc<Tokenizer>),
    vocabulary: Vec<String>,
    #[pipeline(module, rename = "last")]
    r#final: [Linear; 2],
    #[pipeline(copy)]
    limits: Vec<Limits>,
    #[pipeline(skip)]
    calls: AtomicUsize,
    marker: PhantomData<f32>,
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
impl ::ray_zerocopy::__private::Pipeline for Search {
    fn collect(
        &self,
        __collector: &mut ::ray_zerocopy::__private::Collector,
    ) -> ::core::result::Result<(), ::ray_zerocopy::__private::ShareError> {
        let Self {
            config: __field0,
            encoder: __field1,
            heads: __field2,
            reranker: __field3,
            pair: __field4,
            vocabulary: __field5,
            r#final: __field6,
            limits: __field7,
            ..
        } = self;
        __collector.enter_field("config");
        let __ops = ::ray_zerocopy::__private::leaf::copy::<SearchConfig>();
        (__ops.collect)(__field0, __collector)?;
        __collector.exit();
        __collector.enter_field("encoder");
        let __ops = {
            let __leaf = ::ray_zerocopy::__private::leaf::Leaf::<burn::nn::Linear>::NEW;
            {
                use ::ray_zerocopy::__private::leaf::*;
                (&&&&&__leaf).ops()
            }
        };
        (__ops.collect)(__field1, __collector)?;
        __collector.exit();
        __collector.enter_field("heads");
        let __whole = {
            let __type = ::ray_zerocopy::__private::whole::Whole::<
                HashMap<String, Vec<Linear>>,
            >::NEW;
            {
                use ::ray_zerocopy::__private::whole::*;
                (&&__type).copy()
            }
        };
        let __mark = __collector.begin_container();
        for (__key, __item) in ::ray_zerocopy::__private::entries::<
            HashMap<String, Vec<Linear>>,
        >(__field2)? {
            __collector.enter_key(&*__key);
            for (__index, __item) in ::core::iter::Iterator::enumerate(__item.iter()) {
                __collector.enter_index(__index);
                let __ops = {
                    let __leaf = ::ray_zerocopy::__private::leaf::Leaf::<Linear>::NEW;
                    {
                        use ::ray_zerocopy::__private::leaf::*;
                        (&&&&&__leaf).ops()
                    }
                };
                (__ops.collect)(__item, __collector)?;
                __collector.exit();
            }
            __collector.exit();
        }
        __collector
            .end_container::<HashMap<String, Vec<Linear>>>(__mark, __whole, __field2)?;
        __collector.exit();
        __collector.enter_field("reranker");
        let __whole = {
            let __type = ::ray_zerocopy::__private::whole::Whole::<
                Option<Box<Reranker>>,
            >::NEW;
            {
                use ::ray_zerocopy::__private::whole::*;
                (&&__type).copy()
            }
        };
        let __mark = __collector.begin_container();
        if let ::core::option::Option::Some(__item) = __field3 {
            let __item = &**__item;
            let __ops = {
                let __leaf = ::ray_zerocopy::__private::leaf::Leaf::<Reranker>::NEW;
                {
                    use ::ray_zerocopy::__private::leaf::*;
                    (&&&&&__leaf).ops()
                }
            };
            (__ops.collect)(__item, __collector)?;
        }
        __collector.end_container::<Option<Box<Reranker>>>(__mark, __whole, __field3)?;
        __collector.exit();
        __collector.enter_field("pair");
        let __whole = {
            let __type = ::ray_zerocopy::__private::whole::Whole::<
                (Linear, std::sync::Arc<Tokenizer>),
            >::NEW;
            {
                use ::ray_zerocopy::__private::whole::*;
                (&&__type).copy()
            }
        };
        let __mark = __collector.begin_container();
        __collector.enter_index(0usize);
        {
            let __item = &__field4.0;
            let __ops = {
                let __leaf = ::ray_zerocopy::__private::leaf::Leaf::<Linear>::NEW;
                {
                    use ::ray_zerocopy::__private::leaf::*;
                    (&&&&&__leaf).ops()
                }
            };
            (__ops.collect)(__item, __collector)?;
        }
        __collector.exit();
        __collector.enter_index(1usize);
        {
            let __item = &__field4.1;
            let __item = &**__item;
            let __ops = {
                let __leaf = ::ray_zerocopy::__private::leaf::Leaf::<Tokenizer>::NEW;
                {
                    use ::ray_zerocopy::__private::leaf::*;
                    (&&&&&__leaf).ops()
                }
            };
            (__ops.collect)(__item, __collector)?;
        }
        __collector.exit();
        __collector
            .end_container::<
                (Linear, std::sync::Arc<Tokenizer>),
            >(__mark, __whole, __field4)?;
        __collector.exit();
        __collector.enter_field("vocabulary");
        let __whole = {
            let __type = ::ray_zerocopy::__private::whole::Whole::<Vec<String>>::NEW;
            {
                use ::ray_zerocopy::__private::whole::*;
                (&&__type).copy()
            }
        };
        let __mark = __collector.begin_container();
        if ::core::option::Option::is_none(&__whole) {
            for (__index, __item) in ::core::iter::Iterator::enumerate(__field5.iter()) {
                __collector.enter_index(__index);
                let __ops = {
                    let __leaf = ::ray_zerocopy::__private::leaf::Leaf::<String>::NEW;
                    {
                        use ::ray_zerocopy::__private::leaf::*;
                        (&&&&&__leaf).ops()
                    }
                };
                (__ops.collect)(__item, __collector)?;
                __collector.exit();
            }
        }
        __collector.end_container::<Vec<String>>(__mark, __whole, __field5)?;
        __collector.exit();
        __collector.enter_field("last");
        let __whole = {
            let __type = ::ray_zerocopy::__private::whole::Whole::<[Linear; 2]>::NEW;
            {
                use ::ray_zerocopy::__private::whole::*;
                (&&__type).copy()
            }
        };
        let __mark = __collector.begin_container();
        for (__index, __item) in ::core::iter::Iterator::enumerate(__field6.iter()) {
            __collector.enter_index(__index);
            let __ops = ::ray_zerocopy::__private::leaf::module::<Linear>();
            (__ops.collect)(__item, __collector)?;
            __collector.exit();
        }
        __collector.end_container::<[Linear; 2]>(__mark, __whole, __field6)?;
        __collector.exit();
        __collector.enter_field("limits");
        let __ops = ::ray_zerocopy::__private::leaf::copy::<Vec<Limits>>();
        (__ops.collect)(__field7, __collector)?;
        __collector.exit();
        ::core::result::Result::Ok(())
    }
    fn attach(
        &mut self,
        __attacher: &mut ::ray_zerocopy::__private::Attacher,
    ) -> ::core::result::Result<(), ::ray_zerocopy::__private::LoadError> {
        let Self {
            config: __field0,
            encoder: __field1,
            heads: __field2,
            reranker: __field3,
            pair: __field4,
            vocabulary: __field5,
            r#final: __field6,
            limits: __field7,
            ..
        } = self;
        __attacher.enter_field("config");
        let __ops = ::ray_zerocopy::__private::leaf::copy::<SearchConfig>();
        (__ops.attach)(__field0, __attacher)?;
        __attacher.exit();
        __attacher.enter_field("encoder");
        let __ops = {
            let __leaf = ::ray_zerocopy::__private::leaf::Leaf::<burn::nn::Linear>::NEW;
            {
                use ::ray_zerocopy::__private::leaf::*;
                (&&&&&__leaf).ops()
            }
        };
        (__ops.attach)(__field1, __attacher)?;
        __attacher.exit();
        __attacher.enter_field("heads");
        let __whole = {
            let __type = ::ray_zerocopy::__private::whole::Whole::<
                HashMap<String, Vec<Linear>>,
            >::NEW;
            {
                use ::ray_zerocopy::__private::whole::*;
                (&&__type).copy()
            }
        };
        if !__attacher.copy_whole::<HashMap<String, Vec<Linear>>>(__whole, __field2)? {
            for (__key, __item) in ::ray_zerocopy::__private::entries_mut::<
                HashMap<String, Vec<Linear>>,
            >(__field2)? {
                __attacher.enter_key(&*__key);
                for (__index, __item) in ::core::iter::Iterator::enumerate(
                    __item.iter_mut(),
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
                __attacher.exit();
            }
        }
        __attacher.exit();
        __attacher.enter_field("reranker");
        let __whole = {
            let __type = ::ray_zerocopy::__private::whole::Whole::<
                Option<Box<Reranker>>,
            >::NEW;
            {
                use ::ray_zerocopy::__private::whole::*;
                (&&__type).copy()
            }
        };
        if !__attacher.copy_whole::<Option<Box<Reranker>>>(__whole, __field3)? {
            if let ::core::option::Option::Some(__item) = __field3 {
                let __item = &mut **__item;
                let __ops = {
                    let __leaf = ::ray_zerocopy::__private::leaf::Leaf::<Reranker>::NEW;
                    {
                        use ::ray_zerocopy::__private::leaf::*;
                        (&&&&&__leaf).ops()
                    }
                };
                (__ops.attach)(__item, __attacher)?;
            }
        }
        __attacher.exit();
        __attacher.enter_field("pair");
        let __whole = {
            let __type = ::ray_zerocopy::__private::whole::Whole::<
                (Linear, std::sync::Arc<Tokenizer>),
            >::NEW;
            {
                use ::ray_zerocopy::__private::whole::*;
                (&&__type).copy()
            }
        };
        if !__attacher
            .copy_whole::<(Linear, std::sync::Arc<Tokenizer>)>(__whole, __field4)?
        {
            __attacher.enter_index(0usize);
            {
                let __item = &mut __field4.0;
                let __ops = {
                    let __leaf = ::ray_zerocopy::__private::leaf::Leaf::<Linear>::NEW;
                    {
                        use ::ray_zerocopy::__private::leaf::*;
                        (&&&&&__leaf).ops()
                    }
                };
                (__ops.attach)(__item, __attacher)?;
            }
            __attacher.exit();
            __attacher.enter_index(1usize);
            {
                let __item = &mut __field4.1;
                let __item = ::ray_zerocopy::__private::unshare(__item, &*__attacher)?;
                let __ops = {
                    let __leaf = ::ray_zerocopy::__private::leaf::Leaf::<Tokenizer>::NEW;
                    {
                        use ::ray_zerocopy::__private::leaf::*;
                        (&&&&&__leaf).ops()
                    }
                };
                (__ops.attach)(__item, __attacher)?;
            }
            __attacher.exit();
        }
        __attacher.exit();
        __attacher.enter_field("vocabulary");
        let __whole = {
            let __type = ::ray_zerocopy::__private::whole::Whole::<Vec<String>>::NEW;
            {
                use ::ray_zerocopy::__private::whole::*;
                (&&__type).copy()
            }
        };
        if !__attacher.copy_whole::<Vec<String>>(__whole, __field5)? {
            for (__index, __item) in ::core::iter::Iterator::enumerate(
                __field5.iter_mut(),
            ) {
                __attacher.enter_index(__index);
                let __ops = {
                    let __leaf = ::ray_zerocopy::__private::leaf::Leaf::<String>::NEW;
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
        __attacher.enter_field("last");
        let __whole = {
            let __type = ::ray_zerocopy::__private::whole::Whole::<[Linear; 2]>::NEW;
            {
                use ::ray_zerocopy::__private::whole::*;
                (&&__type).copy()
            }
        };
        if !__attacher.copy_whole::<[Linear; 2]>(__whole, __field6)? {
            for (__index, __item) in ::core::iter::Iterator::enumerate(
                __field6.iter_mut(),
            ) {
                __attacher.enter_index(__index);
                let __ops = ::ray_zerocopy::__private::leaf::module::<Linear>();
                (__ops.attach)(__item, __attacher)?;
                __attacher.exit();
            }
        }
        __attacher.exit();
        __attacher.enter_field("limits");
        let __ops = ::ray_zerocopy::__private::leaf::copy::<Vec<Limits>>();
        (__ops.attach)(__field7, __attacher)?;
        __attacher.exit();
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
impl ::ray_zerocopy::__private::Root for Search {
    fn rebuild(
        __source: &::ray_zerocopy::__private::Source,
        __device: &::ray_zerocopy::__private::Device,
    ) -> ::core::result::Result<Self, ::ray_zerocopy::__private::LoadError> {
        let __config: SearchConfig = __source.config("config")?;
        ::ray_zerocopy::__private::rebuilt::<Self>(__config.init(__device))
    }
}
