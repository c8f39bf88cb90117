//! Cancellation inside of a method: [`cancelled`].

use std::cell::RefCell;
use std::sync::OnceLock;

/// Returns `true` if the call that runs in this worker has been cancelled, or has no caller any more
/// for another reason. A method that takes long asks now and then, and returns early: its result is
/// not used.
///
/// In a worker process, any thread may ask. In a worker that is a thread, only the thread that the
/// method was called on gets an answer. Outside of workers, this returns `false`.
///
/// ```
/// # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
/// # use ray_zerocopy::{Pipeline, TaskWrapper, Threads};
/// # #[derive(Pipeline)]
/// # #[pipeline(init = Model::new)]
/// # struct Model { head: Linear }
/// # impl Model { fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } } }
/// #[ray_zerocopy::remote]
/// impl Model {
///     /// Works until it is cancelled.
///     pub fn work(&self) -> usize {
///         let mut steps = 0;
///         while !ray_zerocopy::cancelled() {
///             steps += 1;
/// #           std::thread::yield_now();
///         }
///         steps
///     }
/// }
///
/// # fn main() -> ray_zerocopy::Result<()> {
/// let tasks = TaskWrapper::on(&Threads::new(1), &Model::new(&Device::flex()))?;
/// let pending = tasks.work();
/// pending.cancel();
/// assert!(pending.wait().is_err());
/// # Ok(())
/// # }
/// ```
pub fn cancelled() -> bool {
    let of_thread = THREAD.with_borrow(|probe| probe.as_ref().map(|probe| probe()));
    of_thread.unwrap_or_else(|| PROCESS.get().is_some_and(|probe| probe()))
}

/// Returns whether the running call has been cancelled.
type Probe = Box<dyn Fn() -> bool + Send + Sync>;

thread_local! {
    static THREAD: RefCell<Option<Probe>> = const { RefCell::new(None) };
}

static PROCESS: OnceLock<Probe> = OnceLock::new();

/// Installs the probe of a worker that is this thread.
pub(crate) fn install_for_thread(probe: impl Fn() -> bool + Send + Sync + 'static) {
    THREAD.replace(Some(Box::new(probe)));
}

/// Installs the probe of a worker that is this process. Later calls have no effect.
pub(crate) fn install_for_process(probe: impl Fn() -> bool + Send + Sync + 'static) {
    // Fails if there is one already.
    drop(PROCESS.set(Box::new(probe)));
}
