//! Records of what cargo has built, from its JSON messages.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// An executable that cargo has built.
pub(crate) struct Artifact {
    /// The name of its target.
    pub name: String,
    /// The kind of its target: `lib`, `bin`, `test` or `example`.
    pub kind: String,
    /// Whether it has the test harness.
    pub is_test: bool,
    pub executable: String,
}

/// Runs a cargo command that builds. Returns the executables.
///
/// The command needs `--message-format=json-render-diagnostics`.
pub(crate) fn build(mut command: Command) -> Result<Vec<Artifact>> {
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    let output = command.output().context("cargo could not be started")?;
    ensure!(output.status.success(), "the programs cannot be built: {}", output.status);
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

fn parse(messages: &str) -> Vec<Artifact> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let artifacts = messages.filter_map(|message| {
        let target = &message["target"];
        Some(Artifact {
            name: target["name"].as_str()?.to_owned(),
            kind: target["kind"][0].as_str()?.to_owned(),
            is_test: message["profile"]["test"] == true,
            executable: message["executable"].as_str()?.to_owned(),
        })
    });
    artifacts.collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn only_executables_are_artifacts() {
        let messages = r#"
            {"target":{"name":"serde","kind":["lib"]},"profile":{"test":false},"executable":null}
            {"target":{"name":"ray_nodes","kind":["test"]},"profile":{"test":true},"executable":"/t/ray_nodes-1"}
            {"reason":"build-finished","success":true}
            text of a build script"#;
        let [only] = &parse(messages)[..] else { panic!("one executable was expected") };
        assert_eq!((only.name.as_str(), only.kind.as_str()), ("ray_nodes", "test"));
        assert!(only.is_test && only.executable == "/t/ray_nodes-1");
    }
}
