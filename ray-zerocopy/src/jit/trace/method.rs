//! A method of `#[remote]` as a forward pass: its arguments are given, and its tensors kept, without their elements being read.

use std::collections::VecDeque;

use burn::tensor::Device;

use crate::error::trace::TraceError;
use crate::remote::Remote;
use crate::remote::schema::{MethodInfo, Schema};
use crate::remote::wire::{Reader, Writer};
use crate::tensor::value::{Value, Values};

/// A method, with the arguments that are no tensors.
pub(super) struct Call<P> {
    method: MethodInfo<P>,
    /// The arguments that are no tensors, encoded; where a tensor comes, nothing.
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
        let method = methods.swap_remove(at.ok_or_else(|| format!("there is none of this name; there is {names}"))?);
        let mut arguments = Vec::new();
        for parameter in &method.parameters {
            let own = parameter.name;
            let value = values.iter().find(|(name, _)| name == own).map(|(_, value)| value);
            let is_input = inputs.iter().any(|(name, _)| name == own);
            arguments.push(match (&parameter.schema, value, is_input) {
                (Schema::Tensor { .. }, None, true) => Argument::Tensor(own.to_owned()),
                (Schema::Tensor { .. }, ..) => {
                    return Err(format!(
                        "its parameter `{own}` is a tensor: give an example with `.input(\"{own}\", ..)`"
                    ));
                }
                (Schema::Value { .. }, Some(value), false) => Argument::Value(value.clone()?),
                (Schema::Value { .. }, ..) => {
                    return Err(format!(
                        "its parameter `{own}` is no tensor: give it a value with `.value(\"{own}\", ..)`"
                    ));
                }
                _ => return Err(format!("its parameter `{own}` is neither a tensor nor a plain value")),
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
        named("output".to_owned(), &method.result, &mut outputs)?;
        Ok(Self { method, arguments, outputs })
    }

    /// Runs the method on tensors, wherever they are.
    pub(super) fn run(&self, pipeline: &mut P, inputs: &Values) -> Result<Values, TraceError> {
        let failed = |reason: String| TraceError::Method { name: self.method.name.to_owned(), reason };
        let (mut values, mut tensors) = (Vec::new(), VecDeque::new());
        for argument in &self.arguments {
            match argument {
                Argument::Tensor(name) => {
                    let missing = || failed(format!("`{name}` is missing"));
                    tensors.push_back(inputs.get(name).ok_or_else(missing)?.dispatch());
                }
                Argument::Value(bytes) => {
                    values.extend((bytes.len() as u64).to_le_bytes());
                    values.extend(bytes);
                }
            }
        }
        // Every tensor is given, so none is made on this device.
        let mut reader = Reader::given(values, tensors, Device::flex());
        let mut writer = Writer::keeping();
        (self.method.handler)(pipeline, &mut reader, &mut writer).map_err(|error| failed(error.to_string()))?;
        let kept = writer.kept();
        match kept.len() == self.outputs.len() {
            true => Ok(self.outputs.iter().cloned().zip(kept.into_iter().map(Value::from_dispatch)).collect()),
            false => Err(failed("it gave an error, and no tensors".to_owned())),
        }
    }
}

/// The names of the tensors in a result.
fn named(name: String, schema: &Schema, names: &mut Vec<String>) -> Result<(), String> {
    match schema {
        Schema::Tensor { .. } => names.push(name),
        Schema::Tuple(parts) => {
            for (at, part) in parts.iter().enumerate() {
                named(format!("{name}.{at}"), part, names)?;
            }
        }
        Schema::Array(part, count) => {
            for at in 0..*count {
                named(format!("{name}.{at}"), part, names)?;
            }
        }
        Schema::Fallible { ok, .. } => named(name, ok, names)?,
        _ => return Err("a graph gives tensors, tuples of tensors and arrays of tensors, and nothing else".to_owned()),
    }
    Ok(())
}
