//! All methods of a pipeline as JSON, by the types of their parameters.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::collections::BTreeMap;

use burn::module::Param;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use ray_zerocopy::{ActorWrapper, Batching, Pipeline, TaskWrapper};
use ray_zerocopy_serve::{Methods, ModelRepository, Service};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use common::{get, pool, post};

#[derive(Pipeline)]
#[pipeline(init = Mixed::new)]
struct Mixed {
    double: Linear,
    #[pipeline(skip)]
    count: u64,
}

#[derive(Serialize, Deserialize)]
enum Shape {
    Point,
    Circle { radius: f32 },
}

#[derive(Serialize, Deserialize)]
struct Drawing {
    name: String,
    shapes: Vec<Shape>,
    scale: Option<f64>,
}

#[ray_zerocopy::remote]
impl Mixed {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        let mut double = LinearConfig::new(2, 2).with_bias(false).init(device);
        double.weight = Param::from_data(TensorData::from([[2.0, 0.0], [0.0, 2.0]]), device);
        Self { double, count: 0 }
    }

    /// Doubles each number.
    #[remote(batch)]
    pub fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        self.double.forward(rows)
    }

    pub fn masked(&self, row: Tensor<1>, keep: Tensor<1, Bool>, add: Option<Tensor<1>>) -> (Tensor<1>, Tensor<1, Int>) {
        let counted = keep.clone().int();
        let row = row.mask_fill(keep.bool_not(), 0.0);
        (if let Some(add) = add { row + add } else { row }, counted)
    }

    pub fn named(&self, tensors: BTreeMap<String, Tensor<1>>, pick: Vec<Tensor<1>>) -> BTreeMap<u32, Tensor<1>> {
        tensors.into_values().chain(pick).enumerate().map(|(number, tensor)| (number as u32, tensor)).collect()
    }

    pub fn drawn(&self, drawing: Drawing, sizes: (u8, i64)) -> (String, f32, BTreeMap<u8, i64>) {
        let radius = |shape: &Shape| if let Shape::Circle { radius } = shape { *radius } else { 0.0 };
        let radius = drawing.shapes.iter().map(radius).sum::<f32>() * drawing.scale.unwrap_or(1.0) as f32;
        (drawing.name, radius, BTreeMap::from([sizes]))
    }

    pub fn checked(&self, rows: Tensor<2>) -> Result<Tensor<2>, String> {
        if rows.dims()[0] == 0 { Err("there are no rows".to_owned()) } else { Ok(rows) }
    }

    pub fn divided(&self, row: Tensor<1>, by: f32) -> Tensor<1> {
        row / by
    }

    pub fn inverted(&self, number: f64) -> (Option<f64>, Vec<f64>) {
        (None, vec![1.0 / number])
    }

    #[remote(stream)]
    pub fn rows(&self, rows: Tensor<2>) -> impl Iterator<Item = Tensor<1>> {
        (0..rows.dims()[0]).map(move |row| rows.clone().narrow(0, row, 1).squeeze_dim::<1>(0))
    }

    pub fn counted(&mut self, by: u64) -> Result<u64, String> {
        self.count += by;
        if self.count > 10 { Err(format!("{} is too much", self.count)) } else { Ok(self.count) }
    }
}

/// A service with the pipeline `mixed`, as tasks and as an actor.
fn service() -> Service {
    let model = Mixed::new(&Device::flex());
    let tasks = TaskWrapper::on(&pool(), &model).unwrap().batch(Batching::default());
    let actors = ActorWrapper::on(&pool(), &model).unwrap().spawn(1).unwrap();
    let models = ModelRepository::builder().pool(pool()).start().unwrap();
    let service = Service::builder(models).methods(Methods::all("mixed", &tasks));
    service.methods(Methods::all("actor", &actors)).build()
}

async fn call(service: &Service, method: &str, arguments: Value) -> Value {
    post(service, &format!("/v1/pipelines/{method}"), arguments.to_string()).await.well().json()
}

async fn error(service: &Service, method: &str, arguments: &str, status: u16) -> String {
    post(service, &format!("/v1/pipelines/{method}"), arguments.to_owned()).await.error(status)
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_are_read_as_their_types() {
    let service = service();
    let call = async |method: &str, arguments| call(&service, &format!("mixed/{method}"), arguments).await;
    assert_eq!(call("forward", json!({ "rows": [[1, 2], [3.5, -4]] })).await, json!([[2.0, 4.0], [7.0, -8.0]]));
    assert_eq!(call("forward", json!([[[1, 2]]])).await, json!([[2.0, 4.0]]));
    let masked = json!({ "row": [1, 2], "keep": [true, false], "add": null });
    assert_eq!(call("masked", masked).await, json!([[1.0, 0.0], [1, 0]]));
    assert_eq!(call("masked", json!([[1, 2], [true, false], [1, 1]])).await, json!([[2.0, 1.0], [1, 0]]));
    let named = json!({ "tensors": { "a": [1], "b": [2, 3] }, "pick": [[4]] });
    assert_eq!(call("named", named).await, json!({ "0": [1.0], "1": [2.0, 3.0], "2": [4.0] }));
    let drawing = json!({ "name": "x", "shapes": ["Point", { "Circle": { "radius": 2 } }], "scale": 1.5 });
    let drawn = call("drawn", json!({ "drawing": drawing, "sizes": [1, -2] })).await;
    assert_eq!(drawn, json!(["x", 3.0, { "1": -2 }]));
    assert_eq!(call("checked", json!([[[1]]])).await, json!([[1.0]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_actors_are_called_as_well() {
    let service = service();
    let events = post(&service, "/v1/pipelines/mixed/rows", r#"{"rows": [[1, 2], [3, 4]]}"#.to_owned()).await.well();
    assert_eq!(events.body, "data: [1.0,2.0]\n\ndata: [3.0,4.0]\n\nevent: end\ndata: null\n\n");
    assert_eq!(call(&service, "actor/counted", json!([4])).await, 4);
    assert_eq!(call(&service, "actor/counted", json!({ "by": 5 })).await, 9);
    assert_eq!(error(&service, "actor/counted", "[2]", 422).await, "11 is too much");
    // A task does not have the methods that change the pipeline.
    assert!(error(&service, "mixed/counted", "[1]", 404).await.starts_with("there is no method `counted`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_are_refused_by_name() {
    let service = service();
    let error = async |method: &str, arguments: &str, status| {
        error(&service, &format!("mixed/{method}"), arguments, status).await
    };
    let takes = "`divided` takes `row`, `by` (an object with these names, or a list in this order), ";
    for (arguments, found) in [
        ("", "found nothing"),
        ("5", "found neither"),
        ("[1]", "found a list of 1"),
        (r#"{"row": [1]}"#, "and `by` is missing"),
        (r#"{"row": [1], "by": 2, "of": 3}"#, "found `of`"),
    ] {
        assert_eq!(error("divided", arguments, 400).await, format!("{takes}{found}"));
    }
    assert!(error("divided", r#"{"row": [1], "#, 400).await.starts_with(&format!("{takes}found EOF")));
    let found = error("divided", r#"{"row": [1], "by": "two"}"#, 400).await;
    assert_eq!(found, "argument `by` of `divided` is not a f32: found \"two\"");
    let found = error("drawn", r#"[{"name": "x", "shapes": ["Square"]}, [1, 2]]"#, 400).await;
    assert!(found.starts_with("argument `drawing` of `drawn` is not a Drawing: "), "{found}");
    assert!(found.contains("unknown variant `Square`, expected `Point` or `Circle`"), "{found}");
    let wrong = "argument `rows` of `forward` is not a float tensor of rank 2: ";
    for (rows, found) in [
        ("[1, 2]", "its lists are nested 1 deep, expected 2"),
        ("[[[1]]]", "its lists are nested more than 2 deep"),
        ("[[1, 2], [3]]", "its lists have 2 and 1 items, expected equal numbers"),
        (r#"[["x", 1]]"#, "it has the element \"x\""),
    ] {
        assert_eq!(error("forward", &format!("[{rows}]"), 400).await, format!("{wrong}{found}"));
    }
    assert_eq!(error("checked", "[[]]", 422).await, "there are no rows");
    let found = error("divided", r#"[[1], 0]"#, 500).await;
    let reason = "a tensor has not-a-number or an infinity, which JSON does not have";
    assert_eq!(found, format!("the result of `divided` cannot be written as JSON: {reason}"));
    assert_eq!(call(&service, "mixed/inverted", json!([2])).await, json!([null, [0.5]]));
    let found = error("inverted", "[0]", 500).await;
    assert_eq!(found, "the result of `inverted` cannot be written as JSON: it contains inf, which JSON does not have");
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_are_described() {
    let service = service();
    let pipelines = get(&service, "/v1/pipelines").await.well().json();
    let methods = pipelines["pipelines"][0]["methods"].as_array().unwrap().clone();
    let of = |name: &str| methods.iter().find(|method| method["name"] == name).unwrap().clone();
    assert_eq!(
        of("forward"),
        json!({
            "name": "forward",
            "description": "Doubles each number.",
            "parameters": [{ "name": "rows", "type": "float tensor of rank 2" }],
            "returns": "float tensor of rank 2",
            "stream": false,
        })
    );
    assert_eq!(of("masked")["returns"], "list of (float tensor of rank 1, int tensor of rank 1)");
    assert_eq!(of("drawn")["parameters"][0], json!({ "name": "drawing", "type": "Drawing" }));
    assert_eq!(of("rows")["stream"], true);
}
