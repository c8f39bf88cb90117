//! Recordings: the kernels of a run, which the device starts again in one step.
//!
//! Starting a kernel takes longer than many kernels of a small batch run. The first runs with inputs of the same shapes are
//! ordinary ones. Then the kernels are recorded, and two runs compare the results of the recording with those of the ordinary
//! way, bit for bit. From then on the recording is used alone.

use std::sync::OnceLock;

use burn_ir::HandleKind;

use super::backend::{Bridge, NotRecorded};
use super::executor::Executor;
use crate::error::graph::ReplayError;
use crate::jit::executable::Recorded;
use crate::jit::graph::code::GraphCode;
use crate::jit::graph::passes;
use crate::tensor::value::Value;

/// Ordinary runs before a recording: kernels are compiled in the first one, and burn chooses among them.
const RUNS_BEFORE: u32 = 2;

/// Ordinary runs before the kernels are recorded again, after a recording had to make room for others.
const RUNS_BEFORE_ANOTHER: u32 = 64;

/// Runs whose results are compared with those of the recording, after the one that records.
const COMPARED: u32 = 1;

/// The recordings of a graph that are kept. Each has memory of its own for all results.
const MOST: usize = 8;

/// Environment variable: with the value `off`, nothing is recorded.
const SWITCH: &str = "RAY_ZEROCOPY_RECORDING";

/// How far the recording of a plan is.
pub(super) enum Progress<B: Bridge> {
    /// Recorded after so many more ordinary runs.
    After(u32),
    /// Recorded. The results of so many more runs are compared.
    Recorded(Box<B::Recording>, u32),
    /// Not recorded, for this reason. `None` if the backend cannot record.
    Never(Option<String>),
}

impl<B: Bridge> Default for Progress<B> {
    fn default() -> Self {
        Self::After(RUNS_BEFORE)
    }
}

/// Whether the runs of a graph can be recorded: each operation gives the same result for the same operands.
pub(super) fn is_possible(code: &GraphCode) -> bool {
    static IS_OFF: OnceLock<bool> = OnceLock::new();
    let is_off = *IS_OFF.get_or_init(|| std::env::var_os(SWITCH).is_some_and(|value| value == "off"));
    !is_off && !code.operations.iter().any(passes::is_impure)
}

/// Counts recordings.
pub(super) fn summary<'a, B: Bridge + 'a>(plans: impl Iterator<Item = &'a Progress<B>>) -> Recorded {
    let mut summary = Recorded::default();
    for progress in plans {
        match progress {
            Progress::Recorded(_, 0) => summary.shapes += 1,
            Progress::Never(Some(reason)) => summary.refused = Some(reason.clone()),
            Progress::After(_) | Progress::Recorded(..) | Progress::Never(None) => {}
        }
    }
    summary
}

impl<B: Bridge> Executor<B> {
    /// Runs the plan that was used last: its recording if there is one, and otherwise its operations, which may be recorded.
    pub(super) fn run_or_replay(&mut self, inputs: Vec<Value>) -> Result<Vec<Value>, ReplayError> {
        let inputs = self.inputs(inputs)?;
        let progress = match self.plans.iter_mut().next() {
            Some(plan) => std::mem::take(&mut plan.recording),
            None => Progress::Never(None),
        };
        let (outputs, progress) = match progress {
            Progress::After(0) => self.run_and_record(inputs),
            Progress::After(runs) => (self.ordinary(inputs), Progress::After(runs - 1)),
            Progress::Recorded(recording, compared) => self.replay(recording, compared, inputs),
            Progress::Never(reason) => (self.ordinary(inputs), Progress::Never(reason)),
        };
        if let Some(plan) = self.plans.iter_mut().next() {
            plan.recording = progress;
        }
        // A run that failed may have lacked memory.
        self.keep_recordings(if outputs.is_ok() { MOST } else { 0 });
        outputs
    }

    fn ordinary(&mut self, inputs: Vec<HandleKind<B>>) -> Result<Vec<Value>, ReplayError> {
        let outputs = self.operations(inputs, |_| ())?;
        self.outputs(outputs)
    }

    /// An ordinary run, after which its kernels are recorded.
    fn run_and_record(&mut self, inputs: Vec<HandleKind<B>>) -> (Result<Vec<Value>, ReplayError>, Progress<B>) {
        let outputs = match self.ordinary(inputs.clone()) {
            Ok(outputs) => outputs,
            Err(error) => return (Err(error), Progress::After(RUNS_BEFORE)),
        };
        let fixed = self.plans.front().into_iter().flat_map(|plan| plan.fixed.iter().map(|(_, handle)| handle.clone()));
        let kept = self.constants.iter().flatten().cloned().chain(fixed).collect();
        let device = self.backend_device.clone();
        let mut run = |inputs| self.operations(inputs, |_| ()).map_err(|error| error.to_string());
        let progress = match B::record(&device, &inputs, kept, &mut run) {
            Err(NotRecorded::Unsupported) => Progress::Never(None),
            Err(NotRecorded::Busy) => Progress::After(0),
            Err(NotRecorded::Refused(reason)) => {
                self.reset();
                Progress::Never(Some(reason))
            }
            Ok(recording) => self.compare(Box::new(recording), COMPARED, &inputs, &outputs),
        };
        (Ok(outputs), progress)
    }

    /// A run of the recording, or, as long as results are compared, an ordinary run, too.
    fn replay(
        &mut self,
        mut recording: Box<B::Recording>,
        compared: u32,
        inputs: Vec<HandleKind<B>>,
    ) -> (Result<Vec<Value>, ReplayError>, Progress<B>) {
        if compared > 0 {
            let outputs = self.ordinary(inputs.clone());
            let progress = match &outputs {
                Ok(outputs) => self.compare(recording, compared - 1, &inputs, outputs),
                Err(_) => Progress::Recorded(recording, compared),
            };
            return (outputs, progress);
        }
        match B::replay(&mut recording, &inputs) {
            Ok(outputs) => (self.outputs(outputs), Progress::Recorded(recording, 0)),
            Err(reason) => (self.ordinary(inputs), Progress::Never(Some(reason))),
        }
    }

    /// Keeps a recording if its results are those of an ordinary run.
    fn compare(
        &self,
        mut recording: Box<B::Recording>,
        compared: u32,
        inputs: &[HandleKind<B>],
        expected: &[Value],
    ) -> Progress<B> {
        let is_same = B::replay(&mut recording, inputs).and_then(|found| {
            let found = self.outputs(found).map_err(|error| error.to_string())?;
            for ((found, expected), port) in found.iter().zip(expected).zip(&self.code.outputs) {
                if found.data()?.as_bytes() != expected.data()?.as_bytes() {
                    return Err(format!(
                        "output `{}` of the recorded kernels differs from that of an ordinary run",
                        port.name
                    ));
                }
            }
            Ok(())
        });
        match is_same {
            Ok(()) => Progress::Recorded(recording, compared),
            Err(reason) => Progress::Never(Some(reason)),
        }
    }

    /// Drops the recordings that were used least recently, if there are more than this.
    fn keep_recordings(&mut self, most: usize) {
        let is_recorded = |progress: &Progress<B>| matches!(progress, Progress::Recorded(..));
        for plan in self.plans.iter_mut().filter(|plan| is_recorded(&plan.recording)).skip(most) {
            plan.recording = Progress::After(RUNS_BEFORE_ANOTHER);
        }
    }
}
