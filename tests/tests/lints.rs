//! Lints of generated code: it triggers none, and has no attribute that conflicts with a
//! `#![forbid]`. A user's `#[allow]` on an item also applies to the code generated from it.

#![forbid(
    missing_docs,
    missing_debug_implementations,
    unsafe_code,
    elided_lifetimes_in_paths,
    private_bounds,
    private_interfaces,
    non_camel_case_types,
    non_local_definitions,
    single_use_lifetimes,
    unit_bindings,
    unused_results
)]
#![deny(deprecated, non_snake_case)]

/// A pipeline under forbidden lints.
#[warn(clippy::pedantic, clippy::nursery)]
#[forbid(unused, unused_qualifications, deprecated, clippy::all, clippy::absolute_paths)]
mod strict {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::{Device, Tensor};
    use ray_zerocopy::Pipeline;
    use std::collections::HashMap;

    #[derive(Debug, Pipeline)]
    #[pipeline(init = Model::new)]
    pub struct Model {
        head: Linear,
        layers: HashMap<String, Vec<Linear>>,
        pair: (Linear, Option<Box<Linear>>),
        words: Vec<String>,
        kind: Kind,
    }

    #[derive(Debug, Pipeline)]
    enum Kind {
        Scaled { by: f32 },
    }

    #[ray_zerocopy::remote]
    impl Model {
        #[must_use]
        pub fn new(device: &Device) -> Self {
            let linear = || LinearConfig::new(2, 2).init(device);
            let layers = HashMap::from([("a".to_owned(), vec![linear()])]);
            let pair = (linear(), Some(Box::new(linear())));
            Self { head: linear(), layers, pair, words: vec!["word".to_owned()], kind: Kind::Scaled { by: 2.0 } }
        }

        /// The output of the head.
        pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
            let x = self.pair.0.forward(self.head.forward(x));
            let Kind::Scaled { by } = self.kind;
            x * by
        }

        /// Has as many arguments as Clippy lets a method have.
        #[must_use]
        pub fn sum(&self, one: u8, two: u8, three: u8, four: u8, five: u8, six: u8) -> usize {
            let sizes = [self.layers.len(), self.words.len(), usize::from(self.pair.1.is_some())];
            sizes.iter().sum::<usize>() + [one, two, three, four, five, six].map(usize::from).iter().sum::<usize>()
        }

        /// Is not exactly `pub`, so it is left out.
        pub(crate) const fn calls(&self) -> usize {
            self.words.len()
        }

        /// Adds a word.
        pub fn add(&mut self, word: String) {
            self.words.push(word);
        }
    }
}

/// A pipeline with items that need an `#[allow]`.
mod allowed {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;
    use ray_zerocopy::Pipeline;
    use serde::{Deserialize, Serialize};

    /// A deprecated type.
    #[deprecated(note = "use another")]
    #[derive(Debug, Clone, Serialize, Deserialize)]
    pub(crate) struct Old(pub(crate) u32);

    #[derive(Debug, Pipeline)]
    #[pipeline(init = Model::new)]
    #[allow(non_snake_case, reason = "names of a paper")]
    pub(crate) struct Model {
        W: Linear,
        #[allow(deprecated, reason = "it is tested")]
        old: Vec<Old>,
        #[deprecated]
        older: u32,
        kind: Kind,
    }

    #[derive(Debug, Pipeline)]
    enum Kind {
        #[deprecated]
        First(u32),
        #[allow(deprecated, reason = "it is tested")]
        Second(Old),
    }

    #[ray_zerocopy::remote]
    impl Model {
        #[allow(deprecated, reason = "it is tested")]
        pub(crate) fn new(device: &Device) -> Self {
            let kind = [Kind::First(2), Kind::Second(Old(3))].into_iter().nth(1).unwrap_or(Kind::First(0));
            Self { W: LinearConfig::new(2, 2).init(device), old: vec![Old(1)], older: 2, kind }
        }

        /// The argument's name is that of a paper.
        #[allow(non_snake_case, reason = "names of a paper")]
        pub fn project(&self, X: u32) -> u32 {
            X + u32::from(self.W.bias.is_some())
        }

        /// Takes and returns a deprecated type.
        #[expect(deprecated, reason = "it is tested")]
        pub fn old(&self, old: Old) -> Old {
            let kind = match &self.kind {
                Kind::First(number) => *number,
                Kind::Second(old) => old.0,
            };
            Old(old.0 + self.old[0].0 + self.older + kind)
        }

        /// A deprecated method.
        #[deprecated(note = "use `project`")]
        pub fn former(&self) -> u32 {
            4
        }

        /// A deprecated method of actors.
        #[cfg_attr(all(), deprecated, allow(non_snake_case))]
        pub fn former_of_actors(&mut self, X: u32) -> u32 {
            self.project(X)
        }
    }
}

use burn::tensor::{Device, Tensor};
use ray_zerocopy::{ActorWrapper, Remote, TaskWrapper};

type Tested = Result<(), Box<dyn std::error::Error>>;

#[test]
fn code_under_forbidden_lints_works() -> Tested {
    let model = strict::Model::new(&Device::flex());
    let tasks = TaskWrapper::new(&model)?;
    let x = Tensor::<2>::ones([1, 2], &Device::flex());
    assert_eq!(tasks.forward(x.clone()).wait()?.into_data(), model.forward(x).into_data());
    assert_eq!(tasks.sum(1, 2, 3, 4, 5, 6).wait()?, 24);
    let actors = ActorWrapper::new(&model)?.spawn(1)?;
    actors.add("another".to_owned()).wait()?;
    assert_eq!((actors.sum(0, 0, 0, 0, 0, 0).wait()?, model.calls()), (4, 1));
    Ok(())
}

#[test]
#[allow(deprecated, reason = "it is tested")]
fn allowed_items_work() -> Tested {
    let model = allowed::Model::new(&Device::flex());
    let actors = ActorWrapper::new(&model)?.spawn(1)?;
    assert_eq!((actors.project(1).wait()?, actors.old(allowed::Old(10)).wait()?.0), (2, 16));
    assert_eq!((actors.former().wait()?, actors.former_of_actors(2).wait()?), (4, 3));
    let names: Vec<_> = allowed::Model::methods().iter().map(|method| method.name).collect();
    assert_eq!(names, ["project", "old", "former", "former_of_actors"]);
    Ok(())
}
