//! LoRA adapters: low-rank changes of linear layers, stored apart from the base and applied per call.
//!
//! An adapter changes the result of a layer from `x·W` to `x·W + (x·a)·b·scale`. burn's own
//! [`LoraAdapter`](burn::module::LoraAdapter) is the pair `a`, `b`; but a parameter that has one computes
//! `W + a·b·scale` whenever it is used, a whole weight for each call. [`ActiveAdapter::linear`] applies
//! the pair to `x` instead. So the base stays as it is in its arena, shared by all workers and all
//! adapters, and a worker can have hundreds of adapters at once.
//!
//! | type | what |
//! | --- | --- |
//! | [`Adapter`] | an adapter in an arena of its own: read from a folder of PEFT or a file, or taken from a burn module |
//! | [`Adapters`] | a field of a pipeline: the adapters of this worker by name, which can be added and removed at any time |
//! | [`ActiveAdapter`] | the adapter of one call, or none |
//!
//! ```
//! use burn::module::{Lora, Module};
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::{Device, Tensor};
//! use ray_zerocopy::lora::{ActiveAdapter, Adapter, Adapters};
//! use ray_zerocopy::{Pipeline, load, share};
//!
//! #[derive(Module, Debug)]
//! struct Net { up: Linear, down: Linear }
//!
//! impl Net {
//!     fn forward(&self, x: Tensor<2>, adapter: &ActiveAdapter) -> Tensor<2> {
//!         adapter.linear(&self.down, adapter.linear(&self.up, x))
//!     }
//! }
//!
//! #[derive(Pipeline)]
//! #[pipeline(init = Model::new)]
//! struct Model { net: Net, adapters: Adapters }
//!
//! impl Model {
//!     fn new(device: &Device) -> Self {
//!         let net = Net {
//!             up: LinearConfig::new(64, 256).init(device),
//!             down: LinearConfig::new(256, 64).init(device),
//!         };
//!         Self { net, adapters: Adapters::default() }
//!     }
//!
//!     // With `#[remote]`, callers choose the adapter of each call by its name.
//!     fn run(&self, x: Tensor<2>, adapter: Option<String>) -> Result<Tensor<2>, String> {
//!         let adapter = self.adapters.choose(adapter.as_deref()).map_err(|error| error.to_string())?;
//!         Ok(self.net.forward(x, &adapter))
//!     }
//! }
//!
//! let device = Device::flex();
//! let base = share(&Model::new(&device))?;
//! let model = load::<Model>(&base, &device)?;
//!
//! // An adapter from burn's own training; `Adapter::open` reads one of PEFT.
//! let trained = model.net.clone().apply_lora(Lora::new(8, 16.0));
//! model.adapters.add("french", &Adapter::from_module("net", &trained, 16.0 / 8.0)?)?;
//! let french = model.run(Tensor::ones([1, 64], &device), Some("french".to_owned()));
//! assert!(french.is_ok());
//! assert!(model.run(Tensor::ones([1, 64], &device), Some("fr".to_owned())).unwrap_err().contains("`french`"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod active;
mod adapter;
mod layers;
mod peft;
mod set;
mod weights;

pub use self::active::ActiveAdapter;
pub use self::adapter::{Adapter, AdapterLayer, AdapterOptions};
pub use self::set::Adapters;
pub use crate::error::lora::LoraError;
