//! LoRA adapters of actors on Ray.

use std::collections::BTreeSet;

use ray_zerocopy::{ActorWrapper, Checkpoint, share_from};
use ray_zerocopy_tests::memory;

use crate::net::{Model, ModelConfig, difference, folder, results};
use crate::site;

#[test]
fn actors_of_a_node_share_an_adapter() {
    let results = results();
    let checkpoint = Checkpoint::open(folder().join("base.safetensors")).unwrap().from_pytorch().rename("^", "net.");
    let base = ModelConfig::PEFT.init(&burn::tensor::Device::flex());
    let base = share_from(&base, &checkpoint.unwrap()).unwrap();
    let actors = ActorWrapper::<Model>::from_arena_on(&site(), base).unwrap().spawn(2).unwrap();
    let mut pids = BTreeSet::new();
    for name in ["plain", "patterns"] {
        for actor in actors.iter() {
            pids.insert(actor.add(name.to_owned(), folder().join(name)).wait().unwrap().unwrap());
        }
    }
    for name in ["plain", "patterns", "base"].repeat(4) {
        let chosen = (name != "base").then(|| name.to_owned());
        let found = actors.run(results["x"].clone(), chosen).wait().unwrap().unwrap();
        assert!(difference(&found, &results[name]) < 1e-6, "{name}");
    }
    // The base is in the store, and the adapters in sealed memory that the actors found by its content.
    let arenas: Vec<_> = pids.iter().map(|&pid| memory::arenas(pid)).collect();
    assert!(arenas.len() == 2 && arenas[0].len() == 2 && arenas[0] == arenas[1], "{arenas:?}");
}
