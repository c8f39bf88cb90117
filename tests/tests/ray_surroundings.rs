//! The environment of a program on Ray: signals, launchers, jobs, forks, and changes of its file.
//! Each test starts its own processes and clusters.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use burn::tensor::Device;
use ray_zerocopy::ray::{Cluster, ClusterTarget, Options, RayError};
use ray_zerocopy::{ActorWrapper, CallError, Error, TaskWrapper};
use ray_zerocopy_tests::models::{TestModel, TestModelConfig};
use ray_zerocopy_tests::process_tree::{ProcessTree, ROLE, again, copy, role_of, succeeds};
use rustix::process::{Pid, Signal, kill_process};

/// System calls that need `unsafe`.
mod sys {
    #![allow(unsafe_code)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    static CAUGHT: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn catch(_signal: libc::c_int) {
        CAUGHT.fetch_add(1, Ordering::Relaxed);
    }

    /// Installs a handler that counts a signal.
    pub(super) fn handle(signal: libc::c_int) {
        // SAFETY: the handler adds to an atomic, which is async-signal-safe.
        let before = unsafe { libc::signal(signal, catch as extern "C" fn(libc::c_int) as libc::sighandler_t) };
        assert_ne!(before, libc::SIG_ERR);
    }

    pub(super) fn caught() -> usize {
        CAUGHT.load(Ordering::Relaxed)
    }

    /// Ends this process with SIGALRM after some time, even if it hangs.
    pub(super) fn watchdog(seconds: u32) {
        // SAFETY: sets a timer, whose signal has no handler.
        unsafe { libc::alarm(seconds) };
    }

    /// Forks a child that runs `child` and exits with its result. Returns its process id.
    pub(super) fn fork(child: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child has one thread. It runs the code under test, which must not need the
        // other threads.
        match unsafe { libc::fork() } {
            0 => {
                watchdog(60);
                let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(1);
                // With all that is done at exit.
                std::process::exit(code)
            }
            child => child,
        }
    }
}

fn local() -> Cluster {
    Cluster::local().cpus(2).object_store(100 << 20).quiet().start().unwrap()
}

fn small(cluster: &Cluster) -> ClusterTarget {
    cluster.with(Options::default().cpus(0.1))
}

fn model() -> TestModel {
    TestModelConfig::new(8).init(&Device::flex())
}

/// The masks of caught and ignored signals in `/proc/self/status`.
fn dispositions() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let wanted = |line: &&str| line.starts_with("SigCgt") || line.starts_with("SigIgn");
    status.lines().filter(wanted).map(str::to_owned).collect()
}

/// Uses the cluster: tasks and actors, with results below and above Ray's limit for the store.
fn work(cluster: &Cluster) {
    let own = std::process::id();
    assert_ne!(TaskWrapper::on(&small(cluster), &model()).unwrap().pid().wait().unwrap(), own);
    let actors = ActorWrapper::on(&small(cluster), &model()).unwrap().spawn(1).unwrap();
    assert_ne!(actors.pid().wait().unwrap(), own);
    let text = "x".repeat(300_000);
    assert_eq!(actors.echo(serde_json::Value::Null, text.clone(), Vec::new()).wait().unwrap().1, text);
}

fn ready() {
    println!("READY");
}

/// Works, then waits for a signal with its default disposition.
fn defaults() {
    let before = dispositions();
    let cluster = local();
    assert_eq!(dispositions(), before);
    work(&cluster);
    assert_eq!(dispositions(), before);
    ready();
    std::thread::sleep(Duration::from_secs(600));
}

/// Waits for both signals with its own handlers.
fn handlers(install_first: bool) {
    let install = || [libc::SIGTERM, libc::SIGINT].into_iter().for_each(sys::handle);
    if install_first {
        install();
    }
    let cluster = local();
    work(&cluster);
    if !install_first {
        install();
    }
    ready();
    for caught in 1..=2 {
        while sys::caught() < caught {
            std::thread::sleep(Duration::from_millis(10));
        }
        println!("CAUGHT");
    }
    work(&cluster);
    drop(cluster);
    std::process::exit(3);
}

/// Is killed by a signal while it joins.
fn joining() {
    println!("JOINING");
    let cluster = local();
    work(&cluster);
    std::thread::sleep(Duration::from_secs(600));
}

fn environment_of_worker(name: String) -> Option<String> {
    std::env::var(name).ok()
}

fn works() {
    let cluster = local();
    work(&cluster);
    let variable = cluster.task(environment_of_worker as fn(String) -> Option<String>);
    let value = variable.remote("FROM_THE_JOB".to_owned()).unwrap().get().unwrap();
    println!("FROM THE JOB: {value:?}");
}

/// Tries to join, and prints the error.
fn refused() {
    let error = Cluster::local().quiet().start().unwrap_err();
    println!("REFUSED {error}");
    assert!(matches!(error, RayError::RuntimeEnv { .. }), "{error:?}");
}

/// Joins after its executable was deleted.
fn deleted() {
    std::fs::remove_file(std::env::current_exe().unwrap()).unwrap();
    works();
}

/// Joins after its executable was replaced by another file.
fn replaced() {
    let own = std::env::current_exe().unwrap();
    let other = own.with_extension("new");
    std::fs::write(&other, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&other, &own).unwrap();
    works();
}

fn forked() {
    let cluster = local();
    let tasks = TaskWrapper::on(&small(&cluster), &model()).unwrap();
    let actors = ActorWrapper::on(&small(&cluster), &model()).unwrap().spawn(1).unwrap();
    let (task, actor) = (tasks.pid().wait().unwrap(), actors.pid().wait().unwrap());
    assert_ne!(task, actor);
    let (mut polled, unread) = (tasks.sleep(2000), actors.sleep(2000));
    assert!(polled.wait_timeout(Duration::from_millis(1)).is_none());
    let object = cluster.put(&7_u8).unwrap();
    // The child has copies of the parent's handles, and drops them itself.
    let (all, other) = (Mutex::new(Some((cluster, tasks, actors, object, polled, unread))), model());
    let child = sys::fork(|| {
        let (cluster, tasks, actors, object, mut polled, unread) = all.lock().unwrap().take().unwrap();
        let says_fork = |error: &dyn std::error::Error| {
            let text = error.to_string();
            assert!(text.contains("fork"), "{text}");
        };
        says_fork(&polled.wait_timeout(Duration::from_secs(5)).unwrap().unwrap_err());
        says_fork(&pollster::block_on(polled).unwrap_err());
        says_fork(&unread.wait().unwrap_err());
        says_fork(&tasks.pid().wait().unwrap_err());
        says_fork(&actors.pid().wait().unwrap_err());
        says_fork(&actors.actor(0).pid().wait().unwrap_err());
        drop(actors.pid());
        says_fork(&cluster.nodes().unwrap_err());
        says_fork(&cluster.put(&1_u8).unwrap_err());
        says_fork(&object.get().unwrap_err());
        says_fork(&TaskWrapper::on(&small(&cluster), &other).map(drop).unwrap_err());
        says_fork(&ActorWrapper::on(&small(&cluster), &other).map(drop).unwrap_err());
        says_fork(&cluster.shut_down().unwrap_err());
        says_fork(&Cluster::local().start().unwrap_err());
        assert!(actors.workers().is_empty());
        actors.shut_down();
        drop((actors, tasks, object, cluster));
        0
    });
    let status = rustix::process::waitpid(Pid::from_raw(child), rustix::process::WaitOptions::empty());
    let status = status.unwrap().unwrap().1;
    assert_eq!(status.exit_status(), Some(0), "{status:?}");
    let (cluster, _tasks, _actors, object, polled, unread) = all.lock().unwrap().take().unwrap();
    assert_eq!((polled.wait().unwrap(), unread.wait().unwrap()), (task, actor), "the parent is unaffected");
    assert_eq!(object.get().unwrap(), 7);
    work(&cluster);
}

/// Leaving a cluster answers the calls in flight with errors.
fn left() {
    let cluster = local();
    let tasks = TaskWrapper::on(&small(&cluster), &model()).unwrap();
    let actors = ActorWrapper::on(&small(&cluster), &model()).unwrap().spawn(1).unwrap();
    let mut pending =
        [tasks.sleep(3_600_000), actors.sleep(3_600_000), actors.sleep(3_600_000), actors.sleep(3_600_000)];
    for pending in &mut pending {
        assert!(pending.wait_timeout(Duration::from_millis(1)).is_none());
    }
    // Another thread waits inside Ray.
    let others = ActorWrapper::on(&small(&cluster), &model()).unwrap().spawn(1).unwrap();
    let waits = std::thread::spawn(move || others.sleep(3_600_000).wait());
    std::thread::sleep(Duration::from_millis(500));
    cluster.shut_down().unwrap();
    assert!(waits.join().unwrap().is_err());
    for pending in pending {
        let error = pending.wait().unwrap_err();
        assert!(matches!(&error, Error::Call(CallError::Ray { .. } | CallError::WorkerDied { .. })), "{error:?}");
    }
    drop(actors);
}

struct Once(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for Once {
    fn wake(self: Arc<Self>) {
        let work = self.0.lock().unwrap().take();
        if let Some(work) = work {
            work();
        }
    }
}

/// Leaves the cluster in a waker.
fn left_by_a_waker() {
    let cluster = local();
    let actors = ActorWrapper::on(&small(&cluster), &model()).unwrap().spawn(1).unwrap();
    actors.pid().wait().unwrap();
    let mut pending = actors.sleep(300);
    let (done, is_done) = channel();
    let leave = move || {
        cluster.shut_down().unwrap();
        drop((actors, cluster));
        done.send(()).unwrap();
    };
    let waker = Waker::from(Arc::new(Once(Mutex::new(Some(Box::new(leave))))));
    assert!(Pin::new(&mut pending).poll(&mut Context::from_waker(&waker)).is_pending());
    is_done.recv().unwrap();
    pending.wait().unwrap();
}

/// The first attempt to join finds no free descriptor.
fn short_of_files() {
    let mut held = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        held.push(file);
    }
    let error = Cluster::local().quiet().start().unwrap_err();
    held.clear();
    println!("REFUSED {error}");
    works();
}

/// Not a test of its own: the processes that the tests below start.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    sys::watchdog(300);
    match role.as_str() {
        "defaults" => defaults(),
        "handlers first" => handlers(true),
        "handlers later" => handlers(false),
        "joining" => joining(),
        "works" => works(),
        "refused" => refused(),
        "deleted" => deleted(),
        "replaced" => replaced(),
        "forked" => forked(),
        "left" => left(),
        "left by a waker" => left_by_a_waker(),
        "short of files" => short_of_files(),
        other => panic!("{other}"),
    }
}

/// Starts a role and waits until it prints a word. Then sends signals one after the other with a
/// pause in milliseconds, and returns the exit status and the output.
fn signalled(role: &str, word: &str, pause: u64, signals: &[Signal]) -> (ExitStatus, String) {
    let tree = ProcessTree::exclusive();
    let mut driver = again(role).stderr(Stdio::inherit()).spawn().unwrap();
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let mut seen = String::new();
    let mut wait_for = |word: &str| {
        let found =
            lines.by_ref().map(Result::unwrap).inspect(|line| seen.push_str(line)).any(|line| line.contains(word));
        assert!(found, "no {word}");
    };
    wait_for(word);
    std::thread::sleep(Duration::from_millis(pause));
    for signal in signals {
        kill_process(Pid::from_raw(driver.id() as i32).unwrap(), *signal).unwrap();
        if signals.len() > 1 {
            wait_for("CAUGHT");
        }
    }
    let status = driver.wait().unwrap();
    // Ray's processes notice the end of the program, some of them after half a minute.
    for (pid, _) in tree.members() {
        let _gone = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
    }
    tree.wait_until_gone();
    (status, seen)
}

#[test]
fn default_signals_still_end_a_program_on_ray() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let (status, _) = signalled("defaults", "READY", 0, &[signal]);
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
        assert!(!status.core_dumped(), "{status}");
    }
    // The same at different stages of joining.
    for (pause, signal) in
        [(300, Signal::INT), (700, Signal::TERM), (1000, Signal::INT), (2000, Signal::INT), (3500, Signal::TERM)]
    {
        let (status, _) = signalled("joining", "JOINING", pause, &[signal]);
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
    }
}

#[test]
fn signal_handlers_work_whenever_installed() {
    for role in ["handlers first", "handlers later"] {
        let (status, text) = signalled(role, "READY", 0, &[Signal::TERM, Signal::INT]);
        assert_eq!(status.code(), Some(3), "{role}: {status}: {text}");
    }
}

/// Ray's own hook looks for a parent process called `uv run`.
#[test]
fn program_under_uv_run_has_its_own_workers() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("run"), "\"$PROGRAM\" --exact role --nocapture --test-threads=1\nexit $?\n")
        .unwrap();
    let mut process = Command::new("bash");
    process.args(["-c", "exec -a uv bash run"]).current_dir(folder.path());
    process.env(ROLE, "works").env("PROGRAM", std::env::current_exe().unwrap());
    succeeds(&mut process);
}

/// Sets the variable that `ray job submit` sets. The command itself needs Ray's dashboard, which is
/// another package.
#[test]
fn job_environment_is_merged_or_refused_by_key() {
    let job = |environment: &str| format!("{{\"runtime_env\": {environment}, \"metadata\": {{\"owner\": \"me\"}}}}");
    let folder = tempfile::tempdir().unwrap();
    let merged = job(&format!(
        "{{\"env_vars\": {{\"FROM_THE_JOB\": \"yes\"}}, \"working_dir\": {:?}}}",
        folder.path().to_string_lossy()
    ));
    let text = succeeds(again("works").env("RAY_JOB_CONFIG_JSON_ENV_VAR", merged));
    assert!(text.contains("FROM THE JOB: Some(\"yes\")"), "{text}");
    let text = succeeds(again("refused").env("RAY_JOB_CONFIG_JSON_ENV_VAR", job("{\"pip\": [\"numpy\"]}")));
    assert!(text.contains("REFUSED the runtime environment has `pip`: it comes from `ray job submit`"), "{text}");
    let mut overridden = again("works");
    overridden.env("RAY_JOB_CONFIG_JSON_ENV_VAR", job("{\"py_executable\": \"nonsense\"}"));
    succeeds(overridden.env("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1"));
}

#[test]
fn a_hook_that_replaces_the_workers_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let hook = "def hook(env):\n    return {**(env or {}), 'py_executable': 'another python'}\n";
    std::fs::write(folder.path().join("somebodys_hook.py"), hook).unwrap();
    let mut process = again("refused");
    process.env("PYTHONPATH", folder.path()).env("RAY_RUNTIME_ENV_HOOK", "somebodys_hook.hook");
    let text = succeeds(&mut process);
    assert!(text.contains("a hook has set it to `another python`"), "{text}");
}

#[test]
fn program_with_a_replaced_file_has_workers() {
    for role in ["deleted", "replaced"] {
        let folder = tempfile::tempdir().unwrap();
        succeeds(&mut role_of(&copy(folder.path()), role));
    }
}

#[test]
fn program_started_by_the_loader_has_workers() {
    let loader = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"].map(Path::new);
    let Some(loader) = loader.into_iter().find(|loader| loader.exists()) else {
        panic!("this machine has no glibc loader in its usual place");
    };
    let mut process = Command::new(loader);
    process.arg(std::env::current_exe().unwrap());
    process.args(["--exact", "role", "--nocapture", "--test-threads=1"]).env(ROLE, "works");
    succeeds(&mut process);
}

#[test]
fn fork_gets_errors_and_its_parent_is_unharmed() {
    succeeds(&mut again("forked"));
}

#[test]
fn leaving_the_cluster_answers_calls_in_flight() {
    succeeds(&mut again("left"));
    succeeds(&mut again("left by a waker"));
}

#[test]
fn a_shortage_of_descriptors_is_not_remembered() {
    let mut process = Command::new("bash");
    process.args(["-c", "ulimit -S -n 512; exec \"$0\" --exact role --nocapture --test-threads=1"]);
    process.arg(std::env::current_exe().unwrap()).env(ROLE, "short of files");
    let text = succeeds(&mut process);
    assert!(text.contains("REFUSED") && text.contains("Too many open files"), "{text}");
}
