//! Misbehaving user code outside of methods: during load, drop, wake-up and fork.

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

/// A copied field that can panic in a worker.
#[derive(Debug, Clone, Serialize)]
enum CopiedField {
    Plain,
    /// Panics when it is deserialized in a worker.
    PanicsOnRead,
    /// Panics when it is dropped in a worker.
    PanicsOnDrop,
}

impl<'de> Deserialize<'de> for CopiedField {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match name.as_str() {
            "PanicsOnRead" if in_a_worker() => panic!("read in a worker"),
            "PanicsOnRead" => Ok(Self::PanicsOnRead),
            "PanicsOnDrop" => Ok(Self::PanicsOnDrop),
            _ => Ok(Self::Plain),
        }
    }
}

impl Drop for CopiedField {
    fn drop(&mut self) {
        if in_a_worker() && matches!(self, Self::PanicsOnDrop) && !std::thread::panicking() {
            panic!("dropped in a worker");
        }
    }
}

#[derive(Pipeline)]
#[pipeline(init = UserCodeModel::new)]
struct UserCodeModel {
    layer: Linear,
    copied: CopiedField,
}

static CONSTRUCTED: AtomicBool = AtomicBool::new(false);

extern "C" fn construct() {
    CONSTRUCTED.store(true, Ordering::Relaxed);
}

/// A constructor without a priority, as type registries and static C++ objects use.
#[used]
// SAFETY: an entry of `.init_array` is a pointer to a function of this type, and this one may be
// called before `main`.
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

#[ray_zerocopy::remote]
impl UserCodeModel {
    pub fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(2, 2).init(device), copied: CopiedField::Plain }
    }

    fn with(copied: CopiedField) -> Self {
        Self { copied, ..Self::new(&Device::flex()) }
    }

    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    pub fn panic_with(&self) {
        panic!("asked to panic")
    }

    pub fn constructed(&self) -> bool {
        CONSTRUCTED.load(Ordering::Relaxed)
    }

    pub fn slow(&self) -> u32 {
        std::thread::sleep(Duration::from_millis(300));
        std::process::id()
    }

    /// Kills the process while a forked child, which does not execute a program, holds copies of
    /// all its file descriptors. The child writes its process id into the file, and ends when the
    /// file is removed.
    pub fn die_with_a_fork(&self, file: String) {
        std::thread::spawn(move || {
            let mut command = Command::new("true");
            // SAFETY: only async-signal-safe code may run between fork and exec if the process has
            // other threads. This code writes files and sleeps, and glibc keeps its heap usable in
            // a forked child.
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
fn panic_in_deserialize_is_a_load_error() {
    let engine = one_worker();
    let plain = TaskWrapper::on(&engine, &UserCodeModel::with(CopiedField::Plain)).unwrap();
    let pid = plain.pid().wait().unwrap();
    let panics_on_read = UserCodeModel::with(CopiedField::PanicsOnRead);
    let error = TaskWrapper::on(&engine, &panics_on_read).unwrap().pid().wait().unwrap_err();
    let Error::Call(CallError::Load { error: LoadError::Rebuild { reason, .. }, .. }) = &error else {
        panic!("{error}")
    };
    assert!(reason.starts_with("it panicked: read in a worker (tests/tests/user_code.rs:"), "{reason}");
    let error = ActorWrapper::new(&panics_on_read).unwrap().spawn(1).unwrap_err();
    assert!(error.to_string().contains("read in a worker"), "{error}");
    assert_eq!(plain.pid().wait().unwrap(), pid, "the worker was replaced");
}

#[test]
fn panic_in_drop_does_not_end_the_worker() {
    let engine = one_worker();
    let plain = TaskWrapper::on(&engine, &UserCodeModel::with(CopiedField::Plain)).unwrap();
    let pid = plain.pid().wait().unwrap();
    let panics_on_drop = TaskWrapper::on(&engine, &UserCodeModel::with(CopiedField::PanicsOnDrop)).unwrap();
    assert_eq!(panics_on_drop.pid().wait().unwrap(), pid);
    // After a panic, the pipeline is dropped and loaded again.
    let error = panics_on_drop.panic_with().wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Panicked { .. })), "{error}");
    assert_eq!(panics_on_drop.pid().wait().unwrap(), pid);
    // When the last wrapper is dropped, the worker drops the pipeline.
    drop(panics_on_drop);
    for _ in 0..10 {
        assert_eq!(plain.pid().wait().unwrap(), pid);
    }
}

#[test]
fn death_is_seen_while_a_fork_holds_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fork");
    let engine = one_worker();
    let tasks = TaskWrapper::on(&engine, &UserCodeModel::with(CopiedField::Plain)).unwrap().attempts(1);
    let error = tasks.die_with_a_fork(file.to_string_lossy().into_owned()).wait().unwrap_err();
    let fork = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    assert!(is_alive(fork), "the fork was to outlive the worker");
    assert!(error.to_string().contains("(signal: 9 (SIGKILL)"), "{error}");
    tasks.pid().wait().unwrap();
    drop(folder);
    eventually("the fork ends", || !is_alive(fork));
}

#[test]
fn constructors_of_other_crates_run_in_workers() {
    let tasks = TaskWrapper::on(&one_worker(), &UserCodeModel::with(CopiedField::Plain)).unwrap();
    assert!(tasks.constructed().wait().unwrap());
}

/// A waker with the last handles of a pool. It drops them when it is woken, on a thread of that
/// pool.
struct Holder(Mutex<Option<(LocalPool, TaskWrapper<UserCodeModel>)>>);

impl Wake for Holder {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().unwrap().take());
    }
}

#[test]
fn last_handle_may_be_dropped_on_a_pool_thread() {
    static PANICKED: AtomicBool = AtomicBool::new(false);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name().is_some_and(|name| name.starts_with("ray-zerocopy")) {
            PANICKED.store(true, Ordering::Relaxed);
        }
        before(info);
    }));
    let engine = one_worker();
    let tasks = TaskWrapper::on(&engine, &UserCodeModel::with(CopiedField::Plain)).unwrap();
    let pid = tasks.pid().wait().unwrap();
    let mut pending = tasks.slow();
    let waker = Waker::from(Arc::new(Holder(Mutex::new(Some((engine, tasks))))));
    assert!(matches!(Pin::new(&mut pending).poll(&mut Context::from_waker(&waker)), Poll::Pending));
    drop(waker);
    // Another poll would replace the waker.
    eventually("the worker ends", || !is_alive(pid));
    assert_eq!(pending.wait().unwrap(), pid);
    assert!(!PANICKED.load(Ordering::Relaxed), "a thread of the pool panicked");
}
