//! The bindings of Ray without pipelines: objects, tasks, actors, and failures of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::sync::LazyLock;
use std::time::Duration;

use ray_zerocopy::ray::{Cluster, ObjectRef, Options, RayError};

/// The cluster of all tests, because a process can join only one. It ends with the process.
static CLUSTER: LazyLock<Cluster> =
    LazyLock::new(|| Cluster::local().cpus(4).object_store(200 << 20).quiet().start().unwrap());

fn add((a, b): (i64, i64)) -> i64 {
    a + b
}

fn double(x: i64) -> i64 {
    2 * x
}

fn panics(text: String) -> u8 {
    panic!("I do not like {text}")
}

fn pid((): ()) -> u32 {
    std::process::id()
}

fn die(signal: i32) -> u8 {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::from_named_raw(signal).unwrap())
        .unwrap();
    std::thread::sleep(Duration::from_secs(60));
    0
}

fn sleep(seconds: u64) -> u64 {
    std::thread::sleep(Duration::from_secs(seconds));
    seconds
}

#[test]
fn values_round_trip_through_the_store() {
    let value = (vec![1_u64, 2, 3], "text".to_owned(), Some(2.5_f64));
    assert_eq!(CLUSTER.put(&value).unwrap().get().unwrap(), value);
    // Large values are sent outside the message.
    let large = vec![7_u8; 300_000];
    assert_eq!(CLUSTER.put(&large).unwrap().get().unwrap(), large);
}

#[test]
fn function_takes_values_and_object_refs() {
    let add = CLUSTER.task(add as fn((i64, i64)) -> i64);
    let five = add.remote((2, 3)).unwrap();
    assert_eq!(five.get().unwrap(), 5);
    let double = CLUSTER.task(double as fn(i64) -> i64);
    // A chain of tasks: each waits for the previous one, and no intermediate result comes to this
    // process.
    let four_times = double.remote(&double.remote(&five).unwrap()).unwrap();
    assert_eq!(four_times.get().unwrap(), 20);
    let pid = CLUSTER.task(pid as fn(()) -> u32).remote(()).unwrap().get().unwrap();
    assert_ne!(pid, std::process::id());
}

#[test]
fn panic_message_passes_through_the_chain() {
    let panics = CLUSTER.task(panics as fn(String) -> u8).name("the picky one");
    let eaten = panics.remote("fish".to_owned()).unwrap();
    let error = eaten.get().unwrap_err();
    let RayError::Panicked { what, message, .. } = &error else { panic!("{error:?}") };
    assert_eq!(what, "the picky one");
    assert!(message.starts_with("I do not like fish (") && message.contains("ray_bindings.rs"), "{message}");
    fn after(_: u8) -> u8 {
        1
    }
    let error = CLUSTER.task(after as fn(u8) -> u8).remote(&eaten).unwrap().get().unwrap_err();
    assert!(error.to_string().contains("I do not like fish"), "{error}");
}

#[test]
fn a_worker_that_dies_is_an_error_that_says_how() {
    let die = CLUSTER.task(die as fn(i32) -> u8).retries(0);
    let error = die.remote(9).unwrap().get().unwrap_err();
    assert!(matches!(&error, RayError::WorkerDied { .. }), "{error:?}");
    // The next task gets a worker.
    assert_eq!(CLUSTER.task(double as fn(i64) -> i64).remote(4).unwrap().get().unwrap(), 8);
}

#[test]
fn wait_times_out_and_task_is_cancelled() {
    let sleep = CLUSTER.task(sleep as fn(u64) -> u64).options(Options::default().cpus(0.1));
    let long = sleep.remote(600).unwrap();
    let short = sleep.remote(0).unwrap();
    assert_eq!(short.get().unwrap(), 0);
    let (ready, rest) = CLUSTER.wait(&[long.clone(), short], 2, Some(Duration::from_millis(100))).unwrap();
    assert_eq!((ready.len(), rest.len()), (1, 1));
    assert!(matches!(long.get_timeout(Duration::from_millis(50)), Err(RayError::TimedOut { .. })));
    long.cancel(true).unwrap();
    let error = long.get().unwrap_err();
    assert!(matches!(&error, RayError::Cancelled { .. } | RayError::WorkerDied { .. }), "{error:?}");
}

struct Counter {
    count: u64,
}

struct Waiter {
    waits: bool,
}

fn waits(waiter: &mut Waiter, (): ()) -> bool {
    waiter.waits
}

fn begin(count: u64) -> Counter {
    assert!(count < 1000, "{count} is too much to begin with");
    Counter { count }
}

fn count(counter: &mut Counter, more: u64) -> u64 {
    counter.count += more;
    counter.count
}

fn own_pid(_: &mut Counter, (): ()) -> u32 {
    std::process::id()
}

#[test]
fn an_actor_keeps_its_state_and_its_name() {
    let counter = CLUSTER.actor(begin as fn(u64) -> Counter).options(Options::default().cpus(0.1)).name("counter");
    let counter = counter.start(40).unwrap();
    let count = count as fn(&mut Counter, u64) -> u64;
    let calls: Vec<ObjectRef<u64>> = (0..5).map(|n| counter.call(count, n).unwrap()).collect();
    assert_eq!(calls.iter().map(|call| call.get().unwrap()).collect::<Vec<_>>(), [40, 41, 43, 46, 50]);
    let same = CLUSTER.named_actor::<Counter>("counter").unwrap();
    assert_eq!(same.call(count, 0).unwrap().get().unwrap(), 50);
    // The state has one type.
    let other = CLUSTER.named_actor::<Waiter>("counter").unwrap();
    let error = other.call(waits as fn(&mut Waiter, ()) -> bool, ()).unwrap().get().unwrap_err();
    assert!(error.to_string().contains("the actor's state is not a `ray_bindings::Waiter`"), "{error}");
    assert!(matches!(CLUSTER.named_actor::<Counter>("missing"), Err(RayError::NoActor { .. })));
    counter.kill().unwrap();
    // Ray kills the actor asynchronously.
    let error = loop {
        match counter.call(count, 1).and_then(|call| call.get()) {
            Ok(_) => std::thread::sleep(Duration::from_millis(50)),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, RayError::ActorDied { .. }), "{error:?}");
}

#[test]
fn an_actor_that_cannot_begin_says_why() {
    let counter = CLUSTER.actor(begin as fn(u64) -> Counter).options(Options::default().cpus(0.1));
    let counter = counter.start(5000).unwrap();
    let error = counter.call(count as fn(&mut Counter, u64) -> u64, 1).and_then(|call| call.get()).unwrap_err();
    assert!(error.to_string().contains("5000 is too much to begin with"), "{error}");
}

#[test]
fn killed_actor_restarts_if_configured() {
    let counter = CLUSTER.actor(begin as fn(u64) -> Counter).options(Options::default().cpus(0.1)).restarts(1);
    let counter = counter.start(7).unwrap();
    let pid = counter.call(own_pid as fn(&mut Counter, ()) -> u32, ()).unwrap().get().unwrap();
    let count = count as fn(&mut Counter, u64) -> u64;
    assert_eq!(counter.call(count, 1).unwrap().get().unwrap(), 8);
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    // Until then, calls fail with the error that it is being restarted.
    let back = loop {
        match counter.call(count, 1).and_then(|call| call.get()) {
            Ok(back) => break back,
            Err(RayError::ActorDied { is_restarting: true, .. }) => std::thread::sleep(Duration::from_millis(100)),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(back, 8, "the restarted actor has a new state");
}

#[test]
fn a_cluster_tells_what_it_has() {
    assert_eq!(CLUSTER.resources().unwrap()["CPU"], 4.0);
    assert!(CLUSTER.available().unwrap().contains_key("object_store_memory"));
    let nodes = CLUSTER.nodes().unwrap();
    assert!(nodes.len() == 1 && nodes[0].is_alive, "{nodes:?}");
    let (free, capacity) = CLUSTER.store().unwrap();
    assert!(free <= capacity && capacity > 150 << 20, "{free} {capacity}");
    let error = Cluster::local().start().unwrap_err();
    assert!(matches!(error, RayError::AlreadyConnected { .. }), "{error}");
}
