//! The macros of [ray-zerocopy](https://docs.rs/ray-zerocopy), which re-exports them: depend on
//! that crate, not on this.
//!
//! - [`#[derive(Pipeline)]`](macro@Pipeline) finds the models in a struct, so that their weights
//!   can be shared.
//! - [`#[remote]`](macro@remote) makes the methods of a pipeline callable in other processes.
//!
//! Both have the same stages, one in each file: `attr` reads the options, `ast` is the input in the
//! macro's own terms, `valid` finds every semantic error, `expand` writes the code. Errors are
//! collected and reported together, and an invalid input still expands to something that compiles
//! (`fallback`), so that a user reads one error and not ten.
#![forbid(unsafe_code)]

mod ast;
mod attr;
mod carried;
mod errors;
mod expand;
mod fallback;
mod names;
mod remote;
mod shape;
#[cfg(test)]
mod tests;
mod valid;
mod walk;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a struct or an enum a pipeline: finds out which of its fields hold weights, to be shared,
/// and which hold ordinary data, to be copied.
///
/// ```text
/// #[derive(Pipeline)]
/// struct Search {
///     #[pipeline(config)]
///     config: SearchConfig,                  // serde; `config.init(&device)` gives `Search` again
///     encoder: Bert,                         // a burn module         -> shared
///     heads: HashMap<String, Vec<Linear>>,   // modules in containers -> shared
///     reranker: Option<Reranker>,            // another pipeline      -> its fields, by the same rules
///     tokenizer: Tokenizer,                  // serde                 -> copied
///     #[pipeline(skip)]
///     calls: AtomicUsize,                    // as `init` leaves it, in every worker
/// }
/// ```
///
/// # How a field is treated
///
/// Containers are taken apart by their names, to any depth: `Vec`, `VecDeque`, `[T; N]`, tuples,
/// `Option`, `Box`, `Arc`, `HashMap`, `BTreeMap` and `IndexMap`. One that holds no tensor is copied
/// as a whole. What is left are leaves, and there the compiler decides by the traits of the type:
/// another `Pipeline` is walked, a burn `Module` is shared, what implements serde's traits is
/// copied. `PhantomData` and `()` need nothing.
///
/// A leaf that is none of these is an error at the field's type. So are references, raw pointers,
/// function pointers and trait objects, since another process cannot own them.
///
/// # Options of a field
///
/// | option | meaning |
/// | --- | --- |
/// | `#[pipeline(config)]` | copied, and rebuilds the pipeline in a worker: `config.init(&device)` gives `Self`, or a `Result` of it |
/// | `#[pipeline(module)]` | every leaf is a burn module, whatever else it may be |
/// | `#[pipeline(copy)]` | copied as a whole by serde, whatever it holds |
/// | `#[pipeline(skip)]` | left as the worker's own `init` made it |
/// | `#[pipeline(rename = "name")]` | called `name` in paths and in the arena |
///
/// The first four exclude each other. `rename` goes with any of them but `skip`.
///
/// # Options of the whole pipeline
///
/// | option | meaning |
/// | --- | --- |
/// | `#[pipeline(init = Search::new)]` | rebuilds the pipeline by a function from `&Device` to `Self`, or to a `Result` of it; instead of a config |
/// | `#[pipeline(crate = "my_crate::ray_zerocopy")]` | where ray-zerocopy is found, if it is re-exported |
///
/// ```text
/// #[derive(Pipeline)]
/// #[pipeline(init = Upscaler::new)]
/// struct Upscaler {
///     net: Conv2d,
/// }
///
/// impl Upscaler {
///     fn new(device: &Device) -> Self { … }
/// }
/// ```
///
/// A pipeline that is only ever part of another one needs neither a config nor `init`: the outer
/// one rebuilds it.
///
/// # Generics
///
/// Type and const parameters are fine. A leaf `M` is told apart by its bounds, so `M: Module` is
/// needed for it to be shared. The impl asks every type parameter to be `'static`.
#[proc_macro_derive(Pipeline, attributes(pipeline))]
pub fn derive_pipeline(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::derive(&input).into()
}

/// Makes the methods of a pipeline callable in other processes.
///
/// Stands above an inherent impl block, which stays as it is. Every `pub` method that takes `&self`
/// or `&mut self` also becomes one of the wrappers around the pipeline, with the same name and
/// arguments, and returns a `Pending` of the result, to be waited for or awaited:
///
/// ```text
/// #[ray_zerocopy::remote]
/// impl Search {
///     /// Embeds each text.
///     pub fn embed(&self, texts: Vec<String>) -> Tensor<2> { … }
///     /// Learns from one more example.
///     pub fn learn(&mut self, text: String, label: usize) { … }
///     #[remote(skip)]
///     pub fn vocabulary(&self) -> &[String] { … }
/// }
///
/// let tasks = TaskWrapper::new(&search)?;
/// let vectors = tasks.embed(texts).wait()?;
///
/// let actors = ActorWrapper::new(&search)?.spawn(4)?;
/// actors.learn("a text".to_owned(), 3).wait()?;
/// ```
///
/// Methods that take `&mut self` can be called in actors only, since a task's worker keeps no
/// state.
///
/// # What a method must look like
///
/// Its arguments and its result are sent to another process: they are owned (`String`, not `&str`),
/// have concrete types, and are tensors or implement serde's traits. So the method has no type,
/// const or lifetime parameters of its own and is not `async`, `unsafe` or `extern`.
/// `#[remote(skip)]` leaves a method out; methods that are not exactly `pub` (such as
/// `pub(crate)`), and functions without a receiver, are left out anyway.
///
/// # Calls that can be put together
///
/// `#[remote(batch)]` on a method says that it takes and returns *rows*: its first argument is a `Vec`
/// or a tensor, and its result has one row for each of the argument's, in a `Vec`, a tensor, a tuple
/// of them, or a `Result` of that. A wrapper with `.batch(..)` runs waiting calls of such a method as
/// one. `#[remote(batch, cost = function)]` names the function that computes the cost of a row, which
/// it gets by reference. The callers also get a method for a single row:
///
/// ```text
/// #[remote(batch, cost = tokens)]
/// pub fn embed(&self, texts: Vec<String>) -> Tensor<2> { … }
///
/// let tasks = TaskWrapper::new(&search)?.batch(Batching::default().max_cost(4096));
/// let vector = tasks.embed_one("a text".to_owned()).wait()?;
/// ```
///
/// # Names
///
/// A method cannot have the name of one of the wrappers' own (`report`, `device`, `load`, `spawn`,
/// …), which would be called instead.
///
/// # What it makes
///
/// For `Search`, the types `SearchTasks` and `SearchActors`, to which the wrappers dereference,
/// beside the block. Hence a type takes one `#[remote]` block. The attribute's only option is
/// `#[remote(crate = "my_crate::ray_zerocopy")]`, for when ray-zerocopy is re-exported.
#[proc_macro_attribute]
pub fn remote(options: TokenStream, item: TokenStream) -> TokenStream {
    remote::remote(options.into(), item.into()).into()
}
