//! What a process costs that has its own copy of the model: measured, not computed, in a process of its own.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use ray_zerocopy_examples::minilm::fetch;
use ray_zerocopy_examples::search::Search;
use serde::{Deserialize, Serialize};

use crate::corpus::Corpus;

/// The kernel's figures of a process with its own copy, in MiB.
#[derive(Debug, Serialize, Deserialize)]
pub struct Alone {
    /// Memory that the process alone has.
    pub anonymous_mib: f64,
    /// Its part of all it maps.
    pub pss_mib: f64,
    /// From nothing to a loaded model.
    pub load_ms: f64,
}

/// Starts this program again as a process with its own copy, and reads what it says.
pub fn measure(threads: usize) -> Result<Alone> {
    let output = Command::new(std::env::current_exe()?)
        .arg("--alone")
        .env("RAYON_NUM_THREADS", threads.to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("the process with its own copy could not be started")?;
    ensure!(output.status.success(), "the process with its own copy failed: {}", output.status);
    serde_json::from_slice(&output.stdout).context("the process with its own copy said something else than its figures")
}

/// The role of that process: the same model, the same kind of work, nothing shared.
pub fn be() -> Result<()> {
    let begun = Instant::now();
    let search = Search::open(&fetch::model_files()?, &Device::flex())?;
    let load_ms = begun.elapsed().as_secs_f64() * 1e3;
    let texts = Corpus::bundled().lines;
    search.embed(texts.into_iter().take(32).collect()).map_err(anyhow::Error::msg)?;
    let [anonymous_mib, pss_mib] = rollup()?;
    println!("{}", serde_json::to_string(&Alone { anonymous_mib, pss_mib, load_ms })?);
    Ok(())
}

fn rollup() -> Result<[f64; 2]> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| kib / 1024.0).with_context(|| format!("no {name} in /proc/self/smaps_rollup"))
    };
    Ok([field("Anonymous:")?, field("Pss:")?])
}
