//! User code that does what it should not, outside of its methods: while it is loaded, dropped, woken, or forked.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::future::Future;
use std::os::unix::process::CommandExt;
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use ray_zerocopy::error::LoadError;
use ray_zerocopy::{ActorWrapper, CallError, Error, LocalPool, Pipeline, TaskWrapper};
use ray_zerocopy_tests::memory::{eventually, is_alive};
use ray_zerocopy_tests::models::kill_myself;
use serde::{Deserialize, Serialize};

fn in_a_worker() -> bool {
    std::env::var_os("RAY_ZEROCOPY_WORKER").is_some()
}

/// A copied field that is well-behaved in the owner only.
#[derive(Debug, Clone, Serialize)]
enum Mood {
    Calm,
    /// Panics when it is read in a worker.
    Angry,
    /// Panics when it is dropped in a worker.
    Sad,
}

impl<'de> Deserialize<'de> for Mood {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match name.as_str() {
            "Angry" if in_a_worker() => panic!("nobody reads me"),
            "Angry" => Ok(Self::Angry),
            "Sad" => Ok(Self::Sad),
            _ => Ok(Self::Calm),
        }
    }
}

impl Drop for Mood {
    fn drop(&mut self) {
        if in_a_worker() && matches!(self, Self::Sad) && !std::thread::panicking() {
            panic!("nobody drops me");
        }
    }
}

#[derive(Pipeline)]
#[pipeline(init = Touchy::new)]
struct Touchy {
    layer: Linear,
    mood: Mood,
}

static CONSTRUCTED: AtomicBool = AtomicBool::new(false);

extern "C" fn construct() {
    CONSTRUCTED.store(true, Ordering::Relaxed);
}

/// What registries of types and static C++ objects use: a constructor without a priority.
#[used]
// SAFETY: an entry of `.init_array` is a pointer to such a function, which may be called before `main`.
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

#[ray_zerocopy::remote]
impl Touchy {
    pub fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(2, 2).init(device), mood: Mood::Calm }
    }

    fn with(mood: Mood) -> Self {
        Self { mood, ..Self::new(&Device::flex()) }
    }

    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    pub fn jam(&self) {
        panic!("jammed")
    }

    pub fn constructed(&self) -> bool {
        CONSTRUCTED.load(Ordering::Relaxed)
    }

    pub fn slow(&self) -> u32 {
        std::thread::sleep(Duration::from_millis(300));
        std::process::id()
    }

    /// Dies while a child that it forks, and that never executes anything, holds copies of all its file descriptors.
    /// The child writes its number into the file, and ends when the file is gone.
    pub fn die_with_a_fork(&self, file: String) {
        std::thread::spawn(move || {
            let mut command = Command::new("true");
            // SAFETY: between fork and exec only what is safe after a fork may run. The child is of a process with
            // other threads, but these write files and sleep: glibc keeps its heap usable in a forked child.
            unsafe {
                command.pre_exec(move || {
                    std::fs::write(&file, std::process::id().to_string())?;
                    while std::path::Path::new(&file).exists() {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    Ok(())
                })
            };
            command.status()
        });
        std::thread::sleep(Duration::from_millis(500));
        kill_myself();
    }
}

fn one_worker() -> LocalPool {
    LocalPool::builder().workers(1).threads_per_worker(1).start().unwrap()
}

#[test]
fn a_copied_field_that_panics_when_it_is_read_is_an_error_of_the_load() {
    let engine = one_worker();
    let calm = TaskWrapper::on(&engine, &Touchy::with(Mood::Calm)).unwrap();
    let pid = calm.pid().wait().unwrap();
    let angry = Touchy::with(Mood::Angry);
    let error = TaskWrapper::on(&engine, &angry).unwrap().pid().wait().unwrap_err();
    let Error::Call(CallError::Load { error: LoadError::Rebuild { reason, .. }, .. }) = &error else {
        panic!("{error}")
    };
    assert!(reason.starts_with("it panicked: nobody reads me (tests/tests/user_code.rs:"), "{reason}");
    let error = ActorWrapper::new(&angry).unwrap().spawn(1).unwrap_err();
    assert!(error.to_string().contains("nobody reads me"), "{error}");
    assert_eq!(calm.pid().wait().unwrap(), pid, "the worker lives on");
}

#[test]
fn a_pipeline_that_panics_when_it_is_dropped_does_not_take_its_worker_along() {
    let engine = one_worker();
    let calm = TaskWrapper::on(&engine, &Touchy::with(Mood::Calm)).unwrap();
    let pid = calm.pid().wait().unwrap();
    let sad = TaskWrapper::on(&engine, &Touchy::with(Mood::Sad)).unwrap();
    assert_eq!(sad.pid().wait().unwrap(), pid);
    // After a panic, the pipeline is dropped and loaded anew.
    let error = sad.jam().wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Panicked { .. })), "{error}");
    assert_eq!(sad.pid().wait().unwrap(), pid);
    // When nobody has the wrapper any more, it is dropped for good.
    drop(sad);
    for _ in 0..10 {
        assert_eq!(calm.pid().wait().unwrap(), pid);
    }
}

#[test]
fn a_worker_that_dies_is_seen_to_be_dead_even_if_a_fork_of_it_holds_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fork");
    let engine = one_worker();
    let tasks = TaskWrapper::on(&engine, &Touchy::with(Mood::Calm)).unwrap().attempts(1);
    let error = tasks.die_with_a_fork(file.to_string_lossy().into_owned()).wait().unwrap_err();
    let fork = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    assert!(is_alive(fork), "the fork was to outlive the worker");
    assert!(error.to_string().contains("(signal: 9 (SIGKILL)"), "{error}");
    tasks.pid().wait().unwrap();
    drop(folder);
    eventually("the fork ends", || !is_alive(fork));
}

#[test]
fn constructors_of_other_crates_have_run_in_a_worker() {
    let tasks = TaskWrapper::on(&one_worker(), &Touchy::with(Mood::Calm)).unwrap();
    assert!(tasks.constructed().wait().unwrap());
}

/// Holds the last handles of a pool until it is woken, which happens on a thread of that very pool.
struct Holder(Mutex<Option<(LocalPool, TaskWrapper<Touchy>)>>);

impl Wake for Holder {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().unwrap().take());
    }
}

#[test]
fn the_last_handle_of_a_pool_may_go_on_a_thread_of_the_pool() {
    static PANICKED: AtomicBool = AtomicBool::new(false);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name().is_some_and(|name| name.starts_with("ray-zerocopy")) {
            PANICKED.store(true, Ordering::Relaxed);
        }
        before(info);
    }));
    let engine = one_worker();
    let tasks = TaskWrapper::on(&engine, &Touchy::with(Mood::Calm)).unwrap();
    let pid = tasks.pid().wait().unwrap();
    let mut pending = tasks.slow();
    let waker = Waker::from(Arc::new(Holder(Mutex::new(Some((engine, tasks))))));
    assert!(matches!(Pin::new(&mut pending).poll(&mut Context::from_waker(&waker)), Poll::Pending));
    drop(waker);
    // Polling again would take the waker back.
    eventually("the worker ends", || !is_alive(pid));
    assert_eq!(pending.wait().unwrap(), pid);
    assert!(!PANICKED.load(Ordering::Relaxed), "a thread of the pool panicked");
}
