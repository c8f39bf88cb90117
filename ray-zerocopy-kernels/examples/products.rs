//! Speed of the products of a row-major matrix with packed weights of each form, in GFLOP/s.
//!
//! ```console
//! $ cargo run --release -p ray-zerocopy-kernels --example products            # the best instructions
//! $ RAY_ZEROCOPY_ISA=avx2 RAYON_NUM_THREADS=1 cargo run --release -p ray-zerocopy-kernels --example products
//! ```
//!
//! All contestants compute the same product in turns, and the median of each one's durations counts. Each shape has
//! several weights, which are used one after the other: a model does not find the weight of a layer in the cache.

use std::time::{Duration, Instant};

use ray_zerocopy_kernels::{
    Epilogue, Isa, MOST_BLOCK, Packed, PackedBf16, PackedI4, PackedI8, QuantisedI4, QuantisedI8, linear, linear_bf16,
    linear_bf16_rounded, linear_i4, linear_i8, pack, pack_bf16, quantise_i4, quantise_i8,
};

/// Rows, depth and columns.
const SHAPES: [[usize; 3]; 6] =
    [[1, 4096, 4096], [8, 4096, 4096], [32, 4096, 4096], [128, 384, 1536], [512, 384, 384], [512, 1536, 384]];
/// Bytes of the `f32` weights of a shape together: more than the caches have.
const WEIGHTS: usize = 192 << 20;
/// For how long a shape is measured.
const DURATION: Duration = Duration::from_secs(2);

/// A weight in all forms.
struct Weight {
    shape: [usize; 2],
    f32: Vec<f32>,
    bf16: Vec<u16>,
    i8: QuantisedI8,
    i8_blocks: QuantisedI8,
    i4: QuantisedI4,
}

impl Weight {
    fn new([k, n]: [usize; 2], seed: usize) -> Self {
        let at = |row: usize, column: usize| ((row * n + column + seed) * 7919 % 2027) as f32 / 1013.5 - 1.0;
        Self {
            shape: [k, n],
            f32: pack(k, n, at),
            bf16: pack_bf16(k, n, at),
            i8: quantise_i8(k, n, MOST_BLOCK, at),
            i8_blocks: quantise_i8(k, n, 128, at),
            i4: quantise_i4(k, n, at),
        }
    }
}

type Product = fn(Isa, &[f32], &Weight, &mut [f32]);

/// The contestants. A weight that does not have its lengths would leave the result as it is.
const CONTESTANTS: [(&str, Product); 6] = [
    ("f32", |isa, x, weight, y| {
        let [k, n] = weight.shape;
        if let Some(packed) = Packed::new(&weight.f32, k, n) {
            linear(isa, x, &packed, &Epilogue::default(), y);
        }
    }),
    ("bf16", |isa, x, weight, y| {
        let [k, n] = weight.shape;
        if let Some(packed) = PackedBf16::new(&weight.bf16, k, n) {
            linear_bf16(isa, x, &packed, &Epilogue::default(), y);
        }
    }),
    ("bf16, rounded", |isa, x, weight, y| {
        let [k, n] = weight.shape;
        if let Some(packed) = PackedBf16::new(&weight.bf16, k, n) {
            linear_bf16_rounded(isa, x, &packed, &Epilogue::default(), y);
        }
    }),
    ("int8", |isa, x, weight, y| int8(isa, x, &weight.i8, weight.shape, MOST_BLOCK, y)),
    ("int8, blocks of 128", |isa, x, weight, y| int8(isa, x, &weight.i8_blocks, weight.shape, 128, y)),
    ("int4", |isa, x, weight, y| {
        if let Some(packed) = PackedI4::new(&weight.i4.panels, &weight.i4.scales, weight.shape) {
            linear_i4(isa, x, &packed, &Epilogue::default(), y);
        }
    }),
];

fn int8(isa: Isa, x: &[f32], weight: &QuantisedI8, shape: [usize; 2], block: usize, y: &mut [f32]) {
    if let Some(packed) = PackedI8::new(&weight.panels, &weight.scales, &weight.sums, shape, block) {
        linear_i8(isa, x, &packed, &Epilogue::default(), y);
    }
}

/// The median duration of each contestant.
fn measure(isa: Isa, [m, k, n]: [usize; 3]) -> Vec<Duration> {
    let count = (WEIGHTS / (k * n * 4)).clamp(1, 64);
    let weights: Vec<_> = (0..count).map(|seed| Weight::new([k, n], seed)).collect();
    let x: Vec<f32> = (0..m * k).map(|at| (at * 104_729 % 1999) as f32 / 999.5 - 1.0).collect();
    let mut y = vec![0.0; m * n];
    let mut durations = vec![Vec::new(); CONTESTANTS.len()];
    let begin = Instant::now();
    while begin.elapsed() < DURATION {
        for (durations, (_, product)) in durations.iter_mut().zip(CONTESTANTS) {
            let begin = Instant::now();
            weights.iter().for_each(|weight| product(isa, &x, weight, &mut y));
            durations.push(begin.elapsed() / count as u32);
        }
    }
    let median = |mut all: Vec<Duration>| {
        all.sort();
        all[all.len() / 2]
    };
    durations.into_iter().map(median).collect()
}

fn main() {
    let isa = Isa::best();
    println!("{isa}, {} threads", rayon::current_num_threads());
    for shape @ [m, k, n] in SHAPES {
        println!("{m} × {k} × {n}");
        let durations = measure(isa, shape);
        for ((name, _), duration) in CONTESTANTS.iter().zip(&durations) {
            let rate = 2e-9 * (m * k * n) as f64 / duration.as_secs_f64();
            let times = durations[0].as_secs_f64() / duration.as_secs_f64();
            println!("  {name:20} {rate:8.1} GFLOP/s {:9.1} µs  {times:5.2} × f32", duration.as_secs_f64() * 1e6);
        }
    }
}
