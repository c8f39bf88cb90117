//! Commands that are ended by a signal or a full disk leave no files behind; and the mode of files
//! that commands write.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use common::{Folder, command, eventually, finish};
use ray_zerocopy::jit::trace;
use ray_zerocopy::{Pipeline, share};
use rustix::process::{Pid, Signal, getuid, kill_process};

const RZC: &str = env!("CARGO_BIN_EXE_rzc");

/// A checkpoint of zeros that is large enough to interrupt packing it.
fn large(folder: &Folder) -> String {
    let bytes = 8_u64 << 30;
    let header = format!(r#"{{"w":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{bytes}]}}}}"#, bytes / 4);
    let path = folder.write("big.safetensors", &[&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat());
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(8 + header.len() as u64 + bytes).unwrap();
    path
}

/// Returns whether a process has a file of the folder open, other than the input.
fn writes(pid: u32, folder: &Path) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut names = files.filter_map(|file| Some((file.path(), fs::read_link(file.path()).ok()?)));
    names.any(|(file, name)| {
        let own = name.starts_with(folder) && !name.to_string_lossy().contains("big.safetensors");
        own && fs::metadata(file).is_ok_and(|file| file.len() > 1 << 20)
    })
}

fn ended_by(mut process: Command, folder: &Folder, signal: Signal) {
    let process = process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = process.spawn().unwrap();
    eventually("the file is being written", || writes(process.id(), folder.path()));
    kill_process(Pid::from_child(&process), signal).unwrap();
    let status = process.wait().unwrap();
    assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
}

#[test]
fn a_pack_that_is_interrupted_leaves_nothing_behind() {
    let folder = Folder::new();
    let input = large(&folder);
    // An existing file is kept until the new one is complete.
    folder.write("big.bpk", b"before");
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::KILL] {
        ended_by(command(&["pack", "--force", &input]), &folder, signal);
        assert_eq!(folder.names(), ["big.bpk", "big.safetensors"], "{signal:?}");
        assert_eq!(fs::read(folder.at("big.bpk")).unwrap(), b"before");
    }
}

/// An unnamed file can be linked only through /proc. Without /proc, files have temporary names.
#[test]
fn a_pack_that_is_interrupted_removes_a_file_that_has_a_name() {
    let permitted = Command::new("unshare").args(["-m", "true"]).status();
    if !permitted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: only root can hide /proc from a process");
        return;
    }
    let folder = Folder::new();
    let input = large(&folder);
    for signal in [Signal::INT, Signal::TERM] {
        let mut process = Command::new("unshare");
        process.args(["-m", "sh", "-c", "mount -t tmpfs none /proc && exec \"$0\" \"$@\"", RZC, "pack", &input]);
        let process = process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = process.spawn().unwrap();
        eventually("the file has a name", || folder.names().iter().any(|name| name.starts_with(".rzc-")));
        kill_process(Pid::from_child(&process), signal).unwrap();
        assert_eq!(process.wait().unwrap().signal(), Some(signal.as_raw()));
        assert_eq!(folder.names(), ["big.safetensors"], "{signal:?}");
    }
}

#[test]
fn a_signal_that_is_ignored_stays_ignored() {
    let folder = Folder::new();
    let input = folder.safetensors("model.safetensors", &common::checkpoint());
    let mut process = Command::new("sh");
    // As with `nohup`: signals arrive before the program has done anything, and at later times.
    process
        .args(["-c", "trap '' HUP; \"$0\" \"$@\" & for i in $(seq 100); do kill -HUP $! 2>/dev/null; done; wait $!"]);
    let done = finish(process.args([RZC, "pack", &input]));
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(folder.names(), ["model.bpk", "model.safetensors"]);
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let (folder, disk) = (Folder::new(), Folder::new());
    let mount = format!("mount -t tmpfs -o size=4m none {} && exec \"$0\" \"$@\"", disk.path().display());
    if !getuid().is_root() || !Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|s| s.success()) {
        eprintln!("skipped: only root can mount a file system");
        return;
    }
    let input = large(&folder);
    let list = format!("\"$0\" pack {input} -o {}; ls -A {}; exit 0", disk.at("big.bpk"), disk.path().display());
    let done = finish(Command::new("unshare").args(["-m", "sh", "-c", &mount, "sh", "-c", &list, RZC]));
    assert!(done.err.contains("No space left on device"), "{done:?}");
    assert_eq!(done.out, "");
}

#[derive(Pipeline)]
#[pipeline(init = Layer::new)]
struct Layer {
    layer: Linear,
}

impl Layer {
    fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(4, 3).init(device) }
    }
}

#[test]
fn whatever_is_written_has_the_mode_that_the_umask_leaves() {
    let folder = Folder::new();
    let at = |name: &str| folder.at(name);
    let device = Device::flex();
    let layer = Layer::new(&device);
    let graph = trace(&layer).input("x", Tensor::<2>::ones([2, 4], &device));
    let graph = graph.forward(|model, inputs| Ok(model.layer.forward(inputs.float::<2>("x")?))).unwrap();
    graph.save(at("model.rzg")).unwrap();
    share(&layer).unwrap().save(at("model.bpk")).unwrap();
    // Two rows of ones in numpy's format.
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4), }";
    let mut npy = [b"\x93NUMPY\x01\x00", &118_u16.to_le_bytes()[..], format!("{header:<117}\n").as_bytes()].concat();
    npy.extend([1.0_f32; 8].iter().flat_map(|one| one.to_le_bytes()));
    folder.write("x.npy", &npy);
    let umask = |arguments: &[&str]| {
        let mut shell = Command::new("sh");
        finish(shell.args(["-c", "umask 027; exec \"$0\" \"$@\"", RZC]).args(arguments)).well()
    };
    umask(&["run", &at("model.rzg"), "--input", &at("x.npy"), "--output", &at("y.npy")]);
    umask(&["graph", &at("model.rzg"), "--svg", &at("model.svg")]);
    umask(&["pack", &at("model.bpk"), "-o", &at("packed.bpk")]);
    for name in ["y.npy", "model.svg", "packed.bpk"] {
        assert_eq!(fs::metadata(at(name)).unwrap().permissions().mode() & 0o777, 0o640, "{name}");
    }
    // A pipe is written to and not replaced.
    let done = umask(&["graph", &at("model.rzg"), "--svg", "/dev/stdout"]);
    assert!(done.out.starts_with("<?xml") && done.out.contains("</svg>"), "{done:?}");
}
