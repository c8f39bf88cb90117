//! Tasks of the local engine, with real worker processes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use burn::tensor::{Device, Tensor, TensorData};
use ray_zerocopy::{CallError, Error, LocalPool, TaskWrapper, gather};
use ray_zerocopy_tests::models::{TestModel, TestModelConfig, TestModelError};

fn model(size: usize) -> TestModel {
    TestModelConfig::new(size).init(&Device::flex())
}

fn two_workers() -> LocalPool {
    LocalPool::builder().workers(2).threads_per_worker(1).start().unwrap()
}

#[test]
fn a_task_gives_the_same_answer_bit_for_bit() {
    let model = model(64);
    let tasks = TaskWrapper::on(&two_workers(), &model).unwrap();
    let input = Tensor::<2>::random([5, 64], burn::tensor::Distribution::Default, &Device::flex());
    let here = model.forward(input.clone()).into_data();
    for _ in 0..4 {
        assert_eq!(tasks.forward(input.clone()).wait().unwrap().into_data(), here);
    }
}

#[test]
fn large_tensors_travel_both_ways() {
    let model = model(512);
    let tasks = TaskWrapper::on(&two_workers(), &model).unwrap();
    let input = Tensor::<2>::random([2000, 512], burn::tensor::Distribution::Default, &Device::flex());
    let there = tasks.forward(input.clone()).wait().unwrap();
    assert_eq!(there.clone().into_data(), model.forward(input).into_data());
    // The result is a private map of the worker's memfd, and can be read and written like any other
    // tensor.
    let doubled = there.clone() * 2.0;
    assert_eq!((doubled / 2.0).into_data(), there.into_data());
}

#[test]
fn serde_values_and_tensor_containers_travel() {
    let tasks = TaskWrapper::on(&two_workers(), &model(4)).unwrap();
    let value = serde_json::json!({"a": [1, 2.5, null, {"b": "c"}], "z": -1});
    let numbers = vec![0.1, f64::MIN_POSITIVE, -0.0, f64::INFINITY];
    let there = tasks.echo(value.clone(), "tête-à-tête".to_owned(), numbers.clone()).wait().unwrap();
    assert_eq!(there, (value, "tête-à-tête".to_owned(), numbers));

    let device = Device::flex();
    let tensors = vec![Tensor::<2>::ones([1, 2], &device), Tensor::<2>::zeros([0, 3], &device)];
    let mask = Tensor::from_bool([true, false], &device);
    let named = tasks.sort(tensors, Some(mask)).wait().unwrap();
    assert_eq!(named.len(), 3);
    assert_eq!(named["tensor 0"].to_data(), TensorData::from([[1.0_f32, 1.0]]));
    assert_eq!(named["tensor 1"].dims(), [0, 3]);
    assert_eq!(named["mask"].to_data(), TensorData::from([[1.0_f32, 0.0]]));
}

#[test]
fn errors_of_a_method_are_returned_as_values() {
    let tasks = TaskWrapper::on(&two_workers(), &model(4)).unwrap();
    assert_eq!(tasks.arange(0).wait().unwrap().unwrap_err(), TestModelError::Empty);
    assert_eq!(tasks.arange(12).wait().unwrap().unwrap_err(), TestModelError::Full { given: 12, room: 9 });
    let input = tasks.arange(3).wait().unwrap().unwrap();
    assert_eq!(input.into_data().iter::<i64>().collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn second_task_on_an_arena_rebuilds_nothing() {
    let engine = LocalPool::builder().workers(1).start().unwrap();
    let mut config = TestModelConfig::new(4);
    let folder = tempfile::tempdir().unwrap();
    // `init` removes this file and kills its process, so a worker that rebuilds the pipeline dies.
    let path = folder.path().join("deadly");
    config.deadly = Some(path.to_string_lossy().into_owned());
    let tasks = TaskWrapper::on(&engine, &config.init(&Device::flex())).unwrap();
    let first = tasks.pid().wait().unwrap();
    std::fs::write(&path, "").unwrap();
    for _ in 0..3 {
        assert_eq!(tasks.pid().wait().unwrap(), first);
    }
    assert!(path.exists(), "a task rebuilt the pipeline");
}

#[test]
fn tasks_run_in_parallel_and_gather_in_order() {
    let tasks = TaskWrapper::on(&two_workers(), &model(4)).unwrap();
    let pids = gather((0..8).map(|_| tasks.sleep(20))).wait().unwrap();
    let mut distinct = pids.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 2, "both workers have to take tasks: {pids:?}");
    assert!(!pids.contains(&std::process::id()));

    let device = Device::flex();
    let sums = gather((0..8).map(|n| tasks.sort(vec![Tensor::full([1, 1], n, &device)], None))).wait().unwrap();
    let sums: Vec<f32> = sums.into_iter().map(|named| named["tensor 0"].clone().into_scalar()).collect();
    assert_eq!(sums, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
}

#[test]
fn results_can_be_awaited_on_any_executor() {
    let tasks = TaskWrapper::on(&two_workers(), &model(4)).unwrap();
    let pid = pollster::block_on(async { tasks.pid().await }).unwrap();
    assert_ne!(pid, std::process::id());
    let many = pollster::block_on(gather((0..5).map(|_| tasks.pid())).into_future()).unwrap();
    assert_eq!(many.len(), 5);
}

#[test]
fn result_remains_after_a_wait_times_out() {
    let tasks = TaskWrapper::on(&two_workers(), &model(4)).unwrap();
    let mut pending = tasks.sleep(400);
    let mut rounds = 0;
    let pid = loop {
        match pending.wait_timeout(std::time::Duration::from_millis(5)) {
            Some(result) => break result.unwrap(),
            None => rounds += 1,
        }
    };
    assert!(rounds > 0, "a result cannot be there before its method ends");
    assert_ne!(pid, std::process::id());
}

#[test]
fn result_is_taken_once_and_max_timeout_waits() {
    use std::time::Duration;

    let engine = LocalPool::builder().workers(1).start_timeout(Duration::MAX).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &model(4)).unwrap().deadline(Duration::MAX);
    let mut pending = tasks.pid();
    pending.wait_timeout(Duration::MAX).unwrap().unwrap();
    let taken = |method: &str| Error::Call(CallError::Taken { method: method.to_owned() });
    assert_eq!(pending.wait_timeout(Duration::ZERO).unwrap().unwrap_err(), taken("pid"));

    let mut all = gather([tasks.pid(), tasks.pid()]);
    assert_eq!(all.wait_timeout(Duration::MAX).unwrap().unwrap().len(), 2);
    assert_eq!(all.wait_timeout(Duration::ZERO).unwrap().unwrap_err(), taken("gather"));

    let mut some = gather([tasks.panic_with("bad input".to_owned()), tasks.pid()]);
    assert!(some.wait_timeout(Duration::MAX).unwrap().unwrap_err().to_string().contains("bad input"));
    assert_eq!(some.wait_timeout(Duration::MAX).unwrap().unwrap_err(), taken("panic_with"));
}

#[test]
fn polled_result_can_be_waited_for() {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    fn poll_once<F: Future + Unpin>(future: &mut F) -> bool {
        matches!(Pin::new(future).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_))
    }
    let tasks = TaskWrapper::on(&two_workers(), &model(4)).unwrap();
    let mut pending = tasks.sleep(300);
    assert!(!poll_once(&mut pending), "a result cannot be there before its method ends");
    pending.wait().unwrap();

    let mut pending = tasks.sleep(300);
    assert!(pending.wait_timeout(Duration::ZERO).is_none());
    assert!(!poll_once(&mut pending));
    assert!(pending.wait_timeout(Duration::from_millis(1)).is_none());
    pending.wait_timeout(Duration::MAX).unwrap().unwrap();

    let mut all = gather([tasks.sleep(300), tasks.pid()]);
    assert!(!poll_once(&mut all));
    assert_eq!(all.wait().unwrap().len(), 2);
}

#[test]
fn each_worker_gets_its_share_of_the_cores() {
    let engine = LocalPool::builder().workers(2).threads_per_worker(3).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &model(4)).unwrap();
    assert_eq!(tasks.threads().wait().unwrap().as_deref(), Some("3"));
    let engine = LocalPool::builder().workers(64).start();
    let tasks = TaskWrapper::on(&engine.unwrap(), &model(4)).unwrap();
    assert_eq!(tasks.threads().wait().unwrap().as_deref(), Some("1"));
}

#[test]
fn full_queue_blocks_or_fails_by_choice() {
    let engine = LocalPool::builder().workers(1).queue(2).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &model(4)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("busy");
    let busy = tasks.announce_and_sleep(file.to_string_lossy().into_owned(), 500);
    ray_zerocopy_tests::memory::eventually("the worker is busy", || file.exists());
    let waiting = [tasks.pid(), tasks.pid()];
    let eager = tasks.clone().fail_when_full();
    let error = eager.pid().wait().unwrap_err();
    assert_eq!(error, Error::Call(CallError::QueueFull { waiting: 2, workers: 1 }));
    // The blocking caller waits for a place in the queue.
    tasks.pid().wait().unwrap();
    busy.wait().unwrap();
    gather(waiting).wait().unwrap();
}

#[test]
fn shut_down_runs_queued_calls_and_refuses_new() {
    let engine = two_workers();
    let tasks = TaskWrapper::on(&engine, &model(4)).unwrap();
    let pending: Vec<_> = (0..6).map(|_| tasks.sleep(30)).collect();
    let pids: Vec<_> = engine.workers().iter().map(|worker| worker.pid).collect();
    engine.shut_down();
    assert_eq!(gather(pending).wait().unwrap().len(), 6);
    assert!(pids.iter().all(|&pid| !ray_zerocopy_tests::memory::is_alive(pid)), "{pids:?} are still there");
    let error = tasks.pid().wait().unwrap_err();
    assert_eq!(error, Error::Call(CallError::ShutDown { method: "pid".to_owned() }));
}

#[test]
fn concurrent_shut_downs_all_wait() {
    let engine = two_workers();
    let tasks = TaskWrapper::on(&engine, &model(4)).unwrap();
    let pending = tasks.sleep(400);
    let pids: Vec<_> = engine.workers().iter().map(|worker| worker.pid).collect();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                engine.shut_down();
                assert!(pids.iter().all(|&pid| !ray_zerocopy_tests::memory::is_alive(pid)), "{pids:?} are still there");
            });
        }
    });
    pending.wait().unwrap();
}
