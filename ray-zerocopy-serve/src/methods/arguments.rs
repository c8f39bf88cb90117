//! Arguments of a method from JSON, as the types of its parameters require.

use std::collections::HashMap;

use burn::tensor::DType;
use ray_zerocopy::__private::dynamic::{Arguments, Failed, NamedMethod, Parameter, Schema, TensorKind};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::ServeError;

/// Characters of a wrong value that its error shows.
const SHOWN: usize = 60;

/// The arguments of a method.
pub(super) struct Parsed {
    pub(super) arguments: Arguments,
    pub(super) origin: Origin,
}

/// What the arguments were made from, for their errors: the position at which each begins, and its JSON.
pub(super) struct Origin(Vec<(usize, Box<RawValue>)>);

/// Parses the body of a request: an object by the names of the parameters, or a list in their order. Nothing, if there
/// are no parameters.
///
/// # Errors
/// If it is neither, an argument is missing or unknown, or is not of its parameter's type.
pub(super) fn parse(method: &NamedMethod, body: &[u8]) -> Result<Parsed, ServeError> {
    let (mut arguments, mut origin) = (Arguments::default(), Vec::new());
    for (parameter, value) in method.parameters.iter().zip(values(method, body)?) {
        let start = arguments.position();
        put(&parameter.schema, &value, &mut arguments).map_err(|reason| wrong(method, parameter, &reason))?;
        origin.push((start, value));
    }
    Ok(Parsed { arguments, origin: Origin(origin) })
}

/// The error of a call whose arguments are not those of the method.
pub(super) fn refused(method: &NamedMethod, Origin(origin): &Origin, failed: Failed) -> ServeError {
    match failed {
        Failed::Argument { at, reason } => {
            let found = method.parameters.iter().zip(origin).rfind(|(_, (start, _))| *start <= at);
            let Some((parameter, (_, json))) = found else {
                return ServeError::invalid(format!("the arguments of `{}` are not valid: {reason}", method.name));
            };
            // The format in which the worker would get the value says nothing to a client.
            if !reason.contains("msgpack") {
                return wrong(method, parameter, &reason);
            }
            let mut shown: String = json.get().chars().take(SHOWN).collect();
            shown += if shown.len() < json.get().len() { "…" } else { "" };
            wrong(method, parameter, &format!("found {shown}"))
        }
        Failed::Answer(reason) | Failed::Panicked(reason) => ServeError::failed(reason),
    }
}

fn wrong(method: &NamedMethod, parameter: &Parameter, reason: &str) -> ServeError {
    let wanted = super::schema::describe(&parameter.schema);
    ServeError::invalid(format!("argument `{}` of `{}` is not a {wanted}: {reason}", parameter.name, method.name))
}

/// The values in the order of the parameters.
fn values(method: &NamedMethod, body: &[u8]) -> Result<Vec<Box<RawValue>>, ServeError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Body {
        Named(HashMap<String, Box<RawValue>>),
        Listed(Vec<Box<RawValue>>),
        None(()),
    }
    let names = || method.parameters.iter().map(|parameter| format!("`{}`", parameter.name)).collect::<Vec<_>>();
    let takes = || match method.parameters.len() {
        0 => "no arguments".to_owned(),
        _ => format!("{} (an object with these names, or a list in this order)", names().join(", ")),
    };
    let refuse = |found: String| ServeError::invalid(format!("`{}` takes {}, {found}", method.name, takes()));
    let body = body.trim_ascii();
    let parsed = match body.first() {
        None => Body::None(()),
        Some(b'{') => Body::Named(serde_json::from_slice(body).map_err(|error| refuse(format!("found {error}")))?),
        Some(b'[') => Body::Listed(serde_json::from_slice(body).map_err(|error| refuse(format!("found {error}")))?),
        Some(_) if body == b"null" => Body::None(()),
        Some(_) => return Err(refuse("found neither".to_owned())),
    };
    match parsed {
        Body::Listed(values) if values.len() == method.parameters.len() => Ok(values),
        Body::Listed(values) => Err(refuse(format!("found a list of {}", values.len()))),
        Body::None(()) if method.parameters.is_empty() => Ok(Vec::new()),
        Body::None(()) => Err(refuse("found nothing".to_owned())),
        Body::Named(mut values) => {
            let taken = method.parameters.iter().map(|parameter| {
                let missing = || refuse(format!("and `{}` is missing", parameter.name));
                values.remove(parameter.name).ok_or_else(missing)
            });
            let taken = taken.collect::<Result<_, _>>()?;
            match values.into_keys().min() {
                None => Ok(taken),
                Some(unknown) => Err(refuse(format!("found `{}`", unknown.escape_debug()))),
            }
        }
    }
}

/// Appends a value as a schema requires.
fn put(schema: &Schema, json: &RawValue, arguments: &mut Arguments) -> Result<(), String> {
    let header = |arguments: &mut Arguments, value: usize| arguments.value(&value).map_err(|error| error.to_string());
    match schema {
        Schema::Tensor { rank, kind } => tensor(*rank, *kind, json, arguments),
        Schema::Optional(inner) => {
            let is_some = json.get() != "null";
            arguments.value(&is_some).map_err(|error| error.to_string())?;
            if is_some { put(inner, json, arguments) } else { Ok(()) }
        }
        Schema::List(inner) => {
            let items = items(json, None)?;
            header(arguments, items.len())?;
            items.iter().try_for_each(|item| put(inner, item, arguments))
        }
        Schema::Array(inner, len) => items(json, Some(*len))?.iter().try_for_each(|item| put(inner, item, arguments)),
        Schema::Tuple(schemas) => {
            let items = items(json, Some(schemas.len()))?;
            schemas.iter().zip(&items).try_for_each(|(schema, item)| put(schema, item, arguments))
        }
        Schema::Map { key, value } => {
            let entries: HashMap<String, Box<RawValue>> =
                serde_json::from_str(json.get()).map_err(|error| error.to_string())?;
            header(arguments, entries.len())?;
            let is_text = matches!(**key, Schema::Value { ty } if ty.ends_with("String") || ty.ends_with("str"));
            entries.iter().try_for_each(|(name, item)| {
                // A key of JSON is always text; one of another type is written as JSON in it.
                let name = if is_text { None } else { serde_json::from_str::<Value>(name).ok() }
                    .unwrap_or_else(|| Value::from(name.as_str()));
                arguments.value(&name).map_err(|error| error.to_string())?;
                put(value, item, arguments)
            })
        }
        // There is no way to pass an error as an argument.
        Schema::Fallible { ok, .. } if matches!(**ok, Schema::Value { .. }) => {
            let value: Value = serde_json::from_str(json.get()).map_err(|error| error.to_string())?;
            arguments.value(&serde_json::json!({ "Ok": value })).map_err(|error| error.to_string())
        }
        Schema::Fallible { ok, .. } => {
            arguments.value(&true).map_err(|error| error.to_string())?;
            put(ok, json, arguments)
        }
        Schema::Value { .. } => {
            let mut bytes = Vec::new();
            let mut from = serde_json::Deserializer::from_str(json.get());
            let mut to = rmp_serde::Serializer::new(&mut bytes);
            serde_transcode::transcode(&mut from, &mut to).map_err(|error| error.to_string())?;
            arguments.raw(&bytes);
            Ok(())
        }
        other => Err(format!("{other:?} is not supported over HTTP")),
    }
}

/// The items of a list.
fn items(json: &RawValue, len: Option<usize>) -> Result<Vec<Box<RawValue>>, String> {
    let items: Vec<Box<RawValue>> = serde_json::from_str(json.get()).map_err(|error| error.to_string())?;
    match len {
        Some(len) if len != items.len() => Err(format!("it has {} items, expected {len}", items.len())),
        _ => Ok(items),
    }
}

/// Appends a tensor from nested lists. Numbers are 32-bit floats or 64-bit integers.
fn tensor(rank: usize, kind: TensorKind, json: &RawValue, arguments: &mut Arguments) -> Result<(), String> {
    let value: Value = serde_json::from_str(json.get()).map_err(|error| error.to_string())?;
    let mut shape = vec![None; rank];
    let mut elements = Vec::new();
    flatten(&value, 0, &mut shape, &mut elements)?;
    let shape: Vec<usize> = shape.into_iter().map(Option::unwrap_or_default).collect();
    let wrong = |value: &Value| format!("it has the element {value}");
    let (dtype, bytes): (DType, Vec<u8>) = match kind {
        TensorKind::Float => {
            let number = |value: &&Value| value.as_f64().ok_or_else(|| wrong(value));
            let numbers = elements.iter().map(number).map(|number| number.map(|number| number as f32));
            (DType::F32, bytemuck::cast_slice(&numbers.collect::<Result<Vec<_>, _>>()?).to_vec())
        }
        TensorKind::Int => {
            let number = |value: &&Value| value.as_i64().ok_or_else(|| wrong(value));
            let numbers = elements.iter().map(number).collect::<Result<Vec<_>, _>>()?;
            (DType::I64, bytemuck::cast_slice(&numbers).to_vec())
        }
        TensorKind::Bool => {
            let number = |value: &&Value| value.as_bool().ok_or_else(|| wrong(value));
            let bools = elements.iter().map(number).map(|value| value.map(u8::from));
            (DType::Bool(burn::tensor::BoolStore::Native), bools.collect::<Result<_, _>>()?)
        }
    };
    arguments.tensor(dtype, shape, bytes.into()).map_err(|error| error.to_string())
}

/// Collects the elements of nested lists, whose lengths have to be equal at each depth.
fn flatten<'a>(
    value: &'a Value,
    depth: usize,
    shape: &mut [Option<usize>],
    elements: &mut Vec<&'a Value>,
) -> Result<(), String> {
    let rank = shape.len();
    match (value, shape.get_mut(depth)) {
        (Value::Array(items), Some(size)) => {
            let known = *size.get_or_insert(items.len());
            if known != items.len() {
                return Err(format!("its lists have {known} and {} items, expected equal numbers", items.len()));
            }
            items.iter().try_for_each(|item| flatten(item, depth + 1, shape, elements))
        }
        (Value::Array(_), None) => Err(format!("its lists are nested more than {rank} deep")),
        (_, Some(_)) => Err(format!("its lists are nested {depth} deep, expected {rank}")),
        (element, None) => {
            elements.push(element);
            Ok(())
        }
    }
}
