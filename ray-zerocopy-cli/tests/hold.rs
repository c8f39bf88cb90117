//! `rzc hold`, `rzc ps` and `rzc drop`: arenas that are kept for other programs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use common::Stage;
use ray_zerocopy::Arena;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn held(stage: &Stage) -> Vec<Value> {
    stage.rzc(&["ps", "--json"]).well().json()["held"].as_array().unwrap().clone()
}

/// Starts `rzc hold`, and returns the lines that it prints first.
fn hold(stage: &Stage, arguments: &[&str], lines: usize) -> (Running, Vec<String>) {
    let mut command = stage.command(&[&["hold"], arguments].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let lines = out.lines().take(lines).map(Result::unwrap).collect();
    (Running(child), lines)
}

/// A process that is killed when dropped.
struct Running(Child);

impl Running {
    fn end(&mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
        let status = self.0.wait().unwrap();
        let mut errors = String::new();
        std::io::Read::read_to_string(&mut self.0.stderr.take().unwrap(), &mut errors).unwrap();
        (status.code(), errors)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn held_arenas_are_listed_and_dropped() {
    let stage = Stage::new();
    let (small, large) = (stage.files.arena("small.bpk", 8), stage.files.arena("large.bpk", 64));
    let (mut holder, lines) = hold(&stage, &[&small, &large], 2);
    assert!(lines[0].starts_with(&format!("{small}: kept, id ")) && lines[1].starts_with(&large), "{lines:?}");

    let both = held(&stage);
    assert_eq!(both.len(), 2);
    let of = |path: &str| both.iter().find(|held| held["source"] == path).unwrap();
    assert_eq!((&of(&small)["kept"], &of(&small)["pid"]), (&Value::Bool(true), &holder.0.id().into()));
    let table = stage.rzc(&["ps"]).well().out;
    assert!(table.contains("found by content:") && table.contains("kept for others"), "{table}");

    let done = stage.rzc(&["drop", &small]).well();
    assert!(done.out.starts_with(&format!("{small}: let go by process {}, id ", holder.0.id())), "{done:?}");
    assert_eq!(held(&stage).len(), 1);
    let id = of(&large)["id"].as_str().unwrap();
    stage.rzc(&["drop", &id[..12]]).well();
    assert_eq!(held(&stage), Vec::<Value>::new());
    let error = stage.rzc(&["drop", &small]);
    assert!(error.error().contains("no process keeps"), "{error:?}");

    assert_eq!(holder.end(Signal::TERM), (Some(0), String::new()));
    assert_eq!(stage.runtime.names(), Vec::<String>::new(), "it has removed its files");
}

#[test]
fn files_that_cannot_be_held_are_named() {
    let stage = Stage::new();
    let good = stage.files.arena("good.bpk", 8);
    let bad = stage.files.write("bad.bpk", b"nothing");
    let (mut holder, lines) = hold(&stage, &[&bad, &good], 1);
    assert!(lines[0].starts_with(&good), "{lines:?}");
    let (code, errors) = holder.end(Signal::INT);
    assert!(code == Some(2) && errors.contains("bad.bpk"), "{code:?} {errors}");

    let error = stage.rzc(&["hold", &bad]);
    assert!(error.error().contains("bad.bpk"), "{error:?}");
    let error = stage.rzc(&["hold", &good, "--limit", "1K"]);
    assert!(error.error().contains("0 of 1024 are kept already"), "{error:?}");
    assert_eq!(stage.rzc(&["hold", &good, "--limit", "much"]).code, Some(2));
}

#[test]
fn variants_are_held_with_their_base() {
    let stage = Stage::new();
    let base = stage.files.arena("base.bpk", 64);
    let opened = Arena::open(&base).unwrap();
    let [first, second] = ["first", "second"].map(|name| stage.files.variant(name, &opened, name));
    let (holder, lines) = hold(&stage, &[&first, &second, "--base", &base], 3);
    assert!(lines[0].starts_with(&base) && lines[2].starts_with(&second), "{lines:?}");
    let held = held(&stage);
    assert!(held.len() == 3 && held.iter().all(|held| held["kept"] == true), "{held:?}");
    // Another program gets the memory of the holder: there is one of each.
    let (other, _) = hold(&stage, &[&second, "--base", &base], 2);
    let shown = stage.rzc(&["ps", "--json"]).well().json();
    let maps = |arena: &Value, pid: u32| arena["processes"].as_array().unwrap().iter().any(|found| found["pid"] == pid);
    let arenas = || shown["arenas"].as_array().unwrap().iter().filter(|arena| maps(arena, holder.0.id()));
    assert_eq!((arenas().count(), arenas().filter(|arena| maps(arena, other.0.id())).count()), (3, 2), "{shown}");

    let error = stage.rzc(&["hold", &first]);
    assert!(error.error().contains("is a variant"), "{error:?}");
    let wrong = stage.files.arena("wrong.bpk", 64);
    let error = stage.rzc(&["hold", &first, "--base", &wrong]);
    assert!(error.err.contains("base") && error.code == Some(2), "{error:?}");
}

#[test]
fn least_recently_used_arena_goes_if_allowed() {
    let stage = Stage::new();
    let files = ["a", "b", "c"].map(|name| stage.files.arena(name, 64));
    let bytes = fs::metadata(&files[0]).unwrap().len();
    let limit = (bytes * 5 / 2).to_string();
    let arguments = [&files[0], &files[1], &files[2], "--limit", &limit, "--evict"];
    let (_holder, lines) = hold(&stage, &arguments, 3);
    assert!(lines[2].starts_with(&files[2]), "{lines:?}");
    let sources: Vec<_> = held(&stage).iter().map(|held| held["source"].as_str().unwrap().to_owned()).collect();
    assert_eq!(sources, files[1..]);
}
