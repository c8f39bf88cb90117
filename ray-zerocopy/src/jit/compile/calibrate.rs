//! Calibration: which layers take weights of fewer bits, by the error on a user's inputs.

use std::fmt;

use ray_zerocopy_kernels::{Epilogue, Isa, Packed, PackedI8, linear, linear_i8, pack, quantise_i8};

use super::{Compile, PackedLayer};
use crate::error::calibration::CalibrationError;
use crate::jit::executable::Executable;
use crate::jit::graph::code::COMPILED;
use crate::jit::graph::passes::weight::Weight;
use crate::jit::graph::weight_format::WeightFormat;
use crate::jit::traced_graph::TracedGraph;
use crate::tensor::kind::TensorKind;
use crate::tensor::value::Values;

/// Rows of the input of a layer, over all samples, on which its own error is measured.
const ROWS: usize = 512;

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
    /// How much the result of the layer alone changes with the form that was asked for: the norm of the change in units
    /// of the norm of the result.
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
    /// The layers whose own results change most stay in 32 bits, as many as it takes. The samples should be what the
    /// graph will be called with: some dozens of inputs are enough.
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
    /// let calibration = graph.calibrate(&Compile::int8(), samples, 0.02)?;
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
    /// If the bound cannot be kept, there are no samples, a sample does not fit the graph, the graph is compiled
    /// already, or the options leave nothing to choose.
    pub fn calibrate(
        &self,
        options: &Compile,
        samples: impl IntoIterator<Item = Values>,
        most_error: f64,
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
        let (mut layers, expected) = self.measure(options, &samples)?;
        if layers.is_empty() {
            return Err(CalibrationError::NothingToChoose);
        }
        layers.sort_by(|one, other| other.error.total_cmp(&one.error));
        let trial = |kept: usize| -> Result<(Compile, f64), CalibrationError> {
            let paths = layers[..kept].iter().map(|layer| layer.path.as_str());
            let options = paths.fold(options.clone(), Compile::keep);
            let mut executable = self.compile(options.clone())?.load("cpu")?;
            Ok((options, outputs_error(&mut executable, &samples, &expected)?))
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
        for layer in &mut layers {
            layer.format = options.format_of(&layer.path);
        }
        Ok(Calibration { options, layers, error })
    }

    /// Returns the layers that can take weights of fewer bits, with their own errors, and the outputs of the samples.
    fn measure(
        &self,
        options: &Compile,
        samples: &[Values],
    ) -> Result<(Vec<CalibratedLayer>, Vec<Values>), CalibrationError> {
        // Longer than the name of every output, so that none of them begins with it.
        let longest = self.info().outputs().map(|port| port.name).max_by_key(String::len).unwrap_or_default();
        let prefix = format!("{longest}_");
        let (graph, packed) = self.compile_watched(&Compile::f32(), Some(&prefix))?;
        let mut executable = graph.load("cpu")?;
        let mut rows: Vec<Vec<f32>> = vec![Vec::new(); packed.len()];
        let mut expected = Vec::new();
        for sample in samples {
            let values = executable.run(sample.clone())?;
            for (number, (rows, layer)) in rows.iter_mut().zip(&packed).enumerate() {
                let x = values.data(&format!("{prefix}{number}"))?;
                let most = (ROWS * layer.weight.k()).saturating_sub(rows.len());
                rows.extend(x.iter::<f32>().take(most));
            }
            let own = values.names().filter(|name| !name.starts_with(&prefix));
            expected.push(own.filter_map(|name| Some((name.to_owned(), values.get(name)?.clone()))).collect());
        }
        let mut layers: Vec<CalibratedLayer> = Vec::new();
        for (PackedLayer { path, weight, .. }, rows) in packed.iter().zip(&rows) {
            let format = options.format_of(path);
            if format == WeightFormat::F32 {
                continue;
            }
            let error = layer_error(weight, format, rows);
            match layers.iter_mut().find(|layer| layer.path == *path) {
                // Several layers have this weight.
                Some(layer) => layer.error = layer.error.max(error),
                None => layers.push(CalibratedLayer { path: path.clone(), format, error }),
            }
        }
        Ok((layers, expected))
    }
}

/// A change in units of what was changed.
#[derive(Default)]
struct Change {
    change: f64,
    all: f64,
}

impl Change {
    fn add(&mut self, found: impl Iterator<Item = f32>, expected: impl Iterator<Item = f32>) {
        for (found, expected) in found.zip(expected) {
            self.change += f64::from(found - expected).powi(2);
            self.all += f64::from(expected).powi(2);
        }
    }

    /// The norm of the change in units of the norm. 0 if nothing has changed, also where all is 0.
    fn relative(&self) -> f64 {
        if self.change == 0.0 { 0.0 } else { (self.change / self.all).sqrt() }
    }
}

/// The error of a layer with a packed weight, on some rows of its input.
fn layer_error(weight: &Weight, format: WeightFormat, rows: &[f32]) -> f64 {
    let (k, n, isa) = (weight.k(), weight.n(), Isa::best());
    let (mut expected, mut found) = (vec![0.0; rows.len() / k * n], vec![0.0; rows.len() / k * n]);
    let epilogue = Epilogue::default();
    let panels = weight.with(|at| pack(k, n, at));
    if let Some(packed) = Packed::new(&panels, k, n) {
        linear(isa, rows, &packed, &epilogue, &mut expected);
    }
    match format {
        WeightFormat::F32 => return 0.0,
        WeightFormat::Int8 { block } => {
            let quantised = weight.with(|at| quantise_i8(k, n, block, at));
            let packed = PackedI8::new(&quantised.panels, &quantised.scales, &quantised.sums, [k, n], block);
            if let Some(packed) = packed {
                linear_i8(isa, rows, &packed, &epilogue, &mut found);
            }
        }
    }
    let mut change = Change::default();
    change.add(found.into_iter(), expected.into_iter());
    change.relative()
}

/// The change of the outputs of a graph.
fn outputs_error(
    executable: &mut Executable,
    samples: &[Values],
    expected: &[Values],
) -> Result<f64, CalibrationError> {
    let mut change = Change::default();
    for (sample, expected) in samples.iter().zip(expected) {
        let found = executable.run(sample.clone())?;
        let floats = expected
            .names()
            .filter(|name| expected.get(name).is_some_and(|value| TensorKind::of(value.dtype()) == TensorKind::Float));
        for name in floats {
            let (found, expected) = (found.data(name)?, expected.data(name)?);
            change.add(found.iter::<f32>(), expected.iter::<f32>());
        }
    }
    Ok(change.relative())
}
