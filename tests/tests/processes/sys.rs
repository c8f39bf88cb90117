//! Functions with unsafe code.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// Panics in an `extern "C"` function, which aborts the process.
pub(crate) extern "C" fn panic_without_unwinding() {
    panic!("the probe is broken");
}

/// Adds a closure to a command that runs between fork and exec. The closure may only make system
/// calls.
fn before_exec(command: &mut Command, prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    // SAFETY: only the system calls below run between fork and exec, and they are
    // async-signal-safe.
    unsafe { command.pre_exec(prepare) };
}

/// Converts the return value of a system call into a `Result`.
fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Starts a command's process with SIGCHLD ignored, as a shell's `trap '' CHLD` does.
pub(crate) fn ignore_children(command: &mut Command) {
    before_exec(command, || {
        // SAFETY: ignoring a signal replaces no handler of this process.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        Ok(())
    });
}

/// Sets a resource limit of a command's process.
pub(crate) fn limit(command: &mut Command, resource: libc::__rlimit_resource_t, value: u64) {
    before_exec(command, move || {
        let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
        // SAFETY: the call reads the limit.
        checked(unsafe { libc::setrlimit(resource, &raw const limit) })
    });
}

/// A pseudoterminal: the controlling side and the side of the programs.
pub(crate) fn terminal() -> (OwnedFd, OwnedFd) {
    let (mut person, mut program) = (-1, -1);
    // SAFETY: the call writes two descriptors, and has no other arguments.
    let failed = unsafe {
        libc::openpty(&raw mut person, &raw mut program, std::ptr::null_mut(), std::ptr::null(), std::ptr::null())
    };
    assert_eq!(failed, 0, "{}", io::Error::last_os_error());
    // SAFETY: the descriptor was just created, and has no other owner.
    let person = unsafe { OwnedFd::from_raw_fd(person) };
    // SAFETY: as above.
    let program = unsafe { OwnedFd::from_raw_fd(program) };
    (person, program)
}

/// Makes a terminal stop background processes that print: `stty tostop`.
pub(crate) fn stop_the_background(terminal: &OwnedFd) {
    let terminal = terminal.as_raw_fd();
    let mut modes = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the call writes the modes.
    let failed = unsafe { libc::tcgetattr(terminal, modes.as_mut_ptr()) };
    assert_eq!(failed, 0, "{}", io::Error::last_os_error());
    // SAFETY: the call has succeeded.
    let mut modes = unsafe { modes.assume_init() };
    modes.c_lflag |= libc::TOSTOP;
    // SAFETY: the call reads the modes.
    let failed = unsafe { libc::tcsetattr(terminal, libc::TCSANOW, &raw const modes) };
    assert_eq!(failed, 0, "{}", io::Error::last_os_error());
}

/// Makes a command's process a session leader, with its standard input as the controlling terminal.
pub(crate) fn lead_a_session(command: &mut Command) {
    before_exec(command, || {
        // SAFETY: the call has no arguments.
        checked(unsafe { libc::setsid() })?;
        // SAFETY: the argument of the request is a number.
        checked(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })
    });
}

/// Forks this process. The child runs `child` and exits with its result. Returns the child's
/// process id.
pub(crate) fn fork(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child must not take a lock that another thread of this process may hold, which is
    // what the test checks. It ends without running the parent's exit handlers.
    match unsafe { libc::fork() } {
        0 => {
            let status = child();
            // SAFETY: the call does not return.
            unsafe { libc::_exit(status) }
        }
        pid => pid,
    }
}

/// Keeps a killed process from ending, like a process in an uninterruptible wait.
pub(crate) struct HeldBack(Option<(mpsc::Sender<()>, JoinHandle<()>)>);

impl HeldBack {
    pub(crate) fn hold(pid: u32) -> io::Result<Self> {
        let (held, is_held) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        // The kernel releases the process when the tracing thread ends. A killed process cannot be
        // detached.
        let holder = std::thread::spawn(move || {
            let at_exit = libc::PTRACE_O_TRACEEXIT as usize;
            // SAFETY: seizing reads and writes no memory of this process.
            let failed =
                unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid as i32, std::ptr::null_mut::<u8>(), at_exit) } < 0;
            held.send(if failed { Err(io::Error::last_os_error()) } else { Ok(()) }).unwrap();
            // Returns when the other end is dropped.
            let _released = released.recv();
        });
        is_held.recv().unwrap()?;
        Ok(Self(Some((release, holder))))
    }
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        if let Some((release, holder)) = self.0.take() {
            drop(release);
            holder.join().unwrap();
        }
    }
}

/// Calls a function of a shared library that has no arguments and returns a string.
pub(crate) fn answer_of_library(path: &std::path::Path, name: &str) -> String {
    use std::ffi::{CStr, CString, c_char};
    use std::os::unix::ffi::OsStrExt;

    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let name = CString::new(name).unwrap();
    // SAFETY: the library's constructors are those of Rust crates, which may run at any time.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!library.is_null(), "the library cannot be loaded: was it built? `cargo build --workspace --examples`");
    // SAFETY: the library was opened and stays open.
    let function = unsafe { libc::dlsym(library, name.as_ptr()) };
    assert!(!function.is_null());
    // SAFETY: the function of this name has this type: see `tests/examples/plugin.rs`.
    let function = unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> *mut c_char>(function) };
    // SAFETY: the function returns a string that ends with a zero byte and is never freed.
    unsafe { CStr::from_ptr(function()) }.to_string_lossy().into_owned()
}
