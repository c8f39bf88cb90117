//! Startup before `main`: workers begin there, and a process that was started as a worker never
//! reaches `main`.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use ray_zerocopy_tests::memory::eventually;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Resource, getuid};

use crate::pipeline::engine;
use crate::{role, sys};

static CONSTRUCTED: AtomicU32 = AtomicU32::new(0);

/// Number of runs of the constructor below in this process.
pub(crate) fn constructed() -> u32 {
    CONSTRUCTED.load(Ordering::Relaxed)
}

mod constructor {
    #![allow(unsafe_code)]

    use std::sync::atomic::Ordering;

    // LLD sorts by the priority, and entries without one come first. With LLD, this therefore runs
    // after the constructor that makes a process a worker, like constructors of C++ libraries that
    // the crate depends on. Other linkers put it before that one.
    #[used]
    #[unsafe(link_section = ".init_array.70000")]
    static LAST: extern "C" fn() = last;

    extern "C" fn last() {
        super::CONSTRUCTED.fetch_add(1, Ordering::Relaxed);
        crate::ends::end_soon_if_asked();
    }
}

#[test]
fn constructors_of_dependencies_run_in_workers() {
    assert_eq!(constructed(), 1);
    let (_engine, tasks) = engine(1);
    assert_eq!(tasks.constructed().wait().unwrap(), 1);
}

/// The socket that a worker gets as its standard input, created by this process.
fn connection() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// Starts this executable as a worker that cannot work. Returns its output, and whether it reached
/// `main`.
fn unfit(change: impl FnOnce(Command, OwnedFd) -> Command) -> (String, bool) {
    let folder = tempfile::tempdir().unwrap();
    // Also readable for a process of another user.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let reached = folder.path().join("main");
    let (_ours, theirs) = connection();
    let command = role::with(role::command("reaches main"), &reached);
    let (_status, text) = role::end_of(role::start(change(command, theirs)));
    (text, reached.exists())
}

#[test]
fn worker_of_other_version_does_not_reach_main() {
    let (text, reached) = unfit(|mut command, socket| {
        command.env("RAY_ZEROCOPY_WORKER", "1").stdin(Stdio::from(socket));
        command
    });
    assert!(text.contains("it cannot work: the program that started it has another version of ray-zerocopy"), "{text}");
    assert!(!reached, "{text}");
}

#[test]
fn worker_without_fds_does_not_reach_main() {
    let (text, reached) = unfit(|mut command, socket| {
        command.env("RAY_ZEROCOPY_WORKER", version()).stdin(Stdio::from(socket));
        // The loader opens a descriptor for each library, and closes it.
        sys::limit(&mut command, libc::RLIMIT_NOFILE, 4);
        command
    });
    // The three standard descriptors and the copy of the socket make four, so any other one exceeds
    // the limit.
    assert!(text.contains("it cannot work: ") && text.contains("see `ulimit -n`"), "{text}");
    assert!(!reached, "{text}");
}

/// A script between owner and worker. `socket` is the standard input of the script, and of the
/// worker that it starts.
fn script(command: Command, socket: OwnedFd, text: &str) -> Command {
    let mut script = Command::new("sh");
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let own = std::env::current_exe().unwrap();
    script
        .args(["-c", text, "sh"])
        .arg(own)
        .args(arguments)
        .envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
    script.env("RAY_ZEROCOPY_WORKER", version()).stdin(Stdio::from(socket));
    script
}

#[test]
fn a_script_around_a_worker_has_to_execute_it() {
    let (text, reached) = unfit(|command, socket| script(command, socket, r#""$@"; exit 0"#));
    assert!(text.contains("a script around a program has to `exec` it"), "{text}");
    assert!(!reached, "{text}");
}

#[test]
fn orphaned_worker_does_not_reach_main() {
    let folder = tempfile::tempdir().unwrap();
    let (over, reached) = (folder.path().join("over"), folder.path().join("main"));
    let (ours, theirs) = connection();
    let command = role::with(role::command("reaches main"), &reached);
    // The worker begins after the shell has ended, with its own socket and another parent.
    let text = format!(
        r#"exec 3<&0; (while kill -0 $$ 2>/dev/null; do sleep 0.05; done; "$@" <&3; echo $? >{0}.new; mv {0}.new {0}) & exit 0"#,
        over.display()
    );
    let (status, _) = role::end_of(role::start(script(command, theirs, &text)));
    assert!(status.success());
    eventually("the orphan ends", || over.exists());
    assert_eq!(std::fs::read_to_string(&over).unwrap().trim(), "69");
    assert!(!reached.exists());
    drop(ours);
}

/// The protocol version that this process passes to its workers.
fn version() -> String {
    let (engine, _tasks) = engine(1);
    let environ = std::fs::read(format!("/proc/{}/environ", engine.workers()[0].pid)).unwrap();
    let entry = environ.split(|&byte| byte == 0).find_map(|entry| entry.strip_prefix(b"RAY_ZEROCOPY_WORKER="));
    String::from_utf8(entry.unwrap().to_vec()).unwrap()
}

#[test]
fn privileged_program_refuses_to_work_or_spawn() {
    use std::os::unix::process::CommandExt;

    if !getuid().is_root() {
        eprintln!("skipped: only root can make a program that is privileged");
        return;
    }
    let nobody = 65534;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("privileged");
    std::fs::copy("/proc/self/exe", &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4755)).unwrap();

    let (text, reached) = unfit(|command, socket| {
        let mut privileged = Command::new(&program);
        privileged.args(command.get_args()).envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        privileged.env("RAY_ZEROCOPY_WORKER", version()).stdin(Stdio::from(socket)).uid(nobody).gid(nobody);
        privileged
    });
    assert!(text.contains("privileges that its caller lacks"), "{text}");
    assert!(!reached, "{text}");

    let mut command = role::cast(Command::new(&program), "starts workers and fails");
    command = role::with(command, "privileges that its caller lacks");
    command.uid(nobody).gid(nobody);
    role::succeed(command);
    let _limits = Resource::Nofile;
}
