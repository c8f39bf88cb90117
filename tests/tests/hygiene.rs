//! Macro hygiene: the generated code compiles and works where common names are shadowed.

#![no_implicit_prelude]
#![allow(dead_code, reason = "the shadowing names are not used otherwise")]
#![allow(clippy::unwrap_used, reason = "test code")]

pub extern crate ray_zerocopy as elsewhere;

use ::std::string::ToString as _;
use ::std::{assert, assert_eq, assert_ne, module_path};

/// A crate that re-exports ray-zerocopy, as a framework would.
mod framework {
    pub mod engines {
        pub use crate::elsewhere as sharing;
    }
}

// Names that the generated code could resolve to by mistake.
struct Result;
struct Option;
struct Vec;
struct Box;
struct String;
struct Some;
struct None;
struct Ok;
struct Err;
mod core {}
mod std {}
mod alloc {}
mod burn {}
mod serde {}
mod ray_zerocopy {}

/// Methods on every type, with the names of the runtime's own methods and of those that are usually
/// in scope.
trait Nuisance {
    fn collect(&self) {}
    fn attach(&self) {}
    fn into(&self) {}
    fn map(&self) {}
    fn map_err(&self) {}
    fn enumerate(&self) {}
}

impl<T: ?::std::marker::Sized> Nuisance for T {}

#[derive(::ray_zerocopy::Pipeline)]
#[pipeline(crate = "crate::framework::engines::sharing", init = Nested::new)]
struct Nested {
    head: Head,
    words: ::std::collections::HashMap<::std::string::String, ::std::vec::Vec<::burn::nn::Linear>>,
    extra: ::std::option::Option<::std::boxed::Box<::burn::nn::Linear>>,
    pair: (::burn::nn::Linear, u32),
    array: [::burn::nn::Linear; 2],
    bare: ::burn::tensor::Tensor<1>,
    text: ::std::string::String,
    #[pipeline(copy)]
    counts: ::std::collections::BTreeMap<u8, f64>,
    #[pipeline(skip)]
    calls: usize,
    marker: ::std::marker::PhantomData<u8>,
}

#[derive(::ray_zerocopy::Pipeline)]
#[pipeline(crate = "crate::framework::engines::sharing")]
enum Head {
    Plain(::burn::nn::Linear),
    Scaled { layer: ::burn::nn::Linear, by: f32 },
    Absent,
}

impl Nested {
    fn new(device: &::burn::tensor::Device) -> Self {
        let linear = || ::burn::nn::LinearConfig::new(2, 2).init(device);
        Self {
            head: Head::Scaled { layer: linear(), by: 2.0 },
            words: ::std::convert::From::from([("a".to_string(), ::std::vec![linear(), linear()])]),
            extra: ::std::option::Option::Some(::std::boxed::Box::new(linear())),
            pair: (linear(), 7),
            array: [linear(), linear()],
            bare: ::burn::tensor::Tensor::ones([3], device),
            text: "text".to_string(),
            counts: ::std::convert::From::from([(1, 0.5)]),
            calls: 0,
            marker: ::std::marker::PhantomData,
        }
    }
}

#[::ray_zerocopy::remote(crate = "crate::framework::engines::sharing")]
impl Nested {
    pub fn forward(&self, x: ::burn::tensor::Tensor<2>) -> ::std::result::Result<::burn::tensor::Tensor<2>, u32> {
        match &self.head {
            Head::Scaled { layer, by } => ::std::result::Result::Ok(layer.forward(x) * *by),
            Head::Plain(_) | Head::Absent => ::std::result::Result::Err(0),
        }
    }

    pub fn text(&self) -> (::std::string::String, u32) {
        (::std::clone::Clone::clone(&self.text), self.pair.1)
    }

    pub fn count(&mut self) -> usize {
        self.calls += 1;
        self.calls
    }

    pub fn nothing(&self) {}

    pub fn pid(&self) -> u32 {
        ::std::process::id()
    }
}

#[::std::prelude::v1::test]
fn macros_work_without_prelude_in_renamed_crate() {
    let device = ::burn::tensor::Device::flex();
    let mut pipeline = Nested::new(&device);
    pipeline.text = "shared".to_string();
    let shared = elsewhere::ActorWrapper::new(&pipeline).unwrap();
    let paths = ::std::iter::Iterator::count(shared.arena().paths());
    assert_eq!(paths, 2 + 4 + 2 + 2 + 4 + 1);
    assert_eq!(shared.load().unwrap().copied().len(), 0);

    let actors = shared.spawn(1).unwrap();
    let x = ::burn::tensor::Tensor::<2>::ones([3, 2], &device);
    let there = actors.forward(::std::clone::Clone::clone(&x)).wait().unwrap().unwrap();
    assert_eq!(there.into_data(), pipeline.forward(x).unwrap().into_data());
    assert_eq!(actors.text().wait().unwrap(), ("shared".to_string(), 7));
    assert_eq!((actors.count().wait().unwrap(), actors.count().wait().unwrap()), (1, 2));
    actors.nothing().wait().unwrap();
    assert_ne!(actors.pid().wait().unwrap(), ::std::process::id());
    assert!(!module_path!().is_empty());
}
