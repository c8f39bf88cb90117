//! Measures the memory of a process with its own copy of the model, in a separate process.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use ray_zerocopy_examples::minilm::fetch;
use ray_zerocopy_examples::search::Search;
use serde::{Deserialize, Serialize};

use crate::corpus::Corpus;

/// The kernel's figures for a process with its own copy, in MiB.
#[derive(Debug, Serialize, Deserialize)]
pub struct Alone {
    /// Private memory of the process.
    pub anonymous_mib: f64,
    /// Proportional share of all memory that it maps.
    pub pss_mib: f64,
    /// Time to load the model.
    pub load_ms: f64,
}

/// Starts this program again as a process with its own copy, and reads its figures.
pub fn measure(threads: usize) -> Result<Alone> {
    let output = Command::new(std::env::current_exe()?)
        .arg("--alone")
        .env("RAYON_NUM_THREADS", threads.to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("the process with its own copy could not be started")?;
    ensure!(output.status.success(), "the process with its own copy failed: {}", output.status);
    serde_json::from_slice(&output.stdout).context("the process with its own copy did not print its figures as JSON")
}

/// Runs that process, with the same model and kind of work but without sharing.
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
