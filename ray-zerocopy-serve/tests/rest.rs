//! KServe v2 over HTTP, without a network: calls, metadata, the repository, and errors.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::fs;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use common::{WIDTH, eventually, get, graph, ones, pool, post, send, service, table, write};
use ray_zerocopy::jit;
use ray_zerocopy_serve::{ErrorKind, Limits, LoadOutcome, ModelRepository, Service};
use serde_json::json;

const INFER: &str = "/v2/models/sum/infer";

#[tokio::test(flavor = "multi_thread")]
async fn json_call_is_answered() {
    let service = service(Limits::default());
    let mut request = ones(2, WIDTH);
    request["id"] = json!("seven");
    let reply = post(&service, INFER, request.to_string()).await.well();
    let data = vec![4.0; 2 * WIDTH];
    let expected = json!({
        "model_name": "sum", "model_version": "1", "id": "seven",
        "outputs": [{ "name": "y", "datatype": "FP32", "shape": [2, WIDTH], "data": data }],
    });
    assert_eq!(reply.json(), expected);
    post(&service, "/v2/models/sum/versions/1/infer", ones(1, WIDTH).to_string()).await.well();
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_call_is_answered() {
    let service = service(Limits::default());
    for name in ["", "x", "xyz"] {
        // The length of the id moves the tensor to other addresses.
        let header = json!({
            "id": name,
            "inputs": [{ "name": "x", "shape": [1, WIDTH], "datatype": "FP32",
                "parameters": { "binary_data_size": 4 * WIDTH } }],
            "outputs": [{ "name": "y", "parameters": { "binary_data": true } }],
        });
        let header = header.to_string();
        let mut body = header.clone().into_bytes();
        body.extend((0..WIDTH).flat_map(|number| (number as f32).to_le_bytes()));
        let request = Request::post(INFER).header("Inference-Header-Content-Length", header.len());
        let reply = send(&service, request.body(Body::from(body)).unwrap()).await.well();
        let length: usize = reply.headers["inference-header-content-length"].to_str().unwrap().parse().unwrap();
        let (header, tensor) = reply.body.split_at(length);
        let header: serde_json::Value = serde_json::from_slice(header).unwrap();
        assert_eq!(header["outputs"][0]["parameters"]["binary_data_size"], 4 * WIDTH);
        assert_eq!(tensor, [6.0_f32; WIDTH].map(f32::to_le_bytes).as_flattened());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_names_inputs_and_outputs() {
    let service = service(Limits::default());
    let port = |name: &str| json!({ "name": name, "datatype": "FP32", "shape": [-1, WIDTH] });
    let expected = json!({
        "name": "sum", "versions": ["1"], "platform": "burn_graph", "inputs": [port("x")], "outputs": [port("y")],
    });
    assert_eq!(get(&service, "/v2/models/sum").await.well().json(), expected);
    assert_eq!(get(&service, "/v2/models/sum/versions/1").await.well().json(), expected);
    assert_eq!(get(&service, "/v2").await.well().json()["name"], "ray-zerocopy");
    assert_eq!(get(&service, "/v2/health/live").await.well().json(), json!({ "live": true }));
    assert_eq!(get(&service, "/v2/health/ready").await.well().json(), json!({ "ready": true }));
    get(&service, "/v2/models/sum/ready").await.well();
    let models = get(&service, "/v1/models").await.well().json();
    assert_eq!(models["data"][1]["id"], "sum");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_precise_errors() {
    let service = service(Limits::default().request_bytes(4096));
    let call = async |body: String| post(&service, INFER, body).await.error(400);
    assert!(call("{".to_owned()).await.contains("not a valid JSON object of KServe v2"));
    let wrong = call(ones(1, 3).to_string()).await;
    assert_eq!(
        wrong,
        "`run` has no result: input `x` is F32 of shape [1, 3], and the graph takes F32 of shape [batch, 4]"
    );
    let mut other = ones(1, WIDTH);
    other["inputs"][0]["name"] = json!("z");
    assert_eq!(
        call(other.to_string()).await,
        "`run` has no result: input `z` is not one of the graph's; the graph takes `x`"
    );
    let mut other = ones(1, WIDTH);
    other["outputs"] = json!([{ "name": "z" }]);
    assert_eq!(call(other.to_string()).await, "the model has no output `z`; it has `y`");
    assert_eq!(get(&service, "/v2/models/none").await.error(404), "there is no model `none`; there is `slow`, `sum`");
    assert_eq!(
        get(&service, "/v2/models/sum/versions/2").await.error(404),
        "version 2 of the model `sum` is not served; the current one is 1"
    );
    let large = post(&service, INFER, ones(1024, WIDTH).to_string()).await.error(413);
    assert!(large.ends_with("and may have 4096; send less, or raise the limit"), "{large}");
    assert!(get(&service, INFER).await.error(405).ends_with("does not take GET"));
    assert!(get(&service, "/v3").await.error(404).contains("`GET /v3`"));
    let memory = post(&service, "/v2/systemsharedmemory/region/a/register", "").await.error(501);
    assert!(memory.starts_with("this server does not open shared memory of clients"));
    let zipped = Request::post(INFER).header("Content-Encoding", "gzip").body(Body::from("x")).unwrap();
    assert!(send(&service, zipped).await.error(501).contains("without compression"));
    let embed = json!({ "model": "sum", "input": "text" }).to_string();
    let embed = post(&service, "/v1/embeddings", embed).await;
    assert_eq!(embed.status, 501);
    assert!(embed.json()["error"]["message"].as_str().unwrap().contains("has no tokenizer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn passed_deadline_cancels_the_call() {
    let service = service(Limits::default());
    let body = ones(200, 1024).to_string();
    let request = Request::post("/v2/models/slow/infer").header("X-Request-Timeout-Ms", "50");
    let late = send(&service, request.body(Body::from(body)).unwrap()).await.error(504);
    assert_eq!(late, "the request passed its deadline of 50ms and was cancelled; send a longer timeout");
    let mut asked = ones(200, 1024);
    asked["parameters"] = json!({ "timeout": 50_000 });
    assert!(post(&service, "/v2/models/slow/infer", asked.to_string()).await.error(504).contains("50ms"));
    assert_eq!(service.in_flight(), 0);
    post(&service, INFER, ones(1, WIDTH).to_string()).await.well();
}

#[tokio::test(flavor = "multi_thread")]
async fn full_queue_and_draining_are_told_apart() {
    let service = service(Limits::default().calls(1));
    let (running, body) = (service.clone(), ones(64, 1024).to_string());
    let slow = tokio::spawn(async move { post(&running, "/v2/models/slow/infer", body).await.status.as_u16() });
    let other = service.clone();
    eventually(move || other.in_flight() == 1).await;
    let busy = post(&service, INFER, ones(1, WIDTH).to_string()).await;
    assert_eq!(busy.headers["retry-after"], "1");
    assert!(busy.error(429).starts_with("1 calls are waiting or running"));

    service.start_draining();
    assert_eq!(get(&service, "/v2/health/ready").await.status, 503);
    assert_eq!(service.drain(Duration::from_secs(60)).await, 0);
    assert_eq!(slow.await.unwrap(), 200, "a call in flight ends before the server does");
    let refused = post(&service, INFER, ones(1, WIDTH).to_string()).await;
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.error(503).starts_with("the server is shutting down"));
}

#[tokio::test(flavor = "multi_thread")]
async fn models_of_the_folder_are_loaded_swapped_and_unloaded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sum.rzg");
    write(&file, 1.0);
    let models = ModelRepository::builder().pool(pool()).folder(folder.path()).start().unwrap();
    let service = Service::builder(models.clone()).build();
    let index = async || post(&service, "/v2/repository/index", "").await.well().json();
    let not_loaded = json!([{ "name": "sum", "version": "", "state": "UNAVAILABLE", "reason": "not loaded" }]);
    assert_eq!(index().await, not_loaded);
    assert_eq!(get(&service, "/v2/models/sum").await.status, 404);

    let load = async || post(&service, "/v2/repository/models/sum/load", "{}").await;
    assert_eq!(load().await.well().json(), json!({ "outcome": "loaded" }));
    assert_eq!(load().await.well().json(), json!({ "outcome": "unchanged" }));
    let call = async || {
        let reply = post(&service, INFER, ones(1, WIDTH).to_string()).await.well().json();
        (reply["model_version"].as_str().unwrap().to_owned(), reply["outputs"][0]["data"][0].as_f64().unwrap())
    };
    assert_eq!(call().await, ("1".to_owned(), 4.0));

    write(&file, 2.0);
    assert_eq!(models.changed(), ["sum"]);
    assert_eq!(load().await.well().json(), json!({ "outcome": "swapped", "version": "2" }));
    assert_eq!(call().await, ("2".to_owned(), 8.0));

    // A file that is not a model keeps the current version, and says so.
    fs::write(&file, "not a model").unwrap();
    let refused = load().await.error(503);
    assert!(refused.starts_with("the model `sum` cannot be loaded: "), "{refused}");
    assert_eq!(call().await, ("2".to_owned(), 8.0));
    assert_eq!(index().await[0]["reason"], json!(refused));

    // Another shape: a wrapper of its own takes over.
    graph(8, 1, 1.0).save(folder.path().join("wide.rzg")).unwrap();
    fs::rename(folder.path().join("wide.rzg"), &file).unwrap();
    assert_eq!(load().await.well().json()["version"], "3");
    let reply = post(&service, INFER, ones(1, 8).to_string()).await.well().json();
    assert_eq!(reply["outputs"][0]["data"], json!(vec![8.0; 8]));

    post(&service, "/v2/repository/models/sum/unload", "").await.well();
    assert_eq!(index().await[0]["state"], "UNAVAILABLE");
    let gone = get(&service, "/v2/models/sum").await.error(503);
    assert_eq!(gone, "the model `sum` is not ready: it was unloaded");
    load().await.well();
    assert_eq!(get(&service, "/v2/models/sum").await.well().json()["versions"], json!(["4"]));

    let config = json!({ "parameters": { "config": "{}" } }).to_string();
    let refused = post(&service, "/v2/repository/models/sum/load", config).await.error(501);
    assert!(refused.contains("models are files in the server's folder"));
    for outside in ["..%2Fsum", "%2Fetc%2Fpasswd", "a%00b", ".sum"] {
        let refused = post(&service, &format!("/v2/repository/models/{outside}/load"), "").await.error(400);
        assert!(refused.contains("is not the name of a model"), "{refused}");
    }
    assert!(post(&service, "/v2/repository/models/none/load", "").await.error(404).contains("no file `none.rzg`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_files_are_fixed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.rzg");
    write(&file, 1.0);
    let models = ModelRepository::builder().pool(pool()).start().unwrap();
    models.add_file("m", &file).unwrap();
    assert_eq!(models.load("m").unwrap(), LoadOutcome::Unchanged);
    let taken = models.add("m", jit::Model::Graph(graph(WIDTH, 1, 1.0))).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Invalid);
    // Without a folder, clients cannot load anything else.
    assert_eq!(models.load("other").unwrap_err().kind(), ErrorKind::NotFound);
    fs::remove_file(&file).unwrap();
    assert!(models.load("m").unwrap_err().to_string().contains("cannot be loaded"));
    assert!(models.is_ready("m", "1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn generation_that_does_not_answer_stays_out() {
    let folder = tempfile::tempdir().unwrap();
    table(10).save(folder.path().join("table.rzg")).unwrap();
    let models = ModelRepository::builder().pool(pool()).folder(folder.path()).start().unwrap();
    models.load("table").unwrap();
    let service = Service::builder(models.clone()).build();
    let call = async || {
        let body = json!({ "inputs": [{ "name": "ids", "shape": [1, 1], "datatype": "INT32", "data": [7] }] });
        post(&service, "/v2/models/table/infer", body.to_string()).await.well().json()
    };
    assert_eq!(call().await["model_version"], "1");
    // It has the same inputs and outputs, but no row 7, which the first call asked for.
    table(5).save(folder.path().join("table.rzg")).unwrap();
    let refused = models.load("table").unwrap_err();
    let expected =
        "the model `table` keeps its current version: it did not answer an example that the current version answers: ";
    assert!(refused.to_string().starts_with(expected), "{refused}");
    assert_eq!(call().await["model_version"], "1");
    table(12).save(folder.path().join("table.rzg")).unwrap();
    assert_eq!(models.load("table").unwrap(), LoadOutcome::Swapped { version: 2 });
    assert_eq!(call().await["model_version"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_several_clients_run_as_batches() {
    let service = service(Limits::default());
    let calls = (0..64).map(|row| {
        let service = service.clone();
        tokio::spawn(async move {
            let mut request = ones(1, WIDTH);
            request["inputs"][0]["data"] = json!([row, 0, 0, 1]);
            let reply = post(&service, INFER, request.to_string()).await.well().json();
            assert_eq!(reply["outputs"][0]["data"], json!(vec![row as f64 + 1.0; WIDTH]));
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_required_except_for_probes() {
    let models = ModelRepository::builder().pool(pool()).start().unwrap();
    let service = Service::builder(models).token("secret").build();
    let refused = get(&service, "/v2").await;
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    assert!(refused.error(401).contains("Authorization: Bearer TOKEN"));
    let with = |token: &str| Request::get("/v2").header("Authorization", token).body(Body::empty()).unwrap();
    assert_eq!(send(&service, with("Bearer wrong")).await.status, 401);
    send(&service, with("Bearer secret")).await.well();
    get(&service, "/v2/health/ready").await.well();
}
