//! Clusters of two nodes: two raylets on one machine, each with its own store. The tests cover
//! transfers between them, and the removal of one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use burn::tensor::{Device, Distribution, Tensor};
use ray_zerocopy::ray::{Cluster, Options, RayError};
use ray_zerocopy::{ActorWrapper, CallError, Error, TaskWrapper};
use ray_zerocopy_tests::memory::eventually;
use ray_zerocopy_tests::models::{TestModel, TestModelConfig};
use ray_zerocopy_tests::process_tree::{ProcessTree, ROLE, again};

/// Rows and columns of a model of 64 MiB.
const SIZE: usize = 4096;
const MODEL: u64 = (SIZE * SIZE * 4) as u64;
const ADDRESS: &str = "RAY_ZEROCOPY_TEST_ADDRESS";

/// A script that runs two nodes and answers requests of a test. The nodes end with the script.
const SCRIPT: &str = r#"
import json, sys
import ray
from ray.cluster_utils import Cluster

node = dict(num_cpus=4, object_store_memory=300 << 20, include_dashboard=False)
cluster = Cluster(initialize_head=True, head_node_args=dict(node, resources={"first": 1}))
del node["include_dashboard"]
second = cluster.add_node(**node, resources={"second": 1})
cluster.wait_for_nodes()
ray.init(cluster.address, log_to_driver=False, logging_level="warning")
print("ANSWER", json.dumps(cluster.address), flush=True)
for line in sys.stdin:
    if line == "remove\n":
        cluster.remove_node(second, allow_graceful=False)
        print("ANSWER", json.dumps(None), flush=True)
ray.shutdown()
cluster.shutdown()
"#;

struct Nodes {
    script: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// The Python of the environment that the library would find.
fn python() -> PathBuf {
    let named = ["RAY_ZEROCOPY_PYTHON", "VIRTUAL_ENV"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home).unwrap();
    let environments = named.chain([cache.join("ray-zerocopy/ray-env")]);
    let mut found = environments.map(|prefix| prefix.join("bin/python")).filter(|python| python.exists());
    found.next().unwrap_or_else(|| PathBuf::from("python3"))
}

impl Nodes {
    fn start() -> (Self, String) {
        let mut script = Command::new(python());
        script.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped());
        script.env("RAY_ZEROCOPY_KEEP_SECONDS", "1");
        let mut script = script.spawn().unwrap();
        let answers = BufReader::new(script.stdout.take().unwrap());
        let mut nodes = Self { questions: script.stdin.take(), script, answers };
        let address = nodes.answer();
        (nodes, address)
    }

    fn answer<T: serde::de::DeserializeOwned>(&mut self) -> T {
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the script has ended");
            if let Some((_, answer)) = line.split_once("ANSWER ") {
                return serde_json::from_str(answer).unwrap();
            }
        }
    }

    fn ask<T: serde::de::DeserializeOwned>(&mut self, question: &str) -> T {
        writeln!(self.questions.as_ref().unwrap(), "{question}").unwrap();
        self.answer()
    }

    fn end(mut self) {
        drop(self.questions.take());
        assert!(self.script.wait().unwrap().success());
    }
}

/// Sends a request of the driver to its parent process, which runs the script.
fn ask<T: serde::de::DeserializeOwned>(question: &str) -> T {
    println!("QUESTION {question}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

/// Starts two nodes and a driver, and forwards the driver's requests to the script.
fn play(role: &str) {
    let tree = ProcessTree::exclusive();
    let (mut nodes, address) = Nodes::start();
    let mut driver = again(role);
    let mut driver = driver.env(ADDRESS, &address).stderr(Stdio::inherit()).spawn().unwrap();
    let mut input = driver.stdin.take().unwrap();
    for line in BufReader::new(driver.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.split_once("QUESTION ") {
            Some((_, question)) => {
                let answer: serde_json::Value = nodes.ask(question);
                writeln!(input, "{answer}").unwrap();
            }
            None => println!("{line}"),
        }
    }
    let status = driver.wait().unwrap();
    nodes.end();
    assert!(status.success(), "{status}");
    tree.wait_until_gone();
}

fn address() -> String {
    std::env::var(ADDRESS).unwrap()
}

/// The node ids.
fn ids(cluster: &Cluster) -> [String; 2] {
    let nodes = cluster.nodes().unwrap();
    ["first", "second"].map(|name| {
        let mut own = nodes.iter().filter(|node| node.is_alive && node.resources.contains_key(name));
        own.next().unwrap_or_else(|| panic!("no {name} node in {nodes:?}")).id.clone()
    })
}

fn model() -> TestModel {
    TestModelConfig::new(SIZE).init(&Device::flex())
}

fn input() -> Tensor<2> {
    Tensor::random([4, SIZE], Distribution::Default, &Device::flex())
}

/// Peak size in bytes of the store that a process has mapped. The file of a store never shrinks.
fn store_of(pid: u32) -> u64 {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut areas = maps.lines().filter(|line| line.contains("plasma"));
    let inode: u64 = areas.next().expect("the store is mapped").split_whitespace().nth(4).unwrap().parse().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut files = processes.filter_map(|entry| std::fs::read_dir(entry.path().join("fd")).ok()).flatten().flatten();
    let file = files.find_map(|fd| {
        let named = std::fs::read_link(fd.path()).is_ok_and(|file| file.to_string_lossy().contains("plasma"));
        named.then(|| std::fs::metadata(fd.path()).ok()).flatten().filter(|file| file.ino() == inode)
    });
    file.expect("the store is a file of its raylet").blocks() * 512
}

fn crossing(cluster: &Cluster) {
    let [first, second] = ids(cluster);
    let (model, input) = (model(), input());
    let here = model.forward(input.clone()).into_data();

    let on = |id: &str| cluster.with(Options::default().cpus(0.5).node(id));
    let wrapper = ActorWrapper::on(&on(&second), &model).unwrap();
    let actors = wrapper.spawn(3).unwrap();
    for actor in actors.iter() {
        assert_eq!(actor.forward(input.clone()).wait().unwrap().into_data(), here);
    }
    for worker in &actors.report().unwrap().processes[1..] {
        assert_eq!(worker.copied, 0, "{worker:?}");
    }
    // Three actors on the second node share one copy.
    for (node, pid) in [("first", std::process::id()), ("second", actors.actor(2).pid().wait().unwrap())] {
        let bytes = store_of(pid);
        println!("the store of the {node} node: {} KiB, and the model has {} KiB", bytes >> 10, MODEL >> 10);
        assert!((MODEL..MODEL + MODEL / 8).contains(&bytes), "{bytes}");
    }

    for id in [&first, &second] {
        let tasks = TaskWrapper::on(&on(id), &model).unwrap();
        assert_eq!(tasks.forward(input.clone()).wait().unwrap().into_data(), here);
        let actors = ActorWrapper::on(&on(id), &model).unwrap().spawn(1).unwrap();
        assert_eq!(actors.forward(input.clone()).wait().unwrap().into_data(), here);
    }
}

/// Weights that actors of another node borrowed are freed on this node too, after their last handle
/// is dropped.
fn released() {
    let cluster = Cluster::at(&address()).quiet().start().unwrap();
    let [_, second] = ids(&cluster);
    let (before, _) = cluster.store().unwrap();
    let wrapper = ActorWrapper::on(&cluster.with(Options::default().cpus(0.5).node(&second)), &model()).unwrap();
    let actors = wrapper.spawn(3).unwrap();
    actors.iter().for_each(|actor| drop(actor.forward(input()).wait().unwrap()));
    let taken = || before.saturating_sub(cluster.store().unwrap().0);
    eventually("the store counts the model", || taken() >= MODEL);
    drop((actors, wrapper));
    eventually("the store has the room again", || taken() < MODEL / 8);
}

fn removal() {
    let cluster = Cluster::at(&address()).quiet().start().unwrap();
    let [first, second] = ids(&cluster);
    let (model, input) = (model(), input());
    let here = model.forward(input.clone()).into_data();

    // One actor on each node. The actor whose node is removed has room on the other node.
    let spread = ActorWrapper::on(&cluster.with(Options::default().cpus(1.5).spread()), &model).unwrap();
    let actors = spread.spawn(2).unwrap();
    let fixed = ActorWrapper::on(&cluster.with(Options::default().cpus(0.1).node(&second)), &model).unwrap();
    let fixed = fixed.spawn(1).unwrap();
    let tasks = TaskWrapper::on(&cluster.with(Options::default().cpus(0.1).node(&second)), &model).unwrap();
    assert_eq!(tasks.forward(input.clone()).wait().unwrap().into_data(), here);
    let pids: Vec<_> = actors.iter().map(|actor| actor.pid().wait().unwrap()).collect();
    let sleeping: Vec<_> = actors.iter().map(|actor| actor.sleep(20_000)).collect();
    let lost = fixed.sleep(600_000);
    std::thread::sleep(std::time::Duration::from_millis(500));

    let () = ask("remove");
    let error = lost.wait().unwrap_err();
    println!("the call of an actor of the node: {error}");
    let Error::Call(CallError::WorkerDied { method, worker, is_actor: true, .. }) = &error else { panic!("{error}") };
    assert_eq!((method.as_str(), worker.index), ("sleep", 0));

    // The call of the actor on the removed node is lost, and the other call is not.
    let outcomes: Vec<_> = sleeping.into_iter().map(|sleep| sleep.wait()).collect();
    let failed: Vec<_> =
        outcomes.iter().enumerate().filter_map(|(index, outcome)| Some((index, outcome.as_ref().err()?))).collect();
    let [(index, error)] = failed.as_slice() else { panic!("{outcomes:?}") };
    println!("the call of the actor that moves: {error}");
    let Error::Call(CallError::WorkerDied { worker, .. }) = error else { panic!("{error}") };
    assert_eq!((worker.index, worker.pid), (*index, pids[*index]));

    // The actor restarts on the first node with its weights.
    let back = actors.actor(*index).pid().wait().unwrap();
    assert!(!pids.contains(&back));
    for actor in actors.iter() {
        assert_eq!(actor.forward(input.clone()).wait().unwrap().into_data(), here);
    }
    // Calls that are pinned to the second node fail.
    let error = fixed.pid().wait().unwrap_err();
    println!("a call for an actor without a node: {error}");
    assert!(matches!(&error, Error::Call(CallError::Ray { .. } | CallError::Start(_))), "{error}");
    let error = tasks.pid().wait().unwrap_err();
    println!("a task without a node: {error}");
    assert!(matches!(&error, Error::Call(CallError::Ray { .. })), "{error}");
    let other = TaskWrapper::on(&cluster.with(Options::default().cpus(0.1).node(&first)), &model).unwrap();
    assert_eq!(other.forward(input).wait().unwrap().into_data(), here);
}

fn shipped() {
    let cluster = Cluster::at(&address()).quiet().upload_executable(true).start().unwrap();
    fn program((): ()) -> String {
        std::env::current_exe().unwrap().display().to_string()
    }
    for id in ids(&cluster) {
        let options = Options::default().cpus(0.1).node(&id);
        let program = cluster.task(program as fn(()) -> String).options(options).remote(()).unwrap().get().unwrap();
        assert_ne!(Path::new(&program), std::env::current_exe().unwrap());
        assert!(program.ends_with("/program"), "{program}");
    }
    crossing(&cluster);
}

/// A cluster and its store keep running after a driver has left.
fn afterlife() {
    let cluster = Cluster::at(&address()).quiet().start().unwrap();
    let wrapper = ActorWrapper::on(&cluster, &model()).unwrap();
    let arena = wrapper.arena().clone();
    let error = cluster.shut_down().unwrap_err();
    assert!(matches!(&error, RayError::StoreInUse { objects: 1, .. }), "{error}");
    let heap: Vec<_> = (0..6_u8).map(|n| cluster.put(&vec![n; 40 << 20]).unwrap()).collect();
    arena.verify().unwrap();
    drop((heap, arena, wrapper));
    cluster.shut_down().unwrap();
    drop(cluster);

    // The only remaining reference to the cluster is a result in its store.
    let cluster = Cluster::at(&address()).quiet().start().unwrap();
    let (model, input) = (model(), Tensor::<2>::random([200, SIZE], Distribution::Default, &Device::flex()));
    let there = TaskWrapper::on(&cluster, &model).unwrap().forward(input.clone()).wait().unwrap();
    drop(cluster);
    let error = Cluster::at(&address()).quiet().start().unwrap_err();
    assert!(matches!(&error, RayError::StoreInUse { .. }), "{error}");
    assert_eq!(there.into_data(), model.forward(input).into_data());
    let cluster = Cluster::at(&address()).quiet().start().unwrap();
    assert_eq!(cluster.nodes().unwrap().iter().filter(|node| node.is_alive).count(), 2);
}

/// Not a test of its own: the drivers that the tests below start.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.as_str() {
        "crossing" => crossing(&Cluster::at(&address()).quiet().start().unwrap()),
        "released" => released(),
        "removal" => removal(),
        "shipped" => shipped(),
        "afterlife" => afterlife(),
        other => panic!("{other}"),
    }
}

#[test]
fn weights_are_transferred_once_per_node() {
    play("crossing");
}

#[test]
fn weights_of_remote_actors_are_freed() {
    play("released");
}

#[test]
fn a_program_that_is_shipped_runs_on_each_node() {
    play("shipped");
}

#[test]
fn actors_of_a_removed_node_restart_elsewhere() {
    play("removal");
}

#[test]
fn borrowed_weights_outlive_the_connection() {
    play("afterlife");
}

/// Runs the example with the real model. It checks that the embeddings of both nodes are
/// bit-identical with those of local workers.
#[test]
fn example_gives_same_embeddings_on_two_nodes() {
    let tree = ProcessTree::exclusive();
    let (nodes, address) = Nodes::start();
    // Cargo puts examples next to the folder of this test.
    let test = std::env::current_exe().unwrap();
    let example = test.ancestors().nth(2).unwrap().join("examples/ray_semantic_search");
    assert!(example.exists(), "{}: `cargo build --workspace --features ray --examples` builds it", example.display());
    let mut example = Command::new(example);
    let output = example.args(["--address", &address, "--actors", "2", "--spread", "--check"]).output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("with 2 nodes") && text.contains("bit for bit"), "{text}");
    nodes.end();
    tree.wait_until_gone();
}

#[test]
fn unreachable_address_is_an_error() {
    let error = Cluster::at("127.0.0.1:1").quiet().start().unwrap_err();
    assert!(matches!(&error, RayError::Connect { address, .. } if address == "127.0.0.1:1"), "{error}");
}
