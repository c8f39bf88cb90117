//! Methods that return streams.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use burn::tensor::{Device, Distribution, Tensor};
use futures_core::Stream;
use ray_zerocopy::{ActorWrapper, CallError, Error, Result, Streaming, TaskWrapper};

use super::EngineUnderTest;
use super::stream_model::StreamModel;
use crate::memory::eventually;

fn model() -> StreamModel {
    StreamModel::new(&Device::flex())
}

/// One worker.
fn tasks<E: EngineUnderTest>() -> TaskWrapper<StreamModel> {
    TaskWrapper::on(&E::backend(1), &model()).unwrap()
}

fn path(folder: &tempfile::TempDir) -> String {
    folder.path().to_str().unwrap().to_owned()
}

/// The items of a stream that ends with an error.
fn failing<T>(stream: Streaming<T>) -> (Vec<T>, CallError) {
    let mut items = Vec::new();
    let mut stream = stream;
    loop {
        match stream.next().expect("an error comes last") {
            Ok(item) => items.push(item),
            Err(Error::Call(error)) => {
                assert!(stream.next().is_none(), "nothing follows the error");
                return (items, error);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

pub fn items_arrive_in_order<E: EngineUnderTest>() {
    let tasks = tasks::<E>();
    let expected: Vec<usize> = (0..500).collect();
    assert_eq!(tasks.count(500).collect::<Result<Vec<_>>>().unwrap(), expected);
    assert_eq!(tasks.list(500).collect::<Result<Vec<_>>>().unwrap(), expected);
    assert_eq!(tasks.count(0).count(), 0);
    for buffer in [0, 1, 3, 1000] {
        let tasks = tasks.clone().stream_buffer(buffer);
        assert_eq!(tasks.count(50).collect::<Result<Vec<_>>>().unwrap(), &expected[..50]);
    }
    let lengths = tasks.lengths(vec!["a".to_owned(), String::new(), "abc".to_owned()]);
    assert_eq!(lengths.collect::<Result<Vec<_>>>().unwrap(), [Ok(1), Err("empty".to_owned()), Ok(3)]);
}

pub fn items_arrive_while_the_method_runs<E: EngineUnderTest>() {
    let folder = tempfile::tempdir().unwrap();
    let mut stream = tasks::<E>().wait_for_files(path(&folder), 3);
    assert_eq!(stream.next().unwrap().unwrap(), 0);
    assert!(stream.next_timeout(Duration::from_millis(20)).is_none());
    for item in 1..3 {
        std::fs::write(folder.path().join(item.to_string()), "").unwrap();
        let next = stream.next_timeout(Duration::from_secs(60)).expect("the item arrives");
        assert_eq!(next.unwrap().unwrap(), item);
    }
    assert!(stream.next().is_none() && stream.next().is_none());
    assert!(stream.next_timeout(Duration::ZERO).unwrap().is_none());
}

pub fn tensors_are_items<E: EngineUnderTest>() {
    let model = model();
    let tasks = TaskWrapper::on(&E::backend(1), &model).unwrap();
    for rows in [2, 50_000] {
        let input = Tensor::random([rows, 4], Distribution::Default, &Device::flex());
        let mut expected = model.repeat(input.clone(), 4);
        for item in tasks.repeat(input, 4) {
            let ((found, index), (value, number)) = (item.unwrap(), expected.next().unwrap());
            assert_eq!((found.into_data(), index), (value.into_data(), number));
        }
        assert!(expected.next().is_none());
    }
}

pub fn stream_can_be_awaited<E: EngineUnderTest>() {
    let tasks = tasks::<E>();
    let items = pollster::block_on(async {
        let mut stream = pin!(tasks.count(200).into_stream());
        let mut items = Vec::new();
        while let Some(item) = std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await {
            items.push(item.unwrap());
        }
        items
    });
    assert_eq!(items, (0..200).collect::<Vec<_>>());
}

/// The number of items that `noted` has made.
fn made(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("made")).map_or(0, |made| made.parse().unwrap())
}

pub fn slow_reader_slows_the_worker_down<E: EngineUnderTest>() {
    let folder = tempfile::tempdir().unwrap();
    let mut stream = tasks::<E>().stream_buffer(4).noted(path(&folder), 200);
    for read in 1..=20 {
        assert_eq!(stream.next().unwrap().unwrap(), read);
        std::thread::sleep(Duration::from_millis(5));
        let made = made(folder.path());
        assert!(made <= read + 4 + E::ITEMS_UNDER_WAY, "{made} items are made, {read} are read");
    }
    assert_eq!(stream.map(Result::unwrap).last(), Some(200));
}

pub fn method_ends_with_its_reader<E: EngineUnderTest>() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks::<E>().stream_buffer(4);
    let mut stream = tasks.noted(path(&folder), 1_000_000);
    assert_eq!(stream.next().unwrap().unwrap(), 1);
    drop(stream);
    eventually("the iterator is dropped", || folder.path().join("dropped").exists());
    assert!(made(folder.path()) < 1000);
    tasks.sleep(0).wait().unwrap();
    // One that was never read.
    drop(tasks.count(1_000_000));
    assert_eq!(tasks.count(3).count(), 3);
}

pub fn cancelled_stream_ends_with_an_error<E: EngineUnderTest>() {
    let folder = tempfile::tempdir().unwrap();
    let mut stream = tasks::<E>().stream_buffer(4).noted(path(&folder), 1_000_000);
    assert_eq!(stream.next().unwrap().unwrap(), 1);
    stream.cancel();
    let (items, error) = failing(stream);
    assert!(items.len() <= 1000 && items.iter().zip(2..).all(|(item, expected)| *item == expected), "{items:?}");
    assert_eq!(error.to_string(), "`noted` was cancelled by its caller");
    eventually("the iterator is dropped", || folder.path().join("dropped").exists());
}

pub fn panic_follows_the_items<E: EngineUnderTest>() {
    let tasks = tasks::<E>();
    let (items, error) = failing(tasks.panic_after(3));
    assert_eq!(items, [0, 1, 2]);
    assert!(matches!(&error, CallError::Panicked { message, .. } if message.contains("asked to panic")), "{error}");
    assert_eq!(tasks.count(2).count(), 2);
}

pub fn dead_worker_ends_the_stream<E: EngineUnderTest>() {
    if !E::REPLACES_WORKERS {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks::<E>();
    let (items, error) = failing(tasks.die_once_after(3, format!("{}/once", path(&folder))));
    // Ray reports an item some time after the method has made it.
    let is_whole = if E::PASSES_CALLS_ON { [0, 1, 2].starts_with(&items) } else { items == [0, 1, 2] };
    assert!(is_whole, "{items:?}");
    assert!(matches!(&error, CallError::WorkerDied { .. }), "{error}");
    if !E::PASSES_CALLS_ON {
        // No reader has seen an item, so the call is repeated.
        let stream = tasks.die_once_after(0, format!("{}/twice", path(&folder)));
        assert_eq!(stream.collect::<Result<Vec<_>>>().unwrap(), [0]);
    }
    assert_eq!(tasks.count(2).count(), 2);
}

pub fn deadline_ends_a_stream<E: EngineUnderTest>() {
    let tasks = tasks::<E>();
    tasks.sleep(0).wait().unwrap();
    let (items, error) = failing(tasks.clone().deadline(Duration::from_millis(300)).slow(1000, 20));
    assert!(items.len() < 1000 && items.iter().enumerate().all(|(index, item)| index == *item));
    assert!(matches!(error, CallError::Deadline { .. }), "{error}");
    // The first item arrives in time, and is not read.
    let stream = tasks.clone().deadline(Duration::from_millis(300)).slow(1000, 20);
    std::thread::sleep(Duration::from_millis(600));
    let (items, error) = failing(stream);
    assert!(items.len() < 1000);
    assert!(matches!(error, CallError::Deadline { .. }), "{error}");
}

pub fn actor_keeps_its_state_between_streams<E: EngineUnderTest>() {
    let actors = ActorWrapper::on(&E::backend(1), &model()).unwrap().threads_per_worker(1).spawn(1).unwrap();
    let actor = actors.actor(0).stream_buffer(2);
    let (first, second) = (actor.remember(3), actor.remember(5));
    assert_eq!(first.collect::<Result<Vec<_>>>().unwrap(), [1, 2, 3]);
    assert_eq!(second.collect::<Result<Vec<_>>>().unwrap(), [4, 5, 6, 7, 8]);
}

pub fn stream_outlives_its_wrapper<E: EngineUnderTest>() {
    let tasks = tasks::<E>().stream_buffer(2);
    let stream = tasks.count(50);
    drop(tasks);
    assert_eq!(stream.count(), 50);
}

pub fn closing_workers_finish_their_streams<E: EngineUnderTest>() {
    let wrapper = ActorWrapper::on(&E::backend(1), &model()).unwrap();
    let actors = wrapper.threads_per_worker(1).spawn(1).unwrap().stream_buffer(2);
    let streams = [actors.count(50), actors.count(60)];
    // The streams are read after the workers have ended.
    actors.shut_down();
    assert_eq!(streams.map(|stream| stream.collect::<Result<Vec<_>>>().unwrap().len()), [50, 60]);
    let (items, error) = failing(actors.count(1));
    assert!(items.is_empty() && matches!(error, CallError::ShutDown { .. }), "{error}");
}
