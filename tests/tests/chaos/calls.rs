//! The calls of the chaos test.

use std::time::Duration;

use burn::tensor::{Device, Tensor};
use ray_zerocopy::error::SwapError;
use ray_zerocopy::{Actors, Arena, CallError, Error, Streaming, TaskWrapper};
use ray_zerocopy_tests::chaos::{BAD, ChaosModel, DEADLY, FalseLengthHint, SeededRng};

use crate::{Log, PATIENCE};

fn never(_: &CallError) -> bool {
    false
}

fn wire(error: &CallError) -> bool {
    matches!(error, CallError::Wire { .. })
}

fn late(error: &CallError) -> bool {
    matches!(error, CallError::Deadline { .. })
}

/// Makes calls that are put together. Some kill their worker, which must not cost the others an
/// answer.
pub(crate) fn batch(batched: &TaskWrapper<ChaosModel>, log: &Log, rng: &mut SeededRng) {
    let right =
        |x: u64| move |y: Result<u64, String>| if x == BAD { y.is_err() } else { y == Ok(x.wrapping_mul(3) + 1) };
    let hasty = batched.clone().deadline(Duration::from_millis(5));
    let calls: Vec<_> = (0..1 + rng.below(30))
        .map(|_| match rng.below(200) {
            0 => (DEADLY, false, batched.compute_rows_one(DEADLY)),
            1..10 => (BAD, false, batched.compute_rows_one(BAD)),
            10..20 => (7, true, hasty.compute_rows_one(7)),
            _ => {
                let x = rng.below(1 << 30);
                (x, false, batched.compute_rows_one(x))
            }
        })
        .collect();
    for (x, is_hasty, pending) in calls {
        match x {
            DEADLY => log.settle(rng, "batch: deadly row", pending, |_| false, never),
            x if is_hasty => log.settle(rng, "batch: hasty row", pending, right(x), late),
            x => log.settle(rng, "batch: row", pending, right(x), never),
        }
    }
}

/// Makes one random call of a task, and checks its answer.
pub(crate) fn task(tasks: &TaskWrapper<ChaosModel>, log: &Log, rng: &mut SeededRng) {
    let x = rng.below(1 << 30);
    match rng.below(100) {
        0..45 => log.settle(rng, "compute", tasks.compute(x), |y| y == 3 * x + 1, never),
        45..60 => {
            let len = [10, 5_000, 100_000, 1_000_000][rng.below(4) as usize];
            let pending = tasks.add_one(Tensor::full([len], x as f32, &Device::flex()));
            let right = |y: Tensor<1>| {
                let data = y.into_data();
                let numbers = data.as_slice::<f32>().unwrap();
                numbers.len() == len && numbers.iter().all(|&number| number == x as f32 + 1.0)
            };
            log.settle(rng, "add_one", pending, right, never);
        }
        60..70 => {
            let hasty = tasks.clone().deadline(Duration::from_millis(10));
            let millis = rng.below(20);
            log.settle(rng, "sleep", hasty.sleep(millis), |y| y == millis, late);
        }
        70..75 => {
            let panicked = |error: &CallError| matches!(error, CallError::Panicked { message, .. } if message.contains(&x.to_string()));
            log.settle(rng, "panic_sometimes", tasks.panic_sometimes(x), |_| false, panicked);
        }
        75..80 => {
            let len = (rng.below(4) as usize) << 20;
            log.settle(rng, "byte_count", tasks.byte_count(vec![7; len]), |y| y == len, never);
        }
        80..85 => log.settle(rng, "receive", tasks.receive(FalseLengthHint(vec![1, 2, 3])), |_| false, wire),
        85..90 => log.settle(rng, "secret", tasks.secret(), |_| false, wire),
        90..92 => log.settle(rng, "kill_worker", tasks.clone().attempts(2).kill_worker(), |()| false, never),
        92..94 => {
            let garbage = rng.garbage();
            let len = garbage.len();
            log.settle(rng, "send_garbage", tasks.send_garbage(garbage), |y| y == len, never);
        }
        // A burst of calls.
        _ => {
            let many: Vec<_> = (0..50).map(|n| (n, tasks.compute(n))).collect();
            many.into_iter().for_each(|(n, pending)| log.settle(rng, "burst", pending, |y| y == 3 * n + 1, never));
        }
    }
}

/// Makes one random call of an actor, and checks its answer.
pub(crate) fn actor(actors: &Actors<ChaosModel>, log: &Log, rng: &mut SeededRng) {
    let one = actors.actor(rng.below(actors.actor_count() as u64) as usize);
    match rng.below(10) {
        0..5 => log.settle(rng, "actor: count", one.count(), |calls| calls > 0, never),
        5..8 => {
            let x = rng.below(1000);
            log.settle(rng, "actor: compute", actors.compute(x), |y| y == 3 * x + 1, never);
        }
        8 => log.settle(
            rng,
            "actor: panic_sometimes",
            one.panic_sometimes(5),
            |_| false,
            |error| matches!(error, CallError::Panicked { .. }),
        ),
        _ => {
            let hasty = one.deadline(Duration::from_millis(15));
            log.settle(rng, "actor: sleep", hasty.sleep(10), |y| y == 10, late);
        }
    }
}

/// Reads a stream of a task or an actor: to its end, in part, or after it has cancelled it.
pub(crate) fn stream(tasks: &TaskWrapper<ChaosModel>, actors: &Actors<ChaosModel>, log: &Log, rng: &mut SeededRng) {
    let (start, count, large) = (rng.below(1 << 30), rng.below(200), rng.below(8) == 0);
    let buffer = 1 + rng.below(20) as usize;
    let (name, mut stream): (_, Streaming<(u64, Tensor<1>)>) = if rng.below(3) == 0 {
        ("actor: stream", actors.clone().stream_buffer(buffer).count_up(start, count, large))
    } else {
        ("stream", tasks.clone().stream_buffer(buffer).count_up(start, count, large))
    };
    let read = match rng.below(4) {
        0 => rng.below(count + 1),
        _ => u64::MAX,
    };
    let cancels_at = (rng.below(10) == 0).then(|| rng.below(count + 1));
    // Whether this thread receives the items.
    let reads_itself = rng.below(2) == 0;
    let mut next = 0;
    loop {
        if next == read {
            return log.note(&format!("{name}: dropped"));
        }
        if cancels_at == Some(next) {
            stream.cancel();
        }
        let item = if reads_itself {
            stream.next()
        } else {
            stream.next_timeout(PATIENCE).unwrap_or_else(|| panic!("{name} has no item after {PATIENCE:?}"))
        };
        match item {
            Some(Ok((number, tensor))) => {
                assert_eq!(number, start + next, "{name}: a wrong item");
                let (data, len) = (tensor.into_data(), if large { 100_000 } else { 10 });
                let numbers = data.as_slice::<f32>().unwrap();
                assert!(numbers.len() == len && numbers.iter().all(|&x| x == number as f32), "{name}: a wrong tensor");
                next += 1;
            }
            Some(Err(Error::Call(error))) => {
                log.check(name, &error, cancels_at.is_some(), never);
                assert!(stream.next().is_none(), "{name}: something follows the error");
                return log.note(&format!("{name}: {}", format!("{error:?}").split(' ').next().unwrap()));
            }
            Some(Err(error)) => panic!("{name}: an error of another kind, {error}"),
            None => {
                assert!(next == count, "{name}: {next} items instead of {count}");
                return log.note(&format!("{name}: answered"));
            }
        }
    }
}

/// Moves the tasks or the actors to other weights while everything else goes on.
pub(crate) fn swap(
    tasks: &TaskWrapper<ChaosModel>,
    actors: &Actors<ChaosModel>,
    arenas: &[Arena; 2],
    log: &Log,
    rng: &mut SeededRng,
) {
    let arena = arenas[rng.below(2) as usize].clone();
    let (what, swapped) = match rng.below(2) {
        0 => ("swap of tasks", tasks.swap(arena.clone())),
        _ => ("swap of actors", actors.swap_discarding_state(arena.clone())),
    };
    match swapped {
        Ok(swapped) => {
            assert_eq!(swapped.to, arena.id());
            log.note(&format!("{what}: done"));
        }
        Err(Error::Swap(SwapError::Worker { error })) => {
            log.check(what, &error, false, never);
            log.note(&format!("{what}: a worker could not load"));
        }
        Err(error) => panic!("{what}: an error of another kind, {error}"),
    }
    std::thread::sleep(Duration::from_millis(rng.below(60)));
}
