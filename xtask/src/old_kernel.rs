//! The step `old kernel`: runs tests that depend on the kernel on Linux 5.10, in a virtual machine, and tests
//! that need several NUMA nodes.
//!
//! The file `programs` lists the test programs and the files that they need.
//!
//! qemu emulates the machine without KVM, with two processors and two NUMA nodes. It has neither a network nor a disk: all files are in the
//! initramfs, at the paths that they have here, because programs have the paths of other programs
//! compiled in.

mod programs;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::setup::kernel;
use crate::shell::{find, run, target};
use programs::Program;

/// The time after which the machine is stopped. The tests take three minutes, and five times that
/// on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(1800);
/// Of each of the two NUMA nodes, which have one processor each.
const MEBIBYTES: u32 = 2048;
/// How many times the machine is started if it does not boot.
const BOOTS: usize = 3;
/// The lines that the machine prints before and after each program, and before it powers off.
const BEGIN: &str = "@@ begin ";
const END: &str = "@@ end ";
const LAST: &str = "@@ all done";

/// Runs the tests on Linux 5.10.
pub(crate) fn tests() -> Result<()> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "the virtual machine runs programs of this machine, and its kernel is for Linux on x86_64"
    );
    let kernel = kernel::image()?;
    let programs = programs::build()?;
    eprintln!("packing {} programs for the virtual machine", programs.len());
    let work = target().join("old-kernel");
    let root = work.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("{} cannot be removed", root.display()))?;
    }
    lay_out(&root, &programs)?;
    let memory = work.join("initrd");
    pack(&root, &memory)?;
    let mut lines = boot(&kernel, &memory)?;
    // On a busy machine the emulated timer can be too late for the kernel, which then does not
    // boot.
    for _ in 1..BOOTS {
        if lines.iter().any(|line| line.starts_with(BEGIN)) {
            break;
        }
        eprintln!("the virtual machine did not boot, and is started again");
        lines = boot(&kernel, &memory)?;
    }
    check(&programs, &lines)
}

/// Writes the file system of the machine into a folder.
fn lay_out(root: &Path, programs: &[Program]) -> Result<()> {
    for folder in ["bin", "proc", "sys", "dev", "tmp", "run", "root", "etc"] {
        fs::create_dir_all(root.join(folder)).with_context(|| format!("{} cannot be created", root.display()))?;
    }
    let busybox = find("busybox").context("busybox is not installed")?;
    fs::copy(busybox, root.join("bin/busybox")).context("busybox cannot be copied")?;
    for file in programs.iter().flat_map(|program| &program.files) {
        let place = root.join(file.strip_prefix("/").unwrap_or(file));
        if place.exists() {
            continue;
        }
        let folder = place.parent().context("a file has no folder")?;
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be created", folder.display()))?;
        // All files are in the machine's memory, and symbols are four fifths of their size.
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(&place).arg(file).stderr(Stdio::null());
        if !strip.status().is_ok_and(|status| status.success()) {
            fs::copy(file, &place).with_context(|| format!("{} cannot be copied", file.display()))?;
        }
    }
    fs::write(root.join("init"), script(programs)).context("the machine's init script cannot be written")?;
    let mut chmod = Command::new("chmod");
    chmod.arg("755").arg(root.join("init")).arg(root.join("bin/busybox"));
    run(chmod)
}

/// The init script of the machine. It runs the programs one after the other.
fn script(programs: &[Program]) -> String {
    let mut script = String::from(
        "#!/bin/busybox sh\n\
         /bin/busybox --install -s /bin\n\
         export PATH=/bin HOME=/root RUST_BACKTRACE=0\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp\n\
         ulimit -l unlimited; mkdir -p /dev/shm; mount -t tmpfs shm /dev/shm; chmod 1777 /tmp /dev/shm\n\
         uname -r\n",
    );
    for (at, program) in programs.iter().enumerate() {
        let before = program.before.map(|before| format!("{before}; ")).unwrap_or_default();
        let (path, arguments) = (program.path.display(), program.arguments.join(" "));
        script += &format!("echo '{BEGIN}{at}'\n( {before}cd /tmp; {path} {arguments} 2>&1 )\necho \"{END}{at} $?\"\n");
    }
    script + &format!("echo '{LAST}'\npoweroff -f\n")
}

/// Packs a folder as an initramfs.
fn pack(root: &Path, memory: &Path) -> Result<()> {
    let out = File::create(memory).with_context(|| format!("{} cannot be written", memory.display()))?;
    let mut find = Command::new("find").arg(".").current_dir(root).stdout(Stdio::piped()).spawn()?;
    let names = find.stdout.take().context("the output of find is not piped")?;
    let mut cpio = Command::new("cpio");
    cpio.args(["-o", "-H", "newc", "--quiet"]).current_dir(root).stdin(names).stdout(out);
    run(cpio)?;
    ensure!(find.wait()?.success(), "the files of the machine cannot be listed");
    Ok(())
}

/// Runs the machine until it powers off. Prints its output, and returns the lines.
fn boot(kernel: &Path, memory: &Path) -> Result<Vec<String>> {
    let mut machine = Command::new("qemu-system-x86_64");
    machine.args(["-M", "q35", "-cpu", "max", "-smp", "2", "-nographic", "-no-reboot", "-nic", "none"]);
    machine.arg("-m").arg((2 * MEBIBYTES).to_string());
    for node in 0..2 {
        machine.arg("-object").arg(format!("memory-backend-ram,id=memory{node},size={MEBIBYTES}M"));
        machine.arg("-numa").arg(format!("node,nodeid={node},cpus={node},memdev=memory{node}"));
    }
    // Nested KVM is often broken, so emulation is used even where KVM is available.
    machine.args(["-accel", "tcg"]);
    machine.arg("-kernel").arg(kernel).arg("-initrd").arg(memory);
    machine.args(["-append", "console=ttyS0 panic=-1 quiet no_timer_check"]);
    let mut machine =
        machine.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("qemu could not be started")?;
    let output = machine.stdout.take().context("the output of qemu is not piped")?;
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| stop_after_timeout(&mut machine, &ended));
        let lines = listen(output);
        ended.store(true, Ordering::Relaxed);
        lines
    })
}

/// Prints the output of the machine, and returns the lines.
fn listen(output: impl Read) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = readable(&line.context("the output of qemu cannot be read")?);
        if !line.starts_with("@@") && !lines.is_empty() {
            eprintln!("  {line}");
        }
        // The firmware draws on the screen before the kernel starts.
        if !lines.is_empty() || line.contains("Booting from ROM") {
            lines.push(line);
        }
    }
    Ok(lines)
}

/// Kills the machine if it runs for too long. Its output then ends.
fn stop_after_timeout(machine: &mut Child, ended: &AtomicBool) {
    const STEP: Duration = Duration::from_millis(200);
    for _ in 0..TIMEOUT.as_millis() / STEP.as_millis() {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(STEP);
    }
    // An error means that the machine has ended already.
    machine.kill().ok();
    machine.wait().ok();
}

/// A line of the machine's terminal, without escape sequences.
fn readable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut parts = text.trim_end_matches('\r').split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    // The first letter ends an escape sequence.
    parts.fold(first, |line, part| {
        line + part.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest)
    })
}

/// Checks that every program has succeeded, and has run a test if it has the test harness.
fn check(programs: &[Program], lines: &[String]) -> Result<()> {
    let mut failed = Vec::new();
    let mut passed = 0;
    for (at, program) in programs.iter().enumerate() {
        let (begin, end) = (format!("{BEGIN}{at}"), format!("{END}{at} "));
        let output: Vec<_> = lines.iter().skip_while(|line| **line != begin).skip(1).collect();
        let status = output.iter().find_map(|line| line.strip_prefix(&end));
        let output = output.iter().take_while(|line| !line.starts_with(&end));
        let tests: u64 = output.filter_map(|line| passed_of(line)).sum();
        passed += tests;
        match status {
            None => failed.push(format!("{} did not end", program.name)),
            Some("0") if tests == 0 && program.has_tests => failed.push(format!("{} ran no test", program.name)),
            Some("0") => eprintln!("{:<12} {tests:>3} tests passed", program.name),
            Some(status) => failed.push(format!("{} ended with status {status}", program.name)),
        }
    }
    ensure!(failed.is_empty(), "on Linux {}: {}", kernel::VERSION, failed.join("; "));
    if !lines.iter().any(|line| line == LAST) {
        bail!("the virtual machine did not power off");
    }
    eprintln!("{passed} tests passed on Linux {}", kernel::VERSION);
    Ok(())
}

/// The number of tests that have passed. Returns `None` for lines that are not a summary.
fn passed_of(line: &str) -> Option<u64> {
    line.strip_prefix("test result: ok. ")?.split_once(" passed")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, LAST, Program, check, passed_of, readable};

    fn program(name: &'static str) -> Program {
        let (path, files, arguments) = (name.into(), Vec::new(), Vec::new());
        Program { name: name.to_owned(), path, files, arguments, before: None, has_tests: true }
    }

    #[test]
    fn program_that_did_not_run_has_failed() {
        let programs = [program("one"), program("two")];
        let lines = |text: &[&str]| text.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let begin = |at: usize| format!("{BEGIN}{at}");
        let ok = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.02s";
        let both = [&begin(0), ok, &format!("{END}0 0"), &begin(1), ok, &format!("{END}1 0"), LAST];
        check(&programs, &lines(&both)).unwrap();
        let says = |text: &[&str]| check(&programs, &lines(text)).unwrap_err().to_string();
        assert!(says(&both[..4]).contains("two did not end"));
        assert!(says(&[&begin(0), ok, &format!("{END}0 101")]).contains("one ended with status 101; two did not end"));
        let none = ok.replace("3 passed", "0 passed");
        assert!(says(&[&begin(0), &none, &format!("{END}0 0")]).contains("one ran no test"));
        assert!(says(&both[..6]).contains("did not power off"));
    }

    #[test]
    fn escape_sequences_are_removed() {
        assert_eq!(readable(b"\x1b[0m\x1b[2Jtest a ... ok\r"), "test a ... ok");
        assert_eq!(passed_of("test result: FAILED. 3 passed; 1 failed"), None);
    }
}
