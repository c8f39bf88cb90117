//! Speed of the convolutions of two models, layer by layer, in GFLOP/s and as a part of the processor's peak.
//!
//! ```console
//! $ RAYON_NUM_THREADS=1 cargo run --release -p ray-zerocopy-kernels --example convolutions
//! $ RAY_ZEROCOPY_ISA=avx2 RAYON_NUM_THREADS=1 cargo run --release -p ray-zerocopy-kernels --example convolutions
//! $ RAYON_NUM_THREADS=1 cargo run --release -p ray-zerocopy-kernels --example convolutions -- detector
//! ```
//!
//! The layers of a model are computed one after the other, as often as the model has them and each time with another
//! weight, so that a weight is in the cache only if it would be in the model. Each layer reads what the one before it has
//! written, and writes where that one has read, as results in a model do. The least of each layer's durations
//! counts: other programs on the machine make it longer, and nothing makes it shorter. The peak is the speed of a
//! product whose operands are in the first level cache.

use std::time::{Duration, Instant};

use ray_zerocopy_kernels::{
    Activation, ChannelEpilogue, ConvolutionOptions, Epilogue, Filters, Images, Isa, MaxPool, Packed, convolution,
    linear, max_pool, pack,
};

/// How often each model is computed.
const ROUNDS: usize = 41;

/// A layer: its name, how often the model has it, the channels, the size, the kernel, the step, the zeros, and
/// whether a residual is added.
type Layer = (&'static str, usize, [usize; 2], [usize; 2], [usize; 2], [usize; 2], [usize; 2], bool);

/// ResNet-18 at 224 × 224.
const RESNET: [Layer; 15] = [
    ("3→64, 224², 7×7 / 2", 1, [3, 64], [224, 224], [7, 7], [2, 2], [3, 3], false),
    ("64→64, 56², 3×3", 2, [64, 64], [56, 56], [3, 3], [1, 1], [1, 1], false),
    ("64→64, 56², 3×3 + residual", 2, [64, 64], [56, 56], [3, 3], [1, 1], [1, 1], true),
    ("64→128, 56², 3×3 / 2", 1, [64, 128], [56, 56], [3, 3], [2, 2], [1, 1], false),
    ("64→128, 56², 1×1 / 2", 1, [64, 128], [56, 56], [1, 1], [2, 2], [0, 0], false),
    ("128→128, 28², 3×3", 1, [128, 128], [28, 28], [3, 3], [1, 1], [1, 1], false),
    ("128→128, 28², 3×3 + residual", 2, [128, 128], [28, 28], [3, 3], [1, 1], [1, 1], true),
    ("128→256, 28², 3×3 / 2", 1, [128, 256], [28, 28], [3, 3], [2, 2], [1, 1], false),
    ("128→256, 28², 1×1 / 2", 1, [128, 256], [28, 28], [1, 1], [2, 2], [0, 0], false),
    ("256→256, 14², 3×3", 1, [256, 256], [14, 14], [3, 3], [1, 1], [1, 1], false),
    ("256→256, 14², 3×3 + residual", 2, [256, 256], [14, 14], [3, 3], [1, 1], [1, 1], true),
    ("256→512, 14², 3×3 / 2", 1, [256, 512], [14, 14], [3, 3], [2, 2], [1, 1], false),
    ("256→512, 14², 1×1 / 2", 1, [256, 512], [14, 14], [1, 1], [2, 2], [0, 0], false),
    ("512→512, 7², 3×3", 1, [512, 512], [7, 7], [3, 3], [1, 1], [1, 1], false),
    ("512→512, 7², 3×3 + residual", 2, [512, 512], [7, 7], [3, 3], [1, 1], [1, 1], true),
];

/// A detector of speech: 640 samples, one dimension.
const DETECTOR: [Layer; 6] = [
    ("1→258, 640, 256 / 128", 1, [1, 258], [1, 640], [1, 256], [1, 128], [0, 0], false),
    ("129→128, 4, 3", 1, [129, 128], [1, 4], [1, 3], [1, 1], [0, 1], false),
    ("128→64, 4, 3 / 2", 1, [128, 64], [1, 4], [1, 3], [1, 2], [0, 1], false),
    ("64→64, 2, 3 / 2", 1, [64, 64], [1, 2], [1, 3], [1, 2], [0, 1], false),
    ("64→128, 1, 3", 1, [64, 128], [1, 1], [1, 3], [1, 1], [0, 1], false),
    ("128→1, 1, 1", 1, [128, 1], [1, 1], [1, 1], [1, 1], [0, 0], false),
];

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|at| ((at + seed) * 7919 % 2027) as f32 / 1013.5 - 1.0).collect()
}

fn least(all: impl IntoIterator<Item = Duration>) -> Duration {
    all.into_iter().min().unwrap_or_default()
}

/// The speed of a product in the first level cache.
fn peak(isa: Isa) -> f64 {
    let [m, k, n] = [12, 128, 32];
    let (x, panels, mut y) = (numbers(m * k, 1), pack(k, n, |row, column| (row + column) as f32), vec![0.0; m * n]);
    let Some(packed) = Packed::new(&panels, k, n) else { return f64::NAN };
    let mut one = || {
        let begin = Instant::now();
        (0..1000).for_each(|_| linear(isa, &x, &packed, &Epilogue::default(), &mut y));
        begin.elapsed()
    };
    let duration = least((0..51).map(|_| one()));
    2e-9 * (1000 * m * k * n) as f64 / duration.as_secs_f64()
}

/// Operands of a layer.
struct Operands {
    options: ConvolutionOptions,
    /// Elements of the images.
    from: usize,
    weights: Vec<Vec<f32>>,
    bias: Vec<f32>,
    residual: Vec<f32>,
    /// Elements of the result.
    to: usize,
    /// Multiplications and additions.
    work: f64,
}

impl Operands {
    fn new((_, count, [from, to], size, kernel, stride, padding, _): Layer) -> Self {
        let options =
            ConvolutionOptions { stride, padding: padding.map(|zeros| (zeros, zeros)), dilation: [1, 1], groups: 1 };
        let k = from * kernel[0] * kernel[1];
        // The elements of results become neither large nor small.
        let factor = 1.0 / (k as f32).sqrt();
        let weight = |seed| numbers(to * k, seed).iter().map(|one| factor * one).collect();
        let pixels = options.output(size, kernel).map_or(0, |[rows, columns]| rows * columns);
        Self {
            options,
            from: from * size[0] * size[1],
            weights: (0..count).map(weight).collect(),
            bias: numbers(to, 3),
            residual: numbers(to * pixels, 4),
            to: to * pixels,
            work: 2.0 * (k * to * pixels) as f64,
        }
    }
}

fn measure(isa: Isa, name: &str, peak: f64, layers: &[Layer]) {
    // Small models are computed more often.
    let rounds = if layers.len() < 10 { 100 * ROUNDS } else { ROUNDS };
    let mut all: Vec<_> = layers.iter().map(|layer| (*layer, Operands::new(*layer), Vec::new())).collect();
    let most = |count: fn(&Operands) -> usize| all.iter().map(|(_, operands, _)| count(operands)).max().unwrap_or(0);
    let size = most(|operands| operands.from).max(most(|operands| operands.to));
    let (mut x, mut y) = (numbers(size, 1), vec![0.0; size]);
    for _ in 0..rounds {
        for ((_, _, [from, to], [h, w], [kh, kw], .., adds), operands, durations) in &mut all {
            for weight in &operands.weights {
                let begin = Instant::now();
                let images = Images { elements: &x[..operands.from], dimensions: [1, *from, *h, *w] };
                let filters = Filters { elements: weight, dimensions: [*to, *from, *kh, *kw] };
                let epilogue = ChannelEpilogue {
                    bias: Some(&operands.bias),
                    activation: Some(Activation::Relu),
                    residual: adds.then_some((&operands.residual, true)),
                };
                convolution(isa, &images, &filters, &operands.options, &epilogue, &mut y[..operands.to]);
                durations.push(begin.elapsed());
                std::mem::swap(&mut x, &mut y);
            }
        }
    }
    println!("{name}");
    let (mut total, mut work) = (0.0, 0.0);
    for ((name, count, ..), operands, durations) in all {
        let seconds = least(durations).as_secs_f64();
        let rate = operands.work * 1e-9 / seconds;
        let micros = seconds * 1e6;
        println!("  {count} × {name:30} {micros:9.1} µs {rate:8.1} GFLOP/s {:5.0} %", 100.0 * rate / peak);
        total += count as f64 * seconds;
        work += count as f64 * operands.work;
    }
    println!("  together {:38.1} µs {:8.1} GFLOP/s", total * 1e6, work * 1e-9 / total);
}

fn measure_pooling(isa: Isa) {
    let pool = MaxPool {
        size: [112, 112],
        kernel: [3, 3],
        stride: [2, 2],
        padding: [1, 1],
        dilation: [1, 1],
        result: [56, 56],
    };
    let (x, mut y) = (numbers(64 * 112 * 112, 1), vec![0.0; 64 * 56 * 56]);
    let mut one = || {
        let begin = Instant::now();
        max_pool(isa, &x, &pool, &mut y);
        begin.elapsed()
    };
    let duration = least((0..ROUNDS).map(|_| one()));
    println!("max pooling, 64, 112², 3×3 / 2 {:19.1} µs", duration.as_secs_f64() * 1e6);
}

fn main() {
    let isa = Isa::best();
    let peak = peak(isa);
    println!("{isa}, {} threads, peak {peak:.1} GFLOP/s", rayon::current_num_threads());
    let named = std::env::args().nth(1);
    let is_wanted = |name: &str| named.as_deref().is_none_or(|named| named == name);
    for (name, layers) in [("resnet", &RESNET[..]), ("detector", &DETECTOR)] {
        if is_wanted(name) {
            measure(isa, name, peak, layers);
        }
    }
    if is_wanted("pooling") {
        measure_pooling(isa);
    }
}
