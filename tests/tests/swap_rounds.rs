//! Rounds of swaps under load, with workers that are killed and calls that are cancelled at random: every call
//! is answered once, from the weights that it names, and of the old weights nothing is left.
//!
//! `RAY_ZEROCOPY_SWAP_ROUNDS` sets the number of rounds.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ray_zerocopy::error::SwapError;
use ray_zerocopy::report::scan;
use ray_zerocopy::{Batching, CallError, Error, LocalPool, TaskWrapper};
use ray_zerocopy_tests::chaos::SeededRng;
use ray_zerocopy_tests::engines::swap::{SwapModel, arena, expected};
use ray_zerocopy_tests::holdings::holdings;
use ray_zerocopy_tests::memory::eventually;
use rustix::process::{Pid, Signal, kill_process};

const ROUNDS: usize = 200;
const GENERATIONS: u16 = 5;
const WORKERS: usize = 3;

#[derive(Default)]
struct Seen {
    answers: AtomicUsize,
    cancelled: AtomicUsize,
    /// Calls whose workers were killed more often than a call is tried.
    unlucky: AtomicUsize,
}

fn kill_one(pool: &LocalPool, rng: &mut SeededRng) {
    let workers = pool.workers();
    if let Some(worker) = workers.get(rng.below(WORKERS as u64) as usize)
        && let Some(pid) = Pid::from_raw(worker.pid as i32)
    {
        // It may have ended meanwhile.
        kill_process(pid, Signal::KILL).ok();
    }
}

/// Makes a call, alone or in a batch, and checks its answer.
fn call(tasks: &TaskWrapper<SwapModel>, values: &HashMap<String, u16>, seen: &Seen, rng: &mut SeededRng) {
    let pending = if rng.below(2) == 0 { tasks.value() } else { tasks.values_one(1) };
    let id = pending.arena_id().unwrap().to_hex();
    if rng.below(8) == 0 {
        pending.cancel();
    }
    match pending.wait() {
        Ok(found) => {
            assert_eq!(found, expected(values[&id]), "not what the arena that it names has");
            seen.answers.fetch_add(1, Ordering::Relaxed);
        }
        Err(Error::Call(CallError::Cancelled { .. })) => {
            seen.cancelled.fetch_add(1, Ordering::Relaxed);
        }
        Err(Error::Call(CallError::WorkerDied { .. })) => {
            seen.unlucky.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn swaps_under_kills_and_cancels_lose_and_leak_nothing() {
    let rounds = std::env::var("RAY_ZEROCOPY_SWAP_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let pool = LocalPool::builder().workers(WORKERS).threads_per_worker(1).start().unwrap();
    let arenas: Vec<_> = (0..GENERATIONS).map(arena).collect();
    let values: HashMap<_, _> = arenas.iter().map(|arena| arena.id().to_hex()).zip(0..).collect();
    let tasks = TaskWrapper::<SwapModel>::from_arena_on(&pool, arenas[0].clone()).unwrap().attempts(20);
    let tasks = tasks.batch(Batching::default());
    let (seen, is_over) = (Seen::default(), AtomicBool::new(false));
    let before = holdings();
    let mut swapped = 0;
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let (tasks, values, seen, is_over) = (tasks.clone(), &values, &seen, &is_over);
            scope.spawn(move || {
                let mut rng = SeededRng::new(seed);
                while !is_over.load(Ordering::Acquire) {
                    call(&tasks, values, seen, &mut rng);
                }
            });
        }
        let killing = scope.spawn(|| {
            let mut rng = SeededRng::new(99);
            while !is_over.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_micros(rng.below(30_000)));
                kill_one(&pool, &mut rng);
            }
        });
        let mut rng = SeededRng::new(7);
        for _ in 0..rounds {
            let next = &arenas[rng.below(GENERATIONS.into()) as usize];
            let current = tasks.arena().id();
            match tasks.swap(next.clone()) {
                Ok(done) => {
                    assert_eq!((done.from, done.to), (current, next.id()));
                    swapped += 1;
                }
                Err(Error::Swap(SwapError::Worker { error: CallError::WorkerDied { .. } })) => {
                    assert_eq!(tasks.arena().id(), current, "a swap that has failed changes nothing");
                }
                Err(error) => panic!("{error}"),
            }
        }
        is_over.store(true, Ordering::Release);
        killing.join().unwrap();
    });
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    println!(
        "{swapped} of {rounds} swaps, {} answers, {} cancelled, {} calls whose workers died too often",
        count(&seen.answers),
        count(&seen.cancelled),
        count(&seen.unlucky)
    );
    assert!(swapped > rounds / 4 && count(&seen.answers) > rounds && count(&seen.cancelled) > 0);
    assert_eq!(count(&seen.unlucky), 0, "20 attempts are enough for each call");

    // Of all weights, the current ones are left, and of all workers the last ones.
    let current = tasks.arena().id();
    drop(arenas);
    let old: Vec<_> = values.keys().filter(|id| **id != current.to_hex()).collect();
    eventually("the memory of the old weights is free", || {
        let scan = scan().unwrap();
        let ids: Vec<_> = scan.arenas.iter().filter_map(|arena| Some(arena.contents.as_ref().ok()?.id())).collect();
        old.iter().all(|old| !ids.iter().any(|id| id.to_hex() == **old))
    });
    assert!(tasks.report().unwrap().batches.len() <= 1, "batches of old weights are left");
    eventually("no process and no file is left over", || {
        let after = holdings();
        pool.workers().len() == WORKERS && after.children == before.children && after.files.len() <= before.files.len()
    });
    assert_eq!(tasks.value().wait().unwrap(), expected(values[&current.to_hex()]));
}
