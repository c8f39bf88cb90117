//! Runs the benchmark of TorchScript with `--quick`, and checks fields, outputs and memory of its
//! JSON, but never a time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::process::Command;

use serde_json::Value;

#[test]
fn torchscript() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_torchscript")).args(["--quick", "--json"]).output().expect("it starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{stdout}{stderr}", output.status);
    let printed: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    assert_eq!((&printed["bench"], &printed["quick"]), (&"torchscript".into(), &true.into()));
    let rows = printed["rows"].as_array().unwrap();
    let modules: Vec<_> = rows.iter().map(|row| (row["module"].as_str().unwrap(), row["workers"].as_u64())).collect();
    let (own, wide) = ("LibTorch's own", "wide");
    assert_eq!(modules, [(own, Some(1)), (own, Some(2)), (wide, Some(1)), (wide, Some(2))]);
    for row in rows {
        assert_eq!(row["outputs_equal"], true, "{row}");
        assert!(row["first_load_ms_median"].as_f64().unwrap() > 0.0, "{row}");
    }
    // The private memory of a worker is LibTorch, not the module.
    let private = |row: &Value| row["anonymous_mib_max"].as_f64().unwrap();
    let module = rows[3]["model_mib"].as_f64().unwrap();
    assert!(private(&rows[3]) < private(&rows[1]) + module / 2.0, "{rows:#?}");
}
