//! Pipelines whose model is a compiled graph.

use burn::tensor::{Device, Tensor};
use ray_zerocopy::jit::{self, Compile, GraphField, GraphSpec, Values};
use ray_zerocopy::{ActorWrapper, Pipeline, TaskWrapper};
use serde::{Deserialize, Serialize};

use super::EngineUnderTest;
use super::models::BatchModel;

/// A pipeline with a method of its own around a graph.
#[derive(Pipeline)]
pub struct GraphPipeline {
    #[pipeline(config)]
    pub config: GraphPipelineConfig,
    pub model: GraphField,
    pub factor: f32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GraphPipelineConfig {
    pub model: GraphSpec,
}

impl GraphPipelineConfig {
    pub fn init(&self, _: &Device) -> GraphPipeline {
        GraphPipeline { config: self.clone(), model: self.model.init(), factor: 0.0 }
    }
}

#[ray_zerocopy::remote]
impl GraphPipeline {
    /// Runs the graph on rows of ones, and multiplies the results.
    ///
    /// # Errors
    /// If the graph cannot be run.
    pub fn scores(&self, rows: usize) -> Result<Vec<f32>, String> {
        let rows = Tensor::<2>::ones([rows, 4], &Device::flex());
        let outputs = self.model.run(Values::new().with("rows", rows)).map_err(|error| error.to_string())?;
        let scores = outputs.float::<2>("output").map_err(|error| error.to_string())? * self.factor;
        Ok(scores.into_data().iter::<f32>().collect())
    }
}

/// Each worker borrows the weights of the graph, and calls take different numbers of rows.
pub fn pipeline_with_a_compiled_graph_gives_the_same_answers<E: EngineUnderTest>() {
    let traced = jit::trace(&BatchModel::new(&Device::flex()))
        .input("rows", Tensor::<2>::ones([2, 4], &Device::flex()))
        .symbol("batch", [("rows", 0)])
        .forward(|model, inputs| Ok(model.forward(inputs.float("rows")?)))
        .unwrap();
    let graph = traced.compile(Compile::int8()).unwrap();
    let config = GraphPipelineConfig { model: graph.spec().unwrap() };
    let pipeline = GraphPipeline { config, model: GraphField::new(&graph).unwrap(), factor: 2.5 };
    let tasks = TaskWrapper::on(&E::backend(1), &pipeline).unwrap().strict();
    for rows in [1, 5, 0, 5] {
        assert_eq!(tasks.scores(rows).wait().unwrap().unwrap(), pipeline.scores(rows).unwrap(), "{rows}");
    }
    let actors = ActorWrapper::on(&E::backend(1), &pipeline).unwrap().strict().threads_per_worker(1).spawn(1).unwrap();
    assert_eq!(actors.scores(3).wait().unwrap().unwrap(), pipeline.scores(3).unwrap());
    assert!(tasks.report().unwrap().processes.iter().all(|process| process.copied == 0));
}
