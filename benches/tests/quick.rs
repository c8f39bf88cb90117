//! Runs every benchmark with `--quick`, and checks fields, outputs and memory of its JSON, but
//! never a time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::process::Command;

use serde_json::Value;

/// Runs a benchmark with `--quick --json` and `options`, and parses its output.
fn run(program: &str, options: &[&str]) -> Value {
    let output = Command::new(program).args(["--quick", "--json"]).args(options).output().expect("it starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {options:?}: {}\n{stdout}{stderr}", output.status);
    let printed: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    assert_eq!(printed["quick"], true, "a quick run must report `quick`");
    assert_eq!(printed["targets"], serde_json::json!([]), "targets do not apply to a quick run");
    assert!(printed["machine"]["cores"].as_u64().unwrap() >= 1, "{}", printed["machine"]);
    assert!(printed["options"].is_object(), "{printed}");
    printed
}

fn rows(printed: &Value) -> &[Value] {
    printed["rows"].as_array().unwrap()
}

/// Returns a text field of every row.
fn texts<'a>(rows: impl IntoIterator<Item = &'a Value>, field: &str) -> Vec<&'a str> {
    rows.into_iter().map(|row| row[field].as_str().unwrap_or_else(|| panic!("no `{field}` in {row}"))).collect()
}

/// Asserts that each of these fields is a number above zero.
fn positive(row: &Value, fields: &[&str]) {
    for field in fields {
        assert!(row[field].as_f64().is_some_and(|number| number > 0.0), "`{field}` in {row}");
    }
}

#[test]
fn calls() {
    let printed = run(env!("CARGO_BIN_EXE_calls"), &[]);
    let of = |measure: &str| rows(&printed).iter().filter(|row| row["measure"] == measure).collect::<Vec<_>>();

    let small = of("small_call");
    assert_eq!(texts(small.iter().copied(), "way"), ["socket pair", "task", "actor", "task, thread", "actor, thread"]);
    for row in &small {
        positive(row, &["samples", "p50_us", "p99_us", "ratio"]);
    }
    assert_eq!(small[0]["ratio"], 1.0);

    let tensors = of("tensor");
    assert_eq!(tensors.len(), 10, "{tensors:?}");
    for row in tensors {
        positive(row, &["mib", "ms_median", "read_ms_median"]);
        positive(&row["warm"], &["ratio"]);
        positive(&row["fresh"], &["ratio"]);
    }

    let pool = of("pool");
    let sizes: Vec<_> = pool.iter().map(|row| row["workers"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [1, 1, 2, 2].repeat(3));
    assert_eq!(texts(pool.iter().copied().take(2), "engine"), ["processes", "threads"]);
    for row in &pool {
        positive(row, &["calls", "calls_per_second_median"]);
    }

    let first_items = of("first_item");
    assert_eq!(texts(first_items.iter().copied(), "engine"), ["process", "process", "thread", "thread"]);
    let ways = ["small call", "first item of a stream"].repeat(2);
    assert_eq!(texts(first_items.iter().copied(), "way"), ways);
    for row in &first_items {
        positive(row, &["samples", "p50_us", "p99_us", "ratio"]);
    }
    assert_eq!((&first_items[0]["ratio"], &first_items[2]["ratio"]), (&Value::from(1.0), &Value::from(1.0)));

    let streams = of("stream");
    assert_eq!(texts(streams.iter().copied(), "engine"), ["process", "thread"]);
    for row in &streams {
        positive(row, &["items", "items_per_second_median"]);
        // The worker waits to send one item, and the others wait for the reader.
        let (ahead, buffer) = (row["slow_ahead_max"].as_u64().unwrap(), row["slow_buffer"].as_u64().unwrap());
        assert!(ahead <= buffer + 1, "{row}");
    }
    let all = small.len() + 10 + pool.len() + first_items.len() + streams.len();
    assert_eq!(all, rows(&printed).len(), "{printed}");
}

#[test]
fn weights() {
    let printed = run(env!("CARGO_BIN_EXE_weights"), &[]);
    let of = |measure: &str| rows(&printed).iter().filter(|row| row["measure"] == measure).collect::<Vec<_>>();
    let found = of("found");
    assert_eq!((found.len(), &found[0]["arenas_max"]), (1, &Value::from(1)), "{printed}");
    positive(found[0], &["model_mib", "sum_pss_mib_max", "bare_pss_mib", "ratio", "attach_ms_median"]);
    // One copy for all programs.
    let (model, pss) = (found[0]["model_mib"].as_f64().unwrap(), found[0]["sum_pss_mib_max"].as_f64().unwrap());
    assert!(pss < 2.0 * model, "{}", found[0]);
    let sealing = of("sealing");
    assert_eq!(texts(sealing.iter().copied(), "place"), ["disk", "page_cache"]);
    for row in sealing {
        positive(row, &["file_mib", "read_ms_median", "seal_ms_median", "ratio"]);
    }
    let swaps = of("swaps");
    assert_eq!(texts(swaps.iter().copied(), "engine"), ["processes", "threads"]);
    for row in &swaps {
        positive(row, &["calls", "p99_us", "swap_ms_median", "memory_peak_mib"]);
        assert_eq!((&row["failed"], &row["mixed"]), (&Value::from(0), &Value::from(0)), "{row}");
    }
    let variants = of("variants");
    assert_eq!(variants.len(), 1, "{printed}");
    positive(variants[0], &["adapters", "adapter_mib", "sum_pss_mib", "later_add_ms_median", "switching"]);
    assert_eq!(rows(&printed).len(), 6, "{printed}");
}

#[test]
fn compiled() {
    let printed = run(env!("CARGO_BIN_EXE_compiled"), &["--operations"]);
    let of = |measure: &str| rows(&printed).iter().filter(|row| row["measure"] == measure).collect::<Vec<_>>();
    let [forward, memory, reading, operations] = ["forward", "memory", "reading", "operations"].map(of);
    assert_eq!((forward.len(), memory.len(), reading.len(), operations.len()), (10, 4, 3, 20), "{printed}");
    assert_eq!(rows(&printed).len(), 37, "{printed}");
    for row in reading {
        positive(row, &["bytes", "call_us", "memcpy_us"]);
    }
    for row in operations {
        let operations = row["operations"].as_array().unwrap();
        assert!(!operations.is_empty(), "{row}");
        for operation in operations {
            positive(operation, &["count"]);
        }
    }
    for row in memory {
        positive(row, &["arena_mib", "arena_ratio", "workers_mib", "private_mib", "activations_mib", "load_ms"]);
    }
    for row in forward {
        let contestants = row["contestants"].as_array().unwrap();
        assert_eq!(texts(contestants, "name"), ["graph", "compiled", "compiled, bf16", "compiled, int8"]);
        for contestant in contestants {
            positive(contestant, &["us_median"]);
            positive(&contestant["over_graph"], &["ratio"]);
            assert_eq!(contestant["over_onnxruntime"], Value::Null, "{row}");
        }
        assert!(contestants[1]["difference"].as_f64().unwrap() <= 1e-5, "{row}");
        assert!(contestants[3]["cosine"].as_f64().unwrap() >= 0.98, "{row}");
        for compiled in &contestants[1..] {
            assert!(compiled["operations"].as_u64() < row["operations"].as_u64(), "{row}");
        }
    }
}

#[test]
fn missing_peers_are_one_line_with_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let mut compiled = Command::new(env!("CARGO_BIN_EXE_compiled"));
    compiled.args(["--quick", "--peers"]).env("XDG_CACHE_HOME", folder.path()).env("RUST_BACKTRACE", "0");
    let output = compiled.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let place = folder.path().join("ray-zerocopy/peers-env").display().to_string();
    assert!(!output.status.success() && text.lines().count() == 1, "{text}");
    assert!(text.contains(&place) && text.contains("run `cargo xtask peers`"), "{text}");
}

#[test]
fn jit() {
    let printed = run(env!("CARGO_BIN_EXE_jit"), &[]);
    let of = |measure: &str| rows(&printed).iter().filter(|row| row["measure"] == measure).collect::<Vec<_>>();
    let replay = of("replay");
    assert_eq!(replay.len(), 3, "{replay:?}");
    for row in &replay {
        positive(row, &["operations", "direct_us_median", "replay_us_median", "ratio"]);
        assert_eq!(row["outputs_equal"], true, "{row}");
    }
    let memory = of("memory");
    assert_eq!(memory.iter().map(|row| row["workers"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    for row in &memory {
        positive(row, &["model_mib", "sum_pss_mib", "anonymous_mib_max", "load_ms_median"]);
        assert_eq!(row["outputs_equal"], true, "{row}");
        // One copy of the graph for all workers.
        let (model, pss) = (row["model_mib"].as_f64().unwrap(), row["sum_pss_mib"].as_f64().unwrap());
        assert!(pss < 2.0 * model, "{row}");
    }
}

#[test]
fn memory() {
    let fields = [
        "model_mib",
        "workers",
        "sum_pss_mib",
        "anonymous_mib_max",
        "attach_ms_median",
        "attach_us_per_tensor",
        "spawn_to_first_result_ms_median",
        "forward_ms_median",
        "activations_mib",
    ];
    let printed = run(env!("CARGO_BIN_EXE_memory"), &["--mib", "64", "--workers", "1,2"]);
    let rows = rows(&printed);
    assert_eq!(texts(rows, "mode"), ["arena", "copy", "arena", "copy"]);
    assert_eq!(rows.iter().map(|row| row["workers"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 1, 2, 2]);
    for row in rows {
        positive(row, &fields);
        assert_eq!(row["outputs_equal"], true, "{row}");
        assert_eq!((row["model_mib"].as_f64(), row["tensors"].as_u64()), (Some(64.0), Some(32)), "{row}");
    }
    let of =
        |row: usize, field: &str| rows[row][field].as_f64().unwrap_or_else(|| panic!("`{field}` in {}", rows[row]));
    for row in [0, 2] {
        // In any build, nothing is copied and the model exists once.
        let growth = of(row, "anonymous_growth_mib_max");
        assert!(growth <= 4.0 + of(row, "activations_mib"), "a worker grew by {growth} MiB: {}", rows[row]);
        assert!(of(row, "anonymous_mib_max") < 16.0, "{}", rows[row]);
        assert!(of(row, "sum_pss_mib") < 2.0 * 64.0, "{}", rows[row]);
        // The workers of mode `copy` do have copies.
        assert!(of(row + 1, "anonymous_growth_mib_max") >= 64.0, "{}", rows[row + 1]);
        assert!(of(row + 1, "sum_pss_mib") >= 64.0 * of(row + 1, "workers"), "{}", rows[row + 1]);
    }
}

#[test]
fn memory_of_many_small_tensors() {
    let options = ["--mib", "8", "--tensors", "1000", "--workers", "1", "--modes", "arena"];
    let printed = run(env!("CARGO_BIN_EXE_memory"), &options);
    let [row] = rows(&printed) else { panic!("{printed}") };
    assert_eq!((row["tensors"].as_u64(), row["mode"].as_str()), (Some(1000), Some("arena")));
    assert_eq!(row["outputs_equal"], true);
    positive(row, &["attach_us_per_tensor"]);
    assert!(row["anonymous_growth_mib_max"].as_f64().unwrap() < 8.0, "the weights were copied: {row}");
}

#[test]
fn share() {
    let printed = run(env!("CARGO_BIN_EXE_share"), &["--mib", "32"]);
    let rows = rows(&printed);
    assert_eq!(texts(rows, "way"), ["write", "copy", "stream", "load_and_share"]);
    for row in rows {
        positive(row, &["model_mib", "ms_median", "ratio", "peak_over_idle_mib_max"]);
        assert_eq!(row["outputs_equal"], true, "{row}");
    }
    let peak = |row: usize| rows[row]["peak_over_idle_mib_max"].as_f64().unwrap();
    // Memory that is only written to is not mapped, and the model is not on the heap in addition.
    assert!((0..3).all(|row| peak(row) < 16.0), "{printed}");
    // burn loads the model to the heap, and the arena is mapped to be filled.
    assert!(peak(3) >= 2.0 * 32.0, "{printed}");
}

#[test]
fn search() {
    let printed = run(env!("CARGO_BIN_EXE_search"), &[]);
    assert_eq!(texts(rows(&printed), "corpus"), ["sentences", "mixed"]);
    for row in rows(&printed) {
        positive(
            row,
            &["texts", "two_workers_over_one", "two_workers_over_one_processor", "two_workers_over_two_threads"],
        );
        assert_eq!(row["outputs_equal"], true, "{row}");
        let ways = row["ways"].as_array().unwrap();
        let names = ["one worker", "two workers", "one worker of two threads", "one process of two threads"];
        assert_eq!(texts(ways, "name"), names);
        for way in ways {
            positive(way, &["threads", "sentences_per_s_median", "sentences_per_processor_s_median", "ratio"]);
            positive(way, &["anonymous_mib_max"]);
        }
        let anonymous = |way: usize| ways[way]["anonymous_mib_max"].as_f64().unwrap();
        // The 86 MiB of weights are private memory only of the process that has its own.
        assert!(anonymous(1) + 60.0 < anonymous(3), "workers have their own copy of the weights: {row}");
    }
}

#[test]
fn serve() {
    let printed = run(env!("CARGO_BIN_EXE_serve"), &["--clients", "8"]);
    let rows = rows(&printed);
    let measures = [
        (
            "latency",
            &["wrapper", "wrapper, paced", "HTTP, JSON", "HTTP, binary", "HTTP, no call", "gRPC", "gRPC, no call"][..],
        ),
        ("throughput", &["wrapper", "HTTP, JSON", "HTTP, binary", "gRPC"]),
        ("large", &["wrapper", "HTTP, binary", "gRPC"]),
    ];
    for (measure, ways) in measures {
        let rows: Vec<_> = rows.iter().filter(|row| row["measure"] == measure).collect();
        assert_eq!(texts(rows.iter().copied(), "way"), ways);
        for row in rows {
            positive(row, &["bytes", "clients", "calls", "p50_us", "p99_us", "per_second", "ratio"]);
        }
    }
    let sentences: Vec<_> = rows.iter().filter(|row| row["sentences_per_s_median"].is_number()).collect();
    assert_eq!(
        texts(sentences.iter().copied(), "way"),
        ["in process, batched", "in process, one by one", "HTTP, /v1/embeddings"]
    );
    for row in sentences {
        positive(row, &["clients", "sentences_per_s_median", "p50_ms", "p99_ms"]);
    }
}

#[test]
fn serving() {
    let printed = run(env!("CARGO_BIN_EXE_serving"), &["--burst"]);
    let of = |measure: &str| rows(&printed).iter().filter(|row| row["measure"] == measure).collect::<Vec<_>>();
    let (answers, throughput) = (of("answers"), of("throughput"));
    let (lone, load, burst) = (of("lone_call"), of("load"), of("burst"));
    let calls = |rows: &[&Value]| texts(rows.iter().copied(), "calls").join(" ");

    assert_eq!(calls(&answers), "unbatched batched hand-batched unbatched batched hand-batched");
    for row in &answers {
        assert_eq!(row["outputs_equal"], true, "{row}");
        assert!(row["difference_max"].as_f64().unwrap() < 1e-4, "{row}");
        // All texts are in one batch.
        let largest = if row["calls"] == "batched" { row["texts"].clone() } else { Value::Null };
        assert_eq!(row["largest_batch"], largest, "{row}");
    }
    assert_eq!(calls(&throughput), "unbatched batched unbatched batched hand-batched");
    for row in &throughput {
        positive(row, &["sentences_per_s_median"]);
        positive(&row["over_unbatched"], &["ratio"]);
        positive(&row["over_hand_batched"], &["ratio"]);
    }
    for rows in [&lone, &load, &burst] {
        assert_eq!(calls(rows), "unbatched batched unbatched batched");
        assert_eq!(texts(rows.iter().copied(), "workers"), ["processes", "processes", "threads", "threads"]);
    }
    for row in &lone {
        positive(row, &["samples", "p50_us", "p99_us", "ratio"]);
    }
    for row in &load {
        positive(row, &["samples", "arrivals_per_s", "p50_us", "p99_us"]);
        positive(&row["p99_over_unbatched"], &["ratio"]);
    }
    for row in throughput.iter().chain(&load).filter(|row| row["calls"] == "batched") {
        let rows = row["rows_per_batch"].as_f64().unwrap();
        assert!((1.0..=32.0).contains(&rows), "{row}");
    }
    for row in &burst {
        positive(row, &["arrivals_per_s_in_burst", "usual_p99_us", "longest_us"]);
    }
    let all = answers.len() + throughput.len() + lone.len() + load.len() + burst.len();
    assert_eq!(all, rows(&printed).len(), "{printed}");
}

#[test]
fn elastic() {
    let printed = run(env!("CARGO_BIN_EXE_elastic"), &[]);
    let of = |measure: &str| rows(&printed).iter().filter(|row| row["measure"] == measure).collect::<Vec<_>>();
    let (first, cycles, burst) = (of("first_answer"), of("cycles"), of("burst"));
    for rows in [&first, &cycles, &burst] {
        assert_eq!(texts(rows.iter().copied(), "engine"), ["processes", "threads"]);
    }
    for row in &first {
        positive(row, &["first_ms_median", "second_ms_median", "start_ms_median"]);
    }
    for row in &cycles {
        assert_eq!((row["cycles"].as_u64(), row["lost"].as_u64()), (Some(5), Some(0)), "{row}");
        assert_eq!(row["grown"], row["shrunk"], "{row}");
        positive(row, &["calls", "grown", "ms_per_cycle", "before_mib", "after_mib"]);
    }
    for row in &burst {
        positive(row, &["before_p99_ms_median", "steady_p99_ms_median", "worst_p99_ms_median", "workers"]);
    }
    assert_eq!(first.len() + cycles.len() + burst.len(), rows(&printed).len(), "{printed}");
}

/// The machine of the tests may have no GPU.
#[test]
fn gpu() {
    let printed = run(env!("CARGO_BIN_EXE_gpu"), &["--devices", "cpu"]);
    let [row, graph] = rows(&printed) else { panic!("{printed}") };
    assert_eq!(
        (row["contestant"].as_str(), graph["contestant"].as_str()),
        (Some("one worker on cpu"), Some("one worker on cpu, a traced graph"))
    );
    [row, graph].into_iter().for_each(|row| positive(row, &["sentences_per_s_median"]));
}

#[test]
fn tables_say_that_a_run_is_quick() {
    let output = Command::new(env!("CARGO_BIN_EXE_calls")).arg("--quick").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.lines().nth(1).unwrap().starts_with("quick: these figures mean nothing"), "{text}");
    assert!(!text.contains("wanted at most"), "{text}");
}

#[test]
fn invalid_options_are_rejected() {
    let calls = env!("CARGO_BIN_EXE_calls");
    let memory = env!("CARGO_BIN_EXE_memory");
    for (program, options) in [
        (calls, ["--rounds", "0"]),
        (calls, ["--tensor-mib", "0"]),
        (calls, ["--workers", "1"]),
        (memory, ["--workers", "1,0"]),
        (memory, ["--tensors", "3"]),
        (memory, ["--modes", "fork"]),
        (env!("CARGO_BIN_EXE_share"), ["--mib", "0"]),
        (env!("CARGO_BIN_EXE_elastic"), ["--cycles", "0"]),
        (env!("CARGO_BIN_EXE_serve"), ["--clients", "0"]),
        (env!("CARGO_BIN_EXE_serving"), ["--callers", "0"]),
        (env!("CARGO_BIN_EXE_serving"), ["--seconds", "0"]),
    ] {
        let output = Command::new(program).args(options).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(options[0]), "{program} {options:?}: {text}");
    }
}
