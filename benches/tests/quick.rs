//! Every benchmark runs, quickly, and prints what programs read: fields, answers and memory, and never a time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::process::Command;

use serde_json::Value;

/// What a benchmark prints with `--quick --json` and `options`.
fn run(program: &str, options: &[&str]) -> Value {
    let output = Command::new(program).args(["--quick", "--json"]).args(options).output().expect("it starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {options:?}: {}\n{stdout}{stderr}", output.status);
    let printed: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    assert_eq!(printed["quick"], true, "a quick run has to say so");
    assert_eq!(printed["targets"], serde_json::json!([]), "a quick run cannot tell");
    assert!(printed["machine"]["cores"].as_u64().unwrap() >= 1, "{}", printed["machine"]);
    assert!(printed["options"].is_object(), "{printed}");
    printed
}

fn rows(printed: &Value) -> &[Value] {
    printed["rows"].as_array().unwrap()
}

/// The field of every row.
fn texts<'a>(rows: impl IntoIterator<Item = &'a Value>, field: &str) -> Vec<&'a str> {
    rows.into_iter().map(|row| row[field].as_str().unwrap_or_else(|| panic!("no `{field}` in {row}"))).collect()
}

/// Each of these fields is a number above zero.
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
    assert_eq!(texts(small.iter().copied(), "way"), ["socket pair", "task", "actor"]);
    small.iter().for_each(|row| positive(row, &["samples", "p50_us", "p99_us", "ratio"]));
    assert_eq!(small[0]["ratio"], 1.0);

    let tensors = of("tensor");
    assert_eq!(tensors.len(), 6, "{tensors:?}");
    for row in tensors {
        positive(row, &["mib", "ms_median", "read_ms_median"]);
        positive(&row["warm"], &["ratio"]);
        positive(&row["fresh"], &["ratio"]);
    }

    let pool = of("pool");
    assert_eq!(pool.iter().map(|row| row["workers"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 1, 2, 1, 2]);
    pool.iter().for_each(|row| positive(row, &["calls", "calls_per_second_median"]));
    assert_eq!(small.len() + 6 + pool.len(), rows(&printed).len(), "{printed}");
}

#[test]
fn ipc() {
    let printed = run(env!("CARGO_BIN_EXE_ipc"), &[]);
    for row in rows(&printed) {
        let links = row["links"].as_array().unwrap();
        assert_eq!(texts(links, "name"), ["ray-zerocopy", "ipc-channel bytes", "ipc-channel shared memory"]);
        links.iter().for_each(|link| positive(link, &["samples", "p50_us", "p99_us", "ratio"]));
    }
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
        ways.iter().for_each(|way| {
            positive(
                way,
                &[
                    "threads",
                    "sentences_per_s_median",
                    "sentences_per_processor_s_median",
                    "ratio",
                    "anonymous_mib_max",
                ],
            )
        });
        let anonymous = |way: usize| ways[way]["anonymous_mib_max"].as_f64().unwrap();
        // 86 MiB of weights: who has its own has them in its private memory.
        assert!(anonymous(1) + 60.0 < anonymous(3), "workers have weights of their own: {row}");
    }
}

#[test]
fn people_read_that_a_run_is_quick() {
    let output = Command::new(env!("CARGO_BIN_EXE_calls")).arg("--quick").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.lines().nth(1).unwrap().starts_with("quick: these figures mean nothing"), "{text}");
    assert!(!text.contains("wanted at most"), "{text}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for options in [&["--rounds", "0"][..], &["--tensor-mib", "0"], &["--workers", "1"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_calls")).args(options).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(options[0]), "{options:?}: {text}");
    }
}
