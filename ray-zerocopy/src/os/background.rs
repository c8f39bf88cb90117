//! Work at a low priority, beside calls.

use super::cpu_placement::lower_priority;

/// Runs a closure on threads of low priority, so that it hardly slows down anything else: to make the next
/// weights while workers serve calls on the current ones. Where no core is free, it gets a tenth of what a call
/// gets, and takes as much longer.
///
/// What the closure does on rayon, as this crate does for copies and checksums, runs on these threads too. If
/// they cannot be started, the closure runs on the calling thread, at its priority.
///
/// ```
/// # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
/// # use ray_zerocopy::{Pipeline, TaskWrapper, Threads, share};
/// use ray_zerocopy::in_background;
/// # #[derive(Pipeline)]
/// # #[pipeline(init = Model::new)]
/// # struct Model { head: Linear }
/// # #[ray_zerocopy::remote]
/// # impl Model {
/// #   #[remote(skip)]
/// #   pub fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } }
/// #   pub fn width(&self) -> usize { self.head.weight.dims()[1] }
/// # }
/// # fn main() -> ray_zerocopy::Result<()> {
/// # let device = Device::flex();
/// # let tasks = TaskWrapper::on(&Threads::new(2), &Model::new(&device))?;
/// # let tuned = Model::new(&device);
/// let arena = in_background(|| share(&tuned))?;
/// tasks.swap(arena)?;
/// # Ok(())
/// # }
/// ```
pub fn in_background<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let threads = rayon::ThreadPoolBuilder::new()
        .thread_name(|index| format!("ray-zerocopy background {index}"))
        .start_handler(|_| lower_priority());
    match threads.build() {
        Ok(threads) => threads.install(work),
        Err(_) => work(),
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::in_background;

    #[test]
    fn all_threads_have_a_low_priority() {
        let own = getpriority_process(None).unwrap();
        let expected = (own + 10).min(19);
        let (first, other) = in_background(|| {
            // A thread that is started there inherits it.
            let started = std::thread::spawn(|| getpriority_process(None).unwrap()).join().unwrap();
            let all = rayon::broadcast(|_| getpriority_process(None).unwrap());
            (started, all)
        });
        assert_eq!(first, expected);
        assert!(!other.is_empty() && other.iter().all(|found| *found == expected), "{other:?}");
        assert_eq!(getpriority_process(None).unwrap(), own);
    }
}
