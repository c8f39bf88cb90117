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
impl ::ray_zerocopy::__private::Pipeline for Model {
    fn collect(
        &self,
        __collector: &mut ::ray_zerocopy::__private::Collector,
    ) -> ::core::result::Result<(), ::ray_zerocopy::__private::ShareError> {
        use ::ray_zerocopy::__private::{self as __rzc, pick::*};
        match self {
            Self::Small { 0: __field0, .. } => {
                __collector.variant("Small");
                let __walk = __rzc::PipelineField::walk(
                    __rzc::FieldKind::<Linear>::START.pick(),
                );
                __rzc::Walk::collect_field(&__walk, "0", __field0, __collector)?;
            }
            Self::Large { layers: __field0, r#type: __field1, .. } => {
                __collector.variant("Large");
                let __walk = __rzc::Container::new(
                    __rzc::SerdeProbe::<Vec<Linear>>::START.pick(),
                    <<Vec<
                        Linear,
                    > as __rzc::PipelineList<
                        Linear,
                    >>::Walk as __rzc::Over>::over(
                        __rzc::PipelineField::walk(
                            __rzc::FieldKind::<Linear>::START.pick(),
                        ),
                    ),
                );
                __rzc::Walk::collect_field(&__walk, "layers", __field0, __collector)?;
                let __walk = __rzc::PipelineField::walk(
                    __rzc::FieldKind::<String>::START.pick(),
                );
                __rzc::Walk::collect_field(&__walk, "type", __field1, __collector)?;
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
        use ::ray_zerocopy::__private::{self as __rzc, pick::*};
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
                let __walk = __rzc::PipelineField::walk(
                    __rzc::FieldKind::<Linear>::START.pick(),
                );
                __rzc::Walk::attach_field(&__walk, "0", __field0, __attacher)?;
            }
            Self::Large { layers: __field0, r#type: __field1, .. } => {
                let __walk = __rzc::Container::new(
                    __rzc::SerdeProbe::<Vec<Linear>>::START.pick(),
                    <<Vec<
                        Linear,
                    > as __rzc::PipelineList<
                        Linear,
                    >>::Walk as __rzc::Over>::over(
                        __rzc::PipelineField::walk(
                            __rzc::FieldKind::<Linear>::START.pick(),
                        ),
                    ),
                );
                __rzc::Walk::attach_field(&__walk, "layers", __field0, __attacher)?;
                let __walk = __rzc::PipelineField::walk(
                    __rzc::FieldKind::<String>::START.pick(),
                );
                __rzc::Walk::attach_field(&__walk, "type", __field1, __attacher)?;
            }
            Self::Absent { .. } => {}
        }
        ::core::result::Result::Ok(())
    }
}
#[automatically_derived]
impl ::ray_zerocopy::__private::Root for Model {
    fn rebuild(
        __source: &::ray_zerocopy::__private::Source<'_>,
        __device: &::ray_zerocopy::__private::Device,
    ) -> ::core::result::Result<Self, ::ray_zerocopy::__private::LoadError> {
        let __init: fn(&::ray_zerocopy::__private::Device) -> _ = Model::new;
        ::ray_zerocopy::__private::Rebuilt::<Self>::rebuilt(__init(__device))
    }
}
