//! Calibration: which layers take weights of fewer bits, by the error on a user's inputs.

use std::collections::BTreeSet;
use std::fmt;

use super::Compile;
use crate::error::calibration::CalibrationError;
use crate::jit::graph::code::COMPILED;
use crate::jit::graph::weight_format::WeightFormat;
use crate::jit::traced_graph::TracedGraph;
use crate::tensor::kind::TensorKind;
use crate::tensor::value::Values;

/// How a graph is compiled with weights of fewer bits, and how much its outputs change. Made by
/// [`TracedGraph::calibrate`].
#[derive(Debug, Clone)]
pub struct Calibration {
    options: Compile,
    layers: Vec<CalibratedLayer>,
    error: f64,
}

/// A layer, and its error.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CalibratedLayer {
    /// Path of its weight.
    pub path: String,
    /// The form that was chosen for the weight.
    pub format: WeightFormat,
    /// How much the outputs of the graph change if this layer alone has the form that was asked for: the norm of the
    /// change in units of their norm.
    pub error: f64,
}

impl Calibration {
    /// The options, for [`TracedGraph::compile`].
    pub fn options(&self) -> Compile {
        self.options.clone()
    }

    /// The layers, those with the largest error first.
    pub fn layers(&self) -> &[CalibratedLayer] {
        &self.layers
    }

    /// How much the outputs of the whole graph change on the samples: the norm of the change in units of their norm.
    pub fn error(&self) -> f64 {
        self.error
    }
}

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let narrow = self.layers.iter().filter(|layer| layer.format != WeightFormat::F32).count();
        writeln!(
            f,
            "{narrow} of {} layers in {}, error of the outputs {:.2e}",
            self.layers.len(),
            self.options.format,
            self.error
        )?;
        self.layers.iter().try_for_each(|layer| writeln!(f, "{:8.2e}  {:6}  {}", layer.error, layer.format, layer.path))
    }
}

impl TracedGraph {
    /// Chooses which layers take weights of fewer bits, so that the outputs on `samples` change by at most
    /// `most_error`: the norm of the change in units of their norm. For embeddings of length 1, an error of 0.1 is a
    /// cosine of 0.995.
    ///
    /// Each layer is measured alone. Those that change the outputs most stay in 32 bits, as many as it takes. The samples should be what the
    /// graph will be called with: some dozens of inputs are enough. The graph runs on all of them once for each layer,
    /// and some more times; `progress` is called after each of these trials, with their number and the most that there
    /// will be.
    ///
    /// ```
    /// # use burn::{nn::{Linear, LinearConfig}, tensor::{Device, Distribution, Tensor, activation::relu}};
    /// # use ray_zerocopy::{Pipeline, jit};
    /// use ray_zerocopy::jit::{Compile, Values};
    /// # #[derive(Pipeline)]
    /// # #[pipeline(init = Model::new)]
    /// # struct Model { head: Linear }
    /// # impl Model { fn new(device: &Device) -> Self { Self { head: LinearConfig::new(64, 40).init(device) } } }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let device = Device::flex();
    /// # let model = Model::new(&device);
    /// # let rows = Tensor::<2>::random([8, 64], Distribution::Default, &device);
    /// # let graph = jit::trace(&model)
    /// #     .input("rows", rows.clone())
    /// #     .forward(|model, inputs| Ok(relu(model.head.forward(inputs.float::<2>("rows")?))))?;
    /// let samples = [Values::new().with("rows", rows)];
    /// let calibration = graph.calibrate(&Compile::int8(), samples, 0.02, |_, _| ())?;
    /// println!("{calibration}");
    /// assert!(calibration.error() <= 0.02);
    ///
    /// let compiled = graph.compile(calibration.options())?;
    /// # let names: Vec<_> = compiled.info().steps().map(|step| step.name).collect();
    /// assert_eq!(names, ["Linear int8 + relu"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the bound cannot be kept, there are no samples, a sample does not fit the graph, no output has a number
    /// that could be compared, the graph is compiled already, or the options leave nothing to choose.
    pub fn calibrate(
        &self,
        options: &Compile,
        samples: impl IntoIterator<Item = Values>,
        most_error: f64,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Calibration, CalibrationError> {
        if self.code().format == COMPILED {
            return Err(CalibrationError::Compiled);
        }
        if options.format == WeightFormat::F32 {
            return Err(CalibrationError::NothingToChoose);
        }
        let samples: Vec<Values> = samples.into_iter().collect();
        if samples.is_empty() {
            return Err(CalibrationError::NoSamples);
        }
        // All trials borrow their weights from these two graphs.
        let (exact, wide) = self.compile_with(&Compile::f32(), &[])?;
        let (narrow, chosen) = self.compile_with(options, &[])?;
        let expected = run(&exact, &samples)?;
        let choices: BTreeSet<_> = wide.keys().filter(|path| chosen.get(*path) != wide.get(*path)).cloned().collect();
        // Each layer alone, all together, and the bisection.
        let most_trials = choices.len() + 1 + choices.len().max(1).ilog2() as usize + 1;
        let mut trials = 0;
        let mut error = |options: &Compile| -> Result<f64, CalibrationError> {
            let (graph, _) = self.compile_with(options, &[exact.arena(), narrow.arena()])?;
            let change = change(&run(&graph, &samples)?, &expected)?;
            trials += 1;
            progress(trials, most_trials);
            Ok(change)
        };
        let mut layers = Vec::with_capacity(choices.len());
        for path in &choices {
            let others = choices.iter().filter(|other| *other != path);
            let error = error(&others.fold(options.clone(), |options, other| options.keep(other)))?;
            let format = chosen.get(path).copied().unwrap_or(options.format);
            layers.push(CalibratedLayer { path: path.clone(), format, error });
        }
        if layers.is_empty() {
            return Err(CalibrationError::NothingToChoose);
        }
        layers.sort_by(|one, other| other.error.total_cmp(&one.error));
        let mut trial = |kept: usize| -> Result<(Compile, f64), CalibrationError> {
            let options = layers[..kept].iter().fold(options.clone(), |options, layer| options.keep(&layer.path));
            let error = error(&options)?;
            Ok((options, error))
        };
        let all = trial(0)?;
        let found = all.1;
        let mut best = (found <= most_error).then_some(all);
        // By bisection: with `high` layers in 32 bits the bound is kept, with `low` it is not.
        let (mut low, mut high) = (0, if best.is_some() { 1 } else { layers.len() });
        while high - low > 1 {
            let middle = low.midpoint(high);
            let tried = trial(middle)?;
            if tried.1 <= most_error {
                (high, best) = (middle, Some(tried));
            } else {
                low = middle;
            }
        }
        let bound = || CalibrationError::Bound {
            format: options.format.to_string(),
            most: format!("{most_error:.1e}"),
            found: format!("{found:.1e}"),
        };
        let (options, error) = best.ok_or_else(bound)?;
        for layer in layers.iter_mut().filter(|layer| options.kept.contains(&layer.path)) {
            layer.format = wide.get(&layer.path).copied().unwrap_or(WeightFormat::F32);
        }
        Ok(Calibration { options, layers, error })
    }
}

/// The outputs of a graph.
fn run(graph: &TracedGraph, samples: &[Values]) -> Result<Vec<Values>, CalibrationError> {
    let mut executable = graph.load("cpu")?;
    samples.iter().map(|sample| Ok(executable.run(sample.clone())?)).collect()
}

/// The norm of the change of outputs in units of their norm. 0 if nothing has changed, also where all is 0, and infinite
/// if a number has become NaN or infinite, or is not so any more.
///
/// # Errors
/// If there is no number to compare.
fn change(found: &[Values], expected: &[Values]) -> Result<f64, CalibrationError> {
    let (mut change, mut all, mut count) = (0.0, 0.0, 0_u64);
    for (found, expected) in found.iter().zip(expected) {
        for (name, _) in expected.iter().filter(|(_, value)| value.kind() == TensorKind::Float) {
            let (found, expected) = (found.data(name)?, expected.data(name)?);
            for (found, expected) in found.iter::<f64>().zip(expected.iter::<f64>()) {
                count += 1;
                // Also infinities.
                if found == expected || (found.is_nan() && expected.is_nan()) {
                    all += if expected.is_finite() { expected.powi(2) } else { 0.0 };
                } else if found.is_finite() && expected.is_finite() {
                    change += (found - expected).powi(2);
                    all += expected.powi(2);
                } else {
                    return Ok(f64::INFINITY);
                }
            }
        }
    }
    if count == 0 {
        return Err(CalibrationError::NothingToCompare);
    }
    Ok(if change == 0.0 { 0.0 } else { (change / all).sqrt() })
}
