//! `ModelInfo`: inputs, outputs and platform of a model.

use ray_zerocopy::jit::{Model, PortInfo, ScriptArgument};

use crate::tensor::datatype;

/// Inputs, outputs and platform of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelInfo {
    /// `burn_graph`, `burn_compiled_graph` or `pytorch_torchscript`.
    pub platform: &'static str,
    /// The inputs.
    pub inputs: Vec<TensorPort>,
    /// The outputs. Empty for a TorchScript module, whose outputs are not known before it has run.
    pub outputs: Vec<TensorPort>,
}

/// An input or an output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorPort {
    /// Its name.
    pub name: String,
    /// Its data type in the protocol: `FP32`. `ANY` if a TorchScript module takes tensors of any type.
    pub datatype: String,
    /// Its shape. -1 for a dimension that may differ from call to call.
    pub shape: Vec<i64>,
}

impl ModelInfo {
    pub(super) fn of(model: &Model) -> Self {
        match model {
            Model::Graph(graph) => {
                let info = graph.info();
                let platform = if info.is_compiled() { "burn_compiled_graph" } else { "burn_graph" };
                let ports = |ports: &mut dyn Iterator<Item = PortInfo>| ports.map(port).collect();
                Self { platform, inputs: ports(&mut info.inputs()), outputs: ports(&mut info.outputs()) }
            }
            Model::Script(script) => {
                let forward = script.methods().iter().find(|method| method.name == "forward");
                let inputs = forward.into_iter().flat_map(|method| method.arguments.iter().map(argument)).collect();
                Self { platform: "pytorch_torchscript", inputs, outputs: Vec::new() }
            }
            _ => Self { platform: "unknown", inputs: Vec::new(), outputs: Vec::new() },
        }
    }
}

fn port(port: PortInfo) -> TensorPort {
    let datatype = datatype::name(port.element).map_or(port.dtype, str::to_owned);
    let shape = port.shape.iter().map(|extent| extent.parse().unwrap_or(-1)).collect();
    TensorPort { name: port.name, datatype, shape }
}

fn argument(argument: &ScriptArgument) -> TensorPort {
    let ty = argument.ty.strip_prefix("Optional[").and_then(|ty| ty.strip_suffix(']')).unwrap_or(&argument.ty);
    let (datatype, shape) = match ty {
        "int" => ("INT64", vec![1]),
        "float" | "number" => ("FP64", vec![1]),
        "bool" => ("BOOL", vec![1]),
        _ => ("ANY", vec![-1]),
    };
    TensorPort { name: argument.name.clone(), datatype: datatype.to_owned(), shape }
}
