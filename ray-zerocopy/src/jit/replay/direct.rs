//! Frequent operations, without the way through burn's interpreter: that takes an operation by value, and looks each tensor up by
//! its hash, which for small tensors takes longer than to compute.
//!
//! Each calls what the interpreter calls, so the bits are the same.

use burn_backend::ops::AttentionModuleOptions;
use burn_ir::{
    ActivationOperationIr, BaseOperationIr, BinaryOpIr, FloatOperationIr, HandleKind, ModuleOperationIr,
    NumericOperationIr, OperationIr, ReduceDimOpIr, ScalarOpIr, TensorIr, UnaryOpIr,
};

use super::backend::Bridge;
use super::player::Slots;

/// Runs an operation, if it is one of these.
///
/// # Panics
/// As the backend does; or if the operation is one of another kind of tensor.
pub(super) fn run<B: Bridge>(operation: &OperationIr, slots: &mut Slots<B>) -> bool {
    match operation {
        OperationIr::BaseFloat(operation) => base_float(operation, slots),
        OperationIr::BaseInt(operation) => base_int(operation, slots),
        OperationIr::BaseBool(operation) => base_bool(operation, slots),
        OperationIr::NumericFloat(_, operation) => numeric(operation, slots),
        OperationIr::Float(_, operation) => float(operation, slots),
        OperationIr::Module(operation) => module(operation, slots),
        OperationIr::Activation(operation) => activation(operation, slots),
        _ => false,
    }
}

macro_rules! of_kind {
    ($($name:ident $put:ident $kind:ident $primitive:ident),*) => {
        impl<B: Bridge> Slots<B> {
            $(
                fn $name(&mut self, tensor: &TensorIr) -> B::$primitive {
                    match self.operand(tensor) {
                        HandleKind::$kind(tensor) => tensor,
                        other => panic!("a {} tensor is there, where the operation reads another kind", other.name()),
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

/// What every kind of tensor has.
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
