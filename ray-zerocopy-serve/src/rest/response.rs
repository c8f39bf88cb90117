//! Responses of calls: a JSON object, which may be followed by binary tensors.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ray_zerocopy::jit::Value;
use serde::Serialize;
use serde_json::value::RawValue;

use super::body::Parts;
use super::request::InferRequest;
use crate::error::ServeError;
use crate::repository::Inference;
use crate::tensor::{datatype, json, raw};

/// The header with the length of the JSON before binary tensors.
pub(super) const HEADER_LENGTH: &str = "inference-header-content-length";

#[derive(Serialize)]
struct Header<'a> {
    model_name: &'a str,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<Output<'a>>,
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct Parameters {
    binary_data_size: usize,
}

/// Makes the response of a call.
///
/// # Errors
/// If the client wants an output that the model does not have, or one that the protocol cannot express.
pub(super) fn make(model: &str, request: &InferRequest, inference: &Inference) -> Result<Response, ServeError> {
    let mut binary = Vec::new();
    let mut outputs = Vec::new();
    let wanted: Vec<(&str, bool)> = if request.outputs.is_empty() {
        inference.outputs.names().map(|name| (name, request.is_binary)).collect()
    } else {
        request.outputs.iter().map(|output| (output.name.as_str(), output.is_binary)).collect()
    };
    for (name, is_binary) in wanted {
        let value = inference.outputs.get(name).ok_or_else(|| no_output(name, inference))?;
        outputs.push(output(name, value, is_binary, &mut binary)?);
    }
    let (id, model_version) = (request.id.as_deref(), inference.version.to_string());
    let header =
        serde_json::to_vec(&Header { model_name: model, model_version, id, outputs }).map_err(ServeError::failed)?;
    if binary.is_empty() {
        return Ok(([(header::CONTENT_TYPE, "application/json")], header).into_response());
    }
    let length = HeaderValue::from(header.len());
    let parts = std::iter::once(Bytes::from(header)).chain(binary);
    let mut response = Parts::body(parts).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(HEADER_LENGTH, length);
    Ok(response)
}

fn output<'a>(
    name: &'a str,
    value: &Value,
    is_binary: bool,
    binary: &mut Vec<Bytes>,
) -> Result<Output<'a>, ServeError> {
    let datatype = datatype::name_of(value.dtype(), name)?;
    let shape = value.shape();
    let data = value.data().map_err(|reason| ServeError::failed(format!("output `{name}`: {reason}")))?;
    if !is_binary {
        let data = Some(json::elements(name, &data)?);
        return Ok(Output { name, datatype, shape, parameters: None, data });
    }
    let bytes = raw::bytes(data);
    let parameters = Some(Parameters { binary_data_size: bytes.len() });
    binary.push(bytes);
    Ok(Output { name, datatype, shape, parameters, data: None })
}

/// The error of an output that the model does not have.
pub(crate) fn no_output(name: &str, inference: &Inference) -> ServeError {
    let found: Vec<_> = inference.outputs.names().map(|name| format!("`{name}`")).collect();
    let name = name.escape_debug();
    ServeError::invalid(format!("the model has no output `{name}`; it has {}", found.join(", ")))
}
