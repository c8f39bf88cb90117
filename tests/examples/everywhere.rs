//! Traces a graph for other programs: `everywhere FOLDER` writes it as `model.rzg`, and compiled as `compiled.rzg` and
//! `int8.rzg`. Beside each of them is a file with inputs and the outputs of this process, and it fails if local actors,
//! threads or processes of Ray have others. `ray-zerocopy-python/wheel/tests` compares its own outputs with them.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::tensor::TensorData;
use ray_zerocopy::Threads;
use ray_zerocopy::jit::{Compile, JitActorWrapper, JitTaskWrapper, Values};
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
    let compiled = [("compiled", Compile::f32()), ("int8", Compile::int8())];
    let mut graphs = vec![("model", graph.clone())];
    for (name, options) in compiled {
        graphs.push((name, graph.compile(options)?));
    }
    let inputs = questions(5, 7);
    let cluster = Cluster::local().cpus(2).quiet().start()?;
    let site = cluster.with(Options::default().cpus(1.0));
    for (name, graph) in graphs {
        graph.save(folder.join(format!("{name}.rzg")))?;
        let here = bits(&graph.load("cpu")?.run(inputs.clone())?)?;
        let others = [
            ("a local actor", JitActorWrapper::new(&graph).strict().spawn(1)?.run(inputs.clone()).wait()?),
            ("a thread", JitTaskWrapper::on(&Threads::new(1), &graph)?.strict().run(inputs.clone()).wait()?),
            ("an actor of Ray", JitActorWrapper::on(&site, &graph)?.strict().spawn(1)?.run(inputs.clone()).wait()?),
            ("a task of Ray", JitTaskWrapper::on(&site, &graph)?.run(inputs.clone()).wait()?),
        ];
        for (who, outputs) in others {
            ensure!(bits(&outputs)? == here, "`{name}`: {who} has another answer");
        }
        let answers = json!({ "inputs": bits(&inputs)?, "outputs": here });
        std::fs::write(folder.join(format!("{name}.json")), answers.to_string())?;
    }
    Ok(())
}
