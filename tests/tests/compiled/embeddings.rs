//! Sums of embeddings.

use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{Device, Int, Tensor};
use ray_zerocopy::Pipeline;
use ray_zerocopy::jit::{self, Compile, TracedGraph, Values};

const WIDTH: usize = 24;
const WORDS: usize = 11;

#[derive(Pipeline)]
#[pipeline(init = Model::new)]
struct Model {
    words: Embedding,
    positions: Embedding,
    kinds: Embedding,
}

impl Model {
    fn new(device: &Device) -> Self {
        let table = |rows| EmbeddingConfig::new(rows, WIDTH).init(device);
        Self { words: table(WORDS), positions: table(64), kinds: table(2) }
    }

    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [batch, length] = ids.dims();
        let device = ids.device();
        let positions = Tensor::<1, Int>::arange(0..length as i64, &device).reshape([1, length]);
        let kinds = Tensor::<2, Int>::zeros([batch, length], &device);
        self.words.forward(ids) + self.kinds.forward(kinds) + self.positions.forward(positions)
    }
}

fn ids(batch: usize, length: usize) -> Tensor<2, Int> {
    let count = (batch * length) as i64;
    let ids = Tensor::<1, Int>::arange(0..count, &Device::flex()) * 5 % WORDS as i64;
    ids.reshape([batch, length])
}

fn traced(model: &Model) -> TracedGraph {
    let graph = jit::trace(model).input("ids", ids(2, 3)).symbol("batch", [("ids", 0)]).symbol("length", [("ids", 1)]);
    graph.forward(|model, inputs| Ok(model.forward(inputs.int::<2>("ids")?))).unwrap()
}

#[test]
fn sums_are_one_operation_and_equal_to_the_last_bit() {
    let model = Model::new(&Device::flex());
    let compiled = traced(&model).compile(Compile::f32()).unwrap();
    let names: Vec<_> = compiled.info().steps().map(|step| step.name).collect();
    assert_eq!(names.iter().filter(|name| *name == "Add").count(), 0, "{names:?}");
    assert_eq!(names.last().map(String::as_str), Some("Embedding + residual + residual"), "{names:?}");
    let mut executable = compiled.load("cpu").unwrap();
    for (batch, length) in [(2, 3), (1, 1), (3, 1), (1, 40), (5, 7)] {
        let ids = ids(batch, length);
        let found = executable.run(Values::new().with("ids", ids.clone())).unwrap().data("output").unwrap();
        assert_eq!(found, model.forward(ids).into_data(), "{batch} × {length}");
    }
}

#[test]
fn a_word_outside_of_the_table_is_an_error() {
    let compiled = traced(&Model::new(&Device::flex())).compile(Compile::f32()).unwrap();
    let mut executable = compiled.load("cpu").unwrap();
    for (word, name) in [(WORDS as i64, "11"), (-1, "-1")] {
        let ids = ids(2, 3).mask_fill(ids(2, 3).equal_elem(0), word);
        let error = executable.run(Values::new().with("ids", ids)).unwrap_err().to_string();
        assert!(error.contains(&format!("row {name} of a table of {WORDS} rows")), "{error}");
    }
    executable.run(Values::new().with("ids", ids(2, 3))).unwrap();
}
