//! Hot swap: new weights while calls go on, also if workers are killed meanwhile.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use burn::module::Param;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use clap::Parser;
use ray_zerocopy::arena::ArenaId;
use ray_zerocopy::{Arena, LocalPool, Pipeline, TaskWrapper, share};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// Serves calls, and moves to new weights again and again, without a failed call
///
/// Every generation of weights multiplies by another number, so each answer shows which weights it comes
/// from. It has to be those that the call names. With --kill, a worker is killed between two swaps, as the
/// out-of-memory killer would do it: its call runs again on another worker.
#[derive(Parser)]
#[command(after_help = "Try --kill, and --check: a check refuses every second generation.")]
struct Args {
    /// Number of swaps
    #[arg(long, default_value_t = 10)]
    swaps: u16,
    /// Number of worker processes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    workers: u8,
    /// Size of the weights in MiB
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    mib: u16,
    /// Kill a worker before each swap
    #[arg(long)]
    kill: bool,
    /// Check new weights by a call, which refuses every second generation
    #[arg(long)]
    check: bool,
}

/// Rows and columns of each layer: 1 MiB.
const SIZE: usize = 512;

#[derive(Pipeline)]
struct Scale {
    #[pipeline(config)]
    config: ScaleConfig,
    layers: Vec<Linear>,
    generation: u16,
}

#[derive(Clone, Serialize, Deserialize)]
struct ScaleConfig {
    layers: u16,
}

impl ScaleConfig {
    fn init(&self, device: &Device) -> Scale {
        let layer = |_| LinearConfig::new(SIZE, SIZE).with_bias(false).init(device);
        Scale { config: self.clone(), layers: (0..self.layers).map(layer).collect(), generation: 0 }
    }

    /// The weights of a generation: the first layer multiplies by its number.
    fn generation(&self, number: u16) -> Result<Arena> {
        let mut scale = self.init(&Device::flex());
        let unit = Tensor::<2>::eye(SIZE, &Device::flex());
        for (index, layer) in scale.layers.iter_mut().enumerate() {
            // The others differ from each other, since equal ones are stored once.
            let factor = if index == 0 { f32::from(number) } else { 1000.0 + index as f32 };
            layer.weight = Param::from_tensor(unit.clone() * factor);
        }
        scale.generation = number;
        Ok(share(&scale)?)
    }
}

#[ray_zerocopy::remote]
impl Scale {
    /// Multiplies by the number of the generation. Returns that number, too.
    pub fn scale(&self, x: f32) -> (f32, u16) {
        let rows = Tensor::<2>::full([1, SIZE], x, &Device::flex());
        let scaled = self.layers[0].forward(rows);
        (scaled.slice([0..1, 0..1]).into_scalar(), self.generation)
    }
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let args = Args::parse();
    let config = ScaleConfig { layers: args.mib };
    let pool = LocalPool::builder().workers(usize::from(args.workers)).threads_per_worker(1).start()?;
    let first = config.generation(1)?;
    let generations = Mutex::new(HashMap::from([(first.id(), 1_u16)]));
    let tasks = TaskWrapper::<Scale>::from_arena_on(&pool, first)?;

    let (is_over, answers, slowest) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Duration::ZERO));
    let served = std::thread::scope(|scope| -> Result<()> {
        let callers: Vec<_> = (0..4)
            .map(|caller| {
                let (tasks, generations) = (tasks.clone(), &generations);
                let (is_over, answers, slowest) = (&is_over, &answers, &slowest);
                scope.spawn(move || -> Result<()> {
                    while !is_over.load(Ordering::Acquire) {
                        let begun = Instant::now();
                        let call = tasks.scale(caller as f32);
                        let id = call.arena_id();
                        let (scaled, generation) = call.wait()?;
                        let named = id.and_then(|id| locked(generations).get(&id).copied());
                        ensure!(named == Some(generation), "an answer of generation {generation} names {named:?}");
                        ensure!(
                            scaled == caller as f32 * f32::from(generation),
                            "generation {generation} computes {scaled}"
                        );
                        answers.fetch_add(1, Ordering::Relaxed);
                        let mut slowest = locked(slowest);
                        *slowest = begun.elapsed().max(*slowest);
                    }
                    Ok(())
                })
            })
            .collect();
        let swapped = swap_all(&args, &config, &pool, &tasks, &generations);
        std::thread::sleep(Duration::from_millis(50));
        is_over.store(true, Ordering::Release);
        for caller in callers {
            caller.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        swapped
    });
    served?;
    let slowest = *locked(&slowest);
    println!("{} calls answered, none failed; each came from the weights that it names", answers.into_inner());
    println!("the slowest call took {slowest:.1?}");
    println!("{}", tasks.report()?);
    Ok(())
}

/// Makes one generation after the other, and swaps to it.
fn swap_all(
    args: &Args,
    config: &ScaleConfig,
    pool: &LocalPool,
    tasks: &TaskWrapper<Scale>,
    generations: &Mutex<HashMap<ArenaId, u16>>,
) -> Result<()> {
    for number in 2..2 + args.swaps {
        let arena = config.generation(number)?;
        locked(generations).insert(arena.id(), number);
        if args.kill
            && let Some(victim) = pool.workers().first()
            && let Some(pid) = Pid::from_raw(victim.pid as i32)
        {
            kill_process(pid, Signal::KILL)?;
            println!("worker {} was killed", victim.index);
        }
        let checked = tasks.swap_if(arena, |new| {
            let (scaled, _) = new.scale(1.0).wait()?;
            let refused = args.check && number % 2 == 1;
            if refused { Err(format!("{scaled} is an odd number").into()) } else { Ok(()) }
        });
        match checked {
            Ok(swapped) => println!("generation {number}: {swapped}"),
            Err(error) if args.check => println!("generation {number}: {error}"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A caller that has panicked is reported when it is joined.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
