//! Decoding and validation of untrusted graphs.
//!
//! A graph is a program, and may compute anything for any length of time. But validation ensures
//! that it only refers to tensors that exist, and only runs operations on tensors.

use std::collections::{HashMap, HashSet};

use burn::tensor::{DType, TensorId};
use burn_ir::{FloatOperationIr, OperationIr};
use serde::Deserialize;

use super::code::{BURN, COMPILED, Constant, FORMAT, GraphCode, Port, Source, extents};
use super::fused::Fused;
use super::passes;
use super::symbolic::expr::SymExpr;
use crate::arena::arena::Arena;
use crate::arena::manifest::TensorEntry;
use crate::codec;
use crate::error::graph::GraphError;

/// Maximum size of a graph in bytes. A graph of 250 operations has about 100 kB.
const MOST_BYTES: usize = 256 << 20;
const MOST_OPERATIONS: usize = 1 << 20;
const MOST_SYMBOLS: usize = 8;
const MOST_DIMENSIONS: usize = 8;
/// Maximum number of elements of a tensor at the traced sizes.
const MOST_ELEMENTS: usize = 1 << 40;

impl GraphCode {
    /// Decodes and validates a graph.
    ///
    /// # Errors
    /// If it has another version, or is inconsistent.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, GraphError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
            burn: String,
        }
        let corrupted = |reason: String| GraphError::Corrupted { reason };
        if bytes.len() > MOST_BYTES {
            return Err(corrupted(format!("it has {} bytes, and the maximum is {MOST_BYTES}", bytes.len())));
        }
        // A graph of another version may have other fields, so the version is decoded first.
        let Version { format, burn } = codec::decode(bytes).map_err(corrupted)?;
        if ![FORMAT, COMPILED].contains(&format) || burn != BURN {
            let found = format!("format {format} of burn {burn}");
            let expected = format!("format {FORMAT} or {COMPILED} of burn {BURN}");
            return Err(GraphError::Version { found, expected });
        }
        let code: Self = codec::decode(bytes).map_err(corrupted)?;
        code.check().map_err(corrupted)?;
        Ok(code)
    }

    fn check(&self) -> Result<(), String> {
        if self.operations.len() > MOST_OPERATIONS || self.constants.len() > MOST_OPERATIONS {
            return Err(format!("it has more than {MOST_OPERATIONS} operations or constants"));
        }
        if self.symbols.len() > MOST_SYMBOLS {
            return Err(format!("it has more than {MOST_SYMBOLS} symbols"));
        }
        let inputs = self.inputs.len() as u64;
        let mut names = HashSet::with_capacity(self.inputs.len());
        for (at, port) in self.inputs.iter().enumerate() {
            self.check_port(port)?;
            if port.id.value() != at as u64 || !names.insert(port.name.as_str()) {
                return Err(format!("input `{}` is a duplicate, or has a wrong tensor id", port.name));
            }
            if !port
                .shape
                .iter()
                .all(|expr| expr.as_symbol().is_some() || expr.as_constant().is_some_and(|size| size > 0))
            {
                return Err(format!("an extent of input `{}` is neither a positive number nor a symbol", port.name));
            }
        }
        let used = |symbol: usize| {
            self.inputs.iter().flat_map(|port| &port.shape).any(|expr| expr.as_symbol() == Some(symbol))
        };
        if let Some(symbol) = (0..self.symbols.len()).find(|&symbol| !used(symbol)) {
            return Err(format!("no input has the symbol `{}`", self.symbols[symbol].name));
        }
        for (at, constant) in self.constants.iter().enumerate() {
            self.check_shape(&constant.shape)?;
            if !constant.is_sound(&self.traced()) {
                return Err(format!("constant {at} cannot be created from its source"));
            }
        }
        self.check_operations(inputs + self.constants.len() as u64)?;
        names.clear();
        for port in &self.outputs {
            self.check_port(port)?;
            if !names.insert(port.name.as_str()) {
                return Err(format!("there are two outputs `{}`", port.name));
            }
        }
        Ok(())
    }

    fn traced(&self) -> Vec<usize> {
        self.symbols.iter().map(|symbol| symbol.traced).collect()
    }

    /// Checks that each operation only reads tensors that exist, and that its results have the next
    /// free ids.
    fn check_operations(&self, mut known: u64) -> Result<(), String> {
        let inputs = self.inputs.len();
        let is_quantised = |id: TensorId| {
            let constant = (id.value() as usize).checked_sub(inputs).and_then(|at| self.constants.get(at));
            constant.is_some_and(|constant| matches!(constant.dtype, DType::QFloat(_)))
        };
        for (at, operation) in self.operations.iter().enumerate() {
            let label = || format!("operation {at} ({})", passes::name(operation));
            match Fused::of(operation) {
                Some((fused, custom)) if self.format == COMPILED => {
                    fused.check(custom).map_err(|reason| format!("{}: {reason}", label()))?;
                }
                _ if passes::is_foreign(operation) => {
                    return Err(format!("{} is not an operation on tensors", label()));
                }
                _ => {}
            }
            for tensor in operation.inputs().chain(operation.outputs()) {
                let elements = tensor.shape.iter().try_fold(1_usize, |count, &extent| count.checked_mul(extent));
                if tensor.shape.num_dims() > MOST_DIMENSIONS || elements.is_none_or(|count| count > MOST_ELEMENTS) {
                    return Err(format!("{} has a tensor with too many dimensions or elements", label()));
                }
            }
            if let Some(tensor) = operation.inputs().find(|tensor| tensor.id.value() >= known) {
                return Err(format!("{} reads tensor {}, which does not exist yet", label(), tensor.id.value()));
            }
            let dequantises = matches!(operation, OperationIr::Float(_, FloatOperationIr::Dequantize(_)));
            if let Some(tensor) = operation.inputs().find(|tensor| is_quantised(tensor.id) != dequantises) {
                let is = if dequantises { "is not quantised" } else { "is quantised" };
                return Err(format!("{} reads tensor {}, which {is}", label(), tensor.id.value()));
            }
            for tensor in operation.outputs() {
                if tensor.id.value() != known {
                    return Err(format!("{} returns tensor {} instead of {known}", label(), tensor.id.value()));
                }
                known += 1;
            }
        }
        let is_result = |id: TensorId| id.value() < known && !is_quantised(id);
        if let Some(port) = self.outputs.iter().find(|port| !is_result(port.id)) {
            return Err(format!("output `{}` is not the result of an operation", port.name));
        }
        let mut last = None;
        for hole in &self.holes {
            let place = (hole.operation, hole.number);
            if last.replace(place).is_some_and(|last| last >= place) || hole.operation as usize >= self.operations.len()
            {
                return Err("its symbolic numbers are not in order".to_owned());
            }
            self.check_expr(&hole.form)?;
        }
        Ok(())
    }

    fn check_port(&self, port: &Port) -> Result<(), String> {
        if matches!(port.dtype, DType::QFloat(_)) {
            return Err(format!("`{}` is quantised", port.name));
        }
        self.check_shape(&port.shape)
    }

    fn check_shape(&self, shape: &[SymExpr]) -> Result<(), String> {
        if shape.len() > MOST_DIMENSIONS {
            return Err(format!("a tensor has more than {MOST_DIMENSIONS} dimensions"));
        }
        shape.iter().try_for_each(|expr| self.check_expr(expr))
    }

    fn check_expr(&self, expr: &SymExpr) -> Result<(), String> {
        let symbols = expr.0.iter().flat_map(|term| &term.symbols);
        let known = symbols.clone().all(|symbol| usize::from(*symbol) < self.symbols.len());
        if !known || expr.0.len() > 1 << MOST_SYMBOLS || symbols.count() > 1 << (MOST_SYMBOLS + 3) {
            return Err("a number is not a polynomial of the graph's symbols".to_owned());
        }
        Ok(())
    }

    /// Checks that the arena has all weights of the graph.
    ///
    /// # Errors
    /// Names a weight that is missing, or has another type or shape.
    pub(crate) fn check_entries(&self, arena: &Arena) -> Result<(), GraphError> {
        let entries = Entries::of(arena);
        self.constants.iter().try_for_each(|constant| match &constant.source {
            Source::Entry(path) => entries.find(path, constant).map(drop),
            _ => Ok(()),
        })
    }
}

/// The tensors of an arena by path.
pub(super) struct Entries<'a>(HashMap<&'a str, &'a TensorEntry>);

impl<'a> Entries<'a> {
    pub(super) fn of(arena: &'a Arena) -> Self {
        Self(arena.manifest().tensors.iter().map(|entry| (entry.path.as_str(), entry)).collect())
    }

    /// Finds the tensor of a constant.
    ///
    /// # Errors
    /// If there is no tensor of this path, or its type or shape differs.
    pub(super) fn find(&self, path: &str, constant: &Constant) -> Result<&'a TensorEntry, GraphError> {
        let constant_error = |reason: String| GraphError::Constant { path: path.to_owned(), reason };
        let entry = self.0.get(path).copied().ok_or_else(|| constant_error("is not in its arena".to_owned()))?;
        if entry.dtype != constant.dtype || extents(&constant.shape, &[]).as_ref() != Some(&entry.shape) {
            let found = format!("{} of shape {:?}", crate::tensor::dtype::name(entry.dtype), entry.shape);
            return Err(constant_error(format!("is {found} in its arena, which does not match the graph")));
        }
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::activation::relu;
    use burn::tensor::{DType, Device, Int, Shape, Tensor, TensorId};
    use burn_ir::{
        BaseOperationIr, CustomOpIr, DequantizeOpIr, FloatOperationIr, InitOperationIr, OperationIr, TensorIr,
    };

    use super::super::code::{COMPILED, GraphCode, Port, Source, SymbolicScalar};
    use super::super::symbolic::expr::{SymExpr, SymTerm};
    use super::GraphError;
    use crate::codec;
    use crate::jit::{Compile, TracedGraph, trace};

    #[derive(ray_zerocopy_derive::Pipeline)]
    #[pipeline(init = Model::new)]
    struct Model {
        layer: Linear,
    }

    impl Model {
        fn new(device: &Device) -> Self {
            Self { layer: LinearConfig::new(4, 3).init(device) }
        }
    }

    /// A graph with a symbol, holes, a range and a weight.
    fn code() -> GraphCode {
        (**graph().code()).clone()
    }

    fn graph() -> TracedGraph {
        let device = Device::flex();
        let graph = trace(&Model::new(&device))
            .input("x", Tensor::<2>::ones([2, 4], &device))
            .symbol("batch", [("x", 0)])
            .forward(|model, inputs| {
                let x = inputs.float::<2>("x")?;
                let [batch, _] = x.dims();
                let rows = Tensor::<1, Int>::arange(0..batch as i64, &x.device()).float().reshape([batch, 1]);
                Ok(relu(model.layer.forward(x)) * rows)
            });
        graph.unwrap()
    }

    fn read(code: &GraphCode) -> Result<GraphCode, GraphError> {
        GraphCode::read(&codec::encode(code).unwrap())
    }

    /// Compares a graph with the seed of this name, in the repository a link to a file in `fuzz/corpus/graph`.
    fn equals_seed(name: &str, code: &GraphCode) {
        assert_eq!(read(code).unwrap(), *code);
        let seed = std::path::Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/seeds").join(name);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&seed, codec::encode(code).unwrap()).unwrap();
        }
        let found = GraphCode::read(&std::fs::read(seed).unwrap()).unwrap();
        assert_eq!(found.operations, code.operations, "BLESS=1 writes it");
    }

    #[test]
    fn compiled_graphs_equal_the_fuzz_seeds() {
        for (name, options) in [("compiled", Compile::f32()), ("compiled-int8", Compile::int8())] {
            let code = (**graph().compile(options).unwrap().code()).clone();
            assert_eq!(code.format, COMPILED);
            equals_seed(name, &code);
        }
    }

    #[test]
    fn graph_round_trips_and_equals_the_fuzz_seed() {
        let code = code();
        assert!(!code.holes.is_empty() && code.constants.iter().any(|own| matches!(own.source, Source::Range { .. })));
        equals_seed("graph", &code);
    }

    /// Names are checked in linear time: comparing each with each would not finish.
    #[test]
    fn a_graph_of_many_outputs_is_read_at_once() {
        let mut code = code();
        let port = code.outputs[0].clone();
        code.outputs = (0..1 << 16).map(|at| Port { name: at.to_string(), ..port.clone() }).collect();
        assert!(read(&code).is_ok());
        code.outputs[1 << 15].name = "0".to_owned();
        assert!(read(&code).unwrap_err().to_string().contains("there are two outputs `0`"));
    }

    #[test]
    fn inconsistent_graph_is_refused() {
        let says = |change: &dyn Fn(&mut GraphCode), expected: &str| {
            let mut code = code();
            change(&mut code);
            let error = read(&code).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        };
        says(&|code| code.format = 3, "the graph has format 3 of burn 0.22.1, but this program requires format 1 or 2");
        says(&|code| code.burn = "0.23.0".into(), "format 1 of burn 0.23.0");
        says(&|code| code.inputs[0].id = TensorId::new(7), "input `x` is a duplicate, or has a wrong tensor id");
        says(
            &|code| code.inputs[0].shape[0] = SymExpr(vec![SymTerm { factor: 2, symbols: vec![0] }]),
            "is neither a positive number nor a symbol",
        );
        says(&|code| code.inputs[0].shape[0] = SymExpr::number(-1), "is neither a positive number nor a symbol");
        says(&|code| code.inputs[0].shape[0] = SymExpr::number(2), "no input has the symbol `batch`");
        says(&|code| code.inputs[0].shape[0] = SymExpr::symbol(9), "is not a polynomial of the graph's symbols");
        says(&|code| code.outputs[0].id = TensorId::new(1 << 40), "output `output` is not the result of an operation");
        says(&|code| code.outputs.push(code.outputs[0].clone()), "there are two outputs `output`");
        says(&|code| code.operations.reverse(), "which does not exist yet");
        says(&|code| drop(code.operations.remove(0)), "");
        says(&|code| code.holes.reverse(), "its symbolic numbers are not in order");
        says(
            &|code| code.holes.push(SymbolicScalar { operation: 999, number: 0, form: SymExpr::number(1) }),
            "its symbolic numbers are not in order",
        );
        says(&|code| code.constants[0].shape = vec![SymExpr::number(1); 9], "more than 8 dimensions");
        let quantised = DType::QFloat(Default::default());
        let weight = |code: &GraphCode| code.constants.iter().position(|own| matches!(own.source, Source::Entry(_)));
        says(
            &|code| {
                let at = weight(code).unwrap();
                code.constants[at].dtype = quantised;
            },
            ", which is quantised",
        );
        says(
            &|code| {
                let at = code.constants.iter().position(|own| !matches!(own.source, Source::Entry(_))).unwrap();
                code.constants[at].dtype = quantised;
            },
            "cannot be created from its source",
        );
        says(
            &|code| {
                let (input, out) = (code.operations[0].inputs().next(), code.operations[0].outputs().next());
                let operation = DequantizeOpIr { input: input.unwrap().clone(), out: out.unwrap().clone() };
                code.operations[0] = OperationIr::Float(DType::F32, FloatOperationIr::Dequantize(operation));
            },
            "operation 0 (Dequantize) reads tensor 1, which is not quantised",
        );
        says(
            &|code| {
                let at = weight(code).unwrap();
                code.constants[at].dtype = quantised;
                code.operations.clear();
                code.holes.clear();
                code.outputs[0].id = TensorId::new((code.inputs.len() + at) as u64);
            },
            "output `output` is not the result of an operation",
        );
        let range = |code: &GraphCode| {
            code.constants.iter().position(|own| matches!(own.source, Source::Range { .. })).unwrap()
        };
        says(
            &|code| {
                let at = range(code);
                code.constants[at].shape = vec![SymExpr::number(1 << 40)];
            },
            "cannot be created from its source",
        );
        says(
            &|code| {
                let at = range(code);
                (code.constants[at].source, code.constants[at].shape) =
                    (Source::Fill(vec![0; 4]), vec![SymExpr::number(i64::MAX)]);
            },
            "cannot be created from its source",
        );
        let tensor = |id: u64| TensorIr::uninit(TensorId::new(id), Shape::new([1]), DType::F32);
        for foreign in [
            OperationIr::Custom(CustomOpIr::new("custom", &[], &[tensor(0)])),
            OperationIr::Drop(tensor(0)),
            OperationIr::Init(InitOperationIr { out: tensor(0) }),
        ] {
            says(&|code| code.operations.insert(0, foreign.clone()), "is not an operation on tensors");
        }
        says(
            &|code| {
                let huge = TensorIr::uninit(TensorId::new(0), Shape::new([1 << 30, 1 << 30]), DType::F32);
                code.operations
                    .insert(0, OperationIr::BaseFloat(BaseOperationIr::Zeros(burn_ir::CreationOpIr { out: huge })));
            },
            "a tensor with too many dimensions or elements",
        );
    }

    #[test]
    fn bytes_that_were_changed_or_cut_never_panic() {
        let bytes = codec::encode(&code()).unwrap();
        for at in 0..bytes.len() {
            assert!(GraphCode::read(&bytes[..at]).is_err());
            for flip in [1, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                // Any result is fine as long as it does not panic.
                let _ = crate::fuzz::graph(&bytes);
            }
        }
    }
}
