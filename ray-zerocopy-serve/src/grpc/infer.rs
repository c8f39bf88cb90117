//! Requests and responses of calls of models.

use std::collections::BTreeMap;
use std::time::Duration;

use burn::tensor::{DType, Device, TensorData};
use bytes::Bytes;
use prost::Message;
use ray_zerocopy::jit::{Value, Values};

use super::protocol::infer_parameter::ParameterChoice;
use super::protocol::model_infer_request::InferInputTensor;
use super::protocol::model_infer_response::InferOutputTensor;
use super::protocol::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};
use crate::error::{ErrorKind, ServeError};
use crate::repository::Inference;
use crate::rest::{SEQUENCES, no_output, refuse_shared_memory, sequence_error};
use crate::service::Service;
use crate::tensor::{datatype, raw};

type Parameters = BTreeMap<String, InferParameter>;

/// Runs a call of a stream, which has arrived.
///
/// # Errors
/// As [`run`], and if the limits of calls or bytes do not admit it.
pub(super) async fn run_of_stream(
    service: &Service,
    request: ModelInferRequest,
) -> Result<ModelInferResponse, ServeError> {
    let mut permit = service.admission().enter()?;
    permit.reserve(request.encoded_len())?;
    run(service, request, None).await
}

/// Runs a call of a model, which has been admitted.
///
/// # Errors
/// As the same call over HTTP.
pub(super) async fn run(
    service: &Service,
    request: ModelInferRequest,
    deadline: Option<Duration>,
) -> Result<ModelInferResponse, ServeError> {
    let asked = deadline.or(micros(&request.parameters)?);
    let timeout = service.admission().limits().timeout_of(asked);
    let ModelInferRequest { model_name, model_version, id, inputs, outputs, raw_input_contents, parameters } = request;
    service.models().info(&model_name, &model_version)?;
    refuse_sequences(&parameters)?;
    let values = values(inputs, raw_input_contents)?;
    for output in &outputs {
        refuse(&format!("output `{}`", output.name), &output.parameters)?;
    }
    let inference = service.models().infer(&model_name, &model_version, values, Some(timeout)).await?;
    let names: Vec<&str> = if outputs.is_empty() {
        inference.outputs.names().collect()
    } else {
        outputs.iter().map(|output| output.name.as_str()).collect()
    };
    let (mut outputs, mut raw_output_contents) = (Vec::new(), Vec::new());
    for name in names {
        let value = inference.outputs.get(name).ok_or_else(|| no_output(name, &inference))?;
        let (output, bytes) = output(name, value)?;
        outputs.push(output);
        raw_output_contents.push(bytes);
    }
    let Inference { version, .. } = inference;
    let (model_version, parameters) = (version.to_string(), Parameters::new());
    Ok(ModelInferResponse { model_name, model_version, id, parameters, outputs, raw_output_contents })
}

fn values(inputs: Vec<InferInputTensor>, raw: Vec<Bytes>) -> Result<Values, ServeError> {
    if !raw.is_empty() && raw.len() != inputs.len() {
        let (raw, inputs) = (raw.len(), inputs.len());
        let message =
            format!("`raw_input_contents` has {raw} tensors for {inputs} inputs, expected one for each or none");
        return Err(ServeError::invalid(message));
    }
    let mut raw = raw.into_iter();
    let mut values = Values::new();
    for input in inputs {
        let name = input.name.clone();
        refuse(&format!("input `{name}`"), &input.parameters)?;
        let data = match raw.next() {
            Some(_) if input.contents.is_some() => {
                let message =
                    format!("input `{name}` has both `contents` and `raw_input_contents`, expected one of them");
                return Err(ServeError::invalid(message));
            }
            Some(bytes) => raw::tensor(&name, datatype::parse(&input.datatype, &name)?, &input.shape, bytes)?,
            None => typed(input)?,
        };
        let value = Value::from_data(data, &Device::flex());
        let value = value.map_err(|reason| ServeError::invalid(format!("input `{name}`: {reason}")))?;
        if values.get(&name).is_some() {
            return Err(ServeError::invalid(format!("the request has input `{name}` twice")));
        }
        values.insert(&name, value);
    }
    Ok(values)
}

/// Makes a tensor of typed contents.
fn typed(input: InferInputTensor) -> Result<TensorData, ServeError> {
    let InferInputTensor { name, datatype, shape, contents, .. } = input;
    let dtype = datatype::parse(&datatype, &name)?;
    let (dims, elements) = raw::checked_shape(&name, &shape)?;
    let contents = contents.unwrap_or_default();
    macro_rules! of {
        ($field:ident) => {
            made(&name, dtype, contents.$field, dims, elements, stringify!($field))
        };
        ($field:ident as $type:ty) => {{
            let narrowed: Result<Vec<$type>, _> =
                contents.$field.iter().map(|&number| <$type>::try_from(number)).collect();
            let narrowed = narrowed.map_err(|_| {
                ServeError::invalid(format!(
                    "`{}` of input `{name}` has a number beyond {datatype}",
                    stringify!($field)
                ))
            })?;
            made(&name, dtype, narrowed, dims, elements, stringify!($field))
        }};
    }
    match dtype {
        DType::Bool(_) => of!(bool_contents),
        DType::I8 => of!(int_contents as i8),
        DType::I16 => of!(int_contents as i16),
        DType::I32 => of!(int_contents),
        DType::I64 => of!(int64_contents),
        DType::U8 => of!(uint_contents as u8),
        DType::U16 => of!(uint_contents as u16),
        DType::U32 => of!(uint_contents),
        DType::U64 => of!(uint64_contents),
        DType::F32 => of!(fp32_contents),
        DType::F64 => of!(fp64_contents),
        _ => {
            Err(ServeError::invalid(format!("input `{name}` is {datatype}, which goes into `raw_input_contents` only")))
        }
    }
}

fn made<T: burn::tensor::Element>(
    name: &str,
    dtype: DType,
    contents: Vec<T>,
    dims: Vec<usize>,
    elements: usize,
    field: &str,
) -> Result<TensorData, ServeError> {
    if contents.len() != elements {
        let (found, kind) = (contents.len(), datatype::name(dtype).unwrap_or_default());
        return Err(ServeError::invalid(format!(
            "input `{name}` has {found} elements in `{field}`, expected {elements} for {kind} of the shape {dims:?}"
        )));
    }
    Ok(TensorData::new(contents, dims))
}

fn output(name: &str, value: &Value) -> Result<(InferOutputTensor, Bytes), ServeError> {
    let datatype = datatype::name_of(value.dtype(), name)?.to_owned();
    let shape = value.shape().iter().map(|&extent| i64::try_from(extent).unwrap_or(i64::MAX)).collect();
    let data = value.data().map_err(|reason| ServeError::failed(format!("output `{name}`: {reason}")))?;
    let (parameters, contents) = (Parameters::new(), None::<InferTensorContents>);
    Ok((InferOutputTensor { name: name.to_owned(), datatype, shape, parameters, contents }, raw::bytes(data)))
}

fn refuse(what: &str, parameters: &Parameters) -> Result<(), ServeError> {
    refuse_shared_memory(what, parameters.contains_key("shared_memory_region"))?;
    let classes = parameters.get("classification").and_then(|parameter| parameter.parameter_choice.as_ref());
    if classes.is_some_and(|classes| *classes != ParameterChoice::Int64Param(0)) {
        let message = format!("{what} is asked for as classes, which this server does not make; sort it yourself");
        return Err(ServeError::new(ErrorKind::Unsupported, message));
    }
    Ok(())
}

/// Refuses the parameters of models with sequences, unless they have no effect.
fn refuse_sequences(parameters: &Parameters) -> Result<(), ServeError> {
    let choice = |name: &&str| parameters.get(*name).and_then(|parameter| parameter.parameter_choice.as_ref());
    let is_set = |choice: &ParameterChoice| {
        !matches!(
            choice,
            ParameterChoice::BoolParam(false) | ParameterChoice::Int64Param(0) | ParameterChoice::Uint64Param(0)
        )
    };
    let found = SEQUENCES.iter().find(|name| choice(name).is_some_and(is_set));
    found.map_or(Ok(()), |name| Err(sequence_error(name)))
}

/// The parameter `timeout`, which Triton's clients send in microseconds. 0 is none.
fn micros(parameters: &Parameters) -> Result<Option<Duration>, ServeError> {
    let choice = parameters.get("timeout").and_then(|parameter| parameter.parameter_choice.as_ref());
    let micros = match choice {
        None => return Ok(None),
        Some(ParameterChoice::Int64Param(micros)) => u64::try_from(*micros).ok(),
        Some(ParameterChoice::Uint64Param(micros)) => Some(*micros),
        Some(_) => None,
    };
    let micros =
        micros.ok_or_else(|| ServeError::invalid("the parameter `timeout` is not a number of microseconds"))?;
    Ok((micros > 0).then(|| Duration::from_micros(micros)))
}

#[cfg(test)]
mod tests {
    use super::{InferInputTensor, InferTensorContents, values};

    fn input(datatype: &str, shape: &[i64], contents: Option<InferTensorContents>) -> InferInputTensor {
        let (name, datatype, shape) = ("x".to_owned(), datatype.to_owned(), shape.to_vec());
        InferInputTensor { name, datatype, shape, contents, ..InferInputTensor::default() }
    }

    #[test]
    fn typed_and_raw_contents_are_read() {
        let contents = InferTensorContents { int_contents: vec![-1, 7], ..InferTensorContents::default() };
        let read = values(vec![input("INT8", &[2], Some(contents.clone()))], Vec::new()).unwrap();
        assert_eq!(read.data("x").unwrap().iter::<i64>().collect::<Vec<_>>(), [-1, 7]);
        let read = values(vec![input("INT16", &[1, 2], None)], vec![vec![255, 255, 7, 0].into()]).unwrap();
        assert_eq!(read.data("x").unwrap().iter::<i64>().collect::<Vec<_>>(), [-1, 7]);
    }

    #[test]
    fn invalid_contents_name_the_input() {
        let contents = InferTensorContents { int_contents: vec![-1, 700], ..InferTensorContents::default() };
        let error = |datatype: &str, shape: &[i64], raw: usize| {
            let raw = vec![bytes::Bytes::from_static(b"ab"); raw];
            values(vec![input(datatype, shape, Some(contents.clone()))], raw).unwrap_err().to_string()
        };
        assert_eq!(error("INT8", &[2], 0), "`int_contents` of input `x` has a number beyond INT8");
        let short = "input `x` has 2 elements in `int_contents`, expected 3 for INT32 of the shape [3]";
        assert_eq!(error("INT32", &[3], 0), short);
        assert!(error("FP16", &[2], 0).contains("`raw_input_contents` only"));
        assert!(error("INT8", &[2], 1).contains("both `contents` and `raw_input_contents`"));
        assert!(error("INT8", &[2], 2).contains("2 tensors for 1 inputs"));
    }
}
