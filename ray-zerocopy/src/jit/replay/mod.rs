//! Replay: a graph, its weights and a device become something that runs.
//!
//! | file | what |
//! | --- | --- |
//! | `backend` | what a backend has to have, and which ones do |
//! | `player` | runs a graph on one backend |
//! | `instance` | the operations at certain sizes, ready to run |
//! | `kept` | which sizes stay ready |
//! | `direct` | frequent operations, without the way through burn's interpreter |

mod backend;
mod direct;
mod instance;
mod kept;
mod player;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use burn::tensor::{DType, Device};

use super::graph::{Code, Port};
use super::script;
use super::value::{Value, Values, dtype_name, listed};
use super::{GraphError, ReplayError};
use crate::arena::Arena;
use crate::fork;
use crate::pipeline::Copied;

/// A graph that is loaded on a device, with its weights: see [`TracedGraph::load`](super::TracedGraph::load) and
/// [`TorchScript::load`](super::TorchScript::load).
pub struct Replay {
    device: Device,
    run: Box<dyn Run>,
    copied: Vec<Copied>,
}

/// What is loaded: a graph, or a module of LibTorch.
pub(super) trait Run: Send {
    /// The method that is meant if none is named.
    fn main(&self) -> &str;

    /// What it was made of.
    fn origin(&self) -> &str;

    /// Calls a method.
    fn run(&mut self, method: &str, inputs: Values) -> Result<Values, ReplayError>;
}

/// Runs a graph, on whatever backend.
trait Play: Send {
    /// Runs it once. Inputs are those of the graph, in its order, and they fit.
    fn play(&mut self, sizes: &[usize], inputs: Vec<Value>) -> Result<Vec<Value>, ReplayError>;

    /// Outputs without elements, of these types and shapes.
    fn empty(&self, outputs: Vec<(DType, Vec<usize>)>) -> Result<Vec<Value>, ReplayError>;
}

/// A graph and what plays it.
struct Graph {
    code: Arc<Code>,
    player: Box<dyn Play>,
}

impl Run for Graph {
    fn main(&self) -> &str {
        METHOD
    }

    fn origin(&self) -> &str {
        &self.code.origin
    }

    fn run(&mut self, method: &str, inputs: Values) -> Result<Values, ReplayError> {
        only(method)?;
        let sizes = sizes(&self.code, &inputs)?;
        if let Some(empty) = empty(&self.code, &sizes, &inputs)? {
            return self.player.empty(empty).map(|values| named(&self.code, values));
        }
        let mut own = Vec::with_capacity(self.code.inputs.len());
        for port in &self.code.inputs {
            let value = inputs.get(&port.name).ok_or_else(|| missing(&self.code, &port.name))?;
            own.push(value.clone());
        }
        drop(inputs);
        let outputs = self.player.play(&sizes, own)?;
        Ok(named(&self.code, outputs))
    }
}

/// Outputs in the graph's order, by their names.
fn named(code: &Code, outputs: Vec<Value>) -> Values {
    code.outputs.iter().map(|port| port.name.clone()).zip(outputs).collect()
}

/// What a graph's one method is called.
pub(super) const METHOD: &str = "run";

/// A graph has one method.
fn only(method: &str) -> Result<(), ReplayError> {
    match method {
        METHOD => Ok(()),
        _ => Err(ReplayError::Method { name: method.to_owned(), found: format!("`{METHOD}`") }),
    }
}

/// Checks inputs of a graph without running anything.
pub(super) fn check(code: &Code, method: &str, inputs: &Values) -> Result<(), ReplayError> {
    only(method)?;
    let sizes = sizes(code, inputs)?;
    empty(code, &sizes, inputs).map(drop)
}

impl Replay {
    pub(super) fn new(code: Arc<Code>, arena: &Arena, device: &Device, name: &str) -> Result<Self, ReplayError> {
        fork::adopt();
        let (player, copied) = backend::player(&code, arena, device, name)?;
        Ok(Self { device: device.clone(), run: Box::new(Graph { code, player }), copied })
    }

    pub(super) fn of_script(
        code: Arc<script::Code>,
        arena: &Arena,
        device: &Device,
        name: &str,
    ) -> Result<Self, ReplayError> {
        let (run, copied) = script::load(code, arena, device, name)?;
        // LibTorch takes from host memory, and gives back there.
        Ok(Self { device: Device::flex(), run, copied })
    }

    /// The weights that are copies, because the device or the backend cannot borrow them. Empty is the rule on `cpu`.
    pub fn copied(&self) -> &[Copied] {
        &self.copied
    }

    /// Where outputs are: where a graph computes, and host memory for a TorchScript module.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Runs the graph, or the method `forward` of a TorchScript module. Inputs may be on any device.
    ///
    /// After an error, the next run is as good as the first.
    ///
    /// # Errors
    /// If an input is missing or is not what the graph takes: names it. Or if the backend fails in an operation.
    pub fn run(&mut self, inputs: impl Into<Values>) -> Result<Values, ReplayError> {
        fork::adopt();
        let method = self.run.main().to_owned();
        self.run.run(&method, inputs.into())
    }

    /// Calls a method of a TorchScript module. A graph has one, `run`.
    ///
    /// # Errors
    /// As [`run`](Self::run); and if there is no such method.
    pub fn call(&mut self, method: &str, inputs: impl Into<Values>) -> Result<Values, ReplayError> {
        fork::adopt();
        self.run.run(method, inputs.into())
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Replay");
        text.field("origin", &self.run.origin()).field("device", &self.device).finish_non_exhaustive()
    }
}

fn missing(code: &Code, name: &str) -> ReplayError {
    inputs_error(code, name, "is missing")
}

fn inputs_error(code: &Code, name: &str, reason: &str) -> ReplayError {
    let expected = listed(code.inputs.iter().map(|port| port.name.as_str()));
    ReplayError::Inputs { name: name.to_owned(), reason: reason.to_owned(), expected }
}

/// The sizes of the symbols, by the inputs, which have to be what the graph takes.
fn sizes(code: &Code, inputs: &Values) -> Result<Vec<usize>, ReplayError> {
    // Counted first: a set of the names is made only for the error.
    if code.inputs.iter().filter(|port| inputs.get(&port.name).is_some()).count() != inputs.len() {
        let known: HashSet<&str> = code.inputs.iter().map(|port| port.name.as_str()).collect();
        if let Some(name) = inputs.names().find(|name| !known.contains(name)) {
            return Err(inputs_error(code, name, "is not one of the graph's"));
        }
    }
    let mut sizes: Vec<Option<(usize, &str)>> = vec![None; code.symbols.len()];
    for port in &code.inputs {
        let value = inputs.get(&port.name).ok_or_else(|| missing(code, &port.name))?;
        let wrong =
            |expected: String| ReplayError::Input { name: port.name.clone(), expected, found: value.to_string() };
        let (dtype, shape) = (value.dtype(), value.shape());
        // How booleans are stored is the device's affair.
        let same = dtype == port.dtype || (dtype.is_bool() && port.dtype.is_bool());
        if !same || shape.len() != port.shape.len() {
            return Err(wrong(description(code, port)));
        }
        for (extent, form) in shape.iter().zip(&port.shape) {
            match (form.alone(), form.fixed()) {
                (Some(symbol), _) => match &sizes[symbol] {
                    Some((known, other)) if known != extent => {
                        let symbol = &code.symbols[symbol].name;
                        let text = format!("{}, where `{symbol}` is {known} by `{other}`", description(code, port));
                        return Err(wrong(text));
                    }
                    Some(_) => {}
                    slot @ None => {
                        let _ = slot;
                        sizes[symbol] = Some((*extent, &port.name));
                    }
                },
                (None, Some(fixed)) if fixed == *extent as i64 => {}
                _ => return Err(wrong(description(code, port))),
            }
        }
    }
    let unknown = |at: usize| GraphError::Corrupted { reason: format!("no input has `{}`", code.symbols[at].name) };
    let sizes = sizes.into_iter().enumerate();
    sizes.map(|(at, size)| size.map(|(size, _)| size).ok_or_else(|| unknown(at).into())).collect()
}

/// The type and the shape of an output.
type Described = (DType, Vec<usize>);

/// The types and shapes of the outputs if a symbol is 0, as an empty batch is; `None` if none is.
///
/// Operations do not run on nothing: the kernels of some backends fail there. So the outputs have to be empty themselves.
fn empty(code: &Code, sizes: &[usize], inputs: &Values) -> Result<Option<Vec<Described>>, ReplayError> {
    let Some(symbol) = sizes.iter().position(|&size| size == 0) else { return Ok(None) };
    let mut outputs = Vec::with_capacity(code.outputs.len());
    for port in &code.outputs {
        let shape: Option<Vec<usize>> = super::graph::extents(&port.shape, sizes);
        match shape {
            Some(shape) if shape.contains(&0) => outputs.push((port.dtype, shape)),
            _ => return Err(not_empty(code, symbol, port, inputs)),
        }
    }
    Ok(Some(outputs))
}

/// An input has no elements, and an output would have some.
fn not_empty(code: &Code, symbol: usize, output: &Port, inputs: &Values) -> ReplayError {
    let own = |port: &&Port| port.shape.iter().any(|form| form.alone() == Some(symbol));
    let Some(port) = code.inputs.iter().find(own) else {
        return GraphError::Corrupted { reason: format!("no input has `{}`", code.symbols[symbol].name) }.into();
    };
    let expected = format!(
        "{}, with `{}` 1 at least, since output `{}` would not be empty",
        description(code, port),
        code.symbols[symbol].name,
        output.name
    );
    let found = inputs.get(&port.name).map(ToString::to_string).unwrap_or_default();
    ReplayError::Input { name: port.name.clone(), expected, found }
}

/// What an input has to be, in words: `F32 of shape [batch, 4]`.
fn description(code: &Code, port: &Port) -> String {
    let names: Vec<_> = code.symbols.iter().map(|symbol| symbol.name.as_str()).collect();
    let shape: Vec<_> = port.shape.iter().map(|form| form.named(&names).to_string()).collect();
    format!("{} of shape [{}]", dtype_name(port.dtype), shape.join(", "))
}
