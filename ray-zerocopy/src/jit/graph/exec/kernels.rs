//! Direct kernels for frequent operations. They bypass burn's interpreter, which takes each
//! operation by value and looks up each tensor by hash; for small tensors that takes longer than
//! the computation.
//!
//! Each kernel calls the same backend function as the interpreter, so the results are bitwise
//! equal.

use burn_backend::ops::AttentionModuleOptions;
use burn_ir::{
    ActivationOperationIr, BaseOperationIr, BinaryOpIr, FloatOperationIr, HandleKind, ModuleOperationIr,
    NumericOperationIr, OperationIr, ReduceDimOpIr, ScalarOpIr, TensorIr, UnaryOpIr,
};

use super::backend::Bridge;
use super::executor::Slots;
use crate::jit::graph::fused::Fused;

/// Runs an operation if it has a direct kernel. Returns `false` otherwise.
///
/// # Panics
/// If the backend panics, or a tensor has another kind than the operation expects.
pub(super) fn run<B: Bridge>(operation: &OperationIr, slots: &mut Slots<B>) -> bool {
    match operation {
        OperationIr::BaseFloat(operation) => base_float(operation, slots),
        OperationIr::BaseInt(operation) => base_int(operation, slots),
        OperationIr::BaseBool(operation) => base_bool(operation, slots),
        OperationIr::NumericFloat(_, operation) => numeric(operation, slots),
        OperationIr::Float(_, operation) => float(operation, slots),
        OperationIr::Module(operation) => module(operation, slots),
        OperationIr::Activation(operation) => activation(operation, slots),
        OperationIr::Custom(custom) => Fused::parse(&custom.id).is_some_and(|fused| B::fused(fused, custom, slots)),
        _ => false,
    }
}

impl<B: Bridge> Slots<B> {
    fn quantised(&mut self, tensor: &TensorIr) -> B::QuantizedTensorPrimitive {
        match self.operand(tensor) {
            HandleKind::Quantized(tensor) => tensor,
            other => panic!("the operation reads another kind of tensor than {}", other.name()),
        }
    }
}

macro_rules! of_kind {
    ($($name:ident $put:ident $kind:ident $primitive:ident),*) => {
        impl<B: Bridge> Slots<B> {
            $(
                fn $name(&mut self, tensor: &TensorIr) -> B::$primitive {
                    match self.operand(tensor) {
                        HandleKind::$kind(tensor) => tensor,
                        other => panic!("the operation reads another kind of tensor than {}", other.name()),
                    }
                }

                fn $put(&mut self, tensor: &TensorIr, result: B::$primitive) {
                    self.put(tensor, HandleKind::$kind(result));
                }
            )*
        }
    };
}

of_kind!(
    float put_float Float FloatTensorPrimitive,
    int put_int Int IntTensorPrimitive,
    boolean put_boolean Bool BoolTensorPrimitive
);

impl<B: Bridge> Slots<B> {
    fn unary(&mut self, op: &UnaryOpIr, run: impl Fn(B::FloatTensorPrimitive) -> B::FloatTensorPrimitive) {
        let input = self.float(&op.input);
        self.put_float(&op.out, run(input));
    }

    fn binary(
        &mut self,
        op: &BinaryOpIr,
        run: impl Fn(B::FloatTensorPrimitive, B::FloatTensorPrimitive) -> B::FloatTensorPrimitive,
    ) {
        let (lhs, rhs) = (self.float(&op.lhs), self.float(&op.rhs));
        self.put_float(&op.out, run(lhs, rhs));
    }

    fn scalar(
        &mut self,
        op: &ScalarOpIr,
        run: impl Fn(B::FloatTensorPrimitive, burn_backend::Scalar) -> B::FloatTensorPrimitive,
    ) {
        let lhs = self.float(&op.lhs);
        self.put_float(&op.out, run(lhs, op.rhs.into()));
    }

    fn reduce(&mut self, op: &ReduceDimOpIr, run: impl Fn(B::FloatTensorPrimitive, usize) -> B::FloatTensorPrimitive) {
        let input = self.float(&op.input);
        self.put_float(&op.out, run(input, op.axis));
    }
}

/// Operations that all kinds of tensors have in common.
macro_rules! base {
    ($operation:expr, $slots:expr, $take:ident $put:ident, $reshape:ident $swap:ident $permute:ident $expand:ident $slice:ident $cat:ident) => {
        match $operation {
            BaseOperationIr::Reshape(op) => {
                let input = $slots.$take(&op.input);
                $slots.$put(&op.out, B::$reshape(input, op.out.shape.clone()));
            }
            BaseOperationIr::SwapDims(op) => {
                let input = $slots.$take(&op.input);
                $slots.$put(&op.out, B::$swap(input, op.dim1, op.dim2));
            }
            BaseOperationIr::Permute(op) => {
                let input = $slots.$take(&op.input);
                $slots.$put(&op.out, B::$permute(input, &op.axes));
            }
            BaseOperationIr::Expand(op) => {
                let input = $slots.$take(&op.input);
                $slots.$put(&op.out, B::$expand(input, op.out.shape.clone()));
            }
            BaseOperationIr::Slice(op) => {
                let input = $slots.$take(&op.tensor);
                $slots.$put(&op.out, B::$slice(input, &op.ranges));
            }
            BaseOperationIr::Cat(op) => {
                let tensors = op.tensors.iter().map(|tensor| $slots.$take(tensor)).collect();
                $slots.$put(&op.out, B::$cat(tensors, op.dim));
            }
            _ => return false,
        }
    };
}

fn base_float<B: Bridge>(operation: &BaseOperationIr, slots: &mut Slots<B>) -> bool {
    match operation {
        BaseOperationIr::Select(op) => {
            let (input, indices) = (slots.float(&op.tensor), slots.int(&op.indices));
            slots.put_float(&op.out, B::float_select(input, op.dim, indices));
        }
        BaseOperationIr::MaskFill(op) => {
            let (input, mask) = (slots.float(&op.tensor), slots.boolean(&op.mask));
            slots.put_float(&op.out, B::float_mask_fill(input, mask, op.value.into()));
        }
        BaseOperationIr::MaskWhere(op) => {
            let (input, mask, value) = (slots.float(&op.tensor), slots.boolean(&op.mask), slots.float(&op.value));
            slots.put_float(&op.out, B::float_mask_where(input, mask, value));
        }
        other => base!(
            other, slots, float put_float,
            float_reshape float_swap_dims float_permute float_expand float_slice float_cat
        ),
    }
    true
}

fn base_int<B: Bridge>(operation: &BaseOperationIr, slots: &mut Slots<B>) -> bool {
    base!(operation, slots, int put_int, int_reshape int_swap_dims int_permute int_expand int_slice int_cat);
    true
}

fn base_bool<B: Bridge>(operation: &BaseOperationIr, slots: &mut Slots<B>) -> bool {
    base!(
        operation, slots, boolean put_boolean,
        bool_reshape bool_swap_dims bool_permute bool_expand bool_slice bool_cat
    );
    true
}

fn numeric<B: Bridge>(operation: &NumericOperationIr, slots: &mut Slots<B>) -> bool {
    match operation {
        NumericOperationIr::Add(op) => slots.binary(op, B::float_add),
        NumericOperationIr::Sub(op) => slots.binary(op, B::float_sub),
        NumericOperationIr::Mul(op) => slots.binary(op, B::float_mul),
        NumericOperationIr::Div(op) => slots.binary(op, B::float_div),
        NumericOperationIr::AddScalar(op) => slots.scalar(op, B::float_add_scalar),
        NumericOperationIr::SubScalar(op) => slots.scalar(op, B::float_sub_scalar),
        NumericOperationIr::MulScalar(op) => slots.scalar(op, B::float_mul_scalar),
        NumericOperationIr::DivScalar(op) => slots.scalar(op, B::float_div_scalar),
        NumericOperationIr::Abs(op) => slots.unary(op, B::float_abs),
        NumericOperationIr::SumDim(op) => slots.reduce(op, B::float_sum_dim),
        NumericOperationIr::MeanDim(op) => slots.reduce(op, B::float_mean_dim),
        _ => return false,
    }
    true
}

fn float<B: Bridge>(operation: &FloatOperationIr, slots: &mut Slots<B>) -> bool {
    match operation {
        FloatOperationIr::Matmul(op) => {
            let (lhs, rhs) = (slots.float(&op.lhs), slots.float(&op.rhs));
            slots.put_float(&op.out, B::float_matmul(lhs, rhs));
        }
        FloatOperationIr::Dequantize(op) => {
            let weight = slots.quantised(&op.input);
            slots.put_float(&op.out, B::dequantize(weight, op.out.dtype.into()));
        }
        FloatOperationIr::Exp(op) => slots.unary(op, B::float_exp),
        FloatOperationIr::Log(op) => slots.unary(op, B::float_log),
        FloatOperationIr::Sqrt(op) => slots.unary(op, B::float_sqrt),
        FloatOperationIr::Tanh(op) => slots.unary(op, B::float_tanh),
        FloatOperationIr::Erf(op) => slots.unary(op, B::float_erf),
        FloatOperationIr::Recip(op) => slots.unary(op, B::float_recip),
        FloatOperationIr::PowfScalar(op) => slots.scalar(op, B::float_powf_scalar),
        _ => return false,
    }
    true
}

fn activation<B: Bridge>(operation: &ActivationOperationIr, slots: &mut Slots<B>) -> bool {
    match operation {
        ActivationOperationIr::Relu(op) => slots.unary(op, B::relu),
        ActivationOperationIr::Gelu(op) => slots.unary(op, B::gelu),
        ActivationOperationIr::Sigmoid(op) => slots.unary(op, B::sigmoid),
        ActivationOperationIr::Softmax(op) => {
            let input = slots.float(&op.input);
            slots.put_float(&op.out, B::softmax(input, op.axis));
        }
        _ => return false,
    }
    true
}

fn module<B: Bridge>(operation: &ModuleOperationIr, slots: &mut Slots<B>) -> bool {
    match operation {
        ModuleOperationIr::Embedding(op) => {
            let (weights, indices) = (slots.float(&op.weights), slots.int(&op.indices));
            slots.put_float(&op.out, B::embedding(weights, indices));
        }
        ModuleOperationIr::Linear(op) => {
            let (x, weight) = (slots.float(&op.x), slots.float(&op.weight));
            let bias = op.bias.as_ref().map(|bias| slots.float(bias));
            slots.put_float(&op.out, B::linear(x, weight, bias));
        }
        ModuleOperationIr::LayerNorm(op) => {
            let (input, gamma) = (slots.float(&op.input), slots.float(&op.gamma));
            let beta = op.beta.as_ref().map(|beta| slots.float(beta));
            slots.put_float(&op.out, B::layer_norm(input, gamma, beta, op.epsilon.elem::<f64>()));
        }
        ModuleOperationIr::Attention(op) => {
            let (query, key, value) = (slots.float(&op.query), slots.float(&op.key), slots.float(&op.value));
            let mask = op.mask.as_ref().map(|mask| slots.boolean(mask));
            let bias = op.attn_bias.as_ref().map(|bias| slots.float(bias));
            let options: AttentionModuleOptions = op.options.clone().into();
            slots.put_float(&op.out, B::attention(query, key, value, mask, bias, options));
        }
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::backend::flex::FlexDevice;
    use burn::module::{Module, Param};
    use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
    use burn::tensor::activation::{gelu, relu, sigmoid, softmax};
    use burn::tensor::{Device, Distribution, Int, Tensor};

    use super::super::backend::Bridge;
    use super::super::executor::{Slots, interpret, tensors};
    use super::run;
    use crate::jit::trace;
    use crate::tensor::value::Values;

    #[derive(ray_zerocopy_derive::Pipeline)]
    #[pipeline(init = All::new)]
    struct All {
        parts: Parts,
    }

    #[derive(Module, Debug)]
    struct Parts {
        linear: Linear,
        norm: LayerNorm,
        words: Embedding,
        bias: Param<Tensor<2>>,
    }

    impl All {
        fn new(device: &Device) -> Self {
            let parts = Parts {
                linear: LinearConfig::new(4, 4).init(device),
                norm: LayerNormConfig::new(4).init(device),
                words: EmbeddingConfig::new(9, 4).init(device),
                bias: Param::from_tensor(Tensor::ones([3, 4], device)),
            };
            Self { parts }
        }

        /// Uses every operation that has a direct kernel.
        fn forward(&self, x: Tensor<2>, ids: Tensor<2, Int>) -> Values {
            let Parts { linear, norm, words, bias } = &self.parts;
            let (bias, mask) = (bias.val(), x.clone().greater_elem(0.5));
            let y = gelu(linear.forward(x.clone())) + relu(x.clone()) * 2.0 - 1.0;
            let y = (norm.forward(y) - bias.clone()) / (bias.clone() + 1.0) / 3.0;
            let y = y.clone().exp()
                + y.clone().abs().sqrt().recip()
                + y.clone().tanh()
                + y.clone().erf()
                + y.powf_scalar(1.5);
            let y =
                (sigmoid(y.clone()) * softmax(y.clone(), 1)).mask_fill(mask.clone(), 0.25).mask_where(mask.clone(), y);
            let y = y.abs() + 0.1;
            let sums = y.clone().log().sum_dim(0) - 2.0 + y.clone().mean_dim(0);
            let words = words.forward(ids.clone().reshape([2, 3])).reshape([6, 4]).slice([0..3, 0..4]);
            let wide: Tensor<3> = y.clone().reshape([1, 3, 4]).expand([2, 3, 4]).permute([1, 0, 2]).swap_dims(0, 1);
            let product = wide.clone().matmul(wide.swap_dims(1, 2));
            let both = Tensor::cat(vec![y + words, sums], 0).select(0, ids.clone().reshape([6]).slice(0..2));
            let ids = Tensor::cat(
                vec![ids.clone().swap_dims(0, 1).permute([1, 0]), ids.slice([0..1, 0..2]).expand([3, 2])],
                0,
            );
            let masks = Tensor::cat(
                vec![
                    mask.clone().swap_dims(0, 1).permute([1, 0]),
                    mask.slice([0..1, 0..4]).expand([2, 4]).reshape([2, 4]),
                ],
                0,
            );
            Values::new().with("product", product).with("both", both).with("ids", ids).with("masks", masks)
        }
    }

    #[test]
    fn operations_match_burn_bit_for_bit() {
        let device = Device::flex();
        let x = Tensor::<2>::random([3, 4], Distribution::Default, &device);
        let ids = Tensor::<2, Int>::from_ints([[3, 0], [1, 2], [2, 1]], &device);
        let all = All::new(&device);
        let graph = trace(&all)
            .input("x", x.clone())
            .input("ids", ids.clone())
            .forward(|all, inputs| Ok(all.forward(inputs.float("x")?, inputs.int("ids")?)))
            .unwrap();
        let code = graph.code();
        let handle = |value: &crate::tensor::value::Value| <Flex as Bridge>::inside(value, &FlexDevice).unwrap();
        let mut slots: Vec<_> = (0..tensors(code)).map(|_| None).collect();
        slots[0] = Some(handle(&x.into()));
        slots[1] = Some(handle(&ids.into()));
        for (at, constant) in code.constants.iter().enumerate() {
            let data = constant.data(&[]).unwrap_or_else(|| {
                let crate::jit::graph::code::Source::Entry(path) = &constant.source else { panic!("constant {at}") };
                let entry = graph.arena().manifest().tensors.iter().find(|entry| entry.path == *path).unwrap();
                let bytes = graph.arena().borrow(entry.blob);
                burn::tensor::TensorData::from_bytes(bytes, entry.shape.clone(), entry.dtype)
            });
            slots[2 + at] = Some(handle(&crate::tensor::value::Value::from_data(data, &device).unwrap()));
        }
        let (mut own, mut burns) = (Slots::<Flex>::new(slots.clone()), Slots::<Flex>::new(slots));
        let mut names = std::collections::BTreeSet::new();
        for operation in &code.operations {
            let name = crate::jit::graph::passes::name(operation);
            let direct = run(operation, &mut own);
            interpret(operation, &mut burns, &FlexDevice);
            if !direct {
                interpret(operation, &mut own, &FlexDevice);
                continue;
            }
            names.insert(name.clone());
            for out in operation.outputs() {
                let data = |slots: &Slots<Flex>| {
                    let value =
                        <Flex as Bridge>::outside(slots.tensors[out.id.value() as usize].clone().unwrap()).unwrap();
                    value.data().unwrap()
                };
                assert_eq!(data(&own).as_bytes(), data(&burns).as_bytes(), "{name}");
            }
        }
        let missing: Vec<_> = [
            "Abs",
            "Add",
            "AddScalar",
            "Cat",
            "Div",
            "DivScalar",
            "Embedding",
            "Erf",
            "Exp",
            "Expand",
            "Gelu",
            "LayerNorm",
            "Log",
            "MaskFill",
            "MaskWhere",
            "Matmul",
            "MeanDim",
            "Mul",
            "MulScalar",
            "Permute",
            "PowfScalar",
            "Recip",
            "Relu",
            "Reshape",
            "Select",
            "Sigmoid",
            "Slice",
            "Softmax",
            "Sqrt",
            "Sub",
            "SubScalar",
            "SumDim",
            "SwapDims",
            "Tanh",
        ]
        .into_iter()
        .filter(|name| !names.contains(*name))
        .collect();
        assert!(missing.is_empty(), "not run: {missing:?}; run: {names:?}");
    }
}
