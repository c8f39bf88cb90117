//! `rzc profile`: time and bytes of each operation of a traced graph.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use ray_zerocopy::jit::{Profile, StepInfo, StepProfile, WeightInfo, instruction_set};
use serde_json::{Value, json};

use super::{SHOWN, graph, run as runs};
use crate::Outcome;
use crate::cli_graph;
use crate::output::Output;
use crate::picture::faces::duration;
use crate::picture::kinds::Kind;
use crate::picture::{Picture, Times, html};
use crate::table::{Table, count, size};

pub(crate) fn run(options: &cli_graph::Profile, output: &mut Output) -> Result<Outcome> {
    let opened = runs::open(&options.graph)?;
    let inputs = runs::graph_inputs(&options.input, &opened)?;
    let profile = opened.profile(&options.device, inputs, options.runs)?;
    // Others run burn's own kernels.
    let instructions = opened.info().is_compiled().then(instruction_set);
    let with = instructions.as_ref().map(|instructions| format!(" with {instructions}")).unwrap_or_default();
    let about = format!("median of {} on {}{with}", count(profile.runs, "run"), options.device);
    let report = Report::of(&profile, opened.info().steps().collect(), opened.info().weights());
    if let Some(path) = &options.html {
        let times = Times::new(&profile, about.clone());
        graph::write(path, &html::page(&Picture::new(opened.info(), false, Some(times))?))?;
    }
    if options.json {
        let mut report = report.json(options, &profile);
        report["instructions"] = instructions.into();
        output.json(&report, false)?;
        return Ok(Outcome::Success);
    }
    writeln!(output, "{}: {} in {}, {about}", opened.info().origin(), report.operations(), duration(profile.time))?;
    if let Some(path) = &options.html {
        writeln!(output, "picture written to {}", path.display())?;
    }
    report.print(options.all, output)
}

/// Sums of operations.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    operations: usize,
    time: Duration,
    read: u64,
    written: u64,
}

impl Sum {
    fn add(&mut self, step: &StepProfile) {
        self.operations += 1;
        self.time += step.time;
        self.read += step.read;
        self.written += step.written;
    }
}

/// An operation with its measurements.
struct Measured<'a> {
    step: StepInfo,
    kind: Kind,
    profile: &'a StepProfile,
    /// Paths of the weights that it reads.
    weights: Vec<String>,
}

struct Report<'a> {
    /// The slowest first.
    operations: Vec<Measured<'a>>,
    /// The slowest first.
    kinds: Vec<(Kind, Sum)>,
    total: Sum,
}

impl<'a> Report<'a> {
    fn of(profile: &'a Profile, steps: Vec<StepInfo>, weights: impl Iterator<Item = WeightInfo>) -> Self {
        let weights: HashMap<_, _> = weights.map(|weight| (weight.path.clone(), weight)).collect();
        let mut steps: HashMap<_, _> = steps.into_iter().map(|step| (step.number, step)).collect();
        let measured = |profile: &'a StepProfile| {
            let step = steps.remove(&profile.number)?;
            let known = step.inputs.iter().filter_map(|operand| weights.get(&operand.to_string()));
            let paths = known.filter_map(|weight| weight.origin.clone()).collect();
            Some(Measured { kind: Kind::of(&step.name, step.computes), step, profile, weights: paths })
        };
        let mut operations: Vec<_> = profile.steps.iter().filter_map(measured).collect();
        operations.sort_by_key(|operation| std::cmp::Reverse(operation.profile.time));
        let (mut kinds, mut total) = (HashMap::new(), Sum::default());
        for operation in &operations {
            total.add(operation.profile);
            kinds.entry(operation.kind).or_insert_with(Sum::default).add(operation.profile);
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(kind, sum)| (std::cmp::Reverse(sum.time), kind.label()));
        Self { operations, kinds, total }
    }

    fn operations(&self) -> String {
        count(self.total.operations, "operation")
    }

    fn percent(&self, time: Duration) -> f64 {
        100.0 * time.as_secs_f64() / self.total.time.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn print(&self, all: bool, output: &mut Output) -> Result<Outcome> {
        writeln!(output)?;
        let mut table = Table::new(["kind", ">operations", ">time", ">%", ">read", ">written"]);
        let row = |name: &str, sum: &Sum| {
            let percent = format!("{:.1}", self.percent(sum.time));
            let name = name.to_owned();
            [name, sum.operations.to_string(), duration(sum.time), percent, size(sum.read), size(sum.written)]
        };
        for (kind, sum) in &self.kinds {
            table.row(row(kind.label(), sum));
        }
        table.rule();
        table.row(row("sum", &self.total));
        table.print("", output)?;
        writeln!(output)?;
        let shown = if all { self.operations.len() } else { self.operations.len().min(SHOWN) };
        let mut table = Table::new([">number", "operation", ">time", ">%", ">read", ">written", "weights"]);
        for operation in &self.operations[..shown] {
            let StepProfile { number, time, read, written, .. } = operation.profile;
            table.row([
                number.to_string(),
                operation.step.name.clone(),
                duration(*time),
                format!("{:.1}", self.percent(*time)),
                size(*read),
                size(*written),
                operation.weights.first().cloned().unwrap_or_default(),
            ]);
        }
        table.print("", output)?;
        match self.operations.len() - shown {
            0 => {}
            more => writeln!(output, "and {more} faster ones: --all shows all of them, --html FILE draws them")?,
        }
        Ok(Outcome::Success)
    }

    fn json(&self, options: &cli_graph::Profile, profile: &Profile) -> Value {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let mut steps: Vec<_> = self.operations.iter().collect();
        steps.sort_by_key(|operation| operation.profile.number);
        let step = |operation: &&Measured<'_>| {
            json!({
                "number": operation.profile.number,
                "name": operation.step.name,
                "kind": operation.kind.label(),
                "milliseconds": milliseconds(operation.profile.time),
                "percent": self.percent(operation.profile.time),
                "read_bytes": operation.profile.read,
                "written_bytes": operation.profile.written,
                "weights": operation.weights,
            })
        };
        let kind = |(kind, sum): &(Kind, Sum)| {
            json!({
                "kind": kind.label(),
                "operations": sum.operations,
                "milliseconds": milliseconds(sum.time),
                "percent": self.percent(sum.time),
                "read_bytes": sum.read,
                "written_bytes": sum.written,
            })
        };
        json!({
            "graph": options.graph,
            "device": options.device,
            "runs": profile.runs,
            "milliseconds": milliseconds(profile.time),
            "kinds": self.kinds.iter().map(kind).collect::<Vec<_>>(),
            "steps": steps.iter().map(step).collect::<Vec<_>>(),
        })
    }
}
