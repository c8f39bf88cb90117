//! Runs the small examples as processes, and checks exit status and output.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::path::PathBuf;
use std::process::{Command, Output};

/// Returns the path of an example: a sibling of the folder of this test.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: `cargo build --workspace --examples` builds it", path.display());
    path
}

fn run(name: &str, arguments: &[&str]) -> Output {
    Command::new(example(name)).args(arguments).output().unwrap()
}

/// Runs an example, and asserts that it succeeds and prints these lines in this order.
fn says(name: &str, arguments: &[&str], lines: &[&str]) {
    let output = run(name, arguments);
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} {arguments:?}: {}\n{text}\n{errors}", output.status);
    let mut rest = &*text;
    for line in lines {
        let at = rest
            .find(line)
            .unwrap_or_else(|| panic!("{name}: `{line}` is missing or out of order in:\n{text}\n{errors}"));
        rest = &rest[at + line.trim_end().len()..];
    }
}

#[test]
fn simple_pipeline() {
    says(
        "simple_pipeline",
        &["--threshold", "0.25"],
        &[
            "shared, once, in arena",
            "\n  feature_extractor.first.weight\n",
            "\n  classifier.output.bias\n",
            "copied, into each process:\n  config = MyConfig { inputs: 256, classes: 10, threshold: 0.25 }",
            "labels above 0.25 in each batch: [",
            "the same answers, bit for bit; no weight was copied",
        ],
    );
}

#[test]
fn complex_pipeline() {
    let paths = [
        "\n  encoder.layers.0.weight\n",
        "\n  decoder.layers.1.bias\n",
        "\n  discriminator.weight\n",
        "\n  embeddings[\"image\"].patches.weight\n",
        "\n  embeddings[\"text\"].0.weight\n",
        "\none copy of the weights: ",
        "mapped by 3 processes",
        "\nowner ",
        "\nworker 1 ",
        "\nsum ",
    ];
    says("complex_pipeline", &["--width", "64", "--actors", "2"], &paths);
    let output = run("complex_pipeline", &["--width", "64", "--actors", "1", "--without-discriminator"]);
    assert!(output.status.success());
    assert!(!String::from_utf8_lossy(&output.stdout).contains("discriminator"));
}

#[test]
fn tasks() {
    says(
        "tasks",
        &[],
        &[
            "wait           the same answer as here, bit for bit",
            "wait_timeout   worker ",
            "await          8 and 38, on any executor",
            "gather         [0, 2, 4, 6, 8, 10], in the order of the calls",
            "own error      comes back as the method's result",
            "panic          `double` panicked in worker ",
            "`seven`: invalid digit found in string (",
            "deadline       `sleep` passed its deadline of 300ms",
            "kill -9        of [",
            "the task ran again, in ",
            "attempt 3 of 3; does the method crash on this input?",
            "attempts(1)    worker ",
            "and all is well",
        ],
    );
}

#[test]
fn actors() {
    says(
        "actors",
        &["--actors", "3", "--mib", "32"],
        &[
            "32 MiB of weights, written once",
            "loaded in this process too: no weight was copied",
            "3 actors give the same answer, bit for bit",
            "actor 0 has seen [\"Solaris\", \"Stalker\"], actor 1 [\"Mirror\"]",
            "a process that got the handle writes: Postcard { pid: ",
            "copied_weights: 0",
            "mapped by 4 processes",
            "\nworker 2 ",
            "a call of an actor is not retried",
            "actor 0 is back, with nothing seen; actor 1 is as it was",
        ],
    );
}

#[test]
fn threads() {
    says(
        "threads",
        &[],
        &[
            "threads        the same answer as here, bit for bit; in this process",
            "a small call takes ",
            "processes      the same answer as here, bit for bit; in another process",
            "16 MiB there and back take ",
            "panic          `double` panicked in worker ",
            "`seven`: invalid digit found in string (",
            "the thread lives on",
            "deadline       `work` passed its deadline of 300ms while worker ",
            "(a thread cannot be stopped: it goes on until the method returns)",
            "cancelled()    is `true` in the method since then, so it has returned",
            "actors         are threads of their own, and each has its state: (3, 1)",
            "mapped by 1 process",
            "\nowner, 3 threads ",
            "one process, and no thread copied a weight",
        ],
    );
}

#[test]
fn batching() {
    for arguments in [&[][..], &["--processes"]] {
        says(
            "batching",
            arguments,
            &[
                "busy worker    20 calls, 1 batches, 20 rows in the largest",
                "the embeddings are those of this process, within 1e-5",
                "idle worker    3 calls, 3 batches, 1 rows in the largest",
                "max_wait       4 calls, 1 batches, 4 rows in the largest",
                "max_rows(8)    20 calls, 3 batches, 8 rows in the largest",
                "max_cost(200)  8 calls, 3 batches, 4 rows in the largest",
                "error          3 calls, 1 batches, 3 rows in the largest",
                "one call of the three fails: a text is empty",
                "batches of `embed`: 1, 20.0 rows on average, 20 at most; 20 calls, which waited ",
            ],
        );
    }
}

#[test]
fn hot_swap() {
    let lines = [
        "generation 2: ",
        " on 2 workers in ",
        "generation 4: ",
        ", none failed; each came from the weights that it names",
    ];
    says("hot_swap", &["--swaps", "3", "--mib", "2"], &lines);
    says(
        "hot_swap",
        &["--swaps", "2", "--mib", "2", "--kill", "--check"],
        &[
            "worker 0 was killed",
            "generation 2: ",
            "worker 0 was killed",
            "generation 3: the check of the new weights has failed, so all calls go on with the old ones: 3 is an odd",
            ", none failed; each came from the weights that it names",
        ],
    );
}

#[test]
fn streaming() {
    for arguments in [&["--pause", "1"][..], &["--pause", "1", "--threads"]] {
        says(
            "streaming",
            arguments,
            &[
                "words          the ",
                "               the first after ",
                "               the same as in this process",
                "drop           after [\"",
                "; the worker takes the next call",
                "await          16 words, on any executor",
                "deadline       ",
                " words, then: `generate` passed its deadline of 300ms",
                "actor          [\"",
                ": it goes on where it has ended",
            ],
        );
    }
}

#[test]
fn memory() {
    says(
        "memory",
        &["--mib", "8", "--rounds", "1"],
        &[
            "8 MiB of weights, medians of 1 rounds, in ms",
            "\nnothing ",
            "\nprefault ",
            "\nlock ",
            "\nhuge pages ",
            "\nall three ",
            "mapped by 2 processes",
            "\nowner: huge pages: ",
            "\nworker 0: huge pages: ",
            "; prefault: ",
            "; lock: ",
        ],
    );
}

#[test]
fn jit() {
    says(
        "jit",
        &[],
        &["traced 215 operations", "16 sentences of  7 tokens: [16, 384], the model's own bits", "worker 1"],
    );
}

#[test]
fn devices() {
    says(
        "devices",
        &[],
        &[
            "device           borrowed, MiB uploaded, MiB  equal to cpu   forward, ms\ncpu                        4.0           0.0  bit for bit",
            "\ncuda: device `cuda:0` ",
            "\ngpu: `gpu` is not a device; write `cpu`, `cuda`, `cuda:1`, `wgpu`",
        ],
    );
}

#[test]
fn help_says_what_to_look_at() {
    for name in [
        "simple_pipeline",
        "complex_pipeline",
        "tasks",
        "actors",
        "threads",
        "batching",
        "streaming",
        "hot_swap",
        "memory",
        "devices",
        "jit",
    ] {
        let output = run(name, &["--help"]);
        assert!(output.status.success(), "{name} --help: {}", output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.lines().count() > 10 && (text.contains("Try") || text.contains("Next:")),
            "{name} --help:\n{text}"
        );
    }
}

#[test]
fn invalid_options_are_rejected_early() {
    for (name, arguments, expected) in [
        ("simple_pipeline", ["--inputs", "0"], "0 is not in 1..=4096"),
        ("simple_pipeline", ["--threshold", "nan"], "a threshold of NaN cannot be compared with"),
        ("complex_pipeline", ["--width", "0"], "0 is not in 1..=8192"),
        ("complex_pipeline", ["--actors", "0"], "0 is not in 1..=65535"),
        ("tasks", ["--workers", "0"], "0 is not in 1..=65535"),
        ("actors", ["--mib", "0"], "0 is not in 32..=65535"),
        ("threads", ["--workers", "0"], "0 is not in 1..=65535"),
        ("streaming", ["--words", "0"], "0 is not in 1..=65535"),
    ] {
        let output = run(name, &arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(expected), "{name} {arguments:?}: {errors}");
        assert!(!errors.contains("panicked"), "{name} {arguments:?}: {errors}");
    }
}
