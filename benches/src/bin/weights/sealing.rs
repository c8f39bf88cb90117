//! Measures how long a file takes to become sealed memory, compared with reading it.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use benches::child::{ChildRpc, send, this_program};
use benches::model::ModelConfig;
use benches::stats::{median, mib, quartiles};
use benches::{Progress, Table, Target, time};
use burn::tensor::Device;
use ray_zerocopy::Arena;
use rustix::fs::{Advice, fadvise};
use serde::{Deserialize, Serialize};

use crate::{Args, TENSORS};

/// Where the file is before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    Disk,
    PageCache,
}

#[derive(Serialize)]
pub struct Row {
    file_mib: f64,
    place: Place,
    /// `cat FILE > /dev/null`.
    read_ms_median: f64,
    seal_ms_median: f64,
    ratio: f64,
    ratio_quartiles: (f64, f64),
}

/// What a process that has sealed the file says.
#[derive(Serialize, Deserialize)]
struct Sealed {
    ms: f64,
}

/// Writes a saved arena with a model.
pub fn write(config: ModelConfig, file: &Path) -> Result<()> {
    let model = config.init(&Device::flex());
    ray_zerocopy::share(&model)?.save(file)?;
    send(&model.forward().checksum)
}

/// Writes the file in another process, whose memory returns. Returns the checksum of the model's result.
pub fn write_elsewhere(config: &ModelConfig, file: &Path) -> Result<u64> {
    let mut program = this_program();
    let program = program.args(["--role", "write", "--model", &serde_json::to_string(config)?]).arg("--file").arg(file);
    let mut writer = ChildRpc::start(program)?;
    let checksum = writer.recv()?;
    writer.end()?;
    Ok(checksum)
}

/// Seals a file, and sends how long it took.
pub fn seal(file: &Path) -> Result<()> {
    let begun = Instant::now();
    let arena = Arena::open(file)?;
    let ms = begun.elapsed().as_secs_f64() * 1e3;
    drop(arena);
    send(&Sealed { ms })
}

fn seal_elsewhere(file: &Path) -> Result<f64> {
    let mut sealer = ChildRpc::start(this_program().args(["--role", "seal"]).arg("--file").arg(file))?;
    let Sealed { ms } = sealer.recv()?;
    sealer.end()?;
    Ok(ms)
}

fn cat(file: &Path) -> Result<f64> {
    let begun = Instant::now();
    let status =
        Command::new("cat").arg(file).stdout(File::create("/dev/null")?).status().context("there is no `cat`")?;
    ensure!(status.success(), "`cat` failed");
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// Removes a file from the page cache.
fn forget(file: &Path) -> Result<()> {
    let file = File::open(file)?;
    // Only pages that have been written to the disk can be dropped.
    file.sync_all()?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

pub fn measure(args: &Args, progress: &Progress) -> Result<Vec<Row>> {
    let config = ModelConfig::new(args.seal_mib, TENSORS, 1)?;
    // Not in the folder for temporary files, which may be in memory.
    let folder = tempfile::tempdir_in(std::env::current_dir()?)?;
    let file = folder.path().join("model.bpk");
    progress.step("writing a model");
    write_elsewhere(&config, &file)?;
    let mut figures = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    for _ in 0..args.rounds {
        progress.step("sealing a file");
        for (place, (read, sealed)) in [Place::Disk, Place::PageCache].into_iter().zip(&mut figures) {
            let prepare = || if place == Place::Disk { forget(&file) } else { Ok(()) };
            prepare()?;
            read.push(cat(&file)?);
            prepare()?;
            sealed.push(seal_elsewhere(&file)?);
        }
    }
    let rows = [Place::Disk, Place::PageCache].into_iter().zip(figures).map(|(place, (read, sealed))| {
        let ratios: Vec<_> = sealed.iter().zip(&read).map(|(sealed, read)| sealed / read).collect();
        Row {
            file_mib: mib(config.bytes()),
            place,
            read_ms_median: median(&read),
            seal_ms_median: median(&sealed),
            ratio: median(&ratios),
            ratio_quartiles: quartiles(&ratios),
        }
    });
    Ok(rows.collect())
}

pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    let on_disk = rows.iter().filter(|row| row.place == Place::Disk);
    on_disk.map(|row| {
        Target::at_most(format!("sealing {:.0} MiB from the disk, in units of reading", row.file_mib), 1.2, row.ratio)
    })
}

pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["sealing", "MiB", "cat", "seal", "ratio"]);
    for row in rows {
        let (low, high) = row.ratio_quartiles;
        let place = match row.place {
            Place::Disk => "from the disk",
            Place::PageCache => "from the page cache",
        };
        table.row([
            place.to_owned(),
            format!("{:.0}", row.file_mib),
            time(row.read_ms_median * 1e3),
            time(row.seal_ms_median * 1e3),
            format!("{:.2}x {low:.2}..{high:.2}", row.ratio),
        ]);
    }
    table
}
