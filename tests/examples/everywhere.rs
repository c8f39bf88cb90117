//! Traces a graph for other programs: `everywhere FOLDER` writes `model.rzg`, and `answers.json`
//! with inputs and the outputs of this process, of local actors, and of Ray's actors and tasks.
//! `ray-zerocopy-python/wheel/tests` compares its own outputs with them.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::tensor::TensorData;
use ray_zerocopy::jit::{JitActorWrapper, JitTaskWrapper, Values};
use ray_zerocopy::ray::{Cluster, Options};
use ray_zerocopy_tests::conformance::graphs::{questions, traced};
use serde_json::{Value, json};

/// The bytes of tensors in hexadecimal, so that nothing is rounded.
fn bits(values: &Values) -> Result<Value> {
    let tensor = |name: &str| -> Result<Value> {
        let data: TensorData = values.data(name)?;
        let bytes: String = data.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(json!({ "dtype": format!("{:?}", data.dtype()), "shape": data.shape().to_vec(), "bytes": bytes }))
    };
    values
        .names()
        .map(|name| Ok((name.to_owned(), tensor(name)?)))
        .collect::<Result<serde_json::Map<_, _>>>()
        .map(Value::Object)
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let folder = PathBuf::from(std::env::args().nth(1).context("a folder is expected")?);
    let graph = traced();
    graph.save(folder.join("model.rzg"))?;
    let inputs = questions(5, 7);
    let here = bits(&graph.load("cpu")?.run(inputs.clone())?)?;

    let local = JitActorWrapper::new(&graph).strict().spawn(1)?;
    ensure!(bits(&local.run(inputs.clone()).wait()?)? == here, "a local actor has another answer");
    let cluster = Cluster::local().cpus(2).quiet().start()?;
    let site = cluster.with(Options::default().cpus(1.0));
    let actors = JitActorWrapper::on(&site, &graph)?.strict().spawn(1)?;
    let by_ray = bits(&actors.run(inputs.clone()).wait()?)?;
    let tasks = JitTaskWrapper::on(&site, &graph)?;
    let by_task = bits(&tasks.run(inputs.clone()).wait()?)?;
    let answers = json!({ "inputs": bits(&inputs)?, "here": here, "ray actor": by_ray, "ray task": by_task });
    std::fs::write(folder.join("answers.json"), answers.to_string())?;
    Ok(())
}
