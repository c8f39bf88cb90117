//! Random deaths of makers, waiters and holders, and of programs that serve and swap.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Program, Source, Stage};

/// Numbers of a linear congruential generator.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn random_deaths_lose_nothing_and_leave_nothing() {
    let stage = Stage::new();
    let saved = [stage.saved("0.bpk", 64), stage.saved("1.bpk", 64)];
    let checkpoint = stage.checkpoint("2.safetensors", 64, 0.5);
    let sources = [Source::Path(saved[0].clone()), Source::File(saved[1].clone()), Source::Path(checkpoint.clone())];
    // What each of them contains, as a program of its own finds it.
    let expected = sources.clone().map(|source| {
        let (program, found) = stage.get(source);
        program.end();
        found.weight
    });
    let mut random = Random(0x5eed);
    let mut programs: Vec<(usize, Program)> = Vec::new();
    for round in 0..200 {
        let which = random.below(3) as usize;
        programs.push((which, stage.start(&stage.order(sources[which].clone()))));
        if programs.len() > 6 {
            let (which, victim) = programs.swap_remove(random.below(7) as usize);
            match random.below(3) {
                0 => {
                    assert_eq!(victim.found().unwrap().weight, expected[which], "round {round}");
                    victim.end();
                }
                // While it starts, waits, makes or holds.
                _ => victim.kill(),
            }
        }
        std::thread::sleep(Duration::from_millis(random.below(12)));
    }
    for (which, program) in programs {
        assert_eq!(program.found().unwrap().weight, expected[which]);
        program.end();
    }
    // The next program removes what killed ones have left.
    let (last, _) = stage.get(sources[0].clone());
    last.end();
    assert!(stage.left().is_empty(), "{:?}", stage.left());
}

/// The workers of a program.
fn workers(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    children.flat_map(|pids| pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

#[test]
fn random_deaths_while_programs_swap_lose_and_mix_nothing() {
    let stage = Stage::new();
    let saved: Vec<_> = (0..3).map(|number| stage.saved(&format!("{number}.bpk"), 64)).collect();
    let weights: BTreeMap<_, _> = saved
        .iter()
        .map(|path| {
            let (program, found) = stage.get(Source::File(path.clone()));
            program.end();
            (found.id, found.weight)
        })
        .collect();
    let mut random = Random(0xdead);
    let mut programs: Vec<(bool, Program)> = Vec::new();
    let mut swapped = 0;
    for round in 0..200 {
        let path = saved[random.below(3) as usize].clone();
        let (serves, source) = match random.below(8) {
            0 | 1 => (true, Source::Served(path)),
            2 => (false, Source::Kept(path)),
            3 => (false, Source::File(path)),
            _ => (false, Source::Swapped(path)),
        };
        swapped += u32::from(matches!(source, Source::Swapped(_)));
        let mut order = stage.order(source);
        order.weights = weights.clone();
        programs.push((serves, stage.start(&order)));
        if programs.len() > 6 {
            let (_, victim) = programs.swap_remove(random.below(7) as usize);
            match random.below(3) {
                0 => {
                    assert!(weights.contains_key(&victim.found().unwrap().id), "round {round}");
                    victim.end();
                }
                // The owner of a pool, while it serves, swaps or starts; or a maker, a waiter, a holder.
                _ => victim.kill(),
            }
        }
        // A worker of a program that serves.
        let serving = programs.iter().filter(|(serves, _)| *serves).map(|(_, program)| program.pid());
        let all: Vec<u32> = serving.flat_map(workers).collect();
        if let Some(pid) = all.get(random.below(all.len().max(1) as u64) as usize) {
            // It may have ended already.
            let _ = kill_process(Pid::from_raw(*pid as i32).unwrap(), Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(random.below(25)));
    }
    assert!(swapped > 50);
    for (_, program) in programs {
        assert!(weights.contains_key(&program.found().unwrap().id));
        // A program whose answers are those of other weights has failed.
        program.end();
    }
    let (last, _) = stage.get(Source::File(saved[0].clone()));
    last.end();
    assert!(stage.left().is_empty(), "{:?}", stage.left());
}
