//! Requests of calls: a JSON object, which may be followed by binary tensors.

use std::time::Duration;

use burn::tensor::{Device, TensorData};
use bytes::Bytes;
use ray_zerocopy::jit::{Value, Values};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};

use crate::error::{ErrorKind, ServeError};
use crate::tensor::{datatype, json, raw};

/// A call of a model.
#[derive(Debug)]
pub(super) struct InferRequest {
    pub(super) id: Option<String>,
    pub(super) inputs: Values,
    /// The outputs that the client wants. Empty: all.
    pub(super) outputs: Vec<WantedOutput>,
    /// Whether outputs that are not listed are binary.
    pub(super) is_binary: bool,
    pub(super) timeout: Option<Duration>,
}

/// An output that the client wants.
#[derive(Debug)]
pub(super) struct WantedOutput {
    pub(super) name: String,
    pub(super) is_binary: bool,
}

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Map<String, Json>,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    #[serde(default)]
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    #[serde(default)]
    parameters: Map<String, Json>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Map<String, Json>,
}

/// Parameters of models with sequences.
pub(crate) const SEQUENCES: [&str; 3] = ["sequence_id", "sequence_start", "sequence_end"];

/// The error of such a parameter.
pub(crate) fn sequence_error(name: &str) -> ServeError {
    let message = format!("the parameter `{name}` is for models with sequences, which this server does not have");
    ServeError::new(ErrorKind::Unsupported, message)
}

/// Parses a request. `header` is the length of its JSON, if binary tensors follow.
///
/// # Errors
/// If it is not valid. The error names the place.
pub(super) fn parse(body: &Bytes, header: Option<usize>) -> Result<InferRequest, ServeError> {
    let header = header.unwrap_or(body.len());
    let json = body.get(..header).ok_or_else(|| {
        let found = body.len();
        ServeError::invalid(format!(
            "the header Inference-Header-Content-Length is {header}, and the body has {found} bytes"
        ))
    })?;
    let parsed: Header<'_> = serde_json::from_slice(json).map_err(|error| {
        ServeError::invalid(format!("the request is not a valid JSON object of KServe v2: {error}"))
    })?;
    let mut binary = body.slice(header..);
    let mut inputs = Values::new();
    for input in parsed.inputs {
        let name = input.name.clone();
        let data = data(input, &mut binary)?;
        let value = Value::from_data(data, &Device::flex());
        let value = value.map_err(|reason| ServeError::invalid(format!("input `{name}`: {reason}")))?;
        if inputs.get(&name).is_some() {
            return Err(ServeError::invalid(format!("the request has input `{name}` twice")));
        }
        inputs.insert(&name, value);
    }
    if !binary.is_empty() {
        let message = format!("{} bytes follow the binary data of the inputs", binary.len());
        return Err(ServeError::invalid(message));
    }
    let is_binary = flag(&parsed.parameters, "binary_data_output")?.unwrap_or(false);
    let outputs = parsed.outputs.into_iter().map(|output| wanted(output, is_binary)).collect::<Result<_, _>>()?;
    let timeout = parsed.parameters.get("timeout").map(micros).transpose()?.flatten();
    for name in SEQUENCES {
        if parsed.parameters.get(name).is_some_and(|value| *value != false && *value != 0) {
            return Err(sequence_error(name));
        }
    }
    Ok(InferRequest { id: parsed.id, inputs, outputs, is_binary, timeout })
}

fn data(input: Input<'_>, binary: &mut Bytes) -> Result<TensorData, ServeError> {
    let Input { name, shape, datatype, parameters, data } = input;
    refuse_shared_memory(&format!("input `{name}`"), parameters.contains_key("shared_memory_region"))?;
    let dtype = datatype::parse(&datatype, &name)?;
    match (parameters.get("binary_data_size"), data) {
        (Some(_), Some(_)) => Err(ServeError::invalid(format!(
            "input `{name}` has both `data` and `binary_data_size`, expected one of them"
        ))),
        (Some(size), None) => {
            let size = size.as_u64().and_then(|size| usize::try_from(size).ok()).ok_or_else(|| {
                ServeError::invalid(format!(
                    "`binary_data_size` of input `{name}` is {size}, expected a number of bytes"
                ))
            })?;
            if size > binary.len() {
                let left = binary.len();
                let message =
                    format!("input `{name}` has {size} bytes of binary data, and {left} bytes are left in the body");
                return Err(ServeError::invalid(message));
            }
            raw::tensor(&name, dtype, &shape, binary.split_to(size))
        }
        (None, Some(data)) => json::tensor(&name, dtype, &shape, data),
        (None, None) => Err(ServeError::invalid(format!(
            "input `{name}` has no data: expected `data`, or `binary_data_size` in its parameters"
        ))),
    }
}

fn wanted(output: Output, is_binary: bool) -> Result<WantedOutput, ServeError> {
    let Output { name, parameters } = output;
    refuse_shared_memory(&format!("output `{name}`"), parameters.contains_key("shared_memory_region"))?;
    if parameters.get("classification").is_some_and(|count| *count != 0) {
        let message =
            format!("output `{name}` is asked for as classes, which this server does not make; sort it yourself");
        return Err(ServeError::new(ErrorKind::Unsupported, message));
    }
    let is_binary = flag(&parameters, "binary_data")?.unwrap_or(is_binary);
    Ok(WantedOutput { name, is_binary })
}

fn flag(parameters: &Map<String, Json>, name: &str) -> Result<Option<bool>, ServeError> {
    parameters
        .get(name)
        .map(|value| {
            value.as_bool().ok_or_else(|| {
                ServeError::invalid(format!("the parameter `{name}` is {value}, expected true or false"))
            })
        })
        .transpose()
}

/// The parameter `timeout`, which Triton's clients send in microseconds. 0 is none.
fn micros(value: &Json) -> Result<Option<Duration>, ServeError> {
    let micros = value.as_u64().ok_or_else(|| {
        ServeError::invalid(format!("the parameter `timeout` is {value}, expected a number of microseconds"))
    })?;
    Ok((micros > 0).then(|| Duration::from_micros(micros)))
}

/// The error of a tensor in shared memory of the client.
///
/// # Errors
/// If `is_asked`.
pub(crate) fn refuse_shared_memory(what: &str, is_asked: bool) -> Result<(), ServeError> {
    if !is_asked {
        return Ok(());
    }
    let message =
        format!("{what} is in shared memory of the client, which this server does not open; send it as binary data");
    Err(ServeError::new(ErrorKind::Unsupported, message))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::parse;

    fn error(body: &str) -> String {
        parse(&Bytes::from(body.to_owned()), None).unwrap_err().to_string()
    }

    #[test]
    fn json_and_binary_inputs_are_read() {
        let json = r#"{"id":"7","inputs":[{"name":"a","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}},
            {"name":"b","shape":[1,2],"datatype":"INT64","data":[[3,4]]}],
            "outputs":[{"name":"y","parameters":{"binary_data":true}},{"name":"z"}],"parameters":{"timeout":1500}}"#;
        let mut body = json.as_bytes().to_vec();
        body.extend([1.0_f32, 2.0].iter().flat_map(|number| number.to_le_bytes()));
        let request = parse(&body.into(), Some(json.len())).unwrap();
        assert_eq!(request.inputs.data("a").unwrap().iter::<f32>().collect::<Vec<_>>(), [1.0, 2.0]);
        assert_eq!(request.inputs.data("b").unwrap().iter::<i64>().collect::<Vec<_>>(), [3, 4]);
        let outputs: Vec<_> = request.outputs.iter().map(|output| (output.name.as_str(), output.is_binary)).collect();
        assert_eq!(outputs, [("y", true), ("z", false)]);
        assert_eq!((request.id.as_deref(), request.timeout), (Some("7"), Some(Duration::from_micros(1500))));
    }

    #[test]
    fn invalid_requests_name_the_place() {
        assert!(error("{").starts_with("the request is not a valid JSON object of KServe v2: EOF"));
        assert!(error("{}").contains("missing field `inputs`"));
        let input =
            |rest: &str| error(&format!(r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32"{rest}}}]}}"#));
        assert!(input("").starts_with("input `x` has no data"));
        assert!(
            input(r#","data":[1],"parameters":{"binary_data_size":4}"#).contains("both `data` and `binary_data_size`")
        );
        assert!(input(r#","parameters":{"binary_data_size":4}"#).contains("0 bytes are left"));
        assert!(input(r#","parameters":{"binary_data_size":-4}"#).contains("expected a number of bytes"));
        assert!(
            input(r#","parameters":{"shared_memory_region":"r"}"#).contains("does not open; send it as binary data")
        );
        let twice = r#"{"name":"x","shape":[1],"datatype":"FP32","data":[1]}"#;
        assert_eq!(error(&format!(r#"{{"inputs":[{twice},{twice}]}}"#)), "the request has input `x` twice");
        let with = |rest: &str| error(&format!(r#"{{"inputs":[],{rest}}}"#));
        assert!(with(r#""parameters":{"timeout":"soon"}"#).contains("number of microseconds"));
        assert!(with(r#""parameters":{"sequence_id":3}"#).contains("models with sequences"));
        assert!(with(r#""outputs":[{"name":"y","parameters":{"classification":3}}]"#).contains("as classes"));
        let short = parse(&Bytes::from_static(b"{}"), Some(9)).unwrap_err().to_string();
        assert_eq!(short, "the header Inference-Header-Content-Length is 9, and the body has 2 bytes");
        let more = parse(&Bytes::from_static(b"{\"inputs\":[]}abc"), Some(13)).unwrap_err().to_string();
        assert_eq!(more, "3 bytes follow the binary data of the inputs");
    }
}
