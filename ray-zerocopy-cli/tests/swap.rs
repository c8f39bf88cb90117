//! `rzc swap`: new weights for running programs that follow a name.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use burn::module::Param;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use common::Stage;
use ray_zerocopy::{Arena, Pipeline, TaskWrapper, Threads, share};

const SIZE: usize = 64;

#[derive(Pipeline)]
#[pipeline(init = Model::new)]
struct Model {
    body: Linear,
    head: Linear,
}

#[ray_zerocopy::remote]
impl Model {
    #[remote(skip)]
    fn new(device: &Device) -> Self {
        let layer = |to| LinearConfig::new(SIZE, to).with_bias(false).init(device);
        Self { body: layer(SIZE), head: layer(1) }
    }

    /// One of the weights.
    pub fn value(&self) -> f32 {
        self.head.weight.val().slice([0..1, 0..1]).into_scalar()
    }

    /// Waits until a file exists.
    pub fn wait_for(&self, path: PathBuf) {
        while !path.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Another pipeline.
#[derive(Pipeline)]
#[pipeline(init = Other::new)]
struct Other {
    layer: Linear,
}

impl Other {
    fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(2, 2).init(device) }
    }
}

/// The start of the lines that a follower prints. The test harness prints others.
const MARK: &str = "follower: ";

/// The program that follows: this executable again, with the file, the name and a file to wait for in its
/// environment.
#[test]
fn role_of_a_follower() {
    let variable = |name: &str| std::env::var(format!("RZC_TEST_{name}"));
    let (Ok(file), Ok(name)) = (variable("FILE"), variable("NAME")) else { return };
    let arena = Arena::shared(&PathBuf::from(file), &Model::new(&Device::flex())).unwrap();
    let tasks = TaskWrapper::<Model>::from_arena_on(&Threads::new(2), arena).unwrap();
    let busy = variable("WAIT_FOR").map(|path| tasks.wait_for(path.into()));
    let following = tasks.follow(&name).unwrap();
    let (failed, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                failed.fetch_add(u64::from(tasks.value().wait().is_err()), Ordering::AcqRel);
            }
        });
        println!("{MARK}ready");
        for line in std::io::stdin().lines() {
            match line.unwrap().as_str() {
                "value" => {
                    let value = tasks.value().wait().unwrap();
                    println!("{MARK}{value} {} {}", tasks.arena().id().to_hex(), failed.load(Ordering::Acquire));
                }
                _ => break,
            }
        }
        is_over.store(true, Ordering::Release);
    });
    drop((following, busy));
}

/// A process that follows a name.
struct Follower {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    fn line(&mut self) -> String {
        self.output.find_map(|line| Some(line.unwrap().strip_prefix(MARK)?.to_owned())).expect("the follower runs")
    }

    /// One of its weights, the id of its arena, and the number of calls that have failed.
    fn state(&mut self) -> (String, String, String) {
        writeln!(self.input, "value").unwrap();
        let line = self.line();
        let parts: Vec<_> = line.split(' ').map(str::to_owned).collect();
        (parts[0].clone(), parts[1].clone(), parts[2].clone())
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The inodes of the arenas that it maps.
    fn maps(&self) -> BTreeSet<String> {
        let text = std::fs::read_to_string(format!("/proc/{}/maps", self.pid())).unwrap();
        let ours = text.lines().filter(|line| line.contains("/memfd:ray-zerocopy (deleted)"));
        ours.map(|line| line.split_whitespace().nth(4).unwrap().to_owned()).collect()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn start_follower(stage: &Stage, file: &str, name: &str, wait_for: Option<&Path>) -> Follower {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "role_of_a_follower", "--nocapture"]).env("XDG_RUNTIME_DIR", stage.runtime.path());
    command.env("RZC_TEST_FILE", file).env("RZC_TEST_NAME", name);
    if let Some(path) = wait_for {
        command.env("RZC_TEST_WAIT_FOR", path);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut follower = Follower { input: child.stdin.take().unwrap(), output, child };
    assert_eq!(follower.line(), "ready");
    follower
}

/// Saves a model whose head has a value.
fn save_model(stage: &Stage, value: u8) -> (Arena, String) {
    let mut model = Model::new(&Device::flex());
    model.head.weight = Param::from_tensor(Tensor::full([SIZE, 1], f32::from(value), &Device::flex()));
    let (arena, path) = (share(&model).unwrap(), stage.files.at(&format!("{value}.bpk")));
    arena.save(&path).unwrap();
    (arena, path)
}

#[test]
fn programs_that_follow_get_new_weights() {
    let stage = Stage::new();
    let ((_, old), (new, path)) = (save_model(&stage, 1), save_model(&stage, 2));
    let mut followers = [0; 2].map(|_| start_follower(&stage, &old, "speech", None));
    let mut other = start_follower(&stage, &old, "vision", None);
    let table = stage.rzc(&["ps"]).well().out;
    assert!(table.contains("following a name") && table.contains("vision"), "{table}");

    let done = stage.rzc(&["swap", "speech", &path]).well();
    assert!(done.out.starts_with(&format!("{path}: id {}, ", new.id())), "{done:?}");
    for follower in &mut followers {
        assert!(done.out.contains(&format!("process {}: ", follower.pid())), "{done:?}");
        assert_eq!(follower.state(), ("2".to_owned(), new.id().to_hex(), "0".to_owned()));
    }
    assert_eq!(other.state().0, "1");
    // One copy for both, although the program that made it has ended.
    let common: Vec<_> = followers[0].maps().intersection(&followers[1].maps()).cloned().collect();
    let shown = stage.rzc(&["ps", "--json"]).well().json();
    let inode = shown["arenas"].as_array().unwrap().iter().find(|arena| arena["id"] == new.id().to_hex());
    let inode = inode.unwrap()["inode"].as_u64().unwrap().to_string();
    assert!(common.contains(&inode), "{common:?} {inode}");
    assert_eq!(shown["followers"].as_array().unwrap().len(), 3);

    let json = stage.rzc(&["swap", "vision", &path, "--json"]).well().json();
    assert_eq!((&json["followers"][0]["swapped"], &json["followers"][0]["pid"]), (&true.into(), &other.pid().into()));
    assert_eq!(other.state().0, "2");
    drop(followers);
    let error = stage.rzc(&["swap", "speech", &path]);
    let text = "no program of this user follows `speech`, but some follow `vision`";
    assert!(error.error().contains(text), "{error:?}");
}

#[test]
fn variants_are_swapped_in_with_their_base() {
    let stage = Stage::new();
    let (base, path) = save_model(&stage, 1);
    let mut tuned = Model::new(&Device::flex());
    tuned.body = ray_zerocopy::load::<Model>(&base, &Device::flex()).unwrap().into_inner().body;
    tuned.head.weight = Param::from_tensor(Tensor::full([SIZE, 1], 3.0, &Device::flex()));
    let variant = base.variant(&tuned).unwrap();
    let file = stage.files.at("variant.bpk");
    variant.save_variant(&file).unwrap();
    let mut follower = start_follower(&stage, &path, "speech", None);
    let error = stage.rzc(&["swap", "speech", &file]);
    assert!(error.error().contains("base"), "{error:?}");
    stage.rzc(&["swap", "speech", &file, "--base", &path]).well();
    assert_eq!(follower.state(), ("3".to_owned(), variant.id().to_hex(), "0".to_owned()));
    // Its base is the memory that the follower had before.
    assert_eq!(follower.maps().len(), 2);
}

#[test]
fn followers_that_refuse_or_die_are_named() {
    let stage = Stage::new();
    let ((_, old), (_, new)) = (save_model(&stage, 1), save_model(&stage, 2));
    let wrong = stage.files.at("wrong.bpk");
    share(&Other::new(&Device::flex())).unwrap().save(&wrong).unwrap();
    let mut follower = start_follower(&stage, &old, "speech", None);
    let refused = stage.rzc(&["swap", "speech", &wrong]);
    let expected = format!("process {} keeps its weights: arena ", follower.pid());
    assert!(refused.code == Some(2) && refused.out.contains(&expected), "{refused:?}");
    assert!(refused.out.contains("1 of 1 follower keep") && refused.out.contains("Other"), "{refused:?}");
    assert_eq!(follower.state().0, "1");

    // Its worker that is busy cannot load the weights before it is killed.
    let never = stage.files.path().join("never");
    let busy = start_follower(&stage, &old, "speech", Some(&never));
    let swapping = stage.command(&["swap", "speech", &new]).stdout(Stdio::piped()).spawn().unwrap();
    while follower.state().0 != "2" {
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = busy.pid();
    drop(busy);
    let output = swapping.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(&format!("process {pid} keeps its weights: it has not answered")), "{text}");
    assert!(text.contains(&format!("process {}: ", follower.pid())), "{text}");
    // What the killed process has left is removed.
    assert_eq!(stage.rzc(&["ps", "--json"]).well().json()["followers"].as_array().unwrap().len(), 1);
}
