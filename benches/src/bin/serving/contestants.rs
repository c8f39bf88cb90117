//! The contestants: worker processes and threads, whose calls run alone or are put together.

use anyhow::Result;
use burn::tensor::Device;
use ray_zerocopy::{Batching, LocalPool, TaskWrapper, Threads};
use ray_zerocopy_examples::minilm::fetch;

use crate::Args;
use crate::service::{ROWS, Service};

/// Each call runs alone.
pub const UNBATCHED: &str = "unbatched";
/// Calls that wait for a worker are put together.
pub const BATCHED: &str = "batched";
/// The caller sends batches.
pub const HAND_BATCHED: &str = "hand-batched";

/// Capacity of the queues: no caller waits for a place, also in a burst.
const QUEUE: usize = 1 << 16;

/// Workers of one kind that run the service. They have one thread each.
pub struct Workers {
    pub name: &'static str,
    pub tasks: TaskWrapper<Service>,
}

/// One way to call some workers.
pub struct Contestant {
    pub workers: &'static str,
    pub calls: &'static str,
    pub tasks: TaskWrapper<Service>,
}

/// Starts worker processes and threads on the same copy of the weights.
pub fn start(args: &Args) -> Result<[Workers; 2]> {
    let service = Service::open(&fetch::model_files()?, &Device::flex())?;
    let arena = ray_zerocopy::share(&service)?;
    drop(service);
    let count = usize::from(args.workers);
    let processes = LocalPool::builder().workers(count).threads_per_worker(1).queue(QUEUE).start()?;
    let threads = Threads::builder().workers(count).threads_per_worker(1).queue(QUEUE).build();
    let processes = TaskWrapper::<Service>::from_arena_on(&processes, arena.clone())?.strict();
    let threads = TaskWrapper::<Service>::from_arena_on(&threads, arena)?.strict();
    Ok([Workers { name: "processes", tasks: processes }, Workers { name: "threads", tasks: threads }])
}

/// Lists the contestants. For each kind of workers, the one at an even place is not batched, and
/// the next one is. Their reports of batches are new.
pub fn contestants(workers: &[Workers]) -> Vec<Contestant> {
    let ways = |workers: &Workers| {
        let alone = workers.tasks.clone();
        let together = alone.clone().batch(Batching::default().max_rows(ROWS));
        [(UNBATCHED, alone), (BATCHED, together)].map(|(calls, tasks)| Contestant {
            workers: workers.name,
            calls,
            tasks,
        })
    };
    workers.iter().flat_map(ways).collect()
}

/// Returns the place of the contestant that has the same workers and is not batched.
pub fn unbatched(place: usize) -> usize {
    place - place % 2
}

impl Contestant {
    /// Returns the mean number of rows of a batch, or `None` if calls are not put together.
    pub fn rows_per_batch(&self) -> Result<Option<f64>> {
        let report = self.tasks.report()?;
        Ok(report.batches.first().map(|batches| batches.mean_rows()))
    }
}

/// Formats a number of rows for a table.
pub fn rows(rows: Option<f64>) -> String {
    rows.map_or_else(|| "-".to_owned(), |rows| format!("{rows:.1}"))
}
