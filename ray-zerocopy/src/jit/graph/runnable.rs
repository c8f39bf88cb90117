//! A runnable graph: checks the inputs, and delegates to the executor of a backend.

use super::code::METHOD;
use super::exec::Execute;
use super::profile::Profile;
use crate::jit::executable::Callable;
use crate::jit::executable::Executable;
use crate::jit::executable::Recorded;
use std::collections::HashSet;
use std::sync::Arc;

use burn::tensor::{DType, Device};

use super::code::{GraphCode, Port};
use crate::arena::arena::Arena;
use crate::error::graph::{GraphError, ReplayError};
use crate::os::fork;
use crate::tensor::value::{Value, Values, dtype_name, listed};

/// A graph and its executor.
struct Graph {
    code: Arc<GraphCode>,
    executor: Box<dyn Execute>,
}

impl Callable for Graph {
    fn main(&self) -> &str {
        METHOD
    }

    fn origin(&self) -> &str {
        &self.code.origin
    }

    fn run(&mut self, method: &str, inputs: Values) -> Result<Values, ReplayError> {
        check_method(method)?;
        let sizes = sizes(&self.code, &inputs)?;
        if let Some(empty) = empty(&self.code, &sizes, &inputs)? {
            return self.executor.empty(empty).map(|values| with_names(&self.code, values));
        }
        let ordered = ordered(&self.code, &inputs)?;
        drop(inputs);
        let outputs = self.executor.execute(&sizes, ordered)?;
        Ok(with_names(&self.code, outputs))
    }

    fn kept_bytes(&self) -> u64 {
        self.executor.kept_bytes()
    }

    fn recorded(&self) -> Recorded {
        self.executor.recorded()
    }
}

/// The inputs in the graph's order.
fn ordered(code: &GraphCode, inputs: &Values) -> Result<Vec<Value>, ReplayError> {
    let input = |port: &Port| inputs.get(&port.name).cloned().ok_or_else(|| missing(code, &port.name));
    code.inputs.iter().map(input).collect()
}

/// Measures the operations of a graph on the device with the display name `name`.
///
/// # Errors
/// As [`load`], or if the graph does not run on these inputs.
pub(crate) fn profile(
    code: &Arc<GraphCode>,
    arena: &Arena,
    (device, name): (&Device, &str),
    inputs: &Values,
    runs: usize,
) -> Result<Profile, ReplayError> {
    fork::adopt();
    let sizes = sizes(code, inputs)?;
    if empty(code, &sizes, inputs)?.is_some() {
        return Ok(Profile::empty(runs));
    }
    let (mut executor, _) = super::exec::backend::executor(code, arena, device, name)?;
    executor.profile(&sizes, &ordered(code, inputs)?, runs)
}

/// Attaches names to outputs, which are in the graph's order.
fn with_names(code: &GraphCode, outputs: Vec<Value>) -> Values {
    code.outputs.iter().map(|port| port.name.clone()).zip(outputs).collect()
}

/// Checks the method name: a graph has only one method.
fn check_method(method: &str) -> Result<(), ReplayError> {
    match method {
        METHOD => Ok(()),
        _ => Err(ReplayError::Method { name: method.to_owned(), found: format!("`{METHOD}`") }),
    }
}

/// Checks inputs of a graph without running it.
pub(crate) fn check(code: &GraphCode, method: &str, inputs: &Values) -> Result<(), ReplayError> {
    check_method(method)?;
    let sizes = sizes(code, inputs)?;
    empty(code, &sizes, inputs).map(drop)
}

fn missing(code: &GraphCode, name: &str) -> ReplayError {
    inputs_error(code, name, "is missing")
}

fn inputs_error(code: &GraphCode, name: &str, reason: &str) -> ReplayError {
    let expected = listed(code.inputs.iter().map(|port| port.name.as_str()));
    ReplayError::Inputs { name: name.to_owned(), reason: reason.to_owned(), expected }
}

/// Determines the sizes of the symbols from the inputs, and checks that the inputs match the graph.
fn sizes(code: &GraphCode, inputs: &Values) -> Result<Vec<usize>, ReplayError> {
    // Counted first: the set of names is only built for the error.
    if code.inputs.iter().filter(|port| inputs.get(&port.name).is_some()).count() != inputs.len() {
        let known: HashSet<&str> = code.inputs.iter().map(|port| port.name.as_str()).collect();
        if let Some(name) = inputs.names().find(|name| !known.contains(name)) {
            return Err(inputs_error(code, name, "is not one of the graph's"));
        }
    }
    let mut sizes: Vec<Option<(usize, &str)>> = vec![None; code.symbols.len()];
    for port in &code.inputs {
        let value = inputs.get(&port.name).ok_or_else(|| missing(code, &port.name))?;
        let input_error =
            |expected: String| ReplayError::Input { name: port.name.clone(), expected, found: value.to_string() };
        let (dtype, shape) = (value.dtype(), value.shape());
        // The encoding of booleans depends on the device.
        let same = dtype == port.dtype || (dtype.is_bool() && port.dtype.is_bool());
        if !same || shape.len() != port.shape.len() {
            return Err(input_error(description(code, port)));
        }
        for (extent, expr) in shape.iter().zip(&port.shape) {
            match (expr.as_symbol(), expr.as_constant()) {
                (Some(symbol), _) => match sizes[symbol] {
                    Some((known, other)) if known != *extent => {
                        let symbol = &code.symbols[symbol].name;
                        let text = format!("{}, where `{symbol}` is {known} by `{other}`", description(code, port));
                        return Err(input_error(text));
                    }
                    Some(_) => {}
                    None => sizes[symbol] = Some((*extent, &port.name)),
                },
                (None, Some(fixed)) if fixed == *extent as i64 => {}
                _ => return Err(input_error(description(code, port))),
            }
        }
    }
    let unknown = |at: usize| GraphError::Corrupted { reason: format!("no input has `{}`", code.symbols[at].name) };
    let sizes = sizes.into_iter().enumerate();
    sizes.map(|(at, size)| size.map(|(size, _)| size).ok_or_else(|| unknown(at).into())).collect()
}

/// Type and shape of an output.
type Described = (DType, Vec<usize>);

/// Types and shapes of the outputs if a symbol is 0, as for an empty batch. Returns `None` if no
/// symbol is 0.
///
/// Operations are not run on empty tensors: the kernels of some backends fail on them. So all
/// outputs must be empty as well.
fn empty(code: &GraphCode, sizes: &[usize], inputs: &Values) -> Result<Option<Vec<Described>>, ReplayError> {
    let Some(symbol) = sizes.iter().position(|&size| size == 0) else { return Ok(None) };
    let mut outputs = Vec::with_capacity(code.outputs.len());
    for port in &code.outputs {
        let shape: Option<Vec<usize>> = super::code::extents(&port.shape, sizes);
        match shape {
            Some(shape) if shape.contains(&0) => outputs.push((port.dtype, shape)),
            _ => return Err(not_empty(code, symbol, port, inputs)),
        }
    }
    Ok(Some(outputs))
}

/// Error for an empty input with an output that would not be empty.
fn not_empty(code: &GraphCode, symbol: usize, output: &Port, inputs: &Values) -> ReplayError {
    let has_symbol = |port: &&Port| port.shape.iter().any(|expr| expr.as_symbol() == Some(symbol));
    let Some(port) = code.inputs.iter().find(has_symbol) else {
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

/// Describes an expected input: `F32 of shape [batch, 4]`.
fn description(code: &GraphCode, port: &Port) -> String {
    let names: Vec<_> = code.symbols.iter().map(|symbol| symbol.name.as_str()).collect();
    let shape: Vec<_> = port.shape.iter().map(|expr| expr.named(&names).to_string()).collect();
    format!("{} of shape [{}]", dtype_name(port.dtype), shape.join(", "))
}

/// Loads a graph on the device with the display name `name`.
///
/// # Errors
/// If the backend of the device cannot run the graph.
pub(crate) fn load(
    code: Arc<GraphCode>,
    arena: &Arena,
    device: &Device,
    name: &str,
) -> Result<Executable, ReplayError> {
    fork::adopt();
    let (executor, copied) = super::exec::backend::executor(&code, arena, device, name)?;
    Ok(Executable::new(Box::new(Graph { code, executor }), device.clone(), copied))
}
