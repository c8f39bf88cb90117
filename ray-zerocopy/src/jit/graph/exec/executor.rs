//! Runs a graph on one backend.
//!
//! Each tensor of the graph has a slot. Constants stay in theirs; what an operation gives is taken out by the operation that uses
//! it last, which may so compute in its place.

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::{DType, Device, TensorData};
use burn_ir::{HandleKind, OperationIr, TensorIr, TensorStatus};
use burn_router::TensorInterpreter;

use super::Execute;
use super::backend::Bridge;
use super::kernels;
use super::plan::ExecutionPlan;
use super::plan_cache::PlanCache;
use crate::arena::arena::Arena;
use crate::error::graph::{GraphError, ReplayError};
use crate::jit::graph::code::{GraphCode, Source};
use crate::jit::graph::decode::Entries;
use crate::jit::graph::passes;
use crate::panics;
use crate::tensor::copied::CopiedTensor;
use crate::tensor::value::Value;

/// The tensors of a run.
pub(super) struct Slots<B: Bridge>(pub(super) Vec<Option<HandleKind<B>>>);

impl<B: Bridge> Slots<B> {
    /// The tensor that an operation reads; out of its slot if nobody reads it afterwards.
    pub(super) fn operand(&mut self, tensor: &TensorIr) -> HandleKind<B> {
        let slot = self.0.get_mut(tensor.id.value() as usize).and_then(|slot| match tensor.status {
            TensorStatus::ReadWrite => slot.take(),
            TensorStatus::ReadOnly | TensorStatus::NotInit => slot.clone(),
        });
        slot.unwrap_or_else(|| panic!("tensor {} is not there", tensor.id.value()))
    }

    pub(super) fn put(&mut self, tensor: &TensorIr, handle: HandleKind<B>) {
        if let Some(slot) = self.0.get_mut(tensor.id.value() as usize) {
            *slot = Some(handle);
        }
    }
}

pub(super) struct Executor<B: Bridge> {
    code: Arc<GraphCode>,
    device: Device,
    own: B::Device,
    arena: Arena,
    slots: Slots<B>,
    /// Which slots are constants of all sizes.
    constants: Vec<Option<HandleKind<B>>>,
    /// Ready to run.
    instances: PlanCache<ExecutionPlan<B>>,
}

impl<B: Bridge> Executor<B> {
    /// Makes the constants: those of the arena are borrowed where the backend can.
    pub(super) fn new(
        code: &Arc<GraphCode>,
        arena: &Arena,
        device: &Device,
        own: B::Device,
    ) -> Result<(Self, Vec<CopiedTensor>), ReplayError> {
        let count = tensors(code);
        let mut constants: Vec<Option<HandleKind<B>>> = (0..count).map(|_| None).collect();
        let entries = Entries::of(arena);
        let mut copied = Vec::new();
        let mut known: HashMap<&str, HandleKind<B>> = HashMap::new();
        for (at, constant) in code.constants.iter().enumerate() {
            let slot = &mut constants[code.inputs.len() + at];
            let Source::Entry(path) = &constant.source else {
                // What depends on sizes is made for each.
                if let Some(data) = constant.data(&[]) {
                    *slot = Some(constant_handle::<B>(data, device, &own, &path_of(at))?);
                }
                continue;
            };
            if let Some(known) = known.get(path.as_str()) {
                *slot = Some(known.clone());
                continue;
            }
            let entry = entries.find(path, constant)?;
            let data = TensorData::from_bytes(arena.borrow(entry.blob), entry.shape.clone(), entry.dtype);
            let bytes = data.as_bytes().len() as u64;
            let made = constant_handle::<B>(data, device, &own, path)?;
            if bytes > 0 && !B::address(&made).is_some_and(|address| arena.contains(address)) {
                copied.push(CopiedTensor { path: path.clone(), bytes });
            }
            known.insert(path, made.clone());
            *slot = Some(made);
        }
        let slots = Slots(constants.clone());
        let player = Self {
            code: Arc::clone(code),
            device: device.clone(),
            own,
            arena: arena.clone(),
            slots,
            constants,
            instances: PlanCache::new(),
        };
        Ok((player, copied))
    }

    /// The operations at these sizes, in front of the others.
    fn instance(&mut self, sizes: &[usize]) -> Result<(), ReplayError> {
        if self.instances.use_again(sizes) {
            return Ok(());
        }
        let mut instance = ExecutionPlan::<B>::new(&self.code, sizes, &self.device, &self.own)?;
        self.prepare(&mut instance)?;
        let bytes = instance.bytes();
        self.instances.add(sizes, instance, bytes);
        Ok(())
    }

    /// Runs what depends on constants alone, if its results cost nothing to keep, and keeps them.
    fn prepare(&mut self, instance: &mut ExecutionPlan<B>) -> Result<(), ReplayError> {
        instance.fixed.iter().for_each(|(id, handle)| self.slots.0[*id] = Some(handle.clone()));
        let candidates = instance.constant_only(self.code.inputs.len());
        let mut done = vec![false; instance.steps.len()];
        for at in candidates {
            let step = &instance.steps[at];
            let ready = step
                .operation
                .inputs()
                .all(|tensor| self.slots.0.get(tensor.id.value() as usize).is_some_and(Option::is_some));
            if !ready {
                continue;
            }
            // Their operands are constants, which stay.
            let mut operation = step.operation.clone();
            passes::last_uses(
                std::slice::from_mut(&mut operation),
                &step.operation.inputs().map(|tensor| tensor.id).collect(),
            );
            let ran = panics::caught(|| run(&operation, &mut self.slots, &self.own));
            ran.map_err(|reason| failed(at, &operation, reason))?;
            let outputs: Vec<_> = operation.outputs().map(|tensor| tensor.id.value() as usize).collect();
            let bytes = operation.outputs().map(|out| out.shape.num_elements() * out.dtype.size()).sum::<usize>();
            let cheap = |id: &usize| {
                let handle = self.slots.0[*id].as_ref();
                bytes <= passes::SMALL
                    || handle.is_some_and(|handle| match B::address(handle) {
                        Some(address) => self.arena.contains(address),
                        None => passes::is_view(&operation),
                    })
            };
            match outputs.iter().all(cheap) {
                true => {
                    // What is larger is a view, of what is counted already or of the arena.
                    instance.fixed_bytes += if bytes <= passes::SMALL { bytes } else { 0 };
                    for id in outputs {
                        instance.fixed.extend(self.slots.0[id].clone().map(|handle| (id, handle)));
                    }
                    done[at] = true;
                }
                false => outputs.iter().for_each(|id| self.slots.0[*id] = None),
            }
        }
        instance.finish(&self.code, &done);
        instance.fixed.iter().for_each(|(id, _)| self.slots.0[*id] = None);
        Ok(())
    }

    /// After a run that failed, or left something: constants, and nothing else.
    fn reset(&mut self) {
        self.slots.0.clone_from(&self.constants);
    }

    fn run(&mut self, inputs: Vec<Value>) -> Result<Vec<Value>, ReplayError> {
        let Self { code, device, own, slots, instances, .. } = self;
        let unready = || GraphError::Corrupted { reason: "nothing is ready to run".to_owned() };
        let instance = instances.front().ok_or_else(unready)?;
        for (at, (value, port)) in inputs.into_iter().zip(&code.inputs).enumerate() {
            let wrong = |reason: String| ReplayError::Input {
                name: port.name.clone(),
                expected: "a tensor that its device can read".to_owned(),
                found: reason,
            };
            slots.0[at] = Some(match B::inside(&value, own) {
                Some(handle) => handle,
                None => {
                    let data = value.data().map_err(wrong)?;
                    drop(value);
                    handle::<B>(data, device, own).map_err(wrong)?
                }
            });
        }
        instance.fixed.iter().for_each(|(id, handle)| slots.0[*id] = Some(handle.clone()));
        let mut at = 0;
        let ran = panics::caught(|| {
            for step in &instance.steps {
                run(&step.operation, slots, own);
                step.unused.iter().for_each(|id| slots.0[*id] = None);
                at += 1;
            }
        });
        ran.map_err(|reason| failed(instance.steps[at].number, &instance.steps[at].operation, reason))?;
        let output = |port: &crate::jit::graph::code::Port| {
            let handle = slots.0.get(port.id.value() as usize).cloned().flatten();
            handle.and_then(B::outside).ok_or_else(|| {
                let reason = format!("output `{}` is made by no operation", port.name);
                ReplayError::from(GraphError::Corrupted { reason })
            })
        };
        let outputs = code.outputs.iter().map(output).collect();
        instance.leave(slots, code.inputs.len());
        outputs
    }
}

impl<B: Bridge> Execute for Executor<B> {
    fn play(&mut self, sizes: &[usize], inputs: Vec<Value>) -> Result<Vec<Value>, ReplayError> {
        let outputs = self.instance(sizes).and_then(|()| self.run(inputs));
        if outputs.is_err() {
            self.reset();
        }
        outputs
    }

    fn empty(&self, outputs: Vec<(DType, Vec<usize>)>) -> Result<Vec<Value>, ReplayError> {
        let make = |(at, (dtype, shape)): (usize, (DType, Vec<usize>))| {
            let data = TensorData::from_bytes_vec(Vec::new(), shape, dtype);
            let made = handle::<B>(data, &self.device, &self.own).map(B::outside);
            let name = || self.code.outputs.get(at).map(|port| port.name.clone()).unwrap_or_default();
            made.and_then(|made| made.ok_or_else(|| "it is quantised".to_owned())).map_err(|reason| {
                GraphError::Corrupted { reason: format!("output `{}` cannot be made empty: {reason}", name()) }.into()
            })
        };
        outputs.into_iter().enumerate().map(make).collect()
    }
}

fn path_of(at: usize) -> String {
    format!("constant {at}")
}

fn failed(number: usize, operation: &OperationIr, reason: String) -> ReplayError {
    ReplayError::Operation { number, operation: passes::name(operation), reason }
}

/// How many tensors there are in a graph.
pub(super) fn tensors(code: &GraphCode) -> usize {
    let made: usize = code.operations.iter().map(|operation| operation.outputs().count()).sum();
    code.inputs.len() + code.constants.len() + made
}

/// Elements on a backend. Booleans are stored as the device does.
fn handle<B: Bridge>(data: TensorData, device: &Device, own: &B::Device) -> Result<HandleKind<B>, String> {
    let data = match data.dtype() {
        burn::tensor::DType::Bool(_) => data.convert_dtype(device.settings().bool_dtype.into()),
        _ => data,
    };
    B::inside(&Value::from_data(data, device)?, own).ok_or_else(|| "it is on another device".to_owned())
}

/// The same, of a constant of this name.
pub(super) fn constant_handle<B: Bridge>(
    data: TensorData,
    device: &Device,
    own: &B::Device,
    path: &str,
) -> Result<HandleKind<B>, ReplayError> {
    let wrong = |reason| GraphError::Constant { path: path.to_owned(), reason: format!("cannot be made: {reason}") };
    handle::<B>(data, device, own).map_err(|reason| wrong(reason).into())
}

/// Runs one operation.
///
/// # Panics
/// As the backend does.
pub(super) fn run<B: Bridge>(operation: &OperationIr, slots: &mut Slots<B>, device: &B::Device) {
    if !kernels::run(operation, slots) {
        interpret(operation, slots, device);
    }
}

/// Runs one operation by burn's own interpreter.
///
/// # Panics
/// As the backend does.
pub(super) fn interpret<B: Bridge>(operation: &OperationIr, slots: &mut Slots<B>, device: &B::Device) {
    let mut interpreter = TensorInterpreter::<B>::new(device.clone());
    let mut operation = operation.clone();
    let mut seen = std::collections::HashSet::new();
    // An operand that comes twice is one tensor of the interpreter, which takes it out at its last use.
    for tensor in operation.inputs() {
        if seen.insert(tensor.id) {
            let read = TensorIr { status: TensorStatus::ReadOnly, ..tensor.clone() };
            interpreter.register_tensor_to_device(tensor.id, slots.operand(&read));
        }
    }
    let inputs: Vec<_> = operation.inputs().cloned().collect();
    for tensor in inputs.iter().filter(|tensor| tensor.status == TensorStatus::ReadWrite) {
        drop(slots.operand(tensor));
    }
    let outputs: Vec<_> = operation.outputs().cloned().collect();
    whole(&mut operation);
    interpreter.register_op(operation);
    for out in outputs {
        let own = TensorIr { status: TensorStatus::ReadWrite, ..out.clone() };
        slots.put(&out, interpreter.get_tensor(&own));
    }
}

/// Hands every operand to the operation: nobody else has the interpreter's.
fn whole(operation: &mut OperationIr) {
    passes::last_uses(std::slice::from_mut(operation), &Default::default());
}
