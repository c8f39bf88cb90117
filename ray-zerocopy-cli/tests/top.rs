//! `rzc top`: the status of running programs, as a table, as JSON, and in a terminal.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use common::Stage;
use ray_zerocopy::{LocalPool, Pipeline, TaskWrapper, observe};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

#[derive(Pipeline)]
#[pipeline(init = Model::new)]
struct Model {
    layer: Linear,
}

#[ray_zerocopy::remote]
impl Model {
    #[remote(skip)]
    fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(64, 64).init(device) }
    }

    /// Doubles a number.
    pub fn double(&self, number: u32) -> u32 {
        2 * number
    }

    /// Panics.
    pub fn fail(&self) {
        assert_eq!(self.layer.weight.dims()[0], 0, "asked to panic");
    }
}

/// The program that is observed: this executable again, with the name in its environment. It makes calls
/// until its standard input ends.
#[test]
fn role_of_a_service() {
    let Ok(name) = std::env::var("RZC_TEST_SERVICE") else { return };
    let pool = LocalPool::builder().workers(2).threads_per_worker(1).start().unwrap();
    let tasks = TaskWrapper::on(&pool, &Model::new(&Device::flex())).unwrap();
    let published = observe::publish(&name).unwrap();
    assert!(tasks.fail().wait().is_err());
    assert_eq!(tasks.double(21).wait().unwrap(), 42);
    println!("\nservice: ready");
    let (end, ended) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        drop(end);
    });
    while let Err(mpsc::TryRecvError::Empty) = ended.try_recv() {
        tasks.double(1).wait().unwrap();
    }
    drop(published);
}

/// A running service. It ends when this is dropped.
struct Service {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Service {
    fn start(stage: &Stage, name: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "role_of_a_service", "--nocapture"]).env("RZC_TEST_SERVICE", name);
        command.env("XDG_RUNTIME_DIR", stage.runtime.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "service: ready"), "the service starts");
        // The harness prints its result there.
        std::thread::spawn(move || lines.for_each(drop));
        let stdin = child.stdin.take();
        Self { child, stdin }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let status = self.child.wait().unwrap();
        assert!(status.success() || std::thread::panicking(), "{status}");
    }
}

#[test]
fn state_is_printed_once() {
    let stage = Stage::new();
    let empty = stage.rzc(&["top", "--once"]).well();
    assert!(empty.out.starts_with("no program of this user publishes its status: "), "{empty:?}");
    assert_eq!(stage.rzc(&["top", "--json"]).well().json()["services"].as_array().map(Vec::len), Some(0));

    let service = Service::start(&stage, "speech\x1b[2J");
    let table = stage.rzc(&["top", "--once"]).well().out;
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let row = |method: &str| words.iter().find(|row| row.contains(&method)).unwrap_or_else(|| panic!("{table}"));
    // The control character in the name does not reach the terminal.
    assert_eq!(row("double")[..5], ["speech", "[2J", "Model", "current", "#0"], "{table}");
    assert!(row("fail").contains(&"current"));
    assert_eq!(row("owner")[..4], ["speech", "[2J", "Model", "owner"], "{table}");
    assert!(table.contains("worker 1") && table.contains("saved by sharing"), "{table}");

    let report = stage.rzc(&["top", "--json"]).well().json();
    let [found] = &report["services"].as_array().unwrap()[..] else { panic!("{report:#}") };
    assert_eq!((found["pid"].as_u64(), found["error"].is_null()), (Some(service.child.id().into()), true));
    let model = &found["status"]["models"][0];
    assert_eq!((&model["engine"], &model["workers"]), (&"local".into(), &2.into()), "{report:#}");
    let methods = model["generations"][0]["methods"].as_array().unwrap();
    let outcomes = |name: &str| &methods.iter().find(|method| method["method"] == name).unwrap()["outcomes"];
    assert_eq!(outcomes("fail")["panicked"], 1);
    assert!(outcomes("double")["ok"].as_u64().unwrap() >= 1);

    drop(service);
    assert!(stage.rzc(&["top", "--once"]).well().out.starts_with("no program"), "it has ended");
}

#[test]
fn output_that_is_no_terminal_is_an_error() {
    let stage = Stage::new();
    let done = stage.rzc(&["top"]);
    assert!(done.error().contains("standard output is not a terminal; `--once` prints a table"), "{done:?}");
}

/// The characters that a terminal gets, until they contain all of these texts.
fn read_until(terminal: &mut File, texts: &[&str]) -> String {
    let (mut screen, mut buffer) = (String::new(), [0; 4096]);
    while !texts.iter().all(|text| screen.contains(text)) {
        let read = terminal.read(&mut buffer).expect("`rzc top` is running");
        screen += &String::from_utf8_lossy(&buffer[..read]);
    }
    screen
}

#[test]
fn terminal_shows_a_service_until_a_key() {
    let stage = Stage::new();
    let _service = Service::start(&stage, "speech");
    let owner = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&owner).unwrap();
    unlockpt(&owner).unwrap();
    tcsetwinsize(&owner, Winsize { ws_row: 30, ws_col: 150, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let path = ptsname(&owner, Vec::new()).unwrap();
    let open = || File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap();
    let mut command = stage.command(&["top", "--interval", "0.1"]);
    let mut top = command.stdin(open()).stdout(open()).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    let mut terminal = File::from(owner);
    // Words alone: empty cells are skipped when the screen is drawn.
    let screen = read_until(&mut terminal, &["calls/s", "double", "worker", "quits"]);
    // The alternate screen, which leaves the shell's lines as they were.
    assert!(screen.contains("\x1b[?1049h"), "{screen:?}");
    terminal.write_all(b"q").unwrap();
    read_until(&mut terminal, &["\x1b[?1049l"]);
    assert!(top.wait().unwrap().success());
}
