//! Property tests of arguments and results, through a real worker and back.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use burn::tensor::kind::Basic;
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use ray_zerocopy::{LocalPool, Pipeline, TaskWrapper};
use serde::{Deserialize, Serialize};

use super::tree::{DTYPES, bytes};
use super::{config, key, shape};

/// A value with every type of serde's data model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Value {
    Unit,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Small(i8, u16),
    Single(f32),
    Double(f64),
    Char(char),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
    Numbered(BTreeMap<i32, Value>),
    Maybe(Option<Box<Value>>),
    Struct { first: Box<Value>, second: Option<String> },
    Flat(Flat),
    Either(Either),
    Json(serde_json::Value),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Flat {
    pub name: String,
    #[serde(flatten)]
    pub rest: BTreeMap<String, i64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Either {
    Number(i64),
    Text(String),
    List(Vec<i64>),
}

fn value() -> impl Strategy<Value = Value> {
    let either = prop_oneof![
        any::<i64>().prop_map(Either::Number),
        key().prop_map(Either::Text),
        vec(any::<i64>(), 0..4).prop_map(Either::List),
    ];
    // `name` is the name of the struct.
    let flat = (key(), btree_map("[a-d]{1,2}", any::<i64>(), 0..3)).prop_map(|(name, rest)| Flat { name, rest });
    let json = prop_oneof![
        Just(serde_json::Value::Null),
        any::<i64>().prop_map(Into::into),
        key().prop_map(Into::into),
        vec(any::<bool>(), 0..3).prop_map(Into::into),
    ];
    let leaf = prop_oneof![
        Just(Value::Unit),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Signed),
        any::<u64>().prop_map(Value::Unsigned),
        any::<(i8, u16)>().prop_map(|(left, right)| Value::Small(left, right)),
        any::<f32>().prop_map(Value::Single),
        any::<f64>().prop_map(Value::Double),
        any::<char>().prop_map(Value::Char),
        "\\PC{0,40}".prop_map(Value::Text),
        vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        flat.prop_map(Value::Flat),
        either.prop_map(Value::Either),
        json.prop_map(Value::Json),
    ];
    leaf.prop_recursive(6, 40, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..20).prop_map(Value::List),
            btree_map(key(), inner.clone(), 0..4).prop_map(Value::Map),
            btree_map(any::<i32>(), inner.clone(), 0..4).prop_map(Value::Numbered),
            prop::option::of(inner.clone()).prop_map(|value| Value::Maybe(value.map(Box::new))),
            (inner, prop::option::of(key()))
                .prop_map(|(first, second)| Value::Struct { first: Box::new(first), second }),
        ]
    })
}

#[derive(Pipeline)]
#[pipeline(init = Echo::new)]
struct Echo {
    nothing: String,
}

impl Echo {
    fn new(_: &Device) -> Self {
        Self { nothing: String::new() }
    }
}

type Tuple = (u8, Option<bool>, [i16; 3], (), (char, String), Vec<Option<f64>>);
type Named = BTreeMap<String, (Tensor<1>, Tensor<2, Bool>)>;

#[ray_zerocopy::remote]
impl Echo {
    pub fn value(&self, value: Value) -> Value {
        value
    }

    pub fn tuple(&self, tuple: Tuple) -> Tuple {
        tuple
    }

    pub fn floats(&self, one: Tensor<1>, three: Tensor<3>, five: Tensor<5>) -> (Tensor<1>, Tensor<3>, Tensor<5>) {
        (one, three, five)
    }

    pub fn ints(&self, list: Vec<Option<Tensor<2, Int>>>) -> Vec<Option<Tensor<2, Int>>> {
        list
    }

    pub fn named(&self, named: Named, value: Value) -> (Named, [Tensor<1>; 2]) {
        assert!(!matches!(value, Value::Unit), "the value before was not read in full");
        let first =
            |named: &Named| named.values().next().map_or_else(|| Tensor::zeros([0], &Device::flex()), |t| t.0.clone());
        let pair = [first(&named), first(&named)];
        (named, pair)
    }

    pub fn result(&self, result: Result<Tensor<4>, Value>) -> Result<Tensor<4>, Value> {
        result
    }
}

/// One worker for all cases.
static WORKER: LazyLock<TaskWrapper<Echo>> = LazyLock::new(|| {
    let engine = LocalPool::builder().workers(1).threads_per_worker(1).start().unwrap();
    TaskWrapper::on(&engine, &Echo::new(&Device::flex())).unwrap()
});

/// A tensor of any supported type, with the given first dimensions.
fn tensor<const D: usize, K: Basic>(dtype: DType, shape: &[usize], seed: u64) -> Tensor<D, K> {
    let shape: Vec<_> = shape.iter().copied().chain(std::iter::repeat(2)).take(D).collect();
    let bytes = bytes(dtype, shape.iter().product(), seed);
    Tensor::from_data(TensorData::from_bytes_vec(bytes, shape, dtype), (&Device::flex(), dtype))
}

/// Compares bytes, so that a NaN equals itself.
fn same<const D: usize, K: Basic>(left: &Tensor<D, K>, right: &Tensor<D, K>) -> bool {
    left.dtype() == right.dtype()
        && left.dims() == right.dims()
        && left.to_data().as_bytes() == right.to_data().as_bytes()
}

fn floats() -> impl Strategy<Value = DType> {
    prop::sample::select(DTYPES[..4].to_vec())
}

fn ints() -> impl Strategy<Value = DType> {
    prop::sample::select(DTYPES[4..12].to_vec())
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn any_value_comes_back(value in value()) {
        let there = WORKER.value(value.clone()).wait().unwrap();
        prop_assert_eq!(format!("{there:?}"), format!("{value:?}"));
        let there = WORKER.result(Err(value.clone())).wait().unwrap().err();
        prop_assert_eq!(format!("{there:?}"), format!("{:?}", Some(value)));
    }

    #[test]
    fn any_tuple_comes_back(tuple: Tuple) {
        let there = WORKER.tuple(tuple.clone()).wait().unwrap();
        prop_assert_eq!(format!("{there:?}"), format!("{tuple:?}"));
    }

    #[test]
    fn any_tensors_come_back(
        (dtype, other) in (floats(), floats()), int in ints(), shape in shape(), seed: u64,
        holes in vec(any::<bool>(), 0..4), names in vec(key(), 0..3), value in value(),
    ) {
        let sent = (tensor::<1, _>(dtype, &shape, seed), tensor::<3, _>(other, &shape, seed), tensor::<5, _>(dtype, &shape, seed));
        let back = WORKER.floats(sent.0.clone(), sent.1.clone(), sent.2.clone()).wait().unwrap();
        prop_assert!(same(&sent.0, &back.0) && same(&sent.1, &back.1) && same(&sent.2, &back.2));

        let sent: Vec<_> = holes.iter().map(|&hole| (!hole).then(|| tensor::<2, Int>(int, &shape, seed))).collect();
        let back = WORKER.ints(sent.clone()).wait().unwrap();
        prop_assert_eq!(back.len(), sent.len());
        let equal = |(left, right): (&Option<_>, &Option<_>)| match (left, right) {
            (Some(left), Some(right)) => same(left, right),
            (None, None) => true,
            _ => false,
        };
        prop_assert!(sent.iter().zip(&back).all(equal));

        let pair = |name: String| (name, (tensor::<1, _>(dtype, &shape, seed), tensor::<2, Bool>(DTYPES[12], &shape, seed)));
        let sent: Named = names.into_iter().map(pair).collect();
        let value = Value::List(vec![value]);
        let (back, array) = WORKER.named(sent.clone(), value).wait().unwrap();
        prop_assert!(sent.keys().eq(back.keys()));
        prop_assert!(sent.values().zip(back.values()).all(|(left, right)| same(&left.0, &right.0) && same(&left.1, &right.1)));
        prop_assert!(same(&array[0], &array[1]));
        prop_assert!(sent.values().next().is_none_or(|first| same(&first.0, &array[0])));

        let sent = tensor::<4, _>(other, &shape, seed);
        let back = WORKER.result(Ok(sent.clone())).wait().unwrap().ok();
        prop_assert!(back.is_some_and(|back| same(&sent, &back)));
    }
}
