//! Runs the benchmark of Ray with `--quick`, and checks fields, outputs and memory of its JSON, but
//! never a time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::process::Command;

use serde_json::Value;

#[test]
fn ray() {
    let output = Command::new(env!("CARGO_BIN_EXE_ray")).args(["--quick", "--json"]).output().expect("it starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{stdout}{stderr}", output.status);
    let printed: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    assert_eq!((&printed["bench"], &printed["quick"]), (&"ray".into(), &true.into()));
    let rows = printed["rows"].as_array().unwrap();
    let of = |measure: &str| rows.iter().filter(|row| row["measure"] == measure).collect::<Vec<_>>();
    let calls = of("call");
    assert_eq!(calls.len(), 7, "{stdout}");
    assert!(calls.iter().all(|row| row["p50_us"].as_f64().unwrap() > 0.0), "{stdout}");
    let memory = of("memory");
    assert_eq!(memory.iter().map(|row| row["workers"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    for row in memory {
        assert_eq!(row["outputs_equal"], true, "{row}");
        // The private memory of an actor is Python and Ray, not another copy of the model.
        assert!(row["anonymous_mib_max"].as_f64().unwrap() < 90.0, "{row}");
    }
}
