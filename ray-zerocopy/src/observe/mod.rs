//! Observation: metrics and the status of the calls, workers and memory of this process.
//!
//! # Traces
//!
//! If the program has a subscriber of the crate [`tracing`](https://docs.rs/tracing) that is interested in the level
//! `INFO` of the target `ray_zerocopy`, each call has a span `call`, as part of the span in which it was made:
//!
//! | span | part of | fields | time |
//! | --- | --- | --- | --- |
//! | `call` | the caller's span | `call` (its number), `method`, `model`, `engine`, `generation`, `outcome` | from the call to its answer |
//! | `queue` | `call` | | until it is sent to a worker; again for each further attempt |
//! | `batch` | `call` | `batch` (number of the first call), `size`, and on the first call `calls` (the numbers of all) | from when its batch is sent |
//! | `worker` | `call`, or `batch` of the first call | `worker` (index), `pid` | from when it is sent to a worker until the answer |
//! | `method` | `worker` | `call`, `method`, `model`, `worker`, `pid` | in the worker: while the method runs |
//!
//! The span `method` is entered by the worker, so that what the method logs is inside of it. A worker process has
//! subscribers of its own, which [`set_worker_set_up`] installs. With a [`Propagator`], its spans are part of the same
//! trace. The feature `otlp` of the crate `ray-zerocopy-serve` has both for OpenTelemetry.
//!
//! # Metrics
//!
//! Measurement is off until [`enable`] or [`publish()`] is called. Then each call is counted when it is made,
//! sent to a worker, and answered, whatever engine runs it. The figures are in two places:
//!
//! - In the recorder of the crate [`metrics`](https://docs.rs/metrics) that the program has installed, for
//!   Prometheus and others. [`METRICS`] lists them. Counters and histograms are recorded by the calls, and
//!   gauges by [`record_gauges`].
//! - In [`status()`], as data: by pipeline, generation of weights, and method. [`services`] reads
//!   those of other programs, which have [published](publish()) them, and `rzc top` shows them.
//!
//! ```
//! # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
//! # use ray_zerocopy::{Pipeline, TaskWrapper, Threads};
//! use ray_zerocopy::observe;
//! # #[derive(Pipeline)]
//! # #[pipeline(init = Model::new)]
//! # struct Model { head: Linear }
//! # #[ray_zerocopy::remote]
//! # impl Model {
//! #   #[remote(skip)]
//! #   pub fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } }
//! #   pub fn double(&self, x: u32) -> u32 { 2 * x }
//! # }
//! # fn main() -> ray_zerocopy::Result<()> {
//!
//! let published = observe::publish("speech")?;
//! let tasks = TaskWrapper::on(&Threads::new(2), &Model::new(&Device::flex()))?;
//! assert_eq!(tasks.double(21).wait()?, 42);
//!
//! let status = observe::status()?;
//! let method = &status.models[0].generations[0].methods[0];
//! assert_eq!((method.method.as_str(), method.outcomes["ok"]), ("double", 1));
//! # drop(published);
//! # Ok(())
//! # }
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `status` | the status of a process, as data |
//! | `collect` | collects it from the programs that run on an engine |
//! | `gauges` | records it in the recorder of the crate `metrics` |
//! | `publish` | answers other programs of this user, and asks them |
//! | `trace` | spans of calls, and what worker processes run to observe themselves |

mod collect;
mod gauges;
mod publish;
mod status;
mod trace;

pub use self::gauges::record_gauges;
pub use self::publish::{Published, Service, publish, services};
pub use self::status::{GenerationStatus, MethodStatus, ModelStatus, ProcessStatus, Status};
pub use self::trace::{WorkerSetUpError, set_propagator, set_worker_set_up};
pub use crate::engine::figures::histogram::{TimeBucket, Times};
pub use crate::engine::figures::names::{METRICS, Metric, MetricKind};
pub use crate::engine::figures::workers::WorkerCounts;
use crate::engine::figures::{is_on, names, turn_on};
pub use crate::engine::trace::context::{TraceContext, TraceContextError};
pub use crate::engine::trace::remote::Propagator;
use crate::error::report::ReportError;

/// Begins to measure calls, and describes the metrics to the recorder that is installed. Call it again
/// after installing another one. A call that has been made before is not measured.
pub fn enable() {
    turn_on();
    names::describe();
}

/// Returns `true` if calls are measured.
pub fn is_enabled() -> bool {
    is_on()
}

/// Begins to measure, unless calls are measured already.
fn ensure_enabled() {
    if !is_on() {
        enable();
    }
}

/// The calls, workers and memory of this process. Reads `/proc` for each process that has the weights.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn status() -> Result<Status, ReportError> {
    collect::status(publish::names())
}
