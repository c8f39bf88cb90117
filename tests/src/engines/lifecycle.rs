//! Prewarming, draining and restarting workers.

use std::time::Duration;

use burn::tensor::Device;
use ray_zerocopy::error::LoadError;
use ray_zerocopy::{ActorWrapper, CallError, Error, TaskWrapper, gather};

use super::EngineUnderTest;
use super::elastic::ElasticEngine;
use super::stream_model::StreamModel;
use crate::chaos::ChaosModel;

/// The count of an actor that has been prewarmed with [`warm`].
const WARM: u64 = 100;

fn warm(model: &mut ChaosModel) {
    model.calls = WARM;
}

fn model() -> ChaosModel {
    ChaosModel::new(&Device::flex())
}

fn wrapper<E: EngineUnderTest>() -> ActorWrapper<ChaosModel> {
    ActorWrapper::on(&E::backend(2), &model()).unwrap().threads_per_worker(1)
}

pub fn actor_is_prewarmed_before_its_first_call<E: EngineUnderTest>() {
    let actors = wrapper::<E>().prewarm(warm).unwrap().spawn(2).unwrap();
    for actor in actors.iter() {
        assert_eq!(actor.count().wait().unwrap(), WARM + 1);
    }
    // Also when it has loaded its pipeline again.
    let actor = actors.actor(0);
    assert!(actor.panic_sometimes(1).wait().is_err());
    assert_eq!(actor.count().wait().unwrap(), WARM + 1);
}

pub fn worker_of_tasks_is_prewarmed<E: EngineUnderTest>() {
    let tasks = TaskWrapper::on(&E::backend(1), &model()).unwrap();
    let tasks = tasks.prewarm(|model| model.calls = WARM).unwrap().deadline(Duration::from_secs(60));
    tasks.sleep(0).wait().unwrap();
    assert_eq!(tasks.calls_so_far().wait().unwrap(), WARM);
}

pub fn panic_of_a_prewarm_function_is_a_load_error<E: EngineUnderTest>() {
    let tasks = TaskWrapper::on(&E::backend(1), &model()).unwrap();
    let tasks = tasks.prewarm(|_| panic!("too cold")).unwrap();
    let error = tasks.sleep(0).wait().unwrap_err();
    let Error::Call(CallError::Load { error: load, .. }) = &error else { panic!("{error}") };
    let LoadError::Prewarm { pipeline, place, reason } = load else { panic!("{error}") };
    assert!(pipeline.ends_with("ChaosModel"), "{pipeline}");
    assert!(place.contains("lifecycle.rs:"), "{place}");
    assert!(reason.starts_with("too cold"), "{reason}");

    let error = wrapper::<E>().prewarm(|_| panic!("too cold")).unwrap().spawn(1).unwrap_err();
    assert!(error.to_string().contains("the prewarm function of `"), "{error}");
}

pub fn draining_runs_what_is_queued<E: EngineUnderTest>() {
    let actors = wrapper::<E>().spawn(1).unwrap();
    let calls: Vec<_> = (0..4).map(|_| actors.sleep(5)).collect();
    assert!(actors.drain(Duration::from_secs(60)).is_complete());
    gather(calls).wait().unwrap();
    let error = actors.sleep(0).wait().unwrap_err();
    assert!(matches!(error, Error::Call(CallError::ShutDown { .. })), "{error}");
    assert!(actors.workers().is_empty());
}

pub fn draining_aborts_what_takes_too_long<E: EngineUnderTest>() {
    let actors = wrapper::<E>().spawn(1).unwrap();
    actors.sleep(0).wait().unwrap();
    // A thread goes on with it after the test.
    let running = actors.sleep(5000);
    let queued = actors.sleep(0);
    let drained = actors.drain(Duration::from_millis(50));
    assert!(!drained.is_complete());
    assert_eq!(drained.aborted, 2);
    assert!(running.wait().is_err() && queued.wait().is_err());
}

pub fn restart_replaces_every_actor<E: EngineUnderTest>() {
    let actors = wrapper::<E>().prewarm(warm).unwrap().spawn(2).unwrap();
    let before = actors.workers();
    for actor in actors.iter() {
        assert_eq!(actor.count().wait().unwrap(), WARM + 1);
    }
    // Calls are made all the time. None of them fails, and each actor has a new state afterwards.
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers = [0, 1].map(|index| {
            let (actor, any, is_over) = (actors.actor(index), actors.clone(), &is_over);
            scope.spawn(move || {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    gather([actor.sleep(1), any.sleep(0), actor.sleep(0)]).wait().unwrap();
                }
            })
        });
        actors.restart().unwrap();
        actors.restart().unwrap();
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    });
    for actor in actors.iter() {
        assert_eq!(actor.count().wait().unwrap(), WARM + 1);
    }
    let after = actors.workers();
    assert_eq!(after.len(), 2);
    assert!(!E::REPLACES_WORKERS || before.iter().all(|worker| !after.contains(worker)), "{before:?}, {after:?}");
}

pub fn restart_of_a_closed_pool_is_an_error<E: EngineUnderTest>() {
    let actors = wrapper::<E>().spawn(1).unwrap();
    actors.shut_down();
    let error = actors.restart().unwrap_err();
    assert!(matches!(error, Error::Call(CallError::ShutDown { .. })), "{error}");
}

pub fn restart_keeps_the_size_of_an_elastic_pool<E: ElasticEngine>() {
    let pool = E::pool((1..=3).into(), Duration::from_secs(3600), 0).unwrap();
    let tasks = TaskWrapper::on(&pool, &model()).unwrap().attempts(1);
    gather((0..12).map(|_| tasks.sleep(20))).wait().unwrap();
    let calls: Vec<_> = (0..12).map(|_| tasks.sleep(5)).collect();
    E::restart(&pool).unwrap();
    gather(calls).wait().unwrap();
    E::restart(&pool).unwrap();
    assert_eq!(E::report(&pool).workers, 1, "workers that no call needs are not started again");
    tasks.sleep(0).wait().unwrap();
}

pub fn restart_does_not_wait_for_a_reader<E: EngineUnderTest>() {
    let wrapper = ActorWrapper::on(&E::backend(1), &StreamModel::new(&Device::flex())).unwrap();
    let actors = wrapper.threads_per_worker(1).spawn(1).unwrap().stream_buffer(2);
    let mut stream = actors.count(200);
    assert_eq!(stream.next().unwrap().unwrap(), 0);
    // The reader is the thread that waits for the restart.
    actors.restart().unwrap();
    assert_eq!(stream.map(Result::unwrap).collect::<Vec<_>>(), (1..200).collect::<Vec<_>>());
    assert_eq!(actors.count(3).count(), 3);
}
