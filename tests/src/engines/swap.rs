//! Hot swap: wrappers that move to other weights while they serve calls.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::arena::ArenaId;
use ray_zerocopy::error::{ArenaError, SwapError};
use ray_zerocopy::report::scan;
use ray_zerocopy::{ActorWrapper, Arena, Batching, CallError, Error, Pipeline, TaskWrapper, gather, share};
use serde::{Deserialize, Serialize};

use super::EngineUnderTest;
use super::elastic::ElasticEngine;
use crate::memory::eventually;
use crate::models::kill_myself;

/// A model whose weights all have one value, and whose label says the same.
#[derive(Pipeline)]
pub struct SwapModel {
    /// Rebuilds it.
    #[pipeline(config)]
    pub config: SwapConfig,
    /// The weights.
    pub layer: Linear,
    /// The value as text, which is copied.
    pub label: Label,
}

/// Config of a [`SwapModel`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SwapConfig {
    /// Rows and columns.
    pub size: usize,
}

impl SwapConfig {
    pub fn init(&self, device: &Device) -> SwapModel {
        let layer = LinearConfig::new(self.size, self.size).with_bias(false).init(device);
        SwapModel { config: self.clone(), layer, label: Label::default() }
    }
}

/// A text that a worker cannot read while a file exists.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Label {
    text: String,
    /// Removed by the worker that it kills.
    kills_once: Option<String>,
    kills: Option<String>,
    fails: Option<String>,
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Plain {
            text: String,
            kills_once: Option<String>,
            kills: Option<String>,
            fails: Option<String>,
        }
        let Plain { text, kills_once, kills, fails } = Plain::deserialize(deserializer)?;
        let exists = |file: &Option<String>| file.as_ref().is_some_and(|file| Path::new(file).exists());
        if kills_once.as_ref().is_some_and(|file| std::fs::remove_file(file).is_ok()) || exists(&kills) {
            kill_myself();
        }
        if exists(&fails) {
            return Err(serde::de::Error::custom("the label is not readable today"));
        }
        Ok(Self { text, kills_once, kills, fails })
    }
}

#[ray_zerocopy::remote]
impl SwapModel {
    /// One of the weights, and the label.
    pub fn value(&self) -> (f32, String) {
        let first = self.layer.weight.val().slice([0..1, 0..1]);
        (first.into_scalar(), self.label.text.clone())
    }

    /// The same for each row.
    #[remote(batch)]
    pub fn values(&self, rows: Vec<u32>) -> Vec<(f32, String)> {
        rows.iter().map(|_| self.value()).collect()
    }

    /// The value again and again, until a file exists.
    #[remote(stream)]
    pub fn values_until(&self, file: String) -> impl Iterator<Item = (f32, String)> {
        let value = self.value();
        let mut is_last = false;
        std::iter::from_fn(move || {
            if is_last {
                return None;
            }
            is_last = Path::new(&file).exists();
            Some(value.clone())
        })
    }

    /// Waits until a file exists.
    pub fn wait_for(&self, file: String) -> (f32, String) {
        while !Path::new(&file).exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.value()
    }

    /// Panics if it has these weights.
    pub fn panic_if(&self, value: f32) {
        assert!(self.value().0 != value, "asked to panic");
    }

    /// Kills this process.
    pub fn die(&self) {
        kill_myself();
    }
}

const SIZE: usize = 16;

fn model(value: u16) -> SwapModel {
    let mut model = SwapConfig { size: SIZE }.init(&Device::flex());
    let weights = Tensor::<2>::full([SIZE, SIZE], f32::from(value), &Device::flex());
    model.layer.weight = burn::module::Param::from_tensor(weights);
    model.label.text = value.to_string();
    model
}

/// The arena of a model with a value.
pub fn arena(value: u16) -> Arena {
    share(&model(value)).unwrap()
}

/// An arena that workers cannot load while a file exists. Makes that file.
pub(super) fn unreadable(value: u16, file: &Path) -> Arena {
    let mut broken = model(value);
    broken.label.fails = Some(file.display().to_string());
    let broken = share(&broken).unwrap();
    std::fs::write(file, "").unwrap();
    broken
}

/// The answer of a model with a value.
pub fn expected(value: u16) -> (f32, String) {
    (value.into(), value.to_string())
}

pub(super) fn tasks<E: EngineUnderTest>(workers: usize) -> TaskWrapper<SwapModel> {
    TaskWrapper::from_arena_on(&E::backend(workers), arena(0)).unwrap()
}

pub(super) fn swap_error(result: ray_zerocopy::Result<ray_zerocopy::Swapped>) -> SwapError {
    match result {
        Err(Error::Swap(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// Checks that all calls still run on the weights with a value.
pub(super) fn all_are(tasks: &TaskWrapper<SwapModel>, value: u16) {
    let calls: Vec<_> = (0..8).map(|_| tasks.value()).collect();
    assert!(calls.iter().all(|call| call.arena_id() == Some(tasks.arena().id())));
    assert_eq!(gather(calls).wait().unwrap(), vec![expected(value); 8]);
}

pub fn swap_under_load_loses_and_mixes_nothing<E: EngineUnderTest>() {
    let tasks = tasks::<E>(2);
    let arenas: Vec<_> = (0..4).map(arena).collect();
    let first = tasks.arena().id();
    let mut values: HashMap<ArenaId, u16> = arenas.iter().map(Arena::id).zip(0..).collect();
    values.insert(first, 0);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|number| {
                let (tasks, values, is_over) = (tasks.clone(), &values, &is_over);
                let tasks = if number % 2 == 0 { tasks } else { tasks.batch(Batching::default()) };
                scope.spawn(move || {
                    let mut seen = HashMap::new();
                    while !is_over.load(Ordering::Acquire) {
                        let (id, found) = if number % 2 == 0 {
                            let call = tasks.value();
                            (call.arena_id().unwrap(), call.wait().unwrap())
                        } else {
                            let call = tasks.values_one(1);
                            (call.arena_id().unwrap(), call.wait().unwrap())
                        };
                        assert_eq!(found, expected(values[&id]), "not what the arena that it names has");
                        *seen.entry(id).or_insert(0) += 1;
                    }
                    seen.len()
                })
            })
            .collect();
        let workers = if E::KNOWS_WORKERS { 2 } else { 1 };
        for round in 0..40 {
            let next = &arenas[round % arenas.len()];
            let before = tasks.arena().id();
            let swapped = tasks.swap(next.clone()).unwrap();
            assert_eq!((swapped.from, swapped.to, swapped.workers.len()), (before, next.id(), workers));
            std::thread::sleep(Duration::from_millis(2));
        }
        is_over.store(true, Ordering::Release);
        assert!(callers.into_iter().map(|caller| caller.join().unwrap()).max().unwrap() > 1, "no caller saw a swap");
    });
    // Of all arenas, the current one is left.
    let current = tasks.arena().id();
    let old: Vec<_> = values.into_keys().filter(|id| *id != current).collect();
    drop(arenas);
    eventually("the memory of the old weights is free", || {
        let scan = scan().unwrap();
        let ids: Vec<_> = scan.arenas.iter().filter_map(|arena| Some(arena.contents.as_ref().ok()?.id())).collect();
        old.iter().all(|id| !ids.contains(id))
    });
    all_are(&tasks, 3);
}

pub fn calls_under_way_keep_their_weights<E: EngineUnderTest>() {
    let tasks = tasks::<E>(2);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("go on").display().to_string();
    let mut stream = tasks.values_until(file.clone());
    assert_eq!(stream.next().unwrap().unwrap(), expected(0));
    let old = tasks.arena().id();
    // The worker that runs the stream loads the new weights when the stream has ended.
    let swapping = std::thread::scope(|scope| {
        let swapping = scope.spawn(|| tasks.swap(arena(1)));
        for _ in 0..100 {
            assert_eq!(stream.next().unwrap().unwrap(), expected(0));
        }
        std::fs::write(&file, "").unwrap();
        assert!(stream.by_ref().all(|item| item.unwrap() == expected(0)));
        swapping.join().unwrap()
    });
    swapping.unwrap();
    assert_eq!(stream.arena_id(), old);
    all_are(&tasks, 1);
}

pub fn other_pipelines_are_refused<E: EngineUnderTest>() {
    let tasks = tasks::<E>(1);
    let mut larger = SwapConfig { size: 2 * SIZE }.init(&Device::flex());
    larger.label.text = "larger".to_owned();
    let error = swap_error(tasks.swap(share(&larger).unwrap()));
    let text = "it has `layer.weight` as F32 [32, 32], and this wrapper as F32 [16, 16]";
    assert!(error.to_string().contains(text), "{error}");
    let other = share(&super::model()).unwrap();
    let error = swap_error(tasks.swap(other));
    assert!(error.to_string().contains("it is that of a `ray_zerocopy_tests::models::TestModel`"), "{error}");
    all_are(&tasks, 0);
}

pub fn corrupt_arena_is_refused<E: EngineUnderTest>() {
    let tasks = tasks::<E>(1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bpk");
    arena(1).save(&path).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    // Inside of the weights, which follow the table of contents.
    let at = bytes.windows(4).rposition(|window| window == 1_f32.to_le_bytes()).unwrap();
    bytes[at] ^= 1;
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let memory = memfd_create("corrupt", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
    std::fs::File::from(memory.try_clone().unwrap()).write_all(&bytes).unwrap();
    fcntl_add_seals(&memory, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL).unwrap();
    let error = swap_error(tasks.swap(Arena::from_memfd(memory).unwrap()));
    assert!(matches!(error, SwapError::Arena(ArenaError::BlobChecksum { .. })), "{error}");
    all_are(&tasks, 0);
}

pub fn failed_check_leaves_the_old_weights<E: EngineUnderTest>() {
    let tasks = tasks::<E>(2);
    let error = swap_error(tasks.swap_if(arena(1), |new| {
        assert_eq!(new.value().wait()?, expected(1));
        assert_eq!(tasks.value().wait()?, expected(0), "only the check gets the new weights");
        Err("17 rows are worse".into())
    }));
    assert!(matches!(&error, SwapError::Check { reason } if reason.contains("17")), "{error}");
    all_are(&tasks, 0);
    tasks.swap_if(arena(2), |new| Ok(new.value().wait().map(drop)?)).unwrap();
    all_are(&tasks, 2);
}

pub fn worker_that_cannot_load_leaves_the_old_weights<E: EngineUnderTest>() {
    let tasks = tasks::<E>(2);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fails");
    let broken = unreadable(1, &file);
    let error = swap_error(tasks.swap(broken.clone()));
    assert!(matches!(error, SwapError::Worker { .. }) && error.to_string().contains("not readable today"), "{error}");
    all_are(&tasks, 0);
    std::fs::remove_file(&file).unwrap();
    tasks.swap(broken).unwrap();
    all_are(&tasks, 1);
}

pub fn worker_that_dies_while_it_loads_is_replaced<E: EngineUnderTest>() {
    if !E::REPLACES_WORKERS {
        return;
    }
    let tasks = tasks::<E>(2);
    let folder = tempfile::tempdir().unwrap();
    let (once, always) = (folder.path().join("once"), folder.path().join("always"));
    let mut deadly = model(1);
    deadly.label.kills_once = Some(once.display().to_string());
    deadly.label.kills = Some(always.display().to_string());
    let deadly = share(&deadly).unwrap();
    std::fs::write(&always, "").unwrap();
    let error = swap_error(tasks.swap(deadly.clone()));
    assert!(matches!(error, SwapError::Worker { .. }), "{error}");
    all_are(&tasks, 0);
    std::fs::remove_file(&always).unwrap();
    std::fs::write(&once, "").unwrap();
    tasks.swap(deadly).unwrap();
    assert!(!once.exists(), "a worker has died");
    all_are(&tasks, 1);
}

pub fn swaps_wait_for_each_other<E: EngineUnderTest>() {
    let tasks = tasks::<E>(2);
    let arenas = [arena(1), arena(2)];
    std::thread::scope(|scope| {
        for arena in &arenas {
            let tasks = tasks.clone();
            scope.spawn(move || (0..10).for_each(|_| drop(tasks.swap(arena.clone()).unwrap())));
        }
    });
    let value = if tasks.arena().id() == arenas[0].id() { 1 } else { 2 };
    all_are(&tasks, value);
}

pub fn canary_gets_its_share<E: EngineUnderTest>() {
    let tasks = tasks::<E>(2);
    let share_of = |value: u16| {
        let found = gather((0..400).map(|_| tasks.value())).wait().unwrap();
        found.iter().filter(|found| **found == expected(value)).count()
    };
    let canary = tasks.canary(arena(1), 0.25).unwrap();
    assert!((95..=105).contains(&share_of(1)), "{}", share_of(1));
    assert!(matches!(tasks.canary(arena(2), 0.5), Err(Error::Swap(SwapError::TwoCanaries))));
    drop(canary);
    assert_eq!(share_of(1), 0);
    let canary = tasks.canary(arena(2), 1.0).unwrap();
    assert_eq!(share_of(2), 400);
    let id = canary.arena_id();
    assert_eq!(canary.promote().unwrap().to, id);
    all_are(&tasks, 2);
    assert!(matches!(tasks.canary(arena(1), 1.5), Err(Error::Swap(SwapError::Share { .. }))));
}

pub fn actors_swap_and_load_the_current_weights_again<E: EngineUnderTest>() {
    let wrapper = ActorWrapper::<SwapModel>::from_arena_on(&E::backend(2), arena(0)).unwrap();
    let actors = wrapper.threads_per_worker(1).spawn(2).unwrap();
    actors.swap(arena(1)).unwrap();
    for actor in actors.iter() {
        assert_eq!(actor.value().wait().unwrap(), expected(1));
    }
    if E::REPLACES_WORKERS {
        assert!(actors.actor(0).die().wait().is_err());
        assert_eq!(actors.actor(0).value().wait().unwrap(), expected(1), "the replacement has the current weights");
        let restarted = actors.restart();
        assert!(matches!(restarted, Ok(()) | Err(Error::Call(CallError::Unsupported { .. }))), "{restarted:?}");
    }
    for actor in actors.iter() {
        assert_eq!(actor.value().wait().unwrap(), expected(1));
    }
    let error = actors.swap_if(arena(2), |new| {
        assert_eq!(new.actor(1).value().wait()?, expected(2));
        Err(SwapError::TwoCanaries.into())
    });
    assert!(matches!(error, Err(Error::Swap(SwapError::Check { .. }))));
    assert_eq!(gather(actors.iter().map(|actor| actor.value())).wait().unwrap(), vec![expected(1); 2]);
}

pub fn state_of_actors_is_lost_only_if_asked<E: EngineUnderTest>() {
    let actors = super::actors::<E>(1);
    assert_eq!(actors.actor(0).count(5).wait().unwrap(), 5);
    let next = share(&super::model()).unwrap();
    let error = swap_error(actors.swap(next.clone()));
    assert!(matches!(error, SwapError::State { .. }) && error.to_string().contains("swap_discarding_state"), "{error}");
    assert_eq!(actors.actor(0).count(1).wait().unwrap(), 6);
    actors.swap_discarding_state(next).unwrap();
    assert_eq!(actors.actor(0).count(1).wait().unwrap(), 1);
}

/// An actor that counts, and whose count moves to the next weights.
#[derive(Pipeline)]
#[pipeline(init = Counter::new)]
pub struct Counter {
    /// The weights.
    pub layer: Linear,
    /// Number of calls of `count`.
    #[pipeline(skip)]
    pub count: u64,
}

/// The count with which the function that moves the state panics.
const UNLUCKY: u64 = 1_000_013;

#[ray_zerocopy::remote]
impl Counter {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(4, 4).init(device), count: 0 }
    }

    /// Counts this call.
    pub fn count(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// Sets the count.
    pub fn set(&mut self, count: u64) {
        self.count = count;
    }

    /// Counts a call of a batch for each row.
    #[remote(batch)]
    pub fn count_rows(&mut self, rows: Vec<u32>) -> Vec<u64> {
        rows.iter().map(|_| self.count()).collect()
    }

    #[remote(on_swap)]
    fn keep_count(&mut self, old: &mut Self) {
        assert!(old.count != UNLUCKY, "asked to panic while the state moves");
        self.count = std::mem::take(&mut old.count);
    }
}

pub fn state_of_actors_moves_with_a_swap<E: EngineUnderTest>() {
    const ACTORS: usize = 2;
    let counter = || Counter::new(&Device::flex());
    let wrapper = ActorWrapper::on(&E::backend(ACTORS), &counter()).unwrap();
    let actors = wrapper.threads_per_worker(1).spawn(ACTORS).unwrap();
    let arenas = [share(&counter()).unwrap(), share(&counter()).unwrap()];
    let is_over = AtomicBool::new(false);
    let made: u64 = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|number| {
                let (actors, is_over) = (actors.clone(), &is_over);
                let batched = actors.clone().batch(Batching::default());
                scope.spawn(move || {
                    let mut made = 0;
                    while !is_over.load(Ordering::Acquire) {
                        // Calls of one actor, of any, and of batches.
                        match number {
                            0 => drop(actors.actor(0).count().wait().unwrap()),
                            1 | 2 => drop(actors.count().wait().unwrap()),
                            _ => drop(batched.count_rows_one(1).wait().unwrap()),
                        }
                        made += 1;
                    }
                    made
                })
            })
            .collect();
        for round in 0..30 {
            let swapped = actors.swap(arenas[round % 2].clone()).unwrap();
            assert_eq!((swapped.lost_state, swapped.workers.len()), (vec![], ACTORS));
            std::thread::sleep(Duration::from_millis(1));
        }
        is_over.store(true, Ordering::Release);
        callers.into_iter().map(|caller| caller.join().unwrap()).sum()
    });
    let counted: u64 = actors.iter().map(|actor| actor.count().wait().unwrap() - 1).sum();
    assert_eq!(counted, made, "a call was lost, or counted twice");

    let actor = actors.actor(0);
    actor.set(UNLUCKY).wait().unwrap();
    let swapped = actors.swap(arenas[0].clone()).unwrap();
    assert_eq!(swapped.lost_state.len(), 1);
    assert!(swapped.lost_state[0].to_string().contains("asked to panic while the state moves"), "{swapped:?}");
    assert_eq!(actor.count().wait().unwrap(), 1, "the state that `init` makes");
    actor.set(7).wait().unwrap();
    assert_eq!(actors.swap_discarding_state(arenas[1].clone()).unwrap().lost_state, []);
    assert_eq!(actor.count().wait().unwrap(), 1);
}

pub fn dormant_workers_load_the_current_weights<E: ElasticEngine>() {
    let pool = E::pool((0..=2).into(), Duration::from_millis(5), 0).unwrap();
    let tasks = TaskWrapper::<SwapModel>::from_arena_on(&pool, arena(0)).unwrap();
    for value in 1..4 {
        eventually("the pool is empty", || E::report(&pool).workers == 0);
        // A worker that has just ended may be on its way up again.
        tasks.swap(arena(value)).unwrap();
        all_are(&tasks, value);
    }
}
