//! What needs unsafe code.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// Panics where a panic cannot unwind, which ends the process.
pub(crate) extern "C" fn panic_without_unwinding() {
    panic!("the probe is broken");
}

/// Has a command's process run something before it executes the program. It makes system calls, and nothing else.
fn before_exec(command: &mut Command, prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    // SAFETY: what runs between fork and exec are the system calls below, which may be made there.
    unsafe { command.pre_exec(prepare) };
}

/// The error of a system call, if it failed.
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

/// Sets a limit of a command's process.
pub(crate) fn limit(command: &mut Command, resource: libc::__rlimit_resource_t, value: u64) {
    before_exec(command, move || {
        let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
        // SAFETY: the call reads the limit.
        checked(unsafe { libc::setrlimit(resource, &raw const limit) })
    });
}

/// A terminal: the side that a person sees, and the side that programs have.
pub(crate) fn terminal() -> (OwnedFd, OwnedFd) {
    let (mut person, mut program) = (-1, -1);
    // SAFETY: the call writes two descriptors, and takes nothing else.
    let failed = unsafe {
        libc::openpty(&raw mut person, &raw mut program, std::ptr::null_mut(), std::ptr::null(), std::ptr::null())
    };
    assert_eq!(failed, 0, "{}", io::Error::last_os_error());
    // SAFETY: it was just made, and is owned by no one else.
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

/// Makes a command's process the leader of a session on the terminal that is its standard input.
pub(crate) fn lead_a_session(command: &mut Command) {
    before_exec(command, || {
        // SAFETY: the call takes nothing.
        checked(unsafe { libc::setsid() })?;
        // SAFETY: the request takes a number.
        checked(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })
    });
}

/// Forks this process. `child` runs in the child, which ends with what it gives; the parent gets the child's id.
pub(crate) fn fork(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs code that takes no lock that another thread of this process may hold: that this is so is what is tested. It
    // ends without running what the parent has registered.
    match unsafe { libc::fork() } {
        0 => {
            let status = child();
            // SAFETY: it does not return.
            unsafe { libc::_exit(status) }
        }
        pid => pid,
    }
}

/// Holds a process back at its very end, once it is killed: as one that waits in the kernel.
pub(crate) struct HeldBack(Option<(mpsc::Sender<()>, JoinHandle<()>)>);

impl HeldBack {
    pub(crate) fn hold(pid: u32) -> io::Result<Self> {
        let (held, is_held) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        // The kernel lets it go when the thread ends that holds it. By itself, a killed process cannot be let go.
        let holder = std::thread::spawn(move || {
            let at_exit = libc::PTRACE_O_TRACEEXIT as usize;
            // SAFETY: seizing reads and writes no memory of this process.
            let failed =
                unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid as i32, std::ptr::null_mut::<u8>(), at_exit) } < 0;
            held.send(if failed { Err(io::Error::last_os_error()) } else { Ok(()) }).unwrap();
            // The other end is dropped.
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

/// The answer of a shared library's function that takes nothing and gives a text.
pub(crate) fn answer_of_library(path: &std::path::Path, name: &str) -> String {
    use std::ffi::{CStr, CString, c_char};
    use std::os::unix::ffi::OsStrExt;

    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let name = CString::new(name).unwrap();
    // SAFETY: the library's constructors are those of Rust's crates, which may run at any time.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!library.is_null(), "the library cannot be loaded: was it built? `cargo build --workspace --examples`");
    // SAFETY: the library was opened and stays open.
    let function = unsafe { libc::dlsym(library, name.as_ptr()) };
    assert!(!function.is_null());
    // SAFETY: the function of this name has this type: see `tests/examples/plugin.rs`.
    let function = unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> *mut c_char>(function) };
    // SAFETY: it gives a string that ends with a zero and is never freed.
    unsafe { CStr::from_ptr(function()) }.to_string_lossy().into_owned()
}
