//! Random deaths of makers, waiters and holders.

use std::time::Duration;

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
