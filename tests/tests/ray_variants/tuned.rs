//! Variants of a base whose body is large: their bytes in the store, and swaps between them.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use burn::module::Param;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::arena::ArenaId;
use ray_zerocopy::error::SwapError;
use ray_zerocopy::{ActorWrapper, Actors, Arena, CallError, Error, Pipeline, TaskWrapper, share};
use ray_zerocopy_tests::memory::eventually;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::{CLUSTER, site};

const SIZE: usize = 2048;
/// The size of the body in bytes.
const BODY: u64 = (SIZE * SIZE * 4) as u64;
/// What other tests of this program put into the store meanwhile, at most.
const OTHERS: u64 = 1 << 20;

#[derive(Pipeline)]
#[pipeline(init = Tuned::new)]
struct Tuned {
    body: Linear,
    head: Linear,
    witness: Witness,
}

/// Writes a file with the id of its process as its name when it is dropped, if it has a folder.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Witness {
    folder: String,
}

impl Drop for Witness {
    fn drop(&mut self) {
        if !self.folder.is_empty() {
            std::fs::write(Path::new(&self.folder).join(std::process::id().to_string()), "").ok();
        }
    }
}

#[ray_zerocopy::remote]
impl Tuned {
    #[remote(skip)]
    fn new(device: &Device) -> Self {
        let layer = |from, to| LinearConfig::new(from, to).with_bias(false).init(device);
        Self { body: layer(SIZE, SIZE), head: layer(SIZE, 1), witness: Witness::default() }
    }

    /// A weight of the body, and one of the head.
    pub fn weights(&self) -> (f32, f32) {
        let first = |layer: &Linear| layer.weight.val().slice([0..1, 0..1]).into_scalar();
        (first(&self.body), first(&self.head))
    }
}

/// A base, its variants, and the answer of each.
fn family() -> (Vec<Arena>, HashMap<ArenaId, (f32, f32)>) {
    let mut model = Tuned::new(&Device::flex());
    let base = share(&model).unwrap();
    let mut answers = HashMap::from([(base.id(), model.weights())]);
    let mut arenas = vec![base];
    for value in 1..4_u8 {
        model.head.weight = Param::from_tensor(Tensor::full([SIZE, 1], f32::from(value), &Device::flex()));
        // The last one is a variant of a variant.
        let base = if value == 3 { &arenas[2] } else { &arenas[0] };
        let variant = base.variant(&model).unwrap();
        assert!(variant.own_bytes() < 64 << 10);
        answers.insert(variant.id(), model.weights());
        arenas.push(variant);
    }
    (arenas, answers)
}

/// Held by a test that fills the store.
static STORE: Mutex<()> = Mutex::new(());

fn actors(arena: Arena, count: usize) -> Actors<Tuned> {
    ActorWrapper::from_arena_on(&site(), arena).unwrap().spawn(count).unwrap()
}

fn used() -> u64 {
    let (free, capacity) = CLUSTER.store().unwrap();
    capacity - free
}

#[test]
fn base_is_in_the_store_once() {
    let _alone = STORE.lock();
    // What the test before has put there goes first. What Ray reports is some tenths of a second old.
    std::thread::sleep(Duration::from_secs(1));
    eventually("the store is empty", || used() < OTHERS);
    let before = used();
    let (arenas, answers) = family();
    let started: Vec<_> = arenas.iter().map(|arena| actors(arena.clone(), 1)).collect();
    for (actors, arena) in started.iter().zip(&arenas) {
        let stored = actors.arena();
        assert_eq!(stored.id(), arena.id());
        assert!(stored.fd().is_none() && stored.bases().eq(arena.bases()));
        stored.verify().unwrap();
        assert_eq!(actors.weights().wait().unwrap(), answers[&arena.id()]);
    }
    // A variant of an arena in the store is made where it is.
    let mut model = Tuned::new(&Device::flex());
    let stored = started[0].arena();
    model.body.weight = ray_zerocopy::load::<Tuned>(&stored, &Device::flex()).unwrap().body.weight.clone();
    let own = actors(stored.variant(&model).unwrap(), 1);
    assert_eq!(own.arena().bases().next().unwrap().0, arenas[0].id());
    assert_eq!(own.weights().wait().unwrap(), model.weights());
    let refused = TaskWrapper::<Tuned>::from_arena(stored.variant(&model).unwrap());
    assert!(refused.err().unwrap().to_string().contains("is in Ray's object store"));
    drop((model, stored));

    eventually("Ray reports the base", || used() >= before + BODY);
    std::thread::sleep(Duration::from_secs(1));
    let grown = used() - before;
    assert!(grown < BODY + OTHERS, "five arenas of one base take {grown} bytes");
    drop((arenas, started, own));
    eventually("the store is free again", || used() < before + OTHERS);
}

#[test]
fn swaps_between_variants_survive_killed_actors() {
    let _alone = STORE.lock();
    let (arenas, answers) = family();
    let actors = actors(arenas[0].clone(), 2);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut answered = 0;
                    while !is_over.load(Ordering::Acquire) {
                        let call = actors.weights();
                        let id = call.arena_id().unwrap();
                        match call.wait() {
                            Ok(found) => assert_eq!(found, answers[&id], "not what the arena that it names has"),
                            Err(Error::Call(CallError::WorkerDied { .. })) => continue,
                            Err(error) => panic!("{error}"),
                        }
                        answered += 1;
                    }
                    answered
                })
            })
            .collect();
        scope.spawn(|| {
            for round in 0..6 {
                std::thread::sleep(Duration::from_millis(500));
                if let Some(worker) = actors.workers().get(round % 2) {
                    // It may have died already.
                    let _ = kill_process(Pid::from_raw(worker.pid as i32).unwrap(), Signal::KILL);
                }
            }
            is_over.store(true, Ordering::Release);
        });
        let mut swaps = 0;
        while !is_over.load(Ordering::Acquire) {
            match actors.swap(arenas[swaps % arenas.len()].clone()) {
                Ok(swapped) => assert_eq!(swapped.to, actors.arena().id()),
                Err(Error::Swap(SwapError::Worker { error: CallError::WorkerDied { .. } })) => {}
                Err(error) => panic!("{error}"),
            }
            swaps += 1;
        }
        assert!(swaps > 1);
        assert!(callers.into_iter().all(|caller| caller.join().unwrap() > 0));
    });
    let last = actors.swap(arenas[1].clone()).unwrap();
    assert!(last.lost_state.is_empty());
    for actor in actors.iter() {
        assert_eq!(actor.weights().wait().unwrap(), answers[&arenas[1].id()]);
    }
}

#[test]
fn actors_drop_the_weights_before_a_swap() {
    let _alone = STORE.lock();
    let folder = tempfile::tempdir().unwrap();
    let mut model = Tuned::new(&Device::flex());
    model.witness.folder = folder.path().display().to_string();
    let actors = actors(share(&model).unwrap(), 2);
    let pids: BTreeSet<u32> = actors.workers().iter().map(|worker| worker.pid).collect();
    assert_eq!(pids.len(), 2);
    actors.swap(share(&Tuned::new(&Device::flex())).unwrap()).unwrap();
    // No further call comes.
    eventually("both actors have dropped them", || {
        let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let dropped = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
        pids.is_subset(&dropped)
    });
}
