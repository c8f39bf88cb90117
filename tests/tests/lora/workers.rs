//! Adapters of workers, and their memory.

use std::collections::BTreeSet;
use std::fs;

use burn::module::{Lora, Module};
use burn::tensor::Device;
use ray_zerocopy::lora::Adapter;
use ray_zerocopy::{ActorWrapper, Arena, Checkpoint, TaskWrapper, Threads, share, share_from};
use ray_zerocopy_tests::memory::{arenas, eventually, mapped, rollup};

use crate::net::{Model, ModelConfig, difference, folder, results};

fn base() -> Arena {
    let checkpoint = Checkpoint::open(folder().join("base.safetensors")).unwrap().from_pytorch().rename("^", "net.");
    share_from(&ModelConfig::PEFT.init(&Device::flex()), &checkpoint.unwrap()).unwrap()
}

#[test]
fn adapters_come_and_go_in_running_actors() {
    let results = results();
    let actors = ActorWrapper::<Model>::from_arena(base()).spawn(2).unwrap();
    let pids = actors.workers().iter().map(|worker| worker.pid).collect::<BTreeSet<_>>();
    for name in ["plain", "patterns"] {
        let added: Vec<_> = actors.iter().map(|actor| actor.add(name.to_owned(), folder().join(name))).collect();
        let added: BTreeSet<u32> = added.into_iter().map(|call| call.wait().unwrap().unwrap()).collect();
        assert_eq!(added, pids);
    }
    // Calls with different adapters at once, on any actor.
    let names = ["plain", "patterns", "base"].repeat(8);
    let chosen = |name: &str| (name != "base").then(|| name.to_owned());
    let calls: Vec<_> = names.iter().map(|name| (name, actors.run(results["x"].clone(), chosen(name)))).collect();
    for (name, call) in calls {
        let found = call.wait().unwrap().unwrap();
        assert!(difference(&found, &results[*name]) < 1e-6, "{name}");
    }
    actors.actor(0).remove("plain".to_owned()).wait().unwrap().unwrap();
    let gone = actors.actor(0).run(results["x"].clone(), Some("plain".to_owned())).wait().unwrap();
    assert!(gone.unwrap_err().contains("there is no adapter `plain`"));
    // The other actor has it still, and the base is as it was.
    assert!(actors.actor(1).run(results["x"].clone(), Some("plain".to_owned())).wait().unwrap().is_ok());
    let found = actors.actor(0).run(results["x"].clone(), None).wait().unwrap().unwrap();
    assert!(difference(&found, &results["base"]) < 1e-6);
    assert_eq!(actors.actor(0).names().wait().unwrap(), ["patterns"]);
}

#[test]
fn tasks_open_an_adapter_on_its_first_use() {
    let results = results();
    let base = base();
    let threads = TaskWrapper::<Model>::from_arena_on(&Threads::new(2), base.clone()).unwrap();
    for tasks in [TaskWrapper::<Model>::from_arena(base).unwrap(), threads] {
        for name in ["plain", "patterns"].repeat(6) {
            let found = tasks.run_with(results["x"].clone(), folder().join(name)).wait().unwrap().unwrap();
            assert!(difference(&found, &results[name]) < 1e-6, "{name}");
        }
    }
}

#[test]
fn workers_share_the_memory_of_adapters() {
    const COUNT: usize = 12;
    let device = Device::flex();
    // Each adapter has 2 MiB: large beside the other memory of a worker.
    let config = ModelConfig { narrow: 2048, wide: 6144, is_column: false };
    let folder = tempfile::tempdir().unwrap();
    let pipeline = config.init(&device);
    let paths: Vec<_> = (0..COUNT)
        .map(|index| {
            // Untrained: the halves `a` are random, so the adapters differ.
            let net = pipeline.net.clone().apply_lora(Lora::new(32, 32.0));
            let path = folder.path().join(format!("{index}.bpk"));
            Adapter::from_module("net", &net, 1.0).unwrap().save(&path).unwrap();
            path
        })
        .collect();
    let bytes = paths.iter().map(|path| fs::metadata(path).unwrap().len()).sum::<u64>();
    assert!(bytes > 24 << 20, "{bytes}");
    let actors = ActorWrapper::<Model>::from_arena(share(&pipeline).unwrap()).spawn(4).unwrap();
    drop(pipeline);
    let pids: Vec<u32> = actors.workers().iter().map(|worker| worker.pid).collect();
    let before: Vec<_> = pids.iter().map(|&pid| (arenas(pid), rollup(pid, "Anonymous"))).collect();
    for (index, path) in paths.iter().enumerate() {
        let added: Vec<_> = actors.iter().map(|actor| actor.add(index.to_string(), path.clone())).collect();
        let added: BTreeSet<u32> = added.into_iter().map(|call| call.wait().unwrap().unwrap()).collect();
        assert_eq!(added.len(), 4);
    }
    let mut adapters = BTreeSet::new();
    for (&pid, (maps_before, private)) in pids.iter().zip(&before) {
        let new: BTreeSet<u64> = arenas(pid).difference(maps_before).copied().collect();
        assert_eq!(new.len(), COUNT, "an arena for each adapter");
        adapters.extend(new);
        let grown = rollup(pid, "Anonymous").saturating_sub(*private);
        assert!(grown < bytes / 4, "a worker has copies of its own: {grown}");
    }
    assert_eq!(adapters.len(), COUNT, "the same memory in all workers");
    let pss: u64 = pids
        .iter()
        .flat_map(|&pid| adapters.iter().flat_map(move |&inode| mapped(pid, inode)))
        .map(|mapping| mapping.figure("Pss"))
        .sum();
    assert!(pss <= bytes + (1 << 20), "{pss} {bytes}");

    // The memory returns with the last worker that has it.
    for index in 0..COUNT {
        for actor in actors.iter() {
            actor.remove(index.to_string()).wait().unwrap().unwrap();
        }
    }
    eventually("the memory of the adapters returns", || {
        pids.iter().all(|&pid| arenas(pid).is_disjoint(&adapters)) && arenas(std::process::id()).is_disjoint(&adapters)
    });
}
