//! Hot swap beside other operations of a wrapper, and its wrong use.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use burn::tensor::Device;
use ray_zerocopy::error::SwapError;
use ray_zerocopy::{ActorWrapper, Batching, CallError, Error, TaskWrapper, gather, share};

use super::EngineUnderTest;
use super::elastic::ElasticEngine;
use super::swap::{Counter, SwapModel, all_are, arena, expected, swap_error, tasks, unreadable};
use crate::memory::eventually;

pub fn check_cannot_swap_again<E: EngineUnderTest>() {
    let tasks = tasks::<E>(1);
    let error = swap_error(tasks.swap_if(arena(1), |_| Ok(tasks.swap(arena(2)).map(drop)?)));
    assert!(matches!(&error, SwapError::Check { reason } if reason.contains("cannot swap the same")), "{error}");
    let canary = tasks.canary(arena(1), 1.0).unwrap();
    let error = swap_error(tasks.swap_if(arena(2), |_| Ok(canary.promote().map(drop)?)));
    assert!(matches!(error, SwapError::Check { .. }), "{error}");
    all_are(&tasks, 0);
    // Other wrappers of the same pool are free to.
    let other = tasks.clone().strict();
    tasks.swap_if(arena(3), |_| Ok(other.swap(arena(4)).map(drop)?)).unwrap();
    all_are(&tasks, 3);
    all_are(&other, 4);
}

pub fn canary_counts_its_calls<E: EngineUnderTest>() {
    let tasks = tasks::<E>(2);
    gather((0..10).map(|_| tasks.value())).wait().unwrap();
    let canary = tasks.canary(arena(1), 0.5).unwrap();
    let calls: Vec<_> = (0..100).map(|_| tasks.panic_if(1.0)).collect();
    let failed = calls.into_iter().filter_map(|call| call.wait().err()).count() as u64;
    let report = tasks.report().unwrap();
    let [old, new] = &report.generations[..] else { panic!("{report}") };
    assert_eq!((old.arena, old.calls, old.errors), (tasks.arena().id(), 110 - failed, 0));
    assert_eq!((new.arena, new.calls, new.errors), (canary.arena_id(), failed, failed));
    assert!((45..=55).contains(&failed) && new.bytes == arena(1).size_bytes(), "{report}");
    assert!(report.to_string().contains(&format!("{failed} calls, {failed} errors")), "{report}");
    assert_eq!(canary.report(), *new);
    assert_eq!(canary.cancel(), *new);
    assert_eq!(tasks.report().unwrap().generations.len(), 1);

    // The calls of a check are not those of the wrapper, and a call that was cancelled is not counted.
    let swapped = tasks.swap_if(arena(2), |new| Ok(new.value().wait().map(drop)?)).unwrap();
    assert_eq!(swapped.bytes, arena(2).size_bytes());
    tasks.batch(Batching::default()).values_one(1).wait().unwrap();
}

pub fn canary_of_actors_with_state_is_refused<E: EngineUnderTest>() {
    let counter = || Counter::new(&Device::flex());
    let wrapper = ActorWrapper::on(&E::backend(1), &counter()).unwrap();
    let actors = wrapper.threads_per_worker(1).spawn(1).unwrap();
    actors.actor(0).count().wait().unwrap();
    let error = actors.canary(share(&counter()).unwrap(), 0.5).unwrap_err();
    assert!(matches!(&error, Error::Swap(SwapError::CanaryState { .. })) && error.to_string().contains("swap_if"));
    assert_eq!(actors.actor(0).count().wait().unwrap(), 2);
}

/// A call that is interrupted between the choice of its weights and that of its batch would make a batch
/// for weights that have been swapped meanwhile, which keeps them in memory.
pub fn batches_of_old_weights_are_forgotten<E: EngineUnderTest>() {
    let tasks = tasks::<E>(2).batch(Batching::default());
    let arenas = [arena(1), arena(2)];
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    tasks.values_one(1).wait().unwrap();
                }
            });
        }
        for round in 0..if E::KNOWS_WORKERS { 1500 } else { 100 } {
            tasks.swap(arenas[round % 2].clone()).unwrap();
        }
        is_over.store(true, Ordering::Release);
    });
    let report = tasks.report().unwrap();
    assert!(report.batches.len() <= 1, "batches of {} generations are left", report.batches.len());
}

pub fn swaps_beside_restarts_lose_nothing<E: ElasticEngine>() {
    let pool = E::pool((1..=3).into(), Duration::from_millis(5), 0).unwrap();
    let tasks = TaskWrapper::<SwapModel>::from_arena_on(&pool, arena(0)).unwrap();
    let arenas: Vec<_> = (0..3).map(arena).collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Acquire) {
                        let call = tasks.value();
                        let id = call.arena_id();
                        let value = arenas.iter().position(|arena| Some(arena.id()) == id);
                        let found = call.wait().unwrap();
                        assert!(value.is_none_or(|value| found == expected(value as u16)), "{found:?}");
                    }
                })
            })
            .collect();
        let restarting = scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                E::restart(&pool).unwrap();
            }
        });
        for round in 0..40 {
            tasks.swap(arenas[round % 3].clone()).unwrap();
        }
        is_over.store(true, Ordering::Release);
        restarting.join().unwrap();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    });
    all_are(&tasks, 0);
}

pub fn pool_closes_beside_swaps<E: ElasticEngine>() {
    let is_closed = |error: &Error| {
        matches!(error, Error::Call(CallError::ShutDown { .. }))
            || matches!(error, Error::Swap(SwapError::Worker { error: CallError::ShutDown { .. } }))
    };
    for wait in 0..8 {
        let pool = E::pool(2.into(), Duration::from_secs(60), 0).unwrap();
        let tasks = TaskWrapper::<SwapModel>::from_arena_on(&pool, arena(0)).unwrap();
        let arenas = [arena(1), arena(2)];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Each swap ends, with an error if a worker could not load any more.
                for round in 0.. {
                    if let Err(error) = tasks.swap(arenas[round % 2].clone()) {
                        assert!(is_closed(&error), "{error}");
                        break;
                    }
                }
            });
            scope.spawn(|| {
                let error = std::iter::repeat_with(|| tasks.value().wait()).find_map(Result::err);
                assert!(error.as_ref().is_some_and(is_closed), "{error:?}");
            });
            std::thread::sleep(Duration::from_millis(wait));
            E::shut_down(&pool);
        });
        assert!(tasks.swap(arenas[0].clone()).is_err_and(|error| is_closed(&error)));
    }
}

pub fn empty_pool_tries_new_weights<E: ElasticEngine>() {
    let pool = E::pool((0..=2).into(), Duration::from_millis(5), 0).unwrap();
    let tasks = TaskWrapper::<SwapModel>::from_arena_on(&pool, arena(0)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let broken = unreadable(1, &folder.path().join("fails"));
    eventually("the pool is empty", || E::report(&pool).workers == 0);
    let error = swap_error(tasks.swap(broken));
    assert!(error.to_string().contains("not readable today"), "{error}");
    all_are(&tasks, 0);
}
