//! Executes a graph on one backend.
//!
//! Each tensor of the graph has a slot. Constants stay in their slots. The result of an operation
//! is moved out of its slot by its last use, which may then compute in place.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{DType, Device, TensorData};
use burn_ir::{HandleKind, OperationIr, TensorIr, TensorStatus};
use burn_router::TensorInterpreter;

use super::Execute;
use super::backend::Bridge;
use super::buffers::Buffers;
use super::kernels;
use super::plan::ExecutionPlan;
use super::plan_cache::PlanCache;
use super::recording;
use crate::arena::arena::Arena;
use crate::error::graph::{GraphError, ReplayError};
use crate::jit::executable::Recorded;
use crate::jit::graph::code::{GraphCode, Port, Source};
use crate::jit::graph::decode::Entries;
use crate::jit::graph::passes;
use crate::jit::graph::profile::Profile;
use crate::panics;
use crate::pipeline::device_weights::DeviceWeights;
use crate::tensor::copied::CopiedTensor;
use crate::tensor::value::Value;

/// The tensors of a run.
pub(super) struct Slots<B: Bridge> {
    /// By tensor id.
    pub(super) tensors: Vec<Option<HandleKind<B>>>,
    /// Memory of results whose last use is over.
    pub(super) buffers: Buffers,
}

impl<B: Bridge> Slots<B> {
    pub(super) fn new(tensors: Vec<Option<HandleKind<B>>>) -> Self {
        Self { tensors, buffers: Buffers::default() }
    }

    /// Returns an operand. Its last use moves it out of the slot.
    pub(super) fn operand(&mut self, tensor: &TensorIr) -> HandleKind<B> {
        let slot = self.tensors.get_mut(tensor.id.value() as usize).and_then(|slot| match tensor.status {
            TensorStatus::ReadWrite => slot.take(),
            TensorStatus::ReadOnly | TensorStatus::NotInit => slot.clone(),
        });
        slot.unwrap_or_else(|| panic!("tensor {} does not exist", tensor.id.value()))
    }

    pub(super) fn put(&mut self, tensor: &TensorIr, handle: HandleKind<B>) {
        if let Some(slot) = self.tensors.get_mut(tensor.id.value() as usize) {
            *slot = Some(handle);
        }
    }
}

pub(super) struct Executor<B: Bridge> {
    pub(super) code: Arc<GraphCode>,
    device: Device,
    pub(super) backend_device: B::Device,
    arena: Arena,
    slots: Slots<B>,
    /// Constants that do not depend on symbols, by slot.
    pub(super) constants: Vec<Option<HandleKind<B>>>,
    /// Execution plans of recently used sizes.
    pub(super) plans: PlanCache<ExecutionPlan<B>>,
    /// Whether runs are recorded.
    records: bool,
}

impl<B: Bridge> Executor<B> {
    /// Creates the constants. Those of the arena are borrowed if the backend supports it.
    pub(super) fn new(
        code: &Arc<GraphCode>,
        arena: &Arena,
        device: &Device,
        backend_device: B::Device,
    ) -> Result<(Self, Vec<CopiedTensor>), ReplayError> {
        let count = tensors(code);
        let mut constants: Vec<Option<HandleKind<B>>> = (0..count).map(|_| None).collect();
        let entries = Entries::of(arena);
        let weights = DeviceWeights::open(arena, device).map_err(ReplayError::of_upload)?;
        let mut copied = Vec::new();
        let mut known: HashMap<&str, HandleKind<B>> = HashMap::new();
        for (at, constant) in code.constants.iter().enumerate() {
            let slot = &mut constants[code.inputs.len() + at];
            let Source::Entry(path) = &constant.source else {
                // Constants that depend on symbols are created for each plan.
                if let Some(data) = constant.data(&[]) {
                    *slot = Some(constant_handle::<B>(data, device, &backend_device, &path_of(at))?);
                }
                continue;
            };
            if let Some(known) = known.get(path.as_str()) {
                *slot = Some(known.clone());
                continue;
            }
            let entry = entries.find(path, constant)?;
            let shared = weights.tensor(entry, device).map(Value::from_kind);
            if let Some(shared) = shared.and_then(|value| B::inside(&value, &backend_device)) {
                known.insert(path, shared.clone());
                *slot = Some(shared);
                continue;
            }
            let data = TensorData::from_bytes(arena.borrow(entry.blob), entry.shape.clone(), entry.dtype);
            let bytes = data.as_bytes().len() as u64;
            let made = constant_handle::<B>(data, device, &backend_device, path)?;
            if bytes > 0 && !B::address(&made).is_some_and(|address| arena.contains(address)) {
                copied.push(CopiedTensor { path: path.clone(), bytes });
            }
            known.insert(path, made.clone());
            *slot = Some(made);
        }
        let slots = Slots::new(constants.clone());
        let executor = Self {
            code: Arc::clone(code),
            device: device.clone(),
            backend_device,
            arena: arena.clone(),
            slots,
            constants,
            plans: PlanCache::new(),
            records: recording::is_possible(code),
        };
        Ok((executor, copied))
    }

    /// Makes the plan for these sizes the first one in the cache.
    fn plan(&mut self, sizes: &[usize]) -> Result<(), ReplayError> {
        if self.plans.promote(sizes) {
            return Ok(());
        }
        let mut plan = ExecutionPlan::<B>::new(&self.code, sizes, &self.device, &self.backend_device)?;
        self.prepare(&mut plan)?;
        let bytes = plan.bytes();
        self.plans.add(sizes, plan, bytes);
        Ok(())
    }

    /// Constant folding: runs the operations that depend only on constants, and retains results
    /// that need no additional memory.
    fn prepare(&mut self, plan: &mut ExecutionPlan<B>) -> Result<(), ReplayError> {
        for (id, handle) in &plan.fixed {
            self.slots.tensors[*id] = Some(handle.clone());
        }
        let candidates = plan.constant_only(self.code.inputs.len());
        let mut done = vec![false; plan.steps.len()];
        for at in candidates {
            let step = &plan.steps[at];
            let ready = step
                .operation
                .inputs()
                .all(|tensor| self.slots.tensors.get(tensor.id.value() as usize).is_some_and(Option::is_some));
            if !ready {
                continue;
            }
            // The operands are constants, and must stay in their slots.
            let mut operation = step.operation.clone();
            passes::last_uses(
                std::slice::from_mut(&mut operation),
                &step.operation.inputs().map(|tensor| tensor.id).collect(),
            );
            let result = panics::caught(|| run(&operation, &mut self.slots, &self.backend_device));
            result.map_err(|reason| operation_error(at, &operation, reason))?;
            let outputs: Vec<_> = operation.outputs().map(|tensor| tensor.id.value() as usize).collect();
            let bytes = operation.outputs().map(|out| out.shape.num_elements() * out.dtype.size()).sum::<usize>();
            let is_free = |id: &usize| {
                let handle = self.slots.tensors[*id].as_ref();
                bytes <= passes::SMALL
                    || handle.is_some_and(|handle| match B::address(handle) {
                        Some(address) => self.arena.contains(address),
                        None => passes::is_view(&operation),
                    })
            };
            if outputs.iter().all(is_free) {
                // A larger result is a view, of the arena or of memory that is already counted.
                plan.fixed_bytes += if bytes <= passes::SMALL { bytes } else { 0 };
                for id in outputs {
                    plan.fixed.extend(self.slots.tensors[id].clone().map(|handle| (id, handle)));
                }
                done[at] = true;
            } else {
                for id in outputs {
                    self.slots.tensors[id] = None;
                }
            }
        }
        plan.finish(&self.code, &done);
        for (id, _) in &plan.fixed {
            self.slots.tensors[*id] = None;
        }
        Ok(())
    }

    /// Resets the slots to the constants after a failed run.
    pub(super) fn reset(&mut self) {
        self.slots.tensors.clone_from(&self.constants);
    }

    /// The inputs as tensors of the backend.
    pub(super) fn inputs(&self, inputs: Vec<Value>) -> Result<Vec<HandleKind<B>>, ReplayError> {
        let handle = |(value, port): (Value, &Port)| {
            let input_error = |reason: String| ReplayError::Input {
                name: port.name.clone(),
                expected: "a tensor that its device can read".to_owned(),
                found: reason,
            };
            if let Some(handle) = B::inside(&value, &self.backend_device) {
                return Ok(handle);
            }
            let data = value.data().map_err(input_error)?;
            drop(value);
            handle::<B>(data, &self.device, &self.backend_device).map_err(input_error)
        };
        inputs.into_iter().zip(&self.code.inputs).map(handle).collect()
    }

    /// Runs the operations of the plan that was used last. `observe` is called before the first one, and after each one.
    pub(super) fn operations(
        &mut self,
        inputs: Vec<HandleKind<B>>,
        mut observe: impl FnMut(&B::Device),
    ) -> Result<Vec<HandleKind<B>>, ReplayError> {
        let Self { code, backend_device, slots, plans, .. } = self;
        let unready = || GraphError::Corrupted { reason: "it has no execution plan".to_owned() };
        let plan = plans.front().ok_or_else(unready)?;
        for (at, input) in inputs.into_iter().enumerate() {
            slots.tensors[at] = Some(input);
        }
        for (id, handle) in &plan.fixed {
            slots.tensors[*id] = Some(handle.clone());
        }
        let mut at = 0;
        let result = panics::caught(|| {
            observe(backend_device);
            for step in &plan.steps {
                run(&step.operation, slots, backend_device);
                observe(backend_device);
                for id in &step.unused {
                    slots.tensors[*id] = None;
                }
                at += 1;
            }
        });
        result.map_err(|reason| operation_error(plan.steps[at].number, &plan.steps[at].operation, reason))?;
        let output = |port: &Port| {
            let handle = slots.tensors.get(port.id.value() as usize).cloned().flatten();
            handle.ok_or_else(|| no_output(port))
        };
        let outputs = code.outputs.iter().map(output).collect();
        plan.clear_slots(slots, code.inputs.len());
        slots.buffers.end_run();
        outputs
    }

    /// The outputs as values.
    pub(super) fn outputs(&self, outputs: Vec<HandleKind<B>>) -> Result<Vec<Value>, ReplayError> {
        let output = |(handle, port)| B::outside(handle).ok_or_else(|| no_output(port));
        outputs.into_iter().zip(&self.code.outputs).map(output).collect()
    }

    /// Runs the operations, one after the other.
    fn run(&mut self, inputs: Vec<Value>, observe: impl FnMut(&B::Device)) -> Result<Vec<Value>, ReplayError> {
        let inputs = self.inputs(inputs)?;
        let outputs = self.operations(inputs, observe)?;
        self.outputs(outputs)
    }
}

fn no_output(port: &Port) -> ReplayError {
    let reason = format!("output `{}` is not the result of an operation", port.name);
    GraphError::Corrupted { reason }.into()
}

impl<B: Bridge> Execute for Executor<B> {
    fn execute(&mut self, sizes: &[usize], inputs: Vec<Value>) -> Result<Vec<Value>, ReplayError> {
        let outputs = self
            .plan(sizes)
            .and_then(|()| if self.records { self.run_or_replay(inputs) } else { self.run(inputs, |_| ()) });
        if outputs.is_err() {
            self.reset();
        }
        outputs
    }

    fn kept_bytes(&self) -> u64 {
        self.slots.buffers.bytes()
    }

    fn recorded(&self) -> Recorded {
        recording::summary(self.plans.iter().map(|plan| &plan.recording))
    }

    fn profile(&mut self, sizes: &[usize], inputs: &[Value], runs: usize) -> Result<Profile, ReplayError> {
        // Creates the plan, and warms the caches.
        self.execute(sizes, inputs.to_vec())?;
        let mut measured = Vec::new();
        for _ in 0..runs {
            let mut times = Vec::new();
            let run = self.run(inputs.to_vec(), |device| {
                // Graphics cards compute asynchronously.
                if let Err(error) = B::sync(device) {
                    panic!("the device cannot be waited for: {error}");
                }
                times.push(Instant::now());
            });
            if let Err(error) = run {
                self.reset();
                return Err(error);
            }
            measured.push(times.windows(2).map(|pair| pair[1].duration_since(pair[0])).collect());
        }
        let steps = self.plans.front().map(|plan| &plan.steps[..]).unwrap_or_default();
        Ok(Profile::of(steps.iter().map(|step| (step.number, &step.operation)), &measured))
    }

    fn empty(&self, outputs: Vec<(DType, Vec<usize>)>) -> Result<Vec<Value>, ReplayError> {
        let make = |(at, (dtype, shape)): (usize, (DType, Vec<usize>))| {
            let data = TensorData::from_bytes_vec(Vec::new(), shape, dtype);
            let made = handle::<B>(data, &self.device, &self.backend_device).map(B::outside);
            let name = || self.code.outputs.get(at).map(|port| port.name.clone()).unwrap_or_default();
            made.and_then(|made| made.ok_or_else(|| "it is quantised".to_owned())).map_err(|reason| {
                GraphError::Corrupted { reason: format!("output `{}` cannot be created: {reason}", name()) }.into()
            })
        };
        outputs.into_iter().enumerate().map(make).collect()
    }
}

fn path_of(at: usize) -> String {
    format!("constant {at}")
}

fn operation_error(number: usize, operation: &OperationIr, reason: String) -> ReplayError {
    ReplayError::Operation { number, operation: passes::name(operation), reason }
}

/// Number of tensors in a graph.
pub(super) fn tensors(code: &GraphCode) -> usize {
    let made: usize = code.operations.iter().map(|operation| operation.outputs().count()).sum();
    code.inputs.len() + code.constants.len() + made
}

/// Creates a backend tensor from elements. Booleans are converted to the device's encoding.
fn handle<B: Bridge>(data: TensorData, device: &Device, backend_device: &B::Device) -> Result<HandleKind<B>, String> {
    let data = match data.dtype() {
        burn::tensor::DType::Bool(_) => data.convert_dtype(device.settings().bool_dtype.into()),
        _ => data,
    };
    B::inside(&Value::from_data(data, device)?, backend_device).ok_or_else(|| "it is on another device".to_owned())
}

/// Creates a backend tensor for the constant at this path.
pub(super) fn constant_handle<B: Bridge>(
    data: TensorData,
    device: &Device,
    backend_device: &B::Device,
    path: &str,
) -> Result<HandleKind<B>, ReplayError> {
    let constant_error =
        |reason| GraphError::Constant { path: path.to_owned(), reason: format!("cannot be created: {reason}") };
    handle::<B>(data, device, backend_device).map_err(|reason| constant_error(reason).into())
}

/// Runs one operation.
///
/// # Panics
/// If the backend panics.
pub(super) fn run<B: Bridge>(operation: &OperationIr, slots: &mut Slots<B>, device: &B::Device) {
    if !kernels::run(operation, slots) {
        interpret(operation, slots, device);
    }
}

/// Runs one operation with burn's own interpreter.
///
/// # Panics
/// If the backend panics.
pub(super) fn interpret<B: Bridge>(operation: &OperationIr, slots: &mut Slots<B>, device: &B::Device) {
    let mut interpreter = TensorInterpreter::<B>::new(device.clone());
    let mut operation = operation.clone();
    let mut seen = std::collections::HashSet::new();
    // Repeated operands are a single tensor in the interpreter, which removes it at its last use.
    for tensor in operation.inputs() {
        if seen.insert(tensor.id) {
            let read = TensorIr { status: TensorStatus::ReadOnly, ..tensor.clone() };
            interpreter.register_tensor_to_device(tensor.id, slots.operand(&read));
        }
    }
    let inputs: Vec<_> = operation.inputs().cloned().collect();
    for tensor in inputs.iter().filter(|tensor| tensor.status == TensorStatus::ReadWrite) {
        // The interpreter holds the operand; this empties its slot.
        slots.operand(tensor);
    }
    let outputs: Vec<_> = operation.outputs().cloned().collect();
    mark_last_uses(&mut operation);
    interpreter.register_op(operation);
    for out in outputs {
        let last_use = TensorIr { status: TensorStatus::ReadWrite, ..out.clone() };
        slots.put(&out, interpreter.get_tensor(&last_use));
    }
}

/// Marks every operand as its last use: no other operation uses the interpreter's tensors.
fn mark_last_uses(operation: &mut OperationIr) {
    passes::last_uses(std::slice::from_mut(operation), &Default::default());
}
