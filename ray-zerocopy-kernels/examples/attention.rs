//! Speed of the attention of several shapes, in µs of a call and GFLOP/s of both products.
//!
//! ```console
//! $ RAYON_NUM_THREADS=1 cargo run --release -p ray-zerocopy-kernels --example attention
//! $ RAY_ZEROCOPY_ISA=avx2 RAYON_NUM_THREADS=1 cargo run --release -p ray-zerocopy-kernels --example attention -- 8x12
//! ```
//!
//! An argument selects the cases whose names contain it. Two figures are printed for each: the median of the durations,
//! and the mean of the time that the processor computed for this thread, which does not contain the time in which other
//! programs had it. Each case has several inputs, which are used one after the other, like the layers of a model.

use std::time::{Duration, Instant};

use ray_zerocopy_kernels::{Heads, Isa, Mask, attention};

/// Name, and batch, rows of `q`, keys, heads, width.
const CASES: [(&str, [usize; 5]); 11] = [
    ("MiniLM 8x128", [8, 128, 128, 12, 32]),
    ("MiniLM 1x128", [1, 128, 128, 12, 32]),
    ("MiniLM 32x16", [32, 16, 16, 12, 32]),
    ("MiniLM 8x12", [8, 12, 12, 12, 32]),
    ("MiniLM 1x12", [1, 12, 12, 12, 32]),
    ("MiniLM 1x512", [1, 512, 512, 12, 32]),
    ("BERT 2x128", [2, 128, 128, 12, 64]),
    ("BERT 8x16", [8, 16, 16, 12, 64]),
    ("large BERT 1x512", [1, 512, 512, 16, 64]),
    ("decoder 1x256", [1, 256, 256, 8, 128]),
    ("decoder 1 of 256", [1, 1, 256, 8, 128]),
];
/// Inputs of a case.
const LAYERS: usize = 6;
/// For how long a case is measured.
const DURATION: Duration = Duration::from_millis(500);

/// Which keys are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Masked {
    /// There is no mask.
    Not,
    /// Each sequence has a mask that leaves out its last key.
    Keys,
    /// Each row leaves out the keys behind it.
    Causal,
}

/// The time that the processor has computed for this thread, as Linux counts it.
fn computed() -> Option<Duration> {
    let figures = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(figures.split(' ').next()?.parse().ok()?))
}

/// The median duration of a call, and the mean computing time.
fn measure(isa: Isa, [batch, rows, keys, heads, width]: [usize; 5], masked: Masked) -> [Duration; 2] {
    let numbers = |count: usize, seed: usize| -> Vec<f32> {
        (0..count).map(|at| ((at + seed) * 104_729 % 1999) as f32 / 999.5 - 1.0).collect()
    };
    let inputs = |seed| [rows, keys, keys].map(|count| numbers(batch * count * heads * width, seed));
    let layers: Vec<_> = (0..LAYERS).map(inputs).collect();
    let (elements, strides) = match masked {
        Masked::Not => (Vec::new(), [0; 4]),
        Masked::Keys => {
            let is_out = |at: usize| u8::from(keys > 1 && at % keys == keys - 1);
            ((0..batch * keys).map(is_out).collect(), [keys, 0, 0, 1])
        }
        Masked::Causal => {
            let is_out = |at: usize| u8::from(at % keys > at / keys + keys - rows);
            ((0..rows * keys).map(is_out).collect(), [0, 0, keys, 1])
        }
    };
    let mask = Mask { elements: &elements, start: 0, strides, fill: f32::NEG_INFINITY };
    let mask = (masked != Masked::Not).then_some(&mask);
    let mut y = vec![0.0; batch * rows * heads * width];
    let mut durations = Vec::new();
    let (begin, before) = (Instant::now(), computed());
    while begin.elapsed() < DURATION {
        for [q, k, v] in &layers {
            let begin = Instant::now();
            let part = |elements, rows| Heads { elements, rows, width };
            attention(isa, [batch, heads], &part(q, rows), &part(k, keys), &part(v, keys), mask, 0.2, &mut y);
            durations.push(begin.elapsed());
        }
    }
    let count = durations.len() as u32;
    let mean = match (before, computed()) {
        (Some(before), Some(after)) => after.saturating_sub(before) / count,
        _ => begin.elapsed() / count,
    };
    durations.sort();
    [durations[durations.len() / 2], mean]
}

fn main() {
    let isa = Isa::best();
    let wanted = std::env::args().nth(1).unwrap_or_default();
    println!("{isa}, {} threads", rayon::current_num_threads());
    for (name, shape) in CASES {
        for masked in [Masked::Not, Masked::Keys, Masked::Causal] {
            let name = match masked {
                Masked::Not => name.to_owned(),
                Masked::Keys => format!("{name}, mask of keys"),
                Masked::Causal => format!("{name}, causal"),
            };
            if !name.contains(&wanted) {
                continue;
            }
            let [median, mean] = measure(isa, shape, masked);
            let operations = 4 * shape.into_iter().product::<usize>();
            let rate = operations as f64 / mean.as_nanos().max(1) as f64;
            let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
            println!("  {name:32} {:9.1} µs {:9.1} µs computing {rate:8.1} GFLOP/s", micros(median), micros(mean));
        }
    }
}
