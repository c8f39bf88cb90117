//! Measures time and peak memory of sharing the weights of a safetensors file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use benches::child::{ChildRpc, send, this_program};
use benches::machine::status;
use benches::model::{Model, ModelConfig};
use benches::stats::{self, Ratio, mib};
use benches::{Common, Progress, Run, Table, Target, time};
use burn::tensor::Device;
use clap::Parser;
use ray_zerocopy::{Arena, Checkpoint, load, share, share_from};
use serde::{Deserialize, Serialize};

/// From a safetensors file to an arena, compared with writing as many bytes to a file in memory.
///
/// The file is in the page cache. Each contestant runs in a process of its own; they take turns for
/// several rounds. The peak is that of all memory that the process maps (VmHWM), minus the memory
/// before. A file or an arena that is only written to is not mapped, so it is not included: it
/// exists once in addition, with the size of the weights. The result is loaded afterwards, and its
/// outputs must be equal bit for bit.
#[derive(Parser, Serialize)]
#[command(name = "share", after_help = "cargo run --release -p benches --bin share -- --json")]
struct Args {
    /// Size of the weights, in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    mib: u32,
    /// Number of tensors
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    tensors: u32,
    /// Number of rounds
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
    /// Run as the process that is measured
    #[arg(long, hide = true, value_names = ["WAY", "FILE", "MODEL"], num_args = 3)]
    #[serde(skip)]
    only: Option<Vec<String>>,
}

/// A contestant: a way from the file to memory that other processes can map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    /// Bytes on the heap are written to a memfd, which is a file of tmpfs: the unit of time.
    Write,
    /// The file is read and written to a memfd, in chunks of 1 MiB.
    Copy,
    /// The file is streamed into an arena by [`share_from`].
    Stream,
    /// burn loads the model to the heap, and the pipeline is shared.
    LoadAndShare,
}

const WAYS: [Way; 4] = [Way::Write, Way::Copy, Way::Stream, Way::LoadAndShare];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Write => "write to tmpfs",
            Self::Copy => "read the file, write to tmpfs",
            Self::Stream => "share from the file",
            Self::LoadAndShare => "load, then share",
        }
    }

    fn run(self, file: &Path, config: &ModelConfig) -> Result<Done> {
        match self {
            Self::Write => {
                let bytes = std::fs::read(file)?;
                Done::measure(
                    || {
                        let mut target = tmpfs()?;
                        bytes.chunks(1 << 20).try_for_each(|chunk| target.write_all(chunk))?;
                        Ok(target)
                    },
                    |target| written(target, &bytes),
                )
            }
            Self::Copy => Done::measure(
                || {
                    let (mut source, mut target) = (File::open(file)?, tmpfs()?);
                    let mut buffer = vec![0; 1 << 20];
                    loop {
                        match source.read(&mut buffer)? {
                            0 => return Ok(target),
                            count => target.write_all(&buffer[..count])?,
                        }
                    }
                },
                |target| written(target, &std::fs::read(file)?),
            ),
            Self::Stream => Done::measure(
                || {
                    // The file was written from the list of layers, whose names lack this prefix.
                    let checkpoint = Checkpoint::open(file)?.rename("^", "layers.")?;
                    Ok(share_from(&config.init(&Device::flex()), &checkpoint)?)
                },
                computed,
            ),
            Self::LoadAndShare => Done::measure(
                || {
                    let model = config.load(file)?;
                    Ok(share(&model)?)
                },
                computed,
            ),
        }
    }
}

fn tmpfs() -> Result<File> {
    let fd = rustix::fs::memfd_create("ray-zerocopy-bench", rustix::fs::MemfdFlags::CLOEXEC)?;
    Ok(File::from(fd))
}

/// Checks that the file contains these bytes.
fn written(mut target: File, bytes: &[u8]) -> Result<Option<u64>> {
    let mut found = Vec::new();
    target.seek(SeekFrom::Start(0))?;
    target.read_to_end(&mut found)?;
    ensure!(found == bytes, "the written bytes differ from the weights");
    Ok(None)
}

/// Returns the checksum of the result of a model that borrows from the arena.
fn computed(arena: Arena) -> Result<Option<u64>> {
    let model = load::<Model>(&arena, &Device::flex())?.strict()?;
    Ok(Some(model.forward().checksum))
}

/// The message of a measured process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Done {
    took_ms: f64,
    /// In bytes, minus the memory before.
    peak: u64,
    checksum: Option<u64>,
}

impl Done {
    /// Measures time and memory of `job`, then passes its result to `check`.
    fn measure<T>(job: impl FnOnce() -> Result<T>, check: impl FnOnce(T) -> Result<Option<u64>>) -> Result<Self> {
        // Resets the peak.
        std::fs::write("/proc/self/clear_refs", "5").context("the peak of memory cannot be reset")?;
        let idle = status("VmHWM")?;
        let begun = Instant::now();
        let result = job()?;
        let took_ms = begun.elapsed().as_secs_f64() * 1e3;
        let peak = status("VmHWM")?.saturating_sub(idle);
        Ok(Self { took_ms, peak, checksum: check(result)? })
    }
}

#[derive(Serialize)]
struct Row {
    way: Way,
    model_mib: f64,
    ms_median: f64,
    /// Peak of mapped memory, minus that before; maximum of the rounds.
    peak_over_idle_mib_max: f64,
    /// Time in units of the first contestant.
    #[serde(flatten)]
    ratio: Ratio,
    /// Whether the bytes, or the outputs of the loaded model, are as expected.
    outputs_equal: bool,
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let mut args = Args::parse();
    if let Some(only) = &args.only {
        return work(only);
    }
    if args.common.quick {
        (args.mib, args.rounds) = (args.mib.min(64), 2);
    }
    let config = ModelConfig::new(args.mib, args.tensors, 1)?;
    let run = Run::begin("share", args.common);
    let rounds = usize::from(args.rounds);
    let progress = Progress::new(1 + rounds * WAYS.len());

    progress.step("writing the model");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("model.safetensors");
    let model = config.init(&Device::flex());
    model.save(&file)?;
    let expected = model.forward().checksum;
    drop(model);

    let mut done = vec![Vec::new(); WAYS.len()];
    for round in 0..rounds {
        for turn in 0..WAYS.len() {
            let index = (round + turn) % WAYS.len();
            progress.step(WAYS[index].name());
            let mut program = this_program();
            program.arg("--only").arg(serde_json::to_string(&WAYS[index])?).arg(&file);
            let mut process = ChildRpc::start(program.arg(serde_json::to_string(&config)?))?;
            done[index].push(process.recv::<Done>()?);
            process.end()?;
        }
    }
    drop(progress);

    let times: Vec<Vec<_>> = done.iter().map(|done| done.iter().map(|done| done.took_ms).collect()).collect();
    let row = |(index, way): (usize, &Way)| Row {
        way: *way,
        model_mib: mib(config.bytes()),
        ms_median: stats::median(&times[index]),
        peak_over_idle_mib_max: done[index].iter().map(|done| mib(done.peak)).fold(0.0, f64::max),
        ratio: Ratio::of(&times[index], &times[0]),
        outputs_equal: done[index].iter().all(|done| done.checksum.is_none_or(|checksum| checksum == expected)),
    };
    let rows: Vec<_> = WAYS.iter().enumerate().map(row).collect();
    let notes = format!(
        "Medians of {rounds} rounds; `x` in units of writing to tmpfs, with quartiles of the rounds.\n\
         Peak: peak of mapped memory, minus that before; memory that is only written to is not mapped."
    );
    run.finish(&args, &rows, &targets(&rows), &[table(&rows)], &notes)?;
    ensure!(rows.iter().all(|row| row.outputs_equal), "outputs of the shared model differ");
    Ok(())
}

fn work(only: &[String]) -> Result<()> {
    let [way, file, config] = only else { bail!("--only WAY FILE MODEL") };
    let (way, config): (Way, ModelConfig) = (serde_json::from_str(way)?, serde_json::from_str(config)?);
    send(&way.run(&PathBuf::from(file), &config)?)
}

fn targets(rows: &[Row]) -> Vec<Target> {
    let ours = rows.iter().filter(|row| row.way == Way::Stream);
    let targets = ours.flat_map(|row| {
        let peak = format!("{}: peak over idle, MiB", row.way.name());
        let took = format!("{}: time in units of writing to tmpfs", row.way.name());
        [
            Target::at_most(peak, row.model_mib + 64.0, row.peak_over_idle_mib_max),
            Target::at_most(took, 2.0, row.ratio.ratio),
        ]
    });
    targets.collect()
}

fn table(rows: &[Row]) -> Table {
    let mib = rows.first().map_or(0.0, |row| row.model_mib);
    let mut table = Table::new([format!("{mib:.0} MiB").as_str(), "takes", "in units of the first", "peak over idle"]);
    for row in rows {
        table.row([
            row.way.name().to_owned(),
            time(row.ms_median * 1e3),
            row.ratio.to_string(),
            format!("{:.1} MiB", row.peak_over_idle_mib_max),
        ]);
    }
    table
}
