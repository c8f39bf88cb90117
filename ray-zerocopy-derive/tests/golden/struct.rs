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
impl ::ray_zerocopy::__private::Pipeline for Search {
    fn collect(
        &self,
        __collector: &mut ::ray_zerocopy::__private::Collector,
    ) -> ::core::result::Result<(), ::ray_zerocopy::__private::ShareError> {
        use ::ray_zerocopy::__private::{self as __rzc, pick::*};
        let __walk = <SearchConfig as __rzc::CopyField>::walk();
        __rzc::Walk::collect_field(&__walk, "config", &self.config, __collector)?;
        let __walk = __rzc::PipelineField::walk(
            __rzc::FieldKind::<burn::nn::Linear>::START.pick(),
        );
        __rzc::Walk::collect_field(&__walk, "encoder", &self.encoder, __collector)?;
        let __walk = __rzc::Container::new(
            __rzc::SerdeProbe::<HashMap<String, Vec<Linear>>>::START.pick(),
            <<HashMap<
                String,
                Vec<Linear>,
            > as __rzc::PipelineMap>::Key as __rzc::MapKey>::over(
                <<Vec<
                    Linear,
                > as __rzc::PipelineList<
                    Linear,
                >>::Walk as __rzc::Over>::over(
                    __rzc::PipelineField::walk(__rzc::FieldKind::<Linear>::START.pick()),
                ),
            ),
        );
        __rzc::Walk::collect_field(&__walk, "heads", &self.heads, __collector)?;
        let __walk = __rzc::Container::new(
            __rzc::SerdeProbe::<Option<Box<Reranker>>>::START.pick(),
            <<Option<
                Box<Reranker>,
            > as __rzc::PipelineContainer>::Walk as __rzc::Over>::over(
                <<Box<
                    Reranker,
                > as __rzc::PipelineContainer>::Walk as __rzc::Over>::over(
                    __rzc::PipelineField::walk(
                        __rzc::FieldKind::<Reranker>::START.pick(),
                    ),
                ),
            ),
        );
        __rzc::Walk::collect_field(&__walk, "reranker", &self.reranker, __collector)?;
        let __walk = __rzc::Container::new(
            __rzc::SerdeProbe::<(Linear, std::sync::Arc<Tokenizer>)>::START.pick(),
            (
                __rzc::PipelineField::walk(__rzc::FieldKind::<Linear>::START.pick()),
                <<std::sync::Arc<
                    Tokenizer,
                > as __rzc::PipelineContainer>::Walk as __rzc::Over>::over(
                    __rzc::PipelineField::walk(
                        __rzc::FieldKind::<Tokenizer>::START.pick(),
                    ),
                ),
            ),
        );
        __rzc::Walk::collect_field(&__walk, "pair", &self.pair, __collector)?;
        let __walk = __rzc::Container::plain(
            __rzc::SerdeProbe::<Vec<String>>::START.pick(),
            <<Vec<
                String,
            > as __rzc::PipelineList<
                String,
            >>::Walk as __rzc::Over>::over(
                __rzc::PipelineField::walk(__rzc::FieldKind::<String>::START.pick()),
            ),
        );
        __rzc::Walk::collect_field(
            &__walk,
            "vocabulary",
            &self.vocabulary,
            __collector,
        )?;
        let __walk = __rzc::Container::new(
            __rzc::SerdeProbe::<[Linear; 2]>::START.pick(),
            <<[Linear; 2] as __rzc::PipelineList<
                Linear,
            >>::Walk as __rzc::Over>::over(<Linear as __rzc::ModuleField>::walk()),
        );
        __rzc::Walk::collect_field(&__walk, "last", &self.r#final, __collector)?;
        let __walk = <Vec<Limits> as __rzc::CopyField>::walk();
        __rzc::Walk::collect_field(&__walk, "limits", &self.limits, __collector)?;
        ::core::result::Result::Ok(())
    }
    fn attach(
        &mut self,
        __attacher: &mut ::ray_zerocopy::__private::Attacher,
    ) -> ::core::result::Result<(), ::ray_zerocopy::__private::LoadError> {
        use ::ray_zerocopy::__private::{self as __rzc, pick::*};
        let __walk = <SearchConfig as __rzc::CopyField>::walk();
        __rzc::Walk::attach_field(&__walk, "config", &mut self.config, __attacher)?;
        let __walk = __rzc::PipelineField::walk(
            __rzc::FieldKind::<burn::nn::Linear>::START.pick(),
        );
        __rzc::Walk::attach_field(&__walk, "encoder", &mut self.encoder, __attacher)?;
        let __walk = __rzc::Container::new(
            __rzc::SerdeProbe::<HashMap<String, Vec<Linear>>>::START.pick(),
            <<HashMap<
                String,
                Vec<Linear>,
            > as __rzc::PipelineMap>::Key as __rzc::MapKey>::over(
                <<Vec<
                    Linear,
                > as __rzc::PipelineList<
                    Linear,
                >>::Walk as __rzc::Over>::over(
                    __rzc::PipelineField::walk(__rzc::FieldKind::<Linear>::START.pick()),
                ),
            ),
        );
        __rzc::Walk::attach_field(&__walk, "heads", &mut self.heads, __attacher)?;
        let __walk = __rzc::Container::new(
            __rzc::SerdeProbe::<Option<Box<Reranker>>>::START.pick(),
            <<Option<
                Box<Reranker>,
            > as __rzc::PipelineContainer>::Walk as __rzc::Over>::over(
                <<Box<
                    Reranker,
                > as __rzc::PipelineContainer>::Walk as __rzc::Over>::over(
                    __rzc::PipelineField::walk(
                        __rzc::FieldKind::<Reranker>::START.pick(),
                    ),
                ),
            ),
        );
        __rzc::Walk::attach_field(&__walk, "reranker", &mut self.reranker, __attacher)?;
        let __walk = __rzc::Container::new(
            __rzc::SerdeProbe::<(Linear, std::sync::Arc<Tokenizer>)>::START.pick(),
            (
                __rzc::PipelineField::walk(__rzc::FieldKind::<Linear>::START.pick()),
                <<std::sync::Arc<
                    Tokenizer,
                > as __rzc::PipelineContainer>::Walk as __rzc::Over>::over(
                    __rzc::PipelineField::walk(
                        __rzc::FieldKind::<Tokenizer>::START.pick(),
                    ),
                ),
            ),
        );
        __rzc::Walk::attach_field(&__walk, "pair", &mut self.pair, __attacher)?;
        let __walk = __rzc::Container::plain(
            __rzc::SerdeProbe::<Vec<String>>::START.pick(),
            <<Vec<
                String,
            > as __rzc::PipelineList<
                String,
            >>::Walk as __rzc::Over>::over(
                __rzc::PipelineField::walk(__rzc::FieldKind::<String>::START.pick()),
            ),
        );
        __rzc::Walk::attach_field(
            &__walk,
            "vocabulary",
            &mut self.vocabulary,
            __attacher,
        )?;
        let __walk = __rzc::Container::new(
            __rzc::SerdeProbe::<[Linear; 2]>::START.pick(),
            <<[Linear; 2] as __rzc::PipelineList<
                Linear,
            >>::Walk as __rzc::Over>::over(<Linear as __rzc::ModuleField>::walk()),
        );
        __rzc::Walk::attach_field(&__walk, "last", &mut self.r#final, __attacher)?;
        let __walk = <Vec<Limits> as __rzc::CopyField>::walk();
        __rzc::Walk::attach_field(&__walk, "limits", &mut self.limits, __attacher)?;
        ::core::result::Result::Ok(())
    }
}
#[automatically_derived]
impl ::ray_zerocopy::__private::Root for Search {
    fn rebuild(
        __source: &::ray_zerocopy::__private::Source<'_>,
        __device: &::ray_zerocopy::__private::Device,
    ) -> ::core::result::Result<Self, ::ray_zerocopy::__private::LoadError> {
        let __config = <SearchConfig as ::ray_zerocopy::__private::CopyField>::config(
            __source,
            "config",
        )?;
        ::ray_zerocopy::__private::Rebuilt::<Self>::rebuilt(__config.init(__device))
    }
}
