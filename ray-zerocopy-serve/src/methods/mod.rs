//! Methods of pipelines, by name, with arguments and results as JSON.
//!
//! | file | what |
//! | --- | --- |
//! | `arguments` | arguments from JSON, for methods whose types the compiler does not know here |
//! | `finite` | numbers that JSON does not have |
//! | `results` | their results as JSON |
//! | `schema` | types as text, for the list of methods |

mod arguments;
mod finite;
mod results;
mod schema;

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use ray_zerocopy::__private::dynamic::{ByName, Called, NamedMethod};
use ray_zerocopy::{Pending, Streaming};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{ErrorKind, ServeError};

/// Methods of a pipeline that clients may call, at `POST /v1/pipelines/{pipeline}/{method}`.
///
/// The body is the arguments: an object by the names of the parameters, a list in their order, or nothing for a method
/// without parameters. Tensors are nested lists of numbers, or of booleans. The response is the result; the error of a method
/// that returns a `Result` is its text with the status 422. The items of a stream are server-sent events.
///
/// [`all`](Self::all) takes every method that a wrapper has. [`method`](Self::method), [`try_method`](Self::try_method) and
/// [`stream`](Self::stream) add a function of yours that makes a call, with arguments of your own choice.
///
/// ```no_run
/// # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
/// use ray_zerocopy::{Pipeline, TaskWrapper};
/// use ray_zerocopy_serve::{Methods, ModelRepository, Service};
///
/// # #[derive(Pipeline)]
/// # #[pipeline(init = Model::new)]
/// # struct Model { head: Linear }
/// #[ray_zerocopy::remote]
/// impl Model {
/// #   #[remote(skip)]
/// #   pub fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } }
///     pub fn count(&self, text: String) -> usize { text.split_whitespace().count() }
///
///     #[remote(stream)]
///     pub fn words(&self, text: String) -> impl Iterator<Item = String> {
///         text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().into_iter()
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # ray_zerocopy::init();
/// # let model = Model::new(&Device::flex());
/// let models = ModelRepository::builder().workers(2).start()?;
/// let tasks = TaskWrapper::on(models.pool(), &model)?;
/// let methods = Methods::all("text", &tasks) // curl …/v1/pipelines/text/count -d '{"text": "two words"}'
///     .method("sentences", move |(text,): (String,)| tasks.count(text.replace(' ', "")));
/// let service = Service::builder(models).methods(methods).build();
/// # drop(service);
/// # Ok(())
/// # }
/// ```
pub struct Methods {
    pub(crate) pipeline: String,
    pub(crate) calls: BTreeMap<String, Method>,
}

type CallWithJson = Box<dyn Fn(&[u8]) -> Result<Call, ServeError> + Send + Sync>;

/// A method that takes JSON.
pub(crate) struct Method {
    pub(crate) call: CallWithJson,
    /// Its parameters, its result and its documentation, as far as they are known.
    pub(crate) description: Value,
}

/// A call of a method. Dropping it cancels the call.
pub(crate) enum Call {
    /// The result, as JSON.
    Value(Pin<Box<dyn Future<Output = Result<Vec<u8>, ServeError>> + Send>>),
    /// The items, as JSON.
    Items(Pin<Box<dyn Stream<Item = Result<String, ServeError>> + Send>>),
}

impl Methods {
    /// All methods of a wrapper: those that take `&self` of a [`TaskWrapper`](ray_zerocopy::TaskWrapper), and those that
    /// take `&mut self` as well of [`Actors`](ray_zerocopy::Actors). Leaves out a method with a `where` clause of its own.
    ///
    /// Clients can call all of them: for a part, use [`of`](Self::of) and add each.
    pub fn all(pipeline: impl Into<String>, wrapper: &impl ByName) -> Self {
        let calls = wrapper.named_methods().into_iter().map(|method| (method.name.to_owned(), by_name(method)));
        Self { pipeline: pipeline.into(), calls: calls.collect() }
    }

    /// Methods of a pipeline with this name, to which you add each.
    pub fn of(pipeline: impl Into<String>) -> Self {
        Self { pipeline: pipeline.into(), calls: BTreeMap::new() }
    }

    /// Adds a method. `call` makes the call with a wrapper of yours.
    #[must_use]
    pub fn method<A, T>(self, name: &str, call: impl Fn(A) -> Pending<T> + Send + Sync + 'static) -> Self
    where
        A: DeserializeOwned,
        T: Serialize + Send + 'static,
    {
        let method = name.to_owned();
        self.add(name, move |arguments| {
            let (pending, method) = (call(parse(&method, arguments)?).cancel_on_drop(), method.clone());
            Ok(Call::Value(Box::pin(async move { json(&method, &pending.await?) })))
        })
    }

    /// Adds a method that returns a `Result`. Its error is sent as text, with the status 422.
    #[must_use]
    pub fn try_method<A, T, E>(
        self,
        name: &str,
        call: impl Fn(A) -> Pending<Result<T, E>> + Send + Sync + 'static,
    ) -> Self
    where
        A: DeserializeOwned,
        T: Serialize + Send + 'static,
        E: Display + Send + 'static,
    {
        let method = name.to_owned();
        self.add(name, move |arguments| {
            let (pending, method) = (call(parse(&method, arguments)?).cancel_on_drop(), method.clone());
            Ok(Call::Value(Box::pin(async move {
                let result = pending.await?.map_err(|error| ServeError::new(ErrorKind::Method, error.to_string()))?;
                json(&method, &result)
            })))
        })
    }

    /// Adds a method that returns a stream, whose items are sent as they arrive.
    #[must_use]
    pub fn stream<A, T>(self, name: &str, call: impl Fn(A) -> Streaming<T> + Send + Sync + 'static) -> Self
    where
        A: DeserializeOwned,
        T: Serialize + Send + 'static,
    {
        let method = name.to_owned();
        self.add(name, move |arguments| {
            let (items, method) = (call(parse(&method, arguments)?).into_stream(), method.clone());
            Ok(Call::Items(Box::pin(items.map(move |item| {
                let item = json(&method, &item?)?;
                String::from_utf8(item).map_err(ServeError::failed)
            }))))
        })
    }

    fn add(mut self, name: &str, call: impl Fn(&[u8]) -> Result<Call, ServeError> + Send + Sync + 'static) -> Self {
        let description = json!({ "name": name });
        self.calls.insert(name.to_owned(), Method { call: Box::new(call), description });
        self
    }
}

/// A method as `Remote::METHODS` describes it.
fn by_name(method: NamedMethod) -> Method {
    let parameters = method.parameters.iter();
    let parameters = parameters.map(|one| json!({ "name": one.name, "type": schema::describe(&one.schema) }));
    let description = json!({
        "name": method.name,
        "description": method.doc,
        "parameters": parameters.collect::<Vec<_>>(),
        "returns": schema::describe(&method.result),
        "stream": method.is_stream,
    });
    let (name, result) = (method.name, method.result.clone());
    let call = move |body: &[u8]| {
        let arguments::Parsed { arguments, origin } = arguments::parse(&method, body)?;
        let called = method.call(arguments).map_err(|failed| arguments::refused(&method, &origin, failed))?;
        let result = result.clone();
        Ok(match called {
            Called::Result(pending) => {
                let pending = pending.cancel_on_drop();
                Call::Value(Box::pin(
                    async move { results::json(name, &result, pending.await?).map(String::into_bytes) },
                ))
            }
            Called::Items(items) => {
                Call::Items(Box::pin(items.into_stream().map(move |item| results::json(name, &result, item?))))
            }
        })
    };
    Method { call: Box::new(call), description }
}

/// Parses arguments. No bytes are the arguments of a method without parameters.
fn parse<A: DeserializeOwned>(method: &str, arguments: &[u8]) -> Result<A, ServeError> {
    let arguments = if arguments.is_empty() { b"null" } else { arguments };
    serde_json::from_slice(arguments)
        .map_err(|error| ServeError::invalid(format!("the arguments of `{method}` are not valid: {error}")))
}

fn json<T: Serialize>(method: &str, value: &T) -> Result<Vec<u8>, ServeError> {
    let failed = |reason: &dyn Display| {
        ServeError::failed(format!("the result of `{method}` cannot be written as JSON: {reason}"))
    };
    let json = serde_json::to_vec(value).map_err(|error| failed(&error))?;
    // Which may be the null of a number that JSON does not have.
    if json.windows(4).any(|text| text == b"null") {
        let packed = rmp_serde::to_vec_named(value).map_err(|error| failed(&error))?;
        finite::check(&packed).map_err(|reason| failed(&reason))?;
    }
    Ok(json)
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.calls.keys().collect();
        f.debug_struct("Methods").field("pipeline", &self.pipeline).field("methods", &names).finish()
    }
}
