//! Measures programs that find one arena.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use benches::child::{ChildRpc, send, serve, this_program, together};
use benches::machine::rollup;
use benches::model::{Model, ModelConfig};
use benches::stats::{median, mib, quartiles};
use benches::{Progress, Table, Target, time};
use burn::tensor::Device;
use ray_zerocopy::{Arena, load};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::{Args, TENSORS, sealing};

#[derive(Serialize)]
pub struct Row {
    model_mib: f64,
    programs: u8,
    /// Number of arenas; maximum of all rounds.
    arenas_max: usize,
    /// Sum over all programs, with the arena.
    sum_pss_mib_max: f64,
    /// A program without weights.
    bare_pss_mib: f64,
    /// From the start of one program to its loaded pipeline.
    one_ready_ms_median: f64,
    /// The same of the last of all programs.
    last_ready_ms_median: f64,
    ratio: f64,
    ratio_quartiles: (f64, f64),
    /// Of a program that comes later, without the skeleton of the pipeline.
    attach_ms_median: f64,
    attach_ms_quartiles: (f64, f64),
    /// The same after the program that made the arena was killed.
    attach_after_kill_ms_median: f64,
    attach_after_kill_ms_quartiles: (f64, f64),
}

/// What a program says when it is ready.
#[derive(Serialize, Deserialize)]
struct Ready {
    inode: u64,
    /// Time to find or make the arena.
    attach_ms: f64,
    /// Whether it has made the arena.
    made: bool,
}

/// Runs a program: finds or makes the arena, loads the pipeline, and runs a forward pass for each request.
pub fn run(role: &str, config: ModelConfig, file: &Path) -> Result<()> {
    if role == "bare" {
        send(&())?;
        return serve(|()| Ok(()));
    }
    let mut made = false;
    let begun = Instant::now();
    let arena = Arena::shared_file(file, |_| made = true)?;
    let attach_ms = begun.elapsed().as_secs_f64() * 1e3;
    let model = load::<Model>(&arena, &Device::flex())?;
    let inode = rustix::fs::fstat(arena.fd().context("it is in memory")?)?.st_ino;
    let _ = config;
    send(&Ready { inode, attach_ms, made })?;
    serve(|()| Ok(model.forward().checksum))
}

struct Stage<'a> {
    folder: TempDir,
    file: &'a Path,
    config: String,
}

impl Stage<'_> {
    fn start(&self, role: &str) -> Result<ChildRpc> {
        let mut program = this_program();
        program.args(["--role", role, "--model", &self.config]).arg("--file").arg(self.file);
        ChildRpc::start(program.env("XDG_RUNTIME_DIR", self.folder.path()).env("RAYON_NUM_THREADS", "2"))
    }

    /// Starts programs at once. Returns them, and the time until the last is ready in milliseconds.
    fn start_all(&self, count: u8) -> Result<(Vec<ChildRpc>, Vec<Ready>, f64)> {
        let begun = Instant::now();
        let mut programs = (0..count).map(|_| self.start("program")).collect::<Result<Vec<_>>>()?;
        let ready = together(programs.iter_mut(), |program| program.recv::<Ready>())?;
        Ok((programs, ready, begun.elapsed().as_secs_f64() * 1e3))
    }
}

pub fn measure(args: &Args, progress: &Progress) -> Result<Row> {
    let config = ModelConfig::new(args.mib, TENSORS, 1)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("model.bpk");
    progress.step("writing a model");
    sealing::write_elsewhere(&config, &file)?;
    let stage = Stage { folder: tempfile::tempdir()?, file: &file, config: serde_json::to_string(&config)? };

    let (mut one, mut last, mut attach, mut after) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut arenas, mut pss) = (0, 0);
    let mut bare = stage.start("bare")?;
    bare.recv::<()>()?;
    let bare_pss = rollup(bare.pid(), "Pss")?;
    bare.end()?;
    for _ in 0..args.rounds {
        progress.step(format!("{} programs", args.programs));
        let (alone, _, ms) = stage.start_all(1)?;
        one.push(ms);
        alone.into_iter().try_for_each(ChildRpc::end)?;

        let (mut programs, ready, ms) = stage.start_all(args.programs)?;
        last.push(ms);
        arenas = arenas.max(ready.iter().map(|ready| ready.inode).collect::<BTreeSet<_>>().len());
        let checksums = programs.iter_mut().map(|program| program.call::<u64>(&())).collect::<Result<BTreeSet<_>>>()?;
        ensure!(checksums.len() == 1, "the programs compute different results");
        pss = pss.max(programs.iter().map(|program| rollup(program.pid(), "Pss")).sum::<Result<u64>>()?);

        let later = |list: &mut Vec<f64>| -> Result<()> {
            let mut program = stage.start("program")?;
            let ready: Ready = program.recv()?;
            ensure!(!ready.made, "a program that came later has made an arena");
            list.push(ready.attach_ms);
            program.end()
        };
        later(&mut attach)?;
        // Dropping it kills it.
        let maker = ready.iter().position(|ready| ready.made).context("no program has made the arena")?;
        drop(programs.swap_remove(maker));
        later(&mut after)?;
        programs.into_iter().try_for_each(ChildRpc::end)?;
    }
    let ratios: Vec<_> = last.iter().zip(&one).map(|(last, one)| last / one).collect();
    Ok(Row {
        model_mib: mib(config.bytes()),
        programs: args.programs,
        arenas_max: arenas,
        sum_pss_mib_max: mib(pss),
        bare_pss_mib: mib(bare_pss),
        one_ready_ms_median: median(&one),
        last_ready_ms_median: median(&last),
        ratio: median(&ratios),
        ratio_quartiles: quartiles(&ratios),
        attach_ms_median: median(&attach),
        attach_ms_quartiles: quartiles(&attach),
        attach_after_kill_ms_median: median(&after),
        attach_after_kill_ms_quartiles: quartiles(&after),
    })
}

pub fn targets(row: &Row) -> Vec<Target> {
    let most = row.model_mib + f64::from(row.programs) * row.bare_pss_mib + 16.0;
    let programs = row.programs;
    vec![
        Target::at_most(format!("{programs} programs: number of arenas"), 1.0, row.arenas_max as f64),
        Target::at_most(format!("{programs} programs: PSS of all, MiB"), most, row.sum_pss_mib_max),
        Target::at_most(format!("{programs} programs: last ready, in units of one program's"), 1.2, row.ratio),
        Target::at_most("a later program: attach, ms", 2.0, row.attach_ms_median),
        Target::at_most("a later program, maker killed: attach, ms", 2.0, row.attach_after_kill_ms_median),
    ]
}

pub fn table(row: &Row) -> Table {
    let mut table = Table::new([
        "programs at once",
        "arenas",
        "PSS of all",
        "PSS of a bare one",
        "last ready",
        "in units of one's",
    ]);
    let (low, high) = row.ratio_quartiles;
    table.row([
        format!("{} on {:.0} MiB", row.programs, row.model_mib),
        row.arenas_max.to_string(),
        format!("{:.1} MiB", row.sum_pss_mib_max),
        format!("{:.1} MiB", row.bare_pss_mib),
        time(row.last_ready_ms_median * 1e3),
        format!("{:.2}x {low:.2}..{high:.2}", row.ratio),
    ]);
    table.row(["a later one", "attach", "", "maker killed", "attach", ""]);
    let between = |(low, high): (f64, f64)| format!("{low:.2}..{high:.2} ms");
    table.row([
        String::new(),
        time(row.attach_ms_median * 1e3),
        between(row.attach_ms_quartiles),
        String::new(),
        time(row.attach_after_kill_ms_median * 1e3),
        between(row.attach_after_kill_ms_quartiles),
    ]);
    table
}
