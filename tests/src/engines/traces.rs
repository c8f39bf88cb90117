//! Traces: the spans of each call lead from its caller to the method, in whatever process that runs.

use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use ray_zerocopy::{Batching, Pending, Pipeline, TaskWrapper};

use super::EngineUnderTest;
use super::models::{Busy, hold};
use crate::memory::eventually;
use crate::models::kill_myself;
use crate::tracer::{Recorded, Trace, children, named, prepare};

/// A pipeline whose methods log.
#[derive(Pipeline)]
#[pipeline(init = TracedModel::new)]
pub struct TracedModel {
    head: Linear,
}

#[ray_zerocopy::remote]
impl TracedModel {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { head: LinearConfig::new(8, 8).init(device) }
    }

    /// Logs and doubles numbers.
    #[remote(batch)]
    pub fn double(&self, numbers: Vec<u32>) -> Vec<u32> {
        tracing::info!("doubles {numbers:?}");
        numbers.into_iter().map(|number| 2 * number).collect()
    }

    /// Sleeps.
    pub fn sleep(&self, millis: u64) {
        std::thread::sleep(std::time::Duration::from_millis(millis));
    }

    /// Creates the file `begun`, and keeps the worker busy until the file `gate` exists.
    pub fn hold(&self, begun: String, gate: String) {
        hold(&begun, &gate);
    }

    /// Panics.
    pub fn fail(&self) {
        assert_eq!(self.head.weight.dims()[0], 0, "asked to panic");
    }

    /// Kills the worker.
    pub fn die(&self) {
        kill_myself();
    }

    /// Counts.
    #[remote(stream)]
    pub fn count(&self, to: u32) -> impl Iterator<Item = u32> {
        0..to
    }
}

/// Workers that have loaded the pipeline.
pub fn traced<E: EngineUnderTest>(workers: usize) -> TaskWrapper<TracedModel> {
    prepare();
    let tasks = TaskWrapper::on(&E::backend(workers), &TracedModel::new(&Device::flex())).unwrap();
    // On Ray, the first calls are sent again, with the weights.
    let calls: Vec<_> = (0..workers * 2).map(|_| tasks.sleep(20)).collect();
    calls.into_iter().for_each(|call| call.wait().unwrap());
    tasks
}

pub fn spans_lead_to_the_method<E: EngineUnderTest>() {
    let tasks = traced::<E>(1);
    let trace = Trace::begin();
    let answer = trace.root.in_scope(|| tasks.double(vec![21]));
    assert_eq!(answer.wait().unwrap(), [42]);
    assert!(trace.root.in_scope(|| tasks.fail()).wait().is_err());
    assert_eq!(trace.root.in_scope(|| tasks.count(3)).count(), 3);
    eventually("all spans have ended", || {
        let recorded = trace.recorded();
        named(&recorded, "call").len() == 3 && named(&recorded, "method").len() == 3
    });
    let recorded = trace.recorded();
    for (method, outcome) in [("double", "ok"), ("fail", "panicked"), ("count", "ok")] {
        let calls: Vec<_> =
            named(&recorded, "call").into_iter().filter(|call| call.field("method") == method).collect();
        let [call] = calls[..] else { panic!("{calls:?}") };
        assert!(call.parent.is_some() && call.field("model").ends_with("TracedModel"), "{call:?}");
        assert_eq!((call.field("outcome"), call.field("generation")), (outcome, "current"), "{call:?}");
        assert_eq!(call.field("otel.status_code"), if outcome == "ok" { "" } else { "ERROR" });
        let (queues, workers) = (children(&recorded, call, "queue"), children(&recorded, call, "worker"));
        // Otherwise the call may be sent again, to a worker that has not loaded the pipeline.
        assert!(!E::KNOWS_WORKERS || (queues.len(), workers.len()) == (1, 1), "{recorded:#?}");
        assert!(!queues.is_empty());
        let methods =
            workers.iter().flat_map(|worker| children(&recorded, worker, "method").into_iter().zip([*worker]));
        let [(inside, worker)] = methods.collect::<Vec<_>>()[..] else { panic!("{recorded:#?}") };
        assert_eq!(inside.field("call"), call.field("call"));
        assert_eq!((inside.field("method"), inside.field("model")), (method, call.field("model")));
        assert_eq!(inside.field("pid"), inside.process.to_string());
        // On Ray, the owner does not know the process of a task.
        for field in ["worker", "pid"] {
            let known = worker.field(field);
            assert!(known.is_empty() || known == inside.field(field), "{worker:?} {inside:?}");
        }
        if method == "double" {
            let [event] = named(&recorded, "event")[..] else { panic!("{recorded:?}") };
            assert_eq!((event.field("message"), &event.span), ("doubles [21]", &inside.span));
        }
    }
}

pub fn each_of_many_calls_has_its_own_spans<E: EngineUnderTest>() {
    let tasks = traced::<E>(2);
    let trace = Trace::begin();
    let calls: Vec<_> = trace.root.in_scope(|| (0..100).map(|number| tasks.double(vec![number])).collect());
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.wait().unwrap(), [2 * number as u32]);
    }
    eventually("all spans have ended", || {
        let recorded = trace.recorded();
        named(&recorded, "call").len() == 100 && named(&recorded, "method").len() == 100
    });
    let recorded = trace.recorded();
    for call in named(&recorded, "call") {
        // Calls that a busy worker gives back are sent again.
        assert!(!children(&recorded, call, "queue").is_empty());
        let workers = children(&recorded, call, "worker");
        let methods: Vec<_> = workers.iter().flat_map(|worker| children(&recorded, worker, "method")).collect();
        let [method] = methods[..] else { panic!("{methods:?}") };
        assert_eq!(method.field("call"), call.field("call"));
    }
}

pub fn calls_of_a_batch_are_linked<E: EngineUnderTest>() {
    let tasks = traced::<E>(1).batch(Batching::default());
    let trace = Trace::begin();
    let busy = Busy::with(|begun, gate| tasks.hold(begun, gate));
    let calls: Vec<Pending<u32>> = trace.root.in_scope(|| (0..20).map(|number| tasks.double_one(number)).collect());
    busy.release();
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.wait().unwrap(), 2 * number as u32);
    }
    let rows = |recorded: &[Recorded]| {
        let batches = named(recorded, "batch").into_iter();
        let firsts = batches.filter(|batch| !batch.field("calls").is_empty());
        let methods = firsts
            .flat_map(|first| children(recorded, first, "worker"))
            .flat_map(|worker| children(recorded, worker, "method"));
        (named(recorded, "call").len(), named(recorded, "batch").len(), methods.count())
    };
    eventually("all spans have ended", || {
        let (calls, batches, methods) = rows(&trace.recorded());
        calls == 20 && batches > 10 && methods > 0
    });
    let recorded = trace.recorded();
    let mut batched = 0;
    for call in named(&recorded, "call") {
        let batches = children(&recorded, call, "batch");
        batched += usize::from(!batches.is_empty());
        // On Ray, a batch may be sent again, to a worker that has not loaded the pipeline.
        for batch in batches {
            let leads = batch.field("batch") == call.field("call");
            let fits = |first: &&Recorded| {
                let is_linked = if leads {
                    first.span == batch.span && (batch.links.len() + 1).to_string() == batch.field("size")
                } else {
                    batch.links == std::slice::from_ref(&first.span) && first.links.contains(&call.span)
                };
                first.field("calls").contains(call.field("call"))
                    && ["batch", "size"].iter().all(|name| first.field(name) == batch.field(name))
                    && is_linked
            };
            assert!(named(&recorded, "batch").iter().any(fits), "no first batch fits {batch:?} of {call:?}");
        }
    }
    assert!(batched > 10, "{recorded:#?}");
}
