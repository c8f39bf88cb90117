//! A method of `#[remote]` as a forward pass: passes tensors as arguments and captures the tensors
//! of the result, without reading their elements.

use std::collections::VecDeque;

use burn::tensor::Device;

use crate::error::trace::TraceError;
use crate::remote::Remote;
use crate::remote::schema::{MethodInfo, Schema};
use crate::remote::wire::{Reader, Writer};
use crate::tensor::value::{Value, Values};

/// A method, with the values of its arguments that are not tensors.
pub(super) struct Call<P> {
    method: MethodInfo<P>,
    /// The arguments: names of tensors, and encoded values.
    arguments: Vec<Argument>,
    outputs: Vec<String>,
}

enum Argument {
    Tensor(String),
    Value(Vec<u8>),
}

impl<P: Remote> Call<P> {
    pub(super) fn new(
        name: &str,
        inputs: &[(String, Value)],
        values: Vec<(String, Result<Vec<u8>, String>)>,
    ) -> Result<Self, String> {
        let mut methods = P::methods();
        let names = crate::tensor::value::listed(methods.iter().map(|method| method.name));
        let at = methods.iter().position(|method| method.name == name);
        let method = methods.swap_remove(at.ok_or_else(|| format!("it does not exist; there is {names}"))?);
        if method.is_stream {
            return Err("it returns a stream, and a graph has the operations of one forward pass".to_owned());
        }
        let mut arguments = Vec::new();
        for parameter in &method.parameters {
            let name = parameter.name;
            let value = values.iter().find(|(given, _)| given == name).map(|(_, value)| value);
            let is_input = inputs.iter().any(|(given, _)| given == name);
            arguments.push(match (&parameter.schema, value, is_input) {
                (Schema::Tensor { .. }, None, true) => Argument::Tensor(name.to_owned()),
                (Schema::Tensor { .. }, ..) => {
                    return Err(format!(
                        "its parameter `{name}` is a tensor: give an example with `.input(\"{name}\", ..)`"
                    ));
                }
                (Schema::Value { .. }, Some(value), false) => Argument::Value(value.clone()?),
                (Schema::Value { .. }, ..) => {
                    return Err(format!(
                        "its parameter `{name}` is not a tensor: give it a value with `.value(\"{name}\", ..)`"
                    ));
                }
                _ => return Err(format!("its parameter `{name}` is neither a tensor nor a plain value")),
            });
        }
        let parameters = || crate::tensor::value::listed(method.parameters.iter().map(|parameter| parameter.name));
        let given = inputs.iter().map(|(name, _)| name).chain(values.iter().map(|(name, _)| name));
        for given in given {
            if !method.parameters.iter().any(|parameter| parameter.name == given) {
                return Err(format!("it has no parameter `{given}`; it has {}", parameters()));
            }
        }
        let mut outputs = Vec::new();
        collect_names("output".to_owned(), &method.result, &mut outputs)?;
        Ok(Self { method, arguments, outputs })
    }

    /// Runs the method on tensors of any device.
    pub(super) fn run(&self, pipeline: &mut P, inputs: &Values) -> Result<Values, TraceError> {
        let method_error = |reason: String| TraceError::Method { name: self.method.name.to_owned(), reason };
        let (mut values, mut tensors) = (Vec::new(), VecDeque::new());
        for argument in &self.arguments {
            match argument {
                Argument::Tensor(name) => {
                    let missing = || method_error(format!("`{name}` is missing"));
                    tensors.push_back(inputs.get(name).ok_or_else(missing)?.dispatch());
                }
                Argument::Value(bytes) => {
                    values.extend((bytes.len() as u64).to_le_bytes());
                    values.extend(bytes);
                }
            }
        }
        // All tensors are given, so none is created on this device.
        let mut reader = Reader::given(values, tensors, Device::flex());
        let mut writer = Writer::keeping();
        (self.method.handler)(pipeline, &mut reader, &mut writer).map_err(|error| method_error(error.to_string()))?;
        let tensors = writer.kept();
        if tensors.len() != self.outputs.len() {
            return Err(method_error("it returned an error instead of tensors".to_owned()));
        }
        Ok(self.outputs.iter().cloned().zip(tensors.into_iter().map(Value::from_dispatch)).collect())
    }
}

/// Collects the names of the tensors in a result.
fn collect_names(name: String, schema: &Schema, names: &mut Vec<String>) -> Result<(), String> {
    match schema {
        Schema::Tensor { .. } => names.push(name),
        Schema::Tuple(parts) => {
            for (at, part) in parts.iter().enumerate() {
                collect_names(format!("{name}.{at}"), part, names)?;
            }
        }
        Schema::Array(part, count) => {
            for at in 0..*count {
                collect_names(format!("{name}.{at}"), part, names)?;
            }
        }
        Schema::Fallible { ok, .. } => collect_names(name, ok, names)?,
        _ => return Err("its result is not a tensor, or a tuple or array of tensors".to_owned()),
    }
    Ok(())
}
