//! `rzc ps` with processes that share an arena.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use burn::tensor::Device;
use common::{Column, Folder, Model, checkpoint, command, eventually, in_file, rzc};
use ray_zerocopy::{ActorWrapper, Arena, Checkpoint, share_from};
use serde_json::{Value, json};

/// Returns the entry of an arena in the output of `rzc ps`.
fn find(arena: &Arena) -> Option<Value> {
    let done = rzc(&["ps", "--json"]).well().json();
    let id = json!(arena.id().to_hex());
    done["arenas"].as_array().unwrap().iter().find(|found| found["id"] == id).cloned()
}

/// Returns the entry of this process among those that map an arena.
fn own(found: &Value) -> &Value {
    let processes = found["processes"].as_array().unwrap();
    processes.iter().find(|process| process["pid"] == json!(std::process::id())).unwrap()
}

#[test]
fn owner_and_workers_are_told_apart_and_cost_what_the_report_says() {
    let wrapper = ActorWrapper::new(&Model::of(512, &Device::flex())).unwrap();
    let actors = wrapper.spawn(3).unwrap();
    for actor in actors.iter() {
        assert!(actor.total().wait().unwrap() > 0.0);
    }
    let found = find(wrapper.arena()).unwrap();
    let report = actors.report().unwrap();

    assert_eq!((&found["sealed"], &found["path"], &found["error"]), (&json!(true), &json!(null), &json!(null)));
    assert_eq!(found["pipeline"], json!(wrapper.arena().pipeline()));
    assert_eq!(found["bytes"], json!(wrapper.arena().size_bytes()));
    // Other tests of this program start processes. Between fork and exec, the kernel shows them as
    // this program.
    let processes: Vec<_> = found["processes"].as_array().unwrap().iter().filter(|it| it["role"] != "other").collect();
    let roles: Vec<_> = processes.iter().map(|process| process["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["owner", "worker", "worker", "worker"]);
    assert_eq!(processes[0]["pid"], json!(std::process::id()));
    for (process, known) in processes[1..].iter().zip(&report.processes[1..]) {
        assert_eq!(process["pid"], json!(known.pid));
        assert_eq!(known.name, format!("worker {}", process["worker"]));
        // A worker has touched all weights, which are one megabyte.
        assert_eq!(process["shared"], json!(known.shared));
        assert!(known.shared >= 512 * 512 * 4, "{found}");
        assert!(process["saved"].as_u64().unwrap() > 0 && process["private"].as_u64().unwrap() > 0, "{found}");
        let program = std::env::current_exe().unwrap();
        assert_eq!(process["program"], json!(program.file_name().unwrap().to_str().unwrap()));
    }
    let table = rzc(&["ps"]).well().out;
    let title = format!("{}  id {}  ", wrapper.arena().pipeline(), wrapper.arena().id());
    assert!(table.contains(&title) && table.contains("worker 2") && table.contains(", sealed memory"), "{table}");

    let arena = wrapper.arena().id();
    actors.shut_down();
    drop((actors, wrapper));
    eventually("the arena is gone", || {
        let done = rzc(&["ps", "--json"]).well().json();
        done["arenas"].as_array().unwrap().iter().all(|found| found["id"] != json!(arena.to_hex()))
    });
}

#[test]
fn arenas_in_files_are_found_while_they_are_mapped() {
    let folder = Folder::new();
    let file = folder.arena("model.bpk", 64);
    let arena = Arena::open_placed(&file, in_file()).unwrap();
    let found = find(&arena).unwrap();
    assert_eq!((&found["path"], &found["sealed"]), (&json!(file), &json!(false)));
    let own = own(&found);
    assert_eq!((&own["role"], &own["worker"]), (&json!("other"), &json!(null)));
}

#[test]
fn files_beside_an_arena_are_part_of_what_is_shared() {
    let folder = Folder::new();
    let file = folder.safetensors("model.safetensors", &checkpoint());
    rzc(&["pack", &file]).well();
    let packed = Checkpoint::open(folder.at("model.bpk")).unwrap().from_pytorch().placement(in_file());
    let arena = share_from(&Column::new(&Device::flex()), &packed).unwrap();
    // Touches every page of the weights.
    let loaded = ray_zerocopy::load::<Column>(&arena, &Device::flex()).unwrap();
    let x = burn::tensor::Tensor::ones([1, 32], &Device::flex());
    assert_eq!(loaded.run(x).dims(), [1, 7]);

    // The container has only its table of contents.
    let found = find(&arena).unwrap();
    let shared = own(&found)["shared"].as_u64().unwrap();
    assert!(shared >= found["bytes"].as_u64().unwrap() + arena.borrowed_bytes() / 2, "{found}");
    // The memfd of such an arena lacks some of its weights, which `verify` reports. Its own bytes
    // can be verified.
    use std::os::fd::AsRawFd;
    let memory = format!("/proc/{}/fd/{}", std::process::id(), arena.fd().unwrap().as_raw_fd());
    assert!(rzc(&["pack", &memory, "-o", &folder.at("x.bpk")]).error().contains("borrows weights from"));
    assert!(rzc(&["verify", &memory]).well().out.contains("in other files, which have none"));
    rzc(&["diff", &memory, &memory]).well();

    // The packed checkpoint that it borrows from is mapped too, and is counted once.
    let listed = |path: &str| {
        let done = rzc(&["ps", "--json"]).well().json();
        done["arenas"].as_array().unwrap().iter().any(|found| found["path"] == json!(path))
    };
    eventually("a process that was just started by another test is its own", || !listed(&folder.at("model.bpk")));
    let alone = Arena::open_placed(folder.at("model.bpk"), in_file()).unwrap();
    drop((loaded, arena));
    eventually("without the arena that borrows from it, the file counts", || listed(&folder.at("model.bpk")));
    drop(alone);
}

/// A process that is killed when dropped.
struct Watch(Child);

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_watch_goes_on_until_it_is_ended() {
    let arena = ray_zerocopy::share(&Model::of(16, &Device::flex())).unwrap();
    let mut command = command(&["ps", "--watch", "0.1", "--json"]);
    let mut watch = Watch(command.stdout(Stdio::piped()).spawn().unwrap());
    let lines = BufReader::new(watch.0.stdout.take().unwrap()).lines();
    for line in lines.take(3) {
        let value: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let id = json!(arena.id().to_hex());
        assert!(value["arenas"].as_array().unwrap().iter().any(|found| found["id"] == id));
    }
    assert_eq!(rzc(&["ps", "--watch", "0"]).code, Some(2));
}
