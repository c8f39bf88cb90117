//! Which programs get the same memory, and which do not.

use std::collections::BTreeSet;

use ray_zerocopy_tests::memory::{eventually, is_alive, rollup};

use crate::program::{Source, Stage};

#[test]
fn programs_without_a_common_parent_share_one_file() {
    let stage = Stage::new();
    let path = stage.saved("model.bpk", 64);
    let orders = [stage.order(Source::Path(path.clone())), stage.order(Source::Path(path))];
    let found = orders.each_ref().map(|order| {
        stage.start_orphan(order);
        order.found().unwrap()
    });
    let parent = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix("PPid:\t").map(str::to_owned)).unwrap()
    };
    for found in &found {
        assert_ne!(parent(found.pid), std::process::id().to_string(), "it is not a child of this process");
    }
    assert_eq!(found[0].inode, found[1].inode);
    assert_eq!((&found[0].id, found[0].weight), (&found[1].id, found[1].weight));
    orders.iter().for_each(crate::program::Order::end);
    for found in &found {
        eventually("it ends", || !is_alive(found.pid));
    }
    eventually("nothing is left", || stage.left().is_empty() && !stage.runtime().join("ray-zerocopy").exists());
}

#[test]
fn ten_programs_at_once_make_one_arena() {
    let stage = Stage::new();
    const SIZE: usize = 2048;
    let path = stage.saved("model.bpk", SIZE);
    let programs: Vec<_> = (0..10)
        .map(|_| {
            let mut order = stage.order(Source::Path(path.clone()));
            order.size = SIZE;
            stage.start(&order)
        })
        .collect();
    let inodes: BTreeSet<u64> = programs.iter().map(|program| program.found().unwrap().inode).collect();
    assert_eq!(inodes.len(), 1);
    let model = (SIZE * SIZE * 4) as u64;
    for program in &programs {
        assert!(rollup(program.pid(), "Anonymous") < model, "it has a copy of its own");
    }
    assert_eq!(stage.left().iter().filter(|name| name.ends_with(".lock")).count(), 0);
    programs.into_iter().for_each(crate::program::Program::end);
    assert_eq!(stage.left(), BTreeSet::new());
}

#[test]
fn path_does_not_matter_for_a_saved_arena() {
    let stage = Stage::new();
    let path = stage.saved("model.bpk", 64);
    let copy = stage.folder.path().join("copy.bpk");
    std::fs::copy(&path, &copy).unwrap();
    let (_first, one) = stage.get(Source::Path(path));
    let (_second, other) = stage.get(Source::File(copy));
    assert_eq!(one.inode, other.inode);
    let (_third, different) = stage.get(Source::Path(stage.saved("other.bpk", 64)));
    assert_ne!(one.inode, different.inode);
}

#[test]
fn checkpoint_is_shared_by_what_is_done_to_it() {
    let stage = Stage::new();
    let path = stage.checkpoint("model.safetensors", 64, 0.5);
    let (_first, one) = stage.get(Source::Path(path.clone()));
    let (_second, same) = stage.get(Source::Path(path.clone()));
    assert_eq!((one.inode, one.weight), (same.inode, 0.5));
    let (_cast, cast) = stage.get(Source::Cast(path.clone()));
    assert_ne!(one.inode, cast.inode, "half precision");
    // The value of the copied field is in the arena, and comes from the program.
    let mut order = stage.order(Source::Path(path));
    order.label = "b".to_owned();
    let other = stage.start(&order);
    let found = other.found().unwrap();
    assert_ne!(found.inode, one.inode);
    assert_eq!((found.label.as_str(), one.label.as_str()), ("b", "a"));
}

#[test]
fn name_gives_what_the_first_program_shared() {
    let stage = Stage::new();
    let (_first, one) = stage.get(Source::Name("speech".to_owned()));
    let (_second, same) = stage.get(Source::Name("speech".to_owned()));
    assert_eq!((one.inode, one.weight), (same.inode, same.weight), "weights are random");
    let (_third, other) = stage.get(Source::Name("text".to_owned()));
    assert_ne!(one.inode, other.inode);
}

#[test]
fn other_pipeline_is_refused_by_name_of_the_difference() {
    let stage = Stage::new();
    let (_first, _) = stage.get(Source::Name("speech".to_owned()));
    let mut order = stage.order(Source::Name("speech".to_owned()));
    order.size = 32;
    let error = stage.start(&order).found().unwrap_err();
    let expected = "the arena of the name `speech` does not fit this pipeline: it has `layer.weight` as a float tensor \
                    of shape [64, 64], and the pipeline as a float tensor of shape [32, 32]";
    assert!(error.contains(expected), "{error}");
    // A saved arena of another pipeline too, also for the program that makes it.
    let mut order = stage.order(Source::Path(stage.saved("small.bpk", 16)));
    order.size = 32;
    let error = stage.start(&order).found().unwrap_err();
    assert!(error.contains("small.bpk does not fit this pipeline"), "{error}");
}
