//! Tasks and actors whose workers compute on the device. The owner uses only `cpu`.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use ray_zerocopy::{ActorWrapper, LocalPool, TaskWrapper, gather};

use super::Spec;
use super::model::Sample;

/// Tasks on two workers that share one device.
pub fn tasks(spec: &Spec, _: &Device) {
    let sample = Sample::filled();
    let engine = LocalPool::builder().workers(2).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &sample).unwrap().device(spec.name).unwrap();
    let calls: Vec<_> = (1..=6).map(|batch| Sample::input(batch, 5)).collect();
    let there = calls.iter().map(|(ids, ignored)| tasks.scores(ids.clone(), ignored.clone(), "fr".into()));
    let there = gather(there).wait().unwrap();
    for ((ids, ignored), there) in calls.into_iter().zip(there) {
        let (there, here) = (there.unwrap(), sample.scores(ids, ignored, "fr".into()).unwrap());
        assert_eq!(there.device(), Device::flex(), "results come back on the owner's device");
        spec.same(there.into_data(), here.into_data());
    }
    let (ids, ignored) = Sample::input(1, 4);
    assert_eq!(tasks.scores(ids, ignored, "it".into()).wait().unwrap().unwrap_err(), "there is no head `it`");

    // Integers and booleans have other types on the device, and are converted back for the owner.
    let ids = Tensor::<1, Int>::from_ints([0, 1, 2, 3], &Device::flex());
    let not = Tensor::<1, Bool>::from_data(TensorData::from([false, false, false, true]), &Device::flex());
    let known = tasks.known(ids, not).wait().unwrap();
    assert_eq!(known.into_data(), TensorData::from([true, false, false, false]));
    let (ids, _) = Sample::input(2, 3);
    let next = tasks.next(ids.clone()).wait().unwrap();
    let values = |data: TensorData| data.iter::<i64>().collect::<Vec<_>>();
    assert_eq!(values(next.into_data()), values(sample.next(ids).into_data()));
}

/// Two actor processes use the device at once, each with its own state.
pub fn actors(spec: &Spec, _: &Device) {
    let sample = Sample::filled();
    let shared = ActorWrapper::new(&sample).unwrap().device(spec.name).unwrap();
    let actors = shared.spawn(2).unwrap();
    let (ids, ignored) = Sample::input(2, 6);
    let expected = sample.scores(ids.clone(), ignored.clone(), "de".into()).unwrap().into_data();
    let calls = (0..8).map(|call| actors.actor(call % 2).scores(ids.clone(), ignored.clone(), "de".into()));
    for scores in gather(calls).wait().unwrap() {
        spec.same(scores.unwrap().into_data(), expected.clone());
    }
    let [first, second] = [0, 1].map(|index| actors.actor(index));
    let (pid, _) = first.count().wait().unwrap();
    assert_eq!(first.count().wait().unwrap(), (pid, 2));
    let (other, calls) = second.count().wait().unwrap();
    assert_eq!(calls, 1);
    assert!(pid != other && other != std::process::id());

    // One actor changes its weights. The other actor and the arena keep theirs.
    assert_eq!(first.zero_weights().wait().unwrap(), 0.0);
    let scores = second.scores(ids, ignored, "de".into()).wait().unwrap().unwrap();
    spec.same(scores.into_data(), expected);
    shared.arena().verify().unwrap();
}

/// `strict` is checked in the worker, where the pipeline is loaded.
pub fn strict_is_an_error_of_the_worker(spec: &Spec, _: &Device) {
    let shared = ActorWrapper::new(&Sample::filled()).unwrap().device(spec.name).unwrap().strict();
    let actors = shared.spawn(1);
    let counted = actors.and_then(|actors| actors.count().wait());
    match (spec.borrows_integers(), counted) {
        (true, counted) => assert_eq!(counted.unwrap().1, 1),
        (false, Ok(_)) => panic!("`{}` copies weights, and `strict` did not fail", spec.name),
        (false, Err(error)) => assert!(error.to_string().contains("strict: "), "{error}"),
    }
}
