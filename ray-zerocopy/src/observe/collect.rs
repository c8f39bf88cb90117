//! Collects the status of this process from the programs that run on an engine.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::status::{GenerationStatus, MethodStatus, ModelStatus, ProcessStatus, Status};
use crate::engine::Engine;
use crate::engine::figures::method::{MethodFigures, MethodState};
use crate::engine::figures::workers;
use crate::engine::live_programs::live_programs;
use crate::engine::program::Program;
use crate::engine::tally::Generation;
use crate::error::report::ReportError;
use crate::report::processes::report;

/// Version of the format.
pub(super) const VERSION: u32 = 1;
/// Number of pipelines, generations of a pipeline, and processes of a pipeline in a status, which has a
/// bounded size.
const MAX_MODELS: usize = 64;
const MAX_GENERATIONS: usize = 8;
const MAX_PROCESSES: usize = 256;

static SINCE: OnceLock<Instant> = OnceLock::new();

/// Records the time since when this process is observed.
pub(super) fn begin() -> Instant {
    *SINCE.get_or_init(Instant::now)
}

/// The programs of one pipeline on one engine.
struct Model {
    engine: Arc<dyn Engine>,
    programs: Vec<Arc<Program>>,
}

fn models() -> Vec<Model> {
    let mut models: Vec<Model> = Vec::new();
    for (program, engine) in live_programs() {
        let is_same = |model: &&mut Model| {
            Arc::ptr_eq(&model.engine, &engine) && model.programs[0].arena.pipeline() == program.arena.pipeline()
        };
        match models.iter_mut().find(is_same) {
            Some(model) => model.programs.push(program),
            None => models.push(Model { engine, programs: vec![program] }),
        }
    }
    for model in &mut models {
        model.programs.sort_by_key(|program| (program.tally.generation() as u8, std::cmp::Reverse(program.key)));
    }
    models
}

pub(super) fn status(names: Vec<String>) -> Result<Status, ReportError> {
    let mut models = models();
    let left_out = models.len().saturating_sub(MAX_MODELS);
    models.truncate(MAX_MODELS);
    let program = std::env::current_exe().ok();
    let program = program.as_ref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    Ok(Status {
        version: VERSION,
        names,
        pid: std::process::id(),
        program: program.unwrap_or_default(),
        uptime_seconds: begin().elapsed().as_secs_f64(),
        models: models.iter().map(model_status).collect::<Result<_, _>>()?,
        workers: workers::read(),
        left_out,
    })
}

fn model_status(Model { engine, programs }: &Model) -> Result<ModelStatus, ReportError> {
    let current = &programs[0];
    let report = report(current, &**engine)?;
    let processes = report.processes.iter().take(MAX_PROCESSES).map(|process| ProcessStatus {
        name: process.name.clone(),
        pid: process.pid,
        shared: process.shared,
        private: process.private,
        pss: process.pss,
        saved: process.saved(),
    });
    Ok(ModelStatus {
        pipeline: current.arena.pipeline().to_owned(),
        engine: engine.kind().to_owned(),
        workers: engine.workers().len(),
        size: engine.size(),
        pool: report.pool.clone(),
        generations: generations(programs),
        processes: processes.collect(),
    })
}

/// The programs with equal weights and the same part, such as those of two wrappers, are one generation.
fn generations(programs: &[Arc<Program>]) -> Vec<GenerationStatus> {
    let mut generations: Vec<GenerationStatus> = Vec::new();
    for program in programs {
        let (arena, generation) = (program.arena.id(), program.tally.generation());
        let methods = program.tally.methods.iter();
        let is_full = generations.len() == MAX_GENERATIONS && generation != Generation::Current;
        let is_same = |known: &&mut GenerationStatus| known.arena == arena && known.generation == generation.name();
        match generations.iter_mut().find(is_same) {
            Some(known) => methods.for_each(|method| add(&mut known.methods, method)),
            // Retired ones exist as long as a call runs on them.
            None if is_full => {}
            None => {
                let mut new = GenerationStatus {
                    generation: generation.name().to_owned(),
                    number: program.tally.number(),
                    arena,
                    bytes: program.arena.size_bytes(),
                    methods: Vec::new(),
                };
                methods.for_each(|method| add(&mut new.methods, method));
                generations.push(new);
            }
        }
    }
    generations
}

/// Adds the figures of a method to those of the same method of other programs.
fn add(methods: &mut Vec<MethodStatus>, figures: &MethodFigures) {
    let MethodState { waiting, running, outcomes, took, waited, ran, batches, batched_calls, batched_rows } =
        figures.read();
    let outcomes: BTreeMap<_, _> = outcomes.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    match methods.iter_mut().find(|known| known.method == figures.method) {
        Some(known) => {
            known.waiting += waiting;
            known.running += running;
            for (name, count) in outcomes {
                *known.outcomes.entry(name).or_default() += count;
            }
            known.took.add(&took);
            known.waited.add(&waited);
            known.ran.add(&ran);
            known.batches += batches;
            known.batched_calls += batched_calls;
            known.batched_rows += batched_rows;
        }
        None => methods.push(MethodStatus {
            method: figures.method.to_owned(),
            waiting,
            running,
            outcomes,
            took,
            waited,
            ran,
            batches,
            batched_calls,
            batched_rows,
        }),
    }
}
