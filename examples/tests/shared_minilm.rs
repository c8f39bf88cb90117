//! Shares the real model: the results of all workers equal the owner's bit for bit, and there is
//! one copy in memory.

#![allow(clippy::unwrap_used, reason = "test code")]

use burn::tensor::{Device, TensorData};
use ray_zerocopy::jit::Compile;
use ray_zerocopy::{ActorWrapper, LocalPool, TaskWrapper, gather};
use ray_zerocopy_examples::compiled_search::CompiledSearch;
use ray_zerocopy_examples::corpus;
use ray_zerocopy_examples::minilm::fetch;
use ray_zerocopy_examples::search::Search;

const WORKERS: usize = 4;

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[test]
fn four_workers_match_the_owner_on_one_copy() {
    let search = Search::open(&fetch::model_files().unwrap(), &Device::flex()).unwrap();
    // Short, long and empty texts, one beyond the model's limit, and one that is not English.
    let mut texts: Vec<String> = corpus::sentences().into_iter().take(12).collect();
    texts.extend([String::new(), "word ".repeat(400), "日本語 🎉".to_owned()]);
    let here: TensorData = search.embed(texts.clone()).unwrap().into_data();

    let shared = ActorWrapper::new(&search).unwrap().strict().threads_per_worker(1);
    drop(search);
    assert_eq!(shared.load().unwrap().embed(texts.clone()).unwrap().into_data(), here, "loaded by the owner");

    let actors = shared.spawn(WORKERS).unwrap();
    for there in gather(actors.iter().map(|actor| actor.embed(texts.clone()))).wait().unwrap() {
        assert_eq!(there.unwrap().into_data(), here, "an actor");
    }
    let report = actors.report().unwrap();
    let arena = mib(report.arena);
    assert_eq!(report.arena, shared.arena().size_bytes());
    assert!(mib(report.pss()) <= arena + 30.0 * WORKERS as f64, "more than one copy:\n{report}");
    for worker in &report.processes[1..] {
        assert!(mib(worker.private) < arena / 2.0, "{} has weights of its own:\n{report}", worker.name);
        assert_eq!(worker.copied, 0, "{report}");
    }

    let engine = LocalPool::builder().workers(1).start().unwrap();
    let tasks = TaskWrapper::<Search>::from_arena_on(&engine, shared.arena().clone()).unwrap();
    assert_eq!(tasks.embed(texts).wait().unwrap().unwrap().into_data(), here, "a task on the same arena");
}

#[test]
fn tasks_run_the_compiled_graph_behind_the_same_method() {
    let search = CompiledSearch::open(&fetch::model_files().unwrap(), Compile::int8()).unwrap();
    let mut texts: Vec<String> = corpus::sentences().into_iter().take(5).collect();
    texts.push(String::new());
    let here = search.embed(texts.clone()).unwrap().into_data();
    assert_eq!(search.embed(Vec::new()).unwrap().dims(), [0, 384]);
    let pool = LocalPool::builder().workers(2).threads_per_worker(1).start().unwrap();
    let tasks = TaskWrapper::on(&pool, &search).unwrap().strict();
    drop(search);
    for call in (0..4).map(|_| tasks.embed(texts.clone())).collect::<Vec<_>>() {
        assert_eq!(call.wait().unwrap().unwrap().into_data(), here);
    }
    assert_eq!(tasks.embed(Vec::new()).wait().unwrap().unwrap().dims(), [0, 384]);
    let report = tasks.report().unwrap();
    assert!(report.processes.iter().all(|process| process.copied == 0), "{report}");
}
